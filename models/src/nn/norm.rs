//! Layer normalisation.

use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Shape, Tensor};

use super::backward::gradient_found;
use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::Error;
use crate::kernels::{LayerNormWeights, layer_norm, layer_norm_backward};
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

    /// A norm that neither scales nor shifts, and has nothing to learn.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn plain(width: usize, eps: f32, device: &Device) -> candle_core::Result<Self> {
        let (weight, bias) =
            (Tensor::ones(width, DType::F32, device)?, Tensor::zeros(width, DType::F32, device)?);
        Ok(Self { weight, bias, eps })
    }

    /// Calls `compute` with its weights, as kernels take them.
    pub(super) fn with_weights<T>(
        &self,
        compute: impl FnOnce(LayerNormWeights<'_>) -> T,
    ) -> candle_core::Result<T> {
        with_floats([&self.weight, &self.bias], |[weight, bias]| {
            compute(LayerNormWeights { weight, bias, eps: self.eps })
        })
    }

    /// Whether it is trained.
    pub(super) fn is_trained(&self) -> bool {
        self.weight.track_op() || self.bias.track_op()
    }

    /// (.., D) to (.., D).
    ///
    /// # Errors
    /// A last dimension other than the width.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if on_cpu(&[x, &self.weight, &self.bias]) {
            let (weight, bias) = (self.weight.contiguous()?, self.bias.contiguous()?);
            x.contiguous()?.apply_op3(&weight, &bias, Fused { eps: self.eps })
        } else {
            self.composed(x)
        }
    }

    /// With plain tensor operations: the path on other devices, and the kernel's oracle.
    fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normal = centred.broadcast_div(&(variance + f64::from(self.eps))?.sqrt()?)?;
        normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

struct Fused {
    eps: f32,
}

impl Fused {
    fn weights<'a>(
        &self,
        weight: &'a [f32],
        bias: &'a [f32],
        x: &Shape,
    ) -> candle_core::Result<LayerNormWeights<'a>> {
        match x.dims().last() {
            Some(width) if *width == weight.len() && *width == bias.len() => {
                Ok(LayerNormWeights { weight, bias, eps: self.eps })
            }
            _ => candle_core::bail!("a layer norm of {} numbers cannot take {x:?}", weight.len()),
        }
    }
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (weight, bias) = (floats(weight, weight_layout)?, floats(bias, bias_layout)?);
        let x = floats(x, x_layout)?;
        let y = layer_norm(x, self.weights(weight, bias, x_layout.shape())?);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = with_floats([x, weight, bias, dy], |[xs, weight, bias, dy]| {
            let weights = self.weights(weight, bias, x.shape());
            weights.map(|weights| layer_norm_backward(xs, weights, dy))
        })??;
        let dx = x.track_op().then(|| tensor(gradients.x, x.shape())).transpose()?;
        Ok((dx, gradient_found(weight, &gradients.weight)?, gradient_found(bias, &gradients.bias)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::test_support::{assert_close, gradients, noise};

    #[test]
    fn fused_and_composed_forms_agree_in_values_and_gradients() -> candle_core::Result<()> {
        for (n_rows, width, seed) in [(1, 2, 1), (9, 17, 2), (150, 384, 3)] {
            let x = Var::from_tensor(&(noise((n_rows, 2, width), seed)? * 3.0)?)?;
            let weight = Var::from_tensor(&noise(width, seed + 10)?)?;
            let bias = Var::from_tensor(&noise(width, seed + 20)?)?;
            let vars = [&x, &weight, &bias];
            let norm =
                LayerNorm { weight: weight.as_tensor().clone(), bias: bias.as_tensor().clone(), eps: 1e-5 };
            for x in [x.as_tensor().clone(), x.transpose(0, 1)?] {
                let (ours, theirs) = (norm.forward(&x)?, norm.composed(&x)?);
                assert_close(&ours, &theirs, 1e-5)?;
                for (ours, theirs) in gradients(&ours, &vars)?.iter().zip(gradients(&theirs, &vars)?) {
                    let (Some(ours), Some(theirs)) = (ours, theirs) else {
                        candle_core::bail!("a gradient is missing")
                    };
                    assert_close(ours, &theirs, 1e-4)?;
                }
            }
            assert!(norm.forward(&noise((2, width + 1), 1)?).is_err());
        }
        let x = Tensor::zeros((0, 4), DType::F32, &Device::Cpu)?;
        let ones = Tensor::ones(4, DType::F32, &Device::Cpu)?;
        let norm = LayerNorm { weight: ones.clone(), bias: ones, eps: 1e-5 };
        assert_eq!(norm.forward(&x)?.dims(), [0, 4]);
        Ok(())
    }
}
