//! A weight that is packed once, and products with it.

use std::cell::{Cell, RefCell};

use rayon::prelude::*;

use super::{
    Columns, Cut, MAX_BLOCK, MAX_ROWS, N_COLUMNS, ROW_STRIDE, Task, Threads, estimated_nanos, in_tasks, parts,
};
use crate::kernels::epilogue::{Epilogue, PostOp};
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::memory::in_large_pages;
use crate::kernels::weight_rows::{ReadRows, for_each_panel};

/// Most rows of a task: one block of them stays in the second-level cache while all panels pass by.
pub const MAX_TASK_ROWS: usize = 96;

/// A weight (n, k) in the order in which products read it: panels of `N_COLUMNS` outputs, each with all values of one
/// place of k side by side. The last panel is filled up with zeros.
pub struct PackedMatrix {
    columns: Vec<Columns>, // (panels, k)
    n_out: usize,
    n_in: usize,
}

impl PackedMatrix {
    /// Packs the weight (n_out, n_in) whose rows `read` gives.
    ///
    /// # Errors
    /// What `read` refuses.
    pub fn pack<E: Send>(n_out: usize, n_in: usize, read: impl ReadRows<E>) -> Result<Self, E> {
        let mut columns = in_large_pages(Columns::ZERO, n_out.div_ceil(N_COLUMNS) * n_in);
        if n_in > 0 {
            let panels = columns.par_chunks_exact_mut(n_in);
            for_each_panel(panels, n_out, n_in, read, |panel, rows| pack_panel(rows, n_in, panel))?;
        }
        Ok(Self { columns, n_out, n_in })
    }

    /// Copies row `i` of the weight, the values that output `i` is made with.
    ///
    /// # Panics
    /// When there is no such row or `row` is not `n_in` long.
    pub fn copy_row(&self, i: usize, row: &mut [f32]) {
        assert!(i < self.n_out && row.len() == self.n_in, "packed weight: row {i}, {} values", row.len());
        let panel = &self.columns[i / N_COLUMNS * self.n_in..][..self.n_in];
        for (value, columns) in row.iter_mut().zip(panel) {
            *value = columns.0[i % N_COLUMNS];
        }
    }

    /// Outputs, n.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs, k.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// `y = x W^T`, and what comes after it, for x (m, k) and y (m, n), row-major. Rows of x begin every `step` values: a
    /// convolution's windows overlap.
    ///
    /// # Panics
    /// When the slices' lengths do not fit each other.
    pub fn multiply(&self, x: &[f32], step: usize, epilogue: Epilogue<'_>, threads: Threads, y: &mut [f32]) {
        Product { weight: self, x, step, epilogue, threads, set: InstructionSet::best() }.compute(y);
    }
}

/// At most `N_COLUMNS` rows become columns.
fn pack_panel(rows: &[f32], n_in: usize, panel: &mut [Columns]) {
    // A few places of k at a time, so that what is written stays in the first-level cache for all rows.
    for (block, panel) in panel.chunks_mut(16).enumerate() {
        for (column, row) in rows.chunks_exact(n_in).enumerate() {
            for (columns, value) in panel.iter_mut().zip(&row[16 * block..]) {
                columns.0[column] = *value;
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub weight: &'a PackedMatrix,
    pub x: &'a [f32],
    pub step: usize,
    pub epilogue: Epilogue<'a>,
    pub threads: Threads,
    pub set: InstructionSet,
}

thread_local! {
    /// Rows that a thread works on.
    static COPIES: RefCell<Vec<f32>> = RefCell::default();
    /// Sums that are to be added to something.
    static SUMS: Cell<Vec<f32>> = Cell::default();
}

impl Product<'_> {
    pub fn compute(&self, y: &mut [f32]) {
        let (n_out, n_in) = (self.weight.n_out, self.weight.n_in);
        if y.is_empty() {
            return;
        }
        let n_rows = y.len().checked_div(n_out).unwrap_or(0);
        assert!(
            n_rows > 0
                && y.len() == n_rows * n_out
                && self.x.len() == (n_rows - 1) * self.step + n_in
                && self.epilogue.fits(n_out),
            "product: {} values in and {} out, every {}, do not fit a weight {n_out} x {n_in}",
            self.x.len(),
            y.len(),
            self.step
        );
        let run = |task: &mut Task<'_>| COPIES.with_borrow_mut(|copies| self.run(task, copies));
        let nanos = estimated_nanos(self.weight.columns.len() * N_COLUMNS, n_rows);
        let cut = Cut::new((n_rows, n_out), (MAX_TASK_ROWS, MAX_ROWS), self.threads, nanos);
        in_tasks(y, (n_out, n_out), cut, self.threads, run);
    }

    fn run(&self, task: &mut Task<'_>, copies: &mut Vec<f32>) {
        let (n_rows, n_in) = (task.rows.len(), self.weight.n_in);
        if self.epilogue.post_op == PostOp::Add && n_in > MAX_BLOCK {
            return self.run_beside(task, copies);
        }
        copies.resize(MAX_TASK_ROWS * ROW_STRIDE, 0.0);
        for block in parts(n_in, n_in.div_ceil(MAX_BLOCK).max(1)) {
            let rows = if n_rows == 1 {
                &self.x[task.rows.start * self.step..][block.clone()]
            } else {
                for (copy, i) in copies.chunks_exact_mut(ROW_STRIDE).zip(task.rows.clone()) {
                    copy[..block.len()].copy_from_slice(&self.x[i * self.step..][block.clone()]);
                }
                &*copies
            };
            let panels = task.panels.clone();
            for (i, first_column) in panels.zip((0..).step_by(N_COLUMNS)) {
                let panel = &self.weight.columns[i * n_in..][block.clone()];
                let last = (block.end == n_in).then(|| self.epilogue.of_panel(i));
                task.multiply(self.set, rows, panel, first_column, block.start > 0, last);
            }
        }
    }

    /// `run` where sums that are not finished must not lie in what they are added to.
    fn run_beside(&self, task: &mut Task<'_>, copies: &mut Vec<f32>) {
        let width = task.out.first().map_or(0, |row| row.len());
        let mut sums = SUMS.take();
        sums.resize(task.out.len() * width, 0.0);
        let out = sums.chunks_mut(width.max(1)).collect();
        let mut beside = Task { rows: task.rows.clone(), panels: task.panels.clone(), out };
        let epilogue = Epilogue { post_op: PostOp::None, ..self.epilogue };
        Product { epilogue, ..*self }.run(&mut beside, copies);
        for (out, sums) in task.out.iter_mut().zip(&beside.out) {
            out.iter_mut().zip(&**sums).for_each(|(out, sum)| *out += sum);
        }
        SUMS.set(sums);
    }
}
