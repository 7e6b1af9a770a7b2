//! What becomes of a window's result: segments, words, how far it got.

use std::ops::Range;

use audio::Span;

use super::overlap::{Words, join};
use super::sentences::{is_mark, sentences};
use super::{Align, LongForm, TokenTimes, WindowTask};
use crate::decode::WindowResult;
use crate::transcript::coverage::Outcome;
use crate::transcript::segment::{Piece, Split, split};
use crate::transcript::words::{assign_words, time_words};
use crate::transcript::{GapReason, Segment};
use crate::{Error, Timestamps};

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

/// The result of a window that others overlap, until theirs are there too.
pub(super) struct Read {
    task: WindowTask,
    result: WindowResult,
    times: Option<TokenTimes>,
    words: Words,
    /// Words that are told.
    kept: Range<usize>,
    /// Whether it is still to be joined with the one before it and with the one after it.
    is_open: [bool; 2],
    /// When the words that are told begin and end, where that lies beside the cut.
    told: Span,
}

/// What is left of a window that was joined with others.
#[derive(Clone, Copy)]
struct Joined {
    /// What its text is of.
    told: Span,
    /// Whether others tell all that was heard in it.
    others_tell: bool,
}

impl LongForm {
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
        let stretch = self.tracks[task.track].stretch;
        let is_open = [stretch.overlaps_before(), stretch.overlaps_after()];
        let is_held = is_open.contains(&true);
        let text_only;
        let (result, times) = if self.plan.rules.timestamps.is_some() {
            (result, None)
        } else {
            text_only = self.text_of(result);
            let wanted = self.plan.options.timestamps;
            let is_exact = self.plan.knows_times && (wanted > Timestamps::None || is_held);
            // Where words are wanted of a window that waits for others, they are aligned before it is gone.
            let is_needed = is_exact || (is_held && wanted == Timestamps::Word);
            let times = if is_needed { Some(align(&text_only.tokens)?) } else { None };
            // Nobody knows.
            (&text_only, times.filter(|times| times.secs.len() == text_only.tokens.len()))
        };
        if is_held {
            let words = self.words(result, times.as_ref(), self.window_secs(task))?;
            let (kept, told) = (0..words.texts.len(), stretch.told);
            self.tracks[task.track].read =
                Some(Read { task, result: result.clone(), times, words, kept, is_open, told });
            self.advance(task, task.n_frames);
            // It may have been what its neighbours waited for.
            let first = task.track.saturating_sub(1);
            (first..=task.track).for_each(|left| self.join(left));
            for track in first..(task.track + 2).min(self.tracks.len()) {
                self.settle_joined(track)?;
            }
        } else {
            let used_frames = self.settle(task, result, times.as_ref(), None, align)?;
            self.advance(task, used_frames);
        }
        self.first_open += self.open_tracks().iter().take_while(|track| track.is_done()).count();
        Ok(())
    }

    /// Joins a track with the one after it, once both were read.
    fn join(&mut self, left: usize) {
        let Some([left, right]) = self.tracks.get_mut(left..left + 2) else { return };
        let cut_secs = left.stretch.told.end_secs;
        let (Some(left), Some(right)) = (&mut left.read, &mut right.read) else { return };
        if left.is_open[1] && right.is_open[0] {
            let (kept, left_out) = join(&left.words, &right.words, cut_secs);
            left.kept.end = kept.max(left.kept.start);
            right.kept.start = left_out.min(right.kept.end);
            (left.is_open[1], right.is_open[0]) = (false, false);
            // The last word of the one and the first of the other may lie on either side of the cut.
            let last = left.kept.clone().last().and_then(|word| left.words.secs_of(word));
            let next = right.kept.clone().next().and_then(|word| right.words.secs_of(word));
            let seam_secs = match (last, next) {
                (Some((_, end)), Some((start, _))) if end > cut_secs || start < cut_secs => {
                    f64::midpoint(end, start.max(end))
                }
                (Some((_, end)), None) => end.max(cut_secs),
                (None, Some((start, _))) => start.min(cut_secs),
                _ => cut_secs,
            };
            // A last window may be shorter than what two hear together.
            let seam_secs = seam_secs.max(left.told.start_secs).min(right.told.end_secs);
            (left.told.end_secs, right.told.start_secs) = (seam_secs, seam_secs);
        }
    }

    /// Makes segments of a track that was joined on both sides.
    fn settle_joined(&mut self, track: usize) -> Result<(), Error> {
        let is_joined = |read: &mut Read| read.is_open == [false, false];
        let Some(read) = self.tracks[track].read.take_if(is_joined) else { return Ok(()) };
        let Read { task, mut result, times, words, kept, told, .. } = read;
        let tokens = words.n_tokens_of(kept.start)..words.n_tokens_of(kept.end);
        let others_tell = kept.is_empty() && !words.texts.is_empty();
        result.tokens = result.tokens[tokens.clone()].to_vec();
        result.logprobs = result.logprobs[tokens.clone()].to_vec();
        result.positions = None;
        let times = times.map(|times| TokenTimes { secs: times.secs[tokens].to_vec(), ..times });
        let joined = Joined { told, others_tell };
        self.settle(task, &result, times.as_ref(), Some(joined), &|_| Ok(TokenTimes::default()))?;
        Ok(())
    }

    /// A result without the tokens that are no text.
    fn text_of(&self, result: &WindowResult) -> WindowResult {
        let scored = result.tokens.iter().zip(&result.logprobs);
        let (tokens, logprobs) = scored.filter(|(id, _)| self.plan.special.is_text(**id)).unzip();
        WindowResult { tokens, logprobs, ..result.clone() }
    }

    /// The words of a result with the marks at them, of which `times` tell when each token begins and ends.
    fn words(
        &self,
        result: &WindowResult,
        times: Option<&TokenTimes>,
        window_secs: f64,
    ) -> Result<Words, Error> {
        // What is not known well does not decide.
        let exact = times.filter(|times| times.are_exact).map(|times| &times.secs);
        let mut words = Words { secs: exact.map(|_| Vec::new()), ..Words::default() };
        let mut first = 0;
        for (text, n_tokens) in
            self.plan.tokenizer.split_words(&result.tokens, self.plan.written_language())?
        {
            let end = first + n_tokens;
            let secs = exact.map(|secs| (window_secs + secs[first].0, window_secs + secs[end - 1].1));
            words.push(&text, n_tokens, secs, is_mark(&text));
            first = end;
        }
        Ok(words)
    }

    /// Whether a window is more than one segment although its text has no times.
    fn splits_sentences(&self) -> bool {
        self.plan.rules.timestamps.is_none()
            && self.plan.knows_times
            && self.plan.options.timestamps > Timestamps::None
    }

    /// Makes segments of a window, of whose text tokens `times` tell when each begins and ends, or `align` where that is wanted; of what
    /// is left of one that was joined with others. Returns the frames after which the next window begins.
    fn settle(
        &mut self,
        task: WindowTask,
        result: &WindowResult,
        times: Option<&TokenTimes>,
        joined: Option<Joined>,
        align: &Align<'_>,
    ) -> Result<usize, Error> {
        let window_secs = self.window_secs(task);
        let per_position = self.plan.position_frames;
        let n_positions = task.n_frames.div_ceil(per_position);
        let timestamps = self.plan.rules.timestamps;
        let Split { mut pieces, advance } = split(&result.tokens, timestamps.as_ref(), n_positions);
        if let (Some((start, end)), [piece]) = (result.positions, pieces.as_mut_slice()) {
            (piece.start, piece.end) = (start as f64, end as f64);
        }
        let position_secs = self.plan.position_secs();
        let exact = times.filter(|times| times.are_exact && self.splits_sentences());
        if let Some(times) = exact {
            let (tokenizer, language) = (&self.plan.tokenizer, self.plan.written_language());
            pieces = sentences(&result.tokens, &times.secs, position_secs, tokenizer, language)?;
        }
        let used_frames = match advance {
            _ if result.is_silence => task.n_frames,
            Some(positions) => {
                let least = (MIN_STEP_SECS / self.plan.frame_secs) as usize;
                (per_position * positions).max(least).min(task.n_frames)
            }
            None => self.used_up(task, pieces.last()),
        };

        let mut segments = Vec::with_capacity(pieces.len());
        let mut segment_secs = times.map(|_| Vec::new());
        if !result.is_silence {
            for piece in pieces {
                let ids = &result.tokens[piece.tokens.clone()];
                let text_ids = self.text_ids(ids);
                let text = self.plan.tokenizer.decode(&text_ids)?;
                if text.trim().is_empty() || piece.end <= piece.start {
                    continue;
                }
                if let (Some(kept), Some(times)) = (&mut segment_secs, times) {
                    kept.extend_from_slice(&times.secs[piece.tokens.clone()]);
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
            self.add_words(task, &mut segments, segment_secs, align)?;
        }
        // Half a position of an odd last frame, a word aligned into what the next window will hear again, or one
        // that two segments share: nothing may reach into what comes after it.
        let told = joined.map_or_else(|| self.told(task, used_frames), |joined| joined.told);
        let mut start_secs = told.start_secs;
        for (segment, _) in &mut segments {
            start_secs = segment.keep_within(start_secs, told.end_secs);
        }
        let others_tell = joined.is_some_and(|joined| joined.others_tell);
        self.record_outcome(task, result, used_frames, &segments, others_tell);

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
        Ok(used_frames)
    }

    /// What a window's text is of.
    fn told(&self, task: WindowTask, used_frames: usize) -> Span {
        let stretch = self.tracks[task.track].stretch;
        if stretch.overlaps_before() || stretch.overlaps_after() {
            return stretch.told;
        }
        let start_secs = self.window_secs(task);
        Span { start_secs, end_secs: start_secs + used_frames as f64 * self.plan.frame_secs }
    }

    /// Begins the next window of a track after `used_frames`.
    fn advance(&mut self, task: WindowTask, used_frames: usize) {
        let Span { start_secs, end_secs } = self.told(task, used_frames);
        let track = &mut self.tracks[task.track];
        track.seek_frames += used_frames;
        track.is_busy = false;
        self.decoded_frames += ((end_secs - start_secs) / self.plan.frame_secs).round() as usize;
        self.drop_silent_rest(task.track);
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
        let start = track.start_secs() + track.seek_frames as f64 * self.plan.frame_secs;
        let end = track.start_secs() + track.n_frames as f64 * self.plan.frame_secs;
        if end - start < MIN_REST_SECS && !self.speech.is_between(start, end) {
            self.decoded_frames += track.n_frames.saturating_sub(track.seek_frames);
            track.seek_frames = track.n_frames;
        }
    }

    fn text_ids(&self, ids: &[u32]) -> Vec<u32> {
        ids.iter().copied().filter(|id| self.plan.special.is_text(*id)).collect()
    }

    /// Gives segments their words; `secs` tell when each of their tokens begins and ends, or `align` does.
    fn add_words(
        &mut self,
        task: WindowTask,
        segments: &mut [(Segment, usize)],
        secs: Option<Vec<(f64, f64)>>,
        align: &Align<'_>,
    ) -> Result<(), Error> {
        let plan = &self.plan;
        let scored =
            segments.iter().flat_map(|(segment, _)| segment.token_ids.iter().zip(&segment.token_logprobs));
        let (text_ids, logprobs): (Vec<u32>, Vec<f32>) =
            scored.filter(|(id, _)| plan.special.is_text(**id)).unzip();
        let secs = match secs {
            Some(secs) => secs,
            None => align(&text_ids)?.secs,
        };
        let words = time_words(&text_ids, &logprobs, &secs, &plan.tokenizer, plan.written_language())?;
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
        others_tell: bool,
    ) {
        let Span { start_secs, end_secs } = self.told(task, used_frames);
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
            (!others_tell).then_some(GapReason::Empty)
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
}
