//! A name becomes a path: local directories as they are, hub ids through the cache.

mod cache;
mod digest;
mod download;
mod error;
mod http;
mod hub;
mod inspect;
mod name;

use models::BundleSource;

pub use cache::{Cache, Cached};
pub use digest::{Digest, sha256};
pub use error::Error;
pub use hub::{Hub, HubOptions, Progress};
pub use inspect::{FileSummary, Summary, architecture, size_bytes};
pub use name::{Name, Repository};

/// The files of the model that `spec` names; fetches them when they are not on this machine.
pub fn resolve(spec: &str, hub: &Hub, progress: &mut dyn FnMut(Progress<'_>)) -> Result<BundleSource, Error> {
    match Name::parse(spec)? {
        Name::Directory(path) => Ok(BundleSource::Dir(path)),
        Name::Repository(repository) => {
            hub.resolve(&repository, progress).map(BundleSource::Dir).map_err(|error| match error {
                Error::Refused { .. } | Error::Network { .. } | Error::Offline { .. } => {
                    Error::Nowhere { spec: spec.to_owned(), cause: Box::new(error) }
                }
                error => error,
            })
        }
    }
}
