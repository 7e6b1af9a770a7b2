//! The scores by which a recogniser and a translator are judged. All are sums over a corpus, never means of means.

mod alignment;
mod bleu;
mod chrf;
mod errors;
mod ngrams;

pub use alignment::{Alignment, Edit, align, edit_distance};
pub use bleu::{Bleu, BleuOptions, BleuScore, BleuStatistics, BleuTokenizer, Smoothing};
pub use chrf::{Chrf, ChrfOptions, ChrfStatistics};
pub use errors::{Errors, character_errors, characters, word_errors, words};

/// Why there is no score.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// Nothing was added.
    #[error("there is nothing to score: add at least one utterance")]
    Empty,
}
