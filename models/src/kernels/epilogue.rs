//! What is done to products before they are written.

use super::functions::cumulative;
use super::gemm::N_COLUMNS;
use super::instruction_set::{InstructionSet, vectorised};

/// What is done to a product before it is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to each row.
    pub bias: Option<&'a [f32]>,
    /// What comes after that.
    pub post_op: PostOp,
}

/// The last thing that is done to a product (oneDNN's term).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PostOp {
    /// It is written.
    #[default]
    None,
    /// It goes through the exact GELU.
    Gelu,
    /// It is added to what is there.
    Add,
}

impl<'a> Epilogue<'a> {
    /// A bias, if any, and nothing else.
    pub fn bias(bias: Option<&'a [f32]>) -> Self {
        Self { bias, post_op: PostOp::None }
    }

    /// Whether it goes with a weight of so many outputs.
    pub(super) fn fits(self, n_out: usize) -> bool {
        self.bias.is_none_or(|bias| bias.len() == n_out)
    }

    /// Its part for the columns of panel `i`.
    pub(super) fn of_panel(self, i: usize) -> Self {
        Self { bias: self.bias.map(|bias| &bias[i * N_COLUMNS..]), ..self }
    }

    /// Writes a panel's part of a row. `out` ends where the row does, before the panel or after it.
    pub(super) fn finish(self, set: InstructionSet, values: &mut [f32; N_COLUMNS], out: &mut [f32]) {
        for (value, bias) in values.iter_mut().zip(self.bias.unwrap_or_default()) {
            *value += *bias;
        }
        match self.post_op {
            PostOp::None => {}
            PostOp::Gelu => gelu(set, values),
            PostOp::Add => values.iter_mut().zip(&*out).for_each(|(value, out)| *value += *out),
        }
        match out.first_chunk_mut() {
            Some(out) => *out = *values, // of known length: no call
            None => out.copy_from_slice(&values[..out.len()]),
        }
    }
}

vectorised! {
    fn gelu(values: &mut [f32; N_COLUMNS]) {
        for value in values {
            *value *= cumulative(*value);
        }
    }
}
