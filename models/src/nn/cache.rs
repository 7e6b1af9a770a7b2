//! Keys and values that a row has already computed, preallocated and passed in by the caller.

use candle_core::{DType, Device, Tensor};

use super::storage::{on_cpu, with_floats};
use crate::kernels::{Precision, WindowKeysValues};

/// Keys and values of one row in one attention layer.
pub struct KvCache {
    held: Held,
    n_positions: usize,
}

/// How they are kept.
pub(super) enum Held {
    /// To be written to, or on any device: keys and values, each (capacity, D).
    Dense(Tensor, Tensor),
    /// All that there will be.
    Window(WindowKeysValues),
}

impl KvCache {
    /// Room for `capacity` positions of `width` numbers.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn new(capacity: usize, width: usize, device: &Device) -> candle_core::Result<Self> {
        let room = || Tensor::zeros((capacity, width), DType::F32, device);
        Ok(Self { held: Held::Dense(room()?, room()?), n_positions: 0 })
    }

    /// A full cache over computed keys and values (cross-attention), both (T, D).
    ///
    /// # Errors
    /// Tensors that are not two-dimensional, or not equal in shape.
    pub fn full(keys: &Tensor, values: &Tensor) -> candle_core::Result<Self> {
        let (n_positions, _) = equal_dims(keys, values)?;
        Ok(Self { held: Held::Dense(keys.contiguous()?, values.contiguous()?), n_positions })
    }

    /// The same packed for the queries of many steps, as they are or rounded, on the CPU: every step reads all of it.
    ///
    /// # Errors
    /// Tensors that are not two-dimensional, or not equal in shape.
    pub fn window(
        keys: &Tensor,
        values: &Tensor,
        n_heads: usize,
        precision: Precision,
    ) -> candle_core::Result<Self> {
        if !on_cpu(&[keys, values]) {
            return Self::full(keys, values);
        }
        let (n_positions, width) = equal_dims(keys, values)?;
        let window = with_floats([keys, values], |[keys, values]| {
            WindowKeysValues::pack(keys, values, width, n_heads, precision)
        })?;
        Ok(Self { held: Held::Window(window), n_positions })
    }

    /// Writes the keys and values of further positions, both (n, D), in place.
    ///
    /// # Errors
    /// More positions than there is room for, a cache that is full from the beginning.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> candle_core::Result<()> {
        let Held::Dense(held_keys, held_values) = &self.held else {
            candle_core::bail!("a window has no room for further positions")
        };
        let (n, _) = keys.dims2()?;
        held_keys.slice_set(&keys.contiguous()?, 0, self.n_positions)?;
        held_values.slice_set(&values.contiguous()?, 0, self.n_positions)?;
        self.n_positions += n;
        Ok(())
    }

    /// A copy that can go its own way, for another beam or sample.
    ///
    /// # Errors
    /// When the device has no memory for it, a cache that is full from the beginning.
    pub fn fork(&self) -> candle_core::Result<Self> {
        let Held::Dense(keys, _) = &self.held else { candle_core::bail!("a window is shared, not copied") };
        let (capacity, width) = keys.dims2()?;
        let mut fork = Self::new(capacity, width, keys.device())?;
        if self.n_positions > 0 {
            fork.append(&self.keys()?, &self.values()?)?;
        }
        Ok(fork)
    }

    /// Positions filled so far.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Keys and values as they are kept, with room for more than are filled.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Keys of the filled positions, (n, D).
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn keys(&self) -> candle_core::Result<Tensor> {
        match &self.held {
            Held::Dense(keys, _) => keys.narrow(0, 0, self.n_positions),
            Held::Window(window) => numbers(window.keys(), window.width()),
        }
    }

    /// Values of the filled positions, (n, D).
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn values(&self) -> candle_core::Result<Tensor> {
        match &self.held {
            Held::Dense(_, values) => values.narrow(0, 0, self.n_positions),
            Held::Window(window) => numbers(window.values(), window.width()),
        }
    }
}

/// Those of both.
fn equal_dims(keys: &Tensor, values: &Tensor) -> candle_core::Result<(usize, usize)> {
    if keys.dims() != values.dims() {
        candle_core::bail!("keys {keys:?} for values {values:?}")
    }
    keys.dims2()
}

fn numbers(numbers: Vec<f32>, width: usize) -> candle_core::Result<Tensor> {
    Tensor::from_vec(numbers, ((), width), &Device::Cpu)
}
