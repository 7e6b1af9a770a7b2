//! A run from its settings to a model: data, training, the best weights, and a card that says what happened.
//!
//! Everything lies in the run's folder: `run.json` (all settings), `data/` (manifests of corpora), `checkpoints/`,
//! `metrics.jsonl` and `tensorboard/`, `model/` (a bundle to be used) and `card.html`. Running it again goes on where it was.

mod base;
mod folder;
mod forecast;
mod manifests;
mod model;
mod pseudo_labels;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use audio::augment::Augmenter;
use models::{BundleSource, DeviceChoice, Transcriber};

pub use self::base::{learn_vocabulary, with_language};
use self::base::{loss, prepared_base, sizes, student};
pub use self::folder::first_difference;
use self::folder::{keep_settings, lock};
pub use self::forecast::{Forecast, forecast};
pub use self::manifests::{Place, find, force_language, manifest_of};
use self::manifests::{read_cuts, sources};
use self::model::{keep_model, learning_rate, limits, longest_secs, memory, model};
use self::pseudo_labels::pseudo_labels;
pub use self::stage::{FirstStage, check_base};
use self::stage::{Stage, first_stage};
use crate::Error;
use crate::checkpoint::{Checkpoints, State};
use crate::config::{RunConfig, StrategyKind, TargetConfig, TaskKind};
use crate::data::manifest::{Needs, Rejected};
use crate::data::{EpochPadding, Translations};
use crate::loader::Source as _;
use crate::metrics_log::{JSONL_NAME, MetricsLog};
use crate::run_card::{RunCard, TOO_SHORT};
use crate::task::Figures;
use crate::task::transcribe::{Capacity, Corpus, HeldOut, Recordings, Teacher, Transcribe};
use crate::train::{Ending, Event, Run, StepReport, train};

/// Where the model is in a run's folder.
pub const MODEL: &str = "model";
/// Where other things are.
const CHECKPOINTS: &str = "checkpoints";
const ADAPTER: &str = "adapter";
pub(crate) const CARD: &str = "card.html";
const DATA: &str = "data";
/// Windows in a batch whose size was left open.
const BATCH_WINDOWS: f64 = 8.0;

/// What a run tells while it goes.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A corpus is being made into manifests: recordings looked at, and all of them.
    Preparing {
        /// Its name.
        corpus: &'a str,
        /// How many are done.
        n_done: usize,
        /// Of how many.
        n_all: usize,
    },
    /// A teacher writes down what is there to be learnt.
    Labelling {
        /// Recordings that are done.
        n_done: usize,
        /// Of how many.
        n_all: usize,
    },
    /// A row of a manifest was left out.
    Rejected(&'a Rejected),
    /// Something that one should know of the data.
    Note(&'a str),
    /// The data are read.
    Data {
        /// Cuts to train on.
        n_train: usize,
        /// Their seconds.
        train_secs: f64,
        /// Cuts to judge by.
        n_dev: usize,
        /// What the first epoch wastes, and what no batch takes.
        padding: &'a EpochPadding,
        /// Values in the model's parameters.
        n_parameters: usize,
    },
    /// Another epoch begins: what its batches waste, and what is in none of them.
    Epoch(&'a EpochPadding),
    /// The loop has something to say.
    Training(&'a Event),
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Whether and why.
    pub ending: Ending,
    /// Where the loop is.
    pub state: State,
    /// The model and its figures, where the run is complete.
    pub model: Option<(PathBuf, Figures)>,
    /// The card.
    pub card: PathBuf,
    /// Values that were trained.
    pub n_parameters: usize,
    /// Those of them that the model which is kept leaves out.
    pub n_left_out: usize,
}

/// Runs `config` in the folder `dir` until its end, or until `stop` says so. `base` is the model that `model.base` names.
///
/// # Errors
/// Settings and data that cannot be used, another run's folder, what training refuses.
pub fn run(
    name: &str,
    config: &RunConfig,
    base: Option<BundleSource>,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Outcome, Error> {
    fs::create_dir_all(dir).map_err(|error| Error::file(dir, error))?;
    let _alone = lock(dir)?;
    let base = match config.strategy.kind {
        StrategyKind::Multistage => match first_stage(name, config, base, dir, stop, tell)? {
            Stage::Passed(base) => Some(base),
            Stage::Stopped(outcome) => return Ok(*outcome),
        },
        _ => base,
    };
    let Assembled { config, task, corpus, n_train, train_secs, n_dev, n_parameters, .. } =
        assemble(name, config, base, dir, Some(stop), tell)?;
    let config = &config;
    let checkpoints = Checkpoints::open(&dir.join(CHECKPOINTS))?;
    let at = checkpoints.steps()?.last().copied();
    let mut log = match at {
        Some(step) => MetricsLog::resume(dir, step)?,
        None if dir.join(JSONL_NAME).exists() => MetricsLog::resume(dir, 0)?,
        None => MetricsLog::create(dir)?,
    };
    let held_out_digest = task.held_out_digest();
    let mut logged = Ok(());
    let settings = Run {
        train: &config.train,
        optimizer: &config.optimizer,
        schedule: &config.schedule,
        checkpoints: &checkpoints,
        data_digest: corpus.digest(),
        held_out_digest: &held_out_digest,
    };
    let (ending, state) = train(&task, &corpus, &settings, stop, &mut |event| {
        let recorded = record(&mut log, &event).and_then(|()| {
            let Event::Step(StepReport { step, at, .. }) = &event else { return Ok(()) };
            // Another epoch began with this update or within the one before.
            if at.batch >= config.train.accumulate.max(1) {
                return Ok(());
            }
            let padding = corpus.padding(at.epoch)?;
            record_epoch(&mut log, *step, &padding)?;
            // That of the first was told with the data.
            if at.epoch > 0 {
                tell(Progress::Epoch(&padding));
            }
            Ok(())
        });
        if let Err(error) = recorded {
            logged = Err(error);
        }
        tell(Progress::Training(&event));
    })?;
    let model = match ending {
        Ending::Stopped => None,
        Ending::Complete | Ending::NoBetter => Some(keep_model(&task, config, &checkpoints, &state, dir)?),
    };
    // At the first batch of an epoch the last one was of the epoch before.
    let last_epoch = state.at.epoch.saturating_sub(u64::from(state.at.batch == 0));
    let padding = corpus.padding(last_epoch)?;
    let card = dir.join(CARD);
    let html = RunCard {
        name,
        config,
        data: (n_train, train_secs, n_dev),
        padding: &padding,
        n_parameters,
        ending,
        state: &state,
        figures: model.as_ref().map(|(_, figures)| figures),
        log: &dir.join(JSONL_NAME),
    }
    .to_html()?;
    fs::write(&card, html).map_err(|error| Error::file(&card, error))?;
    // A log that could not be written must not cost the model; it is told when that is there.
    logged?;
    let n_left_out = task.n_left_out() as usize;
    Ok(Outcome { ending, state, model, card, n_parameters, n_left_out })
}

/// A run before its first update.
struct Assembled {
    /// All that was left open decided.
    config: RunConfig,
    task: Transcribe,
    corpus: Corpus,
    padding: EpochPadding,
    n_train: usize,
    train_secs: f64,
    n_dev: usize,
    /// Values that are trained.
    n_parameters: usize,
}

/// Reads the data and the model. `stop` is that of a run, and the folder from now on that of one with these settings; without it
/// nothing is written, and a student is planned with the texts that are there.
fn assemble(
    name: &str,
    config: &RunConfig,
    base: Option<BundleSource>,
    dir: &Path,
    stop: Option<&AtomicBool>,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Assembled, Error> {
    let TaskKind::Transcribe = config.task;
    let device = config.train.device.open()?;
    let is_student = config.strategy.kind == StrategyKind::Distil;
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
    let mut read =
        |entries: &[String], what: &str| read_cuts(entries, what, needs, translations, &config, dir, tell);
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
    let weights = config.data.weights.iter().zip(&counts);
    let weights = weights.flat_map(|(weight, count)| std::iter::repeat_n(*weight as f32, *count)).collect();

    let (description, params, vocabulary) = model(name, &config, base, &cuts, &device)?;
    let language = (!config.data.language.is_empty()).then(|| config.data.language.clone());
    // For both sets of recordings, which are about as likely to be heard again.
    let cache_bytes = config.data.cache_mb.saturating_mul(1 << 19);
    let (n_train, n_dev) = (cuts.len(), dev.len());
    let train_secs = cuts.iter().map(|cut| cut.duration_secs).sum();
    let params = params.with_checkpointing(config.model.gradient_checkpointing);
    let task =
        Transcribe::new(params, description, &config.loss, config.seed, vocabulary, teacher, |live| {
            let recordings = Recordings::new(dev, language.clone(), live.clone(), cache_bytes);
            recordings.check(&TargetConfig { unpunctuated: 0.0, ..config.target.clone() })?;
            HeldOut::new(recordings, &config.join, &config.evaluate, limits(&config, live), config.seed)
        })?;
    let recordings = Recordings::new(cuts, language, task.live().clone(), cache_bytes);
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
    if config.optimizer.learning_rate == 0.0 {
        config.optimizer.learning_rate = learning_rate(&config.model, config.strategy.kind);
    }
    if config.train.max_epochs > 0 {
        config.train.max_steps = (config.train.max_epochs * corpus.n_batches(0) as u64)
            .div_ceil(config.train.accumulate.max(1) as u64)
            .max(1);
    }
    config.schedule = config.schedule.of_run(config.train.max_steps);
    Ok(Assembled { config, task, corpus, padding, n_train, train_secs, n_dev, n_parameters })
}

fn record(log: &mut MetricsLog, event: &Event) -> Result<(), Error> {
    match event {
        Event::Step(report) => {
            let StepReport { step, loss, rate, gradient_norm, extent, busy_secs, wait_secs, .. } = report;
            let padding = |part: f64, whole: f64| if whole > 0.0 { 1.0 - part / whole } else { 0.0 };
            let mut values = vec![
                ("train/loss", *loss),
                ("train/learning_rate", *rate),
                ("train/gradient_norm", *gradient_norm),
                ("train/x_real_time", extent.audio_secs / busy_secs.max(1e-9)),
                ("train/audio_padding", padding(extent.audio_secs, extent.padded_secs)),
                ("train/token_padding", padding(extent.n_tokens as f64, extent.padded_tokens as f64)),
                ("train/step_secs", *busy_secs),
                ("train/wait_secs", *wait_secs),
            ];
            let names: Vec<String> = report.terms.iter().map(|(name, _)| format!("train/{name}")).collect();
            values.extend(names.iter().zip(&report.terms).map(|(name, term)| (name.as_str(), term.1)));
            if extent.n_too_short > 0 {
                values.push((TOO_SHORT, extent.n_too_short as f64));
            }
            log.record(*step, &values)?;
        }
        Event::Evaluated { step, figures, .. } => {
            let names: Vec<String> = figures.keys().map(|name| format!("dev/{name}")).collect();
            let values: Vec<_> =
                names.iter().zip(figures.values()).map(|(name, value)| (name.as_str(), *value)).collect();
            log.record(*step, &values)?;
        }
        _ => {}
    }
    Ok(())
}

/// What the batches of an epoch waste, at its first update.
fn record_epoch(log: &mut MetricsLog, step: u64, epoch: &EpochPadding) -> Result<(), Error> {
    let total = epoch.padding.total();
    let values = [
        ("epoch/audio_padding", total.audio_padding()),
        ("epoch/token_padding", total.token_padding()),
        ("epoch/fill", total.budget_fill()),
        ("epoch/n_rejected", epoch.admission.total().n_rejected() as f64),
    ];
    Ok(log.record(step, &values)?)
}
