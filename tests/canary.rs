//! Canary is transformers': states, logits, searches, loss and gradients (`tests/oracle/canary.py`).

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::decode::{Attempt, Strategy, Thresholds, WindowRequest};
use models::nn::{Targets, backward, cross_entropy, squared_norm};
use models::params::Params;
use models::{Bundle, CrossCache, DecodeOptions, SpeechModel, StepRow, Task, Timestamps, Transcriber};
use serde_json::Value;

use crate::parity::features;
use crate::support::{devices, difference, fixture, json, numbers, transcriber};

struct Fixture {
    transcriber: Transcriber,
    expected: Value,
    tensors: HashMap<String, Tensor>,
    encoded: Vec<Tensor>,
    listened: Vec<Arc<CrossCache>>,
}

fn open(device: &Device) -> Result<Fixture> {
    let dir = fixture("canary");
    let transcriber = Transcriber::load(Bundle::open(&dir)?, device)?;
    let expected = json(&dir.join("expected.json"))?;
    let frames: Vec<usize> = numbers(&expected["frames"]);
    let encoded = frames
        .iter()
        .enumerate()
        .map(|(clip, n)| Ok(transcriber.encode(features(clip, 80, *n))?))
        .collect::<Result<Vec<_>>>()?;
    let listened = encoded.iter().map(|encoded| transcriber.listen(encoded)).collect::<Result<_, _>>()?;
    Ok(Fixture {
        tensors: candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu)?,
        transcriber,
        expected,
        encoded,
        listened,
    })
}

#[test]
fn states_and_logits_are_transformers() -> Result<()> {
    for device in devices() {
        let fixture = open(device)?;
        let decoder = fixture.transcriber.model().decoder()?;
        for (clip, encoded) in fixture.encoded.iter().enumerate() {
            let worst = difference(encoded, &fixture.tensors[&format!("encoded.{clip}")])?;
            ensure!(worst < 2e-4, "states of clip {clip}: {worst}");
            let tokens: Vec<u32> = numbers(&fixture.expected["sequences"][clip]);
            let expected = &fixture.tensors[&format!("logits.{clip}")];
            let ids = Tensor::new(tokens.as_slice(), device)?.unsqueeze(0)?;
            let whole = decoder.logits(&decoder.forward(&ids, &encoded.unsqueeze(0)?)?)?.get(0)?;
            let worst = difference(&whole, expected)?;
            ensure!(worst < 1e-3, "logits of clip {clip}: {worst}");
            // Step by step, too.
            let mut cache = decoder.row_cache(tokens.len())?;
            let cross = &fixture.listened[clip];
            let mut steps = Vec::new();
            for tokens in [&tokens[..9], &tokens[9..10], &tokens[10..]] {
                let hidden = decoder.step(&mut [StepRow { tokens, cache: &mut cache, cross }])?;
                steps.push(decoder.logits(&hidden)?);
            }
            let worst = difference(&Tensor::cat(&steps, 0)?, expected)?;
            ensure!(worst < 1e-3, "logits of clip {clip} in steps: {worst}");
        }
    }
    Ok(())
}

#[test]
fn searches_find_transformers_tokens_together_as_alone() -> Result<()> {
    for device in devices() {
        let fixture = open(device)?;
        let special = fixture.transcriber.special_tokens();
        let (prompt, start_index) = special.prompt_after(&[], Some("ps"), Task::Transcribe, false)?;
        ensure!(prompt == numbers::<u32>(&fixture.expected["prompt"]) && start_index == 1);
        let beam = Strategy::Beam { size: 3, patience: None, length_penalty: 1.0 };
        for (key, strategy) in [("greedy", Strategy::Greedy), ("beams", beam)] {
            let mut session = fixture.transcriber.session()?;
            for (clip, cross) in (0..).zip(&fixture.listened) {
                let request = WindowRequest {
                    cross: cross.clone(),
                    draft: None,
                    prompt: prompt.clone(),
                    start_index,
                    rules: Arc::new(fixture.transcriber.rules(false)),
                    attempts: vec![Attempt { temperature: 0.0, strategy }],
                    thresholds: Thresholds { compression_ratio: None, logprob: None, no_speech: None },
                    max_new_tokens: 24,
                    draft_tokens: 3,
                    seed: 0,
                };
                session.join(clip, request)?;
            }
            while !session.is_empty() {
                for (clip, result) in session.step()?.ended {
                    let tokens = result?.tokens;
                    let mut expected: Vec<u32> = numbers(&fixture.expected[key][clip as usize]);
                    expected.retain(|id| *id != special.end);
                    ensure!(tokens == expected, "{key} of clip {clip}: {tokens:?}, not {expected:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_loss_and_every_gradient_are_torchs() -> Result<()> {
    for (device, checkpointing) in devices().flat_map(|device| [(device, false), (device, true)]) {
        let fixture = open(device)?;
        let (weights, expected) =
            (models::Weights::open(&crate::support::fixture("canary"))?, &fixture.expected);
        let params = Params::trainable(weights, device).with_checkpointing(checkpointing);
        let model = SpeechModel::load(&params, fixture.transcriber.architecture())?;
        let decoder = model.decoder()?;
        let n_frames = numbers::<usize>(&expected["frames"])[1];
        let clips = (0..2)
            .map(|clip| Tensor::from_vec(features(clip, 80, n_frames).data, (80, n_frames), device))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let encoded = model.encoder.forward(&Tensor::stack(&clips, 0)?, &|| true)?;
        let rows =
            |key: &str| -> Result<Vec<Value>> { expected[key].as_array().cloned().context(key.to_owned()) };
        let ids: Vec<Vec<u32>> = rows("decoder_input_ids")?.iter().map(numbers).collect();
        let ids = Tensor::new(ids, device)?;
        let labels: Vec<Option<u32>> = rows("labels")?
            .iter()
            .flat_map(|row| row.as_array().cloned().unwrap_or_default())
            .map(|label| label.as_i64().and_then(|id| u32::try_from(id).ok()))
            .collect();
        let targets = Targets {
            labels: labels.iter().map(|label| label.unwrap_or(0)).collect(),
            weights: labels.iter().map(|label| if label.is_some() { 1.0 } else { 0.0 }).collect(),
            smoothing: 0.0,
        };
        let n = targets.weight();
        let loss = (cross_entropy(&decoder.logits(&decoder.forward(&ids, &encoded)?)?, targets)? / n)?;
        let (ours, theirs) = (loss.to_scalar::<f32>()?, expected["loss"].as_f64().context("loss")? as f32);
        ensure!((ours - theirs).abs() < 1e-4 * theirs, "loss {ours}, not {theirs}");
        let found = backward(&loss)?;
        let norms = expected["gradient_norms"].as_object().context("gradient_norms")?;
        ensure!(params.vars().len() == norms.len(), "{} and {} parameters", params.vars().len(), norms.len());
        for (name, var) in params.vars() {
            let gradient = found.get(&var).with_context(|| format!("{name} has no gradient"))?;
            let (norm, expected) = (squared_norm(gradient)?.sqrt(), norms[&name].as_f64().context("norm")?);
            ensure!((norm - expected).abs() < 1e-3 * expected + 1e-4, "{name}: {norm}, not {expected}");
            if let Some(expected) = fixture.tensors.get(&format!("gradient.{name}")) {
                let worst = difference(gradient, expected)?;
                ensure!(worst < 1e-4 + 1e-3 * norm as f32, "{name}: {worst}");
            }
        }
    }
    Ok(())
}

#[test]
fn recordings_are_transcribed_as_long_as_they_are_with_all_kinds_of_times() -> Result<()> {
    let transcriber = transcriber(&fixture("canary"))?;
    for n_samples in [0, 1, 4_801, 40_000, 100_000] {
        for timestamps in [Timestamps::None, Timestamps::Segment, Timestamps::Word] {
            let options = DecodeOptions {
                language: Some("ps".to_owned()),
                timestamps,
                fallback: false,
                max_new_tokens: Some(12),
                ..DecodeOptions::default()
            };
            let samples = (0..n_samples).map(|t| (t as f32 * 0.05).sin() * 0.3).collect();
            let waveform = audio::Waveform { samples, sample_rate: 16_000 };
            let transcript = transcriber.transcribe(waveform, &options, &mut |_| {})?;
            let end_secs = f64::from(n_samples) / 16_000.0 + 0.08;
            for segment in &transcript.segments {
                ensure!(segment.end_secs <= end_secs, "{n_samples}: {segment:?}");
                ensure!(segment.words.is_some() == (timestamps == Timestamps::Word), "{segment:?}");
            }
            ensure!(transcript.language.as_deref() == Some("ps"));
        }
    }
    Ok(())
}

#[test]
fn what_canary_cannot_be_told_is_refused_by_name() -> Result<()> {
    let transcriber = transcriber(&fixture("canary"))?;
    let refused = |options: DecodeOptions| match transcriber.check(&options) {
        Err(error) => error.to_string(),
        Ok(()) => "accepted".to_owned(),
    };
    let language = |code: &str| DecodeOptions { language: Some(code.to_owned()), ..DecodeOptions::default() };
    ensure!(
        refused(DecodeOptions::default()).contains("language: is needed"),
        "{}",
        refused(DecodeOptions::default())
    );
    ensure!(refused(language("fr")).contains("`fr`"));
    ensure!(refused(language("de")) == "accepted");
    ensure!(refused(DecodeOptions { task: Task::Translate, ..language("ps") }) == "accepted");
    let (prompt, _) = transcriber.special_tokens().prompt_after(&[], Some("ps"), Task::Translate, false)?;
    // Spoken Pashto, written English.
    ensure!(prompt[3..5] == [17, 15], "{prompt:?}");
    Ok(())
}
