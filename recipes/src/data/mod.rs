//! Training data: manifests of cuts ([`manifest`]), what is in them ([`stats`]) and what is wrong with them ([`check`]); and from
//! lengths to batches.
//!
//! Batches are made by metadata alone: no sampling reads a file or makes a tensor.
//! [`BucketEstimate`] finds a [`BucketTable`] in a list of [`Length`]s; a [`Sampler`] turns lengths, table, [`Constraint`]
//! and seed into the batches of any epoch; [`Padding`] counts what they waste and [`compare`] what other ways would. What
//! no batch takes is counted by [`Rejection`] and language. Batch sizes that fit into memory come from a [`BatchSizeSearch`]
//! over a [`MemoryOracle`]; [`BucketPlan`] shows what a run will do.
//!
//! NVIDIA's Canary training (2-D buckets, searched batch sizes, synchronised ranks) with lhotse's terms and rules.

mod admission;
mod batch_size;
mod bucket;
mod bucket_plan;
pub mod check;
mod constraint;
mod count;
mod epoch;
mod error;
mod estimate;
mod glossary;
pub mod histogram;
mod lengths;
#[cfg(test)]
mod lhotse;
pub mod manifest;
mod memory;
mod padding;
pub(crate) mod phonemes;
mod plan;
mod recording;
mod sampler;
pub(crate) mod shuffle;
pub mod stats;
mod table;
pub mod tokens;
mod translations;
mod utterance;

pub use admission::{Admission, LanguageAdmission, LengthLimits, Rejection, TokensPerPosition};
pub use batch_size::{BatchSizeProfile, BatchSizeSearch, BatchSizes, MemoryOracle, ProfileKey, Trial};
pub use bucket::{Bucket, BucketTable, Fit};
pub use bucket_plan::{BucketPlan, PlannedBucket, table_within};
pub use constraint::{Constraint, CountedTokens, Filling};
pub use epoch::{Batch, Batches, Epoch};
pub use error::Error;
pub use estimate::BucketEstimate;
pub use glossary::Glossary;
pub use histogram::Histogram;
pub use lengths::Lengths;
pub use manifest::Cut;
pub use memory::{ModelDims, TrainingMemory};
pub use padding::{BucketPadding, EpochPadding, Padding};
pub use phonemes::Phonemes;
pub use plan::{Comparison, PlanOptions, Strategy, StrategyPadding, compare};
pub use recording::{read_cut, read_cut_at};
pub use sampler::{Sampler, SamplerConfig};
pub use tokens::Tokens;
pub use translations::Translations;
pub use utterance::{JoinConfig, TokenRoom, Utterance, weighted};

use serde::{Deserialize, Serialize};

/// How long an item is at both ends of a model: all that sampling knows about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Length {
    /// Audio, seconds: what the model will hear, so after a change of speed.
    pub duration_secs: f64,
    /// Output tokens, those of the prompt included.
    pub n_tokens: u32,
}

impl Length {
    /// An item of this length.
    pub fn new(duration_secs: f64, n_tokens: u32) -> Self {
        Self { duration_secs, n_tokens }
    }

    /// Output tokens per second of audio.
    pub fn tokens_per_sec(self) -> f64 {
        f64::from(self.n_tokens) / self.duration_secs
    }

    /// Whether there is audio at all.
    pub fn is_valid(self) -> bool {
        self.duration_secs.is_finite() && self.duration_secs > 0.0
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value in a canonical text: `-` for none.
fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
