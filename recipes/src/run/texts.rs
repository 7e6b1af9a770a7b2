//! A run that teaches a model to translate texts: its pairs, its model, and how they are batched.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use models::{DeviceChoice, Part};

use super::base::{prepared_base, sizes};
use super::folder::keep_settings;
use super::manifests::{read_cuts, weights_of_cuts};
use super::model::{Built, decide_length, model};
use super::{Assembled, Bases, Progress};
use crate::Error;
use crate::config::RunConfig;
use crate::data::Translations;
use crate::data::manifest::Needs;
use crate::task::translate_text::{Corpus, Texts, TranslateText};
use crate::task::{Data as _, Learner as _};

/// Reads the data and the model. `stop` is that of a run, and the folder from now on that of one with these settings; without it
/// nothing is written.
pub(super) fn assemble(
    name: &str,
    config: &RunConfig,
    bases: &Bases,
    dir: &Path,
    stop: Option<&AtomicBool>,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Assembled<TranslateText, Corpus>, Error> {
    let device = config.train.device.open()?;
    let base = bases.base.clone().map(|base| prepared_base(config, base)).transpose()?;
    let mut config = match &base {
        Some(base) => RunConfig { model: sizes(config, base.description())?, ..config.clone() },
        None => config.clone(),
    };
    config.train.device = DeviceChoice::of(&device);
    if stop.is_some() {
        keep_settings(&config, dir)?;
    }
    // Of recordings nothing but their texts is looked at.
    let needs = Needs { transcript: true, duration: false, audio: false, ..Needs::default() };
    let mut read = |entries: &[String], what: &str| read_cuts(entries, what, needs, None, &config, dir, tell);
    let (train, counts) = read(&config.data.train, "data.train")?;
    let (dev, _) = read(&config.data.dev, "data.dev")?;
    let weights = weights_of_cuts(&config, &counts);
    // A new vocabulary is that of both languages.
    let written = Translations::Both.apply(train.clone(), &[]);
    if base.as_ref().is_some_and(|base| base.has_part(Part::Encoder)) {
        tell(Progress::Note(
            "texts teach no hearing: the base's encoder of speech is left out of what is kept",
        ));
    }
    let Built { description, params, phonemes, .. } =
        model(name, &config, base, bases.open_parts()?, &written, &device)?;
    let params = params.with_checkpointing(config.model.gradient_checkpointing);
    let texts = Texts { train, weights, dev };
    let (task, corpus, left_out) =
        TranslateText::new(params, description, &config, texts, phonemes.as_ref())?;
    for note in left_out.notes() {
        tell(Progress::Note(&note));
    }
    let padding = corpus.padding(0)?;
    let (n_train, n_dev) = (corpus.n_pairs(), task.n_held_out());
    let n_parameters = task.n_parameters().0 as usize;
    let train_secs = 0.0;
    tell(Progress::Data { n_train, train_secs, n_dev, padding: &padding, n_parameters });
    decide_length(&mut config, &corpus);
    Ok(Assembled { config, task, corpus, padding, n_train, train_secs, n_dev, n_parameters })
}
