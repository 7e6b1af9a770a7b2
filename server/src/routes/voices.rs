//! `/v1/audio/voices`: voices that clients bring, as recordings. Each needs a consent (`/v1/audio/voice_consents`) and is deleted with it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
};
use models::MIN_VOICE_SECS;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    fields::Fields,
    form::Field,
    origin::KnownOrigin,
    recording::{check_name, receive, required},
    schema::{KeepRefusals, LookRefusals, RemoveRefusals, VoiceForm},
};
use crate::{
    error::{Error, quoted},
    state::AppState,
    store::StoredVoice,
};

/// The part of the form that holds the recording.
const SAMPLE: &str = "audio_sample";

/// A voice as the OpenAI API writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VoiceObject {
    /// What requests to speak call it.
    #[schema(example = "voice_0123456789abcdef0123456789abcdef")]
    id: String,
    /// Always `audio.voice`.
    #[schema(example = "audio.voice")]
    object: &'static str,
    /// What people call it.
    name: String,
    /// Always `audio_sample`.
    #[schema(example = "audio_sample")]
    r#type: &'static str,
    /// When it was made, in seconds since 1970.
    created_at: u64,
    /// The consent that it was made with. Not part of the OpenAI API, whose clients ignore it.
    consent: String,
}

/// A list of voices.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VoiceList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// In the order in which they came.
    data: Vec<VoiceObject>,
}

/// That a voice is no more.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VoiceDeleted {
    /// What it was called.
    id: String,
    /// Always `audio.voice.deleted`.
    #[schema(example = "audio.voice.deleted")]
    object: &'static str,
    /// Always true.
    deleted: bool,
}

impl From<StoredVoice> for VoiceObject {
    fn from(voice: StoredVoice) -> Self {
        let StoredVoice { id, name, consent, created_at } = voice;
        Self { id, object: "audio.voice", name, r#type: SAMPLE, created_at, consent }
    }
}

/// Makes a voice of a recording of somebody who consents.
#[utoipa::path(
    post, path = "/v1/audio/voices", tag = "speech", security(("key" = []), ()),
    request_body(content = VoiceForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "The voice.", body = VoiceObject), KeepRefusals)
)]
pub(super) async fn create_voice(
    State(state): State<Arc<AppState>>,
    _: KnownOrigin,
    request: Request,
) -> Result<Json<VoiceObject>, Error> {
    let (head, body) = request.into_parts();
    state.voices.opened().await?;
    let check = |fields: &[Field], is_complete| -> Result<(), Error> {
        let VoiceRequest { consent, .. } = VoiceRequest::read(fields, is_complete)?;
        Ok(state.voices.check_voice(consent)?)
    };
    let (fields, sample) = receive(&state, &head.headers, body, SAMPLE, check).await?;
    let secs = sample.duration_secs();
    if secs < MIN_VOICE_SECS {
        let message = format!("it lasts {secs:.2} s; {MIN_VOICE_SECS} s is the least, 5 to 15 s are good");
        return Err(Error::invalid(SAMPLE, message));
    }
    let VoiceRequest { name, consent } = VoiceRequest::read(&fields, true)?;
    let (name, consent) = name.zip(consent).ok_or(Error::Missing("name"))?;
    let voice = state.voices.add_voice(name.to_owned(), consent.to_owned(), sample).await?;
    tracing::info!(id = voice.id, "a voice is kept");
    Ok(Json(voice.into()))
}

/// All voices that were brought here. Not part of the OpenAI API, which has no list of them.
#[utoipa::path(
    get, path = "/v1/audio/voices", tag = "speech", security(("key" = []), ()),
    responses((status = 200, description = "The voices.", body = VoiceList), LookRefusals)
)]
pub(super) async fn list_voices(State(state): State<Arc<AppState>>) -> Result<Json<VoiceList>, Error> {
    let data = state.voices.voices().await?.into_iter().map(VoiceObject::from).collect();
    Ok(Json(VoiceList { object: "list", data }))
}

/// Deletes a voice and its recording.
#[utoipa::path(
    delete, path = "/v1/audio/voices/{*id}", tag = "speech", security(("key" = []), ()),
    params(("id" = String, Path, description = "The voice's id.")),
    responses((status = 200, description = "It is no more.", body = VoiceDeleted), RemoveRefusals)
)]
pub(super) async fn delete_voice(
    State(state): State<Arc<AppState>>,
    _: KnownOrigin,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<VoiceDeleted>, Error> {
    let id = known_id(id)?;
    if !state.remove_voice(id.clone()).await? {
        return Err(Error::NotFound { what: "voice", id: quoted(&id) });
    }
    tracing::info!(id, "a voice is deleted");
    Ok(Json(VoiceDeleted { id, object: "audio.voice.deleted", deleted: true }))
}

/// The id in a path.
pub(super) fn known_id(id: Result<Path<String>, PathRejection>) -> Result<String, Error> {
    let Path(id) = id.map_err(|_| Error::NotFound { what: "id", id: "one that is not UTF-8".to_owned() })?;
    Ok(id)
}

/// What the form asks for, as far as it says it.
struct VoiceRequest<'a> {
    name: Option<&'a str>,
    consent: Option<&'a str>,
}

impl<'a> VoiceRequest<'a> {
    fn read(fields: &'a [Field], is_complete: bool) -> Result<Self, Error> {
        let mut fields = Fields::new(fields);
        match fields.text("type")? {
            None | Some(SAMPLE) => {}
            Some("prompt") => {
                let message = "prompt: voices are made of recordings here; audio_sample is the only type";
                return Err(Error::unsupported("type", message));
            }
            Some(other) => return Err(Error::invalid("type", format!("{} is not {SAMPLE}", quoted(other)))),
        }
        let name = required(&mut fields, "name", is_complete)?;
        name.map_or(Ok(()), check_name)?;
        let consent = required(&mut fields, "consent", is_complete)?;
        fields.finish()?;
        Ok(Self { name, consent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::schema::tests::{documented, known};

    #[test]
    fn the_document_has_the_fields_that_are_read() {
        let fields = [Field { name: "frobnicate".to_owned(), value: String::new() }];
        let read = known(&VoiceRequest::read(&fields, false).map(drop).expect_err("unknown"));
        let documented = documented::<VoiceForm>();
        assert_eq!(documented.all, &read | &[SAMPLE.to_owned()].into());
        // What a form has to have, it is missed for.
        for name in &documented.all {
            let others = documented.all.iter().filter(|other| *other != name && *other != SAMPLE);
            let value = |name: &str| if name == "type" { SAMPLE } else { "x" };
            let fields: Vec<_> =
                others.map(|name| Field { name: name.clone(), value: value(name).to_owned() }).collect();
            let is_missed = VoiceRequest::read(&fields, true).is_err();
            assert_eq!(is_missed || name == SAMPLE, documented.required.contains(name), "{name}");
        }
    }
}
