//! Which places of a padded batch exist.

use candle_core::{Device, Tensor};

/// One where a row of the batch has something, zero after its length: (B, T, 1) for rows of `n`.
///
/// # Errors
/// When the device has no memory for it.
pub fn within(lengths: &[usize], n: usize, device: &Device) -> candle_core::Result<Tensor> {
    let ones = lengths.iter().flat_map(|length| (0..n).map(move |i| if i < *length { 1f32 } else { 0.0 }));
    Tensor::from_vec(ones.collect(), (lengths.len(), n, 1), device)
}
