//! Connectionist temporal classification of the encoder's states: they learn to read the text on their own, one token or none
//! for each position. As an auxiliary loss it keeps an encoder aligned with the speech; alone it trains an encoder first.

use candle_core::Tensor;
use models::nn::{CtcTargets, Linear, ctc};
use serde::{Deserialize, Serialize};

use crate::Error;

/// `[loss.ctc]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ctc {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
}

impl Ctc {
    /// What the sum is divided by: the tokens of the texts that have positions enough. The others add nothing to it.
    pub fn weight(texts: &[Vec<u32>], n_positions: &[usize]) -> f64 {
        let targets = targets(texts, n_positions, 0);
        let feasible = texts.iter().enumerate().filter(|(row, _)| targets.is_feasible(*row));
        feasible.map(|(_, text)| text.len().max(1) as f64).sum()
    }

    /// The sum over utterances, given hidden states (B, T, D) of which `n_positions` of each row mean something. The last
    /// id that `head` knows is the blank.
    ///
    /// # Errors
    /// Texts with ids that the head does not know.
    pub fn sum(
        &self,
        head: &Linear,
        encoded: &Tensor,
        n_positions: &[usize],
        texts: &[Vec<u32>],
    ) -> Result<Tensor, Error> {
        let logits = head.forward(encoded)?; // (B, T, V)
        let blank = logits.dim(2)?.saturating_sub(1) as u32;
        Ok(ctc(&logits, targets(texts, n_positions, blank))?)
    }
}

fn targets(texts: &[Vec<u32>], n_positions: &[usize], blank: u32) -> CtcTargets {
    let weights = vec![1.0; texts.len()];
    CtcTargets { labels: texts.to_vec(), lengths: n_positions.to_vec(), weights, blank }
}
