//! A plan as one HTML page: the law, what it recommends, and plots of both.

use std::fmt::Write as _;

use super::plan::{Estimate, Recommendation, ShapePlan};
use super::split::Budget;
use super::{Law, count};
use crate::Error;
use crate::page::{escape, page, table};
use crate::plot::FitChart;

/// Places of the curve along the split.
const N_PLACES: usize = 91;

impl Estimate {
    /// `value (low to high)`, each as `show` writes it.
    pub fn told(&self, show: &dyn Fn(f64) -> String) -> String {
        match self.interval {
            Some(interval) => {
                format!("{} ({} to {})", show(self.value), show(interval.low), show(interval.high))
            }
            None => show(self.value),
        }
    }
}

/// The whole page. `figure` is what was fitted.
///
/// # Errors
/// None that a caller can cause.
pub fn shape_page(title: &str, figure: &str, plan: &ShapePlan) -> Result<String, Error> {
    let mut body = format!("<h1>{}</h1>\n", escape(title));
    let _ = writeln!(
        body,
        "<p>{} runs, fitted to <code>{}</code> of held-out speech by L(N_e, N_d) = α (N̄_e/N_e)^p_e (N̄_d/N_d)^p_d + L_∞. N are parameters without \
         embeddings, N̄_e = {}, N̄_d = {}.</p>",
        plan.runs.len(),
        escape(figure),
        count(plan.normalisers[0]),
        count(plan.normalisers[1])
    );
    for failure in &plan.failures {
        let _ = writeln!(body, "<p><strong>Failed:</strong> {}</p>", escape(&failure.to_string()));
    }
    for line in &plan.warnings {
        let _ = writeln!(body, "<p><strong>Mind:</strong> {}</p>", escape(line));
    }
    if !plan.recommendations.is_empty() {
        body.push_str("<h2>Splits</h2>\n");
        let rows: Vec<_> = plan.recommendations.iter().map(split_row).collect();
        body += &table(
            ["budget", "layers", "encoder", "decoder", "encoder's share", "loss", "of equal sizes"],
            &rows,
        );
    }
    body.push_str("<h2>The law</h2>\n");
    body += &table(["", "value"], &law_rows(plan));
    body += &chart(&predicted_and_actual(plan))?;
    for one in &plan.recommendations {
        body += &chart(&along_the_split(plan, one))?;
    }
    body.push_str("<h2>Runs</h2>\n");
    let law = plan.law();
    let rows: Vec<_> = plan
        .runs
        .iter()
        .map(|run| {
            let share = |value: Option<f64>| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{:.1} %", 100.0 * value))
            };
            let ms =
                |secs: Option<f64>| secs.map_or_else(|| "-".to_owned(), |secs| format!("{:.2}", 1e3 * secs));
            [
                if run.name.is_empty() { run.shape() } else { run.name.clone() },
                count(run.encoder_params as f64),
                count(run.decoder_params as f64),
                format!("{:.4}", run.loss()),
                format!("{:.4}", law.loss(run.sizes())),
                share(run.wer),
                ms(run.encoder_secs),
                ms(run.token_secs),
            ]
        })
        .collect();
    body += &table(["run", "N_e", "N_d", "loss", "predicted", "WER", "encoder, ms", "a token, ms"], &rows);
    Ok(page(title, &body))
}

fn chart(chart: &FitChart) -> Result<String, Error> {
    Ok(chart.to_svg()? + "\n")
}

fn law_rows(plan: &ShapePlan) -> Vec<[String; 2]> {
    let digits = |value: f64| format!("{value:.4}");
    let mut rows = vec![
        ["α".to_owned(), plan.alpha.told(&digits)],
        ["p_e".to_owned(), plan.encoder_exponent.told(&digits)],
        ["p_d".to_owned(), plan.decoder_exponent.told(&digits)],
        ["L_∞".to_owned(), plan.floor.told(&digits)],
        [
            "R²".to_owned(),
            format!("{:.4}; {:.4} by the total size alone", plan.r_squared, plan.total_r_squared),
        ],
        [
            "noise".to_owned(),
            match plan.noise.run_to_run {
                Some(noise) => format!("{noise:.4} between seeds, {:.4} around the law", plan.noise.residual),
                None => format!("{:.4} around the law", plan.noise.residual),
            },
        ],
    ];
    if let Some(left_out) = plan.hold_out {
        rows.push([
            "largest model, left out".to_owned(),
            format!(
                "{} + {}: predicted {:.4}, actual {:.4}",
                count(left_out.encoder_params as f64),
                count(left_out.decoder_params as f64),
                left_out.predicted,
                left_out.actual
            ),
        ]);
    }
    if let Some(latency) = plan.latency {
        let line = |line: super::Line| {
            format!("{:.3} ms + {:.3} ms for a million parameters", 1e3 * line.fixed, 1e9 * line.slope)
        };
        rows.push([format!("encoder, {} s of sound", latency.audio_secs), line(latency.encoder_secs)]);
        rows.push(["decoder, once".to_owned(), line(latency.listen_secs)]);
        rows.push(["decoder, a token".to_owned(), line(latency.token_secs)]);
    }
    rows
}

fn split_row(one: &Recommendation) -> [String; 7] {
    let layers = one.shape.map_or_else(
        || "-".to_owned(),
        |shape| format!("{} + {}", shape.encoder_layers, shape.decoder_layers),
    );
    [
        one.budget.to_string(),
        layers,
        one.encoder_params.told(&count),
        one.decoder_params.told(&count),
        one.encoder_share.told(&|share| format!("{:.1} %", 100.0 * share)),
        one.loss.told(&|loss| format!("{loss:.4}")),
        format!("{:.4}", one.balanced_loss),
    ]
}

fn predicted_and_actual(plan: &ShapePlan) -> FitChart {
    let law = plan.law();
    let points: Vec<_> = plan.runs.iter().map(|run| (law.loss(run.sizes()), run.loss())).collect();
    let ends = points.iter().flat_map(|(x, y)| [*x, *y]);
    let (low, high) =
        ends.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let mut all = vec![("runs".to_owned(), points)];
    if let Some(left_out) = plan.hold_out {
        all.push(("largest, by the others".to_owned(), vec![(left_out.predicted, left_out.actual)]));
    }
    FitChart {
        title: "Predicted and actual".to_owned(),
        x_label: "predicted loss".to_owned(),
        y_label: "loss".to_owned(),
        band: Vec::new(),
        curves: vec![("equal".to_owned(), vec![(low, low), (high, high)])],
        points: all,
    }
}

fn along_the_split(plan: &ShapePlan, one: &Recommendation) -> FitChart {
    let places = (0..N_PLACES).map(|place| 0.05 + 0.9 * place as f64 / (N_PLACES - 1) as f64);
    let at = |law: &Law<2>, share: f64| law.loss(one.constraint.sizes(share));
    let law = plan.law();
    let (mut band, mut curve) = (Vec::new(), Vec::new());
    for share in places {
        let mut losses: Vec<f64> = plan.drawn.iter().map(|law| at(law, share)).collect();
        losses.sort_by(f64::total_cmp);
        // The middle 95 %, whatever the share that the figures ask for: it is there to be looked at.
        let n_outside = losses.len() / 40;
        if let (Some(low), Some(high)) = (losses.get(n_outside), losses.iter().rev().nth(n_outside)) {
            band.push((share, *low, *high));
        }
        curve.push((share, at(&law, share)));
    }
    let share_of = |sizes: [f64; 2]| {
        let encoder = one.constraint.costs[0] * sizes[0];
        encoder / one.constraint.cost(sizes)
    };
    let mut points =
        vec![("optimum".to_owned(), vec![(one.encoder_share.value, at(&law, one.encoder_share.value))])];
    if let Some(shape) = one.shape {
        let name = format!("{} + {} layers", shape.encoder_layers, shape.decoder_layers);
        points.push((name, vec![(share_of(shape.sizes()), shape.loss)]));
    }
    let balanced = one.constraint.balanced();
    points.push(("equal sizes".to_owned(), vec![(share_of(balanced), one.balanced_loss)]));
    let what = match one.budget {
        Budget::Params(_) => "share of the parameters that the encoder has",
        Budget::Latency { .. } => "share of the time that the encoder takes",
    };
    FitChart {
        title: format!("Along the split of {}", one.budget),
        x_label: what.to_owned(),
        y_label: "loss".to_owned(),
        band,
        curves: vec![("the law".to_owned(), curve)],
        points,
    }
}
