//! A matrix that layers multiply with: as in the checkpoint, or packed for the CPU's kernel.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Shape, Tensor};

use super::backward::{gradient_from, gradient_of};
use super::fused::with_affines;
use super::storage::{floats, has_kernels, on_cpu, tensor, with_floats};
use crate::Error;
use crate::kernels::{
    Matrix, PackedWeight, PostOp, Precision, Threads, add_column_sums, multiply_add, product, zeros,
};
use crate::params::{Init, Scope};

/// A matrix (out, in).
#[derive(Clone)]
pub enum Weight {
    /// As in the checkpoint: what is trained, what follows a training run, and what lies on another device.
    Dense(Tensor),
    /// What does not change any more, on the CPU: packed at load, in the precision that it is used in, instead of the tensor. A
    /// row's product is then the same to the bit in any batch.
    Packed(Arc<PackedWeight>),
}

impl Weight {
    /// Loads `weight` (out, in) at `scope`, in the precision that is asked for there.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, n_out: usize, n_in: usize, init: Init) -> Result<Self, Error> {
        Self::load_in(scope.precision(), scope, n_out, n_in, init)
    }

    /// The same in another precision, where it is packed.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub(super) fn load_in(
        precision: Precision,
        scope: &Scope<'_>,
        n_out: usize,
        n_in: usize,
        init: Init,
    ) -> Result<Self, Error> {
        Self::load_shaped(precision, scope, &[n_out, n_in], init)
    }

    /// The same of a weight whose inputs have any shape.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub(super) fn load_shaped(
        precision: Precision,
        scope: &Scope<'_>,
        shape: &[usize],
        init: Init,
    ) -> Result<Self, Error> {
        let (n_out, n_in) = (shape.first().copied().unwrap_or(0), shape.iter().skip(1).product());
        match scope.stored("weight", shape)? {
            // Straight from the file: the largest matrix as a tensor would take more than all of a model in bytes.
            Some(stored) if has_kernels(scope.device()) => {
                let read = |first: usize, rows: &mut [f32]| stored.read(first * n_in, rows);
                Ok(Self::Packed(Arc::new(PackedWeight::pack_rows(precision, n_out, n_in, read)?)))
            }
            _ => {
                let dense = scope.get("weight", shape, init)?;
                let dense = if shape.len() == 2 { dense } else { dense.reshape((n_out, n_in))? };
                Ok(Self::with_precision(scope, dense, precision)?)
            }
        }
    }

    /// `dense` (out, in), which was read at `scope`, in this precision where it is packed.
    ///
    /// # Errors
    /// A tensor that is no matrix.
    pub(super) fn with_precision(
        scope: &Scope<'_>,
        dense: Tensor,
        precision: Precision,
    ) -> candle_core::Result<Self> {
        if !Self::can_pack(scope, &dense) {
            return Ok(Self::Dense(dense));
        }
        let (n_out, n_in) = dense.dims2()?;
        let packed = with_floats([&dense], |[dense]| PackedWeight::pack(precision, dense, n_out, n_in))?;
        Ok(Self::Packed(Arc::new(packed)))
    }

    /// Whether `dense`, which was read at `scope`, is packed rather than kept.
    pub(super) fn can_pack(scope: &Scope<'_>, dense: &Tensor) -> bool {
        scope.is_frozen() && on_cpu(&[dense])
    }

    /// (out, in).
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn dims(&self) -> candle_core::Result<(usize, usize)> {
        match self {
            Self::Dense(weight) => weight.dims2(),
            Self::Packed(weight) => Ok((weight.n_out(), weight.n_in())),
        }
    }

    /// `x W^T + bias`: (.., in) to (.., out). Differentiable in `x`, and in the weight and bias where they are trained: what
    /// does not track gradients costs none.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn multiply(&self, x: &Tensor, bias: Option<&Tensor>) -> candle_core::Result<Tensor> {
        match (self, bias) {
            (Self::Packed(weight), _) => {
                let product = PackedProduct { weight: weight.clone(), bias: bias.cloned() };
                x.contiguous()?.apply_op1(product)
            }
            (Self::Dense(weight), None) if on_cpu(&[x, weight]) => {
                x.contiguous()?.apply_op2(&weight.contiguous()?, DenseProduct)
            }
            (Self::Dense(weight), Some(bias)) if on_cpu(&[x, weight, bias]) => {
                x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, DenseProduct)
            }
            (Self::Dense(weight), _) => composed(x, weight, bias),
        }
    }
}

/// `dims` with another last one, and the product of those before it.
fn with_last(shape: &Shape, n_in: usize, n_out: usize) -> candle_core::Result<(usize, Shape)> {
    let mut dims = shape.dims().to_vec();
    match dims.last_mut() {
        Some(last) if *last == n_in => *last = n_out,
        _ => candle_core::bail!("a weight {n_out} x {n_in} cannot multiply {shape:?}"),
    }
    Ok((dims.iter().rev().skip(1).product(), Shape::from(dims)))
}

/// With plain tensor operations: the path on other devices, and the kernel's oracle.
fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> candle_core::Result<Tensor> {
    let (n_out, n_in) = weight.dims2()?;
    let (n_rows, shape) = with_last(x.shape(), n_in, n_out)?;
    // One flat product: candle's batched matmul would run one GEMM per leading index.
    let y = x.reshape((n_rows, n_in))?.matmul(&weight.t()?)?; // (rows, out)
    match bias {
        Some(bias) => y.broadcast_add(bias)?.reshape(shape),
        None => y.reshape(shape),
    }
}

/// A product with a weight that may be trained: its gradients are computed for those who track them alone.
struct DenseProduct;

impl DenseProduct {
    fn forward(
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<&[f32]>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n_out, n_in) = weight.1.shape().dims2()?;
        let (n_rows, shape) = with_last(x.1.shape(), n_in, n_out)?;
        let (x, weight) = (floats(x.0, x.1)?, floats(weight.0, weight.1)?);
        if bias.is_some_and(|bias| bias.len() != n_out) {
            candle_core::bail!("a bias of {} numbers for {n_out} outputs", bias.map_or(0, <[f32]>::len))
        }
        let y = product(Matrix::new(x, n_rows, n_in), Matrix::new(weight, n_out, n_in).t(), bias);
        Ok((CpuStorage::F32(y), shape))
    }

    fn backward(
        x: &Tensor,
        weight: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (n_out, n_in) = weight.dims2()?;
        let (n_rows, _) = with_last(x.shape(), n_in, n_out)?;
        with_floats([x, weight, dy], |[xs, weights, dys]| {
            let rows = Matrix::new(xs, n_rows, n_in);
            let dys = Matrix::new(dys, n_rows, n_out);
            let dx = x
                .track_op()
                .then(|| tensor(product(dys, Matrix::new(weights, n_out, n_in), None), x.shape()));
            let d_weight = gradient_from(
                weight,
                || product(dys.t(), rows, None),
                |d_weight| multiply_add(dys.t(), rows, None, d_weight, n_in),
            );
            Ok((dx.transpose()?, d_weight?))
        })?
    }
}

impl CustomOp2 for DenseProduct {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Self::forward((x, x_layout), (weight, weight_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Self::backward(x, weight, dy)
    }
}

impl CustomOp3 for DenseProduct {
    fn name(&self) -> &'static str {
        "product-with-bias"
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
        Self::forward((x, x_layout), (weight, weight_layout), Some(floats(bias, bias_layout)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, d_weight) = Self::backward(x, weight, dy)?;
        let d_bias = with_floats([dy], |[dy]| gradient_of(bias, |sums| add_column_sums(dy, sums)))??;
        Ok((dx, d_weight, d_bias))
    }
}

/// The bias is as frozen as the weight, so that `x` is the only input that may want a gradient.
struct PackedProduct {
    weight: Arc<PackedWeight>,
    bias: Option<Tensor>,
}

impl CustomOp1 for PackedProduct {
    fn name(&self) -> &'static str {
        "packed-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let n_out = self.weight.n_out();
        let (n_rows, shape) = with_last(layout.shape(), self.weight.n_in(), n_out)?;
        let x = floats(storage, layout)?;
        let mut y = zeros(n_rows * n_out);
        with_affines(&[(&self.weight, self.bias.as_ref())], |layers| {
            layers[0].multiply(x, PostOp::None, Threads::All, &mut y);
        })?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (n_out, n_in) = (self.weight.n_out(), self.weight.n_in());
        let weight = self.weight.unpack();
        let dx = with_floats([dy], |[dy]| {
            let dy = Matrix::new(dy, dy.len() / n_out.max(1), n_out);
            product(dy, Matrix::new(&weight, n_out, n_in), None)
        })?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, gradients, noise};

    #[test]
    fn products_and_their_gradients_are_candles_and_the_frozen_get_none() -> candle_core::Result<()> {
        for (n_rows, n_in, n_out, seed) in [(1, 1, 1, 1), (7, 33, 20, 2), (100, 64, 129, 3)] {
            let x = Var::from_tensor(&noise((2, n_rows, n_in), seed)?)?;
            let weight = Var::from_tensor(&noise((n_out, n_in), seed + 10)?)?;
            let bias = Var::from_tensor(&noise(n_out, seed + 20)?)?;
            let vars = [&x, &weight, &bias];
            for bias in [None, Some(bias.as_tensor())] {
                // Rows that do not lie one after the other, too.
                for x in [x.as_tensor().clone(), x.transpose(0, 1)?] {
                    let ours = Weight::Dense(weight.as_tensor().clone()).multiply(&x, bias)?;
                    let theirs = composed(&x, &weight, bias)?;
                    assert_close(&ours, &theirs, 1e-4)?;
                    let (ours, theirs) = (gradients(&ours, &vars)?, gradients(&theirs, &vars)?);
                    for (ours, theirs) in ours.iter().zip(&theirs) {
                        assert_eq!(ours.is_some(), theirs.is_some());
                        if let (Some(ours), Some(theirs)) = (ours, theirs) {
                            assert_close(ours, theirs, 1e-3)?;
                        }
                    }
                }
            }
            let frozen = Weight::Dense(weight.as_detached_tensor());
            let wanted = gradients(&frozen.multiply(x.as_tensor(), None)?, &vars)?;
            assert_eq!(wanted.map(|gradient| gradient.is_some()), [true, false, false]);
            let trained = Weight::Dense(weight.as_tensor().clone());
            let y = trained.multiply(&x.as_detached_tensor(), Some(bias.as_tensor()))?;
            assert_eq!(gradients(&y, &vars)?.map(|gradient| gradient.is_some()), [false, true, true]);
            assert!(trained.multiply(&noise((2, n_in + 1), 1)?, None).is_err());
        }
        Ok(())
    }
}
