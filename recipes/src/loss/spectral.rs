//! Spectra of sound at several resolutions: short windows tell when, long ones tell which pitch (Yamamoto et al. 2020, Parallel WaveGAN).

use audio::{FeatureSpec, Padding};
use candle_core::Tensor;
use models::nn::{Stft, spectral_distance};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Magnitudes below this are not told apart: somewhat above the noise that 16 bits leave in a bin.
const FLOOR: f32 = 1e-3;
/// Of a target this quiet, it counts no more how far off it is.
const SILENCE: f32 = 1e-2;

/// `[loss.spectral]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spectral {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
    /// Samples of a window, which moves by a quarter of them.
    pub n_fft: Vec<usize>,
}

impl Spectral {
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |message: String| Err(Error::config("loss.spectral.n_fft", message));
        if self.n_fft.is_empty() {
            return refuse("names no window: there is nothing to compare".to_owned());
        }
        match self.n_fft.iter().find(|n| !(16..=1 << 14).contains(*n) || !n.is_multiple_of(4)) {
            Some(n) => refuse(format!("{n} is not a multiple of 4 from 16 to {}", 1 << 14)),
            None => Ok(()),
        }
    }

    /// What measures it at the rate of `spec`.
    ///
    /// # Errors
    /// Windows that are no windows.
    pub fn distances(&self, spec: &FeatureSpec) -> Result<SpectralDistances, Error> {
        Ok(SpectralDistances { transforms: transforms(&self.n_fft, spec)? })
    }
}

/// Transforms of these sizes, which move by a quarter of them, at the rate of `spec`.
pub(crate) fn transforms(sizes: &[usize], spec: &FeatureSpec) -> Result<Vec<Stft>, Error> {
    let transform = |n_fft: &usize| {
        let padding = Padding::Reflect;
        let (n_fft, hop_samples) = (*n_fft, n_fft / 4);
        // Bins are not added up.
        let spec = FeatureSpec { n_mels: 1, ..spec.clone() };
        Ok(Stft::new(&FeatureSpec { n_fft, window_samples: n_fft, hop_samples, padding, ..spec })?)
    };
    sizes.iter().map(transform).collect()
}

/// Transforms of all resolutions.
pub struct SpectralDistances {
    transforms: Vec<Stft>,
}

impl SpectralDistances {
    /// How far `samples` (B, N) are from `target` (B, N), a mean over resolutions, summed over rows: spectral convergence plus the mean
    /// difference of the magnitudes' logarithms.
    ///
    /// # Errors
    /// Too few samples, different shapes.
    pub fn sum(&self, samples: &Tensor, target: &Tensor) -> Result<Tensor, Error> {
        let mut sum: Option<Tensor> = None;
        for transform in &self.transforms {
            let (ours, theirs) = (transform.forward(samples)?, transform.forward(&target.detach())?);
            let distance = spectral_distance(&ours, &theirs, FLOOR, SILENCE)?.sum_all()?;
            sum = Some(match sum {
                Some(sum) => (sum + distance)?,
                None => distance,
            });
        }
        let sum = sum.ok_or_else(|| Error::config("loss.spectral.n_fft", "names no window"))?;
        Ok((sum / self.transforms.len() as f64)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn sound_is_at_no_distance_from_itself_and_farther_from_noise_than_from_a_copy() {
        let spec = FeatureSpec::vocoder(16_000, 80);
        let spectral = Spectral { weight: 1.0, n_fft: vec![128, 256, 512] };
        spectral.check().unwrap();
        let distances = spectral.distances(&spec).unwrap();
        let wave = |scale: f32| {
            let samples = (0..2 * 2000).map(|t| scale * (t as f32 * 0.3).sin()).collect();
            Tensor::from_vec(samples, (2, 2000), &Device::Cpu).unwrap()
        };
        let distance = |x: &Tensor| distances.sum(x, &wave(0.5)).unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(distance(&wave(0.5)), 0.0);
        let (near, far) = (distance(&wave(0.45)), distance(&wave(0.1)));
        assert!(0.0 < near && near < far, "{near} {far}");
        for n_fft in [vec![], vec![18], vec![8]] {
            assert!(Spectral { weight: 1.0, n_fft }.check().is_err());
        }
    }
}
