//! One transcription while it runs: takes windows from the long form, encodes them, decodes them as a batch and
//! hands their results back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use audio::window::{Profile, cut_at_silences, energy_profile};
use audio::{Features, Span, Vad, VadOptions, Waveform};

use super::longform::{LongForm, Plan, WindowTask};
use crate::decode::{Attempt, LADDER, Strategy, Thresholds, WindowRequest, WindowResult};
use crate::whisper::CrossCache;
use crate::{DecodeOptions, Error, Progress, Timestamps, Transcriber, Transcript};

/// The state of one transcription.
pub(crate) struct Run<'a> {
    transcriber: &'a Transcriber,
    options: &'a DecodeOptions,
    waveform: Cow<'a, Waveform>,
    /// Stretches of the recording that are decoded on their own: the tracks of the long form.
    stretches: Vec<Span>,
    /// Features of the tracks that are being decoded.
    features: BTreeMap<usize, Features>,
    long_form: LongForm<'a>,
    predicts_timestamps: bool,
    language_probability: Option<f32>,
}

/// A window in the batch.
struct InFlight {
    id: u64,
    task: WindowTask,
    cross: Arc<CrossCache>,
}

impl<'a> Run<'a> {
    /// Finds speech and divides the recording.
    ///
    /// # Errors
    /// Audio that cannot be resampled.
    pub fn new(
        transcriber: &'a Transcriber,
        waveform: &'a Waveform,
        options: &'a DecodeOptions,
    ) -> Result<Self, Error> {
        let spec = transcriber.feature_spec();
        let waveform = if waveform.sample_rate == spec.sample_rate {
            Cow::Borrowed(waveform)
        } else {
            Cow::Owned(audio::resample(waveform, spec.sample_rate)?)
        };
        let speech = Vad::new().speech_spans(&waveform, &VadOptions::default())?;
        let config = &transcriber.whisper().config;
        let window_frames = config.max_source_frames();
        // In whole frames: a rest that is none does not make a recording longer than the window.
        let n_frames = |samples: &[f32]| samples.len() / spec.hop_samples;
        let is_long = n_frames(&waveform.samples) > window_frames;
        let stretches = if options.vad.unwrap_or(is_long) {
            cut(&waveform, &speech, transcriber.window_secs())?
        } else if waveform.samples.is_empty() {
            Vec::new()
        } else {
            vec![Span { start_secs: 0.0, end_secs: waveform.duration_secs() }]
        };
        // Seeking needs timestamps, also when nobody wants to see them.
        let seeks = stretches.iter().any(|stretch| n_frames(samples_of(&waveform, *stretch)) > window_frames);
        let predicts_timestamps = options.timestamps > Timestamps::None || seeks;
        let special = transcriber.special_tokens();
        let plan = Plan {
            options,
            tokenizer: transcriber.tokenizer(),
            special,
            rules: Arc::new(transcriber.rules(predicts_timestamps)),
            window_frames,
            frame_secs: spec.frame_rate().recip(),
            max_context: (config.max_target_positions / 2).saturating_sub(1),
            language: if special.is_multilingual { options.language.clone() } else { Some("en".to_owned()) },
        };
        let mut long_form = LongForm::new(plan, speech)?;
        for stretch in &stretches {
            // A last frame that is not full holds nothing, unless it is all there is.
            long_form.add_track(stretch.start_secs, n_frames(samples_of(&waveform, *stretch)).max(1));
        }
        Ok(Self {
            transcriber,
            options,
            waveform,
            stretches,
            features: BTreeMap::new(),
            long_form,
            predicts_timestamps,
            language_probability: None,
        })
    }

    /// Decodes every window. `progress` hears how far it is.
    ///
    /// # Errors
    /// When a tensor operation fails; a prompt that leaves no room for text.
    pub fn decode(mut self, progress: &mut dyn FnMut(Progress)) -> Result<Transcript, Error> {
        let duration_secs = self.waveform.duration_secs();
        let mut session = self.transcriber.session();
        let mut in_flight: Vec<InFlight> = Vec::new();
        let mut next_id = 0;
        loop {
            while session.len() < self.options.batch_size {
                let Some(task) = self.long_form.next_window() else { break };
                let encoded = self.transcriber.encode(self.window_features(task))?;
                let cross = self.transcriber.listen(&encoded)?;
                self.settle_language(&cross)?;
                session.join(next_id, self.request(task, &cross)?)?;
                in_flight.push(InFlight { id: next_id, task, cross });
                next_id += 1;
            }
            if session.is_empty() {
                return Ok(self.long_form.finish(duration_secs, self.language_probability));
            }
            for (id, result) in session.step()? {
                let Some(place) = in_flight.iter().position(|window| window.id == id) else { continue };
                let InFlight { task, cross, .. } = in_flight.swap_remove(place);
                self.accept(task, &result, &cross)?;
                progress(Progress { decoded_secs: self.long_form.decoded_secs(), duration_secs });
            }
        }
    }

    /// Features of a window, padded to its full length. Those of its track are computed when its first window
    /// comes and dropped after its last: an hour has a hundred and fifty megabytes of them.
    fn window_features(&mut self, task: WindowTask) -> Features {
        let n_frames = self.transcriber.whisper().config.max_source_frames();
        let features = self.features.entry(task.track).or_insert_with(|| {
            self.transcriber.padded_features(samples_of(&self.waveform, self.stretches[task.track]))
        });
        features.slice(task.seek_frames, n_frames, 0.0)
    }

    fn accept(&mut self, task: WindowTask, result: &WindowResult, cross: &CrossCache) -> Result<(), Error> {
        let transcriber = self.transcriber;
        let plan = &self.long_form.plan;
        let prompt = plan.special.prompt(plan.language.as_deref(), self.options.task, false)?;
        let position_secs = 2.0 * plan.frame_secs;
        let align = |text_ids: &[u32]| {
            let n_audio = (task.n_frames / 2).max(1);
            let starts = transcriber.align(cross, &prompt, text_ids, n_audio)?;
            Ok(starts.into_iter().map(|position| position as f64 * position_secs).collect())
        };
        self.long_form.accept(task, result, &align)?;
        if self.long_form.is_done(task.track) {
            self.features.remove(&task.track);
        }
        Ok(())
    }

    /// The first window decides the language of the recording if nobody else does.
    fn settle_language(&mut self, cross: &CrossCache) -> Result<(), Error> {
        if self.long_form.plan.language.is_none()
            && let Some((language, probability)) = self.transcriber.detect_language(cross)?.into_iter().next()
        {
            self.long_form.plan.language = Some(language);
            self.language_probability = Some(probability);
        }
        Ok(())
    }

    fn request(&self, task: WindowTask, cross: &Arc<CrossCache>) -> Result<WindowRequest, Error> {
        let (options, plan) = (self.options, &self.long_form.plan);
        let context = self.long_form.context(task);
        let prompt = plan.special.prompt(plan.language.as_deref(), options.task, self.predicts_timestamps)?;
        let max_positions = self.transcriber.whisper().config.max_target_positions;
        let mut max_new_tokens = options.max_new_tokens.unwrap_or(max_positions / 2);
        if options.timestamps == Timestamps::Word {
            // The alignment reads the text once more, between its own prompt and the end of text.
            let n_around = plan.special.prompt(plan.language.as_deref(), options.task, false)?.len() + 1;
            max_new_tokens = max_new_tokens.min(max_positions.saturating_sub(n_around));
        }
        // By place, not by order: the same window draws the same numbers whatever the batch size.
        let place = ((task.track as u64) << 24) ^ task.seek_frames as u64;
        Ok(WindowRequest {
            cross: cross.clone(),
            start_index: context.len(),
            prompt: [context, prompt].concat(),
            rules: plan.rules.clone(),
            attempts: attempts(options),
            thresholds: Thresholds {
                compression_ratio: options.compression_ratio_threshold,
                logprob: options.logprob_threshold,
                no_speech: options.no_speech_threshold,
            },
            max_new_tokens,
            seed: options.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ place,
        })
    }
}

/// What is tried on a window, one after the other.
fn attempts(options: &DecodeOptions) -> Vec<Attempt> {
    let length_penalty = options.length_penalty;
    let search = match options.beam_size {
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

/// The recording's speech in windows that begin and end at pauses.
fn cut(waveform: &Waveform, speech: &[Span], window_secs: f64) -> Result<Vec<Span>, Error> {
    let frame_samples = (waveform.sample_rate / 50).max(1);
    let energy = energy_profile(waveform, frame_samples as usize);
    let frame_secs = f64::from(frame_samples) / f64::from(waveform.sample_rate);
    let profile = Profile { values: &energy, frame_secs };
    Ok(cut_at_silences(speech, waveform.duration_secs(), window_secs, &profile)?)
}

fn samples_of(waveform: &Waveform, stretch: Span) -> &[f32] {
    let rate = f64::from(waveform.sample_rate);
    let n = waveform.samples.len();
    let place = |secs: f64| ((secs * rate).round() as usize).min(n);
    &waveform.samples[place(stretch.start_secs)..place(stretch.end_secs)]
}
