//! Cross-entropy of the decoder's next tokens, with label smoothing.

use candle_core::Tensor;
use models::nn::{Targets, cross_entropy};
use serde::{Deserialize, Serialize};

use crate::Error;

/// `[loss.cross_entropy]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossEntropy {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
    /// The share of a target that all tokens have in common.
    pub label_smoothing: f32,
}

impl CrossEntropy {
    /// The weighted sum over positions with logits (N, V).
    ///
    /// # Errors
    /// Labels that do not fit.
    pub fn sum(&self, logits: &Tensor, labels: Vec<u32>, weights: Vec<f32>) -> Result<Tensor, Error> {
        Ok(cross_entropy(logits, Targets { labels, weights, smoothing: self.label_smoothing })?)
    }
}
