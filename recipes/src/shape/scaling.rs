//! Runs become a law with intervals, a comparison with size alone, and a prediction that is held against a model left out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::law::{Fitted, Law, Point, fit, freedom, refit};
use super::table::ShapeRun;
use super::{Error, table};
use crate::metrics::Resampling;

/// Sizes that a stack needs for an exponent and a floor to be told apart.
const MIN_SIZES: usize = 3;
/// Runs that four parameters need to leave something over.
const MIN_RUNS: usize = 6;
/// Correlation of the log sizes from which on their exponents cannot be told apart.
const MAX_CORRELATION: f64 = 0.98;

/// What the law predicts of the largest model from all others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HoldOut {
    /// N_e of the model that was left out.
    pub encoder_params: u64,
    /// N_d.
    pub decoder_params: u64,
    /// Its runs.
    pub n_runs: usize,
    /// What the others say that it loses.
    pub predicted: f64,
    /// What it lost, the mean of its runs.
    pub actual: f64,
}

/// How much losses scatter, in standard deviations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    /// Between runs of one model, pooled; None where no model has two.
    pub run_to_run: Option<f64>,
    /// Around the law.
    pub residual: f64,
}

impl Noise {
    /// What a difference has to exceed to mean something.
    pub fn size(&self) -> f64 {
        self.run_to_run.unwrap_or(self.residual)
    }
}

/// A law and how far it can be trusted.
#[derive(Debug, Clone)]
pub(super) struct Scaling {
    pub fitted: Fitted<2>,
    /// By the sum of the sizes.
    pub total: Fitted<1>,
    /// Laws of the runs drawn anew.
    pub drawn: Vec<Law<2>>,
    pub hold_out: Option<HoldOut>,
    pub noise: Noise,
}

impl Scaling {
    /// # Errors
    /// Runs that cannot be fitted, or that do not determine the law.
    pub(super) fn of(
        runs: &[ShapeRun],
        resampling: &Resampling,
        huber_delta: Option<f64>,
    ) -> Result<Self, Error> {
        table::check(runs)?;
        check_design(runs)?;
        let points: Vec<Point<2>> = runs.iter().map(|run| (run.sizes(), run.loss())).collect();
        let fitted = fit(&points, huber_delta);
        let totals: Vec<Point<1>> =
            points.iter().map(|([encoder, decoder], loss)| ([encoder + decoder], *loss)).collect();
        Ok(Self {
            drawn: drawn(&points, &fitted, resampling),
            hold_out: hold_out(runs, huber_delta),
            noise: noise(&points, &fitted),
            total: fit(&totals, huber_delta),
            fitted,
        })
    }
}

/// Laws of runs drawn anew within the grid: every model keeps its place, as a grid that lost a depth would determine nothing, and its
/// loss is what the law says, off by the residual of a run that is drawn. Residuals are wider than they look, as the law was
/// fitted to them.
fn drawn(points: &[Point<2>], fitted: &Fitted<2>, resampling: &Resampling) -> Vec<Law<2>> {
    let mean = fitted.residuals.iter().sum::<f64>() / points.len() as f64;
    let widened = freedom(points.len(), 2);
    resampling.scores(points.len(), |indices| {
        let again = points.iter().zip(indices).map(|((sizes, _), &index)| {
            let residual = widened * (fitted.residuals[index] - mean);
            (*sizes, fitted.law.loss(*sizes) * (-residual).exp())
        });
        refit(&fitted.law, &again.collect::<Vec<_>>(), fitted.huber_delta)
    })
}

/// Refuses runs that leave a parameter of the law open.
fn check_design(runs: &[ShapeRun]) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::Undetermined(message));
    for (stack, what) in ["encoder", "decoder"].into_iter().enumerate() {
        let mut sizes: Vec<u64> =
            runs.iter().map(|run| [run.encoder_params, run.decoder_params][stack]).collect();
        sizes.sort_unstable();
        sizes.dedup();
        if sizes.len() < MIN_SIZES {
            return refuse(format!(
                "the {what} has {} of the {MIN_SIZES} sizes that it takes at least; add runs with others",
                sizes.len()
            ));
        }
    }
    if runs.len() < MIN_RUNS {
        return refuse(format!("{} runs are fewer than the {MIN_RUNS} that it takes at least", runs.len()));
    }
    let logs: Vec<[f64; 2]> = runs.iter().map(|run| run.sizes().map(f64::ln)).collect();
    let correlation = correlation(&logs);
    if correlation.abs() > MAX_CORRELATION {
        return refuse(format!(
            "encoder and decoder grow together (their log sizes correlate by {correlation:.3}), so nothing tells one from the other; add runs that are large in one alone"
        ));
    }
    let losses = || runs.iter().map(ShapeRun::loss);
    if losses().all(|loss| loss == runs[0].loss()) {
        return refuse(format!("all losses are {}; train longer, or on other data", runs[0].loss()));
    }
    Ok(())
}

fn correlation(pairs: &[[f64; 2]]) -> f64 {
    let n = pairs.len() as f64;
    let mean: [f64; 2] = std::array::from_fn(|k| pairs.iter().map(|pair| pair[k]).sum::<f64>() / n);
    let moment =
        |a: usize, b: usize| pairs.iter().map(|pair| (pair[a] - mean[a]) * (pair[b] - mean[b])).sum::<f64>();
    moment(0, 1) / (moment(0, 0) * moment(1, 1)).sqrt()
}

/// None where the others would not determine the law.
fn hold_out(runs: &[ShapeRun], huber_delta: Option<f64>) -> Option<HoldOut> {
    let largest =
        runs.iter().max_by_key(|run| (run.encoder_params + run.decoder_params, run.encoder_params))?;
    let key = |run: &ShapeRun| (run.encoder_params, run.decoder_params);
    let (left_out, others): (Vec<ShapeRun>, Vec<ShapeRun>) =
        runs.iter().cloned().partition(|run| key(run) == key(largest));
    check_design(&others).ok()?;
    let points: Vec<Point<2>> = others.iter().map(|run| (run.sizes(), run.loss())).collect();
    Some(HoldOut {
        encoder_params: largest.encoder_params,
        decoder_params: largest.decoder_params,
        n_runs: left_out.len(),
        predicted: fit(&points, huber_delta).law.loss(largest.sizes()),
        actual: left_out.iter().map(ShapeRun::loss).sum::<f64>() / left_out.len() as f64,
    })
}

fn noise(points: &[Point<2>], fitted: &Fitted<2>) -> Noise {
    let mut by_model: BTreeMap<[u64; 2], Vec<f64>> = BTreeMap::new();
    for (sizes, loss) in points {
        by_model.entry(sizes.map(f64::to_bits)).or_default().push(*loss);
    }
    let (mut squares, mut n_free) = (0.0, 0);
    for losses in by_model.values() {
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        squares += losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>();
        n_free += losses.len() - 1;
    }
    let left: f64 = points.iter().map(|(sizes, loss)| (loss - fitted.law.loss(*sizes)).powi(2)).sum();
    Noise {
        run_to_run: (n_free > 0).then(|| (squares / n_free as f64).sqrt()),
        residual: (left / points.len() as f64).sqrt() * freedom(points.len(), 2),
    }
}
