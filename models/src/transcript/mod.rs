//! `Transcript`: what was said and when, and which seconds of speech were decoded. A value; rendering it as
//! text, JSON or subtitles is the server's work.

mod alignment;
mod cascade;
mod context;
mod coverage;
mod longform;
mod running_text;
mod segment;
mod stamps;
mod transcription;
mod words;
mod worker;

pub use alignment::dtw;
pub(crate) use alignment::{HeadScores, token_starts};
pub(crate) use context::check as check_context;
pub use transcription::Transcription;
pub use worker::{TextPart, Transcribed, TranscriptionWorker, Work};

use serde::Serialize;

use crate::Task;

/// The text of one recording.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transcript {
    /// All segments' text joined, without leading or trailing space.
    pub text: String,
    /// ISO code of the language decoded in; `None` for a model that knows only one and does not name it.
    pub language: Option<String>,
    /// Probability of `language` when it was detected rather than given.
    pub language_probability: Option<f32>,
    /// Transcription or translation.
    pub task: Task,
    /// ISO code of the language that a translation is written in.
    pub to_language: Option<String>,
    /// Name of the model that translated the transcript of another one; `None` where one model did all.
    pub cascade: Option<String>,
    /// Length of the audio.
    pub duration_secs: f64,
    /// In order of time. One per window when timestamps were not asked for.
    pub segments: Vec<Segment>,
    /// What was decoded and what was not.
    pub coverage: Coverage,
}

/// A stretch of text with its times and the figures by which it was judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Segment {
    /// Position in the transcript, from 0.
    pub id: usize,
    /// Start of the window that it was decoded in.
    pub seek_secs: f64,
    /// Start in the recording.
    pub start_secs: f64,
    /// End in the recording.
    pub end_secs: f64,
    /// As decoded, with its leading space.
    pub text: String,
    /// Token ids, timestamps included.
    pub token_ids: Vec<u32>,
    /// Log-probability of each id in `token_ids`.
    pub token_logprobs: Vec<f32>,
    /// Temperature at which the accepted hypothesis was decoded.
    pub temperature: f32,
    /// Mean log-probability of the window's tokens, end of text counted.
    pub avg_logprob: f32,
    /// Bytes of the window's text over its zlib-compressed bytes.
    pub compression_ratio: f32,
    /// Probability that the window holds no speech.
    pub no_speech_prob: f32,
    /// Words with times, when asked for.
    pub words: Option<Vec<Word>>,
}

impl Transcript {
    /// ISO code of the language of the text, where it is known.
    pub fn written_language(&self) -> Option<&str> {
        self.to_language.as_deref().or(self.language.as_deref())
    }
}

impl Segment {
    /// Moves times before `start_secs` and after `end_secs` there, the words' as well. Returns the latest.
    fn keep_within(&mut self, start_secs: f64, end_secs: f64) -> f64 {
        let words =
            self.words.iter_mut().flatten().flat_map(|word| [&mut word.start_secs, &mut word.end_secs]);
        for secs in [&mut self.start_secs, &mut self.end_secs].into_iter().chain(words) {
            *secs = secs.clamp(start_secs, end_secs);
        }
        let last_word = self.words.as_ref().and_then(|words| words.last());
        last_word.map_or(self.end_secs, |word| word.end_secs.max(self.end_secs))
    }
}

/// A word, or in scripts without spaces a character group, with its times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Word {
    /// With its leading space and its punctuation.
    pub text: String,
    /// Start in the recording.
    pub start_secs: f64,
    /// End in the recording.
    pub end_secs: f64,
    /// Mean probability of its tokens.
    pub probability: f32,
}

/// Which seconds of the recording hold speech and which of them were decoded.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// Seconds that the voice activity detector takes for speech.
    pub speech_secs: f64,
    /// Seconds of that speech which lie in windows whose text was accepted.
    pub decoded_secs: f64,
    /// Speech without text, and why.
    pub gaps: Vec<Gap>,
}

/// A stretch of speech that has no text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gap {
    /// Start in the recording.
    pub start_secs: f64,
    /// End in the recording.
    pub end_secs: f64,
    /// Why there is no text.
    pub reason: GapReason,
}

/// Why a stretch of speech has no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The model took the window for silence.
    NoSpeech,
    /// The decoder reached its token limit before the end of the window.
    TokenLimit,
    /// The decoder ended without text for it.
    Empty,
}
