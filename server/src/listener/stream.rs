//! Streams of an HTTP/2 connection. Its client may read all that comes on the socket and still take nothing of a
//! response: it grants every stream, and the connection, the bytes that may be sent. hyper waits for that without end, and
//! asks for no more of the body meanwhile, so that nothing within the body can notice it. Hence the task is watched that
//! hyper runs each stream in. (On HTTP/1 the socket says it all.)

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::{
    body::{Body as HttpBody, Frame, SizeHint},
    rt::Executor,
};

use super::connection::InFlight;
use crate::{access, error::Error, stall::Stall, state::AppState};

/// The largest piece of a response that is handed over at once: a frame of HTTP/2 as clients take it by default. A client
/// has to take one within the time limit.
const PIECE_BYTES: usize = 16 << 10;

tokio::task_local! {
    /// The client of the stream whose task this is.
    static READER: Arc<Reader>;
}

/// Runs the streams of HTTP/2 connections and ends those whose client takes nothing.
#[derive(Debug, Clone)]
pub(super) struct Streams(pub(super) Arc<AppState>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(watch(Arc::clone(&self.0), stream));
    }
}

/// Runs a stream to its end, or until its client has taken nothing for too long: then it is dropped, and with it the body
/// and the request's work; the client sees that it is reset.
async fn watch(state: Arc<AppState>, stream: impl Future<Output = ()>) {
    let limit = state.config.serve.write_timeout_secs;
    let reader = Arc::<Reader>::default();
    let mut stream = pin!(READER.scope(Arc::clone(&reader), stream));
    let mut stall = Stall::new(limit.duration());
    let mut n_taken = 0;
    let has_ended = poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        if !reader.has_more() || reader.n_taken() > n_taken {
            n_taken = reader.n_taken();
            stall.over();
        }
        if reader.has_more() { stall.poll(context).map(|()| false) } else { Poll::Pending }
    })
    .await;
    if !has_ended {
        access::note(&state, &Error::SlowReader { limit_secs: limit.get() });
    }
}

/// How far a client is with its response.
#[derive(Debug, Default)]
struct Reader {
    n_given: AtomicU64,
    n_taken: AtomicU64,
}

impl Reader {
    /// A piece was handed to hyper, which sends it when the client grants room for it.
    fn give(&self) {
        self.n_given.fetch_add(1, Relaxed);
    }

    /// hyper asks for more: all that it was given has found room.
    fn take(&self) {
        self.n_taken.store(self.n_given.load(Relaxed), Relaxed);
    }

    /// Whether hyper has a piece for which the client has no room yet.
    fn has_more(&self) -> bool {
        self.n_given.load(Relaxed) > self.n_taken()
    }

    fn n_taken(&self) -> u64 {
        self.n_taken.load(Relaxed)
    }
}

/// A response's body on its way to hyper.
pub(super) struct Answer {
    body: Body,
    /// What is still to be handed over of the frame that came last.
    rest: Bytes,
    /// `None` on HTTP/1.
    reader: Option<Arc<Reader>>,
    _in_flight: InFlight,
}

impl Answer {
    /// Made in the task of its stream.
    pub(super) fn new(body: Body, in_flight: InFlight) -> Self {
        let reader = READER.try_with(Arc::clone).ok();
        Self { body, rest: Bytes::new(), reader, _in_flight: in_flight }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(reader) = self.reader.clone() else { return Pin::new(&mut self.body).poll_frame(context) };
        reader.take();
        if self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)?) else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        reader.give();
        let n_bytes = piece_bytes(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(n_bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// How much of so many bytes is handed over next. hyper lets go of a piece when the client has room for its first byte, and
/// of the stream when it has let go of the last piece: a last piece of one byte is one that has found room whole.
fn piece_bytes(n_bytes: usize) -> usize {
    if n_bytes > 1 { (n_bytes - 1).min(PIECE_BYTES) } else { n_bytes }
}
