//! A grid of training runs that differ in depth and seed alone. Each is a run like any other, in a folder of its own; what is finished
//! is not done again.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Context, bail};
use models::Bundle;
use recipes::{
    config::{ModelKind, RunConfig},
    run::{self, Bases, Progress, first_difference},
    shape::{ShapeRun, count_params, last_figures},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{Usage, output::write_file, progress::Style, train::Teller};
use crate::registry::sha256;

/// Depths that each stack needs for its exponent and the floor to be told apart.
const MIN_DEPTHS: usize = 3;
/// Where the runs are.
const RUNS: &str = "runs";
/// What says that a run is finished, and by which settings.
const FINISHED: &str = "finished.json";
/// Where that has the digests of manifests, beside the settings.
const CONTENTS: &str = "contents";
/// Settings that change no loss.
const FREE: [&str; 4] = ["train.device", "train.loader_threads", "data.cache_mb", "strategy.distil.cache_mb"];

/// A grid that is not trained yet.
pub(super) struct Grid {
    name: String,
    dir: PathBuf,
    runs: Vec<GridRun>,
    /// Digests of the manifests, by the setting that names them.
    contents: Value,
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
        self.dir.join(run::MODEL)
    }
}

#[derive(Serialize, Deserialize)]
struct Finished {
    /// All of them, and what was in the manifests.
    settings: Value,
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
        figure: &str,
    ) -> Result<Self, Usage> {
        check(config)?;
        let figures = config.figures();
        if !figures.contains(&figure) {
            let known = figures.join(", ");
            return Err(Usage(format!("--figure {figure}: evaluations have none; they have {known}")));
        }
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
        Ok(Self { name, dir: dir.to_owned(), runs, contents: Value::Null })
    }

    pub(super) fn runs(&self) -> &[GridRun] {
        &self.runs
    }

    /// Corpora that are known by name become manifests once, in the grid's folder, and not in that of each run.
    fn prepare(&mut self, style: Style) -> anyhow::Result<()> {
        let Some(first) = self.runs.first() else { return Ok(()) };
        // A manifest's path is part of what a run is; the same folder may be spelled in other ways.
        let dir = std::path::absolute(&self.dir)?;
        let mut data = first.config.data.clone();
        let mut teller = Teller::new(style);
        // What is switched off is not read.
        let augment = &first.config.augment;
        let lists = [
            ("data.train", &mut data.train, true),
            ("data.dev", &mut data.dev, true),
            ("data.noises", &mut data.noises, augment.noise.probability > 0.0),
            ("data.rooms", &mut data.rooms, augment.reverb.probability > 0.0),
        ];
        let mut contents = serde_json::Map::new();
        for (what, entries, _) in lists.into_iter().filter(|(.., is_read)| *is_read) {
            let mut digests = Vec::new();
            for entry in entries {
                let mut tell = |progress: Progress<'_>| teller.tell(&progress);
                let language = &first.config.data.language;
                let path = run::manifest_of(entry, what, language, &dir, &mut tell)?;
                digests.push(sha256(&path).with_context(|| format!("{what}: {}", path.display()))?);
                *entry = path.to_string_lossy().into_owned();
            }
            contents.insert(what.to_owned(), digests.into());
        }
        teller.end();
        self.contents = contents.into();
        self.runs.iter_mut().for_each(|run| run.config.data = data.clone());
        Ok(())
    }

    /// Trains what is not trained yet, and says what each run lost. None where it was stopped.
    ///
    /// # Errors
    /// Finished runs of other settings or data, before anything is trained, and what training refuses.
    pub(super) fn train(
        &mut self,
        figure: &str,
        stop: &AtomicBool,
        style: Style,
    ) -> anyhow::Result<Option<Vec<ShapeRun>>> {
        self.prepare(style)?;
        let mut todo = Vec::new();
        for run in &self.runs {
            let settings = settings(&run.config, &self.contents)?;
            todo.push((run, !is_finished(run, &settings)?, settings));
        }
        let n_runs = todo.len();
        let mut n_left = todo.iter().filter(|(_, is_left, _)| *is_left).count();
        let mut results: Vec<ShapeRun> = Vec::new();
        let mut evaluated = None;
        for (index, (run, is_left, settings)) in todo.into_iter().enumerate() {
            let place = format!("run {} of {n_runs}", index + 1);
            if !is_left {
                style.note(&format!("{place}: {} is there already", run.name));
            } else {
                style.note(&format!("{place}: {}", run.name));
                let mut teller = Teller::of_one(style, format!("{place}: "));
                let name = format!("{} {}", self.name, run.name);
                let outcome = run::run(&name, &run.config, Bases::default(), &run.dir, stop, &mut |told| {
                    teller.tell(&told);
                });
                teller.end();
                let outcome = outcome.with_context(|| format!("run {}", run.name))?;
                if outcome.model.is_none() {
                    style.note(&format!("{place}: stopped after update {}", outcome.state.step));
                    return Ok(None);
                }
                let text = serde_json::to_string(&Finished { settings })? + "\n";
                write_file(&run.dir.join(FINISHED), &text)?;
                n_left -= 1;
                if n_left > 0 {
                    style.note(&format!("{place}: done; {n_left} more to train"));
                }
            }
            let (step, result) = result(run, figure)?;
            let (first, first_step) = *evaluated.get_or_insert((run.name.as_str(), step));
            if step != first_step {
                bail!(
                    "the last evaluation of run {first} is after update {first_step}, and that of {} after {step}, and losses are compared at equal updates; remove {} to train it again",
                    run.name,
                    run.dir.display()
                );
            }
            results.push(result);
        }
        Ok(Some(results))
    }
}

/// What a finished run says, and after which update: sizes as they lie in its bundle, and the figure of its last evaluation. The last and not the best: all
/// runs were then shown the same.
fn result(run: &GridRun, figure: &str) -> anyhow::Result<(u64, ShapeRun)> {
    let (encoder_params, decoder_params) = count_params(&Bundle::open(&run.model())?);
    let (step, figures) = last_figures(&run.dir)?;
    let Some(loss) = figures.get(figure).copied() else {
        let known: Vec<_> = figures.keys().map(String::as_str).collect();
        return Err(
            Usage(format!("--figure {figure}: runs have none; they have {}", known.join(", "))).into()
        );
    };
    let result = ShapeRun {
        name: run.name.clone(),
        encoder_params,
        decoder_params,
        loss: Some(loss),
        figure: Some(figure.to_owned()),
        seed: Some(run.config.seed),
        encoder_layers: Some(run.config.model.encoder_layers),
        decoder_layers: Some(run.config.model.decoder_layers),
        wer: figures.get("wer").copied(),
        ..ShapeRun::default()
    };
    Ok((step, result))
}

/// # Errors
/// One that was finished with other settings or data: a run would go on with some of these, and its loss would not be compared with
/// the others' any more.
fn is_finished(run: &GridRun, settings: &Value) -> anyhow::Result<bool> {
    // One that cannot be read is as good as none: the run finds out itself that nothing is left to do.
    let text = std::fs::read_to_string(run.dir.join(FINISHED)).ok();
    let finished: Option<Finished> = text.and_then(|text| serde_json::from_str(&text).ok());
    let Some(finished) = finished else { return Ok(false) };
    // As it would be read, which may differ from it by the last digit of a number.
    let settings = serde_json::from_str(&settings.to_string())?;
    if let Some(key) = first_difference(&finished.settings, &settings, &|key| FREE.contains(&key)) {
        let contents = key.strip_prefix(CONTENTS).and_then(|key| key.strip_prefix('.'));
        let what = match contents {
            Some(key) => format!("when there was something else in {key}"),
            None if key.is_empty() => "with other settings".to_owned(),
            None => format!("with another {key}"),
        };
        bail!(
            "run {} was finished {what}, and the runs of a grid differ in nothing but depth and seed; give this grid another folder (--out), or remove {}",
            run.name,
            run.dir.display()
        );
    }
    Ok(run.model().is_dir())
}

/// All that decides the loss of a run. From text: a number of single precision has more digits as a value.
fn settings(config: &RunConfig, contents: &Value) -> anyhow::Result<Value> {
    let mut settings: Value = serde_json::from_str(&serde_json::to_string(config)?)?;
    settings[CONTENTS] = contents.clone();
    Ok(settings)
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
    if config.train.max_epochs > 0 {
        return refuse(format!(
            "train.max_epochs = {}: another seed makes other batches, and so another number of updates; set it to 0, and train.max_steps",
            config.train.max_epochs
        ));
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
        Grid::new("tones".to_owned(), config, Path::new("out"), [encoder, decoder], 2, "cross_entropy")
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
            "train.max_epochs=2",
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

    #[test]
    fn a_figure_that_no_evaluation_has_is_refused_before_training() {
        let figure = |name: &str| {
            let (config, depths) = (config(&[]), [&[1, 2, 4][..]; 2]);
            Grid::new("tones".to_owned(), &config, Path::new("out"), depths, 1, name).err()
        };
        assert!(["cross_entropy", "loss", "wer", "cer"].into_iter().all(|name| figure(name).is_none()));
        // There is none where it weighs nothing.
        for name in ["ctc", "bleu"] {
            let error = figure(name).expect("refused").to_string();
            assert!(error.contains(name) && error.contains("cross_entropy"), "{error}");
        }
    }

    #[test]
    fn corpora_have_one_path_however_the_folder_is_spelled_and_what_is_off_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data/fsdd");
        std::fs::create_dir_all(&data).expect("made");
        for part in ["train", "dev"] {
            std::fs::write(data.join(part).with_extension("jsonl"), part).expect("written");
        }
        let prepared = |spelled: &Path, probability: &str| {
            let config = config(&[
                "data.language=",
                "data.train=[\"fsdd:train\"]",
                "data.dev=[\"fsdd:dev\"]",
                "data.noises=[\"nowhere:train\"]",
                "augment.noise.kinds=[\"recorded\"]",
                &format!("augment.noise.probability={probability}"),
            ]);
            let depths = [&[1, 2, 4][..]; 2];
            let mut grid =
                Grid::new("tones".to_owned(), &config, spelled, depths, 1, "loss").expect("a grid");
            grid.prepare(Style::new(true))?;
            Ok::<_, anyhow::Error>(grid)
        };
        let [one, other] = [folder.path().to_owned(), folder.path().join(".")]
            .map(|spelled| prepared(&spelled, "0.0").expect("prepared"));
        assert_eq!(one.runs[0].config.data, other.runs[0].config.data);
        assert_eq!(one.runs[0].config.data.noises, ["nowhere:train"]);
        let digests = &one.contents["data.train"];
        assert_eq!(digests[0], sha256(&data.join("train.jsonl")).expect("a digest"));
        let error = prepared(folder.path(), "0.5").err().expect("refused").to_string();
        assert!(error.contains("nowhere"), "{error}");
    }

    #[test]
    fn a_run_that_was_finished_otherwise_is_refused_by_what_differs() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |more: &[&str]| GridRun {
            name: "e1-d1-s0".to_owned(),
            dir: folder.path().to_owned(),
            config: config(more),
        };
        let contents = serde_json::json!({ "data.train": ["a"], "data.dev": ["b"] });
        let is_finished = |run: &GridRun, contents: &Value| {
            is_finished(run, &settings(&run.config, contents).expect("settings"))
                .map_err(|error| error.to_string())
        };
        let first = run(&["optimizer.learning_rate=3e-4"]);
        assert_eq!(is_finished(&first, &contents), Ok(false));
        let finished = Finished { settings: settings(&first.config, &contents).expect("settings") };
        std::fs::write(folder.path().join(FINISHED), serde_json::to_string(&finished).expect("JSON"))
            .expect("written");
        assert_eq!(is_finished(&first, &contents), Ok(false));
        std::fs::create_dir(first.model()).expect("made");
        assert_eq!(is_finished(&first, &contents), Ok(true));
        let same = ["optimizer.learning_rate=3e-4", "train.loader_threads=7", "data.cache_mb=1"];
        assert_eq!(is_finished(&run(&same), &contents), Ok(true));
        for setting in
            ["train.max_steps=20001", "evaluate.max_utterances=3", "evaluate.beam_size=2", "bundle.average=2"]
        {
            let key = setting.split('=').next().unwrap_or_default();
            let other = run(&["optimizer.learning_rate=3e-4", setting]);
            let message = is_finished(&other, &contents).expect_err(setting);
            assert!(message.contains(key) && message.contains("--out"), "{message}");
        }
        let others = serde_json::json!({ "data.train": ["a"], "data.dev": ["c"] });
        let message = is_finished(&first, &others).expect_err("refused");
        assert!(message.contains("something else in data.dev"), "{message}");
    }
}
