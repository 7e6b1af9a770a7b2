//! What bytes are multiplied with, chosen at run time.

use super::super::{DotSet, Group, Ready, Rows, Sums};
#[cfg(target_arch = "x86_64")]
use super::super::{amx, x86};
use super::LINE;

/// A family of instructions that multiply bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int8Set {
    /// Tiles of 16 rows by 64 bytes.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Sixteen sums of four products in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// Eight of them.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// Eight of them in a few instructions.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust.
    Portable,
}

impl Int8Set {
    /// Those that this processor has, the best first.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = [
            amx::has_int8().then_some(Self::Amx),
            (is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni"))
            .then_some(Self::Avx512Vnni),
            (is_x86_feature_detected!("avxvnni") && is_x86_feature_detected!("avx2"))
                .then_some(Self::AvxVnni),
            is_x86_feature_detected!("avx2").then_some(Self::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let vector = [None::<Self>; 0];
        vector.into_iter().flatten().chain([Self::Portable])
    }

    /// The best that this processor has for products of so many rows. All give the same sums.
    pub fn best(n_rows: usize) -> Self {
        Self::available().find(|set| n_rows >= set.min_rows()).unwrap_or(Self::Portable)
    }

    /// Whether bytes are faster than f32 here. On AVX2, without an instruction of its own, a long product takes 0.7 to 0.8 of
    /// the time in f32 there and one row a quarter; beside f32 on AVX-512 that would be longer.
    pub fn is_fast() -> bool {
        match Self::best(usize::MAX) {
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512Vnni | Self::AvxVnni => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => !is_x86_feature_detected!("avx512f"),
            Self::Portable => false,
        }
    }

    /// Fewer rows are left to the others.
    fn min_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::MIN_ROWS,
            _ => 0,
        }
    }
}

// SAFETY: `available`, where every value comes from, has seen tiles where it gives `Amx`.
unsafe impl DotSet for Int8Set {
    type Sum = i32;
    const LINE: usize = LINE;

    #[cfg(target_arch = "x86_64")]
    fn has_tiles(self) -> bool {
        self == Self::Amx
    }

    /// Of rows of unsigned bytes with a panel of signed ones.
    fn multiply(ready: &Ready<Self>, rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<i32>]) {
        match ready.set {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available`, where every value comes from, has seen the instructions on this processor.
            Self::Amx => unsafe { amx::int8(ready.tiles(), rows, panel, sums) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => unsafe { x86::int8_avx512(rows, panel, sums) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => unsafe { x86::int8_avx_vnni(rows, panel, sums) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::int8_avx2(rows, panel, sums) },
            Self::Portable => portable(rows, panel, sums),
        }
    }
}

fn portable(rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<i32>]) {
    for (i, sums) in sums.iter_mut().enumerate() {
        sums.0 = Default::default();
        for (x, group) in rows.groups(i, panel.len()).iter().zip(panel) {
            for (sum, weights) in sums.0.iter_mut().zip(&group.0) {
                let products = x.iter().zip(weights).map(|(x, w)| i32::from(*x) * i32::from(w.cast_signed()));
                *sum += products.sum::<i32>();
            }
        }
    }
}
