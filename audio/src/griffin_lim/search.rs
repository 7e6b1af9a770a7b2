//! Phases for magnitudes.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use crate::features::{Complex, Istft, MIN_ENVELOPE, Stft};

/// Frames that a thread takes at once. Part of the result: signals of different tasks are added in order.
pub(super) const FRAMES_PER_TASK: usize = 64;

/// Phases on their way. The signal has its margins here, where any samples may stand: so the frames at its ends are no
/// worse than others, whatever the features were padded with, and without momentum no step increases the distance
/// between the magnitudes and those of the signal.
pub(super) struct Search<'a> {
    stft: &'a Stft,
    istft: &'a Istft,
    /// What the bins are to have, (T, F).
    magnitudes: Vec<f64>,
    /// Those magnitudes with the phases so far, (T, F).
    bins: Vec<Complex<f64>>,
    /// Those of the signal that the last step found, (T, F).
    rebuilt: Vec<Complex<f64>>,
    /// Sums of squared windows, one for each sample of the signal.
    envelope: Vec<f64>,
}

impl<'a> Search<'a> {
    /// Starts at random phases. The two transforms are of one spec, and the magnitudes (T, F) of their bins.
    pub(super) fn new(stft: &'a Stft, istft: &'a Istft, magnitudes: Vec<f64>, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let bins: Vec<_> = magnitudes
            .iter()
            .map(|magnitude| Complex::from_polar(*magnitude, std::f64::consts::TAU * rng.random::<f64>()))
            .collect();
        let n_frames = bins.len() / istft.n_bins();
        let mut envelope = vec![0.0; signal_samples(istft, n_frames)];
        for frame in 0..n_frames {
            add(&mut envelope[frame * istft.hop_samples()..], istft.squared_window());
        }
        let rebuilt = vec![Complex::default(); bins.len()];
        Search { stft, istft, magnitudes, bins, rebuilt, envelope }
    }

    /// The signal whose spectra are nearest to the bins.
    pub(super) fn signal(&self) -> Vec<f64> {
        let (n_bins, hop_samples) = (self.istft.n_bins(), self.istft.hop_samples());
        let parts: Vec<Vec<f64>> = self
            .bins
            .par_chunks(FRAMES_PER_TASK * n_bins)
            .map_init(
                || self.istft.scratch(),
                |scratch, bins| {
                    let mut part = vec![0.0; signal_samples(self.istft, bins.len() / n_bins)];
                    for (frame, bins) in bins.chunks_exact(n_bins).enumerate() {
                        add(&mut part[frame * hop_samples..], self.istft.windowed(bins, scratch));
                    }
                    part
                },
            )
            .collect();
        let mut signal = vec![0.0; self.envelope.len()];
        for (task, part) in parts.iter().enumerate() {
            add(&mut signal[task * FRAMES_PER_TASK * hop_samples..], part);
        }
        for (value, envelope) in signal.iter_mut().zip(&self.envelope) {
            // No window reaches the first sample, which lies in the margin.
            *value = if *envelope > MIN_ENVELOPE { *value / envelope } else { 0.0 };
        }
        signal
    }

    /// Takes the phases of the signal's spectra, and of what lies beyond them in the direction from the last ones.
    pub(super) fn step(&mut self, momentum: f64) {
        let (n_bins, hop_samples) = (self.istft.n_bins(), self.istft.hop_samples());
        let signal = self.signal();
        let (stft, n_per_task) = (self.stft, FRAMES_PER_TASK * n_bins);
        let tasks = self
            .bins
            .par_chunks_mut(n_per_task)
            .zip(self.rebuilt.par_chunks_mut(n_per_task))
            .zip(self.magnitudes.par_chunks(n_per_task));
        tasks.enumerate().for_each_init(
            || stft.scratch(),
            |scratch, (task, ((bins, rebuilt), magnitudes))| {
                let frames = bins.chunks_exact_mut(n_bins).zip(rebuilt.chunks_exact_mut(n_bins));
                for (offset, ((bins, rebuilt), magnitudes)) in
                    frames.zip(magnitudes.chunks_exact(n_bins)).enumerate()
                {
                    let start = (task * FRAMES_PER_TASK + offset) * hop_samples;
                    let found = stft.bins(&signal[start..start + 2 * (n_bins - 1)], scratch);
                    for (((bin, last), magnitude), found) in
                        bins.iter_mut().zip(rebuilt).zip(magnitudes).zip(found)
                    {
                        *bin = with_magnitude(found + (found - *last) * momentum, *magnitude);
                        *last = *found;
                    }
                }
            },
        );
    }

    /// Spectral convergence after a step: the distance between the magnitudes and those of the signal, relative to theirs.
    /// All but the first and the last bin of a frame count twice, as in the two-sided spectra whose distance falls.
    #[cfg(test)]
    fn convergence(&self) -> f64 {
        let n_bins = self.istft.n_bins();
        let (mut distances, mut squares) = (0.0, 0.0);
        for (at, (bin, magnitude)) in self.rebuilt.iter().zip(&self.magnitudes).enumerate() {
            let count = if [0, n_bins - 1].contains(&(at % n_bins)) { 1.0 } else { 2.0 };
            distances += count * (bin.norm() - magnitude).powi(2);
            squares += count * magnitude * magnitude;
        }
        (distances / squares).sqrt()
    }
}

/// Samples of so many overlapping frames, margins included.
fn signal_samples(istft: &Istft, n_frames: usize) -> usize {
    n_frames.saturating_sub(1) * istft.hop_samples() + istft.squared_window().len()
}

/// Adds values to the first of some sums.
fn add(sums: &mut [f64], values: &[f64]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// A number of some magnitude in the direction of another; of 0, which has none, along the real axis.
fn with_magnitude(bin: Complex<f64>, magnitude: f64) -> Complex<f64> {
    let norm = bin.norm_sqr().sqrt();
    if norm > 0.0 { bin * (magnitude / norm) } else { Complex::new(magnitude, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{FeatureSpec, FrameAlignment, Padding};

    /// Magnitudes of a sound that fades in, and such as no sound has.
    #[test]
    fn without_momentum_no_step_is_worse() {
        let samples: Vec<f32> =
            (0..20_000).map(|t| ((t * t) as f32 * 1e-5).sin() * t as f32 * 3e-5).collect();
        let specs = [
            FeatureSpec::vocoder(24_000, 100),
            FeatureSpec { hop_samples: 600, padding: Padding::Zero, ..FeatureSpec::vocoder(16_000, 80) },
            FeatureSpec { window_samples: 320, ..FeatureSpec::whisper(80) },
        ];
        for spec in specs {
            let stft = Stft::new(&spec).unwrap();
            let istft = Istft::new(&spec, FrameAlignment::Centred).unwrap();
            let real: Vec<f64> = stft.spectrogram(&samples).bins.iter().map(|bin| bin.norm()).collect();
            let unreal = (0..20 * stft.n_bins()).map(|at| (at * at % 17) as f64).collect();
            for (magnitudes, worst) in [(real, 0.25), (unreal, 0.35)] {
                let mut search = Search::new(&stft, &istft, magnitudes, 3);
                let mut before = f64::INFINITY;
                for step in 0..30 {
                    search.step(0.0);
                    let convergence = search.convergence();
                    assert!(
                        convergence <= before * (1.0 + 1e-9),
                        "step {step}: {convergence} after {before}"
                    );
                    before = convergence;
                }
                assert!(before < worst, "{before}");
            }
        }
    }

    #[test]
    fn phases_of_a_signal_stay() {
        let samples: Vec<f32> = (0..20_000).map(|t| ((t * t) as f32 * 1e-5).sin() * 0.3).collect();
        let spec = FeatureSpec::vocoder(24_000, 100);
        let stft = Stft::new(&spec).unwrap();
        let istft = Istft::new(&spec, FrameAlignment::Centred).unwrap();
        let spectrogram = stft.spectrogram(&samples);
        assert!(spectrogram.n_frames > FRAMES_PER_TASK);
        let magnitudes = spectrogram.bins.iter().map(|bin| bin.norm()).collect();
        let mut search = Search::new(&stft, &istft, magnitudes, 0);
        search.bins = spectrogram.bins;
        for momentum in [0.0, 0.9, 0.9] {
            search.step(momentum);
            assert!(search.convergence() < 1e-12, "{}", search.convergence());
        }
        let signal = search.signal();
        for (restored, sample) in signal[512..].iter().zip(&samples[..19_968]) {
            assert!((restored - f64::from(*sample)).abs() < 1e-9);
        }
    }
}
