//! The flow head: a small network that carries noise to a speech token, given what the Transformer says of it (Li et al., arXiv
//! 2406.11838, section 3.3, with flow matching in the place of diffusion).

use candle_core::{D, Device, Tensor};
use rayon::prelude::*;

use super::FlowLmConfig;
use crate::Error;
use crate::kernels::Activation;
use crate::nn::{LayerNorm, Linear, activate};
use crate::params::Scope;

/// Numbers that a time is told by before it is embedded.
pub(super) const TIME_SIZE: usize = 256;
/// The longest of their wavelengths, in units of a thousandth of the way.
const MAX_PERIOD: f64 = 10_000.0;
const EPS: f32 = 1e-6;

/// The mean velocity on the way from time `s` to time `t`, with s = t that of the flow itself: noise is at time 0, speech at 1.
pub struct FlowHead {
    input: Linear,
    condition: Linear,
    times: [TimeEmbedding; 2],
    blocks: Vec<HeadBlock>,
    norm: Plain,
    modulation: Linear,
    output: Linear,
}

/// A time as a vector.
struct TimeEmbedding {
    fc1: Linear,
    fc2: Linear,
}

/// A feed-forward part whose norm and whose share are told by what is to be said: `x + gate MLP((1 + scale) norm(x) + shift)`.
struct HeadBlock {
    norm: Plain,
    modulation: Linear,
    fc1: Linear,
    fc2: Linear,
}

/// A layer norm with nothing to learn.
struct Plain(LayerNorm);

impl Plain {
    fn new(scope: &Scope<'_>, width: usize) -> Result<Self, Error> {
        Ok(Self(LayerNorm::plain(width, EPS, scope.device())?))
    }

    fn modulated(&self, x: &Tensor, shift: &Tensor, scale: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.0.forward(x)?;
        (&x + (&x * scale)?)? + shift
    }
}

impl TimeEmbedding {
    fn load(scope: &Scope<'_>, width: usize) -> Result<Self, Error> {
        Ok(Self {
            fc1: Linear::load(&scope.sub("fc1"), TIME_SIZE, width, true)?,
            fc2: Linear::load(&scope.sub("fc2"), width, width, true)?,
        })
    }

    /// [`waves`] (N, TIME_SIZE) to (N, width).
    fn forward(&self, waves: &Tensor) -> candle_core::Result<Tensor> {
        self.fc2.forward(&activate(Activation::Silu, &self.fc1.forward(waves)?)?)
    }
}

/// Times as they are told, (N, TIME_SIZE).
fn waves(times: &[f32], device: &Device) -> candle_core::Result<Tensor> {
    let half = TIME_SIZE / 2;
    let speeds: Vec<f64> = (0..half).map(|i| (-(MAX_PERIOD.ln()) * i as f64 / half as f64).exp()).collect();
    let mut waves = vec![0f32; times.len() * TIME_SIZE];
    let rows = waves.par_chunks_exact_mut(TIME_SIZE).zip(times).with_min_len(32);
    rows.for_each(|(waves, time)| {
        let (cosines, sines) = waves.split_at_mut(half);
        for ((cosine, sine), speed) in cosines.iter_mut().zip(sines).zip(&speeds) {
            let (s, c) = (1_000.0 * f64::from(*time) * speed).sin_cos();
            (*cosine, *sine) = (c as f32, s as f32);
        }
    });
    Tensor::from_vec(waves, (times.len(), TIME_SIZE), device)
}

impl HeadBlock {
    fn load(scope: &Scope<'_>, width: usize) -> Result<Self, Error> {
        Ok(Self {
            norm: Plain::new(scope, width)?,
            // Nothing at first: a new block passes on what it gets.
            modulation: Linear::load_zeros(&scope.sub("modulation"), width, 3 * width)?,
            fc1: Linear::load(&scope.sub("fc1"), width, width, true)?,
            fc2: Linear::load(&scope.sub("fc2"), width, width, true)?,
        })
    }

    fn forward(&self, x: &Tensor, condition: &Tensor) -> candle_core::Result<Tensor> {
        let parts = self.modulation.forward(condition)?.chunk(3, D::Minus1)?;
        let [shift, scale, gate] = parts.as_slice() else {
            candle_core::bail!("three parts of a modulation")
        };
        let hidden = self.fc1.forward(&self.norm.modulated(x, shift, scale)?)?;
        x + (self.fc2.forward(&activate(Activation::Silu, &hidden)?)? * gate)?
    }
}

impl FlowHead {
    /// Loads its weights.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, config: &FlowLmConfig) -> Result<Self, Error> {
        let (width, patch) = (config.head_hidden_size, config.patch_size());
        let block = |i| HeadBlock::load(&scope.sub("layers").sub(i), width);
        Ok(Self {
            input: Linear::load(&scope.sub("input"), patch, width, true)?,
            condition: Linear::load(&scope.sub("condition"), config.hidden_size, width, true)?,
            times: [
                TimeEmbedding::load(&scope.sub("time_from"), width)?,
                TimeEmbedding::load(&scope.sub("time_to"), width)?,
            ],
            blocks: (0..config.num_head_layers).map(block).collect::<Result<_, _>>()?,
            norm: Plain::new(scope, width)?,
            modulation: Linear::load_zeros(&scope.sub("modulation"), width, 2 * width)?,
            output: Linear::load_zeros(&scope.sub("output"), width, patch)?,
        })
    }

    /// What the Transformer says of tokens (N, D), as [`FlowHead::velocity`] takes it, (N, width): once for all steps.
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn condition(&self, states: &Tensor) -> candle_core::Result<Tensor> {
        self.condition.forward(states)
    }

    /// Velocities (N, patch) of `x` (N, patch) between times `from` and `to`, one of each for every row, under conditions
    /// (N, width). Differentiable.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn velocity(
        &self,
        x: &Tensor,
        [from, to]: [&[f32]; 2],
        condition: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let [first, second] = &self.times;
        let from_waves = waves(from, x.device())?;
        let to_waves = if from == to { from_waves.clone() } else { waves(to, x.device())? };
        let times = (first.forward(&from_waves)? + second.forward(&to_waves)?)?;
        let condition = activate(Activation::Silu, &(condition + (times * 0.5)?)?)?;
        let mut x = self.input.forward(x)?;
        for block in &self.blocks {
            x = block.forward(&x, &condition)?;
        }
        let parts = self.modulation.forward(&condition)?.chunk(2, D::Minus1)?;
        let [shift, scale] = parts.as_slice() else { candle_core::bail!("two parts of a modulation") };
        self.output.forward(&self.norm.modulated(&x, shift, scale)?)
    }
}

/// How noise is carried to speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Solver {
    /// Straight on by the velocity at the beginning of each step: of one step comes the mean of all that could be said.
    Euler,
    /// By the velocity in the middle of each step: two evaluations.
    Midpoint,
    /// By the mean velocity over each step, which a head learns as a flow map (methods, 2.4).
    FlowMap,
}

/// From noise (N, patch) at time 0 to speech at time 1 in equal steps, whatever the velocity is.
///
/// # Errors
/// What `velocity` refuses.
pub fn integrate(
    noise: &Tensor,
    solver: Solver,
    n_steps: usize,
    mut velocity: impl FnMut(&Tensor, f32, f32) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Tensor> {
    let n_steps = n_steps.max(1);
    let time = |step: usize| step as f32 / n_steps as f32;
    let step_size = 1.0 / n_steps as f64;
    let mut x = noise.clone();
    for step in 0..n_steps {
        let (from, to) = (time(step), time(step + 1));
        let velocity = match solver {
            Solver::Euler => velocity(&x, from, from)?,
            Solver::FlowMap => velocity(&x, from, to)?,
            Solver::Midpoint => {
                let middle = 0.5 * (from + to);
                let half = (&x + (velocity(&x, from, from)? * (0.5 * step_size))?)?;
                velocity(&half, middle, middle)?
            }
        };
        x = (&x + (velocity * step_size)?)?;
    }
    Ok(x)
}

/// Speech tokens (N, patch) out of noise (N, patch) by a head, under [`FlowHead::condition`]s (N, width).
///
/// # Errors
/// Shapes that do not fit.
pub fn sample(
    head: &FlowHead,
    noise: &Tensor,
    condition: &Tensor,
    solver: Solver,
    n_steps: usize,
) -> candle_core::Result<Tensor> {
    let n = noise.dim(0)?;
    integrate(noise, solver, n_steps, |x, from, to| {
        head.velocity(x, [&vec![from; n], &vec![to; n]], condition)
    })
}
