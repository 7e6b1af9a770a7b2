//! A model that hears speech: an encoder and what reads its hidden states.

use std::sync::Arc;

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::params::Params;
use crate::{Architecture, CtcHead, Error, canary, parakeet, whisper};

/// Weights of a model. Immutable: every bit of state is passed in, so threads share one model.
pub struct SpeechModel {
    /// Features to hidden states.
    pub encoder: Encoder,
    decoder: Option<Arc<Decoder>>,
    ctc_head: Option<CtcHead>,
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

    pub(crate) fn with_ctc(encoder: Encoder, head: CtcHead) -> Self {
        Self { encoder, decoder: None, ctc_head: Some(head) }
    }

    /// Hidden states and tokens to logits.
    ///
    /// # Errors
    /// A model that has none.
    pub fn decoder(&self) -> Result<&Arc<Decoder>, Error> {
        self.decoder.as_ref().ok_or_else(|| Error::option("model", "has no decoder"))
    }

    /// The same that also reads by CTC, if it has a head for it.
    pub(crate) fn and_ctc(self, ctc_head: Option<CtcHead>) -> Self {
        Self { ctc_head, ..self }
    }

    /// What reads the hidden states by CTC; only some models have it.
    pub fn ctc_head(&self) -> Option<&CtcHead> {
        self.ctc_head.as_ref()
    }
}
