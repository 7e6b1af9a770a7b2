//! What is done to products before they are written.

use super::functions::cumulative;
use super::gemm::{Columns, N_COLUMNS};
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

    /// Writes a panel's part of rows, from column `first` on. Rows end where they do, before the panel does or after it.
    pub(super) fn finish(
        self,
        set: InstructionSet,
        values: &mut [Columns],
        rows: &mut [&mut [f32]],
        first: usize,
    ) {
        // All rows at once: what one of them waits for, the others do not.
        add_bias(set, values, self.bias.unwrap_or_default());
        if self.post_op == PostOp::Gelu {
            gelu(set, Columns::flatten_mut(values));
        }
        for (values, row) in values.iter_mut().zip(rows) {
            let out = &mut row[first..];
            if self.post_op == PostOp::Add {
                values.0.iter_mut().zip(&*out).for_each(|(value, out)| *value += *out);
            }
            match out.first_chunk_mut() {
                Some(out) => *out = values.0, // of known length: no call
                None => out.copy_from_slice(&values.0[..out.len()]),
            }
        }
    }
}

vectorised! {
    fn add_bias(values: &mut [Columns], bias: &[f32]) {
        if bias.is_empty() {
            return;
        }
        // Of known length; the last panel's ends earlier.
        let mut panel = [0f32; N_COLUMNS];
        panel.iter_mut().zip(bias).for_each(|(to, bias)| *to = *bias);
        for values in values {
            values.0.iter_mut().zip(&panel).for_each(|(value, bias)| *value += *bias);
        }
    }

    fn gelu(values: &mut [f32]) {
        for value in values {
            *value *= cumulative(*value);
        }
    }
}
