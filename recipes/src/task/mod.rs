//! What is trained: from a batch to the terms of its loss. The loop knows nothing else of a model.

mod figures;
mod kept;
mod parts;
mod plans;
pub mod speak;
pub mod transcribe;
pub mod translate_text;
pub mod vocode;

use std::path::Path;

use candle_core::{Device, Tensor, Var};
use models::params::Params;
use models::{Tokenizer, WeightDtype};

pub use self::figures::{Figures, is_better};
use crate::Error;
use crate::data::EpochPadding;
use crate::loader::Source;
use crate::sound_figure::SoundPair;

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

/// Terms of several batches together.
#[derive(Debug, Default)]
pub(crate) struct Totals(Vec<(Term, f64)>);

impl Totals {
    /// Counts the weights of a batch's terms in.
    pub fn weigh(&mut self, terms: &[Term]) {
        for term in terms {
            match self.0.iter_mut().find(|(total, _)| total.name == term.name) {
                Some((total, _)) => total.weight += term.weight,
                None => self.0.push((*term, 0.0)),
            }
        }
    }

    /// Adds to the sum of a term that was weighed.
    pub fn add(&mut self, name: &str, sum: f64) {
        if let Some((_, total)) = self.0.iter_mut().find(|(term, _)| term.name == name) {
            *total += sum;
        }
    }

    /// What a term weighs in all batches.
    pub fn weight(&self, name: &str) -> f64 {
        self.0.iter().find(|(term, _)| term.name == name).map_or(0.0, |(term, _)| term.weight)
    }

    /// The terms with their weights and sums of all batches, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (Term, f64)> {
        self.0.iter().copied()
    }
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
    /// Rows that are too short for their text: CTC has nothing to say of them.
    pub n_too_short: usize,
}

impl Extent {
    /// Counts another batch in.
    pub fn add(&mut self, other: Self) {
        self.n_cuts += other.n_cuts;
        self.audio_secs += other.audio_secs;
        self.padded_secs += other.padded_secs;
        self.n_tokens += other.n_tokens;
        self.padded_tokens += other.padded_tokens;
        self.n_too_short += other.n_too_short;
    }
}

/// A group of parameters beside a model's, and the loss that it learns by: discriminators, which the model learns against. It is trained
/// on the same batches after the model, by an optimiser of its own. Checkpoints hold it, and bundles do not.
pub trait Phase<B>: Sync {
    /// What its files in a checkpoint are called.
    fn name(&self) -> &'static str;

    /// Its parameters, in order of name.
    fn vars(&self) -> Vec<(String, Var)>;

    /// Told how often it was updated before a run goes on.
    fn resume(&self, _n_updates: u64) {}

    /// Its learning rate in an update in which the model's is `rate`.
    fn learning_rate(&self, rate: f64) -> f64 {
        rate
    }

    /// The terms of a batch's loss; none where its time has not come.
    fn terms(&self, batch: &B) -> Vec<Term>;

    /// The terms' sums, each a scalar that tracks gradients.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn sums(&self, batch: &B) -> Result<Vec<Tensor>, Error>;
}

/// What is trained.
pub trait Task: Sync {
    /// What one forward pass takes.
    type Batch: Send + Sync;

    /// The trained parameters, in order of name.
    fn vars(&self) -> Vec<(String, Var)>;

    /// What follows training without a gradient, such as a norm's running statistics, in order of name.
    fn statistics(&self) -> Vec<(String, Var)> {
        Vec::new()
    }

    /// Lets the statistics follow the batches of an update, or forget them where it was skipped.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn follow(&self, _is_kept: bool) -> Result<(), Error> {
        Ok(())
    }

    /// What is trained beside the model, each by a loss of its own: nothing but for adversarial training.
    fn further_phases(&self) -> Vec<&dyn Phase<Self::Batch>> {
        Vec::new()
    }

    /// Told before each update, from 1 to `n_steps`, by tasks whose losses change on the way.
    fn begin(&self, _step: u64, _n_steps: u64) {}

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

/// Batches that are planned epoch by epoch.
pub trait Data: Source {
    /// Identifies what is learnt, and in which order.
    fn digest(&self) -> &str;

    /// What the batches of an epoch waste, and what is in none of them.
    ///
    /// # Errors
    /// An epoch of which nothing can be used.
    fn padding(&self, epoch: u64) -> Result<EpochPadding, Error>;

    /// The batch of an epoch that costs most.
    ///
    /// # Errors
    /// An epoch of which nothing can be used.
    fn heaviest(&self, epoch: u64) -> Result<usize, Error>;
}

/// A task whose model becomes a bundle.
pub trait Learner: Task {
    /// What it is built from.
    fn params(&self) -> &Params;

    /// Where it computes.
    fn device(&self) -> &Device {
        self.params().device()
    }

    /// Values that are trained, and all.
    fn n_parameters(&self) -> (u64, u64) {
        let n_trained: usize = self.params().vars().iter().map(|(_, var)| var.elem_count()).sum();
        let n_frozen: usize = self.params().buffers().values().map(Tensor::elem_count).sum();
        (n_trained as u64, (n_trained + n_frozen) as u64)
    }

    /// Values that are trained and that the bundle leaves out.
    fn n_left_out(&self) -> u64;

    /// Identifies what the model is judged by, and how.
    fn held_out_digest(&self) -> String;

    /// What it makes of some of what was held out, to be looked at and listened to; nothing for models that make no sound.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn sounds(&self) -> Result<Vec<SoundPair>, Error> {
        Ok(Vec::new())
    }

    /// Writes the model as it is now into `dir`, for use.
    ///
    /// # Errors
    /// What the disk refuses, weights that the type cannot hold.
    fn write_bundle(&self, dir: &Path, dtype: WeightDtype) -> Result<(), Error>;

    /// Writes what is trained beside the model `base` as an adapter into `dir`.
    ///
    /// # Errors
    /// A model beside which nothing is trained, what the disk refuses.
    fn write_adapter(&self, dir: &Path, base: &str, dtype: WeightDtype) -> Result<(), Error>;
}

/// Words begin with their space, the first one too, where a language has spaces at all: so do Whisper's texts.
fn encode(tokenizer: &Tokenizer, text: &str, language: Option<&str>) -> Result<Vec<u32>, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    Ok(match language.is_some_and(Tokenizer::is_unspaced) {
        true => tokenizer.encode(text)?,
        false => tokenizer.encode(&format!(" {text}"))?,
    })
}
