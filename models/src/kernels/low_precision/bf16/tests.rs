use super::super::product::Product;
use super::attention::attention_with;
use super::*;
use crate::kernels::attention::{AttentionShape, attention};
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::test_support::noise;
use crate::kernels::weight_rows::rows_of;
use crate::kernels::{Epilogue, Threads};

fn rounded(weight: &[f32], n_out: usize, n_in: usize) -> Bf16Matrix {
    let Ok(rounded) = Bf16Matrix::round(n_out, n_in, rows_of(weight, n_out, n_in));
    rounded
}

fn near(x: f32) -> f64 {
    f64::from(bf16_to_f32(f32_to_bf16(x)))
}

#[test]
fn rounding_is_to_the_nearest_even() {
    for (x, upper) in [
        (1.0f32, 0x3f80u16),
        (f32::from_bits(0x3f80_8000), 0x3f80),
        (f32::from_bits(0x3f81_8000), 0x3f82),
        (f32::from_bits(0x3f80_8001), 0x3f81),
        (f32::MAX, 0x7f80),
        (-0.0, 0x8000),
    ] {
        assert_eq!(f32_to_bf16(x), upper, "{x}");
    }
    assert!(bf16_to_f32(f32_to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
}

#[test]
fn products_are_those_of_rounded_numbers() {
    for (n_out, n_in) in [(1, 1), (1, 0), (70, 0), (1, 37), (31, 1), (32, 64), (33, 400), (70, 769)] {
        let (weight, bias) = (noise(n_out * n_in, 1), noise(n_out, 2));
        let packed = rounded(&weight, n_out, n_in);
        let mut row = vec![0.0; n_in];
        for (i, weight) in weight.chunks(n_in.max(1)).enumerate() {
            packed.copy_row(i, &mut row);
            assert!(row.iter().zip(weight).all(|(row, x)| f64::from(*row) == near(*x)), "row {i}");
        }
        for n_rows in (0..=17).chain([33, 100]) {
            let x = noise(n_rows * n_in, 3);
            let mut rows = Bf16Rows::default();
            rows.set(&x, n_in, n_rows, n_in);
            let (epilogue, threads) = (Epilogue::bias(Some(&bias)), Threads::All);
            for pairs in Bf16Set::available() {
                let mut y = vec![f32::NAN; n_rows * n_out];
                let set = InstructionSet::best();
                Product { weight: &packed, x: &rows, epilogue, threads, dot: pairs, set }.compute(&mut y);
                for (i, y) in y.chunks(n_out).enumerate() {
                    for (j, y) in y.iter().enumerate() {
                        let product = |k: usize| near(x[i * n_in + k]) * near(weight[j * n_in + k]);
                        let expected = (0..n_in).map(product).sum::<f64>() + f64::from(bias[j]);
                        assert!(
                            (f64::from(*y) - expected).abs() < 1e-4,
                            "{pairs:?} {n_out} x {n_in}: {y} {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn attention_is_near_that_of_f32() {
    for (n_queries, n_keys, n_heads, head, lengths) in [
        (1, 1, 1, 64, None),
        (33, 70, 2, 64, Some([70, 0])),
        (100, 1500, 1, 64, None),
        (40, 65, 3, 20, Some([64, 33])),
    ] {
        let width = n_heads * head;
        let (q, k, v) =
            (noise(2 * n_queries * width, 1), noise(2 * n_keys * width, 2), noise(2 * n_keys * width, 3));
        let q: Vec<f32> = q.iter().map(|q| 3.0 * q).collect();
        let shape = AttentionShape {
            n_queries,
            n_keys,
            width,
            n_heads,
            scale: (head as f32).sqrt().recip(),
            causal: false,
            key_lengths: lengths.as_ref().map(|lengths| &lengths[..]),
        };
        let mut expected = vec![0.0; q.len()];
        attention(shape, &q, &k, &v, &mut expected);
        for pairs in Bf16Set::available() {
            let mut out = vec![f32::NAN; q.len()];
            attention_with(pairs, InstructionSet::best(), shape, &q, &k, &v, &mut out);
            let worst = out.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 0.02, "{pairs:?}: {worst}");
        }
    }
}

#[test]
fn a_row_of_attention_is_the_same_alone_and_what_is_no_number_stays_so() {
    let (n_queries, n_keys, head) = (70, 90, 33);
    let (q, k, v) = (noise(n_queries * head, 1), noise(n_keys * head, 2), noise(n_keys * head, 3));
    let shape = |n_queries| AttentionShape {
        n_queries,
        n_keys,
        width: head,
        n_heads: 1,
        scale: 0.2,
        causal: false,
        key_lengths: None,
    };
    for pairs in Bf16Set::available() {
        let attend = |q: &[f32], k: &[f32]| {
            let mut out = vec![0.0; q.len()];
            attention_with(pairs, InstructionSet::best(), shape(q.len() / head), q, k, &v, &mut out);
            out
        };
        let all = attend(&q, &k);
        for i in [0, 31, 32, 69] {
            assert_eq!(attend(&q[i * head..][..head], &k), all[i * head..][..head], "{pairs:?}: {i}");
        }
        let mut damaged = k.clone();
        damaged[40 * head + 3] = f32::NAN;
        assert!(attend(&q, &damaged).iter().all(|x| x.is_nan()), "{pairs:?}");
    }
}

#[test]
fn rows_of_another_shape_forget_the_last_ones() {
    let weight = noise(40 * 50, 1);
    let packed = rounded(&weight, 40, 50);
    let x = noise(3 * 50, 2);
    let multiply = |rows: &Bf16Rows| {
        let mut y = vec![0.0; 3 * 40];
        packed.multiply(rows, Epilogue::default(), Threads::One, &mut y);
        y
    };
    let mut rows = Bf16Rows::default();
    rows.set(&x, 50, 3, 50);
    let expected = multiply(&rows);
    rows.set(&[f32::NAN; 20 * 60], 60, 20, 60);
    rows.set(&x, 50, 3, 50);
    assert_eq!(multiply(&rows), expected);
}
