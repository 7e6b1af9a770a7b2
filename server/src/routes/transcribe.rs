//! From an upload and what is asked about it to the response: the file becomes samples, these go to the model, and what
//! comes back is written as the client wants it.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use audio::Waveform;
use axum::{
    http::header,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use models::{Segment, TextPart, TextToken, Transcribed, Transcriber, Transcription};
use tokio::{task::spawn_blocking, time::timeout_at};
use tracing::Instrument;

use super::{form::Upload, request::TranscriptionRequest};
use crate::{
    access::{self, RequestId},
    decode::DecodedAudio,
    engine::{Event, Events},
    error::Error,
    metrics::Phase,
    render::{self, Format, stream::Tokens},
    state::{AppState, Serving},
};

/// A comment is sent when nothing else was for so long: what stands between here and the client may take silence for death.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How a request's result is written.
#[derive(Debug, Clone, Copy)]
struct Shape {
    format: Format,
    words: bool,
    segments: bool,
    logprobs: bool,
}

/// What a client is owed beside its result.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// Names the request in errors and in the log.
    pub(super) id: Option<RequestId>,
    /// How long the client, or the server, waits.
    pub(super) limit: Duration,
    /// When that is over.
    pub(super) deadline: Instant,
}

/// A request on its way.
struct Running {
    state: Arc<AppState>,
    serving: Arc<Serving>,
    shape: Shape,
    terms: Terms,
    submitted: Instant,
    has_text: bool,
    events: Events<TextPart, Transcribed>,
}

/// An upload as the model takes it.
///
/// # Errors
/// Audio that is refused, faults of ours.
pub(super) async fn decode(state: &AppState, serving: &Serving, upload: Upload) -> Result<Waveform, Error> {
    let began = Instant::now();
    let sample_rate = serving.transcriber.feature_spec().sample_rate;
    let decoding = state.decoder.decode(upload.file, sample_rate);
    let DecodedAudio { waveform, warnings, .. } = state.metrics.during(Phase::Decode, decoding).await?;
    state.metrics.phase(Phase::Decode, began.elapsed());
    for warning in warnings {
        tracing::info!("the upload is not sound: {warning}");
    }
    Ok(waveform)
}

/// Transcribes a recording.
///
/// # Errors
/// A model that is busy, time that ran out, faults of ours.
pub(super) async fn transcribe(
    state: Arc<AppState>,
    serving: Arc<Serving>,
    request: TranscriptionRequest,
    waveform: Waveform,
    terms: Terms,
) -> Result<Response, Error> {
    let shape = Shape {
        format: request.format,
        words: request.words,
        segments: request.segments,
        logprobs: request.logprobs,
    };
    let (streams, options) = (request.stream, request.options);
    let audio_secs = serving.transcriber.padded_secs(waveform.duration_secs());
    let patience = terms.deadline.saturating_duration_since(Instant::now());
    let permit = serving.engine.admission().enter(audio_secs, Some(patience))?;
    let transcriber = serving.transcriber.clone();
    let submitted = Instant::now();
    let prepare = move |keep_going: &dyn Fn() -> bool| {
        Transcription::prepare(&transcriber, waveform, &options, keep_going)
    };
    let events = state.metrics.during(Phase::Prepare, serving.engine.submit(permit, prepare)).await;
    let running = Running { state, serving, shape, terms, submitted, has_text: false, events };
    if streams { Ok(running.into_stream()) } else { running.into_response().await }
}

impl Running {
    /// The next event, or why there will be none.
    async fn next(&mut self) -> Result<Event<TextPart, Transcribed>, Error> {
        let Terms { deadline, limit, .. } = self.terms;
        let event = timeout_at(deadline.into(), self.events.recv())
            .await
            .map_err(|_| Error::Deadline { limit_secs: limit.as_secs_f64() })?;
        match event {
            None => Err(Error::Internal(anyhow::anyhow!("the model gave the request up"))),
            Some(Event::Failed(error)) => Err(error.into()),
            Some(event) => {
                if !self.has_text {
                    self.has_text = true;
                    self.state.metrics.first_text(self.submitted.elapsed());
                }
                if let Event::Done(done) = &event {
                    self.note(done);
                }
                Ok(event)
            }
        }
    }

    /// Log and metrics of what is done.
    fn note(&self, Transcribed { transcript, work }: &Transcribed) {
        let metrics = &self.state.metrics;
        let total = self.submitted.elapsed();
        let gaps = transcript.coverage.gaps.iter();
        let gap_secs = gaps.fold(0.0, |secs, gap| secs + gap.end_secs - gap.start_secs);
        metrics.transcribed(&self.serving.name, transcript.task, transcript.duration_secs, total, gap_secs);
        metrics.tokens(work.n_tokens);
        for (phase, secs) in [
            (Phase::Prepare, work.prepare_secs),
            (Phase::Queue, work.queue_secs),
            (Phase::Encode, work.encode_secs),
            (Phase::DecodeSteps, work.decode_secs),
        ] {
            metrics.phase(phase, Duration::from_secs_f64(secs.max(0.0)));
        }
        tracing::info!(
            model = &*self.serving.name,
            audio_secs = transcript.duration_secs,
            n_windows = work.n_windows,
            n_tokens = work.n_tokens,
            prepare_secs = work.prepare_secs,
            queue_secs = work.queue_secs,
            encode_secs = work.encode_secs,
            decode_secs = work.decode_secs,
            gap_secs,
            "transcribed"
        );
    }

    async fn into_response(mut self) -> Result<Response, Error> {
        loop {
            if let Event::Done(done) = self.next().await? {
                let began = Instant::now();
                let Self { state, serving, shape, .. } = self;
                // Tens of thousands of tokens take a while to write.
                let written = spawn_blocking(move || shape.write(&done, &serving.transcriber)).await;
                state.metrics.phase(Phase::Render, began.elapsed());
                return written.map_err(Error::internal);
            }
        }
    }

    /// What happened as an event of the stream.
    fn tell(&self, event: Result<Event<TextPart, Transcribed>, Error>) -> sse::Event {
        let tokens = |segment: &Segment| self.serving.transcriber.text_tokens(segment);
        let tokens = self.shape.tokens(&tokens);
        let data = match event {
            Ok(Event::Part(part)) => json(&render::stream::delta(&part, tokens)),
            Ok(Event::Done(done)) => json(&render::stream::done(&done.transcript, tokens)),
            Ok(Event::Failed(error)) => self.fail(&error.into()),
            Err(error) => self.fail(&error),
        };
        sse::Event::default().data(data)
    }

    /// The status is sent long ago: a stream's errors are told in the stream.
    fn fail(&self, error: &Error) -> String {
        access::note(&self.state, error);
        json(&error.body(self.terms.id.as_ref().map(RequestId::as_str)))
    }

    /// Server-sent events until the last, which is the whole text or an error.
    fn into_stream(self) -> Response {
        let span = tracing::Span::current();
        let events = stream::unfold(Some(self), move |running| {
            async move {
                let mut running = running?;
                let event = running.next().await;
                let is_last = !matches!(event, Ok(Event::Part(_)));
                Some((running.tell(event), (!is_last).then_some(running)))
            }
            .instrument(span.clone())
        });
        respond(events)
    }
}

fn respond(events: impl Stream<Item = sse::Event> + Send + 'static) -> Response {
    let events = futures_util::StreamExt::map(events, Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

impl Shape {
    fn write(self, done: &Transcribed, transcriber: &Transcriber) -> Response {
        let transcript = &done.transcript;
        let tokens = |segment: &Segment| transcriber.text_tokens(segment);
        let body = match self.format {
            Format::Text => render::text(transcript),
            Format::Srt => render::srt(transcript),
            Format::Vtt => render::vtt(transcript),
            Format::Json => json(&render::Json::new(transcript, self.tokens(&tokens))),
            Format::VerboseJson => json(&render::VerboseJson::new(transcript, self.segments, self.words)),
        };
        ([(header::CONTENT_TYPE, self.format.content_type())], body).into_response()
    }

    fn tokens<'a>(self, tokens: &'a dyn Fn(&Segment) -> Vec<TextToken>) -> Tokens<'a> {
        self.logprobs.then_some(tokens)
    }
}

fn json(value: &impl serde::Serialize) -> String {
    // Strings, finite numbers and lists of them: nothing that JSON cannot hold.
    serde_json::to_string(value).unwrap_or_default()
}
