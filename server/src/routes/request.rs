//! What a form asks for, parsed once into one value. Every field of the OpenAI API is honoured or refused with a reason;
//! beyond it there are fields with the names and meanings of the command line's flags. What is not given is as in the
//! configuration's `[transcribe]`, except the format: it is `json`.

use std::ops::RangeInclusive;

use audio::VadOptions;
use clap::ValueEnum;
use models::{DecodeOptions, Task};
use serde::{Deserialize, Deserializer};

use super::{
    fields::{Fields, decimal, narrowed, number},
    form::{Field, shown_name},
};
use crate::{
    config::{BeamSize, Punctuation, Transcribe, Vad},
    error::{Error, quoted},
    render::{self, Format},
};

/// Languages that a request may name as candidates.
pub(super) const MAX_LANGUAGES: usize = 100;
/// All hotwords and keywords together: many times what fits before a text.
const MAX_HOTWORDS_BYTES: usize = 4096;
/// The longest pause or margin that a chunking strategy may ask for.
pub(super) const MAX_CHUNKING_MS: u32 = 60_000;
/// Of what a parser says about JSON.
const MAX_REASON_CHARS: usize = 160;
/// What thresholds may be.
pub(super) const PATIENCES: RangeInclusive<f32> = 0.01..=16.0;
pub(super) const COMPRESSION_RATIOS: RangeInclusive<f32> = 0.0..=1000.0;
pub(super) const LOGPROBS: RangeInclusive<f32> = -1000.0..=0.0;
pub(super) const PROBABILITIES: RangeInclusive<f32> = 0.0..=1.0;

/// A request to transcribe or translate one recording.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscriptionRequest {
    /// The model's name, as the client wrote it: anything.
    pub model: String,
    /// How to decode; possible in itself, not yet held against the model.
    pub options: DecodeOptions,
    /// How the result is written.
    pub format: Format,
    /// Whether `verbose_json` lists words.
    pub words: bool,
    /// Whether `verbose_json` lists segments.
    pub segments: bool,
    /// Whether `json` lists the log-probabilities of tokens.
    pub logprobs: bool,
    /// Whether the result comes as server-sent events. Only `json` and `text`: events hold text that adds up.
    pub stream: bool,
    /// The field that the hotwords came in, which has two names.
    pub hotwords_param: &'static str,
}

/// `chunking_strategy` of the type `server_vad`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chunking {
    /// Sound that is kept before speech begins, ms.
    pub prefix_padding_ms: u32,
    /// A shorter pause does not end speech, ms.
    pub silence_duration_ms: u32,
    /// The probability from which a frame is speech.
    pub threshold: f32,
}

impl TranscriptionRequest {
    /// What all fields of a form ask for.
    ///
    /// # Errors
    /// A field that is unknown, missing, impossible, or that contradicts another.
    pub fn parse(task: Task, fields: &[Field], defaults: &Transcribe) -> Result<Self, Error> {
        Self::read(task, fields, true, defaults)?.ok_or(Error::Missing("model"))
    }

    /// What the first fields of a form ask for, as far as they say it; `None` while they name no model.
    ///
    /// # Errors
    /// What no further field can put right.
    pub fn begin(task: Task, fields: &[Field], defaults: &Transcribe) -> Result<Option<Self>, Error> {
        Self::read(task, fields, false, defaults)
    }

    /// What a model has against the options, under the name that the field has in this request.
    pub(super) fn refusal(&self, error: models::Error) -> Error {
        match error {
            models::Error::Option { option: "hotwords", message } => {
                Error::invalid(self.hotwords_param, message)
            }
            error => error.into(),
        }
    }

    fn read(
        task: Task,
        fields: &[Field],
        is_complete: bool,
        defaults: &Transcribe,
    ) -> Result<Option<Self>, Error> {
        let mut fields = Fields::new(fields);
        let mut settings = Transcribe { task, ..defaults.clone() };
        let model = fields.text("model")?;
        let format = fields.text("response_format")?.map(response_format).transpose()?;
        // A field that needs a certain format is refused when there is another one, or no format any more.
        let needs = |param: &'static str, formats: &[Format]| match format {
            Some(format) if formats.contains(&format) => Ok(()),
            None if !is_complete || formats.contains(&Format::Json) => Ok(()),
            _ => {
                let names: Vec<_> = formats.iter().map(value_name).collect();
                Err(Error::invalid(param, format!("only with response_format {}", names.join(" or "))))
            }
        };
        let language = fields.text("language")?;
        if let Some(language) = language {
            settings.language = match language {
                // Forms in web pages send what was left empty.
                "" | "auto" => "auto".to_owned(),
                language => known_language("language", language)?,
            };
        }
        let mut hotwords = fields.list("hotwords");
        let vad = fields.text("vad")?.map(|vad| choice("vad", vad)).transpose()?;
        set(&mut settings.vad, vad);
        decoding(&mut fields, &mut settings)?;
        let stream = fields.switch("stream")?.unwrap_or(false);
        if stream {
            needs("stream", &[Format::Json, Format::Text])?;
        }

        let mut languages = Vec::new();
        let mut granularities = Vec::new();
        let (mut logprobs, mut chunking) = (false, None);
        let mut hotwords_param = "hotwords";
        match task {
            Task::Transcribe => {
                languages = candidates(&fields.list("languages"))?;
                if !languages.is_empty() {
                    if language.is_some() {
                        return Err(Error::invalid(
                            "languages",
                            "language says it already; give one of them",
                        ));
                    }
                    "auto".clone_into(&mut settings.language);
                }
                // The same under another name; both together are all of them.
                let keywords = fields.list("keywords");
                if hotwords.is_empty() && !keywords.is_empty() {
                    hotwords_param = "keywords";
                }
                hotwords.extend(keywords);
                granularities = fields.list("timestamp_granularities");
                for granularity in &granularities {
                    if !["word", "segment"].contains(granularity) {
                        let message = format!("{} is neither word nor segment", quoted(granularity));
                        return Err(Error::invalid("timestamp_granularities", message));
                    }
                    needs("timestamp_granularities", &[Format::VerboseJson])?;
                }
                for include in fields.list("include") {
                    if include != "logprobs" {
                        let message = format!("{} is not logprobs", quoted(include));
                        return Err(Error::invalid("include", message));
                    }
                    needs("include", &[Format::Json])?;
                    logprobs = true;
                }
                chunking = chunking_strategy(&mut fields, &mut settings, vad.is_some())?;
                for param in ["known_speaker_names", "known_speaker_references"] {
                    if !fields.list(param).is_empty() {
                        return Err(Error::unsupported(param, "speakers are not told apart"));
                    }
                }
            }
            Task::Translate => {
                // Which languages it reaches, the model knows.
                let to_language = fields.text("to_language")?.filter(|language| !language.is_empty());
                let to_language = to_language.map(|language| known_language("to_language", language));
                set(&mut settings.to_language, to_language.transpose()?);
            }
        }
        if !hotwords.is_empty() {
            hotwords.retain(|word| !word.is_empty());
            settings.hotwords = hotwords.join(", ");
            if settings.hotwords.len() > MAX_HOTWORDS_BYTES {
                let message = format!("more than {MAX_HOTWORDS_BYTES} bytes; no model has room for them");
                return Err(Error::invalid(hotwords_param, message));
            }
        }
        fields.finish()?;

        let words = granularities.contains(&"word");
        settings.format = format.unwrap_or(Format::Json);
        let mut options = settings.decode_options(words);
        options.languages = languages;
        if let Some(chunking) = chunking {
            options.vad_options = chunking.vad_options();
        }
        options.check()?;
        Ok(model.map(|model| Self {
            model: model.to_owned(),
            options,
            format: settings.format,
            words,
            segments: granularities.is_empty() || granularities.contains(&"segment"),
            logprobs,
            stream,
            hotwords_param,
        }))
    }
}

/// The fields that say how to decode, whatever the task.
fn decoding(fields: &mut Fields<'_>, settings: &mut Transcribe) -> Result<(), Error> {
    if let Some(prompt) = fields.text("prompt")? {
        prompt.clone_into(&mut settings.prompt);
    }
    let temperature = fields.decimal("temperature")?;
    set(&mut settings.temperature, temperature);
    set(&mut settings.beam_size, fields.number("beam_size")?.map(BeamSize::Of));
    set(&mut settings.best_of, fields.number("best_of")?);
    set(&mut settings.patience, fields.threshold("patience", PATIENCES)?);
    set(&mut settings.length_penalty, fields.decimal("length_penalty")?);
    let fallback = fields.switch("fallback")?;
    if fallback == Some(true) && temperature.is_some_and(|temperature| temperature > 0.0) {
        return Err(Error::invalid(
            "fallback",
            "only at temperature 0, from which it raises the temperature",
        ));
    }
    set(&mut settings.fallback, fallback);
    set(
        &mut settings.compression_ratio_threshold,
        fields.threshold("compression_ratio_threshold", COMPRESSION_RATIOS)?,
    );
    set(&mut settings.logprob_threshold, fields.threshold("logprob_threshold", LOGPROBS)?);
    set(&mut settings.no_speech_threshold, fields.threshold("no_speech_threshold", PROBABILITIES)?);
    set(&mut settings.condition_on_previous_text, fields.switch("condition_on_previous_text")?);
    let punctuation = match fields.text("punctuation")? {
        None | Some("") => None,
        Some("model") => Some(Punctuation::Model),
        // As it was given: there is one switch, and one message.
        Some(_) => {
            fields.switch("punctuation")?.map(|on| if on { Punctuation::On } else { Punctuation::Off })
        }
    };
    set(&mut settings.punctuation, punctuation);
    set(&mut settings.max_new_tokens, fields.number("max_new_tokens")?);
    set(&mut settings.seed, fields.number("seed")?);
    Ok(())
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn response_format(text: &str) -> Result<Format, Error> {
    match text {
        "diarized_json" => {
            Err(Error::unsupported("response_format", "diarized_json: speakers are not told apart"))
        }
        text => choice("response_format", text),
    }
}

/// One of the words of `T`.
fn choice<T: ValueEnum>(name: &'static str, text: &str) -> Result<T, Error> {
    T::from_str(text, false).map_err(|_| {
        let words: Vec<_> = T::value_variants().iter().map(value_name).collect();
        Error::invalid(name, format!("{} is not one of {}", quoted(text), words.join(", ")))
    })
}

fn value_name<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn known_language(name: &'static str, text: &str) -> Result<String, Error> {
    render::parse_language(text).ok_or_else(|| {
        let message = format!("{} is neither a code such as ps nor an English name", quoted(text));
        Error::invalid(name, message)
    })
}

fn candidates(texts: &[&str]) -> Result<Vec<String>, Error> {
    if texts.len() > MAX_LANGUAGES {
        return Err(Error::invalid("languages", format!("more than {MAX_LANGUAGES}")));
    }
    let mut languages: Vec<String> = Vec::new();
    for text in texts {
        let language = known_language("languages", text)?;
        if !languages.contains(&language) {
            languages.push(language);
        }
    }
    Ok(languages)
}

/// How the recording is cut: `auto`, or an object, as JSON or field by field.
fn chunking_strategy(
    fields: &mut Fields<'_>,
    settings: &mut Transcribe,
    has_vad: bool,
) -> Result<Option<Chunking>, Error> {
    const PARAM: &str = "chunking_strategy";
    let text = fields.text(PARAM)?;
    let members = fields.members(PARAM);
    let strategy = match (text, members.as_slice()) {
        (None, []) | (Some("null"), []) => return Ok(None),
        (Some("auto" | "\"auto\""), []) => None,
        (Some(json), []) => Some(Chunking::from_json(json)?),
        (None, members) => Some(Chunking::from_members(members)?),
        (Some(_), _) => return Err(Error::invalid(PARAM, "given twice")),
    };
    if has_vad {
        return Err(Error::invalid(PARAM, "vad says it already; give one of them"));
    }
    settings.vad = if strategy.is_some() { Vad::On } else { Vad::Auto };
    Ok(strategy)
}

impl Chunking {
    /// What the OpenAI API does where nothing is said.
    pub(super) const DEFAULT: Self =
        Self { prefix_padding_ms: 300, silence_duration_ms: 200, threshold: 0.5 };

    /// As the detector takes it. Speech goes on a little below the threshold, as in the tools that it is known from, and
    /// nothing but the threshold is asked of it: between short pauses are short words, which may not get far above it.
    fn vad_options(self) -> VadOptions {
        let defaults = VadOptions::default();
        VadOptions {
            threshold: self.threshold,
            end_threshold: (self.threshold - (defaults.threshold - defaults.end_threshold)).max(0.0),
            peak_threshold: self.threshold,
            min_silence_secs: f64::from(self.silence_duration_ms) / 1000.0,
            pad_secs: f64::from(self.prefix_padding_ms) / 1000.0,
            ..defaults
        }
    }

    fn from_json(json: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strategy {
            r#type: ServerVad,
            #[serde(default, deserialize_with = "given")]
            prefix_padding_ms: Option<u32>,
            #[serde(default, deserialize_with = "given")]
            silence_duration_ms: Option<u32>,
            #[serde(default, deserialize_with = "given")]
            threshold: Option<f64>,
        }
        /// Left out or a number: `null` is neither.
        fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
            T::deserialize(value).map(Some)
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum ServerVad {
            ServerVad,
        }
        let strategy: Strategy = serde_json::from_str(json).map_err(|error| {
            // It may repeat what was sent.
            let reason: String = error.to_string().chars().take(MAX_REASON_CHARS).collect();
            let message = format!("neither auto nor an object of the type server_vad: {reason}");
            Error::invalid("chunking_strategy", message)
        })?;
        let ServerVad::ServerVad = strategy.r#type;
        Self {
            prefix_padding_ms: strategy.prefix_padding_ms.unwrap_or(Self::DEFAULT.prefix_padding_ms),
            silence_duration_ms: strategy.silence_duration_ms.unwrap_or(Self::DEFAULT.silence_duration_ms),
            threshold: strategy.threshold.map_or(Self::DEFAULT.threshold, narrowed),
        }
        .check()
    }

    fn from_members(members: &[(&str, &str)]) -> Result<Self, Error> {
        let mut chunking = Self::DEFAULT;
        let mut seen: Vec<&str> = Vec::new();
        for &(key, value) in members {
            let param = format!("chunking_strategy[{}]", shown_name(key));
            if seen.contains(&key) {
                return Err(Error::invalid(param, "given twice"));
            }
            seen.push(key);
            match key {
                "type" if value == "server_vad" => {}
                "type" => return Err(Error::invalid(param, format!("{} is not server_vad", quoted(value)))),
                "prefix_padding_ms" => chunking.prefix_padding_ms = number(param, value)?,
                "silence_duration_ms" => chunking.silence_duration_ms = number(param, value)?,
                "threshold" => chunking.threshold = decimal(param, value)?,
                _ => {
                    let known = "type, prefix_padding_ms, silence_duration_ms, threshold".to_owned();
                    return Err(Error::Unknown { param, known });
                }
            }
        }
        if !seen.contains(&"type") {
            return Err(Error::Missing("chunking_strategy[type]"));
        }
        chunking.check()
    }

    fn check(self) -> Result<Self, Error> {
        for (key, ms) in
            [("prefix_padding_ms", self.prefix_padding_ms), ("silence_duration_ms", self.silence_duration_ms)]
        {
            if ms > MAX_CHUNKING_MS {
                let message = format!("{ms} is not between 0 and {MAX_CHUNKING_MS}");
                return Err(Error::invalid(format!("chunking_strategy[{key}]"), message));
            }
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            let message = format!("{} is not between 0 and 1", self.threshold);
            return Err(Error::invalid("chunking_strategy[threshold]", message));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
