//! What is trained: from a batch to the terms of its loss. The loop knows nothing else of a model.

pub mod transcribe;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Tensor, Var};

use crate::Error;

/// A term of a batch's loss, before it is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Its name in logs, such as `cross_entropy`.
    pub name: &'static str,
    /// Its share in what is minimised.
    pub scale: f64,
    /// What its sum runs over: tokens, utterances. An update divides the sum over all its batches by all their weights, so
    /// that neither accumulation nor the division into batches changes it.
    pub weight: f64,
}

/// What a batch is made of, padding included.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Extent {
    /// Cuts in it.
    pub n_cuts: usize,
    /// Seconds of audio.
    pub audio_secs: f64,
    /// Seconds that are computed: cuts times the longest.
    pub padded_secs: f64,
    /// Output tokens.
    pub n_tokens: usize,
    /// Output tokens that are computed.
    pub padded_tokens: usize,
}

impl Extent {
    /// Counts another batch in.
    pub fn add(&mut self, other: Self) {
        self.n_cuts += other.n_cuts;
        self.audio_secs += other.audio_secs;
        self.padded_secs += other.padded_secs;
        self.n_tokens += other.n_tokens;
        self.padded_tokens += other.padded_tokens;
    }
}

/// Figures of an evaluation by name, such as `wer`.
pub type Figures = BTreeMap<String, f64>;

/// What is trained.
pub trait Task: Sync {
    /// What one forward pass takes.
    type Batch: Send + Sync;

    /// The trained parameters, in order of name.
    fn vars(&self) -> Vec<(String, Var)>;

    /// What a batch is made of.
    fn extent(&self, batch: &Self::Batch) -> Extent;

    /// The terms of its loss.
    fn terms(&self, batch: &Self::Batch) -> Vec<Term>;

    /// The terms' sums, each a scalar that tracks gradients.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn sums(&self, batch: &Self::Batch) -> Result<Vec<Tensor>, Error>;

    /// How good the model is as it is now, on recordings that are not trained on. Runs what serving runs, on the live
    /// weights.
    ///
    /// # Errors
    /// Recordings that cannot be read, tensor operations that fail.
    fn evaluate(&self) -> Result<Figures, Error>;

    /// Writes the model as it is now into `dir` as a bundle.
    ///
    /// # Errors
    /// What the disk refuses.
    fn save(&self, dir: &Path) -> Result<(), Error>;
}
