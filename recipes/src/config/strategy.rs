//! What of a base is trained, and in which order.

use std::collections::BTreeSet;

use figment::Figment;
use figment::providers::{Format as _, Toml};
use models::params::TrainedPart;
use models::{Architecture, CTC_HEAD, Lora};
use serde::{Deserialize, Serialize};

use super::DEFAULTS;
use crate::Error;
use crate::text::Normaliser;

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
    /// A decoder with some of its blocks, which learns to write what the base writes.
    Distil,
}

impl StrategyKind {
    /// The name, the same as serde's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lora => "lora",
            Self::FrozenEncoder => "frozen-encoder",
            Self::Multistage => "multistage",
            Self::Distil => "distil",
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
    pub distil: DistilConfig,
}

/// `[strategy.distil]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct DistilConfig {
    pub decoder_layers: usize,
    pub max_wer: f64,
    pub normaliser: Normaliser,
    pub cache_mb: usize,
}

impl DistilConfig {
    /// The blocks of a decoder of `n_layers` that the student begins with: spread evenly, the first and the last among them
    /// (huggingface/distil-whisper `create_student_model.py`).
    ///
    /// # Errors
    /// None, or more than there are.
    pub fn blocks(&self, n_layers: usize) -> Result<Vec<usize>, Error> {
        let n = self.decoder_layers;
        if !(1..=n_layers).contains(&n) {
            let message = format!("{n} is not between 1 and the base's {n_layers}");
            return Err(Error::config("strategy.distil.decoder_layers", message));
        }
        let mut blocks: Vec<usize> = (0..n).map(|block| block * (n_layers - 1) / (n - 1).max(1)).collect();
        blocks[n - 1] = n_layers - 1;
        Ok(blocks)
    }
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

/// Linear layers that can have factors beside them: `out_proj` is Whisper's, `o_proj`, `linear1` and `linear2` are FastConformers'. The
/// projection of relative positions is none of them: an encoder that does not train it projects them once.
const LORA_TARGETS: [&str; 9] =
    ["q_proj", "k_proj", "v_proj", "out_proj", "o_proj", "fc1", "fc2", "linear1", "linear2"];

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
            StrategyKind::Distil => {
                // What reads the encoder, which does not learn, has nothing to learn either.
                let frozen = [architecture.encoder_scopes().0, CTC_HEAD].map(str::to_owned);
                TrainedPart { frozen: frozen.to_vec(), lora: None }
            }
            StrategyKind::FrozenEncoder => {
                let (encoder, stem) = architecture.encoder_scopes();
                let layers = (0..self.frozen_layers).map(|layer| format!("{encoder}.layers.{layer}"));
                let stem = stem.iter().map(|name| format!("{encoder}.{name}"));
                TrainedPart { frozen: stem.chain(layers).collect(), lora: None }
            }
        }
    }

    /// Makes sure that a base, whose tensors have these names, has all layers that get factors.
    ///
    /// # Errors
    /// Layers that it does not have.
    pub fn check_layers<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let layers: BTreeSet<_> =
            names.filter_map(|name| name.strip_suffix(".weight")?.rsplit('.').next()).collect();
        let missing: Vec<_> =
            self.lora.targets.iter().filter(|target| !layers.contains(target.as_str())).collect();
        if self.kind != StrategyKind::Lora || missing.is_empty() {
            return Ok(());
        }
        let known: Vec<_> = LORA_TARGETS.into_iter().filter(|target| layers.contains(target)).collect();
        let message = format!("the base has no layers {missing:?}; it has {}", known.join(", "));
        Err(Error::config("strategy.lora.targets", message))
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
            StrategyKind::Distil if !(self.distil.max_wer.is_finite() && self.distil.max_wer >= 0.0) => {
                refuse("distil.max_wer", "is not a number from 0 on")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of huggingface/distil-whisper.
    #[test]
    fn blocks_are_spread_from_the_first_to_the_last() {
        let blocks = |n_layers, decoder_layers| {
            DistilConfig { decoder_layers, max_wer: 0.2, normaliser: Normaliser::Basic, cache_mb: 0 }
                .blocks(n_layers)
                .ok()
        };
        assert_eq!(blocks(32, 2), Some(vec![0, 31]));
        assert_eq!(blocks(32, 4), Some(vec![0, 10, 20, 31]));
        assert_eq!(blocks(32, 16), Some(vec![0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 31]));
        assert_eq!(blocks(4, 4), Some(vec![0, 1, 2, 3]));
        assert_eq!(blocks(2, 1), Some(vec![1]));
        assert_eq!((blocks(2, 3), blocks(2, 0)), (None, None));
    }
}
