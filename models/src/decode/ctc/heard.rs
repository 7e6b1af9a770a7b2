//! What a CTC head says of one window, and what is made of it.

use candle_core::Tensor;

use super::{AlignedLabel, ctc_align, ctc_beam, ctc_greedy, ctc_log_probs};
use crate::Error;
use crate::ctc_head::CtcOutputs;
use crate::decode::check_finite;
use crate::nn::Linear;

/// Log-probabilities of every output of a head at every position of a window.
#[derive(Debug, Clone)]
pub struct CtcHeard {
    values: Vec<f32>, // (T, V)
    n_outputs: usize,
    outputs: CtcOutputs,
}

impl CtcHeard {
    /// What `head` says of hidden states (T, D), its outputs being `outputs`.
    pub(crate) fn new(head: &Linear, encoded: &Tensor, outputs: CtcOutputs) -> Result<Self, Error> {
        let logits = head.forward(encoded)?;
        let (_, n_outputs) = logits.dims2()?;
        let mut values = logits.flatten_all()?.to_vec1::<f32>()?;
        check_finite("logits", &values)?;
        ctc_log_probs(&mut values, n_outputs);
        Ok(Self { values, n_outputs, outputs })
    }

    /// The text that is heard: by the best path for a beam of one, else by the best of the sums over paths that a beam keeps.
    pub fn read(&self, beam: usize) -> Vec<u32> {
        let blank = self.outputs.blank(self.n_outputs);
        let heard = match beam {
            0 | 1 => ctc_greedy(&self.values, self.n_outputs, blank),
            _ => {
                let best = ctc_beam(&self.values, self.n_outputs, blank, beam).into_iter().next();
                best.map_or_else(Vec::new, |best| best.ids)
            }
        };
        heard.into_iter().map(|output| self.outputs.token(output)).collect()
    }

    /// When tokens were said, in positions. `None`: they cannot have been, or the head does not know one of them.
    pub fn align(&self, ids: &[u32]) -> Option<Vec<AlignedLabel>> {
        let outputs = ids.iter().map(|id| self.outputs.output(*id)).collect::<Option<Vec<_>>>()?;
        let labels = ctc_align(&self.values, self.n_outputs, self.outputs.blank(self.n_outputs), &outputs)?;
        Some(
            labels
                .into_iter()
                .map(|label| AlignedLabel { id: self.outputs.token(label.id), ..label })
                .collect(),
        )
    }
}
