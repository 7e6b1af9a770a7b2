//! What the machine can do at most: what kernels are measured against.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::gemm::{Columns, MAX_ROWS, ROW_STRIDE, Sum};
use super::instruction_set::InstructionSet;
use super::low_precision;
use super::packed_weight::Precision;

/// What each figure is measured for, at least.
const MIN_TIME: Duration = Duration::from_millis(100);
/// Bytes that every thread reads, more than its share of the caches, and that all of them read at most.
const READ_BYTES: usize = 128 << 20;
const MAX_READ_BYTES: usize = 1 << 30;

/// Multiplications and additions a second of all threads together, with factors that never leave the first-level cache.
pub fn peak_ops_per_sec(precision: Precision) -> f64 {
    let per_thread = || {
        let mut run: Box<dyn FnMut() -> usize> = match precision {
            Precision::F32 => Box::new(f32_products()),
            Precision::Bf16 => Box::new(low_precision::peak_bf16()),
            Precision::Int8 => Box::new(low_precision::peak_int8()),
        };
        let mut n_ops = 0;
        let began = Instant::now();
        while began.elapsed() < MIN_TIME {
            n_ops += (0..64).map(|_| run()).sum::<usize>();
        }
        n_ops as f64 / began.elapsed().as_secs_f64()
    };
    rayon::broadcast(|_| per_thread()).into_iter().sum()
}

/// Bytes a second that all threads together read from memory.
pub fn peak_bytes_per_sec() -> f64 {
    let n_threads = rayon::current_num_threads();
    let n_bytes = READ_BYTES.min(MAX_READ_BYTES / n_threads);
    let buffers: Vec<Vec<u64>> =
        (0..n_threads).into_par_iter().map(|i| vec![i as u64 + 1; n_bytes / 8]).collect();
    let pass = || {
        let began = Instant::now();
        let sums: Vec<u64> = buffers.par_iter().with_max_len(1).map(|buffer| sum(buffer)).collect();
        black_box(sums);
        (n_threads * n_bytes) as f64 / began.elapsed().as_secs_f64()
    };
    (0..4).map(|_| pass()).fold(0.0, f64::max)
}

/// In lanes, so that no addition waits for another.
fn sum(numbers: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    for chunk in numbers.as_chunks::<32>().0 {
        lanes.iter_mut().zip(chunk).for_each(|(lane, number)| *lane = lane.wrapping_add(*number));
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

/// A tile whose factors are near, again and again; how many operations each time takes.
fn f32_products() -> impl FnMut() -> usize {
    /// Few enough for the first-level cache.
    const N_INPUTS: usize = 64;
    let rows = vec![0.5f32; MAX_ROWS * ROW_STRIDE];
    let panel = vec![Columns::ZERO; N_INPUTS];
    let mut sums = [Columns::ZERO; MAX_ROWS];
    let set = InstructionSet::best();
    move || {
        set.multiply(&rows, &panel, Sum::RESUMED, &mut sums[..]);
        black_box(&mut sums);
        2 * MAX_ROWS * N_INPUTS * Columns::ZERO.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_something_to_measure_against() {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            assert!(peak_ops_per_sec(precision) > 1e6, "{precision}");
        }
        assert!(peak_bytes_per_sec() > 1e6);
        assert_eq!(sum(&[1; 64]), 64);
    }
}
