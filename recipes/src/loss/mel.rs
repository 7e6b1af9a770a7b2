//! Mel features of sound: what a vocoder is given is what its sound should have.

use audio::features::SpectrumKind;
use audio::{FeatureSpec, LogKind, LogMel};
use candle_core::{Device, Tensor};
use models::nn::{Stft, absolute_difference, magnitude};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Magnitudes have no direction below this, which is far below every floor of energies.
const LEAST: f32 = 1e-6;

/// `[loss.mel]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mel {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
}

impl Mel {
    /// What measures it by features of `spec`, before their normaliser and whatever else looks at a whole recording.
    ///
    /// # Errors
    /// A spec that contradicts itself.
    pub fn distance(&self, spec: &FeatureSpec, device: &Device) -> Result<MelDistance, Error> {
        let log_mel = LogMel::new(spec)?;
        let filters = log_mel.filters();
        let weights = filters.dense().into_iter().map(|weight| weight as f32).collect();
        let filters = Tensor::from_vec(weights, (spec.n_mels, filters.n_bins()), device)?;
        let filters = filters.t()?.contiguous()?; // (bins, F)
        Ok(MelDistance { transform: Stft::new(spec)?, filters, spec: spec.clone() })
    }
}

/// A differentiable way to features.
pub struct MelDistance {
    transform: Stft,
    filters: Tensor,
    spec: FeatureSpec,
}

impl MelDistance {
    /// How far features of `samples` (B, N) are from those of `target` (B, N): the mean absolute difference, summed over rows.
    ///
    /// # Errors
    /// Too few samples, different shapes.
    pub fn sum(&self, samples: &Tensor, target: &Tensor) -> Result<Tensor, Error> {
        let (ours, theirs) = (self.features(samples)?, self.features(&target.detach())?);
        let (_, n_frames, n_mels) = ours.dims3()?;
        Ok((absolute_difference(&ours, &theirs)? / (n_frames * n_mels) as f64)?)
    }

    /// (B, T, F).
    fn features(&self, samples: &Tensor) -> Result<Tensor, Error> {
        let magnitudes = magnitude(&self.transform.forward(samples)?, LEAST)?; // (B, T, bins)
        let (n_rows, n_frames, n_bins) = magnitudes.dims3()?;
        let spectra = match self.spec.spectrum {
            SpectrumKind::Magnitude => magnitudes,
            SpectrumKind::Power => magnitudes.sqr()?,
        };
        let energies = spectra.reshape((n_rows * n_frames, n_bins))?.matmul(&self.filters)?;
        let logarithm = |x: Tensor, scale: f64| x.log()? * scale;
        let features = match self.spec.log {
            LogKind::Linear => energies,
            LogKind::Ln { floor } => logarithm(energies.maximum(floor)?, 1.0)?,
            LogKind::Log10 { floor } => logarithm(energies.maximum(floor)?, std::f64::consts::LOG10_E)?,
            LogKind::Decibel { floor } => {
                logarithm(energies.maximum(floor)?, 10.0 * std::f64::consts::LOG10_E)?
            }
            LogKind::LnOffset { offset } => logarithm((energies + offset)?, 1.0)?,
        };
        Ok(features.reshape((n_rows, n_frames, self.spec.n_mels))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_that_serving_computes() {
        let samples: Vec<f32> = (0..4096).map(|t| ((t * t) as f32 * 1e-4).sin() * 0.3).collect();
        for (log, spectrum) in [
            (LogKind::Ln { floor: 1e-3 }, SpectrumKind::Magnitude),
            (LogKind::Log10 { floor: 1e-5 }, SpectrumKind::Power),
            (LogKind::Decibel { floor: 1e-5 }, SpectrumKind::Power),
            (LogKind::LnOffset { offset: 1e-2 }, SpectrumKind::Magnitude),
            (LogKind::Linear, SpectrumKind::Magnitude),
        ] {
            let spec = FeatureSpec { log, spectrum, ..FeatureSpec::vocoder(16_000, 80) };
            let expected = LogMel::new(&spec).unwrap().compute(&samples);
            let distance = Mel { weight: 1.0 }.distance(&spec, &Device::Cpu).unwrap();
            let given = Tensor::from_slice(&samples, (1, 4096), &Device::Cpu).unwrap();
            let found = distance.features(&given).unwrap();
            assert_eq!(found.dims(), [1, expected.n_frames, 80]);
            let found =
                found.squeeze(0).unwrap().t().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (found, expected) in found.iter().zip(&expected.data) {
                assert!(
                    (found - expected).abs() < 2e-3 * expected.abs().max(1.0),
                    "{log:?}: {found}, not {expected}"
                );
            }
            assert_eq!(distance.sum(&given, &given).unwrap().to_scalar::<f32>().unwrap(), 0.0);
        }
    }
}
