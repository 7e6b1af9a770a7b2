//! Products in bytes: weights with a scale for each output, activations with a scale for each row, sums exact in 32 bits.
//!
//! A row's scale depends on that row alone, and integer sums on no order: a row's result is the same to the bit alone and in
//! any batch, with any number of threads, on any processor.

mod instructions;
mod matrix;
mod rows;

pub use instructions::Int8Set;
pub use matrix::Int8Matrix;
pub use rows::Int8Rows;

use super::{GROUP_BYTES, LINE_GROUPS};

/// Zero of an activation's byte: products take one factor as unsigned.
const ZERO: u8 = 128;
/// Bytes of a line.
const LINE: usize = LINE_GROUPS * GROUP_BYTES;
#[cfg(test)]
mod tests;
