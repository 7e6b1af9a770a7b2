//! What makes a plan less sure than it looks.

use super::plan::{Estimate, Recommendation, ShapePlan};
use super::split::best_share;
use super::{ShapeRun, count};

/// Beyond the smallest and the largest of the grid, as a factor.
const MAX_EXTRAPOLATION: f64 = 4.0;
/// Below it the law is not the one that losses follow.
const MIN_R_SQUARED: f64 = 0.9;

/// One line each.
pub(super) fn warnings(plan: &ShapePlan) -> Vec<String> {
    let mut lines = Vec::new();
    if plan.r_squared < MIN_R_SQUARED {
        lines.push(format!(
            "the law explains {:.1} % of the variance, and a good grid has more than 99 %: train longer, on more seeds, or over wider ranges of depth",
            100.0 * plan.r_squared.max(0.0)
        ));
    }
    let exponents = [("encoder", plan.encoder_exponent), ("decoder", plan.decoder_exponent)];
    for (what, Estimate { value, interval }) in exponents {
        if value == 0.0 {
            lines.push(format!(
                "the loss does not fall with the size of the {what}: models of this grid that are larger are not trained long enough to be better, or have too little data"
            ));
        } else if interval.is_some_and(|interval| interval.low <= 0.0) {
            lines.push(format!(
                "the exponent of the {what} is not told from 0: more seeds, or wider ranges of depth, would tell"
            ));
        }
    }
    let n_without = plan.drawn.iter().filter(|law| best_share(law).is_none()).count();
    if n_without > 0 {
        lines.push(format!(
            "by {n_without} of {} drawings of the runs the loss falls with neither size, so splits have no intervals: more seeds, or wider ranges of depth, would tell",
            plan.drawn.len()
        ));
    }
    if plan.floor.value == 0.0 {
        lines.push(
            "L_inf is at its bound, 0: these runs do not show where losses level out, and larger models are predicted too well"
                .to_owned(),
        );
    }
    if plan.noise.run_to_run.is_none() {
        lines.push(
            "no model was trained with two seeds: the noise is taken from what the law leaves".to_owned(),
        );
    }
    if let Some(latency) = plan.latency {
        let parts = [
            ("encoder_secs", latency.encoder_secs),
            ("listen_secs", latency.listen_secs),
            ("token_secs", latency.token_secs),
        ];
        for (what, line) in parts.into_iter().filter(|(_, line)| line.fixed < 0.0) {
            lines.push(format!(
                "latency: by its line `{what}` is {:.3} ms without any parameter, so small models are told too fast; measure again, with more runs (--bench-runs) or more depths",
                1e3 * line.fixed
            ));
        }
    }
    lines.extend(plan.recommendations.iter().flat_map(|one| of_recommendation(plan, one)));
    lines
}

fn of_recommendation(plan: &ShapePlan, one: &Recommendation) -> Vec<String> {
    let mut lines = Vec::new();
    let gain = one.balanced_loss - plan.law().loss(one.constraint.sizes(one.encoder_share.value));
    let noise = plan.noise.size();
    if gain < noise {
        lines.push(format!(
            "{}: the optimum is flat: encoder and decoder of equal size lose {gain:.4} more, and runs of one model scatter by {noise:.4}",
            one.budget
        ));
    }
    let sizes = one.shape.map_or([one.encoder_params.value, one.decoder_params.value], |shape| {
        [shape.encoder_params, shape.decoder_params]
    });
    let params: [&dyn Fn(&ShapeRun) -> u64; 2] = [&|run| run.encoder_params, &|run| run.decoder_params];
    for ((what, size), params) in ["encoder", "decoder"].into_iter().zip(sizes).zip(params) {
        let known = || plan.runs.iter().map(|run| params(run) as f64);
        let (least, most) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
        let (beyond, from) = if size > most { (size / most, most) } else { (least / size.max(1.0), least) };
        if beyond > MAX_EXTRAPOLATION {
            lines.push(format!(
                "{}: the {what} of {} is {beyond:.1} times beyond the grid's {}: laws of small models say little there, so train one of this size before you rely on it",
                one.budget,
                count(size),
                count(from)
            ));
        }
    }
    lines
}
