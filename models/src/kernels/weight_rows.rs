//! Where a weight that is to be packed comes from: its rows, some at a time, so that it need not be there as a whole.

use std::convert::Infallible;

use rayon::prelude::*;

use super::gemm::N_COLUMNS;

/// Gives rows of a weight (n_out, n_in): those from the given one on, as many as the slice has room for.
pub trait ReadRows<E>: Fn(usize, &mut [f32]) -> Result<(), E> + Sync {}

impl<E, F: Fn(usize, &mut [f32]) -> Result<(), E> + Sync> ReadRows<E> for F {}

/// The rows of what is there as a whole, row-major.
///
/// # Panics
/// When `weight` is not `n_out * n_in` long.
pub(super) fn rows_of(weight: &[f32], n_out: usize, n_in: usize) -> impl ReadRows<Infallible> {
    assert!(weight.len() == n_out * n_in, "packing: {} values for {n_out} x {n_in}", weight.len());
    move |first, rows: &mut [f32]| {
        rows.copy_from_slice(&weight[first * n_in..][..rows.len()]);
        Ok(())
    }
}

/// Packs each panel from its rows, all threads together. There must be inputs.
///
/// # Errors
/// What `read` refuses, of several errors that of the first rows.
pub(super) fn for_each_panel<P: Send, E: Send>(
    panels: impl IndexedParallelIterator<Item = P>,
    n_out: usize,
    n_in: usize,
    read: impl ReadRows<E>,
    pack: impl Fn(P, &[f32]) + Sync,
) -> Result<(), E> {
    let packed = panels.enumerate().map_init(Vec::new, |rows, (i, panel)| {
        let first = i * N_COLUMNS;
        rows.resize(N_COLUMNS.min(n_out - first) * n_in, 0.0);
        read(first, rows)?;
        pack(panel, rows);
        Ok(())
    });
    packed.find_first(Result::is_err).unwrap_or(Ok(()))
}
