//! Products of matrices in f32.
//!
//! Every output is one chain of fused multiply-adds over k, from the first place to the last, begun at zero or at what it
//! is added to; the bias is added at its end. Blocks, threads and instruction sets decide when a link is added, never in
//! which order. So a row's result is the same to the bit alone and in any batch, on any processor, packed or not.

mod matrix;
mod packed;
mod tile;

use std::ops::Range;

pub use matrix::{Matrix, multiply, multiply_add};
pub(super) use packed::MAX_TASK_ROWS;
pub use packed::PackedMatrix;
pub(super) use tile::{Columns, MAX_ROWS, N_COLUMNS, ROW_STRIDE};

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
pub(super) struct Task<'a> {
    pub rows: Range<usize>,
    pub panels: Range<usize>,
    /// The rectangle's part of each row.
    pub out: Vec<&'a mut [f32]>,
}

/// Cuts a result, whose rows of `n_columns` begin every `step` values, into parts of at most `max_rows` rows, and between
/// panels when there are too few rows for all threads.
fn cut(out: &mut [f32], n_columns: usize, step: usize, max_rows: usize, nanos: usize) -> Vec<Task<'_>> {
    // Several for each thread: they are not all equally fast.
    let n_wanted = match rayon::current_num_threads() {
        1 => 1,
        n_threads => {
            let min_nanos = if is_together() { MIN_SHARED_NANOS } else { MIN_TASK_NANOS };
            (nanos / min_nanos).clamp(1, 4 * n_threads)
        }
    };
    let n_panels = n_columns.div_ceil(N_COLUMNS);
    let n_rows = out.len().div_ceil(step.max(1));
    let row_parts = n_rows.div_ceil(max_rows);
    let panel_parts = n_wanted.div_ceil(row_parts.max(1)).min(n_panels);
    let mut tasks = Vec::with_capacity(row_parts * panel_parts);
    let mut out_rows = out.chunks_mut(step.max(1));
    for rows in parts(n_rows, row_parts) {
        let first = tasks.len();
        tasks.extend(parts(n_panels, panel_parts).map(|panels| {
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

/// Computes a result in tasks, see `cut`, by `threads`. `nanos` is what it takes one of them, roughly.
pub(super) fn in_tasks(
    out: &mut [f32],
    (n_columns, step, max_rows): (usize, usize, usize),
    threads: Threads,
    nanos: usize,
    run: impl Fn(&mut Task<'_>) + Send + Sync,
) {
    let nanos = if threads == Threads::One { 0 } else { nanos };
    let mut tasks = cut(out, n_columns, step, max_rows, nanos);
    if threads == Threads::One || tasks.len() == 1 {
        tasks.iter_mut().for_each(run);
    } else {
        for_each(&mut tasks, run);
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
        first_column: usize,
        resumed: bool,
        last: Option<Epilogue<'_>>,
    ) {
        let n_rows = self.rows.len();
        for tile in parts(n_rows, n_rows.div_ceil(MAX_ROWS)) {
            let mut sums = [Columns::ZERO; MAX_ROWS];
            let sums = &mut sums[..tile.len()];
            let rows = &rows[tile.start * ROW_STRIDE..];
            let out = &mut self.out[tile];
            if resumed {
                resume(sums, out, first_column);
            }
            set.multiply(rows, panel, sums);
            // Without the columns that only fill up the last panel.
            last.unwrap_or_default().finish(set, &*sums, out, first_column);
        }
    }
}

/// Takes up sums exactly as they were put down.
fn resume(sums: &mut [Columns], out: &[&mut [f32]], first_column: usize) {
    for (sums, out) in sums.iter_mut().zip(out) {
        let out = &out[first_column..];
        if let Some(out) = out.first_chunk() {
            sums.0 = *out; // of known length: no call
        } else {
            sums.0[..out.len()].copy_from_slice(out);
        }
    }
}

/// `0..n` in consecutive parts of nearly equal length.
pub(super) fn parts(n: usize, n_parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_parts).map(move |i| i * n / n_parts..(i + 1) * n / n_parts)
}

#[cfg(test)]
mod tests;
