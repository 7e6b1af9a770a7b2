//! Whom a student learns from: the model whose encoder it shares and of whose decoder it has a part.

use std::sync::Arc;

use candle_core::Device;
use models::params::Params;
use models::{Bundle, Decoder, Transcriber};

use super::encoder_states::EncoderStates;
use crate::Error;
use crate::config::RunConfig;

/// A teacher, and what its encoder has heard so far.
pub struct Teacher {
    /// The model that is served.
    pub transcriber: Transcriber,
    pub(super) decoder: Arc<Decoder>,
    pub(super) states: EncoderStates,
}

impl Teacher {
    /// Loads it.
    ///
    /// # Errors
    /// A model without a decoder; whatever is wrong with its files.
    pub fn load(bundle: Bundle, config: &RunConfig, device: &Device) -> Result<Self, Error> {
        let (description, weights) = bundle.into_parts();
        let transcriber = Transcriber::with_params(&description, &Params::frozen(weights, device))?;
        let decoder = transcriber.model().decoder()?.clone();
        let states = EncoderStates::new(config.strategy.distil.cache_mb.saturating_mul(1 << 20));
        Ok(Self { transcriber, decoder, states })
    }
}
