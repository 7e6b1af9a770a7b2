//! Any bytes as the body of a form, in pieces of any size: a request or a typed error. Start from the fixtures, whose
//! boundary is the one used here: `cargo +nightly fuzz run form fuzz/corpus/form ../tests/fixtures/forms` in `server/`.
//! The stable forms of this search are the properties in `server/src/routes/form/tests.rs` and `request/tests.rs`.
#![no_main]

use std::{convert::Infallible, sync::LazyLock};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
};
use bytes::Bytes;
use futures_util::stream;
use libfuzzer_sys::fuzz_target;
use models::Task;
use server::{
    config::Config,
    error::Error,
    routes::{form::Form, request::TranscriptionRequest},
    uploads::Meter,
};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let mut config = Config::load(None).expect("the defaults");
    config.serve.max_upload_bytes = 64 << 10;
    config.serve.max_field_bytes = 256;
    config.serve.max_fields = 32;
    config.serve.max_form_text_bytes = 2048;
    config
});

async fn read(task: Task, body: Body) -> Result<TranscriptionRequest, Error> {
    let form_data = HeaderValue::from_static("multipart/form-data; boundary=b0undary");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, form_data)]);
    let mut form = Form::open(&headers, body, &CONFIG.serve, Meter::default())?;
    form.read_fields().await?;
    TranscriptionRequest::begin(task, form.fields(), &CONFIG.transcribe)?;
    if !form.is_at_end() {
        form.spool_file().await?;
        form.read_fields().await?;
    }
    assert!(form.is_at_end());
    TranscriptionRequest::parse(task, form.fields(), &CONFIG.transcribe)
}

fuzz_target!(|body: &[u8]| {
    // The last byte also says what is asked for, and into what pieces the body is cut.
    let last = body.last().copied().unwrap_or_default();
    let task = if last % 2 == 0 { Task::Transcribe } else { Task::Translate };
    let pieces: Vec<_> = body
        .chunks(usize::from(last).max(1))
        .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    match runtime.block_on(read(task, Body::from_stream(stream::iter(pieces)))) {
        Ok(request) => assert!(request.options.check().is_ok()),
        Err(error) => assert!(matches!(error.status().as_u16(), 400 | 413), "{error:?}"),
    }
});
