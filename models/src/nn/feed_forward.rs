//! The feed-forward part of a Transformer block, residual included.

use candle_core::Tensor;

use super::fused::add_feed_forward;
use super::{LayerNorm, Linear};
use crate::Error;
use crate::kernels::Activation;
use crate::params::Scope;

/// `x + scale fc2(activation(fc1(norm(x))))`.
pub struct FeedForward {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
    scale: f32,
}

impl FeedForward {
    /// Loads the norm and the two layers, each from a place of its own, of `width` numbers around `inner` ones.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(
        [norm, fc1, fc2]: [Scope<'_>; 3],
        (width, inner): (usize, usize),
        activation: Activation,
        has_bias: bool,
    ) -> Result<Self, Error> {
        Ok(Self {
            norm: LayerNorm::load(&norm, width, 1e-5)?,
            fc1: Linear::load(&fc1, width, inner, has_bias)?,
            fc2: Linear::load(&fc2, inner, width, has_bias)?,
            activation,
            scale: 1.0,
        })
    }

    /// The same with what it adds times `scale`: Conformer blocks add half of it twice.
    #[must_use]
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// (.., D) to (.., D). Differentiable.
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        add_feed_forward(x, &self.norm, [&self.fc1, &self.fc2], self.activation, self.scale)
    }
}
