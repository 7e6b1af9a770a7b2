//! What a vocoder learns against, while it is trained: nets that are small beside those of HiFi-GAN, as two processors have to train them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use audio::FeatureSpec;
use candle_core::{Device, Tensor, Var};
use models::nn::{Conv1d, Stft, leaky_relu, magnitude};
use models::params::{Params, Scope};
use models::vocos::Vocos;

use super::Batch;
use crate::Error;
use crate::loss::{Adversarial, Verdict, transforms};
use crate::task::{Phase, Term};

/// What is left of values below zero.
const SLOPE: f32 = 0.1;
/// Magnitudes below this are not told apart.
const FLOOR: f32 = 1e-3;
/// Layers before the last one.
const N_LAYERS: usize = 4;
/// How many times wider each is than the one before, up to [`MAX_WIDENING`] times the first.
const WIDENING: usize = 2;
const MAX_WIDENING: usize = 8;

/// Convolutions over frames, and one that says what they amount to.
struct Net {
    layers: Vec<Conv1d>,
    last: Conv1d,
}

impl Net {
    fn load(scope: &Scope<'_>, n_in: usize, widths: &[usize], stride: usize) -> Result<Self, Error> {
        let inputs = [&[n_in], widths].concat();
        let layer = |(index, (n_in, n_out)): (usize, (&usize, &usize))| {
            Conv1d::load(&scope.sub("convs").sub(index), *n_in, *n_out, 5, stride, 2)
        };
        let layers = inputs.iter().zip(widths).enumerate().map(layer).collect::<Result<_, _>>()?;
        let n_in = inputs.last().copied().unwrap_or(n_in);
        Ok(Self { layers, last: Conv1d::load(&scope.sub("conv_post"), n_in, 1, 3, 1, 1)? })
    }

    /// Of (B, T, C).
    fn judge(&self, x: &Tensor) -> Result<Verdict, Error> {
        let (mut x, mut features) = (x.clone(), Vec::new());
        for layer in &self.layers {
            x = leaky_relu(&layer.forward(&x)?, SLOPE)?;
            features.push(x.clone());
        }
        Ok(Verdict { scores: self.last.forward(&x)?, features })
    }
}

/// Several discriminators, each of which looks at sound in its own way.
pub(super) struct Discriminators {
    /// Of every so many samples, side by side (HiFi-GAN's multi-period discriminator, MPD).
    periods: Vec<(usize, Net)>,
    /// Of spectra (Vocos' multi-resolution discriminator), whose bins are channels: one convolution over frames in the place of one over
    /// frames and bins.
    resolutions: Vec<(Stft, Net)>,
}

impl Discriminators {
    pub fn load(params: &Params, loss: &Adversarial, spec: &FeatureSpec) -> Result<Self, Error> {
        let root = params.root();
        let width = |layer: u32| loss.channels * WIDENING.pow(layer).min(MAX_WIDENING);
        let widths: Vec<usize> = (0..N_LAYERS as u32).map(width).collect();
        let of_period =
            |period: &usize| Ok((*period, Net::load(&root.sub("periods").sub(period), 1, &widths, 3)?));
        let of_resolution = |(n_fft, transform): (&usize, Stft)| {
            let widths = [MAX_WIDENING / 2 * loss.channels; N_LAYERS - 1];
            let net = Net::load(&root.sub("resolutions").sub(n_fft), transform.n_bins(), &widths, 1)?;
            Ok((transform, net))
        };
        let transforms = transforms(&loss.n_fft, spec)?;
        Ok(Self {
            periods: loss.periods.iter().map(of_period).collect::<Result<_, Error>>()?,
            resolutions: loss
                .n_fft
                .iter()
                .zip(transforms)
                .map(of_resolution)
                .collect::<Result<_, Error>>()?,
        })
    }

    /// Of samples (B, N).
    pub fn judge(&self, samples: &Tensor) -> Result<Vec<Verdict>, Error> {
        let (n_rows, n_samples) = samples.dims2()?;
        let mut verdicts = Vec::with_capacity(self.periods.len() + self.resolutions.len());
        for (period, net) in &self.periods {
            let n_steps = n_samples.div_ceil(*period);
            let padded = samples.pad_with_zeros(1, 0, n_steps * period - n_samples)?;
            let columns = padded.reshape((n_rows, n_steps, *period))?.transpose(1, 2)?.contiguous()?;
            verdicts.push(net.judge(&columns.reshape((n_rows * period, n_steps, 1))?)?);
        }
        for (transform, net) in &self.resolutions {
            let magnitudes = magnitude(&transform.forward(samples)?, FLOOR)?; // (B, T, bins)
            verdicts.push(net.judge(&magnitudes.log()?)?);
        }
        Ok(verdicts)
    }
}

/// The second phase of an update: discriminators, what is said of the vocoder by them, and whether they are there yet.
pub(super) struct Adversary {
    params: Params,
    loss: Adversarial,
    learner: Discriminators,
    /// The same weights without gradients: what a vocoder learns by does not move them.
    judge: Discriminators,
    vocoder: Arc<Vocos>,
    is_on: AtomicBool,
    /// Whether they learnt something before this run went on.
    have_begun: AtomicBool,
}

impl Adversary {
    /// Discriminators of a new run. `vocoder` has the live weights without gradients.
    pub fn new(loss: &Adversarial, vocoder: Arc<Vocos>, seed: u64, device: &Device) -> Result<Self, Error> {
        let params = Params::seeded(seed, device);
        let learner = Discriminators::load(&params, loss, vocoder.spec())?;
        let judge = Discriminators::load(&params.detached(), loss, vocoder.spec())?;
        let [is_on, have_begun] = [false, false].map(AtomicBool::new);
        Ok(Self { params, loss: loss.clone(), learner, judge, vocoder, is_on, have_begun })
    }

    /// Told before each update, from 1 to `n_steps`. Those that have begun stay, though a run is made longer.
    pub fn begin(&self, step: u64, n_steps: u64) {
        let is_time = step as f64 > self.loss.begin * n_steps as f64;
        self.is_on.store(is_time || self.have_begun.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// What a vocoder is to make less of, summed over rows: what is said of its `samples` (B, N), and how else they are seen than the
    /// `recorded` ones (B, N).
    pub fn sums(&self, samples: &Tensor, recorded: &Tensor) -> Result<[Tensor; 2], Error> {
        let (made, recorded) = (self.judge.judge(samples)?, self.judge.judge(recorded)?);
        let n_rows = samples.dim(0)? as f64;
        let seen = self.loss.feature_loss(&recorded, &made)?;
        Ok([(self.loss.vocoder_loss(&made)? * n_rows)?, (seen * n_rows)?])
    }
}

impl Phase<Batch> for Adversary {
    fn name(&self) -> &'static str {
        "discriminators"
    }

    fn vars(&self) -> Vec<(String, Var)> {
        self.params.vars()
    }

    fn resume(&self, n_updates: u64) {
        self.have_begun.store(n_updates > 0, Ordering::Relaxed);
    }

    fn learning_rate(&self, rate: f64) -> f64 {
        if self.loss.learning_rate > 0.0 { self.loss.learning_rate } else { rate }
    }

    fn terms(&self, batch: &Batch) -> Vec<Term> {
        let weight = batch.extent.n_cuts as f64;
        let term = Term { name: "discriminators", scale: 1.0, weight };
        if self.is_on() { vec![term] } else { Vec::new() }
    }

    fn sums(&self, batch: &Batch) -> Result<Vec<Tensor>, Error> {
        // What the vocoder has just made in this update, unless it was not asked.
        let made = match batch.made.get() {
            Some(made) => made.clone(),
            None => self.vocoder.forward(&batch.mel)?,
        };
        let (recorded, made) = (self.learner.judge(&batch.samples)?, self.learner.judge(&made.detach())?);
        let loss = self.loss.discriminators_loss(&recorded, &made)?;
        Ok(vec![(loss * batch.extent.n_cuts as f64)?])
    }
}
