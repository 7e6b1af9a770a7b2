//! Connectionist temporal classification: labels of frames that nobody has aligned.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};

use super::storage::{floats, tensor, with_floats};
use crate::kernels::{self, CtcLabels, CtcPass};

/// What each row of a batch says, and in how many frames. The loss is a sum: divide it once, by the weights of all that goes
/// into a step.
#[derive(Debug, Clone, PartialEq)]
pub struct CtcTargets {
    /// The right ids of each row, in order, without blanks.
    pub labels: Vec<Vec<u32>>,
    /// Frames of each row as the logits have them, after the encoder has made them fewer; those behind them are padding.
    pub lengths: Vec<usize>,
    /// What each row counts: 1 for a sum over utterances, one over the number of its labels for torch's mean, 0 for a row
    /// that is to be ignored.
    pub weights: Vec<f32>,
    /// The id that says nothing: 0 in most vocabularies, the last one in NeMo's.
    pub blank: u32,
}

impl CtcTargets {
    /// Rows that count and have too few frames for their labels: no path spells them, as two equal labels need a blank between them. They
    /// add nothing to the loss and have no gradient (torch's `zero_infinity`).
    pub fn n_infeasible(&self) -> usize {
        let is_counted = |row: &usize| self.weights.get(*row).is_some_and(|weight| *weight != 0.0);
        (0..self.labels.len()).filter(is_counted).filter(|row| !self.is_feasible(*row)).count()
    }

    /// Whether a row has frames enough for its labels.
    pub fn is_feasible(&self, row: usize) -> bool {
        let labels = &self.labels[row];
        let n_repeated = labels.windows(2).filter(|pair| pair[0] == pair[1]).count();
        self.lengths.get(row).is_some_and(|length| *length >= labels.len() + n_repeated)
    }

    fn borrow(&self) -> CtcLabels<'_> {
        let Self { labels, lengths, weights, blank } = self;
        CtcLabels { labels, n_frames: lengths, weights, blank: *blank }
    }

    fn check(&self, shape: &Shape) -> candle_core::Result<()> {
        let (n_rows, n_frames, n_ids) = shape.dims3()?;
        let (labels, lengths, weights) = (self.labels.len(), self.lengths.len(), self.weights.len());
        if [labels, lengths, weights] != [n_rows; 3] {
            candle_core::bail!(
                "CTC: {labels} rows of labels, {lengths} lengths and {weights} weights for {n_rows} rows"
            )
        }
        if let Some(length) = self.lengths.iter().find(|length| **length > n_frames) {
            candle_core::bail!("CTC: a length of {length} is more than the {n_frames} frames of the logits")
        }
        if self.blank as usize >= n_ids {
            candle_core::bail!("CTC: the blank {} is not among {n_ids} ids", self.blank)
        }
        let rows = self.labels.iter().zip(&self.weights).filter(|(_, weight)| **weight != 0.0);
        for label in rows.flat_map(|(labels, _)| labels) {
            if *label as usize >= n_ids {
                candle_core::bail!("CTC: label {label} is not among {n_ids} ids")
            }
            if *label == self.blank {
                candle_core::bail!("CTC: label {label} is the blank, which only lies between labels")
            }
        }
        Ok(())
    }
}

/// Logits (B, T, V), not normalised, to the weighted sum of the losses, a scalar. Differentiable; the gradient of padding is
/// exactly 0, whatever it holds. A batch on another device is computed on the CPU.
///
/// Rows that are too short for their labels count nothing (`CtcTargets::n_infeasible` counts them). Logits that forbid the
/// labels of a row that is long enough are a fault of the model: the loss is infinite.
///
/// # Errors
/// Targets that do not fit the logits.
pub fn ctc(logits: &Tensor, targets: CtcTargets) -> candle_core::Result<Tensor> {
    targets.check(logits.shape())?;
    let here = logits.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?;
    here.apply_op1(Ctc { targets, pass: OnceLock::new() })?.to_device(logits.device())
}

struct Ctc {
    targets: CtcTargets,
    pass: OnceLock<CtcPass>,
}

impl CustomOp1 for Ctc {
    fn name(&self) -> &'static str {
        "ctc"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, _, n_ids) = layout.shape().dims3()?;
        let pass = kernels::ctc(floats(logits, layout)?, n_ids, self.targets.borrow());
        let rows = pass.losses.iter().zip(&self.targets.weights).enumerate();
        let counted = rows.filter(|(row, (_, weight))| **weight != 0.0 && self.targets.is_feasible(*row));
        let sum: f64 = counted.map(|(_, (loss, weight))| loss * f64::from(*weight)).sum();
        self.pass.get_or_init(|| pass);
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _sum: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(pass) = self.pass.get() else { candle_core::bail!("CTC: no forward pass yet") };
        let ((_, _, n_ids), scale) = (logits.dims3()?, gradient.to_scalar::<f32>()?);
        let mut d_logits = vec![0f32; logits.elem_count()];
        with_floats([logits], |[logits]| {
            kernels::ctc_backward(logits, n_ids, self.targets.borrow(), pass, scale, &mut d_logits);
        })?;
        Ok(Some(tensor(d_logits, logits.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use candle_nn::ops;

    use super::*;
    use crate::nn::test_support::{assert_close, noise};

    fn loss_and_gradient(loss: &Tensor, logits: &Var) -> candle_core::Result<(f32, Tensor)> {
        let gradients = (loss * 0.7)?.backward()?;
        let Some(gradient) = gradients.get(logits) else { candle_core::bail!("no gradient") };
        Ok((loss.to_scalar()?, (gradient / 0.7)?))
    }

    fn targets(labels: &[&[u32]], lengths: &[usize], blank: u32) -> CtcTargets {
        let labels: Vec<Vec<u32>> = labels.iter().map(|labels| labels.to_vec()).collect();
        CtcTargets { weights: vec![1.0; labels.len()], labels, lengths: lengths.to_vec(), blank }
    }

    /// The recursion over paths with plain tensor operations: one row, all of its frames.
    fn composed(logits: &Tensor, labels: &[u32], blank: u32) -> candle_core::Result<Tensor> {
        let log_probs = ops::log_softmax(logits, candle_core::D::Minus1)?; // (T, V)
        let columns: Vec<u32> = labels.iter().flat_map(|label| [blank, *label]).chain([blank]).collect();
        let n = columns.len();
        let skipped: Vec<f32> = (0..n)
            .map(|i| if i % 2 == 1 && i >= 3 && columns[i] != columns[i - 2] { 0.0 } else { f32::MIN / 8.0 })
            .collect();
        let skipped = Tensor::from_vec(skipped, n, &Device::Cpu)?;
        let log_probs = log_probs.index_select(&Tensor::from_vec(columns, n, &Device::Cpu)?, 1)?; // (T, 2 L + 1)
        let nothing = |n: usize| Tensor::full(f32::MIN / 8.0, n, &Device::Cpu);
        let mut reached =
            Tensor::cat(&[log_probs.get(0)?.narrow(0, 0, n.min(2))?, nothing(n - n.min(2))?], 0)?;
        for t in 1..logits.dim(0)? {
            let shifted = |by: usize| Tensor::cat(&[nothing(by)?, reached.clone()], 0)?.narrow(0, 0, n);
            let from = Tensor::stack(&[reached.clone(), shifted(1)?, (shifted(2)? + &skipped)?], 0)?;
            reached = (from.log_sum_exp(0)? + log_probs.get(t)?)?;
        }
        reached.narrow(0, n - n.min(2), n.min(2))?.log_sum_exp(0)?.neg()
    }

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> candle_core::Result<()> {
        for (n_frames, n_ids, blank, labels) in
            [(1, 3, 0, &[2][..]), (9, 5, 4, &[1, 1, 0]), (40, 33, 0, &[5, 9, 9, 32, 1, 9, 5]), (6, 4, 1, &[])]
        {
            let logits = Var::from_tensor(&(noise((1, n_frames, n_ids), 1)? * 5.0)?)?;
            let ours = ctc(logits.as_tensor(), targets(&[labels], &[n_frames], blank))?;
            let theirs = composed(&logits.get(0)?, labels, blank)?;
            let (ours, d_ours) = loss_and_gradient(&ours, &logits)?;
            let (theirs, d_theirs) = loss_and_gradient(&theirs, &logits)?;
            assert!((ours - theirs).abs() < 1e-5 * theirs.abs().max(1.0), "{labels:?}: {ours}, not {theirs}");
            assert_close(&d_ours, &d_theirs, 1e-4)?;
        }
        Ok(())
    }

    /// `tests/oracle/ctc.py`: a padded batch with an empty row, repeated labels and a row that is too short.
    #[test]
    fn losses_and_gradients_are_torchs() -> candle_core::Result<()> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/ctc.safetensors");
        let fixture = candle_core::safetensors::load(path, &Device::Cpu)?;
        let logits = Var::from_tensor(&fixture["logits"])?;
        let integers = |name: &str| fixture[name].to_dtype(DType::U32)?.to_vec1::<u32>();
        let lengths: Vec<usize> = integers("lengths")?.into_iter().map(|n| n as usize).collect();
        let mut rest = integers("labels")?.into_iter();
        let n_labels = integers("label_lengths")?;
        let labels: Vec<Vec<u32>> =
            n_labels.iter().map(|n| rest.by_ref().take(*n as usize).collect()).collect();
        let n_rows = lengths.len();
        for blank in ["first", "last"] {
            let losses = fixture[&format!("losses.{blank}")].to_vec1::<f32>()?;
            let last = logits.dim(2)? as u32 - 1;
            // With the blank at the end, every label is one less.
            let (blank_id, moved) = if blank == "first" { (0, 0) } else { (last, 1) };
            let labels: Vec<Vec<u32>> =
                labels.iter().map(|row| row.iter().map(|label| label - moved).collect()).collect();
            let all = CtcTargets {
                labels: labels.clone(),
                lengths: lengths.clone(),
                weights: vec![1.0; n_rows],
                blank: blank_id,
            };
            assert_eq!(all.n_infeasible(), losses.iter().filter(|loss| **loss == 0.0).count());
            let (sum, gradient) = loss_and_gradient(&ctc(logits.as_tensor(), all.clone())?, &logits)?;
            let expected: f32 = losses.iter().sum();
            assert!((sum - expected).abs() < 1e-5 * expected, "{sum}, not {expected}");
            assert_close(&gradient, &fixture[&format!("gradient.{blank}")], 2e-6)?;
            for (row, expected) in losses.iter().enumerate() {
                let mut weights = vec![0.0; n_rows];
                weights[row] = 1.0;
                let alone =
                    ctc(logits.as_tensor(), CtcTargets { weights, ..all.clone() })?.to_scalar::<f32>()?;
                assert!(
                    (alone - expected).abs() < 1e-5 * expected.max(1.0),
                    "{row}: {alone}, not {expected}"
                );
            }
            // torch's mean: each row's loss by the number of its labels.
            let weights = labels.iter().map(|row| 1.0 / row.len().max(1) as f32 / n_rows as f32).collect();
            let mean = ctc(logits.as_tensor(), CtcTargets { weights, ..all })?.to_scalar::<f32>()?;
            let expected = fixture[&format!("mean.{blank}")].to_scalar::<f32>()?;
            assert!((mean - expected).abs() < 1e-5 * expected, "{mean}, not {expected}");
        }
        Ok(())
    }

    #[test]
    fn rows_that_are_too_short_are_counted_and_cost_nothing() -> candle_core::Result<()> {
        let logits = Var::from_tensor(&noise((3, 4, 3), 1)?)?;
        let all = targets(&[&[1, 2], &[1, 1], &[2, 1, 2, 1]], &[4, 2, 3], 0);
        assert_eq!(all.n_infeasible(), 2);
        let (sum, gradient) = loss_and_gradient(&ctc(logits.as_tensor(), all)?, &logits)?;
        let alone = ctc(&logits.narrow(0, 0, 1)?, targets(&[&[1, 2]], &[4], 0))?.to_scalar::<f32>()?;
        assert_eq!(sum, alone);
        assert_eq!(gradient.narrow(0, 1, 2)?.abs()?.sum_all()?.to_scalar::<f32>()?, 0.0);
        // Nor is there anything to divide by.
        assert_eq!(targets(&[], &[], 0).n_infeasible(), 0);
        Ok(())
    }

    #[test]
    fn targets_that_do_not_fit_are_refused() -> candle_core::Result<()> {
        let logits = noise((2, 4, 3), 1)?;
        let fits = targets(&[&[1], &[2, 1]], &[4, 3], 0);
        assert!(ctc(&logits, fits.clone()).is_ok());
        for wrong in [
            targets(&[&[1]], &[4, 3], 0),
            targets(&[&[1], &[2, 1]], &[4], 0),
            targets(&[&[1], &[2, 1]], &[4, 5], 0),
            targets(&[&[1], &[2, 3]], &[4, 3], 0),
            targets(&[&[1], &[2, 0]], &[4, 3], 0),
            targets(&[&[1], &[2, 1]], &[4, 3], 3),
            CtcTargets { weights: vec![1.0], ..fits.clone() },
        ] {
            assert!(ctc(&logits, wrong.clone()).is_err(), "{wrong:?}");
        }
        assert!(ctc(&logits.get(0)?, fits).is_err());
        Ok(())
    }
}
