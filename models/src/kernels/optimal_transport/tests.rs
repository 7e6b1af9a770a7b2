//! Known values, invariants, and what may not be a number.

use proptest::prelude::*;

use super::*;
use crate::kernels::test_support::noise;

/// Enough steps to converge where e is not small.
const CONVERGED: Transport = Transport {
    distance: Distance::HalfSquared,
    blur: 1.0,
    scaling: 0.999,
    reach: None,
    debiased: true,
    position_weight: 0.0,
};

fn set<'a>(points: &'a [f32], lengths: &'a [usize]) -> PointSets<'a> {
    PointSets { points, lengths, weights: None }
}

fn pass(x: &[f32], y: &[f32], width: usize, transport: Transport) -> TransportPass {
    let lengths = [x, y].map(|points| [points.len() / width]);
    optimal_transport(set(x, &lengths[0]), set(y, &lengths[1]), width, transport)
}

fn value(x: &[f32], y: &[f32], width: usize, transport: Transport) -> f64 {
    pass(x, y, width, transport).pairs[0].value
}

/// Potentials of the first order need more steps than values, whose error is of the second.
fn of_epsilon(epsilon: f64) -> Transport {
    Transport { blur: epsilon.sqrt(), scaling: 0.9999, ..CONVERGED }
}

fn assert_near(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < tolerance, "{found}, not {expected}");
    }
}

#[test]
fn values_are_those_of_the_converged_problem() {
    let (x, y) = ([0.0, 1.0], [0.0, 2.0]);
    for (epsilon, divergence, transported) in [
        (1.0, 0.237_240_810, 0.629_885_493),
        (0.25, 0.261_370_445, 0.418_749_313),
        (0.0025, 0.249_999_97, 0.251_732_84),
    ] {
        let transport = of_epsilon(epsilon);
        let found = value(&x, &y, 1, transport);
        assert!((found - divergence).abs() < 2e-6, "{epsilon}: {found}, not {divergence}");
        let found = value(&x, &y, 1, Transport { debiased: false, ..transport });
        assert!((found - transported).abs() < 2e-6, "{epsilon}: {found}, not {transported}");
    }
    let own = Transport { debiased: false, ..of_epsilon(1.0) };
    assert!((value(&x, &x, 1, own) - 0.219_070_196).abs() < 1e-6);
    assert!((value(&y, &y, 1, own) - 0.566_219_170).abs() < 1e-6);
    // Single points.
    for blur in [0.05, 1.0, 10.0] {
        assert!((value(&[1.0, 2.0], &[4.0, 6.0], 2, Transport { blur, ..CONVERGED }) - 12.5).abs() < 1e-5);
    }
}

#[test]
fn gradients_are_those_of_the_converged_problem() {
    let x = [0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 1.0];
    let y = [0.5, 0.0, 2.5, 0.5];
    let biased = Transport { debiased: false, ..of_epsilon(1.0) };
    let found = pass(&x, &y, 2, biased);
    assert!((found.pairs[0].value - 0.704_519_779).abs() < 1e-6);
    let expected = [
        -0.147_851_2,
        -0.005_712_8,
        -0.005_688_6,
        -0.032_672_2,
        0.013_321_2,
        -0.090_419_7,
        0.140_218_6,
        0.128_804_7,
    ];
    assert_near(&found.gradients[0], &expected, 2e-5);
    let found = pass(&x, &y, 2, of_epsilon(1.0));
    assert!((found.pairs[0].value - 0.032_285_616).abs() < 1e-6);
    let expected =
        [-0.033_069, -0.004_572, 0.005_703, -0.021_576, -0.033_873, -0.037_056, 0.061_239, 0.063_204];
    assert_near(&found.gradients[0], &expected, 2e-5);
    assert!((value(&x, &y, 2, of_epsilon(0.25)) - 0.115_094_831).abs() < 2e-6);
    assert!(
        (value(&x, &y, 2, Transport { debiased: false, ..of_epsilon(0.25) }) - 0.358_517_618).abs() < 2e-6
    );
}

#[test]
fn gradients_are_differences_of_values_once_it_has_converged() {
    for (distance, position_weight, reach) in [
        (Distance::HalfSquared, 0.0, None),
        (Distance::HalfSquared, 0.7, Some(1.5)),
        (Distance::Euclidean, 0.0, None),
        (Distance::Euclidean, 0.5, Some(2.0)),
    ] {
        for debiased in [true, false] {
            let transport = Transport { distance, position_weight, reach, debiased, ..CONVERGED };
            let (x, y) = (noise(5 * 3, 1), noise(4 * 3, 2));
            let found = pass(&x, &y, 3, transport);
            for (side, n) in [(0, x.len()), (1, y.len())] {
                for at in 0..n {
                    let moved = |by: f32| {
                        let mut sets = [x.clone(), y.clone()];
                        sets[side][at] += by;
                        value(&sets[0], &sets[1], 3, transport)
                    };
                    let step = 1.0 / 64.0;
                    let expected = (moved(step) - moved(-step)) / 2.0 / f64::from(step);
                    let gradient = f64::from(found.gradients[side][at]);
                    assert!(
                        (gradient - expected).abs() < 1e-3,
                        "{transport:?} {side} {at}: {gradient}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_of_a_batch_are_what_they_are_alone_whatever_padding_holds() {
    let (width, s, t) = (20, 9, 7);
    let lengths = [[9, 4, 1, 0, 6], [7, 7, 3, 5, 0]];
    let (mut x, mut y) = (noise(5 * s * width, 3), noise(5 * t * width, 4));
    for (points, n, lengths) in [(&mut x, s, lengths[0]), (&mut y, t, lengths[1])] {
        for (row, length) in points.chunks_mut(n * width).zip(lengths) {
            row[length * width..]
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = if i % 2 == 0 { f32::NAN } else { 1e30 });
        }
    }
    for debiased in [true, false] {
        let transport = Transport { position_weight: 1.0, debiased, ..Transport::default() };
        let all = optimal_transport(set(&x, &lengths[0]), set(&y, &lengths[1]), width, transport);
        for row in 0..5 {
            let [n, m] = [lengths[0][row], lengths[1][row]];
            let (x, y) = (&x[row * s * width..][..n * width], &y[row * t * width..][..m * width]);
            let alone = pass(x, y, width, transport);
            assert_eq!(all.pairs[row], alone.pairs[0]);
            for (all, alone, step) in
                [(&all.gradients[0], &alone.gradients[0], s), (&all.gradients[1], &alone.gradients[1], t)]
            {
                let row = &all[row * step * width..][..step * width];
                assert_eq!(&row[..alone.len()], alone.as_slice());
                assert!(row[alone.len()..].iter().all(|x| *x == 0.0));
            }
            // Where there is nothing there is nothing to move.
            assert!(n * m > 0 || alone.pairs[0] == PairCost::default());
        }
    }
}

#[test]
fn points_may_be_split_and_those_without_weight_are_not_there() {
    let (x, y) = (noise(4 * 2, 5), noise(3 * 2, 6));
    let whole = pass(&x, &y, 2, CONVERGED);
    // The first one twice at half of its weight, and one of no weight far away.
    let split = [&x[..2], &x, &[900.0, -900.0]].concat();
    let weights = [0.125, 0.125, 0.25, 0.25, 0.25, 0.0];
    let sets = PointSets { points: &split, lengths: &[6], weights: Some(&weights) };
    // The size of the box is another, and so is the schedule: it has converged all the same.
    let found = optimal_transport(sets, set(&y, &[3]), 2, CONVERGED);
    assert!((found.pairs[0].value - whole.pairs[0].value).abs() < 1e-5);
    let [dx, of_whole] = [&found.gradients[0], &whole.gradients[0]];
    for (found, expected) in [(dx[0] + dx[2], of_whole[0]), (dx[4], of_whole[2])] {
        assert!((found - expected).abs() < 2e-5, "{found}, not {expected}");
    }
    assert_eq!(dx[10..], [0.0; 2]);
}

#[test]
fn every_instruction_set_finds_the_same() {
    let (width, n, m) = (33, 21, 14);
    let (x, y) = (noise(n * width, 7), noise(m * width, 8));
    let transport = Transport { position_weight: 1.0, ..Transport::default() };
    let mut first: Option<(PairCost, Vec<f32>)> = None;
    for set in InstructionSet::available() {
        let points = |points, n: usize| PointSet { points, weights: vec![(n as f64).recip(); n] };
        let (mut dx, mut dy) = (vec![0.0; n * width], vec![0.0; m * width]);
        let pair = move_pair(set, &points(&x, n), &points(&y, m), width, transport, [&mut dx, &mut dy]);
        let found = (pair, [dx, dy].concat());
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{set:?}");
    }
}

#[test]
fn a_heavy_position_moves_sets_in_order() {
    // Features say the contrary.
    let (n, m) = (12, 5);
    let x: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
    let y: Vec<f32> = (0..m).map(|j| j as f32).collect();
    let transport = Transport { position_weight: 100.0, debiased: false, ..Transport::default() };
    let costs = Costs::new(&x, &y, 1, &transport);
    let weights = [vec![1.0 / n as f64; n], vec![1.0 / m as f64; m]];
    let problem = Problem::new(&weights[0], &weights[1], &costs, transport);
    let duals = solve(InstructionSet::best(), &problem);
    let plan = problem.plan(InstructionSet::best(), &duals.across[0], true);
    let places =
        plan.pulls.chunks(m).map(|row| (0..m).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0));
    assert!(places.clone().is_sorted() && places.collect::<std::collections::BTreeSet<_>>().len() == m);
    let (feature, position) = problem.moved(&plan);
    assert!(feature > 0.0 && position > 0.0 && position < 100.0, "{feature} and {position}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn divergences_are_symmetric_unmoved_and_numbers(
        n in 1usize..9, m in 1usize..9, width in 1usize..20, seed in 0u32..1000, scale in -3i32..4,
        is_far in any::<bool>(), is_squared in any::<bool>(), position_weight in prop::sample::select(vec![0.0, 1.0]),
    ) {
        let scale = 10f32.powi(scale);
        let distance = if is_squared { Distance::HalfSquared } else { Distance::Euclidean };
        let transport = Transport { distance, position_weight, ..Transport::default() };
        let scaled = |n: usize, seed: u32| -> Vec<f32> { noise(n * width, seed).iter().map(|x| x * scale).collect() };
        let (x, mut y) = (scaled(n, seed), scaled(m, seed + 1));
        if is_far {
            y.iter_mut().for_each(|y| *y += 3.0 * scale);
        }
        let found = pass(&x, &y, width, transport);
        let size = found.pairs[0].value.abs().max(1e-3);
        prop_assert!(found.pairs[0].value.is_finite());
        prop_assert!(found.gradients.iter().flatten().all(|x| x.is_finite()));
        prop_assert!((value(&y, &x, width, transport) - found.pairs[0].value).abs() < 1e-3 * size);
        let same = value(&x, &x, width, transport);
        prop_assert!(same.abs() < 1e-5 * f64::from(scale).powi(2).max(1.0), "{same} from itself");
        // Both moved by as much.
        let moved = |points: &[f32]| -> Vec<f32> { points.iter().map(|x| x + 2.0 * scale).collect() };
        let elsewhere = value(&moved(&x), &moved(&y), width, transport);
        prop_assert!((elsewhere - found.pairs[0].value).abs() < 2e-3 * size, "{elsewhere} and {size}");
    }
}
