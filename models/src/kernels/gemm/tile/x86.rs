//! Tiles in registers.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::parts;
use super::{Columns, MAX_ROWS, N_COLUMNS, ROW_STRIDE, Sum, TileRows};

/// Places of k between the columns that are multiplied and those that are fetched: when columns are used for several
/// rows, the processor does not look far enough ahead by itself.
const PREFETCH: usize = 24;

/// Values in a cache line.
const LINE: usize = 16;

/// A function for `R` rows from row `top` on by `V` vectors of columns from column `left` on. Its `R * V` sums stay in
/// registers.
macro_rules! kernel {
    (
        $name:ident, $accumulate:ident, $plain:ident, $features:literal, $vector:ident, $lanes:literal,
        $zero:ident, $load:ident, $load_any:ident, $store_any:ident, $splat:ident, $add:ident, $multiply_add:ident
    ) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name<const R: usize, const V: usize, O: TileRows>(
            rows: &[f32],
            panel: &[Columns],
            sum: Sum<'_>,
            out: &mut O,
            (top, left): (usize, usize),
        ) {
            assert!(
                rows.len() >= (R - 1) * ROW_STRIDE + panel.len()
                    && top + R <= out.n_rows()
                    && left.is_multiple_of($lanes)
                    && left + V * $lanes <= N_COLUMNS
                    && (O::IS_WRITTEN || !(sum.resumed || sum.added)),
                "a tile of {R} rows"
            );
            let mut accumulators = [[$zero(); V]; R];
            if sum.resumed {
                for (i, accumulators) in accumulators.iter_mut().enumerate() {
                    let there = out.row(top + i).cast::<f32>().wrapping_add(left);
                    for (v, sum) in accumulators.iter_mut().enumerate() {
                        // SAFETY: the assertion keeps vector v within a row that may be read.
                        *sum = unsafe { $load_any(there.wrapping_add(v * $lanes)) };
                    }
                }
            }
            // SAFETY: the assertion has seen enough numbers and columns.
            unsafe { $accumulate(rows, panel, left, &mut accumulators) };
            let mut biases = [$zero(); V];
            if let Some(bias) = sum.bias {
                for (v, vector) in biases.iter_mut().enumerate() {
                    // SAFETY: the assertion keeps vector v within the bias, which is as long as a row.
                    *vector = unsafe { $load_any(bias.as_ptr().wrapping_add(left + v * $lanes)) };
                }
            }
            for (i, accumulators) in accumulators.iter().enumerate() {
                let to = out.row(top + i).cast::<f32>().wrapping_add(left);
                for (v, value) in accumulators.iter().enumerate() {
                    let to = to.wrapping_add(v * $lanes);
                    let mut value = *value;
                    // Nothing is added where nothing is asked for: -0.0 stays what it is.
                    if sum.bias.is_some() {
                        value = $add(value, biases[v]);
                    }
                    if sum.added {
                        // SAFETY: the assertion keeps vector v within a row that may be read.
                        value = $add(value, unsafe { $load_any(to) });
                    }
                    // SAFETY: the assertion keeps vector v within the row.
                    unsafe { $store_any(to, value) };
                }
            }
        }

        /// Adds the products with a panel's columns from `left` on, one place of k after the other.
        ///
        /// # Safety
        /// There are `R` rows, each as long as the panel, and `V` vectors of columns.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $plain<const R: usize, const V: usize>(
            rows: &[f32],
            panel: &[Columns],
            left: usize,
            accumulators: &mut [[$vector; V]; R],
        ) {
            for (i, columns) in panel.iter().enumerate() {
                let columns = columns.0.as_ptr().wrapping_add(left);
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
                    // SAFETY: vector v lies within the columns, and aligned as they are.
                    *weight = unsafe { $load(columns.wrapping_add(v * $lanes)) };
                }
                for (r, accumulators) in accumulators.iter_mut().enumerate() {
                    let x = rows.as_ptr().wrapping_add(r * ROW_STRIDE + i);
                    // SAFETY: r < R and i < panel.len().
                    let x = $splat(unsafe { *x });
                    for (sum, weight) in accumulators.iter_mut().zip(weights) {
                        *sum = $multiply_add(x, weight, *sum);
                    }
                }
            }
        }
    };
}

kernel!(
    by_16,
    accumulate_by_16,
    accumulate_some_by_16,
    "avx512f",
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_load_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_fmadd_ps
);
kernel!(
    by_8,
    accumulate_by_8,
    accumulate_by_8,
    "avx2,fma",
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_load_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_fmadd_ps
);

/// # Safety
/// As `accumulate_some_by_16`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn accumulate_by_16<const R: usize, const V: usize>(
    rows: &[f32],
    panel: &[Columns],
    left: usize,
    accumulators: &mut [[__m512; V]; R],
) {
    match accumulators.as_flattened_mut().first_chunk_mut() {
        // SAFETY: the caller's promise; as many vectors are the whole panel's.
        Some(sums) if R == MAX_ROWS && V == 2 => unsafe { accumulate_full(rows, panel, sums) },
        // SAFETY: the caller's promise.
        _ => unsafe { accumulate_some_by_16(rows, panel, left, accumulators) },
    }
}

/// The same for a full tile, in fewer instructions than compilers make of it: every other factor goes straight from
/// memory to both products that it is in, and four places of k share one jump. Where two hardware threads share a core,
/// instructions are what is short, and `accumulate_some_by_16` takes 5 % longer.
///
/// # Safety
/// There are `MAX_ROWS` rows, each as long as the panel.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn accumulate_full(rows: &[f32], panel: &[Columns], sums: &mut [__m512; 2 * MAX_ROWS]) {
    /// A place of k with a row whose sums are in two registers.
    macro_rules! row {
        (from memory, $place:literal, $row:literal, $low:literal, $high:literal) => {
            concat!(
                "vfmadd231ps zmm",
                $low,
                ", zmm24, dword ptr [{x} + ",
                $row,
                " * {stride} + 4 * ",
                $place,
                "]{{1to16}}\n",
                "vfmadd231ps zmm",
                $high,
                ", zmm25, dword ptr [{x} + ",
                $row,
                " * {stride} + 4 * ",
                $place,
                "]{{1to16}}\n",
            )
        };
        (once, $place:literal, $row:literal, $low:literal, $high:literal) => {
            concat!(
                "vbroadcastss zmm26, dword ptr [{x} + ",
                $row,
                " * {stride} + 4 * ",
                $place,
                "]\n",
                "vfmadd231ps zmm",
                $low,
                ", zmm26, zmm24\n",
                "vfmadd231ps zmm",
                $high,
                ", zmm26, zmm25\n",
            )
        };
    }
    /// One place of k.
    macro_rules! place {
        ($place:literal) => {
            concat!(
                "vmovaps zmm24, zmmword ptr [{columns} + 128 * ", $place, "]\n",
                "vmovaps zmm25, zmmword ptr [{columns} + 128 * ", $place, " + 64]\n",
                "prefetcht0 byte ptr [{columns} + 128 * ", $place, " + {ahead}]\n",
                row!(once, $place, 0, 0, 1),
                row!(from memory, $place, 1, 2, 3),
                "prefetcht0 byte ptr [{columns} + 128 * ", $place, " + {ahead} + 64]\n",
                row!(once, $place, 2, 4, 5),
                row!(from memory, $place, 3, 6, 7),
                row!(once, $place, 4, 8, 9),
                row!(from memory, $place, 5, 10, 11),
                row!(once, $place, 6, 12, 13),
                row!(from memory, $place, 7, 14, 15),
                row!(once, $place, 8, 16, 17),
                row!(from memory, $place, 9, 18, 19),
                row!(once, $place, 10, 20, 21),
                row!(from memory, $place, 11, 22, 23),
            )
        };
    }
    // SAFETY: it reads the panel and as many numbers of each row, which the caller promises. What it fetches ahead never faults.
    unsafe {
        asm!(
            "test {fours}, {fours}",
            "jz 3f",
            ".p2align 6",
            "2:",
            place!(0),
            place!(1),
            place!(2),
            place!(3),
            "add {columns}, 512",
            "add {x}, 16",
            "dec {fours}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 5f",
            "4:",
            place!(0),
            "add {columns}, 128",
            "add {x}, 4",
            "dec {rest}",
            "jnz 4b",
            "5:",
            x = inout(reg) rows.as_ptr() => _,
            columns = inout(reg) panel.as_ptr() => _,
            fours = inout(reg) panel.len() / 4 => _,
            rest = inout(reg) panel.len() % 4 => _,
            stride = const ROW_STRIDE * size_of::<f32>(),
            ahead = const PREFETCH * size_of::<Columns>(),
            inout("zmm0") sums[0],
            inout("zmm1") sums[1],
            inout("zmm2") sums[2],
            inout("zmm3") sums[3],
            inout("zmm4") sums[4],
            inout("zmm5") sums[5],
            inout("zmm6") sums[6],
            inout("zmm7") sums[7],
            inout("zmm8") sums[8],
            inout("zmm9") sums[9],
            inout("zmm10") sums[10],
            inout("zmm11") sums[11],
            inout("zmm12") sums[12],
            inout("zmm13") sums[13],
            inout("zmm14") sums[14],
            inout("zmm15") sums[15],
            inout("zmm16") sums[16],
            inout("zmm17") sums[17],
            inout("zmm18") sums[18],
            inout("zmm19") sums[19],
            inout("zmm20") sums[20],
            inout("zmm21") sums[21],
            inout("zmm22") sums[22],
            inout("zmm23") sums[23],
            out("zmm24") _,
            out("zmm25") _,
            out("zmm26") _,
            options(nostack, readonly),
        );
    }
}

/// At most `MAX_ROWS` rows.
#[target_feature(enable = "avx512f")]
pub fn avx512(rows: &[f32], panel: &[Columns], sum: Sum<'_>, mut out: impl TileRows) {
    macro_rules! multiply {
        ($($n_rows:literal)*) => {
            match out.n_rows() {
                $($n_rows => by_16::<$n_rows, 2, _>(rows, panel, sum, &mut out, (0, 0)),)*
                n_rows => unreachable!("a tile of {n_rows} rows"),
            }
        };
    }
    multiply!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// At most six rows at a time, and half of the columns when there are more than three.
#[target_feature(enable = "avx2,fma")]
pub fn avx2(rows: &[f32], panel: &[Columns], sum: Sum<'_>, mut out: impl TileRows) {
    for part in parts(out.n_rows(), out.n_rows().div_ceil(6)) {
        let (rows, top) = (&rows[part.start * ROW_STRIDE..], part.start);
        macro_rules! multiply {
            ($($n_rows:literal)*; $($n_more:literal)*) => {
                match part.len() {
                    $($n_rows => by_8::<$n_rows, 4, _>(rows, panel, sum, &mut out, (top, 0)),)*
                    $($n_more => for left in [0, 16] {
                        by_8::<$n_more, 2, _>(rows, panel, sum, &mut out, (top, left));
                    })*
                    n_rows => unreachable!("a tile of {n_rows} rows"),
                }
            };
        }
        multiply!(1 2 3; 4 5 6);
    }
}
