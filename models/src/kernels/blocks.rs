//! Parts of Transformer blocks whose weights do not change. Where there are rows for all threads, each takes some at a time through
//! all of a part, and what is between two products stays in its caches.

use std::cell::Cell;

use rayon::prelude::*;

use super::activation::Activation;
use super::epilogue::{Epilogue, PostOp};
use super::gemm::Threads;
use super::layer_norm::{LayerNormWeights, layer_norm_rows};
use super::packed_weight::{PackedWeight, rows_per_thread};

/// A linear layer, `x W^T + bias`.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// W.
    pub weight: &'a PackedWeight,
    /// One number for each output.
    pub bias: Option<&'a [f32]>,
}

impl Affine<'_> {
    /// `y = x W^T + bias`, and what comes after it, for rows of x and y.
    ///
    /// # Panics
    /// When lengths do not fit each other.
    pub fn multiply(self, x: &[f32], post_op: PostOp, threads: Threads, y: &mut [f32]) {
        let epilogue = Epilogue { bias: self.bias, post_op };
        self.weight.multiply(x, self.weight.n_in(), epilogue, threads, y);
    }
}

thread_local! {
    /// Rows after a norm, and a feed-forward layer's inner ones, which a thread takes while it works on them.
    static NORMED: Cell<Vec<f32>> = Cell::default();
    static INNER: Cell<Vec<f32>> = Cell::default();
}

/// `x += scale fc2(activation(fc1(norm(x))))` for rows of D numbers.
///
/// # Panics
/// When lengths do not fit each other.
pub fn add_feed_forward(
    x: &mut [f32],
    norm: LayerNormWeights<'_>,
    [fc1, fc2]: [Affine<'_>; 2],
    activation: Activation,
    scale: f32,
) {
    let width = norm.weight.len();
    let scaled_bias: Vec<f32> = match fc2.bias {
        Some(bias) if scale != 1.0 => bias.iter().map(|bias| scale * bias).collect(),
        _ => Vec::new(),
    };
    let bias = if scale == 1.0 { fc2.bias } else { fc2.bias.map(|_| scaled_bias.as_slice()) };
    let fc2 = Affine { bias, ..fc2 };
    let rows = |x: &mut [f32], threads| {
        let mut inner = INNER.take();
        inner.resize(x.len() / width.max(1) * fc1.weight.n_out(), 0.0);
        with_normed(x, norm, |normed| {
            fc1.multiply(normed, PostOp::Activate(activation), threads, &mut inner);
        });
        if scale != 1.0 {
            inner.iter_mut().for_each(|x| *x *= scale);
        }
        fc2.multiply(&inner, PostOp::Add, threads, x);
        INNER.set(inner);
    };
    match rows_per_thread(x.len() / width.max(1)) {
        Some(n) => x.par_chunks_mut(n * width).for_each(|x| rows(x, Threads::One)),
        None => rows(x, Threads::All),
    }
}

/// `norm(x)`, rows of D numbers, through several layers of as many outputs each. What they make lies one after the other in `y`,
/// (layers, rows, outputs).
///
/// # Panics
/// When lengths do not fit each other.
pub fn normed_products(x: &[f32], norm: LayerNormWeights<'_>, layers: &[Affine<'_>], y: &mut [f32]) {
    let width = norm.weight.len();
    let n_rows = x.len() / width.max(1);
    let n_out = layers.first().map_or(0, |layer| layer.weight.n_out());
    assert!(
        y.len() == layers.len() * n_rows * n_out,
        "{n_rows} rows through {} layers into {} values",
        layers.len(),
        y.len()
    );
    if n_rows == 0 || n_out == 0 {
        return;
    }
    if let Some(n) = rows_per_thread(n_rows) {
        // A part of every layer's outputs for each block of rows.
        let mut parts: Vec<Vec<&mut [f32]>> = x.chunks(n * width).map(|_| Vec::new()).collect();
        for y in y.chunks_mut(n_rows * n_out) {
            parts.iter_mut().zip(y.chunks_mut(n * n_out)).for_each(|(parts, y)| parts.push(y));
        }
        parts.into_par_iter().zip(x.par_chunks(n * width)).for_each(|(parts, x)| {
            with_normed(x, norm, |normed| {
                for (layer, y) in layers.iter().zip(parts) {
                    layer.multiply(normed, PostOp::None, Threads::One, y);
                }
            });
        });
    } else {
        with_normed(x, norm, |normed| {
            for (layer, y) in layers.iter().zip(y.chunks_mut(n_rows * n_out)) {
                layer.multiply(normed, PostOp::None, Threads::All, y);
            }
        });
    }
}

/// `y += layer(x)`.
///
/// # Panics
/// When lengths do not fit each other.
pub fn add_product(x: &[f32], layer: Affine<'_>, y: &mut [f32]) {
    layer.multiply(x, PostOp::Add, Threads::All, y);
}

fn with_normed(x: &[f32], norm: LayerNormWeights<'_>, compute: impl FnOnce(&[f32])) {
    let mut normed = NORMED.take();
    normed.resize(x.len(), 0.0);
    layer_norm_rows(x, norm, &mut normed);
    compute(&normed);
    NORMED.set(normed);
}

#[cfg(test)]
mod tests {
    use super::super::{Precision, activate, layer_norm};
    use super::*;

    fn waves(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
    }

    fn product(x: &[f32], layer: Affine<'_>) -> Vec<f32> {
        let mut y = vec![0.0; x.len() / layer.weight.n_in() * layer.weight.n_out()];
        layer.multiply(x, PostOp::None, Threads::All, &mut y);
        y
    }

    #[test]
    fn parts_of_a_block_are_their_layers_one_after_the_other_and_rows_stand_alone() {
        let (width, inner) = (40, 130);
        let (gains, shifts) = (waves(width, 0.1), waves(width, 0.2));
        let norm = LayerNormWeights { weight: &gains, bias: &shifts, eps: 1e-5 };
        let biases = [waves(inner, 0.3), waves(width, 0.4)];
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let pack = |phase, n_out: usize, n_in: usize| {
                PackedWeight::pack(precision, &waves(n_out * n_in, phase), n_out, n_in)
            };
            let weights = [pack(0.5, inner, width), pack(0.6, width, inner), pack(0.7, width, width)];
            let affine = |i: usize, bias| Affine { weight: &weights[i], bias };
            let layers = [affine(0, Some(biases[0].as_slice())), affine(1, Some(biases[1].as_slice()))];
            let squares = [affine(2, None), affine(2, Some(biases[1].as_slice()))];
            for n_rows in [0, 1, 5, 100 * rayon::current_num_threads() + 3] {
                let x = waves(n_rows * width, 0.8);
                let normed = layer_norm(&x, norm);
                let wide = product(&normed, layers[0]);
                let curved = activate(Activation::Gelu, &wide);
                let narrow = product(&curved, layers[1]);
                let mut y = x.clone();
                add_feed_forward(&mut y, norm, layers, Activation::Gelu, 1.0);
                let expected: Vec<f32> = x.iter().zip(&narrow).map(|(x, narrow)| x + narrow).collect();
                assert_eq!(y, expected, "{precision}, {n_rows} rows");
                let narrow = product(&activate(Activation::Silu, &wide), layers[1]);
                let mut half = x.clone();
                add_feed_forward(&mut half, norm, layers, Activation::Silu, 0.5);
                for ((half, x), narrow) in half.iter().zip(&x).zip(&narrow) {
                    assert!((half - x - 0.5 * narrow).abs() < 1e-5, "{precision}: {half} of {x}, {narrow}");
                }
                let mut products = vec![f32::NAN; 2 * x.len()];
                normed_products(&x, norm, &squares, &mut products);
                assert_eq!(products, squares.map(|layer| product(&normed, layer)).concat());
                let mut added = x.clone();
                add_product(&curved, layers[1], &mut added);
                assert_eq!(added, y, "{precision}, {n_rows} rows");
                // The last row alone.
                if let Some(last) = n_rows.checked_sub(1).map(|last| last * width) {
                    let mut alone = x[last..].to_vec();
                    add_feed_forward(&mut alone, norm, layers, Activation::Gelu, 1.0);
                    assert_eq!(alone, y[last..], "{precision}, {n_rows} rows");
                }
            }
        }
    }
}
