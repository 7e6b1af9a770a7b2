//! On a language whose letters are tones.

use std::f32::consts::TAU;

use audio::encode::wav_bytes;
use audio::{FeatureSpec, LogKind, Waveform};
use candle_core::Device;
use models::flow_lm::{Noise, SymbolUnit, Symbols};

use super::recordings::Row;
use super::*;
use crate::data::Cut;
use crate::loader::{Position, Source as _};
use crate::optim::AdamW;
use crate::pass::Workers;

const SAMPLE_RATE: u32 = 16_000;
const LETTERS: [(char, f32); 4] = [('a', 300.0), ('b', 600.0), ('c', 1_200.0), ('d', 2_400.0)];
/// Samples of a letter: ten mel frames.
const LETTER_SAMPLES: usize = 2_560;
/// Samples of silence before and after a word: four.
const EDGE_SAMPLES: usize = 1_024;

fn say(text: &str, gain: f32) -> Waveform {
    let hz = |letter: char| LETTERS.iter().find(|(known, _)| *known == letter).map_or(0.0, |(_, hz)| *hz);
    let tone = |letter: char| {
        (0..LETTER_SAMPLES).map(move |t| gain * (TAU * hz(letter) * t as f32 / SAMPLE_RATE as f32).sin())
    };
    let silence = || std::iter::repeat_n(0.0, EDGE_SAMPLES);
    let samples = silence().chain(text.chars().flat_map(tone)).chain(silence());
    Waveform { samples: samples.collect(), sample_rate: SAMPLE_RATE }
}

/// Recordings of words of three to six letters by two speakers.
fn cuts(folder: &Path, n: usize) -> Vec<Cut> {
    let cut = |index: usize| {
        // No letter twice: nobody would hear where one ends.
        let noise = Noise::new(index as u64);
        let mut place = index % 4;
        let letter = |at: usize| {
            place = (place + 1 + (noise.uniform(at as u64) * 3.0) as usize) % 4;
            LETTERS[place].0
        };
        let text: String = (0..3 + index % 4).map(letter).collect();
        let speaker = index % 2;
        let waveform = say(&text, [0.5, 0.1][speaker]);
        let path = folder.join(format!("{index}.wav"));
        std::fs::write(&path, wav_bytes(&waveform).expect("a WAV")).expect("written");
        Cut {
            id: index.to_string().into(),
            audio: path.into(),
            start_secs: 0.0,
            duration_secs: waveform.duration_secs(),
            channel: None,
            text: text.into(),
            language: Some("xx".into()),
            speaker: Some(["loud", "quiet"][speaker].into()),
            target_text: None,
            target_language: None,
            extra: None,
        }
    };
    (0..n).map(cut).collect()
}

fn config() -> FlowLmConfig {
    FlowLmConfig {
        feature_spec: FeatureSpec {
            log: LogKind::Ln { floor: 1e-2 },
            ..FeatureSpec::vocoder(SAMPLE_RATE, 20)
        },
        mel_mean: vec![-3.0; 20],
        mel_std: vec![2.0; 20],
        patch_frames: 4,
        unit: SymbolUnit::Characters,
        symbols: Symbols::of_texts(SymbolUnit::Characters, ["abcd"]),
        languages: vec!["xx".to_owned()],
        voices: Vec::new(),
        max_text_positions: 12,
        max_patches: 30,
        max_prompt_patches: 4,
        max_advance: 4,
        hidden_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 96,
        num_text_layers: 1,
        head_hidden_size: 96,
        num_head_layers: 2,
        aligner_size: 16,
        flow_map: true,
        sampling: models::flow_lm::Sampling::default(),
        vocoder: None,
    }
}

fn run() -> RunConfig {
    let settings = [
        "task=speak",
        "model.architecture=flow_lm",
        "data.train=[\"a.jsonl\"]",
        "loss.cross_entropy.weight=0",
        "loss.flow={weight=1.0, draws=4, map_draws=1, end_weight=0.1, advance_weight=0.1, alignment_weight=0.1}",
        "speech.prompt_secs=[0.1, 0.2]",
        "sampler.batch_secs=8",
        "sampler.n_duration_buckets=1",
        "sampler.n_token_buckets=0",
        "train.best_by=loss",
        "train.parts=1",
    ];
    RunConfig::load(None, &settings.map(str::to_owned)).expect("settings")
}

fn task(params: Params, run: &RunConfig, cuts: Vec<Cut>) -> Result<(Speak, Corpus), Error> {
    let recordings = Recordings::new(cuts.clone(), &config(), "xx", 1 << 24)?;
    let voices = Voices::of(&recordings, Vec::new(), SAMPLE_RATE)?;
    let held_out = Recordings::new(cuts, &config(), "xx", 1 << 24)?;
    let task =
        Speak::new(params, FlowLmConfig { voices: voices.names(), ..config() }, run, held_out, voices, None)?;
    let corpus = task.corpus(recordings, Vec::new(), run, LengthLimits::default())?;
    Ok((task, corpus))
}

#[test]
fn what_is_beside_a_recording_changes_none_of_its_sums() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let (task, corpus) = task(Params::seeded(1, &Device::Cpu), &run(), cuts(folder.path(), 6))?;
    let collation = Collation { config: &task.config, history_noise: 0.5, device: &Device::Cpu };
    let prompting = Prompting { prompt_secs: [0.1, 0.2], drop: 0.3 };
    let row = |index: usize| task.held_out.row(index, prompting, Draw { seed: 3, epoch: 1, item: index });
    let sums = |indices: &[usize]| -> Result<Vec<f32>, Error> {
        let rows: Vec<_> = indices.iter().map(|index| row(*index)).collect::<Result<_, _>>()?;
        let batch = collation.batch(&rows)?;
        Ok(task.sums(&batch)?.iter().map(Tensor::to_scalar).collect::<Result<_, _>>()?)
    };
    let together = sums(&[0, 1, 2, 3, 4, 5])?;
    let mut alone = vec![0f32; together.len()];
    for index in 0..6 {
        alone.iter_mut().zip(sums(&[index])?).for_each(|(sum, own)| *sum += own);
    }
    for (together, alone) in together.iter().zip(&alone) {
        assert!((together - alone).abs() < 1e-4 * alone.abs().max(1.0), "{together} {alone}");
    }
    // Some are told nothing, some are: both kinds are in this.
    let dropped: Vec<bool> =
        (0..6).map(|index| row(index).map(|row| row.is_dropped)).collect::<Result<_, _>>()?;
    assert!(dropped.contains(&true) && dropped.contains(&false), "{dropped:?}");
    assert!(corpus.n_batches(0) >= 1);
    Ok(())
}

#[test]
fn a_place_is_always_the_same_batch() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, corpus) = task(Params::seeded(1, &Device::Cpu), &run(), cuts(folder.path(), 40))?;
    let heard = |epoch: u64, batch: usize| -> Result<_, Error> {
        let parts = corpus.load(Position { epoch, batch })?.parts;
        let batch = parts.first().expect("a part");
        Ok((batch.heard.to_vec2::<f32>()?, batch.n_prompts.clone(), batch.is_dropped.clone()))
    };
    assert!(corpus.n_batches(0) > 2);
    assert_eq!(heard(0, 1)?, heard(0, 1)?);
    assert_ne!(heard(0, 1)?.0, heard(1, 1)?.0);
    Ok(())
}

#[test]
fn tones_are_learnt_and_where_they_are() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let run = run();
    let params = Params::seeded(1, &Device::Cpu);
    let (task, corpus) = task(params, &run, cuts(folder.path(), 120))?;
    let before = task.evaluate()?;
    let workers = Workers::new(1)?;
    let mut optimizer = AdamW::new(&run.optimizer, task.vars())?;
    let mut at = Position::default();
    for step in 1..=400 {
        let batch = corpus.load(at)?;
        assert!(batch.faults.is_empty(), "{:?}", batch.faults);
        let pass = workers.run(&task, &[batch.parts], optimizer.vars())?;
        let norm = pass.gradients.norm()?;
        optimizer.step(&pass.gradients, (1.0 / norm).min(1.0), step, 3e-3)?;
        at = at.after(1, &corpus);
    }
    let after = task.evaluate()?;
    assert!(after["flow"] < 0.4 * before["flow"], "{before:?} {after:?}");
    assert!(after["flow_map"] < 0.5, "{after:?}");
    assert!(after["advance"] < 0.7 * before["advance"], "{before:?} {after:?}");
    assert!(after["end"] < 0.5 * before["end"], "{before:?} {after:?}");
    // Every letter is ten frames long, and both edges are four.
    let Some(aligner) = &task.live.aligner else { unreachable!("an aligner") };
    let collation = Collation { config: &task.config, history_noise: 0.0, device: &Device::Cpu };
    let (mut n_right, mut n_frames) = (0, 0);
    for index in 0..10 {
        let draw = Draw { seed: 0, epoch: 0, item: index };
        let row = task.held_out.row(index, Prompting { prompt_secs: [0.1, 0.1], drop: 0.0 }, draw)?;
        let batch = collation.batch(&[row])?;
        let scores = aligner.scores(&batch.mels, &batch.n_frames, &batch.texts)?;
        let paths = Aligner::paths(&scores, &batch.n_frames, &batch.texts)?;
        let path = paths.into_iter().next().flatten().expect("a path");
        // A letter that comes twice has no boundary that could be heard.
        let letters = &batch.texts[0];
        let right = path.iter().enumerate().filter(|(frame, place)| {
            let expected = if *frame < 4 { 0 } else { (1 + (frame - 4) / 10).min(letters.len() - 1) };
            letters[**place as usize] == letters[expected]
        });
        (n_right, n_frames) = (n_right + right.count(), n_frames + path.len());
    }
    assert!(n_right as f64 > 0.75 * n_frames as f64, "{n_right} of {n_frames} frames");

    // And it says them, one after the other, to the end.
    assert!(after["stopped"] < 0.2 && (after["duration_ratio"] - 1.0).abs() < 0.2, "{after:?}");
    assert!(after["distortion_db"] < before["distortion_db"], "{before:?} {after:?}");
    let (mut n_right, mut n_asked) = (0, 0);
    for (seed, text) in (0u64..).zip(["abcd", "dcba", "bdac", "cadb", "abab", "dcdc"]) {
        let options = SpeakOptions { seed, ..SpeakOptions::default() };
        let spoken = task.speaker.speak(text, &task.speaker.voices()[0], &options)?;
        let is_loud = |sample: &f32| sample.abs() > 0.02;
        let first = spoken.samples.iter().position(is_loud).unwrap_or(0);
        let last = spoken.samples.iter().rposition(is_loud).unwrap_or(0);
        let letters = spoken.samples[first..=last].chunks((last + 1 - first).div_ceil(text.len()));
        n_asked += text.len();
        n_right += text.chars().zip(letters).filter(|(letter, samples)| loudest(samples) == *letter).count();
    }
    // A quarter of them is chance.
    assert!(n_right * 3 >= n_asked * 2, "{n_right} of {n_asked} letters");
    Ok(())
}

/// The letter whose tone is the loudest in the middle of these samples.
fn loudest(samples: &[f32]) -> char {
    let middle = &samples[samples.len() / 4..samples.len() * 3 / 4];
    let power = |hz: f32| {
        let angle = |t: usize| TAU * hz * t as f32 / SAMPLE_RATE as f32;
        let part = |turn: fn(f32) -> f32| {
            middle.iter().enumerate().map(|(t, sample)| sample * turn(angle(t))).sum::<f32>().powi(2)
        };
        part(f32::sin) + part(f32::cos)
    };
    let (letter, _) = LETTERS.iter().max_by(|a, b| power(a.1).total_cmp(&power(b.1))).expect("a letter");
    *letter
}

#[test]
fn who_has_no_other_recording_is_told_no_voice() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let prompting = Prompting { prompt_secs: [0.1, 0.3], drop: 0.0 };
    let prompts = |named: &[(usize, Option<&str>)]| -> Result<Vec<Option<usize>>, Error> {
        let mut cuts = cuts(folder.path(), 4);
        for (index, name) in named {
            cuts[*index].speaker = name.map(Into::into);
        }
        let recordings = Recordings::new(cuts, &config(), "xx", 0)?;
        let row = |index: usize| recordings.row(index, prompting, Draw { seed: 1, epoch: 2, item: index });
        let frames = |row: Row| row.prompt.map(|(_, frames)| frames.len());
        (0..4).map(|index| row(index).map(frames)).collect()
    };
    let frames = prompts(&[(0, Some("a")), (1, None), (2, Some("b")), (3, Some("b"))])?;
    assert!(frames[..2] == [None, None] && frames[2].is_some() && frames[3].is_some(), "{frames:?}");
    // All prompts are of whole patches.
    assert!(frames.iter().flatten().all(|n| *n > 0 && n.is_multiple_of(4)), "{frames:?}");
    // Where nobody is named, all are one.
    let frames = prompts(&[(0, None), (1, None), (2, None), (3, None)])?;
    assert!(frames.iter().all(Option::is_some), "{frames:?}");
    Ok(())
}

#[test]
fn a_bundle_has_its_voices_and_its_aligner() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let (task, _) = task(Params::seeded(1, &Device::Cpu), &run(), cuts(folder.path(), 6))?;
    let (bundle, checkpoint) = (folder.path().join("bundle"), folder.path().join("checkpoint"));
    for dir in [&bundle, &checkpoint] {
        std::fs::create_dir(dir).expect("a folder");
    }
    task.write_bundle(&bundle, WeightDtype::F16)?;
    task.save(&checkpoint)?;
    for name in ["loud", "quiet"] {
        let path = bundle.join(models::flow_lm::voice_file(name));
        let decoded = audio::decode_file(&path, &DecodeAudio::default()).expect("a voice");
        assert_eq!(decoded.waveform.sample_rate, SAMPLE_RATE);
    }
    let source = bundle.as_path().into();
    assert_eq!(FlowLmConfig::read(&source)?.voices, ["loud", "quiet"]);
    let names = |dir: &Path| -> Result<Vec<String>, Error> {
        let weights = models::Weights::open(dir)?;
        Ok(weights.tensors().map(|(name, ..)| name.to_owned()).collect())
    };
    // Who goes on teaching it needs its aligner.
    assert_eq!(names(&bundle)?, names(&checkpoint)?);
    assert!(names(&bundle)?.iter().filter(|name| name.starts_with("aligner.")).count() > 5);
    Ok(())
}

#[test]
fn places_in_texts_never_run_ahead_of_what_can_be_told() {
    let config = FlowLmConfig { max_advance: 2, ..config() };
    let path = [0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 6, 6, 6, 7, 8, 8];
    assert_eq!(pointers(Some(&path), 4, 9, &config), [0, 1, 3, 5]);
    assert_eq!(pointers(None, 4, 8, &config), [0, 2, 4, 6]);
    assert_eq!(pointers(None, 2, 9, &config), [0, 2]);
    // The last patch ends the text, wherever its middle is.
    let whole = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 4];
    assert_eq!(pointers(Some(&whole), 4, 5, &config), [0, 1, 3, 4]);
    assert!(pointers(None, 0, 9, &config).is_empty());
}

#[test]
fn phonemes_are_read_where_they_are_what_a_model_reads() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cut = cuts(folder.path(), 1).remove(0);
    cut.text = "Dr. 5".into();
    assert_eq!(
        spelled(SymbolUnit::Characters, &Cut { language: Some("en".into()), ..cut.clone() }, "xx")?,
        "Doctor five"
    );
    assert!(spelled(SymbolUnit::Phonemes, &cut, "xx").is_err());
    let mut extra = crate::data::manifest::Extra::new();
    extra.insert("phonemes".to_owned(), "t e  s t".into());
    cut.extra = Some(Box::new(extra));
    assert_eq!(spelled(SymbolUnit::Phonemes, &cut, "xx")?, "t e s t");
    Ok(())
}
