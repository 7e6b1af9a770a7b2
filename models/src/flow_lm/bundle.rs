//! Bundles that speak, as training takes them: what they read may grow, and a vocoder comes along.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{FlowLmConfig, voice_file};
use crate::Error;
use crate::bundle::BundleSource;
use crate::params::Params;
use crate::row_means::RowMeans;
use crate::synthesizer::{Kind, VOCODER};
use crate::vocoder::Vocoder;
use crate::vocos::{Vocos, VocosConfig};
use crate::weights::Weights;

/// Tensors with a row for each symbol, the edge being the last.
const SYMBOL_ROWS: [&str; 2] = ["text_encoder.embed_tokens.weight", "aligner.embed_symbols.weight"];

/// A model that speaks, opened to be trained.
pub struct VoiceBundle {
    /// What it is.
    pub config: FlowLmConfig,
    /// The recordings of its voices by their names, FLAC.
    pub voices: Vec<(String, Vec<u8>)>,
    weights: Weights,
}

impl VoiceBundle {
    /// Opens a bundle.
    ///
    /// # Errors
    /// Files that are missing, that contradict each other or are of another kind of model.
    pub fn open(source: &BundleSource) -> Result<Self, Error> {
        let config = FlowLmConfig::read(source)?;
        let voice = |name: &String| Ok((name.clone(), source.read(&voice_file(name))?.into_owned()));
        let voices = config.voices.iter().map(voice).collect::<Result<_, Error>>()?;
        Ok(Self { config, voices, weights: Weights::from_source(source)? })
    }

    /// The same model that reads further symbols and a language: what is new begins as the mean of all that it knows, and what it knows
    /// stays as it is.
    #[must_use]
    pub fn reading(self, symbols: &[String], language: &str) -> Self {
        let Self { mut config, weights, voices } = self;
        let known: BTreeSet<&String> = config.symbols.iter().collect();
        let new: Vec<String> = symbols.iter().filter(|symbol| !known.contains(symbol)).cloned().collect();
        let n_known = config.symbols.len();
        let kept = (0..n_known).map(|row| vec![row]);
        let rows = kept.chain(new.iter().map(|_| Vec::new())).chain([vec![n_known]]).collect();
        let means = RowMeans { rows, typical: (0..n_known).collect() };
        let weights = if new.is_empty() { weights } else { weights.with_rows(&SYMBOL_ROWS, &means) };
        config.symbols.extend(new);
        if !config.languages.iter().any(|known| known == language) {
            config.languages.push(language.to_owned());
        }
        Self { config, voices, weights }
    }

    /// Its weights.
    pub fn into_weights(self) -> Weights {
        self.weights
    }
}

/// A vocoder as a part of another bundle.
#[derive(Clone)]
pub struct AttachedVocoder {
    /// What it is.
    pub config: VocosConfig,
    /// Its weights by their names below `vocoder`.
    pub tensors: BTreeMap<String, Tensor>,
    /// The same, to be heard.
    pub vocoder: Vocoder,
}

impl AttachedVocoder {
    /// A vocoder's own bundle, or that of a model that has one; `None` where it has none.
    ///
    /// # Errors
    /// Files that are missing or cannot be read, a bundle that is neither.
    pub fn open(source: &BundleSource, device: &Device) -> Result<Option<Self>, Error> {
        let below = format!("{VOCODER}.");
        let (config, is_own) = match Kind::of(source)? {
            Kind::Vocodes => (Some(VocosConfig::read(source)?), true),
            Kind::Speaks => (FlowLmConfig::read(source)?.vocoder, false),
            Kind::Hears => {
                let message = "is neither a vocoder nor a model that speaks";
                return Err(Error::key(&source.path("config.json"), "model_type", message));
            }
        };
        let Some(config) = config else { return Ok(None) };
        let tensors = Weights::from_source(source)?.read_all(device)?.into_iter();
        let tensors = tensors.filter_map(|(name, tensor)| match is_own {
            true => Some((format!("{below}{name}"), tensor)),
            false => name.starts_with(&below).then_some((name, tensor)),
        });
        let params = Params::frozen(Weights::from_source(source)?, device);
        let scope = if is_own { params.root() } else { params.root().sub(VOCODER) };
        let vocoder = Vocoder::Vocos(Arc::new(Vocos::load(&scope, &config)?));
        Ok(Some(Self { config, tensors: tensors.collect(), vocoder }))
    }
}
