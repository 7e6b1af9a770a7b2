//! What of a base is trained, and in which order.

use figment::Figment;
use figment::providers::{Format as _, Toml};
use models::params::TrainedPart;
use models::{Architecture, Lora};
use serde::{Deserialize, Serialize};

use super::DEFAULTS;
use crate::Error;

/// What of a base is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyKind {
    /// All of it.
    Full,
    /// Factors beside its linear layers.
    Lora,
    /// All but the beginning of the encoder.
    FrozenEncoder,
    /// All of it, on a related language first.
    Multistage,
}

impl StrategyKind {
    /// The name, the same as serde's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lora => "lora",
            Self::FrozenEncoder => "frozen-encoder",
            Self::Multistage => "multistage",
        }
    }
}

/// `[strategy]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct StrategyConfig {
    pub kind: StrategyKind,
    pub frozen_layers: usize,
    pub lora: Lora,
    pub stage: StageConfig,
}

/// `[strategy.stage]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct StageConfig {
    pub train: Vec<String>,
    pub dev: Vec<String>,
    pub language: String,
    pub max_steps: u64,
    pub gate: f64,
}

/// Linear layers that can have factors beside them.
const LORA_TARGETS: [&str; 6] = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"];

impl StrategyConfig {
    /// All of the model, the rest as the defaults have it.
    pub(crate) fn full() -> Result<Self, Error> {
        let defaults = Figment::from(Toml::string(DEFAULTS));
        let strategy: Self = defaults
            .extract_inner("strategy")
            .map_err(|error| Error::config("strategy", error.to_string()))?;
        Ok(Self { kind: StrategyKind::Full, ..strategy })
    }

    /// What of a base of this architecture is trained; `seed` draws what is new.
    pub fn part(&self, architecture: &Architecture, seed: u64) -> TrainedPart {
        match self.kind {
            StrategyKind::Full | StrategyKind::Multistage => TrainedPart::default(),
            StrategyKind::Lora => {
                TrainedPart { frozen: vec![String::new()], lora: Some((self.lora.clone(), seed)) }
            }
            StrategyKind::FrozenEncoder => {
                let (encoder, stem) = architecture.encoder_scopes();
                let layers = (0..self.frozen_layers).map(|layer| format!("{encoder}.layers.{layer}"));
                let stem = stem.iter().map(|name| format!("{encoder}.{name}"));
                TrainedPart { frozen: stem.chain(layers).collect(), lora: None }
            }
        }
    }

    pub(super) fn check(&self, has_base: bool) -> Result<(), Error> {
        if self.kind != StrategyKind::Full && !has_base {
            let message = format!("{} starts from a model: give model.base", self.kind.name());
            return Err(Error::config("strategy.kind", message));
        }
        let refuse = |key: &str, message: &str| Err(Error::config(format!("strategy.{key}"), message));
        match self.kind {
            StrategyKind::Lora if self.lora.rank == 0 => refuse("lora.rank", "0 trains nothing"),
            StrategyKind::Lora if !(self.lora.alpha.is_finite() && self.lora.alpha > 0.0) => {
                refuse("lora.alpha", "is not a number above 0")
            }
            StrategyKind::Lora if self.lora.targets.is_empty() => {
                refuse("lora.targets", "names no layers: there is nothing to train")
            }
            StrategyKind::Lora
                if self.lora.targets.iter().any(|name| !LORA_TARGETS.contains(&name.as_str())) =>
            {
                refuse(
                    "lora.targets",
                    &format!("{:?} are not all among {}", self.lora.targets, LORA_TARGETS.join(", ")),
                )
            }
            StrategyKind::Multistage if self.stage.language.is_empty() => refuse(
                "stage.language",
                "is missing: the code of the language that is learnt first (--related-lang)",
            ),
            StrategyKind::Multistage if self.stage.train.is_empty() || self.stage.dev.is_empty() => refuse(
                "stage",
                "needs `train` and `dev`: manifests of the language that is learnt first (--related-data)",
            ),
            StrategyKind::Multistage if !(self.stage.gate.is_finite() && self.stage.gate > 0.0) => {
                refuse("stage.gate", "is not a number above 0")
            }
            _ => Ok(()),
        }
    }
}
