//! Products of numbers of low precision, four bytes of each factor in an instruction: bytes, or bf16 in pairs.
//!
//! Weights lie in panels of `N_COLUMNS` outputs. A group of a panel holds four bytes of each of its columns side by side, which is
//! what vector instructions and tiles both take.

#[cfg(target_arch = "x86_64")]
mod amx;
mod bf16;
mod dot_set;
mod int8;
mod product;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use bf16::{Bf16Matrix, Bf16Rows, Bf16Set, attention_bf16, bf16_to_f32, f32_to_bf16};
pub use int8::{Int8Matrix, Int8Rows, Int8Set, nearest_byte, scale_of_bytes};

use self::dot_set::{DotSet, Ready};
use super::gemm::N_COLUMNS;

/// Bytes of a column in a group.
const GROUP_BYTES: usize = 4;
/// Groups that a row fills at once: those of a cache line, which is a tile's row.
const LINE_GROUPS: usize = 16;
/// Rows may be read up to a multiple of it: a tile's.
const TILE_ROWS: usize = 16;

/// A part of a row, on a cache line of its own.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([[u8; GROUP_BYTES]; LINE_GROUPS]);

/// Weights of a panel at some places of k, a column's side by side.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Group([[u8; GROUP_BYTES]; N_COLUMNS]);

/// What a row's products with a panel add up to.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Sums<T>([T; N_COLUMNS]);

impl Group {
    /// Groups as numbers: what is moved as a whole.
    fn words_mut(groups: &mut [Self]) -> &mut [f32] {
        let n = groups.len() * N_COLUMNS;
        // SAFETY: `repr(C)`, an alignment that suffices, and all bits make numbers.
        unsafe { std::slice::from_raw_parts_mut(groups.as_mut_ptr().cast(), n) }
    }
}

impl Line {
    /// Lines as numbers: what is moved as a whole.
    fn words(lines: &[Self]) -> &[f32] {
        let n = lines.len() * LINE_GROUPS;
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), n) }
    }

    fn flatten(lines: &[Self]) -> &[u8] {
        // SAFETY: `repr(C)` and as long as its alignment: nothing lies between or after the bytes.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
    }

    /// Pairs of bf16, each as the upper half of a number.
    fn halves_mut(lines: &mut [Self]) -> &mut [u16] {
        let n = lines.len() * LINE_GROUPS * GROUP_BYTES / 2;
        // SAFETY: as above; the alignment suffices, and all bits make numbers.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), n) }
    }

    fn flatten_mut(lines: &mut [Self]) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
    }
}

/// Rows of lines, which begin every `stride` lines.
#[derive(Clone, Copy)]
struct Rows<'a> {
    lines: &'a [Line],
    stride: usize,
}

impl<'a> Rows<'a> {
    fn from(self, first: usize) -> Self {
        Self { lines: &self.lines[first * self.stride..], ..self }
    }

    fn groups(self, i: usize, n_groups: usize) -> &'a [[u8; GROUP_BYTES]] {
        &Line::flatten(&self.lines[i * self.stride..]).as_chunks().0[..n_groups]
    }

    /// Whether so many rows of so many groups are there.
    #[cfg(target_arch = "x86_64")]
    fn holds(self, n_rows: usize, n_groups: usize) -> bool {
        n_rows == 0 || self.lines.len() >= (n_rows - 1) * self.stride + n_groups.div_ceil(LINE_GROUPS)
    }

    /// The number of lines from row to row for rows of `n_lines`, an odd one: rows that lie a power of two apart compete for
    /// the same few places of a cache.
    fn stride(n_lines: usize) -> usize {
        n_lines | 1
    }
}

/// Lines and rows of products whose factors stay in the first-level cache: two tiles.
const NEAR_LINES: usize = 8;
const NEAR_ROWS: usize = 2 * TILE_ROWS;

/// A product in bytes whose factors are near; how many operations each time takes.
pub fn peak_int8() -> impl FnMut() -> usize {
    near_products(Int8Set::best(NEAR_ROWS))
}

/// The same in bf16.
pub fn peak_bf16() -> impl FnMut() -> usize {
    near_products(Bf16Set::best())
}

fn near_products<S: DotSet>(set: S) -> impl FnMut() -> usize {
    let stride = Rows::stride(NEAR_LINES);
    let lines = vec![Line([[0; GROUP_BYTES]; LINE_GROUPS]); NEAR_ROWS * stride];
    let panel = vec![Group([[0; GROUP_BYTES]; N_COLUMNS]); NEAR_LINES * LINE_GROUPS];
    let mut sums = [Sums([S::Sum::default(); N_COLUMNS]); NEAR_ROWS];
    let ready = Ready::new(set);
    move || {
        ready.multiply(Rows { lines: &lines, stride }, &panel, &mut sums);
        std::hint::black_box(&mut sums);
        2 * NEAR_ROWS * NEAR_LINES * S::LINE * N_COLUMNS
    }
}
