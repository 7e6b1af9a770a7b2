//! BLEU (Papineni and others 2002), equal to sacrebleu (Post 2018), on the scale from 0 to 100.

mod tokenizer;

pub use tokenizer::BleuTokenizer;

use std::{array, iter::Sum, ops::Add};

use serde::{Deserialize, Serialize};

use self::tokenizer::Tokenizer;
use super::{Error, ngrams};
use crate::text;

/// N-grams of one to this many words.
const MAX_ORDER: usize = 4;

/// What an order without matches counts, so that the geometric mean is not 0 at once (Chen and Cherry 2014).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Smoothing {
    /// Nothing.
    None,
    /// This many matches; 0.1 is usual.
    Floor(f64),
    /// This many are added to matches and totals of all orders but the first; 1 is usual.
    AddK(f64),
    /// Half a match, then a quarter, and so on (mteval-v13a), the default.
    #[default]
    Exp,
}

/// How BLEU is computed. The default is sacrebleu's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BleuOptions {
    /// How texts are cut into words.
    pub tokenizer: BleuTokenizer,
    /// What orders without matches count.
    pub smoothing: Smoothing,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// Whether only the orders for which the hypothesis is long enough count: for single sentences.
    pub effective_order: bool,
}

/// What BLEU has to know about one segment or, added up, about a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuStatistics {
    /// Words of the hypothesis.
    pub n_hypothesis: usize,
    /// Words of the reference whose length is closest.
    pub n_reference: usize,
    /// N-grams of the hypothesis that a reference has too, by order from 1.
    pub matches: [usize; MAX_ORDER],
    /// N-grams of the hypothesis, by order from 1.
    pub totals: [usize; MAX_ORDER],
}

/// A score and its parts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BleuScore {
    /// From 0 to 100.
    pub score: f64,
    /// Smoothed shares of n-grams that match, in percent, by order from 1.
    pub precisions: [f64; MAX_ORDER],
    /// By how much a hypothesis that is shorter than the reference is marked down: up to 1, which is not at all.
    pub brevity_penalty: f64,
    /// Words of the hypotheses.
    pub n_hypothesis: usize,
    /// Words of the references.
    pub n_reference: usize,
}

/// A corpus of translations.
#[derive(Debug)]
pub struct Bleu {
    options: BleuOptions,
    tokenizer: Tokenizer,
    segments: Vec<BleuStatistics>,
    n_references: Option<usize>,
    references_vary: bool,
}

impl Bleu {
    /// An empty corpus.
    pub fn new(options: BleuOptions) -> Result<Self, Error> {
        let usable = match options.smoothing {
            Smoothing::None | Smoothing::Exp => true,
            Smoothing::Floor(value) | Smoothing::AddK(value) => value.is_finite() && value >= 0.0,
        };
        if !usable {
            let message = format!("{:?} is not finite and at least 0", options.smoothing);
            return Err(Error::Option { option: "smoothing", message });
        }
        Ok(Self {
            options,
            tokenizer: Tokenizer::new(options.tokenizer)?,
            segments: Vec::new(),
            n_references: None,
            references_vary: false,
        })
    }

    /// Adds a segment with all its references, of which an empty one counts as one.
    pub fn add(&mut self, hypothesis: &str, references: &[&str]) -> Result<(), Error> {
        let tokenize = |text: &str| {
            let text = text.trim_end_matches(text::is_space);
            self.tokenizer.apply(&if self.options.lowercase { text.to_lowercase() } else { text.to_owned() })
        };
        let texts: Vec<String> = references.iter().map(|reference| tokenize(reference)).collect();
        let references: Vec<Vec<&str>> = texts.iter().map(|text| text::words(text).collect()).collect();
        let hypothesis = tokenize(hypothesis);
        let hypothesis: Vec<&str> = text::words(&hypothesis).collect();

        let distance = |n: &usize| (n.abs_diff(hypothesis.len()), *n);
        let Some(n_reference) = references.iter().map(Vec::len).min_by_key(distance) else {
            let message = "it has no reference: give at least one".to_owned();
            return Err(Error::Utterance { index: self.segments.len(), message });
        };
        let mut segment =
            BleuStatistics { n_hypothesis: hypothesis.len(), n_reference, ..BleuStatistics::default() };
        for order in 1..=MAX_ORDER {
            let mut known = ngrams::Counts::new();
            for reference in &references {
                for (ngram, n) in ngrams::count(reference, order) {
                    let most = known.entry(ngram).or_default();
                    *most = n.max(*most);
                }
            }
            let said = ngrams::count(&hypothesis, order);
            segment.matches[order - 1] = ngrams::matches(&said, &known);
            segment.totals[order - 1] = ngrams::total(&said);
        }
        self.segments.push(segment);
        self.references_vary |= *self.n_references.get_or_insert(references.len()) != references.len();
        Ok(())
    }

    /// What was added, segment by segment.
    pub fn segments(&self) -> &[BleuStatistics] {
        &self.segments
    }

    /// The score of all segments together.
    pub fn score(&self) -> Result<BleuScore, Error> {
        if self.segments.is_empty() {
            return Err(Error::Empty);
        }
        Ok(self.segments.iter().copied().sum::<BleuStatistics>().score(&self.options))
    }

    /// What has to stand beside the score, as in sacrebleu's output but for its version.
    pub fn signature(&self) -> String {
        let n_references = match self.n_references {
            Some(n) if !self.references_vary => n.to_string(),
            _ => "var".to_owned(),
        };
        let smoothing = match self.options.smoothing {
            Smoothing::None => "none".to_owned(),
            Smoothing::Floor(value) => format!("floor[{value:.2}]"),
            Smoothing::AddK(value) => format!("add-k[{value:.2}]"),
            Smoothing::Exp => "exp".to_owned(),
        };
        let case = if self.options.lowercase { "lc" } else { "mixed" };
        let effective = if self.options.effective_order { "yes" } else { "no" };
        format!(
            "nrefs:{n_references}|case:{case}|eff:{effective}|tok:{}|smooth:{smoothing}",
            self.options.tokenizer
        )
    }
}

impl BleuStatistics {
    /// The score of these counts; only `smoothing` and `effective_order` matter. Without a single match it is 0.
    pub fn score(&self, options: &BleuOptions) -> BleuScore {
        let brevity_penalty = match (self.n_hypothesis, self.n_reference) {
            (hypothesis, reference) if hypothesis >= reference => 1.0,
            (0, _) => 0.0,
            (hypothesis, reference) => (1.0 - reference as f64 / hypothesis as f64).exp(),
        };
        let mut score = BleuScore {
            score: 0.0,
            precisions: [0.0; MAX_ORDER],
            brevity_penalty,
            n_hypothesis: self.n_hypothesis,
            n_reference: self.n_reference,
        };
        if self.matches.iter().all(|n| *n == 0) {
            return score;
        }
        let mut halving = 1.0;
        let mut n_orders = MAX_ORDER;
        for (i, precision) in score.precisions.iter_mut().enumerate() {
            let added = match options.smoothing {
                Smoothing::AddK(k) if i > 0 => k,
                _ => 0.0,
            };
            let (matches, total) = (self.matches[i] as f64 + added, self.totals[i] as f64 + added);
            if total == 0.0 {
                break;
            }
            if options.effective_order {
                n_orders = i + 1;
            }
            *precision = match options.smoothing {
                _ if matches > 0.0 => 100.0 * matches / total,
                Smoothing::Exp => {
                    halving *= 2.0;
                    100.0 / (halving * total)
                }
                Smoothing::Floor(value) => 100.0 * value / total,
                Smoothing::None | Smoothing::AddK(_) => 0.0,
            };
        }
        let logarithms: f64 = score.precisions[..n_orders].iter().map(|precision| precision.ln()).sum();
        score.score = brevity_penalty * (logarithms / n_orders as f64).exp();
        score
    }
}

impl Add for BleuStatistics {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            n_hypothesis: self.n_hypothesis + other.n_hypothesis,
            n_reference: self.n_reference + other.n_reference,
            matches: array::from_fn(|i| self.matches[i] + other.matches[i]),
            totals: array::from_fn(|i| self.totals[i] + other.totals[i]),
        }
    }
}

impl Sum for BleuStatistics {
    fn sum<I: Iterator<Item = Self>>(segments: I) -> Self {
        segments.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests;
