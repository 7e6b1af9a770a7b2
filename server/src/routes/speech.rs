//! `POST /v1/audio/speech`: from a text to sound, which is sent while it is made.

pub mod request;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use audio::encode::{AudioFormat, Encoder};
use axum::{
    body::Body,
    extract::{Request, State},
    http::header,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use models::Spoken;
use serde::Serialize;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::spawn_blocking,
    time::{timeout, timeout_at},
};
use tracing::{Instrument, Span};
use utoipa::ToSchema;

use self::request::SpeechRequest;
use super::{
    json,
    schema::{Speech, SpeechBody},
    transcribe::KEEP_ALIVE,
    transcriptions::time_limit,
};
use crate::{
    access::{self, RequestId},
    engine::{Event, Events, Permit},
    error::Error,
    metrics::Phase,
    speaking::Speaking,
    state::AppState,
};

/// Samples per second of all that is sent, whatever the model speaks at: OpenAI's.
const SAMPLE_RATE: u32 = 24_000;
/// Largest piece of what is sent: threads that answer put pieces into events, which takes them microseconds.
pub(crate) const MAX_PIECE_BYTES: usize = 32 << 10;
/// What a character takes to say, about.
const SECS_PER_CHAR: f64 = 0.07;

/// Speaks a text.
#[utoipa::path(
    post, path = "/v1/audio/speech", tag = "speech", security(("key" = []), ()),
    request_body(content = SpeechBody, content_type = "application/json"),
    responses(Speech)
)]
pub(super) async fn create_speech(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, Error> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let serve = &state.config.serve;
    let limit = time_limit(&head.headers, serve.request_timeout_secs.duration());
    let reading = json::read(&head.headers, body, serve);
    let read = state.metrics.during(Phase::Upload, reading).await;
    if let Err(Error::Disconnected) = read {
        // A client that leaves while it sends is an error of its body, not the end of this future.
        state.metrics.cancelled(Phase::Upload);
    }
    let request = SpeechRequest::parse(&read?, &state.config.speak)?;
    if let Some((param, message)) = serve.too_much_speech(&request.options) {
        return Err(Error::invalid(param, message));
    }
    let received = Instant::now();
    state.metrics.phase(Phase::Upload, received - started);
    let speaking = state.models.speaking(&request.model)?;
    speaking.engine.admission().check()?;
    let terms =
        Terms { id: head.extensions.get().cloned(), received, limit: serve.request_timeout_secs.duration() };
    let late = |_| Error::Deadline { limit_secs: limit.as_secs_f64() };
    // How long a client says that it waits is until the first sound; then some comes all the time.
    timeout(limit, speak(Arc::clone(&state), speaking, request, terms)).await.map_err(late)?
}

/// What a client is owed beside its sound.
#[derive(Debug, Clone)]
struct Terms {
    /// Names the request in errors and in the log.
    id: Option<RequestId>,
    /// When it was there.
    received: Instant,
    /// How long it may take in all.
    limit: Duration,
}

async fn speak(
    state: Arc<AppState>,
    speaking: Arc<Speaking>,
    request: SpeechRequest,
    terms: Terms,
) -> Result<Response, Error> {
    let SpeechRequest { input, voice, format, is_sse, options, .. } = request;
    // What it may take in all: a client waits for the first sound alone.
    let patience = (terms.received + terms.limit).saturating_duration_since(Instant::now());
    // About how long it will be, until it is read: nobody has work done before it is let in.
    let expected_secs = input.chars().count() as f64 * SECS_PER_CHAR / options.speed;
    let permit = speaking.engine.admission().enter(expected_secs, Some(patience))?;
    let began = Instant::now();
    let voice = state.metrics.during(Phase::Prepare, speaking.voice(&voice, &state.voices)).await?;
    let learnt_after = began.elapsed();
    let (model, metrics) = (speaking.synthesizer.clone(), Arc::clone(&state.metrics));
    let prepare = move |permit: &mut Permit, is_wanted: &dyn Fn() -> bool| {
        if !is_wanted() {
            return Err(models::Error::Cancelled);
        }
        let began = Instant::now();
        let speech = model.prepare(&input, &voice, &options)?;
        permit.expect(speech.cost_secs());
        metrics.phase(Phase::Prepare, learnt_after + began.elapsed());
        Ok(speech)
    };
    let began = Instant::now();
    let events = state.metrics.during(Phase::Queue, speaking.engine.submit(permit, prepare)).await;
    let encoder = Encoder::converting(format, speaking.synthesizer.sample_rate(), SAMPLE_RATE, None)
        .map_err(Error::internal)?;
    let mut running =
        Running { state, speaking, terms, began, events, encoder: Some(encoder), has_sound: false };
    // Until there is something to send, an error has a status of its own.
    let first = loop {
        let said = running.next().await?;
        if !said.sound.is_empty() || said.spoken.is_some() {
            break said;
        }
    };
    let id = running.terms.id.clone();
    let pieces = running.into_pieces(first);
    Ok(if is_sse { events_response(pieces, id) } else { audio_response(pieces, format) })
}

/// What the model said, encoded.
struct Said {
    /// The bytes that are ready, perhaps none.
    sound: Vec<u8>,
    /// What was spoken, once that is all.
    spoken: Option<Spoken>,
}

/// What is sent.
enum Piece {
    /// Bytes of the format.
    Sound(Bytes),
    /// What was spoken: the last one.
    Done(Spoken),
}

impl Said {
    fn into_pieces(self) -> Vec<Piece> {
        // Each has memory of its own: what is taken is gone.
        let sound = self.sound.chunks(MAX_PIECE_BYTES).map(Bytes::copy_from_slice);
        sound.map(Piece::Sound).chain(self.spoken.map(Piece::Done)).collect()
    }
}

impl Piece {
    /// Memory that it takes while it waits.
    fn n_bytes(&self) -> usize {
        let n_bytes = match self {
            Self::Sound(bytes) => bytes.len(),
            Self::Done(_) => 0,
        };
        n_bytes + size_of::<Result<Self, Error>>()
    }
}

/// A request on its way.
struct Running {
    state: Arc<AppState>,
    speaking: Arc<Speaking>,
    terms: Terms,
    /// When it was handed to the model.
    began: Instant,
    events: Events<Vec<f32>, Spoken>,
    /// Gone once it has written its last.
    encoder: Option<Encoder>,
    has_sound: bool,
}

impl Running {
    /// What the model says next, encoded.
    async fn next(&mut self) -> Result<Said, Error> {
        let Terms { received, limit, .. } = self.terms;
        let event = timeout_at((received + limit).into(), self.events.recv())
            .await
            .map_err(|_| Error::Deadline { limit_secs: limit.as_secs_f64() })?;
        let (samples, spoken) = match event {
            Some(Event::Part(samples)) => (samples, None),
            Some(Event::Done(spoken)) => (Vec::new(), Some(spoken)),
            Some(Event::Failed(error)) => return Err(error.into()),
            None => return Err(Error::Internal(anyhow::anyhow!("the model gave the request up"))),
        };
        let ended = || Error::Internal(anyhow::anyhow!("the model goes on after its end"));
        let encoder = self.encoder.take().ok_or_else(ended)?;
        let is_last = spoken.is_some();
        // A second of sound takes milliseconds to encode.
        let encoding = spawn_blocking(move || encode(encoder, &samples, is_last));
        let (sound, encoder) = encoding.await.map_err(Error::internal)??;
        self.encoder = encoder;
        if !self.has_sound && !sound.is_empty() {
            self.has_sound = true;
            self.state.metrics.first_sound(received.elapsed());
        }
        if let Some(spoken) = &spoken {
            self.note(spoken);
        }
        Ok(Said { sound, spoken })
    }

    /// Log and metrics of what is done.
    fn note(&self, spoken: &Spoken) {
        let Spoken { n_symbols, n_patches, duration_secs, .. } = *spoken;
        let (metrics, time) = (&self.state.metrics, self.terms.received.elapsed());
        metrics.spoken(&self.speaking.name, duration_secs, n_patches, time);
        metrics.phase(Phase::Speak, self.began.elapsed());
        let (model, total_secs) = (&*self.speaking.name, time.as_secs_f64());
        tracing::info!(model, audio_secs = duration_secs, n_symbols, n_patches, total_secs, "spoken");
    }

    /// What the model says from here on. The last is an error, or has what was spoken.
    fn into_said(self) -> impl Stream<Item = Result<Said, Error>> + Send + 'static {
        stream::unfold(Some(self), |running| async move {
            let mut running = running?;
            let said = running.next().await;
            let goes_on = matches!(&said, Ok(Said { spoken: None, .. }));
            Some((said, goes_on.then_some(running)))
        })
    }

    /// All pieces, those of `first` before the others, which are fetched whether they are read or not.
    fn into_pieces(self, first: Said) -> Pieces {
        // One is on its way; the others wait where they can be let go of.
        let (sender, receiver) = channel(1);
        let span = Span::current();
        tokio::spawn(self.hand_on(first, sender).instrument(span.clone()));
        Pieces { receiver, span }
    }

    /// Fetches pieces until the last or an error, and keeps them until they are taken. Sound is made faster than it is listened to,
    /// and no model waits: what may be kept of all responses, [`crate::unread`] says. When nobody is left to take them, or too
    /// much was left unread, the model hears of it, because its events are dropped.
    async fn hand_on(self, first: Said, sender: Sender<Result<Piece, Error>>) {
        let state = Arc::clone(&self.state);
        let backlog = state.unread.begin();
        let mut kept = VecDeque::new();
        let keep = |kept: &mut VecDeque<_>, said: Said| {
            for piece in said.into_pieces() {
                backlog.add(piece.n_bytes());
                kept.push_back(Ok(piece));
            }
        };
        let mut coming = first.spoken.is_none().then(|| Box::pin(self.into_said()));
        keep(&mut kept, first);
        while coming.is_some() || !kept.is_empty() {
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = backlog.cut() => {
                    let error = Error::Unread { limit_bytes: state.unread.max_bytes() };
                    access::note(&state, &error);
                    coming = None;
                    kept = VecDeque::from([Err(error)]);
                }
                room = sender.reserve(), if !kept.is_empty() => {
                    // Nobody there to hear it is no fault.
                    let Ok(room) = room else { return };
                    if let Some(piece) = kept.pop_front() {
                        backlog.take(piece.as_ref().map_or(0, Piece::n_bytes));
                        room.send(piece);
                    }
                }
                said = next_of(&mut coming), if coming.is_some() => match said {
                    Some(Ok(said)) => {
                        if said.spoken.is_some() {
                            coming = None;
                        }
                        keep(&mut kept, said);
                    }
                    Some(Err(error)) => {
                        access::note(&state, &error);
                        coming = None;
                        kept.push_back(Err(error));
                    }
                    // It was the last one.
                    None => coming = None,
                },
            }
        }
    }
}

async fn next_of<S: Stream + Unpin>(stream: &mut Option<S>) -> Option<S::Item> {
    stream.as_mut()?.next().await
}

/// The bytes that are ready; at the last samples all others, and no encoder is left.
fn encode(mut encoder: Encoder, samples: &[f32], is_last: bool) -> Result<(Vec<u8>, Option<Encoder>), Error> {
    // The client's audio is not at fault, there is none.
    let mut bytes = encoder.push(samples).map_err(Error::internal)?;
    if !is_last {
        return Ok((bytes, Some(encoder)));
    }
    bytes.extend(encoder.finish().map_err(Error::internal)?);
    Ok((bytes, None))
}

/// Pieces on their way to the client. Dropping it ends the work.
struct Pieces {
    receiver: Receiver<Result<Piece, Error>>,
    /// The request's.
    span: Span,
}

impl Pieces {
    /// The pieces in order; the last is a [`Piece::Done`] or an error, whatever happens.
    fn into_stream(self) -> impl Stream<Item = Result<Piece, Error>> + Send + 'static {
        stream::unfold(Some(self), |pieces| async move {
            let mut pieces = pieces?;
            let piece = pieces.receiver.recv().await.unwrap_or_else(|| {
                // Whoever was to send it came to grief, and tells nobody.
                tracing::error!(parent: &pieces.span, "the speech broke off");
                Err(Error::Internal(anyhow::anyhow!("the speech broke off")))
            });
            let goes_on = matches!(piece, Ok(Piece::Sound(_)));
            Some((piece, goes_on.then_some(pieces)))
        })
    }
}

/// The bytes as they come. An error cuts the connection: what was sent is seen to be no whole file.
fn audio_response(pieces: Pieces, format: AudioFormat) -> Response {
    let bytes = pieces.into_stream().filter_map(|piece| async move {
        match piece {
            Ok(Piece::Sound(bytes)) => Some(Ok(bytes)),
            Ok(Piece::Done(_)) => None,
            Err(error) => Some(Err(io::Error::other(error.to_string()))),
        }
    });
    ([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(bytes)).into_response()
}

/// Server-sent events until the last, which says what was spoken or what went wrong.
fn events_response(pieces: Pieces, id: Option<RequestId>) -> Response {
    let events = pieces.into_stream().map(move |piece| {
        Ok::<_, Infallible>(match piece {
            Ok(Piece::Sound(bytes)) => delta(&bytes),
            Ok(Piece::Done(spoken)) => event(&SpeechDone::new(&spoken)),
            Err(error) => {
                let body = error.body(id.as_ref().map(RequestId::as_str));
                sse::Event::default().event("error").data(json_text(&body))
            }
        })
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn delta(bytes: &[u8]) -> sse::Event {
    event(&SpeechDelta { r#type: "speech.audio.delta", audio: STANDARD.encode(bytes) })
}

fn event(value: &impl Serialize) -> sse::Event {
    sse::Event::default().data(json_text(value))
}

fn json_text(value: &impl Serialize) -> String {
    // Strings and integers: nothing that JSON cannot hold.
    serde_json::to_string(value).unwrap_or_default()
}

/// More of the sound.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SpeechDelta {
    /// Always `speech.audio.delta`.
    #[schema(example = "speech.audio.delta")]
    r#type: &'static str,
    /// The next bytes of the format, in Base64. All of them put together are the file.
    audio: String,
}

/// The end of the sound.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SpeechDone {
    /// Always `speech.audio.done`.
    #[schema(example = "speech.audio.done")]
    r#type: &'static str,
    /// What was read and spoken.
    usage: SpeechUsage,
}

/// What was read and spoken.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SpeechUsage {
    /// Symbols that the model read.
    input_tokens: usize,
    /// Patches of sound that it spoke.
    output_tokens: usize,
    /// Both together.
    total_tokens: usize,
}

impl SpeechDone {
    fn new(spoken: &Spoken) -> Self {
        let (input_tokens, output_tokens) = (spoken.n_symbols, spoken.n_patches);
        let usage = SpeechUsage { input_tokens, output_tokens, total_tokens: input_tokens + output_tokens };
        Self { r#type: "speech.audio.done", usage }
    }
}

#[cfg(test)]
mod tests;
