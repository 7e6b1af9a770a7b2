//! What can go wrong between a manifest and a model, as far as a caller has to tell the cases apart.

use std::path::{Path, PathBuf};

/// Failure of preparing data or of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A setting makes no sense.
    #[error("{key}: {message}")]
    Config {
        /// Its key in the recipe, with dots.
        key: String,
        /// What is wrong with the value and what is allowed.
        message: String,
    },
    /// The first stage of a training in stages did not come far enough for a second.
    #[error("stage A did not pass: its word error rate is {}, and at most {gate} is asked (strategy.stage.gate), so stage B was not begun; raise the gate (--gate), or train it longer (strategy.stage.max_steps): it goes on from where it is", told(*wer))]
    Gate {
        /// Its word error rate, where there is one.
        wer: Option<f64>,
        /// What it may be at most.
        gate: f64,
    },
    /// Somebody asked for an end before training began; what was done is kept.
    #[error("stopped: {0}")]
    Stopped(String),
    /// A model or a bundle refuses.
    #[error(transparent)]
    Model(#[from] models::Error),
    /// A recording cannot be read.
    #[error(transparent)]
    Audio(#[from] audio::Error),
    /// A manifest or a corpus is of no use.
    #[error(transparent)]
    Manifest(#[from] crate::data::manifest::Error),
    /// Lengths cannot become batches.
    #[error(transparent)]
    Sampling(#[from] crate::data::Error),
    /// A score cannot be computed.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::Error),
    /// The log of a run cannot be written.
    #[error(transparent)]
    Log(#[from] crate::metrics_log::Error),
    /// No shape can be planned.
    #[error(transparent)]
    Shape(#[from] crate::shape::Error),
    /// A plot cannot be drawn.
    #[error(transparent)]
    Plot(#[from] crate::plot::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

fn told(value: Option<f64>) -> String {
    value.map_or_else(|| "not known".to_owned(), |value| format!("{value:.4}"))
}

impl Error {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over errors and texts that they just made"
    )]
    pub(crate) fn file(path: &Path, message: impl ToString) -> Self {
        Self::File { path: path.to_owned(), message: message.to_string() }
    }

    pub(crate) fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { key: key.into(), message: message.into() }
    }
}
