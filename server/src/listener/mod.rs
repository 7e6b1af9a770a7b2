//! Connections: accepted, limited in number and patience, finished before the program stops.

mod io;
mod linger;

use std::{
    convert::Infallible,
    future::Future,
    io::ErrorKind,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::ServiceExt;

use self::{io::Patient, linger::Linger};
use crate::state::AppState;

/// A connection's buffer, and so the largest head of a request and the largest piece of a body.
const BUFFER_BYTES: usize = 64 << 10;
/// Requests that a client may have open on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// What an HTTP/2 client may send ahead on one request, and on all of one connection.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
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
    let server = Arc::new(builder(limits.keep_alive_secs.duration()));
    let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
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
        // Closed at once: a client that waits in a queue of connections learns nothing.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            state.metrics.rejected("connections");
            continue;
        };
        let watcher = graceful.watcher();
        connections.spawn(connection(
            stream,
            app.clone(),
            Arc::clone(&server),
            Arc::clone(&state),
            watcher,
            place,
        ));
    }
    drop(listener);
    let finished = tokio::select! {
        biased;
        finished = timeout(limits.drain_secs.duration(), graceful.shutdown()) => finished.is_ok(),
        () = abort => false,
    };
    connections.shutdown().await;
    finished
}

fn builder(keep_alive: Duration) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
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
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    server
}

async fn connection(
    stream: TcpStream,
    app: Router,
    server: Arc<auto::Builder<TokioExecutor>>,
    state: Arc<AppState>,
    watcher: hyper_util::server::graceful::Watcher,
    _place: OwnedSemaphorePermit,
) {
    let limits = &state.config.serve;
    let _ = stream.set_nodelay(true);
    let has_begun = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&has_begun);
    let service = tower::service_fn(move |request: Request<Incoming>| {
        noted.store(true, Relaxed);
        let app = app.clone();
        async move { Ok::<_, Infallible>(respond(app, request).await) }
    });
    let stream = TokioIo::new(Patient::new(stream, limits.write_timeout_secs.duration()));
    let connection = server.serve_connection(stream, TowerToHyperService::new(service)).into_owned();
    let mut connection = pin!(watcher.watch(connection));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = sleep(limits.header_timeout_secs.duration()) => {
            if !has_begun.load(Relaxed) {
                tracing::debug!("connection closed: no request came");
                return;
            }
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("connection closed: {error}");
    }
}

async fn respond(app: Router, request: Request<Incoming>) -> axum::response::Response {
    match app.oneshot(Linger::new(request).map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn is_of_the_client(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}
