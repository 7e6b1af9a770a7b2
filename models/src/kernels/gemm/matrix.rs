//! Matrices as they lie in memory, and how they are copied to where products read them.

use std::ops::Range;

use super::{Columns, N_COLUMNS};
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::transpose::transpose_block;

/// A matrix as it lies in memory: rows of consecutive values that begin every `step` values.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    step: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// Rows that follow each other.
    ///
    /// # Panics
    /// When `values` is not `n_rows * n_columns` long.
    pub fn new(values: &'a [f32], n_rows: usize, n_columns: usize) -> Self {
        assert!(values.len() == n_rows * n_columns, "{} values for {n_rows} x {n_columns}", values.len());
        Self::with_step(values, n_rows, n_columns, n_columns)
    }

    /// Rows that begin every `step` values; they may overlap, as a convolution's windows do.
    ///
    /// # Panics
    /// When `values` ends before the last row does.
    pub fn with_step(values: &'a [f32], n_rows: usize, n_columns: usize, step: usize) -> Self {
        assert!(
            n_rows == 0 || values.len() >= (n_rows - 1) * step + n_columns,
            "{} values for {n_rows} x {n_columns}, every {step}",
            values.len()
        );
        Self { values, n_rows, n_columns, step, transposed: false }
    }

    /// Rows as columns.
    #[must_use]
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns.
    pub fn dims(self) -> (usize, usize) {
        if self.transposed { (self.n_columns, self.n_rows) } else { (self.n_rows, self.n_columns) }
    }

    /// Copies a rectangle to rows that begin every `out_step` values of `out`.
    pub(in crate::kernels) fn copy(
        self,
        set: InstructionSet,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [f32],
        out_step: usize,
    ) {
        if rows.is_empty() || columns.is_empty() {
            return;
        }
        if self.transposed {
            let values = &self.values[columns.start * self.step + rows.start..];
            transpose_block(set, values, self.step, columns.len(), rows.len(), out, out_step);
        } else {
            for (out, i) in out.chunks_mut(out_step).zip(rows) {
                out[..columns.len()].copy_from_slice(&self.values[i * self.step..][columns.clone()]);
            }
        }
    }

    /// Copies a rectangle to panels, one after the other with all its rows, the last filled up with zeros.
    pub(in crate::kernels) fn copy_panels(
        self,
        set: InstructionSet,
        rows: Range<usize>,
        columns: Range<usize>,
        panels: &mut [Columns],
    ) {
        let n_rows = rows.len();
        if n_rows == 0 {
            return;
        }
        let (n_whole, n_rest) = (columns.len() / N_COLUMNS, columns.len() % N_COLUMNS);
        if n_rest > 0 {
            panels[n_whole * n_rows..].fill(Columns::ZERO);
        }
        if self.transposed {
            let firsts = columns.clone().step_by(N_COLUMNS);
            for (panel, first) in panels.chunks_exact_mut(n_rows).zip(firsts) {
                let columns = first..columns.end.min(first + N_COLUMNS);
                self.copy(set, rows.clone(), columns, Columns::flatten_mut(panel), N_COLUMNS);
            }
            return;
        }
        // Rows as they lie in memory, whichever panels their parts go to: the processor then sees what comes next.
        for (i, row) in rows.enumerate() {
            let (whole, rest) = self.values[row * self.step..][columns.clone()].as_chunks();
            for (panel, values) in panels.chunks_exact_mut(n_rows).zip(whole) {
                panel[i].0 = *values; // of known length: no call
            }
            if n_rest > 0 {
                panels[n_whole * n_rows + i].0[..n_rest].copy_from_slice(rest);
            }
        }
    }
}
