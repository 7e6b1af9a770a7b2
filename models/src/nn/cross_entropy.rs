//! Cross-entropy over a vocabulary.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape, Tensor};
use candle_nn::ops;

use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::kernels::{self, Labels};

/// What each position should be, and what it counts. The loss is a sum: divide it once, by the weights of all that goes
/// into a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// The right id of each position; any number where the weight is 0.
    pub labels: Vec<u32>,
    /// What each position counts: 0 for what is to be ignored (padding, prompts).
    pub weights: Vec<f32>,
    /// The share of the target that all ids have in common (label smoothing), as in torch: 0 for none.
    pub smoothing: f32,
}

impl Targets {
    /// Sum of the weights.
    pub fn weight(&self) -> f64 {
        self.weights.iter().map(|weight| f64::from(*weight)).sum()
    }

    fn borrow(&self) -> Labels<'_> {
        Labels { labels: &self.labels, weights: &self.weights, smoothing: self.smoothing }
    }

    fn check(&self, n_rows: usize, n_ids: usize) -> candle_core::Result<()> {
        let (labels, weights) = (self.labels.len(), self.weights.len());
        if labels != n_rows || weights != n_rows {
            candle_core::bail!("cross-entropy: {labels} labels and {weights} weights for {n_rows} positions")
        }
        if !(0.0..=1.0).contains(&self.smoothing) {
            candle_core::bail!("cross-entropy: a smoothing of {} is not between 0 and 1", self.smoothing)
        }
        let pairs = self.labels.iter().zip(&self.weights);
        if let Some((label, _)) =
            pairs.into_iter().find(|(id, weight)| **weight != 0.0 && **id as usize >= n_ids)
        {
            candle_core::bail!("cross-entropy: label {label} is not among {n_ids} ids")
        }
        Ok(())
    }
}

/// Logits (.., V), one row for each target, to the weighted sum of the losses, a scalar. Differentiable; the gradient of
/// ignored positions is exactly 0, whatever their logits are.
///
/// # Errors
/// Targets that do not fit the logits.
pub fn cross_entropy(logits: &Tensor, targets: Targets) -> candle_core::Result<Tensor> {
    let n_ids = logits.dim(D::Minus1)?;
    targets.check(logits.elem_count() / n_ids.max(1), n_ids)?;
    if on_cpu(&[logits]) {
        logits.contiguous()?.apply_op1(Fused { targets, log_sums: OnceLock::new() })
    } else {
        composed(logits, &targets)
    }
}

/// With plain tensor operations: the path on other devices, and the kernel's oracle.
fn composed(logits: &Tensor, targets: &Targets) -> candle_core::Result<Tensor> {
    let (n_ids, device) = (logits.dim(D::Minus1)?, logits.device());
    let kept = (0u32..).zip(&targets.weights).filter(|(_, weight)| **weight != 0.0);
    let (rows, weights): (Vec<u32>, Vec<f32>) = kept.unzip();
    let labels: Vec<u32> = rows.iter().map(|row| targets.labels[*row as usize]).collect();
    let n = rows.len();
    if n == 0 {
        return logits.narrow(0, 0, 0)?.sum_all();
    }
    let logits = logits.reshape(((), n_ids))?;
    let counted = if n == logits.dim(0)? {
        logits.clone()
    } else {
        logits.index_select(&Tensor::from_vec(rows, n, device)?, 0)?
    };
    let log_probs = ops::log_softmax(&counted, D::Minus1)?; // (n, V)
    let right = log_probs.gather(&Tensor::from_vec(labels, (n, 1), device)?, 1)?.squeeze(1)?;
    let smoothing = f64::from(targets.smoothing);
    let gains = ((right * (1.0 - smoothing))? + (log_probs.mean(D::Minus1)? * smoothing)?)?;
    let weights = Tensor::from_vec(weights, n, &Device::Cpu)?.to_device(device)?.to_dtype(logits.dtype())?;
    (gains * weights)?.sum_all()?.neg()
}

struct Fused {
    targets: Targets,
    log_sums: OnceLock<Vec<f32>>,
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let n_ids = layout.shape().dims().last().copied().unwrap_or(1);
        let (sum, log_sums) = kernels::cross_entropy(floats(logits, layout)?, n_ids, self.targets.borrow());
        self.log_sums.get_or_init(|| log_sums);
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _sum: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(log_sums) = self.log_sums.get() else {
            candle_core::bail!("cross-entropy: no forward pass yet")
        };
        let (n_ids, scale) = (logits.dim(D::Minus1)?, gradient.to_scalar::<f32>()?);
        let d_logits = with_floats([logits], |[logits]| {
            kernels::cross_entropy_backward(logits, n_ids, self.targets.borrow(), log_sums, scale)
        })?;
        Ok(Some(tensor(d_logits, logits.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, loss_and_gradient, noise};

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> candle_core::Result<()> {
        for (n_rows, n_ids, smoothing) in [(1, 2, 0.0), (6, 33, 0.1), (20, 1000, 0.0), (20, 1000, 1.0)] {
            let logits = Var::from_tensor(&(noise((2, n_rows, n_ids), 1)? * 6.0)?)?;
            let labels: Vec<u32> = (0..2 * n_rows).map(|i| ((i * 7919) % n_ids) as u32).collect();
            let weights: Vec<f32> = (0..2 * n_rows).map(|i| [1.0, 0.0, 0.5, 2.0][i % 4]).collect();
            let targets = Targets { labels, weights, smoothing };
            for x in [logits.as_tensor().clone(), logits.transpose(0, 1)?] {
                let (ours, d_ours) = loss_and_gradient(&cross_entropy(&x, targets.clone())?, &logits)?;
                let (theirs, d_theirs) = loss_and_gradient(&composed(&x, &targets)?, &logits)?;
                assert!((ours - theirs).abs() < 2e-6 * theirs.abs().max(1.0), "{ours}, not {theirs}");
                assert_close(&d_ours, &d_theirs, 1e-6)?;
            }
        }
        Ok(())
    }

    #[test]
    fn ignored_positions_count_nothing_whatever_they_hold() -> candle_core::Result<()> {
        let logits = Var::from_tensor(&Tensor::new(&[[0f32, 1.0], [f32::NAN, 3.0]], &Device::Cpu)?)?;
        let targets = Targets { labels: vec![1, u32::MAX], weights: vec![1.0, 0.0], smoothing: 0.0 };
        assert_eq!(targets.weight(), 1.0);
        let (loss, gradient) = loss_and_gradient(&cross_entropy(&logits, targets)?, &logits)?;
        assert!((loss - 0.313_261_7).abs() < 1e-6, "{loss}");
        assert_eq!(gradient.get(1)?.to_vec1::<f32>()?, [0.0, 0.0]);
        // What counts is not hidden.
        let targets = Targets { labels: vec![1, 0], weights: vec![1.0, 1.0], smoothing: 0.0 };
        assert!(cross_entropy(&logits, targets)?.to_scalar::<f32>()?.is_nan());
        Ok(())
    }

    #[test]
    fn targets_that_do_not_fit_are_refused() -> candle_core::Result<()> {
        let logits = noise((2, 3), 1)?;
        for (labels, weights, smoothing) in [
            (vec![0], vec![1.0], 0.0),
            (vec![0, 1], vec![1.0], 0.0),
            (vec![0, 3], vec![1.0, 1.0], 0.0),
            (vec![0, 1], vec![1.0, 1.0], 1.5),
            (vec![0, 1], vec![1.0, 1.0], f32::NAN),
        ] {
            let targets = Targets { labels, weights, smoothing };
            assert!(cross_entropy(&logits, targets.clone()).is_err(), "{targets:?}");
        }
        Ok(())
    }
}
