//! A run that teaches a model to hear: its recordings, its model, and how they are batched.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use audio::augment::Augmenter;
use models::{Description, DeviceChoice, Transcriber};

use super::base::{loss, prepared_base, sizes, student};
use super::folder::keep_settings;
use super::manifests::{read_cuts, sources, weights_of_cuts};
use super::model::{Built, decide_length, limits, longest_secs, memory, model};
use super::pseudo_labels::pseudo_labels;
use super::{Assembled, Bases, Progress};
use crate::Error;
use crate::config::{RunConfig, StrategyKind, TargetConfig};
use crate::data::manifest::Needs;
use crate::data::{Cut, Translations};
use crate::task::Learner as _;
use crate::task::transcribe::{Capacity, Corpus, HeldOut, Recordings, Teacher, Transcribe};

/// Windows in a batch whose size was left open.
const BATCH_WINDOWS: f64 = 8.0;

/// Reads the data and the model. `stop` is that of a run, and the folder from now on that of one with these settings; without it
/// nothing is written, and a student is planned with the texts that are there.
pub(super) fn assemble(
    name: &str,
    config: &RunConfig,
    bases: &Bases,
    dir: &Path,
    stop: Option<&AtomicBool>,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Assembled<Transcribe, Corpus>, Error> {
    let device = config.train.device.open()?;
    let is_student = config.strategy.kind == StrategyKind::Distil;
    let base = bases.base.clone();
    let teacher = base.clone().filter(|_| is_student).map(|base| prepared_base(config, base)).transpose()?;
    let base = base.map(|base| prepared_base(config, base)).transpose()?;
    let base = base.map(|base| student(config, base)).transpose()?;
    let teacher = teacher.map(|teacher| Transcriber::load(teacher, &device)).transpose()?;
    // What a base decides is said as it is.
    let mut config = match &base {
        Some(base) => {
            let base = base.description();
            RunConfig { model: sizes(config, base)?, loss: loss(&config.loss, base), ..config.clone() }
        }
        None => config.clone(),
    };
    config.train.device = DeviceChoice::of(&device);
    // So is what was left to its window.
    if config.join.max_secs == 0.0 {
        let longest_secs = longest_secs(&config.sampler, config.model.window_secs);
        config.join.max_secs = longest_secs * config.augment.speed.slowest();
    }
    if config.sampler.batch_secs == 0.0 {
        config.sampler.batch_secs = BATCH_WINDOWS * config.model.window_secs;
    }
    if stop.is_some() {
        keep_settings(&config, dir)?;
    }
    let translations = config.data.translations;
    let needs = Needs {
        text: !config.data.keep_empty,
        transcript: translations == Translations::Off,
        recording: true,
        ..Needs::default()
    };
    let mut read = |entries: &[String], what: &str| {
        read_cuts(entries, what, needs, Some(translations), &config, dir, tell)
    };
    let (cuts, counts) = read(&config.data.train, "data.train")?;
    let (dev, _) = read(&config.data.dev, "data.dev")?;
    let (cuts, counts) = match (&teacher, stop) {
        (Some(teacher), Some(stop)) if config.strategy.distil.max_wer > 0.0 => {
            let cuts = pseudo_labels(cuts, teacher, &config, dir, stop, tell)?;
            let n_cuts = cuts.len();
            (cuts, vec![n_cuts])
        }
        _ => (cuts, counts),
    };
    // Its encoder is the student's.
    let teacher = teacher.map(|teacher| Teacher::new(&teacher, &config)).transpose()?;
    let weights = weights_of_cuts(&config, &counts);

    let Built { description, params, vocabulary, phonemes } =
        model(name, &config, base, bases.open_parts()?, &cuts, &device)?;
    check_figure(&config, &description, &dev)?;
    for (cuts, what) in [(&cuts, "data.train"), (&dev, "data.dev")] {
        let unknown = phonemes.as_ref().map(|known| known.unknown(cuts)).unwrap_or_default();
        if !unknown.is_empty() {
            let message = format!("{what}: the model knows no phonemes {unknown:?}; they are left out");
            tell(Progress::Note(&message));
        }
    }
    let language = (!config.data.language.is_empty()).then(|| config.data.language.clone());
    // For both sets of recordings, which are about as likely to be heard again.
    let cache_bytes = config.data.cache_mb.saturating_mul(1 << 19);
    let (n_train, n_dev) = (cuts.len(), dev.len());
    let train_secs = cuts.iter().map(|cut| cut.duration_secs).sum();
    let params = params.with_checkpointing(config.model.gradient_checkpointing);
    let task =
        Transcribe::new(params, description, &config.loss, config.seed, vocabulary, teacher, |live| {
            let recordings = Recordings::new(dev, language.clone(), live.clone(), cache_bytes);
            let recordings = recordings.with_phonemes(phonemes.clone());
            recordings
                .check(&TargetConfig { unpunctuated: 0.0, ..config.target.clone() })
                .map_err(|error| Error::config("data.dev", error.to_string()))?;
            HeldOut::new(recordings, &config.join, &config.evaluate, limits(&config, live), config.seed)
        })?;
    let recordings =
        Recordings::new(cuts, language, task.live().clone(), cache_bytes).with_phonemes(phonemes);
    recordings.check(&config.target)?;
    let capacity = Capacity { limits: limits(&config, task.live()), memory: memory(&config, &task)? };
    let sources = sources(&config, task.live().feature_spec().sample_rate, dir, tell)?;
    let augmenter = Augmenter::new(config.augment.clone(), sources)?;
    let (corpus, padding) =
        Corpus::new(recordings, weights, &config, augmenter, &capacity, task.description(), &device)?;
    let n_parameters = task.n_parameters().0 as usize;
    if n_parameters == 0 {
        return Err(Error::config("strategy", "leaves nothing of the model to be trained"));
    }
    tell(Progress::Data { n_train, train_secs, n_dev, padding: &padding, n_parameters });
    decide_length(&mut config, &corpus);
    Ok(Assembled { config, task, corpus, padding, n_train, train_secs, n_dev, n_parameters })
}

/// Refuses a figure to choose by that this model and these cuts do not give.
fn check_figure(config: &RunConfig, description: &Description, dev: &[Cut]) -> Result<(), Error> {
    let best_by = config.train.best_by.as_str();
    let refuse = |message: &str| Err(Error::config("train.best_by", format!("`{best_by}`: {message}")));
    if matches!(best_by, "bleu" | "chrf" | "ter") && dev.iter().all(|cut| cut.target_language.is_none()) {
        return refuse("no row of data.dev has a translation");
    }
    if best_by == "speech_text_distance" && description.text_encoder().is_none() {
        return refuse("the model has no encoder of texts");
    }
    Ok(())
}
