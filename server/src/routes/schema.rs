//! The forms and responses of `/v1/audio/*` as `/openapi.json` describes them. A test holds the forms against what
//! `TranscriptionRequest` reads.

mod speech;

use std::{borrow::Cow, collections::BTreeMap, ops::RangeInclusive};

use axum::http::StatusCode;
use clap::ValueEnum;
use serde_json::json;
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{
        Content, ContentBuilder, Ref, RefOr, Response, ResponseBuilder,
        schema::{
            AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder,
            Schema, SchemaFormat, Type,
        },
    },
};

use super::{
    fields::exact,
    request::{
        COMPRESSION_RATIOS, Chunking, LOGPROBS, MAX_CHUNKING_MS, MAX_LANGUAGES, PATIENCES, PROBABILITIES,
    },
};
use crate::{
    config::Vad,
    error::ErrorBody,
    render::{Format, Json, VerboseJson, stream},
};

pub(super) use speech::{
    ConsentForm, ConsentName, KeepRefusals, LookRefusals, RemoveRefusals, Speech, SpeechBody, VoiceForm,
};

/// The form of `POST /v1/audio/transcriptions`.
pub(super) struct TranscriptionForm;

/// The form of `POST /v1/audio/translations`.
pub(super) struct TranslationForm;

impl ToSchema for TranscriptionForm {
    fn name() -> Cow<'static, str> {
        "TranscriptionForm".into()
    }
}

impl ToSchema for TranslationForm {
    fn name() -> Cow<'static, str> {
        "TranslationForm".into()
    }
}

impl PartialSchema for TranscriptionForm {
    fn schema() -> RefOr<Schema> {
        let form = form("A recording to write down. Lists may also be spelled without the brackets.")
            .property(
                "languages[]",
                list(
                    text("A code or an English name."),
                    "The languages that may be spoken; not with `language`.",
                )
                .max_items(Some(MAX_LANGUAGES)),
            )
            .property(
                "keywords[]",
                list(
                    text("A word or phrase."),
                    "Words that are likely to be said, as `hotwords[]`: together they are one list.",
                ),
            )
            .property(
                "timestamp_granularities[]",
                list(
                    words(&["word", "segment"], ""),
                    "Which times `verbose_json` has; `segment` when not given. Only with `verbose_json`.",
                ),
            )
            .property(
                "include[]",
                list(
                    words(&["logprobs"], ""),
                    "`logprobs`: the log-probability of every token. Only with `json`.",
                ),
            )
            .property("chunking_strategy", chunking())
            .property(
                "known_speaker_names[]",
                list(text(""), "Refused: speakers are not told apart.").max_items(Some(0)),
            )
            .property(
                "known_speaker_references[]",
                list(text(""), "Refused: speakers are not told apart.").max_items(Some(0)),
            );
        decoding(form).into()
    }
}

impl PartialSchema for TranslationForm {
    fn schema() -> RefOr<Schema> {
        let form = form("A recording to translate. Lists may also be spelled without the brackets.")
            .property(
                "to_language",
                text(
                    "The language to translate into: a code such as `ps` or an English name; without it, what the service is configured for, else English. \
                     Refused where the model cannot reach it.",
                ),
            )
            .property(
                "cascade",
                OneOfBuilder::new().item(switch("")).item(text("")).description(Some(
                    "`true`, or the name of the translator of text that this service was started with: the model writes down what is \
                     said, and the translator translates that. The result names it. Refused where there is none, and not with `stream`.",
                )),
            );
        decoding(form).into()
    }
}

/// The fields of the OpenAI API that both forms have; `stream` there is one of transcriptions alone.
fn form(description: &str) -> ObjectBuilder {
    let file = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .description(Some("The recording: WAV, FLAC, MP3, Ogg, Opus, WebM, M4A, AIFF or CAF."));
    ObjectBuilder::new()
        .description(Some(description))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .property("file", file)
        .required("file")
        .property("model", text("One of `GET /v1/models`."))
        .required("model")
        .property("response_format", values::<Format>("How the result is written.", "json"))
        .property(
            "language",
            text(
                "The language spoken: a code such as `ps` or an English name; `auto` or nothing detects it, where the model can or hears one only.",
            ),
        )
        .property(
            "prompt",
            text(
                "Text that precedes the audio: style, names, spelling. The model reads as much of its end as fits into half \
                 of its context (223 tokens of Whisper), less what hotwords take.",
            ),
        )
        .property("temperature", number(0.0, 1.0, "0 searches; above 0 samples, and turns the fallback off."))
        .property(
            "stream",
            switch(
                "Send the text as server-sent events while it is found: `transcript.text.delta` and at the end \
                 `transcript.text.done`, of translations too. Only with `json` and `text`: events hold text that adds up.",
            ),
        )
}

/// The fields beyond the OpenAI API: the command line's flags.
fn decoding(form: ObjectBuilder) -> ObjectBuilder {
    let threshold = |range: RangeInclusive<f32>, description: &str| {
        let number = number(exact(*range.start()), exact(*range.end()), "");
        OneOfBuilder::new().item(number).item(words(&["off"], "")).description(Some(description))
    };
    let hotwords = list(
        text("A word or phrase."),
        "Words that are likely to be said. More than fit into a quarter of the model's context (111 tokens of Whisper) \
         are refused.",
    );
    form.property("hotwords[]", hotwords)
        .property("vad", values::<Vad>("Whether silence is left out.", "auto"))
        .property("beam_size", integer(1, 64, "Hypotheses kept by beam search; 1 is greedy. Without it: what the model asks for, mostly 1."))
        .property(
            "best_of",
            integer(1, 64, "Samples drawn at a temperature above 0, of which the most probable is kept."),
        )
        .property(
            "patience",
            threshold(PATIENCES, "Beam search ends after `beam_size` times this many hypotheses."),
        )
        .property(
            "length_penalty",
            number(-8.0, 8.0, "Exponent by which beam search favours long hypotheses."),
        )
        .property(
            "fallback",
            switch("Decode again at rising temperatures when a result looks wrong. Only at temperature 0."),
        )
        .property(
            "compression_ratio_threshold",
            threshold(COMPRESSION_RATIOS, "Text that compresses better repeats itself: decode again."),
        )
        .property(
            "logprob_threshold",
            threshold(LOGPROBS, "A mean log-probability below is too unsure: decode again."),
        )
        .property(
            "no_speech_threshold",
            threshold(PROBABILITIES, "A window more probably silent, and unsure, is skipped."),
        )
        .property(
            "condition_on_previous_text",
            switch("The text of a window precedes the next one; only where windows follow each other: `vad` off."),
        )
        .property(
            "punctuation",
            OneOfBuilder::new().item(switch("")).item(words(&["model"], "")).description(Some(
                "Write punctuation and capitals, or none: for models that can be told, such as Canary; others refuse both. \
                 `model`: what the model does.",
            )),
        )
        .property("max_new_tokens", integer(0, 1 << 20, "Tokens that a window may produce; 0: half of the context."))
        .property("seed", integer(0, u64::MAX as usize, "Of the sampler: the same seed gives the same text."))
}

fn text(description: &str) -> ObjectBuilder {
    described(ObjectBuilder::new().schema_type(Type::String), description)
}

fn switch(description: &str) -> ObjectBuilder {
    described(ObjectBuilder::new().schema_type(Type::Boolean), description)
}

fn words(words: &[&str], description: &str) -> ObjectBuilder {
    text(description).enum_values(Some(words.iter().copied()))
}

fn values<T: ValueEnum>(description: &str, default: &str) -> ObjectBuilder {
    let names =
        T::value_variants().iter().filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()));
    text(description).enum_values(Some(names.collect::<Vec<_>>())).default(Some(json!(default)))
}

fn integer(minimum: usize, maximum: usize, description: &str) -> ObjectBuilder {
    let integer = ObjectBuilder::new().schema_type(Type::Integer);
    described(integer.minimum(Some(minimum)).maximum(Some(maximum)), description)
}

fn number(minimum: f64, maximum: f64, description: &str) -> ObjectBuilder {
    let number = ObjectBuilder::new().schema_type(Type::Number);
    described(number.minimum(Some(minimum)).maximum(Some(maximum)), description)
}

fn list(items: ObjectBuilder, description: &str) -> ArrayBuilder {
    ArrayBuilder::new().items(items).description(Some(description))
}

fn described(schema: ObjectBuilder, description: &str) -> ObjectBuilder {
    if description.is_empty() { schema } else { schema.description(Some(description)) }
}

fn chunking() -> OneOfBuilder {
    let ms = |default: u32, description: &str| {
        integer(0, MAX_CHUNKING_MS as usize, description).default(Some(json!(default)))
    };
    let defaults = Chunking::DEFAULT;
    let server_vad = ObjectBuilder::new()
        .property("type", words(&["server_vad"], ""))
        .required("type")
        .property(
            "prefix_padding_ms",
            ms(defaults.prefix_padding_ms, "Sound that is kept before speech begins."),
        )
        .property(
            "silence_duration_ms",
            ms(defaults.silence_duration_ms, "A shorter pause does not end speech."),
        )
        .property(
            "threshold",
            number(0.0, 1.0, "The probability from which a frame is speech.")
                .default(Some(json!(defaults.threshold))),
        )
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    let nothing = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().item(words(&["auto"], "")).item(server_vad).item(nothing).description(Some(
        "How the recording is cut; not with `vad`. An object comes as JSON, or field by field as \
         `chunking_strategy[type]`.",
    ))
}

/// What `POST /v1/audio/*` answers with.
pub(super) struct Transcription;

impl IntoResponses for Transcription {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let json = AnyOfBuilder::new()
            .item(Ref::from_schema_name(Json::name()))
            .item(Ref::from_schema_name(VerboseJson::name()));
        let plain = || Content::new(Some(text("")));
        let found = ResponseBuilder::new()
            .description("The transcript, in the format that was asked for.")
            .content(Format::Json.content_type(), ContentBuilder::new().schema(Some(json)).build())
            .content(Format::Text.content_type(), plain())
            .content(Format::Srt.content_type(), plain())
            .content(Format::Vtt.content_type(), plain())
            .content("text/event-stream", Content::new(Some(event())));
        let mut responses = BTreeMap::from([("200".to_owned(), found.build().into())]);
        responses.extend(refusals(&[400, 401, 404, 405, 408, 413, 415, 429, 500, 503, 504]));
        responses
    }
}

/// One event of a stream.
fn event() -> ObjectBuilder {
    let data = AnyOfBuilder::new()
        .item(Ref::from_schema_name(stream::Delta::name()))
        .item(Ref::from_schema_name(stream::Done::name()))
        .item(Ref::from_schema_name(ErrorBody::name()));
    let data = text("More of the text; at the end all of it, or why there is none.")
        .content_media_type("application/json")
        .content_schema(Some(Schema::AnyOf(data.build())));
    ObjectBuilder::new().property("data", data).required("data")
}

/// How `GET /v1/models` and what is below it fail.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[401, 404, 405, 500, 503])
    }
}

/// How a probe says no.
pub(super) struct NotReady;

impl IntoResponses for NotReady {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[405, 500, 503])
    }
}

/// How anything else fails.
pub(super) struct Faults;

impl IntoResponses for Faults {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[405, 500])
    }
}

fn refusals(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let refusal = |status: &u16| {
        let reason = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        let body = Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
        let response = ResponseBuilder::new()
            .description(reason.unwrap_or_default())
            .content("application/json", body)
            .build();
        (status.to_string(), response.into())
    };
    statuses.iter().map(refusal).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::error::Error;

    /// Names of fields.
    pub(in crate::routes) struct Documented {
        pub(in crate::routes) all: BTreeSet<String>,
        pub(in crate::routes) required: BTreeSet<String>,
    }

    /// The fields of a body as the document has them.
    pub(in crate::routes) fn documented<T: PartialSchema>() -> Documented {
        let schema = serde_json::to_value(T::schema()).expect("JSON");
        let all = schema["properties"].as_object().expect("properties").keys().cloned().collect();
        let required = schema["required"].as_array().expect("a list").iter();
        Documented { all, required: required.map(|name| name.as_str().expect("a name").to_owned()).collect() }
    }

    /// The fields that an error about one that is unknown lists.
    pub(in crate::routes) fn known(error: &Error) -> BTreeSet<String> {
        let Error::Unknown { known, .. } = error else { panic!("{error}") };
        known.split(", ").map(str::to_owned).collect()
    }
}
