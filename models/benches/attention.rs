//! Attention with relative positions over all keys and in a context, turn by turn in one run:
//! `cargo bench -p models --bench attention`.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod noise;

use std::hint::black_box;
use std::time::{Duration, Instant};

use models::kernels::{AttentionShape, RelativePositions, leave_threads_to_kernels, relative_attention};

use self::noise::noise;

/// Two minutes and eight of an encoder that hears eight frames as one position.
const LENGTHS: [usize; 2] = [1500, 6000];
/// That of NeMo's configuration for long recordings.
const CONTEXT: [usize; 2] = [128, 128];
const WIDTH: usize = 512;
const N_HEADS: usize = 8;

/// For both together, at least.
const MIN_TIME: Duration = Duration::from_secs(2);
const MIN_TURNS: usize = 5;

fn median(durations: &mut [Duration]) -> f64 {
    durations.sort();
    durations[durations.len() / 2].as_secs_f64()
}

fn main() {
    leave_threads_to_kernels();
    println!("{} threads; width {WIDTH}, {N_HEADS} heads; medians", rayon::current_num_threads());
    println!("    T |  all ms | {CONTEXT:?} ms | ratio");
    for t in LENGTHS {
        let shape = AttentionShape {
            n_queries: t,
            n_keys: t,
            width: WIDTH,
            n_heads: N_HEADS,
            scale: ((WIDTH / N_HEADS) as f32).powf(-0.5),
            causal: false,
            key_lengths: None,
        };
        let [q, k, v] = [1, 2, 3].map(|seed| noise(t * WIDTH, seed));
        let table = noise((2 * t - 1) * WIDTH, 4);
        let bias = noise(WIDTH, 5);
        let mut out = vec![0f32; q.len()];
        let mut time = |context: Option<[usize; 2]>| {
            let n_met = context.map_or(t, |[before, after]| before.max(after) + 1);
            let middle = (t - n_met) * WIDTH;
            let positions = RelativePositions {
                keys: &table[middle..table.len() - middle],
                context,
                content_bias: &bias,
                position_bias: &bias,
            };
            let started = Instant::now();
            relative_attention(shape, positions, &q, &k, &v, &mut out);
            let took = started.elapsed();
            black_box(&out);
            took
        };
        let (mut full, mut limited) = (Vec::new(), Vec::new());
        while full.iter().chain(&limited).sum::<Duration>() < MIN_TIME || full.len() < MIN_TURNS {
            full.push(time(None));
            limited.push(time(Some(CONTEXT)));
        }
        let (full, limited) = (median(&mut full), median(&mut limited));
        println!("{t:5} | {:7.1} | {:13.1} | {:5.1}", 1e3 * full, 1e3 * limited, full / limited);
    }
}
