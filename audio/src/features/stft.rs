//! Framed, windowed spectra.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::{FeatureSpec, Padding, SpectrumKind, WindowKind};

/// The analysis half of a short-time Fourier transform. In f64: a frame's quiet bins lie ten orders of magnitude
/// below its loud ones, where f32 transforms already differ in the fourth decimal of a log-mel.
pub(super) struct Stft {
    fft: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    padding: Padding,
    spectrum: SpectrumKind,
    preemphasis: Option<f64>,
    hop_samples: usize,
}

/// Buffers for one pass, so that one `Stft` can serve several threads.
pub(super) struct Scratch {
    frame: Vec<f64>,
    bins: Vec<Complex<f64>>,
    fft: Vec<Complex<f64>>,
    spectrum: Vec<f64>,
}

impl Stft {
    pub(super) fn new(spec: &FeatureSpec) -> Self {
        Stft {
            fft: RealFftPlanner::new().plan_fft_forward(spec.n_fft),
            window: centred_window(spec),
            padding: spec.padding,
            spectrum: spec.spectrum,
            preemphasis: spec.preemphasis.map(f64::from),
            hop_samples: spec.hop_samples,
        }
    }

    /// The window, centred in the transform.
    pub(super) fn window(&self) -> &[f64] {
        &self.window
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch {
            frame: self.fft.make_input_vec(),
            bins: self.fft.make_output_vec(),
            fft: self.fft.make_scratch_vec(),
            spectrum: vec![0.0; self.window.len() / 2 + 1],
        }
    }

    /// The spectrum of frame `index`, `n_fft / 2 + 1` values; `None` for a frame of digital silence.
    pub(super) fn frame<'a>(
        &self,
        samples: &[f32],
        index: usize,
        scratch: &'a mut Scratch,
    ) -> Option<&'a [f64]> {
        if !self.fill(samples, index * self.hop_samples, &mut scratch.frame) {
            return None;
        }
        for (value, weight) in scratch.frame.iter_mut().zip(&self.window) {
            *value *= weight;
        }
        // Lengths come from the plan itself, so this cannot fail.
        let transformed =
            self.fft.process_with_scratch(&mut scratch.frame, &mut scratch.bins, &mut scratch.fft);
        debug_assert!(transformed.is_ok());
        for (out, bin) in scratch.spectrum.iter_mut().zip(&scratch.bins) {
            *out = match self.spectrum {
                SpectrumKind::Power => bin.norm_sqr(),
                SpectrumKind::Magnitude => bin.norm_sqr().sqrt(),
            };
        }
        Some(&scratch.spectrum)
    }

    /// Writes the frame that starts at `start` of the padded signal; false when all of it is zero.
    fn fill(&self, samples: &[f32], start: usize, frame: &mut [f64]) -> bool {
        let n_left = if self.padding == Padding::None { 0 } else { self.window.len() / 2 };
        let inner = start.checked_sub(n_left).and_then(|first| samples.get(first..first + frame.len()));
        match (inner, self.preemphasis) {
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
        match (self.preemphasis, at.checked_sub(1)) {
            (Some(coefficient), Some(before)) => sample - coefficient * f64::from(samples[before]),
            _ => sample,
        }
    }

    /// Which sample stands at `position` of the padded signal; `None` is silence.
    fn padded_index(&self, position: i64, n_samples: usize) -> Option<usize> {
        let n = n_samples as i64;
        if (0..n).contains(&position) {
            return usize::try_from(position).ok();
        }
        if self.padding != Padding::Reflect || n == 0 {
            return None;
        }
        // Signals shorter than the padding are mirrored to and fro, as numpy does.
        let period = (2 * (n - 1)).max(1);
        let folded = position.rem_euclid(period);
        usize::try_from(if folded < n { folded } else { period - folded }).ok()
    }
}

fn centred_window(spec: &FeatureSpec) -> Vec<f64> {
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
        let stft = Stft::new(&spec);
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
    fn short_signals_are_mirrored_as_numpy_does() {
        // numpy.pad([1, 2, 3], 4, mode="reflect") = [1, 2, 3, 2, | 1, 2, 3, | 2, 1, 2, 3]
        let stft = Stft::new(&FeatureSpec::whisper(80));
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
