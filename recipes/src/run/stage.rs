//! Training in stages: a related language first, the target only if that was learnt.
//!
//! A first stage that learnt nothing harms the second, and nobody sees it there: so it has to pass a figure of its own.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use models::BundleSource;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::folder::write_whole;
use super::{Outcome, Progress, run};
use crate::Error;
use crate::config::{RunConfig, StrategyConfig, StrategyKind};
use crate::data::hex;
use crate::task::Figures;
use crate::text::Normaliser;
use crate::train::Ending;

/// The first stage's folder in the run's.
const FOLDER: &str = "stage-a";
/// What it came to.
const RESULT: &str = "result.json";

/// What the first stage came to.
pub(super) enum Stage {
    /// It passed: the second starts from this.
    Passed(BundleSource),
    /// It was stopped.
    Stopped(Box<Outcome>),
}

/// Trains on the related language and holds the result against the gate.
pub(super) fn first_stage(
    name: &str,
    config: &RunConfig,
    base: Option<BundleSource>,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Stage, Error> {
    let stage = &config.strategy.stage;
    let dir = dir.join(FOLDER);
    let language = stage.language.clone();
    let normaliser = Normaliser::of_language(Some(&language)).first().copied().unwrap_or_default();
    let mut first = RunConfig {
        strategy: StrategyConfig { kind: StrategyKind::Full, ..config.strategy.clone() },
        ..config.clone()
    };
    (first.data.train, first.data.dev) = (stage.train.clone(), stage.dev.clone());
    // They belong to the target's corpora.
    first.data.weights.clear();
    first.model.like.clear();
    (first.data.language, first.evaluate.normaliser) = (language, normaliser);
    if stage.max_steps > 0 {
        (first.train.max_steps, first.train.max_epochs) = (stage.max_steps, 0);
    }
    let figure = &config.train.best_by;
    let settings = digest(&first)?;
    let figures = match read_result(&dir)? {
        Some(kept) if kept.settings == settings => kept.figures,
        // None yet, or one of other settings: the run itself says which of them it cannot go on with.
        _ => {
            tell(Progress::Note(&format!("stage A: {}", first.data.language)));
            let outcome = run(&format!("{name}, stage A"), &first, base, &dir, stop, tell)?;
            if outcome.ending == Ending::Stopped {
                return Ok(Stage::Stopped(Box::new(outcome)));
            }
            let figures = outcome.model.map(|(_, figures)| figures).unwrap_or_default();
            write_result(&dir, settings, &figures)?;
            figures
        }
    };
    match figures.get(figure) {
        Some(value) if *value <= stage.gate => {
            tell(Progress::Note(&format!(
                "stage A passed: {figure} {value:.4}, at most {} asked",
                stage.gate
            )));
            Ok(Stage::Passed(BundleSource::Dir(dir.join(super::MODEL))))
        }
        value => Err(Error::Gate { figure: figure.clone(), value: value.copied(), gate: stage.gate }),
    }
}

/// What a complete first stage came to, and by which settings.
#[derive(Serialize, Deserialize)]
struct Kept {
    settings: String,
    figures: Figures,
}

fn digest(config: &RunConfig) -> Result<String, Error> {
    let text =
        serde_json::to_string(config).map_err(|error| Error::config("strategy.stage", error.to_string()))?;
    Ok(hex(&Sha256::digest(text)))
}

fn write_result(dir: &Path, settings: String, figures: &Figures) -> Result<(), Error> {
    let path = dir.join(RESULT);
    // JSON has no number for what is not finite.
    let figures = figures.iter().filter(|(_, value)| value.is_finite());
    let kept = Kept { settings, figures: figures.map(|(name, value)| (name.clone(), *value)).collect() };
    let text = serde_json::to_string_pretty(&kept).map_err(|error| Error::file(&path, error))?;
    write_whole(&path, &(text + "\n"))
}

fn read_result(dir: &Path) -> Result<Option<Kept>, Error> {
    let path = dir.join(RESULT);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
    // One that cannot be read is as good as none: it is made again.
    Ok(serde_json::from_str(&text).ok())
}
