//! What `config.json` says about a Canary checkpoint, under the names that transformers' `CanaryConfig` has there, which leaves out
//! what is as it is by default.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::fast_conformer::FastConformerConfig;

/// Dimensions of a Canary model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CanaryConfig {
    /// The encoder.
    #[serde(default = "encoder")]
    pub encoder_config: FastConformerConfig,
    /// The decoder.
    #[serde(default)]
    pub decoder_config: CanaryDecoderConfig,
    /// End of text.
    #[serde(default = "end")]
    pub eos_token_id: u32,
    /// What fills up rows of a batch.
    #[serde(default = "pad")]
    pub pad_token_id: u32,
    /// Start of every prompt.
    #[serde(default = "start")]
    pub decoder_start_token_id: u32,
    /// Seconds of audio that are heard at once; longer recordings are cut (NeMo's chunked inference takes 40).
    #[serde(default = "window_secs")]
    pub window_secs: f64,
    /// Tokens that a CTC head beside the decoder tells apart, in ascending order, the blank coming after them; there is none
    /// without it. transformers knows no such head and leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctc_token_ids: Option<Vec<u32>>,
}

/// Dimensions of its decoder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct CanaryDecoderConfig {
    /// Token ids.
    pub vocab_size: usize,
    /// Width, that of the encoder too.
    pub hidden_size: usize,
    /// Width inside feed-forward layers.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads in each block.
    pub num_attention_heads: usize,
    /// As many as heads: none share their keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head: the decoder's width over their number.
    pub head_dim: Option<usize>,
    /// Only `relu` is known.
    pub hidden_act: String,
    /// Positions, prompt included.
    pub max_position_embeddings: usize,
    /// Whether attention's projections have biases.
    pub attention_bias: bool,
}

impl Default for CanaryDecoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 16_384,
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 8,
            num_attention_heads: 8,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: "relu".to_owned(),
            max_position_embeddings: 1024,
            attention_bias: true,
        }
    }
}

fn encoder() -> FastConformerConfig {
    FastConformerConfig {
        num_hidden_layers: 32,
        num_mel_bins: 128,
        scale_input: false,
        ..FastConformerConfig::default()
    }
}

fn end() -> u32 {
    3
}

fn pad() -> u32 {
    2
}

fn start() -> u32 {
    7
}

fn window_secs() -> f64 {
    40.0
}

/// A dimension above this is a forged or broken file.
const MAX_DIMENSION: usize = 1 << 20;
/// So are more positions: no weights vouch for them, and each takes memory.
const MAX_POSITIONS: usize = 1 << 14;

impl CanaryConfig {
    /// Feature frames of a full window.
    pub fn window_frames(&self) -> usize {
        self.encoder_config.n_frames(self.window_secs)
    }

    /// Numbers that a decoding step reads: of weights, and of keys and values of `n_positions` for each of its rows.
    pub fn step_numbers(&self, n_positions: usize) -> (f64, f64) {
        let decoder = &self.decoder_config;
        let [d, inner, layers] =
            [decoder.hidden_size, decoder.intermediate_size, decoder.num_hidden_layers].map(|n| n as f64);
        let weights = layers * (6.0 * d * d + 2.0 * d * inner) + decoder.vocab_size as f64 * d;
        (weights, layers * 2.0 * n_positions as f64 * d)
    }

    /// Refuses what cannot be loaded, naming `path` and the key.
    ///
    /// # Errors
    /// Zero or absurd dimensions, an encoder of another width, ids outside the vocabulary, what is not known.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        self.encoder_config.check(path)?;
        let decoder = &self.decoder_config;
        let refuse =
            |key: &str, message: String| Err(Error::key(path, format!("decoder_config.{key}"), message));
        for (key, value) in [
            ("vocab_size", decoder.vocab_size),
            ("hidden_size", decoder.hidden_size),
            ("intermediate_size", decoder.intermediate_size),
            ("num_hidden_layers", decoder.num_hidden_layers),
            ("num_attention_heads", decoder.num_attention_heads),
        ] {
            if value == 0 || value > MAX_DIMENSION {
                return refuse(key, format!("{value} is not between 1 and {MAX_DIMENSION}"));
            }
        }
        let n_positions = decoder.max_position_embeddings;
        if !(1..=MAX_POSITIONS).contains(&n_positions) {
            let message = format!("{n_positions} is not between 1 and {MAX_POSITIONS}");
            return refuse("max_position_embeddings", message);
        }
        let (width, heads) = (decoder.hidden_size, decoder.num_attention_heads);
        if !width.is_multiple_of(heads) || !width.is_multiple_of(2) {
            return refuse("hidden_size", format!("{width} is odd or not divided by {heads} heads"));
        }
        if let Some(n) = decoder.num_key_value_heads.filter(|n| *n != heads) {
            return refuse("num_key_value_heads", format!("{n} is not the {heads} of num_attention_heads"));
        }
        if let Some(head) = decoder.head_dim.filter(|head| *head != width / heads) {
            return refuse(
                "head_dim",
                format!("{head} is not the {} that {heads} heads have", width / heads),
            );
        }
        if width != self.encoder_config.hidden_size {
            let message = format!("{width} is not the encoder's {}", self.encoder_config.hidden_size);
            return refuse("hidden_size", message);
        }
        if decoder.hidden_act != "relu" {
            return refuse("hidden_act", format!("{} is not known; relu is", decoder.hidden_act));
        }
        if let Some(ids) = &self.ctc_token_ids {
            let are_ascending = ids.windows(2).all(|pair| pair[0] < pair[1]);
            let last = ids.last().copied().unwrap_or_default();
            if !are_ascending || ids.is_empty() || last as usize >= decoder.vocab_size {
                let message = format!(
                    "are not some of the {} tokens of the vocabulary, each once and in their order",
                    decoder.vocab_size
                );
                return Err(Error::key(path, "ctc_token_ids", message));
            }
        }
        for (key, id) in [
            ("eos_token_id", self.eos_token_id),
            ("pad_token_id", self.pad_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
        ] {
            if id as usize >= decoder.vocab_size {
                let message = format!("token {id} is outside the vocabulary of {}", decoder.vocab_size);
                return Err(Error::key(path, key, message));
            }
        }
        self.encoder_config.check_window(self.window_secs, path)
    }
}
