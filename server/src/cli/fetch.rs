//! A model by its name: where its files are, fetched with their progress shown if need be.

use models::{BundleSource, Part, Task, bundled_for, bundled_speaker};
use recipes::config::RunConfig;

use super::{
    Usage,
    progress::{Download, Style},
};
use crate::{
    config::Config,
    registry::{self, Hub},
};

/// The model that was named, on the command line or in the settings (empty for none), else the one for the task that is part of the
/// program.
pub(super) fn named_or_own(named: &str, task: Task) -> Result<&str, Usage> {
    let own = bundled_for(task);
    Some(named).filter(|named| !named.is_empty()).or(own).ok_or_else(|| {
        let message = "no model: give --model a directory or a hub id such as openai/whisper-base, \
                       or set `model` under [transcribe] in speechd.toml";
        Usage(message.to_owned())
    })
}

/// The model that is to speak, the one that is part of the program where none was named.
pub(super) fn named_or_own_speaker(named: &str) -> Result<&str, Usage> {
    let own = bundled_speaker();
    Some(named).filter(|named| !named.is_empty()).or(own).ok_or_else(|| {
        let message = "no model that speaks: give --model a directory or a hub id of one, or set `model` under [speak] in \
                       speechd.toml";
        Usage(message.to_owned())
    })
}

/// The files of the draft that `spec` names; empty names none.
pub(super) fn fetch_draft(
    spec: &str,
    config: &Config,
    style: Style,
) -> Result<Option<BundleSource>, registry::Error> {
    (!spec.is_empty()).then(|| fetch(spec, config, style)).transpose()
}

/// The files of the model that `spec` names.
pub(super) fn fetch(spec: &str, config: &Config, style: Style) -> Result<BundleSource, registry::Error> {
    let mut download = Download::new(style);
    let source = registry::resolve(spec, &Hub::new(config.hub_options()), &mut |at| download.update(at));
    download.clear();
    source
}

/// The files of the models that a run takes parts of.
pub(super) fn fetch_parts(
    run: &RunConfig,
    config: &Config,
    style: Style,
) -> Result<Vec<(Part, BundleSource)>, registry::Error> {
    run.model.parts.named().map(|(part, spec)| Ok((part, fetch(spec, config, style)?))).collect()
}
