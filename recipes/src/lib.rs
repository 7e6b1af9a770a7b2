//! Recordings to models. For now: the scores by which a recogniser is judged, and the log of what a run measures.

pub mod metrics;
pub mod metrics_log;
