//! The card of a run: one HTML file without anything from elsewhere, that says what ran, on what, and how well.

use std::fmt::Write as _;
use std::path::Path;

use crate::Error;
use crate::checkpoint::State;
use crate::config::RunConfig;
use crate::data::EpochPadding;
use crate::metrics_log::read_scalars;
use crate::page::{self, escape};
use crate::plot::LineChart;
use crate::task::Figures;
use crate::train::Ending;

/// Points of a curve at most: more cannot be told apart, and steps are many.
const MAX_POINTS: usize = 600;

/// Values above so many medians are not drawn.
const MAX_OF_MEDIAN: f64 = 4.0;

/// Plots: title, vertical axis and the names of their curves.
const PLOTS: [(&str, &str, &[&str]); 6] = [
    ("Loss", "loss", &["train/loss", "dev/loss"]),
    ("Errors of held-out speech", "rate", &["dev/wer", "dev/cer", "dev/false_text_rate"]),
    ("Learning rate", "rate", &["train/learning_rate"]),
    ("Gradient norm", "norm", &["train/gradient_norm"]),
    ("Padding", "share", &["train/audio_padding", "train/token_padding"]),
    ("Speed", "x real time", &["train/x_real_time"]),
];

/// What a card says.
pub(crate) struct RunCard<'a> {
    pub name: &'a str,
    pub config: &'a RunConfig,
    /// Cuts to train on, their seconds, cuts to judge by.
    pub data: (usize, f64, usize),
    pub padding: &'a EpochPadding,
    pub n_parameters: usize,
    pub ending: Ending,
    pub state: &'a State,
    pub figures: Option<&'a Figures>,
    pub log: &'a Path,
}

impl RunCard<'_> {
    /// The whole page.
    pub fn to_html(&self) -> Result<String, Error> {
        let mut page = String::new();
        let (n_train, train_secs, n_dev) = self.data;
        let State { step, n_skipped, n_faults, audio_secs, busy_secs, best, .. } = self.state;
        let ending = match self.ending {
            Ending::Complete => "complete",
            Ending::NoBetter => "ended early: it got no better",
            Ending::Stopped => "stopped; the same command goes on",
        };
        let hours = |secs: f64| format!("{:.2} h", secs / 3600.0);
        let mut rows = vec![
            ("State", ending.to_owned()),
            ("Parameters", self.n_parameters.to_string()),
            ("Trained on", format!("{n_train} cuts, {}", hours(train_secs))),
            ("Judged by", format!("{n_dev} cuts")),
            ("Updates", format!("{step}, {n_skipped} of them skipped as not finite")),
            ("Recordings left out", n_faults.to_string()),
            (
                "Audio heard",
                format!(
                    "{} in {} ({:.0} x real time)",
                    hours(*audio_secs),
                    hours(*busy_secs),
                    audio_secs / busy_secs.max(1e-9)
                ),
            ),
        ];
        if let Some(best) = best {
            rows.push((
                "Best",
                format!("{} {:.4} after update {}", self.config.train.best_by, best.value, best.step),
            ));
        }
        let _ = write!(page, "<h1>{}</h1>\n<table>", escape(self.name));
        for (name, value) in rows {
            let _ = write!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
        }
        page.push_str("</table>\n");
        if let Some(figures) = self.figures {
            page.push_str("<h2>The model that is kept, on held-out speech</h2>\n<table>");
            for (name, value) in figures {
                let _ = write!(page, "<tr><th>{}</th><td>{value:.4}</td></tr>", escape(name));
            }
            page.push_str("</table>\n");
        }
        page.push_str("<h2>Curves</h2>\n");
        for plot in self.plots()? {
            page.push_str(&plot);
            page.push('\n');
        }
        let _ = write!(
            page,
            "<h2>Batches of the first epoch</h2>\n<pre>{}\n{}\n{}</pre>\n",
            escape(&self.padding.summary()),
            escape(&self.padding.to_string()),
            escape(&self.padding.admission.to_string())
        );
        let settings = serde_json::to_string_pretty(self.config)
            .map_err(|error| Error::file(self.log, error.to_string()))?;
        let _ = write!(
            page,
            "<h2>Settings</h2>\n<details><summary>all of them</summary><pre>{}</pre></details>\n",
            escape(&settings)
        );
        Ok(page::page(self.name, &page))
    }

    fn plots(&self) -> Result<Vec<String>, Error> {
        let scalars = if self.log.exists() { read_scalars(self.log)? } else { Vec::new() };
        let mut plots = Vec::new();
        for (title, y_label, names) in PLOTS {
            let curve = |name: &&str| {
                let points = scalars.iter().filter(|scalar| scalar.name == **name);
                let points: Vec<_> = points.map(|scalar| (scalar.step as f64, scalar.value)).collect();
                ((*name).to_owned(), thinned(&without_peaks(&points)))
            };
            let series: Vec<_> = names.iter().map(curve).filter(|(_, points)| points.len() > 1).collect();
            if series.is_empty() {
                continue;
            }
            let (title, x_label) = (title.to_owned(), "update".to_owned());
            match (LineChart { title, x_label, y_label: y_label.to_owned(), series }).to_svg() {
                Ok(svg) => plots.push(svg),
                // A run of NaN has nothing to draw, and a card all the more to say.
                Err(crate::plot::Error::Empty { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(plots)
    }
}

/// Points far above the others, as a loss and its gradients have them in the first updates, are not drawn: nothing else could be
/// told apart beside them.
fn without_peaks(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut values: Vec<f64> = points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let median = values.get(values.len() / 2).copied().unwrap_or(0.0);
    let is_drawn = |value: f64| median <= 0.0 || value <= MAX_OF_MEDIAN * median || !value.is_finite();
    points.iter().copied().filter(|point| is_drawn(point.1)).collect()
}

/// Means of as many neighbours as it takes to leave at most [`MAX_POINTS`].
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let n = chunk.len() as f64;
        (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_not_drawn_and_what_is_not_finite_stays() {
        let points = [(1.0, 90.0), (2.0, 3.0), (3.0, f64::NAN), (4.0, 2.0), (5.0, 2.5)];
        let steps = |points: &[(f64, f64)]| points.iter().map(|point| point.0).collect::<Vec<_>>();
        assert_eq!(steps(&without_peaks(&points)), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(steps(&without_peaks(&[(1.0, 0.0), (2.0, 0.1)])), [1.0, 2.0]);
        assert_eq!(without_peaks(&[]), []);
    }

    #[test]
    fn curves_are_thinned_to_means() {
        let points: Vec<_> = (0..1200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thinned = thinned(&points);
        assert_eq!(thinned.len(), MAX_POINTS);
        assert_eq!(thinned[0], (0.5, 0.5));
    }
}
