//! A name becomes a path: local directories as they are, hub ids through the cache.

mod cache;
mod digest;
mod download;
mod error;
mod http;
mod hub;
mod inspect;
mod name;
mod precision;
mod speaker;

use std::path::{Path, PathBuf};

use models::{ADAPTER_CONFIG, Adapter, BundleSource, bundled};

pub use cache::{Cache, Cached};
pub use digest::{Digest, sha256};
pub use error::Error;
pub use hub::{Hub, HubOptions, Progress};
pub use inspect::{FileSummary, Summary, architecture, files, size_bytes};
pub use name::{Name, Repository};
pub use precision::{ErrorRates, PRECISION_FILE, PrecisionCost, PrecisionCosts};
pub use speaker::SpeakerSummary;

/// The files of the model that `spec` names, an adapter's with those of its base; fetches them when they are not on this machine.
pub fn resolve(spec: &str, hub: &Hub, progress: &mut dyn FnMut(Progress<'_>)) -> Result<BundleSource, Error> {
    match Name::parse(spec)? {
        Name::Directory(path) if Adapter::is_in(&path) => adapted(path, hub, progress),
        Name::Directory(path) => Ok(BundleSource::Dir(path)),
        Name::Bundled(name) => bundled(&name)
            .ok_or_else(|| Error::Name { message: "is not part of this program".to_owned(), spec: name }),
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

/// An adapter on the base that it names: beside itself, or wherever models are.
fn adapted(dir: PathBuf, hub: &Hub, progress: &mut dyn FnMut(Progress<'_>)) -> Result<BundleSource, Error> {
    let refuse = |message: String| Error::File { path: dir.join(ADAPTER_CONFIG), message };
    let adapter = Adapter::open(&dir).map_err(|error| refuse(error.to_string()))?;
    let Some(base) = adapter.base() else {
        return Err(refuse("base_model_name_or_path is missing: nothing says what it adapts".to_owned()));
    };
    let beside = dir.join(base);
    // Looked at before it is resolved: adapters that name each other have no end.
    if Adapter::is_in(&beside) || Adapter::is_in(Path::new(base)) {
        return Err(refuse(
            "its base is an adapter itself; merge that one first (speechd models merge)".to_owned(),
        ));
    }
    let base = if beside.join("config.json").is_file() {
        BundleSource::Dir(beside)
    } else {
        resolve(base, hub, progress).map_err(|error| refuse(format!("its base: {error}")))?
    };
    Ok(BundleSource::Adapted { base: Box::new(base), adapter: dir })
}
