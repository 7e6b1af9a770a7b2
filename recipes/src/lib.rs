//! Recordings to models: what training data looks like to a trainer, and the scores by which a recogniser is judged.

pub mod data;
pub mod metrics;
pub mod plot;
