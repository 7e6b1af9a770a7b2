//! Framed, windowed spectra.

use std::sync::Arc;

use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::{FeatureSpec, Padding, SpectrumKind, WindowKind};
use crate::Error;

/// Frames that a thread takes at once.
const FRAMES_PER_TASK: usize = 100;

/// Complex spectra, frames x bins.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spectrogram {
    /// Row-major (T, F), unlike [`Features`](super::Features), so that frames come and go whole: bin `f` of frame `t` is
    /// `bins[t * n_bins + f]`.
    pub bins: Vec<Complex<f64>>,
    /// F, `n_fft / 2 + 1`: from 0 Hz to half the sample rate.
    pub n_bins: usize,
    /// T.
    pub n_frames: usize,
}

impl Spectrogram {
    /// The bins of one frame.
    ///
    /// # Panics
    /// When `frame` is not below `n_frames`, as slices do.
    pub fn frame(&self, frame: usize) -> &[Complex<f64>] {
        &self.bins[frame * self.n_bins..(frame + 1) * self.n_bins]
    }
}

/// A short-time Fourier transform: plan and window of one [`FeatureSpec`]. Immutable; threads may share it.
///
/// In f64: a frame's quiet bins lie ten orders of magnitude below its loud ones, where f32 transforms already differ in
/// the fourth decimal of a log-mel.
pub struct Stft {
    fft: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    spec: FeatureSpec,
}

/// Buffers for one pass, so that one `Stft` can serve several threads.
pub(crate) struct Scratch {
    frame: Vec<f64>,
    bins: Vec<Complex<f64>>,
    fft: Vec<Complex<f64>>,
    spectrum: Vec<f64>,
}

impl Stft {
    /// Prepares a transform. Of the spec, it heeds what comes before the spectrum: pre-emphasis, padding, window and hop.
    ///
    /// # Errors
    /// [`Error::BadOption`] when the spec contradicts itself or asks for something that is not implemented.
    pub fn new(spec: &FeatureSpec) -> Result<Self, Error> {
        spec.check()?;
        Ok(Stft {
            fft: RealFftPlanner::new().plan_fft_forward(spec.n_fft),
            window: centred_window(spec),
            spec: spec.clone(),
        })
    }

    /// Spectra of samples at the spec's sample rate: ([`FeatureSpec::n_frames`], `n_fft / 2 + 1`), not scaled, as
    /// `torch.stft` returns them transposed.
    pub fn spectrogram(&self, samples: &[f32]) -> Spectrogram {
        let (n_bins, n_frames) = (self.n_bins(), self.spec.n_frames(samples.len()));
        let mut bins = vec![Complex::default(); n_bins * n_frames];
        bins.par_chunks_mut(FRAMES_PER_TASK * n_bins).enumerate().for_each_init(
            || self.scratch(),
            |scratch, (task, rows)| {
                for (offset, row) in rows.chunks_exact_mut(n_bins).enumerate() {
                    let start = (task * FRAMES_PER_TASK + offset) * self.spec.hop_samples;
                    if self.fill(samples, start, &mut scratch.frame) {
                        self.transform(scratch);
                        row.copy_from_slice(&scratch.bins);
                    }
                }
            },
        );
        Spectrogram { bins, n_bins, n_frames }
    }

    /// Bins of a frame, `n_fft / 2 + 1`.
    pub fn n_bins(&self) -> usize {
        self.window.len() / 2 + 1
    }

    /// What each frame is multiplied by: `n_fft` values, the window among zeros.
    pub fn window(&self) -> &[f64] {
        &self.window
    }

    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            frame: self.fft.make_input_vec(),
            bins: self.fft.make_output_vec(),
            fft: self.fft.make_scratch_vec(),
            spectrum: vec![0.0; self.n_bins()],
        }
    }

    /// What the mel filters add up of frame `index`, `n_fft / 2 + 1` values; `None` for a frame of digital silence.
    pub(super) fn frame<'a>(
        &self,
        samples: &[f32],
        index: usize,
        scratch: &'a mut Scratch,
    ) -> Option<&'a [f64]> {
        if !self.fill(samples, index * self.spec.hop_samples, &mut scratch.frame) {
            return None;
        }
        self.transform(scratch);
        for (out, bin) in scratch.spectrum.iter_mut().zip(&scratch.bins) {
            *out = match self.spec.spectrum {
                SpectrumKind::Power => bin.norm_sqr(),
                SpectrumKind::Magnitude => bin.norm_sqr().sqrt(),
            };
        }
        Some(&scratch.spectrum)
    }

    /// The bins of `n_fft` samples of a signal that is padded already.
    pub(crate) fn bins<'a>(&self, frame: &[f64], scratch: &'a mut Scratch) -> &'a [Complex<f64>] {
        scratch.frame.copy_from_slice(frame);
        self.transform(scratch);
        &scratch.bins
    }

    /// Windows the scratch's frame and fills its bins.
    fn transform(&self, scratch: &mut Scratch) {
        for (value, weight) in scratch.frame.iter_mut().zip(&self.window) {
            *value *= weight;
        }
        // Lengths come from the plan itself, so this cannot fail.
        let transformed =
            self.fft.process_with_scratch(&mut scratch.frame, &mut scratch.bins, &mut scratch.fft);
        debug_assert!(transformed.is_ok());
    }

    /// Writes the frame that starts at `start` of the padded signal; false when all of it is zero.
    fn fill(&self, samples: &[f32], start: usize, frame: &mut [f64]) -> bool {
        let n_left = if self.spec.padding == Padding::None { 0 } else { self.window.len() / 2 };
        let inner = start.checked_sub(n_left).and_then(|first| samples.get(first..first + frame.len()));
        match (inner, self.spec.preemphasis) {
            (Some(inner), None) => {
                for (value, sample) in frame.iter_mut().zip(inner) {
                    *value = f64::from(*sample);
                }
            }
            _ => {
                for (offset, value) in frame.iter_mut().enumerate() {
                    let position = (start + offset) as i64 - n_left as i64;
                    *value =
                        self.padded_index(position, samples.len()).map_or(0.0, |at| self.sample(samples, at));
                }
            }
        }
        frame.iter().any(|value| *value != 0.0)
    }

    fn sample(&self, samples: &[f32], at: usize) -> f64 {
        let sample = f64::from(samples[at]);
        match (self.spec.preemphasis, at.checked_sub(1)) {
            (Some(coefficient), Some(before)) => sample - f64::from(coefficient) * f64::from(samples[before]),
            _ => sample,
        }
    }

    /// Which of `n_samples` stands at `position`, counted from the first of them and negative before it, of the padded signal;
    /// `None` is silence.
    pub fn padded_index(&self, position: i64, n_samples: usize) -> Option<usize> {
        let n = n_samples as i64;
        if (0..n).contains(&position) {
            return usize::try_from(position).ok();
        }
        if self.spec.padding != Padding::Reflect || n == 0 {
            return None;
        }
        // Signals shorter than the padding are mirrored to and fro, as numpy does.
        let period = (2 * (n - 1)).max(1);
        let folded = position.rem_euclid(period);
        usize::try_from(if folded < n { folded } else { period - folded }).ok()
    }
}

pub(super) fn centred_window(spec: &FeatureSpec) -> Vec<f64> {
    let period = match spec.window {
        WindowKind::HannPeriodic => spec.window_samples,
        WindowKind::HannSymmetric => spec.window_samples - 1,
    };
    let mut window = vec![0.0; spec.n_fft];
    let left = (spec.n_fft - spec.window_samples) / 2;
    for (at, weight) in window[left..left + spec.window_samples].iter_mut().enumerate() {
        *weight = 0.5 - 0.5 * (std::f64::consts::TAU * at as f64 / period as f64).cos();
    }
    window
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, O(n^2), on the padded signal.
    fn reference(samples: &[f32], spec: &FeatureSpec, index: usize) -> Vec<f64> {
        let half = (spec.n_fft / 2) as i64;
        let n = samples.len() as i64;
        let at = |position: i64| {
            let mirrored = if position < 0 {
                -position
            } else if position >= n {
                2 * (n - 1) - position
            } else {
                position
            };
            f64::from(samples[mirrored as usize])
        };
        (0..=spec.n_fft / 2)
            .map(|bin| {
                let (mut re, mut im) = (0.0, 0.0);
                for t in 0..spec.n_fft {
                    let turn = std::f64::consts::TAU * t as f64 / spec.n_fft as f64;
                    let value = at((index * spec.hop_samples + t) as i64 - half) * (0.5 - 0.5 * turn.cos());
                    re += value * (turn * bin as f64).cos();
                    im -= value * (turn * bin as f64).sin();
                }
                re * re + im * im
            })
            .collect()
    }

    #[test]
    fn matches_the_definition() {
        let spec = FeatureSpec::whisper(80);
        let samples: Vec<f32> = (0..2_000).map(|t| ((t * t) as f32 * 1e-4).sin() * 0.3).collect();
        let stft = Stft::new(&spec).unwrap();
        let mut scratch = stft.scratch();
        for index in [0, 1, 6, 11, 12] {
            let expected = reference(&samples, &spec, index);
            let spectrum = stft.frame(&samples, index, &mut scratch).unwrap();
            for (value, expected) in spectrum.iter().zip(&expected) {
                assert!(
                    (value - expected).abs() < 1e-9 * (1.0 + expected),
                    "frame {index}: {value} {expected}"
                );
            }
        }
    }

    #[test]
    fn spectrograms_hold_the_spectra_of_their_frames() {
        let spec = FeatureSpec { preemphasis: Some(0.9), ..FeatureSpec::whisper(80) };
        let mut samples: Vec<f32> = (0..40_000).map(|t| ((t * t) as f32 * 1e-4).sin() * 0.3).collect();
        samples[20_000..30_000].fill(0.0);
        let stft = Stft::new(&spec).unwrap();
        let spectrogram = stft.spectrogram(&samples);
        assert_eq!((spectrogram.n_frames, spectrogram.n_bins), (250, 201));
        let mut scratch = stft.scratch();
        for index in [0, 1, 99, 100, 150, 249] {
            let powers = stft.frame(&samples, index, &mut scratch);
            let bins = spectrogram.frame(index);
            // A silent frame's bins are zero and not those of the frame before.
            assert_eq!(powers.is_none(), index == 150);
            for (bin, power) in bins.iter().zip(powers.unwrap_or(&[0.0; 201])) {
                assert_eq!(bin.norm_sqr(), *power, "frame {index}");
            }
        }
        assert_eq!(stft.spectrogram(&[]), Spectrogram { n_bins: 201, ..Spectrogram::default() });
        assert!(Stft::new(&FeatureSpec { hop_samples: 0, ..spec }).is_err());
    }

    #[test]
    fn short_signals_are_mirrored_as_numpy_does() {
        // numpy.pad([1, 2, 3], 4, mode="reflect") = [1, 2, 3, 2, | 1, 2, 3, | 2, 1, 2, 3]
        let stft = Stft::new(&FeatureSpec::whisper(80)).unwrap();
        let padded: Vec<usize> = (-4..7).filter_map(|position| stft.padded_index(position, 3)).collect();
        assert_eq!(padded, [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(stft.padded_index(-3, 1), Some(0));
    }

    #[test]
    fn windows_are_centred_and_of_their_kind() {
        let spec = FeatureSpec { n_fft: 8, window_samples: 4, ..FeatureSpec::whisper(4) };
        let close = |window: Vec<f64>, expected: [f64; 8]| {
            assert!(window.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{window:?}");
        };
        close(centred_window(&spec), [0.0, 0.0, 0.0, 0.5, 1.0, 0.5, 0.0, 0.0]);
        let symmetric = FeatureSpec { window: WindowKind::HannSymmetric, ..spec };
        close(centred_window(&symmetric), [0.0, 0.0, 0.0, 0.75, 0.75, 0.0, 0.0, 0.0]);
    }
}
