//! Sums of absolute differences, as losses of features have them.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::storage::{floats, on_cpu, tensor, with_floats};

/// Sum of `|x - target|` over all numbers, a scalar. Differentiable in `x`: `target` is taken as it is.
///
/// # Errors
/// Different shapes.
pub fn absolute_difference(x: &Tensor, target: &Tensor) -> candle_core::Result<Tensor> {
    if x.dims() != target.dims() {
        candle_core::bail!("{x:?} cannot be held against {target:?}")
    }
    let target = target.detach();
    if on_cpu(&[x, &target]) {
        x.contiguous()?.apply_op1(AbsoluteDifference { target })
    } else {
        (x - target)?.abs()?.sum_all()
    }
}

struct AbsoluteDifference {
    target: Tensor,
}

impl CustomOp1 for AbsoluteDifference {
    fn name(&self) -> &'static str {
        "absolute-difference"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let sum = with_floats([&self.target], |[target]| {
            x.iter().zip(target).map(|(x, target)| f64::from((x - target).abs())).sum::<f64>()
        })?;
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, _sum: &Tensor, d_sum: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let d_sum = d_sum.to_scalar::<f32>()?;
        let direction = |(x, target): (&f32, &f32)| match x - target {
            // What is not a number stays none.
            0.0 => 0.0,
            difference => d_sum * difference.signum(),
        };
        let dx = with_floats([x, &self.target], |[x, target]| x.iter().zip(target).map(direction).collect())?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, composed, gradients, noise};

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> candle_core::Result<()> {
        let x = Var::from_tensor(&noise((2, 5, 7), 1)?)?;
        let (target, turned) = (noise((2, 5, 7), 2)?, noise((5, 2, 7), 3)?);
        for (x_given, target) in [(x.as_tensor().clone(), &target), (x.transpose(0, 1)?, &turned)] {
            let both = || -> candle_core::Result<_> {
                let sum = absolute_difference(&x_given, target)?;
                Ok((sum.clone(), gradients(&sum, &[&x])?))
            };
            let (ours, theirs) = (both()?, composed(both)??);
            assert_close(&ours.0, &theirs.0, 1e-4)?;
            let ([Some(ours)], [Some(theirs)]) = (ours.1, theirs.1) else {
                candle_core::bail!("a gradient is missing")
            };
            assert_close(&ours, &theirs, 0.0)?;
        }
        assert!(absolute_difference(&x, &turned).is_err());
        Ok(())
    }
}
