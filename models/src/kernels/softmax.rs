//! Softmax of rows, and its gradient.

use super::functions::{exp, magnitude, max, softmax_row, sum, sum2};
use super::instruction_set::{InstructionSet, vectorised};
use super::memory::filled;

/// Numbers that a thread takes at once, or one row.
const CHUNK: usize = 1 << 14;

/// `e^x / sum(e^x)` for each row of `width` numbers; a row of minus infinity alone gives no numbers.
///
/// # Panics
/// When `x` does not consist of whole rows.
pub fn softmax(x: &[f32], width: usize) -> Vec<f32> {
    let (set, step) = (InstructionSet::best(), step(width, x.len()));
    filled(x.len(), step, |i, y| values(set, &x[i * step..][..y.len()], width, y))
}

/// `y (dy - sum(dy y))` for each row of `width` numbers.
///
/// # Panics
/// When the slices are not equally long or not whole rows.
pub fn softmax_backward(y: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let (set, step) = (InstructionSet::best(), step(width, y.len()));
    assert!(dy.len() == y.len(), "softmax: {} values, {} gradients", y.len(), dy.len());
    filled(y.len(), step, |i, dx| {
        let rows = i * step..i * step + dx.len();
        gradients(set, &y[rows.clone()], &dy[rows], width, dx);
    })
}

/// `ln(sum(e^x))`, minus infinity for nothing.
pub fn log_sum_exp(x: &[f32]) -> f32 {
    let set = InstructionSet::best();
    let max = largest(set, x);
    if max == f32::NEG_INFINITY { max } else { max + exp_sum(set, x, max).ln() as f32 }
}

/// The place of the first of the largest numbers; 0 where there is none.
pub fn argmax(x: &[f32]) -> usize {
    let set = InstructionSet::best();
    place_of(set, x, largest(set, x))
}

/// The largest number, or minus infinity; what is not a number is passed over.
pub fn largest_of(x: &[f32]) -> f32 {
    largest(InstructionSet::best(), x)
}

/// Whether all of them are finite numbers.
pub fn are_finite(x: &[f32]) -> bool {
    finite(InstructionSet::best(), x)
}

/// Whole rows of about a chunk.
fn step(width: usize, n: usize) -> usize {
    let width = width.max(1);
    assert!(n.is_multiple_of(width), "softmax: {n} values in rows of {width}");
    width * (CHUNK / width).max(1)
}

vectorised! {
    fn largest(x: &[f32]) -> f32 {
        max(x)
    }

    /// The first place of a number, or 0.
    fn place_of(x: &[f32], number: f32) -> usize {
        // Whole chunks are compared at once: few of many thousand hold it.
        let chunk = x.chunks(256).position(|x| x.iter().fold(false, |found, x| found | (*x == number)));
        let first = 256 * chunk.unwrap_or(0);
        x[first..].iter().position(|x| *x == number).map_or(0, |place| first + place)
    }

    fn finite(x: &[f32]) -> bool {
        let is_finite = |x: &f32| magnitude(*x) < f32::INFINITY.to_bits();
        x.chunks(4096).all(|x| x.iter().fold(true, |all, x| all & is_finite(x)))
    }

    /// Sum of `e^(x - max)`. Vocabularies are large, and sums of them are compared: not all of it is added up in 32 bits.
    fn exp_sum(x: &[f32], max: f32) -> f64 {
        let mut total = 0.0;
        for x in x.chunks(1024) {
            total += f64::from(sum(x, |x| exp(x - max)));
        }
        total
    }

    fn values(x: &[f32], width: usize, y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            y.copy_from_slice(x);
            softmax_row(y);
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
    fn sums_of_exponentials_are_those_of_doubles_and_the_largest_is_found() {
        for n in [1, 15, 16, 5000, 60_000] {
            let x: Vec<f32> = (0..n).map(|i| 9.0 * (i as f32 * 0.37).sin()).collect();
            let expected = x.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            assert!((f64::from(log_sum_exp(&x)) - expected).abs() < 2e-6, "{n}");
            let mut first = None;
            for set in InstructionSet::available() {
                let found = (largest(set, &x), exp_sum(set, &x, 1.0).to_bits());
                assert_eq!(*first.get_or_insert(found), found, "{set:?}");
            }
        }
        let few = [f32::NEG_INFINITY, 2.0, 2.0, -1.0];
        assert_eq!((argmax(&few), argmax(&[])), (1, 0));
        assert_eq!((largest_of(&few), largest_of(&[])), (2.0, f32::NEG_INFINITY));
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
        let expected = (2.0 * 2f32.exp() + (-1f32).exp()).ln();
        assert!((log_sum_exp(&few) - expected).abs() < 1e-6);
    }

    #[test]
    fn places_are_found_wherever_they_are() {
        for n in [1, 255, 256, 257, 5000] {
            for place in [0, n / 2, n - 1] {
                let mut x = vec![-1.0; n];
                x[place..].fill(3.0);
                for set in InstructionSet::available() {
                    assert_eq!((place_of(set, &x, 3.0), place_of(set, &x, 4.0)), (place, 0), "{set:?}");
                    assert!(finite(set, &x));
                }
                assert_eq!(argmax(&x), place);
                for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    x[place] = broken;
                    assert!(!InstructionSet::available().any(|set| finite(set, &x)), "{broken} at {place}");
                }
            }
        }
        assert_eq!(argmax(&[f32::NAN, 1.0, 2.0]), 2);
        assert!(are_finite(&[]));
    }

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
