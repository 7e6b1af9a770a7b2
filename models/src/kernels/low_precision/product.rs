//! Products with a packed weight, the same for bytes and bf16 but for the sums.

use rayon::prelude::*;
use rayon::slice::ChunksMut;

use super::{DotSet, GROUP_BYTES, Group, LINE_GROUPS, N_COLUMNS, Ready, Rows, Sums, TILE_ROWS};
use crate::kernels::epilogue::{Epilogue, Products};
use crate::kernels::gemm::{Cut, MAX_TASK_ROWS, Task, Threads, in_tasks};
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::memory::in_large_pages;

/// The groups of a weight (n, k), those of a panel of outputs one after the other.
pub(super) struct Panels {
    groups: Vec<Group>, // (panels, groups of k)
    n_out: usize,
    n_in: usize,
}

impl Panels {
    /// Zeros, in whole lines of `line` inputs.
    pub fn new(n_out: usize, n_in: usize, line: usize) -> Self {
        let n = n_out.div_ceil(N_COLUMNS) * n_groups(n_in, line);
        Self { groups: in_large_pages(Group([[0; GROUP_BYTES]; N_COLUMNS]), n), n_out, n_in }
    }

    /// Outputs, n.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs, k.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Groups of a panel.
    fn n_groups(&self) -> usize {
        self.groups.len() / self.n_out.div_ceil(N_COLUMNS).max(1)
    }

    /// Each panel, to be filled. There must be inputs.
    pub fn par_iter_mut(&mut self) -> ChunksMut<'_, Group> {
        let n = self.n_groups();
        self.groups.par_chunks_mut(n)
    }

    fn panel(&self, i: usize) -> &[Group] {
        &self.groups[i * self.n_groups()..][..self.n_groups()]
    }

    /// What output `i` has in each group, and more zeros.
    pub fn row(&self, i: usize) -> impl Iterator<Item = [u8; GROUP_BYTES]> {
        assert!(i < self.n_out, "packed weight: row {i} of {}", self.n_out);
        self.panel(i / N_COLUMNS).iter().map(move |group| group.0[i % N_COLUMNS])
    }
}

/// A weight (n, k) in panels of groups.
pub(super) trait PackedPanels: Sync {
    /// Activations that it is multiplied with.
    type Activations: Sync;
    /// Instructions.
    type Set: DotSet;
    /// Those sums as numbers.
    type Products<'a>: Products
    where
        Self: 'a;

    /// Itself.
    fn panels(&self) -> &Panels;

    /// The rows of `x`, how many there are, and how long they are.
    fn rows(x: &Self::Activations) -> (Rows<'_>, usize, usize);

    /// What the sums of some rows of `x`, from `first_row` on, with panel `panel` stand for.
    fn products<'a>(
        &'a self,
        x: &'a Self::Activations,
        first_row: usize,
        panel: usize,
        sums: &'a [Sums<<Self::Set as DotSet>::Sum>],
    ) -> Self::Products<'a>;
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
        let Panels { groups, n_out, n_in } = self.weight.panels();
        let (n_out, n_in) = (*n_out, *n_in);
        let (_, n_rows, n_columns) = W::rows(self.x);
        assert!(
            y.len() == n_rows * n_out && n_columns == n_in && self.epilogue.fits(n_out),
            "product: {n_rows} rows of {n_columns} and {} out do not fit a weight {n_out} x {n_in}",
            y.len()
        );
        if y.is_empty() {
            return;
        }
        // A weight is fetched at 20 GB/s and multiplied at 400 GOP/s in bytes, 200 in pairs of them.
        let n_bytes = size_of_val(groups.as_slice());
        let nanos = n_bytes / 20 + n_bytes.saturating_mul(n_rows) / 200;
        let cut = Cut::new((n_rows, n_out), (MAX_TASK_ROWS, TILE_ROWS), self.threads, nanos);
        in_tasks(y, (n_out, n_out), cut, self.threads, |task| self.run(task));
    }

    fn run(&self, task: &mut Task<'_>) {
        let (rows, ..) = W::rows(self.x);
        let rows = rows.from(task.rows.start);
        let panels = self.weight.panels();
        // Of all rows: a product in tiles and what comes after it wait for each other when they take turns.
        let mut sums = [Sums([<W::Set as DotSet>::Sum::default(); N_COLUMNS]); MAX_TASK_ROWS];
        let sums = &mut sums[..task.rows.len()];
        let dot = Ready::new(self.dot);
        for (i, first_column) in task.panels.clone().zip((0..).step_by(N_COLUMNS)) {
            // Without inputs the sums stay zero.
            let panel = panels.panel(i);
            if !panel.is_empty() {
                dot.multiply(rows, panel, sums);
            }
            let products = self.weight.products(self.x, task.rows.start, i, sums);
            self.epilogue.of_panel(i).finish(self.set, products, &mut task.out, first_column);
        }
    }
}
