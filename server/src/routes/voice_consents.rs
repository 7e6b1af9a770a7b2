//! `/v1/audio/voice_consents`: recordings in which people consent to have their voice imitated.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, RawQuery, Request, State, rejection::PathRejection},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    fields::{Fields, number},
    form::Field,
    json::{self, Members},
    origin::KnownOrigin,
    recording::{check_name, receive, required},
    schema::{ConsentForm, ConsentName, KeepRefusals, LookRefusals, RemoveRefusals},
    voices::known_id,
};
use crate::{
    error::{Error, quoted},
    state::AppState,
    store::Consent,
};

/// The part of the form that holds the recording.
const RECORDING: &str = "recording";
/// The longest tag of a language, characters.
const MAX_TAG_CHARS: usize = 35;
/// How many a list has where nobody says, and at most.
const LIST_LIMITS: (usize, usize) = (20, 100);

/// A consent as the OpenAI API writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConsentObject {
    /// What requests for voices call it.
    #[schema(example = "cons_0123456789abcdef0123456789abcdef")]
    id: String,
    /// Always `audio.voice_consent`.
    #[schema(example = "audio.voice_consent")]
    object: &'static str,
    /// What people call it.
    name: String,
    /// The language that it is in, as a BCP 47 tag.
    #[schema(example = "en-US")]
    language: String,
    /// When it was given, in seconds since 1970.
    created_at: u64,
}

/// A page of a list of consents.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConsentList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// In the order in which they came.
    data: Vec<ConsentObject>,
    /// The first one's id.
    first_id: Option<String>,
    /// The last one's id: `after` of the next page.
    last_id: Option<String>,
    /// Whether there are others after these.
    has_more: bool,
}

/// That a consent is no more.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConsentDeleted {
    /// What it was called.
    id: String,
    /// Always `audio.voice_consent`.
    #[schema(example = "audio.voice_consent")]
    object: &'static str,
    /// Always true.
    deleted: bool,
}

impl From<Consent> for ConsentObject {
    fn from(consent: Consent) -> Self {
        let Consent { id, name, language, created_at } = consent;
        Self { id, object: "audio.voice_consent", name, language, created_at }
    }
}

/// Keeps somebody's consent to have a voice imitated.
#[utoipa::path(
    post, path = "/v1/audio/voice_consents", tag = "speech", security(("key" = []), ()),
    request_body(content = ConsentForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "The consent.", body = ConsentObject), KeepRefusals)
)]
pub(super) async fn create_consent(
    State(state): State<Arc<AppState>>,
    _: KnownOrigin,
    request: Request,
) -> Result<Json<ConsentObject>, Error> {
    let (head, body) = request.into_parts();
    state.voices.opened().await?;
    let check = |fields: &[Field], is_complete| -> Result<(), Error> {
        ConsentRequest::read(fields, is_complete)?;
        Ok(state.voices.check_consent()?)
    };
    let (fields, recording) = receive(&state, &head.headers, body, RECORDING, check).await?;
    let ConsentRequest { name, language } = ConsentRequest::read(&fields, true)?;
    let (name, language) = name.zip(language).ok_or(Error::Missing("name"))?;
    let consent = state.voices.add_consent(name.to_owned(), language.to_owned(), recording).await?;
    tracing::info!(id = consent.id, "a consent is kept");
    Ok(Json(consent.into()))
}

/// The consents that were given here.
#[utoipa::path(
    get, path = "/v1/audio/voice_consents", tag = "speech", security(("key" = []), ()),
    params(
        ("after" = Option<String>, Query, description = "The id of the consent after which to begin."),
        ("limit" = Option<usize>, Query, description = "How many, 1 to 100; 20 where it is not given.", minimum = 1, maximum = 100)
    ),
    responses((status = 200, description = "The consents.", body = ConsentList), LookRefusals)
)]
pub(super) async fn list_consents(
    State(state): State<Arc<AppState>>,
    RawQuery(query): RawQuery,
) -> Result<Json<ConsentList>, Error> {
    let (after, limit) = page(query.as_deref().unwrap_or_default())?;
    let consents = state.voices.consents().await?;
    let start = match after {
        None => 0,
        Some(after) => {
            let found = consents.iter().position(|consent| consent.id == after);
            found.ok_or_else(|| Error::invalid("after", format!("there is no consent {}", quoted(&after))))?
                + 1
        }
    };
    let has_more = consents.len() > start + limit;
    let data: Vec<_> = consents.into_iter().skip(start).take(limit).map(ConsentObject::from).collect();
    let id = |consent: Option<&ConsentObject>| consent.map(|consent| consent.id.clone());
    Ok(Json(ConsentList {
        object: "list",
        first_id: id(data.first()),
        last_id: id(data.last()),
        data,
        has_more,
    }))
}

/// One consent.
#[utoipa::path(
    get, path = "/v1/audio/voice_consents/{*id}", tag = "speech", security(("key" = []), ()),
    params(("id" = String, Path, description = "The consent's id.")),
    responses((status = 200, description = "The consent.", body = ConsentObject), LookRefusals)
)]
pub(super) async fn retrieve_consent(
    State(state): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ConsentObject>, Error> {
    let id = known_id(id)?;
    let consent = state.voices.consent(&id).await?;
    consent.map(|consent| Json(consent.into())).ok_or_else(|| unknown(&id))
}

/// Calls a consent otherwise.
#[utoipa::path(
    post, path = "/v1/audio/voice_consents/{*id}", tag = "speech", security(("key" = []), ()),
    params(("id" = String, Path, description = "The consent's id.")),
    request_body(content = ConsentName, content_type = "application/json"),
    responses((status = 200, description = "The consent.", body = ConsentObject), KeepRefusals)
)]
pub(super) async fn rename_consent(
    State(state): State<Arc<AppState>>,
    _: KnownOrigin,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<ConsentObject>, Error> {
    let id = known_id(id)?;
    let (head, body) = request.into_parts();
    let name = new_name(&json::read(&head.headers, body, &state.config.serve).await?)?;
    let consent = state.voices.rename_consent(&id, name).await?;
    consent.map(|consent| Json(consent.into())).ok_or_else(|| unknown(&id))
}

/// Deletes a consent, its recording, and the voices that were made with it.
#[utoipa::path(
    delete, path = "/v1/audio/voice_consents/{*id}", tag = "speech", security(("key" = []), ()),
    params(("id" = String, Path, description = "The consent's id.")),
    responses((status = 200, description = "It is no more.", body = ConsentDeleted), RemoveRefusals)
)]
pub(super) async fn delete_consent(
    State(state): State<Arc<AppState>>,
    _: KnownOrigin,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ConsentDeleted>, Error> {
    let id = known_id(id)?;
    if !state.remove_consent(id.clone()).await? {
        return Err(unknown(&id));
    }
    tracing::info!(id, "a consent and its voices are deleted");
    Ok(Json(ConsentDeleted { id, object: "audio.voice_consent", deleted: true }))
}

fn unknown(id: &str) -> Error {
    Error::NotFound { what: "consent", id: quoted(id) }
}

/// The name that a body wants.
fn new_name(body: &[u8]) -> Result<String, Error> {
    let mut members = Members::parse(body)?;
    let name = members.text("name")?.ok_or(Error::Missing("name"))?;
    members.finish()?;
    check_name(&name)?;
    Ok(name)
}

/// The page of a list that a query asks for. Ids have nothing that would have to be escaped.
fn page(query: &str) -> Result<(Option<String>, usize), Error> {
    let (mut after, mut limit) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "after" if after.is_none() => after = Some(value.to_owned()),
            "limit" if limit.is_none() => limit = Some(number::<usize>("limit", value)?),
            "after" => return Err(Error::invalid("after", "given twice")),
            "limit" => return Err(Error::invalid("limit", "given twice")),
            other => {
                let param = super::form::shown_name(other);
                return Err(Error::Unknown { param, known: "after, limit".to_owned() });
            }
        }
    }
    let (default, most) = LIST_LIMITS;
    let limit = limit.unwrap_or(default);
    if !(1..=most).contains(&limit) {
        return Err(Error::invalid("limit", format!("{limit} is not from 1 to {most}")));
    }
    Ok((after, limit))
}

/// What the form asks for, as far as it says it.
struct ConsentRequest<'a> {
    name: Option<&'a str>,
    language: Option<&'a str>,
}

impl<'a> ConsentRequest<'a> {
    fn read(fields: &'a [Field], is_complete: bool) -> Result<Self, Error> {
        let mut fields = Fields::new(fields);
        let name = required(&mut fields, "name", is_complete)?;
        name.map_or(Ok(()), check_name)?;
        let language = required(&mut fields, "language", is_complete)?;
        if let Some(tag) = language.filter(|tag| !is_tag(tag)) {
            let message = format!("{} is not a BCP 47 tag such as en-US", quoted(tag));
            return Err(Error::invalid("language", message));
        }
        fields.finish()?;
        Ok(Self { name, language })
    }
}

/// Whether a text has the shape of a BCP 47 tag: letters, and then letters and digits between hyphens.
fn is_tag(tag: &str) -> bool {
    let is_part =
        |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let language = tag.split('-').next().unwrap_or_default();
    tag.len() <= MAX_TAG_CHARS
        && language.len() > 1
        && language.bytes().all(|byte| byte.is_ascii_alphabetic())
        && tag.split('-').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::schema::tests::{documented, known};

    #[test]
    fn the_document_has_the_fields_that_are_read() {
        let fields = [Field { name: "frobnicate".to_owned(), value: String::new() }];
        let read = known(&ConsentRequest::read(&fields, false).map(drop).expect_err("unknown"));
        let documented = documented::<ConsentForm>();
        assert_eq!(documented.required, documented.all);
        assert_eq!(documented.all, &read | &[RECORDING.to_owned()].into());
        let read = known(&new_name(br#"{"name": "I", "frobnicate": 1}"#).expect_err("unknown"));
        let documented = self::documented::<ConsentName>();
        assert_eq!((&documented.required, &documented.all), (&read, &read));
    }

    #[test]
    fn names_are_given_once_and_make_sense() {
        assert_eq!(new_name(br#"{"name": "I"}"#).expect("a name"), "I");
        for body in [r#"{"name": "I", "name": "I"}"#, r#"{"name": ""}"#, r#"{"name": 1}"#, "{}", "[]"] {
            assert_eq!(new_name(body.as_bytes()).expect_err("refused").status().as_u16(), 400, "{body}");
        }
    }

    #[test]
    fn pages_are_asked_for_by_name_and_within_limits() {
        let page = |query: &str| page(query).map_err(|error| (error.code(), error.body(None).error.param));
        assert_eq!(page(""), Ok((None, 20)));
        assert_eq!(page("limit=100&after=cons_1"), Ok((Some("cons_1".to_owned()), 100)));
        for query in ["limit=0", "limit=101", "limit=-1", "limit=1.5", "limit=", "limit", "limit=1&limit=2"] {
            assert_eq!(page(query), Err(("invalid_value", Some("limit".to_owned()))), "{query}");
        }
        assert_eq!(page("order=asc"), Err(("unknown_parameter", Some("order".to_owned()))));
    }

    #[test]
    fn languages_are_tags() {
        for tag in ["en", "ps", "en-US", "ps-Arab-AF", "de-1996"] {
            assert!(is_tag(tag), "{tag}");
        }
        for tag in
            ["", "e", "englishlanguage", "en_US", "en-", "-en", "12", "en--US", "../en", &"en-US".repeat(9)]
        {
            assert!(!is_tag(tag), "{tag}");
        }
    }
}
