//! CPU kernels as plain functions on slices. They know no tensors and no layers.

mod attention;

pub use attention::{AttentionRow, attend};
