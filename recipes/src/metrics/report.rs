//! A test set's scores as a value, for a file, and as text, for a terminal.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::{Errors, Interval};
use crate::text::Normaliser;

/// An error rate with what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The counts.
    #[serde(flatten)]
    pub errors: Errors,
    /// Errors per unit of the reference, above 1 where there are many insertions; none without a reference.
    pub rate: Option<f64>,
    /// Where the rate lies with the report's confidence; none where it was not asked for or has no meaning.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<Interval>,
}

impl Rate {
    pub(super) fn new(errors: Errors) -> Self {
        let rate = (errors.n_reference > 0).then(|| errors.rate());
        Self { errors, rate, interval: None }
    }
}

/// BLEU or chrF, of which a better translation has more, or TER, of which it has less.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TranslationScore {
    /// From 0 to 100; TER may be higher.
    pub score: f64,
    /// Where it lies with the report's confidence.
    pub interval: Option<Interval>,
    /// How it was computed, as sacrebleu writes it.
    pub signature: String,
}

/// The utterances of one class of durations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Shortest duration.
    pub from_secs: f64,
    /// What all durations are below; none for the last class.
    pub to_secs: Option<f64>,
    /// How many utterances there are.
    pub n_utterances: usize,
    /// Their length together.
    pub duration_secs: f64,
    /// Word errors.
    pub words: Rate,
    /// Character errors.
    pub characters: Rate,
}

/// An utterance with many errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstUtterance {
    /// Its place in the order of adding, from 0.
    pub index: usize,
    /// Its name, if it was added with one.
    pub name: Option<String>,
    /// Its length.
    pub duration_secs: f64,
    /// Word errors.
    pub words: Rate,
    /// Character errors.
    pub characters: Rate,
    /// The normalised texts in one line: deleted words in `[-` and `-]`, inserted ones in `{+` and `+}`.
    pub aligned: String,
}

/// All scores of a test set. `Display` writes it as tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was done to the texts before words and characters were compared.
    pub normaliser: Normaliser,
    /// How many utterances there are.
    pub n_utterances: usize,
    /// Those with at least one word error.
    pub n_with_errors: usize,
    /// Their length together.
    pub duration_secs: f64,
    /// The share of resampled scores that lie in an interval.
    pub confidence: f64,
    /// Word error rate.
    pub words: Rate,
    /// Character error rate.
    pub characters: Rate,
    /// BLEU, if it was asked for.
    pub bleu: Option<TranslationScore>,
    /// chrF, if it was asked for.
    pub chrf: Option<TranslationScore>,
    /// TER, if it was asked for.
    pub ter: Option<TranslationScore>,
    /// Error rates by duration, shortest first, classes without utterances left out.
    pub by_duration: Vec<Bucket>,
    /// Utterances with the most word errors first.
    pub worst: Vec<WorstUtterance>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} utterances, {}, {} with errors; normaliser: {}",
            self.n_utterances,
            length(self.duration_secs),
            self.n_with_errors,
            self.normaliser
        )?;
        let interval = format!("{} % interval", number(100.0 * self.confidence));
        let mut rows = vec![
            ["", "rate", &interval, "substituted", "deleted", "inserted", "reference"].map(str::to_owned),
            rate_row("WER", &self.words, "words"),
            rate_row("CER", &self.characters, "characters"),
        ];
        for (name, score) in [("BLEU", &self.bleu), ("chrF", &self.chrf), ("TER", &self.ter)] {
            if let Some(TranslationScore { score, interval, signature }) = score {
                let interval = interval
                    .map_or_else(String::new, |Interval { low, high }| format!("{low:.2} to {high:.2}"));
                let mut row = [name, "", "", "", "", "", ""].map(str::to_owned);
                row[1] = format!("{score:.2}");
                row[2] = interval;
                row[6].clone_from(signature);
                rows.push(row);
            }
        }
        write_table(f, &rows)?;

        let mut rows = vec![["duration", "utterances", "length", "WER", "CER", "words"].map(str::to_owned)];
        rows.extend(self.by_duration.iter().map(|bucket| {
            let from = number(bucket.from_secs);
            [
                bucket
                    .to_secs
                    .map_or_else(|| format!("{from} s and more"), |to| format!("{from} to {} s", number(to))),
                bucket.n_utterances.to_string(),
                length(bucket.duration_secs),
                percent(bucket.words.rate),
                percent(bucket.characters.rate),
                bucket.words.errors.n_reference.to_string(),
            ]
        }));
        writeln!(f)?;
        write_table(f, &rows)?;

        if !self.worst.is_empty() {
            writeln!(f, "\nMost word errors, [-deleted-] {{+inserted+}}:")?;
        }
        for utterance in &self.worst {
            let name = utterance.name.clone().unwrap_or_else(|| format!("utterance {}", utterance.index));
            let Errors { n_reference, .. } = utterance.words.errors;
            writeln!(
                f,
                "{name} ({} s): {} errors, {n_reference} words, WER {}\n  {}",
                number(utterance.duration_secs),
                utterance.words.errors.errors(),
                percent(utterance.words.rate),
                utterance.aligned
            )?;
        }
        Ok(())
    }
}

fn rate_row(name: &str, rate: &Rate, unit: &str) -> [String; 7] {
    let interval = |Interval { low, high }| format!("{:.2} to {:.2} %", 100.0 * low, 100.0 * high);
    [
        name.to_owned(),
        percent(rate.rate),
        rate.interval.map_or_else(String::new, interval),
        rate.errors.substitutions.to_string(),
        rate.errors.deletions.to_string(),
        rate.errors.insertions.to_string(),
        format!("{} {unit}", rate.errors.n_reference),
    ]
}

/// A rate for people, and a dash where there is none.
pub(crate) fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.2} %", 100.0 * rate))
}

/// At most two decimals, and none that are zero.
fn number(value: f64) -> String {
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn length(secs: f64) -> String {
    match secs {
        secs if secs < 60.0 => format!("{} s", number(secs)),
        secs if secs < 3600.0 => format!("{:.1} min", secs / 60.0),
        secs => format!("{:.2} h", secs / 3600.0),
    }
}

/// Columns of the width of their longest cell, the first and the last to the left, the others to the right. Cells are
/// ASCII.
fn write_table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            match column {
                0 => write!(line, "{cell:<0$}", width(0))?,
                last if last == N - 1 => write!(line, "  {cell}")?,
                column => write!(line, "  {cell:>0$}", width(column))?,
            }
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
