//! Activation functions and the gated linear unit.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
use candle_nn::ops;

use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::kernels::{self, Activation};

/// The activation of each number. Differentiable.
///
/// # Errors
/// When the device has no memory for it.
pub fn activate(activation: Activation, x: &Tensor) -> candle_core::Result<Tensor> {
    if on_cpu(&[x]) { x.contiguous()?.apply_op1(Activate(activation)) } else { composed(activation, x) }
}

/// With plain tensor operations: the path on other devices, and the kernel's oracle.
fn composed(activation: Activation, x: &Tensor) -> candle_core::Result<Tensor> {
    match activation {
        Activation::Gelu => x.gelu_erf(),
        Activation::Silu => x * ops::sigmoid(x)?,
        Activation::Relu => x.relu(),
    }
}

/// Each number, those below zero times `slope`, 0 to 1. Differentiable.
///
/// # Errors
/// When the device has no memory for it.
pub fn leaky_relu(x: &Tensor, slope: f32) -> candle_core::Result<Tensor> {
    if on_cpu(&[x]) { x.contiguous()?.apply_op1(LeakyRelu(slope)) } else { leaky_composed(x, slope) }
}

fn leaky_composed(x: &Tensor, slope: f32) -> candle_core::Result<Tensor> {
    let slope = f64::from(slope);
    (x.relu()? * (1.0 - slope))? + (x * slope)?
}

/// The gated linear unit, (.., 2 D) to (.., D): the first half of the channels times the sigmoid of the second.
/// Differentiable.
///
/// # Errors
/// An odd number of channels.
pub fn glu(x: &Tensor) -> candle_core::Result<Tensor> {
    let width = glu_width(x.shape())?;
    if on_cpu(&[x]) { x.contiguous()?.apply_op1(Glu) } else { glu_composed(x, width) }
}

fn glu_composed(x: &Tensor, width: usize) -> candle_core::Result<Tensor> {
    x.narrow(D::Minus1, 0, width)? * ops::sigmoid(&x.narrow(D::Minus1, width, width)?)?
}

/// D.
fn glu_width(x: &Shape) -> candle_core::Result<usize> {
    match x.dims().last() {
        Some(n) if n.is_multiple_of(2) => Ok(n / 2),
        _ => candle_core::bail!("a gated linear unit halves its channels, and {x:?} cannot be"),
    }
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        Ok((CpuStorage::F32(kernels::activate(self.0, x)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dx = with_floats([x, dy], |[x, dy]| kernels::activate_backward(self.0, x, dy))?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

struct LeakyRelu(f32);

impl CustomOp1 for LeakyRelu {
    fn name(&self) -> &'static str {
        "leaky-relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = floats(x, layout)?.iter().map(|x| if *x < 0.0 { self.0 * x } else { *x }).collect();
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let slope = |(x, dy): (&f32, &f32)| if *x < 0.0 { self.0 * dy } else { *dy };
        let dx = with_floats([x, dy], |[x, dy]| x.iter().zip(dy).map(slope).collect())?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

struct Glu;

impl CustomOp1 for Glu {
    fn name(&self) -> &'static str {
        "glu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let width = glu_width(layout.shape())?;
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = width;
        }
        Ok((CpuStorage::F32(kernels::glu(floats(x, layout)?, width)), Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let width = glu_width(x.shape())?;
        let dx = with_floats([x, dy], |[x, dy]| kernels::glu_backward(x, dy, width))?;
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
        let x = Var::from_tensor(&(noise((3, 6, 700), 1)? * 4.0)?)?;
        for given in [x.as_tensor().clone(), x.transpose(1, 2)?] {
            for activation in [Activation::Gelu, Activation::Silu, Activation::Relu] {
                let pair = (activate(activation, &given)?, composed(activation, &given)?);
                agree(pair, &x)?;
            }
            agree((leaky_relu(&given, 0.1)?, leaky_composed(&given, 0.1)?), &x)?;
            agree((glu(&given)?, glu_composed(&given, given.dim(D::Minus1)? / 2)?), &x)?;
        }
        assert!(glu(&noise((2, 3), 1)?).is_err());
        Ok(())
    }

    fn agree((ours, theirs): (Tensor, Tensor), x: &Var) -> candle_core::Result<()> {
        assert_close(&ours, &theirs, 2e-6)?;
        let ([Some(ours)], [Some(theirs)]) = (gradients(&ours, &[x])?, gradients(&theirs, &[x])?) else {
            candle_core::bail!("a gradient is missing")
        };
        assert_close(&ours, &theirs, 3e-6)
    }
}
