//! A matrix that layers multiply with: as in the checkpoint, or packed for the CPU's kernel.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Storage, Tensor};

use crate::kernels::PackedMatrix;
use crate::params::Scope;

/// A matrix (out, in).
#[derive(Clone)]
pub enum Weight {
    /// As in the checkpoint: what is trained, what follows a training run, and what lies on another device.
    Dense(Tensor),
    /// What does not change any more, in f32 on the CPU: packed at load, instead of the tensor. A row's product is
    /// then the same to the bit in any batch.
    Packed(Arc<PackedMatrix>),
}

impl Weight {
    /// `dense` (out, in), which was read at `scope`.
    ///
    /// # Errors
    /// A tensor that is no matrix.
    pub fn new(scope: &Scope<'_>, dense: Tensor) -> candle_core::Result<Self> {
        if !Self::can_pack(scope, &dense) {
            return Ok(Self::Dense(dense));
        }
        let (n_out, n_in) = dense.dims2()?;
        let dense = dense.contiguous()?;
        let (storage, layout) = dense.storage_and_layout();
        Ok(Self::Packed(Arc::new(PackedMatrix::pack(cpu_slice(&storage, layout)?, n_out, n_in))))
    }

    /// Whether `dense`, which was read at `scope`, is packed rather than kept.
    pub(super) fn can_pack(scope: &Scope<'_>, dense: &Tensor) -> bool {
        scope.is_frozen() && dense.device().is_cpu() && dense.dtype() == DType::F32
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

    /// `x W^T + bias`: (rows, in) to (rows, out). Differentiable in `x`, and in the weight where it is trained.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn multiply(&self, x: &Tensor, bias: Option<&Tensor>) -> candle_core::Result<Tensor> {
        match (self, bias) {
            (Self::Dense(weight), None) => x.matmul(&weight.t()?),
            (Self::Dense(weight), Some(bias)) => x.matmul(&weight.t()?)?.broadcast_add(bias),
            (Self::Packed(weight), _) => {
                let product = PackedProduct { weight: weight.clone(), bias: bias.cloned() };
                x.contiguous()?.apply_op1(product)
            }
        }
    }
}

/// The bias is as frozen as the weight, so that `x` is the only input that may want a gradient.
struct PackedProduct {
    weight: Arc<PackedMatrix>,
    bias: Option<Tensor>,
}

impl CustomOp1 for PackedProduct {
    fn name(&self) -> &'static str {
        "packed-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n_rows, n_in) = layout.shape().dims2()?;
        let n_out = self.weight.n_out();
        let Some((start, end)) = layout.contiguous_offsets().filter(|_| n_in == self.weight.n_in()) else {
            candle_core::bail!("a weight {n_out} x {} cannot multiply {layout:?}", self.weight.n_in())
        };
        let x = &storage.as_slice::<f32>()?[start..end];
        let mut y = vec![0f32; n_rows * n_out];
        with_bias(self.bias.as_ref(), |bias| self.weight.multiply(x, bias, &mut y))?;
        Ok((CpuStorage::F32(y), Shape::from((n_rows, n_out))))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let shape = (self.weight.n_out(), self.weight.n_in());
        let dense = Tensor::from_vec(self.weight.unpack(), shape, &Device::Cpu)?;
        Ok(Some(gradient.matmul(&dense)?))
    }
}

/// Calls `compute` with the numbers of `bias`.
pub(super) fn with_bias(
    bias: Option<&Tensor>,
    compute: impl FnOnce(Option<&[f32]>),
) -> candle_core::Result<()> {
    let Some(bias) = bias else {
        compute(None);
        return Ok(());
    };
    let (storage, layout) = bias.storage_and_layout();
    compute(Some(cpu_slice(&storage, layout)?));
    Ok(())
}

/// The numbers of a contiguous f32 tensor on the CPU.
pub(super) fn cpu_slice<'a>(storage: &'a Storage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => Ok(&storage.as_slice::<f32>()?[start..end]),
        _ => candle_core::bail!("a CPU kernel needs contiguous numbers on the CPU, not {layout:?}"),
    }
}
