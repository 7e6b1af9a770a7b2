//! Attention of ragged rows over their own keys and values.

use super::super::instruction_set::InstructionSet;
use super::super::team::{for_each, is_together};
use super::KeysValues;
use super::keys_values::Scratch;

/// One query and what it may look at.
#[derive(Clone, Copy)]
pub struct AttentionRow<'a> {
    /// The query, D numbers.
    pub query: &'a [f32],
    /// Keys and values.
    pub cache: &'a KeysValues,
    /// Rows of them that this query sees.
    pub n_keys: usize,
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
            && rows.iter().all(|AttentionRow { query, cache, n_keys }| {
                (query.len(), cache.width(), cache.n_heads()) == (width, width, n_heads)
                    && *n_keys <= cache.n_positions()
            }),
        "attention: {} rows of {width} with {n_heads} heads, or fewer keys than they see",
        rows.len()
    );
    let mut tasks = Vec::with_capacity(rows.len() * n_heads);
    let mut outs = out.chunks_exact_mut(width);
    // Rows of one window follow each other, so that its keys and values are fetched once for all of them; but there is something
    // to do for every thread.
    let n_parts = rayon::current_num_threads().div_ceil(n_heads);
    let windows = rows.chunk_by(|a, b| std::ptr::eq(a.cache, b.cache));
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
        let mut scratch = Scratch::default();
        for (row, out) in self.rows.iter().zip(&mut self.out) {
            if row.n_keys == 0 {
                out.fill(0.0);
                continue;
            }
            scratch.query.clear();
            scratch.query.extend(row.query[self.head * out.len()..][..out.len()].iter().map(|x| x * scale));
            row.cache.attend(set, self.head, row.n_keys, &mut scratch, out);
        }
    }
}
