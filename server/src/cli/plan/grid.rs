//! A grid of training runs that differ in depth and seed alone. Each is a run like any other, in a folder of its own; what is finished
//! is not done again.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Instant,
};

use anyhow::Context;
use models::Bundle;
use recipes::{
    config::{ModelKind, RunConfig},
    run::{self, Progress},
    shape::{ShapeRun, count_params, last_figures},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::{Usage, output::write_file, progress::Style, train::Teller};

/// Depths that each stack needs for its exponent and the floor to be told apart.
const MIN_DEPTHS: usize = 3;
/// Where the runs are.
const RUNS: &str = "runs";
/// What says that a run is finished, and by which settings.
const FINISHED: &str = "finished.json";

/// A grid that is not trained yet.
pub(super) struct Grid {
    name: String,
    dir: PathBuf,
    runs: Vec<GridRun>,
}

/// One of its runs.
pub(super) struct GridRun {
    pub name: String,
    pub dir: PathBuf,
    pub config: RunConfig,
}

impl GridRun {
    /// Where its model is.
    pub(super) fn model(&self) -> PathBuf {
        self.dir.join("model")
    }
}

#[derive(Serialize, Deserialize)]
struct Finished {
    /// Digest of all settings.
    settings: String,
}

impl Grid {
    /// The runs of all depths and seeds, one seed after the other, so that a grid that is stopped has whole ones.
    ///
    /// # Errors
    /// Depths and recipes of which no law can be learnt.
    pub(super) fn new(
        name: String,
        config: &RunConfig,
        dir: &Path,
        [encoder_layers, decoder_layers]: [&[usize]; 2],
        n_seeds: u64,
    ) -> Result<Self, Usage> {
        check(config)?;
        let encoder_layers = depths("--encoder-layers", encoder_layers)?;
        let decoder_layers = depths("--decoder-layers", decoder_layers)?;
        let mut runs = Vec::new();
        for seed in 0..n_seeds {
            for (encoder, decoder) in
                encoder_layers.iter().flat_map(|e| decoder_layers.iter().map(move |d| (*e, *d)))
            {
                let mut config = config.clone();
                (config.model.encoder_layers, config.model.decoder_layers) = (encoder, decoder);
                config.seed += seed;
                // Losses are compared at equal updates.
                config.train.patience = 0;
                let name = format!("e{encoder}-d{decoder}-s{}", config.seed);
                runs.push(GridRun { dir: dir.join(RUNS).join(&name), name, config });
            }
        }
        Ok(Self { name, dir: dir.to_owned(), runs })
    }

    pub(super) fn runs(&self) -> &[GridRun] {
        &self.runs
    }

    /// Corpora that are known by name become manifests once, in the grid's folder, and not in that of each run.
    fn prepare(&mut self, style: Style) -> anyhow::Result<()> {
        let Some(first) = self.runs.first() else { return Ok(()) };
        let mut data = first.config.data.clone();
        let mut teller = Teller::new(style);
        let lists = [
            ("data.train", &mut data.train),
            ("data.dev", &mut data.dev),
            ("data.noises", &mut data.noises),
            ("data.rooms", &mut data.rooms),
        ];
        for (what, entries) in lists {
            for entry in entries {
                let mut tell = |progress: Progress<'_>| teller.tell(&progress);
                let language = &first.config.data.language;
                let path = run::manifest_of(entry, what, language, &self.dir, &mut tell)?;
                *entry = path.to_string_lossy().into_owned();
            }
        }
        teller.end();
        self.runs.iter_mut().for_each(|run| run.config.data = data.clone());
        Ok(())
    }

    /// Trains what is not trained yet, and says what each run lost. None where it was stopped.
    pub(super) fn train(
        &mut self,
        figure: &str,
        stop: &AtomicBool,
        style: Style,
    ) -> anyhow::Result<Option<Vec<ShapeRun>>> {
        self.prepare(style)?;
        let (n_runs, mut n_trained, began) = (self.runs.len(), 0, Instant::now());
        let mut results = Vec::new();
        for (index, run) in self.runs.iter().enumerate() {
            let place = format!("run {} of {n_runs}", index + 1);
            let settings = digest(&run.config)?;
            if is_finished(run, &settings) {
                style.note(&format!("{place}: {} is there already", run.name));
            } else {
                style.note(&format!("{place}: {}", run.name));
                let mut teller = Teller::of_one(style, format!("{place}: "));
                let name = format!("{} {}", self.name, run.name);
                let outcome =
                    run::run(&name, &run.config, None, &run.dir, stop, &mut |told| teller.tell(&told));
                teller.end();
                let outcome = outcome.with_context(|| format!("run {}", run.name))?;
                if outcome.model.is_none() {
                    style.note(&format!("{place}: stopped after update {}", outcome.state.step));
                    return Ok(None);
                }
                let text = serde_json::to_string(&Finished { settings })? + "\n";
                write_file(&run.dir.join(FINISHED), &text)?;
                n_trained += 1;
                let n_left = n_runs - index - 1;
                if n_left > 0 {
                    let left_secs = began.elapsed().as_secs_f64() / f64::from(n_trained) * n_left as f64;
                    style.note(&format!("{place}: done; the others take about {:.0} min", left_secs / 60.0));
                }
            }
            results.push(result(run, figure)?);
        }
        Ok(Some(results))
    }
}

/// What a finished run says: sizes as they lie in its bundle, and the figure of its last evaluation. The last and not the best: all
/// runs were then shown the same.
fn result(run: &GridRun, figure: &str) -> anyhow::Result<ShapeRun> {
    let (encoder_params, decoder_params) = count_params(&Bundle::open(&run.model())?);
    let (_, figures) = last_figures(&run.dir)?;
    let Some(loss) = figures.get(figure).copied() else {
        let known: Vec<_> = figures.keys().map(String::as_str).collect();
        return Err(
            Usage(format!("--figure {figure}: runs have none; they have {}", known.join(", "))).into()
        );
    };
    Ok(ShapeRun {
        name: run.name.clone(),
        encoder_params,
        decoder_params,
        loss: Some(loss),
        seed: Some(run.config.seed),
        encoder_layers: Some(run.config.model.encoder_layers),
        decoder_layers: Some(run.config.model.decoder_layers),
        wer: figures.get("wer").copied(),
        ..ShapeRun::default()
    })
}

fn is_finished(run: &GridRun, settings: &str) -> bool {
    // One that cannot be read is as good as none: the run finds out itself that nothing is left to do.
    let text = std::fs::read_to_string(run.dir.join(FINISHED)).ok();
    let finished: Option<Finished> = text.and_then(|text| serde_json::from_str(&text).ok());
    finished.is_some_and(|finished| finished.settings == settings) && run.model().is_dir()
}

fn digest(config: &RunConfig) -> anyhow::Result<String> {
    let digest = Sha256::digest(serde_json::to_string(config)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn depths(flag: &str, layers: &[usize]) -> Result<Vec<usize>, Usage> {
    let mut layers = layers.to_vec();
    layers.sort_unstable();
    layers.dedup();
    if layers.len() < MIN_DEPTHS {
        let given: Vec<_> = layers.iter().map(usize::to_string).collect();
        return Err(Usage(format!(
            "{flag} {}: {MIN_DEPTHS} different depths are the least from which an exponent can be told, such as 1,2,4",
            given.join(",")
        )));
    }
    Ok(layers)
}

/// Refuses what would make the runs of a grid differ in more than their depth.
fn check(config: &RunConfig) -> Result<(), Usage> {
    let refuse = |message: String| Err(Usage(message));
    if !config.model.base.is_empty() {
        let base = &config.model.base;
        return refuse(format!(
            "model.base = \"{base}\": a base has the depth that it has; plan with a recipe that starts from nothing (--set model.base=\"\")"
        ));
    }
    if config.model.architecture == ModelKind::ParakeetCtc {
        return refuse(
            "model.architecture = \"parakeet_ctc\": has no decoder to split a budget with; plan whisper or canary".to_owned(),
        );
    }
    if config.loss.cross_entropy.weight == 0.0 {
        return refuse(
            "loss.cross_entropy.weight = 0: the decoder learns nothing, so its size says nothing".to_owned(),
        );
    }
    if config.data.dev.is_empty() {
        return refuse(
            "data.dev: is empty; name held-out speech, by whose loss models are compared".to_owned(),
        );
    }
    if config.sampler.memory_gb > 0.0 {
        return refuse(format!(
            "sampler.memory_gb = {}: larger models would see other batches; set it to 0, and sampler.batch_secs",
            config.sampler.memory_gb
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[&str]) -> RunConfig {
        let given = ["data.train=[\"a.jsonl\"]", "data.dev=[\"b.jsonl\"]"];
        let settings: Vec<String> = given.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        RunConfig::load(None, &settings).expect("settings")
    }

    fn grid(config: &RunConfig, encoder: &[usize], decoder: &[usize]) -> Result<Grid, Usage> {
        Grid::new("tones".to_owned(), config, Path::new("out"), [encoder, decoder], 2)
    }

    #[test]
    fn runs_differ_in_depth_and_seed_alone() {
        let config = config(&["seed=7", "train.patience=3"]);
        let grid = grid(&config, &[4, 1, 2, 2], &[1, 2, 3]).expect("a grid");
        assert_eq!(grid.runs().len(), 18);
        let names: Vec<_> = grid.runs().iter().map(|run| run.name.as_str()).collect();
        assert_eq!((names[0], names[5], names[17]), ("e1-d1-s7", "e2-d3-s7", "e4-d3-s8"));
        assert!(grid.runs()[0].dir.ends_with("out/runs/e1-d1-s7"));
        for run in grid.runs() {
            let mut same = run.config.clone();
            assert_eq!(same.train.patience, 0);
            (same.model.encoder_layers, same.model.decoder_layers, same.seed) = (6, 2, 7);
            same.train.patience = 3;
            assert_eq!(same, config);
        }
    }

    #[test]
    fn what_no_law_can_be_learnt_of_is_refused() {
        let depths = [1, 2, 4];
        let error = grid(&config(&[]), &depths, &[1, 2, 2]).err().expect("refused").to_string();
        assert!(error.contains("--decoder-layers 1,2") && error.contains("3 different depths"), "{error}");
        for setting in [
            "model.base=openai/whisper-base",
            "model.architecture=parakeet_ctc",
            "data.dev=[]",
            "sampler.memory_gb=8",
            "loss.cross_entropy.weight=0",
        ] {
            let key = setting.split('=').next().unwrap_or_default();
            let mut settings = vec![setting, "loss.ctc.weight=1"];
            if key == "loss.cross_entropy.weight" {
                settings.push("train.best_by=ctc");
            }
            let error = grid(&config(&settings), &depths, &depths).err().expect("refused").to_string();
            assert!(error.contains(key), "{setting}: {error}");
        }
    }
}
