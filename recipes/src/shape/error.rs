//! Why no shape can be planned.

use std::path::PathBuf;

/// Failure of planning a shape.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A table of runs cannot be read.
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Table {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<u64>,
        /// What is wrong and what is expected.
        message: String,
    },
    /// A run cannot be fitted.
    #[error("run {run}: {message}")]
    Run {
        /// Its name.
        run: String,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// The law has four parameters, which the runs don't determine.
    #[error("the runs do not determine the form: {0}")]
    Undetermined(String),
    /// There is no model within a budget.
    #[error("{budget}: {message}")]
    Budget {
        /// The budget, as it was asked for.
        budget: String,
        /// Why not, and what is the least.
        message: String,
    },
    /// The law splits nothing.
    #[error("{budget}: no split is recommended: {message}")]
    Unsplit {
        /// The budget, as it was asked for.
        budget: String,
        /// Why not, and what to do.
        message: String,
    },
    /// Times say nothing about sizes.
    #[error("latency: {0}")]
    Latency(String),
}
