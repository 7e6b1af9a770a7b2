//! A model that hears speech: an encoder and what reads its hidden states.

use std::sync::Arc;

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::nn::Linear;
use crate::params::Params;
use crate::{Architecture, Error, canary, parakeet, whisper};

/// Weights of a model. Immutable: every bit of state is passed in, so threads share one model.
pub struct SpeechModel {
    /// Features to hidden states.
    pub encoder: Encoder,
    decoder: Option<Arc<Decoder>>,
    ctc_head: Option<Linear>,
}

impl SpeechModel {
    /// Builds a model from `params`, under the names that transformers has for its architecture.
    ///
    /// # Errors
    /// Missing tensors and shapes other than the architecture's configuration asks for.
    pub fn load(params: &Params, architecture: &Architecture) -> Result<Self, Error> {
        match architecture {
            Architecture::Whisper(config) => whisper::load(params, config),
            Architecture::Canary(config) => canary::load(params, config),
            Architecture::ParakeetCtc(config) => parakeet::load(params, config),
        }
    }

    /// Builds the decoder alone.
    ///
    /// # Errors
    /// A model that has none, and what [`SpeechModel::load`] refuses.
    pub(crate) fn load_decoder(params: &Params, architecture: &Architecture) -> Result<Decoder, Error> {
        match architecture {
            Architecture::Whisper(config) => whisper::load_decoder(params, config),
            Architecture::Canary(config) => canary::load_decoder(params, config),
            Architecture::ParakeetCtc(_) => Err(Error::option("model", "has no decoder")),
        }
    }

    pub(crate) fn with_decoder(encoder: Encoder, decoder: Decoder) -> Self {
        Self { encoder, decoder: Some(Arc::new(decoder)), ctc_head: None }
    }

    pub(crate) fn with_ctc(encoder: Encoder, head: Linear) -> Self {
        Self { encoder, decoder: None, ctc_head: Some(head) }
    }

    /// Hidden states and tokens to logits.
    ///
    /// # Errors
    /// A model that has none.
    pub fn decoder(&self) -> Result<&Arc<Decoder>, Error> {
        self.decoder.as_ref().ok_or_else(|| Error::option("model", "has no decoder"))
    }

    /// Hidden states (.., D) to logits of the tokens that are heard at each position, the blank among them, (.., V); only some
    /// models have it.
    pub fn ctc_head(&self) -> Option<&Linear> {
        self.ctc_head.as_ref()
    }
}
