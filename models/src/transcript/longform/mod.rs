//! Audio of any length as windows: which window to decode next, and what its tokens become. A state machine
//! without a model, so that every branch can be tested with made-up results.
//!
//! A recording is one track or several. A track is a stretch decoded front to back: each window begins where
//! the one before got to (openai/whisper `transcribe.py`). Tracks do not depend on each other and share a batch; where two
//! hear the same second, because speech was cut there, their texts are joined when both are known.

mod accept;
mod overlap;
mod sentences;

pub(crate) use overlap::{OVERLAP_SECS, Stretch, overlapping};

use std::sync::Arc;

use audio::Span;

use self::accept::Read;
use super::context::Context;
use super::coverage::{Outcome, Speech, coverage};
use super::running_text::RunningText;
use super::{Segment, TextPart, Transcript};
use crate::decode::Rules;
use crate::tokenizer::Tokenizer;
use crate::{DecodeOptions, Error, SpecialTokens, Told};

/// When each of some text tokens begins and ends, in seconds from the start of the window.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TokenTimes {
    /// One for each.
    pub secs: Vec<(f64, f64)>,
    /// Whether that is when they were said, rather than about when.
    pub are_exact: bool,
}

/// Finds out when some text tokens were said.
pub(crate) type Align<'a> = dyn Fn(&[u32]) -> Result<TokenTimes, Error> + 'a;

/// What the long form needs to know about the model and the request.
pub(crate) struct Plan {
    pub options: DecodeOptions,
    pub tokenizer: Arc<Tokenizer>,
    pub special: Arc<SpecialTokens>,
    pub rules: Arc<Rules>,
    /// Feature frames of a full window.
    pub window_frames: usize,
    /// Seconds of a feature frame.
    pub frame_secs: f64,
    /// Feature frames of a position, which times are counted in.
    pub position_frames: usize,
    /// Most tokens of context in a prompt.
    pub max_context: usize,
    /// Whether tokens can be aligned exactly.
    pub knows_times: bool,
    /// Language decoded in, once it is known.
    pub language: Option<String>,
}

impl Plan {
    /// The language of the text, once it is known: that of a translation, else the one that is spoken.
    pub fn written_language(&self) -> Option<&str> {
        Told::by(&self.options, None, false).target().or(self.language.as_deref())
    }

    /// Seconds of a position.
    pub fn position_secs(&self) -> f64 {
        self.position_frames as f64 * self.frame_secs
    }
}

/// One stretch of the recording.
struct Track {
    stretch: Stretch,
    n_frames: usize,
    seek_frames: usize,
    /// A window of it is being decoded.
    is_busy: bool,
    /// Tokens before the next window.
    context: Vec<u32>,
    last_speech_secs: f64,
    segments: Vec<Segment>,
    /// What was said in it, while a track that overlaps it is still to be read.
    read: Option<Read>,
}

impl Track {
    fn start_secs(&self) -> f64 {
        self.stretch.heard.start_secs
    }

    fn has_window(&self) -> bool {
        !self.is_busy && self.seek_frames < self.n_frames
    }

    fn is_done(&self) -> bool {
        !self.is_busy && self.seek_frames >= self.n_frames && self.read.is_none()
    }
}

/// A window to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowTask {
    pub track: usize,
    /// First frame, from the start of the track.
    pub seek_frames: usize,
    /// Frames that hold audio; the window is padded after them unless the model needs no padding.
    pub n_frames: usize,
}

/// The state of one recording.
pub(crate) struct LongForm {
    pub plan: Plan,
    tracks: Vec<Track>,
    /// Tracks before this one are done.
    first_open: usize,
    speech: Speech,
    outcomes: Vec<Outcome>,
    decoded_frames: usize,
    context: Context,
    text: RunningText,
    /// The first segment that is not in `text` yet: its track and its place there.
    next_segment: (usize, usize),
}

impl LongForm {
    /// A recording without tracks. `speech` is what coverage is measured against.
    ///
    /// # Errors
    /// A prompt or hotwords that cannot precede a text.
    pub fn new(plan: Plan, speech: Vec<Span>) -> Result<Self, Error> {
        let context = Context::new(&plan.options, &plan.tokenizer, &plan.special, plan.max_context)?;
        Ok(Self {
            plan,
            tracks: Vec::new(),
            first_open: 0,
            speech: Speech::new(speech),
            outcomes: Vec::new(),
            decoded_frames: 0,
            context,
            text: RunningText::default(),
            next_segment: (0, 0),
        })
    }

    /// Adds a stretch of `n_frames`, which one window holds if others overlap it.
    pub fn add_track(&mut self, stretch: Stretch, n_frames: usize) {
        self.tracks.push(Track {
            stretch,
            n_frames,
            seek_frames: 0,
            is_busy: false,
            context: self.context.prompt.clone(),
            last_speech_secs: stretch.told.start_secs,
            segments: Vec::new(),
            read: None,
        });
    }

    /// Whether a window can be decoded now.
    pub fn has_window(&self) -> bool {
        self.open_tracks().iter().any(Track::has_window)
    }

    /// The tracks from the first that is not done on. Those at work stand at its head, so that to look for one that has
    /// something takes no longer in a long recording.
    fn open_tracks(&self) -> &[Track] {
        self.tracks.get(self.first_open..).unwrap_or_default()
    }

    /// The next window that can be decoded now; the caller owes its result to `accept`.
    pub fn next_window(&mut self) -> Option<WindowTask> {
        let window_frames = self.plan.window_frames;
        let track = self.first_open + self.open_tracks().iter().position(Track::has_window)?;
        let state = &mut self.tracks[track];
        state.is_busy = true;
        let n_frames = window_frames.min(state.n_frames - state.seek_frames);
        Some(WindowTask { track, seek_frames: state.seek_frames, n_frames })
    }

    /// Whether others hear a part of a track.
    pub fn is_overlapped(&self, track: usize) -> bool {
        let stretch = self.tracks[track].stretch;
        stretch.overlaps_before() || stretch.overlaps_after()
    }

    /// Whether no window of a track is left.
    pub fn is_done(&self, track: usize) -> bool {
        self.tracks[track].is_done()
    }

    /// Whether no window of any track is left.
    pub fn is_all_done(&self) -> bool {
        self.open_tracks().iter().all(Track::is_done)
    }

    /// Tokens of the window's prompt before the start token: hotwords, then what was said before.
    pub fn context(&self, task: WindowTask) -> Vec<u32> {
        self.context.before(&self.tracks[task.track].context)
    }

    /// Seconds of the recording at which the window begins.
    pub fn window_secs(&self, task: WindowTask) -> f64 {
        self.tracks[task.track].start_secs() + task.seek_frames as f64 * self.plan.frame_secs
    }

    /// Seconds decoded so far.
    pub fn decoded_secs(&self) -> f64 {
        self.decoded_frames as f64 * self.plan.frame_secs
    }

    /// Text that is new since the last call, in order and never taken back, a part for each segment: what belongs
    /// together does not depend on which window was ready first. All deltas put together are the transcript's text.
    pub fn take_text(&mut self) -> Vec<TextPart> {
        let is_spaced = !self.plan.written_language().is_some_and(Tokenizer::is_unspaced);
        let mut parts = Vec::new();
        let (track, place) = &mut self.next_segment;
        while let Some(state) = self.tracks.get(*track) {
            for segment in &state.segments[*place..] {
                self.text.push(&segment.text, is_spaced);
                parts.push(TextPart { delta: self.text.take().to_owned(), segment: segment.clone() });
            }
            *place = state.segments.len();
            if !state.is_done() {
                break;
            }
            (*track, *place) = (*track + 1, 0);
        }
        parts
    }

    /// The transcript of what was accepted.
    pub fn finish(mut self, duration_secs: f64, language_probability: Option<f32>) -> Transcript {
        self.take_text();
        let mut segments: Vec<Segment> = self.tracks.into_iter().flat_map(|track| track.segments).collect();
        for (id, segment) in segments.iter_mut().enumerate() {
            segment.id = id;
            segment.keep_within(0.0, duration_secs);
        }
        Transcript {
            text: self.text.into_text(),
            language: self.plan.language,
            language_probability,
            task: self.plan.options.task,
            to_language: Told::by(&self.plan.options, None, false).target().map(str::to_owned),
            cascade: None,
            duration_secs,
            segments,
            coverage: coverage(&self.speech, &self.outcomes),
        }
    }
}

#[cfg(test)]
mod tests;
