//! What a vocoder is, and what a run that trains one may ask for.

use audio::{FeatureSpec, LogKind};
use models::vocos::VocosConfig;
use serde::{Deserialize, Serialize};

use super::{RunConfig, StrategyKind, TaskKind};
use crate::Error;
use crate::data::Translations;
use crate::loss::LossConfig;

/// Stretches longer than this are none.
const MAX_CROP_SECS: f64 = 60.0;

/// `[vocoder]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct VocoderConfig {
    pub sample_rate: u32,
    pub n_mels: usize,
    pub log_floor: f64,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub kernel_size: usize,
    pub crop_secs: f64,
}

impl VocoderConfig {
    /// The features that it speaks.
    pub fn feature_spec(&self) -> FeatureSpec {
        let log = LogKind::Ln { floor: self.log_floor };
        FeatureSpec { log, ..FeatureSpec::vocoder(self.sample_rate, self.n_mels) }
    }

    /// A new one.
    pub fn vocos(&self) -> VocosConfig {
        VocosConfig {
            feature_spec: self.feature_spec(),
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_layers: self.num_layers,
            kernel_size: self.kernel_size,
        }
    }
}

/// Figures that an evaluation of a vocoder gives.
pub(super) fn figures(loss: &LossConfig) -> Vec<&'static str> {
    let mut figures = vec!["loss", "mel_l1", "spectral_convergence"];
    let weights = [("spectral", loss.spectral.weight), ("mel", loss.mel.weight)];
    figures.extend(weights.into_iter().filter(|(_, weight)| *weight > 0.0).map(|(name, _)| name));
    figures
}

impl RunConfig {
    /// Vocoders learn by losses of sound, and nothing else does.
    pub(super) fn check_vocoder(&self) -> Result<(), Error> {
        let refuse = |key: &str, message: &str| Err(Error::config(key, message));
        let is_vocoder = self.task == TaskKind::Vocode;
        for (name, weight) in self.loss.weights() {
            let is_of_sound = LossConfig::OF_SOUND.contains(&name);
            if weight > 0.0 && is_of_sound != is_vocoder {
                let message = match is_vocoder {
                    true => "vocode learns by loss.spectral, loss.mel and loss.adversarial; set 0",
                    false => "is of sound, which task = \"vocode\" alone makes; set 0",
                };
                return refuse(&format!("loss.{name}.weight"), message);
            }
        }
        if !is_vocoder {
            return Ok(());
        }
        if self.loss.spectral.weight == 0.0 && self.loss.mel.weight == 0.0 {
            return refuse(
                "loss.mel.weight",
                "0, as loss.spectral.weight: discriminators alone teach nothing",
            );
        }
        if self.strategy.kind != StrategyKind::Full {
            return refuse("strategy.kind", "is not for vocode; use full");
        }
        if self.optimizer.learning_rate == 0.0 {
            return refuse("optimizer.learning_rate", "0: none follows from a vocoder's sizes; set one");
        }
        if self.sampler.memory_gb > 0.0 {
            return refuse("sampler.memory_gb", "is planned for hearing models; set sampler.batch_secs");
        }
        let crop_secs = self.vocoder.crop_secs;
        if !(crop_secs > 0.0 && crop_secs <= MAX_CROP_SECS) {
            let message = format!("{crop_secs} is not above 0 and at most {MAX_CROP_SECS}");
            return refuse("vocoder.crop_secs", &message);
        }
        if self.sampler.batch_secs < crop_secs {
            let message = format!("{} holds no stretch of {crop_secs} s", self.sampler.batch_secs);
            return refuse("sampler.batch_secs", &message);
        }
        if !self.augment.is_off() {
            return refuse("augment", "is for models that hear; a vocoder learns recordings as they are");
        }
        if self.data.translations != Translations::Off || !self.data.glossary.is_empty() {
            return refuse("data.translations", "and data.glossary are of texts, which vocode does not read");
        }
        if self.model.parts.named().next().is_some() {
            return refuse("model.parts", "are those of a model that hears or reads");
        }
        Ok(())
    }
}
