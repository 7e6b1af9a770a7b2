//! Matrices the other way round.

use rayon::prelude::*;

use super::instruction_set::InstructionSet;

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

/// `out[j * out_step + i] = x[i * step + j]` for i below `n_rows` and j below `n_columns`, on one thread.
///
/// # Panics
/// When a slice ends before its last row does.
pub(super) fn transpose_block(
    set: InstructionSet,
    x: &[f32],
    step: usize,
    n_rows: usize,
    n_columns: usize,
    out: &mut [f32],
    out_step: usize,
) {
    for i in (0..n_rows).step_by(SQUARE) {
        let height = SQUARE.min(n_rows - i);
        for j in (0..n_columns).step_by(SQUARE) {
            let width = SQUARE.min(n_columns - j);
            if height == SQUARE && width == SQUARE {
                set.transpose_square(&x[i * step + j..], step, &mut out[j * out_step + i..], out_step);
                continue;
            }
            for row in i..i + height {
                for column in j..j + width {
                    out[column * out_step + row] = x[row * step + column];
                }
            }
        }
    }
}

/// Rows and columns of a square that fits the registers.
const SQUARE: usize = 8;

impl InstructionSet {
    fn transpose_square(self, x: &[f32], step: usize, out: &mut [f32], out_step: usize) {
        match self {
            // SAFETY: `available`, where every value comes from, has seen AVX2 or AVX-512, which implies it.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx2 => unsafe { transpose_avx2(x, step, out, out_step) },
            Self::Portable => transpose_portable(x, step, out, out_step),
        }
    }
}

fn transpose_portable(x: &[f32], step: usize, out: &mut [f32], out_step: usize) {
    for (i, row) in x.chunks(step).take(SQUARE).enumerate() {
        for (j, value) in row[..SQUARE].iter().enumerate() {
            out[j * out_step + i] = *value;
        }
    }
}

/// Pairs of neighbours, then pairs of pairs, then halves change places.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn transpose_avx2(x: &[f32], step: usize, out: &mut [f32], out_step: usize) {
    use std::arch::x86_64::*;

    assert!(
        step >= SQUARE
            && out_step >= SQUARE
            && x.len() >= (SQUARE - 1) * step + SQUARE
            && out.len() >= (SQUARE - 1) * out_step + SQUARE,
        "a square among {} and {} values",
        x.len(),
        out.len()
    );
    // SAFETY: the assertion has seen eight values at the beginning of each of the eight rows.
    let row = |i: usize| unsafe { _mm256_loadu_ps(x.as_ptr().add(i * step)) };
    let pairs = |i: usize| {
        let (a, b) = (row(i), row(i + 1));
        [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)]
    };
    let fours = |i: usize| {
        let ([a, b], [c, d]) = (pairs(i), pairs(i + 2));
        [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xee>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xee>(b, d),
        ]
    };
    for (j, (low, high)) in fours(0).into_iter().zip(fours(4)).enumerate() {
        let columns = [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)];
        for (half, column) in columns.into_iter().enumerate() {
            // SAFETY: the assertion has seen room for eight values at the beginning of each of the eight rows.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().add((j + 4 * half) * out_step), column) };
        }
    }
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

    #[test]
    fn every_instruction_set_transposes_blocks() {
        for (n_rows, n_columns, step, out_step) in
            [(8, 8, 8, 8), (17, 30, 33, 20), (3, 9, 9, 3), (40, 16, 16, 64)]
        {
            let x: Vec<f32> = (0..n_rows * step).map(|i| i as f32).collect();
            for set in InstructionSet::available() {
                let mut out = vec![-1.0; n_columns * out_step];
                transpose_block(set, &x, step, n_rows, n_columns, &mut out, out_step);
                for (place, value) in out.iter().enumerate() {
                    let (column, row) = (place / out_step, place % out_step);
                    let expected = if row < n_rows { x[row * step + column] } else { -1.0 };
                    assert_eq!(
                        *value, expected,
                        "{set:?}: {n_rows} x {n_columns}, row {row}, column {column}"
                    );
                }
            }
        }
    }
}
