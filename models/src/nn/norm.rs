//! Layer normalisation.

use candle_core::{D, Tensor};
use candle_nn::ops;

use crate::Error;
use crate::params::{Init, Scope};

/// Normalises the last dimension to zero mean and unit variance, then scales and shifts it.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// Loads `weight` and `bias` of `width` numbers.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, width: usize, eps: f32) -> Result<Self, Error> {
        let weight = scope.get("weight", &[width], Init::Ones)?;
        let bias = scope.get("bias", &[width], Init::Zeros)?;
        Ok(Self { weight, bias, eps })
    }

    /// (.., D) to (.., D).
    ///
    /// # Errors
    /// A last dimension other than the width.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if x.track_op() || self.weight.track_op() {
            self.composed(x)
        } else {
            // Fused, and without a backward pass: never on a path that trains.
            #[expect(clippy::disallowed_methods, reason = "no input tracks gradients here")]
            ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.eps)
        }
    }

    fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normal = centred.broadcast_div(&(variance + f64::from(self.eps))?.sqrt()?)?;
        normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::params::Params;

    #[test]
    fn fused_and_composed_forms_agree() -> Result<(), Error> {
        let params = Params::seeded(0, &Device::Cpu);
        let norm = LayerNorm::load(&params.root(), 6, 1e-5)?;
        let frozen = LayerNorm::load(&params.detached().root(), 6, 1e-5)?;
        let x = Tensor::arange(0f32, 24.0, &Device::Cpu)?.sin()?.reshape((2, 2, 6))?;
        let (a, b) = (norm.forward(&x)?.flatten_all()?, frozen.forward(&x)?.flatten_all()?);
        let difference = (a.detach() - b)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(difference < 1e-5, "{difference}");
        Ok(())
    }
}
