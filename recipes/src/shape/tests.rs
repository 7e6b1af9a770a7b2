mod input;

use serde_json::Value;

use super::cost::Line;
use super::plan::recommendation;
use super::scaling::Scaling;
use super::split::{Constraint, best_depths, best_share};
use super::warning::warnings;
use super::*;
use crate::fixtures::committed;
use crate::metrics::Resampling;

const LAYERS: [usize; 3] = [1, 2, 4];
/// What blocks share, and a block.
const ENCODER: Line = Line { fixed: 120_000.0, slope: 790_000.0 };
const DECODER: Line = Line { fixed: 1_000.0, slope: 1_050_000.0 };

/// Normal deviates of a small generator: the tests' own, so that they stay what they are.
struct Deviates(u64);

impl Deviates {
    fn uniform(&mut self) -> f64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Models of these depths, two seeds each, that lose what a law says, and noise.
fn grid(alpha: f64, exponents: [f64; 2], floor: f64, noise: f64, deviates: &mut Deviates) -> Vec<ShapeRun> {
    let mut runs = Vec::new();
    for (encoder_layers, decoder_layers) in LAYERS.iter().flat_map(|e| LAYERS.map(|d| (*e, d))) {
        for seed in 0..2 {
            runs.push(ShapeRun {
                encoder_params: ENCODER.at(encoder_layers as f64) as u64,
                decoder_params: DECODER.at(decoder_layers as f64) as u64,
                encoder_layers: Some(encoder_layers),
                decoder_layers: Some(decoder_layers),
                seed: Some(seed),
                ..ShapeRun::default()
            });
        }
    }
    let mean = |of: &dyn Fn(&ShapeRun) -> u64| {
        (runs.iter().map(|run| (of(run) as f64).ln()).sum::<f64>() / runs.len() as f64).exp()
    };
    let normalisers = [mean(&|run| run.encoder_params), mean(&|run| run.decoder_params)];
    let law = Law { normalisers, alpha, exponents, floor };
    for run in &mut runs {
        run.loss = Some(law.loss(run.sizes()) + noise * deviates.normal());
    }
    runs
}

fn exact(alpha: f64, exponents: [f64; 2], floor: f64) -> Vec<ShapeRun> {
    grid(alpha, exponents, floor, 0.0, &mut Deviates(0))
}

fn plan(runs: &[ShapeRun], budgets: &[Budget]) -> ShapePlan {
    let resampling = Resampling { n_samples: 100, ..Resampling::default() };
    let options = ShapeOptions { resampling, ..ShapeOptions::default() };
    plan_shape(runs, budgets, &options).expect("a plan")
}

fn assert_near(value: f64, expected: f64, share: f64, what: &str) {
    assert!((value - expected).abs() <= share * expected.abs(), "{what}: {value}, not {expected}");
}

#[test]
fn without_noise_every_parameter_is_recovered() {
    for (alpha, exponents, floor) in
        [(0.8, [0.35, 0.2], 1.4), (0.5, [0.1, 0.6], 2.5), (2.0, [0.25, 0.25], 0.3), (0.05, [0.5, 0.4], 1.0)]
    {
        let plan = plan(&exact(alpha, exponents, floor), &[]);
        for (estimate, expected, what) in [
            (plan.alpha, alpha, "alpha"),
            (plan.encoder_exponent, exponents[0], "p_e"),
            (plan.decoder_exponent, exponents[1], "p_d"),
            (plan.floor, floor, "floor"),
        ] {
            assert_near(estimate.value, expected, 0.01, what);
            let interval = estimate.interval.expect("an interval");
            assert!(interval.low <= estimate.value + 1e-9 && estimate.value <= interval.high + 1e-9);
        }
        assert!(plan.r_squared > 0.999_999);
        let left_out = plan.hold_out.expect("enough others");
        assert_near(left_out.predicted, left_out.actual, 1e-3, "the largest model");
        assert_eq!((left_out.n_runs, left_out.encoder_params), (2, ENCODER.at(4.0) as u64));
    }
}

#[test]
fn laws_are_those_that_scipy_finds() {
    let fixture = committed("shape.json").expect("a fixture");
    let number = |value: &Value| value.as_f64().expect("a number");
    for case in fixture["cases"].as_array().expect("cases") {
        let (name, delta) = (case["name"].as_str().expect("a name"), number(&case["huber_delta"]));
        let runs = case["runs"].as_array().expect("runs");
        let points: Vec<Point<2>> =
            runs.iter().map(|run| ([number(&run[0]), number(&run[1])], number(&run[2]))).collect();
        let totals: Vec<Point<1>> =
            points.iter().map(|(sizes, loss)| ([sizes[0] + sizes[1]], *loss)).collect();
        same(name, &case["law"], &fit(&points, Some(delta)));
        same(name, &case["total"], &fit(&totals, Some(delta)));
    }
}

/// The objective is the proof; where it is flat its parameters may differ.
fn same<const K: usize>(name: &str, expected: &Value, fitted: &Fitted<K>) {
    let delta = fitted.huber_delta;
    let huber = |residual: &f64| match residual.abs() {
        size if size <= delta => 0.5 * size * size,
        size => delta * (size - 0.5 * delta),
    };
    let objective: f64 = fitted.residuals.iter().map(huber).sum();
    let number = |value: &Value| value.as_f64().expect("a number");
    assert_near(objective, number(&expected["objective"]), 1e-6, name);
    let law = &fitted.law;
    let mut pairs = vec![(law.alpha, number(&expected["alpha"])), (law.floor, number(&expected["floor"]))];
    pairs.extend((0..K).map(|k| (law.exponents[k], number(&expected["exponents"][k]))));
    for (value, expected) in pairs {
        assert!((value - expected).abs() < 2e-3 * (1.0 + expected), "{name}: {value}, not {expected}");
    }
}

#[test]
fn intervals_hold_the_truth_about_as_often_as_they_say() {
    const GRIDS: u64 = 60;
    let truth = (0.8, [0.35, 0.2], 1.4);
    let mut n_inside = [0; 3];
    for index in 0..GRIDS {
        let runs = grid(truth.0, truth.1, truth.2, 0.003, &mut Deviates(index));
        let plan = plan(&runs, &[]);
        let estimates = [plan.encoder_exponent, plan.decoder_exponent, plan.floor];
        for (inside, (estimate, truth)) in
            n_inside.iter_mut().zip(estimates.into_iter().zip([truth.1[0], truth.1[1], truth.2]))
        {
            let interval = estimate.interval.expect("an interval");
            *inside += u32::from(interval.low <= truth && truth <= interval.high);
        }
        assert!(plan.r_squared > 0.99, "{}", plan.r_squared);
        let noise = plan.noise.run_to_run.expect("two seeds");
        assert!((0.001..0.006).contains(&noise), "{noise}");
    }
    // 95 % of 60 are 57; 51 or fewer would be chance in one of 200.
    assert!(n_inside.iter().all(|n| *n >= 52), "{n_inside:?} of {GRIDS}");
}

#[test]
fn intervals_are_the_same_again() {
    let runs = grid(0.8, [0.35, 0.2], 1.4, 0.01, &mut Deviates(7));
    let intervals = || {
        let plan = plan(&runs, &[Budget::Params(2e7)]);
        (plan.alpha, plan.floor, plan.recommendations[0].encoder_params)
    };
    assert_eq!(intervals(), intervals());
}

#[test]
fn the_gap_of_a_split_is_that_of_the_sheet() {
    // Methods sheet: p = (0.2, 0.3), a budget of 100, normalisers of 50.
    let law = Law { normalisers: [50.0; 2], alpha: 1.0, exponents: [0.2, 0.3], floor: 0.0 };
    let constraint = Constraint { costs: [1.0; 2], available: 100.0 };
    assert_near(best_share(&law).expect("a share"), 0.4, 1e-12, "share");
    for (share, expected) in [(0.4, 0.989_98), (0.5, 1.0), (0.2, 1.043_2), (0.8, 1.198_3)] {
        let reducible = law.reducible(constraint.sizes(share));
        assert!((reducible - expected).abs() < 5e-5, "{share}: {reducible}, not {expected}");
    }
}

#[test]
fn the_best_split_is_that_of_a_search() {
    for (exponents, costs) in [
        ([0.2, 0.3], [1.0, 1.0]),
        ([0.35, 0.1], [1.0, 1.0]),
        ([0.2, 0.3], [2e-9, 9e-8]),
        ([0.25, 0.25], [1e-9, 5e-8]),
    ] {
        let law = Law { normalisers: [1e6, 2e6], alpha: 0.7, exponents, floor: 1.2 };
        let constraint = Constraint { costs, available: 0.3 };
        let losses = (1..100_000).map(|place| {
            let share = f64::from(place) / 100_000.0;
            (share, law.loss(constraint.sizes(share)))
        });
        let (searched, lowest) = losses.min_by(|a, b| a.1.total_cmp(&b.1)).expect("some");
        let share = best_share(&law).expect("a share");
        assert!((share - searched).abs() < 2e-4, "{share}, not {searched}");
        assert!(law.loss(constraint.sizes(share)) <= lowest + 1e-12);
        // N_e* is in proportion to p_e / c_e, N_d* to p_d / c_d.
        let [encoder, decoder] = constraint.sizes(share);
        assert_near(encoder / decoder, exponents[0] / costs[0] / (exponents[1] / costs[1]), 1e-9, "ratio");
        assert_near(constraint.cost([encoder, decoder]), 0.3, 1e-9, "cost");
    }
}

#[test]
fn equal_exponents_are_symmetric() {
    let law = Law { normalisers: [3e6; 2], alpha: 0.7, exponents: [0.3; 2], floor: 1.2 };
    let constraint = Constraint { costs: [1.0; 2], available: 1e7 };
    assert_near(best_share(&law).expect("a share"), 0.5, 1e-12, "share");
    for share in [0.1, 0.3, 0.45] {
        let (one, other) = (constraint.sizes(share), constraint.sizes(1.0 - share));
        assert_near(law.loss(one), law.loss(other), 1e-12, "loss");
    }
    // A grid whose stacks change places gives exponents that do.
    let runs = exact(0.8, [0.35, 0.2], 1.4);
    let mirrored: Vec<ShapeRun> = runs
        .iter()
        .map(|run| ShapeRun {
            encoder_params: run.decoder_params,
            decoder_params: run.encoder_params,
            ..run.clone()
        })
        .collect();
    let (here, there) = (plan(&runs, &[]), plan(&mirrored, &[]));
    assert_near(here.encoder_exponent.value, there.decoder_exponent.value, 1e-4, "exponents");
}

#[test]
fn the_total_size_alone_explains_less() {
    let uneven = plan(&exact(0.8, [0.5, 0.1], 1.4), &[]);
    assert!(uneven.r_squared - uneven.total_r_squared > 0.1, "{}", uneven.total_r_squared);
}

#[test]
fn depths_are_the_best_of_all_that_fit() {
    let law = Law { normalisers: [2e6, 2.2e6], alpha: 0.8, exponents: [0.35, 0.2], floor: 1.4 };
    let depths = Depths { encoder: ENCODER, decoder: DECODER };
    for budget in [2e6, 5e6, 2e7, 1e8] {
        let constraint = Constraint { costs: [1.0; 2], available: budget };
        let best = best_depths(&law, &depths, &constraint, Budget::Params(budget)).expect("a shape");
        let mut searched = (f64::INFINITY, 0, 0);
        for encoder in 1..200 {
            for decoder in 1..200 {
                let sizes = [ENCODER.at(f64::from(encoder)), DECODER.at(f64::from(decoder))];
                if constraint.cost(sizes) <= budget && law.loss(sizes) < searched.0 {
                    searched = (law.loss(sizes), encoder, decoder);
                }
            }
        }
        assert_eq!((best.encoder_layers as i32, best.decoder_layers as i32), (searched.1, searched.2));
    }
    let too_small = Constraint { costs: [1.0; 2], available: 1.9e6 };
    let error = best_depths(&law, &depths, &too_small, Budget::Params(1.9e6)).expect_err("too small");
    assert!(error.to_string().contains("1.96 M"), "{error}");
    let too_large = Constraint { costs: [1.0; 2], available: 1e12 };
    let error = best_depths(&law, &depths, &too_large, Budget::Params(1e12)).expect_err("too large");
    assert!(error.to_string().contains("d_model"), "{error}");
}

/// What times make of a grid: the encoder takes 2 ms and 3 ms a million parameters, a token 0.4 ms and 1 ms a million.
fn timed(mut runs: Vec<ShapeRun>) -> Vec<ShapeRun> {
    for run in &mut runs {
        let [encoder, decoder] = run.sizes().map(|params| params / 1e6);
        run.audio_secs = Some(10.0);
        run.encoder_secs = Some(2e-3 + 3e-3 * encoder);
        run.token_secs = Some(4e-4 + 1e-3 * decoder);
    }
    runs
}

#[test]
fn a_latency_is_split_by_what_parameters_take() {
    let runs = timed(exact(0.8, [0.3, 0.3], 1.4));
    let budgets = [Budget::Params(2e7), Budget::Latency { secs: 0.2, n_tokens: 50.0 }];
    let plan = plan(&runs, &budgets);
    let [by_params, by_latency] = &plan.recommendations[..] else { panic!("two") };
    assert_near(by_params.encoder_params.value, 1e7, 1e-3, "N_e");
    // 200 ms less 2 ms and 50 times 0.4 ms, half of it for each: the encoder runs once, so it gets far more for it.
    assert_near(by_latency.encoder_params.value, 0.089 / 3e-3 * 1e6, 1e-3, "N_e");
    assert_near(by_latency.decoder_params.value, 0.089 / (50.0 * 1e-3) * 1e6, 1e-3, "N_d");
    assert!(by_latency.secs.expect("times") <= 0.2 + 1e-9);
    let shape = by_latency.shape.expect("depths");
    assert!(shape.encoder_layers > 10 * shape.decoder_layers, "{shape:?}");
    assert!(plan.warnings.iter().any(|line| line.contains("beyond the grid")), "{:?}", plan.warnings);
}

#[test]
fn an_optimum_within_the_noise_is_told() {
    let is_flat = |exponents: [f64; 2]| {
        let runs = grid(0.8, exponents, 1.4, 0.003, &mut Deviates(11));
        let plan = plan(&runs, &[Budget::Params(1e7)]);
        plan.warnings.iter().any(|line| line.starts_with("10.00 M parameters: the optimum is flat"))
    };
    assert!(is_flat([0.3, 0.3]) && !is_flat([0.6, 0.1]));
}

#[test]
fn a_size_that_does_not_matter_stays_at_its_bound_and_is_told() {
    let useless = plan(&exact(0.8, [0.4, 0.0], 1.4), &[Budget::Params(2e7)]);
    assert!(useless.decoder_exponent.value < 1e-3, "{:?}", useless.decoder_exponent);
    assert_eq!(useless.recommendations[0].shape.expect("depths").decoder_layers, 1);
    // Larger models that lose more: both exponents at 0, and no split is better than another.
    let mut worse = exact(0.8, [0.35, 0.2], 1.4);
    worse.iter_mut().for_each(|run| run.loss = run.loss.map(|loss| 5.0 - loss));
    let worse = plan(&worse, &[Budget::Params(2e7)]);
    assert!(worse.recommendations.is_empty());
    for part in ["size of the encoder", "size of the decoder"] {
        assert!(worse.warnings.iter().any(|line| line.contains(part)), "{part}: {:?}", worse.warnings);
    }
    let [failure] = &worse.failures[..] else { panic!("{:?}", worse.failures) };
    assert!(failure.to_string().starts_with("20.00 M parameters: no split is recommended"), "{failure}");
    let page = shape_page("worse", "loss", &worse).expect("a page");
    assert!(page.contains("no split is recommended"));
    // No part of it is there for who asked for none.
    assert!(plan(&exact(0.8, [0.35, 0.2], 1.4), &[]).failures.is_empty());
}

#[test]
fn what_splits_nothing_fails_and_keeps_the_law() {
    let budget = Budget::Params(2e7);
    let failure = |runs: &[ShapeRun]| {
        let plan = plan(runs, &[budget]);
        assert!(plan.recommendations.is_empty(), "{:?}", plan.recommendations);
        let [failure @ Error::Unsplit { .. }] = &plan.failures[..] else { panic!("{:?}", plan.failures) };
        assert!(plan.warnings.iter().all(|line| !line.contains("inf times")), "{:?}", plan.warnings);
        serde_json::to_value(&plan).expect("JSON")["failures"][0].as_str().map(str::to_owned).expect("a text")
            + &failure.to_string()
    };
    let without_depths = |mut runs: Vec<ShapeRun>| {
        runs.iter_mut().for_each(|run| (run.encoder_layers, run.decoder_layers) = (None, None));
        runs
    };
    // A decoder that makes it worse, and no depths that would leave it a layer.
    let mut worse = without_depths(exact(0.8, [0.4, 0.0], 1.4));
    for run in &mut worse {
        run.loss = run.loss.map(|loss| loss + 0.01 * (run.decoder_params as f64).ln());
    }
    let message = failure(&worse);
    assert!(message.contains("size of the decoder") && message.contains("train.max_steps"), "{message}");
    // Losses that follow nothing.
    let mut deviates = Deviates(5);
    let mut noise = exact(0.8, [0.35, 0.2], 1.4);
    noise.iter_mut().for_each(|run| run.loss = Some(2.0 + 0.1 * deviates.normal()));
    let message = failure(&noise);
    assert!(message.contains("% of the losses' variance") && message.contains("more seeds"), "{message}");
}

#[test]
fn a_split_without_an_answer_in_some_drawings_has_no_interval() {
    let budget = Budget::Params(2e7);
    let constraint = Constraint { costs: [1.0; 2], available: 2e7 };
    let mut plan = plan(&grid(0.8, [0.35, 0.2], 1.4, 0.01, &mut Deviates(3)), &[]);
    let again = |plan: &ShapePlan| {
        recommendation(plan, budget, constraint, &Resampling::default()).expect("a recommendation")
    };
    let intervals =
        |one: &Recommendation| (one.encoder_share.interval.is_some(), one.layers_intervals.is_some());
    let is_told = |plan: &ShapePlan| warnings(plan).iter().any(|line| line.contains("by 1 of 100 drawings"));
    assert_eq!((intervals(&again(&plan)), is_told(&plan)), ((true, true), false));
    plan.drawn[7].exponents = [0.0; 2];
    assert_eq!((intervals(&again(&plan)), is_told(&plan)), ((false, false), true));
}

#[test]
fn times_that_say_nothing_cost_the_split_by_time_alone() {
    let mut slow = timed(exact(0.8, [0.35, 0.2], 1.4));
    slow.iter_mut().for_each(|run| run.token_secs = run.token_secs.map(|secs| 1.0 - secs));
    let params = Budget::Params(2e7);
    let one = plan(&slow, &[params]);
    assert!(one.failures.is_empty() && one.latency.is_none() && one.recommendations.len() == 1);
    assert!(one.warnings.iter().any(|line| line.contains("does not grow")), "{:?}", one.warnings);
    let both = plan(&slow, &[params, Budget::Latency { secs: 0.1, n_tokens: 20.0 }]);
    assert_eq!(both.recommendations[0].encoder_params, one.recommendations[0].encoder_params);
    assert!(matches!(&both.failures[..], [Error::Latency(_)]), "{:?}", both.failures);
    assert!(!both.warnings.iter().any(|line| line.contains("does not grow")), "{:?}", both.warnings);
}

#[test]
fn lines_below_nothing_are_no_depths_and_times_below_nothing_are_told() {
    // By these parameters a single layer has less than none, as if widths differed.
    let mut runs = exact(0.8, [0.35, 0.2], 1.4);
    for run in &mut runs {
        let layers = run.encoder_layers.map_or(0, |layers| 2 * layers);
        (run.encoder_layers, run.encoder_params) = (Some(layers), 1_000_000 * layers as u64 - 1_500_000);
    }
    let plan = plan(&runs, &[Budget::Params(2e7)]);
    assert_eq!((plan.depths, plan.recommendations[0].shape), (None, None));
    let mut early = timed(exact(0.8, [0.35, 0.2], 1.4));
    early.iter_mut().for_each(|run| run.token_secs = run.token_secs.map(|secs| secs - 1e-3));
    let plan = self::plan(&early, &[Budget::Params(2e7)]);
    assert!(
        plan.warnings.iter().any(|line| line.contains("`token_secs` is -0.600 ms")),
        "{:?}",
        plan.warnings
    );
}

#[test]
fn a_scaling_without_draws_has_no_intervals() {
    let resampling = Resampling { n_samples: 0, ..Resampling::default() };
    let scaling = Scaling::of(&exact(0.8, [0.35, 0.2], 1.4), &resampling, None).expect("a law");
    assert!(scaling.drawn.is_empty());
    let options = ShapeOptions { resampling, ..ShapeOptions::default() };
    let plan = plan_shape(&exact(0.8, [0.35, 0.2], 1.4), &[Budget::Params(2e7)], &options).expect("a plan");
    assert_eq!(plan.recommendations[0].encoder_share.interval, None);
}
