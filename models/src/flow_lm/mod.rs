//! A model that speaks in continuous tokens: a causal Transformer over a voice prompt, a text and the patches of mel frames that it has said so
//! far, and a flow head that says the next one (Flow-Omni, arXiv 2412.04917; CALM, arXiv 2509.06926; MAR, arXiv 2406.11838).
//!
//! It reads along: each patch is told which symbol of the text its middle says, and says how far that of the next one is. Where that is in recordings,
//! an aligner finds out while it learns.

mod aligner;
mod backbone;
mod bundle;
mod config;
mod head;
mod noise;
mod symbols;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Tensor};

pub use aligner::Aligner;
pub use backbone::{Backbone, Sequence, SequenceCache, SequenceStep};
pub use bundle::{AttachedVocoder, VoiceBundle};
pub use config::{FLOW_LM, FlowLmConfig, Sampling, SymbolUnit};
pub use head::{FlowHead, Solver, integrate, sample};
pub use noise::Noise;
pub use symbols::Symbols;

use crate::Error;
use crate::kernels::Activation;
use crate::nn::{Linear, activate};
use crate::params::Params;

/// Weights of a model that speaks. Immutable: all state is passed in, so threads share one model.
pub struct FlowLm {
    /// What it is.
    pub config: FlowLmConfig,
    /// Texts and speech to states.
    pub backbone: Backbone,
    /// States and noise to speech.
    pub head: FlowHead,
    /// Which frame says which symbol; for training alone.
    pub aligner: Option<Aligner>,
    /// What is known of a patch once it is said: where it was to lead, and how it sounds.
    meant: Linear,
    sounds: Linear,
    /// Whether a patch is the last one.
    end: Linear,
    /// How many symbols a patch passes over.
    advance: Linear,
    device: candle_core::Device,
}

/// What patches lead to.
pub struct Continuation {
    /// How sure it is that each is the last one, as logits.
    pub ends: Tensor, // (N)
    /// How many symbols further the patch after each is, as logits of none up to `max_advance`.
    pub advances: Tensor, // (N, max_advance + 1)
}

/// Where the aligner's weights are, which no voice needs to speak.
pub const ALIGNER: &str = "aligner";

impl FlowLm {
    /// Builds a model from `params`, to train with an aligner and to speak without.
    ///
    /// # Errors
    /// Missing tensors and shapes other than `config` asks for.
    pub fn load(params: &Params, config: &FlowLmConfig, with_aligner: bool) -> Result<Self, Error> {
        let (root, width) = (params.root(), config.hidden_size);
        Ok(Self {
            backbone: Backbone::load(params, config)?,
            head: FlowHead::load(&root.sub("flow_head"), config)?,
            aligner: with_aligner.then(|| Aligner::load(&root.sub(ALIGNER), config)).transpose()?,
            meant: Linear::load(&root.sub("continuation.state"), width, width, true)?,
            sounds: Linear::load(&root.sub("continuation.patch"), config.patch_size(), width, false)?,
            end: Linear::load(&root.sub("end_head"), width, 1, true)?,
            advance: Linear::load(&root.sub("advance_head"), width, config.max_advance + 1, true)?,
            device: params.device().clone(),
            config: config.clone(),
        })
    }

    /// What patches (N, patch) that were said from states (N, D) lead to. How long a sound lasts is decided by the noise that it is said from:
    /// only who hears it knows how far it came. Differentiable.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn continuation(&self, states: &Tensor, said: &Tensor) -> candle_core::Result<Continuation> {
        let hidden =
            activate(Activation::Silu, &(self.meant.forward(states)? + self.sounds.forward(said)?)?)?;
        Ok(Continuation {
            ends: self.end.forward(&hidden)?.squeeze(1)?,
            advances: self.advance.forward(&hidden)?,
        })
    }

    /// Where it computes.
    pub fn device(&self) -> &candle_core::Device {
        &self.device
    }
}

/// States of who is told the text and the voice and of who is not, drawn apart: `nobody + guidance (told - nobody)` (CALM, section on latent
/// guidance; Ho and Salimans, arXiv 2207.12598). 1 leaves those of who is told.
///
/// # Errors
/// Shapes that differ.
pub fn guided(told: &Tensor, nobody: &Tensor, guidance: f64) -> candle_core::Result<Tensor> {
    nobody + ((told - nobody)? * guidance)?
}

/// Ids of some rows of a matrix, as tensors of indices.
pub(crate) fn rows(x: &Tensor, ids: &[u32]) -> candle_core::Result<Tensor> {
    x.index_select(&Tensor::from_slice(ids, ids.len(), x.device())?, 0)
}

/// Nothing, (N, D).
pub(crate) fn zeros(n: usize, width: usize, device: &candle_core::Device) -> candle_core::Result<Tensor> {
    Tensor::zeros((n, width), DType::F32, device)
}

/// Places of sequences of these lengths side by side: 0 to `longest` - 1, again and again.
pub(crate) fn places(n_rows: usize, longest: usize) -> Arc<[u32]> {
    (0..n_rows).flat_map(|_| 0..longest as u32).collect()
}

/// The file of a bundle that a voice's recording is in.
pub fn voice_file(name: &str) -> String {
    format!("voice-{name}.flac")
}
