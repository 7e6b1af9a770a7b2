//! What can go wrong between lengths and batches.

/// Failure of choosing buckets, batch sizes or batches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting makes no sense.
    #[error("{name} = {value}: {message}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it and what is allowed.
        message: String,
    },
    /// A bucket of a table makes no sense.
    #[error("bucket {bucket}: {message}")]
    Bucket {
        /// Index in the table.
        bucket: usize,
        /// What is wrong with it.
        message: String,
    },
    /// There is nothing to make batches of.
    #[error(
        "none of {n_items} items can be used: look at the rejections, and at the limits or buckets behind them"
    )]
    NothingAccepted {
        /// Items that were offered.
        n_items: usize,
    },
    /// An epoch would have no step.
    #[error(
        "no step can be filled on {world_size} ranks: {n_batches} full batches of {n_accepted} items are too few; \
         lower the budget, use fewer buckets or ranks, or do not drop the last batches"
    )]
    EmptyEpoch {
        /// Items that were accepted.
        n_accepted: usize,
        /// Batches that they fill.
        n_batches: usize,
        /// Ranks that need one each.
        world_size: usize,
    },
    /// There are more items than an epoch's plan can number.
    #[error("{n_items} items: at most {} can be sampled from; split the manifest", u32::MAX)]
    TooManyItems {
        /// Items that were offered.
        n_items: usize,
    },
    /// A rank that does not exist.
    #[error("rank {rank}: there are {world_size} ranks, counted from 0")]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// Ranks that there are.
        world_size: usize,
    },
    /// Not even one item of a bucket fits into memory.
    #[error(
        "bucket {bucket}: not even one item of {duration_secs} s and {n_tokens} tokens fits into memory; shorten \
         what is accepted, or use a smaller model, a shorter data type or gradient checkpointing"
    )]
    Unfit {
        /// Index in the table.
        bucket: usize,
        /// Longest item that the bucket takes.
        duration_secs: f64,
        /// Most tokens that the bucket takes.
        n_tokens: u32,
    },
    /// A trial of a batch size failed for another reason than memory.
    #[error("bucket {bucket}: the trial of {batch_size} items failed")]
    Trial {
        /// Index in the table.
        bucket: usize,
        /// Items that were tried.
        batch_size: usize,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
    /// Stored batch sizes were found for something else.
    #[error("the batch sizes were found for {field} `{stored}` and this run has `{wanted}`: search again")]
    OtherProfile {
        /// What differs.
        field: &'static str,
        /// Its stored value.
        stored: String,
        /// Its value in this run.
        wanted: String,
    },
}

impl Error {
    #[expect(clippy::needless_pass_by_value, reason = "callers hand over values that they just looked at")]
    pub(crate) fn setting(name: &'static str, value: impl ToString, message: impl Into<String>) -> Self {
        Self::Setting { name, value: value.to_string(), message: message.into() }
    }
}
