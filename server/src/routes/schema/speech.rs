//! The bodies and responses of what speaks. A test holds that of `/v1/audio/speech` against what `SpeechRequest` reads.

use std::{borrow::Cow, collections::BTreeMap};

use audio::encode::AudioFormat;
use serde_json::json;
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{
        Content, ContentBuilder, Ref, RefOr, Response, ResponseBuilder,
        schema::{
            AdditionalProperties, AnyOfBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema,
            SchemaFormat,
        },
    },
};

use super::{integer, number, refusals, text, words};
use crate::{
    error::ErrorBody,
    routes::speech::{SpeechDelta, SpeechDone, request::MAX_INPUT_CHARS},
    speaking::BUILT_IN,
};

/// The body of `POST /v1/audio/speech`.
pub(in crate::routes) struct SpeechBody;

/// The form of `POST /v1/audio/voices`.
pub(in crate::routes) struct VoiceForm;

/// The form of `POST /v1/audio/voice_consents`.
pub(in crate::routes) struct ConsentForm;

/// The body of `POST /v1/audio/voice_consents/{id}`.
pub(in crate::routes) struct ConsentName;

impl ToSchema for SpeechBody {
    fn name() -> Cow<'static, str> {
        "SpeechBody".into()
    }
}

impl ToSchema for VoiceForm {
    fn name() -> Cow<'static, str> {
        "VoiceForm".into()
    }
}

impl ToSchema for ConsentForm {
    fn name() -> Cow<'static, str> {
        "ConsentForm".into()
    }
}

impl ToSchema for ConsentName {
    fn name() -> Cow<'static, str> {
        "ConsentName".into()
    }
}

impl PartialSchema for SpeechBody {
    fn schema() -> RefOr<Schema> {
        let formats = AudioFormat::ALL.map(AudioFormat::extension);
        let id = ObjectBuilder::new()
            .property("id", text("The id of a voice."))
            .required("id")
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
        let voice = format!(
            "A voice of the model, or the id of one that was brought to `/v1/audio/voices`, plain or in an object. OpenAI's names \
             ({}) stand for the model's voices in their order, over again where it has fewer.",
            BUILT_IN.join(", ")
        );
        object("A text to speak.")
            .property("model", text("One of `GET /v1/models` whose `task` is `speech`."))
            .required("model")
            .property(
                "input",
                text("The text.").min_length(Some(1)).max_length(Some(MAX_INPUT_CHARS)),
            )
            .required("input")
            .property(
                "voice",
                OneOfBuilder::new()
                    .item(text("").min_length(Some(1)).max_length(Some(200)))
                    .item(id)
                    .description(Some(voice)),
            )
            .required("voice")
            .property(
                "instructions",
                text("Refused where it is not empty: the models here follow none.").max_length(Some(0)),
            )
            .property(
                "response_format",
                words(&formats, "How the sound is written, at 24 kHz; `aac` is refused.").default(Some(json!("mp3"))),
            )
            .property("speed", number(0.25, 4.0, "How fast; 1 is as the voice speaks.").default(Some(json!(1.0))))
            .property(
                "stream_format",
                words(
                    &["audio", "sse"],
                    "The bytes as they are made, or server-sent events that hold them: `speech.audio.delta` and at the end \
                     `speech.audio.done`.",
                )
                .default(Some(json!("audio"))),
            )
            .property(
                "language",
                text(
                    "The language of the text: a code such as `ps` or an English name; without it the model's first. Not part of the \
                     OpenAI API, as all that follows.",
                ),
            )
            .property("seed", integer(0, u64::MAX as usize, "The same seed gives the same sound."))
            .property(
                "steps",
                integer(
                    1,
                    64,
                    "Steps in which noise becomes sound, as many as this server allows (`serve.max_speak_steps`); without it the \
                     model's.",
                ),
            )
            .property(
                "guidance",
                number(
                    0.0,
                    10.0,
                    "How closely the text is followed, as far as this server allows (`serve.max_speak_guidance`); without it the \
                     model's.",
                ),
            )
            .property("temperature", number(0.0, 2.0, "How much the speech varies; without it the model's."))
            .into()
    }
}

impl PartialSchema for VoiceForm {
    fn schema() -> RefOr<Schema> {
        object("Somebody's voice.")
            .property("name", text("What it is to be called.").min_length(Some(1)).max_length(Some(200)))
            .required("name")
            .property("consent", text("The id of the consent of whom the voice belongs to."))
            .required("consent")
            .property("type", words(&["audio_sample"], "`prompt` is refused: voices are made of recordings."))
            .property(
                "audio_sample",
                recording("A recording of the voice, of 1 s at least; 5 to 15 s are good."),
            )
            .required("audio_sample")
            .into()
    }
}

impl PartialSchema for ConsentForm {
    fn schema() -> RefOr<Schema> {
        object("Somebody's consent.")
            .property("name", text("What it is to be called.").min_length(Some(1)).max_length(Some(200)))
            .required("name")
            .property("language", text("The language that it is in, as a BCP 47 tag such as `en-US`."))
            .required("language")
            .property("recording", recording("A recording in which the owner of the voice consents."))
            .required("recording")
            .into()
    }
}

impl PartialSchema for ConsentName {
    fn schema() -> RefOr<Schema> {
        object("What a consent is to be called.")
            .property("name", text("").min_length(Some(1)).max_length(Some(200)))
            .required("name")
            .into()
    }
}

fn object(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some(description))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

fn recording(description: &str) -> ObjectBuilder {
    text(description).format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
}

/// What `POST /v1/audio/speech` answers with.
pub(in crate::routes) struct Speech;

impl IntoResponses for Speech {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let sound = |format: AudioFormat| {
            let bytes = recording("");
            (format.content_type(), Content::new(Some(bytes)))
        };
        let mut found = ResponseBuilder::new().description("The sound, in the format that was asked for.");
        for (content_type, content) in AudioFormat::ALL.map(sound) {
            found = found.content(content_type, content);
        }
        let data = AnyOfBuilder::new()
            .item(Ref::from_schema_name(SpeechDelta::name()))
            .item(Ref::from_schema_name(SpeechDone::name()))
            .item(Ref::from_schema_name(ErrorBody::name()));
        let data = text("More of the sound; at the end what was spoken, or why it broke off.")
            .content_media_type("application/json")
            .content_schema(Some(Schema::AnyOf(data.build())));
        let event = ObjectBuilder::new().property("data", data).required("data");
        let found = found.content("text/event-stream", ContentBuilder::new().schema(Some(event)).build());
        let mut responses = BTreeMap::from([("200".to_owned(), found.build().into())]);
        responses.extend(refusals(&[400, 401, 404, 405, 413, 415, 429, 500, 503, 504]));
        responses
    }
}

/// How something that is to be kept is refused.
pub(in crate::routes) struct KeepRefusals;

impl IntoResponses for KeepRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 503, 504])
    }
}

/// How something that is kept is not found.
pub(in crate::routes) struct LookRefusals;

impl IntoResponses for LookRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[400, 401, 404, 405, 500, 503])
    }
}

/// How something that is kept is not taken away.
pub(in crate::routes) struct RemoveRefusals;

impl IntoResponses for RemoveRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[400, 401, 403, 404, 405, 500, 503])
    }
}
