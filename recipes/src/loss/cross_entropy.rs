//! Cross-entropy of the decoder's next tokens, with label smoothing.

use candle_core::Tensor;
use models::Decoder;
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
    /// The weighted sum over the positions of hidden states (B, U, D). `labels` and `weights` have B times U values. Only
    /// positions that count get logits: padding and prompts cost nothing.
    ///
    /// # Errors
    /// Labels that do not fit.
    pub fn sum(
        &self,
        decoder: &Decoder,
        hidden: &Tensor,
        labels: &[u32],
        weights: &[f32],
    ) -> Result<Tensor, Error> {
        let counted = (0u32..).zip(labels.iter().zip(weights)).filter(|(_, (_, weight))| **weight != 0.0);
        let (mut rows, mut targets) = (
            Vec::new(),
            Targets { labels: Vec::new(), weights: Vec::new(), smoothing: self.label_smoothing },
        );
        for (row, (label, weight)) in counted {
            rows.push(row);
            targets.labels.push(*label);
            targets.weights.push(*weight);
        }
        let n_rows = rows.len();
        let rows = Tensor::from_vec(rows, n_rows, hidden.device())?;
        let hidden = hidden.flatten(0, 1)?.index_select(&rows, 0)?; // (N, D)
        Ok(cross_entropy(&decoder.logits(&hidden)?, targets)?)
    }
}
