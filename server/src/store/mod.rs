//! What the service keeps on the disk.

mod folder;
mod lock;
mod voices;

pub use voices::{Consent, StoredVoice, VoiceStore};

use std::{io, path::PathBuf, sync::Arc};

/// Why something could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As many are kept as may.
    #[error("{limit} {what} are kept, and no more; delete one first")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The consent that a voice needs is not there.
    #[error("{0} is not a consent that was given here; POST /v1/audio/voice_consents takes one")]
    NoConsent(String),
    /// Nobody says where to keep anything.
    #[error("there is none: the user has no home directory (HOME); say where in the configuration")]
    NoFolder,
    /// Another server keeps its own there.
    #[error("{}: another server has it, {owner}; give each a folder of its own (voices.folder)", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
        /// Whose it is, as that one wrote it.
        owner: String,
    },
    /// Nothing can be kept or found, for this reason.
    #[error(transparent)]
    Closed(Arc<Error>),
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file holds something else than what was written into it.
    #[error("{}: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// The thread that was to do it came to grief.
    #[error("the work was not done: {0}")]
    Thread(String),
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        match &error {
            Error::Full { what, limit } => Self::LimitReached { what, limit: *limit },
            Error::NoConsent(_) => Self::invalid("consent", error.to_string()),
            Error::Closed(cause) => {
                tracing::debug!("no voices: {cause}");
                Self::NoVoices
            }
            Error::NoFolder
            | Error::Taken { .. }
            | Error::Io { .. }
            | Error::Damaged { .. }
            | Error::Random(_)
            | Error::Thread(_) => Self::internal(error),
        }
    }
}
