//! Dense attention: a few queries at a time over all keys, so that their scores stay in the cache.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::relative::{self, RelativePositions};
use super::{AttentionShape, HeadRows, Sight};
use crate::kernels::functions::{exp, max, sum};
use crate::kernels::gemm::{Columns, FactorRows, MAX_BLOCK, MAX_ROWS, N_COLUMNS, ROW_STRIDE, Sum};
use crate::kernels::instruction_set::{InstructionSet, vectorised};

/// Queries that are worth packing keys and values for.
const MIN_TASK_QUERIES: usize = 8 * MAX_ROWS;

/// `out[i] = softmax(scale q_i K^T) V` per head, and for each query of each head the logarithm of the sum that its
/// exponentials were divided by, (B, H, U): what the gradients need. A query without keys gives zeros.
///
/// # Panics
/// When the slices' lengths do not fit `shape`, or a head has more than `AttentionShape::MAX_HEAD` numbers.
pub fn attention(
    shape: AttentionShape<'_>,
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    out: &mut [f32],
) -> Vec<f32> {
    attention_with(InstructionSet::best(), shape, None, queries, keys, values, out)
}

/// [`attention`] of queries to keys of the same recording, that tells apart how far before or after a query a key lies. What it
/// takes grows with the keys that are seen: with T where the positions have a context.
///
/// # Panics
/// When the slices' lengths do not fit `shape`, or a head has more than `AttentionShape::MAX_HEAD` numbers.
pub fn relative_attention(
    shape: AttentionShape<'_>,
    positions: RelativePositions<'_>,
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    out: &mut [f32],
) {
    attention_with(InstructionSet::best(), shape, Some(positions), queries, keys, values, out);
}

pub(super) fn attention_with(
    set: InstructionSet,
    shape: AttentionShape<'_>,
    positions: Option<RelativePositions<'_>>,
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    out: &mut [f32],
) -> Vec<f32> {
    let n_rows = shape.n_rows(queries, keys, values);
    assert!(out.len() == queries.len(), "attention: {} queries, {} out", queries.len(), out.len());
    positions.iter().for_each(|positions| positions.check(&shape));
    let n_heads = n_rows * shape.n_heads;
    let mut log_sums = vec![f32::INFINITY; n_heads * shape.n_queries];
    if shape.n_queries == 0 || shape.width == 0 {
        return log_sums;
    }
    // Several tasks for each thread: they are not all equally fast.
    let n_parts = (4 * rayon::current_num_threads()).div_ceil(n_heads.max(1));
    let n_task = shape.n_queries.div_ceil(n_parts).max(MIN_TASK_QUERIES).next_multiple_of(MAX_ROWS);
    let mut heads = shape.heads_mut(out, shape.n_queries);
    let tasks = heads.iter_mut().zip(log_sums.chunks_mut(shape.n_queries)).enumerate().flat_map(
        |(i, (out, log_sums))| {
            let parts = out.chunks_mut(n_task).zip(log_sums.chunks_mut(n_task));
            parts.enumerate().map(move |(part, (out, log_sums))| (i, part * n_task, out, log_sums))
        },
    );
    let tasks: Vec<_> = tasks.collect();
    let context = positions.and_then(|positions| positions.context);
    tasks.into_par_iter().for_each(|(i, first_query, out, log_sums)| {
        let sight = shape.sight(shape.n_keys_of(i / shape.n_heads), context);
        let task = Task {
            set,
            scale: shape.scale,
            sight,
            positions: positions.map(|positions| positions.of_head(&shape, i % shape.n_heads, sight)),
            queries: HeadRows::new(&shape, queries, shape.n_queries, i),
            keys: HeadRows::new(&shape, keys, shape.n_keys, i),
            values: HeadRows::new(&shape, values, shape.n_keys, i),
            first_query,
        };
        SCRATCH.with_borrow_mut(|scratch| task.run(scratch, out, log_sums));
    });
    log_sums
}

/// Some queries of one head of one row of the batch.
struct Task<'a> {
    set: InstructionSet,
    scale: f32,
    sight: Sight,
    positions: Option<relative::OfHead<'a>>,
    queries: HeadRows<'a>,
    keys: HeadRows<'a>,
    values: HeadRows<'a>,
    first_query: usize,
}

/// What a thread packs operands and keeps scores in.
#[derive(Default)]
struct Scratch {
    keys: Vec<Columns>,   // (key panels, head)
    values: Vec<Columns>, // (head panels, keys)
    queries: Vec<f32>,    // (MAX_ROWS, ROW_STRIDE)
    scores: Vec<f32>,     // (key blocks, MAX_ROWS, ROW_STRIDE)
    relative: relative::Scratch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Scores of the rows of a tile, a block of keys after the other.
pub(super) const BLOCK: usize = MAX_ROWS * ROW_STRIDE;

impl Task<'_> {
    fn run(&self, scratch: &mut Scratch, out: &mut [&mut [f32]], log_sums: &mut [f32]) {
        let queries = self.first_query..self.first_query + out.len();
        let packed = self.sight.of_any(&queries);
        if packed.is_empty() {
            out.iter_mut().for_each(|out| out.fill(0.0));
            return;
        }
        self.keys.pack_transposed(self.set, packed.clone(), &mut scratch.keys);
        self.values.pack(self.set, packed.clone(), &mut scratch.values);
        if let Some(positions) = self.positions {
            positions.pack(self.set, queries, &mut scratch.relative);
        }
        scratch.queries.resize(BLOCK, 0.0);
        let tiles = out.chunks_mut(MAX_ROWS).zip(log_sums.chunks_mut(MAX_ROWS));
        for ((out, log_sums), first) in tiles.zip((self.first_query..).step_by(MAX_ROWS)) {
            self.tile(scratch, &packed, first, out, log_sums);
        }
    }

    /// At most `MAX_ROWS` queries, `first` and those after it; their keys are among those that are packed. Where the scores of their
    /// keys begin depends on `first` alone, so that sums over them are the same in any batch.
    fn tile(
        &self,
        scratch: &mut Scratch,
        packed: &Range<usize>,
        first: usize,
        out: &mut [&mut [f32]],
        log_sums: &mut [f32],
    ) {
        let (head, n_rows, scale) = (self.queries.head, out.len(), self.scale);
        let keys = self.sight.of_any(&(first..first + n_rows));
        if keys.is_empty() {
            out.iter_mut().for_each(|out| out.fill(0.0));
            return;
        }
        let (n_keys, skipped) = (keys.len(), keys.start - packed.start);
        let Scratch { keys: panels, values, queries, scores, relative } = scratch;
        scores.resize(n_keys.div_ceil(MAX_BLOCK) * BLOCK, 0.0);
        let rows = (first..first + n_rows).map(|i| self.queries.row(i));
        match self.positions {
            Some(positions) => relative::scaled(queries, rows.clone(), positions.content_bias, scale),
            None => {
                for (copies, row) in queries.chunks_mut(ROW_STRIDE).zip(rows.clone()) {
                    copies.iter_mut().zip(row).for_each(|(copy, query)| *copy = query * scale);
                }
            }
        }
        let panels = panels.chunks(head).skip(skipped / N_COLUMNS);
        for (panel, key) in panels.zip((0..n_keys).step_by(N_COLUMNS)) {
            let scores = &mut scores[key / MAX_BLOCK * BLOCK + key % MAX_BLOCK..];
            self.set.multiply(queries, panel, Sum::default(), FactorRows { values: scores, n_rows });
        }
        if let Some(positions) = self.positions {
            relative::scaled(queries, rows, positions.position_bias, scale);
            positions.add(self.set, first..first + n_rows, queries, scores, relative);
        }
        let mut scales = [0f32; MAX_ROWS];
        for (i, (scale, log_sum)) in scales.iter_mut().zip(log_sums).enumerate() {
            let seen = self.sight.of(first + i);
            let blocks = scores.chunks_mut(BLOCK).zip((0..n_keys).step_by(MAX_BLOCK));
            let mut rows: Vec<(&mut [f32], Range<usize>)> = blocks
                .map(|(block, key)| {
                    let n = MAX_BLOCK.min(n_keys - key);
                    let place = |at: usize| (at - keys.start).saturating_sub(key).min(n);
                    (&mut block[i * ROW_STRIDE..][..n], place(seen.start)..place(seen.end))
                })
                .collect();
            let max = rows.iter().fold(f32::NEG_INFINITY, |max, (row, seen)| {
                let other = largest(self.set, &row[seen.clone()]);
                if other > max { other } else { max }
            });
            let mut sum = 0.0;
            for (row, seen) in &mut rows {
                sum += exponentials(self.set, &mut row[seen.clone()], max);
                row[..seen.start].fill(0.0);
                row[seen.end..].fill(0.0);
            }
            if !seen.is_empty() {
                *scale = 1.0 / sum;
                *log_sum = max + sum.ln();
            }
        }
        for (panel, column) in values.chunks(packed.len()).zip((0..head).step_by(N_COLUMNS)) {
            let panel = &panel[skipped..];
            let mut sums = [Columns::ZERO; MAX_ROWS];
            for (rows, key) in scores.chunks(BLOCK).zip((0..n_keys).step_by(MAX_BLOCK)) {
                let panel = &panel[key..n_keys.min(key + MAX_BLOCK)];
                self.set.multiply(rows, panel, Sum::RESUMED, &mut sums[..n_rows]);
            }
            for ((out, sums), scale) in out.iter_mut().zip(&sums).zip(scales) {
                for (out, sum) in out[column..].iter_mut().zip(&sums.0) {
                    *out = sum * scale;
                }
            }
        }
    }
}

vectorised! {
    fn largest(row: &[f32]) -> f32 {
        max(row)
    }

    /// Scores become `e^(score - max)`; gives their sum.
    fn exponentials(row: &mut [f32], max: f32) -> f32 {
        for score in row.iter_mut() {
            *score = exp(*score - max);
        }
        sum(row, |weight| weight)
    }
}
