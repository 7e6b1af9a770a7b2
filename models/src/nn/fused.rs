//! Layers that are computed together where their weights are packed and nothing is trained. Elsewhere, one after the other.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};

use super::storage::{cpu_slice, floats, on_cpu, with_floats};
use super::{LayerNorm, Linear, activate};
use crate::kernels::{self, Activation, Affine, PackedWeight, PostOp, Threads};

/// Several layers over `norm(x)`: (.., D) to (.., D) each. Differentiable.
///
/// # Errors
/// A last dimension other than D.
pub(crate) fn normed<const N: usize>(
    norm: &LayerNorm,
    x: &Tensor,
    layers: [&Linear; N],
) -> candle_core::Result<[Tensor; N]> {
    let outputs = match layers.map(Linear::packed).into_iter().collect::<Option<Vec<_>>>() {
        Some(layers) if can_fuse(x) && !norm.is_trained() => {
            let joined = x.contiguous()?.apply_op1_no_bwd(&Normed { norm, layers })?; // (N, .., D)
            (0..N).map(|i| joined.get(i)).collect::<candle_core::Result<Vec<_>>>()?
        }
        _ => {
            let h = norm.forward(x)?;
            layers.iter().map(|layer| layer.forward(&h)).collect::<candle_core::Result<Vec<_>>>()?
        }
    };
    outputs.try_into().map_err(|_| candle_core::Error::Msg(format!("{N} layers gave other outputs")))
}

/// `x + layer(y)`. Differentiable.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn add(x: &Tensor, layer: &Linear, y: &Tensor) -> candle_core::Result<Tensor> {
    match layer.packed() {
        Some((weight, bias)) if can_fuse(x) && can_fuse(y) => {
            y.contiguous()?.apply_op2_no_bwd(&x.contiguous()?, &Added { weight, bias })
        }
        _ => x + layer.forward(y)?,
    }
}

/// `x + scale fc2(activation(fc1(norm(x))))`, (.., D) to (.., D). Differentiable.
///
/// # Errors
/// A last dimension other than D.
pub(super) fn add_feed_forward(
    x: &Tensor,
    norm: &LayerNorm,
    [fc1, fc2]: [&Linear; 2],
    activation: Activation,
    scale: f32,
) -> candle_core::Result<Tensor> {
    match (fc1.packed(), fc2.packed()) {
        (Some(fc1), Some(fc2)) if can_fuse(x) && !norm.is_trained() => {
            x.contiguous()?.apply_op1_no_bwd(&FeedForward { norm, layers: [fc1, fc2], activation, scale })
        }
        _ => {
            let y = fc2.forward(&activate(activation, &fc1.forward(&norm.forward(x)?)?)?)?;
            if scale == 1.0 { x + y } else { x + (y * f64::from(scale))? }
        }
    }
}

/// `activation(layer(x))`, (.., in) to (.., out). Differentiable.
///
/// # Errors
/// A last dimension other than `in`.
pub fn activated(layer: &Linear, x: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
    match layer.packed() {
        Some((weight, bias)) if can_fuse(x) => {
            x.contiguous()?.apply_op1_no_bwd(&Activated { weight, bias, activation })
        }
        _ => activate(activation, &layer.forward(x)?),
    }
}

/// `layer(x)` as numbers, without gradients. Memory of `y` is used again.
///
/// # Errors
/// Shapes that do not fit.
pub fn product_into(layer: &Linear, x: &Tensor, y: &mut Vec<f32>) -> candle_core::Result<()> {
    let Some((weight, bias)) = layer.packed().filter(|_| can_fuse(x)) else {
        *y = layer.forward(x)?.flatten_all()?.to_vec1()?;
        return Ok(());
    };
    let n = n_rows(x.layout(), weight.n_in(), weight.n_in())?;
    y.resize(n * weight.n_out(), 0.0);
    with_floats([x], |[x]| {
        with_affines(&[(weight, bias)], |layers| layers[0].multiply(x, PostOp::None, Threads::All, y))
    })?
}

fn can_fuse(x: &Tensor) -> bool {
    on_cpu(&[x]) && !x.track_op()
}

type Packed<'a> = (&'a PackedWeight, Option<&'a Tensor>);

/// Rows of `layout`, each of `width` numbers, which are the `expected` ones.
fn n_rows(layout: &Layout, width: usize, expected: usize) -> candle_core::Result<usize> {
    let dims = layout.shape().dims();
    match dims.split_last() {
        Some((last, rows)) if *last == width && width == expected => Ok(rows.iter().product()),
        _ => candle_core::bail!("a layer of {expected} inputs, {width} before it, cannot take {dims:?}"),
    }
}

/// Several layers after a norm.
struct Normed<'a> {
    norm: &'a LayerNorm,
    layers: Vec<Packed<'a>>,
}

impl CustomOp1 for Normed<'_> {
    fn name(&self) -> &'static str {
        "normed-products"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = floats(storage, layout)?;
        self.norm.with_weights(|norm| {
            let n_out = self.layers.first().map_or(0, |(weight, _)| weight.n_out());
            let mut rows = 0;
            for (weight, _) in &self.layers {
                rows = n_rows(layout, norm.weight.len(), weight.n_in())?;
                if weight.n_out() != n_out {
                    candle_core::bail!("layers of {n_out} and {} outputs side by side", weight.n_out())
                }
            }
            let mut y = kernels::zeros(self.layers.len() * rows * n_out);
            with_affines(&self.layers, |layers| kernels::normed_products(x, norm, layers, &mut y))?;
            let mut dims = layout.dims().to_vec();
            dims.pop();
            dims.push(n_out);
            dims.insert(0, self.layers.len());
            Ok((CpuStorage::F32(y), Shape::from(dims)))
        })?
    }
}

/// A layer and an activation.
struct Activated<'a> {
    weight: &'a PackedWeight,
    bias: Option<&'a Tensor>,
    activation: Activation,
}

impl CustomOp1 for Activated<'_> {
    fn name(&self) -> &'static str {
        "product-activated"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n_in, n_out) = (self.weight.n_in(), self.weight.n_out());
        let rows = n_rows(layout, n_in, n_in)?;
        let x = floats(storage, layout)?;
        let mut y = kernels::zeros(rows * n_out);
        with_affines(&[(self.weight, self.bias)], |layers| {
            layers[0].multiply(x, PostOp::Activate(self.activation), Threads::All, &mut y);
        })?;
        let mut dims = layout.dims().to_vec();
        dims.pop();
        dims.push(n_out);
        Ok((CpuStorage::F32(y), Shape::from(dims)))
    }
}

/// A residual and a layer.
struct Added<'a> {
    weight: &'a PackedWeight,
    bias: Option<&'a Tensor>,
}

impl CustomOp2 for Added<'_> {
    fn name(&self) -> &'static str {
        "product-added"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n_in, n_out) = (self.weight.n_in(), self.weight.n_out());
        let rows = n_rows(x_layout, n_in, n_in)?;
        if n_rows(residual_layout, n_out, n_out)? != rows {
            candle_core::bail!("{x_layout:?} cannot be added to {residual_layout:?}")
        }
        let (x, residual) = (floats(x, x_layout)?, floats(residual, residual_layout)?);
        let mut y = residual.to_vec();
        with_affines(&[(self.weight, self.bias)], |layers| kernels::add_product(x, layers[0], &mut y))?;
        Ok((CpuStorage::F32(y), residual_layout.shape().clone()))
    }
}

/// The feed-forward half of a block.
struct FeedForward<'a> {
    norm: &'a LayerNorm,
    layers: [Packed<'a>; 2],
    activation: Activation,
    scale: f32,
}

impl CustomOp1 for FeedForward<'_> {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let [(fc1, _), (fc2, _)] = self.layers;
        let x = floats(storage, layout)?;
        self.norm.with_weights(|norm| {
            n_rows(layout, norm.weight.len(), fc1.n_in())?;
            if (fc1.n_out(), fc1.n_in()) != (fc2.n_in(), fc2.n_out()) {
                candle_core::bail!("a feed-forward of {} and {} inputs", fc1.n_in(), fc2.n_in())
            }
            let mut y = x.to_vec();
            with_affines(&self.layers, |layers| {
                let layers = [layers[0], layers[1]];
                kernels::add_feed_forward(&mut y, norm, layers, self.activation, self.scale);
            })?;
            Ok((CpuStorage::F32(y), layout.shape().clone()))
        })?
    }
}

/// Calls `compute` with layers as kernels take them.
pub(super) fn with_affines(
    layers: &[Packed<'_>],
    compute: impl FnOnce(&[Affine<'_>]),
) -> candle_core::Result<()> {
    let biases: Vec<_> = layers.iter().map(|(_, bias)| bias.map(Tensor::storage_and_layout)).collect();
    let mut affines = Vec::with_capacity(layers.len());
    for ((weight, _), bias) in layers.iter().zip(&biases) {
        let bias = bias.as_ref().map(|(storage, layout)| cpu_slice(storage, layout)).transpose()?;
        affines.push(Affine { weight, bias });
    }
    compute(&affines);
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::kernels::Precision;
    use crate::nn::test_support::{assert_close, noise};
    use crate::params::{Params, TrainedPart};
    use crate::{Error, Weights, write_weights};

    const WIDTH: usize = 48;

    struct Layers {
        norm: LayerNorm,
        up: Linear,
        down: Linear,
        square: Linear,
    }

    impl Layers {
        fn load(params: &Params) -> Result<Self, Error> {
            let root = params.root();
            Ok(Self {
                norm: LayerNorm::load(&root.sub("norm"), WIDTH, 1e-5)?,
                up: Linear::load(&root.sub("up"), WIDTH, 100, true)?,
                down: Linear::load(&root.sub("down"), 100, WIDTH, true)?,
                square: Linear::load(&root.sub("square"), WIDTH, WIDTH, false)?,
            })
        }
    }

    fn feed_forward(
        layers: &Layers,
        x: &Tensor,
        activation: Activation,
        scale: f32,
    ) -> candle_core::Result<Tensor> {
        add_feed_forward(x, &layers.norm, [&layers.up, &layers.down], activation, scale)
    }

    /// The same layers trained, and frozen in a precision.
    fn layers(precision: Precision) -> Result<[Layers; 2], Error> {
        let trained = Params::seeded(3, &Device::Cpu);
        Layers::load(&trained)?;
        let folder = tempfile::tempdir().map_err(|error| Error::option("folder", error.to_string()))?;
        let tensors = trained.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor()));
        write_weights(folder.path(), &tensors.collect(), crate::WeightDtype::F32)?;
        let frozen = Params::frozen(Weights::open(folder.path())?, &Device::Cpu);
        Ok([Layers::load(&trained)?, Layers::load(&frozen.with_precision(precision))?])
    }

    #[test]
    fn fused_and_composed_layers_agree_in_every_precision() -> Result<(), Error> {
        for (precision, tolerance) in
            [(Precision::F32, 1e-5), (Precision::Bf16, 0.03), (Precision::Int8, 0.05)]
        {
            let [trained, frozen] = layers(precision)?;
            // Alone, and for all threads.
            for n_rows in [1, 500] {
                let x = noise((2, n_rows, WIDTH), 1)?;
                for (activation, scale) in [(Activation::Gelu, 1.0), (Activation::Silu, 0.5)] {
                    let forward = |layers: &Layers| feed_forward(layers, &x, activation, scale);
                    assert_close(&forward(&frozen)?, &forward(&trained)?, tolerance)?;
                }
                let twice = |layers: &Layers| normed(&layers.norm, &x, [&layers.square, &layers.square]);
                let (ours, theirs) = (twice(&frozen)?, twice(&trained)?);
                assert_eq!(ours[0].dims(), x.dims());
                for (ours, theirs) in ours.iter().zip(&theirs) {
                    assert_close(ours, theirs, tolerance)?;
                }
                let activated = |layers: &Layers| activated(&layers.up, &x, Activation::Relu);
                assert_close(&activated(&frozen)?, &activated(&trained)?, tolerance)?;
                let added = |layers: &Layers| add(&x, &layers.square, &x);
                assert_close(&added(&frozen)?, &added(&trained)?, tolerance)?;
            }
            let x = noise((3, WIDTH), 1)?;
            let mut products = vec![f32::NAN; 9];
            product_into(&frozen.up, &x, &mut products)?;
            assert_eq!(products, frozen.up.forward(&x)?.flatten_all()?.to_vec1::<f32>()?);
            product_into(&trained.up, &x, &mut products)?;
            assert_eq!(products, trained.up.forward(&x)?.flatten_all()?.to_vec1::<f32>()?);
            let wide = noise((2, WIDTH + 1), 1)?;
            assert!(product_into(&frozen.up, &wide, &mut products).is_err());
            assert!(feed_forward(&frozen, &wide, Activation::Gelu, 1.0).is_err());
            assert!(activated(&frozen.up, &wide, Activation::Relu).is_err());
            assert!(normed(&frozen.norm, &wide, [&frozen.square]).is_err());
            assert!(add(&wide, &frozen.square, &noise((2, WIDTH), 1)?).is_err());
            assert!(normed(&frozen.norm, &noise((2, WIDTH), 1)?, [&frozen.square, &frozen.up]).is_err());
        }
        Ok(())
    }

    #[test]
    fn nothing_is_fused_that_a_gradient_goes_through() -> Result<(), Error> {
        let [_, frozen] = layers(Precision::F32)?;
        let x = Var::from_tensor(&noise((3, WIDTH), 1)?)?;
        let y = feed_forward(&frozen, x.as_tensor(), Activation::Gelu, 1.0)?;
        assert!(y.sum_all()?.backward()?.get(&x).is_some());
        // A norm that is trained between frozen layers.
        let part = TrainedPart { frozen: ["up", "down", "square"].map(str::to_owned).to_vec(), lora: None };
        let params = Params::seeded(3, &Device::Cpu).with_part(part);
        let layers = Layers::load(&params)?;
        let y = feed_forward(&layers, &noise((3, WIDTH), 1)?, Activation::Gelu, 1.0)?;
        let gradients = y.sqr()?.sum_all()?.backward()?;
        for (name, var) in params.vars().iter().filter(|(name, _)| name.starts_with("norm")) {
            assert!(gradients.get(var).is_some(), "{name}");
        }
        Ok(())
    }
}
