//! Softmax of rows, and its gradient.

use rayon::prelude::*;

use super::functions::{exp, max, sum, sum2};
use super::instruction_set::{InstructionSet, vectorised};

/// Numbers that a thread takes at once, or one row.
const CHUNK: usize = 1 << 14;

/// `y = e^x / sum(e^x)` for each row of `width` numbers; a row of minus infinity alone gives no numbers.
///
/// # Panics
/// When the slices are not equally long or not whole rows.
pub fn softmax(x: &[f32], width: usize, y: &mut [f32]) {
    let (set, step) = (InstructionSet::best(), step(width, x.len(), y.len()));
    y.par_chunks_mut(step).zip(x.par_chunks(step)).for_each(|(y, x)| values(set, x, width, y));
}

/// `dx = y (dy - sum(dy y))` for each row of `width` numbers.
///
/// # Panics
/// When the slices are not equally long or not whole rows.
pub fn softmax_backward(y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]) {
    let (set, step) = (InstructionSet::best(), step(width, y.len(), dy.len()));
    assert!(dx.len() == y.len(), "softmax: {} values, {} gradients", y.len(), dx.len());
    let chunks = dx.par_chunks_mut(step).zip(y.par_chunks(step)).zip(dy.par_chunks(step));
    chunks.for_each(|((dx, y), dy)| gradients(set, y, dy, width, dx));
}

/// Whole rows of about a chunk.
fn step(width: usize, a: usize, b: usize) -> usize {
    let width = width.max(1);
    assert!(a == b && a.is_multiple_of(width), "softmax: {a} and {b} values in rows of {width}");
    width * (CHUNK / width).max(1)
}

vectorised! {
    fn values(x: &[f32], width: usize, y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let max = max(x);
            for (y, x) in y.iter_mut().zip(x) {
                *y = exp(*x - max);
            }
            let scale = 1.0 / sum(y, |y| y);
            for y in y {
                *y *= scale;
            }
        }
    }

    fn gradients(y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]) {
        let rows = dx.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(dy.chunks_exact(width));
        for ((dx, y), dy) in rows {
            let shared = sum2(y, dy, |y, dy| y * dy);
            for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
                *dx = *y * (*dy - shared);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_bits_and_rows_sum_to_one() {
        for width in [1, 15, 16, 100] {
            let x: Vec<f32> = (0..7 * width).map(|i| 5.0 * (i as f32 * 0.37).sin()).collect();
            let mut first: Option<[Vec<f32>; 2]> = None;
            for set in InstructionSet::available() {
                let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                values(set, &x, width, &mut y);
                gradients(set, &y, &x, width, &mut dx);
                for (y, dx) in y.chunks(width).zip(dx.chunks(width)) {
                    assert!((y.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                    assert!(dx.iter().sum::<f32>().abs() < 1e-4);
                }
                assert_eq!(first.get_or_insert_with(|| [y.clone(), dx.clone()]), &[y, dx], "{set:?}");
            }
        }
    }
}
