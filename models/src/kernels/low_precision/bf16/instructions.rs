//! What pairs of bf16 are multiplied with, chosen at run time.

use super::super::{DotSet, Group, Ready, Rows, Sums};
#[cfg(target_arch = "x86_64")]
use super::super::{amx, x86};
use super::{LINE, bf16_to_f32};

/// A family of instructions that multiply bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bf16Set {
    /// Tiles of 16 rows by 32 numbers, and vectors for what is not a product.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Sixteen sums of two products in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// Plain Rust: slower than f32, for comparison.
    Portable,
}

impl Bf16Set {
    /// Those that this processor has, the best first.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let has_vectors = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f");
        #[cfg(target_arch = "x86_64")]
        let vector =
            [(has_vectors && amx::has_bf16()).then_some(Self::Amx), has_vectors.then_some(Self::Avx512Bf16)];
        #[cfg(not(target_arch = "x86_64"))]
        let vector = [None::<Self>; 0];
        vector.into_iter().flatten().chain([Self::Portable])
    }

    /// The best that this processor has. It does not depend on the number of rows: the sets do not add up in the same order.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::Portable)
    }

    /// Whether bf16 is faster than f32 here.
    pub fn is_fast() -> bool {
        Self::best() != Self::Portable
    }
}

// SAFETY: `available`, where every value comes from, has seen tiles where it gives `Amx`.
unsafe impl DotSet for Bf16Set {
    type Sum = f32;
    const LINE: usize = LINE;

    #[cfg(target_arch = "x86_64")]
    fn has_tiles(self) -> bool {
        self == Self::Amx
    }

    fn multiply(ready: &Ready<Self>, rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<f32>]) {
        match ready.set {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available`, where every value comes from, has seen the instructions on this processor.
            Self::Amx => unsafe { amx::bf16(ready.tiles(), rows, panel, sums) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => unsafe { x86::bf16_avx512(rows, panel, sums) },
            Self::Portable => portable(rows, panel, sums),
        }
    }
}

fn portable(rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<f32>]) {
    let number = |low, high| bf16_to_f32(u16::from_ne_bytes([low, high]));
    for (i, sums) in sums.iter_mut().enumerate() {
        sums.0 = Default::default();
        for (x, group) in rows.groups(i, panel.len()).iter().zip(panel) {
            let x = [number(x[0], x[1]), number(x[2], x[3])];
            for (sum, weights) in sums.0.iter_mut().zip(&group.0) {
                *sum += x[0] * number(weights[0], weights[1]) + x[1] * number(weights[2], weights[3]);
            }
        }
    }
}
