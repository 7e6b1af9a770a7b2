//! A tile of a product: a few rows of x by one panel of the weight.
//!
//! With AVX-512 it has 12 rows by 32 columns in registers, with AVX2 6 rows by 16. The portable form is turned into vector
//! instructions where every processor of the architecture has a fused multiply-add (AArch64). On x86-64 it is computed in
//! software: as exact, and many times slower.

use crate::kernels::instruction_set::InstructionSet;

/// Columns of a panel.
pub const N_COLUMNS: usize = 32;

/// Most rows of a tile: with AVX-512 their sums take 24 of 32 registers.
pub const MAX_ROWS: usize = 12;

/// Distance between two rows of x. A constant, so that one register points at all of them.
pub const ROW_STRIDE: usize = 400;

/// A panel at one place of k, on cache lines of its own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Columns(pub [f32; N_COLUMNS]);

impl Columns {
    /// Where sums begin.
    pub const ZERO: Self = Self([0.0; N_COLUMNS]);

    /// Columns as consecutive values.
    pub fn flatten_mut(columns: &mut [Self]) -> &mut [f32] {
        // SAFETY: `repr(C)` and an alignment that divides the size: nothing lies between or after the values.
        unsafe { std::slice::from_raw_parts_mut(columns.as_mut_ptr().cast(), columns.len() * N_COLUMNS) }
    }
}

impl InstructionSet {
    /// `sums[i] += rows[i] * panel`, one place of k after the other. Row `i` begins at `i * ROW_STRIDE`.
    pub fn multiply(self, rows: &[f32], panel: &[Columns], sums: &mut [Columns]) {
        match self {
            // SAFETY: `available`, where every value comes from, has seen AVX-512F on this processor.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::avx512(rows, panel, sums) },
            // SAFETY: likewise AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::avx2(rows, panel, sums) },
            Self::Portable => portable(rows, panel, sums),
        }
    }
}

fn portable(rows: &[f32], panel: &[Columns], sums: &mut [Columns]) {
    for (row, sums) in rows.chunks(ROW_STRIDE).zip(sums) {
        let mut accumulators = sums.0;
        for (x, columns) in row.iter().zip(panel) {
            for (sum, weight) in accumulators.iter_mut().zip(&columns.0) {
                *sum = x.mul_add(*weight, *sum);
            }
        }
        sums.0 = accumulators;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::parts;
    use super::{Columns, N_COLUMNS, ROW_STRIDE};

    /// Places of k between the columns that are multiplied and those that are fetched: when columns are used for several
    /// rows, the processor does not look far enough ahead by itself.
    const PREFETCH: usize = 24;

    /// Values in a cache line.
    const LINE: usize = 16;

    /// A function for `R` rows by `V` vectors of columns, from column `first` on. Its `R * V` sums stay in registers.
    macro_rules! kernel {
        (
            $name:ident, $features:literal, $lanes:literal,
            $zero:ident, $load:ident, $store:ident, $splat:ident, $multiply_add:ident
        ) => {
            #[inline]
            #[target_feature(enable = $features)]
            fn $name<const R: usize, const V: usize>(
                rows: &[f32],
                panel: &[Columns],
                sums: &mut [Columns],
                first: usize,
            ) {
                assert!(
                    sums.len() == R
                        && rows.len() >= (R - 1) * ROW_STRIDE + panel.len()
                        && first % $lanes == 0
                        && first + V * $lanes <= N_COLUMNS,
                    "a tile of {R} rows"
                );
                let mut accumulators = [[$zero(); V]; R];
                for (accumulators, sums) in accumulators.iter_mut().zip(&*sums) {
                    for (v, sum) in accumulators.iter_mut().enumerate() {
                        let from = sums.0.as_ptr().wrapping_add(first + v * $lanes);
                        // SAFETY: the assertion keeps vector v within the columns, and aligned as they are.
                        *sum = unsafe { $load(from) };
                    }
                }
                for (i, columns) in panel.iter().enumerate() {
                    let columns = columns.0.as_ptr().wrapping_add(first);
                    let ahead = columns.wrapping_add(PREFETCH * N_COLUMNS);
                    let mut weights = [$zero(); V];
                    for (v, weight) in weights.iter_mut().enumerate() {
                        if (v * $lanes).is_multiple_of(LINE) {
                            let line = ahead.wrapping_add(v * $lanes);
                            #[allow(unused_unsafe, reason = "newer toolchains declare it safe")]
                            // SAFETY: a hint, which never faults; SSE, which it needs, is part of x86-64.
                            unsafe {
                                _mm_prefetch::<_MM_HINT_T0>(line.cast())
                            };
                        }
                        // SAFETY: the assertion keeps vector v within the columns, and aligned as they are.
                        *weight = unsafe { $load(columns.wrapping_add(v * $lanes)) };
                    }
                    for (r, accumulators) in accumulators.iter_mut().enumerate() {
                        let x = rows.as_ptr().wrapping_add(r * ROW_STRIDE + i);
                        // SAFETY: r < R and i < panel.len(), for which the assertion has seen enough values.
                        let x = $splat(unsafe { *x });
                        for (sum, weight) in accumulators.iter_mut().zip(weights) {
                            *sum = $multiply_add(x, weight, *sum);
                        }
                    }
                }
                for (accumulators, sums) in accumulators.iter().zip(sums) {
                    for (v, sum) in accumulators.iter().enumerate() {
                        let to = sums.0.as_mut_ptr().wrapping_add(first + v * $lanes);
                        // SAFETY: the assertion keeps vector v within the columns, and aligned as they are.
                        unsafe { $store(to, *sum) };
                    }
                }
            }
        };
    }

    kernel!(
        by_16,
        "avx512f",
        16,
        _mm512_setzero_ps,
        _mm512_load_ps,
        _mm512_store_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps
    );
    kernel!(
        by_8,
        "avx2,fma",
        8,
        _mm256_setzero_ps,
        _mm256_load_ps,
        _mm256_store_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps
    );

    /// At most `MAX_ROWS` rows.
    #[target_feature(enable = "avx512f")]
    pub fn avx512(rows: &[f32], panel: &[Columns], sums: &mut [Columns]) {
        macro_rules! multiply {
            ($($n_rows:literal)*) => {
                match sums.len() {
                    $($n_rows => by_16::<$n_rows, 2>(rows, panel, sums, 0),)*
                    n_rows => unreachable!("a tile of {n_rows} rows"),
                }
            };
        }
        multiply!(1 2 3 4 5 6 7 8 9 10 11 12);
    }

    /// At most six rows at a time, and half of the columns when there are more than three.
    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(rows: &[f32], panel: &[Columns], sums: &mut [Columns]) {
        for part in parts(sums.len(), sums.len().div_ceil(6)) {
            let (rows, sums) = (&rows[part.start * ROW_STRIDE..], &mut sums[part]);
            macro_rules! multiply {
                ($($n_rows:literal)*; $($n_more:literal)*) => {
                    match sums.len() {
                        $($n_rows => by_8::<$n_rows, 4>(rows, panel, sums, 0),)*
                        $($n_more => for first in [0, 16] {
                            by_8::<$n_more, 2>(rows, panel, sums, first);
                        })*
                        n_rows => unreachable!("a tile of {n_rows} rows"),
                    }
                };
            }
            multiply!(1 2 3; 4 5 6);
        }
    }
}
