//! One client of the service: a connection that is kept, requests one after the other.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use hyper::{
    HeaderMap, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::target::Target;

/// Of an answer; a longer one is a failure.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// How long a client that leaves during its upload keeps the service waiting for the rest of it.
const STALL: Duration = Duration::from_millis(50);

/// A client and its connection.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    connection: Option<Connection>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// When the first event of a stream was there.
    pub(super) first_event: Option<Instant>,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no answer in {0:?}")]
    TimedOut(Duration),
    #[error("an answer of more than {MAX_ANSWER_BYTES} bytes")]
    TooLong,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Body>,
    task: AbortHandle,
}

impl Drop for Connection {
    /// Closes the socket whatever was under way: this is how clients hang up.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(super) fn new(target: Target) -> Self {
        Self { target, connection: None }
    }

    /// Asks and reads the whole answer. Whoever drops this future hangs up.
    pub(super) async fn ask(&mut self, request: Request<Body>, limit: Duration) -> Result<Answer, Failure> {
        timeout(limit, self.exchange(request)).await.unwrap_or(Err(Failure::TimedOut(limit)))
    }

    /// Asks and hangs up after `patience`, or has the answer before.
    pub(super) async fn ask_and_leave(&mut self, request: Request<Body>, patience: Duration) {
        let _ = timeout(patience, self.exchange(request)).await;
        self.connection = None;
    }

    /// Sends the headers and `share` of the body, then hangs up.
    pub(super) async fn leave_during_upload(&mut self, request: Request<Body>, body: &Bytes, share: f64) {
        let sent = body.slice(..(body.len() as f64 * share) as usize);
        let stalled = stream::once(async { Ok::<_, std::io::Error>(sent) }).chain(stream::pending());
        let request = request.map(|_| Body::from_stream(stalled));
        self.ask_and_leave(request, STALL).await;
    }

    async fn exchange(&mut self, request: Request<Body>) -> Result<Answer, Failure> {
        // Put back only at the end: a connection whose answer was not read to its end is of no further use.
        let mut connection = match self.connection.take() {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        if connection.sender.ready().await.is_err() {
            connection = self.connect().await?;
        }
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            // The service had closed the idle connection: nothing of the request was sent.
            Err(mut error) => match error.take_message() {
                Some(request) => {
                    connection = self.connect().await?;
                    connection.sender.send_request(request).await.map_err(|error| broken(&error))?
                }
                None => return Err(broken(&error.into_error())),
            },
        };
        let (parts, body) = response.into_parts();
        let mut first_event = None;
        let body = read(Body::new(body).into_data_stream(), &mut first_event).await?;
        self.connection = Some(connection);
        Ok(Answer { status: parts.status, headers: parts.headers, body, first_event })
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let socket = TcpStream::connect(self.target.address).await.map_err(Failure::Connect)?;
        socket.set_nodelay(true).map_err(Failure::Connect)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(|error| broken(&error))?;
        // Its errors reach whoever waits for the answer.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connection { sender, task })
    }
}

async fn read(mut chunks: BodyDataStream, first_event: &mut Option<Instant>) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        if first_event.is_none() && chunk.starts_with(b"data:") {
            *first_event = Some(Instant::now());
        }
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Failure::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The library says what it was doing, the error's source why that failed.
fn broken(error: &dyn std::error::Error) -> Failure {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    Failure::Broken(format!("{error}{source}"))
}
