//! One-dimensional convolution over frames, as products of matrices.
//!
//! candle's own `conv1d` gives a kernel gradient that is wrong at padded edges (1.4 % off in norm for Whisper's
//! first layer, against torch) and a slow one.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Shape, Tensor};

use super::backward::gradient_of;
use super::storage::{floats, on_cpu, tensor, with_floats};
use super::{Weight, activate};
use crate::Error;
use crate::kernels::{
    Activation, ConvolutionShape, Epilogue, PackedWeight, PostOp, add_column_sums,
    add_convolution_weight_gradient, convolution, convolution_input_gradient, convolution_packed, zeros,
};
use crate::params::{Init, Scope};

/// A convolution over frames with bias. Frames follow each other, (B, T, in), as everywhere but in torch.
pub struct Conv1d {
    /// Dense as in checkpoints, (out, in, kernel); packed in the order of a window's values, (out, kernel * in).
    weight: Weight,
    bias: Tensor,
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Conv1d {
    /// Loads `weight` and `bias`.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(
        scope: &Scope<'_>,
        n_in: usize,
        n_out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self, Error> {
        // An activation follows.
        let init = Init::Scaled { n_inputs: n_in * kernel, gain: 2.0 };
        let dense = scope.get("weight", &[n_out, n_in, kernel], init)?;
        let weight = if Weight::can_pack(scope, &dense) {
            // What windows overlap in is not rounded to bytes, each window's with a scale of its own.
            let precision = scope.precision().for_activations();
            Weight::with_precision(scope, dense.transpose(1, 2)?.reshape((n_out, kernel * n_in))?, precision)?
        } else {
            Weight::Dense(dense)
        };
        let bias = scope.get("bias", &[n_out], Init::Zeros)?;
        Ok(Self { weight, bias, kernel, stride, padding })
    }

    /// (B, T, in) to (B, T', out). Differentiable in `x`, and in the weight and bias where they are trained: what does not
    /// track gradients costs none.
    ///
    /// # Errors
    /// A number of channels other than `in`, fewer frames than the kernel is long.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.run(x, false)
    }

    /// The same through GELU.
    ///
    /// # Errors
    /// As [`Conv1d::forward`].
    pub fn forward_gelu(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.run(x, true)
    }

    fn run(&self, x: &Tensor, with_gelu: bool) -> candle_core::Result<Tensor> {
        let y = match &self.weight {
            Weight::Dense(weight) => self.dense(x, weight),
            Weight::Packed(weight) if x.track_op() => {
                let shape = (weight.n_out(), self.kernel, weight.n_in() / self.kernel);
                let dense = Tensor::from_vec(weight.unpack(), shape, &Device::Cpu)?.transpose(1, 2)?;
                self.dense(x, &dense)
            }
            Weight::Packed(weight) => {
                let post_op = if with_gelu { PostOp::Activate(Activation::Gelu) } else { PostOp::None };
                return x.contiguous()?.apply_op1_no_bwd(&PackedConvolution { layer: self, weight, post_op });
            }
        }?;
        if with_gelu { activate(Activation::Gelu, &y) } else { Ok(y) }
    }

    /// How it runs over `x` (B, T, in), and T'.
    fn shape(
        &self,
        x: &Shape,
        window: usize,
        n_out: usize,
    ) -> candle_core::Result<(ConvolutionShape, usize)> {
        let (n_rows, n_frames, n_in) = x.dims3()?;
        let Self { kernel, stride, padding, .. } = *self;
        if kernel * n_in != window {
            candle_core::bail!("a convolution of {window} values cannot run over {x:?}")
        }
        let shape = ConvolutionShape { n_rows, n_frames, n_in, n_out, kernel, stride, padding };
        match shape.n_outputs() {
            Some(n_outputs) => Ok((shape, n_outputs)),
            None => candle_core::bail!("a convolution of {kernel} frames cannot run over {n_frames}"),
        }
    }

    fn dense(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
        let (n_out, n_in, kernel) = weight.dims3()?;
        let (shape, _) = self.shape(x.shape(), n_in * kernel, n_out)?;
        if on_cpu(&[x, weight, &self.bias]) {
            let weight = weight.transpose(1, 2)?.contiguous()?; // (out, kernel, in)
            x.contiguous()?.apply_op3(&weight, &self.bias.contiguous()?, Convolution { shape })
        } else {
            self.composed(x, weight)
        }
    }

    /// With plain tensor operations: the path on other devices, and the kernel's oracle.
    fn composed(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
        let (n_out, n_in, kernel) = weight.dims3()?;
        let (shape, n_outputs) = self.shape(x.shape(), n_in * kernel, n_out)?;
        let padded = x.pad_with_zeros(1, self.padding, self.padding)?.contiguous()?;
        let taps = (0..kernel)
            .map(|tap| self.shifted(&padded, tap, n_outputs))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let windows = Tensor::cat(&taps, 2)?.reshape((shape.n_rows * n_outputs, kernel * n_in))?;
        let weight = weight.transpose(1, 2)?.reshape((n_out, kernel * n_in))?;
        let y = windows.matmul(&weight.t()?)?.broadcast_add(&self.bias)?;
        y.reshape((shape.n_rows, n_outputs, n_out))
    }

    /// Every `stride`-th of the frames from `tap` on, `n_frames` of them.
    fn shifted(&self, padded: &Tensor, tap: usize, n_frames: usize) -> candle_core::Result<Tensor> {
        if self.stride == 1 {
            return padded.narrow(1, tap, n_frames);
        }
        let places: Vec<u32> = (0..n_frames).map(|i| (tap + i * self.stride) as u32).collect();
        padded.index_select(&Tensor::from_vec(places, n_frames, padded.device())?, 1)
    }
}

/// With a weight (out, kernel, in) that may be trained: gradients are computed for those who track them alone.
struct Convolution {
    shape: ConvolutionShape,
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape = self.shape;
        let (weight, bias) = (floats(weight, weight_layout)?, floats(bias, bias_layout)?);
        let n_outputs = shape.n_outputs().unwrap_or(0);
        let mut y = zeros(shape.n_rows * n_outputs * shape.n_out);
        convolution(shape, floats(x, x_layout)?, weight, bias, &mut y);
        Ok((CpuStorage::F32(y), Shape::from((shape.n_rows, n_outputs, shape.n_out))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let shape = self.shape;
        with_floats([x, weight, dy], |[xs, weights, dys]| {
            let dx = x.track_op().then(|| {
                let mut dx = zeros(xs.len());
                convolution_input_gradient(shape, weights, dys, &mut dx);
                tensor(dx, x.shape())
            });
            let d_weight = gradient_of(weight, |sums| add_convolution_weight_gradient(shape, xs, dys, sums))?;
            let d_bias = gradient_of(bias, |sums| add_column_sums(dys, sums))?;
            Ok((dx.transpose()?, d_weight, d_bias))
        })?
    }
}

/// Without gradients.
struct PackedConvolution<'a> {
    layer: &'a Conv1d,
    weight: &'a Arc<PackedWeight>,
    post_op: PostOp,
}

impl CustomOp1 for PackedConvolution<'_> {
    fn name(&self) -> &'static str {
        "packed-convolution"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n_out, window) = (self.weight.n_out(), self.weight.n_in());
        let (shape, n_outputs) = self.layer.shape(layout.shape(), window, n_out)?;
        let x = floats(storage, layout)?;
        let mut y = zeros(shape.n_rows * n_outputs * n_out);
        with_floats([&self.layer.bias], |[bias]| {
            let epilogue = Epilogue { bias: Some(bias), post_op: self.post_op };
            convolution_packed(shape, x, self.weight, epilogue, &mut y);
        })?;
        Ok((CpuStorage::F32(y), Shape::from((shape.n_rows, n_outputs, n_out))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::Var;

    use super::*;
    use crate::Weights;
    use crate::nn::test_support::{assert_close, gradients, noise};
    use crate::params::Params;

    fn waves(shape: (usize, usize, usize)) -> candle_core::Result<Tensor> {
        let n = shape.0 * shape.1 * shape.2;
        Tensor::arange(0f32, n as f32, &Device::Cpu)?.sin()?.reshape(shape)
    }

    /// Trained and frozen, with the same weights.
    fn pair(kernel: usize, stride: usize, padding: usize) -> Result<[Conv1d; 2], Error> {
        let dir = tempfile::tempdir().map_err(|error| Error::file(std::env::temp_dir().as_ref(), error))?;
        let bias = Tensor::new(&[0.5f32, -1.0, 0.0, 2.0, 0.25, 3.0], &Device::Cpu)?;
        let tensors = HashMap::from([("weight", waves((6, 4, kernel))?), ("bias", bias)]);
        candle_core::safetensors::save(&tensors, dir.path().join("model.safetensors"))?;
        let weights = || Weights::open(dir.path());
        let load = |params: Params| Conv1d::load(&params.root(), 4, 6, kernel, stride, padding);
        Ok([
            load(Params::trainable(weights()?, &Device::Cpu))?,
            load(Params::frozen(weights()?, &Device::Cpu))?,
        ])
    }

    #[test]
    fn trained_and_packed_forms_agree_with_candles_for_strides_and_edges() -> Result<(), Error> {
        for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (5, 3, 0), (1, 1, 0)] {
            let [trained, packed] = pair(kernel, stride, padding)?;
            let Weight::Dense(weight) = &trained.weight else { unreachable!("a trained weight is dense") };
            assert!(matches!(packed.weight, Weight::Packed(_)));
            let x = Var::from_tensor(&waves((2, 11, 4))?)?;
            let expected = x.transpose(1, 2)?.contiguous()?.conv1d(weight, padding, stride, 1, 1)?;
            let expected =
                expected.broadcast_add(&trained.bias.reshape((1, 6, 1))?)?.transpose(1, 2)?.detach();
            // A packed weight and an input that wants gradients.
            let tracked = packed.forward(x.as_tensor())?;
            assert!(tracked.sum_all()?.backward()?.get(&x).is_some());
            for y in [trained.forward(&x.detach())?, packed.forward(&x.detach())?, tracked] {
                assert_close(&y, &expected, 1e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> Result<(), Error> {
        for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (5, 3, 0), (1, 1, 0)] {
            let [weight, bias] = [waves((6, 4, kernel))?, waves((1, 1, 6))?.flatten_all()?];
            let (weight, bias) = (Var::from_tensor(&weight)?, Var::from_tensor(&bias)?);
            let layer = |weight: &Tensor, bias: &Tensor| Conv1d {
                weight: Weight::Dense(weight.clone()),
                bias: bias.clone(),
                kernel,
                stride,
                padding,
            };
            let trained = layer(&weight, &bias);
            let x = Var::from_tensor(&noise((2, 11, 4), 5)?)?;
            let turned = Var::from_tensor(&noise((2, 4, 11), 5)?)?;
            let vars = [&x, &turned, &weight, &bias];
            for given in [x.as_tensor().clone(), turned.transpose(1, 2)?] {
                let (ours, theirs) = (trained.forward(&given)?, trained.composed(&given, &weight)?);
                assert_close(&ours, &theirs, 1e-5)?;
                for (ours, theirs) in gradients(&ours, &vars)?.iter().zip(gradients(&theirs, &vars)?) {
                    assert_eq!(ours.is_some(), theirs.is_some());
                    if let (Some(ours), Some(theirs)) = (ours, theirs) {
                        assert_close(ours, &theirs, 1e-4)?;
                    }
                }
            }
            // What does not track gradients gets none.
            let y = trained.forward(&x.as_detached_tensor())?;
            let wanted = gradients(&y, &vars)?.map(|gradient| gradient.is_some());
            assert_eq!(wanted, [false, false, true, true]);
            let frozen = layer(&weight.as_detached_tensor(), &bias.as_detached_tensor());
            let wanted =
                gradients(&frozen.forward(x.as_tensor())?, &vars)?.map(|gradient| gradient.is_some());
            assert_eq!(wanted, [true, false, false, false]);
            assert!(trained.forward(&noise((2, 11, 5), 1)?).is_err());
            assert_eq!(trained.forward(&noise((2, kernel - 1, 4), 1)?).is_err(), padding == 0);
        }
        Ok(())
    }

    #[test]
    fn a_packed_convolution_gives_each_window_of_a_batch_the_bits_that_it_has_alone() -> Result<(), Error> {
        let [trained, packed] = pair(3, 2, 1)?;
        let x = waves((3, 50, 4))?;
        let together = packed.forward(&x)?;
        let numbers = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        for i in 0..3 {
            let alone = packed.forward(&x.narrow(0, i, 1)?)?;
            assert_eq!(numbers(&together.narrow(0, i, 1)?)?, numbers(&alone)?);
            assert_eq!(numbers(&trained.forward(&x.narrow(0, i, 1)?)?)?, numbers(&alone)?);
        }
        assert!(packed.forward(&waves((1, 50, 5))?).is_err() && packed.forward(&waves((1, 0, 4))?).is_err());
        Ok(())
    }
}
