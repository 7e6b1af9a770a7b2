//! Whisper's text decoder: learnt positions, tied output.
//! Mirrors `TextDecoder` in openai/whisper `whisper/model.py` (c0d2f62).

use std::sync::Arc;

use super::WhisperConfig;
use crate::Error;
use crate::decoder::{Decoder, DecoderBlock};
use crate::encoder_block::feed_forward;
use crate::nn::{Embedding, LayerNorm, Linear, MultiHeadAttention, Projections};
use crate::params::{Init, Scope};

const EPS: f32 = 1e-5;

/// Loads the weights below `scope` (`model.decoder`); `root` holds `proj_out` if it is not tied.
///
/// # Errors
/// What `Scope::get` refuses.
pub(super) fn load(scope: &Scope<'_>, root: &Scope<'_>, config: &WhisperConfig) -> Result<Decoder, Error> {
    let (d, heads) = (config.d_model, config.decoder_attention_heads);
    let blocks = (0..config.decoder_layers)
        .map(|i| {
            let scope = scope.sub("layers").sub(i);
            let norm = |name| LayerNorm::load(&scope.sub(name), d, EPS);
            let attention = |name| MultiHeadAttention::load(&scope.sub(name), d, heads, Projections::WHISPER);
            Ok(Arc::new(DecoderBlock {
                self_norm: norm("self_attn_layer_norm")?,
                self_attention: attention("self_attn")?,
                cross_norm: norm("encoder_attn_layer_norm")?,
                cross_attention: attention("encoder_attn")?,
                feed_forward: feed_forward(&scope, d, config.decoder_ffn_dim)?,
            }))
        })
        .collect::<Result<_, Error>>()?;
    let embedding = Embedding::load(&scope.sub("embed_tokens"), config.vocab_size, d)?;
    let output = if config.tie_word_embeddings {
        embedding.tied()
    } else {
        Linear::load(&root.sub("proj_out"), d, config.vocab_size, false)?
    };
    let positions = [config.max_target_positions, d];
    Ok(Decoder {
        embedding,
        positions: scope.sub("embed_positions").get("weight", &positions, Init::Normal { std: 0.02 })?,
        embedding_scale: if config.scale_embedding { (d as f64).sqrt() } else { 1.0 },
        embedding_norm: None,
        blocks,
        norm: LayerNorm::load(&scope.sub("layer_norm"), d, EPS)?,
        output,
        n_vocab: config.vocab_size,
        checkpointing: scope.checkpointing(),
    })
}
