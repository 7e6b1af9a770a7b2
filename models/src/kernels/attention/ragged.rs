//! Attention of ragged rows over their own keys and values.

use rayon::prelude::*;

use super::super::functions::{softmax_row, sum2};
use super::super::instruction_set::{InstructionSet, vectorised};
use super::super::low_precision::bf16_to_f32;

/// One query and what it may look at. Keys and values are row-major (n, D), heads side by side in D.
#[derive(Clone, Copy)]
pub struct AttentionRow<'a> {
    /// The scaled query, D numbers.
    pub query: &'a [f32],
    /// Keys and values.
    pub cache: KeysValues<'a>,
    /// Rows of them that this query sees.
    pub n_keys: usize,
}

/// Keys and values, at least as many rows as a query sees.
#[derive(Clone, Copy)]
pub enum KeysValues<'a> {
    /// 32-bit numbers.
    F32(&'a [f32], &'a [f32]),
    /// The upper halves of them.
    Bf16(&'a [u16], &'a [u16]),
}

impl KeysValues<'_> {
    /// Whether there are so many numbers of each.
    fn holds(&self, n: usize) -> bool {
        match self {
            Self::F32(keys, values) => keys.len() >= n && values.len() >= n,
            Self::Bf16(keys, values) => keys.len() >= n && values.len() >= n,
        }
    }
}

/// Products below this are not worth waking another thread for.
const PARALLEL_MULTIPLY_ADDS: usize = 1 << 18;

/// `out[i] = softmax(q_i K_i^T) V_i` per head. Each row is summed in one fixed order, so its result does not
/// depend on the rows beside it nor on the number of threads.
///
/// # Panics
/// When `out` is not `rows.len() * D` long, `D` is not a multiple of `n_heads`, or a row sees more keys than there are.
pub fn attend(rows: &[AttentionRow<'_>], n_heads: usize, out: &mut [f32]) {
    let Some(first) = rows.first() else { return };
    let width = first.query.len();
    assert!(
        out.len() == rows.len() * width
            && width.is_multiple_of(n_heads)
            && rows.iter().all(|row| row.query.len() == width && row.cache.holds(row.n_keys * width)),
        "attention: {} rows of {width} with {n_heads} heads, or fewer keys than they see",
        rows.len()
    );
    let (set, head) = (InstructionSet::best(), width / n_heads);
    let one = |scores: &mut Vec<f32>, (i, out): (usize, &mut [f32])| {
        attend_head(set, &rows[i / n_heads], i % n_heads, scores, out);
    };
    let work: usize = rows.iter().map(|row| 2 * row.n_keys * width).sum();
    if work < PARALLEL_MULTIPLY_ADDS {
        let mut scores = Vec::new();
        out.chunks_exact_mut(head).enumerate().for_each(|head| one(&mut scores, head));
    } else {
        out.par_chunks_exact_mut(head).enumerate().for_each_init(Vec::new, one);
    }
}

fn attend_head(
    set: InstructionSet,
    row: &AttentionRow<'_>,
    h: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (width, head) = (row.query.len(), out.len());
    let first = h * head;
    let query = &row.query[first..][..head];
    scores.resize(row.n_keys, 0.0);
    if scores.is_empty() {
        out.fill(0.0);
        return;
    }
    match row.cache {
        KeysValues::F32(keys, values) => {
            score(set, query, &keys[first..], width, scores);
            softmax_weights(set, scores);
            mix(set, scores, &values[first..], width, out);
        }
        KeysValues::Bf16(keys, values) => {
            score_halves(set, query, &keys[first..], width, scores);
            softmax_weights(set, scores);
            mix_halves(set, scores, &values[first..], width, out);
        }
    }
}

/// Sum of values that begin every `step` numbers, each times its weight.
#[inline(always)]
fn add_weighted<T: Copy>(
    weights: &[f32],
    values: &[T],
    step: usize,
    widen: impl Fn(T) -> f32,
    out: &mut [f32],
) {
    out.fill(0.0);
    for (weight, value) in weights.iter().zip(values.chunks(step)) {
        for (out, value) in out.iter_mut().zip(value) {
            *out += *weight * widen(*value);
        }
    }
}

vectorised! {
    /// Products of the query with keys that begin every `step` numbers.
    fn score(query: &[f32], keys: &[f32], step: usize, scores: &mut [f32]) {
        for (score, key) in scores.iter_mut().zip(keys.chunks(step)) {
            *score = sum2(query, &key[..query.len()], |a, b| a * b);
        }
    }

    fn score_halves(query: &[f32], keys: &[u16], step: usize, scores: &mut [f32]) {
        for (score, key) in scores.iter_mut().zip(keys.chunks(step)) {
            *score = sum2(query, &key[..query.len()], |a, b| a * bf16_to_f32(b));
        }
    }

    fn softmax_weights(scores: &mut [f32]) {
        softmax_row(scores);
    }

    fn mix(weights: &[f32], values: &[f32], step: usize, out: &mut [f32]) {
        add_weighted(weights, values, step, |value| value, out);
    }

    fn mix_halves(weights: &[f32], values: &[u16], step: usize, out: &mut [f32]) {
        add_weighted(weights, values, step, bf16_to_f32, out);
    }
}
