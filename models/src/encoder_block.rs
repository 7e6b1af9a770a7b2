//! A pre-norm Transformer block that sees a whole sequence, the same in encoders of speech and of text.

use candle_core::Tensor;

use crate::Error;
use crate::kernels::Activation;
use crate::nn::{FeedForward, LayerNorm, Mask, MultiHeadAttention, Projections};
use crate::params::Scope;

const EPS: f32 = 1e-5;

/// Self-attention and a feed-forward part, each with the norm before it, under the names that Whisper has for them.
pub(crate) struct EncoderBlock {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    feed_forward: FeedForward,
}

impl EncoderBlock {
    /// Loads the weights below `scope` (`layers.0`).
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, width: usize, n_heads: usize, inner: usize) -> Result<Self, Error> {
        let attention = scope.sub("self_attn");
        Ok(Self {
            attention_norm: LayerNorm::load(&scope.sub("self_attn_layer_norm"), width, EPS)?,
            attention: MultiHeadAttention::load(&attention, width, n_heads, Projections::WHISPER)?,
            feed_forward: feed_forward(scope, width, inner)?,
        })
    }

    /// (B, T, D) to (B, T, D).
    ///
    /// # Errors
    /// Shapes and lengths that do not fit.
    pub fn forward(&self, x: &Tensor, mask: &Mask) -> candle_core::Result<Tensor> {
        self.feed_forward.forward(&self.attention.residual(&self.attention_norm, x, mask)?)
    }
}

/// Loads `final_layer_norm`, `fc1` and `fc2` of a block, of a decoder, too.
///
/// # Errors
/// What `Scope::get` refuses.
pub(crate) fn feed_forward(scope: &Scope<'_>, width: usize, inner: usize) -> Result<FeedForward, Error> {
    let scopes = ["final_layer_norm", "fc1", "fc2"].map(|name| scope.sub(name));
    FeedForward::load(scopes, (width, inner), Activation::Gelu, true)
}
