//! Why a manifest or a corpus is of no use at all.

use std::path::{Path, PathBuf};

use super::Rejected;

/// What ends the work, unlike a bad row, which is skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder that cannot be opened, read or written, or is not what it should be.
    #[error("{}: {message}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do about it.
        message: String,
    },
    /// Every row was rejected.
    #[error("{}: none of its {n_rejected} rows can be used; the first: {first}", .path.display())]
    NoGoodRow {
        /// The manifest, or the corpus.
        path: PathBuf,
        /// How many rows there are.
        n_rejected: usize,
        /// The first of them.
        first: Box<Rejected>,
    },
    /// A program that is not there, or failed.
    #[error("{name}: {message}")]
    Program {
        /// The program.
        name: String,
        /// What is wrong, and what to do about it.
        message: String,
    },
    /// A folder in no layout that is known, a corpus that is not there, or an option that cannot be.
    #[error("{0}")]
    Corpus(String),
}

impl Error {
    /// Every row of `path` was rejected; `None` where there was none to reject.
    pub(crate) fn no_good_row(path: &Path, rejected: &[Rejected]) -> Option<Self> {
        let first = Box::new(rejected.first()?.clone());
        Some(Self::NoGoodRow { path: path.to_owned(), n_rejected: rejected.len(), first })
    }

    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), message: message.into() }
    }

    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "not permitted".to_owned(),
            _ => error.to_string(),
        };
        Self::file(path, message)
    }
}

/// A manifest without one good row is a mistake, not an empty data set.
pub(crate) fn check_any_good(path: &Path, n_cuts: u64, rejected: &[Rejected]) -> Result<(), Error> {
    match Error::no_good_row(path, rejected) {
        Some(error) if n_cuts == 0 => Err(error),
        _ => Ok(()),
    }
}
