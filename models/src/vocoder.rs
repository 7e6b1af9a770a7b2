//! What turns features into sound: a network that learnt it, or an algorithm that did not have to.

use std::sync::Arc;

use audio::{FeatureSpec, Features, GriffinLim, GriffinLimConfig, Waveform};

use crate::Error;
use crate::vocos::{Vocos, VocosStream};

/// Digits of a digest that tell two of them apart.
const SHORT: usize = 8;

/// Features to sound. Clones share their weights.
#[derive(Clone)]
pub enum Vocoder {
    /// A network, which speaks while features come.
    Vocos(Arc<Vocos>),
    /// Without a model: it hears all features before it speaks, and sounds hollow.
    GriffinLim(Arc<GriffinLim>),
}

impl Vocoder {
    /// That which needs no training, of any features.
    ///
    /// # Errors
    /// Features that there is no way back from.
    pub fn griffin_lim(spec: &FeatureSpec) -> Result<Self, Error> {
        Ok(Self::GriffinLim(Arc::new(GriffinLim::new(spec, GriffinLimConfig::default())?)))
    }

    /// What features must have been computed by.
    pub fn spec(&self) -> &FeatureSpec {
        match self {
            Self::Vocos(vocos) => vocos.spec(),
            Self::GriffinLim(griffin_lim) => griffin_lim.spec(),
        }
    }

    /// Makes sure that it speaks features of `spec`, such as those that a model writes. Features themselves do not say what they were
    /// computed by: whoever puts a model and a vocoder together asks once.
    ///
    /// # Errors
    /// Features of another spec, of which it would make noise without a word.
    pub fn check(&self, spec: &FeatureSpec) -> Result<(), Error> {
        let [spoken, asked] = [self.spec(), spec].map(|spec| spec.digest()[..SHORT].to_owned());
        if self.spec().digest() == spec.digest() {
            return Ok(());
        }
        let message = format!(
            "speaks features {spoken}, and is asked for features {asked}: take the vocoder that was trained with them, or train one \
             (speechd train vocoder_en) by their settings"
        );
        Err(Error::option("vocoder", message))
    }

    /// Starts a signal whose features come piece by piece.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn stream(&self) -> Result<VocoderStream, Error> {
        Ok(match self {
            Self::Vocos(vocos) => VocoderStream(State::Vocos(vocos.stream()?)),
            Self::GriffinLim(griffin_lim) => {
                VocoderStream(State::GriffinLim(griffin_lim.clone(), Vec::new()))
            }
        })
    }

    /// The sound of all features at once: T frames give `(T - 1) * hop` samples, none for no frame or one.
    ///
    /// # Errors
    /// Features of another number of bins, values that no sound has, numbers that are not finite.
    pub fn waveform(&self, features: &Features) -> Result<Waveform, Error> {
        match self {
            Self::Vocos(vocos) => vocos.waveform(features),
            Self::GriffinLim(griffin_lim) => Ok(griffin_lim.waveform(features)?),
        }
    }
}

/// A signal whose features come piece by piece.
pub struct VocoderStream(State);

enum State {
    Vocos(VocosStream),
    /// What has come so far.
    GriffinLim(Arc<GriffinLim>, Vec<Features>),
}

impl VocoderStream {
    /// Samples that are finished with these frames, which follow the ones before. Griffin-Lim finishes none before the last.
    ///
    /// # Errors
    /// Features of another number of bins, numbers that are not finite.
    pub fn push(&mut self, features: &Features) -> Result<Vec<f32>, Error> {
        match &mut self.0 {
            State::Vocos(stream) => stream.push(features),
            State::GriffinLim(griffin_lim, pieces) => {
                let Features { data, n_mels, n_frames } = features;
                let expected = griffin_lim.spec().n_mels;
                if *n_mels != expected || n_mels.checked_mul(*n_frames) != Some(data.len()) {
                    let n = data.len();
                    let reason = format!("{n} values for {n_mels} x {n_frames}, {expected} bins expected");
                    return Err(audio::Error::BadFeatures { reason }.into());
                }
                pieces.push(features.clone());
                Ok(Vec::new())
            }
        }
    }

    /// The samples that are left: after T frames, `(T - 1) * hop` have been given in all.
    ///
    /// # Errors
    /// Values that no sound has.
    pub fn finish(self) -> Result<Vec<f32>, Error> {
        match self.0 {
            State::Vocos(stream) => Ok(stream.finish()),
            State::GriffinLim(griffin_lim, pieces) => {
                let n_mels = griffin_lim.spec().n_mels;
                let n_frames = pieces.iter().map(|piece| piece.n_frames).sum();
                let rows = (0..n_mels).flat_map(|mel| pieces.iter().flat_map(move |piece| piece.row(mel)));
                let features = Features { data: rows.copied().collect(), n_mels, n_frames };
                Ok(griffin_lim.waveform(&features)?.samples)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use audio::{LogKind, LogMel};

    use super::*;

    fn spec() -> FeatureSpec {
        FeatureSpec { log: LogKind::Ln { floor: 1e-3 }, ..FeatureSpec::vocoder(16_000, 80) }
    }

    fn griffin_lim() -> Vocoder {
        let config = GriffinLimConfig { n_iterations: 2, ..GriffinLimConfig::default() };
        Vocoder::GriffinLim(Arc::new(GriffinLim::new(&spec(), config).unwrap()))
    }

    #[test]
    fn features_of_another_spec_are_refused_by_both_digests() {
        let vocoder = griffin_lim();
        assert!(vocoder.check(&spec()).is_ok());
        let other = FeatureSpec::vocoder(16_000, 80);
        let error = vocoder.check(&other).unwrap_err().to_string();
        for spec in [&spec(), &other] {
            assert!(error.contains(&format!("features {}", &spec.digest()[..8])), "{error}");
        }
        assert!(error.contains("speechd train"), "{error}");
    }

    #[test]
    fn griffin_lim_waits_for_all_and_says_what_it_says_at_once() {
        let samples: Vec<f32> = (0..9 * 256).map(|t| (t as f32 * 0.2).sin() * 0.3).collect();
        let features = LogMel::new(&spec()).unwrap().compute(&samples);
        let vocoder = griffin_lim();
        let mut stream = vocoder.stream().unwrap();
        for (first, n_frames) in [(0, 4), (4, 1), (5, 5)] {
            assert!(stream.push(&features.slice(first, n_frames, 0.0)).unwrap().is_empty());
        }
        assert!(stream.push(&Features { data: vec![0.0; 3], n_mels: 3, n_frames: 1 }).is_err());
        assert_eq!(stream.finish().unwrap(), vocoder.waveform(&features).unwrap().samples);
    }
}
