//! What is wrong with data, before a training run finds out: recordings, texts, and what splits share.

mod finding;
mod recordings;
mod shared;
mod texts;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

pub use finding::{Finding, Group, Kind, Report, Severity};
pub use texts::Spelling;

use super::{
    manifest::{Cut, Error, Needs, Reader, Reason, Rejected, check_any_good},
    tokens::Tokens,
};

/// What to look at.
#[derive(Default)]
pub struct Options {
    /// The vocabulary that texts have to be spelled with.
    pub tokens: Option<Tokens>,
    /// Leave the recordings alone: only rows and texts.
    pub skip_audio: bool,
    /// Leave those alone that are left once this is set: whoever sets it has no use for the report.
    pub stop: Option<Arc<AtomicBool>>,
}

/// A cut and where it stands.
struct Placed {
    cut: Cut,
    /// Which of the manifests.
    manifest: usize,
    line: u64,
}

/// What the checks share.
struct Corpus {
    manifests: Vec<Arc<std::path::Path>>,
    cuts: Vec<Placed>,
}

impl Corpus {
    fn finding(&self, kind: Kind, placed: &Placed, detail: String) -> Finding {
        Finding {
            kind,
            manifest: self.manifests[placed.manifest].clone(),
            line: Some(placed.line),
            id: Some(placed.cut.id.clone()),
            detail,
        }
    }

    /// Where a cut stands, for the detail of another one.
    fn place(&self, placed: &Placed) -> String {
        format!("{} ({}:{})", placed.cut.id, self.manifests[placed.manifest].display(), placed.line)
    }
}

/// Reads manifests, each a split, and looks for everything in [`Kind`]. Each recording is decoded once, in parallel; `progress`
/// hears how many recordings of how many were looked at, from several threads.
///
/// # Errors
/// A manifest that cannot be opened, or one of whose rows none can be used.
pub fn check(
    manifests: &[PathBuf],
    options: &Options,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Report, Error> {
    let mut corpus = Corpus { manifests: Vec::new(), cuts: Vec::new() };
    let mut report = Report::default();
    for (index, path) in manifests.iter().enumerate() {
        let mut reader = Reader::open(path, Needs { text: false, audio: false, ..Needs::default() })?;
        let (n_before, mut rejected) = (corpus.cuts.len(), Vec::new());
        while let Some(row) = reader.next() {
            match row {
                Ok(cut) => corpus.cuts.push(Placed { cut, manifest: index, line: reader.line() }),
                Err(row) => rejected.push(row),
            }
        }
        // A manifest may be one of texts, but among recordings a row without one is a mistake.
        if corpus.cuts[n_before..].iter().any(|placed| placed.cut.has_audio()) {
            let (file, reason) = (reader.file(), Reason::Missing("audio_filepath"));
            rejected.extend(corpus.cuts.extract_if(n_before.., |placed| !placed.cut.has_audio()).map(
                |placed| Rejected { file: file.clone(), line: Some(placed.line), reason: reason.clone() },
            ));
        }
        check_any_good(path, (corpus.cuts.len() - n_before) as u64, &rejected)?;
        corpus.manifests.push(reader.file().clone());
        if corpus.cuts.len() == n_before {
            report.findings.push(Finding {
                kind: Kind::EmptyManifest,
                manifest: reader.file().clone(),
                line: None,
                id: None,
                detail: "has no rows".to_owned(),
            });
        }
        report.findings.extend(rejected.into_iter().map(|row| Finding {
            kind: Kind::BadRow,
            detail: row.reason.to_string(),
            manifest: row.file,
            line: row.line,
            id: None,
        }));
    }
    report.n_cuts = corpus.cuts.len();
    // The sum of no numbers is -0.
    report.total_secs = corpus.cuts.iter().fold(0.0, |secs, placed| secs + placed.cut.duration_secs);
    if !options.skip_audio {
        recordings::check(&corpus, options.stop.as_deref(), progress, &mut report.findings);
    }
    report.spelling = texts::check(&corpus, options.tokens.as_ref(), &mut report.findings);
    shared::check(&corpus, &mut report.findings);
    Ok(report)
}
