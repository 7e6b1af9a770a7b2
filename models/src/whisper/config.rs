//! What `config.json` says about a Whisper checkpoint, under the names it has there.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Dimensions of a Whisper model. Every size comes from here: nothing about tiny or large is built in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhisperConfig {
    /// Width of encoder and decoder (`n_audio_state` in the paper's code).
    pub d_model: usize,
    /// Encoder blocks.
    pub encoder_layers: usize,
    /// Heads in each encoder block.
    pub encoder_attention_heads: usize,
    /// Width inside the encoder's feed-forward layers.
    pub encoder_ffn_dim: usize,
    /// Decoder blocks.
    pub decoder_layers: usize,
    /// Heads in each decoder block.
    pub decoder_attention_heads: usize,
    /// Width inside the decoder's feed-forward layers.
    pub decoder_ffn_dim: usize,
    /// Mel bins of the features.
    pub num_mel_bins: usize,
    /// Encoder positions of a full window (two feature frames each).
    pub max_source_positions: usize,
    /// Decoder positions, prompt included.
    pub max_target_positions: usize,
    /// Token ids, timestamps included.
    pub vocab_size: usize,
    /// Multiply embeddings by the square root of the width.
    #[serde(default)]
    pub scale_embedding: bool,
    /// Only `gelu` (by the error function) is known.
    #[serde(default = "gelu")]
    pub activation_function: String,
    /// Whether the output projection is the token embedding.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Start of every decoder prompt.
    pub decoder_start_token_id: u32,
    /// End of text.
    pub eos_token_id: u32,
    /// Tokens that may never be produced, when no generation_config.json says so.
    #[serde(default)]
    pub suppress_tokens: Option<Vec<u32>>,
    /// Tokens that may not come first, when no generation_config.json says so.
    #[serde(default)]
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// Width of the median filter over alignment weights.
    #[serde(default = "seven")]
    pub median_filter_width: usize,
    /// Whether the model was trained on recordings as long as they are, so that it needs no silence up to a full window.
    /// Stock checkpoints were not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub variable_length: bool,
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn yes() -> bool {
    true
}

fn seven() -> usize {
    7
}

/// A dimension above this is a forged or broken file: twenty times the largest published model's.
const MAX_DIMENSION: usize = 1 << 20;

impl WhisperConfig {
    /// Multiplications and additions that encode `n_positions`: of linear layers, and of attention and convolutions.
    pub fn encoder_ops(&self, n_positions: usize) -> (f64, f64) {
        let [t, d, inner, layers] =
            [n_positions, self.d_model, self.encoder_ffn_dim, self.encoder_layers].map(|n| n as f64);
        let linear = layers * t * (4.0 * d * d + 2.0 * d * inner);
        let attention = layers * 2.0 * t * t * d;
        let convolutions = 3.0 * d * (2.0 * t * self.num_mel_bins as f64 + t * d);
        (2.0 * linear, 2.0 * (attention + convolutions))
    }

    /// Numbers that a decoding step reads: of weights, and of keys and values of `n_positions` for each of its rows.
    pub fn step_numbers(&self, n_positions: usize) -> (f64, f64) {
        let [d, inner, layers] = [self.d_model, self.decoder_ffn_dim, self.decoder_layers].map(|n| n as f64);
        let weights = layers * (6.0 * d * d + 2.0 * d * inner) + self.vocab_size as f64 * d;
        (weights, layers * 2.0 * n_positions as f64 * d)
    }

    /// Feature frames of a full window.
    pub fn max_source_frames(&self) -> usize {
        2 * self.max_source_positions
    }

    /// Refuses what cannot be loaded, naming `path` and the key.
    ///
    /// # Errors
    /// Zero or absurd dimensions, heads that do not divide the width, ids outside the vocabulary, an unknown
    /// activation.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        for (key, value) in [
            ("d_model", self.d_model),
            ("encoder_layers", self.encoder_layers),
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("encoder_ffn_dim", self.encoder_ffn_dim),
            ("decoder_layers", self.decoder_layers),
            ("decoder_attention_heads", self.decoder_attention_heads),
            ("decoder_ffn_dim", self.decoder_ffn_dim),
            ("num_mel_bins", self.num_mel_bins),
            ("max_source_positions", self.max_source_positions),
            ("max_target_positions", self.max_target_positions),
            ("vocab_size", self.vocab_size),
            ("median_filter_width", self.median_filter_width),
        ] {
            if value == 0 || value > MAX_DIMENSION {
                return Err(Error::key(path, key, format!("{value} is not between 1 and {MAX_DIMENSION}")));
            }
        }
        for (key, heads) in [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ] {
            if !self.d_model.is_multiple_of(heads) {
                let message = format!("{heads} heads do not divide d_model = {}", self.d_model);
                return Err(Error::key(path, key, message));
            }
        }
        for (key, id) in
            [("decoder_start_token_id", self.decoder_start_token_id), ("eos_token_id", self.eos_token_id)]
        {
            if id as usize >= self.vocab_size {
                let message = format!("token {id} is outside the vocabulary of {}", self.vocab_size);
                return Err(Error::key(path, key, message));
            }
        }
        if self.activation_function != "gelu" {
            let message = format!("{} is not known; Whisper uses gelu", self.activation_function);
            return Err(Error::key(path, "activation_function", message));
        }
        if self.median_filter_width.is_multiple_of(2) {
            let message = format!("{} is even; a median needs an odd width", self.median_filter_width);
            return Err(Error::key(path, "median_filter_width", message));
        }
        Ok(())
    }
}
