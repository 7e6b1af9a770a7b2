//! A tile of a product: a few rows of x by one panel of the weight.
//!
//! With AVX-512 it has 12 rows by 32 columns in registers, with AVX2 6 rows by 16. The portable form is turned into vector
//! instructions where every processor of the architecture has a fused multiply-add (AArch64). On x86-64 it is computed in
//! software: as exact, and many times slower.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::mem::MaybeUninit;

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

/// Where a tile's rows go.
///
/// # Safety
/// `row(i)` points at 32 numbers, aligned as numbers are, for each `i` below `n_rows()`, which stays what it is. They may be
/// written, and read if `IS_WRITTEN`, until `self` is used by others. Rows do not overlap.
pub unsafe trait TileRows {
    /// Whether there is something in them already.
    const IS_WRITTEN: bool = true;

    /// Their number.
    fn n_rows(&self) -> usize;

    /// Row `i`.
    fn row(&mut self, i: usize) -> *mut [f32; N_COLUMNS];
}

// SAFETY: they are what is borrowed.
unsafe impl TileRows for &mut [Columns] {
    #[inline(always)]
    fn n_rows(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn row(&mut self, i: usize) -> *mut [f32; N_COLUMNS] {
        &raw mut self[i].0
    }
}

/// At most `MAX_ROWS` rows of a result, from a column on that a whole panel follows.
pub struct RowParts<'a, 'b, T> {
    pub rows: &'a mut [&'b mut [T]],
    pub first: usize,
}

/// A number of a result, or the place of one.
///
/// # Safety
/// It lies in memory as an f32, and is one if `IS_WRITTEN`.
pub unsafe trait Slot {
    /// Whether there is a number already.
    const IS_WRITTEN: bool;
}

// SAFETY: it is one.
unsafe impl Slot for f32 {
    const IS_WRITTEN: bool = true;
}

// SAFETY: `MaybeUninit` lies in memory as what it may hold.
unsafe impl Slot for MaybeUninit<f32> {
    const IS_WRITTEN: bool = false;
}

// SAFETY: they are parts, as long as a panel is wide, of what is borrowed.
unsafe impl<T: Slot> TileRows for RowParts<'_, '_, T> {
    const IS_WRITTEN: bool = T::IS_WRITTEN;

    #[inline(always)]
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    #[inline(always)]
    fn row(&mut self, i: usize) -> *mut [f32; N_COLUMNS] {
        whole(&mut self.rows[i][self.first..])
    }
}

/// Rows that begin every `ROW_STRIDE` values: what is the other factor of a product after this one.
pub struct FactorRows<'a> {
    pub values: &'a mut [f32],
    pub n_rows: usize,
}

// SAFETY: they are parts, as long as a panel is wide, of what is borrowed.
unsafe impl TileRows for FactorRows<'_> {
    #[inline(always)]
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    #[inline(always)]
    fn row(&mut self, i: usize) -> *mut [f32; N_COLUMNS] {
        whole(&mut self.values[i * ROW_STRIDE..])
    }
}

#[inline(always)]
fn whole<T: Slot>(row: &mut [T]) -> *mut [f32; N_COLUMNS] {
    match row.first_chunk_mut::<N_COLUMNS>() {
        Some(row) => std::ptr::from_mut(row).cast(),
        None => unreachable!("a row that ends before its panel"),
    }
}

/// Where the sums of a tile begin and what is done to them before they are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum<'a> {
    /// They begin at what is there, else at zero.
    pub resumed: bool,
    /// Added to each row at the end.
    pub bias: Option<&'a [f32; N_COLUMNS]>,
    /// The result is added to what is there.
    pub added: bool,
}

impl Sum<'_> {
    /// It begins at what is there.
    pub const RESUMED: Self = Self { resumed: true, bias: None, added: false };
}

impl InstructionSet {
    /// `out[i] = sum of rows[i] * panel`, one place of k after the other. Row `i` begins at `i * ROW_STRIDE`.
    pub fn multiply<R: TileRows>(self, rows: &[f32], panel: &[Columns], sum: Sum<'_>, out: R) {
        let n_rows = out.n_rows();
        assert!(
            n_rows == 0 || rows.len() >= (n_rows - 1) * ROW_STRIDE + panel.len(),
            "a tile of {n_rows} rows, {} numbers of {}",
            rows.len(),
            panel.len()
        );
        match self {
            // SAFETY: `available`, where every value comes from, has seen AVX-512F on this processor.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::avx512(rows, panel, sum, out) },
            // SAFETY: likewise AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::avx2(rows, panel, sum, out) },
            Self::Portable => portable(rows, panel, sum, out),
        }
    }
}

fn portable<O: TileRows>(rows: &[f32], panel: &[Columns], sum: Sum<'_>, mut out: O) {
    assert!(O::IS_WRITTEN || !(sum.resumed || sum.added), "a tile of what has not been written");
    for i in 0..out.n_rows() {
        let row = &rows[i * ROW_STRIDE..][..panel.len()];
        let out = out.row(i);
        // SAFETY: `TileRows`; it is read where the assertion has seen that it may be.
        let there = || unsafe { out.read() };
        let mut accumulators = if sum.resumed { there() } else { [0.0; N_COLUMNS] };
        for (x, columns) in row.iter().zip(panel) {
            for (sum, weight) in accumulators.iter_mut().zip(&columns.0) {
                *sum = x.mul_add(*weight, *sum);
            }
        }
        if let Some(bias) = sum.bias {
            accumulators.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
        }
        if sum.added {
            accumulators.iter_mut().zip(&there()).for_each(|(sum, there)| *sum += there);
        }
        // SAFETY: `TileRows`.
        unsafe { out.write(accumulators) };
    }
}
