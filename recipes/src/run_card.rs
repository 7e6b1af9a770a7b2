//! The card of a run: one HTML file without anything from elsewhere, that says what ran, on what, and how well.

use std::fmt::Write as _;
use std::path::Path;

use crate::Error;
use crate::checkpoint::State;
use crate::comparison_card::{self, CURVES};
use crate::config::{RunConfig, TaskKind};
use crate::data::EpochPadding;
use crate::metrics_log::{Scalar, read_scalars};
use crate::page::{self, escape};
use crate::plot::LineChart;
use crate::sound_figure::{SoundFigures, SoundPair};
use crate::task::Figures;
use crate::train::Ending;

/// Points of a curve at most: more cannot be told apart, and steps are many.
const MAX_POINTS: usize = 600;

/// Curves whose first values may be many times all others: what is above [`MAX_OF_MEDIAN`] medians is drawn there.
const CLIPPED: [&str; 2] = ["Loss", "Gradient norm"];
const MAX_OF_MEDIAN: f64 = 4.0;

/// Utterances of an update that are too short for their text.
pub(crate) const TOO_SHORT: &str = "train/n_too_short";

/// Plots: title, vertical axis and the names of their curves.
const PLOTS: [(&str, &str, &[&str]); 17] = [
    ("Loss", "loss", &["train/loss", "dev/loss"]),
    ("Errors of held-out speech", "rate", &["dev/wer", "dev/cer", "dev/per", "dev/false_text_rate"]),
    ("Translations of held-out data", "score", &["dev/bleu", "dev/chrf"]),
    ("From states of speech to those of its text", "distance", &["dev/speech_text_distance"]),
    ("What is said of held-out texts", "loss", &["dev/flow", "dev/flow_map"]),
    ("Where it is in its text", "loss", &["dev/advance", "dev/end", "dev/alignment"]),
    ("Length of what is said, beside its recordings", "share", &["dev/duration_ratio", "dev/stopped"]),
    ("From what is said to its recordings", "dB", &["dev/distortion_db"]),
    ("Spread of states", "share", &["dev/speech_spread", "dev/text_spread"]),
    ("Held-out sound made again", "distance", &["dev/mel_l1", "dev/spectral_convergence"]),
    (
        "Sound against discriminators",
        "loss",
        &["train/discriminators", "train/adversarial", "train/feature_matching"],
    ),
    ("Learning rate", "rate", &["train/learning_rate"]),
    ("Gradient norm", "norm", &["train/gradient_norm"]),
    ("Padding of updates", "share", &["train/audio_padding", "train/token_padding"]),
    ("Batches of epochs", "share", &["epoch/audio_padding", "epoch/token_padding", "epoch/fill"]),
    ("Utterances that no batch of an epoch takes", "utterances", &["epoch/n_rejected"]),
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
    pub sounds: &'a [SoundPair],
    pub log: &'a Path,
}

impl RunCard<'_> {
    /// The whole page.
    pub fn to_html(&self) -> Result<String, Error> {
        let mut page = String::new();
        let scalars = if self.log.exists() { read_scalars(self.log)? } else { Vec::new() };
        let (n_train, train_secs, n_dev) = self.data;
        let State { step, n_skipped, n_faults, audio_secs, busy_secs, best, .. } = self.state;
        let ending = match self.ending {
            Ending::Complete => "complete",
            Ending::NoBetter => "ended early: it got no better",
            Ending::Stopped => "stopped; the same command goes on",
        };
        let hours = |secs: f64| format!("{:.2} h", secs / 3600.0);
        let is_heard = self.config.task != TaskKind::TranslateText;
        let items = if is_heard { "cuts" } else { "pairs of texts" };
        let length = if is_heard { format!(", {}", hours(train_secs)) } else { String::new() };
        let mut rows = vec![
            ("State", ending.to_owned()),
            ("Computed on", self.config.train.device.to_string()),
            ("Parameters", self.n_parameters.to_string()),
            ("Trained on", format!("{n_train} {items}{length}")),
            ("Judged by", format!("{n_dev} {items}")),
            ("Updates", format!("{step}, {n_skipped} of them skipped as not finite")),
        ];
        if is_heard {
            let speed = audio_secs / busy_secs.max(1e-9);
            rows.push(("Recordings left out", n_faults.to_string()));
            rows.push((
                "Audio heard",
                format!("{} in {} ({speed:.0} x real time)", hours(*audio_secs), hours(*busy_secs)),
            ));
        } else {
            rows.push(("Time", hours(*busy_secs)));
        }
        let n_too_short: f64 =
            scalars.iter().filter(|scalar| scalar.name == TOO_SHORT).map(|scalar| scalar.value).sum();
        if n_too_short > 0.0 {
            rows.push(("Too short for their text", format!("{n_too_short} times: CTC did not count them")));
        }
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
            page.push_str("<h2>The model that is kept, on held-out data</h2>\n<table>");
            for (name, value) in figures {
                let _ = write!(page, "<tr><th>{}</th><td>{value:.4}</td></tr>", escape(name));
            }
            page.push_str("</table>\n");
        }
        if !self.sounds.is_empty() {
            page.push_str("<h2>What it makes of held-out recordings</h2>\n");
            page.push_str(&SoundFigures::new()?.pairs(self.sounds)?);
        }
        page.push_str(&comparison_card::section(self.log.parent().unwrap_or(self.log)));
        page.push_str(CURVES);
        for plot in self.plots(&scalars)? {
            page.push_str(&plot);
            page.push('\n');
        }
        let _ = write!(
            page,
            "<h2>Batches of the last epoch</h2>\n<pre>{}</pre>\n",
            escape(&self.padding.to_string()),
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

    fn plots(&self, scalars: &[Scalar]) -> Result<Vec<String>, Error> {
        let mut plots = Vec::new();
        for (title, y_label, names) in PLOTS {
            let mut n_clipped = 0;
            let mut curve = |name: &&str| {
                let points = scalars.iter().filter(|scalar| scalar.name == **name);
                let mut points: Vec<_> = points.map(|scalar| (scalar.step as f64, scalar.value)).collect();
                if CLIPPED.contains(&title) {
                    n_clipped += clip(&mut points);
                }
                ((*name).to_owned(), thinned(&points))
            };
            let series: Vec<_> =
                names.iter().map(&mut curve).filter(|(_, points)| points.len() > 1).collect();
            if series.is_empty() {
                continue;
            }
            let title = match n_clipped {
                0 => title.to_owned(),
                n => format!("{title} ({n} values above {MAX_OF_MEDIAN} medians are drawn there)"),
            };
            match (LineChart { title, x_label: "update".to_owned(), y_label: y_label.to_owned(), series })
                .to_svg()
            {
                Ok(svg) => plots.push(svg),
                // A run of NaN has nothing to draw, and a card all the more to say.
                Err(crate::plot::Error::Empty { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(plots)
    }
}

/// Brings points far above the others, as a loss and its gradients have them in the first updates, down to where the others can be
/// told apart beside them, and says how many there were.
fn clip(points: &mut [(f64, f64)]) -> usize {
    let mut values: Vec<f64> = points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let bound = MAX_OF_MEDIAN * values.get(values.len() / 2).copied().unwrap_or(0.0);
    let mut n_clipped = 0;
    for (_, value) in
        points.iter_mut().filter(|(_, value)| bound > 0.0 && value.is_finite() && *value > bound)
    {
        *value = bound;
        n_clipped += 1;
    }
    n_clipped
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
    fn peaks_are_brought_down_and_counted_and_what_is_not_finite_stays() {
        let mut points = [(1.0, 90.0), (2.0, 3.0), (3.0, f64::NAN), (4.0, 2.0), (5.0, 2.5)];
        assert_eq!(clip(&mut points), 1);
        assert_eq!((points[0], points[1]), ((1.0, 4.0 * 3.0), (2.0, 3.0)));
        assert!(points[2].1.is_nan());
        let mut zeros = [(1.0, 0.0), (2.0, 0.0), (3.0, 0.1)];
        assert_eq!((clip(&mut zeros), zeros[2].1), (0, 0.1));
        assert_eq!(clip(&mut []), 0);
    }

    #[test]
    fn curves_are_thinned_to_means() {
        let points: Vec<_> = (0..1200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thinned = thinned(&points);
        assert_eq!(thinned.len(), MAX_POINTS);
        assert_eq!(thinned[0], (0.5, 0.5));
    }
}
