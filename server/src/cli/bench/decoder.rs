//! What a decoder's blocks cost.

use models::{Bundle, BundleSource};
use serde::Serialize;

use super::parts::decoder_speed;
use crate::compute::Compute;

/// What a token takes alone, as a line through two depths of the decoder: `secs_per_token + secs_per_token_and_layer * layers`.
#[derive(Debug, Serialize)]
pub(super) struct DecoderCost {
    pub layers: [usize; 2],
    pub secs_at_layers: [f64; 2],
    pub secs_per_token: f64,
    pub secs_per_token_and_layer: f64,
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
