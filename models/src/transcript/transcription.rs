//! One recording on its way to a transcript: divided into windows, which somebody decodes, and put together again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use audio::vad::spans_from_probabilities;
use audio::window::{Profile, cut_at_silences, energy_profile};
use audio::{Features, Span, Vad, VadOptions, Waveform};

use super::TextPart;
use super::longform::{LongForm, OVERLAP_SECS, Plan, Stretch, TokenTimes, WindowTask, overlapping};
use super::stamps::stamped;
use crate::decode::{
    AlignedLabel, Attempt, CtcHeard, LADDER, Strategy, Thresholds, WindowRequest, WindowResult,
    compression_ratio,
};
use crate::{
    CrossCache, DecodeOptions, DraftWindow, Error, Progress, Timestamps, Tokenizer, Told, Transcriber,
    Transcript, WordTimes,
};

/// The state of one transcription.
pub struct Transcription {
    transcriber: Transcriber,
    waveform: Waveform,
    /// Stretches of the recording that are decoded on their own: the tracks of the long form.
    stretches: Vec<Stretch>,
    /// Features of the tracks that are longer than a window, until they are decoded.
    features: BTreeMap<usize, Features>,
    long_form: LongForm,
    attempts: Vec<Attempt>,
    predicts_timestamps: bool,
    language_probability: Option<f32>,
    prepare_secs: f64,
}

/// What was heard in a window, for a decoder or by CTC or both.
pub(super) struct Heard {
    /// What decoder rows listen to, where there is a decoder.
    pub cross: Option<Arc<CrossCache>>,
    /// What a draft's rows listen to, where one guesses.
    draft: Option<Arc<DraftWindow>>,
    /// What CTC says, where it is asked.
    pub ctc: Option<CtcHeard>,
    /// The most probable language and how probable it is, when nobody has said it yet.
    language: Option<(String, f32)>,
}

impl Transcription {
    /// Finds speech, divides the recording and computes the features of what is longer than a window: all that can
    /// be done without the model. `keep_going` is asked now and then.
    ///
    /// # Errors
    /// Options that make no sense or that the model cannot follow; audio that cannot be resampled;
    /// [`Error::Cancelled`] when `keep_going` says no.
    pub fn prepare(
        transcriber: &Transcriber,
        waveform: Waveform,
        options: &DecodeOptions,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let began = Instant::now();
        transcriber.check(options)?;
        let spec = transcriber.feature_spec();
        let waveform = match waveform.sample_rate {
            rate if rate == spec.sample_rate => waveform,
            _ => audio::resample(&waveform, spec.sample_rate)?,
        };
        let probabilities = Vad::new().probabilities(&waveform, keep_going)?;
        let spans = |options: &VadOptions| {
            spans_from_probabilities(&probabilities, waveform.duration_secs(), options)
        };
        let speech = spans(&options.vad_options)?;
        let special = transcriber.special_tokens();
        let asks_for_times = transcriber.asks_for_times(options);
        let mut window_secs = transcriber.window_secs();
        if asks_for_times && !special.writes_times() {
            window_secs = window_secs.min(WordTimes::WINDOW_SECS);
        }
        let window_frames = (window_secs * spec.frame_rate()).round() as usize;
        // In whole frames: a rest that is none does not make a recording longer than the window.
        let n_frames = |samples: &[f32]| samples.len() / spec.hop_samples;
        let is_long = n_frames(&waveform.samples) > window_frames;
        // Where a model tells no times, only pauses say where one window may end and the next begin.
        let is_cut = options.vad.unwrap_or(is_long) || (is_long && !special.writes_times());
        let stretches = if is_cut {
            let all = [Span { start_secs: 0.0, end_secs: waveform.duration_secs() }];
            // Without a detector everything is heard.
            let spans = if options.vad == Some(false) { all.as_slice() } else { &speech };
            cut(&waveform, spans, window_secs, !special.writes_times())?
        } else if waveform.samples.is_empty() {
            Vec::new()
        } else {
            vec![Stretch::alone(Span { start_secs: 0.0, end_secs: waveform.duration_secs() })]
        };
        let mut features = BTreeMap::new();
        for (track, stretch) in stretches.iter().enumerate() {
            let samples = samples_of(&waveform, stretch);
            if n_frames(samples) > window_frames {
                features.insert(track, transcriber.padded_features(samples, keep_going)?);
            }
        }
        // Seeking through a long track needs timestamps, also when nobody wants to see them.
        let seeks = !features.is_empty() && special.writes_times();
        let predicts_timestamps = asks_for_times || seeks;
        let plan = Plan {
            options: options.clone(),
            tokenizer: transcriber.tokenizer().clone(),
            special: special.clone(),
            rules: Arc::new(transcriber.rules(predicts_timestamps)),
            window_frames,
            frame_secs: spec.frame_rate().recip(),
            position_frames: transcriber.architecture().frames_per_position(),
            max_context: transcriber.max_context(),
            knows_times: transcriber.hears_by_ctc(options)
                || (predicts_timestamps && special.word_times().is_some()),
            language: special.only_language.clone().or_else(|| options.language.clone()),
        };
        // Held against the usual idea of speech: whatever the request's own leaves out is a gap.
        let mut long_form = LongForm::new(plan, spans(&VadOptions::default())?)?;
        for stretch in &stretches {
            // A last frame that is not full holds nothing, unless it is all there is.
            long_form.add_track(*stretch, n_frames(samples_of(&waveform, stretch)).max(1));
        }
        Ok(Self {
            transcriber: transcriber.clone(),
            attempts: attempts(options, transcriber.beam_size(options)),
            waveform,
            stretches,
            features,
            long_form,
            predicts_timestamps,
            language_probability: None,
            prepare_secs: began.elapsed().as_secs_f64(),
        })
    }

    /// Length of the recording.
    pub fn duration_secs(&self) -> f64 {
        self.waveform.duration_secs()
    }

    /// Time that [`Transcription::prepare`] took.
    pub(super) fn prepare_secs(&self) -> f64 {
        self.prepare_secs
    }

    /// How the recording is decoded.
    pub fn options(&self) -> &DecodeOptions {
        &self.long_form.plan.options
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress { decoded_secs: self.long_form.decoded_secs(), duration_secs: self.duration_secs() }
    }

    /// Rows that a window of it has from its second step on.
    pub(super) fn n_first_rows(&self) -> usize {
        self.attempts.first().map_or(1, |attempt| attempt.strategy.n_rows())
    }

    /// Whether a window can be decoded now.
    pub(super) fn has_window(&self) -> bool {
        self.long_form.has_window()
    }

    /// The next window; the caller owes its result to `accept`.
    pub(super) fn next_window(&mut self) -> Option<WindowTask> {
        self.long_form.next_window()
    }

    /// Whether every window was decoded.
    pub(super) fn is_done(&self) -> bool {
        self.long_form.is_all_done()
    }

    /// What decoder rows listen to in a window, and the language that is spoken there if nobody has said it yet.
    pub(super) fn encode(&self, task: WindowTask, keep_going: &dyn Fn() -> bool) -> Result<Heard, Error> {
        let features = self.window_features(task, keep_going)?;
        let transcriber = &self.transcriber;
        let plan = &self.long_form.plan;
        let guesses = plan.options.draft_tokens > 0
            && self.attempts.iter().any(|attempt| attempt.strategy == Strategy::Greedy);
        let features_of_draft =
            (guesses && transcriber.draft_has_own_encoder().is_some()).then(|| features.clone());
        let encoded = transcriber.encode_while(features, keep_going)?;
        let draft = features_of_draft.and_then(|features| transcriber.listen_by_draft(features, &encoded));
        let has_decoder = transcriber.model().decoder().is_ok();
        // Where windows overlap, times say which of them tells a word.
        let is_timed = plan.options.timestamps > Timestamps::None || self.long_form.is_overlapped(task.track);
        let asks_ctc = !has_decoder || (is_timed && transcriber.hears_by_ctc(&plan.options));
        let ctc = if asks_ctc { transcriber.ctc(&encoded)? } else { None };
        let cross = if has_decoder { Some(transcriber.listen(&encoded)?) } else { None };
        let language = match (&plan.language, &cross) {
            (None, Some(cross)) => {
                transcriber.detect_language(cross, &plan.options.languages)?.into_iter().next()
            }
            _ => None,
        };
        Ok(Heard { cross, draft, ctc, language })
    }

    /// The first window decides the language of the recording if nobody else does.
    pub(super) fn settle_language(&mut self, heard: &mut Heard) {
        let language = &mut self.long_form.plan.language;
        if let (None, Some((code, probability))) = (&language, heard.language.take()) {
            *language = Some(code);
            self.language_probability = Some(probability);
        }
    }

    /// Features of a window, padded to its full length unless the model needs no padding. A short track has one window, which is computed here; those
    /// of a long one are dropped after its last window: an hour has a hundred and fifty megabytes of them.
    fn window_features(&self, task: WindowTask, keep_going: &dyn Fn() -> bool) -> Result<Features, Error> {
        let n_frames = match self.transcriber.is_variable_length() {
            true => task.n_frames,
            false => self.transcriber.architecture().window_frames(),
        };
        let features = match self.features.get(&task.track) {
            Some(features) => Cow::Borrowed(features),
            None => {
                let samples = samples_of(&self.waveform, &self.stretches[task.track]);
                Cow::Owned(self.transcriber.padded_features(samples, keep_going)?)
            }
        };
        Ok(features.slice(task.seek_frames, n_frames, 0.0))
    }

    /// How a window is decoded.
    ///
    /// # Errors
    /// A model without a decoder, a prompt that it cannot be told.
    pub(super) fn request(&self, task: WindowTask, heard: &Heard) -> Result<WindowRequest, Error> {
        let no_decoder = || Error::option("model", "has no decoder");
        let cross = heard.cross.as_ref().ok_or_else(no_decoder)?;
        let plan = &self.long_form.plan;
        let options = &plan.options;
        let context = self.long_form.context(task);
        let told = Told::by(options, plan.language.as_deref(), self.predicts_timestamps);
        let (prompt, start_index) = plan.special.prompt_after(&context, told)?;
        let max_positions = self.transcriber.architecture().max_target_positions();
        // Half of a Whisper's positions are for what was said before; others have only the prompt to leave room for.
        let most = if plan.special.writes_times() { max_positions / 2 } else { max_positions };
        let mut max_new_tokens = options.max_new_tokens.unwrap_or(most);
        if options.timestamps == Timestamps::Word {
            // The alignment reads the text once more, between its own prompt and the end of text.
            let told = Told { timestamps: false, ..told };
            let n_around = plan.special.prompt_after(&[], told)?.0.len() + 1;
            max_new_tokens = max_new_tokens.min(max_positions.saturating_sub(n_around));
        }
        // By place, not by order: the same window draws the same numbers whatever the batch size.
        let place = ((task.track as u64) << 24) ^ task.seek_frames as u64;
        Ok(WindowRequest {
            cross: cross.clone(),
            draft: heard.draft.clone(),
            start_index,
            prompt,
            rules: plan.rules.clone(),
            attempts: self.attempts.clone(),
            thresholds: Thresholds {
                compression_ratio: options.compression_ratio_threshold,
                logprob: options.logprob_threshold,
                no_speech: options.no_speech_threshold,
            },
            max_new_tokens,
            draft_tokens: options.draft_tokens,
            seed: options.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ place,
        })
    }

    /// What CTC reads in a window.
    ///
    /// # Errors
    /// A vocabulary that cannot spell what it reads.
    pub(super) fn read(&self, ctc: &CtcHeard) -> Result<WindowResult, Error> {
        let plan = &self.long_form.plan;
        let mut tokens = ctc.read(self.transcriber.beam_size(&plan.options));
        tokens.retain(|id| plan.special.is_text(*id));
        let labels = ctc.align(&tokens).unwrap_or_default();
        let mut logprobs: Vec<f32> = labels.iter().map(|label| label.logprob).collect();
        // What cannot be aligned was read all the same.
        logprobs.resize(tokens.len(), f32::NEG_INFINITY);
        let text = plan.tokenizer.decode(&tokens)?;
        Ok(WindowResult {
            avg_logprob: logprobs.iter().sum::<f32>() / logprobs.len().max(1) as f32,
            compression_ratio: compression_ratio(&text),
            no_speech_prob: 0.0,
            temperature: 0.0,
            reached_limit: false,
            is_silence: false,
            positions: labels.first().zip(labels.last()).map(|(first, last)| (first.start, last.end)),
            tokens,
            logprobs,
        })
    }

    /// Takes what a window decoded to.
    pub(super) fn accept(
        &mut self,
        task: WindowTask,
        result: &WindowResult,
        heard: &Heard,
    ) -> Result<(), Error> {
        let transcriber = &self.transcriber;
        let plan = &self.long_form.plan;
        let (position_frames, position_secs) = (plan.position_frames, plan.position_secs());
        let heard_secs = task.n_frames as f64 * plan.frame_secs;
        let (special, options) = (plan.special.clone(), plan.options.clone());
        let language = plan.language.clone();
        let word_times = special.word_times().filter(|_| self.predicts_timestamps);
        let align = |text_ids: &[u32]| {
            if let Some(times) = word_times {
                let secs = stamped(&result.tokens, times, &special, heard_secs);
                return Ok(TokenTimes { secs, are_exact: true });
            }
            // By CTC where it can: it knows when, while attention only looks somewhere near.
            let labels = heard.ctc.as_ref().and_then(|ctc| ctc.align(text_ids));
            let are_exact = labels.is_some();
            let places: Vec<(usize, usize)> = match (labels, &heard.cross) {
                (Some(labels), _) => spoken(&labels, transcriber.tokenizer()),
                // To look where attention lay takes as long as to read a text, and only words are worth it.
                (None, _) if options.timestamps < Timestamps::Word => return Ok(TokenTimes::default()),
                (None, Some(cross)) => {
                    let (prompt, _) =
                        special.prompt_after(&[], Told::by(&options, language.as_deref(), false))?;
                    let n_audio = (task.n_frames / position_frames).max(1);
                    // Where attention moves on, one token ends and the next begins.
                    let starts = transcriber.align(cross, &prompt, text_ids, n_audio)?;
                    starts.windows(2).map(|pair| (pair[0], pair[1])).collect()
                }
                (None, None) => vec![(0, 0); text_ids.len()],
            };
            let secs = |position: usize| position as f64 * position_secs;
            let secs = places.into_iter().map(|(start, end)| (secs(start), secs(end))).collect();
            Ok(TokenTimes { secs, are_exact })
        };
        self.long_form.accept(task, result, &align)?;
        if self.long_form.is_done(task.track) {
            self.features.remove(&task.track);
        }
        Ok(())
    }

    /// Text that is new since the last call.
    pub(super) fn take_text(&mut self) -> Vec<TextPart> {
        self.long_form.take_text()
    }

    /// The transcript of what was accepted.
    pub(super) fn finish(self) -> Transcript {
        let duration_secs = self.duration_secs();
        self.long_form.finish(duration_secs, self.language_probability)
    }
}

/// First position of each label, and the one after its last. A space is heard anywhere in a pause: it lies where what comes after it
/// begins.
fn spoken(labels: &[AlignedLabel], tokenizer: &Tokenizer) -> Vec<(usize, usize)> {
    let is_space = |label: &AlignedLabel| tokenizer.token_bytes(label.id).iter().all(u8::is_ascii_whitespace);
    let mut places = Vec::with_capacity(labels.len());
    let mut next = labels.last().map_or(0, |label| label.end);
    for label in labels.iter().rev() {
        let place = if is_space(label) { (next, next) } else { (label.start, label.end) };
        next = place.0;
        places.push(place);
    }
    places.reverse();
    places
}

/// What is tried on a window, one after the other.
fn attempts(options: &DecodeOptions, beam_size: usize) -> Vec<Attempt> {
    let length_penalty = options.length_penalty;
    let search = match beam_size {
        1 => Strategy::Greedy,
        size => Strategy::Beam { size, patience: options.patience, length_penalty },
    };
    let attempt = |temperature: f32| {
        let sample = Strategy::Sample { temperature, best_of: options.best_of, length_penalty };
        Attempt { temperature, strategy: if temperature > 0.0 { sample } else { search } }
    };
    if options.temperature == 0.0 && options.fallback {
        LADDER.into_iter().map(attempt).collect()
    } else {
        vec![attempt(options.temperature)]
    }
}

/// The recording's speech in windows that begin and end at pauses. Where there is none, `overlaps` says whether two hear the same
/// second.
fn cut(
    waveform: &Waveform,
    speech: &[Span],
    window_secs: f64,
    overlaps: bool,
) -> Result<Vec<Stretch>, Error> {
    let frame_samples = (waveform.sample_rate / 50).max(1);
    let energy = energy_profile(waveform, frame_samples as usize);
    let frame_secs = f64::from(frame_samples) / f64::from(waveform.sample_rate);
    let profile = Profile { values: &energy, frame_secs };
    let room_secs = if overlaps { OVERLAP_SECS } else { 0.0 };
    // Windows of no more than that are cut as they are.
    let room_secs = if window_secs > 4.0 * room_secs { room_secs } else { 0.0 };
    let windows = cut_at_silences(speech, waveform.duration_secs(), window_secs - room_secs, &profile)?;
    Ok(match room_secs > 0.0 {
        true => overlapping(&windows),
        false => windows.into_iter().map(Stretch::alone).collect(),
    })
}

fn samples_of<'a>(waveform: &'a Waveform, stretch: &Stretch) -> &'a [f32] {
    waveform.between(stretch.heard.start_secs, stretch.heard.end_secs)
}
