//! Depthwise convolution: every channel has a filter of its own, over frames or over frames and bins. Channels lie side by
//! side, so that one instruction takes several of them.

use rayon::prelude::*;

use super::instruction_set::{InstructionSet, vectorised};
use super::memory::filled;
use super::reduce::reduce;

/// Lines of outputs that a block of the weight's gradient is summed over.
const LINES: usize = 16;

/// What a depthwise convolution looks like. Inputs are row-major (B, T, F, C), outputs (B, T', F', C), weights
/// (kernel frames, kernel bins, C). Of two numbers the first is that of frames, the second that of bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthwiseShape {
    /// B.
    pub n_rows: usize,
    /// T and F.
    pub size: [usize; 2],
    /// C.
    pub n_channels: usize,
    /// Positions that an output looks at.
    pub kernel: [usize; 2],
    /// Positions from one output to the next.
    pub stride: [usize; 2],
    /// Positions of zeros before the first and after the last.
    pub padding: [usize; 2],
}

impl DepthwiseShape {
    /// T' and F'; `None` when the kernel is larger than all there is.
    pub fn n_outputs(&self) -> Option<[usize; 2]> {
        let along = |i: usize| {
            let room = (self.size[i] + 2 * self.padding[i]).checked_sub(self.kernel[i])?;
            Some(room.checked_div(self.stride[i])? + 1)
        };
        Some([along(0)?, along(1)?])
    }

    /// T' and F', of slices that fit.
    fn checked(&self, x: usize, weight: usize, y: usize) -> [usize; 2] {
        let outputs = self.n_outputs().unwrap_or_default();
        let [n_frames, n_bins] = self.size;
        assert!(
            outputs[0] * outputs[1] * self.n_channels > 0
                && x == self.n_rows * n_frames * n_bins * self.n_channels
                && weight == self.kernel[0] * self.kernel[1] * self.n_channels
                && y == self.n_rows * outputs[0] * outputs[1] * self.n_channels,
            "depthwise convolution: {x} values in, {weight} weights, {y} values out of {self:?}"
        );
        outputs
    }

    /// Values of a row of the batch, and of a frame.
    fn n_values(&self) -> (usize, usize) {
        let frame = self.size[1] * self.n_channels;
        (self.size[0] * frame, frame)
    }
}

/// The place that output `out` looks at with `tap`.
#[inline(always)]
fn place(shape: &DepthwiseShape, axis: usize, out: usize, tap: usize) -> Option<usize> {
    let place = (out * shape.stride[axis] + tap).checked_sub(shape.padding[axis])?;
    (place < shape.size[axis]).then_some(place)
}

/// The output that looks at `place` with `tap`.
#[inline(always)]
fn output(shape: &DepthwiseShape, axis: usize, place: usize, tap: usize, n_outputs: usize) -> Option<usize> {
    let steps = (place + shape.padding[axis]).checked_sub(tap)?;
    let out = steps / shape.stride[axis];
    (steps.is_multiple_of(shape.stride[axis]) && out < n_outputs).then_some(out)
}

/// Each channel's sum of products with its filter, and its bias.
///
/// # Panics
/// When the slices do not fit the shape.
pub fn depthwise(shape: DepthwiseShape, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let [n_frames, n_bins] = shape.n_outputs().unwrap_or_default();
    let line = n_bins * shape.n_channels;
    shape.checked(x.len(), weight.len(), shape.n_rows * n_frames * line);
    assert!(bias.len() == shape.n_channels, "{} biases for {} channels", bias.len(), shape.n_channels);
    let (set, (n_row, _)) = (InstructionSet::best(), shape.n_values());
    filled(shape.n_rows * n_frames * line, line, |i, y| {
        output_line(set, shape, &x[i / n_frames * n_row..][..n_row], weight, bias, i % n_frames, y);
    })
}

/// The gradient of the input.
///
/// # Panics
/// When the slices do not fit the shape.
pub fn depthwise_input_gradient(shape: DepthwiseShape, weight: &[f32], dy: &[f32]) -> Vec<f32> {
    let (n_row, line) = shape.n_values();
    let outputs = shape.checked(shape.n_rows * n_row, weight.len(), dy.len());
    let n_out = outputs[0] * outputs[1] * shape.n_channels;
    let (set, n_frames) = (InstructionSet::best(), shape.size[0]);
    filled(shape.n_rows * n_row, line, |i, dx| {
        input_line(set, shape, outputs, weight, &dy[i / n_frames * n_out..][..n_out], i % n_frames, dx);
    })
}

/// Adds the gradient of the weight, the same whatever the number of threads. That of the bias is the sum of the columns of
/// `dy`.
///
/// # Panics
/// When the slices do not fit the shape.
pub fn add_depthwise_weight_gradient(shape: DepthwiseShape, x: &[f32], dy: &[f32], d_weight: &mut [f32]) {
    let [n_frames, n_bins] = shape.checked(x.len(), d_weight.len(), dy.len());
    let line = n_bins * shape.n_channels;
    let (set, (n_row, _)) = (InstructionSet::best(), shape.n_values());
    let found = reduce(dy.par_chunks(LINES * line).enumerate(), d_weight.len(), |(block, dy), sums| {
        for (i, dy) in dy.chunks_exact(line).enumerate() {
            let i = block * LINES + i;
            weight_line(set, shape, &x[i / n_frames * n_row..][..n_row], dy, i % n_frames, sums);
        }
    });
    d_weight.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
}

vectorised! {
    /// The outputs of frame `t` of a row.
    fn output_line(
        shape: DepthwiseShape,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        t: usize,
        y: &mut [f32],
    ) {
        let (n, n_bins) = (shape.n_channels, shape.size[1]);
        for (f, y) in y.chunks_exact_mut(n).enumerate() {
            y.copy_from_slice(bias);
            for tap in 0..shape.kernel[0] {
                let Some(frame) = place(&shape, 0, t, tap) else { continue };
                for tap_bin in 0..shape.kernel[1] {
                    let Some(bin) = place(&shape, 1, f, tap_bin) else { continue };
                    let x = &x[(frame * n_bins + bin) * n..][..n];
                    let weight = &weight[(tap * shape.kernel[1] + tap_bin) * n..][..n];
                    for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                        *y += *x * *weight;
                    }
                }
            }
        }
    }

    /// The gradient of the inputs of frame `t` of a row.
    fn input_line(
        shape: DepthwiseShape,
        outputs: [usize; 2],
        weight: &[f32],
        dy: &[f32],
        t: usize,
        dx: &mut [f32],
    ) {
        let n = shape.n_channels;
        for (f, dx) in dx.chunks_exact_mut(n).enumerate() {
            dx.fill(0.0);
            for tap in 0..shape.kernel[0] {
                let Some(frame) = output(&shape, 0, t, tap, outputs[0]) else { continue };
                for tap_bin in 0..shape.kernel[1] {
                    let Some(bin) = output(&shape, 1, f, tap_bin, outputs[1]) else { continue };
                    let dy = &dy[(frame * outputs[1] + bin) * n..][..n];
                    let weight = &weight[(tap * shape.kernel[1] + tap_bin) * n..][..n];
                    for ((dx, dy), weight) in dx.iter_mut().zip(dy).zip(weight) {
                        *dx += *dy * *weight;
                    }
                }
            }
        }
    }

    /// Adds what the outputs of frame `t` of a row say of the weight.
    fn weight_line(shape: DepthwiseShape, x: &[f32], dy: &[f32], t: usize, sums: &mut [f32]) {
        let (n, n_bins) = (shape.n_channels, shape.size[1]);
        for (f, dy) in dy.chunks_exact(n).enumerate() {
            for tap in 0..shape.kernel[0] {
                let Some(frame) = place(&shape, 0, t, tap) else { continue };
                for tap_bin in 0..shape.kernel[1] {
                    let Some(bin) = place(&shape, 1, f, tap_bin) else { continue };
                    let x = &x[(frame * n_bins + bin) * n..][..n];
                    let sums = &mut sums[(tap * shape.kernel[1] + tap_bin) * n..][..n];
                    for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                        *sum += *x * *dy;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::noise;
    use super::*;

    /// Over frames alone, as many outputs as inputs.
    fn over_frames(n_rows: usize, n_frames: usize, n_channels: usize, kernel: usize) -> DepthwiseShape {
        DepthwiseShape {
            n_rows,
            size: [n_frames, 1],
            n_channels,
            kernel: [kernel, 1],
            stride: [1, 1],
            padding: [kernel / 2, 0],
        }
    }

    /// Calls `visit` for each product in the definition: places in x, weight and y.
    fn for_each_product(shape: DepthwiseShape, mut visit: impl FnMut(usize, usize, usize)) {
        let [n_frames, n_bins] = shape.n_outputs().unwrap_or_default();
        let DepthwiseShape { n_rows, size, n_channels, kernel, stride, padding } = shape;
        for (row, t, f) in
            (0..n_rows).flat_map(|row| (0..n_frames).flat_map(move |t| (0..n_bins).map(move |f| (row, t, f))))
        {
            for (tap, tap_bin) in (0..kernel[0]).flat_map(|a| (0..kernel[1]).map(move |b| (a, b))) {
                let at = |out: usize, axis: usize, tap: usize| {
                    let place = (out * stride[axis] + tap) as isize - padding[axis] as isize;
                    usize::try_from(place).ok().filter(|place| *place < size[axis])
                };
                let (Some(frame), Some(bin)) = (at(t, 0, tap), at(f, 1, tap_bin)) else { continue };
                for c in 0..n_channels {
                    visit(
                        ((row * size[0] + frame) * size[1] + bin) * n_channels + c,
                        (tap * kernel[1] + tap_bin) * n_channels + c,
                        ((row * n_frames + t) * n_bins + f) * n_channels + c,
                    );
                }
            }
        }
    }

    #[track_caller]
    fn assert_close(ours: &[f32], expected: &[f64]) {
        assert_eq!(ours.len(), expected.len());
        for (ours, expected) in ours.iter().zip(expected) {
            assert!((f64::from(*ours) - expected).abs() < 1e-4, "{ours}, not {expected}");
        }
    }

    #[test]
    fn outputs_and_gradients_are_the_definition() {
        let strided = |n_rows, size, n_channels| DepthwiseShape {
            n_rows,
            size,
            n_channels,
            kernel: [3, 3],
            stride: [2, 2],
            padding: [1, 1],
        };
        for shape in [
            over_frames(1, 1, 1, 9),
            over_frames(2, 40, 19, 9),
            over_frames(3, 4, 33, 5),
            strided(2, [11, 8], 3),
            strided(1, [1, 1], 17),
            strided(2, [50, 5], 4),
            DepthwiseShape { kernel: [2, 3], stride: [3, 1], padding: [0, 2], ..strided(2, [10, 4], 5) },
        ] {
            let [n_frames, n_bins] = shape.n_outputs().unwrap_or_default();
            let n_channels = shape.n_channels;
            let x = noise(shape.n_rows * shape.size[0] * shape.size[1] * n_channels, 1);
            let weight = noise(shape.kernel[0] * shape.kernel[1] * n_channels, 2);
            let (bias, dy) = (noise(n_channels, 3), noise(shape.n_rows * n_frames * n_bins * n_channels, 4));
            let number = |x: f32| f64::from(x);
            let mut y: Vec<f64> = (0..dy.len()).map(|i| number(bias[i % n_channels])).collect();
            let (mut dx, mut d_weight) = (vec![0f64; x.len()], vec![1f64; weight.len()]);
            for_each_product(shape, |i, j, k| {
                y[k] += number(x[i]) * number(weight[j]);
                dx[i] += number(dy[k]) * number(weight[j]);
                d_weight[j] += number(dy[k]) * number(x[i]);
            });
            assert_close(&depthwise(shape, &x, &weight, &bias), &y);
            assert_close(&depthwise_input_gradient(shape, &weight, &dy), &dx);
            let mut ours = vec![1.0; weight.len()];
            add_depthwise_weight_gradient(shape, &x, &dy, &mut ours);
            assert_close(&ours, &d_weight);
        }
        let short = DepthwiseShape { padding: [0, 0], ..strided(1, [2, 9], 4) };
        assert_eq!(short.n_outputs(), None);
        assert_eq!(DepthwiseShape { stride: [0, 1], size: [9, 9], ..short }.n_outputs(), None);
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let shape = over_frames(1, 12, 37, 9);
        let (x, weight, bias) = (noise(12 * 37, 1), noise(9 * 37, 2), noise(37, 3));
        let mut first: Option<[Vec<f32>; 3]> = None;
        for set in InstructionSet::available() {
            let [mut y, mut dx, mut sums] = [vec![0.0; 37], vec![0.0; 37], vec![0.0; 9 * 37]];
            output_line(set, shape, &x, &weight, &bias, 3, &mut y);
            input_line(set, shape, [12, 1], &weight, &x, 3, &mut dx);
            weight_line(set, shape, &x, &bias, 3, &mut sums);
            let all = [y, dx, sums];
            assert_eq!(first.get_or_insert_with(|| all.clone()), &all, "{set:?}");
        }
    }
}
