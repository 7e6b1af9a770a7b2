use super::backward::attention_backward_with;
use super::forward::attention_with;
use super::keys_values::Scratch;
use super::*;
use crate::kernels::{Precision, test_support};

/// Numbers between -2 and 2 without a pattern.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    test_support::noise(n, seed).into_iter().map(|x| 2.0 * x).collect()
}

/// Result, and gradients of queries, keys and values, by the formulas and in f64.
fn twin(shape: AttentionShape<'_>, q: &[f32], k: &[f32], v: &[f32], d_out: &[f32]) -> [Vec<f64>; 4] {
    let (u, t, width, head) = (shape.n_queries, shape.n_keys, shape.width, shape.head());
    let n_rows = q.len() / (u * width);
    let scale = f64::from(shape.scale);
    let [mut out, mut dq, mut dk, mut dv] = [q, q, k, v].map(|x| vec![0f64; x.len()]);
    for b in 0..n_rows {
        for h in 0..shape.n_heads {
            for i in 0..u {
                let query = (b * u + i) * width + h * head;
                let n = shape.sight(shape.n_keys_of(b), None).of(i).end;
                let key = |j: usize| (b * t + j) * width + h * head;
                let dot = |a: &[f32], at: usize, b: &[f32], bt: usize| -> f64 {
                    (0..head).map(|d| f64::from(a[at + d]) * f64::from(b[bt + d])).sum()
                };
                let scores: Vec<f64> = (0..n).map(|j| scale * dot(q, query, k, key(j))).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp() / sum).collect();
                let gradients: Vec<f64> = (0..n).map(|j| dot(d_out, query, v, key(j))).collect();
                let shared: f64 = weights.iter().zip(&gradients).map(|(w, g)| w * g).sum();
                for j in 0..n {
                    let d_score = weights[j] * (gradients[j] - shared) * scale;
                    for d in 0..head {
                        out[query + d] += weights[j] * f64::from(v[key(j) + d]);
                        dv[key(j) + d] += weights[j] * f64::from(d_out[query + d]);
                        dq[query + d] += d_score * f64::from(k[key(j) + d]);
                        dk[key(j) + d] += d_score * f64::from(q[query + d]);
                    }
                }
            }
        }
    }
    [out, dq, dk, dv]
}

#[test]
fn values_and_gradients_are_the_formulas_with_every_instruction_set() {
    // Rows of the batch, queries, keys, heads, their width, causal; several tiles, panels and blocks, whole and in part.
    let cases = [
        (1, 1, 1, 1, 1, false),
        (2, 5, 7, 2, 3, false),
        (2, 13, 13, 2, 8, true),
        (1, 200, 200, 1, 33, true),
        (2, 197, 450, 1, 40, false),
        (1, 3, 400, 2, 64, false),
        (2, 70, 70, 2, 16, true),
    ];
    for (i, (n_rows, n_queries, n_keys, n_heads, head, causal)) in cases.into_iter().enumerate() {
        let width = n_heads * head;
        let scale = (head as f32).powf(-0.5);
        let q = noise(n_rows * n_queries * width, 1);
        let [k, v] = [2, 3].map(|seed| noise(n_rows * n_keys * width, seed));
        let d_out = noise(q.len(), 4);
        let some: Vec<usize> = (0..n_rows).map(|row| (row * 31 + n_keys / 2 + 1).min(n_keys)).collect();
        let none: Vec<usize> = (0..n_rows).map(|row| if row == 0 { 0 } else { n_keys + 9 }).collect();
        for key_lengths in [None, Some(some.as_slice()), Some(none.as_slice())] {
            let shape = AttentionShape { n_queries, n_keys, width, n_heads, scale, causal, key_lengths };
            let expected = twin(shape, &q, &k, &v, &d_out);
            for set in InstructionSet::available() {
                let mut out = vec![f32::NAN; q.len()];
                let log_sums = attention_with(set, shape, None, &q, &k, &v, &mut out);
                let pass = AttentionPass {
                    queries: &q,
                    keys: &k,
                    values: &v,
                    out: &out,
                    log_sums: &log_sums,
                    d_out: &d_out,
                };
                let [dq, dk, dv] = attention_backward_with(set, shape, pass);
                for (name, (ours, expected)) in
                    ["out", "dq", "dk", "dv"].into_iter().zip([out, dq, dk, dv].iter().zip(&expected))
                {
                    for (ours, expected) in ours.iter().zip(expected) {
                        let error = (f64::from(*ours) - expected).abs();
                        assert!(
                            error < 2e-5 * expected.abs().max(1.0),
                            "case {i}, {set:?}, {key_lengths:?}: {name} {ours}, not {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn threads_neighbours_and_padding_do_not_change_a_bit() -> Result<(), rayon::ThreadPoolBuildError> {
    let (n_rows, n_queries, n_keys, n_heads, width) = (2, 250, 420, 2, 32);
    let q = noise(n_rows * n_queries * width, 1);
    let mut k = noise(n_rows * n_keys * width, 2);
    let v = noise(n_rows * n_keys * width, 3);
    let d_out = noise(q.len(), 4);
    let lengths = [n_keys, 300];
    let shape = AttentionShape {
        n_queries,
        n_keys,
        width,
        n_heads,
        scale: 0.25,
        causal: false,
        key_lengths: Some(&lengths),
    };
    let run = |k: &[f32]| {
        let mut out = vec![0.0; q.len()];
        let log_sums = attention(shape, &q, k, &v, &mut out);
        let pass =
            AttentionPass { queries: &q, keys: k, values: &v, out: &out, log_sums: &log_sums, d_out: &d_out };
        let [dq, dk, dv] = attention_backward(shape, pass);
        [out, dq, dk, dv]
    };
    let expected = run(&k);
    for n_threads in [1, 2, 7] {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
        assert!(threads.install(|| run(&k)) == expected, "{n_threads} threads");
    }
    // Another row of the batch and other padding.
    let padding = (n_keys + 300) * width;
    k[padding..].fill(1e3);
    assert!(run(&k) == expected, "padding");
    k[..n_keys * width].fill(0.5);
    for (changed, expected) in run(&k).iter().zip(&expected) {
        let half = expected.len() / 2;
        assert!(changed[half..] == expected[half..], "neighbours");
    }
    Ok(())
}

#[test]
fn caches_are_written_and_read_alike_with_every_instruction_set() {
    for (n_keys, head) in [(1, 1), (33, 64), (70, 20), (200, 65)] {
        let [keys, values] = [1, 2].map(|seed| noise(n_keys * head, seed));
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let mut first: Option<[Vec<u32>; 3]> = None;
            for set in InstructionSet::available() {
                let mut cache = KeysValues::with_capacity(n_keys, head, 1, precision);
                // A part by places, a part by columns.
                let some = 3.min(n_keys) * head;
                cache.append_with(set, &keys[..some], &values[..some]);
                cache.append_with(set, &keys[some..], &values[some..]);
                let mut scratch = Scratch::default();
                scratch.query = noise(head, 3);
                let mut out = vec![f32::NAN; head];
                cache.attend(set, 0, n_keys, &mut scratch, &mut out);
                let bits = [out, cache.keys(), cache.values()]
                    .map(|numbers| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
                assert_eq!(
                    first.get_or_insert_with(|| bits.clone()),
                    &bits,
                    "{set:?}, {precision}, {n_keys}"
                );
            }
        }
    }
}
