//! What a CTC head says of one window, and what is made of it.

use candle_core::Tensor;

use super::{AlignedLabel, ctc_align, ctc_beam, ctc_greedy, ctc_log_probs};
use crate::Error;
use crate::decode::check_finite;
use crate::nn::Linear;

/// Log-probabilities of every id at every position of a window.
#[derive(Debug, Clone)]
pub struct CtcHeard {
    values: Vec<f32>, // (T, V)
    n_ids: usize,
    blank: u32,
}

impl CtcHeard {
    /// What `head` says of hidden states (T, D).
    ///
    /// # Errors
    /// When a tensor operation fails or gives numbers that are not finite.
    pub fn new(head: &Linear, encoded: &Tensor, blank: u32) -> Result<Self, Error> {
        let logits = head.forward(encoded)?;
        let (_, n_ids) = logits.dims2()?;
        let mut values = logits.flatten_all()?.to_vec1::<f32>()?;
        check_finite("logits", &values)?;
        ctc_log_probs(&mut values, n_ids);
        Ok(Self { values, n_ids, blank })
    }

    /// The text that is heard: by the best path for a beam of one, else by the best of the sums over paths that a beam keeps.
    pub fn read(&self, beam: usize) -> Vec<u32> {
        match beam {
            0 | 1 => ctc_greedy(&self.values, self.n_ids, self.blank),
            _ => {
                let best = ctc_beam(&self.values, self.n_ids, self.blank, beam).into_iter().next();
                best.map_or_else(Vec::new, |best| best.ids)
            }
        }
    }

    /// When ids were said, in positions. `None`: they cannot have been.
    pub fn align(&self, ids: &[u32]) -> Option<Vec<AlignedLabel>> {
        ctc_align(&self.values, self.n_ids, self.blank, ids)
    }
}
