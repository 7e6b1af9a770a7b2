//! A run that teaches a vocoder: its recordings, and the features that it will speak.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use models::params::Params;
use models::vocos::VocosConfig;
use models::{DeviceChoice, Weights};

use super::folder::keep_settings;
use super::manifests::{read_cuts, weights_of_cuts};
use super::model::decide_length;
use super::{Assembled, Bases, Progress};
use crate::Error;
use crate::config::RunConfig;
use crate::data::manifest::Needs;
use crate::task::vocode::{Corpus, Sounds, Vocode};
use crate::task::{Data as _, Learner as _};

/// Reads the data and the model. `stop` is that of a run, and the folder from now on that of one with these settings; without it
/// nothing is written.
pub(super) fn assemble(
    config: &RunConfig,
    bases: &Bases,
    dir: &Path,
    stop: Option<&AtomicBool>,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Assembled<Vocode, Corpus>, Error> {
    let device = config.train.device.open()?;
    let (vocos, params) = match &bases.base {
        Some(base) => {
            let vocos = VocosConfig::read(base)?;
            let params = Params::trainable(Weights::from_source(base)?, &device);
            (vocos, params)
        }
        None => {
            let vocos = config.vocoder.vocos();
            vocos.check("[vocoder]".as_ref())?;
            (vocos, Params::seeded(config.seed, &device))
        }
    };
    let mut config = config.clone();
    config.train.device = DeviceChoice::of(&device);
    if stop.is_some() {
        keep_settings(&config, dir)?;
    }
    let needs = Needs { text: false, recording: true, ..Needs::default() };
    let mut read = |entries: &[String], what: &str| read_cuts(entries, what, needs, None, &config, dir, tell);
    let (train, counts) = read(&config.data.train, "data.train")?;
    let (dev, _) = read(&config.data.dev, "data.dev")?;
    let weights = weights_of_cuts(&config, &counts);
    let (n_train, train_secs) = (train.len(), train.iter().map(|cut| cut.duration_secs).sum());
    let (task, corpus) = Vocode::new(params, &vocos, &config, Sounds { train, weights, dev })?;
    let padding = corpus.padding(0)?;
    let (n_dev, n_parameters) = (task.n_held_out(), task.n_parameters().0 as usize);
    tell(Progress::Data { n_train, train_secs, n_dev, padding: &padding, n_parameters });
    decide_length(&mut config, &corpus);
    Ok(Assembled { config, task, corpus, padding, n_train, train_secs, n_dev, n_parameters })
}
