//! Convolutions before the blocks: each halves the number of frames and of bins. The first makes channels of them, the others are
//! depthwise, each with a mix of its channels after it.

use candle_core::Tensor;

use super::FastConformerConfig;
use crate::Error;
use crate::kernels::Activation;
use crate::nn::{DepthwiseConv, Linear, activated, within};
use crate::params::Scope;

/// Features to the width of the blocks, with one position for several frames.
pub(super) struct Subsampling {
    /// Over windows of three frames and three bins.
    first: Linear,
    stages: Vec<Stage>,
    linear: Linear,
    n_channels: usize,
}

struct Stage {
    depthwise: DepthwiseConv,
    pointwise: Linear,
}

const KERNEL: usize = 3;

impl Subsampling {
    /// Loads `layers.0`, then pairs of layers with an activation after each, and `linear`.
    pub fn load(scope: &Scope<'_>, config: &FastConformerConfig) -> Result<Self, Error> {
        let n = config.subsampling_conv_channels;
        let layer = |i: usize| scope.sub("layers").sub(i);
        let first = layer(0);
        // What windows overlap in is not rounded to bytes, each window's with a scale of its own.
        let precision = first.precision().for_activations();
        let stages = (1..config.n_stages())
            .map(|stage| {
                // The first layer and its activation, then three for each stage.
                let place = 3 * stage - 1;
                Ok(Stage {
                    depthwise: DepthwiseConv::load_square(&layer(place), n, KERNEL, 2, 1)?,
                    pointwise: Linear::load_pointwise(&layer(place + 1), n, n, 2, true)?,
                })
            })
            .collect::<Result<_, Error>>()?;
        let n_in = n * config.n_subsampled_bins();
        Ok(Self {
            first: Linear::load_shaped(&first, &[n, 1, KERNEL, KERNEL], true, precision, 2.0)?,
            stages,
            linear: Linear::load(&scope.sub("linear"), n_in, config.hidden_size, true)?,
            n_channels: n,
        })
    }

    /// Features (B, F, T), of which each row has `n_frames` if they are given, to (B, T', D).
    pub fn forward(&self, mel: &Tensor, n_frames: Option<&[usize]>) -> candle_core::Result<Tensor> {
        let mut lengths = n_frames.map(<[usize]>::to_vec);
        let mut x = activated(&self.first, &windows(mel)?, Activation::Relu)?; // (B, T, F, C)
        for stage in &self.stages {
            if let Some(lengths) = &mut lengths {
                lengths.iter_mut().for_each(|n| *n = n.div_ceil(2));
                // The next convolution looks one frame ahead, where a recording alone has zeros.
                x = x.broadcast_mul(&within(lengths, x.dim(1)?, x.device())?.unsqueeze(3)?)?;
            }
            x = activated(&stage.pointwise, &stage.depthwise.forward(&x)?, Activation::Relu)?;
        }
        let (b, t, f, _) = x.dims4()?;
        // Checkpoints have the bins of a channel side by side.
        let x = x.transpose(2, 3)?.contiguous()?.reshape((b, t, self.n_channels * f))?;
        self.linear.forward(&x)
    }
}

/// Every other window of three frames and three bins of features (B, F, T), zeros around them: (B, T', F', 9).
fn windows(mel: &Tensor) -> candle_core::Result<Tensor> {
    let (_, n_bins, n_frames) = mel.dims3()?;
    if n_frames == 0 {
        candle_core::bail!("subsampling: features without frames")
    }
    let padded = mel.transpose(1, 2)?.pad_with_zeros(1, 1, 1)?.pad_with_zeros(2, 1, 1)?.contiguous()?; // (B, T + 2, F + 2)
    let seen = |x: &Tensor, axis: usize, n: usize, tap: usize| {
        let places: Vec<u32> = (0..n.div_ceil(2)).map(|i| (tap + 2 * i) as u32).collect();
        let n_places = places.len();
        x.index_select(&Tensor::from_vec(places, n_places, x.device())?, axis)
    };
    let mut taps = Vec::with_capacity(KERNEL * KERNEL);
    for tap in 0..KERNEL {
        let frames = seen(&padded, 1, n_frames, tap)?;
        for tap_bin in 0..KERNEL {
            taps.push(seen(&frames, 2, n_bins, tap_bin)?);
        }
    }
    Tensor::stack(&taps, 3)
}
