//! `DecodeOptions`: everything a caller can say about how speech becomes text. Built once, from command-line
//! flags or from HTTP fields of the same names.

use audio::VadOptions;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::decode::MAX_DRAFT;

/// Hypotheses that beam search may keep.
pub(crate) const MAX_BEAMS: usize = 64;

/// What the decoder is asked to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Text in the language that is spoken.
    #[default]
    Transcribe,
    /// Text in another language.
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
    /// ISO codes among which the language is detected; empty for all that the model knows.
    pub languages: Vec<String>,
    /// Transcribe, or translate.
    pub task: Task,
    /// ISO code of the language to translate into; `None` is English. Models that cannot reach it refuse it.
    pub to_language: Option<String>,
    /// Whether punctuation and capitals are written, for models that can be told; `None` is what they do by default.
    pub punctuation: Option<bool>,
    /// Which times the result carries.
    pub timestamps: Timestamps,
    /// Hypotheses kept by beam search at temperature 0; 1 is greedy. `None` is what the checkpoint's generation_config.json
    /// asks for.
    pub beam_size: Option<usize>,
    /// Samples drawn at a temperature above 0, of which the most probable is kept.
    pub best_of: usize,
    /// `Some`: beam search follows openai/whisper and ends after `round(beam_size * patience)` finished
    /// hypotheses. `None`: it follows transformers and ends when none can still overtake a finished one.
    pub patience: Option<f32>,
    /// Hypotheses are ranked by the sum of their log-probabilities over their length to this power.
    pub length_penalty: f32,
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
    /// Text that precedes the audio: style, names, spelling. The model has room for half its context (223 tokens of
    /// Whisper's 448), hotwords included: of a longer prompt the end is read, as in the reference.
    pub prompt: Option<String>,
    /// Words that are likely to be said; given to the decoder in every window. More than a quarter of its context (111
    /// tokens of Whisper's 448) are refused.
    pub hotwords: Option<String>,
    /// `Some(true)` leaves silence out: windows are cut at pauses and decoded as one batch. `Some(false)` hears
    /// everything and seeks from window to window. `None` does the first for audio that is longer than one
    /// window and hears a shorter one whole.
    pub vad: Option<bool>,
    /// What counts as speech where silence is left out. Coverage is measured with the defaults.
    pub vad_options: VadOptions,
    /// Windows that are decoded together.
    pub batch_size: usize,
    /// Tokens a window may produce; `None` is half the decoder's context, as in the reference.
    pub max_new_tokens: Option<usize>,
    /// Tokens that a row of a small batch may guess from earlier text and read beside the last one, where it searches for the most
    /// probable token alone: from earlier text, or at first so many by a draft. What it decodes to is the same; text that repeats names or parts of words takes fewer steps. At most 7; 0: none.
    pub draft_tokens: usize,
    /// Seed of the sampler: equal seed, audio and options give equal text.
    pub seed: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            language: None,
            languages: Vec::new(),
            task: Task::Transcribe,
            to_language: None,
            punctuation: None,
            timestamps: Timestamps::None,
            beam_size: None,
            best_of: 5,
            patience: None,
            length_penalty: 1.0,
            temperature: 0.0,
            fallback: true,
            compression_ratio_threshold: Some(2.4),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
            condition_on_previous_text: true,
            prompt: None,
            hotwords: None,
            vad: None,
            vad_options: VadOptions::default(),
            batch_size: 8,
            max_new_tokens: None,
            draft_tokens: 3,
            seed: 0,
        }
    }
}

impl DecodeOptions {
    /// Refuses values that make no sense, naming the option.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn check(&self) -> Result<(), Error> {
        self.vad_options.check()?;
        let count = |option, value: usize, max: usize| {
            let message = || format!("{value} is not between 1 and {max}");
            if (1..=max).contains(&value) { Ok(()) } else { Err(Error::option(option, message())) }
        };
        if let Some(beam_size) = self.beam_size {
            count("beam_size", beam_size, MAX_BEAMS)?;
        }
        count("best_of", self.best_of, 64)?;
        count("batch_size", self.batch_size, 1024)?;
        if let Some(max_new_tokens) = self.max_new_tokens {
            count("max_new_tokens", max_new_tokens, 1 << 20)?;
        }
        if self.draft_tokens > MAX_DRAFT {
            let message = format!("{} is not between 0 and {MAX_DRAFT}", self.draft_tokens);
            return Err(Error::option("draft_tokens", message));
        }
        if !(0.0..=1.0).contains(&self.temperature) {
            return Err(Error::option("temperature", format!("{} is not between 0 and 1", self.temperature)));
        }
        if self.patience.is_some_and(|patience| !(patience > 0.0 && patience <= 16.0)) {
            return Err(Error::option("patience", "is not above 0 and at most 16"));
        }
        if !(-8.0..=8.0).contains(&self.length_penalty) {
            return Err(Error::option(
                "length_penalty",
                format!("{} is not between -8 and 8", self.length_penalty),
            ));
        }
        Ok(())
    }
}
