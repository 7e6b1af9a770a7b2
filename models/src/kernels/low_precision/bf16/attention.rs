//! Dense attention in bf16: scores in f32 for a few queries at a time, their exponentials rounded.

use std::cell::RefCell;

use rayon::prelude::*;

use super::super::product::n_groups;
use super::super::{GROUP_BYTES, Group, LINE_GROUPS, Line, N_COLUMNS, Ready, Rows, Sums, TILE_ROWS};
use super::{Bf16Rows, Bf16Set, LINE, PAIR, f32_to_bf16};
use crate::kernels::attention::{AttentionShape, HeadRows};
use crate::kernels::instruction_set::{InstructionSet, vectorised};
use crate::kernels::transpose::transpose_block;

/// Queries at a time: two tiles.
const N_QUERIES: usize = 2 * TILE_ROWS;

/// `out[i] = softmax(scale q_i K^T) V` per head, with factors rounded to bf16. A query without keys gives zeros.
///
/// # Panics
/// When the slices' lengths do not fit `shape`, or it is causal.
pub fn attention_bf16(
    shape: AttentionShape<'_>,
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    out: &mut [f32],
) {
    attention_with(Bf16Set::best(), InstructionSet::best(), shape, queries, keys, values, out);
}

pub(super) fn attention_with(
    pairs: Bf16Set,
    set: InstructionSet,
    shape: AttentionShape<'_>,
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    out: &mut [f32],
) {
    let n_rows = shape.n_rows(queries, keys, values);
    assert!(!shape.causal && out.len() == queries.len(), "attention in bf16: {shape:?}, {} out", out.len());
    if n_rows == 0 {
        return;
    }
    // As many parts of heads as there are threads, at least: each packs its head's keys and values.
    let mut heads = shape.heads_mut(out, shape.n_queries);
    let n_parts = rayon::current_num_threads().div_ceil(heads.len().max(1));
    let n_task = shape.n_queries.div_ceil(n_parts).next_multiple_of(N_QUERIES);
    let tasks = heads.iter_mut().enumerate().flat_map(|(i, out)| {
        out.chunks_mut(n_task).enumerate().map(move |(part, out)| (i, part * n_task, out))
    });
    let tasks: Vec<_> = tasks.collect();
    tasks.into_par_iter().for_each(|(i, first_query, out)| {
        let task = Task {
            pairs,
            set,
            n_keys: shape.n_keys_of(i / shape.n_heads),
            scale: shape.scale * std::f32::consts::LOG2_E,
            queries: HeadRows::new(&shape, queries, shape.n_queries, i),
            keys: HeadRows::new(&shape, keys, shape.n_keys, i),
            values: HeadRows::new(&shape, values, shape.n_keys, i),
            first_query,
        };
        SCRATCH.with_borrow_mut(|scratch| task.run(scratch, out));
    });
}

/// Some queries of one head of one row of the batch.
struct Task<'a> {
    pairs: Bf16Set,
    set: InstructionSet,
    n_keys: usize,
    /// Of scores whose powers of two are wanted.
    scale: f32,
    queries: HeadRows<'a>,
    keys: HeadRows<'a>,
    values: HeadRows<'a>,
    first_query: usize,
}

#[derive(Default)]
struct Scratch {
    keys: Vec<Group>,       // (key panels, D / 2)
    values: Vec<Group>,     // (head panels, T / 2)
    queries: Bf16Rows,      // (N_QUERIES, D)
    weights: Bf16Rows,      // (N_QUERIES, T)
    scores: Vec<Sums<f32>>, // (key panels, N_QUERIES)
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Task<'_> {
    fn run(&self, scratch: &mut Scratch, out: &mut [&mut [f32]]) {
        let (head, n_keys) = (self.queries.head, self.n_keys);
        if n_keys == 0 {
            out.iter_mut().for_each(|out| out.fill(0.0));
            return;
        }
        let Scratch { keys, values, queries, weights, scores } = scratch;
        let key_groups = n_groups(head, LINE);
        self.pack_keys(key_groups, queries, keys);
        let n_panels = n_keys.div_ceil(N_COLUMNS);
        let value_groups = n_panels * LINE_GROUPS;
        self.pack_values(value_groups, values);
        queries.resize(N_QUERIES, head);
        weights.resize(N_QUERIES, n_panels * N_COLUMNS);
        scores.resize(n_panels * N_QUERIES, Sums([0.0; N_COLUMNS]));
        let pairs = Ready::new(self.pairs);
        for (first, out) in (self.first_query..).step_by(N_QUERIES).zip(out.chunks_mut(N_QUERIES)) {
            let n = out.len();
            for i in 0..n {
                queries.set_row(self.set, i, self.queries.row(first + i), self.scale);
            }
            let mut largest = [[f32::NEG_INFINITY; 16]; N_QUERIES];
            let panels = keys.chunks(key_groups).zip(scores.chunks_mut(N_QUERIES)).enumerate();
            for (panel, (keys, scores)) in panels {
                let scores = &mut scores[..n];
                pairs.multiply(queries.rows(), keys, scores);
                if (panel + 1) * N_COLUMNS > n_keys {
                    let n_last = n_keys - panel * N_COLUMNS;
                    scores.iter_mut().for_each(|scores| scores.0[n_last..].fill(f32::NEG_INFINITY));
                }
                self.pairs.running_max(scores, &mut largest[..n]);
            }
            let largest = largest.map(|lanes| lanes.into_iter().fold(f32::NEG_INFINITY, f32::max));
            let mut sums = [[0f32; 16]; N_QUERIES];
            for (panel, scores) in scores.chunks(N_QUERIES).enumerate() {
                let (lines, step) = weights.lines_from(panel);
                self.pairs.softmax_weights(&scores[..n], &largest, &mut sums, lines, step);
            }
            for (i, values) in values.chunks(value_groups).enumerate() {
                let mut mixed = [Sums([0f32; N_COLUMNS]); N_QUERIES];
                pairs.multiply(weights.rows(), values, &mut mixed[..n]);
                for ((out, mixed), sums) in out.iter_mut().zip(&mixed).zip(&sums) {
                    let scale = 1.0 / sums.iter().sum::<f32>();
                    for (out, mixed) in out[i * N_COLUMNS..].iter_mut().zip(&mixed.0) {
                        *out = *mixed * scale;
                    }
                }
            }
        }
    }

    /// Keys as columns: pairs of their numbers are moved as one.
    fn pack_keys(&self, n_groups: usize, rounded: &mut Bf16Rows, groups: &mut Vec<Group>) {
        groups.clear();
        groups.resize(self.n_keys.div_ceil(N_COLUMNS) * n_groups, Group([[0; GROUP_BYTES]; N_COLUMNS]));
        rounded.resize(N_COLUMNS, self.keys.head);
        for (panel, first) in groups.chunks_mut(n_groups).zip((0..self.n_keys).step_by(N_COLUMNS)) {
            let n = N_COLUMNS.min(self.n_keys - first);
            for i in 0..n {
                rounded.set_row(self.set, i, self.keys.row(first + i), 1.0);
            }
            let Rows { lines, stride } = rounded.rows();
            let n_pairs = self.keys.head.div_ceil(PAIR);
            let (words, step) = (Line::words(lines), stride * LINE_GROUPS);
            transpose_block(self.set, words, step, n, n_pairs, Group::words_mut(panel), N_COLUMNS);
        }
    }

    /// Values as rows, two of them side by side.
    fn pack_values(&self, n_groups: usize, groups: &mut Vec<Group>) {
        let head = self.values.head;
        groups.clear();
        groups.resize(head.div_ceil(N_COLUMNS) * n_groups, Group([[0; GROUP_BYTES]; N_COLUMNS]));
        let zeros = vec![0f32; head];
        for (i, panel) in groups.chunks_mut(n_groups).enumerate() {
            for (group, key) in panel.iter_mut().zip((0..self.n_keys).step_by(PAIR)) {
                let second = if key + 1 < self.n_keys { self.values.row(key + 1) } else { &zeros };
                let columns = i * N_COLUMNS..head.min((i + 1) * N_COLUMNS);
                interleave(self.set, &self.values.row(key)[columns.clone()], &second[columns], group);
            }
        }
    }
}

vectorised! {
    fn interleave(first: &[f32], second: &[f32], group: &mut Group) {
        for ((column, first), second) in group.0.iter_mut().zip(first).zip(second) {
            let (first, second) = (u32::from(f32_to_bf16(*first)), u32::from(f32_to_bf16(*second)));
            let pair = if cfg!(target_endian = "little") { first | second << 16 } else { first << 16 | second };
            *column = pair.to_ne_bytes();
        }
    }
}
