//! Keys and values that a row has already computed, preallocated and passed in by the caller.

use candle_core::{DType, Device, Tensor};

/// Keys and values of one row in one attention layer.
pub struct KvCache {
    keys: Tensor,   // (capacity, D)
    values: Tensor, // (capacity, D)
    n_positions: usize,
}

impl KvCache {
    /// Room for `capacity` positions of `width` numbers.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn new(capacity: usize, width: usize, device: &Device) -> candle_core::Result<Self> {
        let room = || Tensor::zeros((capacity, width), DType::F32, device);
        Ok(Self { keys: room()?, values: room()?, n_positions: 0 })
    }

    /// A full cache over computed keys and values (cross-attention), both (T, D).
    ///
    /// # Errors
    /// Tensors that are not two-dimensional.
    pub fn full(keys: &Tensor, values: &Tensor) -> candle_core::Result<Self> {
        let (n_positions, _) = keys.dims2()?;
        Ok(Self { keys: keys.contiguous()?, values: values.contiguous()?, n_positions })
    }

    /// Writes the keys and values of further positions, both (n, D), in place.
    ///
    /// # Errors
    /// More positions than there is room for.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> candle_core::Result<()> {
        let (n, _) = keys.dims2()?;
        self.keys.slice_set(&keys.contiguous()?, 0, self.n_positions)?;
        self.values.slice_set(&values.contiguous()?, 0, self.n_positions)?;
        self.n_positions += n;
        Ok(())
    }

    /// A copy that can go its own way, for another beam or sample.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn fork(&self) -> candle_core::Result<Self> {
        let (capacity, width) = self.keys.dims2()?;
        let mut fork = Self::new(capacity, width, self.keys.device())?;
        if self.n_positions > 0 {
            fork.append(&self.keys()?, &self.values()?)?;
        }
        Ok(fork)
    }

    /// Positions filled so far.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Keys of the filled positions, (n, D).
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn keys(&self) -> candle_core::Result<Tensor> {
        self.keys.narrow(0, 0, self.n_positions)
    }

    /// Values of the filled positions, (n, D).
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn values(&self) -> candle_core::Result<Tensor> {
        self.values.narrow(0, 0, self.n_positions)
    }
}
