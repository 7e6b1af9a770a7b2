//! Gradients of dense attention. Scores are computed again, as in FlashAttention (Dao et al., arXiv 2205.14135): for a block of
//! queries, a few keys at a time. A head is one thread's, so sums over its queries and keys have one order.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{AttentionShape, HeadRows};
use crate::kernels::functions::{exp, sum2};
use crate::kernels::gemm::{Columns, FactorRows, MAX_ROWS, N_COLUMNS, ROW_STRIDE, Sum, parts};
use crate::kernels::instruction_set::{InstructionSet, vectorised};
use crate::kernels::memory::zeros;
use crate::kernels::transpose::transpose_block;

/// Queries of a block: packed in four ways, they stay in the second-level cache beside `BLOCK_KEYS` gradients of scores.
const BLOCK_QUERIES: usize = 6 * N_COLUMNS;

/// Keys of a block, whose gradients of scores are kept for the queries' gradients.
const BLOCK_KEYS: usize = 16 * MAX_ROWS;

/// What a forward pass read and gave, and the gradient of what it gave.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPass<'a> {
    /// Queries, (B, U, D).
    pub queries: &'a [f32],
    /// Keys, (B, T, D).
    pub keys: &'a [f32],
    /// Values, (B, T, D).
    pub values: &'a [f32],
    /// The result, (B, U, D).
    pub out: &'a [f32],
    /// The logarithms of sums, (B, H, U).
    pub log_sums: &'a [f32],
    /// The gradient of the result, (B, U, D).
    pub d_out: &'a [f32],
}

/// Gradients of queries, keys and values, as long as these.
///
/// # Panics
/// When the slices' lengths do not fit `shape`, or a head has more than `AttentionShape::MAX_HEAD` numbers.
pub fn attention_backward(shape: AttentionShape<'_>, pass: AttentionPass<'_>) -> [Vec<f32>; 3] {
    attention_backward_with(InstructionSet::best(), shape, pass)
}

pub(super) fn attention_backward_with(
    set: InstructionSet,
    shape: AttentionShape<'_>,
    pass: AttentionPass<'_>,
) -> [Vec<f32>; 3] {
    let n_rows = shape.n_rows(pass.queries, pass.keys, pass.values);
    assert!(
        pass.out.len() == pass.queries.len()
            && pass.d_out.len() == pass.queries.len()
            && pass.log_sums.len() == n_rows * shape.n_heads * shape.n_queries,
        "attention: {} results, {} gradients and {} sums do not fit {shape:?}",
        pass.out.len(),
        pass.d_out.len(),
        pass.log_sums.len()
    );
    let mut d_queries = zeros(pass.queries.len());
    let mut d_keys = zeros(pass.keys.len());
    let mut d_values = zeros(pass.values.len());
    if shape.n_queries > 0 && shape.n_keys > 0 && shape.width > 0 {
        let d_queries = shape.heads_mut(&mut d_queries, shape.n_queries);
        let d_keys = shape.heads_mut(&mut d_keys, shape.n_keys);
        let d_values = shape.heads_mut(&mut d_values, shape.n_keys);
        let tasks: Vec<_> = d_queries.into_iter().zip(d_keys).zip(d_values).collect();
        let tasks = tasks.into_par_iter().zip(pass.log_sums.par_chunks(shape.n_queries)).enumerate();
        tasks.for_each(|(i, (((d_queries, d_keys), d_values), log_sums))| {
            let head = Head {
                set,
                shape,
                n_keys: shape.n_keys_of(i / shape.n_heads),
                queries: HeadRows::new(&shape, pass.queries, shape.n_queries, i),
                keys: HeadRows::new(&shape, pass.keys, shape.n_keys, i),
                values: HeadRows::new(&shape, pass.values, shape.n_keys, i),
                out: HeadRows::new(&shape, pass.out, shape.n_queries, i),
                d_out: HeadRows::new(&shape, pass.d_out, shape.n_queries, i),
                log_sums,
            };
            SCRATCH.with_borrow_mut(|scratch| head.run(scratch, d_queries, d_keys, d_values));
        });
    }
    [d_queries, d_keys, d_values]
}

/// One head of one row of the batch.
struct Head<'a> {
    set: InstructionSet,
    shape: AttentionShape<'a>,
    n_keys: usize,
    queries: HeadRows<'a>,
    keys: HeadRows<'a>,
    values: HeadRows<'a>,
    out: HeadRows<'a>,
    d_out: HeadRows<'a>,
    log_sums: &'a [f32],
}

/// What a thread packs operands and adds up gradients in.
#[derive(Default)]
struct Scratch {
    block: QueryBlock,
    d_keys: Vec<Columns>,    // (head panels, T)
    d_values: Vec<Columns>,  // (head panels, T)
    d_queries: Vec<Columns>, // (query panels, head): columns are queries
    key_rows: Vec<f32>,      // (MAX_ROWS, ROW_STRIDE)
    value_rows: Vec<f32>,    // (MAX_ROWS, ROW_STRIDE)
    keys_t: Vec<f32>,        // (head, ROW_STRIDE): a block of keys
    weights: Vec<f32>,       // (MAX_ROWS, ROW_STRIDE): keys by queries
    d_scores: Vec<f32>,      // (MAX_ROWS, ROW_STRIDE): keys by queries
    d_panels: Vec<Columns>,  // (query panels, BLOCK_KEYS): the same for a block of keys
}

/// A block of queries, as the products read it.
#[derive(Default)]
struct QueryBlock {
    first: usize,
    n: usize,
    scaled: Vec<f32>,        // (queries, head)
    queries: Vec<Columns>,   // (head panels, queries)
    queries_t: Vec<Columns>, // (query panels, head)
    d_out: Vec<Columns>,     // (head panels, queries)
    d_out_t: Vec<Columns>,   // (query panels, head)
    log_sums: Vec<Columns>,  // (query panels)
    shared: Vec<Columns>,    // (query panels): what a query's weights all lose of their gradients
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Head<'_> {
    fn run(
        &self,
        scratch: &mut Scratch,
        mut d_queries: Vec<&mut [f32]>,
        d_keys: Vec<&mut [f32]>,
        d_values: Vec<&mut [f32]>,
    ) {
        let n_panels = self.keys.head.div_ceil(N_COLUMNS);
        for sums in [&mut scratch.d_keys, &mut scratch.d_values] {
            sums.clear();
            sums.resize(n_panels * self.n_keys, Columns::ZERO);
        }
        for rows in
            [&mut scratch.key_rows, &mut scratch.value_rows, &mut scratch.weights, &mut scratch.d_scores]
        {
            rows.resize(MAX_ROWS * ROW_STRIDE, 0.0);
        }
        scratch.keys_t.resize(self.keys.head * ROW_STRIDE, 0.0);
        scratch.d_panels.resize(BLOCK_QUERIES / N_COLUMNS * BLOCK_KEYS, Columns::ZERO);
        for (i, d_queries) in d_queries.chunks_mut(BLOCK_QUERIES).enumerate() {
            self.query_block(scratch, i * BLOCK_QUERIES, d_queries);
        }
        for (sums, rows) in [(&scratch.d_keys, d_keys), (&scratch.d_values, d_values)] {
            write(sums, self.n_keys, rows);
        }
    }

    /// Keys up to the last that a query of the block sees, in blocks.
    fn query_block(&self, scratch: &mut Scratch, first: usize, d_queries: &mut [&mut [f32]]) {
        let head = self.keys.head;
        scratch.block.pack(self, first, d_queries.len());
        scratch.d_queries.clear();
        scratch.d_queries.resize(d_queries.len().div_ceil(N_COLUMNS) * head, Columns::ZERO);
        let n_visible = self.shape.sight(self.n_keys, None).of(first + d_queries.len() - 1).end;
        for key in (0..n_visible).step_by(BLOCK_KEYS) {
            let keys = key..n_visible.min(key + BLOCK_KEYS);
            for tile in keys.clone().step_by(MAX_ROWS) {
                self.key_tile(scratch, tile..keys.end.min(tile + MAX_ROWS), keys.start);
            }
            let rows = &self.keys.values[key * self.keys.step..];
            transpose_block(
                self.set,
                rows,
                self.keys.step,
                keys.len(),
                head,
                &mut scratch.keys_t,
                ROW_STRIDE,
            );
            let panels = scratch.d_panels.chunks(BLOCK_KEYS).zip(scratch.d_queries.chunks_mut(head));
            for (panel, sums) in panels {
                for tile in parts(head, head.div_ceil(MAX_ROWS)) {
                    let rows = &scratch.keys_t[tile.start * ROW_STRIDE..];
                    self.set.multiply(rows, &panel[..keys.len()], Sum::RESUMED, &mut sums[tile]);
                }
            }
        }
        for (d_queries, sums) in d_queries.chunks_mut(N_COLUMNS).zip(scratch.d_queries.chunks(head)) {
            for (i, d_query) in d_queries.iter_mut().enumerate() {
                for (d, sums) in d_query.iter_mut().zip(sums) {
                    *d = sums.0[i] * self.shape.scale;
                }
            }
        }
    }

    /// A few keys by all queries of the block: scores, weights and their gradients, and what they add to the gradients of
    /// keys and values.
    fn key_tile(&self, scratch: &mut Scratch, keys: std::ops::Range<usize>, block_start: usize) {
        let Scratch { block, key_rows, value_rows, weights, d_scores, d_panels, .. } = scratch;
        let (head, n_rows) = (self.keys.head, keys.len());
        let rows = key_rows.chunks_mut(ROW_STRIDE).zip(value_rows.chunks_mut(ROW_STRIDE)).zip(keys.clone());
        for ((key_row, value_row), key) in rows {
            key_row[..head].copy_from_slice(self.keys.row(key));
            value_row[..head].copy_from_slice(self.values.row(key));
        }
        let panels = block.queries_t.chunks(head).zip(block.d_out_t.chunks(head));
        for (i, (queries, d_out)) in panels.enumerate() {
            let (weights, d_scores) = (&mut weights[i * N_COLUMNS..], &mut d_scores[i * N_COLUMNS..]);
            let d_panel = &mut d_panels[i * BLOCK_KEYS + keys.start - block_start..][..n_rows];
            let first_query = block.first + i * N_COLUMNS;
            // Queries before the first key do not see any of these.
            if self.shape.causal && first_query + N_COLUMNS <= keys.start {
                hide(weights, d_scores, d_panel, &[N_COLUMNS; MAX_ROWS]);
                continue;
            }
            self.set.multiply(key_rows, queries, Sum::default(), FactorRows { values: weights, n_rows });
            self.set.multiply(value_rows, d_out, Sum::default(), FactorRows { values: d_scores, n_rows });
            weigh(self.set, weights, d_scores, d_panel, &block.log_sums[i], &block.shared[i]);
            if self.shape.causal {
                let mut n_hidden = [0; MAX_ROWS];
                for (n, key) in n_hidden.iter_mut().zip(keys.clone()) {
                    *n = key.saturating_sub(first_query).min(N_COLUMNS);
                }
                hide(weights, d_scores, d_panel, &n_hidden);
            }
        }
        for (rows, panels, sums) in [
            (&*weights, &block.d_out, &mut scratch.d_values),
            (&*d_scores, &block.queries, &mut scratch.d_keys),
        ] {
            for (panel, sums) in panels.chunks(block.n).zip(sums.chunks_mut(self.n_keys)) {
                self.set.multiply(rows, panel, Sum::RESUMED, &mut sums[keys.clone()]);
            }
        }
    }
}

/// Sets to zero what the first of some queries, which do not see a key, have of its weights and gradients.
fn hide(weights: &mut [f32], d_scores: &mut [f32], d_panel: &mut [Columns], n_hidden: &[usize; MAX_ROWS]) {
    let rows = weights.chunks_mut(ROW_STRIDE).zip(d_scores.chunks_mut(ROW_STRIDE)).zip(d_panel);
    for (((weights, d_scores), d_panel), n) in rows.zip(n_hidden) {
        weights[..*n].fill(0.0);
        d_scores[..*n].fill(0.0);
        d_panel.0[..*n].fill(0.0);
    }
}

/// Sums in panels, for `n` rows each, to rows. Rows beyond are padding and stay as they are.
fn write(sums: &[Columns], n: usize, mut rows: Vec<&mut [f32]>) {
    for (sums, column) in sums.chunks(n.max(1)).zip((0..).step_by(N_COLUMNS)) {
        for (row, sums) in rows.iter_mut().zip(sums) {
            for (value, sum) in row[column..].iter_mut().zip(&sums.0) {
                *value = *sum;
            }
        }
    }
}

impl QueryBlock {
    fn pack(&mut self, head: &Head<'_>, first: usize, n: usize) {
        (self.first, self.n) = (first, n);
        let width = head.queries.head;
        self.scaled.clear();
        for i in first..first + n {
            self.scaled.extend(head.queries.row(i).iter().map(|query| query * head.shape.scale));
        }
        let scaled = HeadRows { values: &self.scaled, step: width, head: width };
        scaled.pack(head.set, 0..n, &mut self.queries);
        scaled.pack_transposed(head.set, 0..n, &mut self.queries_t);
        head.d_out.pack(head.set, first..first + n, &mut self.d_out);
        head.d_out.pack_transposed(head.set, first..first + n, &mut self.d_out_t);
        self.log_sums.clear();
        self.shared.clear();
        // Queries that only fill up the last panel weigh nothing.
        self.log_sums.resize(n.div_ceil(N_COLUMNS), Columns([f32::INFINITY; N_COLUMNS]));
        self.shared.resize(n.div_ceil(N_COLUMNS), Columns::ZERO);
        let columns = Columns::flatten_mut(&mut self.log_sums);
        columns[..n].copy_from_slice(&head.log_sums[first..first + n]);
        for (shared, i) in Columns::flatten_mut(&mut self.shared).iter_mut().zip(first..first + n) {
            *shared = product(head.set, head.out.row(i), head.d_out.row(i));
        }
    }
}

vectorised! {
    fn product(a: &[f32], b: &[f32]) -> f32 {
        sum2(a, b, |a, b| a * b)
    }

    /// Scores become weights, and gradients of weights those of scores, which are copied to a panel.
    fn weigh(
        scores: &mut [f32],
        gradients: &mut [f32],
        panel: &mut [Columns],
        log_sums: &Columns,
        shared: &Columns,
    ) {
        let rows = scores.chunks_mut(ROW_STRIDE).zip(gradients.chunks_mut(ROW_STRIDE)).zip(panel);
        for ((scores, gradients), panel) in rows {
            let (Some(scores), Some(gradients)) = (
                scores.first_chunk_mut::<N_COLUMNS>(),
                gradients.first_chunk_mut::<N_COLUMNS>(),
            ) else {
                unreachable!("a row that ends before its panel")
            };
            for i in 0..N_COLUMNS {
                let weight = exp(scores[i] - log_sums.0[i]);
                let gradient = weight * (gradients[i] - shared.0[i]);
                (scores[i], gradients[i], panel.0[i]) = (weight, gradient, gradient);
            }
        }
    }
}
