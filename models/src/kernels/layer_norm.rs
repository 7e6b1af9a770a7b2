//! Layer normalisation of rows (Ba et al., arXiv 1607.06450), and its gradients.

use rayon::prelude::*;

use super::functions::{sum, sum2};
use super::instruction_set::{InstructionSet, vectorised};
use super::memory::{filled, zeroed};
use super::reduce::{ROWS, reduce};

/// What rows are normalised with.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormWeights<'a> {
    /// Gains, D numbers.
    pub weight: &'a [f32],
    /// What is added, D numbers.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` for each row of D numbers.
///
/// # Panics
/// When the slices' lengths do not fit each other.
pub fn layer_norm(x: &[f32], weights: LayerNormWeights<'_>) -> Vec<f32> {
    let (set, step) = (InstructionSet::best(), ROWS * weights.width(x).max(1));
    filled(x.len(), step, |i, y| values(set, &x[i * step..][..y.len()], weights, y))
}

/// [`layer_norm`] on this thread alone.
pub(super) fn layer_norm_rows(x: &[f32], weights: LayerNormWeights<'_>, y: &mut [f32]) {
    weights.width(x);
    assert!(x.len() == y.len(), "layer norm: {} values in, {} out", x.len(), y.len());
    values(InstructionSet::best(), x, weights, y);
}

/// Gradients of a layer norm, from its input and the gradient of its output.
pub struct LayerNormGradients {
    /// Of the input, one for each number.
    pub x: Vec<f32>,
    /// Of the gains, D numbers.
    pub weight: Vec<f32>,
    /// Of what is added, D numbers.
    pub bias: Vec<f32>,
}

/// Mean and variance are computed again: that costs less than keeping what they were computed from.
///
/// # Panics
/// When the slices' lengths do not fit each other.
pub fn layer_norm_backward(x: &[f32], weights: LayerNormWeights<'_>, dy: &[f32]) -> LayerNormGradients {
    let width = weights.width(x);
    assert!(x.len() == dy.len(), "layer norm: {} values, {} gradients", x.len(), dy.len());
    let (set, step) = (InstructionSet::best(), ROWS * width.max(1));
    let mut dx = Vec::with_capacity(x.len());
    let room = dx.spare_capacity_mut()[..x.len()].par_chunks_mut(step);
    let mut sums =
        reduce(room.zip(x.par_chunks(step)).zip(dy.par_chunks(step)), 2 * width, |((dx, x), dy), sums| {
            gradients(set, x, weights, dy, zeroed(dx), sums);
        });
    // SAFETY: every block has been written.
    unsafe { dx.set_len(x.len()) };
    let bias = sums.split_off(width);
    LayerNormGradients { x: dx, weight: sums, bias }
}

impl LayerNormWeights<'_> {
    /// D.
    fn width(&self, x: &[f32]) -> usize {
        let width = self.weight.len();
        assert!(
            self.bias.len() == width && (width > 0 || x.is_empty()) && x.len().is_multiple_of(width.max(1)),
            "layer norm: {} values for {width} gains and {} biases",
            x.len(),
            self.bias.len()
        );
        width
    }
}

/// Mean, and the reciprocal of the standard deviation.
#[inline(always)]
fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum(row, |x| x) / n;
    let variance = sum(row, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

vectorised! {
    fn values(x: &[f32], weights: LayerNormWeights<'_>, y: &mut [f32]) {
        let LayerNormWeights { weight, bias, eps } = weights;
        for (y, x) in y.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len())) {
            let (mean, scale) = moments(x, eps);
            for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = (*x - mean) * scale * *weight + *bias;
            }
        }
    }

    /// Adds the gradients of gains and biases to the two halves of `sums`.
    fn gradients(x: &[f32], weights: LayerNormWeights<'_>, dy: &[f32], dx: &mut [f32], sums: &mut [f32]) {
        let LayerNormWeights { weight, eps, .. } = weights;
        let width = weight.len();
        let (d_weight, d_bias) = sums.split_at_mut(width);
        let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width));
        for ((dx, x), dy) in rows {
            let (mean, scale) = moments(x, eps);
            for ((((dx, dy), weight), d_weight), (d_bias, x)) in
                dx.iter_mut().zip(dy).zip(weight).zip(&mut *d_weight).zip(d_bias.iter_mut().zip(x))
            {
                *d_weight += *dy * ((*x - mean) * scale);
                *d_bias += *dy;
                *dx = *dy * *weight;
            }
            // Along the mean and along the row itself, the output does not change.
            let mean_gradient = sum(dx, |d| d) / width as f32;
            let slope = sum2(dx, x, |d, x| d * ((x - mean) * scale)) / width as f32;
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = scale * (*dx - mean_gradient - (*x - mean) * scale * slope);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_bits_and_rows_stand_alone() {
        for (n_rows, width) in [(1, 1), (5, 17), (70, 384)] {
            let waves = |n: usize, phase: f32| -> Vec<f32> {
                (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
            };
            let (x, dy) = (waves(n_rows * width, 0.1), waves(n_rows * width, 0.2));
            let (weight, bias) = (waves(width, 0.3), waves(width, 0.4));
            let weights = LayerNormWeights { weight: &weight, bias: &bias, eps: 1e-5 };
            let together = layer_norm(&x, weights);
            let mut first: Option<[Vec<f32>; 3]> = None;
            for set in InstructionSet::available() {
                let mut y = vec![0.0; x.len()];
                for (y, x) in y.chunks_mut(width).zip(x.chunks(width)) {
                    values(set, x, weights, y);
                }
                assert_eq!(y, together, "{set:?}");
                let (mut dx, mut sums) = (vec![0.0; x.len()], vec![0.0; 2 * width]);
                gradients(set, &x, weights, &dy, &mut dx, &mut sums);
                let results = [y, dx, sums];
                assert_eq!(first.get_or_insert_with(|| results.clone()), &results, "{set:?}");
            }
        }
    }
}
