//! Sums over rows that come out the same whatever the number of threads: rows are cut into blocks of a fixed length, and
//! the blocks' sums are added in their order.

use rayon::prelude::*;

use super::instruction_set::{InstructionSet, vectorised};

/// Rows of a block.
pub(super) const ROWS: usize = 64;

/// Calls `add` for each block with `n` zeros to add its sums to, and adds these up.
pub(super) fn reduce<B: Send>(
    blocks: impl IndexedParallelIterator<Item = B>,
    n: usize,
    add: impl Fn(B, &mut [f32]) + Sync + Send,
) -> Vec<f32> {
    let set = InstructionSet::best();
    let mut partial = vec![0f32; blocks.len() * n];
    blocks.zip(partial.par_chunks_mut(n.max(1))).for_each(|(block, sums)| add(block, sums));
    let mut sums = vec![0f32; n];
    add_rows(set, &partial, &mut sums);
    sums
}

/// Adds the sums of the columns of `x`, whose rows are as long as `sums`: what a bias's gradient is.
///
/// # Panics
/// When `x` does not consist of whole rows.
pub fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    let n_columns = sums.len();
    assert!(
        x.len().is_multiple_of(n_columns.max(1)),
        "column sums: {} values in rows of {n_columns}",
        x.len()
    );
    let set = InstructionSet::best();
    let found = reduce(x.par_chunks(ROWS * n_columns.max(1)), n_columns, |x, sums| add_rows(set, x, sums));
    add_rows(set, &found, sums);
}

vectorised! {
    pub(super) fn add_rows(x: &[f32], sums: &mut [f32]) {
        for row in x.chunks_exact(sums.len().max(1)) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += *x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_summed_and_threads_do_not_matter() -> Result<(), rayon::ThreadPoolBuildError> {
        for (n_rows, n_columns) in [(0, 3), (1, 1), (130, 19), (3, 0)] {
            let x: Vec<f32> = (0..n_rows * n_columns).map(|i| (i as f32 * 0.37).sin()).collect();
            let column_sums = || {
                let mut sums = vec![0.5; n_columns];
                add_column_sums(&x, &mut sums);
                sums
            };
            let sums = column_sums();
            for (j, sum) in sums.iter().enumerate() {
                let expected: f64 = 0.5 + (0..n_rows).map(|i| f64::from(x[i * n_columns + j])).sum::<f64>();
                assert!((f64::from(*sum) - expected).abs() < 1e-4, "{n_rows} x {n_columns}");
            }
            for n_threads in [1, 3] {
                let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
                assert_eq!(threads.install(column_sums), sums);
            }
        }
        Ok(())
    }
}
