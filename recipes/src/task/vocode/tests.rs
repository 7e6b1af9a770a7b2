//! On one second of a synthetic voice: harmonics of a pitch that falls, in syllables.

use std::f32::consts::TAU;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use audio::Waveform;
use audio::encode::{AudioFormat, encode_bytes};
use candle_core::Device;
use models::BundleSource;

use super::*;
use crate::checkpoint::Checkpoints;
use crate::loader::{Position, Source as _};
use crate::pass::Workers;
use crate::task::Data as _;
use crate::train::{Ending, Event, Run, StepReport, TrainConfig, train};

const RATE: u32 = 16_000;

fn voice(seed: u32, secs: f32) -> Waveform {
    let mut phase = 0.0f32;
    let sample = |t: u32| {
        let at = t as f32 / RATE as f32;
        phase += TAU * (110.0 + 15.0 * seed as f32 + 30.0 * (1.0 - at)) / RATE as f32;
        let loud = 0.5 - 0.5 * (TAU * 3.0 * at).cos();
        (1..12).map(|k| 0.2 / k as f32 * (k as f32 * phase).sin()).sum::<f32>() * loud
    };
    Waveform { samples: (0..(secs * RATE as f32) as u32).map(sample).collect(), sample_rate: RATE }
}

fn cut(folder: &Path, seed: u32, secs: f32) -> Cut {
    let path = folder.join(format!("{seed}.wav"));
    fs::write(&path, encode_bytes(&voice(seed, secs), AudioFormat::Wav).unwrap()).unwrap();
    Cut {
        id: seed.to_string().into(),
        audio: path.as_path().into(),
        start_secs: 0.0,
        duration_secs: f64::from(secs),
        channel: None,
        text: "".into(),
        language: None,
        speaker: None,
        target_text: None,
        target_language: None,
        extra: None,
    }
}

fn config(settings: &[&str]) -> RunConfig {
    let usual = [
        "task=vocode",
        "data.train=[\"voice.jsonl\"]",
        "vocoder={n_mels=24, hidden_size=32, intermediate_size=48, num_layers=2}",
        "vocoder.crop_secs=0.25",
        "sampler.batch_secs=1.1",
        "loss.cross_entropy.weight=0",
        "loss.spectral={weight=1, n_fft=[256, 512]}",
        "loss.mel.weight=1",
        "loss.adversarial={channels=2, periods=[2, 3], n_fft=[256]}",
        "optimizer.learning_rate=2e-3",
        "schedule.kind=constant",
        "schedule.warmup_steps=0",
        "train.loader_threads=1",
        "train.device=cpu",
        "train.best_by=mel_l1",
    ];
    let all: Vec<_> = usual.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
    RunConfig::load(None, &all).unwrap()
}

fn new(folder: &Path, config: &RunConfig) -> (Vocode, Corpus) {
    let train = vec![cut(folder, 0, 1.0), cut(folder, 1, 0.8), cut(folder, 2, 0.1)];
    let sounds = Sounds { train, weights: Vec::new(), dev: vec![cut(folder, 3, 0.7)] };
    let params = Params::seeded(config.seed, &Device::Cpu);
    Vocode::new(params, &config.vocoder.vocos(), config, sounds).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn stretches_depend_on_their_place_alone_and_epochs_differ() {
    let folder = tempfile::tempdir().unwrap();
    let (_, one) = new(folder.path(), &config(&[]));
    let (_, two) = new(folder.path(), &config(&[]));
    assert_eq!(one.digest(), two.digest());
    let load = |corpus: &Corpus, epoch, batch| {
        let loaded = corpus.load(Position { epoch, batch }).unwrap();
        assert!(loaded.faults.is_empty(), "{:?}", loaded.faults);
        loaded.parts.iter().map(|part| numbers(&part.samples)).collect::<Vec<_>>()
    };
    let a = (load(&one, 0, 0), load(&one, 1, 0));
    let b = (load(&two, 1, 0), load(&two, 0, 0));
    assert!(a.0 == b.1 && a.1 == b.0 && a.0 != a.1);
    let parts = one.load(Position { epoch: 0, batch: 0 }).unwrap().parts;
    for part in &parts {
        let (n_rows, n_samples) = part.samples.dims2().unwrap();
        // A quarter of a second in whole hops, and the features of it.
        assert_eq!((n_samples, part.mel.dims()), (16 * 256, &[n_rows, 17, 24][..]));
    }
    // Four stretches of the first, three of the second, one of what is shorter than that.
    assert_eq!(one.padding(0).unwrap().padding.total().n_items, 8);
    let heard: f64 = (0..one.n_batches(0))
        .flat_map(|batch| one.load(Position { epoch: 0, batch }).unwrap().parts)
        .map(|part| part.extent.audio_secs)
        .sum();
    assert!((heard - (7.0 * 0.256 + 0.1)).abs() < 1e-3, "{heard}");
}

#[test]
fn each_phase_has_gradients_for_all_that_is_its_own_and_for_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (task, corpus) = new(folder.path(), &config(&["loss.adversarial.weight=1", "train.parts=1"]));
    let batches = || vec![corpus.load(Position { epoch: 0, batch: 0 }).unwrap().parts];
    let workers = Workers::new(1).unwrap();
    let (vocoder, phase) = (task.vars(), task.further_phases().remove(0));
    let discriminators = phase.vars();
    assert_eq!(discriminators.len(), 2 * (2 * 5 + 4));
    // Before their time discriminators are not asked and do not learn.
    task.begin(50, 100);
    let batch = batches();
    let pass = workers.run(&task, &batch, &vocoder).unwrap();
    assert_eq!(pass.terms.iter().map(|term| term.0).collect::<Vec<_>>(), ["spectral", "mel"]);
    let pass = workers.run_phase(phase, &batch, &discriminators).unwrap();
    assert!(pass.terms.is_empty() && pass.gradients.missing().len() == discriminators.len());
    task.begin(51, 100);
    let batch = batches();
    let pass = workers.run(&task, &batch, &vocoder).unwrap();
    let names: Vec<_> = pass.terms.iter().map(|term| term.0).collect();
    assert_eq!(names, ["spectral", "mel", "adversarial", "feature_matching"]);
    assert!(pass.gradients.missing().is_empty(), "{:?}", pass.gradients.missing());
    let of_others = workers.run(&task, &batch, &discriminators).unwrap();
    assert_eq!(of_others.gradients.missing().len(), discriminators.len());
    // Whether the vocoder has just been asked or is asked again.
    let losses = [&batch, &batches()].map(|batch| {
        let pass = workers.run_phase(phase, batch, &discriminators).unwrap();
        assert!(pass.gradients.missing().is_empty(), "{:?}", pass.gradients.missing());
        let of_others = workers.run_phase(phase, batch, &vocoder).unwrap();
        assert_eq!(of_others.gradients.missing().len(), vocoder.len());
        pass.loss
    });
    assert!((losses[0] - losses[1]).abs() < 1e-5, "{losses:?}");
}

/// A run in a folder, to its end or until the update `stop_after`.
fn run(folder: &Path, config: &RunConfig, stop_after: Option<u64>) -> (Vec<StepReport>, Ending, Vocode) {
    let (task, corpus) = new(folder, config);
    let checkpoints = Checkpoints::open(&folder.join("checkpoints")).unwrap();
    let settings = Run {
        train: &config.train,
        optimizer: &config.optimizer,
        schedule: &config.schedule,
        checkpoints: &checkpoints,
        data_digest: corpus.digest(),
        held_out_digest: &task.held_out_digest(),
    };
    let (stop, mut reports) = (AtomicBool::new(false), Vec::new());
    let (ending, _) = train(&task, &corpus, &settings, &stop, &mut |event| {
        if let Event::Step(report) = event {
            stop.store(Some(report.step) == stop_after, Ordering::Relaxed);
            reports.push(report);
        }
    })
    .unwrap();
    (reports, ending, task)
}

#[test]
fn a_run_that_was_interrupted_in_either_phase_goes_on_as_if_it_had_not_been() {
    let config = config(&[
        "loss.adversarial.weight=1",
        "loss.adversarial.begin=0.5",
        "train.max_steps=8",
        "train.evaluate_every=0",
        "train.average_decay=0.5",
    ]);
    let bits = |reports: &[StepReport]| {
        let of = |report: &StepReport| {
            let terms = report.terms.iter().map(|(name, value)| (*name, value.to_bits()));
            (report.step, report.loss.to_bits(), terms.collect::<Vec<_>>())
        };
        reports.iter().map(of).collect::<Vec<_>>()
    };
    let weights = |task: &Vocode| {
        let others = task.further_phases().into_iter().flat_map(|phase| phase.vars());
        task.vars().into_iter().chain(others).flat_map(|(_, var)| numbers(&var)).collect::<Vec<_>>()
    };
    let whole_folder = tempfile::tempdir().unwrap();
    let (whole, ending, trained) = run(whole_folder.path(), &config, None);
    assert_eq!((whole.len(), ending), (8, Ending::Complete));
    for report in &whole {
        let is_on = report.terms.iter().any(|(name, _)| *name == "discriminators");
        assert_eq!((is_on, report.is_skipped), (report.step > 4, false), "{report:?}");
    }
    for stop_after in [2, 4, 6] {
        let folder = tempfile::tempdir().unwrap();
        let (first, ending, _) = run(folder.path(), &config, Some(stop_after));
        assert_eq!(ending, Ending::Stopped);
        let (second, _, resumed) = run(folder.path(), &config, None);
        assert_eq!(bits(&[first, second].concat()), bits(&whole), "stopped after {stop_after}");
        assert_eq!(weights(&resumed), weights(&trained));
    }
    // What is trained beside the vocoder lies in checkpoints, and not in what they are as bundles.
    let checkpoint = whole_folder.path().join("checkpoints/00000008");
    assert!(checkpoint.join("discriminators.safetensors").is_file());
    let source = BundleSource::from(checkpoint.as_path());
    let served = Vocos::open(&source, &Device::Cpu).unwrap();
    assert_eq!(served.config(), &config.vocoder.vocos());
    let held = models::Weights::from_source(&source).unwrap();
    assert_eq!(held.tensors().count(), trained.vars().len());
}

/// Discriminators make spectra worse at first, for the better: a run that is judged by spectra would keep what they never heard.
#[test]
fn the_best_is_one_that_learnt_from_discriminators() {
    let config = config(&[
        "loss.adversarial={weight=1e4, begin=0.5, learning_rate=1e-3}",
        "optimizer.learning_rate=1e-2",
        "schedule.warmup_steps=0",
        "train.max_steps=8",
        "train.evaluate_every=1",
        "train.best_by=mel_l1",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let (task, corpus) = new(folder.path(), &config);
    assert_eq!(task.further_phases()[0].learning_rate(0.1), 1e-3);
    let checkpoints = Checkpoints::open(&folder.path().join("checkpoints")).unwrap();
    let settings = Run {
        train: &config.train,
        optimizer: &config.optimizer,
        schedule: &config.schedule,
        checkpoints: &checkpoints,
        data_digest: corpus.digest(),
        held_out_digest: &task.held_out_digest(),
    };
    let mut figures = Vec::new();
    let (_, state) = train(&task, &corpus, &settings, &AtomicBool::new(false), &mut |event| {
        if let Event::Evaluated { step, figures: evaluated, .. } = event {
            figures.push((step, evaluated["mel_l1"]));
        }
    })
    .unwrap();
    let lowest = figures.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(lowest.0 <= 4, "discriminators made nothing worse: {figures:?}");
    assert!(state.best.is_some_and(|best| best.step > 4), "{:?}", state.best);
    // Made longer, the run is not yet where discriminators would begin: they are there all the same.
    let longer = RunConfig { train: TrainConfig { max_steps: 20, ..config.train.clone() }, ..config };
    let (reports, _, _) = run(folder.path(), &longer, Some(9));
    assert!(reports.iter().all(|report| report.terms.iter().any(|(name, _)| *name == "discriminators")));
}

#[test]
fn a_voice_is_learnt_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["train.max_steps=150", "train.evaluate_every=0"]);
    let (untrained, _) = new(folder.path(), &config);
    let before = untrained.evaluate().unwrap();
    let names: Vec<_> = before.keys().map(String::as_str).collect();
    assert_eq!(names, ["loss", "mel", "mel_l1", "spectral", "spectral_convergence"]);
    assert!(names.iter().all(|name| config.figures().contains(name)));
    let (reports, _, task) = run(folder.path(), &config, None);
    let mean =
        |reports: &[StepReport]| reports.iter().map(|report| report.loss).sum::<f64>() / reports.len() as f64;
    let (first, last) = (mean(&reports[..5]), mean(&reports[145..]));
    assert!(last < 0.4 * first, "{first} to {last}");
    // What was held out has another pitch, and is nearer, too.
    let after = task.evaluate().unwrap();
    for name in ["mel_l1", "spectral_convergence", "loss"] {
        assert!(after[name] < before[name], "{name}: {} to {}", before[name], after[name]);
    }
}

#[test]
fn settings_that_a_vocoder_has_nothing_for_are_refused_by_name() {
    let load = |settings: &[&str]| {
        let usual = ["data.train=[\"a\"]", "train.best_by=loss"];
        let all: Vec<_> = usual.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        RunConfig::load(None, &all).map_err(|error| error.to_string())
    };
    let vocoder = ["task=vocode", "loss.cross_entropy.weight=0", "loss.mel.weight=1"];
    assert!(load(&vocoder).is_ok());
    for (setting, key) in [
        ("loss.cross_entropy.weight=1", "loss.cross_entropy.weight"),
        ("loss.adversarial={weight=1, begin=1.0}", "loss.adversarial.begin"),
        ("loss.spectral.n_fft=[7]", "loss.spectral.n_fft"),
        ("vocoder.crop_secs=0", "vocoder.crop_secs"),
        ("sampler.batch_secs=0.5", "sampler.batch_secs"),
        ("augment.gain.probability=0.5", "augment"),
        ("data.translations=both", "data.translations"),
        ("train.best_by=wer", "train.best_by"),
    ] {
        let error = load(&[&vocoder[..], &[setting]].concat()).unwrap_err();
        assert!(error.starts_with(key), "{setting}: {error}");
    }
    let error = load(&["loss.mel.weight=1"]).unwrap_err();
    assert!(error.starts_with("loss.mel.weight"), "{error}");
    let error =
        load(&["task=vocode", "loss.cross_entropy.weight=0", "loss.adversarial.weight=1"]).unwrap_err();
    assert!(error.starts_with("loss.mel.weight"), "{error}");
}
