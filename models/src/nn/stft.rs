//! Short-time Fourier transforms and their inverse, through which vocoders and losses of sound are trained. On the CPU they are fast
//! transforms, whose backward passes are fast transforms, too: each is the other's adjoint but for scales.

use std::sync::{Arc, OnceLock};

use audio::features::{self, FrameAlignment};
use audio::{FeatureSpec, Padding};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::Error;

/// What both directions are made of.
struct Plan {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    /// `n_fft` weights.
    window: Vec<f32>,
    hop_samples: usize,
}

/// Buffers for one pass.
struct Scratch {
    /// `n_fft` samples.
    frame: Vec<f32>,
    bins: Vec<Complex<f32>>,
    forward: Vec<Complex<f32>>,
    inverse: Vec<Complex<f32>>,
}

impl Plan {
    fn new(spec: &FeatureSpec) -> Result<Self, Error> {
        if spec.preemphasis.is_some() {
            let reason = "is not for differentiable transforms; leave it out".to_owned();
            return Err(audio::Error::BadOption { field: "preemphasis", reason }.into());
        }
        let window = features::Stft::new(spec)?.window().iter().map(|weight| *weight as f32).collect();
        let mut planner = RealFftPlanner::new();
        Ok(Self {
            forward: planner.plan_fft_forward(spec.n_fft),
            inverse: planner.plan_fft_inverse(spec.n_fft),
            window,
            hop_samples: spec.hop_samples,
        })
    }

    fn n_fft(&self) -> usize {
        self.window.len()
    }

    /// F.
    fn n_bins(&self) -> usize {
        self.n_fft() / 2 + 1
    }

    fn scratch(&self) -> Scratch {
        Scratch {
            frame: self.forward.make_input_vec(),
            bins: self.forward.make_output_vec(),
            forward: self.forward.make_scratch_vec(),
            inverse: self.inverse.make_scratch_vec(),
        }
    }

    /// The frame times the window to its bins.
    fn transform(&self, scratch: &mut Scratch) {
        scratch.frame.iter_mut().zip(&self.window).for_each(|(value, weight)| *value *= weight);
        let Scratch { frame, bins, forward, .. } = scratch;
        // Lengths come from the plan itself, so this cannot fail.
        let transformed = self.forward.process_with_scratch(frame, bins, forward);
        debug_assert!(transformed.is_ok());
    }

    /// The bins of half a spectrum to the frame that all of it makes, times the window; not divided by `n_fft`.
    fn restore(&self, scratch: &mut Scratch) {
        // The transform complains of imaginary parts that no real signal has.
        if let [first, .., last] = scratch.bins.as_mut_slice() {
            (first.im, last.im) = (0.0, 0.0);
        }
        let Scratch { frame, bins, inverse, .. } = scratch;
        let transformed = self.inverse.process_with_scratch(bins, frame, inverse);
        debug_assert!(transformed.is_ok());
        frame.iter_mut().zip(&self.window).for_each(|(value, weight)| *value *= weight);
    }

    /// Cosines and sines of the angles that bin and sample make, (F, `n_fft`) each: for devices without a fast transform.
    fn waves(&self) -> [Vec<f64>; 2] {
        let n_fft = self.n_fft();
        let angle =
            |bin: usize, at: usize| std::f64::consts::TAU * ((bin * at) % n_fft) as f64 / n_fft as f64;
        let of = |wave: fn(f64) -> f64| {
            (0..self.n_bins()).flat_map(|bin| (0..n_fft).map(move |at| wave(angle(bin, at)))).collect()
        };
        [of(f64::cos), of(f64::sin)]
    }

    /// How often a bin is there in the whole spectrum.
    fn times(&self, bin: usize) -> f32 {
        if bin == 0 || bin + 1 == self.n_bins() { 1.0 } else { 2.0 }
    }
}

/// Reads bins from `spectrum`, real parts and then imaginary ones, times what `scale` says of each.
fn read_bins(spectrum: &[f32], bins: &mut [Complex<f32>], scale: impl Fn(usize) -> f32) {
    let (re, im) = spectrum.split_at(bins.len());
    for (k, (bin, (re, im))) in bins.iter_mut().zip(re.iter().zip(im)).enumerate() {
        *bin = Complex::new(*re, *im) * scale(k);
    }
}

/// Writes what [`read_bins`] reads.
fn write_bins(bins: &[Complex<f32>], spectrum: &mut [f32], scale: impl Fn(usize) -> f32) {
    let (re, im) = spectrum.split_at_mut(bins.len());
    for (k, (bin, (re, im))) in bins.iter().zip(re.iter_mut().zip(im)).enumerate() {
        (*re, *im) = (bin.re * scale(k), bin.im * scale(k));
    }
}

/// Samples to spectra, as [`audio::features::Stft`] has them. Immutable; clones share their tables.
#[derive(Clone)]
pub struct Stft {
    shared: Arc<Analysis>,
}

struct Analysis {
    plan: Plan,
    spec: FeatureSpec,
    /// Which sample stands where.
    places: features::Stft,
    /// The transform as a matrix, (`n_fft`, 2 F), where it was asked for.
    matrix: OnceLock<Tensor>,
}

impl Stft {
    /// Prepares a transform. Of the spec it heeds what an [`audio::features::Stft`] does.
    ///
    /// # Errors
    /// A spec that contradicts itself, pre-emphasis.
    pub fn new(spec: &FeatureSpec) -> Result<Self, Error> {
        let (plan, places) = (Plan::new(spec)?, features::Stft::new(spec)?);
        let shared = Analysis { plan, spec: spec.clone(), places, matrix: OnceLock::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// F, `n_fft / 2 + 1`.
    pub fn n_bins(&self) -> usize {
        self.shared.plan.n_bins()
    }

    /// (B, N) to (B, T, 2 F), the real parts of a frame and then its imaginary ones. Differentiable.
    ///
    /// # Errors
    /// Too few samples for a frame.
    pub fn forward(&self, samples: &Tensor) -> candle_core::Result<Tensor> {
        let (_, n_samples) = samples.dims2()?;
        if self.shared.spec.n_frames(n_samples) == 0 {
            candle_core::bail!("a transform of {} cannot run over {samples:?}", self.shared.plan.n_fft())
        }
        if on_cpu(&[samples]) {
            samples.contiguous()?.apply_op1(Forward(self.shared.clone()))
        } else {
            self.shared.composed(samples)
        }
    }
}

impl Analysis {
    /// Where the sample is that stands at `offset` of frame `t`.
    fn place(&self, t: usize, offset: usize, n_samples: usize) -> Option<usize> {
        let n_left = if self.spec.padding == Padding::None { 0 } else { self.plan.n_fft() / 2 };
        let position = (t * self.plan.hop_samples + offset) as i64 - n_left as i64;
        self.places.padded_index(position, n_samples)
    }

    /// The place of the first sample of frame `t` where all of the frame lies within the signal.
    fn inner(&self, t: usize, n_samples: usize) -> Option<usize> {
        let n_left = if self.spec.padding == Padding::None { 0 } else { self.plan.n_fft() / 2 };
        let first = (t * self.plan.hop_samples).checked_sub(n_left)?;
        (first + self.plan.n_fft() <= n_samples).then_some(first)
    }

    /// Spectra of a row.
    fn transform(&self, samples: &[f32], spectra: &mut [f32]) {
        let mut scratch = self.plan.scratch();
        for (t, spectrum) in spectra.chunks_exact_mut(2 * self.plan.n_bins()).enumerate() {
            match self.inner(t, samples.len()) {
                Some(first) => scratch.frame.copy_from_slice(&samples[first..][..self.plan.n_fft()]),
                None => {
                    for (offset, value) in scratch.frame.iter_mut().enumerate() {
                        *value = self.place(t, offset, samples.len()).map_or(0.0, |place| samples[place]);
                    }
                }
            }
            self.plan.transform(&mut scratch);
            write_bins(&scratch.bins, spectrum, |_| 1.0);
        }
    }

    /// Adds what gradients of its spectra say of a row's samples.
    fn gradient(&self, d_spectra: &[f32], d_samples: &mut [f32]) {
        let (mut scratch, n_samples) = (self.plan.scratch(), d_samples.len());
        for (t, d_spectrum) in d_spectra.chunks_exact(2 * self.plan.n_bins()).enumerate() {
            // Half a spectrum stands for all of it there, and for itself here.
            read_bins(d_spectrum, &mut scratch.bins, |bin| 1.0 / self.plan.times(bin));
            self.plan.restore(&mut scratch);
            match self.inner(t, n_samples) {
                Some(first) => {
                    let d_samples = &mut d_samples[first..][..self.plan.n_fft()];
                    d_samples.iter_mut().zip(&scratch.frame).for_each(|(sum, d)| *sum += d);
                }
                None => {
                    for (offset, d) in scratch.frame.iter().enumerate() {
                        if let Some(place) = self.place(t, offset, n_samples) {
                            d_samples[place] += d;
                        }
                    }
                }
            }
        }
    }

    /// With plain tensor operations: the path on other devices, and the kernel's oracle.
    fn composed(&self, samples: &Tensor) -> candle_core::Result<Tensor> {
        let (n_rows, n_samples) = samples.dims2()?;
        let (n_frames, n_fft, n_bins) =
            (self.spec.n_frames(n_samples), self.plan.n_fft(), self.plan.n_bins());
        let places = (0..n_frames).flat_map(|t| {
            // After the last sample there is a zero.
            (0..n_fft).map(move |offset| self.place(t, offset, n_samples).unwrap_or(n_samples) as u32)
        });
        let places = Tensor::from_vec(places.collect(), n_frames * n_fft, samples.device())?;
        let frames = samples.pad_with_zeros(1, 0, 1)?.contiguous()?.index_select(&places, 1)?;
        let matrix = self.matrix()?.to_device(samples.device())?;
        let spectra = frames.reshape((n_rows * n_frames, n_fft))?.matmul(&matrix)?;
        spectra.reshape((n_rows, n_frames, 2 * n_bins))
    }

    fn matrix(&self) -> candle_core::Result<Tensor> {
        if let Some(matrix) = self.matrix.get() {
            return Ok(matrix.clone());
        }
        let [cosines, sines] = self.plan.waves();
        let n_fft = self.plan.n_fft();
        let weight = |(at, wave): (usize, f64)| wave as f32 * self.plan.window[at % n_fft];
        let real = cosines.into_iter().enumerate().map(weight);
        let imaginary = sines.into_iter().map(|sine| -sine).enumerate().map(weight);
        let rows = Tensor::from_vec(real.chain(imaginary).collect(), ((), n_fft), &Device::Cpu)?;
        let matrix = rows.t()?.contiguous()?;
        Ok(self.matrix.get_or_init(|| matrix).clone())
    }
}

/// [`Stft::forward`].
struct Forward(Arc<Analysis>);

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        "stft"
    }

    fn cpu_fwd(&self, samples: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n_rows, n_samples) = layout.shape().dims2()?;
        let (n_frames, width) = (self.0.spec.n_frames(n_samples), 2 * self.0.plan.n_bins());
        let samples = floats(samples, layout)?;
        let mut spectra = vec![0f32; n_rows * n_frames * width];
        let rows = spectra.par_chunks_mut(n_frames * width).zip(samples.par_chunks(n_samples));
        rows.for_each(|(spectra, samples)| self.0.transform(samples, spectra));
        Ok((CpuStorage::F32(spectra), Shape::from((n_rows, n_frames, width))))
    }

    fn bwd(
        &self,
        samples: &Tensor,
        spectra: &Tensor,
        d_spectra: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let (_, n_samples) = samples.dims2()?;
        let (_, n_frames, width) = spectra.dims3()?;
        let d_samples = with_floats([d_spectra], |[d_spectra]| {
            let mut d_samples = vec![0f32; samples.elem_count()];
            let rows = d_samples.par_chunks_mut(n_samples).zip(d_spectra.par_chunks(n_frames * width));
            rows.for_each(|(d_samples, d_spectra)| self.0.gradient(d_spectra, d_samples));
            d_samples
        })?;
        Ok(Some(tensor(d_samples, samples.shape())?))
    }
}

/// Spectra to samples, as [`audio::features::Istft`] has them. Immutable; clones share their tables.
#[derive(Clone)]
pub struct Istft {
    shared: Arc<Synthesis>,
}

struct Synthesis {
    plan: Plan,
    sizes: features::Istft,
    /// The transform as a matrix, (2 F, `n_fft`), where it was asked for.
    matrix: OnceLock<Tensor>,
}

impl Istft {
    /// Prepares an inverse transform. Of the spec it heeds what an [`audio::features::Istft`] does.
    ///
    /// # Errors
    /// What that refuses.
    pub fn new(spec: &FeatureSpec, alignment: FrameAlignment) -> Result<Self, Error> {
        let sizes = features::Istft::new(spec, alignment)?;
        Ok(Self { shared: Arc::new(Synthesis { plan: Plan::new(spec)?, sizes, matrix: OnceLock::new() }) })
    }

    /// Samples that `n_frames` give.
    pub fn n_samples(&self, n_frames: usize) -> usize {
        self.shared.sizes.n_samples(n_frames)
    }

    /// (B, T, 2 F), the real parts of a frame and then its imaginary ones, to (B, N). Imaginary parts of the first and the last bin
    /// count for nothing. Differentiable.
    ///
    /// # Errors
    /// Another number of bins, too few frames for a sample.
    pub fn forward(&self, spectra: &Tensor) -> candle_core::Result<Tensor> {
        let (_, n_frames, width) = spectra.dims3()?;
        if width != 2 * self.shared.plan.n_bins() || self.n_samples(n_frames) == 0 {
            let n_fft = self.shared.plan.n_fft();
            candle_core::bail!("an inverse transform of {n_fft} cannot run over {spectra:?}")
        }
        if on_cpu(&[spectra]) {
            spectra.contiguous()?.apply_op1(Inverse(self.shared.clone()))
        } else {
            self.shared.composed(spectra)
        }
    }
}

impl Synthesis {
    /// What each sample of the sum of `n_frames` is multiplied by: one over the squared windows that lie on it.
    fn scales(&self, n_frames: usize) -> Vec<f32> {
        let mut envelope = vec![0f64; self.n_summed(n_frames)];
        for t in 0..n_frames {
            let squares = self.sizes.squared_window();
            envelope[t * self.plan.hop_samples..]
                .iter_mut()
                .zip(squares)
                .for_each(|(sum, square)| *sum += square);
        }
        let own = &envelope[self.sizes.margin_samples()..][..self.sizes.n_samples(n_frames)];
        own.iter().map(|sum| (1.0 / sum) as f32).collect()
    }

    /// Samples of the sum, margins included.
    fn n_summed(&self, n_frames: usize) -> usize {
        n_frames.saturating_sub(1) * self.plan.hop_samples + self.plan.n_fft()
    }

    /// Samples of a row.
    fn restore(&self, spectra: &[f32], scales: &[f32], samples: &mut [f32]) {
        let width = 2 * self.plan.n_bins();
        let (mut scratch, mut sum) = (self.plan.scratch(), vec![0f32; self.n_summed(spectra.len() / width)]);
        let scale = 1.0 / self.plan.n_fft() as f32;
        for (t, spectrum) in spectra.chunks_exact(width).enumerate() {
            read_bins(spectrum, &mut scratch.bins, |_| scale);
            self.plan.restore(&mut scratch);
            let sum = &mut sum[t * self.plan.hop_samples..];
            sum.iter_mut().zip(&scratch.frame).for_each(|(sum, value)| *sum += value);
        }
        let own = sum[self.sizes.margin_samples()..].iter().zip(scales);
        samples.iter_mut().zip(own).for_each(|(sample, (sum, scale))| *sample = sum * scale);
    }

    /// What gradients of its samples say of a row's spectra.
    fn gradient(&self, d_samples: &[f32], scales: &[f32], d_spectra: &mut [f32]) {
        let width = 2 * self.plan.n_bins();
        let mut scratch = self.plan.scratch();
        let mut d_sum = vec![0f32; self.n_summed(d_spectra.len() / width)];
        let own = d_sum[self.sizes.margin_samples()..].iter_mut().zip(d_samples.iter().zip(scales));
        own.for_each(|(d_sum, (d, scale))| *d_sum = d * scale);
        let scale = 1.0 / self.plan.n_fft() as f32;
        for (t, d_spectrum) in d_spectra.chunks_exact_mut(width).enumerate() {
            scratch.frame.copy_from_slice(&d_sum[t * self.plan.hop_samples..][..self.plan.n_fft()]);
            self.plan.transform(&mut scratch);
            write_bins(&scratch.bins, d_spectrum, |bin| self.plan.times(bin) * scale);
        }
    }

    /// With plain tensor operations: the path on other devices, and the kernel's oracle.
    fn composed(&self, spectra: &Tensor) -> candle_core::Result<Tensor> {
        let (n_rows, n_frames, width) = spectra.dims3()?;
        let (n_fft, device) = (self.plan.n_fft(), spectra.device());
        let matrix = self.matrix()?.to_device(device)?;
        let frames = spectra.reshape((n_rows * n_frames, width))?.matmul(&matrix)?;
        let frames = frames.reshape((n_rows, n_frames * n_fft))?;
        let places = (0..n_frames)
            .flat_map(|t| (0..n_fft).map(move |offset| (t * self.plan.hop_samples + offset) as u32));
        let places = Tensor::from_vec(places.collect(), n_frames * n_fft, device)?;
        let sum = Tensor::zeros((n_rows, self.n_summed(n_frames)), spectra.dtype(), device)?;
        let sum = sum.index_add(&places, &frames, 1)?;
        let scales = self.scales(n_frames);
        let own = sum.narrow(1, self.sizes.margin_samples(), scales.len())?;
        own.broadcast_mul(&Tensor::from_slice(&scales, (1, scales.len()), device)?)
    }

    fn matrix(&self) -> candle_core::Result<Tensor> {
        if let Some(matrix) = self.matrix.get() {
            return Ok(matrix.clone());
        }
        let [cosines, sines] = self.plan.waves();
        let n_fft = self.plan.n_fft();
        let weight = |(at, wave): (usize, f64)| {
            wave as f32 * self.plan.times(at / n_fft) * self.plan.window[at % n_fft] / n_fft as f32
        };
        let real = cosines.into_iter().enumerate().map(weight);
        let is_edge = |at: usize| self.plan.times(at / n_fft) < 2.0;
        let imaginary = sines.into_iter().enumerate();
        let imaginary = imaginary.map(|(at, sine)| (at, if is_edge(at) { 0.0 } else { -sine })).map(weight);
        let matrix = Tensor::from_vec(real.chain(imaginary).collect(), ((), n_fft), &Device::Cpu)?;
        Ok(self.matrix.get_or_init(|| matrix).clone())
    }
}

/// [`Istft::forward`].
struct Inverse(Arc<Synthesis>);

impl CustomOp1 for Inverse {
    fn name(&self) -> &'static str {
        "istft"
    }

    fn cpu_fwd(&self, spectra: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n_rows, n_frames, width) = layout.shape().dims3()?;
        let (scales, spectra) = (self.0.scales(n_frames), floats(spectra, layout)?);
        let mut samples = vec![0f32; n_rows * scales.len()];
        let rows = samples.par_chunks_mut(scales.len()).zip(spectra.par_chunks(n_frames * width));
        rows.for_each(|(samples, spectra)| self.0.restore(spectra, &scales, samples));
        Ok((CpuStorage::F32(samples), Shape::from((n_rows, scales.len()))))
    }

    fn bwd(
        &self,
        spectra: &Tensor,
        _samples: &Tensor,
        d_samples: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let (_, n_frames, width) = spectra.dims3()?;
        let scales = self.0.scales(n_frames);
        let d_spectra = with_floats([d_samples], |[d_samples]| {
            let mut d_spectra = vec![0f32; spectra.elem_count()];
            let rows = d_spectra.par_chunks_mut(n_frames * width).zip(d_samples.par_chunks(scales.len()));
            rows.for_each(|(d_spectra, d_samples)| self.0.gradient(d_samples, &scales, d_spectra));
            d_spectra
        })?;
        Ok(Some(tensor(d_spectra, spectra.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, composed, gradients, noise};

    /// (n_fft, window, hop): hops that divide the transform and such that do not.
    const SIZES: [(usize, usize, usize); 3] = [(64, 64, 16), (64, 48, 20), (32, 32, 16)];

    fn spec((n_fft, window_samples, hop_samples): (usize, usize, usize), padding: Padding) -> FeatureSpec {
        FeatureSpec { n_fft, window_samples, hop_samples, padding, ..FeatureSpec::vocoder(16_000, 8) }
    }

    fn numbers(x: &Tensor) -> candle_core::Result<Vec<f32>> {
        x.flatten_all()?.to_vec1()
    }

    #[test]
    fn transforms_are_those_of_features() -> Result<(), Error> {
        for size in SIZES {
            for padding in [Padding::Reflect, Padding::Zero, Padding::None] {
                let spec = spec(size, padding);
                let samples = noise((2, 200), 1)?;
                let ours = Stft::new(&spec)?.forward(&samples)?;
                for (row, ours) in numbers(&ours)?.chunks_exact(ours.elem_count() / 2).enumerate() {
                    let row = numbers(&samples.get(row)?)?;
                    let theirs = features::Stft::new(&spec)?.spectrogram(&row);
                    assert_eq!(ours.len(), 2 * theirs.bins.len());
                    for (ours, theirs) in
                        ours.chunks_exact(2 * theirs.n_bins).zip(theirs.bins.chunks_exact(theirs.n_bins))
                    {
                        let (re, im) = ours.split_at(theirs.len());
                        for ((re, im), theirs) in re.iter().zip(im).zip(theirs) {
                            let off = (f64::from(*re) - theirs.re).abs() + (f64::from(*im) - theirs.im).abs();
                            assert!(off < 2e-5, "{size:?} {padding:?}: {off}");
                        }
                    }
                }
            }
            let spec = spec(size, Padding::Reflect);
            for alignment in [FrameAlignment::Centred, FrameAlignment::Same] {
                let (n_frames, n_bins) = (9, size.0 / 2 + 1);
                let spectra = noise((2, n_frames, 2 * n_bins), 2)?;
                let ours = Istft::new(&spec, alignment)?.forward(&spectra)?;
                for (row, ours) in numbers(&ours)?.chunks_exact(ours.elem_count() / 2).enumerate() {
                    let row = numbers(&spectra.get(row)?)?;
                    let bins = row.chunks_exact(2 * n_bins).flat_map(|frame| {
                        let (re, im) = frame.split_at(n_bins);
                        re.iter().zip(im).map(|(re, im)| Complex::new(f64::from(*re), f64::from(*im)))
                    });
                    let spectrogram = features::Spectrogram { bins: bins.collect(), n_bins, n_frames };
                    let theirs = features::Istft::new(&spec, alignment)?.samples(&spectrogram)?;
                    assert_eq!(ours.len(), theirs.len());
                    for (ours, theirs) in ours.iter().zip(theirs) {
                        // Where windows hardly reach, much is made of little.
                        let bound = 1e-5 + 1e-4 * theirs.abs();
                        assert!(
                            (ours - theirs).abs() < bound,
                            "{size:?} {alignment:?}: {ours}, not {theirs}"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> Result<(), Error> {
        for size in SIZES {
            for padding in [Padding::Reflect, Padding::Zero, Padding::None] {
                let stft = Stft::new(&spec(size, padding))?;
                agree(&Var::from_tensor(&noise((2, 150), 3)?)?, &|x| stft.forward(x))?;
            }
            for alignment in [FrameAlignment::Centred, FrameAlignment::Same] {
                let istft = Istft::new(&spec(size, Padding::Reflect), alignment)?;
                let spectra = Var::from_tensor(&noise((2, 7, size.0 + 2), 4)?)?;
                agree(&spectra, &|x| istft.forward(x))?;
            }
        }
        Ok(())
    }

    fn agree(
        x: &Var,
        run: &(dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Sync),
    ) -> candle_core::Result<()> {
        let both = || -> candle_core::Result<_> {
            let y = run(x)?;
            Ok((y.clone(), gradients(&y, &[x])?))
        };
        let (ours, theirs) = (both()?, composed(both)??);
        let largest = theirs.0.abs()?.max_all()?.to_scalar::<f32>()?;
        assert_close(&ours.0, &theirs.0, 1e-5 * largest.max(1.0))?;
        let ([Some(ours)], [Some(theirs)]) = (ours.1, theirs.1) else {
            candle_core::bail!("a gradient is missing")
        };
        let largest = theirs.abs()?.max_all()?.to_scalar::<f32>()?;
        assert_close(&ours, &theirs, 1e-5 * largest.max(1.0))
    }

    /// Both are linear, so that differences over a whole unit are derivatives.
    #[test]
    fn gradients_are_central_differences() -> Result<(), Error> {
        let stft = Stft::new(&spec(SIZES[1], Padding::Reflect))?;
        differences(&noise((1, 90), 5)?, &|x| stft.forward(x))?;
        let istft = Istft::new(&spec(SIZES[1], Padding::Reflect), FrameAlignment::Centred)?;
        differences(&noise((1, 4, 66), 6)?, &|x| istft.forward(x))?;
        Ok(())
    }

    fn differences(
        x: &Tensor,
        run: &dyn Fn(&Tensor) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<()> {
        let var = Var::from_tensor(x)?;
        let y = run(&var)?;
        let [Some(gradient)] = gradients(&y, &[&var])? else { candle_core::bail!("a gradient is missing") };
        let (weights, values) = (noise(y.shape(), 99)?, numbers(x)?);
        for (at, gradient) in numbers(&gradient)?.into_iter().enumerate().step_by(7) {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[at] += by;
                let y = run(&Tensor::from_vec(values, x.shape(), x.device())?)?;
                (y * &weights)?.to_dtype(candle_core::DType::F64)?.sum_all()?.to_scalar::<f64>()
            };
            let difference = (moved(1.0)? - moved(-1.0)?) / 2.0;
            let bound = 2e-4 * difference.abs().max(1.0);
            assert!((f64::from(gradient) - difference).abs() < bound, "{at}: {gradient}, not {difference}");
        }
        Ok(())
    }

    #[test]
    fn what_is_taken_apart_is_put_together() -> Result<(), Error> {
        for size in SIZES {
            let spec = spec(size, Padding::Reflect);
            let samples = noise((3, 12 * size.2), 7)?;
            let spectra = Stft::new(&spec)?.forward(&samples)?;
            let restored = Istft::new(&spec, FrameAlignment::Centred)?.forward(&spectra)?;
            assert_close(&restored, &samples, 1e-5)?;
        }
        assert!(Stft::new(&spec(SIZES[0], Padding::None))?.forward(&noise((1, 63), 1)?).is_err());
        assert!(Stft::new(&FeatureSpec { preemphasis: Some(0.9), ..spec(SIZES[0], Padding::None) }).is_err());
        let istft = Istft::new(&spec(SIZES[0], Padding::Reflect), FrameAlignment::Centred)?;
        assert!(
            istft.forward(&noise((1, 1, 66), 1)?).is_err() && istft.forward(&noise((1, 9, 65), 1)?).is_err()
        );
        Ok(())
    }
}
