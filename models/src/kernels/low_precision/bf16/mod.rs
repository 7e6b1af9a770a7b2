//! Products in bf16, eight bits of a number's fraction, with sums in f32.

mod attention;
mod instructions;
mod matrix;
mod rows;
mod softmax;

pub use attention::attention_bf16;
pub use instructions::Bf16Set;
pub use matrix::Bf16Matrix;
pub use rows::Bf16Rows;

use super::{GROUP_BYTES, LINE_GROUPS};

/// Numbers of a group.
const PAIR: usize = GROUP_BYTES / 2;
/// Numbers of a line.
const LINE: usize = LINE_GROUPS * PAIR;

/// The nearest number with eight bits of fraction, as the upper half of it, in the processor's order of bytes: that of instructions
/// that multiply them. Between two, it is the even one.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // Adding may make an infinity of what is no number.
    let upper = if x.is_nan() { bits | 0x40_0000 } else { nearest };
    (upper >> 16) as u16
}

/// The number of which it is the upper half.
#[inline(always)]
pub fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

#[cfg(test)]
mod tests;
