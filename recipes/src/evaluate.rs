//! How good a recogniser is: recordings through the path that serving takes, and the scores of what comes out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use audio::Waveform;
use models::{DecodeOptions, Task, Transcriber, Transcription, TranscriptionWorker, Update, Worker};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::metrics::{self, Score, ScoreOptions};
use crate::text::Normaliser;

/// Recordings that are decoded together.
const TOGETHER: usize = 8;

/// A recording and what is said in it.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// The recording.
    pub waveform: Waveform,
    /// What is said.
    pub text: String,
    /// The language, where the model has to be told.
    pub language: Option<String>,
    /// The language that `text` is a translation into, where it is one.
    pub to_language: Option<String>,
}

/// A recording that could not be listened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unheard {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Unheard {
    /// What `error` did to the recording `name`.
    pub fn new(name: &str, error: &Error) -> Self {
        Self { name: name.to_owned(), reason: error.to_string() }
    }
}

/// A recording and what was heard in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// Its name.
    pub name: String,
    /// What is said.
    pub reference: String,
    /// What was heard.
    pub hypothesis: String,
    /// How long it is.
    pub duration_secs: f64,
}

impl Heard {
    /// Whether nothing is said in it that should be written.
    pub fn is_silent(&self) -> bool {
        self.reference.trim().is_empty()
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// Recordings in which nothing is said.
    pub n_silent: usize,
    /// Those of them that got a text nevertheless.
    pub n_silent_with_text: usize,
    /// Seconds that decoding took.
    pub busy_secs: f64,
    /// Seconds of audio.
    pub audio_secs: f64,
    /// What was heard, in order.
    pub heard: Vec<Heard>,
    /// Recordings that could not be decoded, and why.
    pub failed: Vec<Unheard>,
}

impl Evaluation {
    /// Seconds of audio for each second of decoding.
    pub fn speed(&self) -> f64 {
        self.audio_secs / self.busy_secs.max(1e-9)
    }

    /// The score of the recordings in which something is said; `None` where there are none.
    ///
    /// # Errors
    /// Options that make no sense.
    pub fn score(&self, options: &ScoreOptions) -> Result<Option<Score>, metrics::Error> {
        let mut score = Score::new(options.clone())?;
        let mut spoken = self.heard.iter().filter(|heard| !heard.is_silent()).peekable();
        let is_any = spoken.peek().is_some();
        for Heard { name, reference, hypothesis, duration_secs } in spoken {
            score.add_named(name, reference, hypothesis, *duration_secs)?;
        }
        Ok(is_any.then_some(score))
    }

    /// Share of the words that are the same in `other`, which heard the same recordings in the same order, of the words of
    /// both: 1 where nothing was heard. What one of them failed to hear does not count.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn same_words(&self, other: &Self) -> Result<f64, metrics::Error> {
        let mut score = Score::new(ScoreOptions { normaliser: Normaliser::None, ..ScoreOptions::default() })?;
        let mut theirs: BTreeMap<&str, VecDeque<&str>> = BTreeMap::new();
        let mut is_any = false;
        for Heard { name, hypothesis, .. } in &other.heard {
            theirs.entry(name).or_default().push_back(hypothesis);
        }
        for Heard { name, hypothesis, duration_secs, .. } in &self.heard {
            let Some(theirs) = theirs.get_mut(name.as_str()).and_then(VecDeque::pop_front) else { continue };
            score.add_named(name, hypothesis, theirs, *duration_secs)?;
            is_any = true;
        }
        if !is_any {
            return Ok(1.0);
        }
        let errors = score.report()?.words.errors;
        let n_words = errors.n_reference + errors.insertions;
        let n_same = errors.n_reference - errors.substitutions - errors.deletions;
        Ok(if n_words == 0 { 1.0 } else { n_same as f64 / n_words as f64 })
    }

    /// Share of the recordings without speech that got a text; `None` where there are none.
    pub fn false_text_rate(&self) -> Option<f64> {
        (self.n_silent > 0).then(|| self.n_silent_with_text as f64 / self.n_silent as f64)
    }
}

/// Transcribes all references. `progress` hears how many are done. What the model refuses is told recording by recording.
pub fn evaluate(
    transcriber: &Transcriber,
    references: impl Iterator<Item = Result<Reference, Unheard>>,
    options: &DecodeOptions,
    progress: &mut dyn FnMut(usize),
) -> Evaluation {
    evaluate_by(&mut |batch| transcribe(transcriber, batch, options), references, progress)
}

/// What was heard in each of some recordings.
type Texts = Vec<Result<String, models::Error>>;

/// [`evaluate`] by whatever hears a few recordings at once, and says a text of each or why there is none.
pub(crate) fn evaluate_by(
    hear: &mut dyn FnMut(&[Reference]) -> Texts,
    references: impl Iterator<Item = Result<Reference, Unheard>>,
    progress: &mut dyn FnMut(usize),
) -> Evaluation {
    let mut evaluation = Evaluation::default();
    let mut references = references.peekable();
    let mut n_done = 0;
    while references.peek().is_some() {
        let mut batch = Vec::new();
        for reference in references.by_ref().take(TOGETHER) {
            match reference {
                Ok(reference) => batch.push(reference),
                Err(unheard) => evaluation.failed.push(unheard),
            }
        }
        let began = Instant::now();
        let texts = hear(&batch);
        evaluation.busy_secs += began.elapsed().as_secs_f64();
        n_done += batch.len();
        for (reference, text) in batch.into_iter().zip(texts) {
            let duration_secs = reference.waveform.duration_secs();
            let text = match text {
                Ok(text) => text,
                Err(error) => {
                    evaluation.failed.push(Unheard::new(&reference.name, &error.into()));
                    continue;
                }
            };
            evaluation.audio_secs += duration_secs;
            let Reference { name, text: reference, .. } = reference;
            let heard = Heard { name, reference, hypothesis: text, duration_secs };
            evaluation.n_silent += usize::from(heard.is_silent());
            evaluation.n_silent_with_text +=
                usize::from(heard.is_silent() && !heard.hypothesis.trim().is_empty());
            evaluation.heard.push(heard);
        }
        progress(n_done);
    }
    evaluation
}

/// The texts of a few recordings, decoded together.
fn transcribe(transcriber: &Transcriber, batch: &[Reference], options: &DecodeOptions) -> Texts {
    let mut worker = TranscriptionWorker::new(transcriber, usize::MAX);
    let mut texts: BTreeMap<u64, Result<String, models::Error>> = BTreeMap::new();
    for (id, reference) in (0..).zip(batch) {
        let language = reference.language.clone().or_else(|| options.language.clone());
        let to_language = reference.to_language.clone();
        let options = match to_language.is_some() {
            true => DecodeOptions { language, task: Task::Translate, to_language, ..options.clone() },
            false => DecodeOptions { language, ..options.clone() },
        };
        match Transcription::prepare(transcriber, reference.waveform.clone(), &options, &|| true) {
            Ok(transcription) => worker.join(id, transcription),
            Err(error) => {
                texts.insert(id, Err(error));
            }
        }
    }
    while texts.len() < batch.len() {
        let stepped = worker.step(&|_| true, &mut |id, update| match update {
            Update::Done(done) => {
                texts.insert(id, Ok(done.transcript.text));
            }
            Update::Failed(error) => {
                texts.insert(id, Err(error));
            }
            Update::Progress(_) | Update::Part(_) => {}
        });
        if let Err(error) = stepped {
            // What fails as a whole fails for all that had not ended; the cause is told with the first.
            let mut cause = Some(error);
            for id in 0..batch.len() as u64 {
                texts.entry(id).or_insert_with(|| Err(cause.take().unwrap_or(models::Error::Cancelled)));
            }
        }
    }
    texts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(heard: &[(&str, &str)]) -> Evaluation {
        let heard = heard.iter().map(|(name, hypothesis)| Heard {
            name: (*name).to_owned(),
            reference: String::new(),
            hypothesis: (*hypothesis).to_owned(),
            duration_secs: 1.0,
        });
        Evaluation { heard: heard.collect(), ..Evaluation::default() }
    }

    #[test]
    fn words_that_two_hear_alike_are_counted_among_those_of_both() -> Result<(), metrics::Error> {
        let here = evaluation(&[("a", "one two three"), ("b", ""), ("a", "four"), ("c", "five")]);
        assert_eq!(here.same_words(&here)?, 1.0);
        // Of the recordings called `a` the first is compared with the first; `c` failed there.
        let there = evaluation(&[("a", "one two tree"), ("b", "six"), ("a", "four four")]);
        assert_eq!(here.same_words(&there)?, 3.0 / 6.0);
        assert_eq!(evaluation(&[]).same_words(&there)?, 1.0);
        assert_eq!(here.same_words(&evaluation(&[("a", "x y z w")]))?, 0.0);
        Ok(())
    }
}
