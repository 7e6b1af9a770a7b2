//! Attention of ragged rows over their own keys and values.

use super::super::functions::{softmax_row, sum2};
use super::super::instruction_set::{InstructionSet, vectorised};
use super::super::team::{for_each, is_together};
use super::window::WindowKeysValues;

/// One query and what it may look at.
#[derive(Clone, Copy)]
pub struct AttentionRow<'a> {
    /// The query, D numbers.
    pub query: &'a [f32],
    /// Keys and values.
    pub cache: KeysValues<'a>,
    /// Rows of them that this query sees.
    pub n_keys: usize,
}

/// Keys and values, at least as many rows as a query sees.
#[derive(Clone, Copy)]
pub enum KeysValues<'a> {
    /// Rows that others may follow, (n, D) with the heads side by side in D.
    Rows(&'a [f32], &'a [f32]),
    /// All that there will be.
    Window(&'a WindowKeysValues),
}

impl KeysValues<'_> {
    /// Whether there are so many rows of each.
    fn holds(&self, n: usize, width: usize) -> bool {
        match self {
            Self::Rows(keys, values) => keys.len() >= n * width && values.len() >= n * width,
            Self::Window(window) => window.n_positions() >= n && window.width() == width,
        }
    }

    /// Whether these are the very same.
    fn are(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rows(keys, _), Self::Rows(others, _)) => std::ptr::eq(*keys, *others),
            (Self::Window(window), Self::Window(other)) => std::ptr::eq(*window, *other),
            _ => false,
        }
    }
}

/// Products below this are not worth waking another thread for.
const PARALLEL_MULTIPLY_ADDS: usize = 1 << 18;
/// Nor worth sharing with one that is awake.
const SHARED_MULTIPLY_ADDS: usize = 1 << 15;

/// One head of rows that look at the same keys and values, and what it gives of each.
struct Task<'a> {
    rows: &'a [AttentionRow<'a>],
    head: usize,
    out: Vec<&'a mut [f32]>,
}

/// `out[i] = softmax(scale q_i K_i^T) V_i` per head. Each row is summed in one fixed order, so its result does not
/// depend on the rows beside it nor on the number of threads.
///
/// # Panics
/// When `out` is not `rows.len() * D` long, `D` is not a multiple of `n_heads`, or a row sees more keys than there are.
pub fn attend(rows: &[AttentionRow<'_>], n_heads: usize, scale: f32, out: &mut [f32]) {
    let Some(first) = rows.first() else { return };
    let width = first.query.len();
    assert!(
        out.len() == rows.len() * width
            && width.is_multiple_of(n_heads)
            && rows.iter().all(|row| row.query.len() == width && row.cache.holds(row.n_keys, width)),
        "attention: {} rows of {width} with {n_heads} heads, or fewer keys than they see",
        rows.len()
    );
    let mut tasks = Vec::with_capacity(rows.len() * n_heads);
    let mut outs = out.chunks_exact_mut(width);
    // Rows of one window follow each other, so that its keys and values are fetched once for all of them; but there is something
    // to do for every thread.
    let n_parts = rayon::current_num_threads().div_ceil(n_heads);
    let windows = rows.chunk_by(|a, b| a.cache.are(&b.cache));
    for rows in windows.flat_map(|rows| rows.chunks(rows.len().div_ceil(n_parts))) {
        let first = tasks.len();
        let task = |head| Task { rows, head, out: Vec::with_capacity(rows.len()) };
        tasks.extend((0..n_heads).map(task));
        for out in outs.by_ref().take(rows.len()) {
            for (task, out) in tasks[first..].iter_mut().zip(out.chunks_exact_mut(width / n_heads)) {
                task.out.push(out);
            }
        }
    }
    let set = InstructionSet::best();
    let work: usize = rows.iter().map(|row| 2 * row.n_keys * width).sum();
    if work < if is_together() { SHARED_MULTIPLY_ADDS } else { PARALLEL_MULTIPLY_ADDS } {
        tasks.iter_mut().for_each(|task| task.run(set, scale));
    } else {
        for_each(&mut tasks, |task| task.run(set, scale));
    }
}

impl Task<'_> {
    fn run(&mut self, set: InstructionSet, scale: f32) {
        let (mut scores, mut query) = (Vec::new(), Vec::new());
        for (row, out) in self.rows.iter().zip(&mut self.out) {
            let (width, first) = (row.query.len(), self.head * out.len());
            query.clear();
            query.extend(row.query[first..][..out.len()].iter().map(|x| x * scale));
            if row.n_keys == 0 {
                out.fill(0.0);
                continue;
            }
            match row.cache {
                KeysValues::Rows(keys, values) => {
                    scores.resize(row.n_keys, 0.0);
                    score(set, &query, &keys[first..], width, &mut scores);
                    mix(set, &scores, &values[first..], width, out);
                }
                KeysValues::Window(window) => {
                    window.attend(set, &query, self.head, row.n_keys, &mut scores, out);
                }
            }
        }
    }
}

vectorised! {
    /// Softmax of products of the query with keys that begin every `step` numbers.
    fn score(query: &[f32], keys: &[f32], step: usize, scores: &mut [f32]) {
        for (score, key) in scores.iter_mut().zip(keys.chunks(step)) {
            *score = sum2(query, &key[..query.len()], |a, b| a * b);
        }
        softmax_row(scores);
    }

    /// Sum of values that begin every `step` numbers, each times its weight.
    fn mix(weights: &[f32], values: &[f32], step: usize, out: &mut [f32]) {
        out.fill(0.0);
        for (weight, value) in weights.iter().zip(values.chunks(step)) {
            for (out, value) in out.iter_mut().zip(value) {
                *out += *weight * value;
            }
        }
    }
}
