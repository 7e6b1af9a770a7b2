//! What is done to products before they are written.

use super::activation::Activation;
use super::gemm::{Columns, N_COLUMNS, Sum};
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
    /// It goes through an activation.
    Activate(Activation),
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

    /// The same for a tile that ends with it by itself. `None`: it cannot.
    pub(super) fn of_tile(self) -> Option<Sum<'a>> {
        let bias = match self.bias {
            Some(bias) => Some(bias.first_chunk()?),
            None => None,
        };
        (!matches!(self.post_op, PostOp::Activate(_))).then_some(Sum {
            resumed: false,
            bias,
            added: self.post_op == PostOp::Add,
        })
    }

    /// Writes a panel's part of rows, from column `first` on. Rows end where they do, before the panel does or after it.
    pub(super) fn finish(
        self,
        set: InstructionSet,
        products: impl Products,
        rows: &mut [&mut [f32]],
        first: usize,
    ) {
        write(set, products, self.bias, self.post_op, rows, first);
    }
}

/// Products of some rows with a panel.
pub(super) trait Products {
    /// Those of row `i` as numbers.
    fn row(&self, i: usize) -> [f32; N_COLUMNS];
}

impl Products for &[Columns] {
    #[inline(always)]
    fn row(&self, i: usize) -> [f32; N_COLUMNS] {
        self[i].0
    }
}

vectorised! {
    /// Each row goes from what was summed to what is written without another look at memory.
    fn write<P: Products>(
        products: P,
        bias: Option<&[f32]>,
        post_op: PostOp,
        rows: &mut [&mut [f32]],
        first: usize,
    ) {
        // Of known length; the last panel's ends earlier.
        let mut panel = [0f32; N_COLUMNS];
        panel.iter_mut().zip(bias.unwrap_or_default()).for_each(|(to, bias)| *to = *bias);
        for (i, row) in rows.iter_mut().enumerate() {
            let mut values = products.row(i);
            if bias.is_some() {
                values.iter_mut().zip(&panel).for_each(|(value, bias)| *value += *bias);
            }
            match post_op {
                PostOp::Activate(Activation::Gelu) => values = values.map(|value| Activation::Gelu.of(value)),
                PostOp::Activate(Activation::Silu) => values = values.map(|value| Activation::Silu.of(value)),
                PostOp::Activate(Activation::Relu) => values = values.map(|value| Activation::Relu.of(value)),
                PostOp::None | PostOp::Add => {}
            }
            let out = &mut row[first..];
            match out.first_chunk_mut::<N_COLUMNS>() {
                // Of known length: no call.
                Some(out) if post_op == PostOp::Add => {
                    out.iter_mut().zip(&values).for_each(|(out, value)| *out += *value);
                }
                Some(out) => *out = values,
                None if post_op == PostOp::Add => {
                    out.iter_mut().zip(&values).for_each(|(out, value)| *out += *value);
                }
                None => out.copy_from_slice(&values[..out.len()]),
            }
        }
    }
}
