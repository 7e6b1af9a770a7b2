//! CPU kernels as plain functions on slices. They know no tensors and no layers.

mod attention;
mod gemm;
mod instruction_set;
mod transpose;

pub use attention::{AttentionRow, attend};
pub use gemm::{Matrix, PackedMatrix, multiply, multiply_add};
pub use transpose::transpose;
