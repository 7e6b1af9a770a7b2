//! What a model's precisions cost, as `speechd evaluate --precision ... --record` measured it. It lies beside the model.

use models::BundleSource;
use serde::{Deserialize, Serialize};

use super::Error;

/// Its file in a bundle.
pub const PRECISION_FILE: &str = "precision.json";

/// What was heard in each precision of the same recordings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrecisionCosts {
    /// Names of the manifests, with their folders'.
    pub manifests: Vec<String>,
    /// The language that was told for recordings that state none.
    pub language: Option<String>,
    /// Hypotheses that were kept.
    pub beam_size: usize,
    /// How many recordings were heard.
    pub n_recordings: usize,
    /// Their length together.
    pub audio_secs: f64,
    /// The first is what the others are compared with.
    pub precisions: Vec<PrecisionCost>,
}

/// What was heard in one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrecisionCost {
    /// Its name.
    pub precision: String,
    /// Share of the words, of both, that are the same as in the first.
    pub same_words: f64,
    /// By each normaliser.
    pub error_rates: Vec<ErrorRates>,
}

/// How much of the texts was wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorRates {
    /// What was done to texts before they were compared.
    pub normaliser: String,
    /// Word errors per word; none where nothing was said.
    pub wer: Option<f64>,
    /// Character errors per character; none where nothing was said.
    pub cer: Option<f64>,
}

impl PrecisionCosts {
    /// What lies beside a model, if anything does. An adapter's base says nothing about what it became.
    pub fn read(source: &BundleSource) -> Result<Option<Self>, Error> {
        if matches!(source, BundleSource::Adapted { .. }) || !source.has(PRECISION_FILE) {
            return Ok(None);
        }
        let bytes = source.read(PRECISION_FILE)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::File {
            path: source.path(PRECISION_FILE),
            message: format!("is not what `speechd evaluate --record` writes: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_as_they_were_written_and_nothing_else_is() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let source = BundleSource::from(folder.path());
        assert_eq!(PrecisionCosts::read(&source)?, None);
        let costs = PrecisionCosts {
            manifests: vec!["fsdd/test.jsonl".to_owned()],
            language: Some("en".to_owned()),
            beam_size: 5,
            n_recordings: 3,
            audio_secs: 4.5,
            precisions: vec![PrecisionCost {
                precision: "f32".to_owned(),
                same_words: 1.0,
                error_rates: vec![ErrorRates { normaliser: "basic".to_owned(), wer: Some(0.25), cer: None }],
            }],
        };
        let path = folder.path().join(PRECISION_FILE);
        std::fs::write(&path, serde_json::to_string(&costs)?)?;
        assert_eq!(PrecisionCosts::read(&source)?, Some(costs));
        std::fs::write(&path, "{}")?;
        let message = PrecisionCosts::read(&source).expect_err("refused").to_string();
        assert!(message.contains("precision.json") && message.contains("evaluate --record"), "{message}");
        Ok(())
    }
}
