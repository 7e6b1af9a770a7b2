//! A request's body on its way into the form's parser: limited in size, in time, and in what the parser may hoard.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Sleep, sleep};

use crate::{config::Serve, stall::Stall, uploads::Meter};

/// Bytes that the parser may take without giving anything back: many times what the headers of a part need. It keeps
/// all of them, because it looks for their end. One more piece, of at most the connection's buffer, comes on top.
const ALLOWANCE_BYTES: u64 = 16 << 10;

/// Why a body is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the body is too large")]
    TooLarge,
    #[error("the parser finds nothing in it")]
    Stuck,
    #[error("nothing came for too long")]
    Idle,
    #[error("it takes too long")]
    Late,
    #[error("its place was given to another one")]
    Displaced,
    #[error("the connection broke off")]
    Broken,
}

/// Lets the parser have a piece of the body only when it can do nothing without one. By itself it takes all that there
/// is, at every call, and keeps it: a hundred parts of a few bytes would hoard a hundred pieces.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    is_open: AtomicBool,
    /// Bytes that passed since the parser last gave something back.
    n_passed: AtomicU64,
}

impl Gate {
    /// Polls the parser with what it has, and gives it a piece whenever that is not enough.
    pub(super) fn feed<T>(
        &self,
        context: &mut Context<'_>,
        mut parser: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.0.is_open.store(false, Relaxed);
        let mut polled = parser(context);
        while polled.is_pending() {
            self.0.is_open.store(true, Relaxed);
            polled = parser(context);
            if self.0.is_open.swap(false, Relaxed) {
                // Nothing passed: the body wakes this task when there is more.
                break;
            }
        }
        if polled.is_ready() {
            self.0.n_passed.store(0, Relaxed);
        }
        polled
    }
}

/// The body as the parser gets it.
pub(super) struct Metered {
    body: BodyDataStream,
    gate: Gate,
    meter: Meter,
    max_bytes: u64,
    n_bytes: u64,
    /// Runs while nothing comes.
    idle: Stall,
    deadline: Pin<Box<Sleep>>,
}

impl Metered {
    pub(super) fn new(body: BodyDataStream, gate: Gate, meter: Meter, limits: &Serve) -> Self {
        Self {
            body,
            gate,
            meter,
            max_bytes: limits.max_upload_bytes,
            n_bytes: 0,
            idle: Stall::new(limits.upload_idle_secs.duration()),
            deadline: Box::pin(sleep(limits.upload_timeout_secs.duration())),
        }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(Refusal::Late)));
        }
        if self.meter.poll_displaced(context).is_ready() {
            return Poll::Ready(Some(Err(Refusal::Displaced)));
        }
        match Pin::new(&mut self.body).poll_next(context) {
            Poll::Pending => {
                self.meter.wait();
                self.idle.poll(context).map(|()| Some(Err(Refusal::Idle)))
            }
            Poll::Ready(piece) => {
                self.idle.over();
                self.meter
                    .receive(piece.as_ref().map_or(0, |piece| piece.as_ref().map_or(0, Bytes::len)) as u64);
                Poll::Ready(piece.map(|piece| piece.map_err(|_| Refusal::Broken)))
            }
        }
    }
}

impl Stream for Metered {
    type Item = Result<Bytes, Refusal>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let gate = Arc::clone(&self.gate.0);
        if !gate.is_open.load(Relaxed) {
            return Poll::Pending;
        }
        if gate.n_passed.load(Relaxed) > ALLOWANCE_BYTES {
            return Poll::Ready(Some(Err(Refusal::Stuck)));
        }
        let polled = self.poll_body(context);
        if let Poll::Ready(piece) = &polled {
            gate.is_open.store(false, Relaxed);
            if let Some(Ok(piece)) = piece {
                gate.n_passed.fetch_add(piece.len() as u64, Relaxed);
                self.n_bytes += piece.len() as u64;
                if self.n_bytes > self.max_bytes {
                    return Poll::Ready(Some(Err(Refusal::TooLarge)));
                }
            }
        }
        polled
    }
}
