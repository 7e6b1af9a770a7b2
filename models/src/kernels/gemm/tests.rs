use super::packed::Product;
use super::*;
use crate::kernels::activation::{Activation, activate};
use crate::kernels::epilogue::PostOp;
use crate::kernels::weight_rows::rows_of;

fn packed(weight: &[f32], n_out: usize, n_in: usize) -> PackedMatrix {
    let Ok(packed) = PackedMatrix::pack(n_out, n_in, rows_of(weight, n_out, n_in));
    packed
}

fn waves(n: usize, phase: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
}

/// What a product is, without blocks, panels and threads.
fn twin(x: &[f32], weight: &[f32], n_in: usize, bias: Option<&[f32]>, n_rows: usize) -> Vec<f32> {
    let n_out = weight.len().checked_div(n_in).unwrap_or(bias.map_or(0, <[f32]>::len));
    let output = |i: usize, j: usize| {
        let (x, weight) = (&x[i * n_in..][..n_in], &weight[j * n_in..][..n_in]);
        let sum = x.iter().zip(weight).fold(0f32, |sum, (x, weight)| x.mul_add(*weight, sum));
        bias.map_or(sum, |bias| sum + bias[j])
    };
    (0..n_rows).flat_map(|i| (0..n_out).map(move |j| (i, j))).map(|(i, j)| output(i, j)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_instruction_set_equals_the_twin_to_the_bit() {
    let shapes = [
        (1, 1),
        (1, 0),
        (5, 0),
        (1, 37),
        (31, 1),
        (32, 64),
        (33, 400),
        (64, 385),
        (70, 769),
        (97, 13),
        (40, 2),
        (64, 403),
    ];
    for (n_out, n_in) in shapes {
        let weight = waves(n_out * n_in, 0.1);
        let bias = waves(n_out, 0.2);
        let packed = packed(&weight, n_out, n_in);
        for n_rows in (0..=17).chain([100]) {
            let x = waves(n_rows * n_in, 0.3);
            for bias in [None, Some(bias.as_slice())] {
                let mut expected = twin(&x, &weight, n_in, bias, n_rows);
                expected.resize(n_rows * n_out, 0.0); // without inputs and bias
                for set in InstructionSet::available() {
                    let mut y = vec![f32::NAN; n_rows * n_out];
                    let (epilogue, threads) = (Epilogue::bias(bias), Threads::All);
                    Product { weight: &packed, x: &x, step: n_in, epilogue, threads, set }.compute(&mut y);
                    assert_eq!(bits(&y), bits(&expected), "{set:?}: {n_rows} rows, {n_out} x {n_in}");
                }
            }
        }
    }
}

#[test]
fn threads_and_neighbouring_rows_do_not_change_a_bit() -> Result<(), rayon::ThreadPoolBuildError> {
    let (n_rows, n_out, n_in) = (230, 333, 900);
    let (x, weight) = (waves(n_rows * n_in, 0.1), waves(n_out * n_in, 0.2));
    let packed = packed(&weight, n_out, n_in);
    let expected = twin(&x, &weight, n_in, None, n_rows);
    for n_threads in [1, 2, 5] {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
        for rows in [0..1, 3..5, 7..20, 60..230, 0..230] {
            let mut y = vec![f32::NAN; rows.len() * n_out];
            let x = &x[rows.start * n_in..rows.end * n_in];
            threads.install(|| packed.multiply(x, n_in, Epilogue::default(), Threads::All, &mut y));
            let expected = &expected[rows.start * n_out..rows.end * n_out];
            assert_eq!(bits(&y), bits(expected), "{n_threads} threads, {rows:?}");
        }
    }
    Ok(())
}

#[test]
fn windows_may_overlap() {
    let (n_rows, n_out, n_in, step) = (29, 40, 12, 5);
    let x = waves((n_rows - 1) * step + n_in, 0.1);
    let rows: Vec<f32> = (0..n_rows).flat_map(|i| x[i * step..][..n_in].to_vec()).collect();
    let packed = packed(&waves(n_out * n_in, 0.2), n_out, n_in);
    let (mut y, mut expected) = (vec![0.0; n_rows * n_out], vec![0.0; n_rows * n_out]);
    packed.multiply(&x, step, Epilogue::default(), Threads::All, &mut y);
    packed.multiply(&rows, n_in, Epilogue::default(), Threads::One, &mut expected);
    assert_eq!(y, expected);
}

#[test]
fn products_end_as_they_are_asked_to() {
    // Within one block, and more inputs than are summed at once.
    for (n_rows, n_out, n_in) in [(30, 70, 50), (30, 70, MAX_BLOCK + 5)] {
        let (x, weight) = (waves(n_rows * n_in, 0.1), waves(n_out * n_in, 0.2));
        let (bias, before) = (waves(n_out, 0.3), waves(n_rows * n_out, 0.4));
        let packed = packed(&weight, n_out, n_in);
        let product = twin(&x, &weight, n_in, Some(&bias), n_rows);
        let curved = activate(Activation::Gelu, &product);
        let added: Vec<f32> = product.iter().zip(&before).map(|(product, before)| product + before).collect();
        for (post_op, expected) in
            [(PostOp::None, product), (PostOp::Activate(Activation::Gelu), curved), (PostOp::Add, added)]
        {
            for set in InstructionSet::available() {
                let mut y = before.clone();
                let (epilogue, threads) = (Epilogue { bias: Some(&bias), post_op }, Threads::All);
                Product { weight: &packed, x: &x, step: n_in, epilogue, threads, set }.compute(&mut y);
                assert_eq!(bits(&y), bits(&expected), "{set:?}, {post_op:?}, {n_in} inputs");
            }
        }
    }
}

#[test]
fn a_packed_weight_is_read_back() {
    for (n_out, n_in) in [(1, 1), (33, 17), (64, 40), (0, 3), (3, 0)] {
        let weight = waves(n_out * n_in, 0.4);
        let packed = packed(&weight, n_out, n_in);
        let mut row = vec![0.0; n_in];
        for i in 0..n_out {
            packed.copy_row(i, &mut row);
            assert_eq!(row, &weight[i * n_in..][..n_in]);
        }
    }
}

#[test]
fn estimates_do_not_overflow() {
    assert!(estimated_nanos(usize::MAX / 8, usize::MAX / 8) > MIN_TASK_NANOS);
}

/// The matrix `(i, j) -> value` as it lies in memory when its rows begin every `step` values.
fn laid_out(n_rows: usize, n_columns: usize, step: usize, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut values = vec![f32::NAN; if n_rows == 0 { 0 } else { (n_rows - 1) * step + n_columns }];
    for i in 0..n_rows {
        for j in 0..n_columns {
            values[i * step + j] = value(i, j);
        }
    }
    values
}

#[test]
fn matrices_either_way_round_give_the_bits_of_the_packed_product() {
    let value = |i: usize, j: usize| ((i * 31 + j * 17) as f32 * 0.37).sin();
    let shapes = [
        (1, 1, 1),
        (3, 40, 0),
        (5, 64, 0),
        (13, 33, 37),
        (200, 70, 40),
        (17, 16, 801),
        (385, 1, 64),
        (7, 1000, 401),
        (600, 64, 0),
    ];
    for (m, n, k) in shapes {
        let x: Vec<f32> = (0..m * k).map(|i| value(i / k.max(1), i % k.max(1))).collect();
        let weight: Vec<f32> = (0..n * k).map(|i| value(i % k.max(1), i / k.max(1))).collect();
        let bias = waves(n, 0.2);
        let mut expected = twin(&x, &weight, k, Some(&bias), m);
        if k == 0 {
            expected = bias.repeat(m);
        }
        let a = [laid_out(m, k, k + 3, value), laid_out(k, m, m + 2, |j, i| value(i, j))];
        let b = [laid_out(k, n, n + 5, value), laid_out(n, k, k + 1, |j, i| value(i, j))];
        let a = [Matrix::with_step(&a[0], m, k, k + 3), Matrix::with_step(&a[1], k, m, m + 2).t()];
        let b = [Matrix::with_step(&b[0], k, n, n + 5), Matrix::with_step(&b[1], n, k, k + 1).t()];
        for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (*a, *b))) {
            for set in InstructionSet::available() {
                let product = product::Product { a, b, bias: Some(&bias), resumed: false, set };
                let mut out = vec![f32::NAN; m * n];
                product.compute(&mut out, n);
                assert_eq!(bits(&out), bits(&expected), "{set:?}: {m} x {n} x {k}");
                assert_eq!(bits(&product.collect()), bits(&expected), "{set:?}: {m} x {n} x {k}");
                // Added to what is there, between values that are not the product's.
                let step = n + 2;
                let mut wide = vec![1f32; m * step];
                product::Product { resumed: true, ..product }.compute(&mut wide, step);
                for (i, (row, expected)) in wide.chunks(step).zip(expected.chunks(n)).enumerate() {
                    assert_eq!(row[n..], [1.0; 2], "{set:?} row {i}");
                    for (value, expected) in row.iter().zip(expected) {
                        assert!((value - 1.0 - expected).abs() < 1e-4, "{set:?}: {m} x {n} x {k}");
                    }
                }
            }
        }
    }
}

#[test]
fn products_of_matrices_do_not_depend_on_the_number_of_threads() -> Result<(), rayon::ThreadPoolBuildError> {
    // Panels that are kept, with one block and several, and more than are kept or packed at once; one panel for many threads.
    for (m, n, k) in [(500, 333, 300), (600, 512, 402), (400, 1000, 1100), (700, 20, 900)] {
        let (x, weight) = (waves(k * m, 0.1), waves(k * n, 0.2));
        let (a, b) = (Matrix::new(&x, k, m).t(), Matrix::new(&weight, k, n));
        let rows: Vec<f32> = (0..m * k).map(|i| x[i % k * m + i / k]).collect();
        let columns: Vec<f32> = (0..n * k).map(|i| weight[i % k * n + i / k]).collect();
        let mut expected = vec![0.0; m * n];
        let packed = packed(&columns, n, k);
        packed.multiply(&rows, k, Epilogue::default(), Threads::One, &mut expected);
        for n_threads in [1, 2, 7] {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
            threads.install(|| {
                let mut y = vec![0.0; m * n];
                multiply_add(a, b, None, &mut y, n);
                assert_eq!(bits(&y), bits(&expected), "{m} x {n} x {k}, {n_threads} threads");
                // Whose panels a thread has kept, it knows.
                let (y, other) = rayon::join(|| product(a, b, None), || product(a.t(), a, None));
                assert_eq!(bits(&y), bits(&expected), "{m} x {n} x {k}, {n_threads} threads");
                assert_eq!(bits(&other), bits(&product(Matrix::new(&rows, m, k).t(), a, None)));
            });
        }
    }
    Ok(())
}

#[test]
fn no_task_is_larger_than_what_its_rows_are_copied_to() -> Result<(), rayon::ThreadPoolBuildError> {
    for n_threads in [1, 2, 16, 64] {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
        for (m, n, k) in [(1, 1, 1), (6000, 2048, 384), (1500, 384, 384), (384, 8, 6000), (577, 5187, 384)] {
            let (a, b) = (vec![0.0; m * k], vec![0.0; k * n]);
            let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            let product =
                product::Product { a, b, bias: None, resumed: false, set: InstructionSet::Portable };
            let mut out = vec![0.0; m * n];
            let tasks = threads.install(|| product.cut()).tasks(&mut out, n, n);
            let about = format!("{m} x {n} x {k}, {n_threads} threads: {} tasks", tasks.len());
            assert!(tasks.iter().all(|task| !task.rows.is_empty() && task.rows.len() <= 288), "{about}");
            assert!(tasks.iter().all(|task| !task.panels.is_empty()), "{about}");
            assert_eq!(tasks.iter().flat_map(|task| &task.out).map(|row| row.len()).sum::<usize>(), m * n);
            assert!(tasks.len() <= 16 * n_threads.max(m / 288 + 1), "{about}");
            assert!(m * n * k < 1 << 26 || tasks.len() >= n_threads.min(m), "{about}");
        }
    }
    Ok(())
}
