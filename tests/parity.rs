//! What transformers makes of small random checkpoints, and so do we: `tests/oracle/whisper_tiny.py`.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use audio::Features;
use candle_core::{Device, Tensor};
use models::decode::{Attempt, Strategy, Thresholds, WindowRequest, WindowResult};
use models::{Bundle, Transcriber};
use models::{CrossCache, StepRow};
use serde_json::Value;

use crate::support::{devices, difference, fixture, floats, json, numbers};

/// Small random checkpoints of every kind.
pub const BUNDLES: [&str; 3] = ["whisper-80", "whisper-128", "whisper-en"];
const N_CLIPS: usize = 3;

/// Each on all that there is to compute on.
pub fn cases() -> impl Iterator<Item = (&'static str, &'static Device)> {
    devices().flat_map(|device| BUNDLES.map(|name| (name, device)))
}

/// The formula of the fixtures' features.
pub fn features(clip: usize, n_mels: usize, n_frames: usize) -> Features {
    let value = |m: usize, t: usize| {
        let (m, t, c) = (m as f64, t as f64, clip as f64);
        (0.9 * (0.11 * (c + 1.0) * m + 0.013 * t).sin() + 0.5 * (0.0007 * (m + 1.0) * t + c).cos()) as f32
    };
    let data = (0..n_mels).flat_map(|m| (0..n_frames).map(move |t| value(m, t))).collect();
    Features { data, n_mels, n_frames }
}

struct Fixture {
    transcriber: Transcriber,
    expected: Value,
    tensors: std::collections::HashMap<String, Tensor>,
    encoded: Vec<Tensor>,
    listened: Vec<Arc<CrossCache>>,
}

fn open(name: &str, device: &Device) -> Result<Fixture> {
    let dir = fixture(name);
    let transcriber = Transcriber::load(Bundle::open(&dir)?, device)?;
    let architecture = transcriber.architecture();
    let encode =
        |clip| transcriber.encode(features(clip, architecture.n_mels(), architecture.window_frames()));
    let encoded = (0..N_CLIPS).map(encode).collect::<Result<Vec<_>, _>>()?;
    let listened = encoded.iter().map(|encoded| transcriber.listen(encoded)).collect::<Result<_, _>>()?;
    Ok(Fixture {
        expected: json(&dir.join("expected.json"))?,
        tensors: candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu)?,
        transcriber,
        encoded,
        listened,
    })
}

impl Fixture {
    /// Decodes all clips in one batch.
    fn decode(
        &self,
        prompts: &[Vec<u32>],
        strategy: Strategy,
        timestamps: bool,
    ) -> Result<Vec<WindowResult>> {
        let mut session = self.transcriber.session()?;
        for (clip, prompt) in prompts.iter().enumerate() {
            let start = self.transcriber.special_tokens().start;
            let request = WindowRequest {
                cross: self.listened[clip].clone(),
                draft: None,
                prompt: prompt.clone(),
                start_index: prompt.iter().position(|id| *id == start).context("a start token")?,
                rules: Arc::new(self.transcriber.rules(timestamps)),
                attempts: vec![Attempt { temperature: 0.0, strategy }],
                thresholds: Thresholds { compression_ratio: None, logprob: None, no_speech: None },
                max_new_tokens: 40,
                draft_tokens: 3,
                seed: 0,
            };
            session.join(clip as u64, request)?;
        }
        let mut results: Vec<Option<WindowResult>> = vec![None; prompts.len()];
        while !session.is_empty() {
            for (clip, result) in session.step()?.ended {
                results[clip as usize] = Some(result?);
            }
        }
        results.into_iter().map(|result| result.context("a result for each clip")).collect()
    }

    fn prompts(&self, rows: &Value) -> Vec<Vec<u32>> {
        rows.as_array().into_iter().flatten().map(|row| numbers(&row["prompt"])).collect()
    }

    /// Expected tokens without the end of text.
    fn tokens(&self, row: &Value) -> Vec<u32> {
        let mut tokens: Vec<u32> = numbers(&row["tokens"]);
        tokens.retain(|id| *id != self.transcriber.special_tokens().end);
        tokens
    }
}

#[test]
fn encoder_states_are_transformers() -> Result<()> {
    for (name, device) in cases() {
        let fixture = open(name, device)?;
        let frames: Vec<u32> = numbers(&fixture.expected["encoder_frames"]);
        let frames = Tensor::new(frames, device)?;
        for (clip, encoded) in fixture.encoded.iter().enumerate() {
            let worst = difference(
                &encoded.index_select(&frames, 0)?,
                &fixture.tensors["encoder.frames"].get(clip)?,
            )?;
            let mean = difference(&encoded.mean(0)?, &fixture.tensors["encoder.mean"].get(clip)?)?;
            ensure!(worst < 1e-4 && mean < 1e-4, "{name} clip {clip}: {worst}, mean {mean}");
        }
    }
    Ok(())
}

#[test]
fn logits_of_unequal_rows_in_one_batch_are_transformers() -> Result<()> {
    for (name, device) in cases() {
        let fixture = open(name, device)?;
        let decoder = fixture.transcriber.model().decoder()?;
        let rows: Vec<Vec<u32>> = fixture.expected["teacher_forced"]["rows"]
            .as_array()
            .context("rows")?
            .iter()
            .map(numbers)
            .collect();
        let mut caches =
            rows.iter().map(|row| decoder.row_cache(row.len())).collect::<Result<Vec<_>, _>>()?;
        let mut steps: Vec<_> = rows
            .iter()
            .zip(&mut caches)
            .zip(&fixture.listened)
            .map(|((tokens, cache), cross)| StepRow { tokens, cache, cross })
            .collect();
        let hidden = decoder.step(&mut steps)?;
        let mut start = 0;
        for (clip, row) in rows.iter().enumerate() {
            let logits = decoder.logits(&hidden.narrow(0, start, row.len())?)?;
            let worst = difference(&logits, &fixture.tensors[&format!("logits.{clip}")])?;
            ensure!(worst < 1e-3, "{name} clip {clip}: {worst}");
            start += row.len();
        }
    }
    Ok(())
}

#[test]
fn greedy_tokens_are_transformers() -> Result<()> {
    for (name, device) in cases() {
        let fixture = open(name, device)?;
        for (key, timestamps) in [("greedy", false), ("greedy_timestamps", true)] {
            let rows = &fixture.expected[key];
            let results = fixture.decode(&fixture.prompts(rows), Strategy::Greedy, timestamps)?;
            for (clip, result) in results.iter().enumerate() {
                ensure!(result.tokens == fixture.tokens(&rows[clip]), "{name} {key} clip {clip}");
                let n = result.tokens.len() + 1;
                let sum = rows[clip]["sum_logprob"].as_f64().context("sum")? as f32;
                let ours = result.avg_logprob * n as f32;
                ensure!((ours - sum).abs() < 2e-3 * sum.abs(), "{name} {key} clip {clip}: {ours}, not {sum}");
            }
        }
    }
    Ok(())
}

#[test]
fn beam_search_is_transformers() -> Result<()> {
    for (name, device) in cases() {
        let fixture = open(name, device)?;
        for (key, size, length_penalty, timestamps) in [
            ("beam5", 5, 1.0, false),
            ("beam5_timestamps", 5, 1.0, true),
            ("beam3_penalty_0.6", 3, 0.6, false),
        ] {
            let rows = &fixture.expected[key]["rows"];
            let strategy = Strategy::Beam { size, patience: None, length_penalty };
            let results = fixture.decode(&fixture.prompts(rows), strategy, timestamps)?;
            for (clip, result) in results.iter().enumerate() {
                let tokens = fixture.tokens(&rows[clip]);
                ensure!(
                    result.tokens == tokens,
                    "{name} {key} clip {clip}: {:?} not {tokens:?}",
                    result.tokens
                );
            }
        }
    }
    Ok(())
}

/// With patience, beam search is openai/whisper's.
#[test]
fn beam_search_with_patience_is_the_references() -> Result<()> {
    for (name, device) in cases() {
        let fixture = open(name, device)?;
        let prompts = fixture.prompts(&fixture.expected["greedy"]);
        for (key, patience) in [("beam5", 1.0), ("beam5_patience_2", 2.0)] {
            let rows = fixture.expected["openai"][key]["rows"].as_array().context("rows")?;
            let strategy = Strategy::Beam { size: 5, patience: Some(patience), length_penalty: 1.0 };
            for (clip, (result, row)) in
                fixture.decode(&prompts, strategy, false)?.iter().zip(rows).enumerate()
            {
                let tokens: Vec<u32> = numbers(&row["tokens"]);
                ensure!(
                    result.tokens == tokens,
                    "{name} {key} clip {clip}: {:?} not {tokens:?}",
                    result.tokens
                );
                let sure = row["avg_logprob"].as_f64().context("avg_logprob")? as f32;
                ensure!(
                    (result.avg_logprob - sure).abs() < 1e-3,
                    "{name} {key} clip {clip}: {}",
                    result.avg_logprob
                );
            }
        }
    }
    Ok(())
}

#[test]
fn language_and_silence_are_judged_as_by_the_reference() -> Result<()> {
    for (name, device) in cases() {
        let fixture = open(name, device)?;
        let no_speech = floats(&fixture.expected["no_speech"]["probability"]);
        let prompt: Vec<u32> = numbers(&fixture.expected["greedy"][0]["prompt"]);
        let results = fixture.decode(&vec![prompt; N_CLIPS], Strategy::Greedy, false)?;
        for (result, expected) in results.iter().zip(no_speech) {
            ensure!(
                (result.no_speech_prob - expected).abs() < 1e-3 * expected,
                "{name}: {}",
                result.no_speech_prob
            );
        }
        for (clip, cross) in fixture.listened.iter().enumerate() {
            let found = fixture.transcriber.detect_language(cross, &[])?;
            let expected = &fixture.expected["language"]["probabilities"][clip];
            for (language, probability) in &found {
                let expected = expected[language].as_f64().context("a probability")? as f32;
                ensure!(
                    (probability - expected).abs() < 1e-4,
                    "{name} {language}: {probability}, not {expected}"
                );
            }
            ensure!(found.is_empty() == (name == "whisper-en"), "{name}: {} languages", found.len());
        }
    }
    Ok(())
}

#[test]
fn tokens_are_aligned_as_by_the_reference() -> Result<()> {
    for (name, device) in cases() {
        let fixture = open(name, device)?;
        let prompts = fixture.prompts(&fixture.expected["greedy"]);
        for (clip, row) in
            fixture.expected["alignment"]["rows"].as_array().context("rows")?.iter().enumerate()
        {
            let n_audio = row["num_frames"].as_u64().context("frames")? as usize / 2;
            let text: Vec<u32> = numbers(&row["text"]);
            // The reference aligns without the text before the window.
            let starts = fixture.transcriber.align(&fixture.listened[clip], &prompts[0], &text, n_audio)?;
            let slack = row["start_slack"].as_f64().context("slack")? as f32 + 1e-4;
            for (ours, theirs) in starts.iter().zip(floats(&row["starts"])) {
                let ours = *ours as f32 * 0.02;
                ensure!(
                    (ours - theirs).abs() <= slack,
                    "{name} clip {clip}: {starts:?}, not {}",
                    row["starts"]
                );
            }
            ensure!(starts.len() == text.len() + 1, "{name} clip {clip}");
        }
    }
    Ok(())
}

/// Batched sampling draws each row's own numbers: alone or among others, the same text.
#[test]
fn sampling_does_not_depend_on_the_batch() -> Result<()> {
    let fixture = open("whisper-80", &Device::Cpu)?;
    let prompts = fixture.prompts(&fixture.expected["greedy"]);
    let strategy = Strategy::Sample { temperature: 0.7, best_of: 3, length_penalty: 1.0 };
    let together = fixture.decode(&prompts, strategy, false)?;
    let again = fixture.decode(&prompts, strategy, false)?;
    let alone = fixture.decode(&prompts[..1], strategy, false)?;
    assert_eq!(together, again);
    assert_eq!(together[0].tokens, alone[0].tokens);
    Ok(())
}
