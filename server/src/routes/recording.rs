//! A form that brings a short recording to be kept: of a voice, or of a consent.

use std::sync::Arc;

use audio::Waveform;
use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use tokio::time::timeout;

use super::{
    fields::Fields,
    form::{Field, Form},
    transcriptions::{BUSY_UPLOADS, UPLOADS_RETRY, time_limit},
};
use crate::{
    config::Serve,
    decode::DecodedAudio,
    error::{AudioFault, Error},
    metrics::Phase,
    state::AppState,
    uploads::{Displaced, Full},
};

/// Samples per second of what is kept: that of speech as it is sent, which no model exceeds.
const SAMPLE_RATE: u32 = 24_000;
/// What a form has beside its recording.
const MAX_OVERHEAD_BYTES: u64 = 64 << 10;
/// Longest name of what is kept, characters.
const MAX_NAME_CHARS: usize = 200;
/// Loudest sample of a recording that is taken for silence: 60 dB below what there is room for.
const SILENCE: f32 = 1e-3;

/// The text fields of a form, and the recording in its part `file`.
///
/// # Errors
/// A form that cannot be read, fields that `check` refuses, told whether all are there, a recording that is missing, too long, too short
/// or silent.
pub(super) async fn receive(
    state: &Arc<AppState>,
    headers: &HeaderMap,
    body: Body,
    file: &'static str,
    check: impl Fn(&[Field], bool) -> Result<(), Error>,
) -> Result<(Vec<Field>, Waveform), Error> {
    let busy = || Error::Busy { reason: BUSY_UPLOADS, retry_after: UPLOADS_RETRY };
    let settings = &state.config.voices;
    let max_upload_bytes = settings.max_recording_bytes.saturating_add(MAX_OVERHEAD_BYTES);
    let serve = &state.config.serve;
    let limits = Serve { max_upload_bytes: max_upload_bytes.min(serve.max_upload_bytes), ..serve.clone() };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let is_small = length.is_some_and(|n_bytes| state.config.uploads.is_small(n_bytes));
    let reading = async {
        let (mut place, meter) = state.uploads.enter(is_small).map_err(|Full| busy())?;
        let mut form = Form::open(headers, body, &limits, meter)?.with_file(file);
        form.read_fields().await?;
        check(form.fields(), false)?;
        // It will be served: whoever is to leave for it leaves now.
        place.settle().map_err(|Full| busy())?;
        let upload = match form.is_at_end() {
            true => None,
            false => Some(form.spool_file().await?),
        };
        form.read_fields().await?;
        let displaced = |Displaced| Error::Displaced { min_bytes_per_sec: serve.upload_min_bytes_per_sec };
        place.arrived().map_err(displaced)?;
        check(form.fields(), true)?;
        let fields = form.fields().to_vec();
        Ok((fields, upload.ok_or(Error::Missing(file))?, place))
    };
    let received: Result<_, Error> = state.metrics.during(Phase::Upload, reading).await;
    if let Err(Error::Disconnected) = received {
        state.metrics.cancelled(Phase::Upload);
    }
    let (fields, upload, place) = received.map_err(|error| error.of_file(file))?;
    let limit = time_limit(headers, serve.request_timeout_secs.duration());
    let late = |_| Error::Deadline { limit_secs: limit.as_secs_f64() };
    // Hours are not decoded to be refused.
    let decoding = state.decoder.decode_short(upload.file, SAMPLE_RATE, settings.max_recording_secs.get());
    let decoded = timeout(limit, state.metrics.during(Phase::Decode, decoding)).await.map_err(late)?;
    drop(place);
    let DecodedAudio { waveform, .. } = decoded.map_err(|error| Error::from(error).of_file(file))?;
    if waveform.samples.iter().all(|sample| sample.abs() < SILENCE) {
        let message = "it is silent".to_owned();
        return Err(Error::Audio { field: file, fault: AudioFault::Invalid, message });
    }
    Ok((fields, waveform))
}

/// What something is to be called.
///
/// # Errors
/// An empty or long name, control characters in it.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let is_name = (1..=MAX_NAME_CHARS).contains(&name.chars().count())
        && !name.chars().any(char::is_control)
        && !name.trim().is_empty();
    let message = || format!("not a name of at most {MAX_NAME_CHARS} characters, without control characters");
    if is_name { Ok(()) } else { Err(Error::invalid("name", message())) }
}

/// A required field, once all are there; before, it may be still to come.
pub(super) fn required<'a>(
    fields: &mut Fields<'a>,
    name: &'static str,
    is_complete: bool,
) -> Result<Option<&'a str>, Error> {
    match fields.text(name)? {
        None if is_complete => Err(Error::Missing(name)),
        found => Ok(found),
    }
}
