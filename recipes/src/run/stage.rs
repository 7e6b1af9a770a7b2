//! Training in stages: a related language first, the target only if that was learnt.
//!
//! A first stage that learnt nothing harms the second, and nobody sees it there: so it has to pass a figure of its own.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use models::BundleSource;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::base::prepared_base;
use super::folder::write_whole;
use super::{Bases, Outcome, Progress, run};
use crate::Error;
use crate::checkpoint::State;
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
    bases: Bases,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Stage, Error> {
    let dir = dir.join(FOLDER);
    let first = first_config(config)?;
    let settings = digest(&first)?;
    let result = match read_result(&dir)? {
        Some(kept) if kept.settings == settings => kept,
        // None yet, or one of other settings: the run itself says which of them it cannot go on with.
        _ => {
            tell(Progress::Note(&format!("stage A: {}", first.data.language)));
            let outcome = run(&format!("{name}, stage A"), &first, bases, &dir, stop, tell)?;
            if outcome.ending == Ending::Stopped {
                return Ok(Stage::Stopped(Box::new(outcome)));
            }
            let State { step, busy_secs, .. } = outcome.state;
            // JSON has no number for what is not finite.
            let figures = outcome.model.into_iter().flat_map(|(_, figures)| figures);
            let figures = figures.filter(|(_, value)| value.is_finite()).collect();
            let result = FirstStage { settings, figures, n_steps: step, busy_secs };
            write_result(&dir, &result)?;
            result
        }
    };
    let gate = config.strategy.stage.gate;
    let wer = pass(&result.figures, gate)?;
    tell(Progress::Note(&format!("stage A passed: word error rate {wer:.4}, at most {gate} asked")));
    Ok(Stage::Passed(BundleSource::Dir(dir.join(super::MODEL))))
}

/// The settings of the first stage: those of the run, without what concerns the second alone. What is in them may not change
/// once it has begun; the gate may, as it is held against what is there.
fn first_config(config: &RunConfig) -> Result<RunConfig, Error> {
    let stage = &config.strategy.stage;
    let normaliser = Normaliser::of_language(Some(&stage.language)).first().copied().unwrap_or_default();
    let mut first = RunConfig { strategy: StrategyConfig::full()?, ..config.clone() };
    (first.data.train, first.data.dev) = (stage.train.clone(), stage.dev.clone());
    // They belong to the target's corpora.
    first.data.weights.clear();
    first.model.like.clear();
    (first.data.language, first.evaluate.normaliser) = (stage.language.clone(), normaliser);
    if stage.max_steps > 0 {
        (first.train.max_steps, first.train.max_epochs) = (stage.max_steps, 0);
    }
    Ok(first)
}

/// The word error rate, where it passes the gate.
fn pass(figures: &Figures, gate: f64) -> Result<f64, Error> {
    let wer = figures.get("wer").copied();
    wer.filter(|wer| *wer <= gate).ok_or(Error::Gate { wer, gate })
}

/// Makes sure that a run can begin with its base, in each of its stages: what it would say itself, before anything else is done.
///
/// # Errors
/// A language that the base has no token for, a vocabulary that does not suit it, a strategy that cannot begin with it.
pub fn check_base(config: &RunConfig, base: &BundleSource) -> Result<(), Error> {
    if config.strategy.kind == StrategyKind::Multistage {
        prepared_base(&first_config(config)?, base.clone())?;
    }
    prepared_base(config, base.clone()).map(drop)
}

/// What a complete first stage came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FirstStage {
    /// Digest of the settings by which it was trained.
    settings: String,
    /// The figures of its model.
    pub figures: Figures,
    /// Updates.
    pub n_steps: u64,
    /// Seconds that they took.
    pub busy_secs: f64,
}

impl FirstStage {
    /// That of the run in `dir`; `None` where it has none, or none that is complete.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn of_run(dir: &Path) -> Result<Option<Self>, Error> {
        read_result(&dir.join(FOLDER))
    }
}

fn digest(config: &RunConfig) -> Result<String, Error> {
    let text =
        serde_json::to_string(config).map_err(|error| Error::config("strategy.stage", error.to_string()))?;
    Ok(hex(&Sha256::digest(text)))
}

fn write_result(dir: &Path, result: &FirstStage) -> Result<(), Error> {
    let path = dir.join(RESULT);
    let text = serde_json::to_string_pretty(result).map_err(|error| Error::file(&path, error))?;
    write_whole(&path, &(text + "\n"))
}

fn read_result(dir: &Path) -> Result<Option<FirstStage>, Error> {
    let path = dir.join(RESULT);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
    // One that cannot be read is as good as none: it is made again.
    Ok(serde_json::from_str(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[&str]) -> RunConfig {
        let given = [
            "data.train=[\"a.jsonl\"]",
            "model.base=base",
            "strategy.kind=multistage",
            "strategy.stage.train=[\"b.jsonl\"]",
            "strategy.stage.dev=[\"b.jsonl\"]",
            "strategy.stage.language=ur",
        ];
        let settings: Vec<String> = given.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        RunConfig::load(Some(Path::new("finetune")), &settings).expect("settings")
    }

    #[test]
    fn the_gate_is_a_word_error_rate_and_one_that_is_missing_does_not_pass() {
        let figures = |figures: &[(&str, f64)]| {
            figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        assert_eq!(pass(&figures(&[("wer", 0.5)]), 0.5).expect("passed"), 0.5);
        for (refused, part) in [
            (figures(&[("wer", 0.6), ("cer", 0.1)]), "0.6000"),
            (figures(&[("cer", 0.1), ("loss", 0.2)]), "not known"),
            (figures(&[("wer", f64::NAN)]), "NaN"),
        ] {
            let message = pass(&refused, 0.5).expect_err("refused").to_string();
            assert!(message.contains(part) && message.contains("at most 0.5"), "{message}");
        }
    }

    #[test]
    fn what_concerns_the_second_stage_alone_is_not_in_the_first() {
        let first = |settings: &[&str]| first_config(&config(settings)).expect("settings");
        let one = first(&[]);
        assert_eq!(
            (one.data.language.as_str(), one.data.train.as_slice()),
            ("ur", &["b.jsonl".to_owned()][..])
        );
        for setting in
            ["strategy.stage.gate=0.9", "strategy.frozen_layers=1", "strategy.lora.rank=4", "model.like=fa"]
        {
            assert_eq!(first(&[setting]), one, "{setting}");
        }
        assert_eq!(first(&["strategy.stage.max_steps=7"]).train.max_steps, 7);
    }
}
