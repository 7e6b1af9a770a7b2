//! A weight that does not change any more, in the precision that it is multiplied in.

use std::cell::Cell;
use std::fmt;

use rayon::prelude::*;

use super::epilogue::Epilogue;
use super::gemm::{MAX_TASK_ROWS, PackedMatrix, Threads};
use super::low_precision::{Bf16Matrix, Bf16Rows, Bf16Set, Int8Matrix, Int8Rows, Int8Set};
use super::weight_rows::{ReadRows, rows_of};

/// Fewer rows are not worth going through all of a weight.
const MIN_BLOCK: usize = 16;

/// What numbers are multiplied as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit numbers.
    F32,
    /// 16 bits of them, with sums of 32.
    Bf16,
    /// Bytes, with a scale for each row of weights and of activations, and for each position of a head in caches.
    Int8,
}

/// A weight (n, k), packed once for many products.
pub enum PackedWeight {
    /// As it was.
    F32(PackedMatrix),
    /// Rounded to bf16.
    Bf16(Bf16Matrix),
    /// Rounded to bytes.
    Int8(Int8Matrix),
}

thread_local! {
    /// Rows in low precision, which a thread takes while it works on them.
    static BYTES: Cell<Int8Rows> = Cell::default();
    static HALVES: Cell<Bf16Rows> = Cell::default();
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl Precision {
    /// Whether this processor has instructions that are faster with it than those for f32.
    pub fn is_fast(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => Bf16Set::is_fast(),
            Self::Int8 => Int8Set::is_fast(),
        }
    }

    /// Bytes of a number.
    pub fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// What attention and convolutions compute in beside weights of this precision. In bytes one large value would coarsen a whole
    /// row of scores or of a window: beside int8 it is bf16 where this processor multiplies it, else f32.
    pub fn for_activations(self) -> Self {
        match self {
            Self::F32 => Self::F32,
            Self::Bf16 => Self::Bf16,
            Self::Int8 if Self::Bf16.is_fast() => Self::Bf16,
            Self::Int8 => Self::F32,
        }
    }
}

impl PackedWeight {
    /// Packs `weight`, (n_out, n_in) row-major.
    ///
    /// More inputs than sums of bytes have room for are multiplied in f32.
    ///
    /// # Panics
    /// When `weight` is not `n_out * n_in` long.
    pub fn pack(precision: Precision, weight: &[f32], n_out: usize, n_in: usize) -> Self {
        let Ok(packed) = Self::pack_rows(precision, n_out, n_in, rows_of(weight, n_out, n_in));
        packed
    }

    /// Packs the weight (n_out, n_in) whose rows `read` gives, a few at a time: beside the packed weight there is memory for
    /// those alone.
    ///
    /// # Errors
    /// What `read` refuses.
    pub fn pack_rows<E: Send>(
        precision: Precision,
        n_out: usize,
        n_in: usize,
        read: impl ReadRows<E>,
    ) -> Result<Self, E> {
        Ok(match precision {
            Precision::Bf16 => Self::Bf16(Bf16Matrix::round(n_out, n_in, read)?),
            Precision::Int8 if n_in <= Int8Matrix::MAX_INPUTS => {
                Self::Int8(Int8Matrix::quantise(n_out, n_in, read)?)
            }
            Precision::F32 | Precision::Int8 => Self::F32(PackedMatrix::pack(n_out, n_in, read)?),
        })
    }

    /// What it is multiplied as.
    pub fn precision(&self) -> Precision {
        match self {
            Self::F32(_) => Precision::F32,
            Self::Bf16(_) => Precision::Bf16,
            Self::Int8(_) => Precision::Int8,
        }
    }

    /// Outputs, n.
    pub fn n_out(&self) -> usize {
        match self {
            Self::F32(weight) => weight.n_out(),
            Self::Bf16(weight) => weight.n_out(),
            Self::Int8(weight) => weight.n_out(),
        }
    }

    /// Inputs, k.
    pub fn n_in(&self) -> usize {
        match self {
            Self::F32(weight) => weight.n_in(),
            Self::Bf16(weight) => weight.n_in(),
            Self::Int8(weight) => weight.n_in(),
        }
    }

    /// Copies row `i` of the weight, the values that output `i` is made with.
    ///
    /// # Panics
    /// When there is no such row or `row` is not `n_in` long.
    pub fn copy_row(&self, i: usize, row: &mut [f32]) {
        match self {
            Self::F32(weight) => weight.copy_row(i, row),
            Self::Bf16(weight) => weight.copy_row(i, row),
            Self::Int8(weight) => weight.copy_row(i, row),
        }
    }

    /// The weight as it is multiplied, (n_out, n_in) row-major.
    pub fn unpack(&self) -> Vec<f32> {
        let n_in = self.n_in();
        let mut weight = vec![0.0; self.n_out() * n_in];
        if n_in > 0 {
            let rows = weight.par_chunks_exact_mut(n_in).enumerate();
            rows.for_each(|(i, row)| self.copy_row(i, row));
        }
        weight
    }

    /// `y = x W^T`, and what comes after it, for x (m, k) and y (m, n), row-major. Rows of x begin every `step` values: a
    /// convolution's windows overlap.
    ///
    /// # Panics
    /// When the slices' lengths do not fit each other.
    pub fn multiply(&self, x: &[f32], step: usize, epilogue: Epilogue<'_>, threads: Threads, y: &mut [f32]) {
        let (n_out, n_in) = (self.n_out(), self.n_in());
        if y.is_empty() {
            return;
        }
        let n_rows = y.len().checked_div(n_out).unwrap_or(0);
        assert!(
            n_rows > 0
                && y.len() == n_rows * n_out
                && x.len() == (n_rows - 1) * step + n_in
                && epilogue.fits(n_out),
            "product: {} values in and {} out, every {step}, do not fit a weight {n_out} x {n_in}",
            x.len(),
            y.len()
        );
        match rows_per_thread(n_rows).filter(|_| threads == Threads::All) {
            // Each thread brings its own rows into low precision.
            Some(n_block) if self.precision() != Precision::F32 => {
                y.par_chunks_mut(n_block * n_out).enumerate().for_each(|(i, y)| {
                    let n = y.len() / n_out;
                    let x = &x[i * n_block * step..][..(n - 1) * step + n_in];
                    self.multiply_rows(x, step, epilogue, Threads::One, y);
                });
            }
            _ => self.multiply_rows(x, step, epilogue, threads, y),
        }
    }

    fn multiply_rows(&self, x: &[f32], step: usize, epilogue: Epilogue<'_>, threads: Threads, y: &mut [f32]) {
        let (n_rows, n_in) = (y.len() / self.n_out(), self.n_in());
        match self {
            Self::F32(weight) => weight.multiply(x, step, epilogue, threads, y),
            Self::Bf16(weight) => {
                let mut rows = HALVES.take();
                rows.set(x, step, n_rows, n_in);
                weight.multiply(&rows, epilogue, threads, y);
                HALVES.set(rows);
            }
            Self::Int8(weight) => {
                let mut rows = BYTES.take();
                rows.set(x, step, n_rows, n_in);
                weight.multiply(&rows, epilogue, threads, y);
                BYTES.set(rows);
            }
        }
    }
}

/// How many of `n_rows` a thread takes at once, where there are enough for all threads.
pub(super) fn rows_per_thread(n_rows: usize) -> Option<usize> {
    let n_threads = rayon::current_num_threads();
    if n_rows < MIN_BLOCK * n_threads {
        return None;
    }
    let n_rounds = n_rows.div_ceil(MAX_TASK_ROWS * n_threads);
    let n_block = n_rows.div_ceil(n_rounds * n_threads);
    // Whole tiles, where they do not leave a thread with less.
    Some(if n_rounds > 1 { n_block.next_multiple_of(MIN_BLOCK) } else { n_block })
}

#[cfg(test)]
mod tests {
    use super::super::activation::Activation;
    use super::super::epilogue::PostOp;
    use super::*;

    fn waves(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
    }

    #[test]
    fn windows_and_post_ops_are_the_same_alone_and_on_all_threads() {
        let (n_out, n_in, step) = (70, 40, 12);
        let weight = waves(n_out * n_in, 0.1);
        let bias = waves(n_out, 0.2);
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let packed = PackedWeight::pack(precision, &weight, n_out, n_in);
            assert_eq!(packed.precision(), precision);
            let n_rows = 50 * rayon::current_num_threads();
            let x = waves((n_rows - 1) * step + n_in, 0.3);
            for post_op in [PostOp::None, PostOp::Activate(Activation::Gelu), PostOp::Add] {
                let epilogue = Epilogue { bias: Some(&bias), post_op };
                let before = waves(n_rows * n_out, 0.4);
                let mut all = before.clone();
                packed.multiply(&x, step, epilogue, Threads::All, &mut all);
                let mut one = before.clone();
                packed.multiply(&x, step, epilogue, Threads::One, &mut one);
                assert_eq!(all, one, "{precision} {post_op:?}");
                for i in [0, 1, n_rows - 1] {
                    let mut alone = before[i * n_out..][..n_out].to_vec();
                    packed.multiply(&x[i * step..][..n_in], n_in, epilogue, Threads::All, &mut alone);
                    assert_eq!(alone, all[i * n_out..][..n_out], "{precision} {post_op:?}: row {i}");
                }
            }
            let read_back = packed.unpack();
            let far = read_back.iter().zip(&weight).any(|(a, b)| (a - b).abs() > 0.005);
            assert!(!far, "{precision}");
        }
    }

    #[test]
    fn rows_are_dealt_out_to_all_threads() {
        let n_threads = rayon::current_num_threads();
        assert_eq!(rows_per_thread(MIN_BLOCK * n_threads - 1), None);
        for n_rows in [MIN_BLOCK * n_threads, 1500.max(MIN_BLOCK * n_threads), 100_000] {
            let n = rows_per_thread(n_rows).unwrap_or(0);
            assert!((MIN_BLOCK..=MAX_TASK_ROWS).contains(&n), "{n_rows} rows: {n}");
        }
    }

    #[test]
    fn more_inputs_than_bytes_can_be_added_up_for_are_multiplied_in_f32() {
        let n_in = Int8Matrix::MAX_INPUTS + 1;
        let packed = PackedWeight::pack(Precision::Int8, &vec![1.0; n_in], 1, n_in);
        assert_eq!(packed.precision(), Precision::F32);
    }
}
