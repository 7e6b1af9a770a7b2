//! What `config.json` says of a model that speaks.

use std::path::Path;

use audio::{FeatureSpec, Features, LogKind, Normalizer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::head::TIME_SIZE;
use crate::Error;
use crate::bundle::{BundleSource, parse, read_json};
use crate::synthesizer::SpeakOptions;
use crate::text_encoder::TextEncoderConfig;
use crate::vocos::VocosConfig;

/// Its `model_type`.
pub const FLOW_LM: &str = "flow_lm";
/// A dimension above this is a forged or broken file.
const MAX_DIMENSION: usize = 1 << 14;
/// So are more layers.
const MAX_LAYERS: usize = 1 << 8;
/// And more numbers that are made before the first weight is looked for, or kept of one sequence: a gigabyte.
const MAX_NUMBERS: usize = 1 << 28;
/// A text of nothing but its edges says nothing.
const MIN_TEXT_POSITIONS: usize = 3;
/// Mel frames in a token at most.
const MAX_PATCH: usize = 64;
/// Symbols that are passed over at once, at most.
const MAX_ADVANCE: usize = 64;

/// Dimensions of a model that speaks, and what its numbers mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowLmConfig {
    /// The mel frames that it speaks in: the vocoder's, and no other's.
    pub feature_spec: FeatureSpec,
    /// Mean of each mel bin over the speech that it learnt from.
    pub mel_mean: Vec<f32>,
    /// Standard deviation of each.
    pub mel_std: Vec<f32>,
    /// Mel frames of a speech token.
    pub patch_frames: usize,
    /// What a text is spelled in.
    pub unit: SymbolUnit,
    /// What it reads, by number.
    pub symbols: Vec<String>,
    /// Codes of the languages that it has learnt to read.
    pub languages: Vec<String>,
    /// Names of the voices that come with it, the first being the default: each has a recording `voice-NAME.flac` beside this file.
    #[serde(default)]
    pub voices: Vec<String>,
    /// Most symbols of a text, both edges included.
    pub max_text_positions: usize,
    /// Most speech tokens of a text.
    pub max_patches: usize,
    /// Most speech tokens of a voice prompt.
    pub max_prompt_patches: usize,
    /// Symbols that one speech token passes over at most.
    pub max_advance: usize,
    /// D.
    pub hidden_size: usize,
    /// Blocks of the causal Transformer.
    pub num_hidden_layers: usize,
    /// Heads of each.
    pub num_attention_heads: usize,
    /// Width inside its feed-forward layers.
    pub intermediate_size: usize,
    /// Blocks of the encoder of texts before it.
    pub num_text_layers: usize,
    /// Width of the flow head.
    pub head_hidden_size: usize,
    /// Blocks of the flow head.
    pub num_head_layers: usize,
    /// Width in which speech is held against symbols to align them.
    pub aligner_size: usize,
    /// Whether the flow head has learnt to go from noise to speech in one step.
    pub flow_map: bool,
    /// How it speaks where nobody says otherwise.
    #[serde(default)]
    pub sampling: Sampling,
    /// The vocoder that comes with it, whose weights are below `vocoder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocoder: Option<VocosConfig>,
}

/// How noise is carried to speech.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Steps, 1 to 64.
    pub steps: usize,
    /// How far it is led away from what it would say without text and voice; 1 is not at all.
    pub guidance: f64,
    /// Variance of the noise.
    pub temperature: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { steps: 4, guidance: 1.0, temperature: 0.7 }
    }
}

/// What a symbol is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SymbolUnit {
    /// A character of the text, in lower case.
    #[default]
    Characters,
    /// A phoneme, or another unit that is written with spaces around it.
    Phonemes,
}

impl FlowLmConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// A file that is missing or of another kind of model, a key with a value that makes no sense.
    pub fn read(source: &BundleSource) -> Result<Self, Error> {
        let path = source.path("config.json");
        let file = read_json(source, "config.json")?;
        let model_type = file.get("model_type");
        if model_type.is_none_or(|model_type| model_type != FLOW_LM) {
            let found = model_type.map_or_else(|| "nothing".to_owned(), Value::to_string);
            let message = format!("{found} does not speak; `{FLOW_LM}` does");
            return Err(Error::key(&path, "model_type", message));
        }
        let config: Self = parse(file, &path)?;
        config.check(&path)?;
        Ok(config)
    }

    /// What [`FlowLmConfig::read`] reads.
    pub fn to_json(&self) -> Value {
        let mut file = json!(self);
        file["model_type"] = FLOW_LM.into();
        file
    }

    /// Refuses what cannot be computed, naming `path` and the key.
    ///
    /// # Errors
    /// Zero or absurd dimensions, lists of another length, numbers that are none.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        let refuse = |key: &str, message: String| Err(Error::key(path, key, message));
        let dimension = 1..=MAX_DIMENSION;
        for (key, value, allowed) in [
            ("patch_frames", self.patch_frames, 1..=MAX_PATCH),
            ("max_text_positions", self.max_text_positions, MIN_TEXT_POSITIONS..=MAX_DIMENSION),
            ("max_patches", self.max_patches, dimension.clone()),
            ("max_prompt_patches", self.max_prompt_patches, dimension.clone()),
            ("max_advance", self.max_advance, 1..=MAX_ADVANCE),
            ("hidden_size", self.hidden_size, dimension.clone()),
            ("num_hidden_layers", self.num_hidden_layers, 1..=MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, dimension.clone()),
            ("intermediate_size", self.intermediate_size, dimension.clone()),
            ("num_text_layers", self.num_text_layers, 1..=MAX_LAYERS),
            ("head_hidden_size", self.head_hidden_size, dimension.clone()),
            ("num_head_layers", self.num_head_layers, 1..=MAX_LAYERS),
            ("aligner_size", self.aligner_size, dimension.clone()),
            ("symbols", self.symbols.len(), dimension),
        ] {
            if !allowed.contains(&value) {
                let message = format!("{value} is not between {} and {}", allowed.start(), allowed.end());
                return refuse(key, message);
            }
        }
        let n_positions = self.max_text_positions + self.max_patches + self.max_prompt_patches;
        if 2 * n_positions * self.hidden_size * self.num_hidden_layers > MAX_NUMBERS {
            let message = format!(
                "{n_positions} positions of this width in so many layers are more than a sequence may take"
            );
            return refuse("max_patches", message);
        }
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if !width.is_multiple_of(2 * heads) {
            return refuse("num_attention_heads", format!("{heads} heads of pairs do not divide {width}"));
        }
        let spec = &self.feature_spec;
        audio::LogMel::new(spec).map_err(|error| Error::key(path, "feature_spec", error))?;
        // Silence is what every bin says of it, and loudness a sum of logarithms.
        let is_natural = matches!(spec.log, LogKind::Ln { .. } | LogKind::LnOffset { .. });
        if !(is_natural && spec.normalizer == Normalizer::None && spec.dynamic_range.is_none()) {
            let message =
                "has to be of natural logarithms alone, without a range and a normaliser".to_owned();
            return refuse("feature_spec.log", message);
        }
        for (key, values) in [("mel_mean", &self.mel_mean), ("mel_std", &self.mel_std)] {
            if values.len() != spec.n_mels {
                let message = format!("{} numbers for {} mel bins", values.len(), spec.n_mels);
                return refuse(key, message);
            }
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return refuse(key, format!("{value} is no number"));
            }
        }
        let sampling = self.sampling;
        let options = SpeakOptions {
            steps: Some(sampling.steps),
            guidance: Some(sampling.guidance),
            temperature: Some(sampling.temperature),
            ..SpeakOptions::default()
        };
        options.check().map_err(|error| Error::key(path, "sampling", error))?;
        if let Some(vocoder) = &self.vocoder {
            vocoder.check(path)?;
            if vocoder.feature_spec.digest() != spec.digest() {
                let message = "is not the model's feature_spec: it would make noise of what the model says";
                return refuse("vocoder.feature_spec", message.to_owned());
            }
        }
        if let Some(value) = self.mel_std.iter().find(|value| **value <= 0.0) {
            return refuse("mel_std", format!("{value} is not above 0"));
        }
        let is_name = |name: &String| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+'))
        };
        if let Some(name) = self.voices.iter().find(|name| !is_name(name)) {
            return refuse("voices", format!("`{name}` is no name of letters, digits, `-`, `_` and `+`"));
        }
        Ok(())
    }

    /// Numbers of a speech token.
    pub fn patch_size(&self) -> usize {
        self.patch_frames * self.feature_spec.n_mels
    }

    /// Speech tokens in a second.
    pub fn patch_rate(&self) -> f64 {
        self.feature_spec.frame_rate() / self.patch_frames as f64
    }

    /// Weights that one evaluation of the flow head goes through, as a share of those of a step of the Transformer.
    pub(crate) fn head_share(&self) -> f64 {
        let (width, inner) = (self.hidden_size as f64, self.intermediate_size as f64);
        let (head, patch) = (self.head_hidden_size as f64, self.patch_size() as f64);
        let of_times = 2.0 * head * (TIME_SIZE as f64 + head);
        let of_head = of_times + head * (2.0 * patch + head * (2.0 + 5.0 * self.num_head_layers as f64));
        let of_blocks = self.num_hidden_layers as f64 * width * (4.0 * width + 2.0 * inner);
        of_head / of_blocks
    }

    /// What stands before and after every text.
    pub fn edge(&self) -> u32 {
        self.symbols.len() as u32
    }

    /// Mel frames of a range, standardised, as whole patches (S, patch) row-major, frame after frame; the last one is filled up with silence.
    pub fn patches(&self, features: &Features, frames: std::ops::Range<usize>) -> Vec<f32> {
        let n_patches = frames.len().div_ceil(self.patch_frames);
        let n_mels = self.feature_spec.n_mels;
        let silence = self.feature_spec.silence();
        let mut patches = Vec::with_capacity(n_patches * self.patch_size());
        for frame in frames.start..frames.start + n_patches * self.patch_frames {
            for bin in 0..n_mels {
                let value = match frame < frames.end {
                    true => features.data[bin * features.n_frames + frame],
                    false => silence,
                };
                patches.push((value - self.mel_mean[bin]) / self.mel_std[bin]);
            }
        }
        patches
    }

    /// Back from [`FlowLmConfig::patches`].
    pub fn features(&self, patches: &[f32]) -> Features {
        let n_mels = self.feature_spec.n_mels;
        let n_frames = patches.len() / n_mels;
        let mut data = vec![0f32; n_mels * n_frames];
        for (frame, values) in patches.chunks_exact(n_mels).enumerate() {
            for (bin, value) in values.iter().enumerate() {
                data[bin * n_frames + frame] = value * self.mel_std[bin] + self.mel_mean[bin];
            }
        }
        Features { data, n_mels, n_frames }
    }

    /// The encoder of texts.
    pub(super) fn text_encoder(&self) -> TextEncoderConfig {
        TextEncoderConfig {
            num_hidden_layers: self.num_text_layers,
            num_attention_heads: self.num_attention_heads,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            vocab_size: self.symbols.len() + 1,
            max_position_embeddings: self.max_text_positions,
            phonemes: self.symbols.clone(),
        }
    }
}
