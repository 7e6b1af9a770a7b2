//! How well a synthesiser speaks: what a recogniser hears in its speech, beside what it hears in recordings of the same texts, and how far
//! the speech lies from those.
//!
//! A recogniser errs by itself: only beside its errors on recordings do those on speech say anything. Both, and the distances, are of the
//! same texts: a recording that cannot be heard is left out on both sides.

use std::collections::BTreeMap;
use std::time::Instant;

use audio::Waveform;
use serde::Serialize;

use crate::Error;
use crate::evaluate::Unheard;
use crate::metrics::{self, Rate, Score, ScoreOptions, SpeechComparer, SpeechDistance};
use crate::text::Normaliser;

/// Texts of a kind whose speech is kept, to be looked at.
const EXAMPLES_OF_KIND: usize = 2;
/// What all kinds together are called.
pub const ALL_KINDS: &str = "all";

/// A text, who is to speak it, and a recording of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenReference {
    /// Its name.
    pub name: String,
    /// What it is for: `digits`, `word`, `sentence`.
    pub kind: String,
    /// The text.
    pub text: String,
    /// The voice.
    pub voice: String,
    /// The recording.
    pub waveform: Waveform,
}

/// Says a text in a voice: the samples, or why there are none.
pub type Speak<'a> = dyn FnMut(&str, &str) -> Result<Waveform, models::Error> + 'a;
/// Writes down what is said.
pub type Hear<'a> = dyn FnMut(&Waveform) -> Result<String, Error> + 'a;

/// A text that was spoken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spoken {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: String,
    /// Who spoke it.
    pub voice: String,
    /// The text.
    pub text: String,
    /// What was heard in the speech.
    pub heard: String,
    /// What was heard in the recording.
    pub heard_recorded: String,
    /// How long the speech is.
    pub duration_secs: f64,
    /// How far it lies from the recording.
    pub distance: SpeechDistance,
}

/// Speech to be looked at and listened to.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Its place among the references.
    pub reference: usize,
    /// Its place among what was spoken.
    pub spoken: usize,
    /// The speech.
    pub waveform: Waveform,
}

/// What an evaluation found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SpeechEvaluation {
    /// What was spoken and heard, in order.
    pub spoken: Vec<Spoken>,
    /// Texts that were not, and why.
    pub failed: Vec<Unheard>,
    /// Seconds that speaking took.
    pub busy_secs: f64,
    /// Seconds of speech.
    pub audio_secs: f64,
    /// Some of the speech, the first of each kind.
    #[serde(skip)]
    pub examples: Vec<Example>,
}

/// Error rates of texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rates {
    /// Of words.
    pub words: Rate,
    /// Of characters.
    pub characters: Rate,
}

/// Error rates of a kind of texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KindRates {
    /// The kind, or [`ALL_KINDS`].
    pub kind: String,
    /// How many texts there are.
    pub n_texts: usize,
    /// In the speech.
    pub spoken: Rates,
    /// In the recordings.
    pub recorded: Rates,
}

/// The scores of a synthesiser.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeechScores {
    /// What was done to texts before they were compared.
    pub normaliser: Normaliser,
    /// The share of resampled rates that lie in an interval.
    pub confidence: f64,
    /// By kind, and all together at the end.
    pub kinds: Vec<KindRates>,
    /// Mel-cepstral distortion, dB.
    pub distortion_db: Option<f64>,
    /// Root of the mean squared error of the pitch, cents.
    pub pitch_error_cents: Option<f64>,
    /// Share of the frames of which one is voiced and the other is not.
    pub voicing_error: Option<f64>,
    /// Seconds of speech.
    pub audio_secs: f64,
    /// Seconds of speech for each second of work.
    pub times_real_time: f64,
}

/// What is heard in the recordings: once, however many synthesisers are compared with them. `progress` hears how many are done.
pub fn hear_recordings(
    references: &[SpokenReference],
    hear: &mut Hear<'_>,
    progress: &mut dyn FnMut(usize),
) -> Vec<Result<String, Unheard>> {
    let mut texts = Vec::with_capacity(references.len());
    for reference in references {
        texts.push(hear(&reference.waveform).map_err(|error| Unheard::new(&reference.name, &error)));
        progress(texts.len());
    }
    texts
}

/// Speaks the text of each reference, hears it, and compares it with its recording, in which `recorded` was heard. What cannot be spoken or
/// heard is told text by text.
///
/// # Errors
/// Recordings that cannot be compared with anything, and a `recorded` of other references.
pub fn evaluate_speech(
    references: &[SpokenReference],
    recorded: &[Result<String, Unheard>],
    speak: &mut Speak<'_>,
    hear: &mut Hear<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<SpeechEvaluation, Error> {
    if references.len() != recorded.len() {
        let message = format!("{} recordings were heard of {}", recorded.len(), references.len());
        return Err(metrics::Error::Unpaired(message).into());
    }
    let comparer = SpeechComparer::new()?;
    let mut evaluation = SpeechEvaluation::default();
    let mut n_examples = BTreeMap::<&str, usize>::new();
    for (index, (reference, recorded)) in references.iter().zip(recorded).enumerate() {
        match recorded {
            Err(unheard) => evaluation.failed.push(unheard.clone()),
            Ok(heard_recorded) => {
                let began = Instant::now();
                let waveform = speak(&reference.text, &reference.voice);
                let busy_secs = began.elapsed().as_secs_f64();
                let heard =
                    waveform.map_err(Error::from).and_then(|waveform| Ok((hear(&waveform)?, waveform)));
                match heard {
                    Err(error) => evaluation.failed.push(Unheard::new(&reference.name, &error)),
                    Ok((heard, waveform)) => {
                        evaluation.busy_secs += busy_secs;
                        evaluation.audio_secs += waveform.duration_secs();
                        let distance = comparer.compare(&reference.waveform, &waveform)?;
                        let spoken = Spoken {
                            name: reference.name.clone(),
                            kind: reference.kind.clone(),
                            voice: reference.voice.clone(),
                            text: reference.text.clone(),
                            heard,
                            heard_recorded: heard_recorded.clone(),
                            duration_secs: waveform.duration_secs(),
                            distance,
                        };
                        let n_of_kind = n_examples.entry(&reference.kind).or_default();
                        if *n_of_kind < EXAMPLES_OF_KIND {
                            *n_of_kind += 1;
                            let spoken = evaluation.spoken.len();
                            evaluation.examples.push(Example { reference: index, spoken, waveform });
                        }
                        evaluation.spoken.push(spoken);
                    }
                }
            }
        }
        progress(index + 1);
    }
    Ok(evaluation)
}

impl SpeechEvaluation {
    /// The scores, texts being compared after `normaliser`.
    ///
    /// # Errors
    /// Where nothing was spoken.
    pub fn scores(&self, normaliser: Normaliser) -> Result<SpeechScores, metrics::Error> {
        let options = ScoreOptions { normaliser, n_worst: 0, ..ScoreOptions::default() };
        let mut kinds = BTreeMap::<&str, Vec<&Spoken>>::new();
        self.spoken.iter().for_each(|spoken| kinds.entry(&spoken.kind).or_default().push(spoken));
        let mut rates = Vec::new();
        for (kind, spoken) in &kinds {
            rates.push(KindRates::new(kind, spoken, &options)?);
        }
        if kinds.len() != 1 {
            rates.push(KindRates::new(ALL_KINDS, &self.spoken.iter().collect::<Vec<_>>(), &options)?);
        }
        let distances = self.spoken.iter().map(|spoken| spoken.distance);
        let distance = distances.fold(SpeechDistance::default(), |sum, distance| sum + distance);
        Ok(SpeechScores {
            normaliser,
            confidence: options.resampling.confidence,
            kinds: rates,
            distortion_db: distance.distortion_db(),
            pitch_error_cents: distance.pitch_error_cents(),
            voicing_error: distance.voicing_error(),
            audio_secs: self.audio_secs,
            times_real_time: self.audio_secs / self.busy_secs.max(1e-9),
        })
    }
}

impl KindRates {
    fn new(kind: &str, spoken: &[&Spoken], options: &ScoreOptions) -> Result<Self, metrics::Error> {
        let rates = |heard: &dyn Fn(&Spoken) -> String| {
            let mut score = Score::new(options.clone())?;
            for one in spoken {
                score.add_named(&one.name, &one.text, &heard(one), one.duration_secs)?;
            }
            let report = score.report()?;
            Ok::<_, metrics::Error>(Rates { words: report.words, characters: report.characters })
        };
        Ok(Self {
            kind: kind.to_owned(),
            n_texts: spoken.len(),
            spoken: rates(&|one| one.heard.clone())?,
            recorded: rates(&|one| one.heard_recorded.clone())?,
        })
    }
}

impl SpeechScores {
    /// The rates of all kinds together.
    pub fn all(&self) -> Option<&KindRates> {
        self.kinds.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tone that is as long as its text, so that what is said can be heard by its length.
    fn tone(text: &str, hz: f64) -> Waveform {
        let value = |at: usize| (std::f64::consts::TAU * hz * at as f64 / 16_000.0).sin() as f32 * 0.3;
        Waveform { samples: (0..1_600 * text.len()).map(value).collect(), sample_rate: 16_000 }
    }

    const TEXTS: [(&str, &str); 5] =
        [("digits", "one two"), ("digits", "six"), ("word", "garden"), ("word", "tent"), ("word", "lunch?")];

    fn references() -> Vec<SpokenReference> {
        let reference = |(index, (kind, text)): (usize, (&str, &str))| SpokenReference {
            name: index.to_string(),
            kind: kind.to_owned(),
            text: text.to_owned(),
            voice: "a".to_owned(),
            waveform: tone(text, 150.0),
        };
        TEXTS.into_iter().enumerate().map(reference).collect()
    }

    fn hear(waveform: &Waveform) -> Result<String, Error> {
        let is_it = |text: &str| 1_600 * text.len() == waveform.samples.len();
        let heard = TEXTS.iter().find(|(_, text)| is_it(text) && *text != "lunch?");
        Ok(heard.map_or("nothing", |(_, text)| text).to_uppercase())
    }

    #[test]
    fn rates_of_speech_stand_beside_those_of_recordings() {
        let references = references();
        let mut done = Vec::new();
        let recorded = hear_recordings(&references, &mut hear, &mut |n| done.push(n));
        assert_eq!(done, [1, 2, 3, 4, 5]);
        // It says "six" instead of "tent", and a semitone too high.
        let mut speak = |text: &str, voice: &str| {
            assert_eq!(voice, "a");
            Ok(tone(if text == "tent" { "six" } else { text }, 150.0 * 2.0_f64.powf(1.0 / 12.0)))
        };
        let evaluation =
            evaluate_speech(&references, &recorded, &mut speak, &mut hear, &mut |_| {}).expect("evaluated");
        assert_eq!((evaluation.spoken.len(), evaluation.failed.len()), (5, 0));
        let places: Vec<_> = evaluation.examples.iter().map(|example| example.reference).collect();
        assert_eq!(places, [0, 1, 2, 3]);
        let scores = evaluation.scores(Normaliser::Basic).expect("scores");
        let rate = |rates: &Rates| rates.words.rate.expect("a rate");
        let rows: Vec<_> = scores
            .kinds
            .iter()
            .map(|one| (one.kind.as_str(), one.n_texts, rate(&one.spoken), rate(&one.recorded)))
            .collect();
        // "garden" and "lunch?" are of one length: the second is taken for the first, spoken or recorded.
        let expected =
            [("digits", 2, 0.0, 0.0), ("word", 3, 2.0 / 3.0, 1.0 / 3.0), ("all", 5, 2.0 / 6.0, 1.0 / 6.0)];
        assert_eq!(rows, expected);
        assert!(scores.kinds[1].spoken.words.interval.is_some_and(|interval| interval.low < interval.high));
        assert_eq!(scores.all().map(|all| all.kind.as_str()), Some(ALL_KINDS));
        assert!(scores.pitch_error_cents.is_some_and(|cents| (cents - 100.0).abs() < 15.0), "{scores:?}");
        assert!(scores.distortion_db.is_some_and(|db| db > 0.0) && scores.voicing_error.is_some());
        assert!((scores.audio_secs - 2.5).abs() < 1e-9 && scores.times_real_time > 0.0, "{scores:?}");
    }

    #[test]
    fn what_cannot_be_spoken_or_heard_is_told_and_counts_on_neither_side() {
        let references = references();
        let mut n_heard = 0;
        let mut hear_some = |waveform: &Waveform| {
            n_heard += 1;
            if n_heard == 1 { Err(Error::config("judge", "is deaf")) } else { hear(waveform) }
        };
        let recorded = hear_recordings(&references, &mut hear_some, &mut |_| {});
        let mut speak = |text: &str, _: &str| match text {
            "six" => Err(models::Error::Cancelled),
            text => Ok(tone(text, 150.0)),
        };
        let evaluation =
            evaluate_speech(&references, &recorded, &mut speak, &mut hear, &mut |_| {}).expect("evaluated");
        let failed: Vec<_> = evaluation.failed.iter().map(|unheard| unheard.name.as_str()).collect();
        assert_eq!((failed, evaluation.spoken.len()), (vec!["0", "1"], 3));
        assert!(evaluation.failed[0].reason.contains("is deaf"), "{:?}", evaluation.failed);
        let scores = evaluation.scores(Normaliser::Basic).expect("scores");
        assert_eq!((scores.kinds.len(), scores.kinds[0].n_texts), (1, 3));
        // A tone is as it is recorded.
        assert!(scores.distortion_db.is_some_and(|db| db < 1e-3), "{scores:?}");
        assert!(scores.pitch_error_cents.is_some_and(|cents| cents < 0.1), "{scores:?}");
        let other = evaluate_speech(&references, &[], &mut speak, &mut hear, &mut |_| {});
        assert!(other.expect_err("refused").to_string().contains("0 recordings were heard of 5"));
        let nothing = evaluate_speech(&[], &[], &mut speak, &mut hear, &mut |_| {}).expect("nothing");
        assert!(matches!(nothing.scores(Normaliser::Basic), Err(metrics::Error::Empty)));
    }
}
