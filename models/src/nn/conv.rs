//! One-dimensional convolution.

use candle_core::Tensor;

use crate::Error;
use crate::params::{Init, Scope};

/// A convolution over frames with bias. `weight` is (out, in, kernel).
pub struct Conv1d {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    padding: usize,
}

impl Conv1d {
    /// Loads `weight` and `bias`.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(
        scope: &Scope<'_>,
        n_in: usize,
        n_out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self, Error> {
        let weight = scope.get("weight", &[n_out, n_in, kernel], Init::Normal { std: 0.02 })?;
        let bias = scope.get("bias", &[n_out], Init::Zeros)?;
        Ok(Self { weight, bias, stride, padding })
    }

    /// (B, in, T) to (B, out, T').
    ///
    /// # Errors
    /// A number of channels other than `in`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = x.conv1d(&self.weight, self.padding, self.stride, 1, 1)?;
        y.broadcast_add(&self.bias.reshape((1, self.bias.elem_count(), 1))?)
    }
}
