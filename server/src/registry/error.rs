//! Why a name did not become a path. Each message says the thing, the value and the next step.

use std::{io, path::PathBuf};

/// Failure of finding, fetching or reading a bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is neither a directory nor a hub id.
    #[error("model `{spec}`: {message}")]
    Name {
        /// What the user wrote.
        spec: String,
        /// What is wrong with it and what to write instead.
        message: String,
    },
    /// The hub does not have it, or not for this user.
    #[error("{what} on {endpoint}: {message}")]
    Refused {
        /// The repository or file.
        what: String,
        /// The hub.
        endpoint: String,
        /// The hub's answer and what to do.
        message: String,
    },
    /// The repository exists but holds nothing that can be run.
    #[error("model `{id}`: {message}")]
    Contents {
        /// The repository.
        id: String,
        /// What is missing or malformed.
        message: String,
    },
    /// The network is off and the cache does not have it.
    #[error("model `{id}` is not in the cache {} and HF_HUB_OFFLINE forbids fetching it; unset HF_HUB_OFFLINE or copy it there", cache.display())]
    Offline {
        /// The repository.
        id: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The connection failed and kept failing.
    #[error("{url}: {message} (tried {attempts} times); check the network, or set HF_ENDPOINT to a mirror")]
    Network {
        /// What was asked for.
        url: String,
        /// The last failure.
        message: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// What arrived is not what the hub announced.
    #[error("{file}: {what} is {actual}, the hub announced {expected}; the download was deleted, try again")]
    Mismatch {
        /// The file in the repository.
        file: String,
        /// Size or digest.
        what: &'static str,
        /// As received.
        actual: String,
        /// As announced.
        expected: String,
    },
    /// The cache cannot be written.
    #[error("{}: {message}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What to do, where that is known.
        message: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No directory, and the hub does not give it either: perhaps a mistyped path.
    #[error("there is no directory `{spec}` here, and the hub does not give it: {cause}")]
    Nowhere {
        /// What the user wrote.
        spec: String,
        /// What the hub said.
        cause: Box<Error>,
    },
    /// The bundle cannot be opened.
    #[error(transparent)]
    Bundle(#[from] models::Error),
    /// A file of a bundle cannot be understood.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl Error {
    /// Wraps an I/O failure; a full disk and a forbidden directory say what to do.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let message = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "the disk is full; free some space or point HF_HUB_CACHE to another disk"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "not permitted; point HF_HUB_CACHE to a directory that can be written"
            }
            io::ErrorKind::NotFound => "not found",
            _ => "cannot be read or written",
        };
        Self::Io { path: path.into(), message: message.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = Error::io("/cache/blob", io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(
            error.to_string(),
            "/cache/blob: the disk is full; free some space or point HF_HUB_CACHE to another disk"
        );
    }
}
