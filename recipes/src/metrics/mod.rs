//! The scores by which a recogniser, a translator and a synthesiser are judged. All are sums over a corpus, never means of means.

mod alignment;
mod analysis;
mod bleu;
mod bootstrap;
mod chrf;
mod compare;
mod errors;
mod ngrams;
mod report;
mod score;
mod speech_distance;
mod ter;

pub use alignment::{Alignment, Edit, align, edit_distance};
pub use analysis::{Analysis, Confusion, Endings, Letter, OtherRates, RowErrors, ScriptUse};
pub use bleu::{Bleu, BleuOptions, BleuScore, BleuStatistics, BleuTokenizer, Smoothing};
pub use bootstrap::{Interval, Resampling};
pub use chrf::{Chrf, ChrfOptions, ChrfStatistics};
pub use compare::{Comparison, compare};
pub use errors::{Errors, character_errors, characters, word_errors, words};
pub(crate) use report::percent;
pub use report::{Bucket, Rate, Report, TranslationScore, WorstUtterance};
pub use score::{Score, ScoreOptions};
pub use speech_distance::{SpeechComparer, SpeechDistance};
pub use ter::{Ter, TerOptions, TerStatistics};

use crate::text;

/// Why there is no score.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The normaliser cannot be made.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// A pattern of a tokeniser does not compile.
    #[error(transparent)]
    Pattern(#[from] regex::Error),
    /// An option has a value that it cannot have.
    #[error("{option}: {message}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What is wrong with the value and what is allowed.
        message: String,
    },
    /// An utterance cannot be scored.
    #[error("utterance {index}: {message}")]
    Utterance {
        /// Its place in the order of adding, from 0.
        index: usize,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// A waveform cannot be compared.
    #[error(transparent)]
    Audio(#[from] audio::Error),
    /// Nothing was added.
    #[error("there is nothing to score: add at least one utterance")]
    Empty,
    /// Two systems were not scored on the same utterances.
    #[error("the systems cannot be compared: {0}")]
    Unpaired(String),
}
