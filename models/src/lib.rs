//! Features to hypotheses: architectures, layers, kernels and decoding. No HTTP, no datasets, no optimisers.
//!
//! Letters in shape comments: B batch, T frames, F features, D model width, H heads, U tokens, V vocabulary.

mod error;
mod options;
pub mod transcript;

pub use error::Error;
pub use options::{DecodeOptions, Task, Timestamps};
pub use transcript::{Coverage, Gap, GapReason, Segment, Transcript, Word};
