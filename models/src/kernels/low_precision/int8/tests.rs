use super::super::product::Product;
use super::super::{Group, Line, Ready, Rows, Sums};
use super::*;
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::test_support::noise;
use crate::kernels::weight_rows::rows_of;
use crate::kernels::{Activation, Epilogue, PostOp, Threads};

fn quantised(weight: &[f32], n_out: usize, n_in: usize) -> Int8Matrix {
    let Ok(quantised) = Int8Matrix::quantise(n_out, n_in, rows_of(weight, n_out, n_in));
    quantised
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Every row and column counted by itself, in 64 bits.
#[test]
fn sums_of_every_instruction_set_are_exact() {
    let extremes = [0u8, 1, 127, 128, 129, 255];
    let weights = [-127i8, -1, 0, 1, 127];
    for n_lines in [1, 2, 5, 16] {
        for n_rows in (1..=33).chain([48, 96]) {
            let is_extreme = n_rows % 3 == 0;
            let byte =
                |i: usize| if is_extreme { 255 } else { extremes[(i * 7 + i / 5 + n_rows) % extremes.len()] };
            let weight = |i: usize| if is_extreme { 127 } else { weights[(i * 3 + i / 7) % weights.len()] };
            let stride = Rows::stride(n_lines);
            let line =
                |i: usize| Line(std::array::from_fn(|g| std::array::from_fn(|b| byte(i * 64 + g * 4 + b))));
            let lines: Vec<Line> = (0..n_rows.next_multiple_of(16) * stride).map(line).collect();
            let group = |i: usize| {
                Group(std::array::from_fn(|j| {
                    std::array::from_fn(|b| weight(i * 128 + j * 4 + b).cast_unsigned())
                }))
            };
            let panel: Vec<Group> = (0..n_lines * LINE_GROUPS).map(group).collect();
            for set in Int8Set::available() {
                let mut sums = vec![Sums([i32::MAX; 32]); n_rows];
                Ready::new(set).multiply(Rows { lines: &lines, stride }, &panel, &mut sums);
                for (i, sums) in sums.iter().enumerate() {
                    for (j, sum) in sums.0.iter().enumerate() {
                        let product = |k: usize| {
                            let x = lines[i * stride + k / LINE].0[k % LINE / 4][k % 4];
                            i64::from(x) * i64::from(panel[k / 4].0[j][k % 4].cast_signed())
                        };
                        let expected = (0..n_lines * LINE).map(product).sum::<i64>();
                        assert_eq!(
                            i64::from(*sum),
                            expected,
                            "{set:?}: {n_rows} rows, {n_lines} lines: {i}, {j}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn products_are_near_those_of_numbers_and_the_same_to_the_bit_everywhere() {
    for (n_out, n_in) in
        [(1, 1), (1, 0), (70, 0), (1, 37), (31, 1), (32, 64), (33, 400), (64, 385), (70, 769)]
    {
        let (weight, bias) = (noise(n_out * n_in, 1), noise(n_out, 2));
        let packed = quantised(&weight, n_out, n_in);
        for n_rows in (0..=17).chain([100]) {
            let x = noise(n_rows * n_in, 3);
            let mut rows = Int8Rows::default();
            rows.set(&x, n_in, n_rows, n_in);
            for bias in [None, Some(bias.as_slice())] {
                let epilogue = Epilogue::bias(bias);
                let mut first: Option<Vec<f32>> = None;
                for dot in Int8Set::available() {
                    for set in InstructionSet::available() {
                        let mut y = vec![f32::NAN; n_rows * n_out];
                        let threads = Threads::All;
                        Product { weight: &packed, x: &rows, epilogue, threads, dot, set }.compute(&mut y);
                        let first = first.get_or_insert_with(|| y.clone());
                        assert_eq!(bits(&y), bits(first), "{dot:?} {set:?}: {n_rows} rows, {n_out} x {n_in}");
                    }
                }
                for (i, y) in first.unwrap_or_default().chunks(n_out).enumerate() {
                    for (j, y) in y.iter().enumerate() {
                        let product = |k: usize| f64::from(x[i * n_in + k]) * f64::from(weight[j * n_in + k]);
                        let expected =
                            (0..n_in).map(product).sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[j]));
                        let error = (f64::from(*y) - expected).abs();
                        assert!(error < 0.01 * (1.0 + (n_in as f64).sqrt()), "{n_out} x {n_in}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    let (n_rows, n_out, n_in) = (130, 333, 900);
    let (x, weight) = (noise(n_rows * n_in, 1), noise(n_out * n_in, 2));
    let packed = quantised(&weight, n_out, n_in);
    let multiply = |x: &[f32]| {
        let mut rows = Int8Rows::default();
        rows.set(x, n_in, x.len() / n_in, n_in);
        let mut y = vec![0.0; rows.n_rows() * n_out];
        let epilogue = Epilogue { post_op: PostOp::Activate(Activation::Gelu), ..Epilogue::default() };
        packed.multiply(&rows, epilogue, Threads::All, &mut y);
        y
    };
    let all = multiply(&x);
    for rows in [0..1, 3..5, 7..20, 60..130] {
        let some = multiply(&x[rows.start * n_in..rows.end * n_in]);
        assert_eq!(bits(&some), bits(&all[rows.start * n_out..rows.end * n_out]), "{rows:?}");
    }
}

#[test]
fn what_is_not_finite_stays_so_in_its_row_alone() {
    let weight = noise(40 * 50, 1);
    let packed = quantised(&weight, 40, 50);
    let mut rows = Int8Rows::default();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = noise(3 * 50, 2);
        x[57] = bad;
        let mut y = vec![0.0; 3 * 40];
        rows.set(&x, 50, 3, 50);
        packed.multiply(&rows, Epilogue::default(), Threads::One, &mut y);
        assert!(y[..40].iter().chain(&y[80..]).all(|y| y.is_finite()));
        assert!(y[40..80].iter().all(|y| !y.is_finite()), "{bad}");
    }
    let mut y = vec![1.0; 40];
    rows.set(&[0.0; 50], 50, 1, 50);
    packed.multiply(&rows, Epilogue::default(), Threads::One, &mut y);
    assert_eq!(y, [0.0; 40]);
}

#[test]
fn a_weight_is_read_back_as_it_was_rounded() {
    for (n_out, n_in) in [(1, 1), (33, 70), (64, 128)] {
        let weight = noise(n_out * n_in, 4);
        let packed = quantised(&weight, n_out, n_in);
        let mut row = vec![0.0; n_in];
        for (i, weight) in weight.chunks(n_in).enumerate() {
            packed.copy_row(i, &mut row);
            let largest = weight.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            assert!(row.iter().zip(weight).all(|(row, x)| (row - x).abs() <= largest / 253.0), "row {i}");
        }
    }
}

#[test]
fn rows_of_another_shape_forget_the_last_ones() {
    let packed = quantised(&noise(40 * 50, 1), 40, 50);
    let x = noise(3 * 50, 2);
    let multiply = |rows: &Int8Rows| {
        let mut y = vec![0.0; 3 * 40];
        packed.multiply(rows, Epilogue::default(), Threads::One, &mut y);
        y
    };
    let mut rows = Int8Rows::default();
    rows.set(&x, 50, 3, 50);
    let expected = multiply(&rows);
    rows.set(&[f32::NAN; 20 * 60], 60, 20, 60);
    rows.set(&x, 50, 3, 50);
    assert_eq!(multiply(&rows), expected);
}
