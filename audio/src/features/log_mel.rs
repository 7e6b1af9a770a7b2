//! Log-mel features.

use std::ops::Range;

use rayon::prelude::*;

use super::stft::Stft;
use super::{FeatureSpec, Features, LogKind, MelFilters, Normalizer};
use crate::Error;

/// Frames that a thread takes at once.
const FRAMES_PER_TASK: usize = 100;
/// Frames between two looks at whether anybody still waits.
const FRAMES_PER_LOOK: usize = 1000;

/// Largest mel energy that is taken back to a spectrum. Full scale reaches 4e13: power of the longest transform under one
/// filter for all bins. What is larger is no sound, and its samples might not fit an f32.
const MAX_ENERGY: f64 = 1e15;

/// A feature extractor: plan, window and filters of one [`FeatureSpec`]. Immutable; threads may share it.
pub struct LogMel {
    spec: FeatureSpec,
    stft: Stft,
    filters: MelFilters,
}

impl LogMel {
    /// Prepares an extractor.
    ///
    /// # Errors
    /// [`Error::BadOption`] when the spec contradicts itself or asks for something that is not implemented.
    pub fn new(spec: &FeatureSpec) -> Result<Self, Error> {
        let stft = Stft::new(spec)?; // refuses bad specs, which the filters rely on
        Ok(LogMel { spec: spec.clone(), stft, filters: MelFilters::new(spec) })
    }

    /// What the extractor computes.
    pub fn spec(&self) -> &FeatureSpec {
        &self.spec
    }

    /// The mel filter bank.
    pub fn filters(&self) -> &MelFilters {
        &self.filters
    }

    /// What comes before the filters.
    pub(crate) fn stft(&self) -> &Stft {
        &self.stft
    }

    /// What each frame is multiplied by: `n_fft` values, the window among zeros.
    pub fn window(&self) -> &[f64] {
        self.stft.window()
    }

    /// Features of samples at the spec's sample rate: (`n_mels`, [`FeatureSpec::n_frames`]).
    ///
    /// Whatever looks at the whole array (the dynamic range's maximum, the per-bin normaliser) looks at exactly
    /// these samples: for Whisper's file-level features, pass the file followed by 30 s of zeros and
    /// [`slice`](Features::slice) the result. Frames of digital silence cost next to nothing.
    pub fn compute(&self, samples: &[f32]) -> Features {
        let mut features = self.room(samples);
        let frames = 0..features.n_frames;
        self.fill(&mut features, samples, frames);
        self.finish(features)
    }

    /// [`LogMel::compute`] that asks `keep_going` every ten seconds of audio or so: an hour takes a while.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `keep_going` says no.
    pub fn compute_while(&self, samples: &[f32], keep_going: &dyn Fn() -> bool) -> Result<Features, Error> {
        let mut features = self.room(samples);
        for start in (0..features.n_frames).step_by(FRAMES_PER_LOOK) {
            if !keep_going() {
                return Err(Error::Cancelled);
            }
            let end = features.n_frames.min(start + FRAMES_PER_LOOK);
            self.fill(&mut features, samples, start..end);
        }
        Ok(self.finish(features))
    }

    fn room(&self, samples: &[f32]) -> Features {
        let (n_mels, n_frames) = (self.spec.n_mels, self.spec.n_frames(samples.len()));
        Features { data: vec![0.0_f32; n_mels * n_frames], n_mels, n_frames }
    }

    /// Logarithms of the mel energies of some frames, by all threads.
    fn fill(&self, features: &mut Features, samples: &[f32], frames: Range<usize>) {
        let n_frames = features.n_frames;
        let parts: Vec<_> = frames.clone().step_by(FRAMES_PER_TASK).collect();
        let parts: Vec<_> = parts
            .into_par_iter()
            .map(|first| (first, self.log_energies(samples, first..frames.end.min(first + FRAMES_PER_TASK))))
            .collect();
        for (first, part) in parts {
            let n = part.len() / features.n_mels.max(1);
            for (f, values) in part.chunks_exact(n.max(1)).enumerate() {
                features.data[f * n_frames + first..][..n].copy_from_slice(values);
            }
        }
    }

    /// Those of some frames, (F, T).
    fn log_energies(&self, samples: &[f32], frames: Range<usize>) -> Vec<f32> {
        let n = frames.len();
        // What is left as it is was silent.
        let mut values = vec![self.compress(0.0) as f32; self.spec.n_mels * n];
        let mut scratch = self.stft.scratch();
        for (t, frame) in frames.enumerate() {
            let Some(spectrum) = self.stft.frame(samples, frame, &mut scratch) else { continue };
            for (f, energy) in self.filters.energies(spectrum).enumerate() {
                values[f * n + t] = self.compress(energy) as f32;
            }
        }
        values
    }

    /// What looks at all frames.
    fn finish(&self, features: Features) -> Features {
        let Features { mut data, n_mels, n_frames } = features;
        if let Some(range) = self.spec.dynamic_range {
            let max = data.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let floor = max - range as f32;
            data.iter_mut().for_each(|value| *value = value.max(floor));
        }
        self.normalize(&mut data, n_frames);
        Features { data, n_mels, n_frames }
    }

    /// What [`LogMel::compute`] compressed to these features, (T, F) so that frames are in one piece; at least 0 and at most
    /// [`MAX_ENERGY`]. What it raised to a floor stays there.
    ///
    /// # Errors
    /// [`Error::BadFeatures`] for another number of bins than the spec's, values that are not finite or energies above
    /// the limit; [`Error::BadOption`] as [`LogMel::denormalizer`].
    pub(crate) fn energies(&self, features: &Features) -> Result<Vec<f64>, Error> {
        let (divisor, offset) = self.denormalizer()?;
        let Features { data, n_mels, n_frames } = features;
        let bad = |reason: String| Err(Error::BadFeatures { reason });
        if *n_mels != self.spec.n_mels || n_mels.checked_mul(*n_frames) != Some(data.len()) {
            let expected = self.spec.n_mels;
            return bad(format!("{} values for {n_mels} x {n_frames}, {expected} bins expected", data.len()));
        }
        let mut energies = vec![0.0; data.len()];
        for (f, row) in data.chunks_exact((*n_frames).max(1)).enumerate() {
            for (t, value) in row.iter().enumerate() {
                let energy = self.expand(f64::from(*value) * divisor - offset);
                if !value.is_finite() || energy > MAX_ENERGY {
                    return bad(format!("bin {f} of frame {t} is {value}, far beyond any sound"));
                }
                energies[t * n_mels + f] = energy;
            }
        }
        Ok(energies)
    }

    /// What undoes the normaliser: the divisor and the offset of `x * divisor - offset`.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a normaliser that does not keep what it took away.
    pub(crate) fn denormalizer(&self) -> Result<(f64, f64), Error> {
        match self.spec.normalizer {
            Normalizer::None => Ok((1.0, 0.0)),
            Normalizer::Affine { offset, divisor } => Ok((divisor, offset)),
            Normalizer::PerBin { .. } => {
                let reason = "means and deviations of bins are not kept, so there is no way back".to_owned();
                Err(Error::BadOption { field: "normalizer", reason })
            }
        }
    }

    /// Undoes [`LogMel::compress`].
    fn expand(&self, value: f64) -> f64 {
        let energy = match self.spec.log {
            LogKind::Linear => value,
            LogKind::Log10 { .. } => 10.0_f64.powf(value),
            LogKind::Decibel { .. } => 10.0_f64.powf(value / 10.0),
            LogKind::Ln { .. } => value.exp(),
            LogKind::LnOffset { offset } => value.exp() - offset,
        };
        energy.max(0.0)
    }

    fn compress(&self, energy: f64) -> f64 {
        match self.spec.log {
            LogKind::Linear => energy,
            LogKind::Log10 { floor } => energy.max(floor).log10(),
            LogKind::Decibel { floor } => 10.0 * energy.max(floor).log10(),
            LogKind::Ln { floor } => energy.max(floor).ln(),
            LogKind::LnOffset { offset } => (energy + offset).ln(),
        }
    }

    fn normalize(&self, data: &mut [f32], n_frames: usize) {
        match self.spec.normalizer {
            Normalizer::None => {}
            Normalizer::Affine { offset, divisor } => {
                let (offset, divisor) = (offset as f32, divisor as f32);
                data.iter_mut().for_each(|value| *value = (*value + offset) / divisor);
            }
            Normalizer::PerBin { epsilon } => {
                for row in data.chunks_exact_mut(n_frames.max(1)) {
                    let n = row.len() as f64;
                    let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
                    let squares = row.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>();
                    // One frame has no deviation.
                    let std = (squares / (n - 1.0).max(1.0)).sqrt();
                    row.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) / (std + epsilon)) as f32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Padding, WindowKind};

    #[test]
    fn silence_is_minus_one_and_a_half() {
        let features = LogMel::new(&FeatureSpec::whisper(80)).unwrap().compute(&vec![0.0; 480_000]);
        assert_eq!((features.n_mels, features.n_frames), (80, 3_000));
        assert!(features.data.iter().all(|value| *value == -1.5));
    }

    #[test]
    fn the_range_is_at_most_two() {
        let samples: Vec<f32> = (0..16_000).map(|t| if t < 8_000 { 0.0 } else { (t as f32).sin() }).collect();
        let features = LogMel::new(&FeatureSpec::whisper(128)).unwrap().compute(&samples);
        let max = features.data.iter().copied().fold(f32::MIN, f32::max);
        let min = features.data.iter().copied().fold(f32::MAX, f32::min);
        assert!((max - min - 2.0).abs() < 1e-6, "{min} to {max}");
    }

    #[test]
    fn few_or_no_samples_give_few_or_no_frames() {
        let log_mel = LogMel::new(&FeatureSpec::whisper(80)).unwrap();
        assert_eq!(log_mel.compute(&[]).n_frames, 0);
        assert_eq!(log_mel.compute(&[0.5]).n_frames, 0);
        let features = log_mel.compute(&[0.5; 160]);
        assert_eq!(features.n_frames, 1);
        assert!(features.data.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn energies_are_what_was_compressed() {
        let samples: Vec<f32> = (0..16_000).map(|t| (t as f32 * 0.3).sin() * 0.1).collect();
        let linear = FeatureSpec { log: LogKind::Linear, ..FeatureSpec::vocoder(16_000, 80) };
        let expected = LogMel::new(&linear).unwrap().compute(&samples);
        let kinds = [
            LogKind::Linear,
            LogKind::Log10 { floor: 1e-10 },
            LogKind::Decibel { floor: 1e-10 },
            LogKind::Ln { floor: 1e-7 },
            LogKind::LnOffset { offset: 1e-3 },
        ];
        for log in kinds {
            let normalizer = Normalizer::Affine { offset: 4.0, divisor: -3.0 };
            let log_mel = LogMel::new(&FeatureSpec { log, normalizer, ..linear.clone() }).unwrap();
            let energies = log_mel.energies(&log_mel.compute(&samples)).unwrap();
            for (t, frame) in energies.chunks_exact(80).enumerate() {
                for (f, energy) in frame.iter().enumerate() {
                    let expected = f64::from(expected.row(f)[t]);
                    // A few units of the features' last place.
                    assert!(
                        (energy - expected).abs() < 5e-6 * (expected + 1.0),
                        "{log:?}: {energy}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn unusable_features_are_refused() {
        let log_mel = LogMel::new(&FeatureSpec::vocoder(16_000, 2)).unwrap();
        let refused = |data: &[f32], n_mels: usize, n_frames: usize| {
            let features = Features { data: data.to_vec(), n_mels, n_frames };
            matches!(log_mel.energies(&features), Err(Error::BadFeatures { .. }))
        };
        assert!(!refused(&[], 2, 0));
        assert!(!refused(&[0.0, f32::MIN], 2, 1));
        assert!(refused(&[0.0; 3], 3, 1));
        assert!(refused(&[0.0; 3], 2, 2));
        assert!(refused(&[], 2, usize::MAX));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 35.0] {
            assert!(refused(&[0.0, value], 2, 1), "{value}");
        }
    }

    /// NeMo's features: bins have zero mean and unit deviation.
    #[test]
    fn per_bin_normalisation_and_preemphasis() {
        let spec = FeatureSpec {
            preemphasis: Some(0.97),
            n_fft: 512,
            window: WindowKind::HannSymmetric,
            padding: Padding::Zero,
            log: LogKind::LnOffset { offset: 2.0_f64.powi(-24) },
            dynamic_range: None,
            normalizer: Normalizer::PerBin { epsilon: 1e-5 },
            ..FeatureSpec::whisper(128)
        };
        let samples: Vec<f32> =
            (0..16_000_u32).map(|t| (t.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e8 - 0.08).collect();
        let features = LogMel::new(&spec).unwrap().compute(&samples);
        assert_eq!(features.n_frames, 100);
        for f in 0..128 {
            let mean = features.row(f).iter().sum::<f32>() / 100.0;
            let variance = features.row(f).iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 99.0;
            assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-3, "{f}: {mean} {variance}");
        }
    }
}
