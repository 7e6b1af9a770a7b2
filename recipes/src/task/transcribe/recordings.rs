//! From utterances to waveforms and rows of a batch: read, join, augment, compute features, write tokens.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use audio::augment::{Augmenter, NoiseColor, change_gain, colored_noise, cut_rng};
use audio::{DecodeAudio, Waveform};
use models::{TIMESTAMP_SECS, Task, Tokenizer, Told, Transcriber};
use rand_chacha::ChaCha8Rng;

use super::batch::{Row, Tokens};
use crate::Error;
use crate::config::TargetConfig;
use crate::data::shuffle::{below, between, uniform};
use crate::data::{Cut, JoinConfig, LengthLimits, Phonemes, TokenRoom, Utterance, read_cut_at};
use crate::task::encode;
use crate::task::kept::Kept;
use crate::text::unpunctuated;

/// Levels of noise in silence, decibels below full scale.
const SILENCE_DB: [f64; 2] = [-75.0, -30.0];

/// Cuts and what is needed to hear them.
pub struct Recordings {
    /// In the order of their manifests.
    pub cuts: Vec<Cut>,
    /// Language of cuts that state none; `None` for a model of one language.
    pub language: Option<String>,
    transcriber: Transcriber,
    /// What an encoder's states are held against in the place of tokens.
    phonemes: Option<Phonemes>,
    /// Tokens of each cut's text, counted when they are first asked for.
    n_text_tokens: Vec<OnceLock<u32>>,
    /// Waveforms at the model's rate.
    cache: Kept<usize, Arc<Waveform>>,
}

/// How a row is drawn.
pub(super) struct Draw<'a> {
    pub augmenter: Option<&'a Augmenter>,
    pub target: &'a TargetConfig,
    pub seed: u64,
    pub epoch: u64,
}

impl Recordings {
    /// Cuts for a model. `cache_bytes` of decoded audio are kept in memory.
    pub fn new(
        cuts: Vec<Cut>,
        language: Option<String>,
        transcriber: Transcriber,
        cache_bytes: usize,
    ) -> Self {
        let n_text_tokens = vec![OnceLock::new(); cuts.len()];
        Self { cuts, language, transcriber, phonemes: None, n_text_tokens, cache: Kept::new(cache_bytes) }
    }

    /// The same, whose encoder is held against phonemes, if any are given.
    #[must_use]
    pub fn with_phonemes(self, phonemes: Option<Phonemes>) -> Self {
        Self { phonemes, ..self }
    }

    /// The sample rate at which the model hears.
    pub(super) fn sample_rate(&self) -> u32 {
        self.transcriber.feature_spec().sample_rate
    }

    /// A cut at the model's sample rate.
    fn waveform(&self, index: usize) -> Result<Arc<Waveform>, Error> {
        if let Some(waveform) = self.cache.get(&index) {
            return Ok(waveform);
        }
        let cut = &self.cuts[index];
        let waveform = Arc::new(read_cut_at(cut, self.sample_rate(), &DecodeAudio::default())?);
        self.cache.keep(index, waveform.clone(), size_of_val(waveform.samples.as_slice()));
        Ok(waveform)
    }

    /// An utterance as it was recorded, its cuts joined. `rng` draws the noise in silence.
    pub(super) fn hear(&self, utterance: &Utterance, rng: &mut ChaCha8Rng) -> Result<Waveform, Error> {
        let sample_rate = self.transcriber.feature_spec().sample_rate;
        let n_samples = |secs: f64| (secs * f64::from(sample_rate)).round() as usize;
        if utterance.parts.is_empty() {
            return silence(n_samples(utterance.rest_secs), sample_rate, rng);
        }
        if let [(index, 0.0)] = utterance.parts.as_slice()
            && utterance.rest_secs == 0.0
        {
            return Ok(self.waveform(*index)?.as_ref().clone());
        }
        let mut samples = Vec::new();
        for (index, pause_secs) in &utterance.parts {
            samples.resize(samples.len() + n_samples(*pause_secs), 0.0);
            samples.extend_from_slice(&self.waveform(*index)?.samples);
        }
        samples.resize(samples.len() + n_samples(utterance.rest_secs), 0.0);
        Ok(Waveform { samples, sample_rate })
    }

    /// A row of a batch. What it is depends on its arguments alone.
    pub(super) fn row(&self, utterance: &Utterance, draw: &Draw<'_>) -> Result<Row, Error> {
        let mut rng = cut_rng(draw.seed, draw.epoch, &utterance.id);
        // The augmenter draws its numbers first, so that the sampler knows the speed that it will draw.
        let mut own = cut_rng(draw.seed.wrapping_add(1), draw.epoch, &utterance.id);
        let waveform = self.hear(utterance, &mut own)?;
        let recorded_secs = waveform.duration_secs();
        let waveform = match draw.augmenter {
            Some(augmenter) => augmenter.apply(waveform, &mut rng)?,
            None => waveform,
        };
        let duration_secs = waveform.duration_secs();
        let hop_samples = self.transcriber.feature_spec().hop_samples;
        let mut features = self.transcriber.window_features(&waveform.samples);
        if let Some(augmenter) = draw.augmenter {
            let n_frames = (waveform.samples.len() / hop_samples).min(features.n_frames);
            features = augmenter.apply_to_features(features, n_frames, &mut rng);
        }
        let tempo = if recorded_secs > 0.0 { duration_secs / recorded_secs } else { 1.0 };
        let tokens = self.tokens(utterance, draw, tempo, duration_secs, &mut own)?;
        let heard_secs = features.n_frames as f64 / self.transcriber.feature_spec().frame_rate();
        let is_single = matches!(utterance.parts.as_slice(), [(_, 0.0)]) && utterance.rest_secs == 0.0;
        let is_repeated = is_single && draw.augmenter.is_none_or(|augmenter| augmenter.settings().is_off());
        Ok(Row { features, tokens, duration_secs, heard_secs, is_repeated })
    }

    fn tokens(
        &self,
        utterance: &Utterance,
        draw: &Draw<'_>,
        tempo: f64,
        duration_secs: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Tokens, Error> {
        let Draw { target, seed, epoch, .. } = draw;
        let special = self.transcriber.special_tokens();
        // By numbers of its own, so that nobody else draws others.
        let mut style = cut_rng(seed.wrapping_add(2), *epoch, &utterance.id);
        let is_unpunctuated = uniform(&mut style) < target.unpunctuated;
        let text = self.text_ids(utterance)?;
        let small = match is_unpunctuated {
            true => {
                let small = unpunctuated(&self.text(utterance));
                Some(encode(self.transcriber.tokenizer(), &small, self.written_in(utterance))?)
            }
            false => None,
        };
        let written = small.as_ref().unwrap_or(&text);
        // Both are drawn always, so that neither setting changes what the other draws.
        let (timed, preceded) = (uniform(rng) < target.timestamps, uniform(rng) < target.previous);
        let begin = special.timestamp_begin().filter(|_| timed);
        let told = self.told(utterance);
        let punctuation = is_unpunctuated.then_some(false);
        let prompt = special.prompt(Told { timestamps: begin.is_some(), punctuation, ..told })?;
        let times = begin.map(|begin| {
            let (start, end) = utterance.speech_secs(&self.cuts).unwrap_or((0.0, 0.0));
            let last = (duration_secs / TIMESTAMP_SECS).floor() as u32;
            let step = |secs: f64| ((secs * tempo / TIMESTAMP_SECS).round() as u32).min(last);
            (begin + step(start), begin + step(end).max(step(start)))
        });
        let context = match special.previous.filter(|_| preceded && !self.cuts.is_empty()) {
            Some(previous) => {
                let other = &self.cuts[below(self.cuts.len() as u64, rng) as usize];
                let said = cut_ids(self.transcriber.tokenizer(), other, self.language.as_deref())?;
                // As decoding has it: half of the positions at most, and never at the cost of the text. Times and end count too.
                let positions = self.transcriber.architecture().max_target_positions();
                let room = positions.saturating_sub(prompt.len() + written.len() + 3).min(positions / 2);
                match room.saturating_sub(1).min(said.len()) {
                    0 => Vec::new(),
                    n => [&[previous], &said[said.len() - n..]].concat(),
                }
            }
            None => Vec::new(),
        };
        let context = if context.is_empty() { special.opening().into_iter().collect() } else { context };
        let is_transcript = told.task == Task::Transcribe;
        // What is asked for nothing, CTC and an encoder of texts, learns the text as it stands.
        Ok(Tokens {
            is_transcript,
            text: self.read_ids(utterance, &text)?,
            ..Tokens::new(special, &context, &prompt, written, times)
        })
    }

    /// Tokens of what an utterance should become.
    fn text_ids(&self, utterance: &Utterance) -> Result<Vec<u32>, Error> {
        encode(self.transcriber.tokenizer(), &self.text(utterance), self.written_in(utterance))
    }

    /// What an encoder should read in an utterance whose text has these tokens.
    fn read_ids(&self, utterance: &Utterance, text: &[u32]) -> Result<Vec<u32>, Error> {
        let Some(phonemes) = &self.phonemes else { return Ok(text.to_vec()) };
        let ids = utterance.parts.iter().map(|(index, _)| phonemes.ids(&self.cuts[*index]));
        Ok(ids.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// What an encoder reads, as a text.
    pub(super) fn spell(&self, ids: &[u32]) -> Result<String, models::Error> {
        match &self.phonemes {
            Some(phonemes) => Ok(phonemes.spell(ids)),
            None => self.transcriber.tokenizer().decode(ids),
        }
    }

    /// What an encoder should read in an utterance, as a text.
    pub(super) fn read_text(&self, utterance: &Utterance) -> Result<String, Error> {
        match &self.phonemes {
            Some(phonemes) => Ok(phonemes.spell(&self.read_ids(utterance, &[])?)),
            None => Ok(self.text(utterance)),
        }
    }

    /// Phonemes of a cut, where they are what is read.
    pub(super) fn phonemes_of(&self, cut: &Cut) -> Result<Option<Vec<u32>>, Error> {
        self.phonemes.as_ref().map(|phonemes| phonemes.ids(cut)).transpose()
    }

    /// Whether that is phonemes.
    pub(super) fn reads_phonemes(&self) -> bool {
        self.phonemes.is_some()
    }

    /// What an utterance should become.
    pub(super) fn text(&self, utterance: &Utterance) -> String {
        let is_unspaced = self.written_in(utterance).is_some_and(Tokenizer::is_unspaced);
        let separator = if is_unspaced { "" } else { " " };
        utterance.text(&self.cuts, separator)
    }

    /// The language of an utterance, whether the model can be told it or not.
    fn spoken_in<'a>(&'a self, utterance: &Utterance) -> Option<&'a str> {
        utterance.language(&self.cuts).or(self.language.as_deref())
    }

    /// The language of the text of an utterance.
    fn written_in<'a>(&'a self, utterance: &Utterance) -> Option<&'a str> {
        utterance.target_language(&self.cuts).or_else(|| self.spoken_in(utterance))
    }

    /// What a decoder is told of an utterance.
    pub(super) fn told<'a>(&'a self, utterance: &Utterance) -> Told<'a> {
        self.told_of(utterance.asked_like(&self.cuts))
    }

    /// What a decoder is told of utterances that are asked for like a cut.
    fn told_of<'a>(&'a self, cut: Option<&'a Cut>) -> Told<'a> {
        let spoken = cut.map_or(self.language.as_deref(), |cut| language_or(cut, self.language.as_deref()));
        let to_language = cut.and_then(|cut| cut.target_language.as_deref());
        let task = if to_language.is_some() { Task::Translate } else { Task::Transcribe };
        let language = spoken.filter(|_| self.transcriber.special_tokens().is_multilingual);
        Told { language, task, to_language, ..Told::default() }
    }

    /// What a prompt calls the language of an utterance; `None` where it names none.
    pub(super) fn language_of<'a>(&'a self, utterance: &Utterance) -> Option<&'a str> {
        self.spoken_in(utterance).filter(|_| self.transcriber.special_tokens().is_multilingual)
    }

    /// Tokens that the decoder will be asked for: text, prompt and end. Each cut's are counted once: what joined texts become
    /// together differs from that at most where a language has no spaces.
    pub(super) fn n_tokens(&self, utterance: &Utterance) -> Result<u32, Error> {
        let mut n_tokens = self.n_around(self.told(utterance))?;
        for (index, _) in &utterance.parts {
            n_tokens += self.n_text_tokens(*index)?;
        }
        Ok(n_tokens)
    }

    /// Tokens of prompt and end.
    fn n_around(&self, told: Told<'_>) -> Result<u32, Error> {
        let special = self.transcriber.special_tokens();
        let (prompt, _) = special.prompt_after(&[], told)?;
        Ok(prompt.len() as u32 + 1)
    }

    fn n_text_tokens(&self, index: usize) -> Result<u32, Error> {
        if let Some(n) = self.n_text_tokens[index].get() {
            return Ok(*n);
        }
        let cut = &self.cuts[index];
        let n_tokens = cut_ids(self.transcriber.tokenizer(), cut, self.language.as_deref())?.len();
        // A position is for one of what is read, which may be more.
        let n_read = self.phonemes_of(cut)?.map_or(0, |ids| ids.len());
        let n = n_tokens.max(n_read) as u32;
        Ok(*self.n_text_tokens[index].get_or_init(|| n))
    }

    /// What is heard in an epoch: the cuts of `indices`, joined as `join` says and as far as there are tokens in `limits`.
    pub(super) fn utterances(
        &self,
        join: &JoinConfig,
        indices: Vec<usize>,
        limits: &LengthLimits,
        seed: u64,
        epoch: u64,
    ) -> Result<Vec<Utterance>, Error> {
        let (Some(max_tokens), true) = (limits.max_tokens, join.max_cuts > 1) else {
            return Ok(join.utterances(&self.cuts, indices, None, seed, epoch));
        };
        let n_tokens =
            (0..self.cuts.len()).map(|index| self.n_text_tokens(index)).collect::<Result<Vec<_>, _>>()?;
        // By the longest prompt of all languages that there are.
        let n_around = self.prompts().into_iter().map(|told| self.n_around(told));
        let n_around = n_around.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
        let room = TokenRoom { n_tokens: &n_tokens, max: max_tokens.saturating_sub(n_around) };
        Ok(join.utterances(&self.cuts, indices, Some(room), seed, epoch))
    }

    /// All that a decoder is told of some cut.
    fn prompts(&self) -> BTreeSet<Told<'_>> {
        self.cuts.iter().map(|cut| self.told_of(Some(cut))).collect()
    }

    /// Refuses what the model cannot be asked for, before hours are spent.
    ///
    /// # Errors
    /// Languages, translations, texts without punctuation and phonemes that the model has nothing for.
    pub fn check(&self, target: &TargetConfig) -> Result<(), Error> {
        for told in self.prompts() {
            let punctuation = (target.unpunctuated > 0.0).then_some(false);
            self.transcriber.special_tokens().prompt(Told { punctuation, ..told })?;
        }
        if let Some(phonemes) = &self.phonemes {
            self.cuts.iter().try_for_each(|cut| phonemes.ids(cut).map(drop))?;
        }
        Ok(())
    }

    /// Whether recordings are heard as long as they are.
    pub(super) fn is_variable_length(&self) -> bool {
        self.transcriber.is_variable_length()
    }

    /// The longest recording that is heard at once.
    pub(super) fn window_secs(&self) -> f64 {
        self.transcriber.window_secs()
    }
}

/// A cut's language, or that of cuts that state none.
fn language_or<'a>(cut: &'a Cut, language: Option<&'a str>) -> Option<&'a str> {
    cut.language.as_deref().or(language)
}

/// Tokens of a cut's text; `language` is that of cuts that state none.
pub(super) fn cut_ids(tokenizer: &Tokenizer, cut: &Cut, language: Option<&str>) -> Result<Vec<u32>, Error> {
    let written_in = cut.target_language.as_deref().or_else(|| language_or(cut, language));
    encode(tokenizer, &cut.text, written_in)
}

/// Nothing said: noise of some colour and level, now and then digital silence.
fn silence(n_samples: usize, sample_rate: u32, rng: &mut ChaCha8Rng) -> Result<Waveform, Error> {
    const COLORS: [Option<NoiseColor>; 4] =
        [None, Some(NoiseColor::White), Some(NoiseColor::Pink), Some(NoiseColor::Brown)];
    let Some(color) = COLORS[below(4, rng) as usize] else {
        return Ok(Waveform { samples: vec![0.0; n_samples], sample_rate });
    };
    let level_db = between(SILENCE_DB, rng);
    let noise = colored_noise(color, n_samples, sample_rate, rng)?; // of power 1
    Ok(change_gain(&noise, level_db)?)
}
