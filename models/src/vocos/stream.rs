//! A Vocos that speaks while frames come.

use std::sync::Arc;

use audio::Features;
use audio::features::{Complex, OverlapAdd};
use candle_core::Tensor;

use super::{Contexts, MAX_MAGNITUDE, Vocos};
use crate::Error;

/// Frames that are computed at once at most, so that an hour takes no more memory than ten seconds.
const MAX_FRAMES: usize = 512;

/// A signal whose frames come one by one. What it gives in parts is what it gives at once, to the bit.
pub struct VocosStream {
    model: Arc<Vocos>,
    contexts: Contexts,
    overlap: OverlapAdd,
}

impl VocosStream {
    pub(super) fn new(model: Arc<Vocos>) -> Result<Self, Error> {
        Ok(Self { contexts: model.contexts()?, overlap: model.istft.stream(), model })
    }

    /// Samples that are finished with these frames, which follow the ones before: as many hops, and none while the first frames reach
    /// into what lies before the signal.
    ///
    /// # Errors
    /// Features of another number of bins, numbers that are not finite.
    pub fn push(&mut self, features: &Features) -> Result<Vec<f32>, Error> {
        let Features { data, n_mels, n_frames } = features;
        let expected = self.model.spec().n_mels;
        if *n_mels != expected || n_mels.checked_mul(*n_frames) != Some(data.len()) {
            let reason = format!("{} values for {n_mels} x {n_frames}, {expected} bins expected", data.len());
            return Err(audio::Error::BadFeatures { reason }.into());
        }
        let mut samples = Vec::new();
        for first in (0..*n_frames).step_by(MAX_FRAMES) {
            self.speak(features, first, MAX_FRAMES.min(n_frames - first), &mut samples)?;
        }
        Ok(samples)
    }

    /// The samples that are left: after T frames, `(T - 1) * hop` have been given in all.
    pub fn finish(self) -> Vec<f32> {
        let mut samples = Vec::new();
        self.overlap.finish(&mut samples);
        samples
    }

    fn speak(
        &mut self,
        features: &Features,
        first: usize,
        n_frames: usize,
        samples: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let n_mels = features.n_mels;
        let frames = (first..first + n_frames)
            .flat_map(|t| (0..n_mels).map(move |f| features.data[f * features.n_frames + t]));
        let frames = Tensor::from_vec(frames.collect(), (1, n_frames, n_mels), &self.model.device)?;
        let polar = self.model.polar(&frames, Some(&mut self.contexts))?; // (1, T, 2 F)
        let n_bins = self.model.istft.n_bins();
        for frame in polar.flatten_all()?.to_vec1::<f32>()?.chunks_exact(2 * n_bins) {
            let (logarithms, phases) = frame.split_at(n_bins);
            let bin = |(logarithm, phase): (&f32, &f32)| {
                let magnitude = f64::from(*logarithm).exp().min(f64::from(MAX_MAGNITUDE));
                Complex::from_polar(magnitude, f64::from(*phase))
            };
            // The least of a limit and what is no number would be the limit.
            if !frame.iter().all(|value| value.is_finite()) {
                return Err(Error::NotFinite { what: "spectra" });
            }
            let bins: Vec<_> = logarithms.iter().zip(phases).map(bin).collect();
            self.overlap.push(&bins, samples)?;
        }
        Ok(())
    }
}
