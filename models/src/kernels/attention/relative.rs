//! Relative positions in attention (Dai et al., arXiv 1901.02860, section 3.3): a score is `(q + u) k + (q + v) r_d`, where
//! `d` says how far the key lies before the query, and `u` and `v` are the same for all queries of a head.

use std::ops::Range;

use super::forward::BLOCK;
use super::{AttentionShape, HeadRows};
use crate::kernels::gemm::{Columns, FactorRows, MAX_BLOCK, N_COLUMNS, ROW_STRIDE, Sum};
use crate::kernels::instruction_set::{InstructionSet, vectorised};

/// What tells positions apart.
#[derive(Debug, Clone, Copy)]
pub struct RelativePositions<'a> {
    /// (2 P - 1, D), heads side by side, for any P from T on: row `P - 1 - d` is `r_d`.
    pub keys: &'a [f32],
    /// `u` of all heads, (D).
    pub content_bias: &'a [f32],
    /// `v` of all heads, (D).
    pub position_bias: &'a [f32],
}

impl<'a> RelativePositions<'a> {
    pub(super) fn check(&self, shape: &AttentionShape<'_>) {
        let n_rows = self.keys.len() / shape.width.max(1);
        assert!(
            self.keys.len() == n_rows * shape.width
                && n_rows % 2 == 1
                && n_rows.div_ceil(2) >= shape.n_keys
                && shape.n_queries == shape.n_keys
                && !shape.causal
                && self.content_bias.len() == shape.width
                && self.position_bias.len() == shape.width,
            "relative attention: {} values of positions, biases of {} and {}, for {shape:?}",
            self.keys.len(),
            self.content_bias.len(),
            self.position_bias.len()
        );
    }

    pub(super) fn of_head(self, shape: &AttentionShape<'_>, h: usize) -> OfHead<'a> {
        let (width, head) = (shape.width, shape.head());
        let part = |bias: &'a [f32]| &bias[h * head..][..head];
        OfHead {
            keys: HeadRows::of(self.keys, width, head, h),
            n_positions: (self.keys.len() / width.max(1)).div_ceil(2),
            content_bias: part(self.content_bias),
            position_bias: part(self.position_bias),
        }
    }
}

/// Those of one head.
#[derive(Clone, Copy)]
pub(super) struct OfHead<'a> {
    keys: HeadRows<'a>,
    /// P.
    n_positions: usize,
    pub content_bias: &'a [f32],
    pub position_bias: &'a [f32],
}

/// What a thread packs positions and keeps their scores in.
#[derive(Default)]
pub(super) struct Scratch {
    panels: Vec<Columns>,
    /// The row that the first panel begins with.
    first: usize,
    scores: Vec<f32>, // (blocks, MAX_ROWS, ROW_STRIDE)
}

impl OfHead<'_> {
    /// The rows that `queries` meet in `n_keys` keys, one more for each key than for the one before it.
    fn rows(&self, queries: &Range<usize>, n_keys: usize) -> Range<usize> {
        self.n_positions - queries.end..self.n_positions - 1 - queries.start + n_keys
    }

    pub fn pack(&self, set: InstructionSet, queries: Range<usize>, n_keys: usize, scratch: &mut Scratch) {
        let rows = self.rows(&queries, n_keys);
        scratch.first = rows.start;
        self.keys.pack_transposed(set, rows, &mut scratch.panels);
    }

    /// Adds the scores of positions to those of a tile: of its queries, which are packed with their bias in `rows`, and all keys.
    pub fn add(
        &self,
        set: InstructionSet,
        (queries, n_keys): (Range<usize>, usize),
        rows: &[f32],
        scores: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let n_rows = queries.len();
        let met = self.rows(&queries, n_keys);
        // From the panel on in which the first of them is.
        let (panel, lead) =
            ((met.start - scratch.first) / N_COLUMNS, (met.start - scratch.first) % N_COLUMNS);
        let n_met = lead + met.len();
        scratch.scores.resize(n_met.next_multiple_of(N_COLUMNS).div_ceil(MAX_BLOCK) * BLOCK, 0.0);
        let panels = scratch.panels.chunks(self.keys.head).skip(panel);
        for (panel, at) in panels.zip((0..n_met).step_by(N_COLUMNS)) {
            let values = &mut scratch.scores[place(at)..];
            set.multiply(rows, panel, Sum::default(), FactorRows { values, n_rows });
        }
        for i in 0..n_rows {
            // The last query meets the first of them with its first key.
            let (first, mut key) = (lead + n_rows - 1 - i, 0);
            while key < n_keys {
                let (to, from) = (key % MAX_BLOCK, (first + key) % MAX_BLOCK);
                let n = (n_keys - key).min(MAX_BLOCK - to).min(MAX_BLOCK - from);
                let row = i * ROW_STRIDE;
                let found = &scratch.scores[place(first + key) + row..][..n];
                add_to(set, &mut scores[place(key) + row..][..n], found);
                key += n;
            }
        }
    }
}

/// Where column `at` of the first row of a tile is.
fn place(at: usize) -> usize {
    at / MAX_BLOCK * BLOCK + at % MAX_BLOCK
}

/// Queries and a bias, times `scale`, as rows of a tile.
pub(super) fn scaled<'a>(
    tile: &mut [f32],
    queries: impl Iterator<Item = &'a [f32]>,
    bias: &[f32],
    scale: f32,
) {
    for (row, query) in tile.chunks_mut(ROW_STRIDE).zip(queries) {
        for ((to, query), bias) in row.iter_mut().zip(query).zip(bias) {
            *to = (query + bias) * scale;
        }
    }
}

vectorised! {
    fn add_to(sums: &mut [f32], x: &[f32]) {
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += *x);
    }
}

#[cfg(test)]
mod tests {
    use super::super::forward::attention_with;
    use super::*;
    use crate::kernels::test_support::noise;

    /// By the formula and in f64.
    fn twin(
        shape: AttentionShape<'_>,
        positions: RelativePositions<'_>,
        [q, k, v]: [&[f32]; 3],
        lengths: &[usize],
    ) -> Vec<f64> {
        let (t, width, head) = (shape.n_keys, shape.width, shape.width / shape.n_heads);
        let p = (positions.keys.len() / width).div_ceil(2);
        let mut out = vec![0f64; q.len()];
        for (b, n) in lengths.iter().enumerate() {
            for (h, i) in (0..shape.n_heads).flat_map(|h| (0..t).map(move |i| (h, i))) {
                let at = |i: usize| (b * t + i) * width + h * head;
                let score = |j: usize| -> f64 {
                    let r = (p - 1 + j - i) * width + h * head;
                    let term = |d: usize| {
                        let query = |bias: &[f32]| f64::from(q[at(i) + d]) + f64::from(bias[h * head + d]);
                        query(positions.content_bias) * f64::from(k[at(j) + d])
                            + query(positions.position_bias) * f64::from(positions.keys[r + d])
                    };
                    f64::from(shape.scale) * (0..head).map(term).sum::<f64>()
                };
                let scores: Vec<f64> = (0..*n).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
                for (j, score) in scores.iter().enumerate() {
                    for d in 0..head {
                        out[at(i) + d] += (score - max).exp() / sum * f64::from(v[at(j) + d]);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn outputs_are_the_formula_with_every_instruction_set_and_any_table() {
        // Rows of the batch, frames, heads, their width, positions beyond the frames; tiles, panels and blocks in part.
        let cases = [
            (1, 1, 1, 1, 0),
            (2, 7, 2, 3, 0),
            (1, 13, 2, 8, 5),
            (2, 70, 2, 16, 1),
            (1, 520, 1, 24, 0),
            (1, 200, 2, 33, 400),
        ];
        for (n_rows, n_frames, n_heads, head, more) in cases {
            let width = n_heads * head;
            let n = n_rows * n_frames * width;
            let [q, k, v] = [1, 2, 3].map(|seed| noise(n, seed));
            let table = noise((2 * (n_frames + more) - 1) * width, 4);
            let [content_bias, position_bias] = [5, 6].map(|seed| noise(width, seed));
            let positions = RelativePositions {
                keys: &table,
                content_bias: &content_bias,
                position_bias: &position_bias,
            };
            let lengths: Vec<usize> = (0..n_rows).map(|b| n_frames - b * (n_frames / 3)).collect();
            let shape = AttentionShape {
                n_queries: n_frames,
                n_keys: n_frames,
                width,
                n_heads,
                scale: 0.7,
                causal: false,
                key_lengths: Some(&lengths),
            };
            let expected = twin(shape, positions, [&q, &k, &v], &lengths);
            let mut first: Option<Vec<f32>> = None;
            for set in InstructionSet::available() {
                let mut out = vec![f32::NAN; n];
                attention_with(set, shape, Some(positions), &q, &k, &v, &mut out);
                for (out, expected) in out.iter().zip(&expected) {
                    assert!((f64::from(*out) - expected).abs() < 1e-5, "{set:?}: {out}, not {expected}");
                }
                assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{set:?}");
            }
            // A row alone, with a table of its own length.
            let last = (n_rows - 1) * n_frames * width;
            let n_own = lengths[n_rows - 1];
            let own = [&q, &k, &v].map(|x| &x[last..][..n_own * width]);
            let middle = (n_frames + more - n_own) * width;
            let keys = &table[middle..table.len() - middle];
            let mut alone = vec![f32::NAN; own[0].len()];
            let shape = AttentionShape { n_queries: n_own, n_keys: n_own, key_lengths: None, ..shape };
            let positions = RelativePositions { keys, ..positions };
            attention_with(
                InstructionSet::best(),
                shape,
                Some(positions),
                own[0],
                own[1],
                own[2],
                &mut alone,
            );
            assert_eq!(alone, first.unwrap_or_default()[last..][..alone.len()]);
        }
    }
}
