//! Whom a student learns from: the model whose encoder it shares and of whose decoder it has a part.

use std::sync::Arc;

use models::{Decoder, Transcriber};

use super::encoder_states::EncoderStates;
use crate::Error;
use crate::config::RunConfig;

/// A teacher's decoder, and what its encoder, which is the student's, has heard so far.
pub struct Teacher {
    pub(super) decoder: Arc<Decoder>,
    pub(super) states: EncoderStates,
}

impl Teacher {
    /// The part of a model that its student needs.
    ///
    /// # Errors
    /// A model without a decoder.
    pub fn new(model: &Transcriber, config: &RunConfig) -> Result<Self, Error> {
        let decoder = model.model().decoder()?.clone();
        let states = EncoderStates::new(config.strategy.distil.cache_mb.saturating_mul(1 << 20));
        Ok(Self { decoder, states })
    }
}
