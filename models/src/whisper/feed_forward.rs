//! The feed-forward half of a Transformer block, the same in encoder and decoder.

use candle_core::Tensor;

use crate::Error;
use crate::nn::{LayerNorm, Linear, feed_forward};
use crate::params::Scope;

/// `x + fc2(gelu(fc1(norm(x))))`.
pub struct FeedForward {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl FeedForward {
    /// Loads `final_layer_norm`, `fc1` and `fc2` of a block.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, width: usize, inner: usize) -> Result<Self, Error> {
        Ok(Self {
            norm: LayerNorm::load(&scope.sub("final_layer_norm"), width, 1e-5)?,
            fc1: Linear::load(&scope.sub("fc1"), width, inner, true)?,
            fc2: Linear::load(&scope.sub("fc2"), inner, width, true)?,
        })
    }

    /// (.., D) to (.., D), residual included.
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        feed_forward(&self.norm, &self.fc1, &self.fc2, x)
    }
}
