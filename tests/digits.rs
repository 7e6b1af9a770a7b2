//! A trained checkpoint of another implementation gives what that implementation says it gives.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use audio::VadOptions;
use models::decode::{Attempt, Strategy, Thresholds, WindowRequest, WindowResult};
use models::{DecodeOptions, Timestamps, Told, Transcriber, Transcript};
use serde_json::Value;

use crate::support::{data, fixture, floats, json, numbers, recording, reference_model, transcriber};

const MODEL: &str = "micro-whisper-digits";

fn open() -> Result<Option<(Transcriber, Value, std::path::PathBuf)>> {
    let (Some(model), Some(clips)) = (reference_model(MODEL), data("speech/digit-strings")) else {
        return Ok(None);
    };
    Ok(Some((transcriber(&model)?, json(&model.join("expected.json"))?, clips)))
}

fn decode_batch(
    transcriber: &Transcriber,
    encoded: &[candle_core::Tensor],
    strategy: Strategy,
    timestamps: bool,
) -> Result<Vec<WindowResult>> {
    let prompt =
        transcriber.special_tokens().prompt(Told { language: Some("en"), timestamps, ..Told::default() })?;
    let mut session = transcriber.session()?;
    for (id, encoded) in encoded.iter().enumerate() {
        let request = WindowRequest {
            cross: transcriber.listen(encoded)?,
            draft: None,
            prompt: prompt.clone(),
            start_index: 0,
            rules: Arc::new(transcriber.rules(timestamps)),
            attempts: vec![Attempt { temperature: 0.0, strategy }],
            thresholds: Thresholds { compression_ratio: None, logprob: None, no_speech: None },
            max_new_tokens: 60,
            draft_tokens: 3,
            seed: 0,
        };
        session.join(id as u64, request)?;
    }
    let mut results = vec![None; encoded.len()];
    while !session.is_empty() {
        for (id, result) in session.step()?.ended {
            results[id as usize] = Some(result?);
        }
    }
    results.into_iter().map(|result| result.context("a result")).collect()
}

#[test]
fn every_clip_gives_the_tokens_that_transformers_gives() -> Result<()> {
    let Some((transcriber, expected, folder)) = open()? else { return Ok(()) };
    let clips = expected["clips"].as_array().context("clips")?;
    let mut encoded = Vec::new();
    let mut worst_encoder = 0f32;
    let mut worst_logit = 0f32;
    for clip in clips {
        let waveform = recording(&folder.join(clip["path"].as_str().context("path")?))?;
        let hidden = transcriber.encode(transcriber.window_features(&waveform.samples))?;
        for (frame, key) in [(0, "encoder_frame0_first8"), (100, "encoder_frame100_first8")] {
            let ours = hidden.get(frame)?.narrow(0, 0, 8)?.to_vec1::<f32>()?;
            let theirs = floats(&clip[key]);
            ensure!(theirs.len() == ours.len(), "{key} is missing");
            for (ours, theirs) in ours.iter().zip(theirs) {
                worst_encoder = worst_encoder.max((ours - theirs).abs());
            }
        }
        let cross = transcriber.listen(&hidden)?;
        let decoder = transcriber.model().decoder()?;
        let prompt: Vec<u32> = numbers(&clip["prompt_ids"]);
        let mut cache = decoder.row_cache(prompt.len())?;
        let rows = &mut [models::StepRow { tokens: &prompt, cache: &mut cache, cross: &cross }];
        let last = decoder.step(rows)?.get(prompt.len() - 1)?.unsqueeze(0)?;
        let logits = decoder.logits(&last)?.flatten_all()?.to_vec1::<f32>()?;
        for pair in clip["first_step_top8"].as_array().context("top 8")? {
            let (id, theirs) = (pair[0].as_u64().context("id")?, pair[1].as_f64().context("logit")?);
            worst_logit = worst_logit.max((logits[id as usize] - theirs as f32).abs());
        }
        encoded.push(hidden);
    }
    println!("{} clips: encoder off by {worst_encoder:.1e}, logits by {worst_logit:.1e}", clips.len());
    ensure!(worst_encoder < 1e-3 && worst_logit < 1e-3, "encoder {worst_encoder}, logits {worst_logit}");

    let beam = Strategy::Beam { size: 5, patience: None, length_penalty: 1.0 };
    for (key, strategy, timestamps) in [
        ("greedy_ids", Strategy::Greedy, false),
        ("greedy_timestamp_ids", Strategy::Greedy, true),
        ("beam5_ids", beam, false),
    ] {
        // All clips of each setting in batches of eight.
        for (clips, encoded) in clips.chunks(8).zip(encoded.chunks(8)) {
            let results = decode_batch(&transcriber, encoded, strategy, timestamps)?;
            for (clip, result) in clips.iter().zip(results) {
                let ids: Vec<u32> = numbers(&clip[key]);
                ensure!(result.tokens == ids, "{} {key}: {:?}, not {ids:?}", clip["path"], result.tokens);
            }
        }
    }
    Ok(())
}

/// The same through the front door: no fallback, no VAD.
#[test]
fn transcripts_of_short_clips_read_as_expected() -> Result<()> {
    let Some((transcriber, expected, folder)) = open()? else { return Ok(()) };
    let options = DecodeOptions { language: Some("en".into()), fallback: false, ..DecodeOptions::default() };
    for clip in expected["clips"].as_array().context("clips")? {
        let waveform = recording(&folder.join(clip["path"].as_str().context("path")?))?;
        let transcript = transcriber.transcribe(waveform.clone(), &options, &mut |_| {})?;
        ensure!(
            transcript.text == clip["text"],
            "{}: {:?}, not {}",
            clip["path"],
            transcript.text,
            clip["text"]
        );
    }
    Ok(())
}

/// openai/whisper's own searches on the same weights: `tests/oracle/longform.py` and its neighbours.
#[test]
fn searches_of_the_other_reference_agree() -> Result<()> {
    let Some((transcriber, _, folder)) = open()? else { return Ok(()) };
    let expected = json(&fixture("digits/decoding.json"))?;
    let beam = |patience| Strategy::Beam { size: 5, patience: Some(patience), length_penalty: 1.0 };
    for clip in expected["clips"].as_array().context("clips")? {
        let waveform = recording(&folder.join(clip["path"].as_str().context("path")?))?;
        let encoded = [transcriber.encode(transcriber.window_features(&waveform.samples))?];
        for (key, strategy, timestamps) in [
            ("greedy", Strategy::Greedy, false),
            ("greedy_timestamps", Strategy::Greedy, true),
            ("beam5", beam(1.0), false),
            ("beam5_patience_2", beam(2.0), false),
        ] {
            let result = decode_batch(&transcriber, &encoded, strategy, timestamps)?.remove(0);
            let ids: Vec<u32> = numbers(&clip[key]["tokens"]);
            ensure!(!ids.is_empty() && result.tokens == ids, "{} {key}: {:?}", clip["path"], result.tokens);
            let sure = clip[key]["avg_logprob"].as_f64().context("avg_logprob")? as f32;
            ensure!(
                (result.avg_logprob - sure).abs() < 2e-3,
                "{} {key}: {}",
                clip["path"],
                result.avg_logprob
            );
        }
    }
    Ok(())
}

#[test]
fn one_utterance_reads_the_same_in_every_format() -> Result<()> {
    let Some(model) = reference_model(MODEL) else { return Ok(()) };
    let transcriber = transcriber(&model)?;
    let options = DecodeOptions { language: Some("en".into()), ..DecodeOptions::default() };
    let mut texts = Vec::new();
    for extension in ["wav", "flac", "mp3", "opus", "ogg", "m4a"] {
        let waveform = recording(&fixture("digits").join(format!("utterance.{extension}")))?;
        texts.push((extension, transcriber.transcribe(waveform.clone(), &options, &mut |_| {})?.text));
    }
    ensure!(texts.iter().all(|(_, text)| text == "two seven six one"), "{texts:?}");
    Ok(())
}

/// What the detector that cuts leaves out is a gap: coverage is measured by the usual one.
#[test]
fn words_between_short_pauses_are_cut_out_of_nothing_and_what_is_left_out_shows() -> Result<()> {
    let Some(model) = reference_model(MODEL) else { return Ok(()) };
    let transcriber = transcriber(&model)?;
    let transcribe = |vad_options| -> Result<Transcript> {
        let language = Some("en".into());
        let options = DecodeOptions { language, vad: Some(true), vad_options, ..DecodeOptions::default() };
        Ok(transcriber.transcribe(recording(&fixture("digits/utterance.wav"))?, &options, &mut |_| {})?)
    };
    let usual = VadOptions::default();
    let short = VadOptions { min_silence_secs: 0.2, pad_secs: 0.3, peak_threshold: 0.5, ..usual.clone() };
    ensure!(transcribe(short)?.text == "two seven six one");
    let deaf = transcribe(VadOptions { threshold: 1.0, peak_threshold: 1.0, ..usual })?;
    ensure!(deaf.text.is_empty() && deaf.coverage.speech_secs > 1.0, "{deaf:?}");
    ensure!(deaf.coverage.decoded_secs == 0.0 && !deaf.coverage.gaps.is_empty(), "{deaf:?}");
    Ok(())
}

#[test]
fn tokens_begin_where_the_reference_says() -> Result<()> {
    let Some((transcriber, _, folder)) = open()? else { return Ok(()) };
    let expected = json(&fixture("digits/word_timestamps.json"))?;
    let prompt: Vec<u32> = numbers(&expected["prompt"]);
    for clip in expected["clips"].as_array().context("clips")? {
        let waveform = recording(&folder.join(clip["path"].as_str().context("path")?))?;
        let encoded = transcriber.encode(transcriber.window_features(&waveform.samples))?;
        let cross = transcriber.listen(&encoded)?;
        let n_audio = clip["num_frames"].as_u64().context("frames")? as usize / 2;
        let starts = transcriber.align(&cross, &prompt, &numbers::<u32>(&clip["ids"]), n_audio)?;
        let starts: Vec<f32> = starts.into_iter().map(|position| position as f32 * 0.02).collect();
        for (ours, theirs) in starts.iter().zip(floats(&clip["starts"])) {
            ensure!((ours - theirs).abs() < 1e-4, "{}: {starts:?}, not {}", clip["path"], clip["starts"]);
        }
        ensure!(starts.len() == floats(&clip["starts"]).len(), "{}: {starts:?}", clip["path"]);
    }
    Ok(())
}

/// Words through the front door: in order, inside the recording, and spelling the text.
#[test]
fn words_spell_the_text_in_order() -> Result<()> {
    let Some((transcriber, expected, folder)) = open()? else { return Ok(()) };
    let options = DecodeOptions {
        language: Some("en".into()),
        fallback: false,
        timestamps: Timestamps::Word,
        ..DecodeOptions::default()
    };
    for clip in expected["clips"].as_array().context("clips")?.iter().take(12) {
        let waveform = recording(&folder.join(clip["path"].as_str().context("path")?))?;
        let transcript = transcriber.transcribe(waveform.clone(), &options, &mut |_| {})?;
        let words: Vec<_> =
            transcript.segments.iter().flat_map(|segment| segment.words.iter().flatten()).collect();
        let spelled: String = words.iter().map(|word| word.text.as_str()).collect();
        ensure!(spelled.trim() == transcript.text, "{}: {words:?}", clip["path"]);
        let edges: Vec<f64> = words.iter().flat_map(|word| [word.start_secs, word.end_secs]).collect();
        ensure!(edges.is_sorted(), "{}: {words:?}", clip["path"]);
        ensure!(edges.iter().all(|edge| (0.0..=transcript.duration_secs + 0.02).contains(edge)), "{words:?}");
    }
    Ok(())
}

/// Strings longer than the model's window, whole, with their word error rate.
#[test]
fn long_recordings_come_out_whole() -> Result<()> {
    let Some((transcriber, _, folder)) = open()? else { return Ok(()) };
    let references = std::fs::read_to_string(folder.join("refs.tsv"))?;
    let reference_rate =
        json(&fixture("digits/longform.json"))?["wer"]["openai"].as_f64().context("a rate")?;
    for (name, vad) in [("windows cut at silences", None), ("seeking from window to window", Some(false))] {
        let options = DecodeOptions {
            language: Some("en".into()),
            vad,
            fallback: false,
            condition_on_previous_text: false,
            ..DecodeOptions::default()
        };
        let (mut errors, mut words) = (0, 0);
        for line in references.lines().filter(|line| line.starts_with("long_")) {
            let (path, reference) = line.split_once('\t').context("a tab")?;
            let reference = reference.rsplit('\t').next().unwrap_or(reference);
            let waveform = recording(&folder.join(Path::new(path)))?;
            let transcript = transcriber.transcribe(waveform.clone(), &options, &mut |_| {})?;
            let score = recipes::metrics::word_errors(reference, &transcript.text);
            errors += score.errors();
            words += score.n_reference;
            println!("{path}: {} of {} words, {:?}", score.errors(), score.n_reference, transcript.coverage);
        }
        let rate = errors as f64 / words as f64;
        println!(
            "{name}: word error rate {rate:.4} ({errors} of {words}), of the reference {reference_rate:.4}"
        );
        ensure!(rate < reference_rate && words > 200, "{name}: {rate}");
    }
    Ok(())
}
