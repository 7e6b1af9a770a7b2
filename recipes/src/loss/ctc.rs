//! Connectionist temporal classification of the encoder's states: they learn to read the text on their own, one token or none
//! for each position. As an auxiliary loss it keeps an encoder aligned with the speech; alone it trains an encoder first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use models::decode::ctc_greedy;
use models::nn::{CtcTargets, Linear, ctc};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Tokens that are told apart at most: each costs an output at every position.
const MAX_TOKENS: usize = 4000;

/// `[loss.ctc]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ctc {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
}

/// The tokens that CTC tells apart: those of the texts that are trained on, as one language uses a part of the fifty thousand that
/// a model of a hundred languages knows; of very many the most frequent. To CTC the others are not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CtcVocabulary {
    /// Ascending, each once.
    ids: Vec<u32>,
}

impl CtcVocabulary {
    /// The vocabulary of a text, or of many one after the other.
    pub fn of(text: impl IntoIterator<Item = u32>) -> Self {
        Self::with_most(text, MAX_TOKENS)
    }

    /// All tokens of a model whose head tells all of its vocabulary apart.
    ///
    /// # Errors
    /// A blank that is not the last of them.
    pub fn whole(n_vocab: usize, blank: u32) -> Result<Self, Error> {
        if blank as usize + 1 != n_vocab {
            let message =
                format!("the blank {blank} is not the last of {n_vocab} tokens, as training has it");
            return Err(Error::config("model.base", message));
        }
        Ok(Self { ids: (0..blank).collect() })
    }

    /// These tokens, in ascending order, each once.
    pub fn of_tokens(ids: &[u32]) -> Self {
        Self { ids: ids.to_vec() }
    }

    /// These tokens and those of another one.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let ids: BTreeSet<u32> = self.ids.into_iter().chain(other.ids.iter().copied()).collect();
        Self { ids: ids.into_iter().collect() }
    }

    /// The tokens, in ascending order.
    pub fn tokens(&self) -> &[u32] {
        &self.ids
    }

    fn with_most(text: impl IntoIterator<Item = u32>, max: usize) -> Self {
        let mut counts = BTreeMap::<u32, usize>::new();
        text.into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| Reverse(*count)); // stable: of equally frequent ones the lower id
        counts.truncate(max);
        let mut ids: Vec<_> = counts.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        Self { ids }
    }

    /// Outputs of a head: the tokens, and after them the blank.
    pub fn n_outputs(&self) -> usize {
        self.ids.len() + 1
    }

    /// The tokens of a text that the best path through a head's logits (T, V) spells.
    pub fn read(&self, logits: &[f32]) -> Vec<u32> {
        let labels = ctc_greedy(logits, self.n_outputs(), self.ids.len() as u32);
        labels.into_iter().filter_map(|label| self.ids.get(label as usize).copied()).collect()
    }

    /// What a head should write for texts of which each has so many positions.
    pub fn targets(&self, texts: &[Vec<u32>], n_positions: &[usize]) -> CtcTargets {
        let label = |id: &u32| self.ids.binary_search(id).ok().map(|label| label as u32);
        CtcTargets {
            labels: texts.iter().map(|text| text.iter().filter_map(label).collect()).collect(),
            lengths: n_positions.to_vec(),
            weights: vec![1.0; texts.len()],
            blank: self.ids.len() as u32,
        }
    }
}

impl Ctc {
    /// What the sum is divided by: the tokens of the texts that have positions enough. The others add nothing to it.
    pub fn weight(targets: &CtcTargets) -> f64 {
        let rows = targets.labels.iter().zip(&targets.weights).enumerate();
        let feasible = rows.filter(|(row, _)| targets.is_feasible(*row));
        feasible.map(|(_, (labels, weight))| f64::from(*weight) * labels.len().max(1) as f64).sum()
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
    fn tokens_are_numbered_and_others_are_not_there() {
        let vocabulary = CtcVocabulary::of([900, 7, 50, 7]);
        assert_eq!(vocabulary.n_outputs(), 4);
        let texts = [vec![50, 7, 900], vec![7, 8], vec![], vec![7, 7, 7]];
        let targets = vocabulary.targets(&texts, &[3, 9, 9, 4]);
        assert_eq!(targets.labels, [vec![1, 0, 2], vec![0], vec![], vec![0, 0, 0]]);
        assert_eq!((targets.weights.as_slice(), targets.blank), ([1.0; 4].as_slice(), 3));
        // The last has too few positions: equal tokens need a blank between them.
        assert_eq!(Ctc::weight(&targets), 5.0);
        // Neither does a row that does not count.
        let targets = CtcTargets { weights: vec![0.0, 1.0, 1.0, 1.0], ..targets };
        assert_eq!(Ctc::weight(&targets), 2.0);
        // What a head writes is read by the same numbers.
        let [a, b, c, blank] = [0, 1, 2, 3].map(|at| (0..4).map(move |i| if i == at { 1.0 } else { 0.0 }));
        let logits: Vec<f32> =
            blank.clone().chain(b.clone()).chain(b).chain(blank).chain(c).chain(a).collect();
        assert_eq!(vocabulary.read(&logits), [50, 900, 7]);
        // Of many the most frequent.
        assert_eq!(CtcVocabulary::with_most([9, 9, 3, 3, 1, 5, 5, 5], 2).ids, [3, 5]);
        assert_eq!(vocabulary.and(&CtcVocabulary::of([8, 7])).ids, [7, 8, 50, 900]);
    }
}
