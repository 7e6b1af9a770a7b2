//! TER, the translation edit rate (Snover and others 2006), equal to sacrebleu: edits per hundred words of the reference, where
//! moving words that stand together is one edit. Lower is better; it may exceed 100.

mod edits;
mod tokenizer;

use std::{iter::Sum, ops::Add};

use serde::{Deserialize, Serialize};

use self::tokenizer::Tokenizer;
use super::Error;
use crate::text;

/// How TER is computed. The default is sacrebleu's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TerOptions {
    /// Whether marks are read that are escaped for XML, and punctuation is split off.
    pub normalized: bool,
    /// Whether punctuation is left out.
    pub no_punct: bool,
    /// Whether `normalized` makes each ideograph a word, and both know the punctuation of Chinese and Japanese.
    pub asian_support: bool,
    /// Whether case counts.
    pub case_sensitive: bool,
}

/// What TER has to know about one segment or, added up, about a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TerStatistics {
    /// Edits to the reference that takes the fewest.
    pub n_edits: usize,
    /// Words of a reference, the mean of all.
    pub n_reference: f64,
}

/// A corpus of translations.
#[derive(Debug)]
pub struct Ter {
    options: TerOptions,
    tokenizer: Tokenizer,
    segments: Vec<TerStatistics>,
    n_references: Option<usize>,
    references_vary: bool,
}

impl Ter {
    /// An empty corpus.
    pub fn new(options: TerOptions) -> Result<Self, Error> {
        Ok(Self {
            options,
            tokenizer: Tokenizer::new(options)?,
            segments: Vec::new(),
            n_references: None,
            references_vary: false,
        })
    }

    /// Adds a segment with all its references, of which an empty one counts as one.
    pub fn add(&mut self, hypothesis: &str, references: &[&str]) -> Result<(), Error> {
        let tokenize = |text: &str| self.tokenizer.apply(text.trim_end_matches(text::is_space));
        let hypothesis = tokenize(hypothesis);
        let hypothesis: Vec<&str> = text::words(&hypothesis).collect();
        let (mut fewest, mut n_words) = (None, 0);
        for reference in references {
            let reference = tokenize(reference);
            let reference: Vec<&str> = text::words(&reference).collect();
            let n_edits = edits::count(&hypothesis, &reference);
            fewest = Some(fewest.map_or(n_edits, |fewest: usize| fewest.min(n_edits)));
            n_words += reference.len();
        }
        let Some(n_edits) = fewest else {
            let message = "it has no reference: give at least one".to_owned();
            return Err(Error::Utterance { index: self.segments.len(), message });
        };
        let n_reference = n_words as f64 / references.len() as f64;
        self.segments.push(TerStatistics { n_edits, n_reference });
        self.references_vary |= *self.n_references.get_or_insert(references.len()) != references.len();
        Ok(())
    }

    /// What was added, segment by segment.
    pub fn segments(&self) -> &[TerStatistics] {
        &self.segments
    }

    /// The score of all segments together, from 0 up.
    pub fn score(&self) -> Result<f64, Error> {
        if self.segments.is_empty() {
            return Err(Error::Empty);
        }
        Ok(self.segments.iter().copied().sum::<TerStatistics>().score())
    }

    /// What has to stand beside the score, as in sacrebleu's output but for its version.
    pub fn signature(&self) -> String {
        let n_references = match self.n_references {
            Some(n) if !self.references_vary => n.to_string(),
            _ => "var".to_owned(),
        };
        let TerOptions { normalized, no_punct, asian_support, case_sensitive } = self.options;
        let case = if case_sensitive { "mixed" } else { "lc" };
        let [norm, punct, asian] =
            [normalized, !no_punct, asian_support].map(|is_on| if is_on { "yes" } else { "no" });
        format!("nrefs:{n_references}|case:{case}|tok:tercom|norm:{norm}|punct:{punct}|asian:{asian}")
    }
}

impl TerStatistics {
    /// The score of these counts. Words where the references have none make it 100.
    pub fn score(&self) -> f64 {
        if self.n_reference > 0.0 {
            return 100.0 * (self.n_edits as f64 / self.n_reference);
        }
        if self.n_edits > 0 { 100.0 } else { 0.0 }
    }
}

impl Add for TerStatistics {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { n_edits: self.n_edits + other.n_edits, n_reference: self.n_reference + other.n_reference }
    }
}

impl Sum for TerStatistics {
    fn sum<I: Iterator<Item = Self>>(segments: I) -> Self {
        segments.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests;
