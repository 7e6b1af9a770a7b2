//! AdamW on parameters in place.

use candle_core::{D, DType, Tensor, Var};

use super::storage::{on_cpu, with_floats, with_floats_mut};
use crate::kernels;
pub use crate::kernels::AdamW;

/// Running means of a parameter's gradient, kept by whoever trains: tensors like the parameter, to be saved beside it.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Of the gradient.
    pub first: Tensor,
    /// Of its square.
    pub second: Tensor,
}

impl Moments {
    /// Where training begins.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn zeros(var: &Var) -> candle_core::Result<Self> {
        Ok(Self { first: var.zeros_like()?, second: var.zeros_like()? })
    }
}

/// Moves `var` and `moments` by one step, in place on the CPU.
///
/// # Errors
/// A gradient or moments shaped otherwise than the parameter.
pub fn adamw_step(
    var: &Var,
    gradient: &Tensor,
    moments: &mut Moments,
    adamw: &AdamW,
) -> candle_core::Result<()> {
    let Moments { first, second } = moments;
    for (name, x) in [("a gradient", gradient), ("a first moment", &*first), ("a second moment", &*second)] {
        if x.dims() != var.dims() {
            candle_core::bail!("AdamW: {name} of {:?} for a parameter of {:?}", x.dims(), var.dims())
        }
    }
    if !on_cpu(&[var, gradient, first, second]) {
        return composed(var, gradient, moments, adamw);
    }
    with_floats([gradient], |[gradient]| {
        with_floats_mut(var, |parameters| {
            with_floats_mut(first, |first| {
                with_floats_mut(second, |second| adamw.update(parameters, gradient, first, second))
            })
        })
    })????;
    Ok(())
}

/// With plain tensor operations: the path on other devices, and the kernel's oracle.
fn composed(var: &Var, gradient: &Tensor, moments: &mut Moments, adamw: &AdamW) -> candle_core::Result<()> {
    let AdamW { learning_rate, beta1, beta2, eps, weight_decay, step, gradient_scale } = *adamw;
    // Moments must not keep what the gradient was computed from.
    let gradient = (gradient.detach() * gradient_scale)?;
    moments.first = ((&moments.first * beta1)? + (&gradient * (1.0 - beta1))?)?;
    moments.second = ((&moments.second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    let divisor = ((moments.second.sqrt()? * correction(beta2).sqrt().recip())? + eps)?;
    let step = ((&moments.first / divisor)? * (learning_rate / correction(beta1)))?;
    var.set(&((var.as_tensor() * (1.0 - learning_rate * weight_decay))? - step)?)
}

/// Sum of the squares of a gradient, in f64 on the CPU. Its value does not depend on the number of threads; add parameters up in
/// one order.
///
/// # Errors
/// A gradient that does not consist of numbers.
pub fn squared_norm(gradient: &Tensor) -> candle_core::Result<f64> {
    if on_cpu(&[gradient]) {
        with_floats([gradient], |[gradient]| kernels::squared_norm(gradient))
    } else {
        // By rows first: a sum of all at once is left to one block of a GPU's threads.
        let squares = gradient.sqr()?;
        let sums = if squares.rank() > 1 { squares.sum(D::Minus1)? } else { squares };
        Ok(f64::from(sums.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::test_support::{assert_close, noise};

    #[test]
    fn kernel_and_composed_forms_agree_and_write_in_place() -> candle_core::Result<()> {
        let start = noise((30, 41), 1)?;
        let (ours, theirs) = (Var::from_tensor(&start.copy()?)?, Var::from_tensor(&start.copy()?)?);
        let seen = ours.as_detached_tensor();
        let (mut ours_moments, mut theirs_moments) = (Moments::zeros(&ours)?, Moments::zeros(&theirs)?);
        for step in 1..=20 {
            // The other way round in memory.
            let gradient = noise((41, 30), step)?.t()?;
            let adamw =
                AdamW { step: u64::from(step), gradient_scale: 0.3, weight_decay: 0.1, ..AdamW::default() };
            adamw_step(&ours, &gradient, &mut ours_moments, &adamw)?;
            composed(&theirs, &gradient, &mut theirs_moments, &adamw)?;
        }
        assert_close(&ours, &theirs, 1e-6)?;
        assert_close(&ours_moments.second, &theirs_moments.second, 1e-6)?;
        assert_close(&seen, &ours, 0.0)?;
        assert!((&start - &seen)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? > 1e-3);
        Ok(())
    }

    #[test]
    fn gradients_that_do_not_fit_are_refused() -> candle_core::Result<()> {
        let var = Var::from_tensor(&noise((2, 3), 1)?)?;
        let mut moments = Moments::zeros(&var)?;
        assert!(adamw_step(&var, &noise((3, 2), 1)?, &mut moments, &AdamW::default()).is_err());
        moments.first = noise(6, 1)?;
        assert!(adamw_step(&var, &noise((2, 3), 1)?, &mut moments, &AdamW::default()).is_err());
        Ok(())
    }
}
