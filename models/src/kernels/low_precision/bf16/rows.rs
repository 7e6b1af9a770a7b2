//! Activations in bf16.

use super::super::{GROUP_BYTES, LINE_GROUPS, Line, Rows, TILE_ROWS};
use super::{LINE, f32_to_bf16};
use crate::kernels::instruction_set::{InstructionSet, vectorised};

/// Rows of numbers in bf16. Memory is kept for the next rows.
#[derive(Debug, Default)]
pub struct Bf16Rows {
    lines: Vec<Line>,
    stride: usize,
    n_rows: usize,
    n_columns: usize,
}

impl Bf16Rows {
    /// Takes other rows, without values as yet.
    pub(super) fn resize(&mut self, n_rows: usize, n_columns: usize) {
        let stride = Rows::stride(n_columns.div_ceil(LINE));
        if (self.stride, self.n_columns) != (stride, n_columns) {
            // What fills up the last line meets weights of zero, and must be a number.
            self.lines.clear();
        }
        (self.n_rows, self.n_columns, self.stride) = (n_rows, n_columns, stride);
        // Wherever a tile begins, it is whole.
        self.lines.resize((n_rows + TILE_ROWS - 1) * stride, Line([[0; GROUP_BYTES]; LINE_GROUPS]));
    }

    /// Takes other rows: numbers rounded to bf16. They begin every `step` values of `x`.
    ///
    /// # Panics
    /// When `x` is shorter than they are.
    pub fn set(&mut self, x: &[f32], step: usize, n_rows: usize, n_columns: usize) {
        self.resize(n_rows, n_columns);
        let set = InstructionSet::best();
        for i in 0..n_rows {
            self.set_row(set, i, &x[i * step..][..n_columns], 1.0);
        }
    }

    /// Row `i`, times `scale`.
    pub(super) fn set_row(&mut self, set: InstructionSet, i: usize, x: &[f32], scale: f32) {
        let lines = &mut self.lines[i * self.stride..][..self.stride];
        round_row(set, x, scale, Line::halves_mut(lines));
    }

    /// Halves of numbers from line `i` of the first row on, and how many there are from row to row.
    pub(super) fn lines_from(&mut self, i: usize) -> (&mut [u16], usize) {
        (Line::halves_mut(&mut self.lines[i..]), self.stride * LINE)
    }

    /// How many rows there are.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Numbers in a row.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { lines: &self.lines, stride: self.stride }
    }
}

vectorised! {
    pub(super) fn round_row(x: &[f32], scale: f32, row: &mut [u16]) {
        for (half, x) in row.iter_mut().zip(x) {
            *half = f32_to_bf16(*x * scale);
        }
    }
}
