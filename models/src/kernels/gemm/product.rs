//! Products of two matrices as they lie in memory: what training multiplies, where no operand stays as it is.
//!
//! Each thread packs for itself what it reads: to pack the second factor once for all of them and wait for each other took longer,
//! since panels then come from another core's cache. What fits is kept from one task to the next.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Columns, Cut, MAX_BLOCK, MAX_ROWS, Matrix, N_COLUMNS, ROW_STRIDE, Task, Threads, estimated_nanos,
    in_tasks, parts,
};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::memory::{written, zeroed};

/// Most rows of a task: one block of them stays in the second-level cache while all panels pass by. More than of a packed weight,
/// since a task may pack panels for them.
const MAX_TASK_ROWS: usize = 288;
const _: () = assert!(MAX_TASK_ROWS.is_multiple_of(MAX_ROWS), "tasks are cut between full tiles");

/// Fewest rows that are worth packing panels for where these could be shared out instead.
const MIN_TASK_ROWS: usize = 96;

/// Fewest panels that are worth copying rows for.
const MIN_TASK_PANELS: usize = 4;

/// Panels that are packed at once: a block of them stays in the second-level cache beside the rows.
const MAX_PANELS: usize = 12;

/// Most places of k, of all panels together, that a thread keeps from one task to the next: 4 MiB.
const MAX_KEPT: usize = (4 << 20) / size_of::<Columns>();

/// `a b + bias` for a (m, k) and b (k, n), (m, n) row-major.
///
/// # Panics
/// When the shapes do not fit each other.
pub fn product(a: Matrix<'_>, b: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    Product { a, b, bias, resumed: false, set: InstructionSet::best() }.collect()
}

/// `out = a b + bias` for a (m, k), b (k, n) and out (m, n) row-major.
///
/// # Panics
/// When the shapes do not fit each other.
pub fn multiply(a: Matrix<'_>, b: Matrix<'_>, bias: Option<&[f32]>, out: &mut [f32]) {
    let step = b.dims().1;
    Product { a, b, bias, resumed: false, set: InstructionSet::best() }.compute(out, step);
}

/// `out += a b + bias`, for rows of `out` that begin every `step` values.
///
/// # Panics
/// When the shapes do not fit each other.
pub fn multiply_add(a: Matrix<'_>, b: Matrix<'_>, bias: Option<&[f32]>, out: &mut [f32], step: usize) {
    Product { a, b, bias, resumed: true, set: InstructionSet::best() }.compute(out, step);
}

#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub a: Matrix<'a>,
    pub b: Matrix<'a>,
    pub bias: Option<&'a [f32]>,
    /// Begins at what is in `out` already.
    pub resumed: bool,
    pub set: InstructionSet,
}

/// What a thread copies operands to.
#[derive(Default)]
struct Scratch {
    rows: Vec<f32>,
    panels: Vec<Columns>,
    /// The call whose second factor is in `panels`, all of it.
    kept: u64,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A product that is being computed, for threads to know it again: never 0.
fn new_call() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

impl Product<'_> {
    pub fn compute(&self, out: &mut [f32], step: usize) {
        let ((m, _), (_, n)) = (self.a.dims(), self.b.dims());
        if m == 0 || n == 0 {
            return;
        }
        self.check();
        assert!(
            step >= n && out.len() >= (m - 1) * step + n,
            "product: {m} x {n} into {} values, every {step}",
            out.len()
        );
        let used = ((m - 1) * step + n).max(m * step).min(out.len());
        let (cut, call) = (self.cut(), new_call());
        in_tasks(&mut out[..used], (n, step), cut, Threads::All, |task| {
            self.run(task, 0..self.n_blocks(), cut, call);
        });
    }

    /// A result in memory that nobody has looked at before it is written.
    pub fn collect(&self) -> Vec<f32> {
        let ((m, _), (_, n)) = (self.a.dims(), self.b.dims());
        let mut out = Vec::with_capacity(m * n);
        if m == 0 || n == 0 {
            return out;
        }
        self.check();
        let (cut, call) = (self.cut(), new_call());
        let room = &mut out.spare_capacity_mut()[..m * n];
        in_tasks(room, (n, n), cut, Threads::All, |task| self.run_fresh(task, cut, call));
        // SAFETY: each value is in one task, and all tasks have written theirs.
        unsafe { out.set_len(m * n) };
        out
    }

    fn check(&self) {
        let ((m, k), (b_rows, n)) = (self.a.dims(), self.b.dims());
        assert!(
            k == b_rows && Epilogue::bias(self.bias).fits(n),
            "product: {m} x {k} by {b_rows} x {n}, with a bias of {:?}",
            self.bias.map(<[f32]>::len)
        );
    }

    /// Places of k of all panels together.
    fn n_packed(&self) -> usize {
        let (k, n) = self.b.dims();
        n.div_ceil(N_COLUMNS) * k
    }

    /// Between rows if there are enough of them, else between panels.
    pub fn cut(&self) -> Cut {
        let ((m, k), (_, n)) = (self.a.dims(), self.b.dims());
        let n_tasks = Cut::n_tasks(Threads::All, estimated_nanos(k * n, m));
        let n_threads = n_tasks.min(rayon::current_num_threads());
        let fewest = m.div_ceil(MAX_TASK_ROWS);
        let cut = |rows, panels| Cut { rows, panels, n_tile: MAX_ROWS };
        if n_tasks == 1 {
            return cut(fewest, 1);
        }
        if m >= n_threads * MIN_TASK_ROWS {
            // Small tasks are more evenly shared, and cost nothing where panels are kept.
            let wanted = if self.n_packed() <= MAX_KEPT { n_tasks.min(m / MIN_TASK_ROWS) } else { n_threads };
            return cut(fewest.max(wanted).next_multiple_of(n_threads), 1);
        }
        let n_panels = n.div_ceil(N_COLUMNS);
        let (wanted, needed) = (n_tasks.div_ceil(fewest), n_threads.div_ceil(fewest));
        let panels = wanted.min(n_panels / MIN_TASK_PANELS).max(needed).min(n_panels);
        cut(fewest.max(n_threads.div_ceil(panels)).min(m), panels)
    }

    /// Blocks that k is cut into.
    fn n_blocks(&self) -> usize {
        self.a.dims().1.div_ceil(MAX_BLOCK).max(1)
    }

    fn run(&self, task: &mut Task<'_>, blocks: Range<usize>, cut: Cut, call: u64) {
        self.for_each_panel(task.rows.clone(), task.panels.clone(), blocks, (cut, call), |x, rows, panel| {
            let resumed = self.resumed || x.resumed;
            task.multiply(self.set, rows, panel, x.first_column, resumed, x.last);
        });
    }

    /// The same where nothing has been written yet.
    fn run_fresh(&self, task: &mut Task<'_, MaybeUninit<f32>>, cut: Cut, call: u64) {
        let (rows, panels) = (task.rows.clone(), task.panels.clone());
        let n_blocks = self.n_blocks();
        self.for_each_panel(rows.clone(), panels.clone(), 0..1, (cut, call), |x, rows, panel| {
            let first = x.first_column;
            if let Some(sum) = task.sum(first, x.last.unwrap_or_default()) {
                return task.multiply_whole(self.set, rows, panel, first, sum);
            }
            let out = task.out.iter_mut().map(|row| zeroed(&mut row[first..])).collect();
            let mut rest = Task { rows: task.rows.clone(), panels: task.panels.clone(), out };
            rest.multiply(self.set, rows, panel, 0, false, x.last);
        });
        // SAFETY: the first block has written all panels of all rows: `for_each_panel` and `tiles` leave none out.
        let out = task.out.iter_mut().map(|row| unsafe { written(row) }).collect();
        self.run(&mut Task { rows, panels, out }, 1..n_blocks, cut, call);
    }

    /// Calls `multiply` with each block of each panel of a task, and the rows that go with it.
    fn for_each_panel(
        &self,
        rows: Range<usize>,
        panels: Range<usize>,
        blocks: Range<usize>,
        (cut, call): (Cut, u64),
        mut multiply: impl FnMut(Place<'_>, &[f32], &[Columns]),
    ) {
        assert!(rows.len() <= MAX_TASK_ROWS, "a task of {} rows", rows.len());
        let (k, n) = self.b.dims();
        let keeps = cut.rows > 1 && cut.panels == 1 && self.n_packed() <= MAX_KEPT;
        SCRATCH.with_borrow_mut(|Scratch { rows: copies, panels: packed, kept }| {
            copies.resize(MAX_TASK_ROWS * ROW_STRIDE, 0.0);
            let n_columns = if keeps { self.n_packed() } else { MAX_PANELS * MAX_BLOCK };
            packed.resize(packed.len().max(n_columns), Columns::ZERO);
            if *kept != call {
                *kept = 0;
                if keeps {
                    self.b.copy_panels(self.set, 0..k, 0..n, &mut packed[..n_columns]);
                    *kept = call;
                }
            }
            for block in parts(k, self.n_blocks()).skip(blocks.start).take(blocks.len()) {
                self.a.copy(self.set, rows.clone(), block.clone(), copies, ROW_STRIDE);
                for some in parts(panels.len(), panels.len().div_ceil(MAX_PANELS)) {
                    let some = panels.start + some.start..panels.start + some.end;
                    if !keeps {
                        let columns = some.start * N_COLUMNS..n.min(some.end * N_COLUMNS);
                        let packed = &mut packed[..some.len() * block.len()];
                        self.b.copy_panels(self.set, block.clone(), columns, packed);
                    }
                    for i in some.clone() {
                        let panel = match keeps {
                            true => &packed[i * k..][block.clone()],
                            false => &packed[(i - some.start) * block.len()..][..block.len()],
                        };
                        let place = Place {
                            first_column: (i - panels.start) * N_COLUMNS,
                            resumed: block.start > 0,
                            last: (block.end == k).then(|| Epilogue::bias(self.bias).of_panel(i)),
                        };
                        multiply(place, copies, panel);
                    }
                }
            }
        });
    }
}

/// What becomes of a block of a panel.
struct Place<'a> {
    /// Where its columns begin within a task's.
    first_column: usize,
    /// It goes on where the block before it ended.
    resumed: bool,
    /// What is done when no block follows.
    last: Option<Epilogue<'a>>,
}
