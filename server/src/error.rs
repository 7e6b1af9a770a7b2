//! Every way in which a request fails, and what the client is told: one enum, one match. Bodies have the shape of the
//! OpenAI API. The official clients send a request again after 408, 409, 429 and 5xx, so what would fail again the same
//! way is another 4xx, or says `x-should-retry: false`. Causes go to the log, never to the client.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    decode::DecodeError,
    engine::{Busy, BusyReason},
};

/// Beyond this, the official clients do not come back at all.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
/// When to try again after a machine was too busy to decode a recording: it does not pass in a moment.
const SLOW_DECODE_RETRY: Duration = Duration::from_secs(30);
/// Characters of a client's own text that a message repeats.
const MAX_QUOTED_CHARS: usize = 64;

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why a request was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A parameter's value is not among the allowed ones.
    #[error("{param}: {message}")]
    Invalid {
        /// The parameter.
        param: Cow<'static, str>,
        /// The value and what is allowed.
        message: String,
    },
    /// A required parameter is not there.
    #[error("{0}: missing; it is required")]
    Missing(&'static str),
    /// There is no such parameter. Nothing is ignored, lest a typing error goes unnoticed.
    #[error("{param}: unknown parameter; there are {known}")]
    Unknown {
        /// Its name.
        param: String,
        /// The names that there are.
        known: String,
    },
    /// The parameter or value belongs to the API, but this server cannot follow it.
    #[error("{param}: {message}")]
    Unsupported {
        /// The parameter.
        param: Cow<'static, str>,
        /// What cannot be done, and what can.
        message: String,
    },
    /// The body is not the JSON that the path takes.
    #[error("the body cannot be read: {0}")]
    Json(Cow<'static, str>),
    /// The body is not a form.
    #[error("the form cannot be read: {0}")]
    Form(Cow<'static, str>),
    /// The client left while it was sending. Nobody reads the answer.
    #[error("the connection broke off")]
    Disconnected,
    /// The uploaded audio was refused.
    #[error("{field}: {message}")]
    Audio {
        /// The part of the form that it came in.
        field: &'static str,
        /// The kind of refusal.
        fault: AudioFault,
        /// What is wrong with it.
        message: String,
    },
    /// No API key, or a wrong one.
    #[error("no valid API key; send one as `Authorization: Bearer KEY`")]
    Unauthorized,
    /// A web page asks for a change that may not. Browsers show it to nobody.
    #[error("web pages of {0} may change nothing here; serve.cors_origins says which may")]
    ForeignOrigin(String),
    /// The model is not served here.
    #[error("model: {0} is not served here; GET /v1/models lists what is")]
    ModelNotFound(String),
    /// There is no voice or consent of this id, or not any more.
    #[error("there is no {what} {id}")]
    NotFound {
        /// What is looked for.
        what: &'static str,
        /// Its id, as it may be repeated.
        id: String,
    },
    /// As many are kept as may.
    #[error("{limit} {what} are kept, and no more; delete one first")]
    LimitReached {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// There is nothing at this path.
    #[error("there is nothing at this path; /docs lists what there is")]
    NoRoute,
    /// The path does not take this method.
    #[error("this path does not take this method; see the `allow` header")]
    MethodNotAllowed,
    /// The body is larger than `serve.max_upload_bytes`.
    #[error("the request is larger than the {limit_bytes} bytes that this server accepts")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// A body of JSON is larger than any that makes sense.
    #[error("the body is larger than {limit_bytes} bytes, which is more than all that can be asked for")]
    LongJson {
        /// The limit.
        limit_bytes: usize,
    },
    /// The body is not of the type that the path takes.
    #[error("the content type is not {expected}")]
    ContentType {
        /// What is taken.
        expected: &'static str,
    },
    /// The body is compressed.
    #[error("the content encoding {0} is not accepted; send the body as it is")]
    ContentEncoding(String),
    /// The body came too slowly. Not a 408, which would be sent again, as slowly.
    #[error("the upload was too slow: {what} took more than {limit_secs} s")]
    SlowUpload {
        /// What took too long.
        what: &'static str,
        /// How long it may take.
        limit_secs: f64,
    },
    /// The client did not take its response. Its status is sent long ago, and nobody reads another.
    #[error("the client took nothing of its response for {limit_secs} s")]
    SlowReader {
        /// How long it may take nothing.
        limit_secs: f64,
    },
    /// Clients left more unread than there is room for, and this one the most. Its status is sent long ago.
    #[error(
        "no more than {limit_bytes} bytes wait for all clients, and this one left the most of its response unread"
    )]
    Unread {
        /// How much may wait for all of them.
        limit_bytes: usize,
    },
    /// There is no place for uploads left, and this one came too slowly to keep its own. The official clients would send it
    /// again, as slowly, were they not told not to.
    #[error(
        "the upload was too slow: it gave its place to another one, because as many come in as may and it came with less than \
         {min_bytes_per_sec} bytes a second"
    )]
    Displaced {
        /// The rate that keeps its place.
        min_bytes_per_sec: u64,
    },
    /// There is no room for the request, or not in time.
    #[error("the server is busy: {reason}; try again in {:.1} s", retry_after.as_secs_f32())]
    Busy {
        /// What there is too much of.
        reason: &'static str,
        /// When there will be room, as estimated.
        retry_after: Duration,
    },
    /// There are `serve.max_connections` connections already; those beyond are for probes.
    #[error("the server has as many connections as it may; try again in {:.1} s", retry_after.as_secs_f32())]
    Full {
        /// When to ask again.
        retry_after: Duration,
    },
    /// A model is still being loaded.
    #[error("model {model} is still being loaded")]
    Loading {
        /// The model's name.
        model: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The server is about to stop.
    #[error("the server is shutting down")]
    Draining {
        /// When another one will probably have taken over.
        retry_after: Duration,
    },
    /// A model cannot be used, and will not be before the server is started again.
    #[error("model {model} cannot be used: {message}")]
    Unavailable {
        /// The model's name.
        model: String,
        /// Why, without paths or causes.
        message: &'static str,
    },
    /// Voices can be neither kept nor found. The official clients would ask again, and find it no better.
    #[error("no voices can be brought here; the log of the server says why")]
    NoVoices,
    /// The machine was too busy to decode the recording in time; nothing is said against the file.
    #[error("the server is busy: decoding was not done within {limit_secs} s")]
    SlowDecode {
        /// How long it may take.
        limit_secs: f64,
        /// When to try again.
        retry_after: Duration,
    },
    /// The temporary folder is full.
    #[error("there is no room for the upload at the moment")]
    NoSpace {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The result was not there in time; nobody works on it any more.
    #[error("no result within {limit_secs} s")]
    Deadline {
        /// The limit: the server's or the client's own.
        limit_secs: f64,
    },
    /// A fault of ours. The client is told nothing about it.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

/// Why audio was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioFault {
    /// Its bytes make no sense.
    Invalid,
    /// A format that this server does not read.
    Unsupported,
    /// More seconds or bytes of sound than allowed.
    TooLong,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorObject,
}

/// An error as the OpenAI API writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorObject {
    /// For people.
    pub message: String,
    /// The class of the error.
    #[schema(example = "invalid_request_error")]
    pub r#type: &'static str,
    /// The parameter at fault, where there is one.
    #[schema(required)]
    pub param: Option<String>,
    /// For programs.
    #[schema(required, example = "invalid_value")]
    pub code: Option<&'static str>,
}

/// An error on the wire.
struct Wire<'a> {
    status: StatusCode,
    r#type: &'static str,
    code: &'static str,
    param: Option<&'a str>,
    retry: Retry,
}

/// What the client is told about trying again.
enum Retry {
    /// Nothing: it goes by the status.
    ByStatus,
    Never,
    After(Duration),
}

impl Error {
    /// A value that is not allowed.
    pub fn invalid(param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Invalid { param: param.into(), message: message.into() }
    }

    /// A parameter or value that this server cannot follow.
    pub fn unsupported(param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Unsupported { param: param.into(), message: message.into() }
    }

    /// The same of a recording that came in another part of the form than `file`.
    pub(crate) fn of_file(self, field: &'static str) -> Self {
        match self {
            Self::Audio { fault, message, .. } => Self::Audio { field, fault, message },
            error => error,
        }
    }

    /// A fault of ours.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Internal(cause.into())
    }

    /// The one table of statuses and codes.
    fn wire(&self) -> Wire<'_> {
        use Retry::{After, ByStatus, Never};
        const INVALID: &str = "invalid_request_error";
        const SERVER: &str = "server_error";
        let (status, r#type, code, param, retry) = match self {
            Self::Invalid { param, .. } => {
                (StatusCode::BAD_REQUEST, INVALID, "invalid_value", Some(&**param), ByStatus)
            }
            Self::Missing(param) => {
                (StatusCode::BAD_REQUEST, INVALID, "missing_required_parameter", Some(*param), ByStatus)
            }
            Self::Unknown { param, .. } => {
                (StatusCode::BAD_REQUEST, INVALID, "unknown_parameter", Some(&**param), ByStatus)
            }
            Self::Unsupported { param, .. } => {
                (StatusCode::BAD_REQUEST, INVALID, "unsupported_parameter", Some(&**param), ByStatus)
            }
            Self::Json(_) => (StatusCode::BAD_REQUEST, INVALID, "invalid_json", None, ByStatus),
            Self::Form(_) => (StatusCode::BAD_REQUEST, INVALID, "invalid_form", None, ByStatus),
            Self::Disconnected => (StatusCode::BAD_REQUEST, INVALID, "disconnected", None, ByStatus),
            Self::Audio { field, fault, .. } => {
                let code = match fault {
                    AudioFault::Invalid => "invalid_audio",
                    AudioFault::Unsupported => "unsupported_audio",
                    AudioFault::TooLong => "audio_too_long",
                };
                (StatusCode::BAD_REQUEST, INVALID, code, Some(*field), ByStatus)
            }
            Self::SlowUpload { .. } => (StatusCode::BAD_REQUEST, INVALID, "upload_timeout", None, ByStatus),
            Self::SlowReader { .. } => (StatusCode::BAD_REQUEST, INVALID, "read_timeout", None, ByStatus),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key", None, ByStatus),
            Self::ForeignOrigin(_) => (StatusCode::FORBIDDEN, INVALID, "origin_not_allowed", None, ByStatus),
            Self::ModelNotFound(_) => {
                (StatusCode::NOT_FOUND, INVALID, "model_not_found", Some("model"), ByStatus)
            }
            Self::NotFound { .. } => (StatusCode::NOT_FOUND, INVALID, "not_found", Some("id"), ByStatus),
            Self::LimitReached { .. } => (StatusCode::BAD_REQUEST, INVALID, "limit_reached", None, ByStatus),
            Self::Unread { .. } => (StatusCode::BAD_REQUEST, INVALID, "response_unread", None, ByStatus),
            Self::NoRoute => (StatusCode::NOT_FOUND, INVALID, "not_found", None, ByStatus),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed", None, ByStatus)
            }
            Self::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "file_too_large", Some("file"), ByStatus)
            }
            Self::LongJson { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "body_too_large", None, ByStatus)
            }
            Self::Displaced { .. } => (StatusCode::REQUEST_TIMEOUT, INVALID, "upload_displaced", None, Never),
            Self::ContentType { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_content_type", None, ByStatus)
            }
            Self::ContentEncoding(_) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_content_encoding", None, ByStatus)
            }
            Self::Busy { retry_after, .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "rate_limit_exceeded",
                None,
                After(*retry_after),
            ),
            Self::Loading { retry_after, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, SERVER, "model_loading", Some("model"), After(*retry_after))
            }
            Self::Full { retry_after } => {
                (StatusCode::SERVICE_UNAVAILABLE, SERVER, "too_many_connections", None, After(*retry_after))
            }
            Self::Draining { retry_after } => {
                (StatusCode::SERVICE_UNAVAILABLE, SERVER, "shutting_down", None, After(*retry_after))
            }
            Self::Unavailable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, SERVER, "model_unavailable", Some("model"), Never)
            }
            Self::NoVoices => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "voices_unavailable", None, Never),
            Self::SlowDecode { retry_after, .. } => {
                let (status, kind) = (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error");
                (status, kind, "decode_timeout", Some("file"), After(*retry_after))
            }
            Self::NoSpace { retry_after } => {
                (StatusCode::SERVICE_UNAVAILABLE, SERVER, "no_space", None, After(*retry_after))
            }
            Self::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, SERVER, "timeout", None, Never),
            Self::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error", None, ByStatus)
            }
        };
        Wire { status, r#type, code, param, retry }
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.wire().status
    }

    /// The machine-readable code; also the reason under which refusals are counted.
    pub fn code(&self) -> &'static str {
        self.wire().code
    }

    /// The body of the response, or of an event in a stream that has begun.
    pub fn body(&self, request_id: Option<&str>) -> ErrorBody {
        let wire = self.wire();
        let message = match (self, request_id) {
            (Self::Internal(_), Some(id)) => format!("internal error; the log has more under request {id}"),
            _ => self.to_string(),
        };
        ErrorBody {
            error: ErrorObject {
                message,
                r#type: wire.r#type,
                param: wire.param.map(str::to_owned),
                code: Some(wire.code),
            },
        }
    }

    /// The response, which carries the error itself to the log.
    pub(crate) fn response(self: Arc<Self>, request_id: Option<&str>) -> Response {
        let wire = self.wire();
        let mut response = (wire.status, Json(self.body(request_id))).into_response();
        let headers = response.headers_mut();
        match wire.retry {
            Retry::ByStatus => {}
            Retry::Never => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Retry::After(wait) => {
                let wait = wait.clamp(Duration::from_millis(1), MAX_RETRY_AFTER);
                headers.insert(RETRY_AFTER_MS, HeaderValue::from(wait.as_millis() as u64));
                headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
            }
        }
        match *self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What is still to come of the body is not waited for.
            Self::SlowUpload { .. } | Self::Displaced { .. } => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Arc::new(self).response(None)
    }
}

impl From<audio::Error> for Error {
    fn from(error: audio::Error) -> Self {
        use audio::Error as E;
        let fault = match error {
            E::Empty | E::Undecodable { .. } | E::Timeout { .. } => AudioFault::Invalid,
            E::Unsupported { .. } | E::TooManyChannels { .. } | E::BadSampleRate { .. } => {
                AudioFault::Unsupported
            }
            E::TooLong { .. } | E::TooLarge { .. } => AudioFault::TooLong,
            error => return Self::internal(error),
        };
        Self::Audio { field: "file", fault, message: error.to_string() }
    }
}

impl From<Busy> for Error {
    fn from(busy: Busy) -> Self {
        let reason = match busy.reason {
            BusyReason::Requests => "as many requests wait as may",
            BusyReason::Audio => "as much audio waits as may",
            BusyReason::Deadline => "it would take longer than the client waits",
        };
        Self::Busy { reason, retry_after: busy.retry_after }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        use DecodeError as E;
        let fault = match &error {
            E::Invalid(_) | E::Timeout { .. } | E::Crashed => AudioFault::Invalid,
            E::Unsupported(_) | E::Layout(_) => AudioFault::Unsupported,
            E::TooLong(_) | E::TooLarge(_) => AudioFault::TooLong,
            E::Busy { limit_secs } => {
                return Self::SlowDecode { limit_secs: *limit_secs, retry_after: SLOW_DECODE_RETRY };
            }
            E::Worker(_) => return Self::internal(error),
        };
        Self::Audio { field: "file", fault, message: error.to_string() }
    }
}

impl From<models::Error> for Error {
    fn from(error: models::Error) -> Self {
        match error {
            models::Error::Option { option, message } => {
                // Two options have other names in a request.
                let param = match option {
                    "timestamps" => "timestamp_granularities",
                    "task" => "model",
                    option => option,
                };
                Self::invalid(param, message)
            }
            models::Error::Audio(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

/// A client's own text as a message may repeat it: escaped and cut.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_error() -> Vec<(Error, u16, &'static str)> {
        let retry_after = Duration::from_millis(1500);
        let model = || "whisper".to_owned();
        let audio = |fault| Error::Audio { field: "file", fault, message: "no".to_owned() };
        vec![
            (Error::invalid("temperature", "2 is not between 0 and 1"), 400, "invalid_value"),
            (Error::Missing("model"), 400, "missing_required_parameter"),
            (
                Error::Unknown { param: "beams".to_owned(), known: "beam_size".to_owned() },
                400,
                "unknown_parameter",
            ),
            (Error::unsupported("known_speaker_names", "no"), 400, "unsupported_parameter"),
            (Error::Json("no".into()), 400, "invalid_json"),
            (Error::Form("no".into()), 400, "invalid_form"),
            (Error::Unread { limit_bytes: 1 }, 400, "response_unread"),
            (Error::NotFound { what: "voice", id: "x".to_owned() }, 404, "not_found"),
            (Error::LimitReached { what: "voices", limit: 1 }, 400, "limit_reached"),
            (Error::Disconnected, 400, "disconnected"),
            (audio(AudioFault::Invalid), 400, "invalid_audio"),
            (audio(AudioFault::Unsupported), 400, "unsupported_audio"),
            (audio(AudioFault::TooLong), 400, "audio_too_long"),
            (Error::SlowUpload { what: "the body", limit_secs: 1.0 }, 400, "upload_timeout"),
            (Error::SlowReader { limit_secs: 1.0 }, 400, "read_timeout"),
            (Error::Unauthorized, 401, "invalid_api_key"),
            (Error::ForeignOrigin("x".to_owned()), 403, "origin_not_allowed"),
            (Error::Displaced { min_bytes_per_sec: 1 }, 408, "upload_displaced"),
            (Error::ModelNotFound(model()), 404, "model_not_found"),
            (Error::NoRoute, 404, "not_found"),
            (Error::MethodNotAllowed, 405, "method_not_allowed"),
            (Error::TooLarge { limit_bytes: 1 }, 413, "file_too_large"),
            (Error::LongJson { limit_bytes: 1 }, 413, "body_too_large"),
            (Error::ContentType { expected: "multipart/form-data" }, 415, "unsupported_content_type"),
            (Error::ContentEncoding("gzip".to_owned()), 415, "unsupported_content_encoding"),
            (Error::Busy { reason: "no", retry_after }, 429, "rate_limit_exceeded"),
            (Error::SlowDecode { limit_secs: 1.0, retry_after }, 429, "decode_timeout"),
            (Error::Internal(anyhow::anyhow!("/etc/secret")), 500, "internal_error"),
            (Error::Loading { model: model(), retry_after }, 503, "model_loading"),
            (Error::Full { retry_after }, 503, "too_many_connections"),
            (Error::Draining { retry_after }, 503, "shutting_down"),
            (Error::Unavailable { model: model(), message: "no" }, 503, "model_unavailable"),
            (Error::NoVoices, 503, "voices_unavailable"),
            (Error::NoSpace { retry_after }, 503, "no_space"),
            (Error::Deadline { limit_secs: 1.0 }, 504, "timeout"),
        ]
    }

    #[test]
    fn every_error_has_its_status_and_code_and_no_cause() {
        for (error, status, code) in every_error() {
            let body = error.body(Some("req_1")).error;
            assert_eq!((error.status().as_u16(), error.code()), (status, code));
            assert_eq!(body.code, Some(code));
            let kind = match status {
                429 => "rate_limit_error",
                500.. => "server_error",
                _ => "invalid_request_error",
            };
            assert_eq!(body.r#type, kind, "{code}");
            assert!(!body.message.is_empty() && !body.message.contains("secret"), "{}", body.message);
        }
    }

    #[test]
    fn an_internal_error_tells_the_request_to_look_for() {
        let body = Error::Internal(anyhow::anyhow!("boom")).body(Some("req_1"));
        assert!(body.error.message.contains("req_1") && !body.error.message.contains("boom"));
    }

    #[test]
    fn clients_are_sent_back_only_where_it_helps() {
        for (error, status, code) in every_error() {
            let headers = error.into_response().headers().clone();
            let get = |name: &str| headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
            let waits = matches!(
                code,
                "rate_limit_exceeded"
                    | "too_many_connections"
                    | "model_loading"
                    | "shutting_down"
                    | "decode_timeout"
                    | "no_space"
            );
            assert_eq!(get("retry-after-ms").as_deref(), waits.then_some("1500"), "{code}");
            assert_eq!(get("retry-after").as_deref(), waits.then_some("2"), "{code}");
            let never =
                matches!(code, "upload_displaced" | "model_unavailable" | "voices_unavailable" | "timeout");
            assert_eq!(get("x-should-retry").as_deref(), never.then_some("false"), "{code}");
            let is_retried = matches!(status, 408 | 409 | 429) || status >= 500;
            assert!(!is_retried || waits || never || code == "internal_error", "{code}");
        }
    }

    #[test]
    fn hints_stay_below_what_clients_accept() {
        let response = Error::Busy { reason: "no", retry_after: Duration::from_secs(3600) }.into_response();
        assert_eq!(response.headers()["retry-after"], "120");
        assert_eq!(response.headers()["retry-after-ms"], "120000");
    }

    #[test]
    fn errors_of_other_crates_find_their_place() {
        let code = |error: Error| (error.code(), error.body(None).error.param);
        let option = |option| models::Error::Option { option, message: "no".to_owned() };
        assert_eq!(code(option("beam_size").into()), ("invalid_value", Some("beam_size".to_owned())));
        let param = Some("timestamp_granularities".to_owned());
        assert_eq!(code(option("timestamps").into()), ("invalid_value", param));
        assert_eq!(code(audio::Error::Empty.into()).0, "invalid_audio");
        assert_eq!(code(audio::Error::TooLong { limit_secs: 1.0 }.into()).0, "audio_too_long");
        let channels = audio::Error::TooManyChannels { channels: 255, limit: 32 };
        assert_eq!(code(models::Error::Audio(channels).into()).0, "unsupported_audio");
        assert_eq!(code(audio::Error::Io(std::io::Error::other("x")).into()).0, "internal_error");
        // Too much for the file's own good; the machine's doing, which passes.
        assert_eq!(code(DecodeError::Timeout { limit_secs: 1.0 }.into()).0, "invalid_audio");
        let busy = Error::from(DecodeError::Busy { limit_secs: 1.0 });
        assert_eq!((busy.status().as_u16(), busy.code()), (429, "decode_timeout"));
        assert_eq!(busy.into_response().headers()["retry-after"], "30");
    }

    #[test]
    fn a_recording_that_is_refused_is_named_by_its_field() {
        let error = Error::from(DecodeError::Invalid("no".to_owned())).of_file("audio_sample");
        assert_eq!((error.code(), error.to_string().as_str()), ("invalid_audio", "audio_sample: no"));
        assert_eq!(error.body(None).error.param.as_deref(), Some("audio_sample"));
        assert_eq!(Error::NoRoute.of_file("audio_sample").code(), "not_found");
    }

    #[test]
    fn quotes_are_escaped_and_short() {
        assert_eq!(quoted("a\0\n\"b\""), r#""a\0\n\"b\"""#);
        assert_eq!(quoted(&"ß".repeat(10_000)).chars().count(), MAX_QUOTED_CHARS + 5);
    }
}
