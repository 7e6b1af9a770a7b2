//! Convolution over frames, as products of matrices. Frames follow each other in memory, channels side by side, so that the
//! window of an output is a row that overlaps the next one's: no window is ever copied.

use super::epilogue::Epilogue;
use super::gemm::{Matrix, Threads, multiply, multiply_add};
use super::packed_weight::PackedWeight;

/// What a convolution looks like. Inputs are row-major (B, T, in), outputs (B, T', out), weights (out, kernel, in).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionShape {
    /// B.
    pub n_rows: usize,
    /// T.
    pub n_frames: usize,
    /// Channels of a frame.
    pub n_in: usize,
    /// Channels of an output.
    pub n_out: usize,
    /// Frames that an output looks at.
    pub kernel: usize,
    /// Frames from one output's first to the next one's.
    pub stride: usize,
    /// Frames of zeros before the first and after the last.
    pub padding: usize,
}

impl ConvolutionShape {
    /// T'; `None` when a window is longer than all frames.
    pub fn n_outputs(&self) -> Option<usize> {
        let room = (self.n_frames + 2 * self.padding).checked_sub(self.kernel)?;
        Some(room.checked_div(self.stride)? + 1)
    }

    fn checked(&self, x: usize, weight: usize, y: usize) -> usize {
        let n_outputs = self.n_outputs().unwrap_or(0);
        assert!(
            n_outputs > 0
                && x == self.n_rows * self.n_frames * self.n_in
                && weight == self.n_out * self.kernel * self.n_in
                && y == self.n_rows * n_outputs * self.n_out,
            "convolution: {x} values in, {weight} weights, {y} values out of {self:?}"
        );
        n_outputs
    }

    /// Values of a window.
    fn window(&self) -> usize {
        self.kernel * self.n_in
    }

    /// From one window to the next.
    fn step(&self) -> usize {
        self.stride * self.n_in
    }

    /// Calls `visit` for each row of the batch, with the frames that windows see, zeros at both ends.
    fn for_each_row(&self, x: &[f32], mut visit: impl FnMut(usize, &[f32])) {
        let size = self.n_frames * self.n_in;
        let edge = self.padding * self.n_in;
        let mut padded = vec![0f32; if edge > 0 { size + 2 * edge } else { 0 }];
        let seen = ..(self.n_outputs().unwrap_or(1) - 1) * self.step() + self.window();
        for row in 0..self.n_rows {
            let x = &x[row * size..][..size];
            if edge == 0 {
                visit(row, &x[seen]);
            } else {
                padded[edge..][..size].copy_from_slice(x);
                visit(row, &padded[seen]);
            }
        }
    }
}

/// `y[t] = weight . x[t * stride - padding ..] + bias`.
///
/// # Panics
/// When the slices do not fit the shape.
pub fn convolution(shape: ConvolutionShape, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let n_outputs = shape.checked(x.len(), weight.len(), y.len());
    let (window, size) = (shape.window(), n_outputs * shape.n_out);
    shape.for_each_row(x, |row, frames| {
        let windows = Matrix::with_step(frames, n_outputs, window, shape.step());
        let weight = Matrix::new(weight, shape.n_out, window).t();
        multiply(windows, weight, Some(bias), &mut y[row * size..][..size]);
    });
}

/// The same with a packed weight, (out, kernel * in), and what comes after it: in f32 to the bit.
///
/// # Panics
/// When the slices do not fit the shape.
pub fn convolution_packed(
    shape: ConvolutionShape,
    x: &[f32],
    weight: &PackedWeight,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let n_outputs = shape.checked(x.len(), weight.n_out() * weight.n_in(), y.len());
    let size = n_outputs * shape.n_out;
    shape.for_each_row(x, |row, frames| {
        weight.multiply(frames, shape.step(), epilogue, Threads::All, &mut y[row * size..][..size]);
    });
}

/// The gradient of the input.
///
/// # Panics
/// When the slices do not fit the shape.
pub fn convolution_input_gradient(shape: ConvolutionShape, weight: &[f32], dy: &[f32], dx: &mut [f32]) {
    let n_outputs = shape.checked(dx.len(), weight.len(), dy.len());
    let ConvolutionShape { n_frames, n_in, n_out, kernel, padding, .. } = shape;
    let size = n_outputs * n_out;
    let mut padded = vec![0f32; (n_frames + 2 * padding) * n_in];
    for row in 0..shape.n_rows {
        padded.fill(0.0);
        let dy = Matrix::new(&dy[row * size..][..size], n_outputs, n_out);
        for tap in 0..kernel {
            // What windows have at this place lies as far apart as they do.
            let weight = Matrix::with_step(&weight[tap * n_in..], n_out, n_in, shape.window());
            multiply_add(dy, weight, None, &mut padded[tap * n_in..], shape.step());
        }
        let dx = &mut dx[row * n_frames * n_in..][..n_frames * n_in];
        dx.copy_from_slice(&padded[padding * n_in..][..n_frames * n_in]);
    }
}

/// Adds the gradient of the weight; rows of the batch are added in their order. That of the bias is the sum of the columns of
/// `dy`.
///
/// # Panics
/// When the slices do not fit the shape.
pub fn add_convolution_weight_gradient(shape: ConvolutionShape, x: &[f32], dy: &[f32], d_weight: &mut [f32]) {
    let n_outputs = shape.checked(x.len(), d_weight.len(), dy.len());
    let (window, size) = (shape.window(), n_outputs * shape.n_out);
    shape.for_each_row(x, |row, frames| {
        let windows = Matrix::with_step(frames, n_outputs, window, shape.step());
        let dy = Matrix::new(&dy[row * size..][..size], n_outputs, shape.n_out);
        multiply_add(dy.t(), windows, None, d_weight, window);
    });
}

#[cfg(test)]
mod tests {
    use super::super::Precision;
    use super::*;

    fn waves(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
    }

    /// Calls `visit` for each product in the definition: places in x, weight and y.
    fn for_each_product(shape: ConvolutionShape, mut visit: impl FnMut(usize, usize, usize)) {
        let n_outputs = shape.n_outputs().unwrap_or(0);
        for row in 0..shape.n_rows {
            for t in 0..n_outputs {
                for out in 0..shape.n_out {
                    for tap in 0..shape.kernel {
                        let Some(frame) = (t * shape.stride + tap).checked_sub(shape.padding) else {
                            continue;
                        };
                        for channel in (0..shape.n_in).filter(|_| frame < shape.n_frames) {
                            visit(
                                (row * shape.n_frames + frame) * shape.n_in + channel,
                                (out * shape.kernel + tap) * shape.n_in + channel,
                                (row * n_outputs + t) * shape.n_out + out,
                            );
                        }
                    }
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
        for (n_rows, n_frames, n_in, n_out, kernel, stride, padding) in [
            (1, 1, 1, 1, 1, 1, 0),
            (2, 11, 3, 5, 3, 1, 1),
            (3, 12, 4, 2, 3, 2, 1),
            (2, 13, 4, 33, 5, 3, 0),
            (2, 2, 3, 2, 5, 2, 2),
        ] {
            let shape = ConvolutionShape { n_rows, n_frames, n_in, n_out, kernel, stride, padding };
            let n_outputs = shape.n_outputs().unwrap_or(0);
            let (x, weight) = (waves(n_rows * n_frames * n_in, 0.1), waves(n_out * kernel * n_in, 0.2));
            let (bias, dy) = (waves(n_out, 0.3), waves(n_rows * n_outputs * n_out, 0.4));
            let number = |x: f32| f64::from(x);
            let mut y: Vec<f64> = (0..dy.len()).map(|i| number(bias[i % n_out])).collect();
            let (mut dx, mut d_weight) = (vec![0f64; x.len()], vec![0f64; weight.len()]);
            for_each_product(shape, |i, j, k| {
                y[k] += number(x[i]) * number(weight[j]);
                dx[i] += number(dy[k]) * number(weight[j]);
                d_weight[j] += number(dy[k]) * number(x[i]);
            });
            let mut ours = vec![f32::NAN; y.len()];
            convolution(shape, &x, &weight, &bias, &mut ours);
            assert_close(&ours, &y);
            let mut packed = vec![f32::NAN; y.len()];
            let packed_weight = PackedWeight::pack(Precision::F32, &weight, n_out, kernel * n_in);
            convolution_packed(shape, &x, &packed_weight, Epilogue::bias(Some(&bias)), &mut packed);
            assert_eq!(packed, ours);
            let mut ours = vec![f32::NAN; x.len()];
            convolution_input_gradient(shape, &weight, &dy, &mut ours);
            assert_close(&ours, &dx);
            let mut ours = vec![1.0; weight.len()];
            d_weight.iter_mut().for_each(|d| *d += 1.0);
            add_convolution_weight_gradient(shape, &x, &dy, &mut ours);
            assert_close(&ours, &d_weight);
        }
        let short =
            ConvolutionShape { n_rows: 1, n_frames: 2, n_in: 1, n_out: 1, kernel: 3, stride: 1, padding: 0 };
        assert_eq!(short.n_outputs(), None);
        assert_eq!(ConvolutionShape { stride: 0, padding: 1, ..short }.n_outputs(), None);
    }
}
