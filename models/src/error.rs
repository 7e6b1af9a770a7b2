//! What can go wrong between a bundle and a transcript, as far as a caller has to tell the cases apart.

use std::path::{Path, PathBuf};

/// Failure of loading a bundle or of running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that the bundle needs is not there or cannot be read.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// A file's contents are not usable; names the key.
    #[error("{}: `{key}`: {message}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The configuration key or tensor name.
        key: String,
        /// What is wrong with its value.
        message: String,
    },
    /// The caller asked for something that this model or these options cannot do.
    #[error("{option}: {message}")]
    Option {
        /// The option's name, as in `DecodeOptions`.
        option: &'static str,
        /// What is wrong with the value and what is allowed.
        message: String,
    },
    /// The audio cannot be turned into this model's features.
    #[error(transparent)]
    Audio(audio::Error),
    /// The text cannot be turned into token ids or back.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// Nobody waits for the result any more.
    #[error("given up: nobody waits for the result any more")]
    Cancelled,
    /// The model computed NaN or infinity, of which no text can be made.
    #[error(
        "the model's {what} are not finite numbers; its weights are damaged or too large for their precision: \
         try the checkpoint that it was made from"
    )]
    NotFinite {
        /// What it computed.
        what: &'static str,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl From<audio::Error> for Error {
    fn from(error: audio::Error) -> Self {
        match error {
            audio::Error::Cancelled => Self::Cancelled,
            error => Self::Audio(error),
        }
    }
}

impl Error {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over errors and texts that they just made"
    )]
    pub(crate) fn file(path: &Path, message: impl ToString) -> Self {
        Self::File { path: path.to_owned(), message: message.to_string() }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over errors and texts that they just made"
    )]
    pub(crate) fn key(path: &Path, key: impl Into<String>, message: impl ToString) -> Self {
        Self::Key { path: path.to_owned(), key: key.into(), message: message.to_string() }
    }

    pub(crate) fn option(option: &'static str, message: impl Into<String>) -> Self {
        Self::Option { option, message: message.into() }
    }
}
