//! A test set as it is scored: what the command `evaluate` adds to, utterance by utterance.

use serde::{Deserialize, Serialize};

use super::{
    Bleu, BleuOptions, BleuStatistics, Chrf, ChrfOptions, ChrfStatistics, Error, Errors, Resampling, Ter,
    TerOptions, TerStatistics, align, character_errors,
    report::{Bucket, Rate, Report, TranslationScore, WorstUtterance},
    words,
};
use crate::text::{Normaliser, TextNormaliser};

/// How a test set is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreOptions {
    /// What is done to both texts before words and characters are compared. BLEU, chrF and TER see them as they are.
    pub normaliser: Normaliser,
    /// How intervals are found.
    pub resampling: Resampling,
    /// Where one class of durations ends and the next begins, in seconds, ascending.
    pub bucket_edges_secs: Vec<f64>,
    /// How many of the worst utterances the report shows.
    pub n_worst: usize,
    /// BLEU as well, for translations.
    pub bleu: Option<BleuOptions>,
    /// chrF as well, for translations.
    pub chrf: Option<ChrfOptions>,
    /// TER as well, for translations.
    pub ter: Option<TerOptions>,
}

impl Default for ScoreOptions {
    fn default() -> Self {
        Self {
            normaliser: Normaliser::default(),
            resampling: Resampling::default(),
            bucket_edges_secs: vec![2.0, 5.0, 10.0, 20.0, 30.0],
            n_worst: 10,
            bleu: None,
            chrf: None,
            ter: None,
        }
    }
}

/// What is kept of an utterance: its texts after normalisation, and its counts.
#[derive(Debug)]
pub(super) struct Utterance {
    name: Option<String>,
    pub(super) reference: String,
    hypothesis: String,
    duration_secs: f64,
    pub(super) words: Errors,
    pub(super) characters: Errors,
}

/// A test set, utterance by utterance.
#[derive(Debug)]
pub struct Score {
    options: ScoreOptions,
    normaliser: TextNormaliser,
    bleu: Option<Bleu>,
    chrf: Option<Chrf>,
    ter: Option<Ter>,
    utterances: Vec<Utterance>,
}

impl Score {
    /// An empty test set.
    pub fn new(options: ScoreOptions) -> Result<Self, Error> {
        options.resampling.check()?;
        let edges = &options.bucket_edges_secs;
        if !edges.iter().all(|edge| edge.is_finite() && *edge > 0.0) || !edges.is_sorted_by(|a, b| a < b) {
            return Err(Error::Option {
                option: "bucket_edges_secs",
                message: format!("{edges:?} must be above 0 and ascending"),
            });
        }
        Ok(Self {
            normaliser: TextNormaliser::new(options.normaliser)?,
            bleu: options.bleu.map(Bleu::new).transpose()?,
            chrf: options.chrf.map(Chrf::new).transpose()?,
            ter: options.ter.map(Ter::new).transpose()?,
            utterances: Vec::new(),
            options,
        })
    }

    /// Adds an utterance. An empty reference is allowed: whatever is said then is an insertion.
    pub fn add(&mut self, reference: &str, hypothesis: &str, duration_secs: f64) -> Result<(), Error> {
        self.add_as(None, reference, hypothesis, duration_secs)
    }

    /// Adds an utterance that the report calls by its name.
    pub fn add_named(
        &mut self,
        name: impl Into<String>,
        reference: &str,
        hypothesis: &str,
        duration_secs: f64,
    ) -> Result<(), Error> {
        self.add_as(Some(name.into()), reference, hypothesis, duration_secs)
    }

    fn add_as(
        &mut self,
        name: Option<String>,
        reference: &str,
        hypothesis: &str,
        duration_secs: f64,
    ) -> Result<(), Error> {
        if !duration_secs.is_finite() || duration_secs < 0.0 {
            return Err(Error::Utterance {
                index: self.utterances.len(),
                message: format!("its duration of {duration_secs} s must be finite and at least 0"),
            });
        }
        if let Some(bleu) = &mut self.bleu {
            bleu.add(hypothesis, &[reference])?;
        }
        if let Some(chrf) = &mut self.chrf {
            chrf.add(hypothesis, &[reference])?;
        }
        if let Some(ter) = &mut self.ter {
            ter.add(hypothesis, &[reference])?;
        }
        let reference = self.normaliser.apply(reference).into_owned();
        let hypothesis = self.normaliser.apply(hypothesis).into_owned();
        self.utterances.push(Utterance {
            name,
            words: align(&words(&reference), &words(&hypothesis)).errors(),
            characters: character_errors(&reference, &hypothesis),
            reference,
            hypothesis,
            duration_secs,
        });
        Ok(())
    }

    pub(super) fn utterances(&self) -> &[Utterance] {
        &self.utterances
    }

    /// The normalised texts of each utterance, reference first.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.utterances.iter().map(|utterance| (utterance.reference.as_str(), utterance.hypothesis.as_str()))
    }

    pub(super) fn options(&self) -> &ScoreOptions {
        &self.options
    }

    /// All scores of what was added so far.
    pub fn report(&self) -> Result<Report, Error> {
        if self.utterances.is_empty() {
            return Err(Error::Empty);
        }
        Ok(Report {
            normaliser: self.options.normaliser,
            n_utterances: self.utterances.len(),
            n_with_errors: self.utterances.iter().filter(|utterance| utterance.words.errors() > 0).count(),
            duration_secs: self.utterances.iter().map(|utterance| utterance.duration_secs).sum(),
            confidence: self.options.resampling.confidence,
            words: self.rate(|utterance| utterance.words),
            characters: self.rate(|utterance| utterance.characters),
            bleu: self.bleu(),
            chrf: self.chrf(),
            ter: self.ter(),
            by_duration: self.buckets(),
            worst: self.worst(),
        })
    }

    fn rate(&self, errors: impl Fn(&Utterance) -> Errors) -> Rate {
        let counts: Vec<Errors> = self.utterances.iter().map(errors).collect();
        let resampling = &self.options.resampling;
        let scores = resampling.scores(counts.len(), |drawn| {
            Rate::new(drawn.iter().map(|i| counts[*i]).sum()).rate.unwrap_or(f64::NAN)
        });
        Rate { interval: resampling.interval(scores), ..Rate::new(counts.into_iter().sum()) }
    }

    fn bleu(&self) -> Option<TranslationScore> {
        let (bleu, options) = (self.bleu.as_ref()?, self.options.bleu.as_ref()?);
        let segments = bleu.segments();
        let scores = self.options.resampling.scores(segments.len(), |drawn| {
            drawn.iter().map(|i| segments[*i]).sum::<BleuStatistics>().score(options).score
        });
        Some(TranslationScore {
            score: bleu.score().ok()?.score,
            interval: self.options.resampling.interval(scores),
            signature: bleu.signature(),
        })
    }

    fn chrf(&self) -> Option<TranslationScore> {
        let (chrf, options) = (self.chrf.as_ref()?, self.options.chrf.as_ref()?);
        let segments = chrf.segments();
        let scores = self.options.resampling.scores(segments.len(), |drawn| {
            ChrfStatistics::sum(drawn.iter().map(|i| &segments[*i])).score(options)
        });
        Some(TranslationScore {
            score: chrf.score().ok()?,
            interval: self.options.resampling.interval(scores),
            signature: chrf.signature(),
        })
    }

    fn ter(&self) -> Option<TranslationScore> {
        let ter = self.ter.as_ref()?;
        let segments = ter.segments();
        let scores = self.options.resampling.scores(segments.len(), |drawn| {
            drawn.iter().map(|i| segments[*i]).sum::<TerStatistics>().score()
        });
        Some(TranslationScore {
            score: ter.score().ok()?,
            interval: self.options.resampling.interval(scores),
            signature: ter.signature(),
        })
    }

    /// Classes of durations that have utterances, shortest first.
    fn buckets(&self) -> Vec<Bucket> {
        let edges = &self.options.bucket_edges_secs;
        let mut buckets = vec![(0, 0.0, Errors::default(), Errors::default()); edges.len() + 1];
        for utterance in &self.utterances {
            let class = edges.partition_point(|edge| *edge <= utterance.duration_secs);
            let (n_utterances, duration_secs, words, characters) = &mut buckets[class];
            *n_utterances += 1;
            *duration_secs += utterance.duration_secs;
            *words = *words + utterance.words;
            *characters = *characters + utterance.characters;
        }
        let starts = [0.0].into_iter().chain(edges.iter().copied());
        let ends = edges.iter().copied().map(Some).chain([None]);
        let bucket = |((from_secs, to_secs), (n_utterances, duration_secs, words, characters))| Bucket {
            from_secs,
            to_secs,
            n_utterances,
            duration_secs,
            words: Rate::new(words),
            characters: Rate::new(characters),
        };
        starts.zip(ends).zip(buckets).map(bucket).filter(|bucket| bucket.n_utterances > 0).collect()
    }

    /// The utterances with the most word errors: those that the corpus's rate owes most to.
    fn worst(&self) -> Vec<WorstUtterance> {
        let mut order: Vec<_> =
            self.utterances.iter().enumerate().filter(|(_, one)| one.words.errors() > 0).collect();
        order.sort_by(|(_, a), (_, b)| {
            b.words.errors().cmp(&a.words.errors()).then(b.words.rate().total_cmp(&a.words.rate()))
        });
        order.truncate(self.options.n_worst);
        let worst = |(index, utterance): (usize, &Utterance)| {
            let (reference, hypothesis) = (words(&utterance.reference), words(&utterance.hypothesis));
            WorstUtterance {
                index,
                name: utterance.name.clone(),
                duration_secs: utterance.duration_secs,
                words: Rate::new(utterance.words),
                characters: Rate::new(utterance.characters),
                aligned: align(&reference, &hypothesis).marked(&reference, &hypothesis),
            }
        };
        order.into_iter().map(worst).collect()
    }
}

#[cfg(test)]
mod tests;
