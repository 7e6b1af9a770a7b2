//! Reading a manifest, row after row.

use std::{
    collections::VecDeque,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    Cut, Error, Interner, Reason, Rejected, error::check_any_good, lhotse, lines::Lines, nemo, object,
};

/// What a row must have to be of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// A text to write: a transcript or a translation.
    pub text: bool,
    /// What is said, where anything is: a translation alone will not do.
    pub transcript: bool,
    /// The name of its recording. Without this, a row that names none is a text, to be translated; it needs an `id`, and nothing
    /// that follows.
    pub audio: bool,
    /// Its recording, now, at its place.
    pub recording: bool,
    /// A length; without one the caller measures.
    pub duration: bool,
}

impl Default for Needs {
    /// What supervised training needs, recordings not looked for: opening them will tell.
    fn default() -> Self {
        Self { text: true, transcript: false, audio: true, recording: false, duration: true }
    }
}

/// A cut as a row states it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The cut; its length is 0 where the row states none.
    pub cut: Cut,
    /// Whether the row states a length.
    pub has_duration: bool,
}

/// A manifest that was read as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// In the order of the file.
    pub cuts: Vec<Cut>,
    /// What was skipped.
    pub rejected: Vec<Rejected>,
}

/// The rows of a manifest, one at a time, each a cut or the reason why it is none.
///
/// One Lhotse row can be several cuts.
pub struct Reader {
    file: Arc<Path>,
    folder: PathBuf,
    needs: Needs,
    lines: Lines,
    names: Interner,
    pending: VecDeque<Row>,
}

impl Reader {
    /// Opens a manifest, compressed with gzip or not. Paths in it count from its own folder.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn open(path: &Path, needs: Needs) -> Result<Self, Error> {
        Ok(Self::with_lines(path, needs, Lines::open(path)?))
    }

    /// Reads rows from anywhere, as if they stood in `path`.
    ///
    /// # Errors
    /// A source whose first bytes cannot be read.
    pub fn new(source: impl Read + Send + 'static, path: &Path, needs: Needs) -> Result<Self, Error> {
        Ok(Self::with_lines(path, needs, Lines::new(source).map_err(|error| Error::io(path, &error))?))
    }

    fn with_lines(path: &Path, needs: Needs, lines: Lines) -> Self {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let (names, pending) = (Interner::default(), VecDeque::new());
        Self { file: path.into(), folder, needs, lines, names, pending }
    }

    /// Lets relative paths count from another folder, as Lhotse's do from the one it was started in.
    pub fn count_from(&mut self, folder: &Path) {
        self.folder = folder.to_owned();
    }

    /// The file that is read.
    pub fn file(&self) -> &Arc<Path> {
        &self.file
    }

    /// The line of the last row, from 1.
    pub fn line(&self) -> u64 {
        self.lines.number()
    }

    /// The next row, with a length or without.
    pub fn next_row(&mut self) -> Option<Result<Row, Rejected>> {
        loop {
            if let Some(row) = self.pending.pop_front() {
                return Some(match self.check(&row) {
                    Ok(()) => Ok(row),
                    Err(reason) => Err(self.rejected(reason)),
                });
            }
            let parsed = match self.lines.next()? {
                Ok(line) => parse(line, &self.folder, self.needs.audio, &mut self.names),
                Err(reason) => Err(reason),
            };
            match parsed {
                Ok(rows) => self.pending.extend(rows),
                Err(reason) => return Some(Err(self.rejected(reason))),
            }
        }
    }

    /// The next row as it stands, whatever it means.
    pub(crate) fn next_object(&mut self) -> Option<Result<Map<String, Value>, Rejected>> {
        let parsed = self.lines.next()?.and_then(object::parse);
        Some(parsed.map_err(|reason| self.rejected(reason)))
    }

    fn check(&self, row: &Row) -> Result<(), Reason> {
        let has_audio = row.cut.has_audio();
        if self.needs.duration && !row.has_duration && has_audio {
            return Err(Reason::Missing("duration"));
        }
        if self.needs.text && row.cut.output_text().trim().is_empty() {
            return Err(Reason::EmptyText("text"));
        }
        if self.needs.transcript && row.cut.text.trim().is_empty() && row.cut.target_text.is_some() {
            return Err(Reason::Unsupported("has a translation and no transcript".to_owned()));
        }
        if self.needs.recording && has_audio && !row.cut.audio.is_file() {
            return Err(Reason::NoRecording(row.cut.audio.display().to_string()));
        }
        Ok(())
    }

    fn rejected(&self, reason: Reason) -> Rejected {
        Rejected { file: self.file.clone(), line: Some(self.line()), reason }
    }
}

impl Iterator for Reader {
    type Item = Result<Cut, Rejected>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().map(|row| row.map(|row| row.cut))
    }
}

fn parse(line: &[u8], folder: &Path, needs_audio: bool, names: &mut Interner) -> Result<Vec<Row>, Reason> {
    let object = object::parse(line)?;
    if lhotse::is_lhotse(&object) {
        return lhotse::parse(object, folder, names);
    }
    nemo::parse(object, folder, needs_audio, names).map(|row| vec![row])
}

/// A row under NeMo's names, wherever it stands.
pub(crate) fn row_of(object: Map<String, Value>, folder: &Path, names: &mut Interner) -> Result<Row, Reason> {
    nemo::parse(object, folder, true, names)
}

/// Reads a whole manifest.
///
/// # Errors
/// A file that cannot be opened, or one of whose rows none can be used.
pub fn read(path: &Path, needs: Needs) -> Result<Manifest, Error> {
    let (mut cuts, mut rejected) = (Vec::new(), Vec::new());
    for row in Reader::open(path, needs)? {
        match row {
            Ok(cut) => cuts.push(cut),
            Err(reason) => rejected.push(reason),
        }
    }
    check_any_good(path, cuts.len() as u64, &rejected)?;
    Ok(Manifest { cuts, rejected })
}
