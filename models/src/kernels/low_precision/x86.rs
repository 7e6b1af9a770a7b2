//! Products in vector registers.

use std::arch::x86_64::*;

use super::super::memory::prefetch;
use super::{GROUP_BYTES, Group, LINE_GROUPS, N_COLUMNS, Rows, Sums};

/// Groups between those that are multiplied and those that are fetched.
const PREFETCH: usize = 16;

/// Declares a function for `R` rows by `V` vectors of columns from column `first` on, with `K` sums of each so that they need
/// not wait for one another.
macro_rules! kernel {
    (
        $name:ident, $features:literal, $lanes:literal, $sum:ty: $zero:ident $store_sum:ident $add:ident,
        $load:ident $splat:ident $dot:path
    ) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name<const R: usize, const V: usize, const K: usize>(
            rows: Rows<'_>,
            panel: &[Group],
            sums: &mut [Sums<$sum>],
            first: usize,
        ) {
            assert!(
                sums.len() == R
                    && rows.holds(R, panel.len())
                    && first % $lanes == 0
                    && first + V * $lanes <= N_COLUMNS
                    && panel.len().is_multiple_of(K),
                "a tile of {R} rows by {} groups",
                panel.len()
            );
            let stride = rows.stride * LINE_GROUPS * GROUP_BYTES;
            let rows = rows.lines.as_ptr().cast::<u8>();
            let mut accumulators = [[[$zero(); V]; R]; K];
            for i in (0..panel.len()).step_by(K) {
                for (k, accumulators) in accumulators.iter_mut().enumerate() {
                    let group =
                        panel.as_ptr().wrapping_add(i + k).cast::<i8>().wrapping_add(GROUP_BYTES * first);
                    let ahead = group.wrapping_add(PREFETCH * size_of::<Group>());
                    let weights: [_; V] = std::array::from_fn(|v| {
                        let offset = v * $lanes * GROUP_BYTES;
                        if offset.is_multiple_of(64) {
                            prefetch(ahead.wrapping_add(offset).cast());
                        }
                        // SAFETY: i + k < panel.len(), as K divides it; the assertion keeps vector v within the columns, and
                        // aligned as they are.
                        unsafe { $load(group.wrapping_add(offset).cast()) }
                    });
                    for (r, accumulators) in accumulators.iter_mut().enumerate() {
                        let x = rows.wrapping_add(r * stride + (i + k) * GROUP_BYTES);
                        // SAFETY: r < R and i + k < panel.len(), for which the assertion has seen enough lines.
                        let x = $splat(unsafe { x.cast::<i32>().read() });
                        for (sum, weight) in accumulators.iter_mut().zip(weights) {
                            *sum = $dot(*sum, x, weight);
                        }
                    }
                }
            }
            let (all, others) = accumulators.split_at_mut(1);
            for (r, sums) in sums.iter_mut().enumerate() {
                for v in 0..V {
                    let sum = others.iter().fold(all[0][r][v], |sum, other| $add(sum, other[r][v]));
                    let to = sums.0.as_mut_ptr().wrapping_add(first + v * $lanes);
                    // SAFETY: the assertion keeps vector v within the columns, and aligned as they are.
                    unsafe { $store_sum(to.cast(), sum) };
                }
            }
        }
    };
}

kernel!(
    int8_by_16, "avx512f,avx512bw,avx512vnni", 16,
    i32: _mm512_setzero_si512 _mm512_store_si512 _mm512_add_epi32,
    _mm512_load_si512 _mm512_set1_epi32 _mm512_dpbusd_epi32
);
kernel!(
    int8_by_8, "avx2,avxvnni", 8,
    i32: _mm256_setzero_si256 _mm256_store_si256 _mm256_add_epi32,
    _mm256_load_si256 _mm256_set1_epi32 _mm256_dpbusd_avx_epi32
);
kernel!(
    int8_by_8_emulated, "avx2", 8,
    i32: _mm256_setzero_si256 _mm256_store_si256 _mm256_add_epi32,
    _mm256_load_si256 _mm256_set1_epi32 dot_bytes
);
kernel!(
    bf16_by_16, "avx512f,avx512bf16", 16,
    f32: _mm512_setzero_ps _mm512_store_ps _mm512_add_ps,
    _mm512_load_si512 _mm512_set1_epi32 dot_pairs
);

/// `_mm256_dpbusd_avx_epi32` for those who have no such instruction. Bytes become 16 bits wide first: pairs of their products do
/// not fit into 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_bytes(sum: __m256i, x: __m256i, weights: __m256i) -> __m256i {
    let low = _mm256_set1_epi16(0xff);
    // Of four products the first and third, then the second and fourth.
    let even =
        _mm256_madd_epi16(_mm256_and_si256(x, low), _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights)));
    let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(x), _mm256_srai_epi16::<8>(weights));
    _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
}

/// Pairs of bf16 from vectors of whatever.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_pairs(sum: __m512, x: __m512i, weights: __m512i) -> __m512 {
    // SAFETY: both are 512 bits, and all bits make numbers.
    let [x, weights] = [x, weights].map(|vector| unsafe { std::mem::transmute::<__m512i, __m512bh>(vector) });
    _mm512_dpbf16_ps(sum, x, weights)
}

/// Calls a kernel for as many rows as there are, at most `$max` at a time.
macro_rules! by_rows {
    ($rows:ident, $panel:ident, $sums:ident, $max:literal, |$some:ident, $part:ident| { $($n:literal => $run:expr,)* }) => {
        for (i, $part) in $sums.chunks_mut($max).enumerate() {
            let $some = $rows.from(i * $max);
            match $part.len() {
                $($n => $run,)*
                n_rows => unreachable!("a tile of {n_rows} rows"),
            }
        }
    };
}

/// Bytes: twelve rows by 32 columns, whose sums take 24 of 32 registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8_avx512(rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<i32>]) {
    macro_rules! run {
        ($($n:literal $k:literal)*) => {
            by_rows!(rows, panel, sums, 12, |rows, sums| {
                $($n => int8_by_16::<$n, 2, $k>(rows, panel, sums, 0),)*
            })
        };
    }
    run!(1 4 2 4 3 2 4 2 5 1 6 1 7 1 8 1 9 1 10 1 11 1 12 1);
}

/// Bytes: three rows by 32 columns, whose sums take 12 of 16 registers.
#[target_feature(enable = "avx2,avxvnni")]
pub(super) fn int8_avx_vnni(rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<i32>]) {
    by_rows!(rows, panel, sums, 3, |rows, sums| {
        1 => int8_by_8::<1, 4, 2>(rows, panel, sums, 0),
        2 => int8_by_8::<2, 4, 1>(rows, panel, sums, 0),
        3 => int8_by_8::<3, 4, 1>(rows, panel, sums, 0),
    });
}

/// Bytes, with registers for what is computed in between.
#[target_feature(enable = "avx2")]
pub(super) fn int8_avx2(rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<i32>]) {
    by_rows!(rows, panel, sums, 4, |rows, sums| {
        1 => int8_by_8_emulated::<1, 4, 1>(rows, panel, sums, 0),
        2 => for first in [0, 16] { int8_by_8_emulated::<2, 2, 1>(rows, panel, sums, first) },
        3 => for first in [0, 16] { int8_by_8_emulated::<3, 2, 1>(rows, panel, sums, first) },
        4 => for first in [0, 16] { int8_by_8_emulated::<4, 2, 1>(rows, panel, sums, first) },
    });
}

/// Pairs of bf16: twelve rows by 32 columns. The order of a row's sums does not depend on the number of rows.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn bf16_avx512(rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<f32>]) {
    macro_rules! run {
        ($($n:literal)*) => {
            by_rows!(rows, panel, sums, 12, |rows, sums| {
                $($n => bf16_by_16::<$n, 2, 1>(rows, panel, sums, 0),)*
            })
        };
    }
    run!(1 2 3 4 5 6 7 8 9 10 11 12);
}
