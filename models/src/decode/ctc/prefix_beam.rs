//! Prefix beam search (Graves and Jaitly, ICML 2014; Hannun et al., arXiv 1408.2873, algorithm 1 without a language model): paths
//! that spell the same count together.

use std::collections::HashMap;

use super::super::search::largest;
use super::log_add;

/// A text that a CTC model may have heard.
#[derive(Debug, Clone, PartialEq)]
pub struct CtcHypothesis {
    /// What is spelled, without blanks.
    pub ids: Vec<u32>,
    /// Log-probability: of all paths that were kept and spell it.
    pub logprob: f32,
}

/// A prefix: the one before it, and its last id. Prefixes are numbered as they are first met.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Prefix {
    before: usize,
    id: u32,
}

/// Log-probabilities of all paths to a prefix.
#[derive(Clone, Copy)]
struct Score {
    /// Of those that end in a blank.
    blank: f32,
    /// Of those that end in the prefix's last id.
    id: f32,
}

impl Score {
    const NONE: Self = Self { blank: f32::NEG_INFINITY, id: f32::NEG_INFINITY };

    fn total(self) -> f32 {
        log_add(self.blank, self.id)
    }
}

/// The most probable texts of one row, the best first, at most `beam`: by log-probabilities (T, V) of its frames. Of equally
/// probable ones the first that was met comes first.
pub fn ctc_beam(logprobs: &[f32], n_ids: usize, blank: u32, beam: usize) -> Vec<CtcHypothesis> {
    let beam = beam.max(1);
    // The first stands for the empty text and is its own.
    let mut prefixes = vec![Prefix { before: 0, id: blank }];
    let mut numbers: HashMap<Prefix, usize> = HashMap::new();
    let mut kept = vec![(0, Score { blank: 0.0, id: f32::NEG_INFINITY })];
    for frame in logprobs.chunks_exact(n_ids.max(1)) {
        let likely = likeliest(frame, blank, beam);
        let of_blank = frame.get(blank as usize).copied().unwrap_or(f32::NEG_INFINITY);
        // In the order in which they are met, so that equals keep it.
        let mut scores: Vec<(usize, Score)> = Vec::with_capacity(kept.len() * (likely.len() + 1));
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut at = |scores: &mut Vec<(usize, Score)>, prefix: usize| {
            *places.entry(prefix).or_insert_with(|| {
                scores.push((prefix, Score::NONE));
                scores.len() - 1
            })
        };
        for (prefix, score) in &kept {
            let place = at(&mut scores, *prefix);
            let stays = &mut scores[place].1;
            stays.blank = log_add(stays.blank, score.total() + of_blank);
            let is_empty = *prefix == 0;
            let last = prefixes[*prefix].id;
            if !is_empty && let Some(again) = frame.get(last as usize) {
                stays.id = log_add(stays.id, score.id + again);
            }
            for id in &likely {
                // The same id once more is another only after a blank.
                let from = if !is_empty && *id == last { score.blank } else { score.total() };
                if from == f32::NEG_INFINITY {
                    continue;
                }
                let longer = Prefix { before: *prefix, id: *id };
                let number = *numbers.entry(longer).or_insert_with(|| {
                    prefixes.push(longer);
                    prefixes.len() - 1
                });
                let place = at(&mut scores, number);
                let grows = &mut scores[place].1;
                grows.id = log_add(grows.id, from + frame[*id as usize]);
            }
        }
        scores.sort_by(|a, b| b.1.total().total_cmp(&a.1.total()));
        scores.truncate(beam);
        kept = scores;
    }
    let spelled = |mut prefix: usize| {
        let mut ids = Vec::new();
        while prefix != 0 {
            ids.push(prefixes[prefix].id);
            prefix = prefixes[prefix].before;
        }
        ids.reverse();
        ids
    };
    kept.into_iter()
        .map(|(prefix, score)| CtcHypothesis { ids: spelled(prefix), logprob: score.total() })
        .collect()
}

/// The ids that a frame says most likely, as many as prefixes are kept: a prefix that grows by another one is none of the best.
fn likeliest(frame: &[f32], blank: u32, n: usize) -> Vec<u32> {
    let mut best = largest(frame, n + 1);
    best.retain(|id| *id != blank);
    best.truncate(n);
    best
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{ctc_collapse, ctc_log_probs};
    use super::*;
    use crate::kernels::test_support::noise;

    /// Every path there is.
    fn exhaustive(logprobs: &[f32], n_ids: usize, blank: u32) -> Vec<(Vec<u32>, f64)> {
        let n_frames = logprobs.len() / n_ids;
        let mut texts: BTreeMap<Vec<u32>, f64> = BTreeMap::new();
        for path in 0..n_ids.pow(n_frames as u32) {
            let ids: Vec<u32> = (0..n_frames).map(|t| (path / n_ids.pow(t as u32) % n_ids) as u32).collect();
            let logprob: f32 = ids.iter().enumerate().map(|(t, id)| logprobs[t * n_ids + *id as usize]).sum();
            *texts.entry(ctc_collapse(ids, blank)).or_default() += f64::from(logprob).exp();
        }
        let mut texts: Vec<_> = texts.into_iter().collect();
        texts.sort_by(|a, b| b.1.total_cmp(&a.1));
        texts
    }

    #[test]
    fn a_wide_beam_finds_the_sums_over_all_paths() {
        for (seed, n_ids, n_frames, blank) in [(1, 3, 5, 0), (2, 4, 5, 3), (3, 2, 6, 1), (4, 3, 1, 0)] {
            let mut logprobs: Vec<f32> = noise(n_ids * n_frames, seed).iter().map(|x| 3.0 * x).collect();
            ctc_log_probs(&mut logprobs, n_ids);
            let expected = exhaustive(&logprobs, n_ids, blank);
            let found = ctc_beam(&logprobs, n_ids, blank, 1000);
            assert_eq!(found.len(), expected.len());
            for (found, (ids, probability)) in found.iter().zip(&expected) {
                assert!((f64::from(found.logprob).exp() - probability).abs() < 1e-5, "{ids:?}");
            }
            assert_eq!(found[0].ids, expected[0].0);
        }
    }

    #[test]
    fn paths_count_together_where_the_best_of_them_does_not_win() {
        // Blank twice is the best path, and `1` by any of three paths more probable than nothing.
        let mut logprobs = [0.6f32, 0.4, 0.6, 0.4].map(f32::ln);
        ctc_log_probs(&mut logprobs, 2);
        assert!(
            ctc_beam(&logprobs, 2, 0, 2)[0].ids == [1]
                && super::super::ctc_greedy(&logprobs, 2, 0).is_empty()
        );
        assert_eq!(ctc_beam(&[], 2, 0, 4), [CtcHypothesis { ids: vec![], logprob: 0.0 }]);
    }
}
