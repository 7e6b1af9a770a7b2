//! A run's settings: embedded commented defaults < recipe < `--set`. A recipe holds only what is its own.

mod strategy;
mod vocoder;

pub use strategy::{DistilConfig, StageConfig, StrategyConfig, StrategyKind};
pub use vocoder::VocoderConfig;

use std::path::Path;

use audio::augment::Augment;
use audio::augment::config::{NoiseKind, Room};
use figment::Figment;
use figment::providers::{Format as _, Toml};
use models::flow_lm::Sampling;
use models::{DecodeOptions, Part, SpeakOptions, TextUnit, WeightDtype};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::data::{Fit, Glossary, JoinConfig, Translations};
use crate::loss::LossConfig;
use crate::optim::OptimizerConfig;
use crate::schedule::{Schedule, ScheduleConfig};
use crate::text::Normaliser;
use crate::train::TrainConfig;

/// The defaults, which are also the manual.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// Recipes that are part of the program: name and contents.
pub const RECIPES: [(&str, &str); 13] = [
    ("canary_ps", include_str!("../canary_ps.toml")),
    ("ctc_ps", include_str!("../ctc_ps.toml")),
    ("digits_en", include_str!("../digits_en.toml")),
    ("distil", include_str!("../distil.toml")),
    ("finetune", include_str!("../finetune.toml")),
    ("finetune_voice", include_str!("../finetune_voice.toml")),
    ("mt_en_ps", include_str!("../mt_en_ps.toml")),
    ("siamese_en_ps", include_str!("../siamese_en_ps.toml")),
    ("st_en_ps", include_str!("../st_en_ps.toml")),
    ("translate_ps", include_str!("../translate_ps.toml")),
    ("tts_en", include_str!("../tts_en.toml")),
    ("vocoder_en", include_str!("../vocoder_en.toml")),
    ("words_en", include_str!("../words_en.toml")),
];

/// Each part of a batch has threads of its own.
const MAX_PARTS: usize = 64;

/// Everything that decides a run. `defaults.toml` says what each key does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct RunConfig {
    pub task: TaskKind,
    pub seed: u64,
    pub model: ModelConfig,
    pub vocoder: VocoderConfig,
    pub strategy: StrategyConfig,
    pub data: DataConfig,
    pub join: JoinConfig,
    pub sampler: SamplerSettings,
    pub augment: Augment,
    pub target: TargetConfig,
    pub speech: SpeechConfig,
    pub loss: LossConfig,
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    pub train: TrainConfig,
    pub evaluate: EvaluateConfig,
    pub bundle: BundleConfig,
}

/// What a run teaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Speech to text.
    Transcribe,
    /// Text to text.
    TranslateText,
    /// Text to speech.
    Speak,
    /// Features to sound.
    Vocode,
}

/// What a new model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Two frames to a position, learnt positions in the decoder.
    Whisper,
    /// FastConformer encoder, eight frames to a position, and a decoder that is told two languages.
    Canary,
    /// FastConformer encoder that reads by CTC.
    ParakeetCtc,
    /// Encoder of texts and a causal Transformer that speaks by a flow.
    FlowLm,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct ModelConfig {
    pub base: String,
    pub architecture: ModelKind,
    pub d_model: usize,
    pub n_heads: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    pub n_mels: usize,
    pub window_secs: f64,
    pub max_target_positions: usize,
    pub variable_length: Option<bool>,
    pub beam_size: Option<usize>,
    pub subsampling: usize,
    pub conv_channels: usize,
    pub conv_kernel: usize,
    pub attention_context: Option<[usize; 2]>,
    pub n_text_tokens: usize,
    pub text_unit: TextUnit,
    pub tokenizer: String,
    pub text_encoder_layers: Option<usize>,
    pub languages: Vec<String>,
    pub like: String,
    pub gradient_checkpointing: bool,
    pub parts: PartsConfig,
}

/// `[model.parts]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct PartsConfig {
    pub encoder: String,
    pub text_encoder: String,
    pub decoder: String,
    pub vocoder: String,
}

impl PartsConfig {
    /// Those that are named, in this order.
    pub fn named(&self) -> impl Iterator<Item = (Part, &str)> {
        let parts = [
            (Part::Encoder, &self.encoder),
            (Part::TextEncoder, &self.text_encoder),
            (Part::Decoder, &self.decoder),
            (Part::Vocoder, &self.vocoder),
        ];
        parts.into_iter().filter(|(_, name)| !name.is_empty()).map(|(part, name)| (part, name.as_str()))
    }
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct DataConfig {
    pub train: Vec<String>,
    pub weights: Vec<f64>,
    pub dev: Vec<String>,
    pub language: String,
    pub force_language: bool,
    pub keep_empty: bool,
    pub translations: Translations,
    pub glossary: Glossary,
    pub clean_epochs: u64,
    pub noises: Vec<String>,
    pub rooms: Vec<String>,
    pub cache_mb: usize,
}

/// `[sampler]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct SamplerSettings {
    pub memory_gb: f64,
    pub batch_secs: f64,
    pub batch_tokens: u64,
    pub quadratic_secs: f64,
    pub max_items: usize,
    pub n_duration_buckets: usize,
    pub n_token_buckets: usize,
    pub fit: Fit,
    pub min_duration_secs: f64,
    pub max_duration_secs: f64,
    pub max_tokens: u32,
    pub max_tokens_per_sec: f64,
}

/// What an encoder's states are held against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetUnit {
    /// Tokens of the text.
    #[default]
    Tokens,
    /// Phonemes that manifests hold.
    Phonemes,
}

impl TargetUnit {
    fn is_tokens(&self) -> bool {
        *self == Self::Tokens
    }
}

/// `[target]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct TargetConfig {
    // Not said where it is what it always was: runs that began before there was another one go on.
    #[serde(skip_serializing_if = "TargetUnit::is_tokens", default)]
    pub unit: TargetUnit,
    pub timestamps: f64,
    pub previous: f64,
    pub unpunctuated: f64,
}

/// `[speech]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct SpeechConfig {
    pub patch_frames: usize,
    pub head_width: usize,
    pub head_layers: usize,
    pub aligner_width: usize,
    pub max_advance: usize,
    pub prompt_secs: [f64; 2],
    pub drop: f64,
    pub history_noise: f64,
    pub steps: Option<usize>,
    pub guidance: Option<f64>,
    pub temperature: Option<f64>,
}

impl SpeechConfig {
    fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, message: String| Err(Error::config(format!("speech.{key}"), message));
        let [least, most] = self.prompt_secs;
        if !(least > 0.0 && least <= most && most <= 30.0) {
            return refuse("prompt_secs", format!("{least} to {most} is no part of 0 to 30 seconds"));
        }
        for (key, share) in [("drop", self.drop), ("history_noise", self.history_noise)] {
            if !(0.0..1.0).contains(&share) {
                return refuse(key, format!("{share} is not from 0 to below 1"));
            }
        }
        let Self { steps, guidance, temperature, .. } = *self;
        let options = SpeakOptions { steps, guidance, temperature, ..SpeakOptions::default() };
        options.check().map_err(|error| Error::config("speech", error.to_string()))
    }

    /// How a model speaks where nobody says otherwise, `known` being how its base does.
    pub(crate) fn sampling(&self, known: Sampling) -> Sampling {
        Sampling {
            steps: self.steps.unwrap_or(known.steps),
            guidance: self.guidance.unwrap_or(known.guidance),
            temperature: self.temperature.unwrap_or(known.temperature),
        }
    }
}

/// `[evaluate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct EvaluateConfig {
    pub normaliser: Normaliser,
    pub beam_size: usize,
    pub max_utterances: usize,
    pub join: bool,
}

/// `[bundle]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml says what each one does")]
pub struct BundleConfig {
    pub precision: WeightDtype,
    pub average: usize,
}

impl RunConfig {
    /// The defaults, the recipe, and `key=value` on top, each value as TOML writes it; what is none is text.
    ///
    /// # Errors
    /// A recipe that is not there, keys that nobody knows, values of another type.
    pub fn load(recipe: Option<&Path>, settings: &[String]) -> Result<Self, Error> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(recipe) = recipe {
            figment = match embedded(recipe) {
                Some(text) => figment.merge(Toml::string(text)),
                None if recipe.is_file() => figment.merge(Toml::file_exact(recipe)),
                None => {
                    let names: Vec<_> = RECIPES.iter().map(|(name, _)| *name).collect();
                    let message = format!("no such recipe; give a TOML file or one of: {}", names.join(", "));
                    return Err(Error::file(recipe, message));
                }
            };
        }
        for setting in settings {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(Error::config(setting, "is no key=value, such as train.max_steps=100"));
            };
            figment = figment.merge(Toml::string(&toml_line(key.trim(), value.trim())));
        }
        let config: Self = figment.extract().map_err(|error| {
            let error = error.into_iter().next();
            let key = error.as_ref().map(|error| error.path.join(".")).unwrap_or_default();
            let message = error.map(|error| error.kind.to_string()).unwrap_or_default();
            Error::config(if key.is_empty() { "recipe".to_owned() } else { key }, message)
        })?;
        config.check()?;
        Ok(config)
    }

    /// Figures that the task's evaluation gives and that tell better models from worse ones.
    pub fn figures(&self) -> Vec<&'static str> {
        match self.task {
            TaskKind::Speak => {
                let map = (self.loss.flow.map_draws > 0).then_some("flow_map");
                let figures = ["loss", "flow", "end", "advance", "alignment", "distortion_db"];
                return figures.into_iter().chain(map).collect();
            }
            TaskKind::Vocode => return vocoder::figures(&self.loss),
            TaskKind::Transcribe | TaskKind::TranslateText => (),
        }
        let reads_phonemes = self.target.unit == TargetUnit::Phonemes && !self.loss.trains_decoder();
        let writes = self.loss.trains_decoder() || self.loss.ctc.weight > 0.0;
        let mut figures = vec!["loss"];
        if writes && !reads_phonemes {
            figures.extend(["wer", "cer"]);
        }
        if self.task == TaskKind::TranslateText || self.data.translations != Translations::Off {
            figures.extend(["bleu", "chrf", "ter"]);
        }
        if writes && reads_phonemes {
            figures.push("per");
        }
        let model = &self.model;
        let may_read_texts = model.text_encoder_layers.map_or(!model.base.is_empty(), |n| n > 0);
        if may_read_texts && self.task == TaskKind::Transcribe {
            figures.push("speech_text_distance");
        }
        figures.extend(
            self.loss.weights().into_iter().filter(|(_, weight)| *weight > 0.0).map(|(name, _)| name),
        );
        figures
    }

    /// Refuses a figure that no evaluation gives.
    pub(crate) fn check_best_by(&self) -> Result<(), Error> {
        let (best_by, figures) = (self.train.best_by.as_str(), self.figures());
        if figures.contains(&best_by) {
            return Ok(());
        }
        Err(Error::config("train.best_by", format!("`{best_by}` is none of {}", figures.join(", "))))
    }

    /// A student has one teacher, its base, and does not learn to hear.
    fn check_distillation(&self) -> Result<(), Error> {
        let (is_student, loss) = (self.strategy.kind == StrategyKind::Distil, &self.loss);
        let refuse = |key: &str, message: &str| Err(Error::config(key, message));
        if !is_student && loss.distillation.weight > 0.0 {
            return refuse("loss.distillation.weight", "there is no teacher: set strategy.kind = \"distil\"");
        }
        if is_student && loss.ctc.weight > 0.0 {
            return refuse(
                "loss.ctc.weight",
                "a student keeps its base's encoder, and CTC teaches nothing else; set 0",
            );
        }
        if is_student && !self.data.weights.is_empty() && self.strategy.distil.max_wer > 0.0 {
            return refuse(
                "data.weights",
                "not beside what a teacher writes, of which some recordings are left out",
            );
        }
        if is_student && self.sampler.memory_gb > 0.0 {
            return refuse(
                "sampler.memory_gb",
                "does not count what a teacher and its encoder's states take; set sampler.batch_secs instead",
            );
        }
        if is_student && (self.data.translations != Translations::Off || self.target.unpunctuated > 0.0) {
            let key =
                if self.target.unpunctuated > 0.0 { "target.unpunctuated" } else { "data.translations" };
            return refuse(
                key,
                "a student learns to transcribe as its teacher does, which is asked for nothing else",
            );
        }
        if is_student && !self.model.tokenizer.is_empty() {
            return refuse("model.tokenizer", "a student speaks its teacher's tokens");
        }
        Ok(())
    }

    /// What speaks, and what it learns from.
    fn check_speech(&self) -> Result<(), Error> {
        let refuse = |key: &str, message: &str| Err(Error::config(key, message));
        let (speaks, is_flow) = (self.task == TaskKind::Speak, self.model.architecture == ModelKind::FlowLm);
        self.speech.check()?;
        if !speaks {
            let is_told = self.loss.flow.weight > 0.0;
            return match () {
                () if is_told => refuse("loss.flow.weight", "is for task = \"speak\" alone; set 0"),
                () if is_flow => refuse("model.architecture", "flow_lm speaks: set task = \"speak\""),
                () => Ok(()),
            };
        }
        if !is_flow {
            return refuse("model.architecture", "task = \"speak\" trains a flow_lm");
        }
        if self.strategy.kind != StrategyKind::Full {
            return refuse("strategy.kind", "is not for speak; use full");
        }
        for (name, weight) in self.loss.weights() {
            if (name == "flow") != (weight > 0.0) {
                let message = format!("{weight}: speak learns by flow, and by nothing else");
                return Err(Error::config(format!("loss.{name}.weight"), message));
            }
        }
        for (key, is_set) in [
            ("data.translations", self.data.translations != Translations::Off),
            ("data.keep_empty", self.data.keep_empty),
            ("data.glossary", !self.data.glossary.is_empty()),
            ("data.noises", !self.data.noises.is_empty()),
            ("data.rooms", !self.data.rooms.is_empty()),
            ("augment", !self.augment.is_off()),
            ("join", self.join.max_cuts > 1 || self.join.silence > 0.0),
            ("sampler.memory_gb", self.sampler.memory_gb > 0.0),
            ("model.tokenizer", !self.model.tokenizer.is_empty()),
            ("model.languages", !self.model.languages.is_empty()),
            ("model.like", !self.model.like.is_empty()),
        ] {
            if is_set {
                return refuse(key, "is not for speak, which learns to say texts as they were recorded");
            }
        }
        Ok(())
    }

    /// What texts are translated by, and what a model is put together from.
    fn check_translation(&self) -> Result<(), Error> {
        let refuse = |key: &str, message: &str| Err(Error::config(key, message));
        if let Some((part, _)) = self
            .model
            .parts
            .named()
            .find(|(part, _)| (*part == Part::Vocoder) != (self.task == TaskKind::Speak))
        {
            let message = match part {
                Part::Vocoder => "is for task = \"speak\": other models make no sound",
                _ => "is that of a model that hears or reads; a model that speaks has parts.vocoder",
            };
            return refuse(&format!("model.parts.{}", part.name()), message);
        }
        let has_parts = self.model.parts.named().any(|(part, _)| part != Part::Vocoder);
        if has_parts && self.model.base.is_empty() {
            return refuse(
                "model.parts",
                "are those of a model: give model.base, whose sizes and vocabulary count",
            );
        }
        let kind = self.strategy.kind;
        if matches!(kind, StrategyKind::Lora | StrategyKind::Distil) {
            let name = kind.name();
            if has_parts {
                let message = format!("not with {name}, which is of one base as it is; use full");
                return refuse("model.parts", &message);
            }
            if self.loss.optimal_transport.weight > 0.0 {
                let message =
                    format!("{name} trains nothing beside its base, such as an encoder of texts; use full");
                return refuse("loss.optimal_transport.weight", &message);
            }
        }
        if self.sampler.memory_gb > 0.0 && self.loss.optimal_transport.weight > 0.0 {
            let message = "does not count what an encoder of texts and optimal transport take; set sampler.batch_secs instead";
            return refuse("sampler.memory_gb", message);
        }
        if self.task != TaskKind::TranslateText {
            return Ok(());
        }
        if self.strategy.kind != StrategyKind::Full {
            return refuse("strategy.kind", "is not for translate_text; use full");
        }
        if self.data.translations != Translations::Off {
            return refuse("data.translations", "is for recordings; translate_text learns them anyway");
        }
        if self.model.text_encoder_layers == Some(0) {
            return refuse("model.text_encoder_layers", "0: translate_text needs an encoder of texts");
        }
        if !self.data.glossary.is_empty() {
            return refuse(
                "data.glossary",
                "is for recordings; translate_text learns from rows with translations",
            );
        }
        if self.sampler.memory_gb > 0.0 {
            return refuse("sampler.memory_gb", "is planned for recordings alone; set sampler.batch_tokens");
        }
        if !self.model.parts.encoder.is_empty() {
            return refuse("model.parts.encoder", "hears, and translate_text has no use for it");
        }
        if self.sampler.batch_tokens == 0 {
            return refuse("sampler.batch_tokens", "0 holds no text");
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        let share = |key: &str, value: f64| {
            let message = || format!("{value} is not between 0 and 1");
            if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(Error::config(key, message())) }
        };
        share("target.timestamps", self.target.timestamps)?;
        share("target.previous", self.target.previous)?;
        share("target.unpunctuated", self.target.unpunctuated)?;
        for (name, weight) in
            [("ctc", self.loss.ctc.weight), ("optimal_transport", self.loss.optimal_transport.weight)]
        {
            if self.data.translations == Translations::Only && weight > 0.0 {
                let message =
                    "it learns from what is heard, and nothing else is left than translations; set 0";
                return Err(Error::config(format!("loss.{name}.weight"), message));
            }
        }
        self.data.glossary.check()?;
        let is_heard = self.task == TaskKind::Transcribe;
        if is_heard && self.data.translations == Translations::Off && !self.data.glossary.is_empty() {
            let message = "is not used: set data.translations to \"only\" or \"both\"";
            return Err(Error::config("data.glossary", message));
        }
        if self.data.train.is_empty() {
            return Err(Error::config("data.train", "names no manifest: there is nothing to learn from"));
        }
        if self.data.force_language && self.data.language.is_empty() {
            return Err(Error::config(
                "data.force_language",
                "needs data.language: the one that all cuts are in",
            ));
        }
        for (key, asks, is_asked, names) in [
            (
                "data.noises",
                "augment.noise.kinds",
                self.augment.noise.kinds.contains(&NoiseKind::Recorded),
                &self.data.noises,
            ),
            (
                "data.rooms",
                "augment.reverb.rooms",
                self.augment.reverb.rooms.contains(&Room::Recorded),
                &self.data.rooms,
            ),
        ] {
            if is_asked == names.is_empty() {
                let message = match is_asked {
                    true => format!("names no manifest, and {asks} asks for recorded ones"),
                    false => format!("is not used: put `recorded` into {asks}"),
                };
                return Err(Error::config(key, message));
            }
        }
        share("schedule.warmup_share", self.schedule.warmup_share)?;
        let (n_weights, n_train) = (self.data.weights.len(), self.data.train.len());
        if n_weights > 0 && n_weights != n_train {
            let message = format!("are {n_weights} for the {n_train} of data.train");
            return Err(Error::config("data.weights", message));
        }
        if let Some(weight) = self.data.weights.iter().find(|weight| !(0.0..=1000.0).contains(*weight)) {
            return Err(Error::config("data.weights", format!("{weight} is not between 0 and 1000")));
        }
        if n_weights > 0 && self.data.weights.iter().all(|weight| *weight == 0.0) {
            return Err(Error::config("data.weights", "are all 0: nothing would be heard"));
        }
        if !self.model.tokenizer.is_empty() && !self.model.base.is_empty() {
            let refuse = |message: &str| Err(Error::config("model.tokenizer", message));
            match self.strategy.kind {
                StrategyKind::Lora => {
                    return refuse(
                        "lora leaves embeddings as they are, and those of a new vocabulary would never learn",
                    );
                }
                StrategyKind::Multistage if !self.model.like.is_empty() => {
                    return refuse(
                        "not beside model.like in stages: the first stage's model has no token for the language",
                    );
                }
                _ => (),
            }
        }
        self.loss.check()?;
        self.check_best_by()?;
        let memory_gb = self.sampler.memory_gb;
        if !(memory_gb.is_finite() && memory_gb >= 0.0) {
            return Err(Error::config("sampler.memory_gb", format!("{memory_gb} is not a number from 0 on")));
        }
        if !(0.0..1.0).contains(&self.train.average_decay) {
            let message = format!("{} is not from 0 to below 1", self.train.average_decay);
            return Err(Error::config("train.average_decay", message));
        }
        let beams = [
            ("evaluate.beam_size", Some(self.evaluate.beam_size)),
            ("model.beam_size", self.model.beam_size),
        ];
        for (key, beam_size) in beams {
            let options = DecodeOptions { beam_size, ..DecodeOptions::default() };
            options.check().map_err(|error| Error::config(key, error.to_string()))?;
        }
        let makes_sound = matches!(self.task, TaskKind::Speak | TaskKind::Vocode);
        if self.bundle.precision == WeightDtype::Int8 && !makes_sound {
            let message =
                "int8 is for voices and vocoders: other programs read the others, and do not know it";
            return Err(Error::config("bundle.precision", message));
        }
        let (average, keep) = (self.bundle.average, self.train.keep);
        if average == 0 || (keep > 0 && average > keep) {
            let message =
                format!("{average} is not between 1 and the {keep} checkpoints that train.keep leaves");
            return Err(Error::config("bundle.average", message));
        }
        if self.train.max_steps == 0 {
            return Err(Error::config("train.max_steps", "0 trains nothing"));
        }
        if !(1..=MAX_PARTS).contains(&self.train.parts) {
            let message = format!("{} is not between 1 and {MAX_PARTS}", self.train.parts);
            return Err(Error::config("train.parts", message));
        }
        let model = &self.model;
        if model.attention_context.is_some() {
            let refuse = |message: &str| Err(Error::config("model.attention_context", message));
            if !model.base.is_empty() {
                return refuse(
                    "is that of a new model; a base has its own, in its config.json: leave this out",
                );
            }
            if model.architecture == ModelKind::Whisper {
                return refuse(
                    "a whisper attends to all positions; canary and parakeet_ctc may attend to fewer",
                );
            }
        }
        self.strategy.check(!self.model.base.is_empty())?;
        self.check_distillation()?;
        self.check_translation()?;
        self.check_speech()?;
        self.check_vocoder()?;
        // Without a rate it follows from the base, which is not known yet; any will do to look at the rest.
        let is_open = self.optimizer.learning_rate == 0.0 && !self.model.base.is_empty();
        let rate = if is_open { 1.0 } else { self.optimizer.learning_rate };
        let max_steps = self.train.max_steps;
        Schedule::new(&self.schedule.of_run(max_steps), rate, max_steps)?;
        self.join.check()?;
        self.optimizer.check()
    }
}

fn embedded(recipe: &Path) -> Option<&'static str> {
    let name = recipe.to_str()?;
    RECIPES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// A value that TOML does not understand is text.
fn toml_line(key: &str, value: &str) -> String {
    let line = format!("{key} = {value}\n");
    let is_toml = Figment::from(Toml::string(&line)).extract::<figment::value::Dict>().is_ok();
    if is_toml { line } else { text_setting(key, value) + "\n" }
}

/// `key=value` whose value is text, whatever is in it.
pub fn text_setting(key: &str, value: &str) -> String {
    format!("{key}={}", quoted(value))
}

/// `key=[..]` of texts.
pub fn list_setting(key: &str, values: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| quoted(value.as_ref())).collect();
    format!("{key}=[{}]", values.join(", "))
}

/// Text as TOML writes it: JSON's strings are TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(settings: &[&str]) -> Result<RunConfig, String> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        RunConfig::load(None, &settings).map_err(|error| error.to_string())
    }

    /// The keys that a table has, each with those around it.
    fn keys(table: &serde_json::Value, around: &str) -> Vec<String> {
        let Some(table) = table.as_object() else { return vec![around.to_owned()] };
        let name = |key: &str| if around.is_empty() { key.to_owned() } else { format!("{around}.{key}") };
        table.iter().flat_map(|(key, value)| keys(value, &name(key))).collect()
    }

    #[test]
    fn the_defaults_say_everything_and_recipes_know_their_keys() {
        let config = load(&["data.train=[\"a.jsonl\"]"]).expect("the defaults");
        let written: serde_json::Value = Figment::from(Toml::string(DEFAULTS)).extract().expect("TOML");
        let written = keys(&written, "");
        for key in keys(&serde_json::to_value(&config).expect("settings"), "") {
            // These are as in a base where nobody says otherwise, or nothing, which no line can say.
            let open = [
                "model.variable_length",
                "model.beam_size",
                "model.attention_context",
                "model.text_encoder_layers",
                "speech.steps",
                "speech.guidance",
                "speech.temperature",
            ];
            let is_open = open.contains(&&*key);
            assert!(is_open || written.contains(&key), "{key} is not in defaults.toml");
        }
        // Settings of other crates have defaults of their own there.
        assert_eq!(config.augment, Augment::default());
        for (name, _) in RECIPES {
            // Fine-tuning is told its data.
            let data = ["data.train=[\"a.jsonl\"]".to_owned(), "data.weights=[]".to_owned()];
            RunConfig::load(Some(Path::new(name)), &data).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn settings_win_and_are_read_as_toml_or_text() {
        let config = load(&[
            "train.max_steps=7000",
            "data.language = ps",
            "data.train=[\"a\", \"b\"]",
            "optimizer.learning_rate=1e-3",
            "model.base=./some model",
        ])
        .expect("settings");
        assert_eq!((config.train.max_steps, config.data.language.as_str()), (7000, "ps"));
        assert_eq!((config.data.train.len(), config.optimizer.learning_rate), (2, 1e-3));
        assert_eq!(config.model.base, "./some model");
    }

    #[test]
    fn a_glossary_is_read_where_translations_are_learnt() {
        let settings = ["data.train=[\"a\"]", "data.translations=both", "data.glossary.language=ps"];
        let words = ["data.glossary.words={one=\"یو\"}", "data.glossary.words.two=دوه"];
        let glossary = load(&[&settings[..], &words].concat()).expect("settings").data.glossary;
        assert_eq!((glossary.language.as_str(), glossary.words.len()), ("ps", 2));
        assert_eq!(glossary.words["two"], "دوه");
    }

    #[test]
    fn what_is_of_one_base_takes_no_parts_of_others() {
        let base = ["data.train=[\"a\"]", "model.base=b", "model.parts.decoder=c"];
        assert!(load(&base).is_ok());
        for kind in ["strategy.kind=lora", "strategy.kind=distil"] {
            let message = load(&[&base[..], &[kind]].concat()).expect_err(kind);
            assert!(message.contains("model.parts"), "{kind}: {message}");
        }
    }

    #[test]
    fn fine_tuning_augments_as_its_preset_does() {
        let data = ["data.train=[\"a.jsonl\"]".to_owned()];
        let config = RunConfig::load(Some(Path::new("finetune")), &data).expect("a recipe");
        assert_eq!(config.augment, Augment::preset(audio::augment::Preset::FineTuning));
    }

    #[test]
    fn mistakes_name_their_key() {
        for (settings, part) in [
            ("train.max_step=7", "max_step"),
            ("train.max_steps=many", "train.max_steps"),
            ("train.max_steps=0", "train.max_steps"),
            ("train.best_by=speed", "train.best_by"),
            ("train.best_by=ctc", "train.best_by"),
            ("train.average_decay=1.0", "train.average_decay"),
            ("augment.noise.kinds=[\"recorded\"]", "data.noises"),
            ("data.rooms=[\"rooms.jsonl\"]", "augment.reverb.rooms"),
            ("train.parts=0", "train.parts"),
            ("sampler.memory_gb=-1", "sampler.memory_gb"),
            ("evaluate.beam_size=0", "evaluate.beam_size"),
            ("model.beam_size=65", "model.beam_size"),
            ("model.attention_context=[8, 8]", "model.attention_context"),
            ("model.attention_context=[8]", "model.attention_context"),
            ("bundle.average=9", "bundle.average"),
            ("data.train=[]", "data.train"),
            ("data.weights=[1, 2]", "data.weights"),
            ("data.weights=[-1]", "data.weights"),
            ("data.glossary={language=\"ps\", words={one=\"یو\"}}", "data.glossary: is not used"),
            ("data.glossary.words={one=\"یو\"}", "data.glossary.language"),
            ("data.glossary.words={one=1}", "data.glossary.words.one"),
            ("data.glossary.word={}", "data.glossary"),
            ("train.max_steps", "key=value"),
            ("loss.cross_entropy.weight=0", "loss"),
            ("target.timestamps=2", "target.timestamps"),
            ("model.parts.decoder=a", "model.parts"),
            ("loss.optimal_transport={weight=0.1, power=3}", "loss.optimal_transport.power"),
            ("strategy.kind=lora", "strategy.kind"),
            ("strategy.kind=half", "strategy.kind"),
            ("optimizer.learning_rate=0", "optimizer.learning_rate"),
        ] {
            let message = load(&["data.train=[\"a.jsonl\"]", settings]).expect_err(settings);
            assert!(message.contains(part), "{settings}: {message}");
        }
        let missing = RunConfig::load(Some(Path::new("no_such")), &[]).map_err(|error| error.to_string());
        assert!(missing.is_err_and(|message| message.contains("digits_en")));
    }
}
