//! Several transcriptions on one worker: each comes out as it would alone, each gets its turn, and who leaves is gone.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use audio::Waveform;
use candle_core::Device;
use models::{
    Bundle, DecodeOptions, Error, Precision, TextPart, Timestamps, Transcriber, Transcript, Transcription,
    TranscriptionWorker, Update, Worker,
};

use crate::bundles::copy;
use crate::support::{fixture, json};

fn transcriber() -> Result<Transcriber> {
    transcriber_in(Precision::F32)
}

fn transcriber_in(precision: Precision) -> Result<Transcriber> {
    Ok(Transcriber::load_in(precision, Bundle::open(&fixture("whisper-80"))?, &Device::Cpu)?)
}

/// Bursts of noise with pauses: enough for the detector of speech to have an opinion, and different for each seed.
fn recording(secs: f64, seed: u64) -> Waveform {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let n = (secs * 16_000.0) as usize;
    let samples = (0..n).map(|i| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let loud = if (i / 12_000) % 3 == 0 { 0.01 } else { 0.3 };
        loud * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
    });
    Waveform { samples: samples.collect(), sample_rate: 16_000 }
}

/// Eight requests that have nothing in common but the model.
fn request(transcriber: &Transcriber, id: u64) -> Result<Transcription> {
    let mut options = DecodeOptions {
        language: (!id.is_multiple_of(3)).then(|| "en".to_owned()),
        max_new_tokens: Some(12 + id as usize),
        vad: Some(false),
        batch_size: 2,
        seed: id,
        ..DecodeOptions::default()
    };
    match id % 4 {
        0 => options.timestamps = Timestamps::Segment,
        1 => options.beam_size = Some(3),
        2 => (options.temperature, options.fallback) = (0.7, false),
        _ => (options.timestamps, options.prompt) = (Timestamps::Word, Some("one two".to_owned())),
    }
    let secs = [2.0, 75.0, 31.0, 5.0][id as usize % 4];
    Ok(Transcription::prepare(transcriber, recording(secs, id), &options, &|| true)?)
}

/// What a worker told about each request.
#[derive(Default)]
struct Told {
    /// Most rows that were computed together.
    max_rows: usize,
    text: BTreeMap<u64, String>,
    done: Vec<(u64, Transcript)>,
    failed: Vec<(u64, Error)>,
    /// Who may fail other than by being given up.
    may_fail: Vec<u64>,
}

impl Told {
    fn step(
        &mut self,
        worker: &mut TranscriptionWorker,
        is_wanted: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<()> {
        let report = worker.step(is_wanted, &mut |id, update| match update {
            Update::Progress(_) => {}
            Update::Part(TextPart { delta, .. }) => *self.text.entry(id).or_default() += &delta,
            Update::Done(done) => self.done.push((id, done.transcript)),
            Update::Failed(error) => self.failed.push((id, error)),
        })?;
        self.max_rows = self.max_rows.max(report.n_rows);
        let is_expected =
            |(id, error): &(u64, Error)| matches!(error, Error::Cancelled) || self.may_fail.contains(id);
        ensure!(self.failed.iter().all(is_expected), "{:?}", self.failed);
        Ok(())
    }
}

fn alone(transcriber: &Transcriber, id: u64) -> Result<Transcript> {
    let (mut worker, mut told) = (TranscriptionWorker::new(transcriber, usize::MAX), Told::default());
    worker.join(id, request(transcriber, id)?);
    while told.done.is_empty() {
        told.step(&mut worker, &|_| true)?;
    }
    Ok(told.done.remove(0).1)
}

#[test]
fn recordings_side_by_side_come_out_as_each_alone_and_their_deltas_add_up() -> Result<()> {
    let precisions = [Precision::F32, Precision::Int8, Precision::Bf16];
    for precision in precisions.into_iter().filter(|precision| precision.is_fast()) {
        let transcriber = transcriber_in(precision)?;
        let (mut worker, mut told) = (TranscriptionWorker::new(&transcriber, 6), Told::default());
        for id in 0..8 {
            worker.join(id, request(&transcriber, id)?);
            told.step(&mut worker, &|_| true)?;
        }
        while told.done.len() < 8 {
            told.step(&mut worker, &|_| true)?;
        }
        for (id, transcript) in &told.done {
            let alone = alone(&transcriber, *id)?;
            ensure!(
                serde_json::to_string(transcript)? == serde_json::to_string(&alone)?,
                "{precision}: {id}: alone it was {alone:?}"
            );
            ensure!(told.text.get(id).map_or("", String::as_str) == transcript.text, "{id}: {:?}", told.text);
        }
        ensure!(told.done.iter().any(|(_, transcript)| !transcript.text.is_empty()));
    }
    Ok(())
}

/// Every window falls back to five samples, all the way to the last temperature.
#[test]
fn fallbacks_keep_to_the_rows_and_nobody_can_tell() -> Result<()> {
    let transcriber = transcriber()?;
    let request = |id: u64| {
        let options = DecodeOptions {
            language: Some("en".to_owned()),
            logprob_threshold: Some(0.0),
            no_speech_threshold: None,
            max_new_tokens: Some(6 + id as usize),
            vad: Some(false),
            seed: id,
            ..DecodeOptions::default()
        };
        Transcription::prepare(&transcriber, recording(31.0, id), &options, &|| true)
    };
    let run = |max_rows: usize| -> Result<Told> {
        let (mut worker, mut told) = (TranscriptionWorker::new(&transcriber, max_rows), Told::default());
        for id in 0..4 {
            worker.join(id, request(id)?);
        }
        while told.done.len() < 4 {
            told.step(&mut worker, &|_| true)?;
        }
        told.done.sort_by_key(|(id, _)| *id);
        Ok(told)
    };
    let free = run(usize::MAX)?;
    ensure!(free.max_rows > 8, "{} rows", free.max_rows);
    ensure!(free.done.iter().any(|(_, transcript)| !transcript.text.is_empty()));
    for max_rows in [8, 5] {
        let limited = run(max_rows)?;
        ensure!(limited.max_rows <= max_rows, "{} rows of {max_rows}", limited.max_rows);
        ensure!(limited.done == free.done, "{max_rows} rows: {:?}, free {:?}", limited.done, free.done);
    }
    Ok(())
}

#[test]
fn a_short_recording_is_not_behind_a_long_one() -> Result<()> {
    let transcriber = transcriber()?;
    let options = |vad| DecodeOptions {
        language: Some("en".to_owned()),
        fallback: false,
        max_new_tokens: Some(8),
        vad: Some(vad),
        batch_size: 1,
        ..DecodeOptions::default()
    };
    let long = Transcription::prepare(&transcriber, recording(300.0, 1), &options(false), &|| true)?;
    let short = Transcription::prepare(&transcriber, recording(3.0, 2), &options(false), &|| true)?;
    let (mut worker, mut told) = (TranscriptionWorker::new(&transcriber, 4), Told::default());
    worker.join(0, long);
    for _ in 0..3 {
        told.step(&mut worker, &|_| true)?;
    }
    worker.join(1, short);
    let mut n_steps = 0;
    while told.done.is_empty() {
        told.step(&mut worker, &|_| true)?;
        n_steps += 1;
    }
    ensure!(told.done[0].0 == 1, "the long one was done first");
    // Its window enters with the next step and takes one for each token.
    ensure!(n_steps <= 10, "{n_steps} steps");
    Ok(())
}

/// Runs the eight requests together, of which those of `may_fail` may.
fn together(transcriber: &Transcriber, may_fail: Vec<u64>) -> Result<Told> {
    let mut worker = TranscriptionWorker::new(transcriber, 6);
    let mut told = Told { may_fail, ..Told::default() };
    for id in 0..8 {
        worker.join(id, request(transcriber, id)?);
    }
    while told.done.len() + told.failed.len() < 8 {
        told.step(&mut worker, &|_| true)?;
    }
    told.done.sort_by_key(|(id, _)| *id);
    Ok(told)
}

/// A tokenizer's file can make it give up on a token: here one that strips a letter from both ends of a token, also of one
/// that is nothing else. Which windows write it, in whichever attempt, is chance.
#[test]
fn a_text_that_cannot_be_spelled_fails_its_request_alone() -> Result<()> {
    let good = together(&transcriber()?, Vec::new())?.done;
    let n_with =
        |letter: &char| good.iter().filter(|(_, transcript)| transcript.text.contains(*letter)).count();
    let letter = ('!'..='~').find(|letter| n_with(letter) == 1);
    let letter = letter.with_context(|| format!("the texts are too much alike: {good:?}"))?;

    let bundle = copy()?;
    let path = bundle.path().join("tokenizer.json");
    let mut tokenizer = json(&path)?;
    let usual = tokenizer["decoder"].take();
    let strip = serde_json::json!({"type": "Strip", "content": letter, "start": 1, "stop": 1});
    tokenizer["decoder"] = serde_json::json!({"type": "Sequence", "decoders": [strip, usual]});
    std::fs::write(&path, tokenizer.to_string())?;
    let failing = Transcriber::load(Bundle::open(bundle.path())?, &Device::Cpu)?;
    let told = together(&failing, (0..8).collect())?;
    ensure!(!told.failed.is_empty() && !told.done.is_empty(), "{letter}: {:?}", told.failed);
    for (id, error) in &told.failed {
        ensure!(matches!(error, Error::Tokenizer(_)), "{id}: {error}");
    }
    for done in &told.done {
        ensure!(good.contains(done), "{done:?}");
    }
    Ok(())
}

#[test]
fn who_leaves_is_gone_and_the_others_notice_nothing() -> Result<()> {
    let transcriber = transcriber()?;
    let (mut worker, mut told) = (TranscriptionWorker::new(&transcriber, 8), Told::default());
    for id in 0..4 {
        worker.join(id, request(&transcriber, id)?);
    }
    // The first is given up while its window is encoded, the second in the middle of its text.
    told.step(&mut worker, &|id| id != 0)?;
    let [(0, Error::Cancelled)] = told.failed.as_slice() else { panic!("{:?}", told.failed) };
    told.step(&mut worker, &|_| true)?;
    ensure!(worker.leave(1), "work on it had begun");
    ensure!(!worker.leave(1) && !worker.leave(99), "it is gone");
    while told.done.len() < 2 {
        told.step(&mut worker, &|_| true)?;
    }
    let (ids, _): (Vec<_>, Vec<_>) = told.done.iter().map(|(id, t)| (*id, t)).unzip();
    ensure!(ids.contains(&2) && ids.contains(&3), "{ids:?}");
    let (_, third) = told.done.iter().find(|(id, _)| *id == 3).context("done")?;
    ensure!(serde_json::to_string(third)? == serde_json::to_string(&alone(&transcriber, 3)?)?);
    Ok(())
}
