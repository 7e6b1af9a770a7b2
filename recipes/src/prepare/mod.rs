//! Corpora become manifests: one file for each layout that they come in.
//!
//! A layout only lists what a folder says (`Listing`). Lengths, missing splits and rejected rows are the same for all and are
//! seen to here.

mod audiofolder;
mod common_voice;
mod corpus;
mod digits;
mod esc;
mod folder;
mod fsdd;
mod join;
mod jsonl;
mod kaldi;
mod layout;
mod ljspeech;
mod measure;
mod parallel_text;
#[cfg(feature = "parquet")]
mod parquet;
mod partition;
mod phonemes;
mod synthesis;
mod table;
mod unpack;
mod webdataset;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::data::manifest::{Cut, Error, Interner, Reason, Rejected, Row};

pub use corpus::{CORPORA, Corpus, locate};
pub use join::{JoinOptions, join_cuts};
pub use layout::Layout;
pub use phonemes::add_phonemes;
pub use synthesis::{Set, SynthesisOptions, synthesize, texts};
pub use write::{REJECTED_FILE, check_free, write};

/// Which part of a corpus; a manifest holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// To learn from.
    Train,
    /// To choose by.
    Dev,
    /// To report on.
    Test,
    /// To learn from what is written alone: texts with their translations, without recordings, beside a train set of recordings.
    Text,
}

impl Split {
    /// Those of a corpus, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Train, Self::Dev, Self::Test];

    /// As its manifest is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
            Self::Text => "text",
        }
    }

    /// The split that a file's or folder's name speaks of, as people call them (`validation`, `train-clean-100`).
    fn in_name(name: &str) -> Option<Self> {
        name.split(|c: char| !c.is_ascii_alphabetic()).find_map(|word| match &*word.to_ascii_lowercase() {
            "train" | "training" => Some(Self::Train),
            "dev" | "development" | "valid" | "validation" | "val" => Some(Self::Dev),
            "test" | "testing" | "eval" | "evaluation" => Some(Self::Test),
            _ => None,
        })
    }
}

/// What is wanted of a corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The folder's layout; `None` looks.
    pub layout: Option<Layout>,
    /// The language where the corpus states none; of Common Voice with several, the one to take; of texts side by side, the one that
    /// is translated.
    pub language: Option<String>,
    /// The share of all that becomes the dev set where there is none, 0 to 0.5.
    pub dev_fraction: f64,
    /// The share of all that becomes the test set where there is none, 0 to 0.5.
    pub test_fraction: f64,
    /// A speaker whose recordings, all of them, are the test set, and no others.
    pub leave_out_speaker: Option<String>,
    /// The folder from which the paths in manifests count, where it is not the manifest's.
    pub audio_root: Option<PathBuf>,
    /// Where recordings go that lie in archives.
    pub unpack_into: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            layout: None,
            language: None,
            dev_fraction: 0.05,
            test_fraction: 0.05,
            leave_out_speaker: None,
            audio_root: None,
            unpack_into: None,
        }
    }
}

/// A row of a corpus, before its recording was looked at.
struct Found {
    row: Row,
    /// As the corpus has it.
    split: Option<Split>,
    file: Arc<Path>,
    line: Option<u64>,
}

/// What a folder says.
#[derive(Default)]
struct Listing {
    found: Vec<Found>,
    rejected: Vec<Rejected>,
    /// The splits of rejected rows, where they are known.
    rejected_splits: BTreeSet<Split>,
    /// What the user should know, in whole sentences.
    notes: Vec<String>,
    /// Whether nothing is said in any recording, so that no text is no fault.
    is_wordless: bool,
    names: Interner,
}

impl Listing {
    /// Tells of recordings that no row speaks of.
    fn note_unlisted(&mut self, n_recordings: usize) {
        let n_rows = self.found.len() + self.rejected.len();
        if n_recordings > n_rows {
            self.notes
                .push(format!("{} recordings are in no table and were left out.", n_recordings - n_rows));
        }
    }

    fn reject(&mut self, file: &Arc<Path>, line: Option<u64>, reason: Reason) {
        self.rejected.push(Rejected { file: file.clone(), line, reason });
    }
}

/// A corpus as manifests are written of it.
#[derive(Debug)]
pub struct Prepared {
    /// The layout it came in.
    pub layout: Layout,
    /// The cuts of each split; none is empty.
    pub splits: BTreeMap<Split, Vec<Cut>>,
    /// What was skipped.
    pub rejected: Vec<Rejected>,
    /// What the user should know, in whole sentences.
    pub notes: Vec<String>,
}

/// Reads the corpus in `path`, measures its recordings in parallel, and makes the splits that it lacks.
///
/// `progress` hears how many recordings of how many were looked at, from several threads.
///
/// # Errors
/// A folder in no layout that is known or without one row that can be used; options that do not fit it.
pub fn prepare(
    path: &Path,
    options: &Options,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Prepared, Error> {
    let layout = match options.layout {
        Some(layout) => layout,
        None => Layout::detect(path)?,
    };
    if options.audio_root.is_some() && layout != Layout::Jsonl {
        let message =
            format!("paths of {layout} count from its own folder; only those of manifests can be moved");
        return Err(Error::Corpus(message));
    }
    let mut listing = layout.list(path, options)?;
    if let Some(name) = &options.leave_out_speaker {
        leave_out(name, path, &mut listing)?;
    }
    let found = std::mem::take(&mut listing.found);
    // Before recordings are looked at: what the corpus holds out stays held out, even where none of it can be used.
    let mut stated = std::mem::take(&mut listing.rejected_splits);
    stated.extend(found.iter().filter_map(|found| found.split));
    let left_out = options.leave_out_speaker.as_ref().and_then(|name| {
        let first = found.iter().find(|found| found.split == Some(Split::Test))?;
        Some((name, first.file.clone(), first.line))
    });
    let mut by_split = measure::measure(found, &mut listing, options, progress);
    if by_split.is_empty() {
        return Err(Error::no_good_row(path, &listing.rejected)
            .unwrap_or_else(|| Error::file(path, format!("holds nothing in the layout {layout}"))));
    }
    if let Some((name, file, line)) = left_out
        && !by_split.contains_key(&Some(Split::Test))
    {
        let first = listing.rejected.iter().find(|rejected| rejected.file == file && rejected.line == line);
        let first = first.map(|first| format!("; the first: {first}")).unwrap_or_default();
        let message = format!("speaker {name} cannot be left out: none of their rows can be used{first}");
        return Err(Error::file(path, message));
    }
    let mut splits = BTreeMap::new();
    let mut train = by_split.remove(&Some(Split::Train)).unwrap_or_default();
    train.extend(by_split.remove(&None).unwrap_or_default());
    // The share is of the whole, as the first to be taken leaves less.
    let total = train.iter().map(partition::share_of).sum::<f64>();
    for (split, fraction) in [(Split::Test, options.test_fraction), (Split::Dev, options.dev_fraction)] {
        if stated.contains(&split) || fraction == 0.0 || train.is_empty() {
            continue;
        }
        let taken = partition::take(&mut train, total * fraction);
        listing.notes.extend(taken.notes(split));
        splits.insert(split, taken.cuts);
    }
    splits.insert(Split::Train, train);
    splits.extend(by_split.into_iter().filter_map(|(split, cuts)| Some((split?, cuts))));
    splits.retain(|_, cuts| !cuts.is_empty());
    for split in stated.iter().filter(|split| !splits.contains_key(*split)) {
        listing
            .notes
            .push(format!("No {} set: the corpus has one, but none of its rows can be used.", split.name()));
    }
    Ok(Prepared { layout, splits, rejected: listing.rejected, notes: listing.notes })
}

/// Makes a speaker's recordings the test set. Those of others in it go nowhere: what is trained without a speaker stays comparable
/// with what is trained with all.
fn leave_out(name: &str, path: &Path, listing: &mut Listing) -> Result<(), Error> {
    let is_left_out = |found: &Found| found.row.cut.speaker.as_deref() == Some(name);
    if !listing.found.iter().any(is_left_out) {
        let mut known: Vec<_> =
            listing.found.iter().filter_map(|found| found.row.cut.speaker.as_deref()).collect();
        known.sort_unstable();
        known.dedup();
        let message = match known.as_slice() {
            [] => format!("no speaker {name} to leave out: it names no speakers"),
            known => format!("no speaker {name} to leave out; it has {}", some_of(known)),
        };
        return Err(Error::file(path, message));
    }
    let n_before = listing.found.len();
    listing.found.retain(|found| is_left_out(found) || found.split != Some(Split::Test));
    for found in &mut listing.found {
        if is_left_out(found) {
            found.split = Some(Split::Test);
        }
    }
    let n_dropped = n_before - listing.found.len();
    if n_dropped > 0 {
        listing.notes.push(format!(
            "{n_dropped} recordings of other speakers in the test set were left out: it is {name}'s alone."
        ));
    }
    Ok(())
}

/// Names, not more of them than can be read.
fn some_of(names: &[&str]) -> String {
    const N_SHOWN: usize = 20;
    let shown = names[..names.len().min(N_SHOWN)].join(", ");
    if names.len() > N_SHOWN { format!("{shown} and {} more", names.len() - N_SHOWN) } else { shown }
}

#[cfg(test)]
mod tests;
