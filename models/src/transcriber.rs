//! A loaded model: features, encoder, decoder, tokenizer and what its configuration says about decoding.

use std::borrow::Cow;
use std::sync::Arc;

use audio::{FeatureSpec, Features, LogMel, Waveform};
use candle_core::{Device, Tensor};

use crate::decode::{CtcHeard, Rules, Session, TimestampRules, check_finite, detect_language};
use crate::draft::{DraftModel, DraftWindow};
use crate::generation_config::GenerationConfig;
use crate::params::Params;
use crate::special_tokens::SpecialTokens;
use crate::text_model::check_hears;
use crate::tokenizer::Tokenizer;
use crate::transcript::{HeadScores, Transcription, TranscriptionWorker, check_context, token_starts};
use crate::worker::{Update, Worker};
use crate::{
    Architecture, Bundle, CrossCache, DecodeOptions, Description, Error, Precision, Segment, SpeechModel,
    Task, Timestamps, Told, Transcript, padded_cost,
};

/// A model that turns speech into text. Immutable; threads share it, and a clone is another handle to it.
#[derive(Clone)]
pub struct Transcriber {
    model: Arc<SpeechModel>,
    architecture: Arc<Architecture>,
    tokenizer: Arc<Tokenizer>,
    generation: Arc<GenerationConfig>,
    special: Arc<SpecialTokens>,
    features: Arc<LogMel>,
    device: Device,
    max_beams: usize,
    draft: Option<Arc<DraftModel>>,
}

/// A token of text and how sure the decoder was of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TextToken {
    /// Its bytes: a character may be spread over several tokens.
    pub bytes: Vec<u8>,
    /// Log-probability among the tokens that were allowed there.
    pub logprob: f32,
}

/// How far a transcription has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Seconds of audio that are done.
    pub decoded_secs: f64,
    /// Seconds of audio in all.
    pub duration_secs: f64,
}

impl Transcriber {
    /// Loads a bundle's weights onto `device`, to compute in f32.
    ///
    /// # Errors
    /// What `Bundle::open` did not look at: tensor shapes and values, the tokenizer, generation_config.json.
    pub fn load(bundle: Bundle, device: &Device) -> Result<Self, Error> {
        Self::load_in(Precision::F32, bundle, device)
    }

    /// Loads a bundle's weights onto `device`, to compute in `precision`.
    ///
    /// # Errors
    /// What [`Transcriber::load`] refuses, and what [`Precision::check`] does.
    pub fn load_in(precision: Precision, bundle: Bundle, device: &Device) -> Result<Self, Error> {
        precision.check(device)?;
        check_hears(&bundle)?;
        let (description, weights) = bundle.into_parts();
        Self::with_params(&description, &Params::frozen(weights, device).with_precision(precision))
    }

    /// [`Transcriber::load_in`] with a smaller model of the same vocabulary that guesses what this one is going to write: greedy
    /// decoding then takes fewer steps and writes the same.
    ///
    /// # Errors
    /// What [`Transcriber::load_in`] refuses; a draft that speaks other tokens or hears something else.
    pub fn load_with_draft(
        precision: Precision,
        bundle: Bundle,
        draft: Bundle,
        device: &Device,
    ) -> Result<Self, Error> {
        let draft = DraftModel::load(draft, (bundle.description(), bundle.weights()), precision, device)?;
        Ok(Self { draft: Some(Arc::new(draft)), ..Self::load_in(precision, bundle, device)? })
    }

    /// A model of these parameters, such as those that are being trained ([`Params::detached`]).
    ///
    /// # Errors
    /// What [`Transcriber::load`] refuses.
    pub fn with_params(description: &Description, params: &Params) -> Result<Self, Error> {
        // A large vocabulary takes as long to read as a small model.
        let architecture = description.architecture();
        let (vocabulary, model) =
            rayon::join(|| description.vocabulary(), || SpeechModel::load(params, architecture));
        let ((tokenizer, generation, special), model) = (vocabulary?, model?);
        let features = LogMel::new(description.feature_spec())?;
        let device = params.device();
        Ok(Self {
            model: Arc::new(model),
            architecture: Arc::new(architecture.clone()),
            tokenizer: Arc::new(tokenizer),
            generation: Arc::new(generation),
            special: Arc::new(special),
            features: Arc::new(features),
            device: device.clone(),
            max_beams: usize::MAX,
            draft: None,
        })
    }

    /// Language codes that the model can be told or can detect; empty for a model of one language.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.special.source_languages.iter().map(String::as_str)
    }

    /// Text tokens of a segment in order, with their bytes and log-probabilities; timestamps are left out.
    pub fn text_tokens(&self, segment: &Segment) -> Vec<TextToken> {
        let scored = segment.token_ids.iter().zip(&segment.token_logprobs);
        scored
            .filter(|(id, _)| self.special.is_text(**id))
            .map(|(id, logprob)| TextToken { bytes: self.tokenizer.token_bytes(*id), logprob: *logprob })
            .collect()
    }

    /// The model itself.
    pub fn model(&self) -> &SpeechModel {
        &self.model
    }

    /// What it is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The special tokens.
    pub fn special_tokens(&self) -> &Arc<SpecialTokens> {
        &self.special
    }

    /// Seconds of audio that a window holds.
    pub fn window_secs(&self) -> f64 {
        self.architecture.window_frames() as f64 / self.features.spec().frame_rate()
    }

    /// Seconds of audio that become one position of the encoder.
    pub fn position_secs(&self) -> f64 {
        self.architecture.frames_per_position() as f64 / self.features.spec().frame_rate()
    }

    /// Seconds that the encoder works through for a recording: whole windows, silence included, unless the model takes
    /// recordings as long as they are. What it costs.
    pub fn padded_secs(&self, duration_secs: f64) -> f64 {
        if self.is_variable_length() {
            return padded_cost(1, duration_secs, None);
        }
        let n_windows = (duration_secs / self.window_secs()).ceil().max(1.0) as usize;
        padded_cost(n_windows, self.window_secs(), None)
    }

    /// Most tokens that may precede a text: prompt, hotwords and what was said before.
    pub(crate) fn max_context(&self) -> usize {
        (self.architecture.max_target_positions() / 2).saturating_sub(1)
    }

    /// What the model hears.
    pub fn feature_spec(&self) -> &FeatureSpec {
        self.features.spec()
    }

    /// Whether it takes recordings as long as they are, without silence up to a full window.
    pub fn is_variable_length(&self) -> bool {
        self.architecture.is_variable_length()
    }

    /// Features of one window: of `samples`, and of silence up to its length unless the model needs none. (F, T)
    pub fn window_features(&self, samples: &[f32]) -> Features {
        let features = self.features.compute(&self.padded(samples));
        let n_frames = self.architecture.window_frames();
        let n_frames = if self.is_variable_length() { features.n_frames.min(n_frames) } else { n_frames };
        features.slice(0, n_frames, 0.0)
    }

    /// Features of `samples` from which any window can be cut, with the dynamic range of the whole stretch: a window of
    /// silence follows them unless the model needs none.
    pub(crate) fn padded_features(
        &self,
        samples: &[f32],
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Features, Error> {
        Ok(self.features.compute_while(&self.padded(samples), keep_going)?)
    }

    fn padded<'a>(&self, samples: &'a [f32]) -> Cow<'a, [f32]> {
        let hop_samples = self.features.spec().hop_samples;
        let n_padded = match self.is_variable_length() {
            // One frame at least, whatever there is.
            true => samples.len().max(hop_samples),
            false => samples.len() + self.architecture.window_frames() * hop_samples,
        };
        if n_padded == samples.len() {
            return Cow::Borrowed(samples);
        }
        let mut padded = Vec::with_capacity(n_padded);
        padded.extend_from_slice(samples);
        padded.resize(n_padded, 0.0);
        Cow::Owned(padded)
    }

    /// Hidden states (T, D) of one window's features.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn encode(&self, features: Features) -> Result<Tensor, Error> {
        self.encode_while(features, &|| true)
    }

    /// [`Transcriber::encode`] that asks `keep_going` before every layer.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `keep_going` says no; when a tensor operation fails.
    pub fn encode_while(&self, features: Features, keep_going: &dyn Fn() -> bool) -> Result<Tensor, Error> {
        self.model.encoder.hear(features, &self.device, keep_going)
    }

    /// What decoder rows listen to: cross-attention keys and values of a window's hidden states (T, D).
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn listen(&self, encoded: &Tensor) -> Result<Arc<CrossCache>, Error> {
        Ok(Arc::new(self.model.decoder()?.cross_cache(encoded)?))
    }

    /// What a draft hears in the features of a window whose hidden states are `encoded` (T, D); `None` without a draft.
    pub fn listen_by_draft(&self, features: Features, encoded: &Tensor) -> Option<Arc<DraftWindow>> {
        self.draft.as_ref().map(|draft| draft.listen(features, encoded))
    }

    /// Whether a draft guesses, and if so whether it hears with an encoder of its own.
    pub fn draft_has_own_encoder(&self) -> Option<bool> {
        self.draft.as_ref().map(|draft| draft.has_own_encoder())
    }

    /// What the model's CTC head says of a window's hidden states (T, D); `None` for a model that has none.
    ///
    /// # Errors
    /// When a tensor operation fails or gives numbers that are not finite.
    pub fn ctc(&self, encoded: &Tensor) -> Result<Option<CtcHeard>, Error> {
        self.model.ctc_head().map(|head| head.hear(encoded)).transpose()
    }

    /// Hypotheses that beam search keeps by these options: those that are asked for, else those that the checkpoint asks for.
    pub fn beam_size(&self, options: &DecodeOptions) -> usize {
        options.beam_size.unwrap_or_else(|| self.generation.beam_size().min(self.max_beams))
    }

    /// One of which the checkpoint cannot ask for more hypotheses than `max_beams`; callers can.
    #[must_use]
    pub fn with_max_beams(self, max_beams: usize) -> Self {
        Self { max_beams: max_beams.max(1), ..self }
    }

    /// An empty batch of windows.
    ///
    /// # Errors
    /// A model without a decoder.
    pub fn session(&self) -> Result<Session, Error> {
        let session =
            Session::new(self.model.decoder()?.clone(), self.tokenizer.clone(), self.special.clone());
        Ok(match &self.draft {
            Some(draft) => session.with_draft(draft.decoder().clone()),
            None => session,
        })
    }

    /// What may be written, with or without timestamps.
    pub fn rules(&self, timestamps: bool) -> Rules {
        let timestamp_rules = |no_timestamps: u32| TimestampRules {
            begin: no_timestamps + 1,
            eot: self.special.end,
            no_timestamps,
            max_initial: self.generation.max_initial_timestamp_index,
        };
        let mut suppress = self.generation.suppress_tokens.clone().unwrap_or_default();
        if let Some(times) = self.special.word_times().filter(|_| timestamps) {
            suppress.retain(|id| times.secs(*id).is_none());
        }
        Rules {
            suppress,
            begin_suppress: self.generation.begin_suppress_tokens.clone().unwrap_or_default(),
            timestamps: self.special.no_timestamps.filter(|_| timestamps).map(timestamp_rules),
        }
    }

    /// Probabilities of the languages of one window, the most probable first; empty for a model of one language.
    /// `candidates` are the codes that it may be; none given means any.
    ///
    /// # Errors
    /// When a tensor operation fails or gives numbers that are not finite.
    pub fn detect_language(
        &self,
        cross: &CrossCache,
        candidates: &[String],
    ) -> Result<Vec<(String, f32)>, Error> {
        let spoken =
            self.languages().filter(|code| candidates.is_empty() || candidates.iter().any(|c| c == code));
        let languages: Vec<_> =
            spoken.filter_map(|code| Some((code.to_owned(), self.special.language_token(code)?))).collect();
        if languages.is_empty() || !self.special.detects_languages() {
            return Ok(Vec::new());
        }
        detect_language(self.model.decoder()?, self.special.start, cross, &languages)
    }

    /// Transcribes a recording of any length.
    ///
    /// # Errors
    /// Options that make no sense or that this model cannot follow; audio that cannot be resampled.
    pub fn transcribe(
        &self,
        waveform: Waveform,
        options: &DecodeOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Transcript, Error> {
        let transcription = Transcription::prepare(self, waveform, options, &|| true)?;
        // The request's own batch size is the only limit.
        let mut worker = TranscriptionWorker::new(self, usize::MAX);
        worker.join(0, transcription);
        let mut outcome = None;
        while outcome.is_none() {
            worker.step(&|_| true, &mut |_, update| match update {
                Update::Progress(at) => progress(at),
                Update::Part(_) => {}
                Update::Done(done) => outcome = Some(Ok(done.transcript)),
                Update::Failed(error) => outcome = Some(Err(error)),
            })?;
        }
        outcome.unwrap_or(Err(Error::Cancelled))
    }

    /// Whether the decoder is asked for times. Models that write none still know when a window was, and those that read by CTC when a
    /// word was: better than a decoder that writes its words' times (Canary v2 does so: arXiv 2509.14128).
    pub(crate) fn asks_for_times(&self, options: &DecodeOptions) -> bool {
        let writes_words = self.special.word_times().is_some() && !self.hears_by_ctc(options);
        options.timestamps > Timestamps::None && (self.special.writes_times() || writes_words)
    }

    /// Whether CTC says when each word was said: of a transcript, for nobody says a translation.
    pub(crate) fn hears_by_ctc(&self, options: &DecodeOptions) -> bool {
        self.model.ctc_head().is_some() && options.task == Task::Transcribe
    }

    /// Refuses options that this model cannot follow, before any audio is looked at.
    ///
    /// # Errors
    /// The option and what is allowed instead.
    pub fn check(&self, options: &DecodeOptions) -> Result<(), Error> {
        options.check()?;
        if self.special.is_multilingual {
            for code in &options.languages {
                let named = |error| match error {
                    Error::Option { message, .. } => Error::option("languages", message),
                    error => error,
                };
                self.special.language(code).map_err(named)?;
            }
            let detected = self.languages().next().filter(|_| self.special.detects_languages());
            let language = options.language.as_deref().or(detected);
            self.special.prompt(Told::by(options, language, self.asks_for_times(options)))?;
        } else {
            if let Some(only) = &self.special.only_language {
                let is_other = |code: &&str| *code != only.as_str();
                if let Some(language) = options.language.as_deref().filter(is_other) {
                    let message = format!("`{language}` is not possible: this model knows `{only}` only");
                    return Err(Error::option("language", message));
                }
                if !options.languages.is_empty() && !options.languages.contains(only) {
                    let message =
                        format!("{:?} is not possible: this model knows `{only}` only", options.languages);
                    return Err(Error::option("languages", message));
                }
            }
            self.special.prompt(Told::by(options, None, self.asks_for_times(options)))?;
        }
        check_context(options, &self.tokenizer, &self.special, self.max_context())?;
        let limit = self.architecture.max_target_positions();
        if self.model.decoder().is_ok() && options.max_new_tokens.is_some_and(|n| n >= limit) {
            return Err(Error::option(
                "max_new_tokens",
                format!("must be below this model's {limit} positions"),
            ));
        }
        Ok(())
    }

    /// Encoder position at which each of `text_ids` begins, and at which the last one ends, by the cross-attention
    /// heads that follow the speech (openai/whisper `timing.py: find_alignment`). `prompt` is that of a window
    /// without timestamps; `n_audio` positions of the window hold audio.
    ///
    /// # Errors
    /// When a tensor operation fails or gives numbers that are not finite.
    pub fn align(
        &self,
        cross: &CrossCache,
        prompt: &[u32],
        text_ids: &[u32],
        n_audio: usize,
    ) -> Result<Vec<usize>, Error> {
        let decoder = self.model.decoder()?;
        let (n_blocks, n_heads) = decoder.n_blocks_and_heads();
        // A checkpoint that names no heads: those of the last half of the blocks know most about time.
        let last_half = || {
            (n_blocks / 2..n_blocks).flat_map(|block| (0..n_heads).map(move |head| (block, head))).collect()
        };
        let heads = self.generation.alignment_heads.clone().filter(|heads| !heads.is_empty());
        let tokens = [prompt, text_ids, &[self.special.end]].concat();
        let scores = decoder.cross_scores(&tokens, cross, &heads.unwrap_or_else(last_half))?;
        scores.iter().try_for_each(|scores| check_finite("attention scores", scores))?;
        let heads: Vec<_> = scores
            .iter()
            .map(|scores| HeadScores { scores, n_frames: scores.len() / tokens.len() })
            .collect();
        // The row of a token shows where the next one is heard, so the rows begin one before the text.
        let first = prompt.len().saturating_sub(1);
        Ok(token_starts(
            &heads,
            first..first + 1 + text_ids.len(),
            n_audio,
            self.architecture.median_filter_width(),
        ))
    }
}
