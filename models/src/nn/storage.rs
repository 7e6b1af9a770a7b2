//! Tensors as the slices that kernels take.

use std::cell::RefCell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor};

/// Whether kernels can take these: numbers of f32 on the CPU. Other tensors take the composed form of a layer.
pub(super) fn on_cpu(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|x| has_kernels(x.device()) && x.dtype() == DType::F32)
}

/// Whether there are kernels for a device: for the CPU. In tests there may be none (`test_support::composed`).
pub(super) fn has_kernels(device: &Device) -> bool {
    #[cfg(test)]
    if super::test_support::is_composed() {
        return false;
    }
    device.is_cpu()
}

/// The numbers of a contiguous argument of a custom op.
pub(super) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("a CPU kernel needs contiguous numbers, not {layout:?}"),
    }
}

/// The numbers of a contiguous f32 tensor on the CPU.
pub(super) fn cpu_slice<'a>(storage: &'a Storage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => floats(storage, layout),
        _ => candle_core::bail!("a CPU kernel needs numbers on the CPU"),
    }
}

/// Calls `compute` with the numbers of f32 tensors on the CPU, row-major.
pub(super) fn with_floats<const N: usize, T>(
    tensors: [&Tensor; N],
    compute: impl FnOnce([&[f32]; N]) -> T,
) -> candle_core::Result<T> {
    let tensors = tensors.iter().map(|x| x.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut slices = [&[][..]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *slice = cpu_slice(storage, layout)?;
    }
    Ok(compute(slices))
}

/// Calls `compute` with the numbers of a contiguous f32 tensor on the CPU, to be changed for all who share them.
pub(super) fn with_floats_mut<T>(
    tensor: &Tensor,
    compute: impl FnOnce(&mut [f32]) -> T,
) -> candle_core::Result<T> {
    let change = Change { compute: RefCell::new(Some(compute)), result: RefCell::new(None) };
    tensor.inplace_op1(&change)?;
    match change.result.into_inner() {
        Some(result) => Ok(result),
        None => candle_core::bail!("a tensor was not changed"),
    }
}

/// A function that candle calls once, and what it gave.
struct Change<F, T> {
    compute: RefCell<Option<F>>,
    result: RefCell<Option<T>>,
}

impl<T, F: FnOnce(&mut [f32]) -> T> InplaceOp1 for Change<F, T> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a CPU kernel changes contiguous numbers of f32, not {layout:?}")
        };
        if let Some(compute) = self.compute.take() {
            *self.result.borrow_mut() = Some(compute(&mut values[start..end]));
        }
        Ok(())
    }
}

/// Numbers as a tensor on the CPU.
pub(super) fn tensor(values: Vec<f32>, shape: &candle_core::Shape) -> candle_core::Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}
