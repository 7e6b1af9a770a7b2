//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`: from the body to the response. What can be refused
//! before the recording is read is refused then.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};
use models::Task;
use tokio::time::timeout;

use super::{
    form::{Field, Form, Upload},
    request::TranscriptionRequest,
    schema::{Transcription, TranscriptionForm, TranslationForm},
    transcribe::{Terms, decode, transcribe},
};
use crate::{
    cascade::{Cascade, CascadeSlot},
    error::Error,
    metrics::{Arrival, Phase},
    state::{AppState, Hearing},
    uploads::{Displaced, Full, Place},
};

/// When to ask again while too many others send.
pub(super) const UPLOADS_RETRY: Duration = Duration::from_secs(1);
pub(super) const BUSY_UPLOADS: &str = "as many uploads come in as may";
/// How long a client says that it waits.
const CLIENT_TIMEOUT: &str = "x-stainless-read-timeout";

/// Writes a recording down.
#[utoipa::path(
    post, path = "/v1/audio/transcriptions", tag = "audio", security(("key" = []), ()),
    request_body(content = TranscriptionForm, content_type = "multipart/form-data"),
    responses(Transcription)
)]
pub(super) async fn create_transcription(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, Error> {
    answer(state, Task::Transcribe, request).await
}

/// Translates a recording, into English unless it is told otherwise.
#[utoipa::path(
    post, path = "/v1/audio/translations", tag = "audio", security(("key" = []), ()),
    request_body(content = TranslationForm, content_type = "multipart/form-data"),
    responses(Transcription)
)]
pub(super) async fn create_translation(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, Error> {
    answer(state, Task::Translate, request).await
}

async fn answer(state: Arc<AppState>, task: Task, request: Request) -> Result<Response, Error> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let limit = time_limit(&head.headers, state.config.serve.request_timeout_secs.duration());
    let received = state.metrics.during(Phase::Upload, receive(&state, task, &head.headers, body)).await;
    let Received { request, models, upload, place } = match received {
        // A client that leaves while it sends is an error of its body, not the end of this future.
        Err(Error::Disconnected) => {
            state.metrics.cancelled(Phase::Upload);
            return Err(Error::Disconnected);
        }
        received => received?,
    };
    // The client counts from here: while it sends, it does not wait.
    let received = Instant::now();
    state.metrics.phase(Phase::Upload, received - started);
    tracing::debug!(model = request.model, bytes = upload.bytes, "request received");
    let id = head.extensions.get().cloned();
    let late = |_| Error::Deadline { limit_secs: limit.as_secs_f64() };
    let answered = async {
        let waveform = decode(&state, &models.0, upload).await?;
        drop(place);
        let arrival = Arrival { started, received, decoded: Instant::now() };
        state.metrics.phase(Phase::Decode, arrival.decode());
        // What a client says is how long it waits for the next bytes; a stream sends some all the time.
        let limit = if request.stream { state.config.serve.request_timeout_secs.duration() } else { limit };
        let terms = Terms { id, arrival, limit, deadline: received + limit };
        transcribe(state, models, request, waveform, terms).await
    };
    timeout(limit, answered).await.map_err(late)?
}

/// What works on a request: a recogniser and, behind it, a translator.
type Working = (Arc<Hearing>, Option<Arc<Cascade>>);

/// The models that a request asks for, if they can do what is asked.
fn check(state: &AppState, request: &TranscriptionRequest) -> Result<Working, Error> {
    let serving = state.models.hearing(&request.model)?;
    let slot = state.cascade.as_ref();
    let cascade = match &request.cascade {
        None => None,
        Some(wanted) => {
            let message =
                "this server has no translator of text; it is started with one by translate.cascade";
            let slot = slot.ok_or_else(|| Error::invalid("cascade", message))?;
            let cascade = slot.get(wanted.name.as_deref())?;
            cascade.check(&wanted.to_language)?;
            Some(cascade)
        }
    };
    let translator = slot.map(CascadeSlot::name);
    serving.transcriber.check(&request.options).map_err(|error| request.refusal(error, translator))?;
    let serve = &state.config.serve;
    if let Some((param, n_rows)) = serve.too_many_rows(&request.options) {
        let message = format!("{n_rows} is more than the {} of this server", serve.max_batch_rows);
        return Err(Error::invalid(param, message));
    }
    Ok((serving, cascade))
}

/// A request that has arrived.
struct Received {
    request: TranscriptionRequest,
    models: Working,
    upload: Upload,
    /// Held while the file is on the disk.
    place: Place,
}

/// Reads a form. What can be refused before the recording comes is refused then.
async fn receive(state: &AppState, task: Task, headers: &HeaderMap, body: Body) -> Result<Received, Error> {
    let busy = || Error::Busy { reason: BUSY_UPLOADS, retry_after: UPLOADS_RETRY };
    let serve = &state.config.serve;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let is_small = length.is_some_and(|n_bytes| state.config.uploads.is_small(n_bytes));
    let (mut place, meter) = state.uploads.enter(is_small).map_err(|Full| busy())?;
    let mut form = Form::open(headers, body, serve, meter)?;
    let defaults = &state.config.transcribe;
    // The official clients send the file last: nearly always, all is known before it comes.
    form.read_fields().await?;
    if let Some(request) = TranscriptionRequest::begin(task, form.fields(), defaults)? {
        let serving = match check(state, &request) {
            Ok((serving, _)) => serving,
            Err(error) if may_be_put_right(&error, form.fields()) => state.models.hearing(&request.model)?,
            Err(error) => return Err(error),
        };
        serving.engine.admission().check()?;
    }
    // It will be served: whoever is to leave for it leaves now.
    place.settle().map_err(|Full| busy())?;
    let upload = match form.is_at_end() {
        true => None,
        false => Some(form.spool_file().await?),
    };
    form.read_fields().await?;
    let displaced = |Displaced| Error::Displaced { min_bytes_per_sec: serve.upload_min_bytes_per_sec };
    place.arrived().map_err(displaced)?;
    let request = TranscriptionRequest::parse(task, form.fields(), defaults)?;
    let models = check(state, &request)?;
    Ok(Received { request, models, upload: upload.ok_or(Error::Missing("file"))?, place })
}

/// Whether a field that was not sent yet, and may come after the file, can make a model follow what it refuses now: languages that it was
/// not told, or a translator behind it.
fn may_be_put_right(error: &Error, fields: &[Field]) -> bool {
    let Error::Invalid { param, .. } = error else { return false };
    let is_sent = |name: &str| fields.iter().any(|field| field.name == name);
    match &**param {
        "language" => !is_sent("language"),
        "to_language" | "task" => !is_sent("to_language") || !is_sent("cascade"),
        _ => false,
    }
}

/// The server's patience, or the client's where that is shorter.
pub(super) fn time_limit(headers: &HeaderMap, limit: Duration) -> Duration {
    let client =
        headers.get(CLIENT_TIMEOUT).and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let client = client.filter(|secs| *secs > 0.0).and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    client.map_or(limit, |client| client.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_field_may_put_right_is_not_refused_before_the_file() {
        let fields = |names: &[&str]| -> Vec<Field> {
            names.iter().map(|name| Field { name: (*name).to_owned(), value: "ps".to_owned() }).collect()
        };
        for (param, sent, expected) in [
            ("to_language", &["model"][..], true),
            ("to_language", &["model", "to_language"], true),
            ("to_language", &["to_language", "cascade"], false),
            ("task", &["model"], true),
            ("language", &["model"], true),
            ("language", &["language"], false),
            ("beam_size", &["model"], false),
        ] {
            let error = Error::invalid(param, "no");
            assert_eq!(may_be_put_right(&error, &fields(sent)), expected, "{param} {sent:?}");
        }
        assert!(!may_be_put_right(&Error::Missing("model"), &[]));
    }

    #[test]
    fn a_client_may_be_less_patient_than_the_server_and_not_more() {
        let limit = Duration::from_secs(10);
        for (header, secs) in [
            ("2.5", 2.5),
            ("600", 10.0),
            ("0", 10.0),
            ("-1", 10.0),
            ("NaN", 10.0),
            ("1e300", 10.0),
            ("x", 10.0),
        ] {
            let headers = HeaderMap::from_iter([(
                CLIENT_TIMEOUT.parse().expect("a name"),
                header.parse().expect("a value"),
            )]);
            assert_eq!(time_limit(&headers, limit).as_secs_f64(), secs, "{header}");
        }
        assert_eq!(time_limit(&HeaderMap::new(), limit), limit);
    }
}
