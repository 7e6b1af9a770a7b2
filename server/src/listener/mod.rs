//! Connections: accepted, limited in number and patience, finished before the program stops.

mod connection;
mod io;
mod linger;
mod spare;
mod stream;

use std::{future::Future, io::ErrorKind, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{rt::TokioTimer, server::conn::auto};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    connection::{Place, Shared},
    stream::Streams,
};
use crate::state::AppState;

pub use self::spare::SPARE_CONNECTIONS;
pub(crate) use self::spare::refuse as refuse_on_spare_connections;

/// A connection's buffer, and so the largest head of a request and the largest piece of a body.
const BUFFER_BYTES: usize = 64 << 10;
/// Requests that a client may have open on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// What an HTTP/2 client may send ahead on one request, and on all of one connection.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// What of a response may wait for the socket, for each request of an HTTP/2 connection.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// An HTTP/2 client is asked whether it is there, and has so long to say yes.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Wait after a failure of the system to accept a connection, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `app` on `listener` until `stop`; then requests in flight may finish for `serve.drain_secs`, or until `abort`.
/// Says whether all of them did.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    state: Arc<AppState>,
    stop: impl Future<Output = ()>,
    abort: impl Future<Output = ()>,
) -> bool {
    let limits = &state.config.serve;
    let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let spares = Arc::new(Semaphore::new(SPARE_CONNECTIONS));
    let (stopping, stop_of_all) = watch::channel(false);
    let shared = Shared {
        app,
        server: Arc::new(builder(limits.keep_alive_secs.duration(), Streams(Arc::clone(&state)))),
        state: Arc::clone(&state),
        stop: stop_of_all,
    };
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // The client was faster to leave than we to come.
            Err(error) if is_of_the_client(error.kind()) => continue,
            Err(error) => {
                tracing::warn!("no connection can be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let take = |room: &Arc<Semaphore>, is_spare| {
            Arc::clone(room).try_acquire_owned().map(|permit| Place { is_spare, _permit: permit })
        };
        // Closed at once: a client that waits in a queue of connections learns nothing.
        let Ok(place) = take(&places, false).or_else(|_| take(&spares, true)) else {
            state.metrics.rejected("connections");
            continue;
        };
        connections.spawn(shared.clone().serve(stream, place));
    }
    drop(listener);
    stopping.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    let finished = tokio::select! {
        biased;
        finished = timeout(limits.drain_secs.duration(), ended) => finished.is_ok(),
        () = abort => false,
    };
    connections.shutdown().await;
    finished
}

fn builder(keep_alive: Duration, streams: Streams) -> auto::Builder<Streams> {
    let mut server = auto::Builder::new(streams);
    server
        .http1()
        .timer(TokioTimer::new())
        // Also runs while a connection is idle; the first head has its own, shorter limit.
        .header_read_timeout(keep_alive)
        .max_buf_size(BUFFER_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(BUFFER_BYTES as u32)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    server
}

fn is_of_the_client(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}
