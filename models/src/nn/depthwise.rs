//! Depthwise convolution: every channel has a filter of its own.
//!
//! candle runs a convolution of as many groups as channels as so many convolutions, one after the other.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};

use super::backward::gradient_of;
use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::Error;
use crate::kernels::{
    self, DepthwiseShape, add_column_sums, add_depthwise_weight_gradient, depthwise_input_gradient,
};
use crate::params::{Init, Scope};

/// A depthwise convolution over frames, or over frames and bins. Channels come last, (B, T, C) and (B, T, F, C), as everywhere
/// but in torch.
pub struct DepthwiseConv {
    /// As in checkpoints, (C, 1, kernel ..).
    weight: Tensor,
    bias: Tensor,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
}

impl DepthwiseConv {
    /// Loads `weight` and, if there is one, `bias` of a convolution over frames that gives as many as it takes: `kernel` is odd.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load_over_frames(
        scope: &Scope<'_>,
        n_channels: usize,
        kernel: usize,
        has_bias: bool,
    ) -> Result<Self, Error> {
        let weight = Self::weight(scope, &[n_channels, 1, kernel])?;
        let bias = Self::bias(scope, n_channels, has_bias)?;
        Ok(Self { weight, bias, kernel: [kernel, 1], stride: [1, 1], padding: [kernel / 2, 0] })
    }

    /// Loads `weight` and `bias` of a convolution over frames that gives `kernel - 1` fewer than it takes: whoever puts frames before
    /// the first decides what came before it.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load_after_context(scope: &Scope<'_>, n_channels: usize, kernel: usize) -> Result<Self, Error> {
        let weight = Self::weight(scope, &[n_channels, 1, kernel])?;
        let bias = Self::bias(scope, n_channels, true)?;
        Ok(Self { weight, bias, kernel: [kernel, 1], stride: [1, 1], padding: [0, 0] })
    }

    /// Loads `weight` and `bias` of a square convolution over frames and bins, `padding` zeros around them.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load_square(
        scope: &Scope<'_>,
        n_channels: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self, Error> {
        let weight = Self::weight(scope, &[n_channels, 1, kernel, kernel])?;
        let bias = Self::bias(scope, n_channels, true)?;
        Ok(Self { weight, bias, kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] })
    }

    fn weight(scope: &Scope<'_>, shape: &[usize]) -> Result<Tensor, Error> {
        scope.get("weight", shape, Init::Scaled { n_inputs: shape.iter().skip(1).product(), gain: 1.0 })
    }

    fn bias(scope: &Scope<'_>, n_channels: usize, has_bias: bool) -> Result<Tensor, Error> {
        Ok(match has_bias {
            true => scope.get("bias", &[n_channels], Init::Zeros)?,
            false => Tensor::zeros(n_channels, candle_core::DType::F32, scope.device())?,
        })
    }

    /// Each channel through its filter: (B, T, C) to (B, T', C), or (B, T, F, C) to (B, T', F', C). Differentiable.
    ///
    /// # Errors
    /// Another number of channels, fewer positions than the kernel takes.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.run(x, &self.taps()?, &self.bias)
    }

    /// What comes out, times `gain` and plus `shift` of its channel, each (C), such as a norm's: at no cost. Differentiable.
    ///
    /// # Errors
    /// As [`DepthwiseConv::forward`].
    pub fn forward_scaled(&self, x: &Tensor, gain: &Tensor, shift: &Tensor) -> candle_core::Result<Tensor> {
        let taps = self.taps()?.broadcast_mul(gain)?;
        self.run(x, &taps, &((&self.bias * gain)? + shift)?)
    }

    /// (kernel positions, C).
    fn taps(&self) -> candle_core::Result<Tensor> {
        self.weight.flatten_from(1)?.t()?.contiguous()
    }

    fn run(&self, x: &Tensor, taps: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
        let is_flat = x.rank() == 3;
        let x = if is_flat { x.unsqueeze(2)? } else { x.clone() };
        let (n_rows, n_frames, n_bins, n_channels) = x.dims4()?;
        let Self { kernel, stride, padding, .. } = *self;
        let shape = DepthwiseShape { n_rows, size: [n_frames, n_bins], n_channels, kernel, stride, padding };
        let outputs = shape.n_outputs().filter(|_| bias.dims() == [n_channels]);
        let Some(outputs) = outputs else {
            candle_core::bail!(
                "a depthwise convolution of {kernel:?} and {:?} cannot run over {x:?}",
                bias.dims()
            )
        };
        let y = if on_cpu(&[&x, taps, bias]) {
            x.contiguous()?.apply_op3(&taps.contiguous()?, &bias.contiguous()?, Depthwise { shape })?
        } else {
            composed(&x, taps, bias, shape, outputs)?
        };
        if is_flat { y.squeeze(2) } else { Ok(y) }
    }
}

/// With plain tensor operations: the path on other devices, and the kernel's oracle.
fn composed(
    x: &Tensor,
    taps: &Tensor,
    bias: &Tensor,
    shape: DepthwiseShape,
    outputs: [usize; 2],
) -> candle_core::Result<Tensor> {
    let DepthwiseShape { kernel, stride, padding, .. } = shape;
    let padded = x.pad_with_zeros(1, padding[0], padding[0])?.pad_with_zeros(2, padding[1], padding[1])?;
    let seen = |x: &Tensor, axis: usize, tap: usize| {
        let places: Vec<u32> = (0..outputs[axis]).map(|i| (tap + i * stride[axis]) as u32).collect();
        x.index_select(&Tensor::from_vec(places, outputs[axis], x.device())?, axis + 1)
    };
    let mut y = None;
    for tap in 0..kernel[0] {
        let frames = seen(&padded, 0, tap)?;
        for tap_bin in 0..kernel[1] {
            let products = seen(&frames, 1, tap_bin)?.broadcast_mul(&taps.get(tap * kernel[1] + tap_bin)?)?;
            y = Some(match y {
                Some(y) => (y + products)?,
                None => products.broadcast_add(bias)?,
            });
        }
    }
    y.map_or_else(|| candle_core::bail!("a convolution without a kernel"), Ok)
}

/// With taps (kernel, C) that may be trained.
struct Depthwise {
    shape: DepthwiseShape,
}

impl CustomOp3 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        taps: &CpuStorage,
        taps_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let DepthwiseShape { n_rows, n_channels, .. } = self.shape;
        let [n_frames, n_bins] = self.shape.n_outputs().unwrap_or_default();
        let (taps, bias) = (floats(taps, taps_layout)?, floats(bias, bias_layout)?);
        let y = kernels::depthwise(self.shape, floats(x, x_layout)?, taps, bias);
        Ok((CpuStorage::F32(y), Shape::from((n_rows, n_frames, n_bins, n_channels))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        taps: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        with_floats([x, taps, dy], |[xs, weights, dys]| {
            let dx = x
                .track_op()
                .then(|| tensor(depthwise_input_gradient(self.shape, weights, dys), x.shape()))
                .transpose()?;
            let d_taps = gradient_of(taps, |sums| add_depthwise_weight_gradient(self.shape, xs, dys, sums))?;
            let d_bias = gradient_of(bias, |sums| add_column_sums(dys, sums))?;
            Ok((dx, d_taps, d_bias))
        })?
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::test_support::{assert_close, composed as without_kernels, gradients, noise};
    use crate::params::Params;

    #[test]
    fn kernel_and_composed_forms_agree_with_candles_in_values_and_gradients() -> Result<(), Error> {
        let params = Params::seeded(1, &Device::Cpu);
        let over_frames = DepthwiseConv::load_over_frames(&params.root().sub("frames"), 6, 5, true)?;
        let square = DepthwiseConv::load_square(&params.root().sub("square"), 6, 3, 2, 1)?;
        for (name, var) in params.vars() {
            if name.ends_with("bias") {
                var.set(&noise(6, 3)?)?;
            }
        }
        let (gain, shift) = (Var::from_tensor(&noise(6, 4)?)?, Var::from_tensor(&noise(6, 5)?)?);
        let vars: Vec<Var> = params.vars().into_iter().map(|(_, var)| var).collect();
        let flat = Var::from_tensor(&noise((2, 11, 6), 6)?)?;
        let bins = Var::from_tensor(&noise((2, 11, 8, 6), 7)?)?;

        let theirs = flat.transpose(1, 2)?.contiguous()?.conv1d(&over_frames.weight, 2, 1, 1, 6)?;
        let theirs = theirs.transpose(1, 2)?.broadcast_add(&over_frames.bias)?;
        assert_close(&over_frames.forward(&flat)?, &theirs, 1e-5)?;
        let theirs = bins.permute((0, 3, 1, 2))?.contiguous()?.conv2d(&square.weight, 1, 2, 1, 6)?;
        let theirs = theirs.permute((0, 2, 3, 1))?.broadcast_add(&square.bias)?;
        assert_close(&square.forward(&bins)?, &theirs, 1e-5)?;

        for (layer, x, own) in [(&over_frames, &flat, &vars[..2]), (&square, &bins, &vars[2..])] {
            let vars = [x, &gain, &shift, &own[0], &own[1]];
            let both = || -> candle_core::Result<_> {
                let y = layer.forward_scaled(x, &gain, &shift)?;
                Ok((y.clone(), gradients(&y, &vars)?))
            };
            let (ours, theirs) = (both()?, without_kernels(both)??);
            assert_close(&ours.0, &theirs.0, 1e-5)?;
            for (ours, theirs) in ours.1.iter().zip(&theirs.1) {
                let (Some(ours), Some(theirs)) = (ours, theirs) else {
                    unreachable!("a gradient is missing")
                };
                assert_close(ours, theirs, 1e-4)?;
            }
            let plain = layer.forward(x)?.broadcast_mul(&gain)?.broadcast_add(&shift)?;
            assert_close(&layer.forward_scaled(x, &gain, &shift)?, &plain, 1e-5)?;
        }
        assert!(over_frames.forward(&noise((2, 11, 5), 1)?).is_err());
        Ok(())
    }
}
