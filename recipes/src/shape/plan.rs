//! The plan: a law with intervals, and for each budget the split that it recommends.

use serde::{Serialize, Serializer};

use super::cost::{Depths, Latency};
use super::law::Law;
use super::scaling::{HoldOut, Noise, Scaling};
use super::split::{Budget, Constraint, Shape, best_depths, best_share};
use super::{Error, ShapeRun, warning};
use crate::metrics::{Interval, Resampling};

/// Share of the variance below which the law is not what losses follow, and splits nothing.
const LEAST_R_SQUARED: f64 = 0.5;

/// How a shape is planned.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ShapeOptions {
    /// Of the intervals.
    pub resampling: Resampling,
    /// Where Huber's loss becomes linear, in the log loss; it follows from the runs where it is not given.
    pub huber_delta: Option<f64>,
}

/// A value, and the interval that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// By all runs.
    pub value: f64,
    /// By runs drawn anew.
    pub interval: Option<Interval>,
}

/// What a grid of runs says.
#[derive(Debug, Clone, Serialize)]
pub struct ShapePlan {
    /// N̄_e and N̄_d: geometric means of the runs' sizes.
    pub normalisers: [f64; 2],
    /// α.
    pub alpha: Estimate,
    /// p_e.
    pub encoder_exponent: Estimate,
    /// p_d.
    pub decoder_exponent: Estimate,
    /// L_∞.
    pub floor: Estimate,
    /// Share of the losses' variance that the law explains.
    pub r_squared: f64,
    /// The same of a law of the total size alone.
    pub total_r_squared: f64,
    /// Where Huber's loss became linear.
    pub huber_delta: f64,
    /// The largest model, by all others.
    pub hold_out: Option<HoldOut>,
    /// How much losses scatter.
    pub noise: Noise,
    /// Parameters by depth.
    pub depths: Option<Depths>,
    /// Seconds by size.
    pub latency: Option<Latency>,
    /// For each budget that can be split, in the order in which they were asked for.
    pub recommendations: Vec<Recommendation>,
    /// Why the others cannot.
    #[serde(serialize_with = "as_texts")]
    pub failures: Vec<Error>,
    /// What makes it less sure than it looks.
    pub warnings: Vec<String>,
    /// What it was fitted to.
    pub runs: Vec<ShapeRun>,
    /// Laws of the runs drawn anew.
    #[serde(skip)]
    pub(super) drawn: Vec<Law<2>>,
}

fn as_texts<S: Serializer>(failures: &[Error], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(failures.iter().map(ToString::to_string))
}

/// The best split of a budget.
#[derive(Debug, Clone, Serialize)]
pub struct Recommendation {
    /// The budget.
    pub budget: Budget,
    /// Share of the budget, in parameters or in time, that the encoder takes.
    pub encoder_share: Estimate,
    /// N_e.
    pub encoder_params: Estimate,
    /// N_d.
    pub decoder_params: Estimate,
    /// What the law says that it loses.
    pub loss: Estimate,
    /// The same of an encoder and a decoder of equal size within this budget.
    pub balanced_loss: f64,
    /// The best model in whole blocks, where runs say their depths.
    pub shape: Option<Shape>,
    /// Intervals of its blocks: of the encoder, and of the decoder.
    pub layers_intervals: Option<[Interval; 2]>,
    /// Seconds that it takes, where runs were timed and the budget says for how many tokens.
    pub secs: Option<f64>,
    /// What the budget asks of sizes.
    #[serde(skip)]
    pub(super) constraint: Constraint,
}

impl ShapePlan {
    /// The law.
    pub fn law(&self) -> Law<2> {
        Law {
            normalisers: self.normalisers,
            alpha: self.alpha.value,
            exponents: [self.encoder_exponent.value, self.decoder_exponent.value],
            floor: self.floor.value,
        }
    }
}

/// Fits the law to runs and splits budgets by it. A budget that cannot be split costs nothing but itself: it is among the failures.
///
/// # Errors
/// Runs that cannot be fitted or do not determine the law.
pub fn plan_shape(
    runs: &[ShapeRun],
    budgets: &[Budget],
    options: &ShapeOptions,
) -> Result<ShapePlan, crate::Error> {
    let ShapeOptions { resampling, huber_delta } = *options;
    resampling.check()?;
    let scaling = Scaling::of(runs, &resampling, huber_delta)?;
    let (fitted, drawn) = (&scaling.fitted, &scaling.drawn);
    let estimate = |of: &dyn Fn(&Law<2>) -> f64| Estimate {
        value: of(&fitted.law),
        interval: resampling.interval(drawn.iter().map(of).collect()),
    };
    let (latency, no_latency) = match Latency::of(runs) {
        Ok(latency) => (latency, None),
        Err(error) => (None, Some(error)),
    };
    let mut plan = ShapePlan {
        normalisers: fitted.law.normalisers,
        alpha: estimate(&|law| law.alpha),
        encoder_exponent: estimate(&|law| law.exponents[0]),
        decoder_exponent: estimate(&|law| law.exponents[1]),
        floor: estimate(&|law| law.floor),
        r_squared: fitted.r_squared,
        total_r_squared: scaling.total.r_squared,
        huber_delta: fitted.huber_delta,
        hold_out: scaling.hold_out,
        noise: scaling.noise,
        depths: Depths::of(runs),
        latency,
        recommendations: Vec::new(),
        failures: Vec::new(),
        warnings: Vec::new(),
        runs: runs.to_vec(),
        drawn: scaling.drawn.clone(),
    };
    for budget in budgets {
        let is_latency = matches!(budget, Budget::Latency { .. });
        let split = match &no_latency {
            Some(error) if is_latency => Err(error.clone()),
            _ => Constraint::of(*budget, latency.as_ref())
                .and_then(|constraint| recommendation(&plan, *budget, constraint, &resampling)),
        };
        match split {
            Ok(one) => plan.recommendations.push(one),
            Err(error) => plan.failures.push(error),
        }
    }
    plan.warnings = warning::warnings(&plan);
    // Times that nobody asked about are no reason to fail.
    plan.warnings.extend(no_latency.filter(|error| !plan.failures.contains(error)).map(|it| it.to_string()));
    Ok(plan)
}

/// The share of a budget that a law is good enough to name.
fn share_of(plan: &ShapePlan, budget: Budget) -> Result<f64, Error> {
    let refuse = |message: String| Err(Error::Unsplit { budget: budget.to_string(), message });
    let todo = "train longer (train.max_steps), on more data, or over wider ranges of depth";
    if plan.r_squared.is_nan() || plan.r_squared < LEAST_R_SQUARED {
        return refuse(format!(
            "the law explains {:.1} % of the losses' variance, and less than {:.0} % says nothing; {todo}, with more seeds",
            100.0 * plan.r_squared.max(0.0),
            100.0 * LEAST_R_SQUARED
        ));
    }
    let Some(share) = best_share(&plan.law()) else {
        return refuse(format!("by these runs the loss falls with neither size; {todo}"));
    };
    let (useless, other) = if share > 0.5 { ("decoder", "encoder") } else { ("encoder", "decoder") };
    if plan.depths.is_none() && (share == 0.0 || share == 1.0) {
        return refuse(format!(
            "by these runs the loss does not fall with the size of the {useless}, so the {other} would be all of the model; {todo}, or say the runs' depths (encoder_layers, decoder_layers), so that each keeps a layer"
        ));
    }
    Ok(share)
}

pub(super) fn recommendation(
    plan: &ShapePlan,
    budget: Budget,
    constraint: Constraint,
    resampling: &Resampling,
) -> Result<Recommendation, Error> {
    let law = plan.law();
    // A budget that holds no model is told whatever the law says.
    let shape = plan.depths.map(|depths| best_depths(&law, &depths, &constraint, budget)).transpose()?;
    let share = share_of(plan, budget)?;
    // Where drawn runs say that no size matters, there is no share to tell an interval by.
    let shares: Option<Vec<f64>> = plan.drawn.iter().map(best_share).collect();
    let interval = |of: &dyn Fn(f64) -> f64| {
        resampling.interval(shares.as_ref()?.iter().map(|share| of(*share)).collect())
    };
    let estimate = |of: &dyn Fn(f64) -> f64| Estimate { value: of(share), interval: interval(of) };
    let sizes = constraint.sizes(share);
    let loss = |law: &Law<2>| law.loss(shape.map_or(sizes, |shape| shape.sizes()));
    let layers_intervals = plan.depths.filter(|_| shares.is_some()).and_then(|depths| {
        let shapes: Option<Vec<Shape>> =
            plan.drawn.iter().map(|law| best_depths(law, &depths, &constraint, budget).ok()).collect();
        let shapes = shapes?;
        let interval = |of: &dyn Fn(&Shape) -> usize| {
            resampling.interval(shapes.iter().map(|shape| of(shape) as f64).collect())
        };
        Some([interval(&|shape| shape.encoder_layers)?, interval(&|shape| shape.decoder_layers)?])
    });
    let secs = match (budget, plan.latency) {
        (Budget::Latency { n_tokens, .. }, Some(latency)) => {
            Some(latency.secs(shape.map_or(sizes, |shape| shape.sizes()), n_tokens))
        }
        _ => None,
    };
    Ok(Recommendation {
        budget,
        encoder_share: estimate(&|share| share),
        encoder_params: estimate(&|share| constraint.sizes(share)[0]),
        decoder_params: estimate(&|share| constraint.sizes(share)[1]),
        loss: Estimate {
            value: loss(&law),
            interval: resampling.interval(plan.drawn.iter().map(loss).collect()),
        },
        balanced_loss: law.loss(constraint.balanced()),
        shape,
        layers_intervals,
        secs,
        constraint,
    })
}
