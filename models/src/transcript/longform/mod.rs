//! Audio of any length as windows: which window to decode next, and what its tokens become. A state machine
//! without a model, so that every branch can be tested with made-up results.
//!
//! A recording is one track or several. A track is a stretch decoded front to back: each window begins where
//! the one before got to (openai/whisper `transcribe.py`). Tracks do not depend on each other and share a batch.

use std::sync::Arc;

use audio::Span;

use super::context::Context;
use super::coverage::{Outcome, Speech, coverage};
use super::running_text::RunningText;
use super::segment::{Piece, Split, split};
use super::words::{assign_words, time_words};
use super::{GapReason, Segment, TextPart, Transcript};
use crate::SpecialTokens;
use crate::decode::{Rules, WindowResult};
use crate::tokenizer::Tokenizer;
use crate::{DecodeOptions, Error, Timestamps};

/// A rest without speech that is shorter than this is not worth a window.
const MIN_REST_SECS: f64 = 1.0;
/// Speech after the last timestamp of a window that is longer than this is decoded again.
const MIN_MISSED_SECS: f64 = 0.3;
/// A window that got less far than this is not begun again where it ended.
const MIN_ADVANCE_SECS: f64 = 1.0;
/// A window moves on by at least this, or a model that is stuck would be heard for ever.
const MIN_STEP_SECS: f64 = 0.2;
/// Text decoded hotter than this is not shown to the next window.
const MAX_CONTEXT_TEMPERATURE: f32 = 0.5;
/// Where timestamps exist, speech further than this from any segment has no text.
const SEGMENT_MARGIN_SECS: f64 = 0.5;

/// When each of some text tokens begins and ends, in seconds from the start of the window.
pub(crate) type Align<'a> = dyn Fn(&[u32]) -> Result<Vec<(f64, f64)>, Error> + 'a;

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
    /// Language decoded in, once it is known.
    pub language: Option<String>,
}

impl Plan {
    /// Seconds of a position.
    pub fn position_secs(&self) -> f64 {
        self.position_frames as f64 * self.frame_secs
    }
}

/// One stretch of the recording.
struct Track {
    start_secs: f64,
    n_frames: usize,
    seek_frames: usize,
    /// A window of it is being decoded.
    is_busy: bool,
    /// Tokens before the next window.
    context: Vec<u32>,
    last_speech_secs: f64,
    segments: Vec<Segment>,
}

impl Track {
    fn has_window(&self) -> bool {
        !self.is_busy && self.seek_frames < self.n_frames
    }

    fn is_done(&self) -> bool {
        !self.is_busy && self.seek_frames >= self.n_frames
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

    /// Adds a stretch of `n_frames` that begins at `start_secs`.
    pub fn add_track(&mut self, start_secs: f64, n_frames: usize) {
        self.tracks.push(Track {
            start_secs,
            n_frames,
            seek_frames: 0,
            is_busy: false,
            context: self.context.prompt.clone(),
            last_speech_secs: start_secs,
            segments: Vec::new(),
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
        self.tracks[task.track].start_secs + task.seek_frames as f64 * self.plan.frame_secs
    }

    /// Seconds decoded so far.
    pub fn decoded_secs(&self) -> f64 {
        self.decoded_frames as f64 * self.plan.frame_secs
    }

    /// Takes a window's result. `align` says when each of some text tokens begins and ends, in seconds from the start
    /// of the window.
    ///
    /// # Errors
    /// What `align` and the tokenizer refuse.
    pub fn accept(
        &mut self,
        task: WindowTask,
        result: &WindowResult,
        align: &Align<'_>,
    ) -> Result<(), Error> {
        let window_secs = self.window_secs(task);
        let per_position = self.plan.position_frames;
        let n_positions = task.n_frames.div_ceil(per_position);
        let timestamps = self.plan.rules.timestamps;
        let Split { mut pieces, advance } = split(&result.tokens, timestamps.as_ref(), n_positions);
        if let (Some((start, end)), [piece]) = (result.positions, pieces.as_mut_slice()) {
            (piece.start, piece.end) = (start as f64, end as f64);
        }
        let position_secs = self.plan.position_secs();
        let used_frames = match advance {
            _ if result.is_silence => task.n_frames,
            Some(positions) => {
                let least = (MIN_STEP_SECS / self.plan.frame_secs) as usize;
                (per_position * positions).max(least).min(task.n_frames)
            }
            None => self.used_up(task, pieces.last()),
        };

        let mut segments = Vec::with_capacity(pieces.len());
        if !result.is_silence {
            for piece in pieces {
                let ids = &result.tokens[piece.tokens.clone()];
                let text_ids = self.text_ids(ids);
                let text = self.plan.tokenizer.decode(&text_ids)?;
                if text.trim().is_empty() || piece.end <= piece.start {
                    continue;
                }
                segments.push((
                    Segment {
                        id: 0,
                        seek_secs: window_secs,
                        start_secs: window_secs + piece.start * position_secs,
                        end_secs: window_secs + piece.end * position_secs,
                        text,
                        token_ids: ids.to_vec(),
                        token_logprobs: result.logprobs[piece.tokens].to_vec(),
                        temperature: result.temperature,
                        avg_logprob: result.avg_logprob,
                        compression_ratio: result.compression_ratio,
                        no_speech_prob: result.no_speech_prob,
                        words: None,
                    },
                    text_ids.len(),
                ));
            }
        }
        if self.plan.options.timestamps == Timestamps::Word && !segments.is_empty() {
            self.add_words(task, &mut segments, align)?;
        }
        // Half a position of an odd last frame, a word aligned into what the next window will hear again, or one
        // that two segments share: nothing may reach into what comes after it.
        let end_secs = window_secs + used_frames as f64 * self.plan.frame_secs;
        let mut start_secs = window_secs;
        for (segment, _) in &mut segments {
            start_secs = segment.keep_within(start_secs, end_secs);
        }
        self.record_outcome(task, result, used_frames, &segments);

        let track = &mut self.tracks[task.track];
        let spoken = segments.iter().flat_map(|(segment, _)| segment.token_ids.iter().copied());
        // Silence says nothing about what comes before the next window.
        if !result.is_silence {
            if self.plan.options.condition_on_previous_text && result.temperature <= MAX_CONTEXT_TEMPERATURE {
                track.context.extend(spoken);
            } else {
                track.context.clear();
            }
        }
        track.segments.extend(segments.into_iter().map(|(segment, _)| segment));
        track.seek_frames += used_frames;
        track.is_busy = false;
        self.decoded_frames += used_frames;
        self.drop_silent_rest(task.track);
        self.first_open += self.open_tracks().iter().take_while(|track| track.is_done()).count();
        Ok(())
    }

    /// Frames that a window which says it is used up really used. The reference skips what comes after a single
    /// closing timestamp; if somebody speaks there, the next window begins at that timestamp.
    fn used_up(&self, task: WindowTask, last: Option<&Piece>) -> usize {
        let Some(last) = last.filter(|_| self.plan.rules.timestamps.is_some()) else { return task.n_frames };
        let reached_frames = (self.plan.position_frames as f64 * last.end) as usize;
        let window_secs = self.window_secs(task);
        let from = window_secs + reached_frames as f64 * self.plan.frame_secs + SEGMENT_MARGIN_SECS;
        let to = window_secs + task.n_frames as f64 * self.plan.frame_secs;
        let moves = reached_frames as f64 * self.plan.frame_secs >= MIN_ADVANCE_SECS;
        if moves && self.speech.secs_between(from, to) >= MIN_MISSED_SECS {
            reached_frames.min(task.n_frames)
        } else {
            task.n_frames
        }
    }

    /// Ends a track whose rest is short and silent.
    fn drop_silent_rest(&mut self, index: usize) {
        let track = &mut self.tracks[index];
        let start = track.start_secs + track.seek_frames as f64 * self.plan.frame_secs;
        let end = track.start_secs + track.n_frames as f64 * self.plan.frame_secs;
        if end - start < MIN_REST_SECS && !self.speech.is_between(start, end) {
            self.decoded_frames += track.n_frames.saturating_sub(track.seek_frames);
            track.seek_frames = track.n_frames;
        }
    }

    fn text_ids(&self, ids: &[u32]) -> Vec<u32> {
        ids.iter().copied().filter(|id| self.plan.special.is_text(*id)).collect()
    }

    fn add_words(
        &mut self,
        task: WindowTask,
        segments: &mut [(Segment, usize)],
        align: &Align<'_>,
    ) -> Result<(), Error> {
        let plan = &self.plan;
        let is_text = |id: &u32| plan.special.is_text(*id);
        let (mut text_ids, mut logprobs) = (Vec::new(), Vec::new());
        for (segment, _) in segments.iter() {
            for (id, logprob) in
                segment.token_ids.iter().zip(&segment.token_logprobs).filter(|(id, _)| is_text(id))
            {
                text_ids.push(*id);
                logprobs.push(*logprob);
            }
        }
        let words =
            time_words(&text_ids, &logprobs, &align(&text_ids)?, &plan.tokenizer, plan.language.as_deref())?;
        let window_secs = self.window_secs(task);
        assign_words(segments, &words, window_secs, &mut self.tracks[task.track].last_speech_secs);
        Ok(())
    }

    /// Notes which part of the window has text.
    fn record_outcome(
        &mut self,
        task: WindowTask,
        result: &WindowResult,
        used_frames: usize,
        segments: &[(Segment, usize)],
    ) {
        let start_secs = self.window_secs(task);
        let end_secs = start_secs + used_frames as f64 * self.plan.frame_secs;
        let mut note = |start_secs: f64, end_secs: f64, gap| {
            self.outcomes.push(Outcome { start_secs, end_secs, gap });
        };
        let uncut = used_frames == task.n_frames;
        let whole = if result.is_silence {
            Some(GapReason::NoSpeech)
        } else if result.reached_limit && uncut {
            // The text breaks off somewhere: without times nobody can say where.
            Some(GapReason::TokenLimit)
        } else if segments.is_empty() {
            Some(GapReason::Empty)
        } else if self.plan.rules.timestamps.is_none() {
            None
        } else {
            Some(GapReason::Empty)
        };
        note(start_secs, end_secs, whole);
        if self.plan.rules.timestamps.is_some() {
            for (segment, _) in segments {
                let from = (segment.start_secs - SEGMENT_MARGIN_SECS).max(start_secs);
                note(from, (segment.end_secs + SEGMENT_MARGIN_SECS).min(end_secs), None);
            }
        }
    }

    /// Text that is new since the last call, in order and never taken back, a part for each segment: what belongs
    /// together does not depend on which window was ready first. All deltas put together are the transcript's text.
    pub fn take_text(&mut self) -> Vec<TextPart> {
        let is_spaced = !self.plan.language.as_deref().is_some_and(Tokenizer::is_unspaced);
        let mut parts = Vec::new();
        let (track, place) = &mut self.next_segment;
        while let Some(state) = self.tracks.get(*track) {
            for segment in &state.segments[*place..] {
                self.text.push(&segment.text, is_spaced);
                parts.push(TextPart { delta: self.text.take().to_owned(), segment: segment.clone() });
            }
            *place = state.segments.len();
            if state.is_busy || state.has_window() {
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
            duration_secs,
            segments,
            coverage: coverage(&self.speech, &self.outcomes),
        }
    }
}

#[cfg(test)]
mod tests;
