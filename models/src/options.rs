//! `DecodeOptions`: everything a caller can say about how speech becomes text. Built once, from command-line
//! flags or from HTTP fields of the same names.

use serde::{Deserialize, Serialize};

/// What the decoder is asked to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Text in the language that is spoken.
    #[default]
    Transcribe,
    /// Text in English.
    Translate,
}

/// Which times the caller wants to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timestamps {
    /// Text only: the decoder predicts no timestamps.
    #[default]
    None,
    /// Start and end of each segment, predicted by the decoder.
    Segment,
    /// Segments, and the words in them aligned by cross-attention.
    Word,
}

/// How to decode. `Default` is what the command line and the HTTP contract document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeOptions {
    /// ISO code such as `ps`; `None` detects it from the first window.
    pub language: Option<String>,
    /// Transcribe, or translate into English.
    pub task: Task,
    /// Which times the result carries.
    pub timestamps: Timestamps,
    /// Hypotheses kept by beam search at temperature 0; 1 is greedy.
    pub beam_size: usize,
    /// Samples drawn at a temperature above 0, of which the most probable is kept.
    pub best_of: usize,
    /// Beam search ends after `round(beam_size * patience)` finished hypotheses.
    pub patience: f32,
    /// Rank by `sum / ((5 + n) / 6)^alpha`; `None` ranks by the mean, `sum / n`.
    pub length_penalty: Option<f32>,
    /// Sampling temperature; 0 searches instead of sampling.
    pub temperature: f32,
    /// Decode again at rising temperatures when a result looks wrong. Only at temperature 0.
    pub fallback: bool,
    /// A text that compresses better than this repeats itself: decode again.
    pub compression_ratio_threshold: Option<f32>,
    /// A mean log-probability below this is too unsure: decode again.
    pub logprob_threshold: Option<f32>,
    /// A window more probably silent than this, and unsure, is skipped.
    pub no_speech_threshold: Option<f32>,
    /// Feed the text of the previous window to the next one (sequential long form only).
    pub condition_on_previous_text: bool,
    /// Text that precedes the audio: style, names, spelling.
    pub prompt: Option<String>,
    /// Words that are likely to be said; given to the decoder in every window.
    pub hotwords: Option<String>,
    /// Cut long audio at silences and decode the windows as one batch; `false` seeks from window to window.
    pub vad: bool,
    /// Windows that are decoded together.
    pub batch_size: usize,
    /// Tokens a window may produce; `None` is half the decoder's context, as in the reference.
    pub max_new_tokens: Option<usize>,
    /// Seed of the sampler: equal seed, audio and options give equal text.
    pub seed: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            language: None,
            task: Task::Transcribe,
            timestamps: Timestamps::None,
            beam_size: 1,
            best_of: 5,
            patience: 1.0,
            length_penalty: None,
            temperature: 0.0,
            fallback: true,
            compression_ratio_threshold: Some(2.4),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
            condition_on_previous_text: true,
            prompt: None,
            hotwords: None,
            vad: false,
            batch_size: 8,
            max_new_tokens: None,
            seed: 0,
        }
    }
}
