//! Canary is transformers': states, logits, searches, loss and gradients (`tests/oracle/canary.py`).

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::decode::{Attempt, Strategy, Thresholds, WindowRequest};
use models::nn::{Targets, backward, cross_entropy, squared_norm};
use models::params::Params;
use models::{Bundle, CrossCache, DecodeOptions, SpeechModel, StepRow, Task, Timestamps, Told, Transcriber};
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
        let (prompt, start_index) =
            special.prompt_after(&[], Told { language: Some("ps"), ..Told::default() })?;
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

/// The fixture with tokens that tell times, and weights that are drawn.
fn canary_of_times(dir: &std::path::Path) -> Result<Transcriber> {
    let from = fixture("canary");
    let (mut tokenizer, mut config) = (json(&from.join("tokenizer.json"))?, json(&from.join("config.json"))?);
    let n_vocab = config["vocab_size"].as_u64().context("vocab_size")?;
    let times = (0..125u64).map(|position| {
        serde_json::json!({
            "id": n_vocab + position, "content": format!("<|{position}|>"), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        })
    });
    tokenizer["added_tokens"].as_array_mut().context("added_tokens")?.extend(times);
    config["vocab_size"] = (n_vocab + 125).into();
    config["decoder_config"]["vocab_size"] = (n_vocab + 125).into();
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string())?;
    std::fs::write(dir.join("config.json"), config.to_string())?;
    let description = models::Description::open(models::BundleSource::Dir(dir.to_owned()))?;
    let params = Params::seeded(3, &Device::Cpu);
    SpeechModel::load(&params, description.architecture())?;
    Ok(Transcriber::with_params(&description, &params.detached())?)
}

#[test]
fn times_that_a_canary_writes_are_those_of_its_words() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let transcriber = canary_of_times(dir.path())?;
    let samples: Vec<f32> = (0..400_000).map(|t| (t as f32 * 0.05).sin() * 0.3).collect();
    let waveform = audio::Waveform { samples, sample_rate: 16_000 };
    let hear = |timestamps| {
        let options = DecodeOptions {
            language: Some("ps".to_owned()),
            timestamps,
            fallback: false,
            vad: Some(false),
            // Drawn, or a random model repeats itself.
            temperature: 1.0,
            best_of: 1,
            max_new_tokens: Some(24),
            ..DecodeOptions::default()
        };
        transcriber.transcribe(waveform.clone(), &options, &mut |_| {})
    };
    // Times are not written unless they are wanted, and are no text.
    let (plain, timed) = (hear(Timestamps::None)?, hear(Timestamps::Word)?);
    ensure!(plain.segments.len() == 1 && plain.segments[0].end_secs == 25.0, "{:?}", plain.segments);
    let words: Vec<_> = timed.segments.iter().flat_map(|segment| segment.words.iter().flatten()).collect();
    ensure!(words.len() > 3, "{words:?}");
    // Windows of ten seconds, a second of which two hear, and times of 80 ms.
    let seeks: std::collections::BTreeSet<_> =
        timed.segments.iter().map(|segment| (segment.seek_secs * 100.0).round() as i64).collect();
    ensure!(seeks.len() == 4, "{seeks:?}");
    for segment in &timed.segments {
        ensure!(segment.token_ids.iter().all(|id| transcriber.special_tokens().is_text(*id)), "{segment:?}");
    }
    let mut latest = 0.0;
    for word in words {
        ensure!(word.start_secs >= latest && word.end_secs >= word.start_secs, "{word:?} after {latest}");
        latest = word.end_secs;
    }
    ensure!(latest <= 25.0);
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
    let (prompt, _) = transcriber
        .special_tokens()
        .prompt_after(&[], Told { language: Some("ps"), task: Task::Translate, ..Told::default() })?;
    // Spoken Pashto, written English.
    ensure!(prompt[3..5] == [17, 15], "{prompt:?}");
    // Spoken German, written Pashto and without punctuation.
    let other = DecodeOptions {
        task: Task::Translate,
        to_language: Some("ps".to_owned()),
        punctuation: Some(false),
        ..language("de")
    };
    ensure!(refused(other.clone()) == "accepted");
    let (prompt, _) = transcriber.special_tokens().prompt_after(&[], Told::by(&other, Some("de"), false))?;
    ensure!(prompt[3..6] == [16, 17, 6], "{prompt:?}");
    let unknown = refused(DecodeOptions { to_language: Some("fr".to_owned()), ..other });
    ensure!(unknown.starts_with("to_language: `fr`") && unknown.contains("en, de, ps"), "{unknown}");
    let whisper = crate::support::transcriber(&fixture("whisper-80"))?;
    for (options, start) in [
        (DecodeOptions { punctuation: Some(true), ..language("ps") }, "punctuation: "),
        (
            DecodeOptions { task: Task::Translate, to_language: Some("de".to_owned()), ..language("ps") },
            "to_language: `de` is not possible",
        ),
    ] {
        let Err(error) = whisper.check(&options) else { anyhow::bail!("{start} is accepted") };
        ensure!(error.to_string().starts_with(start), "{error}");
    }
    Ok(())
}
