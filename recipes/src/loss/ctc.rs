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

/// The tokens that CTC tells apart: those of the texts that are trained on. One language uses a few hundred of the fifty thousand
/// that a model of a hundred languages knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtcVocabulary {
    /// Ascending, each once.
    ids: Vec<u32>,
}

impl CtcVocabulary {
    /// A vocabulary of all ids that are in `ids`.
    pub fn new(mut ids: Vec<u32>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self { ids }
    }

    /// Outputs of a head: the tokens, and after them the blank.
    pub fn n_outputs(&self) -> usize {
        self.ids.len() + 1
    }

    /// What a head should write for texts of which each has so many positions. A text with a token that is not known counts
    /// nothing.
    pub fn targets(&self, texts: &[Vec<u32>], n_positions: &[usize]) -> CtcTargets {
        let label = |id: &u32| self.ids.binary_search(id).ok().map(|label| label as u32);
        let labels: Vec<Option<Vec<u32>>> =
            texts.iter().map(|text| text.iter().map(label).collect()).collect();
        CtcTargets {
            weights: labels.iter().map(|labels| if labels.is_some() { 1.0 } else { 0.0 }).collect(),
            labels: labels.into_iter().map(Option::unwrap_or_default).collect(),
            lengths: n_positions.to_vec(),
            blank: self.ids.len() as u32,
        }
    }
}

impl Ctc {
    /// What the sum is divided by: the tokens of the texts that count and have positions enough. The others add nothing to it.
    pub fn weight(targets: &CtcTargets) -> f64 {
        let counted = |row: &usize| {
            targets.weights.get(*row).is_some_and(|weight| *weight > 0.0) && targets.is_feasible(*row)
        };
        (0..targets.labels.len()).filter(counted).map(|row| targets.labels[row].len().max(1) as f64).sum()
    }

    /// The sum over utterances, given hidden states (B, T, D) and a head that writes what `targets` call by number.
    ///
    /// # Errors
    /// Targets with ids that the head does not know.
    pub fn sum(&self, head: &Linear, encoded: &Tensor, targets: CtcTargets) -> Result<Tensor, Error> {
        Ok(ctc(&head.forward(encoded)?, targets)?) // logits (B, T, V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_numbered_and_unknown_ones_count_nothing() {
        let vocabulary = CtcVocabulary::new(vec![900, 7, 50, 7]);
        assert_eq!(vocabulary.n_outputs(), 4);
        let texts = [vec![50, 7, 900], vec![7, 8], vec![], vec![7, 7, 7]];
        let targets = vocabulary.targets(&texts, &[3, 9, 9, 4]);
        assert_eq!(targets.labels, [vec![1, 0, 2], vec![], vec![], vec![0, 0, 0]]);
        assert_eq!((targets.weights.as_slice(), targets.blank), ([1.0, 0.0, 1.0, 1.0].as_slice(), 3));
        // The last has too few positions: equal tokens need a blank between them.
        assert_eq!(Ctc::weight(&targets), 4.0);
    }
}
