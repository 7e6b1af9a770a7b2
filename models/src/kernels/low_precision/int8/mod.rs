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
const ZERO_POINT: u8 = 128;
/// Bytes of a line.
const LINE: usize = LINE_GROUPS * GROUP_BYTES;

/// The scale of bytes whose largest number this is, and its inverse. What is not finite has a scale that is not.
#[inline(always)]
pub fn scale_of_bytes(largest: f32) -> (f32, f32) {
    // The smallest numbers have no inverse.
    let inverse = if largest >= f32::MIN_POSITIVE * 128.0 { 127.0 / largest } else { 0.0 };
    (largest / 127.0, inverse)
}

/// The nearest integer to a number from -127 to 127.
#[inline(always)]
pub fn nearest_byte(x: f32) -> i8 {
    /// Adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND).to_bits() as i8
}

#[cfg(test)]
mod tests;
