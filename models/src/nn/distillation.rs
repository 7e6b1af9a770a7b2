//! What a student's scores lack of a teacher's.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape, Tensor};
use candle_nn::ops;

use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::kernels::{self, Teacher};

/// What each position's scores should be like, and what it counts. The loss is a sum, as that of
/// [`cross_entropy`](super::cross_entropy()).
#[derive(Debug, Clone)]
pub struct SoftTargets {
    /// The teacher's logits, of the shape of the student's.
    pub logits: Tensor, // (.., V)
    /// What each position counts: 0 for what is to be ignored.
    pub weights: Vec<f32>,
    /// Softens both: probabilities are those of logits over it, and its square multiplies the divergence.
    pub temperature: f32,
}

/// Logits (.., V) to the weighted sum of `temperature^2 * KL(teacher || student)`, a scalar (Hinton et al., arXiv 1503.02531;
/// Distil-Whisper, arXiv 2311.00430, section 4). Differentiable in the student's logits; the gradient of ignored positions is exactly 0.
///
/// # Errors
/// Targets that do not fit the logits, a temperature that is not above 0.
pub fn distillation(logits: &Tensor, targets: &SoftTargets) -> candle_core::Result<Tensor> {
    let n_rows = logits.elem_count() / logits.dim(D::Minus1)?.max(1);
    let SoftTargets { logits: teacher, weights, temperature } = targets;
    if teacher.dims() != logits.dims() || weights.len() != n_rows {
        let n = weights.len();
        candle_core::bail!("distillation: a teacher's {teacher:?} and {n} weights for {logits:?}")
    }
    if !(temperature.is_finite() && *temperature > 0.0) {
        candle_core::bail!("distillation: a temperature of {temperature} is not a number above 0")
    }
    if on_cpu(&[logits, teacher]) {
        let targets = SoftTargets { logits: teacher.detach().contiguous()?, ..targets.clone() };
        logits.contiguous()?.apply_op1(Fused { targets, log_sums: OnceLock::new() })
    } else {
        composed(logits, targets)
    }
}

/// With plain tensor operations: the path on other devices, and the kernel's oracle.
fn composed(logits: &Tensor, targets: &SoftTargets) -> candle_core::Result<Tensor> {
    let (n_ids, device) = (logits.dim(D::Minus1)?, logits.device());
    let kept = (0u32..).zip(&targets.weights).filter(|(_, weight)| **weight != 0.0);
    let (rows, weights): (Vec<u32>, Vec<f32>) = kept.unzip();
    let n = rows.len();
    if n == 0 {
        return logits.narrow(0, 0, 0)?.sum_all();
    }
    let (rows, temperature) = (Tensor::from_vec(rows, n, device)?, f64::from(targets.temperature));
    let log_probs = |logits: &Tensor| {
        let counted = logits.reshape(((), n_ids))?.index_select(&rows, 0)?;
        ops::log_softmax(&(counted / temperature)?, D::Minus1)
    };
    let (own, teacher) = (log_probs(logits)?, log_probs(&targets.logits.detach())?);
    let divergences = (teacher.exp()? * (&teacher - own)?)?.sum(D::Minus1)?;
    let weights = Tensor::from_vec(weights, n, &Device::Cpu)?.to_device(device)?.to_dtype(logits.dtype())?;
    (divergences * weights)?.sum_all()? * (temperature * temperature)
}

struct Fused {
    targets: SoftTargets,
    log_sums: OnceLock<Vec<[f32; 2]>>,
}

impl Fused {
    fn with_teacher<T>(&self, compute: impl FnOnce(Teacher<'_>) -> T) -> candle_core::Result<T> {
        let SoftTargets { logits, weights, temperature } = &self.targets;
        with_floats([logits], |[scores]| compute(Teacher { scores, weights, temperature: *temperature }))
    }
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "distillation"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let n_ids = layout.shape().dims().last().copied().unwrap_or(1);
        let logits = floats(logits, layout)?;
        let (sum, log_sums) = self.with_teacher(|teacher| kernels::distillation(logits, n_ids, teacher))?;
        self.log_sums.get_or_init(|| log_sums);
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _sum: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(log_sums) = self.log_sums.get() else {
            candle_core::bail!("distillation: no forward pass yet")
        };
        let (n_ids, scale) = (logits.dim(D::Minus1)?, gradient.to_scalar::<f32>()?);
        let d_logits = with_floats([logits], |[logits]| {
            self.with_teacher(|teacher| {
                kernels::distillation_backward(logits, n_ids, teacher, log_sums, scale)
            })
        })??;
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
        for (n_rows, n_ids, temperature) in [(1, 2, 1.0), (6, 33, 2.0), (20, 1000, 2.0), (20, 1000, 0.5)] {
            let logits = Var::from_tensor(&(noise((2, n_rows, n_ids), 1)? * 6.0)?)?;
            let teacher = (noise((2, n_rows, n_ids), 2)? * 6.0)?;
            let weights: Vec<f32> = (0..2 * n_rows).map(|i| [1.0, 0.0, 0.5, 2.0][i % 4]).collect();
            let targets = SoftTargets { logits: teacher, weights, temperature };
            let (ours, d_ours) = loss_and_gradient(&distillation(&logits, &targets)?, &logits)?;
            let (theirs, d_theirs) = loss_and_gradient(&composed(&logits, &targets)?, &logits)?;
            assert!((ours - theirs).abs() < 4e-6 * theirs.abs().max(1.0), "{ours}, not {theirs}");
            assert_close(&d_ours, &d_theirs, 4e-6)?;
        }
        Ok(())
    }

    /// Values of torch's `kl_div(log_softmax(s / 2), softmax(t / 2), "batchmean") * 4` and of its gradient.
    #[test]
    fn the_loss_is_torchs() -> candle_core::Result<()> {
        let logits = Var::from_tensor(&Tensor::new(&[[1f32, 1.0, 1.0]], &Device::Cpu)?)?;
        let teacher = Tensor::new(&[[2f32, 1.0, 0.0]], &Device::Cpu)?;
        let targets = SoftTargets { logits: teacher, weights: vec![1.0], temperature: 2.0 };
        let loss = distillation(&logits, &targets)?;
        assert!((loss.to_scalar::<f32>()? - 0.313_683_8).abs() < 1e-6, "{loss}");
        let gradient = loss.backward()?.get(&logits).map(Tensor::flatten_all).transpose()?;
        let expected = Tensor::new(&[-0.346_294f32, 0.052_275, 0.294_019], &Device::Cpu)?;
        assert_close(&gradient.unwrap_or_else(|| panic!("no gradient")), &expected, 1e-6)
    }

    #[test]
    fn a_student_that_is_its_teacher_has_nothing_to_learn_and_padding_counts_nothing()
    -> candle_core::Result<()> {
        let teacher = (noise((4, 50), 3)? * 5.0)?;
        let logits = Var::from_tensor(&teacher)?;
        let all = SoftTargets { logits: teacher.clone(), weights: vec![1.0; 4], temperature: 2.0 };
        let (loss, gradient) = loss_and_gradient(&distillation(&logits, &all)?, &logits)?;
        assert!(loss.abs() < 1e-5, "{loss}");
        assert_close(&gradient, &gradient.zeros_like()?, 1e-6)?;
        let other = Var::from_tensor(&noise((4, 50), 4)?)?;
        let some = |weights: Vec<f32>, logits| SoftTargets { weights, logits, temperature: 2.0 };
        let (short, _) = loss_and_gradient(
            &distillation(&other.narrow(0, 0, 2)?, &some(vec![1.0; 2], teacher.narrow(0, 0, 2)?))?,
            &other,
        )?;
        let (padded, gradient) = loss_and_gradient(
            &distillation(&other, &some(vec![1.0, 1.0, 0.0, 0.0], teacher.clone()))?,
            &other,
        )?;
        assert_eq!(short, padded);
        assert_eq!(gradient.get(3)?.to_vec1::<f32>()?, [0.0; 50]);
        for (weights, temperature) in [(vec![1.0; 3], 2.0), (vec![1.0; 4], 0.0), (vec![1.0; 4], f32::NAN)] {
            let broken = SoftTargets { logits: teacher.clone(), weights, temperature };
            assert!(distillation(&other, &broken).is_err());
        }
        Ok(())
    }
}
