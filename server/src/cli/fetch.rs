//! A model by its name: where its files are, fetched with their progress shown if need be.

use models::BundleSource;

use super::progress::{Download, Style};
use crate::{
    config::Config,
    registry::{self, Hub},
};

/// The files of the model that `spec` names.
pub(super) fn fetch(spec: &str, config: &Config, style: Style) -> Result<BundleSource, registry::Error> {
    let mut download = Download::new(style);
    let source = registry::resolve(spec, &Hub::new(config.hub_options()), &mut |at| download.update(at));
    download.clear();
    source
}
