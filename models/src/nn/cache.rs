//! Keys and values that a row has already computed, with room for more, passed in by the caller.

use candle_core::{DType, Device, Tensor};

use super::storage::{has_kernels, with_floats};
use crate::kernels::{KeysValues, Precision};

/// Keys and values of one row in one attention layer.
pub struct KvCache {
    held: Held,
    n_positions: usize,
    capacity: usize,
}

/// How they are kept.
pub(super) enum Held {
    /// On the CPU, in the order in which queries read them.
    Packed(KeysValues),
    /// On other devices: keys and values, each (capacity, D).
    Dense(Tensor, Tensor),
}

impl KvCache {
    /// Room for `capacity` positions of `width` numbers with `n_heads` heads side by side: as they are, rounded to bf16 or in bytes
    /// on the CPU, as they are on other devices.
    ///
    /// # Errors
    /// When the device has no memory for it, `n_heads` does not divide `width`.
    pub fn new(
        capacity: usize,
        width: usize,
        n_heads: usize,
        precision: Precision,
        device: &Device,
    ) -> candle_core::Result<Self> {
        if n_heads == 0 || !width.is_multiple_of(n_heads) {
            candle_core::bail!("a cache: {n_heads} heads do not divide a width of {width}")
        }
        let held = if has_kernels(device) {
            Held::Packed(KeysValues::with_capacity(capacity, width, n_heads, precision))
        } else {
            let room = || Tensor::zeros((capacity, width), DType::F32, device);
            Held::Dense(room()?, room()?)
        };
        Ok(Self { held, n_positions: 0, capacity })
    }

    /// Takes the keys and values of further positions, both (n, D).
    ///
    /// # Errors
    /// More positions than there is room for, shapes that do not fit.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> candle_core::Result<()> {
        let (n, width) = keys.dims2()?;
        if values.dims() != keys.dims() || self.n_positions + n > self.capacity {
            let Self { n_positions, capacity, .. } = self;
            candle_core::bail!(
                "a cache with {n_positions} of {capacity} positions cannot take keys {keys:?} and values {values:?}"
            )
        }
        match &mut self.held {
            Held::Packed(held) if held.width() == width => {
                with_floats([keys, values], |[keys, values]| held.append(keys, values))?;
            }
            Held::Packed(held) => {
                candle_core::bail!("a cache of {} numbers cannot take {keys:?}", held.width())
            }
            Held::Dense(held_keys, held_values) => {
                held_keys.slice_set(&keys.contiguous()?, 0, self.n_positions)?;
                held_values.slice_set(&values.contiguous()?, 0, self.n_positions)?;
            }
        }
        self.n_positions += n;
        Ok(())
    }

    /// Forgets all positions but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        self.n_positions = self.n_positions.min(n);
        if let Held::Packed(held) = &mut self.held {
            held.truncate(n);
        }
    }

    /// A copy that can go its own way, for another beam or sample.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn fork(&self) -> candle_core::Result<Self> {
        let held = match &self.held {
            Held::Packed(held) => Held::Packed(held.clone()),
            Held::Dense(keys, values) => Held::Dense(keys.copy()?, values.copy()?),
        };
        Ok(Self { held, ..*self })
    }

    /// Positions filled so far.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Keys of the filled positions as they are kept, (n, D).
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn keys(&self) -> candle_core::Result<Tensor> {
        match &self.held {
            Held::Packed(held) => numbers(held.keys(), held.width()),
            Held::Dense(keys, _) => keys.narrow(0, 0, self.n_positions),
        }
    }

    /// Values of the filled positions as they are kept, (n, D).
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn values(&self) -> candle_core::Result<Tensor> {
        match &self.held {
            Held::Packed(held) => numbers(held.values(), held.width()),
            Held::Dense(_, values) => values.narrow(0, 0, self.n_positions),
        }
    }
}

fn numbers(numbers: Vec<f32>, width: usize) -> candle_core::Result<Tensor> {
    Tensor::from_vec(numbers, ((), width), &Device::Cpu)
}
