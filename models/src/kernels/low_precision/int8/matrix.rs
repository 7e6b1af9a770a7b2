//! A weight in bytes, and products with it.

use rayon::prelude::*;

use super::super::product::{PackedPanels, Panels, Product};
use super::super::{GROUP_BYTES, N_COLUMNS, Rows, Sums};
use super::rows::quantise_row;
use super::{Int8Rows, Int8Set, LINE, ZERO_POINT};
use crate::kernels::epilogue::{Epilogue, Products};
use crate::kernels::gemm::Threads;
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::weight_rows::{ReadRows, for_each_panel};

/// A weight (n, k) in bytes, each output's row with a scale of its own, in the order in which products read it.
pub struct Int8Matrix {
    panels: Panels, // groups of four inputs
    /// `-ZERO_POINT` times the sum of each output's weights: what makes unsigned activations signed.
    offsets: Vec<Sums<i32>>,
    scales: Vec<[f32; N_COLUMNS]>,
}

impl Int8Matrix {
    /// Longest k for which no sum leaves 32 bits.
    pub const MAX_INPUTS: usize = (i32::MAX / (255 * 127)) as usize / LINE * LINE;

    /// Rounds and packs the weight (n_out, n_in) whose rows `read` gives.
    ///
    /// # Errors
    /// What `read` refuses.
    ///
    /// # Panics
    /// When `n_in` is above `MAX_INPUTS`.
    pub fn quantise<E: Send>(n_out: usize, n_in: usize, read: impl ReadRows<E>) -> Result<Self, E> {
        assert!(n_in <= Self::MAX_INPUTS, "sums over {n_in} products do not fit into 32 bits");
        let n_panels = n_out.div_ceil(N_COLUMNS);
        let mut panels = Panels::new(n_out, n_in, LINE);
        let mut offsets = vec![Sums([0; N_COLUMNS]); n_panels];
        let mut scales = vec![[0.0; N_COLUMNS]; n_panels];
        if n_in > 0 {
            let places = panels.par_iter_mut().zip(&mut offsets).zip(&mut scales);
            for_each_panel(places, n_out, n_in, read, |((panel, offsets), scales), rows| {
                let set = InstructionSet::best();
                let mut bytes = vec![ZERO_POINT; panel.len() * GROUP_BYTES];
                for (column, row) in rows.chunks_exact(n_in).enumerate() {
                    scales[column] = quantise_row(set, row, &mut bytes[..n_in]);
                    let mut sum = 0;
                    for (group, bytes) in panel.iter_mut().zip(bytes.as_chunks().0) {
                        group.0[column] = bytes.map(|byte| byte.wrapping_sub(ZERO_POINT));
                        sum += group.0[column].map(|byte| i32::from(byte.cast_signed())).iter().sum::<i32>();
                    }
                    offsets.0[column] = -i32::from(ZERO_POINT) * sum;
                }
            })?;
        }
        Ok(Self { panels, offsets, scales })
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
        for (values, bytes) in row.chunks_mut(GROUP_BYTES).zip(self.panels.row(i)) {
            for (value, byte) in values.iter_mut().zip(bytes) {
                *value = f32::from(byte.cast_signed()) * self.scales[i / N_COLUMNS][i % N_COLUMNS];
            }
        }
    }

    /// `y = x W^T`, and what comes after it, for x (m, k) and y (m, n), row-major.
    ///
    /// # Panics
    /// When the lengths do not fit each other.
    pub fn multiply(&self, x: &Int8Rows, epilogue: Epilogue<'_>, threads: Threads, y: &mut [f32]) {
        let (dot, set) = (Int8Set::best(x.n_rows()), InstructionSet::best());
        Product { weight: self, x, epilogue, threads, dot, set }.compute(y);
    }
}

impl PackedPanels for Int8Matrix {
    type Activations = Int8Rows;
    type Set = Int8Set;
    type Products<'a> = Int8Products<'a>;

    fn panels(&self) -> &Panels {
        &self.panels
    }

    fn rows(x: &Int8Rows) -> (Rows<'_>, usize, usize) {
        (x.rows(), x.n_rows(), x.n_columns())
    }

    fn products<'a>(
        &'a self,
        x: &'a Int8Rows,
        first_row: usize,
        panel: usize,
        sums: &'a [Sums<i32>],
    ) -> Int8Products<'a> {
        let (offsets, scales) = (&self.offsets[panel], &self.scales[panel]);
        Int8Products { sums, offsets, x_scales: &x.scales()[first_row..], scales }
    }
}

/// Sums that are to be scaled.
pub(in super::super) struct Int8Products<'a> {
    sums: &'a [Sums<i32>],
    offsets: &'a Sums<i32>,
    x_scales: &'a [f32],
    scales: &'a [f32; N_COLUMNS],
}

impl Products for Int8Products<'_> {
    #[inline(always)]
    fn row(&self, i: usize) -> [f32; N_COLUMNS] {
        let (sums, x_scale) = (&self.sums[i].0, self.x_scales[i]);
        let mut numbers = [0f32; N_COLUMNS];
        for (((number, sum), offset), scale) in
            numbers.iter_mut().zip(sums).zip(&self.offsets.0).zip(self.scales)
        {
            *number = (*sum + *offset) as f32 * (x_scale * *scale);
        }
        numbers
    }
}
