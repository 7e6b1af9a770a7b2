//! A weight in bf16, and products with it.

use super::super::product::{PackedPanels, Panels, Product};
use super::super::{Group, N_COLUMNS, Rows, Sums};
use super::{Bf16Rows, Bf16Set, LINE, PAIR, bf16_to_f32, f32_to_bf16};
use crate::kernels::epilogue::{Epilogue, Products};
use crate::kernels::gemm::Threads;
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::weight_rows::{ReadRows, for_each_panel};

/// A weight (n, k) in bf16, in the order in which products read it.
pub struct Bf16Matrix {
    panels: Panels, // groups of two inputs
}

impl Bf16Matrix {
    /// Rounds and packs the weight (n_out, n_in) whose rows `read` gives.
    ///
    /// # Errors
    /// What `read` refuses.
    pub fn round<E: Send>(n_out: usize, n_in: usize, read: impl ReadRows<E>) -> Result<Self, E> {
        let mut panels = Panels::new(n_out, n_in, LINE);
        if n_in > 0 {
            for_each_panel(panels.par_iter_mut(), n_out, n_in, read, |panel, rows| {
                for (column, row) in rows.chunks_exact(n_in).enumerate() {
                    pack_column(row, column, panel);
                }
            })?;
        }
        Ok(Self { panels })
    }

    /// Outputs, n.
    pub fn n_out(&self) -> usize {
        self.panels.n_out()
    }

    /// Inputs, k.
    pub fn n_in(&self) -> usize {
        self.panels.n_in()
    }

    /// Copies row `i` of the weight as it was rounded.
    ///
    /// # Panics
    /// When there is no such row or `row` is not `n_in` long.
    pub fn copy_row(&self, i: usize, row: &mut [f32]) {
        assert!(row.len() == self.n_in(), "packed weight: row {i}, {} values", row.len());
        for (values, bytes) in row.chunks_mut(PAIR).zip(self.panels.row(i)) {
            for (value, half) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = bf16_to_f32(u16::from_ne_bytes(*half));
            }
        }
    }

    /// `y = x W^T`, and what comes after it, for x (m, k) and y (m, n), row-major.
    ///
    /// # Panics
    /// When the lengths do not fit each other.
    pub fn multiply(&self, x: &Bf16Rows, epilogue: Epilogue<'_>, threads: Threads, y: &mut [f32]) {
        let (dot, set) = (Bf16Set::best(), InstructionSet::best());
        Product { weight: self, x, epilogue, threads, dot, set }.compute(y);
    }
}

fn pack_column(row: &[f32], column: usize, panel: &mut [Group]) {
    for (group, pair) in panel.iter_mut().zip(row.chunks(PAIR)) {
        for (bytes, x) in group.0[column].as_chunks_mut().0.iter_mut().zip(pair) {
            *bytes = f32_to_bf16(*x).to_ne_bytes();
        }
    }
}

impl PackedPanels for Bf16Matrix {
    type Activations = Bf16Rows;
    type Set = Bf16Set;
    type Products<'a> = &'a [Sums<f32>];

    fn panels(&self) -> &Panels {
        &self.panels
    }

    fn rows(x: &Bf16Rows) -> (Rows<'_>, usize, usize) {
        (x.rows(), x.n_rows(), x.n_columns())
    }

    fn products<'a>(&'a self, _: &'a Bf16Rows, _: usize, _: usize, sums: &'a [Sums<f32>]) -> &'a [Sums<f32>] {
        sums
    }
}

impl Products for &[Sums<f32>] {
    #[inline(always)]
    fn row(&self, i: usize) -> [f32; N_COLUMNS] {
        self[i].0
    }
}
