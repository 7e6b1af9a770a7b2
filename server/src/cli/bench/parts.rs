//! The parts of a transcription that are timed: encoder and decoder steps, on sound that is made up.

use std::{sync::Arc, time::Instant};

use audio::{Features, Waveform};
use models::{
    CrossCache, Told, Transcriber,
    decode::{Attempt, Rules, Strategy, Thresholds, WindowRequest},
};
use serde::Serialize;

use super::{middle, seconds_of};

/// Tokens that every benchmark row writes; fewer if the model's context ends before.
pub(in crate::cli) const TOKENS: usize = 64;

/// A step gives every row one token.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct DecoderSpeed {
    pub batch: usize,
    pub tokens: usize,
    pub secs_per_step: f64,
    pub secs_per_token: f64,
    /// Weights, keys and values.
    pub bytes_per_step: f64,
    /// Those over what the processor reads in that time; above 1 where caches hold them.
    pub share_of_bandwidth: Option<f64>,
    /// Time of the last quarter of the steps over that of the first: near 1 when decoding is linear in tokens.
    pub last_over_first_quarter: f64,
}

/// The language that benchmarks tell a model that has several.
pub(in crate::cli) fn first_language(transcriber: &Transcriber) -> Option<String> {
    transcriber.languages().next().map(str::to_owned)
}

/// Time of encoding these features: the median of `runs` runs.
pub(in crate::cli) fn encoder_secs(
    transcriber: &Transcriber,
    features: &Features,
    runs: u32,
) -> anyhow::Result<f64> {
    median(runs, || {
        transcriber.encode(features.clone())?;
        // A GPU answers before it has computed.
        Ok(transcriber.device().synchronize()?)
    })
}

/// A window that is written greedily, without guesses and whatever comes of it: at most so many tokens as there is room for.
pub(in crate::cli) fn greedy_window(
    transcriber: &Transcriber,
    cross: &Arc<CrossCache>,
    rules: Rules,
    max_new_tokens: usize,
) -> anyhow::Result<WindowRequest> {
    let language = first_language(transcriber);
    let special = transcriber.special_tokens();
    let (prompt, start_index) =
        special.prompt_after(&[], Told { language: language.as_deref(), ..Told::default() })?;
    let room = transcriber.architecture().max_target_positions() - prompt.len();
    Ok(WindowRequest {
        cross: cross.clone(),
        draft: None,
        prompt,
        start_index,
        rules: Arc::new(rules),
        attempts: vec![Attempt { temperature: 0.0, strategy: Strategy::Greedy }],
        thresholds: Thresholds { compression_ratio: None, logprob: None, no_speech: None },
        max_new_tokens: max_new_tokens.min(room),
        draft_tokens: 0,
        seed: 0,
    })
}

/// Decodes a row of a fixed number of tokens for each window: the end of text is suppressed. A step reads
/// `bytes_per_step`.
pub(in crate::cli) fn decoder_speed(
    transcriber: &Transcriber,
    windows: &[Arc<CrossCache>],
    runs: u32,
    bytes_per_step: f64,
) -> anyhow::Result<DecoderSpeed> {
    let no_end = Rules { suppress: vec![transcriber.special_tokens().end], ..Rules::default() };
    let (mut seconds, mut n_tokens) = (Vec::new(), 0);
    for _ in 0..=runs {
        let mut session = transcriber.session()?;
        for (id, cross) in (0..).zip(windows) {
            let request = greedy_window(transcriber, cross, no_end.clone(), TOKENS)?;
            n_tokens = request.max_new_tokens;
            session.join(id, request)?;
        }
        let mut steps = Vec::with_capacity(n_tokens);
        while !session.is_empty() {
            let started = Instant::now();
            let step = session.step()?;
            steps.push(started.elapsed().as_secs_f64());
            for (_, result) in step.ended {
                result?;
            }
        }
        // The first step reads the prompt.
        steps.remove(0);
        seconds.push(steps);
    }
    // The first run warms caches up.
    seconds.remove(0);
    let mean = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len().max(1) as f64;
    let quarter = n_tokens / 4;
    let secs_per_step = middle(seconds.iter().map(|steps| mean(steps)).collect());
    let ratios = seconds.iter().map(|steps| mean(&steps[steps.len() - quarter..]) / mean(&steps[..quarter]));
    let batch = windows.len();
    Ok(DecoderSpeed {
        batch,
        tokens: n_tokens,
        secs_per_step,
        secs_per_token: secs_per_step / batch as f64,
        bytes_per_step,
        share_of_bandwidth: None,
        last_over_first_quarter: middle(ratios.collect()),
    })
}

/// Median time of `runs` runs after one that is not counted.
pub(in crate::cli) fn median(runs: u32, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..runs {
        seconds_of(&mut seconds, &mut work)?;
    }
    Ok(middle(seconds))
}

/// Bursts of a harmonic tone with pauses: enough like speech to be cut into windows.
pub(in crate::cli) fn synthetic(duration_secs: f64) -> Waveform {
    let sample_rate = 16_000;
    let sample = |i: usize| {
        let secs = i as f64 / f64::from(sample_rate);
        let syllable = (std::f64::consts::TAU * 2.5 * secs).sin().max(0.0);
        let phrase = if secs % 6.0 < 5.0 { 1.0 } else { 0.0 };
        let voice: f64 =
            (1..12).map(|h| (std::f64::consts::TAU * 120.0 * f64::from(h) * secs).sin() / f64::from(h)).sum();
        (0.2 * phrase * syllable * voice) as f32
    };
    let n_samples = (duration_secs * f64::from(sample_rate)) as usize;
    Waveform { samples: (0..n_samples).map(sample).collect(), sample_rate }
}
