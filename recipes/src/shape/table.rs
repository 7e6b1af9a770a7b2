//! A table of runs: one row for each trained model, as JSON lines or as CSV.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;

/// Sizes from which on not every number is one of double precision, 2^53.
const MAX_PARAMS: u64 = 1 << 53;

/// A trained model and its loss. Tables may have further columns, which are passed over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShapeRun {
    /// What it is called; by its place in the table where it has no name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// N_e: parameters of the encoder without embeddings.
    pub encoder_params: u64,
    /// N_d: parameters of the decoder without embeddings.
    pub decoder_params: u64,
    /// What it lost on held-out speech. JSON has no number for what is not finite.
    pub loss: Option<f64>,
    /// Which figure of held-out speech that is, such as `cross_entropy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figure: Option<String>,
    /// Seed of its weights and of the order of its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Blocks of the encoder: with these a split is told in blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_layers: Option<usize>,
    /// Blocks of the decoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_layers: Option<usize>,
    /// Word error rate on held-out speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wer: Option<f64>,
    /// Length of the recording by which it was timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_secs: Option<f64>,
    /// Time of its features and its encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_secs: Option<f64>,
    /// Time in which the decoder takes in what the encoder heard, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_secs: Option<f64>,
    /// Time of a token of the decoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_secs: Option<f64>,
}

impl ShapeRun {
    /// [N_e, N_d].
    pub(super) fn sizes(&self) -> [f64; 2] {
        [self.encoder_params as f64, self.decoder_params as f64]
    }

    /// The loss, after [`check`].
    pub(super) fn loss(&self) -> f64 {
        self.loss.unwrap_or(f64::NAN)
    }

    /// What it is called, `4+2` where it has no other name than its blocks.
    pub(super) fn shape(&self) -> String {
        match (self.encoder_layers, self.decoder_layers) {
            (Some(encoder), Some(decoder)) => format!("{encoder}+{decoder} layers"),
            _ => format!(
                "{} + {}",
                super::count(self.encoder_params as f64),
                super::count(self.decoder_params as f64)
            ),
        }
    }
}

/// Refuses runs that no law can be fitted to.
pub(super) fn check(runs: &[ShapeRun]) -> Result<(), Error> {
    for (index, run) in runs.iter().enumerate() {
        let refuse = |message: String| {
            let name = if run.name.is_empty() { (index + 1).to_string() } else { run.name.clone() };
            Err(Error::Run { run: name, message })
        };
        match run.loss {
            Some(loss) if loss.is_finite() && loss > 0.0 => {}
            Some(loss) => {
                return refuse(format!(
                    "its loss is {loss}, and losses are positive and finite; train it again with a lower optimizer.learning_rate, or leave it out"
                ));
            }
            None => {
                return refuse(
                    "has no loss, or one that is not finite; train it again with a lower optimizer.learning_rate, or leave it out".to_owned(),
                );
            }
        }
        for (what, params) in [("encoder", run.encoder_params), ("decoder", run.decoder_params)] {
            if params == 0 {
                return refuse(format!(
                    "its {what} has no parameters ({what}_params); a split is between an encoder and a decoder"
                ));
            }
            if params > MAX_PARAMS {
                return refuse(format!(
                    "its {what} has {params} parameters ({what}_params), and models have {MAX_PARAMS} at most; correct the table"
                ));
            }
        }
    }
    Ok(())
}

/// Reads a table: CSV where its name ends in `.csv`, JSON lines otherwise. Columns are those of [`ShapeRun`]; `encoder_params`,
/// `decoder_params` and `loss` have to be there.
///
/// # Errors
/// A file that cannot be read, and rows that are none, with their line.
pub fn read_runs(path: &Path) -> Result<Vec<ShapeRun>, Error> {
    let refuse = |line: Option<u64>, message: String| Error::Table { path: path.to_owned(), line, message };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(None, error.to_string()))?;
    let text = text.trim_start_matches('\u{feff}');
    let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let runs = if is_csv { read_csv(text, &refuse) } else { read_jsonl(text, &refuse) }?;
    if runs.is_empty() {
        return Err(refuse(None, "has no rows".to_owned()));
    }
    Ok(runs)
}

/// Columns that a row cannot do without.
const REQUIRED: [&str; 3] = ["encoder_params", "decoder_params", "loss"];

fn read_csv(text: &str, refuse: &dyn Fn(Option<u64>, String) -> Error) -> Result<Vec<ShapeRun>, Error> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let columns = reader.headers().map_err(|error| refuse(Some(1), error.to_string()))?.clone();
    if let Some(missing) = REQUIRED.iter().find(|name| !columns.iter().any(|column| column == **name)) {
        let found: Vec<_> = columns.iter().collect();
        return Err(refuse(Some(1), format!("no column `{missing}`; there are: {}", found.join(", "))));
    }
    let rows = reader.deserialize().map(|row: Result<ShapeRun, csv::Error>| {
        row.map_err(|error| {
            let line = error.position().map(csv::Position::line);
            let message = match error.kind() {
                csv::ErrorKind::Deserialize { err, .. } => {
                    let column = err.field().and_then(|field| columns.get(field as usize));
                    format!("{}: {}", column.unwrap_or("row"), err.kind())
                }
                _ => error.to_string(),
            };
            refuse(line, message)
        })
    });
    rows.collect()
}

fn read_jsonl(text: &str, refuse: &dyn Fn(Option<u64>, String) -> Error) -> Result<Vec<ShapeRun>, Error> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let row = |(number, line): (u64, &str)| {
        let here = |message: String| refuse(Some(number), message);
        let row: serde_json::Value = serde_json::from_str(line).map_err(|error| here(error.to_string()))?;
        if let Some(missing) = REQUIRED.iter().find(|name| row.get(name).is_none()) {
            let message = format!(
                "no `{missing}`; a row is {{\"encoder_params\": 1000000, \"decoder_params\": 500000, \"loss\": 2.5}}"
            );
            return Err(here(message));
        }
        serde_json::from_value(row).map_err(|error| here(error.to_string()))
    };
    lines.map(row).collect()
}

/// The table as JSON lines, as [`read_runs`] reads it.
///
/// # Errors
/// None that a caller can cause.
pub fn runs_jsonl(runs: &[ShapeRun]) -> Result<String, serde_json::Error> {
    runs.iter().map(|run| Ok(serde_json::to_string(run)? + "\n")).collect()
}
