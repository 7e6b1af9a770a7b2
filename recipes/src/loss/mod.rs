//! What is minimised. A loss is a sum and the weight that it is divided by, so that neither accumulation nor the division into
//! batches changes it.

mod adversarial;
mod cross_entropy;
mod ctc;
mod distillation;
mod flow;
mod mel;
mod optimal_transport;
mod spectral;

pub use adversarial::{Adversarial, Verdict};
pub use cross_entropy::CrossEntropy;
pub use ctc::{Ctc, CtcVocabulary};
pub use distillation::Distillation;
pub use flow::{Flow, Velocity};
pub use mel::{Mel, MelDistance};
pub use optimal_transport::OptimalTransport;
pub(crate) use spectral::transforms;
pub use spectral::{Spectral, SpectralDistances};

use serde::{Deserialize, Serialize};

use crate::Error;

/// `[loss]`: which losses there are and how much each counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Of the decoder's next tokens.
    pub cross_entropy: CrossEntropy,
    /// Of the encoder's own reading of the text.
    pub ctc: Ctc,
    /// Of what the decoder's next tokens lack of a teacher's.
    pub distillation: Distillation,
    /// Of the encoder's states on their way to those of the text.
    pub optimal_transport: OptimalTransport,
    /// Of noise on its way to speech.
    pub flow: Flow,
    /// Of the spectra of sound, at several resolutions.
    pub spectral: Spectral,
    /// Of the mel features of sound.
    pub mel: Mel,
    /// Of what discriminators tell sound that was made from sound that was recorded by.
    pub adversarial: Adversarial,
}

impl LossConfig {
    /// Whether a decoder is trained.
    pub fn trains_decoder(&self) -> bool {
        self.cross_entropy.weight > 0.0 || self.distillation.weight > 0.0
    }

    /// Those of sound, by name: what vocoders learn by, and nothing else does.
    pub const OF_SOUND: [&str; 3] = ["spectral", "mel", "adversarial"];

    /// What each counts, by name.
    pub fn weights(&self) -> [(&'static str, f64); 8] {
        [
            ("cross_entropy", self.cross_entropy.weight),
            ("ctc", self.ctc.weight),
            ("distillation", self.distillation.weight),
            ("optimal_transport", self.optimal_transport.weight),
            ("flow", self.flow.weight),
            ("spectral", self.spectral.weight),
            ("mel", self.mel.weight),
            ("adversarial", self.adversarial.weight),
        ]
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), Error> {
        let weights = self.weights();
        for (name, weight) in weights {
            if !(weight.is_finite() && weight >= 0.0) {
                let message = format!("{weight} is not a number from 0 on");
                return Err(Error::config(format!("loss.{name}.weight"), message));
            }
        }
        if weights.iter().all(|(_, weight)| *weight == 0.0) {
            return Err(Error::config("loss", "all weights are 0: there is nothing to learn"));
        }
        self.optimal_transport.check()?;
        self.flow.check()?;
        self.spectral.check()?;
        self.adversarial.check()?;
        let temperature = self.distillation.temperature;
        if !(temperature.is_finite() && temperature > 0.0) {
            let message = format!("{temperature} is not a number above 0");
            return Err(Error::config("loss.distillation.temperature", message));
        }
        if !(0.0..1.0).contains(&self.cross_entropy.label_smoothing) {
            let message = format!("{} is not between 0 and 1", self.cross_entropy.label_smoothing);
            return Err(Error::config("loss.cross_entropy.label_smoothing", message));
        }
        Ok(())
    }
}
