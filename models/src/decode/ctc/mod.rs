//! What a CTC model says (Graves et al., ICML 2006): by the best id of each frame, by the sum over all paths that spell the same,
//! and when, given what was said.

mod align;
mod heard;
mod prefix_beam;

pub use align::{AlignedLabel, ctc_align};
pub use heard::CtcHeard;
pub use prefix_beam::{CtcHypothesis, ctc_beam};

use crate::kernels::{argmax, log_sum_exp};

/// Scores (T, V) of the frames of one row to the ids that the best path spells. Of equally good ids the first counts.
pub fn ctc_greedy(scores: &[f32], n_ids: usize, blank: u32) -> Vec<u32> {
    ctc_collapse(scores.chunks_exact(n_ids.max(1)).map(|scores| argmax(scores) as u32), blank)
}

/// What a path spells: a run of equal ids is one, blanks are none and part equal ids.
pub fn ctc_collapse(path: impl IntoIterator<Item = u32>, blank: u32) -> Vec<u32> {
    let mut path: Vec<u32> = path.into_iter().collect();
    path.dedup();
    path.retain(|id| *id != blank);
    path
}

/// Logits (T, V) of one row to log-probabilities.
pub fn ctc_log_probs(logits: &mut [f32], n_ids: usize) {
    for logits in logits.chunks_exact_mut(n_ids.max(1)) {
        let total = log_sum_exp(logits);
        logits.iter_mut().for_each(|logit| *logit -= total);
    }
}

/// `ln(e^a + e^b)`.
fn log_add(a: f32, b: f32) -> f32 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f32::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_one_and_blanks_part_them() {
        assert_eq!(ctc_collapse([0, 3, 3, 0, 3, 0, 0, 1, 2, 2], 0), [3, 3, 1, 2]);
        assert_eq!(ctc_collapse([3, 3, 2, 0, 0], 3), [2, 0]);
        assert!(ctc_collapse([0, 0], 0).is_empty() && ctc_collapse([], 0).is_empty());
    }

    #[test]
    fn each_frame_says_its_best_id() {
        let scores = [[0.0, 2.0, 1.0], [0.5, 0.7, 0.7], [9.0, -1.0, 8.0], [-3.0, -2.0, -1.0]];
        assert_eq!(ctc_greedy(scores.as_flattened(), 3, 0), [1, 2]);
        assert!(ctc_greedy(&[], 3, 0).is_empty());
    }
}
