//! A linear layer by which an encoder reads what it hears on its own (CTC), and what its outputs mean.

use std::sync::Arc;

use candle_core::Tensor;

use crate::Error;
use crate::decode::CtcHeard;
use crate::nn::Linear;

/// Where the weights of a head beside a decoder are, and of one that stands alone.
pub const CTC_HEAD: &str = "ctc_head";
/// Its tensors, which have a row for each output.
pub(crate) const CTC_ROWS: [&str; 2] = ["ctc_head.weight", "ctc_head.bias"];

/// Hidden states to scores of tokens and of the blank, for each position.
pub struct CtcHead {
    linear: Linear,
    outputs: CtcOutputs,
}

/// What the outputs of a head mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CtcOutputs {
    /// Every token of the vocabulary, the blank among them.
    Vocabulary { blank: u32 },
    /// These tokens, in ascending order, and the blank after them.
    Tokens(Arc<[u32]>),
}

impl CtcHead {
    /// Of outputs that are the vocabulary, with this blank.
    pub(crate) fn of_vocabulary(linear: Linear, blank: u32) -> Self {
        Self { linear, outputs: CtcOutputs::Vocabulary { blank } }
    }

    /// Of outputs that are these tokens, in ascending order, and then the blank.
    pub(crate) fn of_tokens(linear: Linear, ids: &[u32]) -> Self {
        Self { linear, outputs: CtcOutputs::Tokens(ids.into()) }
    }

    /// The layer: hidden states (.., D) to logits (.., V).
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    /// What it says of a window's hidden states (T, D).
    ///
    /// # Errors
    /// When a tensor operation fails or gives numbers that are not finite.
    pub fn hear(&self, encoded: &Tensor) -> Result<CtcHeard, Error> {
        CtcHeard::new(&self.linear, encoded, self.outputs.clone())
    }
}

impl CtcOutputs {
    /// The output that is the blank, of `n`.
    pub fn blank(&self, n: usize) -> u32 {
        match self {
            Self::Vocabulary { blank } => *blank,
            Self::Tokens(_) => n.saturating_sub(1) as u32,
        }
    }

    /// The token that an output means.
    pub fn token(&self, output: u32) -> u32 {
        match self {
            Self::Vocabulary { .. } => output,
            Self::Tokens(ids) => ids.get(output as usize).copied().unwrap_or(u32::MAX),
        }
    }

    /// The output that means a token, if one does.
    pub fn output(&self, token: u32) -> Option<u32> {
        match self {
            Self::Vocabulary { .. } => Some(token),
            Self::Tokens(ids) => ids.binary_search(&token).ok().map(|output| output as u32),
        }
    }
}
