//! Encoders: features to hidden states, whatever their architecture.

use audio::Features;
use candle_core::{Device, Tensor};

use crate::{Error, fast_conformer, whisper};

/// Features to hidden states.
pub enum Encoder {
    /// Two frames to a position, over windows of one length or of any up to it.
    Whisper(whisper::Encoder),
    /// Eight frames to a position, over any length.
    FastConformer(fast_conformer::Encoder),
}

impl Encoder {
    /// Features (B, F, T) to hidden states (B, T', D). `keep_going` is asked before every block, so that abandoned work stops.
    ///
    /// # Errors
    /// More frames than the model has positions for; `keep_going` said no.
    pub fn forward(&self, mel: &Tensor, keep_going: &dyn Fn() -> bool) -> candle_core::Result<Tensor> {
        match self {
            Self::Whisper(encoder) => encoder.forward(mel, keep_going),
            Self::FastConformer(encoder) => encoder.forward(mel, keep_going),
        }
    }

    /// The features of one window to its hidden states (T, D).
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `keep_going` says no; when a tensor operation fails.
    pub fn hear(
        &self,
        features: Features,
        device: &Device,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Tensor, Error> {
        let shape = (1, features.n_mels, features.n_frames);
        let mel = Tensor::from_vec(features.data, shape, device)?; // (1, F, T)
        match self.forward(&mel, keep_going) {
            Ok(encoded) => Ok(encoded.squeeze(0)?),
            Err(_) if !keep_going() => Err(Error::Cancelled),
            Err(error) => Err(error.into()),
        }
    }

    /// [`Encoder::forward`] of a batch of recordings with `n_frames` each, zeros after them: what comes out for each is what
    /// it gives alone, and rows of it beyond [`Encoder::n_positions`] mean nothing.
    ///
    /// # Errors
    /// More frames than the model has positions for, lengths that do not fit.
    pub fn forward_padded(&self, mel: &Tensor, n_frames: &[usize]) -> candle_core::Result<Tensor> {
        match self {
            Self::Whisper(encoder) => encoder.forward_padded(mel, n_frames),
            Self::FastConformer(encoder) => encoder.forward_padded(mel, n_frames),
        }
    }

    /// Positions that come out of so many frames.
    pub fn n_positions(&self, n_frames: usize) -> usize {
        match self {
            Self::Whisper(_) => whisper::Encoder::n_positions(n_frames),
            Self::FastConformer(encoder) => encoder.config().n_positions(n_frames),
        }
    }

    /// Lets running statistics follow the batches of an update, or forget them where it was skipped: what training calls after each.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn follow(&self, is_kept: bool) -> candle_core::Result<()> {
        match self {
            Self::Whisper(_) => Ok(()),
            Self::FastConformer(encoder) => encoder.follow(is_kept),
        }
    }
}
