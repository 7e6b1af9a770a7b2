//! The one configuration: embedded commented defaults < file < environment < flags. No setting has a default in code.

use std::{
    env,
    num::NonZero,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use models::{DecodeOptions, Device, DeviceChoice, SpeakOptions, TRANSLATED_TO, Task, Timestamps};
use serde::{Deserialize, Serialize};

use crate::{
    load::Spec,
    registry::HubOptions,
    render::{self, Format},
    routes::speech::MAX_PIECE_BYTES,
};

/// The defaults, which are also the manual.
pub const DEFAULTS: &str = include_str!("../speechd.toml");

/// Settings that are text whatever stands in them.
const TEXT_KEYS: [&str; 13] = [
    "serve.listen",
    "transcribe.model",
    "transcribe.language",
    "transcribe.to_language",
    "transcribe.prompt",
    "transcribe.hotwords",
    "translate.cascade",
    "speak.model",
    "speak.voice",
    "speak.language",
    "voices.folder",
    "hub.endpoint",
    "hub.cache",
];

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How speech becomes text.
    pub transcribe: Transcribe,
    /// How text becomes text in another language.
    pub translate: Translate,
    /// How text becomes speech.
    pub speak: Speak,
    /// The HTTP service.
    pub serve: Serve,
    /// Voices that clients bring.
    pub voices: Voices,
    /// What a recording may be.
    pub limits: Limits,
    /// What an upload may be.
    pub uploads: Uploads,
    /// Where models come from.
    pub hub: HubConfig,
}

/// `[transcribe]`: see the comments in `speechd.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "speechd.toml says what each one does, and models::DecodeOptions")]
pub struct Transcribe {
    pub model: String,
    pub draft: String,
    pub device: DeviceChoice,
    pub precision: Precision,
    pub language: String,
    pub task: Task,
    pub to_language: String,
    pub punctuation: Punctuation,
    pub format: Format,
    pub beam_size: BeamSize,
    pub best_of: usize,
    pub patience: Threshold,
    pub length_penalty: f32,
    pub temperature: f32,
    pub fallback: bool,
    pub compression_ratio_threshold: Threshold,
    pub logprob_threshold: Threshold,
    pub no_speech_threshold: Threshold,
    pub condition_on_previous_text: bool,
    pub prompt: String,
    pub hotwords: String,
    pub vad: Vad,
    pub batch_size: usize,
    pub max_new_tokens: usize,
    pub draft_tokens: usize,
    pub seed: u64,
}

/// Hypotheses that beam search keeps: a number, or `"model"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number or \"model\" was expected")]
pub enum BeamSize {
    /// So many.
    Of(usize),
    /// What the checkpoint asks for.
    Word(Own),
}

/// The word `model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Own {
    /// What the checkpoint asks for.
    Model,
}

/// A number, or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number or \"off\" was expected")]
pub enum Threshold {
    /// In force.
    At(f32),
    /// Not in force.
    Word(Off),
}

/// The word `off`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Off {
    /// Not in force.
    Off,
}

/// What models compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Int8 where that is faster on this processor, else f32
    Auto,
    /// 32-bit numbers
    F32,
    /// 16-bit numbers, where the processor multiplies them
    Bf16,
    /// Bytes, with a scale for each row
    Int8,
}

impl Precision {
    /// What it is on this device.
    pub fn resolve(self, device: &Device) -> models::Precision {
        match self {
            Self::Auto => models::Precision::auto(device),
            Self::F32 => models::Precision::F32,
            Self::Bf16 => models::Precision::Bf16,
            Self::Int8 => models::Precision::Int8,
        }
    }
}

/// What is left out before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Vad {
    /// On for recordings longer than one window of the model
    Auto,
    /// Cut at silences, leave them out and decode the windows together
    On,
    /// Hear everything, window after window
    Off,
}

/// Whether a text has punctuation and capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Punctuation {
    /// As the model writes
    Model,
    /// With them
    On,
    /// Without
    Off,
}

/// `[translate]`: see the comments in `speechd.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "speechd.toml says what each one does")]
pub struct Translate {
    pub cascade: String,
}

/// `[speak]`: see the comments in `speechd.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "speechd.toml says what each one does, and models::SpeakOptions")]
pub struct Speak {
    pub model: String,
    pub voice: String,
    pub language: String,
    pub speed: f64,
    pub seed: u64,
}

/// `[voices]`: voices that clients of the service bring, and the consents to them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voices {
    /// Where they are kept; empty: below the user's data directory.
    pub folder: String,
    /// How many there may be; as many consents.
    pub max_voices: usize,
    /// Size of a recording that is uploaded for one.
    pub max_recording_bytes: u64,
    /// Its length.
    pub max_recording_secs: Secs,
}

/// `[serve]`: see the comments in `speechd.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "speechd.toml says what each one does")]
pub struct Serve {
    pub listen: String,
    pub models: Vec<String>,
    pub drafts: Vec<String>,
    pub allow_anonymous: bool,
    pub cors_origins: Vec<String>,
    pub max_connections: usize,
    pub max_upload_bytes: u64,
    pub max_uploads: usize,
    pub upload_min_bytes_per_sec: u64,
    pub max_fields: usize,
    pub max_field_bytes: usize,
    pub max_form_text_bytes: usize,
    pub header_timeout_secs: Secs,
    pub keep_alive_secs: Secs,
    pub upload_idle_secs: Secs,
    pub upload_timeout_secs: Secs,
    pub write_timeout_secs: Secs,
    pub max_unread_bytes: usize,
    pub max_queued_requests: usize,
    pub max_queued_audio_secs: f64,
    pub max_batch_rows: usize,
    pub max_speak_steps: usize,
    pub max_speak_guidance: f64,
    pub compute_niceness: i32,
    pub request_timeout_secs: Secs,
    pub drain_delay_secs: Secs,
    pub drain_secs: Secs,
}

/// A length of time in seconds, at most a year.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Secs(f64);

impl Secs {
    /// As the standard library takes it.
    pub fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0)
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Secs {
    type Error = String;

    fn try_from(secs: f64) -> Result<Self, String> {
        const YEAR: f64 = 365.0 * 86_400.0;
        if (0.0..=YEAR).contains(&secs) {
            Ok(Self(secs))
        } else {
            Err(format!("{secs} is not a number of seconds from 0 to {YEAR}"))
        }
    }
}

impl From<Secs> for f64 {
    fn from(secs: Secs) -> Self {
        secs.0
    }
}

/// `[limits]`: what a recording may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Length of a recording.
    pub max_duration_secs: f64,
    /// Size of a file, or of the standard input.
    pub max_input_bytes: u64,
    /// Memory for its samples.
    pub max_samples_bytes: u64,
    /// Channels before mixing.
    pub max_channels: u16,
    /// Processor time for decoding a file into samples.
    pub max_cpu_secs: f64,
}

/// `[uploads]`: what an upload to the service may be, and what decoding it may cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uploads {
    /// Length of a recording.
    pub max_duration_secs: f64,
    /// Memory for its samples, before and after their conversion to the model's rate.
    pub max_samples_bytes: u64,
    /// Channels before mixing.
    pub max_channels: u16,
    /// Processor time for decoding it into samples.
    pub max_decode_cpu_secs: f64,
    /// The same by the clock on the wall.
    pub max_decode_wall_secs: f64,
    /// Address space of the process that decodes it.
    pub max_decode_memory_bytes: u64,
    /// Processes that decode at once; 0: one for each core.
    pub decode_children: usize,
    /// Up to this size an upload is small: one more process is there for such ones; 0: none is.
    pub small_upload_bytes: u64,
}

/// `[hub]`: where models come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubConfig {
    /// The hub's address.
    pub endpoint: String,
    /// The cache directory; empty: where `huggingface_hub` has it.
    pub cache: String,
    /// Use only what is in the cache.
    pub offline: bool,
}

/// Why there is no configuration: the setting, where it was found and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Config {
    /// The defaults, the user's file and the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        match file {
            Some(path) if !path.is_file() => {
                return Err(Error(format!("{}: no such configuration file", path.display())));
            }
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None => {
                if let Some(path) = user_file().filter(|path| path.is_file()) {
                    figment = figment.merge(Toml::file_exact(path));
                }
            }
        }
        for (key, value) in hub_environment(&|name| env::var(name).ok()) {
            figment = match value {
                Setting::Text(value) => figment.merge(Serialized::default(key, value)),
                Setting::Switch(value) => figment.merge(Serialized::default(key, value)),
            };
        }
        // Without a section it is another variable, such as SPEECHD_DATA.
        let own = Env::prefixed("SPEECHD_").filter(|key| key.as_str().contains("__")).split("__");
        figment = figment.merge(own);
        // The environment's parser would read `1984` as a number and `true` as a switch.
        for key in TEXT_KEYS {
            let name = format!("SPEECHD_{}", key.to_uppercase().replace('.', "__"));
            if let Ok(value) = env::var(name) {
                figment = figment.merge(Serialized::default(key, value));
            }
        }
        let config: Self = figment.extract().map_err(|error| Error(describe(&error)))?;
        config.serve.check()?;
        Ok(Self { speak: config.speak.checked()?, ..config })
    }

    /// Code of the language that a translation by two models is written in; `None` where one model does what is asked.
    pub fn cascade_target(&self) -> Option<String> {
        let is_cascade = self.transcribe.task == Task::Translate && !self.translate.cascade.is_empty();
        let named = Some(self.transcribe.to_language.as_str()).filter(|code| !code.is_empty());
        is_cascade.then(|| named.unwrap_or(TRANSLATED_TO).to_owned())
    }

    /// The hub as configured; the token comes from the environment alone.
    pub fn hub_options(&self) -> HubOptions {
        let get = |name: &str| env::var(name).ok();
        HubOptions {
            endpoint: self.hub.endpoint.clone(),
            cache: match self.hub.cache.as_str() {
                "" => default_cache(&get),
                cache => expand_home(cache, &get),
            },
            token: env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned()),
            offline: self.hub.offline,
            retry_delay: Duration::from_millis(500),
        }
    }
}

impl Transcribe {
    /// As the models take it. Times are predicted only where the format shows them.
    pub fn decode_options(&self, words: bool) -> DecodeOptions {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        DecodeOptions {
            language: Some(self.language.as_str()).filter(|&language| language != "auto").map(str::to_owned),
            languages: Vec::new(),
            vad_options: audio::VadOptions::default(),
            task: self.task,
            // A target that is configured is one of translations.
            to_language: text(&self.to_language).filter(|_| self.task == Task::Translate),
            punctuation: match self.punctuation {
                Punctuation::Model => None,
                Punctuation::On => Some(true),
                Punctuation::Off => Some(false),
            },
            timestamps: match (words, self.format.has_times()) {
                (true, _) => Timestamps::Word,
                (false, true) => Timestamps::Segment,
                (false, false) => Timestamps::None,
            },
            beam_size: match self.beam_size {
                BeamSize::Of(n) => Some(n),
                BeamSize::Word(Own::Model) => None,
            },
            best_of: self.best_of,
            patience: self.patience.value(),
            length_penalty: self.length_penalty,
            temperature: self.temperature,
            fallback: self.fallback && self.temperature == 0.0,
            compression_ratio_threshold: self.compression_ratio_threshold.value(),
            logprob_threshold: self.logprob_threshold.value(),
            no_speech_threshold: self.no_speech_threshold.value(),
            condition_on_previous_text: self.condition_on_previous_text,
            prompt: text(&self.prompt),
            hotwords: text(&self.hotwords),
            vad: match self.vad {
                Vad::Auto => None,
                Vad::On => Some(true),
                Vad::Off => Some(false),
            },
            batch_size: self.batch_size,
            max_new_tokens: (self.max_new_tokens > 0).then_some(self.max_new_tokens),
            draft_tokens: self.draft_tokens,
            seed: self.seed,
        }
    }
}

impl Translate {
    /// The translator of text that is asked for, and what it is called; `None` where there is none, or its name can be none.
    pub fn spec(&self) -> Option<Spec> {
        Some(self.cascade.as_str())
            .filter(|cascade| !cascade.is_empty())
            .and_then(|text| Spec::parse(text).ok())
    }
}

impl Speak {
    /// The same with the code of its language. Requests build on it: what is wrong would be told of fields that they do not have.
    fn checked(mut self) -> Result<Self, Error> {
        if !self.language.is_empty() {
            // A model may know a code that no recogniser does; what it does not know is told when it is loaded.
            self.language = render::parse_language(&self.language).unwrap_or(self.language);
        }
        match self.options().check() {
            Err(models::Error::Option { option, message }) => {
                Err(Error(format!("`speak.{option}`: {message}")))
            }
            Err(error) => Err(Error(format!("`speak`: {error}"))),
            Ok(()) => Ok(self),
        }
    }

    /// As the models take it.
    pub fn options(&self) -> SpeakOptions {
        SpeakOptions {
            language: Some(self.language.as_str()).filter(|code| !code.is_empty()).map(str::to_owned),
            speed: self.speed,
            seed: self.seed,
            ..SpeakOptions::default()
        }
    }
}

impl Voices {
    /// Where they are kept; `None` where nobody says, and the user has no home.
    pub fn folder(&self) -> Option<PathBuf> {
        self.folder_by(&|name| env::var(name).ok())
    }

    fn folder_by(&self, get: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        match (self.folder.as_str(), self.folder.strip_prefix("~/")) {
            ("", _) => Some(default_data(get)?.join("voices")),
            (_, Some(rest)) => Some(absolute("HOME", get)?.join(rest)),
            (folder, None) => Some(PathBuf::from(folder)),
        }
    }
}

impl Serve {
    /// Refuses bounds by which nobody could be served.
    fn check(&self) -> Result<(), Error> {
        let (unread, piece) = (self.max_unread_bytes, MAX_PIECE_BYTES);
        if unread < piece {
            let message =
                format!("{unread} is less than a piece of sound, {piece}: every client would be cut off");
            return Err(Error(format!("`serve.max_unread_bytes`: {message}")));
        }
        if self.max_speak_guidance.is_nan() {
            let message = "is not a number; 10 bounds nothing, 1 allows no guidance";
            return Err(Error(format!("`serve.max_speak_guidance`: {message}")));
        }
        Ok(())
    }

    /// The option by which a window would have more rows than fit, and how many. Those that are not used do not count.
    pub(crate) fn too_many_rows(&self, options: &DecodeOptions) -> Option<(&'static str, usize)> {
        let (searches, samples) = (options.temperature <= 0.0, options.temperature > 0.0 || options.fallback);
        [("beam_size", options.beam_size.unwrap_or(1), searches), ("best_of", options.best_of, samples)]
            .into_iter()
            .find(|(_, n_rows, is_used)| *is_used && *n_rows > self.max_batch_rows)
            .map(|(option, n_rows, _)| (option, n_rows))
    }

    /// The option by which a request to speak asks for more work than one gets here, and what it may be at most. What a model does by itself it
    /// does here, too.
    pub(crate) fn too_much_speech(&self, options: &SpeakOptions) -> Option<(&'static str, String)> {
        let (max_steps, max_guidance) = (self.max_speak_steps, self.max_speak_guidance);
        if let Some(steps) = options.steps.filter(|steps| *steps > max_steps) {
            return Some(("steps", format!("{steps} is more than the {max_steps} of this server")));
        }
        // Whoever is led away from saying anything is computed twice, however far.
        let is_guided = options.guidance.filter(|guidance| *guidance != 1.0);
        let guidance = is_guided.filter(|guidance| *guidance > max_guidance || max_guidance <= 1.0)?;
        Some((
            "guidance",
            format!("{guidance} is not possible here; {max_guidance} is the most, and 1 is none"),
        ))
    }
}

impl Uploads {
    /// How many processes decode at once.
    pub fn n_children(&self) -> usize {
        match self.decode_children {
            0 => thread::available_parallelism().map_or(1, NonZero::get),
            n => n,
        }
    }

    /// Whether an upload of this size counts as small.
    pub(crate) fn is_small(&self, upload_bytes: u64) -> bool {
        self.small_upload_bytes > 0 && upload_bytes <= self.small_upload_bytes
    }

    /// How long decoding may take by the clock on the wall. A file cannot get all of its processor time in less.
    pub(crate) fn max_wall_secs(&self) -> f64 {
        self.max_decode_wall_secs.max(self.max_decode_cpu_secs)
    }

    /// The most samples that an upload can become at `sample_rate`.
    pub(crate) fn max_samples(&self, sample_rate: u32) -> u64 {
        // One more, because the conversion rounds.
        let by_duration = (self.max_duration_secs * f64::from(sample_rate)).ceil() as u64;
        by_duration.saturating_add(1).min(self.max_samples_bytes / 4)
    }
}

impl Threshold {
    fn value(self) -> Option<f32> {
        match self {
            Self::At(value) => Some(value),
            Self::Word(Off::Off) => None,
        }
    }
}

fn user_file() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("speechd").join("speechd.toml"))
}

enum Setting {
    Text(String),
    Switch(bool),
}

/// The variables that all tools for this hub share.
fn hub_environment(get: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, Setting)> {
    let set = |name: &str| get(name).filter(|value| !value.is_empty());
    let mut settings = Vec::new();
    if let Some(endpoint) = set("HF_ENDPOINT") {
        settings.push(("hub.endpoint", Setting::Text(endpoint)));
    }
    if set("HF_HUB_CACHE").or(set("HF_HOME")).is_some() {
        let cache = default_cache(get).to_string_lossy().into_owned();
        settings.push(("hub.cache", Setting::Text(cache)));
    }
    if let Some(offline) = set("HF_HUB_OFFLINE") {
        let is_on = ["1", "on", "yes", "true"].contains(&offline.to_lowercase().as_str());
        settings.push(("hub.offline", Setting::Switch(is_on)));
    }
    settings
}

/// Where `huggingface_hub` keeps its cache.
fn default_cache(get: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| get(name).filter(|value| !value.is_empty()).map(|value| expand_home(&value, get));
    set("HF_HUB_CACHE").unwrap_or_else(|| {
        let home = set("HF_HOME").unwrap_or_else(|| {
            let cache = set("XDG_CACHE_HOME").unwrap_or_else(|| expand_home("~/.cache", get));
            cache.join("huggingface")
        });
        home.join("hub")
    })
}

/// Where this program keeps what its user gave it; `None` for a user without a home.
fn default_data(get: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let data = absolute("XDG_DATA_HOME", get)
        .or_else(|| Some(absolute("HOME", get)?.join(".local").join("share")))?;
    Some(data.join("speechd"))
}

/// The folder that a variable names. Others than absolute ones are not meant: XDG's specification has it so.
fn absolute(variable: &str, get: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    get(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn expand_home(path: &str, get: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match (path.strip_prefix("~/"), get("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// One line for each wrong setting: where, which and what.
fn describe(error: &figment::Error) -> String {
    let line = |error: &figment::Error| {
        let place = error.metadata.as_ref().map(|metadata| match &metadata.source {
            Some(figment::Source::File(path)) => format!("{}: ", path.display()),
            _ => format!("{}: ", metadata.name),
        });
        let key = error.path.join(".");
        let key = if key.is_empty() { key } else { format!("`{key}`: ") };
        format!("{}{key}{}", place.unwrap_or_default(), error.kind)
    };
    error.clone().into_iter().map(|error| line(&error)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Error> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("speechd.toml");
        std::fs::write(&path, text).expect("written");
        Config::load(Some(&path))
    }

    #[test]
    fn rows_are_counted_where_they_are_used() {
        let config = Config::load(None).expect("the defaults");
        let serve = Serve { max_batch_rows: 4, ..config.serve };
        let greedy = config.transcribe.decode_options(false);
        let beams = DecodeOptions { beam_size: Some(5), fallback: false, ..greedy.clone() };
        let samples = DecodeOptions { temperature: 0.5, ..beams.clone() };
        assert_eq!(serve.too_many_rows(&greedy), Some(("best_of", 5)), "a fallback samples");
        assert_eq!(serve.too_many_rows(&DecodeOptions { fallback: false, ..greedy }), None);
        assert_eq!(serve.too_many_rows(&beams), Some(("beam_size", 5)));
        assert_eq!(serve.too_many_rows(&samples), Some(("best_of", 5)), "no beams among samples");
        assert_eq!(serve.too_many_rows(&DecodeOptions { best_of: 4, ..samples }), None);
    }

    #[test]
    fn bounds_by_which_nobody_could_be_served_are_refused() {
        for (key, value) in [("max_unread_bytes", "32767"), ("max_speak_guidance", "nan")] {
            let message = load(&format!("[serve]\n{key} = {value}")).expect_err(key).to_string();
            assert!(message.contains(&format!("`serve.{key}`")), "{message}");
        }
        let least = load("[serve]\nmax_unread_bytes = 32768").expect("a piece");
        assert_eq!(least.serve.max_unread_bytes, MAX_PIECE_BYTES);
    }

    #[test]
    fn what_a_request_to_speak_may_ask_for_is_bounded() {
        let serve = load("").expect("the defaults").serve;
        let asked = |serve: &Serve, steps, guidance| {
            let options = SpeakOptions { steps, guidance, ..SpeakOptions::default() };
            serve.too_much_speech(&options).map(|(option, _)| option)
        };
        assert_eq!(asked(&serve, None, None), None);
        let most = (Some(serve.max_speak_steps), Some(serve.max_speak_guidance));
        assert_eq!(asked(&serve, most.0, most.1), None);
        assert_eq!(asked(&serve, Some(serve.max_speak_steps + 1), None), Some("steps"));
        let strict = Serve { max_speak_guidance: 2.0, ..serve.clone() };
        assert_eq!([0.0, 0.5, 1.0, 2.0].map(|guidance| asked(&strict, None, Some(guidance))), [None; 4]);
        assert_eq!(asked(&strict, None, Some(2.1)), Some("guidance"));
        let unguided = Serve { max_speak_guidance: 1.0, ..serve };
        let expected = [Some("guidance"), None, Some("guidance")];
        assert_eq!([0.5, 1.0, 1.1].map(|guidance| asked(&unguided, None, Some(guidance))), expected);
    }

    #[test]
    fn the_defaults_are_those_of_the_decoder() {
        let config = load("").expect("the defaults");
        let options = config.transcribe.decode_options(false);
        options.check().expect("possible");
        assert_eq!(options, DecodeOptions::default());
    }

    #[test]
    fn the_defaults_are_those_of_the_synthesizer() {
        let config = load("").expect("the defaults");
        assert_eq!(config.speak.options(), SpeakOptions::default());
        let config = load("[speak]\nlanguage = \"ps\"\nspeed = 1.5\nseed = 7").expect("a configuration");
        let options = config.speak.options();
        assert_eq!((options.language.as_deref(), options.speed, options.seed), (Some("ps"), 1.5, 7));
        let config = load("[speak]\nlanguage = \"Pashto\"").expect("as the command line takes it");
        assert_eq!(config.speak.language, "ps");
    }

    #[test]
    fn defaults_of_speech_and_voices_are_refused_before_requests_are() {
        for (text, parts) in [
            ("[speak]\nspeed = 9", ["speak.speed", "between 0.25 and 4"]),
            ("[speak]\nspeed = nan", ["speak.speed", "between"]),
            ("[voices]\nmax_recording_secs = nan", ["voices.max_recording_secs", "seconds"]),
            ("[voices]\nmax_recording_secs = -1.0", ["voices.max_recording_secs", "seconds"]),
        ] {
            let message = load(text).expect_err("refused").to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
        }
    }

    #[test]
    fn voices_are_kept_where_the_user_has_data() {
        let voices = load("").expect("the defaults").voices;
        let of = |folder: &str, pairs: &'static [(&'static str, &'static str)]| {
            let voices = Voices { folder: folder.to_owned(), ..voices.clone() };
            let found = voices.folder_by(&move |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            });
            found.map(|path| path.to_string_lossy().into_owned())
        };
        let expected = |path: &str| Some(path.to_owned());
        assert_eq!(of("", &[("HOME", "/h")]), expected("/h/.local/share/speechd/voices"));
        assert_eq!(
            of("", &[("HOME", "/h"), ("XDG_DATA_HOME", "")]),
            expected("/h/.local/share/speechd/voices")
        );
        assert_eq!(
            of("", &[("HOME", "/h"), ("XDG_DATA_HOME", "d")]),
            expected("/h/.local/share/speechd/voices")
        );
        assert_eq!(of("", &[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]), expected("/d/speechd/voices"));
        assert_eq!(of("~/v", &[("HOME", "/h")]), expected("/h/v"));
        assert_eq!(of("/v", &[]), expected("/v"));
        assert_eq!(of("v", &[]), expected("v"), "whoever writes that means it");
        // No folder that is called `~`, and none below the working directory.
        for pairs in [&[][..], &[("HOME", "")], &[("HOME", "h")]] {
            assert_eq!((of("", pairs), of("~/v", pairs)), (None, None), "{pairs:?}");
        }
    }

    #[test]
    fn the_file_wins_over_the_defaults() {
        let config = load("[transcribe]\nlogprob_threshold = \"off\"\npatience = 2\nlanguage = \"ps\"");
        let options = config.expect("a configuration").transcribe.decode_options(true);
        assert_eq!((options.logprob_threshold, options.patience), (None, Some(2.0)));
        assert_eq!((options.language.as_deref(), options.timestamps), (Some("ps"), Timestamps::Word));
    }

    #[test]
    fn wrong_settings_name_the_file_the_key_and_what_is_allowed() {
        for (text, parts) in [
            ("[transcribe]\nbeams = 3", ["speechd.toml", "beams", "beam_size"]),
            ("[service]\nport = 1", ["speechd.toml", "service", "transcribe"]),
            (
                "[serve]\ndrain_secs = -1.0",
                ["speechd.toml", "serve.drain_secs", "-1 is not a number of seconds"],
            ),
            ("[serve]\nmodels = \"a\"", ["speechd.toml", "serve.models", "sequence"]),
            ("[transcribe]\nbeam_size = \"x\"", ["speechd.toml", "transcribe.beam_size", "\"model\""]),
            ("[transcribe]\nformat = \"doc\"", ["speechd.toml", "format", "verbose_json"]),
            ("[transcribe]\nlogprob_threshold = \"no\"", ["speechd.toml", "logprob_threshold", "\"off\""]),
            ("[transcribe", ["speechd.toml", "line 1", ""]),
        ] {
            let message = load(text).expect_err("refused").to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
        }
    }

    #[test]
    fn uploads_are_decoded_on_every_core_unless_told_otherwise() {
        let uploads = load("").expect("the defaults").uploads;
        assert!(uploads.n_children() >= 1);
        assert_eq!(Uploads { decode_children: 3, ..uploads }.n_children(), 3);
    }

    #[test]
    fn an_upload_has_the_samples_that_length_and_memory_allow() {
        let uploads = Uploads { max_duration_secs: 60.5, ..load("").expect("the defaults").uploads };
        assert_eq!(uploads.max_samples(16_000), 968_001);
        assert_eq!(Uploads { max_samples_bytes: 4_000, ..uploads }.max_samples(16_000), 1_000);
        assert_eq!(Uploads { max_duration_secs: f64::NAN, ..uploads }.max_samples(16_000), 1);
    }

    #[test]
    fn fallback_ends_above_temperature_zero() {
        let mut transcribe = load("").expect("the defaults").transcribe;
        transcribe.temperature = 0.4;
        assert!(!transcribe.decode_options(false).fallback);
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            default_cache(&move |name| {
                pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
            })
        };
        assert_eq!(of(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(of(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), Path::new("/h/hf/hub"));
        assert_eq!(of(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
    }
}
