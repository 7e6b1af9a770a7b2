//! Whisper: an encoder-decoder over log-mel features.

mod config;
mod decoder;
mod encoder;
mod feed_forward;
mod generation;
mod tokens;

pub use config::WhisperConfig;
pub use decoder::{CrossCache, Decoder, RowCache, StepRow};
pub use encoder::Encoder;
pub use generation::GenerationConfig;
pub use tokens::{SpecialTokens, TIMESTAMP_SECS};

use crate::Error;
use crate::params::Params;

/// Weights of a Whisper model. Immutable: every bit of state is passed in, so threads share one model.
pub struct Whisper {
    /// Sizes, as in `config.json`.
    pub config: WhisperConfig,
    /// Features to hidden states.
    pub encoder: Encoder,
    /// Hidden states and tokens to logits.
    pub decoder: Decoder,
}

impl Whisper {
    /// Builds the model from `params`, under the names of Hugging Face checkpoints.
    ///
    /// # Errors
    /// Missing tensors and shapes other than `config` asks for.
    pub fn load(params: &Params, config: WhisperConfig) -> Result<Self, Error> {
        let root = params.root();
        let model = root.sub("model");
        let (encoder, decoder) = rayon::join(
            || Encoder::load(&model.sub("encoder"), &config),
            || Decoder::load(&model.sub("decoder"), &root, &config),
        );
        Ok(Self { encoder: encoder?, decoder: decoder?, config })
    }

    /// Whether training keeps what blocks compute for the backward pass, or computes it again there: a forward pass more for the
    /// memory of all blocks but one. Gradients then need [`nn::backward`](crate::nn::backward()). Off at first.
    pub fn set_checkpointing(&mut self, checkpointing: bool) {
        self.encoder.checkpointing = checkpointing;
        self.decoder.checkpointing = checkpointing;
    }
}
