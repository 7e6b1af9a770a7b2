//! Products of two matrices as they lie in memory: what training multiplies, where no operand stays as it is.

use std::cell::RefCell;
use std::ops::Range;

use super::{Columns, MAX_BLOCK, N_COLUMNS, ROW_STRIDE, Task, Threads, estimated_nanos, in_tasks, parts};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::transpose::transpose_block;

/// Most rows of a task: one block of them stays in the second-level cache while all panels pass by, and packing a panel
/// pays for as many rows.
const MAX_TASK_ROWS: usize = 288;

/// A matrix as it lies in memory: rows of consecutive values that begin every `step` values.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    step: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// Rows that follow each other.
    ///
    /// # Panics
    /// When `values` is not `n_rows * n_columns` long.
    pub fn new(values: &'a [f32], n_rows: usize, n_columns: usize) -> Self {
        assert!(values.len() == n_rows * n_columns, "{} values for {n_rows} x {n_columns}", values.len());
        Self::with_step(values, n_rows, n_columns, n_columns)
    }

    /// Rows that begin every `step` values; they may overlap, as a convolution's windows do.
    ///
    /// # Panics
    /// When `values` ends before the last row does.
    pub fn with_step(values: &'a [f32], n_rows: usize, n_columns: usize, step: usize) -> Self {
        assert!(
            n_rows == 0 || values.len() >= (n_rows - 1) * step + n_columns,
            "{} values for {n_rows} x {n_columns}, every {step}",
            values.len()
        );
        Self { values, n_rows, n_columns, step, transposed: false }
    }

    /// Rows as columns.
    #[must_use]
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns.
    pub fn dims(self) -> (usize, usize) {
        if self.transposed { (self.n_columns, self.n_rows) } else { (self.n_rows, self.n_columns) }
    }

    /// Copies a rectangle to rows that begin every `out_step` values of `out`.
    fn copy(
        self,
        set: InstructionSet,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [f32],
        out_step: usize,
    ) {
        if self.transposed {
            let values = &self.values[columns.start * self.step + rows.start..];
            transpose_block(set, values, self.step, columns.len(), rows.len(), out, out_step);
        } else {
            for (out, i) in out.chunks_mut(out_step).zip(rows) {
                out[..columns.len()].copy_from_slice(&self.values[i * self.step..][columns.clone()]);
            }
        }
    }

    /// Copies a rectangle to a panel, filled up with zeros.
    fn copy_panel(
        self,
        set: InstructionSet,
        rows: Range<usize>,
        columns: Range<usize>,
        panel: &mut [Columns],
    ) {
        if columns.len() < N_COLUMNS {
            panel.fill(Columns::ZERO);
        } else if !self.transposed {
            let values = self.values[rows.start * self.step + columns.start..].chunks(self.step);
            for (out, values) in panel.iter_mut().zip(values) {
                if let Some(values) = values.first_chunk() {
                    out.0 = *values; // of known length: no call
                }
            }
            return;
        }
        self.copy(set, rows, columns, Columns::flatten_mut(panel), N_COLUMNS);
    }
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
    panel: Vec<Columns>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Product<'_> {
    pub fn compute(&self, out: &mut [f32], step: usize) {
        let ((m, k), (b_rows, n)) = (self.a.dims(), self.b.dims());
        if m == 0 || n == 0 {
            return;
        }
        assert!(
            k == b_rows && step >= n && out.len() >= (m - 1) * step + n && Epilogue::bias(self.bias).fits(n),
            "product: {m} x {k} by {b_rows} x {n} into {} values, every {step}",
            out.len()
        );
        let used = ((m - 1) * step + n).max(m * step).min(out.len());
        let run = |task: &mut Task<'_>| SCRATCH.with_borrow_mut(|scratch| self.run(task, scratch));
        let shape = (n, step, MAX_TASK_ROWS);
        in_tasks(&mut out[..used], shape, Threads::All, estimated_nanos(k * n, m), run);
    }

    fn run(&self, task: &mut Task<'_>, scratch: &mut Scratch) {
        let ((_, k), (_, n)) = (self.a.dims(), self.b.dims());
        let Scratch { rows, panel } = scratch;
        rows.resize(MAX_TASK_ROWS * ROW_STRIDE, 0.0);
        panel.resize(MAX_BLOCK, Columns::ZERO);
        for block in parts(k, k.div_ceil(MAX_BLOCK).max(1)) {
            self.a.copy(self.set, task.rows.clone(), block.clone(), rows, ROW_STRIDE);
            let panels = task.panels.clone();
            for (i, first_column) in panels.zip((0..).step_by(N_COLUMNS)) {
                let columns = i * N_COLUMNS..n.min((i + 1) * N_COLUMNS);
                let panel = &mut panel[..block.len()];
                self.b.copy_panel(self.set, block.clone(), columns, panel);
                let last = (block.end == k).then(|| Epilogue::bias(self.bias).of_panel(i));
                task.multiply(self.set, rows, panel, first_column, self.resumed || block.start > 0, last);
            }
        }
    }
}
