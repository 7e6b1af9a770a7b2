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
use models::{Segment, TextPart, TextToken, Transcribed, Transcriber, Transcript, Transcription};
use tokio::{task::spawn_blocking, time::timeout_at};
use tracing::Instrument;

use super::{form::Upload, request::TranscriptionRequest};
use crate::{
    access::{self, RequestId},
    cascade::Cascade,
    decode::DecodedAudio,
    engine::{Event, Events, Permit},
    error::Error,
    metrics::{Arrival, Phase, Timeline},
    render::{self, Format, stream::Tokens},
    state::{AppState, Hearing},
};

/// A comment is sent when nothing else was for so long: what stands between here and the client may take silence for death.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// An event with more tokens takes longer to write than a thread that answers requests should be kept: a segment has
/// fewer, the whole text has any number.
const MAX_INLINE_TOKENS: usize = 512;

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
    /// When it came.
    pub(super) arrival: Arrival,
    /// How long the client, or the server, waits.
    pub(super) limit: Duration,
    /// When that is over.
    pub(super) deadline: Instant,
}

/// A request on its way.
struct Running {
    state: Arc<AppState>,
    serving: Arc<Hearing>,
    shape: Shape,
    terms: Terms,
    /// Who translates the transcript, and into what.
    cascade: Option<(Arc<Cascade>, String)>,
    has_text: bool,
    events: Events<TextPart, Transcribed>,
}

/// An upload as the model takes it.
///
/// # Errors
/// Audio that is refused, faults of ours.
pub(super) async fn decode(state: &AppState, serving: &Hearing, upload: Upload) -> Result<Waveform, Error> {
    let sample_rate = serving.transcriber.feature_spec().sample_rate;
    let decoding = state.decoder.decode(upload.file, sample_rate);
    let DecodedAudio { waveform, warnings, .. } = state.metrics.during(Phase::Decode, decoding).await?;
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
    (serving, cascade): (Arc<Hearing>, Option<Arc<Cascade>>),
    request: TranscriptionRequest,
    waveform: Waveform,
    terms: Terms,
) -> Result<Response, Error> {
    let cascade = cascade.zip(request.cascade.map(|cascade| cascade.to_language));
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
    let prepare = move |_: &mut Permit, keep_going: &dyn Fn() -> bool| {
        Transcription::prepare(&transcriber, waveform, &options, keep_going)
    };
    let events = state.metrics.during(Phase::Queue, serving.engine.submit(permit, prepare)).await;
    let running = Running { state, serving, shape, terms, cascade, has_text: false, events };
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
                    self.state.metrics.first_text(self.terms.arrival.received.elapsed());
                }
                Ok(event)
            }
        }
    }

    /// Log and metrics of what is done.
    fn note(&self, Transcribed { transcript, work }: &Transcribed, timeline: &Timeline) {
        let metrics = &self.state.metrics;
        let gaps = transcript.coverage.gaps.iter();
        let gap_secs = gaps.fold(0.0, |secs, gap| secs + gap.end_secs - gap.start_secs);
        let (audio_secs, wait) = (transcript.duration_secs, timeline.wait());
        metrics.transcribed(&self.serving.name, transcript.task, audio_secs, wait, gap_secs);
        metrics.tokens(work.n_tokens);
        let spent = timeline.spent(work);
        for (phase, time) in spent.after_decode() {
            metrics.phase(phase, time);
        }
        tracing::info!(
            model = &*self.serving.name,
            audio_secs,
            n_windows = work.n_windows,
            n_tokens = work.n_tokens,
            total_secs = timeline.total().as_secs_f64(),
            upload_secs = spent.upload.as_secs_f64(),
            decode_secs = spent.decode.as_secs_f64(),
            prepare_secs = spent.prepare.as_secs_f64(),
            queue_secs = spent.queue.as_secs_f64(),
            encode_secs = spent.encode.as_secs_f64(),
            decode_steps_secs = spent.decode_steps.as_secs_f64(),
            cascade = transcript.cascade,
            translate_secs = spent.translate.as_secs_f64(),
            render_secs = spent.render.as_secs_f64(),
            gap_secs,
            "transcribed"
        );
    }

    /// Puts the transcript into the language that a cascade is asked for.
    async fn translated(&self, done: Transcribed) -> Result<Transcribed, Error> {
        let Some((cascade, to_language)) = self.cascade.clone() else { return Ok(done) };
        let translating = cascade.translate_while_wanted(done.transcript, to_language);
        let transcript = self.state.metrics.during(Phase::Translate, translating).await?;
        Ok(Transcribed { transcript, work: done.work })
    }

    /// Writes the result, and notes what it took.
    async fn finish<T: Send + 'static>(
        &self,
        done: Transcribed,
        write: fn(Shape, &Transcript, &Transcriber) -> T,
    ) -> Result<T, Error> {
        let finished = Instant::now();
        let done = self.translated(done).await?;
        let translated = if self.cascade.is_some() { Instant::now() } else { finished };
        let (shape, serving) = (self.shape, Arc::clone(&self.serving));
        // Tens of thousands of tokens take a while to write.
        let writing = spawn_blocking(move || (write(shape, &done.transcript, &serving.transcriber), done));
        let written = self.state.metrics.during(Phase::Render, writing).await;
        let (written, done) = written.map_err(Error::internal)?;
        let arrival = self.terms.arrival;
        self.note(&done, &Timeline { arrival, finished, translated, written: Instant::now() });
        Ok(written)
    }

    async fn into_response(mut self) -> Result<Response, Error> {
        loop {
            if let Event::Done(done) = self.next().await? {
                return self.finish(done, Shape::write).await;
            }
        }
    }

    /// What happened as an event of the stream.
    async fn tell(&self, event: Result<Event<TextPart, Transcribed>, Error>) -> sse::Event {
        let told = match event {
            Ok(Event::Part(part)) if part.segment.token_ids.len() > MAX_INLINE_TOKENS => {
                let (shape, serving) = (self.shape, Arc::clone(&self.serving));
                let told = spawn_blocking(move || shape.delta(&part, &serving.transcriber)).await;
                told.map_err(Error::internal)
            }
            Ok(Event::Part(part)) => Ok(self.shape.delta(&part, &self.serving.transcriber)),
            Ok(Event::Done(done)) => self.finish(done, Shape::done).await,
            Ok(Event::Failed(error)) => Err(error.into()),
            Err(error) => Err(error),
        };
        told.unwrap_or_else(|error| sse::Event::default().data(self.fail(&error)))
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
                // The next one is not asked for before this one is written: they stay in order.
                let told = running.tell(event).await;
                Some((told, (!is_last).then_some(running)))
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
    fn delta(self, part: &TextPart, transcriber: &Transcriber) -> sse::Event {
        let tokens = |segment: &Segment| transcriber.text_tokens(segment);
        sse::Event::default().data(json(&render::stream::delta(part, self.tokens(&tokens))))
    }

    fn done(self, transcript: &Transcript, transcriber: &Transcriber) -> sse::Event {
        let tokens = |segment: &Segment| transcriber.text_tokens(segment);
        sse::Event::default().data(json(&render::stream::done(transcript, self.tokens(&tokens))))
    }

    fn write(self, transcript: &Transcript, transcriber: &Transcriber) -> Response {
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

#[cfg(test)]
mod tests;
