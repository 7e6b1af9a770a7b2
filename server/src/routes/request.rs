//! What a form asks for, parsed once into one value. Every field of the OpenAI API is honoured or refused with a reason;
//! beyond it there are fields with the names and meanings of the command line's flags. What is not given is as in the
//! configuration's `[transcribe]`, except the format: it is `json`.

mod chunking;

use std::ops::RangeInclusive;

use clap::ValueEnum;
use models::{DecodeOptions, TRANSLATED_TO, Task};

use super::{fields::Fields, form::Field};
use crate::{
    config::{BeamSize, Punctuation, Transcribe},
    error::{Error, quoted},
    render::{self, Format},
};

use chunking::chunking_strategy;
pub(super) use chunking::{Chunking, MAX_CHUNKING_MS};

/// Languages that a request may name as candidates.
pub(super) const MAX_LANGUAGES: usize = 100;
/// All hotwords and keywords together: many times what fits before a text.
const MAX_HOTWORDS_BYTES: usize = 4096;
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
    /// Who is to translate the transcript, and into what; the options then are those of a transcription.
    pub cascade: Option<CascadeRequest>,
    /// The field that the hotwords came in, which has two names.
    pub hotwords_param: &'static str,
}

/// A translation by two models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CascadeRequest {
    /// What the client calls the translator, if it does.
    pub name: Option<String>,
    /// Code of the language that it is to write.
    pub to_language: String,
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

    /// What a model has against the options, under the name that the field has in this request. A translation that it cannot write,
    /// `translator` may.
    pub(super) fn refusal(&self, error: models::Error, translator: Option<&str>) -> Error {
        match (error, translator) {
            (models::Error::Option { option: "hotwords", message }, _) => {
                Error::invalid(self.hotwords_param, message)
            }
            (models::Error::Option { option: option @ ("to_language" | "task"), message }, Some(name))
                if self.options.task == Task::Translate =>
            {
                let message = format!("{message}; with cascade=true, {name} translates the transcript");
                models::Error::Option { option, message }.into()
            }
            (error, _) => error.into(),
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
        let (mut hotwords_param, mut cascade) = ("hotwords", None);
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
                cascade = fields.text("cascade")?.and_then(|text| CascadeRequest::of(text, &settings));
                if cascade.is_some() {
                    if stream {
                        let message = "not with stream: the translator waits for the whole transcript";
                        return Err(Error::invalid("cascade", message));
                    }
                    settings.task = Task::Transcribe;
                }
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
            cascade,
            hotwords_param,
        }))
    }
}

impl CascadeRequest {
    /// What the field says, a switch or a name; `None` asks for none.
    fn of(text: &str, settings: &Transcribe) -> Option<Self> {
        let name = match text {
            "" | "false" | "False" | "0" => return None,
            "true" | "True" | "1" => None,
            name => Some(name.to_owned()),
        };
        let to_language = Some(settings.to_language.as_str()).filter(|code| !code.is_empty());
        Some(Self { name, to_language: to_language.unwrap_or(TRANSLATED_TO).to_owned() })
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

#[cfg(test)]
mod tests;
