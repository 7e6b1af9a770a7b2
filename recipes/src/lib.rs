//! Recordings to models. For now: the scores by which a recogniser is judged.

pub mod metrics;
pub mod plot;
