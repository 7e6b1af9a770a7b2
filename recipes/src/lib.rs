//! Recordings to models. For now: the scores by which a recogniser is judged, and what is done to texts before.

#[cfg(test)]
mod fixtures;
pub mod metrics;
pub mod text;
