//! chrF and chrF++ (Popović 2015, 2017), equal to sacrebleu, on the scale from 0 to 100.

use serde::{Deserialize, Serialize};

use super::{Error, ngrams};
use crate::text;

/// How chrF is computed. The default is sacrebleu's chrF2; `word_order: 2` makes it chrF2++.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChrfOptions {
    /// Longest n-gram of characters.
    pub char_order: usize,
    /// Longest n-gram of words; 0 leaves words out.
    pub word_order: usize,
    /// How much more recall weighs than precision.
    pub beta: f64,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// Whether white space is part of the n-grams of characters.
    pub whitespace: bool,
    /// Whether orders that a side is too short for count as nearly 0, as in chrF++.py, Moses and NLTK; otherwise they are
    /// left out.
    pub eps_smoothing: bool,
}

impl Default for ChrfOptions {
    fn default() -> Self {
        Self {
            char_order: 6,
            word_order: 0,
            beta: 2.0,
            lowercase: false,
            whitespace: false,
            eps_smoothing: false,
        }
    }
}

/// What chrF has to know about one segment or, added up, about a corpus: by order, characters before words, the n-grams of
/// the hypothesis, of the reference and of both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChrfStatistics {
    /// `[hypothesis, reference, both]` of each order.
    pub orders: Vec<[usize; 3]>,
}

/// A corpus of translations.
#[derive(Debug)]
pub struct Chrf {
    options: ChrfOptions,
    segments: Vec<ChrfStatistics>,
    n_references: Option<usize>,
    references_vary: bool,
}

impl Chrf {
    /// An empty corpus.
    pub fn new(options: ChrfOptions) -> Result<Self, Error> {
        if options.char_order + options.word_order == 0 {
            let message = "0, as word_order is: at least one must be above".to_owned();
            return Err(Error::Option { option: "char_order", message });
        }
        if !(options.beta.is_finite() && options.beta > 0.0) {
            let message = format!("{} is not finite and above 0", options.beta);
            return Err(Error::Option { option: "beta", message });
        }
        Ok(Self { options, segments: Vec::new(), n_references: None, references_vary: false })
    }

    /// Adds a segment with all its references, of which the one with the best score counts.
    pub fn add(&mut self, hypothesis: &str, references: &[&str]) -> Result<(), Error> {
        let hypothesis = Units::new(hypothesis, &self.options);
        let mut best: Option<(f64, ChrfStatistics)> = None;
        for reference in references {
            let statistics = hypothesis.compare(&Units::new(reference, &self.options), &self.options);
            let score = statistics.score(&self.options);
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                best = Some((score, statistics));
            }
        }
        let Some((_, statistics)) = best else {
            let message = "it has no reference: give at least one".to_owned();
            return Err(Error::Utterance { index: self.segments.len(), message });
        };
        self.segments.push(statistics);
        self.references_vary |= *self.n_references.get_or_insert(references.len()) != references.len();
        Ok(())
    }

    /// What was added, segment by segment.
    pub fn segments(&self) -> &[ChrfStatistics] {
        &self.segments
    }

    /// The score of all segments together, from 0 to 100.
    pub fn score(&self) -> Result<f64, Error> {
        if self.segments.is_empty() {
            return Err(Error::Empty);
        }
        Ok(ChrfStatistics::sum(&self.segments).score(&self.options))
    }

    /// What has to stand beside the score, as in sacrebleu's output but for its version.
    pub fn signature(&self) -> String {
        let n_references = match self.n_references {
            Some(n) if !self.references_vary => n.to_string(),
            _ => "var".to_owned(),
        };
        let ChrfOptions { char_order, word_order, .. } = self.options;
        let case = if self.options.lowercase { "lc" } else { "mixed" };
        let effective = if self.options.eps_smoothing { "no" } else { "yes" };
        let space = if self.options.whitespace { "yes" } else { "no" };
        format!(
            "nrefs:{n_references}|case:{case}|eff:{effective}|nc:{char_order}|nw:{word_order}|space:{space}"
        )
    }
}

impl ChrfStatistics {
    /// All segments together.
    pub fn sum<'a>(segments: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for segment in segments {
            sum.orders.resize(sum.orders.len().max(segment.orders.len()), [0; 3]);
            for (sum, counts) in sum.orders.iter_mut().zip(&segment.orders) {
                for (sum, n) in sum.iter_mut().zip(counts) {
                    *sum += n;
                }
            }
        }
        sum
    }

    /// The score of these counts; only `beta` and `eps_smoothing` matter.
    pub fn score(&self, options: &ChrfOptions) -> f64 {
        const EPSILON: f64 = 1e-16;
        let factor = options.beta * options.beta;
        let f_score =
            |precision: f64, recall: f64| (1.0 + factor) * precision * recall / (factor * precision + recall);
        let share = |n: usize, of: usize| if of > 0 { n as f64 / of as f64 } else { EPSILON };

        let (mut smoothed, mut precision, mut recall, mut n_orders) = (0.0, 0.0, 0.0, 0_u32);
        for &[n_hypothesis, n_reference, n_both] in &self.orders {
            let (p, r) = (share(n_both, n_hypothesis), share(n_both, n_reference));
            smoothed += if factor * p + r > 0.0 { f_score(p, r) } else { EPSILON };
            if n_hypothesis > 0 && n_reference > 0 {
                precision += p;
                recall += r;
                n_orders += 1;
            }
        }
        if options.eps_smoothing {
            return 100.0 * smoothed / self.orders.len().max(1) as f64;
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        100.0 * f_score(precision / f64::from(n_orders), recall / f64::from(n_orders))
    }
}

/// A text as chrF reads it.
struct Units {
    characters: Vec<char>,
    words: Vec<String>,
}

impl Units {
    fn new(text: &str, options: &ChrfOptions) -> Self {
        let text = if options.lowercase { text.to_lowercase() } else { text.to_owned() };
        let characters = text.chars().filter(|c| options.whitespace || !text::is_space(*c)).collect();
        let words = if options.word_order > 0 { split_punctuation(&text) } else { Vec::new() };
        Self { characters, words }
    }

    fn compare(&self, reference: &Self, options: &ChrfOptions) -> ChrfStatistics {
        let characters = (1..=options.char_order).map(|n| counts(&self.characters, &reference.characters, n));
        let words = (1..=options.word_order).map(|n| counts(&self.words, &reference.words, n));
        ChrfStatistics { orders: characters.chain(words).collect() }
    }
}

fn counts<T: Ord>(hypothesis: &[T], reference: &[T], order: usize) -> [usize; 3] {
    let (said, known) = (ngrams::count(hypothesis, order), ngrams::count(reference, order));
    // Without n-grams in the reference those of the hypothesis do not count either.
    let n_hypothesis = if known.is_empty() { 0 } else { ngrams::total(&said) };
    [n_hypothesis, ngrams::total(&known), ngrams::matches(&said, &known)]
}

/// Words with one mark of ASCII split off: the last character, or else the first, as in chrF++.py.
fn split_punctuation(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in text::words(text) {
        let mut inner = word.chars();
        let (first, last) = (inner.next(), inner.next_back());
        match (first, last) {
            (Some(_), Some(last)) if last.is_ascii_punctuation() => {
                words.extend([word[..word.len() - 1].to_owned(), last.to_string()]);
            }
            (Some(first), Some(_)) if first.is_ascii_punctuation() => {
                words.extend([first.to_string(), word[1..].to_owned()]);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests;
