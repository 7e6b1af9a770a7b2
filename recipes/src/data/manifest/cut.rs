//! A cut: a stretch of a recording, and what is known about it.

use std::{path::Path, sync::Arc};

use serde_json::{Map, Value};

/// What a row says beyond the fields of [`Cut`].
pub type Extra = Map<String, Value>;

/// A stretch of one recording with its text. The split it belongs to is the file it stands in.
///
/// Ten million fit into a few gigabytes: strings have no spare capacity, languages and speakers are shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    /// Its name, unique within a corpus.
    pub id: Box<str>,
    /// The recording; manifests hold it relative to their own folder, here it is resolved. Empty where there is none, only a text.
    pub audio: Box<Path>,
    /// Where it starts in the recording, seconds, 0 or more.
    pub start_secs: f64,
    /// How long it lasts, seconds, above 0 and finite; 0 without a recording.
    pub duration_secs: f64,
    /// The channel to hear, counted from 0; `None` mixes all.
    pub channel: Option<u16>,
    /// What is said, in the language that is spoken; empty where nobody wrote it down.
    pub text: Box<str>,
    /// The language that is spoken, as a code such as `ps`.
    pub language: Option<Arc<str>>,
    /// Who speaks, as the corpus calls them.
    pub speaker: Option<Arc<str>>,
    /// What a model is to write where that is another text than `text`: a translation.
    pub target_text: Option<Box<str>>,
    /// The language of what a model is to write, where it is stated.
    pub target_language: Option<Arc<str>>,
    /// Keys that mean nothing here and are kept.
    pub extra: Option<Box<Extra>>,
}

impl Cut {
    /// The longest start and length that are taken for times, seconds: four months.
    pub const MAX_SECS: f64 = 1e7;

    /// Where it ends in the recording, seconds.
    pub fn end_secs(&self) -> f64 {
        self.start_secs + self.duration_secs
    }

    /// Whether there is a recording, and not a text alone.
    pub fn has_audio(&self) -> bool {
        !self.audio.as_os_str().is_empty()
    }

    /// The text that a model is to write: the translation where there is one.
    pub fn output_text(&self) -> &str {
        self.target_text.as_deref().unwrap_or(&self.text)
    }
}
