//! What a decoder's steps cost, and which part of it each of its blocks has.

use std::{sync::Arc, time::Instant};

use models::{
    Bundle, BundleSource, CrossCache, Transcriber,
    decode::{Attempt, Rules, Strategy, Thresholds, WindowRequest},
};
use serde::Serialize;

use super::middle;
use crate::compute::Compute;

/// What a token takes alone, as a line through two depths of the decoder: `secs_per_token + secs_per_token_and_layer * layers`.
#[derive(Debug, Serialize)]
pub(super) struct DecoderCost {
    pub layers: [usize; 2],
    pub secs_at_layers: [f64; 2],
    pub secs_per_token: f64,
    pub secs_per_token_and_layer: f64,
}

/// A step gives every row one token.
#[derive(Debug, Serialize)]
pub(super) struct DecoderSpeed {
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

/// Tokens that every benchmark row writes; fewer if the model's context ends before.
pub(super) const TOKENS: usize = 64;

/// The language that prompts name.
pub(super) fn first_language(transcriber: &Transcriber) -> Option<String> {
    transcriber.languages().next().map(str::to_owned)
}

/// What a block of the decoder costs, by measuring half of them.
pub(super) fn decoder_cost(
    compute: &Compute,
    source: &BundleSource,
    features: audio::Features,
    secs_per_token: f64,
    runs: u32,
) -> anyhow::Result<Option<DecoderCost>> {
    let bundle = Bundle::from_source(source.clone())?;
    let (_, n_layers) = bundle.architecture().n_layers();
    if n_layers < 2 {
        return Ok(None);
    }
    let n_half = n_layers / 2;
    let half = compute.load_bundle(bundle.with_decoder_blocks(&(0..n_half).collect::<Vec<_>>())?)?;
    let speed = decoder_speed(&half, &[half.listen(&half.encode(features)?)?], runs, 0.0)?;
    let per_layer = (secs_per_token - speed.secs_per_token) / (n_layers - n_half) as f64;
    Ok(Some(DecoderCost {
        layers: [n_half, n_layers],
        secs_at_layers: [speed.secs_per_token, secs_per_token],
        secs_per_token: secs_per_token - per_layer * n_layers as f64,
        secs_per_token_and_layer: per_layer,
    }))
}

/// Decodes a row of a fixed number of tokens for each window: the end of text is suppressed. A step reads
/// `bytes_per_step`.
pub(super) fn decoder_speed(
    transcriber: &Transcriber,
    windows: &[Arc<CrossCache>],
    runs: u32,
    bytes_per_step: f64,
) -> anyhow::Result<DecoderSpeed> {
    let special = transcriber.special_tokens();
    let language = first_language(transcriber);
    let (prompt, start_index) =
        special.prompt_after(&[], language.as_deref(), models::Task::Transcribe, false)?;
    let n_tokens = TOKENS.min(transcriber.architecture().max_target_positions() - prompt.len());
    let mut seconds = Vec::new();
    for _ in 0..=runs {
        let mut session = transcriber.session()?;
        for (id, cross) in (0..).zip(windows) {
            let request = WindowRequest {
                cross: cross.clone(),
                draft: None,
                prompt: prompt.clone(),
                start_index,
                rules: Arc::new(Rules { suppress: vec![special.end], ..Rules::default() }),
                attempts: vec![Attempt { temperature: 0.0, strategy: Strategy::Greedy }],
                thresholds: Thresholds { compression_ratio: None, logprob: None, no_speech: None },
                max_new_tokens: n_tokens,
                draft_tokens: 0,
                seed: 0,
            };
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
