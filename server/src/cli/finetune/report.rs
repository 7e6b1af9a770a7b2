//! Strategies side by side: before and after, in one table.

use std::{fmt, path::Path};

use recipes::{
    config::StrategyKind,
    metrics::{Score, compare},
    run::Outcome,
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

/// One strategy.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    strategy: &'static str,
    n_steps: u64,
    n_parameters: usize,
    hours: f64,
    test: Vec<Rates>,
    /// By how much its word error rate differs from that of the base, and where 95 of 100 resamples put that.
    difference: Option<(f64, Option<(f64, f64)>)>,
    /// Why there is no model.
    refused: Option<String>,
}

impl Row {
    /// A strategy that did not come to a model.
    pub(super) fn refused(kind: StrategyKind, reason: &str) -> Self {
        Self {
            strategy: kind.name(),
            n_steps: 0,
            n_parameters: 0,
            hours: 0.0,
            test: Vec::new(),
            difference: None,
            refused: Some(reason.to_owned()),
        }
    }

    pub(super) fn trained(
        kind: StrategyKind,
        outcome: &Outcome,
        before: &[Score],
        after: &[Score],
    ) -> anyhow::Result<Self> {
        let difference = match (before.first(), after.first()) {
            (Some(before), Some(after)) => {
                let (words, _) = compare(before, after)?;
                Some((words.difference, words.interval.map(|interval| (interval.low, interval.high))))
            }
            _ => None,
        };
        Ok(Self {
            strategy: kind.name(),
            n_steps: outcome.state.step,
            n_parameters: outcome.n_parameters,
            hours: outcome.state.busy_secs / 3600.0,
            test: rates(after),
            difference,
            refused: None,
        })
    }
}

/// All strategies beside the base.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    language: String,
    base: String,
    before: Vec<Rates>,
    strategies: Vec<Row>,
}

impl Table {
    pub(super) fn new(language: &str, base: &str, before: &[Score]) -> Self {
        let (language, base) = (language.to_owned(), base.to_owned());
        Self { language, base, before: rates(before), strategies: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Row) {
        self.strategies.push(row);
    }

    /// Writes `finetune.json` and `finetune.html`: what is known so far is kept, whatever the next strategy does.
    pub(super) fn write(&self, out: &Path) -> anyhow::Result<()> {
        write_file(&out.join("finetune.json"), &(serde_json::to_string_pretty(self)? + "\n"))?;
        let title = format!("Fine-tuning for {}", self.language);
        write_file(&out.join("finetune.html"), &recipes::table_page(&title, &self.cells()))
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
                format!("{:.2} M", row.n_parameters as f64 / 1e6),
                row.n_steps.to_string(),
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
        f.write_str(&table(&self.cells()))
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
