//! A CTC model is transformers' Parakeet (`tests/oracle/parakeet.py`), and goes the way of all transcribers.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::nn::{CtcTargets, ctc};
use models::params::Params;
use models::{Bundle, DecodeOptions, SpeechModel, Task, Timestamps, Transcriber};
use serde_json::Value;

use crate::parity::features;
use crate::support::{devices, difference, fixture, json, numbers, transcriber};

fn expected() -> Result<(Value, HashMap<String, Tensor>)> {
    let dir = fixture("parakeet");
    let tensors = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu)?;
    Ok((json(&dir.join("expected.json"))?, tensors))
}

fn tone(n_samples: usize) -> audio::Waveform {
    let sample = |t: usize| (t as f32 * 0.05).sin() * 0.3 + (t as f32 * t as f32 * 1e-5).sin() * 0.2;
    audio::Waveform { samples: (0..n_samples).map(sample).collect(), sample_rate: 16_000 }
}

#[test]
fn logits_and_texts_are_transformers() -> Result<()> {
    let (expected, tensors) = expected()?;
    for device in devices() {
        let transcriber = Transcriber::load(Bundle::open(&fixture("parakeet"))?, device)?;
        let head = transcriber.model().ctc_head().context("a head")?;
        for (clip, n_frames) in numbers::<usize>(&expected["frames"]).into_iter().enumerate() {
            let encoded = transcriber.encode(features(clip, 80, n_frames))?;
            let worst = difference(&head.linear().forward(&encoded)?, &tensors[&format!("logits.{clip}")])?;
            ensure!(worst < 1e-3, "clip {clip}: {worst}");
            let heard = transcriber.ctc(&encoded)?.context("what is heard")?;
            let ids = heard.read(1);
            ensure!(ids == numbers::<u32>(&expected["greedy"][clip]), "{ids:?}");
            let text = transcriber.tokenizer().decode(&ids)?;
            ensure!(Some(text.as_str()) == expected["texts"][clip].as_str(), "{text}");
            // The ids in their order, each somewhere.
            let labels = heard.align(&ids).context("an alignment")?;
            ensure!(labels.windows(2).all(|pair| pair[0].end <= pair[1].start), "{labels:?}");
            ensure!(labels.iter().map(|label| label.id).eq(ids.iter().copied()), "{labels:?}");
        }
    }
    Ok(())
}

#[test]
fn the_loss_of_a_padded_batch_is_torchs() -> Result<()> {
    let (expected, _) = expected()?;
    let dir = fixture("parakeet");
    let architecture = Bundle::open(&dir)?.architecture().clone();
    let model =
        SpeechModel::load(&Params::frozen(models::Weights::open(&dir)?, &Device::Cpu), &architecture)?;
    let frames: Vec<usize> = numbers(&expected["frames"]);
    let clips = frames.iter().enumerate().map(|(clip, n)| {
        let mel = Tensor::from_vec(features(clip, 80, *n).data, (1, 80, *n), &Device::Cpu)?;
        mel.pad_with_zeros(2, 0, frames[0] - n)
    });
    let mel = Tensor::cat(&clips.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
    let encoded = model.encoder.forward_padded(&mel, &frames)?;
    let logits = model.ctc_head().context("a head")?.linear().forward(&encoded)?;
    let targets = CtcTargets {
        labels: expected["labels"].as_array().into_iter().flatten().map(numbers).collect(),
        lengths: frames.iter().map(|n| model.encoder.n_positions(*n)).collect(),
        weights: vec![1.0; 2],
        blank: architecture.n_vocab() as u32 - 1,
    };
    let (ours, theirs) =
        (ctc(&logits, targets)?.to_scalar::<f32>()?, expected["loss"].as_f64().context("loss")? as f32);
    ensure!((ours - theirs).abs() < 1e-4 * theirs, "{ours}, not {theirs}");
    Ok(())
}

#[test]
fn recordings_are_read_with_times_of_words_together_as_alone() -> Result<()> {
    let transcriber = transcriber(&fixture("parakeet"))?;
    let mut texts = Vec::new();
    for beam_size in [1, 4] {
        for n_samples in [0, 1, 4_801, 40_000, 100_000] {
            for timestamps in [Timestamps::None, Timestamps::Segment, Timestamps::Word] {
                let options = DecodeOptions {
                    timestamps,
                    beam_size: Some(beam_size),
                    language: Some("ps".to_owned()),
                    ..DecodeOptions::default()
                };
                let transcript = transcriber.transcribe(tone(n_samples), &options, &mut |_| {})?;
                // It is not known which language it is of: what was said is believed.
                ensure!(transcript.language.as_deref() == Some("ps"));
                for segment in &transcript.segments {
                    let (start, end) = (segment.start_secs, segment.end_secs);
                    ensure!(0.0 <= start && start < end && end <= n_samples as f64 / 16_000.0, "{segment:?}");
                    let words = segment.words.as_deref().unwrap_or_default();
                    ensure!(words.is_empty() != (timestamps == Timestamps::Word), "{segment:?}");
                    let within = |word: &models::Word| start <= word.start_secs && word.end_secs <= end;
                    ensure!(words.iter().all(within), "{segment:?}");
                }
                if n_samples >= 40_000 {
                    ensure!(!transcript.text.is_empty());
                    texts.push(transcript.text);
                }
            }
        }
    }
    ensure!(texts[0] == texts[1] && texts[0] == texts[2], "times change what is read: {texts:?}");
    Ok(())
}

#[test]
fn recordings_longer_than_a_window_are_heard_to_their_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(fixture("parakeet").join(file), folder.path().join(file))?;
    }
    let path = folder.path().join("config.json");
    let mut config = json(&path)?;
    config["window_secs"] = 2.0.into();
    std::fs::write(&path, config.to_string())?;
    let transcriber = transcriber(folder.path())?;
    // Without a detector, which takes tones for no speech.
    let options =
        DecodeOptions { vad: Some(false), timestamps: Timestamps::Word, ..DecodeOptions::default() };
    let transcript = transcriber.transcribe(tone(100_000), &options, &mut |_| {})?;
    let (n, segments) = (transcript.segments.len(), &transcript.segments);
    ensure!((4..=8).contains(&n), "{n} segments of 6.25 s");
    ensure!(segments.windows(2).all(|pair| pair[0].end_secs <= pair[1].start_secs), "{segments:?}");
    ensure!(segments.last().is_some_and(|last| last.end_secs > 5.0), "{segments:?}");
    let words: String = segments
        .iter()
        .flat_map(|segment| segment.words.iter().flatten())
        .map(|word| word.text.clone())
        .collect();
    ensure!(words.replace(' ', "") == transcript.text.replace(' ', ""), "{words}: {}", transcript.text);
    Ok(())
}

#[test]
fn words_begin_where_spaces_are_although_decoding_drops_the_first() -> Result<()> {
    let transcriber = transcriber(&fixture("parakeet"))?;
    let tokenizer = transcriber.tokenizer();
    let ids = tokenizer.encode(" ab cd e")?;
    ensure!(tokenizer.decode(&ids)? == "ab cd e", "{:?}", tokenizer.decode(&ids));
    let words = tokenizer.split_words(&ids, None)?;
    let expected = [(" ab", 3), (" cd", 3), (" e", 2)].map(|(text, n)| (text.to_owned(), n));
    ensure!(words == expected, "{words:?}");
    let bytes: Vec<Vec<u8>> = ids.iter().map(|id| tokenizer.token_bytes(*id)).collect();
    ensure!(bytes.concat() == b" ab cd e", "{bytes:?}");
    Ok(())
}

#[test]
fn what_a_ctc_model_cannot_do_is_refused_by_name() -> Result<()> {
    let transcriber = transcriber(&fixture("parakeet"))?;
    let refused = |options: DecodeOptions| match transcriber.check(&options) {
        Err(error) => error.to_string(),
        Ok(()) => "accepted".to_owned(),
    };
    let translation = DecodeOptions { task: Task::Translate, ..DecodeOptions::default() };
    ensure!(refused(translation).contains("cannot translate"));
    let prompt = DecodeOptions { prompt: Some("names".to_owned()), ..DecodeOptions::default() };
    ensure!(refused(prompt.clone()).contains("prompt"), "{}", refused(prompt));
    Ok(())
}
