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
mod speech;
mod stage;
mod texts;
mod vocoder;
mod voice;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use models::{Bundle, BundleSource, Part};

pub use self::base::{learn_vocabulary, with_language};
pub use self::folder::first_difference;
use self::folder::lock;
pub use self::forecast::{Forecast, forecast};
pub use self::manifests::{Place, find, force_language, manifest_of};
use self::model::keep_model;
pub use self::stage::{FirstStage, check_base};
use self::stage::{Stage, first_stage};
use crate::Error;
use crate::checkpoint::{Checkpoints, State};
use crate::config::{RunConfig, StrategyKind, TaskKind};
use crate::data::EpochPadding;
use crate::data::manifest::Rejected;
use crate::metrics_log::{JSONL_NAME, MetricsLog};
use crate::run_card::{RunCard, TOO_SHORT};
use crate::task::transcribe::{COLLAPSED, SPREADS};
use crate::task::{Data, Figures, Learner};
use crate::train::{Ending, Event, Run, StepReport, train};

/// Where the model is in a run's folder.
pub const MODEL: &str = "model";
/// Where other things are.
const CHECKPOINTS: &str = "checkpoints";
const ADAPTER: &str = "adapter";
pub(crate) const CARD: &str = "card.html";
const DATA: &str = "data";
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
    bases: impl Into<Bases>,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Outcome, Error> {
    fs::create_dir_all(dir).map_err(|error| Error::file(dir, error))?;
    let _alone = lock(dir)?;
    let mut bases = bases.into();
    if config.strategy.kind == StrategyKind::Multistage {
        bases = match first_stage(name, config, bases, dir, stop, tell)? {
            Stage::Passed(base) => base.into(),
            Stage::Stopped(outcome) => return Ok(*outcome),
        };
    }
    match config.task {
        TaskKind::Transcribe => train_and_keep(
            name,
            speech::assemble(name, config, &bases, dir, Some(stop), tell)?,
            dir,
            stop,
            tell,
        ),
        TaskKind::TranslateText => train_and_keep(
            name,
            texts::assemble(name, config, &bases, dir, Some(stop), tell)?,
            dir,
            stop,
            tell,
        ),
        TaskKind::Speak => {
            train_and_keep(name, voice::assemble(config, &bases, dir, Some(stop), tell)?, dir, stop, tell)
        }
        TaskKind::Vocode => {
            train_and_keep(name, vocoder::assemble(config, &bases, dir, Some(stop), tell)?, dir, stop, tell)
        }
    }
}

/// Goes on where the run in `dir` is, until its end, and keeps what comes of it.
fn train_and_keep<T: Learner, D: Data<Batch = T::Batch>>(
    name: &str,
    assembled: Assembled<T, D>,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Outcome, Error> {
    let Assembled { config, task, corpus, n_train, train_secs, n_dev, n_parameters, .. } = assembled;
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
        if let Event::Evaluated { figures, .. } = &event {
            collapse(figures, config).iter().for_each(|note| tell(Progress::Note(note)));
        }
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
    let sounds = if model.is_some() { task.sounds()? } else { Vec::new() };
    let html = RunCard {
        name,
        config,
        data: (n_train, train_secs, n_dev),
        padding: &padding,
        n_parameters,
        ending,
        state: &state,
        figures: model.as_ref().map(|(_, figures)| figures),
        sounds: &sounds,
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
struct Assembled<T, D> {
    /// All that was left open decided.
    config: RunConfig,
    task: T,
    corpus: D,
    padding: EpochPadding,
    n_train: usize,
    train_secs: f64,
    n_dev: usize,
    /// Values that are trained.
    n_parameters: usize,
}

/// What a run begins with, before it is read.
#[derive(Debug, Clone, Default)]
pub struct Bases {
    /// The model that `model.base` names.
    pub base: Option<BundleSource>,
    /// Those that `model.parts` names.
    pub parts: Vec<(Part, BundleSource)>,
}

impl From<BundleSource> for Bases {
    fn from(base: BundleSource) -> Self {
        Self { base: Some(base), parts: Vec::new() }
    }
}

impl Bases {
    /// The parts, opened.
    fn open_parts(&self) -> Result<Vec<(Part, Bundle)>, Error> {
        let open = |(part, source): &(Part, BundleSource)| Ok((*part, Bundle::from_source(source.clone())?));
        self.parts.iter().map(open).collect()
    }
}

/// Whether optimal transport has made states of speech or of text the same, which nothing can be read from.
fn collapse(figures: &Figures, config: &RunConfig) -> Option<String> {
    if config.loss.optimal_transport.weight == 0.0 {
        return None;
    }
    let (name, spread) = SPREADS
        .iter()
        .filter_map(|name| Some((*name, *figures.get(*name)?)))
        .find(|(_, spread)| *spread < COLLAPSED)?;
    Some(format!(
        "{name} is {spread:.4}: the encoder's states are nearly all the same, which costs optimal transport nothing; give \
         loss.ctc.weight more, or set loss.optimal_transport.freeze_text"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_have_become_the_same_are_told() {
        let config = |weight: &str| {
            let weight = format!("loss.optimal_transport.weight={weight}");
            RunConfig::load(None, &["data.train=[\"a.jsonl\"]".to_owned(), weight]).expect("settings")
        };
        let (moves, measures) = (config("0.1"), config("0"));
        let told = |speech: f64, text: f64| {
            let [one, other] = SPREADS;
            let figures = Figures::from([(one.to_owned(), speech), (other.to_owned(), text)]);
            assert_eq!(collapse(&figures, &measures), None);
            collapse(&figures, &moves)
        };
        assert_eq!(told(0.4, 0.6), None);
        assert!(told(0.004, 0.6).is_some_and(|note| note.contains("speech_spread is 0.0040")));
        assert!(told(0.4, 0.0).is_some_and(|note| note.contains("text_spread")));
        assert_eq!(collapse(&Figures::new(), &moves), None);
    }
}
