//! On tones instead of speech: what is checked is that batches, epochs and resumption change nothing.

mod transport;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use audio::augment::{Augmenter, Sources};
use audio::encode::wav_bytes;
use audio::{Waveform, augment::cut_rng};
use candle_core::{Device, Tensor};
use models::SpeechModel;
use models::params::Params;
use models::{Description, NewConformer, NewVocabulary, NewWhisper, TextUnit};

use super::batch::{Row, Tokens};
use super::recordings::Draw;
use super::*;
use crate::checkpoint::Checkpoints;
use crate::config::{ModelKind, RunConfig, TargetConfig};
use crate::data::{Cut, JoinConfig, LengthLimits, Translations, Utterance};
use crate::loader::{Position, Source};
use crate::pass::{Pass, Workers};
use crate::task::Data as _;
use crate::train::{Event, Run, train};

const WORDS: [&str; 4] = ["one", "two", "three", "four"];

/// Cuts as they are, one by one.
const SINGLE: &str = "join={max_cuts=1, grow_epochs=0, max_secs=0.0, same_speaker=0.0, pause_secs=[0.0, 0.0], \
                      edge_secs=[0.0, 0.0], edges=0.0, silence=0.0, silence_secs=[0.0, 0.0]}";

/// A folder of short tones, each called by its pitch; every fifth has no text.
fn cuts(folder: &Path, n: usize) -> Vec<Cut> {
    (0..n)
        .map(|index| {
            let word = index % WORDS.len();
            let path = folder.join(format!("{index}.wav"));
            let n_samples = 1600 * (2 + index % 5);
            let pitch = 0.05 * (1 + word) as f32;
            let samples = (0..n_samples).map(|t| 0.5 * (t as f32 * pitch).sin()).collect();
            let waveform = Waveform { samples, sample_rate: 16_000 };
            std::fs::write(&path, wav_bytes(&waveform).unwrap()).unwrap();
            Cut {
                id: format!("{index}").into(),
                audio: path.into(),
                start_secs: 0.0,
                duration_secs: waveform.duration_secs(),
                channel: None,
                text: if index % 5 == 4 { "".into() } else { WORDS[word].into() },
                language: Some("en".into()),
                speaker: None,
                target_text: None,
                target_language: None,
                extra: None,
            }
        })
        .collect()
}

fn description() -> Description {
    describe(ModelKind::Whisper, &[])
}

fn describe(architecture: ModelKind, languages: &[String]) -> Description {
    let languages = match architecture {
        ModelKind::Whisper | ModelKind::FlowLm => Vec::new(),
        ModelKind::Canary | ModelKind::ParakeetCtc => languages.to_vec(),
    };
    let vocabulary =
        NewVocabulary { n_text_tokens: 270, unit: TextUnit::Pieces, languages, window_secs: 2.0 };
    let texts: Vec<_> = WORDS.iter().cycle().take(12).map(|word| format!(" {word}")).collect();
    if architecture != ModelKind::Whisper {
        let new = NewConformer {
            name: "tones".to_owned(),
            d_model: 16,
            n_heads: 2,
            encoder_layers: 2,
            decoder_layers: usize::from(architecture == ModelKind::Canary),
            n_mels: 80,
            subsampling: 4,
            conv_channels: 8,
            conv_kernel: 5,
            attention_context: None,
            max_target_positions: 32,
            beam_size: 1,
            vocabulary,
        };
        return new.describe(&texts).unwrap();
    }
    let new = NewWhisper {
        name: "tones".to_owned(),
        d_model: 16,
        n_heads: 2,
        encoder_layers: 2,
        decoder_layers: 1,
        n_mels: 80,
        max_target_positions: 24,
        variable_length: true,
        beam_size: 1,
        vocabulary,
    };
    new.describe(&texts).unwrap()
}

fn config(settings: &[&str]) -> RunConfig {
    let mut all = vec![
        "data.train=[\"tones.jsonl\"]",
        "sampler.batch_secs=2.5",
        "sampler.n_duration_buckets=3",
        "sampler.n_token_buckets=0",
        "join={max_cuts=3, grow_epochs=0, max_secs=1.6, same_speaker=0.0, pause_secs=[0.0, 0.1], edge_secs=[0.0, 0.1], edges=1.0, silence=0.1, \
         silence_secs=[0.2, 0.4]}",
        "augment.speed.probability=1.0",
        "augment.noise.probability=0.5",
        "augment.spec_augment.probability=0.5",
        "target.previous=0.3",
        "loss.ctc.weight=0.3",
        "model.languages=[\"en\"]",
        "schedule.warmup_steps=2",
        "optimizer.learning_rate=1e-3",
        "evaluate.max_utterances=4",
    ];
    all.extend(settings);
    RunConfig::load(None, &all.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap()
}

fn task(folder: &Path, config: &RunConfig) -> Transcribe {
    let params = Params::seeded(config.seed, &Device::Cpu);
    let params = params.with_checkpointing(config.model.gradient_checkpointing);
    Transcribe::new(
        params,
        describe(config.model.architecture, &config.model.languages),
        &config.loss,
        config.seed,
        ctc_vocabulary(
            &describe(config.model.architecture, &config.model.languages),
            &cuts(folder, 20),
            None,
        )
        .unwrap(),
        None,
        |live| {
            let recordings = Recordings::new(cuts(folder, 8), None, live.clone(), 0);
            HeldOut::new(recordings, &config.join, &config.evaluate, limits(), config.seed)
        },
    )
    .unwrap()
}

fn corpus(folder: &Path, config: &RunConfig, task: &Transcribe) -> Corpus {
    let recordings = Recordings::new(cuts(folder, 20), None, task.live().clone(), 1 << 20);
    let augmenter = Augmenter::new(config.augment.clone(), Sources::default()).unwrap();
    let capacity = Capacity { limits: limits(), memory: None };
    Corpus::new(recordings, Vec::new(), config, augmenter, &capacity, task.description(), &Device::Cpu)
        .unwrap()
        .0
}

fn limits() -> LengthLimits {
    LengthLimits { max_duration_secs: Some(2.0), max_tokens: Some(22), ..LengthLimits::default() }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_batch_is_the_same_whenever_it_is_asked_for_and_epochs_differ() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[]);
    let task = task(folder.path(), &config);
    let (one, two) = (corpus(folder.path(), &config, &task), corpus(folder.path(), &config, &task));
    assert_eq!(one.digest(), two.digest());
    let load = |corpus: &Corpus, epoch, batch| {
        let loaded = corpus.load(Position { epoch, batch }).unwrap();
        assert!(loaded.faults.is_empty(), "{:?}", loaded.faults);
        let part = |batch: Batch| (numbers(&batch.mel), batch.labels, batch.weights, batch.texts);
        loaded.parts.into_iter().map(part).collect::<Vec<_>>()
    };
    // In another order, with the cache warm and cold.
    let last = one.n_batches(1) - 1;
    let a = (load(&one, 0, 0), load(&one, 1, last));
    let b = (load(&two, 1, last), load(&two, 0, 0));
    assert!(a.0 == b.1 && a.1 == b.0);
    let all = |epoch| (0..one.n_batches(epoch)).map(|batch| load(&one, epoch, batch)).collect::<Vec<_>>();
    assert_ne!(all(0), all(1));
}

#[test]
fn every_epoch_says_what_it_wastes() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[]);
    let task = task(folder.path(), &config);
    let corpus = corpus(folder.path(), &config, &task);
    let padding: Vec<_> = (0..5).map(|epoch| corpus.padding(epoch).unwrap()).collect();
    for (epoch, padding) in (0..).zip(&padding) {
        assert_eq!((padding.epoch, padding.n_steps), (epoch, corpus.n_batches(epoch)));
        let batches =
            (0..padding.n_steps).flat_map(|batch| corpus.load(Position { epoch, batch }).unwrap().parts);
        let (mut heard_secs, mut n_cuts) = (0.0, 0);
        for Extent { audio_secs, n_cuts: n, .. } in batches.map(|batch| batch.extent) {
            heard_secs += audio_secs;
            n_cuts += n;
        }
        let total = padding.padding.total();
        assert!((total.duration_secs - heard_secs).abs() < 0.01 && total.n_items == n_cuts, "epoch {epoch}");
        // Times and contexts are drawn anew each epoch: they leave nobody out.
        assert_eq!(padding.admission.total().n_rejected(), 0, "epoch {epoch}");
    }
    assert_ne!(padding[0].padding, padding[1].padding);
}

#[test]
fn a_recording_that_cannot_be_read_is_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[SINGLE]);
    let task = task(folder.path(), &config);
    let corpus = corpus(folder.path(), &config, &task);
    std::fs::write(folder.path().join("3.wav"), b"no sound").unwrap();
    let faults: Vec<_> = (0..corpus.n_batches(0))
        .flat_map(|batch| corpus.load(Position { epoch: 0, batch }).unwrap().faults)
        .collect();
    assert!(matches!(faults.as_slice(), [fault] if fault.cut == "3" && fault.reason.contains("3.wav")));
}

/// Up to rounding, whatever the division; to the bit, whatever the number of threads.
#[test]
fn a_batch_in_parts_has_the_loss_and_gradients_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let pass = |n_parts: usize, n_threads: usize| {
        let config = config(&[&format!("train.parts={n_parts}")]);
        let task = task(folder.path(), &config);
        let corpus = corpus(folder.path(), &config, &task);
        let batch = corpus.heaviest(0).unwrap();
        let parts = corpus.load(Position { epoch: 0, batch }).unwrap().parts;
        assert_eq!(parts.len(), n_parts);
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        threads.install(|| Workers::new(n_parts).unwrap().run(&task, &[parts], &task.vars()).unwrap())
    };
    let (whole, divided) = (pass(1, 2), pass(2, 1));
    assert_eq!(whole.terms.len(), 2);
    assert_eq!(whole.extent.n_tokens, divided.extent.n_tokens);
    assert!(whole.extent.padded_secs >= divided.extent.padded_secs);
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * a.abs(), "{a} {b}");
    close(whole.loss, divided.loss);
    close(whole.gradients.norm().unwrap(), divided.gradients.norm().unwrap());
    for ((name, whole), (other, divided)) in whole.terms.iter().zip(&divided.terms) {
        assert_eq!(name, other);
        close(*whole, *divided);
    }
    let bits = |pass: &Pass| (pass.loss.to_bits(), pass.gradients.norm().unwrap().to_bits());
    for n_threads in [4, 7] {
        assert_eq!(bits(&divided), bits(&pass(2, n_threads)), "{n_threads} threads");
    }
}

#[test]
fn rows_of_a_batch_have_the_loss_and_gradients_that_they_have_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["augment.speed.probability=0.0", "augment.noise.probability=0.0"]);
    let task = task(folder.path(), &config);
    let recordings = Recordings::new(cuts(folder.path(), 20), None, task.live().clone(), 0);
    let utterances =
        config.join.utterances(&recordings.cuts, (0..recordings.cuts.len()).collect(), None, 1, 0);
    let target = TargetConfig { timestamps: 0.5, previous: 0.5, ..TargetConfig::default() };
    let draw = Draw { augmenter: None, target: &target, seed: 1, epoch: 0 };
    let rows: Vec<Row> =
        utterances.iter().map(|utterance| recordings.row(utterance, &draw).unwrap()).collect();
    let pad = task.live().special_tokens().end;
    let sums = |rows: Vec<Row>| {
        let batch = Batch::new(rows, pad, &Device::Cpu).unwrap();
        let sums = task.sums(&batch).unwrap();
        let gradients = sums.iter().fold(None, |total: Option<Tensor>, sum| {
            Some(total.map_or_else(|| sum.clone(), |total| (total + sum).unwrap()))
        });
        let gradients = gradients.unwrap().backward().unwrap();
        let norms: BTreeMap<String, Vec<f32>> = task
            .vars()
            .into_iter()
            .map(|(name, var)| {
                let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name} has no gradient"));
                (name, numbers(gradient))
            })
            .collect();
        (sums.iter().map(|sum| sum.to_scalar::<f32>().unwrap()).collect::<Vec<_>>(), norms)
    };
    let (together, gradients) = sums(rows.clone());
    let mut alone = vec![0.0; together.len()];
    let mut added: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for row in rows {
        let (row, gradients) = sums(vec![row]);
        alone.iter_mut().zip(row).for_each(|(sum, part)| *sum += part);
        for (name, gradient) in gradients {
            let sum = added.entry(name).or_insert_with(|| vec![0.0; gradient.len()]);
            sum.iter_mut().zip(gradient).for_each(|(sum, part)| *sum += part);
        }
    }
    for (a, b) in together.iter().zip(&alone) {
        assert!((a - b).abs() < 1e-4 * b.abs(), "{together:?} {alone:?}");
    }
    for (name, gradient) in &gradients {
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        let size = norm(&mut gradient.iter().copied());
        let error = norm(&mut gradient.iter().zip(&added[name]).map(|(a, b)| a - b));
        assert!(error <= 1e-3 * size + 1e-5, "{name}: {error} of {size}");
    }
}

#[test]
fn the_live_model_hears_what_the_trained_one_learns() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[]);
    let task = task(folder.path(), &config);
    let before = task.evaluate().unwrap();
    for (_, var) in task.vars() {
        var.set(&(var.as_tensor() * 1.5).unwrap()).unwrap();
    }
    let after = task.evaluate().unwrap();
    assert_ne!(before["loss"], after["loss"]);
    for name in ["loss", "cross_entropy", "ctc", "wer", "cer"] {
        assert!(after[name].is_finite(), "{name}");
    }
}

/// The decoder knows nothing; the encoder has learnt its tones by heart.
#[test]
fn an_encoder_that_is_trained_alone_is_judged_by_what_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[
        "loss.cross_entropy.weight=0",
        "loss.ctc.weight=1",
        "augment={}",
        SINGLE,
        "optimizer.learning_rate=5e-3",
        "sampler.batch_secs=20",
        "train.max_steps=800",
        "train.best_by=cer",
    ]);
    let task = task(folder.path(), &config);
    let corpus = corpus(folder.path(), &config, &task);
    let before = task.evaluate().unwrap();
    assert!(!before.contains_key("cross_entropy") && before["cer"] > 0.5, "{before:?}");
    let out = tempfile::tempdir().unwrap();
    let run = Run {
        train: &config.train,
        optimizer: &config.optimizer,
        schedule: &config.schedule,
        checkpoints: &Checkpoints::open(out.path()).unwrap(),
        data_digest: corpus.digest(),
        held_out_digest: &task.held_out_digest(),
    };
    train(&task, &corpus, &run, &AtomicBool::new(false), &mut |_| {}).unwrap();
    let after = task.evaluate().unwrap();
    assert!(after["cer"] < 0.2, "{after:?}");
}

#[test]
fn a_bundle_that_was_written_is_the_model_that_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[]);
    let task = task(folder.path(), &config);
    let out = tempfile::tempdir().unwrap();
    task.write_bundle(out.path(), WeightDtype::F16).unwrap();
    let bundle = models::Bundle::open(out.path()).unwrap();
    assert!(bundle.weights().tensors().all(|(name, _, dtype)| !name.contains("ctc") && dtype == "F16"));
    let written = Transcriber::load(bundle, &Device::Cpu).unwrap();
    let architecture = task.description().architecture();
    let whisper = SpeechModel::load(&Params::seeded(config.seed, &Device::Cpu), architecture).unwrap();
    let samples: Vec<f32> = (0..8_000).map(|t| (t as f32 * 0.07).sin()).collect();
    let features = written.window_features(&samples);
    assert_eq!(features.n_frames, 50);
    let encoded = written.encode(features.clone()).unwrap();
    let mel = Tensor::from_vec(features.data, (1, 80, 50), &Device::Cpu).unwrap();
    let expected = whisper.encoder.forward(&mel, &|| true).unwrap();
    for (a, b) in numbers(&encoded).iter().zip(numbers(&expected)) {
        assert!((a - b).abs() < 2e-2, "{a} {b}");
    }
}

/// Losses of a run of eight updates, from the beginning or from where it was stopped after `stops`.
fn losses(folder: &Path, out: &Path, stops: &[u64], settings: &[&str]) -> Vec<u64> {
    let all = [&["train.max_steps=8", "train.save_every=1", "train.average_decay=0.9"], settings].concat();
    let config = config(&all);
    let mut losses = Vec::new();
    for stop_after in stops.iter().copied().chain([u64::MAX]) {
        let task = task(folder, &config);
        let corpus = corpus(folder, &config, &task);
        let checkpoints = Checkpoints::open(out).unwrap();
        let run = Run {
            train: &config.train,
            optimizer: &config.optimizer,
            schedule: &config.schedule,
            checkpoints: &checkpoints,
            data_digest: corpus.digest(),
            held_out_digest: &task.held_out_digest(),
        };
        let stop = AtomicBool::new(false);
        train(&task, &corpus, &run, &stop, &mut |event| {
            if let Event::Step(report) = event {
                losses.push(report.loss.to_bits());
                stop.store(report.step >= stop_after, std::sync::atomic::Ordering::Relaxed);
            }
        })
        .unwrap();
    }
    losses
}

#[test]
fn a_run_that_was_stopped_twice_has_the_losses_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = losses(folder.path(), whole.path(), &[], &[]);
    assert_eq!(expected.len(), 8);
    assert_eq!(losses(folder.path(), stopped.path(), &[3, 5], &[]), expected);
}

const CANARY: &[&str] = &["model.architecture=\"canary\""];
const CTC: &[&str] =
    &["model.architecture=\"parakeet_ctc\"", "loss.cross_entropy.weight=0.0", "loss.ctc.weight=1.0"];

/// Running statistics come back with the weights, also where several parts of a batch make them.
#[test]
fn runs_of_conformers_go_on_as_if_they_had_not_been_stopped() {
    for settings in [CANARY, CTC, &[CANARY, &["train.parts=2", "train.accumulate=2"]].concat()] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = losses(folder.path(), whole.path(), &[], settings);
        assert_eq!(expected.len(), 8);
        assert_eq!(losses(folder.path(), stopped.path(), &[3, 5], settings), expected, "{settings:?}");
        let statistic = |dir: &Path| {
            let path = Checkpoints::open(dir).unwrap().path(8).join("model.safetensors");
            let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
            let of_last = |name: &String| name.ends_with("layers.1.conv.norm.running_mean");
            numbers(&tensors[tensors.keys().find(|name| of_last(name)).unwrap()])
        };
        assert_eq!(statistic(whole.path()), statistic(stopped.path()));
        let losses: Vec<f64> = expected.iter().map(|bits| f64::from_bits(*bits)).collect();
        assert!(statistic(whole.path()).iter().any(|mean| *mean != 0.0), "{settings:?}: {losses:?}");
    }
}

#[test]
fn every_parameter_of_a_conformer_learns() {
    for settings in [CANARY, CTC] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&[settings, &[SINGLE]].concat());
        let task = task(folder.path(), &config);
        let corpus = corpus(folder.path(), &config, &task);
        let batch = &corpus.load(Position::default()).unwrap().parts[0];
        let sums = task.sums(batch).unwrap();
        let total = sums.iter().skip(1).fold(sums[0].clone(), |total, sum| (total + sum).unwrap());
        let gradients = models::nn::backward(&total).unwrap();
        let vars = task.vars();
        assert!(vars.iter().any(|(name, _)| name == "ctc_head.weight"), "{settings:?}");
        for (name, var) in vars {
            assert!(gradients.get(&var).is_some(), "{settings:?}: {name} has no gradient");
        }
    }
}

#[test]
fn what_a_conformer_is_trained_to_is_the_bundle_that_it_is_written_to() {
    for (settings, has_head) in [(CANARY, false), (CTC, true)] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(settings);
        let task = task(folder.path(), &config);
        let out = tempfile::tempdir().unwrap();
        task.write_bundle(out.path(), WeightDtype::F32).unwrap();
        let bundle = models::Bundle::open(out.path()).unwrap();
        assert_eq!(bundle.weights().tensors().any(|(name, ..)| name.starts_with("ctc_head")), has_head);
        let written = Transcriber::load(bundle, &Device::Cpu).unwrap();
        let samples: Vec<f32> = (0..8_000).map(|t| (t as f32 * 0.07).sin()).collect();
        let encoded = |transcriber: &Transcriber| {
            numbers(&transcriber.encode(transcriber.window_features(&samples)).unwrap())
        };
        for (a, b) in encoded(&written).iter().zip(encoded(task.live())) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

#[test]
fn a_model_that_reads_by_ctc_alone_is_trained_by_that_alone() {
    let config = config(&[CTC[0]]);
    let refused =
        check_loss(describe(ModelKind::ParakeetCtc, &["en".to_owned()]).architecture(), &config.loss);
    assert!(refused.is_err_and(|error| error.to_string().contains("loss.cross_entropy.weight")));
}

#[test]
fn computing_again_instead_of_keeping_changes_no_first_loss() {
    for settings in [&[], CANARY] {
        let folder = tempfile::tempdir().unwrap();
        let (kept, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = losses(folder.path(), kept.path(), &[], settings);
        let settings = [settings, &["model.gradient_checkpointing=true"]].concat();
        let again = losses(folder.path(), again.path(), &[], &settings);
        assert_eq!(kept[0], again[0]);
        for (a, b) in kept.into_iter().zip(again) {
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            assert!((a - b).abs() < 1e-3 * a.abs(), "{a} {b}");
        }
    }
}

#[test]
fn prompts_are_given_silence_is_told_and_the_rest_is_learnt() {
    let description = description();
    let (_, _, special) = description.vocabulary().unwrap();
    let begin = special.timestamp_begin().unwrap();
    let (start, end) = (special.start, special.end);
    let (no_times, no_speech) = (special.no_timestamps.unwrap(), special.no_speech.unwrap());

    let plain = Tokens::new(&special, &[], &[start, no_times], &[7, 8], None);
    assert_eq!(plain.sequence, [start, no_times, 7, 8, end]);
    assert_eq!((plain.labels, plain.weights), (vec![no_times, 7, 8, end], vec![1.0; 4]));

    let timed = Tokens::new(&special, &[], &[start], &[7], Some((begin + 3, begin + 9)));
    assert_eq!(timed.labels, [begin + 3, 7, begin + 9, end]);

    let silent = Tokens::new(&special, &[], &[start, no_times], &[], None);
    assert_eq!((silent.labels, silent.weights), (vec![no_speech, end], vec![1.0; 2]));
    let silent = Tokens::new(&special, &[], &[start], &[], Some((begin, begin)));
    assert_eq!((silent.labels, silent.weights), (vec![no_speech, end], vec![1.0; 2]));

    let after = Tokens::new(&special, &[5, 6], &[start, 9, no_times], &[7], None);
    assert_eq!(after.sequence, [5, 6, start, 9, no_times, 7, end]);
    assert_eq!(after.weights, [0.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
}

#[test]
fn a_canary_is_asked_for_what_each_row_is() {
    let folder = tempfile::tempdir().unwrap();
    let canary = config(&["model.architecture=canary", "model.languages=[\"en\", \"ps\"]"]);
    let task = task(folder.path(), &canary);
    let mut cuts = cuts(folder.path(), 2);
    cuts[0].text = "One, two.".into();
    (cuts[0].target_text, cuts[0].target_language) = (Some("یو".into()), Some("ps".into()));
    let recordings = Recordings::new(Translations::Both.apply(cuts, &[]), None, task.live().clone(), 0);
    let special = task.live().special_tokens();
    let rows = |unpunctuated: f64| -> Vec<Row> {
        let target = &TargetConfig { unpunctuated, ..TargetConfig::default() };
        let draw = Draw { augmenter: None, target, seed: 0, epoch: 0 };
        let utterance = |(index, cut): (usize, &Cut)| Utterance::of(index, cut);
        let utterances = recordings.cuts.iter().enumerate().map(utterance);
        utterances.map(|utterance| recordings.row(&utterance, &draw).unwrap()).collect()
    };
    let [translation, transcript, other] = <[Row; 3]>::try_from(rows(0.0)).unwrap();
    let token = |name: &str| task.live().tokenizer().special(name).unwrap();
    let languages = |row: &Row| row.tokens.sequence[3..5].to_vec();
    assert_eq!(languages(&translation), [token("en"), token("ps")]);
    assert_eq!(languages(&transcript), [token("en"), token("en")]);
    let text = |row: &Row| task.live().tokenizer().decode(&row.tokens.text).unwrap();
    assert_eq!((text(&translation).trim(), text(&transcript).trim()), ("یو", "One, two."));
    // What both say is what the prompt asks for; numbers that others draw stay theirs.
    let [_, small, same] = <[Row; 3]>::try_from(rows(1.0)).unwrap();
    let (begin, end) = (small.tokens.sequence.len() - "one two".len() - 2, small.tokens.sequence.len() - 1);
    let written = task.live().tokenizer().decode(&small.tokens.sequence[begin.min(end)..end]).unwrap();
    assert!(written.ends_with("one two") && !written.contains(['O', ',']), "{written:?}");
    // CTC, which is asked for nothing, learns the text as it stands.
    assert_eq!(text(&small).trim(), "One, two.");
    assert!(
        small.tokens.sequence.contains(&token("nopnc"))
            && !transcript.tokens.sequence.contains(&token("nopnc"))
    );
    assert_eq!((text(&other), other.features.data), (text(&same), same.features.data));
    // CTC hears transcripts alone.
    let batch = Batch::new(vec![translation, transcript], special.end, &Device::Cpu).unwrap();
    let targets = task.ctc_targets(&batch);
    assert_eq!(targets.weights, [0.0, 1.0]);
    let heard = task.terms(&batch).iter().find(|term| term.name == "ctc").unwrap().weight;
    assert_eq!(heard, targets.labels[1].len() as f64);
    // A model that cannot be asked is refused before it is trained.
    let config = config(&["model.architecture=parakeet_ctc", "loss.cross_entropy.weight=0.0"]);
    let reader = self::task(folder.path(), &config);
    let translations = Recordings::new(recordings.cuts.clone(), None, reader.live().clone(), 0);
    assert!(translations.check(&config.target).unwrap_err().to_string().starts_with("task: "));
    let target = TargetConfig { unpunctuated: 0.5, ..config.target.clone() };
    let plain = Recordings::new(self::cuts(folder.path(), 2), None, reader.live().clone(), 0);
    assert!(plain.check(&config.target).is_ok());
    assert!(plain.check(&target).unwrap_err().to_string().starts_with("punctuation: "));
}

#[test]
fn held_out_utterances_do_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["evaluate.join=true"]);
    let task = task(folder.path(), &config);
    let heard = || {
        let references = task.held_out.references().map(Result::unwrap);
        references.map(|reference| (reference.name, reference.waveform.samples)).collect::<Vec<_>>()
    };
    assert!(heard() == heard() && heard().len() == 4);
    let mut rng = cut_rng(0, 0, "a");
    let silence = Utterance {
        id: "silence".to_owned(),
        parts: Vec::new(),
        rest_secs: 0.5,
        duration_secs: 0.5,
        silent_like: None,
    };
    assert_eq!(task.held_out.recordings.hear(&silence, &mut rng).unwrap().samples.len(), 8_000);
    assert_eq!(JoinConfig::NONE.utterances(&[], Vec::new(), None, 0, 0), []);
}

/// A student of a random model with `blocks` of its decoder, as the recipe has it.
fn student(folder: &Path, config: &RunConfig, blocks: &[usize]) -> Transcribe {
    let dir = folder.join(format!("base-{}", config.model.architecture as usize));
    if !dir.is_dir() {
        std::fs::create_dir(&dir).unwrap();
        task(folder, &self::config(&["loss.ctc.weight=0.0"])).write_bundle(&dir, WeightDtype::F32).unwrap();
    }
    let open = || models::Bundle::open(&dir).unwrap();
    let (description, weights) = open().with_decoder_blocks(blocks).unwrap().into_parts();
    let part = config.strategy.part(description.architecture(), 0);
    let teacher = Transcriber::load(open(), &Device::Cpu).unwrap();
    let teacher = Teacher::new(&teacher, config).unwrap();
    Transcribe::new(
        Params::trainable(weights, &Device::Cpu).with_part(part),
        description,
        &config.loss,
        0,
        CtcVocabulary::default(),
        Some(teacher),
        |live| {
            let recordings = Recordings::new(cuts(folder, 8), None, live.clone(), 0);
            HeldOut::new(recordings, &config.join, &config.evaluate, limits(), config.seed)
        },
    )
    .unwrap()
}

const STUDENT: [&str; 7] = [
    "model.base=x",
    "strategy.kind=distil",
    "strategy.distil.decoder_layers=1",
    "loss.ctc.weight=0.0",
    "loss.distillation.weight=1.0",
    "augment.speed.probability=0.0",
    "augment.spec_augment.probability=0.0",
];

#[test]
fn a_student_with_all_of_its_teachers_blocks_has_nothing_to_learn_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&STUDENT);
    let task = student(folder.path(), &config, &[0]);
    let batch = &corpus(folder.path(), &config, &task).load(Position::default()).unwrap().parts[0];
    let (terms, sums) = (task.terms(batch), task.sums(batch).unwrap());
    let names: Vec<_> = terms.iter().map(|term| term.name).collect();
    assert_eq!(names, ["cross_entropy", "distillation"]);
    let mean = |index: usize| f64::from(sums[index].to_scalar::<f32>().unwrap()) / terms[index].weight;
    assert!(mean(0) > 1.0 && mean(1).abs() < 1e-5, "{} and {}", mean(0), mean(1));
    // The encoder is no part of what is trained; all of the decoder is.
    let gradients = models::nn::backward(&sums[0]).unwrap();
    let vars = task.vars();
    assert!(!vars.is_empty() && vars.iter().all(|(name, _)| name.starts_with("model.decoder.")));
    for (name, var) in &vars {
        assert!(gradients.get(var).is_some(), "{name} has no gradient");
    }
}

#[test]
fn what_was_heard_before_is_heard_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let with = |more: &str| {
        let config = config(
            &[
                &STUDENT[..],
                &["augment.noise.probability=0.0", SINGLE, "loss.cross_entropy.weight=0.8", more],
            ]
            .concat(),
        );
        let task = student(folder.path(), &config, &[0]);
        // Another decoder than its teacher's, so that there is something to lose.
        for (_, var) in task.vars() {
            var.set(&(var.as_tensor() * 0.5).unwrap()).unwrap();
        }
        let corpus = corpus(folder.path(), &config, &task);
        let mut sums = Vec::new();
        for at in [0, 1, 0, 1].map(|batch| Position { epoch: 0, batch }) {
            for part in corpus.load(at).unwrap().parts {
                sums.push(
                    task.sums(&part).unwrap().iter().flat_map(numbers).map(f32::to_bits).collect::<Vec<_>>(),
                );
            }
        }
        (sums, task.teacher.unwrap().states.n_kept())
    };
    let ((kept, n_kept), (computed, n_none)) =
        (with("strategy.distil.cache_mb=8"), with("strategy.distil.cache_mb=0"));
    assert_eq!(kept, computed);
    assert!(n_kept > 2 && n_none == 0, "{n_kept} and {n_none}");
    assert_eq!(kept[..kept.len() / 2], kept[kept.len() / 2..]);
}
