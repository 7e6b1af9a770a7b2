//! Products with a packed weight against candle's matmul, turn by turn in one run: `cargo bench -p models --bench gemm`.
//!
//! Weights of small products alternate between copies that together exceed the caches, as in a decoding step, where
//! all other weights pass by before one comes again. Both sides allocate their result.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod noise;

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use models::kernels::{
    Epilogue, Matrix, PackedWeight, Precision, Threads, peak_bytes_per_sec, peak_ops_per_sec, product,
};

use self::noise::noise;

/// (rows, outputs, inputs): the linear layers of Whisper tiny, base, small and large in decoding (1 row, 8 rows) and in
/// the encoder (1500), tiny's vocabulary, and a square.
const SHAPES: [(usize, usize, usize); 23] = [
    (1, 384, 384),
    (1, 1536, 384),
    (1, 384, 1536),
    (1, 2048, 512),
    (1, 5120, 1280),
    (1, 51865, 384),
    (8, 384, 384),
    (8, 1536, 384),
    (8, 384, 1536),
    (8, 2048, 512),
    (8, 5120, 1280),
    (8, 51865, 384),
    (40, 1536, 384),
    (40, 51865, 384),
    (1500, 384, 384),
    (1500, 1536, 384),
    (1500, 384, 1536),
    (1500, 2048, 512),
    (1500, 512, 2048),
    (1500, 3072, 768),
    (1500, 5120, 1280),
    (1500, 1280, 5120),
    (2048, 2048, 2048),
];

/// Bytes of all copies of a weight that is used for few rows.
const BYTES_OF_COPIES: usize = 256 << 20;

/// For each shape and side, at least.
const MIN_TIME: Duration = Duration::from_millis(400);
const MIN_TURNS: usize = 9;

fn median(durations: &mut [Duration]) -> f64 {
    durations.sort();
    durations[durations.len() / 2].as_secs_f64()
}

/// (rows, outputs, inputs): linear layers of Whisper tiny and of a model of width 128 in training.
const TRAINED: [(usize, usize, usize); 8] = [
    (6000, 384, 384),
    (6000, 1536, 384),
    (6000, 384, 1536),
    (1000, 1536, 384),
    (256, 384, 384),
    (256, 51865, 384),
    (3200, 128, 128),
    (3200, 512, 128),
];

/// What it takes at the median.
fn time(mut compute: impl FnMut() -> candle_core::Result<()>) -> candle_core::Result<f64> {
    let mut durations = Vec::new();
    while durations.iter().sum::<Duration>() < MIN_TIME || durations.len() < MIN_TURNS {
        let started = Instant::now();
        compute()?;
        durations.push(started.elapsed());
    }
    Ok(median(&mut durations))
}

/// Forward `x W^T`, the gradient of x `dy W` and of the weight `dy^T x`.
fn trained() -> candle_core::Result<()> {
    println!("    m     n     k |  product | ours ms  GFLOP/s | candle ms  GFLOP/s | ratio");
    for (m, n, k) in TRAINED {
        let tensor = |rows, columns, seed| {
            Tensor::from_vec(noise(rows * columns, seed), (rows, columns), &Device::Cpu)
        };
        let (x, w, dy) = (tensor(m, k, 1)?, tensor(n, k, 2)?, tensor(m, n, 3)?);
        let values = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        let (xs, ws, dys) = (values(&x)?, values(&w)?, values(&dy)?);
        let (a, b, c) = (Matrix::new(&xs, m, k), Matrix::new(&ws, n, k), Matrix::new(&dys, m, n));
        let products = [
            ("x W^T", a, b.t(), &x, w.t()?),
            ("dy W", c, b, &dy, w.clone()),
            ("dy^T x", c.t(), a, &dy.t()?, x.clone()),
        ];
        for (name, a, b, a_tensor, b_tensor) in products {
            let ours = time(|| {
                black_box(product(a, b, None));
                Ok(())
            })?;
            let candles = time(|| {
                black_box(a_tensor.matmul(&b_tensor)?);
                Ok(())
            })?;
            let gflop = 2e-9 * (m * n * k) as f64;
            println!(
                "{m:5} {n:5} {k:5} | {name:>8} | {:7.3} {:8.0} | {:9.3} {:8.0} | {:5.2}",
                1e3 * ours,
                gflop / ours,
                1e3 * candles,
                gflop / candles,
                candles / ours,
            );
        }
    }
    Ok(())
}

/// Products with a packed weight in `precision`, and candle's in f32.
fn served(
    precision: Precision,
    (m, n, k): (usize, usize, usize),
    (peak_ops, peak_bytes): (f64, f64),
) -> candle_core::Result<()> {
    let value_bytes = precision.n_bytes();
    let n_copies = if m < 100 { (BYTES_OF_COPIES / (value_bytes * n * k)).max(2) } else { 1 };
    let weight = noise(n * k, 1);
    let started = Instant::now();
    let packed: Vec<_> = (0..n_copies).map(|_| PackedWeight::pack(precision, &weight, n, k)).collect();
    let packing_secs = started.elapsed().as_secs_f64() / n_copies as f64;
    let dense = (0..(BYTES_OF_COPIES / (4 * n * k)).clamp(1, n_copies))
        .map(|_| Tensor::from_slice(&weight, (n, k), &Device::Cpu))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let x = noise(m * k, 2);
    let x_tensor = Tensor::from_slice(&x, (m, k), &Device::Cpu)?;
    let (mut ours, mut candles) = (Vec::new(), Vec::new());
    let mut worst = 0f32;
    while ours.iter().chain(&candles).sum::<Duration>() < 2 * MIN_TIME || ours.len() < MIN_TURNS {
        let turn = ours.len();
        let started = Instant::now();
        let mut y = vec![0f32; m * n];
        packed[turn % packed.len()].multiply(&x, k, Epilogue::default(), Threads::All, &mut y);
        ours.push(started.elapsed());
        let started = Instant::now();
        let y_tensor = black_box(x_tensor.matmul(&dense[turn % dense.len()].t()?)?);
        candles.push(started.elapsed());
        if turn == 0 {
            let theirs = y_tensor.flatten_all()?.to_vec1::<f32>()?;
            worst = y.iter().zip(theirs).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()));
        }
        black_box(y);
    }
    // Products of numbers between -1 and 1 differ from row to row by about sqrt(k) / 3.
    let allowed = if precision == Precision::F32 { 1e-3 } else { 0.05 * (k as f32).sqrt() };
    assert!(worst < allowed, "{precision} {m} {n} {k}: the two differ by {worst}");
    let (ours, candles) = (median(&mut ours), median(&mut candles));
    let (gflop, gigabytes) = (2e-9 * (m * n * k) as f64, 1e-9 * (value_bytes * n * k) as f64);
    println!(
        "{:>4} {m:5} {n:5} {k:5} | {:8.3} {:8.0} {:4.0} % {:6.1} {:4.0} % | {:9.3} {:8.0} | {:5.2} | {:8.2}",
        precision.to_string(),
        1e3 * ours,
        gflop / ours,
        1e11 * gflop / ours / peak_ops,
        gigabytes / ours,
        1e11 * gigabytes / ours / peak_bytes,
        1e3 * candles,
        gflop / candles,
        candles / ours,
        1e3 * packing_secs
    );
    Ok(())
}

fn main() -> candle_core::Result<()> {
    models::kernels::leave_threads_to_kernels();
    trained()?;
    println!("{} threads; medians; ratio: candle's time over ours", rayon::current_num_threads());
    let peak_bytes = peak_bytes_per_sec();
    println!(
        "per cent are of what is reached within the first-level cache, and of {:.1} GB/s",
        1e-9 * peak_bytes
    );
    println!(
        "         m     n     k |  ours ms  GFLOP/s           GB/s       | candle ms  GFLOP/s | ratio | packing ms"
    );
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        // Bytes are multiplied everywhere, pairs of bf16 where there are instructions for it.
        if precision.check(&Device::Cpu).is_ok() {
            let peak_ops = peak_ops_per_sec(precision);
            println!("{precision}: {:.0} GFLOP/s at most", 1e-9 * peak_ops);
            SHAPES.into_iter().try_for_each(|shape| served(precision, shape, (peak_ops, peak_bytes)))?;
        }
    }
    Ok(())
}
