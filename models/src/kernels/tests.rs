//! Kernels at shapes that nobody thought of, against plain loops in f64: no length is too short, no remainder left out.

use proptest::prelude::*;

use super::test_support::noise;
use super::*;

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => x * (0.5 + 0.5 * candle_core::cpu::erf::erf_f64(x / 2f64.sqrt())),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
    }
}

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];
const POST_OPS: [PostOp; 5] = [
    PostOp::None,
    PostOp::Activate(Activation::Gelu),
    PostOp::Activate(Activation::Silu),
    PostOp::Activate(Activation::Relu),
    PostOp::Add,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn products_are_sums_of_products(
        (n_rows, n_out, n_in) in (1usize..70, 1usize..140, 0usize..520),
        gap in 0usize..9,
        (precision, post_op) in (0usize..3, 0usize..5),
        has_bias in any::<bool>(),
        seed in any::<u32>(),
    ) {
        let (precision, post_op) = (PRECISIONS[precision], POST_OPS[post_op]);
        let (weight, bias) = (noise(n_out * n_in, seed), noise(n_out, seed ^ 1));
        let step = n_in + gap;
        let x = noise((n_rows - 1) * step + n_in, seed ^ 2);
        let before = noise(n_rows * n_out, seed ^ 3);
        let packed = PackedWeight::pack(precision, &weight, n_out, n_in);
        let weight = packed.unpack();
        let epilogue = Epilogue { bias: has_bias.then_some(&bias), post_op };
        let mut y = before.clone();
        packed.multiply(&x, step, epilogue, Threads::All, &mut y);
        // What rounding the rows may change: half a step of each number.
        let tolerance = match precision {
            Precision::F32 => 1e-5,
            Precision::Bf16 => 1.0 / 512.0,
            Precision::Int8 => 1.0 / 254.0,
        };
        for (i, (y, before)) in y.iter().zip(&before).enumerate() {
            let (row, column) = (i / n_out, i % n_out);
            let (x, weight) = (&x[row * step..][..n_in], &weight[column * n_in..][..n_in]);
            let sum: f64 = x.iter().zip(weight).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            let sum = sum + if has_bias { f64::from(bias[column]) } else { 0.0 };
            let expected = match post_op {
                PostOp::None => sum,
                PostOp::Activate(activation) => activated(activation, sum),
                PostOp::Add => sum + f64::from(*before),
            };
            let weights: f64 = weight.iter().map(|w| f64::from(w.abs())).sum();
            let error = (f64::from(*y) - expected).abs();
            // The curve is nowhere steeper than 1.13.
            prop_assert!(error <= 1.13 * tolerance * weights + 1e-5, "row {row}, column {column}: {y}, not {expected}");
        }
        // Each row alone, to the bit.
        let last = (n_rows - 1) * n_out;
        let mut alone = before[last..].to_vec();
        packed.multiply(&x[(n_rows - 1) * step..], n_in, epilogue, Threads::One, &mut alone);
        prop_assert!(alone == y[last..], "the last row alone");
    }

    #[test]
    fn queries_find_the_weighted_mean_of_values(
        (n_queries, n_keys) in (1usize..12, 1usize..90),
        (n_heads, head) in (1usize..4, 1usize..80),
        precision in 0usize..3,
        n_first in 0usize..90,
        seed in any::<u32>(),
    ) {
        let (precision, width) = (PRECISIONS[precision], n_heads * head);
        let (keys, values) = (noise(n_keys * width, seed), noise(n_keys * width, seed ^ 1));
        let queries = noise(n_queries * width, seed ^ 2);
        let scale = (head as f32).powf(-0.5);
        let mut cache = KeysValues::with_capacity(n_keys / 2, width, n_heads, precision);
        // In two parts, the second once too often.
        let n_first = n_first.min(n_keys) * width;
        cache.append(&keys[..n_first], &values[..n_first]);
        cache.append(&queries, &queries);
        cache.truncate(n_first / width);
        cache.append(&keys[n_first..], &values[n_first..]);
        prop_assert_eq!(cache.n_positions(), n_keys);
        // As they are kept, which is near what they were.
        let (kept_keys, kept_values) = (cache.keys(), cache.values());
        let tolerance = [0.0, 1.0 / 256.0, 1.0 / 254.0][PRECISIONS.iter().position(|p| *p == precision).unwrap_or(0)];
        for (kept, x) in kept_keys.iter().zip(&keys).chain(kept_values.iter().zip(&values)) {
            prop_assert!((kept - x).abs() <= tolerance, "{}: {} for {}", precision, kept, x);
        }
        let (keys, values) = (kept_keys, kept_values);
        let n_keys_of = |i: usize| (i * 37 + n_keys / 2) % (n_keys + 1);
        let rows: Vec<_> = queries
            .chunks(width)
            .enumerate()
            .map(|(i, query)| AttentionRow { query, cache: &cache, n_keys: n_keys_of(i) })
            .collect();
        let mut out = vec![f32::NAN; queries.len()];
        attend(&rows, n_heads, scale, &mut out);
        for (i, out) in out.iter().enumerate() {
            let (query, h, d) = (i / width, i % width / head, i % head);
            let place = |t: usize| t * width + h * head;
            let scores: Vec<f64> = (0..n_keys_of(query))
                .map(|t| {
                    let query = &queries[query * width + h * head..][..head];
                    let products = query.iter().zip(&keys[place(t)..]).map(|(q, k)| f64::from(*q) * f64::from(*k));
                    (products.sum::<f64>() * f64::from(scale)).exp()
                })
                .collect();
            let total: f64 = scores.iter().sum();
            let weighted = scores.iter().enumerate().map(|(t, score)| score * f64::from(values[place(t) + d]));
            let expected = if scores.is_empty() { 0.0 } else { weighted.sum::<f64>() / total };
            prop_assert!((f64::from(*out) - expected).abs() < 1e-5, "query {query}, head {h}: {out}, not {expected}");
        }
    }

    #[test]
    fn rows_are_normed_and_softened(n_rows in 0usize..20, width in 1usize..200, seed in any::<u32>()) {
        let (x, gains, shifts) = (noise(n_rows * width, seed), noise(width, seed ^ 1), noise(width, seed ^ 2));
        let norm = LayerNormWeights { weight: &gains, bias: &shifts, eps: 1e-5 };
        let (normed, soft) = (layer_norm(&x, norm), softmax(&x, width));
        for (i, row) in x.chunks(width).enumerate() {
            let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let total: f64 = row.iter().map(|x| x.exp()).sum();
            for (j, x) in row.iter().enumerate() {
                let expected = (x - mean) / (variance + 1e-5).sqrt() * f64::from(gains[j]) + f64::from(shifts[j]);
                let place = i * width + j;
                prop_assert!((f64::from(normed[place]) - expected).abs() < 1e-4, "{expected}");
                prop_assert!((f64::from(soft[place]) - x.exp() / total).abs() < 1e-6, "{x}");
            }
        }
        let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        prop_assert_eq!(largest_of(&x), largest);
        prop_assert!(x.is_empty() || x[argmax(&x)] == largest);
    }
}
