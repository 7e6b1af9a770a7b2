//! Refused uploads: whoever is refused while still sending learns why, instead of a broken connection.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Request, header};
use bytes::Bytes;
use futures_util::future::poll_fn;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// How much of a refused body is still taken from the network, and for how long, before the connection is closed: what
/// a client on a fast network sends before it looks for the answer.
const MAX_BYTES: u64 = 64 << 20;
const MAX_TIME: Duration = Duration::from_secs(5);

/// A request's body. Dropped before its end, it is read on and thrown away for a while: the system answers bytes that
/// nobody reads with a reset, which can overtake the response. (HTTP/2 resets the stream alone, but there are clients
/// that then forget the response, too.)
pub(super) struct Linger {
    /// `None` once it is read on elsewhere.
    body: Option<Incoming>,
    /// Whether the client sends it without waiting for us.
    is_coming: bool,
}

impl Linger {
    pub(super) fn new(request: Request<Incoming>) -> Request<Self> {
        // A client that asks first sends nothing when it is refused.
        let is_coming = !request.headers().contains_key(header::EXPECT);
        request.map(|body| Self { body: Some(body), is_coming })
    }
}

impl Body for Linger {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_coming = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| self.is_coming && !body.is_end_stream()) else {
            return;
        };
        // A connection has few such bodies at a time, and connections are limited.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(MAX_TIME, discard(body)));
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut n_bytes = 0;
    while n_bytes <= MAX_BYTES
        && let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        n_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}
