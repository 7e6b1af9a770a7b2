//! Activations in bytes.

use super::super::{GROUP_BYTES, LINE_GROUPS, Line, Rows, TILE_ROWS};
use super::{LINE, ZERO_POINT, nearest_byte, scale_of_bytes};
use crate::kernels::functions::magnitude;
use crate::kernels::instruction_set::{InstructionSet, vectorised};

/// Rows of bytes, each with the scale that makes numbers of them: `x = (byte - 128) * scale`. Memory is kept for the next rows.
#[derive(Debug, Default)]
pub struct Int8Rows {
    lines: Vec<Line>,
    stride: usize,
    scales: Vec<f32>,
    n_columns: usize,
}

impl Int8Rows {
    /// Takes other rows: numbers as bytes, the largest of each row as 127. They begin every `step` values of `x`.
    ///
    /// A row with a number that is not finite gives products that are not.
    ///
    /// # Panics
    /// When `x` is shorter than they are.
    pub fn set(&mut self, x: &[f32], step: usize, n_rows: usize, n_columns: usize) {
        self.n_columns = n_columns;
        self.stride = Rows::stride(n_columns.div_ceil(LINE));
        // Wherever a tile begins, it is whole. What fills up the last line meets weights of zero.
        let n_lines = (n_rows + TILE_ROWS - 1) * self.stride;
        self.lines.resize(n_lines, Line([[ZERO_POINT; GROUP_BYTES]; LINE_GROUPS]));
        self.scales.resize(n_rows, 0.0);
        let set = InstructionSet::best();
        let rows = self.lines.chunks_mut(self.stride).zip(&mut self.scales);
        for (i, (lines, scale)) in rows.enumerate() {
            let x = &x[i * step..][..n_columns];
            *scale = quantise_row(set, x, &mut Line::flatten_mut(lines)[..n_columns]);
        }
    }

    /// How many rows there are.
    pub fn n_rows(&self) -> usize {
        self.scales.len()
    }

    /// Numbers in a row.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { lines: &self.lines, stride: self.stride }
    }

    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }
}

vectorised! {
    /// Bytes of a row, and their scale.
    pub(super) fn quantise_row(x: &[f32], bytes: &mut [u8]) -> f32 {
        let mut lanes = [0u32; 16];
        let (chunks, tail) = x.as_chunks::<16>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = (*lane).max(magnitude(*x));
            }
        }
        for (lane, x) in lanes.iter_mut().zip(tail) {
            *lane = (*lane).max(magnitude(*x));
        }
        let largest = f32::from_bits(lanes.iter().copied().fold(0, u32::max));
        let (scale, inverse) = scale_of_bytes(largest);
        for (byte, x) in bytes.iter_mut().zip(x) {
            *byte = nearest_byte(*x * inverse).cast_unsigned().wrapping_add(ZERO_POINT);
        }
        scale
    }
}
