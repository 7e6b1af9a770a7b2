//! `Bundle`: a model directory that a Hugging Face user recognises. Opening one reads and checks its
//! configuration and the headers of its weights; loading reads the weights.

mod architecture;
mod conformer_files;
mod edit;
mod new;
mod new_conformer;
mod part;
mod source;
mod spelling;
mod vocabulary;

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::generation_config::GenerationConfig;
use crate::special_tokens::SpecialTokens;
use crate::text_encoder::{TEXT_ENCODER_CONFIG, TextEncoderConfig};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use crate::whisper::WhisperConfig;

pub use architecture::Architecture;
pub(crate) use conformer_files::{Files, Names, canary_files, ctc_files};
pub use new::{NewVocabulary, NewWhisper, TextUnit};
pub use new_conformer::NewConformer;
pub use part::Part;
pub use source::{BundleSource, MemoryBundle};
pub(crate) use source::{ReadSeek, SENTENCEPIECE};

/// An opened model.
pub struct Bundle {
    description: Description,
    weights: Weights,
}

/// All of a bundle but its weights. A clone is cheap.
#[derive(Debug, Clone)]
pub struct Description {
    source: BundleSource,
    architecture: Architecture,
    feature_spec: audio::FeatureSpec,
    text_encoder: Option<TextEncoderConfig>,
}

impl Description {
    /// Reads and checks the configuration of a bundle.
    ///
    /// # Errors
    /// Missing, truncated or contradictory files, with the file and the key named.
    pub fn open(source: BundleSource) -> Result<Self, Error> {
        let (architecture, feature_spec) = Architecture::read(&source)?;
        let text_encoder = text_encoder(&source, &architecture)?;
        Ok(Self { source, architecture, feature_spec, text_encoder })
    }

    /// Where the files are.
    pub fn source(&self) -> &BundleSource {
        &self.source
    }

    /// What the model is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Features that the model was trained on.
    pub fn feature_spec(&self) -> &audio::FeatureSpec {
        &self.feature_spec
    }

    /// The encoder of texts beside that of speech, if there is one.
    pub fn text_encoder(&self) -> Option<&TextEncoderConfig> {
        self.text_encoder.as_ref()
    }

    /// Seconds of audio that a window holds.
    pub fn window_secs(&self) -> f64 {
        self.architecture.window_frames() as f64 / self.feature_spec.frame_rate()
    }

    /// Codes of the languages that the model has tokens for; empty for a model of one language.
    ///
    /// # Errors
    /// A missing or invalid tokenizer or generation_config.json.
    pub fn languages(&self) -> Result<Vec<String>, Error> {
        let (_, _, special) = self.vocabulary()?;
        Ok(special.languages.into_iter().map(|(code, _)| code).collect())
    }

    /// The tokenizer, how to decode, and the special tokens.
    ///
    /// # Errors
    /// A missing or invalid tokenizer or generation_config.json.
    pub fn vocabulary(&self) -> Result<(Tokenizer, GenerationConfig, SpecialTokens), Error> {
        let tokenizer = Tokenizer::from_source(&self.source)?;
        let (generation, special) = self.architecture.vocabulary(&self.source, &tokenizer)?;
        Ok((tokenizer, generation, special))
    }
}

impl Bundle {
    /// Opens the model directory `dir`.
    ///
    /// # Errors
    /// Missing, truncated or contradictory files, with the file and the key named.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        if !dir.is_dir() {
            return Err(Error::file(dir, "no such directory; a model is a directory with config.json in it"));
        }
        Self::from_source(dir.into())
    }

    /// Opens a model, wherever it is.
    ///
    /// # Errors
    /// What [`Bundle::open`] refuses.
    pub fn from_source(source: BundleSource) -> Result<Self, Error> {
        let weights = Weights::from_source(&source);
        let description = Description::open(source)?;
        Ok(Self { description, weights: weights? })
    }

    /// All but the weights.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What the model is.
    pub fn architecture(&self) -> &Architecture {
        self.description.architecture()
    }

    /// Features that the model was trained on.
    pub fn feature_spec(&self) -> &audio::FeatureSpec {
        self.description.feature_spec()
    }

    /// Its weight files.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What is in it, to be built into a model.
    pub fn into_parts(self) -> (Description, Weights) {
        (self.description, self.weights)
    }
}

/// What `config.json` says of an encoder of texts.
fn text_encoder(
    source: &BundleSource,
    architecture: &Architecture,
) -> Result<Option<TextEncoderConfig>, Error> {
    let path = source.path("config.json");
    let value = read_json(source, "config.json")?[TEXT_ENCODER_CONFIG].take();
    if value.is_null() {
        return Ok(None);
    }
    let config: TextEncoderConfig = parse(value, &path)?;
    config.check(architecture.encoder_width(), architecture.n_vocab(), &path)?;
    Ok(Some(config))
}

pub(crate) fn read_json(source: &BundleSource, name: &str) -> Result<Value, Error> {
    let text = source.read_text(name)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::file(&source.path(name), format!("is not JSON: {error}")))
}

/// A configuration out of its JSON. A value of the wrong type is refused by its key.
pub(crate) fn parse<T: DeserializeOwned>(value: Value, path: &Path) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let key = error.path().to_string();
        // A missing key has no path; the message names it.
        if key == "." { Error::file(path, error.inner()) } else { Error::key(path, key, error.inner()) }
    })
}

/// Whisper's features, after making sure that `preprocessor_config.json` asks for no others.
fn whisper_features(source: &BundleSource, config: &WhisperConfig) -> Result<audio::FeatureSpec, Error> {
    let spec = audio::FeatureSpec::whisper(config.num_mel_bins);
    if spec.n_mels > spec.n_fft {
        let message = format!("{} bins are more than {} samples can tell apart", spec.n_mels, spec.n_fft);
        return Err(Error::key(&source.path("config.json"), "num_mel_bins", message));
    }
    let name = "preprocessor_config.json";
    if source.has(name) {
        let path = source.path(name);
        let preprocessor = read_json(source, name)?;
        for (key, expected) in [
            ("feature_size", config.num_mel_bins),
            ("sampling_rate", spec.sample_rate as usize),
            ("hop_length", spec.hop_samples),
            ("n_fft", spec.n_fft),
            ("nb_max_frames", config.max_source_frames()),
        ] {
            match preprocessor.get(key).map(|value| value.as_u64()) {
                None => {}
                Some(Some(value)) if value == expected as u64 => {}
                Some(_) => {
                    let message = format!(
                        "is {}, but config.json and Whisper's features need {expected}",
                        preprocessor[key]
                    );
                    return Err(Error::key(&path, key, message));
                }
            }
        }
    }
    Ok(spec)
}
