//! Products with a packed weight, the same for bytes and bf16 but for the sums.

use super::{Group, LINE_GROUPS, N_COLUMNS, Rows, Sums};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::gemm::{Task, Threads, in_tasks};
use crate::kernels::instruction_set::InstructionSet;

/// Most rows of a task: they stay in the second-level cache while all panels pass by.
const MAX_TASK_ROWS: usize = 96;

/// A weight (n, k) in panels of groups.
pub(super) trait PackedPanels: Sync {
    /// Activations that it is multiplied with.
    type Activations: Sync;
    /// Instructions.
    type Set: Copy + Send + Sync;
    /// What products add up to.
    type Sum: Copy + Default;

    /// n and k.
    fn dims(&self) -> (usize, usize);

    /// (panels, groups of k).
    fn groups(&self) -> &[Group];

    /// The rows of `x`, how many there are, and how long they are.
    fn rows(x: &Self::Activations) -> (Rows<'_>, usize, usize);

    /// Sums of the products of rows with a panel.
    fn multiply(set: Self::Set, rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<Self::Sum>]);

    /// What the sums of row `row` of `x` with panel `panel` are as numbers.
    fn numbers(
        &self,
        set: InstructionSet,
        x: &Self::Activations,
        row: usize,
        panel: usize,
        sums: &Sums<Self::Sum>,
    ) -> [f32; N_COLUMNS];
}

/// Groups of a panel for k inputs, of which a line holds `line`: whole lines.
pub(super) fn n_groups(n_in: usize, line: usize) -> usize {
    n_in.div_ceil(line) * LINE_GROUPS
}

/// `y = x W^T`, and what comes after it.
pub(super) struct Product<'a, W: PackedPanels> {
    pub weight: &'a W,
    pub x: &'a W::Activations,
    pub epilogue: Epilogue<'a>,
    pub threads: Threads,
    /// What is multiplied with.
    pub dot: W::Set,
    /// What the rest is computed with.
    pub set: InstructionSet,
}

impl<W: PackedPanels> Product<'_, W> {
    /// For x (m, k) and y (m, n), row-major.
    pub fn compute(&self, y: &mut [f32]) {
        let ((n_out, n_in), (_, n_rows, n_columns)) = (self.weight.dims(), W::rows(self.x));
        assert!(
            y.len() == n_rows * n_out && n_columns == n_in && self.epilogue.fits(n_out),
            "product: {n_rows} rows of {n_columns} and {} out do not fit a weight {n_out} x {n_in}",
            y.len()
        );
        if y.is_empty() {
            return;
        }
        // A weight is fetched at 20 GB/s and multiplied at 400 GOP/s in bytes, 200 in pairs of them.
        let n_bytes = size_of_val(self.weight.groups());
        let nanos = n_bytes / 20 + n_bytes.saturating_mul(n_rows) / 200;
        in_tasks(y, (n_out, n_out, MAX_TASK_ROWS), self.threads, nanos, |task| self.run(task));
    }

    fn run(&self, task: &mut Task<'_>) {
        let (rows, ..) = W::rows(self.x);
        let rows = rows.from(task.rows.start);
        let groups = self.weight.groups();
        let n_groups = groups.len() / self.weight.dims().0.div_ceil(N_COLUMNS);
        let mut sums = [Sums([W::Sum::default(); N_COLUMNS]); MAX_TASK_ROWS];
        let sums = &mut sums[..task.rows.len()];
        let first_panel = task.panels.start;
        for i in task.panels.clone() {
            // Without inputs the sums stay zero.
            if n_groups > 0 {
                W::multiply(self.dot, rows, &groups[i * n_groups..][..n_groups], sums);
            }
            let epilogue = self.epilogue.of_panel(i);
            let first_column = (i - first_panel) * N_COLUMNS;
            for ((sums, out), row) in sums.iter().zip(&mut task.out).zip(task.rows.clone()) {
                let mut numbers = self.weight.numbers(self.set, self.x, row, i, sums);
                epilogue.finish(self.set, &mut numbers, &mut out[first_column..]);
            }
        }
    }
}
