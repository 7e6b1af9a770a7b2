//! Products of matrices in f32.
//!
//! Every output is one chain of fused multiply-adds over k, from the first place to the last, begun at zero or at what it
//! is added to; the bias is added at its end. Blocks, threads and instruction sets decide when a link is added, never in
//! which order. So a row's result is the same to the bit alone and in any batch, on any processor, packed or not.

mod matrix;
mod packed;
mod product;
mod tile;

use std::ops::Range;

pub use matrix::Matrix;
pub(super) use packed::MAX_TASK_ROWS;
pub use packed::PackedMatrix;
pub(super) use product::multiply;
pub use product::{multiply_add, product};
pub(super) use tile::{Columns, FactorRows, MAX_ROWS, N_COLUMNS, ROW_STRIDE, Sum};
use tile::{RowParts, Slot};

use super::epilogue::Epilogue;
use super::instruction_set::InstructionSet;
use super::team::{for_each, is_together};

/// Longest part of k that is summed before the sums go back to memory: the rows of a tile then stay in the first-level
/// cache. Shorter than the rows' distance, so that no two of them compete for the same place in it.
pub(super) const MAX_BLOCK: usize = ROW_STRIDE - 16;

/// What a task must take, by `estimated_nanos`, to be worth another thread's attention.
const MIN_TASK_NANOS: usize = 20_000;
/// And of one that is awake.
const MIN_SHARED_NANOS: usize = 2_500;

/// What a product takes on one thread, roughly: a weight is fetched at 20 GB/s and multiplied at 100 GFLOP/s. Only the
/// number of threads depends on it.
fn estimated_nanos(n_weights: usize, n_rows: usize) -> usize {
    n_weights / 5 + n_weights.saturating_mul(n_rows) / 50
}

/// Who computes a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The caller alone, who has given others work of their own.
    One,
    /// As many of the pool as it is worth.
    All,
}

/// A rectangle of a result.
pub(super) struct Task<'a, T = f32> {
    pub rows: Range<usize>,
    pub panels: Range<usize>,
    /// The rectangle's part of each row.
    pub out: Vec<&'a mut [T]>,
}

/// In how many parts a result is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Between rows.
    rows: usize,
    /// Between panels.
    panels: usize,
    /// Rows of a kernel's tile: parts of many rows are made of whole tiles, but for the last.
    n_tile: usize,
}

impl Cut {
    /// Parts of at most `max_rows` rows, whole tiles of `n_tile`, and between panels when there are too few rows for all threads.
    /// `nanos` is what the result takes one of them, roughly.
    pub fn new(
        (n_rows, n_columns): (usize, usize),
        (max_rows, n_tile): (usize, usize),
        threads: Threads,
        nanos: usize,
    ) -> Self {
        debug_assert!(max_rows.is_multiple_of(n_tile), "tasks of {max_rows} rows, tiles of {n_tile}");
        let rows = n_rows.div_ceil(max_rows);
        let panels = Self::n_tasks(threads, nanos).div_ceil(rows.max(1)).min(n_columns.div_ceil(N_COLUMNS));
        Self { rows, panels, n_tile }
    }

    /// Tasks that are worth it.
    fn n_tasks(threads: Threads, nanos: usize) -> usize {
        match rayon::current_num_threads() {
            n_threads if n_threads > 1 && threads == Threads::All => {
                let min_nanos = if is_together() { MIN_SHARED_NANOS } else { MIN_TASK_NANOS };
                // Several for each thread: they are not all equally fast.
                (nanos / min_nanos).clamp(1, 4 * n_threads)
            }
            _ => 1,
        }
    }

    /// Cuts a result whose rows of `n_columns` begin every `step` values.
    fn tasks<T>(self, out: &mut [T], n_columns: usize, step: usize) -> Vec<Task<'_, T>> {
        let n_rows = out.len().div_ceil(step.max(1));
        let n_panels = n_columns.div_ceil(N_COLUMNS);
        let mut tasks = Vec::with_capacity(self.rows * self.panels);
        let mut out_rows = out.chunks_mut(step.max(1));
        let n_unit = if n_rows >= 4 * self.n_tile * self.rows { self.n_tile } else { 1 };
        for rows in parts(n_rows.div_ceil(n_unit), self.rows) {
            let rows = rows.start * n_unit..n_rows.min(rows.end * n_unit);
            let first = tasks.len();
            tasks.extend(parts(n_panels, self.panels).map(|panels| {
                let out = Vec::with_capacity(rows.len());
                Task { rows: rows.clone(), panels, out }
            }));
            for row in out_rows.by_ref().take(rows.len()) {
                let mut row = &mut row[..n_columns];
                for task in &mut tasks[first..] {
                    let (part, rest) = row.split_at_mut((task.panels.len() * N_COLUMNS).min(row.len()));
                    task.out.push(part);
                    row = rest;
                }
            }
        }
        tasks
    }
}

/// Computes a result, whose rows of `n_columns` begin every `step` values, in tasks.
pub(super) fn in_tasks<T: Send>(
    out: &mut [T],
    (n_columns, step): (usize, usize),
    cut: Cut,
    threads: Threads,
    run: impl Fn(&mut Task<'_, T>) + Send + Sync,
) {
    let mut tasks = cut.tasks(out, n_columns, step);
    if threads == Threads::One || tasks.len() == 1 {
        tasks.iter_mut().for_each(run);
    } else {
        for_each(&mut tasks, run);
    }
}

impl<T: Slot> Task<'_, T> {
    /// Rows of tiles: as even as they can be, or all but the last full when there are many.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<T> {
        let n_rows = self.rows.len();
        let n_unit = if n_rows >= 4 * MAX_ROWS { MAX_ROWS } else { 1 };
        parts(n_rows.div_ceil(n_unit), n_rows.div_ceil(MAX_ROWS))
            .map(move |tile| tile.start * n_unit..n_rows.min(tile.end * n_unit))
    }

    /// How tiles of the panel from column `first` on end by themselves. `None`: columns are missing, or there is more to be done.
    fn sum<'e>(&self, first: usize, last: Epilogue<'e>) -> Option<Sum<'e>> {
        let is_whole = self.out.first().is_some_and(|row| row.len() >= first + N_COLUMNS);
        last.of_tile().filter(|_| is_whole)
    }

    /// Multiplies all rows with one block of a panel whose columns, from `first` on, are all there.
    fn multiply_whole(
        &mut self,
        set: InstructionSet,
        rows: &[f32],
        panel: &[Columns],
        first: usize,
        sum: Sum<'_>,
    ) {
        for tile in self.tiles() {
            let rows = &rows[tile.start * ROW_STRIDE..];
            set.multiply(rows, panel, sum, RowParts { rows: &mut self.out[tile], first });
        }
    }
}

impl Task<'_> {
    /// Multiplies all rows with one block of a panel. `resumed`: what is there already is where the sums begin. `last`: what
    /// is done to them when no more of k follows.
    fn multiply(
        &mut self,
        set: InstructionSet,
        rows: &[f32],
        panel: &[Columns],
        first: usize,
        resumed: bool,
        last: Option<Epilogue<'_>>,
    ) {
        let last = last.unwrap_or_default();
        if let Some(sum) = self.sum(first, last) {
            return self.multiply_whole(set, rows, panel, first, Sum { resumed, ..sum });
        }
        for tile in self.tiles() {
            let mut sums = [Columns::ZERO; MAX_ROWS];
            let sums = &mut sums[..tile.len()];
            let rows = &rows[tile.start * ROW_STRIDE..];
            let out = &mut self.out[tile];
            if resumed {
                for (sums, row) in sums.iter_mut().zip(&*out) {
                    sums.0.iter_mut().zip(&row[first..]).for_each(|(sum, there)| *sum = *there);
                }
            }
            set.multiply(rows, panel, Sum::RESUMED, &mut *sums);
            // Without the columns that only fill up the last panel.
            last.finish(set, &*sums, out, first);
        }
    }
}

/// `0..n` in consecutive parts of nearly equal length.
pub(super) fn parts(n: usize, n_parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_parts).map(move |i| i * n / n_parts..(i + 1) * n / n_parts)
}

#[cfg(test)]
mod tests;
