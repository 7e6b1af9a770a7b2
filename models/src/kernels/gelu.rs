//! The Gaussian error linear unit, exact form: `x Phi(x)` (Hendrycks and Gimpel, arXiv 1606.08415).

use super::functions::{exp, normal_cdf};
use super::instruction_set::{InstructionSet, vectorised};
use super::memory::filled;

/// Numbers that a thread takes at once.
const CHUNK: usize = 1 << 14;

/// `gelu(x)`.
pub fn gelu(x: &[f32]) -> Vec<f32> {
    let set = InstructionSet::best();
    filled(x.len(), CHUNK, |i, y| values(set, &x[i * CHUNK..][..y.len()], y))
}

/// `dy gelu'(x)`.
///
/// # Panics
/// When the slices are not equally long.
pub fn gelu_backward(x: &[f32], dy: &[f32]) -> Vec<f32> {
    assert!(x.len() == dy.len(), "gelu: {} values, {} gradients", x.len(), dy.len());
    let set = InstructionSet::best();
    filled(x.len(), CHUNK, |i, dx| {
        let chunk = i * CHUNK..i * CHUNK + dx.len();
        gradients(set, &x[chunk.clone()], &dy[chunk], dx);
    })
}

vectorised! {
    fn values(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x * normal_cdf(*x);
        }
    }

    fn gradients(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        /// The height of the normal density.
        const DENSITY: f32 = 0.398_942_3;
        for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
            *dx = *dy * (normal_cdf(*x) + *x * (DENSITY * exp(-0.5 * *x * *x)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_gradients_are_the_formulas_with_every_instruction_set() {
        let x: Vec<f32> = (-1000..=1000).map(|i| i as f32 * 0.01).collect();
        let dy: Vec<f32> = x.iter().map(|x| (3.0 * x).sin()).collect();
        let mut first: Option<[Vec<f32>; 2]> = None;
        for set in InstructionSet::available() {
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            values(set, &x, &mut y);
            gradients(set, &x, &dy, &mut dx);
            for (((x, dy), y), dx) in x.iter().zip(&dy).zip(&y).zip(&dx) {
                let x = f64::from(*x);
                let cumulative = 0.5 + 0.5 * candle_core::cpu::erf::erf_f64(x / 2f64.sqrt());
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                assert!((f64::from(*y) - x * cumulative).abs() < 1e-6, "{set:?}: gelu({x}) = {y}");
                let expected = f64::from(*dy) * (cumulative + x * density);
                assert!((f64::from(*dx) - expected).abs() < 1e-6, "{set:?}: gradient at {x}: {dx}");
            }
            assert_eq!(first.get_or_insert_with(|| [y.clone(), dx.clone()]), &[y, dx], "{set:?}");
        }
    }
}
