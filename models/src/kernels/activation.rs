//! Activation functions and their gradients, number by number, and the gated linear unit.

use super::functions::{exp, normal_cdf, sigmoid};
use super::instruction_set::{InstructionSet, vectorised};
use super::memory::filled;

/// Numbers that a thread takes at once.
const CHUNK: usize = 1 << 14;

/// A function of one number between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The Gaussian error linear unit, exact form: `x Phi(x)` (Hendrycks and Gimpel, arXiv 1606.08415).
    Gelu,
    /// The sigmoid linear unit, also called swish: `x / (1 + e^-x)` (Ramachandran et al., arXiv 1710.05941).
    Silu,
    /// `max(x, 0)`; its slope at zero is zero.
    Relu,
}

impl Activation {
    /// Of a number.
    #[inline(always)]
    pub(super) fn of(self, x: f32) -> f32 {
        match self {
            Self::Gelu => x * normal_cdf(x),
            Self::Silu => x * sigmoid(x),
            // What is no number stays none.
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
        }
    }

    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        /// The height of the normal density.
        const DENSITY: f32 = 0.398_942_3;
        match self {
            Self::Gelu => normal_cdf(x) + x * (DENSITY * exp(-0.5 * x * x)),
            Self::Silu => {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Self::Relu => {
                if x <= 0.0 {
                    0.0
                } else {
                    1.0
                }
            }
        }
    }
}

/// The activation of each number.
pub fn activate(activation: Activation, x: &[f32]) -> Vec<f32> {
    let set = InstructionSet::best();
    filled(x.len(), CHUNK, |i, y| values(set, activation, &x[i * CHUNK..][..y.len()], y))
}

/// `dy` times the slope at each `x`.
///
/// # Panics
/// When the slices are not equally long.
pub fn activate_backward(activation: Activation, x: &[f32], dy: &[f32]) -> Vec<f32> {
    assert!(x.len() == dy.len(), "{activation:?}: {} values, {} gradients", x.len(), dy.len());
    let set = InstructionSet::best();
    filled(x.len(), CHUNK, |i, dx| {
        let chunk = i * CHUNK..i * CHUNK + dx.len();
        gradients(set, activation, &x[chunk.clone()], &dy[chunk], dx);
    })
}

/// The gated linear unit: of rows of `2 width` numbers, the first half times the sigmoid of the second
/// (Dauphin et al., arXiv 1612.08083).
///
/// # Panics
/// When `x` does not consist of whole rows.
pub fn glu(x: &[f32], width: usize) -> Vec<f32> {
    let n_rows = n_glu_rows(x, width);
    let (set, step) = (InstructionSet::best(), rows_at_once(width));
    filled(n_rows * width, step * width, |i, y| {
        glu_values(set, width, &x[2 * i * step * width..][..2 * y.len()], y);
    })
}

/// The gradient of [`glu`]'s input.
///
/// # Panics
/// When the slices do not consist of equally many whole rows.
pub fn glu_backward(x: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let n_rows = n_glu_rows(x, width);
    assert!(dy.len() == n_rows * width, "glu: {} gradients for {n_rows} rows of {width}", dy.len());
    let (set, step) = (InstructionSet::best(), rows_at_once(width));
    filled(x.len(), 2 * step * width, |i, dx| {
        let first = 2 * i * step * width;
        let x = &x[first..][..dx.len()];
        glu_gradients(set, width, x, &dy[first / 2..][..x.len() / 2], dx);
    })
}

fn n_glu_rows(x: &[f32], width: usize) -> usize {
    let row = 2 * width.max(1);
    assert!(x.len().is_multiple_of(row), "glu: {} values in rows of {row}", x.len());
    x.len() / row
}

fn rows_at_once(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

vectorised! {
    fn values(activation: Activation, x: &[f32], y: &mut [f32]) {
        // Asked once, so that each loop is one of plain arithmetic.
        match activation {
            Activation::Gelu => y.iter_mut().zip(x).for_each(|(y, x)| *y = Activation::Gelu.of(*x)),
            Activation::Silu => y.iter_mut().zip(x).for_each(|(y, x)| *y = Activation::Silu.of(*x)),
            Activation::Relu => y.iter_mut().zip(x).for_each(|(y, x)| *y = Activation::Relu.of(*x)),
        }
    }

    fn gradients(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let all = dx.iter_mut().zip(dy).zip(x);
        match activation {
            Activation::Gelu => all.for_each(|((dx, dy), x)| *dx = *dy * Activation::Gelu.slope(*x)),
            Activation::Silu => all.for_each(|((dx, dy), x)| *dx = *dy * Activation::Silu.slope(*x)),
            Activation::Relu => all.for_each(|((dx, dy), x)| *dx = *dy * Activation::Relu.slope(*x)),
        }
    }

    fn glu_values(width: usize, x: &[f32], y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
            let (values, gates) = x.split_at(width);
            for ((y, value), gate) in y.iter_mut().zip(values).zip(gates) {
                *y = *value * sigmoid(*gate);
            }
        }
    }

    fn glu_gradients(width: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let rows = dx.chunks_exact_mut(2 * width).zip(x.chunks_exact(2 * width)).zip(dy.chunks_exact(width));
        for ((dx, x), dy) in rows {
            let ((values, gates), (d_values, d_gates)) = (x.split_at(width), dx.split_at_mut(width));
            for i in 0..width {
                let s = sigmoid(gates[i]);
                d_values[i] = dy[i] * s;
                d_gates[i] = dy[i] * values[i] * s * (1.0 - s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value and slope by the definition.
    fn definition(activation: Activation, x: f64) -> (f64, f64) {
        let s = 1.0 / (1.0 + (-x).exp());
        match activation {
            Activation::Gelu => {
                let cumulative = 0.5 + 0.5 * candle_core::cpu::erf::erf_f64(x / 2f64.sqrt());
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                (x * cumulative, cumulative + x * density)
            }
            Activation::Silu => (x * s, s * (1.0 + x * (1.0 - s))),
            Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
        }
    }

    #[test]
    fn values_and_gradients_are_the_formulas_with_every_instruction_set() {
        let x: Vec<f32> = (-1000..=1000).map(|i| i as f32 * 0.01).chain([-90.0, 90.0]).collect();
        let dy: Vec<f32> = x.iter().map(|x| (3.0 * x).sin()).collect();
        for activation in [Activation::Gelu, Activation::Silu, Activation::Relu] {
            let mut first: Option<[Vec<f32>; 2]> = None;
            for set in InstructionSet::available() {
                let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                values(set, activation, &x, &mut y);
                gradients(set, activation, &x, &dy, &mut dx);
                for (((x, dy), y), dx) in x.iter().zip(&dy).zip(&y).zip(&dx) {
                    let (value, slope) = definition(activation, f64::from(*x));
                    let tolerance = 2e-6 * (0.1 * x.abs()).max(1.0);
                    let error = (f64::from(*y) - value).abs() as f32;
                    assert!(error < tolerance, "{set:?}: {activation:?}({x}) = {y}");
                    let error = (f64::from(*dx) - f64::from(*dy) * slope).abs();
                    assert!(error < 2e-6, "{set:?}: {activation:?} at {x}: {dx}");
                }
                assert_eq!(first.get_or_insert_with(|| [y.clone(), dx.clone()]), &[y, dx], "{set:?}");
            }
            assert!(activation.of(f32::NAN).is_nan());
        }
    }

    #[test]
    fn gates_are_the_formula_with_every_instruction_set() {
        let width = 37;
        let x: Vec<f32> = (0..3 * 2 * width).map(|i| 4.0 * (i as f32 * 0.37).sin()).collect();
        let dy: Vec<f32> = (0..3 * width).map(|i| (i as f32 * 0.11).cos()).collect();
        let mut first: Option<[Vec<f32>; 2]> = None;
        for set in InstructionSet::available() {
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            glu_values(set, width, &x, &mut y);
            glu_gradients(set, width, &x, &dy, &mut dx);
            for (i, (y, dy)) in y.iter().zip(&dy).enumerate() {
                let at = i / width * 2 * width + i % width;
                let [value, gate, dy] = [x[at], x[at + width], *dy].map(f64::from);
                let s = 1.0 / (1.0 + (-gate).exp());
                assert!((f64::from(*y) - value * s).abs() < 1e-6);
                assert!((f64::from(dx[at]) - dy * s).abs() < 1e-6);
                assert!((f64::from(dx[at + width]) - dy * value * s * (1.0 - s)).abs() < 1e-6);
            }
            assert_eq!(first.get_or_insert_with(|| [y.clone(), dx.clone()]), &[y, dx], "{set:?}");
        }
        let [y, dx] = first.unwrap_or_default();
        assert_eq!((glu(&x, width), glu_backward(&x, &dy, width)), (y, dx));
        assert!(glu(&[], 5).is_empty());
    }
}
