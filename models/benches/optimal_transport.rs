//! Optimal transport of a batch of utterances, value and gradients, in milliseconds: the median of some turns, debiased and not.
//! `tests/oracle/bench_transport.py` runs it beside geomloss.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod noise;

use std::hint::black_box;
use std::time::Instant;

use models::kernels::{PointSets, Transport, leave_threads_to_kernels, optimal_transport};

use self::noise::noise;

/// Fifteen seconds at 25 positions a second, and their text.
const SIZES: (usize, usize, usize, usize) = (16, 375, 60, 512);
const TURNS: usize = 7;

fn main() {
    leave_threads_to_kernels();
    let (b, s, t, d) = SIZES;
    let (x, y) = (noise(b * s * d, 1), noise(b * t * d, 2));
    let lengths = [vec![s; b], vec![t; b]];
    for debiased in [true, false] {
        let transport = Transport { debiased, position_weight: 1.0, ..Transport::default() };
        let sets = |points, lengths| PointSets { points, lengths, weights: None };
        let mut times: Vec<f64> = (0..TURNS)
            .map(|_| {
                let began = Instant::now();
                black_box(optimal_transport(sets(&x, &lengths[0]), sets(&y, &lengths[1]), d, transport));
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{} {:.1}", if debiased { "debiased" } else { "biased" }, times[TURNS / 2]);
    }
}
