//! CPU kernels as plain functions on slices. They know no tensors and no layers.

mod attention;
mod gemm;
mod transpose;

pub use attention::{AttentionRow, attend};
pub use gemm::PackedMatrix;
pub use transpose::transpose;
