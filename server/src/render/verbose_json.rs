//! `response_format=verbose_json` of the OpenAI audio API, and beside it what was not decoded.

use models::{Coverage, Gap, GapReason, Segment, Task, Transcript, Word};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{json::Usage, language_name};

/// Seconds per step of `seek`: the hop of the model's features.
const SEEK_SECS: f64 = 0.01;

/// The whole response.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct VerboseJson<'a> {
    /// `transcribe` or `translate`.
    #[schema(value_type = String, example = "transcribe")]
    pub task: Task,
    /// The language of the text, by its English name.
    pub language: &'a str,
    /// Seconds of audio.
    pub duration: f64,
    /// All of the text.
    pub text: &'a str,
    /// In order of time, unless only words were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<SegmentJson<'a>>>,
    /// All segments' words, when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<WordJson<'a>>>,
    /// The model that translated the transcript of another one, where a cascade was asked for. Not part of the OpenAI API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<&'a str>,
    /// What was spent on it.
    pub usage: Usage,
    /// Which seconds of speech were decoded. Not part of the OpenAI API, whose clients ignore it.
    pub coverage: CoverageJson,
}

/// A segment, with the figures that the OpenAI API requires.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of the OpenAI API, and of `models::Segment`")]
pub struct SegmentJson<'a> {
    pub id: usize,
    pub seek: u64,
    pub start: f64,
    pub end: f64,
    pub text: &'a str,
    pub tokens: &'a [u32],
    pub temperature: f32,
    pub avg_logprob: f32,
    pub compression_ratio: f32,
    pub no_speech_prob: f32,
}

/// A word.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of the OpenAI API, and of `models::Word`")]
pub struct WordJson<'a> {
    pub word: &'a str,
    pub start: f64,
    pub end: f64,
    pub probability: f32,
}

/// Which seconds of speech were decoded.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CoverageJson {
    /// Seconds that hold speech.
    pub speech_seconds: f64,
    /// Seconds of them whose text is in the response.
    pub decoded_seconds: f64,
    /// Speech without text.
    pub gaps: Vec<GapJson>,
}

/// Speech without text, and why.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of `models::Gap`")]
pub struct GapJson {
    pub start: f64,
    pub end: f64,
    #[schema(value_type = String, example = "no_speech")]
    pub reason: GapReason,
}

impl<'a> VerboseJson<'a> {
    /// With a list of all segments, of all words, or both.
    pub fn new(transcript: &'a Transcript, segments: bool, words: bool) -> Self {
        let all_words = transcript.segments.iter().filter_map(|segment| segment.words.as_ref()).flatten();
        Self {
            task: transcript.task,
            language: transcript
                .written_language()
                .map_or("unknown", |code| language_name(code).unwrap_or(code)),
            duration: secs(transcript.duration_secs),
            text: &transcript.text,
            segments: segments.then(|| transcript.segments.iter().map(SegmentJson::from).collect()),
            words: words.then(|| all_words.map(WordJson::from).collect()),
            cascade: transcript.cascade.as_deref(),
            usage: Usage::of(transcript.duration_secs),
            coverage: CoverageJson::from(&transcript.coverage),
        }
    }
}

/// With all that is there.
impl<'a> From<&'a Transcript> for VerboseJson<'a> {
    fn from(transcript: &'a Transcript) -> Self {
        let has_words = transcript.segments.iter().any(|segment| segment.words.is_some());
        Self::new(transcript, true, has_words)
    }
}

impl From<&Coverage> for CoverageJson {
    fn from(coverage: &Coverage) -> Self {
        let gap =
            |gap: &Gap| GapJson { start: secs(gap.start_secs), end: secs(gap.end_secs), reason: gap.reason };
        Self {
            speech_seconds: secs(coverage.speech_secs),
            decoded_seconds: secs(coverage.decoded_secs),
            gaps: coverage.gaps.iter().map(gap).collect(),
        }
    }
}

impl<'a> From<&'a Segment> for SegmentJson<'a> {
    fn from(segment: &'a Segment) -> Self {
        Self {
            id: segment.id,
            seek: (segment.seek_secs / SEEK_SECS).round().max(0.0) as u64,
            start: secs(segment.start_secs),
            end: secs(segment.end_secs),
            text: &segment.text,
            tokens: &segment.token_ids,
            temperature: finite(segment.temperature),
            avg_logprob: finite(segment.avg_logprob),
            compression_ratio: finite(segment.compression_ratio),
            no_speech_prob: finite(segment.no_speech_prob),
        }
    }
}

impl<'a> From<&'a Word> for WordJson<'a> {
    fn from(word: &'a Word) -> Self {
        Self {
            word: word.text.trim(),
            start: secs(word.start_secs),
            end: secs(word.end_secs),
            probability: finite(word.probability),
        }
    }
}

/// The transcript with segments, coverage and, if they were asked for, words.
pub fn verbose_json(transcript: &Transcript) -> Value {
    serde_json::to_value(VerboseJson::from(transcript)).unwrap_or_default()
}

/// Milliseconds are what anybody can hear; further digits are noise of binary fractions.
fn secs(secs: f64) -> f64 {
    if secs.is_finite() { (secs * 1000.0).round() / 1000.0 } else { 0.0 }
}

/// JSON has no infinity, and a client that requires a number must not get null.
pub(super) fn finite(number: f32) -> f32 {
    if number.is_nan() { 0.0 } else { number.clamp(f32::MIN, f32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{segment, transcript, word};
    use super::*;

    #[test]
    fn the_shape_is_that_of_the_api() {
        let mut spoken = segment(1, 0.1 + 0.2, 2.5, " سلام");
        spoken.words = Some(vec![word(" سلام", 0.3, 2.5)]);
        let transcript = transcript(vec![spoken]);
        assert_eq!(
            serde_json::to_string(&VerboseJson::new(&transcript, true, true)).expect("serialised"),
            concat!(
                r#"{"task":"transcribe","language":"pashto","duration":3.3,"text":"سلام","segments":[{"id":1,"#,
                r#""seek":3000,"start":0.3,"end":2.5,"text":" سلام","tokens":[50364,440,50414],"temperature":0.0,"#,
                r#""avg_logprob":-0.3,"compression_ratio":1.25,"no_speech_prob":0.01}],"words":[{"word":"سلام","#,
                r#""start":0.3,"end":2.5,"probability":0.5}],"usage":{"type":"duration","seconds":4},"coverage":"#,
                r#"{"speech_seconds":3.0,"decoded_seconds":2.5,"gaps":[{"start":2.5,"end":3.0,"#,
                r#""reason":"token_limit"}]}}"#
            )
        );
    }

    #[test]
    fn words_are_absent_unless_asked_for_and_numbers_stay_numbers() {
        let mut strange = segment(0, f64::NAN, 1.0, " a");
        strange.avg_logprob = f32::NEG_INFINITY;
        strange.compression_ratio = f32::NAN;
        let mut transcript = transcript(vec![strange]);
        (transcript.task, transcript.to_language) = (Task::Translate, Some("en".to_owned()));
        let value = verbose_json(&transcript);
        assert!(value.get("words").is_none() && value.get("cascade").is_none());
        transcript.cascade = Some("opus".to_owned());
        assert_eq!(verbose_json(&transcript)["cascade"], "opus");
        assert_eq!((&value["task"], &value["language"]), (&"translate".into(), &"english".into()));
        assert!(value["segments"][0].as_object().expect("an object").values().all(|value| !value.is_null()));
    }
}
