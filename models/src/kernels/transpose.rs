//! Matrices the other way round.

use rayon::prelude::*;

/// Rows of the result that are written side by side: what they read together is a cache line of each row.
const BLOCK: usize = 16;

/// `out[j, i] = x[i, j]` for x (n_rows, n) and out (n, n_rows), both row-major.
///
/// # Panics
/// When `out` is not as long as `x` or `x` does not consist of `n_rows` rows.
pub fn transpose(x: &[f32], n_rows: usize, out: &mut [f32]) {
    if x.is_empty() && out.is_empty() {
        return;
    }
    assert!(
        out.len() == x.len() && n_rows > 0 && x.len().is_multiple_of(n_rows),
        "transposing {} values in {n_rows} rows to {}",
        x.len(),
        out.len()
    );
    let n_columns = x.len() / n_rows;
    out.par_chunks_mut(BLOCK * n_rows).enumerate().for_each(|(block, out)| {
        let columns = block * BLOCK..block * BLOCK + out.len() / n_rows;
        for (i, row) in x.chunks_exact(n_columns).enumerate() {
            for (value, out) in row[columns.clone()].iter().zip(out.chunks_exact_mut(n_rows)) {
                out[i] = *value;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        for (n_rows, n_columns) in [(1, 1), (1, 40), (40, 1), (17, 33), (0, 3), (3, 0)] {
            let x: Vec<f32> = (0..n_rows * n_columns).map(|i| i as f32).collect();
            let mut out = vec![f32::NAN; x.len()];
            transpose(&x, n_rows, &mut out);
            for (i, value) in out.iter().enumerate() {
                assert_eq!(*value, x[i % n_rows * n_columns + i / n_rows], "{n_rows} x {n_columns}");
            }
        }
    }
}
