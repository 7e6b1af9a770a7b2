//! Products with a weight that is packed once: `y = x W^T + b` in f32.
//!
//! Every output is one chain of fused multiply-adds over k, from the first place to the last, begun at zero; the
//! bias is added at its end. Blocks, threads and instruction sets decide when a link is added, never in which order.
//! So a row's result is the same to the bit alone and in any batch, on any processor.

mod tile;

use std::ops::Range;

use rayon::prelude::*;

use tile::{Columns, InstructionSet, MAX_ROWS, N_COLUMNS, ROW_STRIDE};

/// Longest part of k that is summed before the sums go back to memory: the rows of a tile then stay in the first-level
/// cache. Shorter than the rows' distance, so that no two of them compete for the same place in it.
const MAX_BLOCK: usize = ROW_STRIDE - 16;

/// Most rows of a task: one block of them stays in the second-level cache while all panels pass by.
const MAX_TASK_ROWS: usize = 96;

/// What a task must take, by `estimated_nanos`, to be worth another thread's attention.
const MIN_TASK_NANOS: usize = 20_000;

/// A weight (n, k) in the order in which products read it: panels of `N_COLUMNS` outputs, each with all values of one
/// place of k side by side. The last panel is filled up with zeros.
pub struct PackedMatrix {
    columns: Vec<Columns>, // (panels, k)
    n_out: usize,
    n_in: usize,
}

impl PackedMatrix {
    /// Packs `weight`, (n_out, n_in) row-major.
    ///
    /// # Panics
    /// When `weight` is not `n_out * n_in` long.
    pub fn pack(weight: &[f32], n_out: usize, n_in: usize) -> Self {
        assert!(weight.len() == n_out * n_in, "packing: {} values for {n_out} x {n_in}", weight.len());
        let mut columns = vec![Columns::ZERO; n_out.div_ceil(N_COLUMNS) * n_in];
        if n_in > 0 {
            let panels = columns.par_chunks_exact_mut(n_in).zip(weight.par_chunks(N_COLUMNS * n_in));
            panels.for_each(|(panel, rows)| pack_panel(rows, n_in, panel));
        }
        Self { columns, n_out, n_in }
    }

    /// The weight as it was packed, (n_out, n_in) row-major.
    pub fn unpack(&self) -> Vec<f32> {
        let mut weight = vec![0.0; self.n_out * self.n_in];
        if self.n_in > 0 {
            let rows = weight.par_chunks_exact_mut(self.n_in).enumerate();
            rows.for_each(|(i, row)| self.copy_row(i, row));
        }
        weight
    }

    /// Copies row `i` of the weight, the values that output `i` is made with.
    ///
    /// # Panics
    /// When there is no such row or `row` is not `n_in` long.
    pub fn copy_row(&self, i: usize, row: &mut [f32]) {
        assert!(i < self.n_out && row.len() == self.n_in, "packed weight: row {i}, {} values", row.len());
        let panel = &self.columns[i / N_COLUMNS * self.n_in..][..self.n_in];
        for (value, columns) in row.iter_mut().zip(panel) {
            *value = columns.0[i % N_COLUMNS];
        }
    }

    /// Outputs, n.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs, k.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// `y = x W^T + bias` for x (m, k) and y (m, n), both row-major.
    ///
    /// # Panics
    /// When the slices' lengths do not fit each other.
    pub fn multiply(&self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        self.multiply_windows(x, self.n_in, bias, y);
    }

    /// The same for rows that begin every `step` values of `x` and are k values long: a convolution's windows overlap.
    ///
    /// # Panics
    /// When the slices' lengths do not fit each other.
    pub fn multiply_windows(&self, x: &[f32], step: usize, bias: Option<&[f32]>, y: &mut [f32]) {
        if let Some(set) = InstructionSet::available().next() {
            Product { weight: self, x, step, bias, set }.compute(y);
        }
    }

    fn n_panels(&self) -> usize {
        self.n_out.div_ceil(N_COLUMNS)
    }
}

/// At most `N_COLUMNS` rows become columns.
fn pack_panel(rows: &[f32], n_in: usize, panel: &mut [Columns]) {
    // A few places of k at a time, so that what is written stays in the first-level cache for all rows.
    for (block, panel) in panel.chunks_mut(16).enumerate() {
        for (column, row) in rows.chunks_exact(n_in).enumerate() {
            for (columns, value) in panel.iter_mut().zip(&row[16 * block..]) {
                columns.0[column] = *value;
            }
        }
    }
}

/// What a product takes on one thread, roughly: a weight is fetched at 20 GB/s and multiplied at 100 GFLOP/s. Only the
/// number of threads depends on it.
fn estimated_nanos(n_weights: usize, n_rows: usize) -> usize {
    n_weights / 5 + n_weights.saturating_mul(n_rows) / 50
}

#[derive(Clone, Copy)]
struct Product<'a> {
    weight: &'a PackedMatrix,
    x: &'a [f32],
    step: usize,
    bias: Option<&'a [f32]>,
    set: InstructionSet,
}

/// A rectangle of y.
struct Task<'a> {
    rows: Range<usize>,
    panels: Range<usize>,
    /// The rectangle's part of each row.
    out: Vec<&'a mut [f32]>,
}

impl Product<'_> {
    fn compute(&self, y: &mut [f32]) {
        let (n_out, n_in) = (self.weight.n_out, self.weight.n_in);
        if y.is_empty() {
            return;
        }
        let n_rows = y.len().checked_div(n_out).unwrap_or(0);
        assert!(
            n_rows > 0
                && y.len() == n_rows * n_out
                && self.x.len() == (n_rows - 1) * self.step + n_in
                && self.bias.is_none_or(|bias| bias.len() == n_out),
            "product: {} values in and {} out, every {}, do not fit a weight {n_out} x {n_in}",
            self.x.len(),
            y.len(),
            self.step
        );
        match self.tasks(n_rows, y).as_mut_slice() {
            [task] => self.run(task),
            tasks => tasks.par_iter_mut().for_each(|task| self.run(task)),
        }
    }

    /// Cuts y between rows, and between panels when there are too few rows for all threads.
    fn tasks<'a>(&self, n_rows: usize, y: &'a mut [f32]) -> Vec<Task<'a>> {
        let n_panels = self.weight.n_panels();
        let nanos = estimated_nanos(self.weight.columns.len() * N_COLUMNS, n_rows);
        // Several for each thread: they are not all equally fast.
        let n_wanted = match rayon::current_num_threads() {
            1 => 1,
            n_threads => (nanos / MIN_TASK_NANOS).clamp(1, 4 * n_threads),
        };
        let row_parts = n_rows.div_ceil(MAX_TASK_ROWS);
        let panel_parts = n_wanted.div_ceil(row_parts).min(n_panels);
        let mut tasks = Vec::with_capacity(row_parts * panel_parts);
        let mut y_rows = y.chunks_exact_mut(self.weight.n_out);
        for rows in parts(n_rows, row_parts) {
            let first = tasks.len();
            tasks.extend(parts(n_panels, panel_parts).map(|panels| {
                let out = Vec::with_capacity(rows.len());
                Task { rows: rows.clone(), panels, out }
            }));
            for mut row in y_rows.by_ref().take(rows.len()) {
                for task in &mut tasks[first..] {
                    let n_columns = (task.panels.len() * N_COLUMNS).min(row.len());
                    let (part, rest) = row.split_at_mut(n_columns);
                    task.out.push(part);
                    row = rest;
                }
            }
        }
        tasks
    }

    fn run(&self, task: &mut Task<'_>) {
        let (n_rows, n_in) = (task.rows.len(), self.weight.n_in);
        let mut copies = vec![0f32; if n_rows > 1 { n_rows * ROW_STRIDE } else { 0 }];
        for block in parts(n_in, n_in.div_ceil(MAX_BLOCK).max(1)) {
            let rows = if n_rows == 1 {
                &self.x[task.rows.start * self.step..][block.clone()]
            } else {
                for (copy, i) in copies.chunks_exact_mut(ROW_STRIDE).zip(task.rows.clone()) {
                    copy[..block.len()].copy_from_slice(&self.x[i * self.step..][block.clone()]);
                }
                &copies
            };
            let panels = task.panels.clone();
            for (i, first_column) in panels.zip((0..).step_by(N_COLUMNS)) {
                let panel = &self.weight.columns[i * n_in..][block.clone()];
                for tile in parts(n_rows, n_rows.div_ceil(MAX_ROWS)) {
                    let mut sums = [Columns::ZERO; MAX_ROWS];
                    let sums = &mut sums[..tile.len()];
                    let rows = &rows[tile.start * ROW_STRIDE..];
                    let out = &mut task.out[tile];
                    if block.start > 0 {
                        resume(sums, out, first_column);
                    }
                    self.set.multiply(rows, panel, sums);
                    let bias = self.bias.filter(|_| block.end == n_in);
                    store(sums, bias.map(|bias| &bias[i * N_COLUMNS..]), out, first_column);
                }
            }
        }
    }
}

/// Takes up the sums over earlier blocks of k, exactly as they were put down.
fn resume(sums: &mut [Columns], out: &[&mut [f32]], first_column: usize) {
    for (sums, out) in sums.iter_mut().zip(out) {
        let out = &out[first_column..];
        let n_columns = out.len().min(N_COLUMNS);
        sums.0[..n_columns].copy_from_slice(&out[..n_columns]);
    }
}

/// Puts down sums, without the columns that only fill up the last panel.
fn store(sums: &[Columns], bias: Option<&[f32]>, out: &mut [&mut [f32]], first_column: usize) {
    for (sums, out) in sums.iter().zip(out) {
        let out = &mut out[first_column..];
        let n_columns = out.len().min(N_COLUMNS);
        let out = &mut out[..n_columns];
        match bias {
            Some(bias) => {
                for ((out, sum), bias) in out.iter_mut().zip(&sums.0).zip(bias) {
                    *out = sum + bias;
                }
            }
            None => out.copy_from_slice(&sums.0[..n_columns]),
        }
    }
}

/// `0..n` in consecutive parts of nearly equal length.
fn parts(n: usize, n_parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_parts).map(move |i| i * n / n_parts..(i + 1) * n / n_parts)
}

#[cfg(test)]
mod tests;
