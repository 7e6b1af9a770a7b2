//! Attention of ragged rows over their own keys and values.

use rayon::prelude::*;

/// One query and what it may look at. Keys and values are row-major (n, D), heads side by side in D.
#[derive(Clone, Copy)]
pub struct AttentionRow<'a> {
    /// The scaled query, D numbers.
    pub query: &'a [f32],
    /// Keys, at least `n_keys` rows.
    pub keys: &'a [f32],
    /// Values, at least `n_keys` rows.
    pub values: &'a [f32],
    /// Rows that this query sees.
    pub n_keys: usize,
}

/// Products below this are not worth waking another thread for.
const PARALLEL_MULTIPLY_ADDS: usize = 1 << 18;

/// `out[i] = softmax(q_i K_i^T) V_i` per head. Each row is summed in one fixed order, so its result does not
/// depend on the rows beside it nor on the number of threads.
///
/// # Panics
/// When `out` is not `rows.len() * D` long or `D` is not a multiple of `n_heads`.
pub fn attend(rows: &[AttentionRow<'_>], n_heads: usize, out: &mut [f32]) {
    let Some(first) = rows.first() else { return };
    let width = first.query.len();
    assert!(out.len() == rows.len() * width && width.is_multiple_of(n_heads), "attention: bad shapes");
    let work: usize = rows.iter().map(|row| 2 * row.n_keys * width).sum();
    if work < PARALLEL_MULTIPLY_ADDS {
        let mut scores = Vec::new();
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
            attend_row(row, n_heads, &mut scores, out);
        }
    } else {
        let head = width / n_heads;
        out.par_chunks_exact_mut(head).enumerate().for_each_init(Vec::new, |scores, (i, out)| {
            attend_head(&rows[i / n_heads], i % n_heads, head, scores, out);
        });
    }
}

fn attend_row(row: &AttentionRow<'_>, n_heads: usize, scores: &mut Vec<f32>, out: &mut [f32]) {
    let head = row.query.len() / n_heads;
    for (h, out) in out.chunks_exact_mut(head).enumerate() {
        attend_head(row, h, head, scores, out);
    }
}

fn attend_head(row: &AttentionRow<'_>, h: usize, head: usize, scores: &mut Vec<f32>, out: &mut [f32]) {
    let width = row.query.len();
    let columns = h * head..(h + 1) * head;
    let query = &row.query[columns.clone()];
    scores.clear();
    scores.extend(row.keys.chunks_exact(width).take(row.n_keys).map(|key| dot(query, &key[columns.clone()])));
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    out.fill(0.0);
    for (weight, value) in scores.iter().zip(row.values.chunks_exact(width)) {
        let weight = weight / sum;
        for (out, value) in out.iter_mut().zip(&value[columns.clone()]) {
            *out += weight * value;
        }
    }
}

/// Eight partial sums, so that the compiler can keep them in one vector register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + tail
}
