//! From a waveform to a transcript: features, encoder, decoding session and long form put together.

use std::sync::Arc;

use audio::window::{Profile, cut_at_silences, energy_profile};
use audio::{Features, LogMel, Span, Vad, VadOptions, Waveform};
use candle_core::{Device, Tensor};

use crate::decode::{
    Attempt, LADDER, Rules, Session, Strategy, Thresholds, TimestampRules, WindowRequest, WindowResult,
    detect_language,
};
use crate::params::Params;
use crate::tokenizer::Tokenizer;
use crate::transcript::{HeadScores, LongForm, Plan, WindowTask, token_starts};
use crate::whisper::{CrossCache, GenerationConfig, SpecialTokens, Whisper};
use crate::{Architecture, Bundle, DecodeOptions, Error, Timestamps, Transcript};

/// A model that turns speech into text. Immutable; threads share it.
pub struct Transcriber {
    whisper: Whisper,
    tokenizer: Tokenizer,
    generation: GenerationConfig,
    special: SpecialTokens,
    features: LogMel,
    device: Device,
}

/// How far a transcription has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Seconds of audio that are done.
    pub decoded_secs: f64,
    /// Seconds of audio in all.
    pub duration_secs: f64,
}

/// A stretch of the recording that is decoded on its own.
struct Stretch {
    start_secs: f64,
    end_secs: f64,
}

impl Transcriber {
    /// Loads a bundle's weights onto `device`.
    ///
    /// # Errors
    /// What `Bundle::open` did not look at: tensor shapes and values, the tokenizer, generation_config.json.
    pub fn load(bundle: Bundle, device: &Device) -> Result<Self, Error> {
        let Architecture::Whisper(config) = bundle.architecture().clone();
        let (tokenizer, generation, special) = bundle.vocabulary()?;
        let features = LogMel::new(bundle.feature_spec())?;
        let params = Params::frozen(bundle.into_weights(), device);
        let whisper = Whisper::load(&params, config)?;
        Ok(Self { whisper, tokenizer, generation, special, features, device: device.clone() })
    }

    /// Language codes that the model can be told or can detect; empty for a model of one language.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.special.languages.iter().map(|(code, _)| code.as_str())
    }

    /// The model itself.
    pub fn whisper(&self) -> &Whisper {
        &self.whisper
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The special tokens.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// Seconds of audio that a window holds.
    pub fn window_secs(&self) -> f64 {
        self.whisper.config.max_source_frames() as f64 * self.frame_secs()
    }

    fn frame_secs(&self) -> f64 {
        self.features.spec().frame_rate().recip()
    }

    /// Features of one window: `samples` and silence up to its length. (F, T)
    pub fn window_features(&self, samples: &[f32]) -> Features {
        let n_frames = self.whisper.config.max_source_frames();
        self.padded_features(samples).slice(0, n_frames, 0.0)
    }

    /// Features of `samples` followed by a window of silence, so that any window can be cut out of them and the
    /// dynamic range is that of the whole stretch.
    fn padded_features(&self, samples: &[f32]) -> Features {
        let n_window = self.whisper.config.max_source_frames() * self.features.spec().hop_samples;
        let mut padded = Vec::with_capacity(samples.len() + n_window);
        padded.extend_from_slice(samples);
        padded.resize(samples.len() + n_window, 0.0);
        self.features.compute(&padded)
    }

    /// Hidden states (T, D) of one window's features.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn encode(&self, features: Features) -> Result<Tensor, Error> {
        let shape = (1, features.n_mels, features.n_frames);
        let mel = Tensor::from_vec(features.data, shape, &self.device)?; // (1, F, T)
        Ok(self.whisper.encoder.forward(&mel, &|| true)?.squeeze(0)?)
    }

    /// What decoder rows listen to: cross-attention keys and values of a window's hidden states (T, D).
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn listen(&self, encoded: &Tensor) -> Result<Arc<CrossCache>, Error> {
        Ok(Arc::new(self.whisper.decoder.cross_cache(encoded)?))
    }

    /// An empty batch of windows.
    pub fn session(&self) -> Session<'_> {
        Session::new(&self.whisper, &self.tokenizer, self.special.no_speech)
    }

    /// What may be written, with or without timestamps.
    pub fn rules(&self, timestamps: bool) -> Rules {
        let timestamp_rules = |no_timestamps: u32| TimestampRules {
            begin: no_timestamps + 1,
            eot: self.special.end,
            no_timestamps,
            max_initial: self.generation.max_initial_timestamp_index,
        };
        Rules {
            suppress: self.generation.suppress_tokens.clone().unwrap_or_default(),
            begin_suppress: self.generation.begin_suppress_tokens.clone().unwrap_or_default(),
            timestamps: self.special.no_timestamps.filter(|_| timestamps).map(timestamp_rules),
        }
    }

    /// Probabilities of the languages of one window, the most probable first; empty for a model of one language.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn detect_language(&self, cross: &CrossCache) -> Result<Vec<(String, f32)>, Error> {
        if self.special.languages.is_empty() {
            return Ok(Vec::new());
        }
        Ok(detect_language(&self.whisper, cross, &self.special.languages)?)
    }

    /// Transcribes a recording of any length.
    ///
    /// # Errors
    /// Options that make no sense or that this model cannot follow; audio that cannot be resampled.
    pub fn transcribe(
        &self,
        waveform: &Waveform,
        options: &DecodeOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Transcript, Error> {
        self.check(options)?;
        let resampled;
        let waveform = if waveform.sample_rate == self.features.spec().sample_rate {
            waveform
        } else {
            resampled = audio::resample(waveform, self.features.spec().sample_rate)?;
            &resampled
        };
        let duration_secs = waveform.duration_secs();
        let speech = Vad::new().speech_spans(waveform, &VadOptions::default())?;
        let stretches = self.stretches(waveform, &speech, options)?;
        // Seeking needs timestamps, also when nobody wants to see them.
        let seeks =
            stretches.iter().any(|stretch| stretch.end_secs - stretch.start_secs > self.window_secs());
        let timestamps = options.timestamps > Timestamps::None || seeks;
        let mut long_form = LongForm::new(self.plan(options, timestamps), speech)?;
        for stretch in &stretches {
            let samples = samples_of(waveform, stretch);
            // A last frame that is not full holds nothing, unless it is all there is.
            let n_frames = (samples.len() / self.features.spec().hop_samples).max(1);
            long_form.add_track(stretch.start_secs, self.padded_features(samples), n_frames);
        }
        let mut run = Run { transcriber: self, options, long_form, timestamps, language_probability: None };
        run.decode(&mut |decoded_secs| progress(Progress { decoded_secs, duration_secs }))?;
        Ok(run.long_form.finish(duration_secs, run.language_probability))
    }

    /// Refuses options that this model cannot follow, before any audio is looked at.
    ///
    /// # Errors
    /// The option and what is allowed instead.
    pub fn check(&self, options: &DecodeOptions) -> Result<(), Error> {
        options.check()?;
        if self.special.is_multilingual {
            let language = options.language.as_deref().or_else(|| self.languages().next());
            self.special.prompt(language, options.task, options.timestamps > Timestamps::None)?;
        } else {
            if let Some(language) = options.language.as_deref().filter(|language| *language != "en") {
                let message = format!("`{language}` is not possible: this model knows English only");
                return Err(Error::option("language", message));
            }
            self.special.prompt(None, options.task, options.timestamps > Timestamps::None)?;
        }
        let limit = self.whisper.config.max_target_positions;
        if options.max_new_tokens.is_some_and(|n| n >= limit) {
            return Err(Error::option(
                "max_new_tokens",
                format!("must be below this model's {limit} positions"),
            ));
        }
        Ok(())
    }

    fn plan<'a>(&'a self, options: &'a DecodeOptions, timestamps: bool) -> Plan<'a> {
        let language =
            if self.special.is_multilingual { options.language.clone() } else { Some("en".to_owned()) };
        Plan {
            options,
            tokenizer: &self.tokenizer,
            special: &self.special,
            rules: Arc::new(self.rules(timestamps)),
            window_frames: self.whisper.config.max_source_frames(),
            frame_secs: self.frame_secs(),
            max_context: (self.whisper.config.max_target_positions / 2).saturating_sub(1),
            language,
        }
    }

    fn stretches(
        &self,
        waveform: &Waveform,
        speech: &[Span],
        options: &DecodeOptions,
    ) -> Result<Vec<Stretch>, Error> {
        let duration_secs = waveform.duration_secs();
        let is_long = duration_secs > self.window_secs();
        if !options.vad.unwrap_or(is_long) {
            let whole = Stretch { start_secs: 0.0, end_secs: duration_secs };
            return Ok(if duration_secs > 0.0 { vec![whole] } else { Vec::new() });
        }
        let frame_samples = (waveform.sample_rate / 50).max(1);
        let energy = energy_profile(waveform, frame_samples as usize);
        let profile = Profile {
            values: &energy,
            frame_secs: f64::from(frame_samples) / f64::from(waveform.sample_rate),
        };
        let windows = cut_at_silences(speech, duration_secs, self.window_secs(), &profile)?;
        let stretch = |window: &Span| Stretch { start_secs: window.start_secs, end_secs: window.end_secs };
        Ok(windows.iter().map(stretch).collect())
    }

    /// Encoder position at which each of `text_ids` begins, and at which the last one ends, by the cross-attention
    /// heads that follow the speech (openai/whisper `timing.py: find_alignment`). `prompt` is that of a window
    /// without timestamps; `n_audio` positions of the window hold audio.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn align(
        &self,
        cross: &CrossCache,
        prompt: &[u32],
        text_ids: &[u32],
        n_audio: usize,
    ) -> Result<Vec<usize>, Error> {
        let config = &self.whisper.config;
        // A checkpoint that names no heads: those of the last half of the blocks know most about time.
        let last_half = || {
            (config.decoder_layers / 2..config.decoder_layers)
                .flat_map(|block| (0..config.decoder_attention_heads).map(move |head| (block, head)))
                .collect()
        };
        let heads = self.generation.alignment_heads.clone().filter(|heads| !heads.is_empty());
        let tokens = [prompt, text_ids, &[self.special.end]].concat();
        let scores = self.whisper.decoder.cross_scores(&tokens, cross, &heads.unwrap_or_else(last_half))?;
        let heads: Vec<_> = scores
            .iter()
            .map(|scores| HeadScores { scores, n_frames: scores.len() / tokens.len() })
            .collect();
        // The row of a token shows where the next one is heard, so the rows begin one before the text.
        let first = prompt.len().saturating_sub(1);
        Ok(token_starts(&heads, first..first + 1 + text_ids.len(), n_audio, config.median_filter_width))
    }
}

/// One transcription while it runs.
struct Run<'a> {
    transcriber: &'a Transcriber,
    options: &'a DecodeOptions,
    long_form: LongForm<'a>,
    timestamps: bool,
    language_probability: Option<f32>,
}

/// A window in the batch.
struct InFlight {
    id: u64,
    task: WindowTask,
    cross: Arc<CrossCache>,
}

impl Run<'_> {
    fn decode(&mut self, progress: &mut dyn FnMut(f64)) -> Result<(), Error> {
        let mut session = self.transcriber.session();
        let mut in_flight: Vec<InFlight> = Vec::new();
        let mut next_id = 0;
        loop {
            while session.len() < self.options.batch_size {
                let Some(task) = self.long_form.next_window() else { break };
                let encoded = self.transcriber.encode(self.long_form.features(task))?;
                let cross = self.transcriber.listen(&encoded)?;
                self.settle_language(&cross)?;
                session.join(next_id, self.request(task, &cross)?)?;
                in_flight.push(InFlight { id: next_id, task, cross });
                next_id += 1;
            }
            if session.is_empty() {
                return Ok(());
            }
            for (id, result) in session.step()? {
                let Some(place) = in_flight.iter().position(|window| window.id == id) else { continue };
                let InFlight { task, cross, .. } = in_flight.swap_remove(place);
                self.accept(task, &result, &cross)?;
                progress(self.long_form.decoded_secs());
            }
        }
    }

    fn accept(&mut self, task: WindowTask, result: &WindowResult, cross: &CrossCache) -> Result<(), Error> {
        let transcriber = self.transcriber;
        let prompt =
            transcriber.special.prompt(self.long_form.plan.language.as_deref(), self.options.task, false)?;
        let position_secs = 2.0 * transcriber.frame_secs();
        let align = |text_ids: &[u32]| {
            let n_audio = (task.n_frames / 2).max(1);
            let starts = transcriber.align(cross, &prompt, text_ids, n_audio)?;
            Ok(starts.into_iter().map(|position| position as f64 * position_secs).collect())
        };
        self.long_form.accept(task, result, &align)
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
        let prompt = plan.special.prompt(plan.language.as_deref(), options.task, self.timestamps)?;
        let half = self.transcriber.whisper.config.max_target_positions / 2;
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
            max_new_tokens: options.max_new_tokens.unwrap_or(half),
            // By place, not by order: the same window draws the same numbers whatever the batch size.
            seed: options.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
                ^ (task.track as u64) << 24
                ^ task.seek_frames as u64,
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

fn samples_of<'a>(waveform: &'a Waveform, stretch: &Stretch) -> &'a [f32] {
    let rate = f64::from(waveform.sample_rate);
    let n = waveform.samples.len();
    let place = |secs: f64| ((secs * rate).round() as usize).min(n);
    &waveform.samples[place(stretch.start_secs)..place(stretch.end_secs)]
}
