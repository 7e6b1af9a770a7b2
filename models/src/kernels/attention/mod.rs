//! Attention that never writes the score matrix: dense over padded batches, with gradients, and ragged over caches.

mod backward;
mod forward;
mod keys_values;
mod ragged;
mod relative;

pub use backward::{AttentionPass, attention_backward};
pub use forward::{attention, relative_attention};
pub use keys_values::KeysValues;
pub use ragged::{AttentionRow, attend};
pub use relative::RelativePositions;

use std::ops::Range;

use super::gemm::{Columns, MAX_BLOCK, Matrix, N_COLUMNS};
use super::instruction_set::InstructionSet;

/// What a batch of dense attention looks like. Queries are row-major (B, U, D), keys and values (B, T, D), with the heads
/// side by side in D.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape<'a> {
    /// U.
    pub n_queries: usize,
    /// T.
    pub n_keys: usize,
    /// D.
    pub width: usize,
    /// H, a divisor of D.
    pub n_heads: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Query `i` sees the keys up to `i` alone.
    pub causal: bool,
    /// The keys that there are in each row of the batch, at most T; the others are padding. `None`: all.
    pub key_lengths: Option<&'a [usize]>,
}

impl AttentionShape<'_> {
    /// Numbers of a head that the kernels can take.
    pub const MAX_HEAD: usize = MAX_BLOCK;

    /// Numbers of a head.
    fn head(&self) -> usize {
        self.width / self.n_heads.max(1)
    }

    /// Keys of row `i` of the batch.
    pub(super) fn n_keys_of(&self, i: usize) -> usize {
        self.key_lengths.map_or(self.n_keys, |lengths| lengths[i].min(self.n_keys))
    }

    /// Which of `n_keys` queries see, within a context if there is one.
    fn sight(&self, n_keys: usize, context: Option<[usize; 2]>) -> Sight {
        let everything = [usize::MAX, if self.causal { 0 } else { usize::MAX }];
        Sight { n_keys, context: context.unwrap_or(everything) }
    }

    /// B.
    pub(super) fn n_rows(&self, queries: &[f32], keys: &[f32], values: &[f32]) -> usize {
        let (step, key_step) = (self.n_queries * self.width, self.n_keys * self.width);
        let n_rows = queries.len().checked_div(step).unwrap_or(0);
        assert!(
            self.n_heads > 0
                && self.width.is_multiple_of(self.n_heads)
                && self.head() <= Self::MAX_HEAD
                && queries.len() == n_rows * step
                && (n_rows == 0 || keys.len() == n_rows * key_step)
                && keys.len() == values.len()
                && self.key_lengths.is_none_or(|lengths| lengths.len() == n_rows),
            "attention: {} queries, {} keys and {} values do not fit {self:?}",
            queries.len(),
            keys.len(),
            values.len()
        );
        n_rows
    }

    /// The rows of each head of `x`, whose rows are `width` long: first those of the first row of the batch's first head.
    pub(super) fn heads_mut<'a>(&self, x: &'a mut [f32], n: usize) -> Vec<Vec<&'a mut [f32]>> {
        let mut heads: Vec<Vec<&mut [f32]>> = Vec::new();
        for x in x.chunks_mut((n * self.width).max(1)) {
            let first = heads.len();
            heads.extend((0..self.n_heads).map(|_| Vec::with_capacity(n)));
            for row in x.chunks_mut(self.width) {
                for (head, part) in heads[first..].iter_mut().zip(row.chunks_mut(self.head())) {
                    head.push(part);
                }
            }
        }
        heads
    }
}

/// Which keys queries see.
#[derive(Debug, Clone, Copy)]
struct Sight {
    n_keys: usize,
    /// Positions before and after a query.
    context: [usize; 2],
}

impl Sight {
    /// Those that `query` sees: later ones than an earlier query does, or as many.
    fn of(&self, query: usize) -> Range<usize> {
        let [before, after] = self.context;
        let end = self.n_keys.min(query.saturating_add(after).saturating_add(1));
        query.saturating_sub(before).min(end)..end
    }

    /// Those that one of `queries` sees, from the beginning of a panel on, which depends on the first query alone.
    fn of_any(&self, queries: &Range<usize>) -> Range<usize> {
        let first = self.of(queries.start);
        if first.is_empty() {
            // Nor do later ones see any.
            return first;
        }
        first.start / N_COLUMNS * N_COLUMNS..self.of(queries.end - 1).end
    }
}

/// Rows of one head, which begin every `step` values.
#[derive(Clone, Copy)]
pub(super) struct HeadRows<'a> {
    values: &'a [f32],
    step: usize,
    pub head: usize,
}

impl<'a> HeadRows<'a> {
    /// Head `i` of all heads of a batch, of which `x` has `n` rows each.
    pub fn new(shape: &AttentionShape<'_>, x: &'a [f32], n: usize, i: usize) -> Self {
        let (row, head) = (i / shape.n_heads, i % shape.n_heads);
        Self::of(&x[row * n * shape.width..(row + 1) * n * shape.width], shape.width, shape.head(), head)
    }

    /// Head `h` of rows `width` long, of whose numbers each head has `head`.
    pub fn of(x: &'a [f32], width: usize, head: usize, h: usize) -> Self {
        Self { values: x.get(h * head..).unwrap_or_default(), step: width, head }
    }

    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.step..][..self.head]
    }

    fn matrix(&self, n_rows: usize) -> Matrix<'a> {
        Matrix::with_step(self.values, n_rows, self.head, self.step)
    }

    /// Rows as columns: panels of `N_COLUMNS` rows, one place of the head after the other, filled up with zeros.
    fn pack_transposed(&self, set: InstructionSet, rows: Range<usize>, panels: &mut Vec<Columns>) {
        panels.resize(rows.len().div_ceil(N_COLUMNS) * self.head, Columns::ZERO);
        self.matrix(rows.end).t().copy_panels(set, 0..self.head, rows, panels);
    }

    /// At most `N_COLUMNS` rows as the first of columns, one place of the head after the other.
    fn transpose(&self, set: InstructionSet, rows: Range<usize>, columns: &mut [Columns]) {
        self.matrix(rows.end).t().copy(set, 0..self.head, rows, Columns::flatten_mut(columns), N_COLUMNS);
    }

    /// Panels of `N_COLUMNS` places of the head, one row after the other, filled up with zeros.
    fn pack(&self, set: InstructionSet, rows: Range<usize>, panels: &mut Vec<Columns>) {
        panels.resize(self.head.div_ceil(N_COLUMNS) * rows.len(), Columns::ZERO);
        self.matrix(rows.end).copy_panels(set, rows, 0..self.head, panels);
    }
}

#[cfg(test)]
mod tests;
