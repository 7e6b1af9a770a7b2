//! Batch normalisation of frames, by the batch in training and by what training has seen in use.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor, Var};

use super::backward::gradient_found;
use super::storage::{floats, on_cpu, tensor, with_floats};
use super::within;
use crate::Error;
use crate::kernels::{BatchNormWeights, BatchStatistics, Frames, batch_norm, batch_norm_backward};
use crate::params::{Init, Scope};

const EPS: f32 = 1e-5;
/// Share of a batch in the running statistics (torch's default).
const MOMENTUM: f64 = 0.1;

/// Normalises each channel to zero mean and unit variance, then scales and shifts it.
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    /// Of each channel, over what training has seen.
    running_mean: Running,
    running_variance: Running,
    /// Of the batches since the running statistics last followed.
    seen: Arc<Seen>,
}

/// A statistic that follows training, or one that does not change.
enum Running {
    Followed(Var),
    Fixed(Tensor),
}

/// Statistics of batches, in the order in which their backward passes ended.
type Seen = Mutex<Vec<BatchStatistics>>;

impl Running {
    fn value(&self) -> Tensor {
        match self {
            Self::Followed(var) => var.as_detached_tensor(),
            Self::Fixed(tensor) => tensor.clone(),
        }
    }
}

impl BatchNorm {
    /// Loads `weight`, `bias`, `running_mean` and `running_var` of `width` numbers.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, width: usize) -> Result<Self, Error> {
        let running = |name, init| {
            Ok::<_, Error>(match scope.statistic(name, &[width], init)? {
                (_, Some(var)) => Running::Followed(var),
                (tensor, None) => Running::Fixed(tensor),
            })
        };
        Ok(Self {
            weight: scope.get("weight", &[width], Init::Ones)?,
            bias: scope.get("bias", &[width], Init::Zeros)?,
            running_mean: running("running_mean", Init::Zeros)?,
            running_variance: running("running_var", Init::Ones)?,
            seen: Arc::default(),
        })
    }

    /// Whether it normalises by the batch: where it is trained.
    pub fn is_trained(&self) -> bool {
        self.weight.track_op() || self.bias.track_op()
    }

    /// What it does by the running statistics: gain and shift of each channel, each (D).
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn gain_and_shift(&self) -> candle_core::Result<(Tensor, Tensor)> {
        let deviation = (self.running_variance.value() + f64::from(EPS))?.sqrt()?;
        let gain = (&self.weight / deviation)?;
        let shift = (&self.bias - (self.running_mean.value() * &gain)?)?;
        Ok((gain, shift))
    }

    /// x (B, T, D) of which each row has `lengths` frames, by the statistics of these frames; zeros after them. Differentiable.
    /// Its backward pass notes the statistics, which [`BatchNorm::follow`] takes up.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn forward_batch(&self, x: &Tensor, lengths: &[usize]) -> candle_core::Result<Tensor> {
        let (b, t, width) = x.dims3()?;
        if lengths.len() != b || lengths.iter().any(|n| *n > t) || self.weight.dims() != [width] {
            candle_core::bail!(
                "batch norm: {x:?} with lengths {lengths:?} for {:?} channels",
                self.weight.dims()
            )
        }
        let normalise =
            Normalise { lengths: lengths.to_vec(), statistics: OnceLock::new(), seen: self.seen.clone() };
        if on_cpu(&[x, &self.weight, &self.bias]) {
            let (weight, bias) = (self.weight.contiguous()?, self.bias.contiguous()?);
            x.contiguous()?.apply_op3(&weight, &bias, normalise)
        } else {
            self.composed(x, lengths)
        }
    }

    /// With plain tensor operations: the path on other devices, and the kernel's oracle. It notes the statistics at once.
    fn composed(&self, x: &Tensor, lengths: &[usize]) -> candle_core::Result<Tensor> {
        let (_, t, _) = x.dims3()?;
        let n: usize = lengths.iter().sum();
        let mask = within(lengths, t, x.device())?;
        let mean_of = |x: &Tensor| x.sum_keepdim((0, 1))? / n.max(1) as f64; // (1, 1, D)
        let mean = mean_of(&x.broadcast_mul(&mask)?)?;
        let centred = x.broadcast_sub(&mean)?.broadcast_mul(&mask)?;
        let variance = mean_of(&centred.sqr()?)?;
        let numbers = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        note(
            &self.seen,
            BatchStatistics { n_frames: n, mean: numbers(&mean)?, variance: numbers(&variance)? },
        );
        let normal = centred.broadcast_div(&(variance + f64::from(EPS))?.sqrt()?)?;
        normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?.broadcast_mul(&mask)
    }

    /// Lets the running statistics follow the batches that were seen since the last call, as if they had been one, in whatever order
    /// they were computed; or, unless `is_kept`, forgets these.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn follow(&self, is_kept: bool) -> candle_core::Result<()> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if !is_kept {
            return Ok(());
        }
        let (Running::Followed(mean), Running::Followed(variance)) =
            (&self.running_mean, &self.running_variance)
        else {
            return Ok(());
        };
        let Some(all) = joined(seen) else { return Ok(()) };
        let follow = |var: &Var, seen: Vec<f64>| {
            let before = var.flatten_all()?.to_vec1::<f32>()?;
            let after: Vec<f32> = (before.iter().zip(&seen))
                .map(|(before, seen)| ((1.0 - MOMENTUM) * f64::from(*before) + MOMENTUM * seen) as f32)
                .collect();
            var.set(&Tensor::from_vec(after, var.shape(), var.device())?)
        };
        follow(mean, all.mean)?;
        follow(variance, all.variance)
    }
}

fn note(seen: &Seen, statistics: BatchStatistics) {
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(statistics);
}

/// Of several batches together, the variance as an estimate of that of all there is.
struct Joined {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

fn joined(mut seen: Vec<BatchStatistics>) -> Option<Joined> {
    seen.retain(|batch| batch.n_frames > 0);
    // Sums depend on their order, and threads end in any.
    let key = |batch: &BatchStatistics| {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        (batch.n_frames, bits(&batch.mean), bits(&batch.variance))
    };
    seen.sort_by_cached_key(key);
    let width = seen.first()?.mean.len();
    let n: f64 = seen.iter().map(|batch| batch.n_frames as f64).sum();
    let over_all = |value: &dyn Fn(&BatchStatistics, usize) -> f64| -> Vec<f64> {
        let sum = |c| seen.iter().map(|batch| batch.n_frames as f64 * value(batch, c)).sum::<f64>();
        (0..width).map(|c| sum(c) / n).collect()
    };
    let mean = over_all(&|batch, c| f64::from(batch.mean[c]));
    let biased =
        over_all(&|batch, c| f64::from(batch.variance[c]) + (f64::from(batch.mean[c]) - mean[c]).powi(2));
    // One frame says nothing of a variance.
    let unbiased = n / (n - 1.0).max(1.0);
    Some(Joined { variance: biased.into_iter().map(|variance| variance * unbiased).collect(), mean })
}

struct Normalise {
    lengths: Vec<usize>,
    statistics: OnceLock<BatchStatistics>,
    seen: Arc<Seen>,
}

impl Normalise {
    fn frames(&self, x: &Shape) -> candle_core::Result<Frames<'_>> {
        let (_, n_frames, width) = x.dims3()?;
        Ok(Frames { lengths: &self.lengths, n_frames, width })
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "batch-norm"
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
        let (x, frames) = (floats(x, x_layout)?, self.frames(x_layout.shape())?);
        let weights = BatchNormWeights {
            weight: floats(weight, weight_layout)?,
            bias: floats(bias, bias_layout)?,
            eps: EPS,
        };
        let statistics = self.statistics.get_or_init(|| BatchStatistics::of(x, frames));
        let y = batch_norm(x, frames, statistics, weights);
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
        let frames = self.frames(x.shape())?;
        let (gradients, statistics) = with_floats([x, weight, bias, dy], |[x, weight, bias, dy]| {
            let weights = BatchNormWeights { weight, bias, eps: EPS };
            let statistics = self.statistics.get_or_init(|| BatchStatistics::of(x, frames));
            (batch_norm_backward(x, frames, statistics, weights, dy), statistics.clone())
        })?;
        // Once for each batch, also where a forward pass is made twice.
        note(&self.seen, statistics);
        let dx = x.track_op().then(|| tensor(gradients.x, x.shape())).transpose()?;
        Ok((dx, gradient_found(weight, &gradients.weight)?, gradient_found(bias, &gradients.bias)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::test_support::{assert_close, gradients, noise};
    use crate::params::Params;

    fn layer(width: usize) -> Result<(BatchNorm, [Var; 3], Params), Error> {
        let params = Params::seeded(1, &Device::Cpu);
        let norm = BatchNorm::load(&params.root(), width)?;
        let vars = params.vars();
        for (seed, (_, var)) in vars.iter().enumerate() {
            var.set(&noise(width, 7 + seed as u32)?)?;
        }
        assert_eq!(vars.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["bias", "weight"]);
        let x = Var::from_tensor(&(noise((3, 70, width), 1)? * 3.0)?)?;
        Ok((norm, [x, vars[0].1.clone(), vars[1].1.clone()], params))
    }

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> Result<(), Error> {
        let (norm, [x, bias, weight], _) = layer(19)?;
        for lengths in [[70, 70, 70], [70, 1, 33], [0, 65, 2]] {
            let (ours, theirs) = (norm.forward_batch(&x, &lengths)?, norm.composed(&x, &lengths)?);
            assert_close(&ours, &theirs, 1e-5)?;
            let vars = [&x, &bias, &weight];
            for (ours, theirs) in gradients(&ours, &vars)?.iter().zip(gradients(&theirs, &vars)?) {
                let (Some(ours), Some(theirs)) = (ours, theirs) else {
                    unreachable!("a gradient is missing")
                };
                assert_close(ours, &theirs, 2e-4)?;
            }
        }
        assert!(norm.forward_batch(&x, &[70, 70]).is_err() && norm.forward_batch(&x, &[71, 0, 0]).is_err());
        Ok(())
    }

    #[test]
    fn padding_changes_nothing_and_is_zero() -> Result<(), Error> {
        let (norm, [x, ..], _) = layer(5)?;
        let alone = norm.forward_batch(&x.narrow(0, 0, 1)?.narrow(1, 0, 40)?, &[40])?;
        let padded = norm.forward_batch(&x.narrow(0, 0, 1)?, &[40])?;
        assert_close(&padded.narrow(1, 0, 40)?, &alone, 0.0)?;
        assert_close(&padded.narrow(1, 40, 30)?, &Tensor::zeros((1, 30, 5), x.dtype(), &Device::Cpu)?, 0.0)?;
        Ok(())
    }

    #[test]
    fn running_statistics_follow_all_batches_of_an_update_as_one() -> Result<(), Error> {
        let (norm, [x, ..], params) = layer(4)?;
        let live = BatchNorm::load(&params.detached().root(), 4)?;
        assert!(norm.is_trained() && !live.is_trained());
        let backward = |x: &Tensor, lengths: &[usize]| -> Result<(), Error> {
            norm.forward_batch(x, lengths)?.sqr()?.sum_all()?.backward()?;
            Ok(())
        };
        // Nothing is seen before a backward pass.
        norm.forward_batch(&x, &[70, 70, 70])?;
        norm.follow(true)?;
        assert_eq!(norm.running_mean.value().to_vec1::<f32>()?, [0.0; 4]);
        backward(&x, &[70, 70, 70])?;
        norm.follow(false)?;
        backward(&x.narrow(0, 1, 2)?, &[70, 10])?;
        backward(&x.narrow(0, 0, 1)?, &[30])?;
        norm.follow(true)?;
        let rows = Tensor::cat(
            &[x.get(0)?.narrow(0, 0, 30)?, x.get(1)?.narrow(0, 0, 70)?, x.get(2)?.narrow(0, 0, 10)?],
            0,
        )?;
        let mean = rows.mean(0)?;
        let variance = rows.broadcast_sub(&mean)?.sqr()?.sum(0)?.affine(1.0 / 109.0, 0.0)?;
        assert_close(&live.running_mean.value(), &(mean * 0.1)?, 1e-6)?;
        assert_close(&live.running_variance.value(), &variance.affine(0.1, 0.9)?, 1e-5)?;
        // And what is served follows with them.
        let (gain, shift) = live.gain_and_shift()?;
        let expected = (&live.weight / (live.running_variance.value() + 1e-5)?.sqrt()?)?;
        assert_close(&gain, &expected, 1e-6)?;
        assert_close(&shift, &(&live.bias - (live.running_mean.value() * gain)?)?, 1e-6)?;
        Ok(())
    }
}
