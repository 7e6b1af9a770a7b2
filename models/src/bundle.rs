//! `Bundle`: a model directory that a Hugging Face user recognises. Opening one reads and checks its
//! configuration and the headers of its weights; loading reads the weights.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use crate::whisper::{GenerationConfig, SpecialTokens, WhisperConfig};

/// An opened model directory.
pub struct Bundle {
    dir: PathBuf,
    architecture: Architecture,
    weights: Weights,
    feature_spec: audio::FeatureSpec,
}

/// What `model_type` in `config.json` says that the model is, with its configuration.
#[derive(Debug, Clone)]
pub enum Architecture {
    /// Encoder-decoder over log-mel features.
    Whisper(WhisperConfig),
}

impl Architecture {
    /// Its `model_type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Whisper(_) => "whisper",
        }
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
        let path = dir.join("config.json");
        let config = read_json(&path)?;
        let architecture = match config.get("model_type").and_then(Value::as_str) {
            Some("whisper") => {
                let config: WhisperConfig = parse(config, &path)?;
                config.check(&path)?;
                Architecture::Whisper(config)
            }
            Some(other) => {
                return Err(Error::key(
                    &path,
                    "model_type",
                    format!("`{other}` is not supported; `whisper` is"),
                ));
            }
            None => return Err(Error::key(&path, "model_type", "is missing; it names the architecture")),
        };
        let feature_spec = match &architecture {
            Architecture::Whisper(config) => whisper_features(dir, config)?,
        };
        Ok(Self { architecture, feature_spec, weights: Weights::open(dir)?, dir: dir.to_owned() })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the model is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Features that the model was trained on.
    pub fn feature_spec(&self) -> &audio::FeatureSpec {
        &self.feature_spec
    }

    /// Its weight files.
    pub fn weights(&self) -> &Weights {
        &self.weights
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
    pub(crate) fn vocabulary(&self) -> Result<(Tokenizer, GenerationConfig, SpecialTokens), Error> {
        let Architecture::Whisper(config) = &self.architecture;
        let tokenizer = Tokenizer::open(&self.dir)?;
        let generation =
            GenerationConfig::open(&self.dir.join("generation_config.json"), config, &tokenizer)?;
        let special = SpecialTokens::find(config, &generation, &tokenizer);
        special.check(&self.dir.join("tokenizer.json"), config.vocab_size)?;
        Ok((tokenizer, generation, special))
    }

    pub(crate) fn into_weights(self) -> Weights {
        self.weights
    }
}

pub(crate) fn read_json(path: &Path) -> Result<Value, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    serde_json::from_str(&text).map_err(|error| Error::file(path, format!("is not JSON: {error}")))
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
fn whisper_features(dir: &Path, config: &WhisperConfig) -> Result<audio::FeatureSpec, Error> {
    let spec = audio::FeatureSpec::whisper(config.num_mel_bins);
    if spec.n_mels > spec.n_fft {
        let message = format!("{} bins are more than {} samples can tell apart", spec.n_mels, spec.n_fft);
        return Err(Error::key(&dir.join("config.json"), "num_mel_bins", message));
    }
    let path = dir.join("preprocessor_config.json");
    if path.exists() {
        let preprocessor = read_json(&path)?;
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
