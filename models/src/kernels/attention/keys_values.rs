//! Keys and values that queries look at again and again, in the order in which they are read.

use rayon::prelude::*;

use super::super::functions::{magnitude, softmax_row};
use super::super::instruction_set::{InstructionSet, vectorised};
use super::super::low_precision::{bf16_to_f32, f32_to_bf16, nearest_byte, scale_of_bytes};
use super::super::memory::prefetch;
use super::super::packed_weight::Precision;
use super::{Columns, HeadRows, N_COLUMNS};

/// Positions of a block.
const BLOCK: usize = N_COLUMNS;
/// Fewer are not worth waking another thread for.
const PARALLEL_NUMBERS: usize = 1 << 15;
/// Positions that are worth keeping as columns rather than place by place.
const COLUMNS_FROM: usize = 8;
/// Bytes between what is multiplied and what is fetched.
const AHEAD_BYTES: usize = 2048;

/// Keys and values of positions that others may follow. In bytes, those of a position have a scale of their own in each head.
#[derive(Clone)]
pub struct KeysValues {
    heads: Heads,
    n_positions: usize,
    width: usize,
}

#[derive(Clone)]
enum Heads {
    F32(Vec<Head<Columns>>),
    Bf16(Vec<Head<Halves>>),
    Int8(Vec<Head<Bytes>>),
}

/// Blocks of positions of one head: each of its parts is read from beginning to end.
#[derive(Clone)]
struct Head<C> {
    keys: Vec<C>,               // for each place, the positions
    values: Vec<C>,             // for each `N_COLUMNS` places, one position after the other
    key_scales: Vec<Columns>,   // those of the positions
    value_scales: Vec<Columns>, // the same
}

/// The upper halves of `N_COLUMNS` numbers side by side.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Halves([u16; N_COLUMNS]);

/// `N_COLUMNS` numbers side by side, divided by their scales.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Bytes([i8; N_COLUMNS]);

/// Numbers side by side, as they are kept.
trait Lanes: Copy + Send + Sync {
    type Kept: Copy;
    const ZERO: Self;

    fn lanes(&self) -> &[Self::Kept; N_COLUMNS];

    fn lanes_mut(&mut self) -> &mut [Self::Kept; N_COLUMNS];

    /// What is kept of a number, given the inverse of its scale.
    fn keep(x: f32, inverse: f32) -> Self::Kept;

    /// The number, to be scaled.
    fn number(kept: Self::Kept) -> f32;

    /// The scale, and its inverse, of numbers whose largest this is.
    fn scale_of(_largest: f32) -> (f32, f32) {
        (1.0, 1.0)
    }
}

/// Implements it by the names of its functions.
macro_rules! lanes {
    ($name:ident: $kept:ty, $zero:expr, |$x:ident, $inverse:pat_param| $keep:expr, $number:expr $(, $scale:expr)?) => {
        impl Lanes for $name {
            type Kept = $kept;
            const ZERO: Self = Self([$zero; N_COLUMNS]);

            #[inline(always)]
            fn lanes(&self) -> &[$kept; N_COLUMNS] {
                &self.0
            }

            #[inline(always)]
            fn lanes_mut(&mut self) -> &mut [$kept; N_COLUMNS] {
                &mut self.0
            }

            #[inline(always)]
            fn keep($x: f32, $inverse: f32) -> $kept {
                $keep
            }

            #[inline(always)]
            fn number(kept: $kept) -> f32 {
                $number(kept)
            }

            $(
                #[inline(always)]
                fn scale_of(largest: f32) -> (f32, f32) {
                    $scale(largest)
                }
            )?
        }
    };
}

lanes!(Columns: f32, 0.0, |x, _| x, std::convert::identity);
lanes!(Halves: u16, 0, |x, _| f32_to_bf16(x), bf16_to_f32);
lanes!(Bytes: i8, 0, |x, inverse| nearest_byte(x * inverse), f32::from, scale_of_bytes);

/// Calls the same function of heads in whatever precision.
macro_rules! of_heads {
    ($held:expr, |$heads:ident| $result:expr) => {
        match $held {
            Heads::F32($heads) => $result,
            Heads::Bf16($heads) => $result,
            Heads::Int8($heads) => $result,
        }
    };
}

/// What a query computes with.
#[derive(Default)]
pub(super) struct Scratch {
    /// The query, scaled.
    pub query: Vec<f32>,
    scores: Vec<f32>,
    /// Of values at even and odd positions.
    sums: Vec<[Columns; 2]>,
}

impl KeysValues {
    /// Room for `capacity` positions of `width` numbers, `n_heads` heads side by side: as they are, rounded to bf16 or in bytes.
    ///
    /// # Panics
    /// When `n_heads` does not divide `width`.
    pub fn with_capacity(capacity: usize, width: usize, n_heads: usize, precision: Precision) -> Self {
        assert!(
            n_heads > 0 && width.is_multiple_of(n_heads),
            "keys and values of {n_heads} heads in {width} numbers"
        );
        let head = width / n_heads;
        let heads = match precision {
            Precision::F32 => Heads::F32(vec![Head::EMPTY; n_heads]),
            Precision::Bf16 => Heads::Bf16(vec![Head::EMPTY; n_heads]),
            Precision::Int8 => Heads::Int8(vec![Head::EMPTY; n_heads]),
        };
        let mut all = Self { heads, n_positions: 0, width };
        of_heads!(&mut all.heads, |heads| heads.iter_mut().for_each(|one| one.reserve(head, capacity)));
        all
    }

    /// Takes those of further positions, each (n, D).
    ///
    /// # Panics
    /// When they are not whole rows, or not equally many.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) {
        self.append_with(InstructionSet::best(), keys, values);
    }

    pub(super) fn append_with(&mut self, set: InstructionSet, keys: &[f32], values: &[f32]) {
        let (width, first) = (self.width, self.n_positions);
        let n = keys.len() / width.max(1);
        assert!(
            keys.len() == n * width && keys.len() == values.len(),
            "{} keys and {} values in rows of {width}",
            keys.len(),
            values.len()
        );
        if n == 0 {
            return;
        }
        let head = self.head();
        of_heads!(&mut self.heads, |heads| {
            let rows = |h: usize| (HeadRows::of(keys, width, head, h), HeadRows::of(values, width, head, h));
            if keys.len() < PARALLEL_NUMBERS {
                heads.iter_mut().enumerate().for_each(|(h, one)| one.append(set, first, n, rows(h)));
            } else {
                heads.par_iter_mut().enumerate().for_each(|(h, one)| one.append(set, first, n, rows(h)));
            }
        });
        self.n_positions += n;
    }

    /// Forgets all positions but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        // What is left behind them is written over when others follow, and looked at by nobody before.
        self.n_positions = self.n_positions.min(n);
    }

    /// T.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// H.
    pub fn n_heads(&self) -> usize {
        of_heads!(&self.heads, |heads| heads.len())
    }

    /// Places of a head.
    fn head(&self) -> usize {
        self.width / self.n_heads()
    }

    /// Keys as they are kept, (T, D).
    pub fn keys(&self) -> Vec<f32> {
        let (n, head) = (self.n_positions, self.head());
        of_heads!(&self.heads, |heads| unpacked(heads, n, head, |one, t, d| one.key(head, t, d)))
    }

    /// Values as they are kept, (T, D).
    pub fn values(&self) -> Vec<f32> {
        let (n, head) = (self.n_positions, self.head());
        of_heads!(&self.heads, |heads| unpacked(heads, n, head, |one, t, d| one.value(head, t, d)))
    }

    /// `softmax(query K^T) V` of head `h` over the first `n_keys` positions, for the query in `scratch`.
    pub(super) fn attend(
        &self,
        set: InstructionSet,
        h: usize,
        n_keys: usize,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        of_heads!(&self.heads, |heads| heads[h].attend(set, n_keys, scratch, out));
    }
}

/// What `number` says of each position's places in each head, (T, D).
fn unpacked<C>(
    heads: &[Head<C>],
    n_positions: usize,
    head: usize,
    number: impl Fn(&Head<C>, usize, usize) -> f32,
) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(n_positions * heads.len() * head);
    for t in 0..n_positions {
        for one in heads {
            numbers.extend((0..head).map(|d| number(one, t, d)));
        }
    }
    numbers
}

/// Values of a head of `head` places in a block: the last columns are filled up with zeros.
fn block_values(head: usize) -> usize {
    head.div_ceil(N_COLUMNS) * BLOCK
}

impl<C: Lanes> Head<C> {
    const EMPTY: Self =
        Self { keys: Vec::new(), values: Vec::new(), key_scales: Vec::new(), value_scales: Vec::new() };

    /// For `head` places and `capacity` positions.
    fn reserve(&mut self, head: usize, capacity: usize) {
        let n_blocks = capacity.div_ceil(BLOCK);
        self.keys.reserve_exact(n_blocks * head);
        self.values.reserve_exact(n_blocks * block_values(head));
        self.key_scales.reserve_exact(n_blocks);
        self.value_scales.reserve_exact(n_blocks);
    }

    /// Takes those of `n` positions from `first` on.
    fn append(
        &mut self,
        set: InstructionSet,
        first: usize,
        n: usize,
        (keys, values): (HeadRows<'_>, HeadRows<'_>),
    ) {
        let (head, end) = (keys.head, first + n);
        let n_blocks = end.div_ceil(BLOCK);
        self.keys.resize(n_blocks * head, C::ZERO);
        self.values.resize(n_blocks * block_values(head), C::ZERO);
        self.key_scales.resize(n_blocks, Columns::ZERO);
        self.value_scales.resize(n_blocks, Columns::ZERO);

        let mut columns = Vec::new();
        for i in first / BLOCK..n_blocks {
            let positions = (i * BLOCK).max(first)..((i + 1) * BLOCK).min(end);
            let lanes = positions.start % BLOCK..positions.start % BLOCK + positions.len();
            let rows = positions.start - first..positions.end - first;
            let (to_keys, key_scales) = (&mut self.keys[i * head..][..head], &mut self.key_scales[i]);
            if rows.len() < COLUMNS_FROM {
                keep_places(set, keys, rows.clone(), lanes.clone(), to_keys, key_scales);
            } else {
                columns.resize(head, Columns::ZERO);
                keys.transpose(set, rows.clone(), &mut columns);
                keep_columns(set, &columns, lanes.clone(), to_keys, key_scales);
            }
            keep_rows(
                set,
                values,
                rows,
                lanes,
                &mut self.values[i * block_values(head)..][..block_values(head)],
                &mut self.value_scales[i],
            );
        }
    }

    fn key(&self, head: usize, t: usize, d: usize) -> f32 {
        let (block, lane) = (t / BLOCK, t % BLOCK);
        C::number(self.keys[block * head + d].lanes()[lane]) * self.key_scales[block].0[lane]
    }

    fn value(&self, head: usize, t: usize, d: usize) -> f32 {
        let (block, lane) = (t / BLOCK, t % BLOCK);
        let column = block * block_values(head) + d / N_COLUMNS * BLOCK + lane;
        C::number(self.values[column].lanes()[d % N_COLUMNS]) * self.value_scales[block].0[lane]
    }

    fn attend(&self, set: InstructionSet, n_keys: usize, scratch: &mut Scratch, out: &mut [f32]) {
        let Scratch { query, scores, sums } = scratch;
        scores.resize(n_keys.next_multiple_of(BLOCK), 0.0);
        score(set, query, &self.keys, &self.key_scales, scores);
        let weights = &mut scores[..n_keys];
        softmax(set, weights);
        sums.clear();
        sums.resize(out.len().div_ceil(N_COLUMNS), [Columns::ZERO; 2]);
        mix(set, weights, &self.values, &self.value_scales, sums);
        for (out, [even, odd]) in out.chunks_mut(N_COLUMNS).zip(sums) {
            for ((out, even), odd) in out.iter_mut().zip(&even.0).zip(&odd.0) {
                *out = even + odd;
            }
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

/// The scale of a row's numbers, and its inverse.
#[inline(always)]
fn row_scale<C: Lanes>(row: &[f32]) -> (f32, f32) {
    let largest = row.iter().fold(0, |largest, x| magnitude(*x).max(largest));
    C::scale_of(f32::from_bits(largest))
}

#[inline(always)]
fn add<C: Lanes>(sums: &mut [f32; N_COLUMNS], factor: f32, numbers: &C) {
    for (sum, kept) in sums.iter_mut().zip(numbers.lanes()) {
        *sum += factor * C::number(*kept);
    }
}

vectorised! {
    /// Keeps columns, a position in each of their lanes, from the first of `lanes` on.
    fn keep_columns<C: Lanes>(
        columns: &[Columns],
        lanes: std::ops::Range<usize>,
        to: &mut [C],
        scales: &mut Columns,
    ) {
        let mut largest = [0u32; N_COLUMNS];
        for column in columns {
            for (largest, x) in largest.iter_mut().zip(&column.0) {
                *largest = (*largest).max(magnitude(*x));
            }
        }
        let mut inverses = [0.0; N_COLUMNS];
        for ((scale, inverse), largest) in scales.0[lanes.clone()].iter_mut().zip(&mut inverses).zip(&largest) {
            (*scale, *inverse) = C::scale_of(f32::from_bits(*largest));
        }
        for (to, column) in to.iter_mut().zip(columns) {
            for ((kept, x), inverse) in to.lanes_mut()[lanes.clone()].iter_mut().zip(&column.0).zip(&inverses) {
                *kept = C::keep(*x, *inverse);
            }
        }
    }

    /// The same of rows, which become columns.
    fn keep_places<C: Lanes>(
        from: HeadRows<'_>,
        rows: std::ops::Range<usize>,
        lanes: std::ops::Range<usize>,
        to: &mut [C],
        scales: &mut Columns,
    ) {
        for (lane, row) in lanes.zip(rows) {
            let row = from.row(row);
            let (scale, inverse) = row_scale::<C>(row);
            scales.0[lane] = scale;
            for (to, x) in to.iter_mut().zip(row) {
                to.lanes_mut()[lane] = C::keep(*x, inverse);
            }
        }
    }

    /// Keeps rows at positions from the first of `positions` on.
    fn keep_rows<C: Lanes>(
        from: HeadRows<'_>,
        rows: std::ops::Range<usize>,
        positions: std::ops::Range<usize>,
        to: &mut [C],
        scales: &mut Columns,
    ) {
        for (position, row) in positions.zip(rows) {
            let row = from.row(row);
            let (scale, inverse) = row_scale::<C>(row);
            scales.0[position] = scale;
            for (to, row) in to.chunks_exact_mut(BLOCK).zip(row.chunks(N_COLUMNS)) {
                for (kept, x) in to[position].lanes_mut().iter_mut().zip(row) {
                    *kept = C::keep(*x, inverse);
                }
            }
        }
    }

    /// Products of a query with the keys of a head, of as many blocks as there is room for. Even and odd places are summed beside
    /// each other, so that one sum need not wait for the next.
    fn score<C: Lanes>(query: &[f32], keys: &[C], scales: &[Columns], scores: &mut [f32]) {
        let blocks = keys.chunks_exact(query.len()).zip(scales);
        for (scores, (keys, scales)) in scores.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
            let mut sums = [[0f32; BLOCK]; 2];
            let ((pairs, rest), (key_pairs, key_rest)) =
                (query.as_chunks::<2>(), keys.as_chunks::<2>());
            for (query, keys) in pairs.iter().zip(key_pairs) {
                fetch_ahead(keys);
                for ((sums, query), keys) in sums.iter_mut().zip(query).zip(keys) {
                    add(sums, *query, keys);
                }
            }
            for (query, keys) in rest.iter().zip(key_rest) {
                add(&mut sums[0], *query, keys);
            }
            for (i, score) in scores.iter_mut().enumerate() {
                *score = (sums[0][i] + sums[1][i]) * scales.0[i];
            }
        }
    }

    fn softmax(scores: &mut [f32]) {
        softmax_row(scores);
    }

    /// Sums of values, each times its weight, for each `N_COLUMNS` places; even and odd positions apart.
    fn mix<C: Lanes>(weights: &[f32], values: &[C], scales: &[Columns], sums: &mut [[Columns; 2]]) {
        let blocks = values.chunks_exact(sums.len() * BLOCK).zip(scales);
        for (weights, (values, scales)) in weights.chunks(BLOCK).zip(blocks) {
            let mut scaled = [0f32; BLOCK];
            for ((scaled, weight), scale) in scaled.iter_mut().zip(weights).zip(&scales.0) {
                *scaled = weight * scale;
            }
            let (pairs, rest) = scaled[..weights.len()].as_chunks::<2>();
            for (sums, values) in sums.iter_mut().zip(values.as_chunks::<BLOCK>().0) {
                let mut local = [sums[0].0, sums[1].0];
                for (weights, values) in pairs.iter().zip(values.as_chunks::<2>().0) {
                    fetch_ahead(values);
                    for ((sums, weight), values) in local.iter_mut().zip(weights).zip(values) {
                        add(sums, *weight, values);
                    }
                }
                for (weight, values) in rest.iter().zip(&values[2 * pairs.len()..]) {
                    add(&mut local[0], *weight, values);
                }
                (sums[0].0, sums[1].0) = (local[0], local[1]);
            }
        }
    }
}
