//! A weight in bytes, and products with it.

use rayon::prelude::*;

use super::super::product::{PackedPanels, Panels, Product};
use super::super::{GROUP_BYTES, Group, N_COLUMNS, Rows, SetUp, Sums};
use super::rows::quantise_row;
use super::{Int8Rows, Int8Set, LINE, ZERO};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::gemm::{Columns, Threads};
use crate::kernels::instruction_set::{InstructionSet, vectorised};

/// A weight (n, k) in bytes, each output's row with a scale of its own, in the order in which products read it.
pub struct Int8Matrix {
    panels: Panels, // groups of four inputs
    /// `-ZERO` times the sum of each output's weights: what makes unsigned activations signed.
    offsets: Vec<Sums<i32>>,
    scales: Vec<[f32; N_COLUMNS]>,
}

impl Int8Matrix {
    /// Longest k for which no sum leaves 32 bits.
    pub const MAX_INPUTS: usize = (i32::MAX / (255 * 127)) as usize / LINE * LINE;

    /// Rounds and packs `weight`, (n_out, n_in) row-major.
    ///
    /// # Panics
    /// When `weight` is not `n_out * n_in` long, or `n_in` above `MAX_INPUTS`.
    pub fn quantise(weight: &[f32], n_out: usize, n_in: usize) -> Self {
        assert!(weight.len() == n_out * n_in, "packing: {} values for {n_out} x {n_in}", weight.len());
        assert!(n_in <= Self::MAX_INPUTS, "sums over {n_in} products do not fit into 32 bits");
        let n_panels = n_out.div_ceil(N_COLUMNS);
        let mut panels = Panels::new(n_out, n_in, LINE);
        let mut offsets = vec![Sums([0; N_COLUMNS]); n_panels];
        let mut scales = vec![[0.0; N_COLUMNS]; n_panels];
        if n_in > 0 {
            let rows = weight.par_chunks(N_COLUMNS * n_in).zip(&mut scales);
            panels.par_iter_mut().zip(&mut offsets).zip(rows).for_each(
                |((panel, offsets), (rows, scales))| {
                    let set = InstructionSet::best();
                    let mut bytes = vec![ZERO; panel.len() * GROUP_BYTES];
                    for (column, row) in rows.chunks_exact(n_in).enumerate() {
                        scales[column] = quantise_row(set, row, &mut bytes[..n_in]);
                        let mut sum = 0;
                        for (group, bytes) in panel.iter_mut().zip(bytes.as_chunks().0) {
                            group.0[column] = bytes.map(|byte| byte.wrapping_sub(ZERO));
                            sum +=
                                group.0[column].map(|byte| i32::from(byte.cast_signed())).iter().sum::<i32>();
                        }
                        offsets.0[column] = -i32::from(ZERO) * sum;
                    }
                },
            );
        }
        Self { panels, offsets, scales }
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
    type Sum = i32;

    fn panels(&self) -> &Panels {
        &self.panels
    }

    fn rows(x: &Int8Rows) -> (Rows<'_>, usize, usize) {
        (x.rows(), x.n_rows(), x.n_columns())
    }

    fn set_up(set: Int8Set) -> SetUp<Int8Set> {
        set.set_up()
    }

    fn multiply(set: &SetUp<Int8Set>, rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<i32>]) {
        set.multiply(rows, panel, sums);
    }

    fn numbers(
        &self,
        set: InstructionSet,
        x: &Int8Rows,
        first_row: usize,
        panel: usize,
        sums: &[Sums<i32>],
        numbers: &mut [Columns],
    ) {
        scaled(set, sums, &self.offsets[panel], &x.scales()[first_row..], &self.scales[panel], numbers);
    }
}

vectorised! {
    /// Sums to numbers.
    fn scaled(
        sums: &[Sums<i32>],
        offsets: &Sums<i32>,
        x_scales: &[f32],
        scales: &[f32; N_COLUMNS],
        numbers: &mut [Columns],
    ) {
        for ((numbers, sums), x_scale) in numbers.iter_mut().zip(sums).zip(x_scales) {
            for (((number, sum), offset), scale) in numbers.0.iter_mut().zip(&sums.0).zip(&offsets.0).zip(scales) {
                *number = (*sum + *offset) as f32 * (*x_scale * *scale);
            }
        }
    }
}
