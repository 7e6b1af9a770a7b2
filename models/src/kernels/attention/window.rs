//! Keys and values that do not change any more, in the order in which queries read them.

use rayon::prelude::*;

use super::super::functions::softmax_row;
use super::super::instruction_set::{InstructionSet, vectorised};
use super::super::low_precision::{bf16_to_f32, round_to_bf16};
use super::super::memory::prefetch;
use super::super::packed_weight::Precision;
use super::{AttentionShape, Columns, HeadRows, N_COLUMNS};

/// Bytes between what is multiplied and what is fetched.
const AHEAD_BYTES: usize = 2048;

/// What a window's queries look at, packed once for many of them: every step of every row reads all of it.
pub struct WindowKeysValues {
    heads: Heads,
    n_positions: usize,
    width: usize,
}

enum Heads {
    F32(Vec<Head<Columns>>),
    Bf16(Vec<Head<Halves>>),
}

/// One head: each of its parts is read from beginning to end.
struct Head<C> {
    keys: Vec<C>,   // panels of positions, one place of the head after the other
    values: Vec<C>, // panels of places of the head, one position after the other
}

/// The upper halves of `N_COLUMNS` numbers side by side.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Halves([u16; N_COLUMNS]);

/// Numbers side by side.
trait Lanes: Copy + Send + Sync {
    fn number(&self, lane: usize) -> f32;
}

impl Lanes for Columns {
    #[inline(always)]
    fn number(&self, lane: usize) -> f32 {
        self.0[lane]
    }
}

impl Lanes for Halves {
    #[inline(always)]
    fn number(&self, lane: usize) -> f32 {
        bf16_to_f32(self.0[lane])
    }
}

impl WindowKeysValues {
    /// Packs keys and values, each (T, D) with `n_heads` heads side by side in D, as they are or rounded to bf16.
    ///
    /// # Panics
    /// When lengths do not fit each other, or `n_heads` does not divide D.
    pub fn pack(keys: &[f32], values: &[f32], width: usize, n_heads: usize, precision: Precision) -> Self {
        let n_positions = keys.len() / width.max(1);
        let shape = AttentionShape {
            n_queries: n_positions,
            n_keys: n_positions,
            width,
            n_heads,
            scale: 1.0,
            causal: false,
            key_lengths: None,
        };
        assert!(
            keys.len() == n_positions * width
                && keys.len() == values.len()
                && width.is_multiple_of(n_heads.max(1)),
            "{} keys and {} values of {n_heads} heads in {width} numbers",
            keys.len(),
            values.len()
        );
        let set = InstructionSet::best();
        let head = |i: usize| {
            let [mut packed_keys, mut packed_values] = [Vec::new(), Vec::new()];
            if n_positions > 0 {
                let rows = |x| HeadRows::new(&shape, x, n_positions, i);
                rows(keys).pack_transposed(set, 0..n_positions, &mut packed_keys);
                rows(values).pack(0..n_positions, &mut packed_values);
            }
            Head { keys: packed_keys, values: packed_values }
        };
        let heads = (0..n_heads).into_par_iter();
        let heads = match precision {
            Precision::F32 => Heads::F32(heads.map(head).collect()),
            Precision::Bf16 | Precision::Int8 => Heads::Bf16(
                heads
                    .map(|i| {
                        let Head { keys, values } = head(i);
                        Head { keys: rounded(&keys), values: rounded(&values) }
                    })
                    .collect(),
            ),
        };
        Self { heads, n_positions, width }
    }

    /// T.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Keys as they are kept, (T, D).
    pub fn keys(&self) -> Vec<f32> {
        match &self.heads {
            Heads::F32(heads) => self.unpacked(heads, |head, t, d, width| lane(&head.keys, t, d, width)),
            Heads::Bf16(heads) => self.unpacked(heads, |head, t, d, width| lane(&head.keys, t, d, width)),
        }
    }

    /// Values as they are kept, (T, D).
    pub fn values(&self) -> Vec<f32> {
        let n = self.n_positions;
        match &self.heads {
            Heads::F32(heads) => self.unpacked(heads, |head, t, d, _| lane(&head.values, d, t, n)),
            Heads::Bf16(heads) => self.unpacked(heads, |head, t, d, _| lane(&head.values, d, t, n)),
        }
    }

    fn unpacked<C>(
        &self,
        heads: &[Head<C>],
        number: impl Fn(&Head<C>, usize, usize, usize) -> f32,
    ) -> Vec<f32> {
        let width = self.width / heads.len().max(1);
        let mut numbers = Vec::with_capacity(self.n_positions * self.width);
        for t in 0..self.n_positions {
            for head in heads {
                numbers.extend((0..width).map(|d| number(head, t, d, width)));
            }
        }
        numbers
    }

    /// `softmax(query K^T) V` of head `h` over the first `n_keys` positions. `scores` is where it computes.
    pub(super) fn attend(
        &self,
        set: InstructionSet,
        query: &[f32],
        h: usize,
        n_keys: usize,
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        scores.clear();
        scores.resize(n_keys.next_multiple_of(N_COLUMNS), 0.0);
        match &self.heads {
            Heads::F32(heads) => {
                score(set, query, &heads[h].keys, scores);
                softmax(set, &mut scores[..n_keys]);
                mix(set, &scores[..n_keys], &heads[h].values, self.n_positions, out);
            }
            Heads::Bf16(heads) => {
                score_halves(set, query, &heads[h].keys, scores);
                softmax(set, &mut scores[..n_keys]);
                mix_halves(set, &scores[..n_keys], &heads[h].values, self.n_positions, out);
            }
        }
    }
}

fn rounded(columns: &[Columns]) -> Vec<Halves> {
    let round = |columns: &Columns| {
        let mut halves = Halves([0; N_COLUMNS]);
        round_to_bf16(&columns.0, &mut halves.0);
        halves
    };
    columns.iter().map(round).collect()
}

/// Lane `column` of the panels' row `row`, of which a panel has `n_rows`.
fn lane<C: Lanes>(panels: &[C], column: usize, row: usize, n_rows: usize) -> f32 {
    panels[column / N_COLUMNS * n_rows + row].number(column % N_COLUMNS)
}

/// Products of a query with the positions of as many panels as there is room for. Even and odd places are summed beside each
/// other, so that one sum need not wait for the next.
#[inline(always)]
fn score_panels<C: Lanes>(query: &[f32], keys: &[C], scores: &mut [f32]) {
    for (scores, keys) in scores.chunks_exact_mut(N_COLUMNS).zip(keys.chunks_exact(query.len())) {
        let mut sums = [[0f32; N_COLUMNS]; 2];
        let ((pairs, rest), (key_pairs, key_rest)) = (query.as_chunks::<2>(), keys.as_chunks::<2>());
        for (query, keys) in pairs.iter().zip(key_pairs) {
            fetch_ahead(keys);
            for ((sums, query), keys) in sums.iter_mut().zip(query).zip(keys) {
                add(sums, *query, keys);
            }
        }
        for (query, keys) in rest.iter().zip(key_rest) {
            add(&mut sums[0], *query, keys);
        }
        for ((score, even), odd) in scores.iter_mut().zip(&sums[0]).zip(&sums[1]) {
            *score = even + odd;
        }
    }
}

/// Sums of values, each times its weight; panels have `n` positions.
#[inline(always)]
fn mix_panels<C: Lanes>(weights: &[f32], values: &[C], n: usize, out: &mut [f32]) {
    for (out, values) in out.chunks_mut(N_COLUMNS).zip(values.chunks_exact(n)) {
        let mut sums = [[0f32; N_COLUMNS]; 2];
        let ((pairs, rest), value_pairs) = (weights.as_chunks::<2>(), values.as_chunks::<2>().0);
        for (weights, values) in pairs.iter().zip(value_pairs) {
            fetch_ahead(values);
            for ((sums, weight), values) in sums.iter_mut().zip(weights).zip(values) {
                add(sums, *weight, values);
            }
        }
        for (weight, values) in rest.iter().zip(&values[2 * pairs.len()..]) {
            add(&mut sums[0], *weight, values);
        }
        for ((out, even), odd) in out.iter_mut().zip(&sums[0]).zip(&sums[1]) {
            *out = even + odd;
        }
    }
}

/// Asks for what comes some kilobytes later: what the processor guesses itself ends with each page.
#[inline(always)]
fn fetch_ahead<C>(now: &[C; 2]) {
    for line in 0..size_of_val(now).div_ceil(64) {
        prefetch(now.as_ptr().cast::<u8>().wrapping_add(AHEAD_BYTES + 64 * line));
    }
}

#[inline(always)]
fn add<C: Lanes>(sums: &mut [f32; N_COLUMNS], factor: f32, numbers: &C) {
    for (lane, sum) in sums.iter_mut().enumerate() {
        *sum += factor * numbers.number(lane);
    }
}

vectorised! {
    fn score(query: &[f32], keys: &[Columns], scores: &mut [f32]) {
        score_panels(query, keys, scores);
    }

    fn score_halves(query: &[f32], keys: &[Halves], scores: &mut [f32]) {
        score_panels(query, keys, scores);
    }

    fn softmax(scores: &mut [f32]) {
        softmax_row(scores);
    }

    fn mix(weights: &[f32], values: &[Columns], n: usize, out: &mut [f32]) {
        mix_panels(weights, values, n, out);
    }

    fn mix_halves(weights: &[f32], values: &[Halves], n: usize, out: &mut [f32]) {
        mix_panels(weights, values, n, out);
    }
}
