//! Batch normalisation over the frames that exist (Ioffe and Szegedy, arXiv 1502.03167): padding has no part in a batch's
//! statistics and comes out as zeros.

use std::ops::Range;

use rayon::prelude::*;

use super::instruction_set::{InstructionSet, vectorised};
use super::memory::filled;
use super::reduce::{ROWS, add_rows, reduce};

/// Frames of a batch (B, T, D), of which each row has some and padding after them.
#[derive(Debug, Clone, Copy)]
pub struct Frames<'a> {
    /// Frames that each row has.
    pub lengths: &'a [usize],
    /// T.
    pub n_frames: usize,
    /// D.
    pub width: usize,
}

/// What a batch is normalised by, channel by channel.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchStatistics {
    /// Frames that they are taken over.
    pub n_frames: usize,
    /// D means.
    pub mean: Vec<f32>,
    /// D variances, sums of squares over the number of frames.
    pub variance: Vec<f32>,
}

/// Gain and shift of each channel, and what is added to its variance.
#[derive(Debug, Clone, Copy)]
pub struct BatchNormWeights<'a> {
    /// D gains.
    pub weight: &'a [f32],
    /// D shifts.
    pub bias: &'a [f32],
    /// Added to variances.
    pub eps: f32,
}

/// Gradients of [`batch_norm`].
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNormGradients {
    /// Of the input, zero at padding.
    pub x: Vec<f32>,
    /// Of the gains.
    pub weight: Vec<f32>,
    /// Of the shifts.
    pub bias: Vec<f32>,
}

impl Frames<'_> {
    fn check(&self, n_values: usize) {
        assert!(
            n_values == self.lengths.len() * self.n_frames * self.width
                && self.lengths.iter().all(|n| *n <= self.n_frames),
            "batch norm: {n_values} values for {self:?}"
        );
    }

    /// All frames that exist.
    fn total(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Values of the frames that exist, some frames at a time.
    fn blocks(&self) -> Vec<Range<usize>> {
        let row = |(row, n): (usize, &usize)| {
            let (first, n) = (row * self.n_frames, *n);
            (0..n).step_by(ROWS).map(move |at| first + at..first + n.min(at + ROWS))
        };
        let values = |frames: Range<usize>| frames.start * self.width..frames.end * self.width;
        self.lengths.iter().enumerate().flat_map(row).map(values).collect()
    }

    /// Numbers for every frame: `fill` writes those of a frame that exists, whose values are `range`; others stay zero.
    fn filled(&self, fill: impl Fn(Range<usize>, &mut [f32]) + Sync + Send) -> Vec<f32> {
        let n = self.lengths.len() * self.n_frames * self.width;
        filled(n, self.width, |frame, out| {
            if self.lengths.get(frame / self.n_frames.max(1)).is_some_and(|n| frame % self.n_frames < *n) {
                fill(frame * self.width..(frame + 1) * self.width, out);
            }
        })
    }
}

impl BatchStatistics {
    /// Of the frames of `x` that exist.
    ///
    /// # Panics
    /// When `x` does not fit `frames`.
    pub fn of(x: &[f32], frames: Frames<'_>) -> Self {
        frames.check(x.len());
        let (set, n) = (InstructionSet::best(), frames.total());
        let blocks = frames.blocks();
        let scale = 1.0 / n.max(1) as f32;
        let scaled = |sums: Vec<f32>| sums.into_iter().map(|sum| scale * sum).collect::<Vec<_>>();
        let sum = |block: &Range<usize>, sums: &mut [f32]| add_rows(set, &x[block.clone()], sums);
        let mean = scaled(reduce(blocks.par_iter(), frames.width, sum));
        let square =
            |block: &Range<usize>, sums: &mut [f32]| add_squares(set, &x[block.clone()], &mean, sums);
        let variance = scaled(reduce(blocks.par_iter(), frames.width, square));
        Self { n_frames: n, mean, variance }
    }

    fn inverse_deviation(&self, eps: f32) -> Vec<f32> {
        self.variance.iter().map(|variance| 1.0 / (variance + eps).sqrt()).collect()
    }
}

/// Each frame that exists, normalised by the statistics of all of them.
///
/// # Panics
/// When slices do not fit `frames`.
pub fn batch_norm(
    x: &[f32],
    frames: Frames<'_>,
    statistics: &BatchStatistics,
    weights: BatchNormWeights<'_>,
) -> Vec<f32> {
    frames.check(x.len());
    let set = InstructionSet::best();
    // y = gain x + shift.
    let mut gain = statistics.inverse_deviation(weights.eps);
    gain.iter_mut().zip(weights.weight).for_each(|(gain, weight)| *gain *= *weight);
    let shift: Vec<f32> = (weights.bias.iter().zip(&statistics.mean).zip(&gain))
        .map(|((bias, mean), gain)| bias - mean * gain)
        .collect();
    frames.filled(|range, y| scale_and_shift(set, &x[range], &gain, &shift, y))
}

/// The gradients of [`batch_norm`], through its statistics, too.
///
/// # Panics
/// When slices do not fit `frames`.
pub fn batch_norm_backward(
    x: &[f32],
    frames: Frames<'_>,
    statistics: &BatchStatistics,
    weights: BatchNormWeights<'_>,
    dy: &[f32],
) -> BatchNormGradients {
    frames.check(x.len());
    frames.check(dy.len());
    let set = InstructionSet::best();
    let (n, width, blocks) = (frames.total().max(1) as f32, frames.width, frames.blocks());
    let mean = &statistics.mean;
    let bias = reduce(blocks.par_iter(), width, |block, sums| add_rows(set, &dy[block.clone()], sums));
    let centred = reduce(blocks.par_iter(), width, |block, sums| {
        add_products(set, &x[block.clone()], mean, &dy[block.clone()], sums);
    });
    let inverse = statistics.inverse_deviation(weights.eps);
    let weight: Vec<f32> = centred.iter().zip(&inverse).map(|(sum, inverse)| sum * inverse).collect();
    // dx = of_dy dy + of_x x + shift.
    let of_dy: Vec<f32> = weights.weight.iter().zip(&inverse).map(|(gain, inverse)| gain * inverse).collect();
    let of_x: Vec<f32> = (0..width).map(|c| -of_dy[c] * inverse[c] * weight[c] / n).collect();
    let shift: Vec<f32> = (0..width).map(|c| -of_dy[c] * bias[c] / n - of_x[c] * mean[c]).collect();
    let x = frames.filled(|range, dx| {
        scale_and_shift(set, &dy[range.clone()], &of_dy, &shift, dx);
        multiply_add(set, &x[range], &of_x, dx);
    });
    BatchNormGradients { x, weight, bias }
}

vectorised! {
    fn add_squares(x: &[f32], mean: &[f32], sums: &mut [f32]) {
        for row in x.chunks_exact(sums.len().max(1)) {
            for ((sum, x), mean) in sums.iter_mut().zip(row).zip(mean) {
                let centred = *x - *mean;
                *sum += centred * centred;
            }
        }
    }

    fn add_products(x: &[f32], mean: &[f32], dy: &[f32], sums: &mut [f32]) {
        let width = sums.len().max(1);
        for (row, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
            for (((sum, x), mean), dy) in sums.iter_mut().zip(row).zip(mean).zip(dy) {
                *sum += (*x - *mean) * *dy;
            }
        }
    }

    fn scale_and_shift(x: &[f32], gain: &[f32], shift: &[f32], y: &mut [f32]) {
        for (((y, x), gain), shift) in y.iter_mut().zip(x).zip(gain).zip(shift) {
            *y = *x * *gain + *shift;
        }
    }

    fn multiply_add(x: &[f32], gain: &[f32], y: &mut [f32]) {
        for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
            *y += *x * *gain;
        }
    }
}
