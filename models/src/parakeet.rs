//! Parakeet CTC (NVIDIA NeMo, `ctc_bpe_models.py`): a FastConformer encoder and one layer that says, for each position, which token
//! is heard there, if any. Weights and configuration have the names of transformers' `ParakeetForCTC`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ctc_head::CTC_HEAD;
use crate::fast_conformer::{self, FastConformerConfig};
use crate::nn::Linear;
use crate::params::Params;
use crate::{CtcHead, Encoder, Error, SpeechModel};

/// Dimensions of a CTC model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ParakeetCtcConfig {
    /// The encoder.
    #[serde(default)]
    pub encoder_config: FastConformerConfig,
    /// Token ids, the blank among them.
    #[serde(default = "vocab_size")]
    pub vocab_size: usize,
    /// The blank.
    #[serde(default = "blank")]
    pub pad_token_id: u32,
    /// The language that is spoken, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Seconds of audio that are heard at once; longer recordings are cut.
    #[serde(default = "window_secs")]
    pub window_secs: f64,
}

fn vocab_size() -> usize {
    1025
}

fn blank() -> u32 {
    1024
}

fn window_secs() -> f64 {
    40.0
}

impl ParakeetCtcConfig {
    /// Feature frames of a full window.
    pub fn window_frames(&self) -> usize {
        self.encoder_config.n_frames(self.window_secs)
    }

    /// Refuses what cannot be loaded, naming `path` and the key.
    ///
    /// # Errors
    /// What the encoder refuses, a blank outside the vocabulary, a window longer than the encoder's positions.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        self.encoder_config.check(path)?;
        if !(1..=1 << 20).contains(&self.vocab_size) {
            let message = format!("{} is not between 1 and {}", self.vocab_size, 1 << 20);
            return Err(Error::key(path, "vocab_size", message));
        }
        if self.pad_token_id as usize >= self.vocab_size {
            let message =
                format!("token {} is outside the vocabulary of {}", self.pad_token_id, self.vocab_size);
            return Err(Error::key(path, "pad_token_id", message));
        }
        self.encoder_config.check_window(self.window_secs, path)
    }
}

/// Builds the model from `params`.
///
/// # Errors
/// Missing tensors and shapes other than `config` asks for.
pub(crate) fn load(params: &Params, config: &ParakeetCtcConfig) -> Result<SpeechModel, Error> {
    let root = params.root();
    let width = config.encoder_config.hidden_size;
    let encoder = fast_conformer::Encoder::load(&root.sub("encoder"), config.encoder_config.clone())?;
    let head = Linear::load_pointwise(&root.sub(CTC_HEAD), width, config.vocab_size, 1, true)?;
    let head = CtcHead::of_vocabulary(head, config.pad_token_id);
    Ok(SpeechModel::with_ctc(Encoder::FastConformer(encoder), head))
}
