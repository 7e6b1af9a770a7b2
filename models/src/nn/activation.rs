//! Activation functions.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::kernels;

/// The Gaussian error linear unit, exact form. Differentiable.
///
/// # Errors
/// When the device has no memory for it.
pub fn gelu(x: &Tensor) -> candle_core::Result<Tensor> {
    if on_cpu(&[x]) { x.contiguous()?.apply_op1(Gelu) } else { x.gelu_erf() }
}

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        Ok((CpuStorage::F32(kernels::gelu(x)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dx = with_floats([x, dy], |[x, dy]| kernels::gelu_backward(x, dy))?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, gradients, noise};

    #[test]
    fn values_and_gradients_are_candles() -> candle_core::Result<()> {
        let x = Var::from_tensor(&(noise((3, 5, 700), 1)? * 4.0)?)?;
        for x_as_given in [x.as_tensor().clone(), x.transpose(1, 2)?] {
            let (ours, theirs) = (gelu(&x_as_given)?, x_as_given.gelu_erf()?);
            assert_close(&ours, &theirs, 2e-6)?;
            let ([Some(ours)], [Some(theirs)]) = (gradients(&ours, &[&x])?, gradients(&theirs, &[&x])?)
            else {
                candle_core::bail!("a gradient is missing")
            };
            assert_close(&ours, &theirs, 3e-6)?;
        }
        Ok(())
    }
}
