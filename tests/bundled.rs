//! The recogniser that is part of the program: it does its work on a fresh clone, and these tests print how well.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use audio::Waveform;
use candle_core::Device;
use models::{BUNDLED, Bundle, DecodeOptions, Task, Transcriber, bundled, bundled_for};
use recipes::{
    evaluate::{Evaluation, Reference, evaluate},
    metrics::ScoreOptions,
    prepare::{Options, Split, prepare},
    text::Normaliser,
};

use crate::cli::{home, run, speechd};
use crate::support::{data, recording};

const NAME: &str = "digits-en";
const RATE: u32 = 16_000;

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bundled").join(name)
}

fn own(name: &str) -> Result<Transcriber> {
    let source = bundled(name).context("not part of this build")?;
    Ok(Transcriber::load(Bundle::from_source(source)?, &Device::Cpu)?)
}

/// What a model makes of recordings as `speechd transcribe` and `translate` do it: with fallback.
pub fn listen(name: &str, references: Vec<Reference>) -> Result<Evaluation> {
    let evaluation =
        evaluate(&own(name)?, references.into_iter().map(Ok), &DecodeOptions::default(), &mut |_| {});
    ensure!(evaluation.failed.is_empty(), "{:?}", evaluation.failed);
    Ok(evaluation)
}

pub fn reference(name: &str, text: &str, waveform: Waveform) -> Reference {
    Reference { name: name.to_owned(), waveform, text: text.to_owned(), language: None, to_language: None }
}

/// Prints the word error rate of `what` and gives it.
fn word_error_rate(what: &str, evaluation: &Evaluation) -> Result<f64> {
    let options = ScoreOptions { normaliser: Normaliser::Basic, ..ScoreOptions::default() };
    let report = evaluation.score(&options)?.context("nothing said")?.report()?;
    let rate = report.words.rate.context("no words")?;
    println!(
        "{what}: {} recordings, WER {:.2} %, {:?}",
        report.n_utterances,
        100.0 * rate,
        report.words.errors
    );
    Ok(rate)
}

/// Prints how many recordings in which nothing is said that it knows got a text, and gives the share.
pub fn false_text_rate(what: &str, evaluation: &Evaluation) -> Result<f64> {
    let rate = evaluation.false_text_rate().context("nothing is silent")?;
    let texts: Vec<_> = evaluation.heard.iter().map(|heard| heard.hypothesis.trim()).collect();
    let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).take(8).collect();
    println!("{what}: {} of {} got a text: {texts:?}", evaluation.n_silent_with_text, evaluation.n_silent);
    Ok(rate)
}

#[test]
fn a_fresh_clone_transcribes_its_clip() -> Result<()> {
    let home = home();
    let clip = folder(NAME).join("digits.wav");
    let (code, stdout, stderr) = run(speechd(home.path()).arg("transcribe").arg(&clip));
    ensure!(code == 0, "{stderr}");
    ensure!(stdout.trim() == "nine seven five seven zero five one eight", "{stdout:?}");
    for precision in ["f32", "int8"] {
        let (code, heard, stderr) =
            run(speechd(home.path()).args(["transcribe", "--precision", precision]).arg(&clip));
        ensure!(code == 0 && heard == stdout, "{precision}: {heard}{stderr}");
    }
    // By its name, too.
    let (code, named, stderr) = run(speechd(home.path()).args(["transcribe", "--model", NAME]).arg(&clip));
    ensure!(code == 0 && named == stdout, "{stderr}");
    let (code, listed, stderr) = run(speechd(home.path()).args(["models", "list"]));
    ensure!(code == 0 && listed.contains(NAME) && listed.contains("in the program"), "{listed}{stderr}");
    let (code, _, stderr) = run(speechd(home.path()).args(["models", "pull", NAME]));
    ensure!(code == 2 && stderr.contains("part of the program"), "{stderr}");
    Ok(())
}

#[test]
fn it_is_small_and_says_whose_it_is() -> Result<()> {
    ensure!(BUNDLED.contains(&NAME) && bundled_for(Task::Transcribe) == Some(NAME));
    is_small_and_says_whose_it_is(NAME, &["recipes/digits_en.toml"])
}

pub fn is_small_and_says_whose_it_is(name: &str, sources: &[&str]) -> Result<()> {
    let mut n_bytes = 0;
    for entry in std::fs::read_dir(folder(name))? {
        n_bytes += entry?.metadata()?.len();
    }
    println!("{name}: {n_bytes} bytes with its clip and licence");
    ensure!(n_bytes <= 6 << 20, "{n_bytes}");
    let credits = std::fs::read_to_string(folder(name).join("CREDITS.md"))?;
    let common = ["Free Spoken Digit Dataset", "CC BY-SA 4.0", "espeak-ng", "flite", "ESC-10"];
    for part in common.iter().chain(sources) {
        ensure!(credits.contains(part), "{part} is missing");
    }
    ensure!(std::fs::read_to_string(folder(name).join("LICENSE"))?.contains("ShareAlike 4.0"));
    Ok(())
}

/// Samples from -1 to 1 by a small generator of its own: the same everywhere.
fn white(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Recordings in which nobody speaks.
pub fn made_sounds() -> Vec<Reference> {
    let mut sounds = Vec::new();
    for (index, secs) in [0.3, 1.0, 2.5, 6.0].into_iter().enumerate() {
        let n = (secs * f64::from(RATE)) as usize;
        let mut add = |what: &str, samples: Vec<f32>| {
            let name = format!("{what} {secs} s");
            sounds.push(reference(&name, "", Waveform { samples, sample_rate: RATE }));
        };
        add("silence", vec![0.0; n]);
        for (level, gain) in [("faint", 0.001), ("soft", 0.02), ("loud", 0.3)] {
            let white = white(n, index as u32 + 1);
            add(&format!("{level} white noise"), white.iter().map(|x| x * gain).collect());
            let mut low = 0.0;
            let brown = white.iter().map(|x| {
                low = 0.98 * low + 0.1 * x;
                low * gain * 2.0
            });
            add(&format!("{level} brown noise"), brown.collect());
            let hum = (0..n).map(|i| (i as f32 * 0.05 * std::f32::consts::TAU / 16.0).sin() * gain);
            add(&format!("{level} hum"), hum.collect());
        }
        let clicks = (0..n).map(|i| if i % 4000 == 100 { 0.8 } else { 0.0 });
        add("clicks", clicks.collect());
    }
    sounds
}

#[test]
fn silence_and_noise_have_no_text() -> Result<()> {
    let rate = false_text_rate("silence and made noise", &listen(NAME, made_sounds())?)?;
    ensure!(rate <= 0.05, "{rate}");
    Ok(())
}

/// Short and long strings of digits that people said, in a folder.
pub fn strings_of_digits(folder: &Path) -> Result<(Vec<Reference>, Vec<Reference>)> {
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for row in std::fs::read_to_string(folder.join("refs.tsv"))?.lines().skip(1) {
        let (name, text) = row.split_once('\t').context("two columns")?;
        let kind = if name.starts_with("short") { &mut short } else { &mut long };
        kind.push(reference(name, text, recording(&folder.join(name))?));
    }
    Ok((short, long))
}

#[test]
fn real_digits_are_recognised() -> Result<()> {
    let (Some(fsdd), Some(strings)) = (data("speech/fsdd"), data("speech/digit-strings")) else {
        return Ok(());
    };
    let prepared = prepare(&fsdd, &Options::default(), &|_, _| {})?;
    let mut singles = Vec::new();
    for cut in &prepared.splits[&Split::Test] {
        singles.push(reference(&cut.id, &cut.text, recording(&cut.audio)?));
    }
    let (short, long) = strings_of_digits(&strings)?;
    let singles = word_error_rate("single digits of the test split", &listen(NAME, singles)?)?;
    let short = word_error_rate("strings of 1 to 8", &listen(NAME, short)?)?;
    let long = word_error_rate("strings of 18 to 45 s", &listen(NAME, long)?)?;
    ensure!(singles <= 0.02 && short <= 0.02, "single digits {singles}, strings {short}");
    ensure!(long <= 0.1, "{long}");
    Ok(())
}

/// Sounds that it was not trained on, where they are at hand.
pub fn other_sounds() -> Result<Option<Vec<Reference>>> {
    let Some(sounds) = data("audio-captions/esc10") else { return Ok(None) };
    let prepared = prepare(&sounds, &Options::default(), &|_, _| {})?;
    // It was trained on the other folds.
    let others = prepared.splits[&Split::Test].iter();
    let others = others.map(|cut| Ok(reference(&cut.id, "", recording(&cut.audio)?)));
    Ok(Some(others.collect::<Result<_>>()?))
}

/// Sentences of other words, where they are at hand.
pub fn other_speech() -> Result<Option<Vec<Reference>>> {
    let Some(speech) = data("speech/ljspeech-32") else { return Ok(None) };
    let mut others = Vec::new();
    for entry in std::fs::read_dir(speech)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "flac") {
            others.push(reference(&path.display().to_string(), "", recording(&path)?));
        }
    }
    Ok(Some(others))
}

#[test]
fn how_often_other_sounds_and_other_words_have_a_text_is_told() -> Result<()> {
    let (Some(sounds), Some(speech)) = (other_sounds()?, other_speech()?) else { return Ok(()) };
    let sounds = false_text_rate("sounds of the world, 5 s each", &listen(NAME, sounds)?)?;
    ensure!(sounds <= 0.05, "{sounds}");
    let speech = false_text_rate("read English", &listen(NAME, speech)?)?;
    ensure!(speech <= 0.3, "{speech}");
    Ok(())
}
