//! Strategies side by side: before and after, in one table.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use recipes::{
    config::{RunConfig, StrategyKind},
    metrics::{Comparison, Score},
    run::{FirstStage, Outcome},
};
use serde::Serialize;

use super::super::output::{table, write_file};

/// Word and character error rate by one normaliser.
#[derive(Debug, Clone, Serialize)]
struct Rates {
    normaliser: String,
    wer: Option<f64>,
    cer: Option<f64>,
}

fn rates(scores: &[Score]) -> Vec<Rates> {
    let reports = scores.iter().filter_map(|score| score.report().ok());
    reports
        .map(|report| Rates {
            normaliser: report.normaliser.name().to_owned(),
            wer: report.words.rate,
            cer: report.characters.rate,
        })
        .collect()
}

/// One strategy. Updates and hours are those of all its stages.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    strategy: &'static str,
    n_steps: u64,
    /// `None` where no model was trained that could be told.
    n_parameters: Option<usize>,
    /// Those of them that the model which is kept leaves out.
    n_left_out: usize,
    hours: f64,
    /// What a stage on a related language took of that.
    first_stage: Option<Stage>,
    test: Vec<Rates>,
    /// By how much its word error rate differs from that of the base, and where 95 of 100 resamples put that.
    difference: Option<(f64, Option<(f64, f64)>)>,
    /// Why there is no model.
    refused: Option<String>,
    /// What there is to read, seen from the table's folder.
    pages: Vec<(String, String)>,
}

/// What a stage took.
#[derive(Debug, Clone, Copy, Serialize)]
struct Stage {
    n_steps: u64,
    hours: f64,
}

impl Row {
    /// A strategy whose run is in `folder`, before anything is known of its result.
    fn new(kind: StrategyKind, folder: &Path, out: &Path) -> anyhow::Result<Self> {
        let first_stage = match kind {
            StrategyKind::Multistage => FirstStage::of_run(folder)?,
            _ => None,
        };
        let first_stage =
            first_stage.map(|first| Stage { n_steps: first.n_steps, hours: first.busy_secs / 3600.0 });
        let Stage { n_steps, hours } = first_stage.unwrap_or(Stage { n_steps: 0, hours: 0.0 });
        // There may be other pages of earlier runs.
        let pages = match kind {
            StrategyKind::Multistage => {
                page(kind, folder, out, "run card of stage A", "stage-a/card.html").into_iter().collect()
            }
            _ => Vec::new(),
        };
        Ok(Self {
            strategy: kind.name(),
            n_steps,
            n_parameters: None,
            n_left_out: 0,
            hours,
            first_stage,
            test: Vec::new(),
            difference: None,
            refused: None,
            pages,
        })
    }

    /// A strategy that did not come to a model.
    pub(super) fn refused(
        kind: StrategyKind,
        folder: &Path,
        out: &Path,
        reason: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self { refused: Some(reason.to_owned()), ..Self::new(kind, folder, out)? })
    }

    pub(super) fn trained(
        kind: StrategyKind,
        folder: &Path,
        out: &Path,
        outcome: &Outcome,
        after: &[Score],
        difference: Option<&Comparison>,
    ) -> anyhow::Result<Self> {
        let mut row = Self::new(kind, folder, out)?;
        for (about, name) in [("errors", "errors/analysis.html"), ("run card", "card.html")] {
            row.pages.splice(..0, page(kind, folder, out, about, name));
        }
        let interval = |words: &Comparison| words.interval.map(|interval| (interval.low, interval.high));
        Ok(Self {
            n_steps: row.n_steps + outcome.state.step,
            n_parameters: Some(outcome.n_parameters),
            n_left_out: outcome.n_left_out,
            hours: row.hours + outcome.state.busy_secs / 3600.0,
            test: rates(after),
            difference: difference.map(|words| (words.difference, interval(words))),
            ..row
        })
    }
}

/// A page of a run and what it is about, seen from the table's folder, where there is one.
fn page(kind: StrategyKind, folder: &Path, out: &Path, about: &str, name: &str) -> Option<(String, String)> {
    let path = folder.join(name);
    let seen = path.strip_prefix(out).ok().filter(|_| path.is_file())?;
    Some((format!("{}: {about}", kind.name()), seen.display().to_string()))
}

/// All strategies beside the base.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    language: String,
    base: String,
    before: Vec<Rates>,
    strategies: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub(super) fn new(config: &RunConfig, before: &[Score]) -> Self {
        let (language, base) = (config.data.language.clone(), config.model.base.clone());
        Self { language, base, before: rates(before), strategies: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Row) {
        if row.n_left_out > 0 && self.notes.is_empty() {
            let note = "TRAINED counts the head of the CTC loss, which the model that is kept leaves out.";
            self.notes.push(note.to_owned());
        }
        self.strategies.push(row);
    }

    /// Writes `finetune.json` and `finetune.html`, which leads to each strategy's run card, and says where that is. What is known so
    /// far is kept, whatever the next strategy does.
    pub(super) fn write(&self, out: &Path) -> anyhow::Result<PathBuf> {
        write_file(&out.join("finetune.json"), &(serde_json::to_string_pretty(self)? + "\n"))?;
        let title = format!("Fine-tuning for {}", self.language);
        let links: Vec<_> = self.strategies.iter().flat_map(|row| row.pages.iter().cloned()).collect();
        let path = out.join("finetune.html");
        write_file(&path, &recipes::table_page(&title, &self.cells(), &self.notes, &links))?;
        Ok(path)
    }

    fn cells(&self) -> Vec<[String; 6]> {
        let mut cells = vec![
            ["STRATEGY", "TRAINED", "UPDATES", "HOURS", "TEST ERRORS", "WER BESIDE THE BASE"]
                .map(str::to_owned),
        ];
        cells.push([
            "none".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
            told(&self.before),
            self.base.clone(),
        ]);
        for row in &self.strategies {
            let beside = match (&row.refused, row.difference) {
                (Some(reason), _) => reason.clone(),
                (None, Some((difference, Some((low, high))))) => {
                    format!("{:+.1} ({:+.1} to {:+.1}) points", 100.0 * difference, 100.0 * low, 100.0 * high)
                }
                (None, Some((difference, None))) => format!("{:+.1} points", 100.0 * difference),
                (None, None) => "-".to_owned(),
            };
            cells.push([
                row.strategy.to_owned(),
                row.n_parameters.map_or_else(|| "-".to_owned(), |n| format!("{:.2} M", n as f64 / 1e6)),
                match row.first_stage {
                    Some(Stage { n_steps, .. }) => format!("{} ({n_steps} of stage A)", row.n_steps),
                    None => row.n_steps.to_string(),
                },
                format!("{:.2}", row.hours),
                told(&row.test),
                beside,
            ]);
        }
        cells
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&table(&self.cells()))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

fn told(rates: &[Rates]) -> String {
    let percent =
        |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", 100.0 * rate));
    let one = |rates: &Rates| {
        format!("{}: WER {}, CER {}", rates.normaliser, percent(rates.wer), percent(rates.cer))
    };
    rates.iter().map(one).collect::<Vec<_>>().join("; ")
}
