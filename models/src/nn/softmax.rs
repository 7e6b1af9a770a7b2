//! Softmax over the last dimension.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
use candle_nn::ops;

use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::kernels;

/// Softmax over the last dimension. Differentiable.
///
/// # Errors
/// When the device has no memory for it.
pub fn softmax(x: &Tensor) -> candle_core::Result<Tensor> {
    if on_cpu(&[x]) {
        x.contiguous()?.apply_op1(Softmax)
    } else if x.track_op() {
        ops::softmax(x, D::Minus1)
    } else {
        // Fused, and without a backward pass: never on a path that trains.
        #[expect(clippy::disallowed_methods, reason = "the input does not track gradients here")]
        ops::softmax_last_dim(&x.contiguous()?)
    }
}

struct Softmax;

fn width(shape: &Shape) -> usize {
    shape.dims().last().copied().unwrap_or(1)
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = kernels::softmax(floats(x, layout)?, width(layout.shape()));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dx = with_floats([y, dy], |[ys, dy]| kernels::softmax_backward(ys, dy, width(y.shape())))?;
        Ok(Some(tensor(dx, y.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, gradients, noise};

    #[test]
    fn values_and_gradients_are_candles() -> candle_core::Result<()> {
        for dims in [(2, 3, 1), (4, 7, 33), (3, 40, 300)] {
            let x = Var::from_tensor(&(noise(dims, 1)? * 4.0)?)?;
            for x_as_given in [x.as_tensor().clone(), x.transpose(0, 1)?] {
                let (ours, theirs) = (softmax(&x_as_given)?, ops::softmax(&x_as_given, D::Minus1)?);
                assert_close(&ours, &theirs, 1e-6)?;
                let ([Some(ours)], [Some(theirs)]) = (gradients(&ours, &[&x])?, gradients(&theirs, &[&x])?)
                else {
                    candle_core::bail!("a gradient is missing")
                };
                assert_close(&ours, &theirs, 1e-5)?;
            }
        }
        Ok(())
    }
}
