//! Relative positions in attention (Dai et al., arXiv 1901.02860, section 3.3): a score is `(q + u) k + (q + v) r_d`, where
//! `d` says how far the key lies before the query, and `u` and `v` are the same for all queries of a head.

use std::ops::Range;

use super::forward::BLOCK;
use super::{AttentionShape, HeadRows, Sight};
use crate::kernels::gemm::{Columns, FactorRows, MAX_BLOCK, N_COLUMNS, ROW_STRIDE, Sum};
use crate::kernels::instruction_set::{InstructionSet, vectorised};

/// What tells positions apart.
#[derive(Debug, Clone, Copy)]
pub struct RelativePositions<'a> {
    /// (2 P - 1, D), heads side by side, for any P from T on, or above both numbers of `context`: row `P - 1 - d` is `r_d`.
    pub keys: &'a [f32],
    /// Positions before and after a query that it sees, as NeMo's `att_context_size`. `None`: all.
    pub context: Option<[usize; 2]>,
    /// `u` of all heads, (D).
    pub content_bias: &'a [f32],
    /// `v` of all heads, (D).
    pub position_bias: &'a [f32],
}

impl<'a> RelativePositions<'a> {
    pub(super) fn check(&self, shape: &AttentionShape<'_>) {
        let n_rows = self.keys.len() / shape.width.max(1);
        let furthest = self.context.map_or(usize::MAX, |[before, after]| before.max(after));
        assert!(
            self.keys.len() == n_rows * shape.width
                && n_rows % 2 == 1
                && n_rows.div_ceil(2) > furthest.min(shape.n_keys.saturating_sub(1))
                && shape.n_queries == shape.n_keys
                && !shape.causal
                && self.content_bias.len() == shape.width
                && self.position_bias.len() == shape.width,
            "relative attention: {} values of positions, biases of {} and {}, context {:?}, for {shape:?}",
            self.keys.len(),
            self.content_bias.len(),
            self.position_bias.len(),
            self.context
        );
    }

    pub(super) fn of_head(self, shape: &AttentionShape<'_>, h: usize, sight: Sight) -> OfHead<'a> {
        let (width, head) = (shape.width, shape.head());
        let part = |bias: &'a [f32]| &bias[h * head..][..head];
        OfHead {
            keys: HeadRows::of(self.keys, width, head, h),
            n_positions: (self.keys.len() / width.max(1)).div_ceil(2),
            sight,
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
    sight: Sight,
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
    /// The rows that `queries` meet in `keys`, one more for each key than for the one before it; none that the context hides from all.
    fn rows(&self, queries: &Range<usize>, keys: &Range<usize>) -> Range<usize> {
        let (middle, [before, after]) = (self.n_positions - 1, self.sight.context);
        let first = (self.n_positions + keys.start).saturating_sub(queries.end);
        let end = middle + keys.end - queries.start;
        first.max(middle.saturating_sub(before))..end.min(self.n_positions.saturating_add(after))
    }

    /// Packs what `queries`, the first of which sees keys, meet.
    pub fn pack(&self, set: InstructionSet, queries: Range<usize>, scratch: &mut Scratch) {
        let rows = self.rows(&queries, &self.sight.of_any(&queries));
        scratch.first = rows.start;
        self.keys.pack_transposed(set, rows, &mut scratch.panels);
    }

    /// Adds the scores of positions to those of a tile: of its queries, which are packed with their bias in `rows`, and of the keys
    /// that they see.
    pub fn add(
        &self,
        set: InstructionSet,
        queries: Range<usize>,
        rows: &[f32],
        scores: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (n_rows, keys) = (queries.len(), self.sight.of_any(&queries));
        let met = self.rows(&queries, &keys);
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
        for (i, query) in queries.enumerate() {
            let seen = self.sight.of(query);
            let mut key = seen.start;
            while key < seen.end {
                let to = key - keys.start;
                let from = lead + (self.n_positions - 1 + key - query - met.start);
                let n = (seen.end - key).min(MAX_BLOCK - to % MAX_BLOCK).min(MAX_BLOCK - from % MAX_BLOCK);
                let row = i * ROW_STRIDE;
                let found = &scratch.scores[place(from) + row..][..n];
                add_to(set, &mut scores[place(to) + row..][..n], found);
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
                let is_seen = |j: &usize| match positions.context {
                    Some([before, after]) => *j + before >= i && *j <= i + after,
                    None => true,
                };
                let scores: Vec<_> = (0..*n).filter(is_seen).map(|j| (j, score(j))).collect();
                let max = scores.iter().fold(f64::NEG_INFINITY, |max, (_, score)| score.max(max));
                let sum: f64 = scores.iter().map(|(_, score)| (score - max).exp()).sum();
                for (j, score) in &scores {
                    for d in 0..head {
                        out[at(i) + d] += (score - max).exp() / sum * f64::from(v[at(*j) + d]);
                    }
                }
            }
        }
        out
    }

    /// Numbers of a batch, and what it looks like.
    struct Case {
        shape: AttentionShape<'static>,
        /// Of the batch's rows.
        lengths: Vec<usize>,
        qkv: [Vec<f32>; 3],
        /// For more positions than there are frames.
        table: Vec<f32>,
        biases: [Vec<f32>; 2],
    }

    impl Case {
        fn new(n_rows: usize, n_frames: usize, n_heads: usize, head: usize, more: usize) -> Self {
            let width = n_heads * head;
            Self {
                shape: AttentionShape {
                    n_queries: n_frames,
                    n_keys: n_frames,
                    width,
                    n_heads,
                    scale: 0.7,
                    causal: false,
                    key_lengths: None,
                },
                lengths: (0..n_rows).map(|b| n_frames - b * (n_frames / 3)).collect(),
                qkv: [1, 2, 3].map(|seed| noise(n_rows * n_frames * width, seed)),
                table: noise((2 * (n_frames + more) - 1) * width, 4),
                biases: [5, 6].map(|seed| noise(width, seed)),
            }
        }

        fn positions(&self, context: Option<[usize; 2]>) -> RelativePositions<'_> {
            let [content_bias, position_bias] = &self.biases;
            RelativePositions { keys: &self.table, context, content_bias, position_bias }
        }

        /// With a table of `n_positions` alone.
        fn positions_of(&self, n_positions: usize, context: Option<[usize; 2]>) -> RelativePositions<'_> {
            let n_known = (self.table.len() / self.shape.width).div_ceil(2);
            let middle = (n_known - n_positions) * self.shape.width;
            RelativePositions {
                keys: &self.table[middle..self.table.len() - middle],
                ..self.positions(context)
            }
        }

        fn run(&self, set: InstructionSet, positions: RelativePositions<'_>) -> Vec<f32> {
            let shape = AttentionShape { key_lengths: Some(&self.lengths), ..self.shape };
            let [q, k, v] = &self.qkv;
            let mut out = vec![f32::NAN; q.len()];
            attention_with(set, shape, Some(positions), q, k, v, &mut out);
            out
        }

        /// The last row of the batch without padding, and where it begins.
        fn last_alone(&self, positions: RelativePositions<'_>) -> (Vec<f32>, usize) {
            let Self { shape, lengths, qkv, .. } = self;
            let first = (lengths.len() - 1) * shape.n_keys * shape.width;
            let n = lengths[lengths.len() - 1];
            let [q, k, v] = [0, 1, 2].map(|i| &qkv[i][first..][..n * shape.width]);
            let shape = AttentionShape { n_queries: n, n_keys: n, ..*shape };
            let mut out = vec![f32::NAN; q.len()];
            attention_with(InstructionSet::best(), shape, Some(positions), q, k, v, &mut out);
            (out, first)
        }

        fn check(&self, context: Option<[usize; 2]>) {
            let shape = self.shape;
            let [q, k, v] = &self.qkv;
            let expected = twin(shape, self.positions(context), [q, k, v], &self.lengths);
            let what = format!("{} frames, heads of {}, {context:?}", shape.n_keys, shape.head());
            let mut first: Option<Vec<f32>> = None;
            for set in InstructionSet::available() {
                let out = self.run(set, self.positions(context));
                for (out, expected) in out.iter().zip(&expected) {
                    let error = (f64::from(*out) - expected).abs();
                    assert!(error < 1e-5, "{what}, {set:?}: {out}, not {expected}");
                }
                assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{what}, {set:?}");
            }
            let first = first.unwrap_or_default();
            // Alone, with the shortest table that there may be.
            let furthest = context.map_or(usize::MAX, |[before, after]| before.max(after));
            let n_own = self.lengths[self.lengths.len() - 1];
            let (alone, from) = self.last_alone(self.positions_of(furthest.min(n_own - 1) + 1, context));
            assert_eq!(alone, first[from..][..alone.len()], "{what}: another one alone");
        }
    }

    /// Rows of the batch, frames, heads, their width, positions beyond the frames; tiles, panels and blocks in part.
    const CASES: [(usize, usize, usize, usize, usize); 6] = [
        (1, 1, 1, 1, 0),
        (2, 7, 2, 3, 0),
        (1, 13, 2, 8, 5),
        (2, 70, 2, 16, 1),
        (1, 520, 1, 24, 0),
        (1, 200, 2, 33, 400),
    ];

    #[test]
    fn outputs_are_the_formula_with_every_instruction_set_and_any_table() {
        for (n_rows, n_frames, n_heads, head, more) in CASES {
            Case::new(n_rows, n_frames, n_heads, head, more).check(None);
        }
    }

    #[test]
    fn so_they_are_in_any_context() {
        // Nothing, one side, odd numbers, more than a tile, a panel and a block, and more than there are frames.
        let contexts =
            [[0, 0], [0, 3], [5, 0], [1, 1], [13, 11], [37, 0], [0, 40], [64, 65], [450, 10], [2000, 9]];
        // Two tasks, the second beyond the first row's end; queries that see nothing, for they lie far beyond their row's.
        for (n_rows, n_frames, n_heads, head, more) in CASES.into_iter().chain([(3, 300, 1, 8, 0)]) {
            let case = Case::new(n_rows, n_frames, n_heads, head, more);
            contexts.into_iter().for_each(|context| case.check(Some(context)));
        }
    }

    #[test]
    fn a_context_of_all_positions_changes_no_bit() {
        for (n_rows, n_frames, n_heads, head, more) in CASES {
            let case = Case::new(n_rows, n_frames, n_heads, head, more);
            let run = |context| case.run(InstructionSet::best(), case.positions(context));
            for context in [[n_frames - 1; 2], [n_frames + 7, usize::MAX]] {
                assert_eq!(run(None), run(Some(context)), "{n_frames} frames, {context:?}");
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit_in_a_context() -> Result<(), rayon::ThreadPoolBuildError> {
        let case = Case::new(2, 400, 1, 16, 0);
        let run = || case.run(InstructionSet::best(), case.positions_of(51, Some([50, 20])));
        let expected = run();
        for n_threads in [1, 2, 7] {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
            assert!(threads.install(run) == expected, "{n_threads} threads");
        }
        Ok(())
    }
}
