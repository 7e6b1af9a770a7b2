//! How well a synthesiser speaks: what a recogniser hears in its speech, beside what it hears in recordings of the same texts, and how far
//! the speech lies from those.
//!
//! A recogniser errs by itself: only beside its errors on recordings do those on speech say anything. Both, and the distances, are of the
//! same texts: what the recogniser cannot listen to is left out on both sides. A text that the synthesiser refuses counts as one of which
//! nothing was heard: whoever fails on hard texts is no better for it.

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
    /// Whether the synthesiser refused it: there is no speech then, and nothing was heard.
    pub is_refused: bool,
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
    /// What was spoken and heard, or refused, in order.
    pub spoken: Vec<Spoken>,
    /// Texts that were not spoken or not heard, and why.
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

/// Error rates after one way to make texts comparable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeechReport {
    /// What was done to texts before they were compared.
    pub normaliser: Normaliser,
    /// By kind, and all together at the end.
    pub kinds: Vec<KindRates>,
}

/// The scores of a synthesiser.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeechScores {
    /// By each normaliser; the first is what synthesisers are compared by.
    pub reports: Vec<SpeechReport>,
    /// The share of resampled rates that lie in an interval.
    pub confidence: f64,
    /// Texts that the synthesiser refused: they count, as texts of which nothing was heard.
    pub n_refused: usize,
    /// Texts that the recogniser could not listen to, recorded or spoken: they count on neither side.
    pub n_unheard: usize,
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
                let speech = evaluation.try_one(reference, heard_recorded, speak, hear, &comparer)?;
                let n_of_kind = n_examples.entry(&reference.kind).or_default();
                if let Some(waveform) = speech
                    && *n_of_kind < EXAMPLES_OF_KIND
                {
                    *n_of_kind += 1;
                    let spoken = evaluation.spoken.len() - 1;
                    evaluation.examples.push(Example { reference: index, spoken, waveform });
                }
            }
        }
        progress(index + 1);
    }
    Ok(evaluation)
}

impl SpeechEvaluation {
    /// Speaks and hears one text, and gives what was heard of it.
    fn try_one(
        &mut self,
        reference: &SpokenReference,
        heard_recorded: &str,
        speak: &mut Speak<'_>,
        hear: &mut Hear<'_>,
        comparer: &SpeechComparer,
    ) -> Result<Option<Waveform>, Error> {
        let refused = Spoken {
            name: reference.name.clone(),
            kind: reference.kind.clone(),
            voice: reference.voice.clone(),
            text: reference.text.clone(),
            is_refused: true,
            heard: String::new(),
            heard_recorded: heard_recorded.to_owned(),
            duration_secs: 0.0,
            distance: SpeechDistance::default(),
        };
        let began = Instant::now();
        let waveform = match speak(&reference.text, &reference.voice) {
            Ok(waveform) => waveform,
            Err(error) => {
                self.failed.push(Unheard::new(&reference.name, &error.into()));
                self.spoken.push(refused);
                return Ok(None);
            }
        };
        let busy_secs = began.elapsed().as_secs_f64();
        let heard = match hear(&waveform) {
            Ok(heard) => heard,
            Err(error) => {
                self.failed.push(Unheard::new(&reference.name, &error));
                return Ok(None);
            }
        };
        self.busy_secs += busy_secs;
        self.audio_secs += waveform.duration_secs();
        self.spoken.push(Spoken {
            is_refused: false,
            heard,
            duration_secs: waveform.duration_secs(),
            distance: comparer.compare(&reference.waveform, &waveform)?,
            ..refused
        });
        Ok(Some(waveform))
    }

    /// The scores, texts being compared after each of these normalisers.
    ///
    /// # Errors
    /// Where nothing was spoken.
    pub fn scores(&self, normalisers: &[Normaliser]) -> Result<SpeechScores, metrics::Error> {
        let distances = self.spoken.iter().map(|spoken| spoken.distance);
        let distance = distances.fold(SpeechDistance::default(), |sum, distance| sum + distance);
        let n_refused = self.spoken.iter().filter(|spoken| spoken.is_refused).count();
        Ok(SpeechScores {
            reports: normalisers.iter().map(|one| self.report(*one)).collect::<Result<_, _>>()?,
            confidence: ScoreOptions::default().resampling.confidence,
            n_refused,
            n_unheard: self.failed.len() - n_refused,
            distortion_db: distance.distortion_db(),
            pitch_error_cents: distance.pitch_error_cents(),
            voicing_error: distance.voicing_error(),
            audio_secs: self.audio_secs,
            times_real_time: self.audio_secs / self.busy_secs.max(1e-9),
        })
    }

    fn report(&self, normaliser: Normaliser) -> Result<SpeechReport, metrics::Error> {
        let options = ScoreOptions { normaliser, n_worst: 0, ..ScoreOptions::default() };
        let mut of_kinds = BTreeMap::<&str, Vec<&Spoken>>::new();
        self.spoken.iter().for_each(|spoken| of_kinds.entry(&spoken.kind).or_default().push(spoken));
        let mut kinds = Vec::new();
        for (kind, spoken) in &of_kinds {
            kinds.push(KindRates::new(kind, spoken, &options)?);
        }
        if of_kinds.len() != 1 {
            kinds.push(KindRates::new(ALL_KINDS, &self.spoken.iter().collect::<Vec<_>>(), &options)?);
        }
        Ok(SpeechReport { normaliser, kinds })
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
    /// The rates of all kinds together, by the first normaliser.
    pub fn all(&self) -> Option<&KindRates> {
        self.reports.first()?.kinds.last()
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
        let scores = evaluation.scores(&[Normaliser::Basic, Normaliser::None]).expect("scores");
        assert_eq!((scores.reports.len(), scores.n_refused, scores.n_unheard), (2, 0, 0));
        let rate = |rates: &Rates| rates.words.rate.expect("a rate");
        // The recogniser writes in capitals, which one of the normalisers minds.
        let [basic, none] = [&scores.reports[0], &scores.reports[1]];
        assert_eq!((none.normaliser, rate(&none.kinds[2].recorded)), (Normaliser::None, 1.0));
        let rows: Vec<_> = basic
            .kinds
            .iter()
            .map(|one| (one.kind.as_str(), one.n_texts, rate(&one.spoken), rate(&one.recorded)))
            .collect();
        // "garden" and "lunch?" are of one length: the second is taken for the first, spoken or recorded.
        let expected =
            [("digits", 2, 0.0, 0.0), ("word", 3, 2.0 / 3.0, 1.0 / 3.0), ("all", 5, 2.0 / 6.0, 1.0 / 6.0)];
        assert_eq!(rows, expected);
        assert!(basic.kinds[1].spoken.words.interval.is_some_and(|interval| interval.low < interval.high));
        assert_eq!(scores.all().map(|all| all.kind.as_str()), Some(ALL_KINDS));
        assert!(scores.pitch_error_cents.is_some_and(|cents| (cents - 100.0).abs() < 15.0), "{scores:?}");
        assert!(scores.distortion_db.is_some_and(|db| db > 0.0) && scores.voicing_error.is_some());
        assert!((scores.audio_secs - 2.5).abs() < 1e-9 && scores.times_real_time > 0.0, "{scores:?}");
    }

    #[test]
    fn what_a_synthesiser_refuses_counts_and_what_a_recogniser_cannot_hear_does_not() {
        let references = references();
        let deaf = |n: usize| {
            let mut n_heard = 0;
            move |waveform: &Waveform| {
                n_heard += 1;
                if n_heard == n { Err(Error::config("judge", "is deaf")) } else { hear(waveform) }
            }
        };
        // The first recording cannot be listened to, and of the speech the third that there is.
        let recorded = hear_recordings(&references, &mut deaf(1), &mut |_| {});
        let mut speak = |text: &str, _: &str| match text {
            "six" => Err(models::Error::Cancelled),
            text => Ok(tone(text, 150.0)),
        };
        let evaluation = evaluate_speech(&references, &recorded, &mut speak, &mut deaf(3), &mut |_| {})
            .expect("evaluated");
        let failed: Vec<_> = evaluation.failed.iter().map(|unheard| unheard.name.as_str()).collect();
        let spoken: Vec<_> = evaluation.spoken.iter().map(|one| (&*one.name, one.is_refused)).collect();
        assert_eq!(failed, ["0", "1", "4"]);
        assert_eq!(spoken, [("1", true), ("2", false), ("3", false)]);
        assert!(evaluation.failed[0].reason.contains("is deaf"), "{:?}", evaluation.failed);
        assert!((evaluation.audio_secs - 1.0).abs() < 1e-9, "{}", evaluation.audio_secs);
        // Of an example there is speech.
        let places: Vec<_> = evaluation.examples.iter().map(|one| (one.reference, one.spoken)).collect();
        assert_eq!(places, [(2, 1), (3, 2)]);
        let scores = evaluation.scores(&[Normaliser::Basic]).expect("scores");
        assert_eq!((scores.n_refused, scores.n_unheard), (1, 2));
        let rates = |kind: &KindRates| (kind.n_texts, kind.spoken.words.rate, kind.recorded.words.rate);
        let kinds: Vec<_> = scores.reports[0].kinds.iter().map(rates).collect();
        assert_eq!(
            kinds,
            [(1, Some(1.0), Some(0.0)), (2, Some(0.0), Some(0.0)), (3, Some(1.0 / 3.0), Some(0.0))]
        );
        // A tone is as it is recorded.
        assert!(scores.distortion_db.is_some_and(|db| db < 1e-3), "{scores:?}");
        assert!(scores.pitch_error_cents.is_some_and(|cents| cents < 0.1), "{scores:?}");
        let other = evaluate_speech(&references, &[], &mut speak, &mut hear, &mut |_| {});
        assert!(other.expect_err("refused").to_string().contains("0 recordings were heard of 5"));
        let nothing = evaluate_speech(&[], &[], &mut speak, &mut hear, &mut |_| {}).expect("nothing");
        assert!(matches!(nothing.scores(&[Normaliser::Basic]), Err(metrics::Error::Empty)));
    }
}
