//! A service on the loopback interface that answers transcriptions by a rule, and counts who asks.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::{net::TcpListener, runtime::Runtime, time::sleep};

/// What the service does. Requests are counted from 1.
#[derive(Default, Clone)]
pub struct Behaviour {
    /// Time that an answer takes.
    pub delay: Duration,
    /// Refuse every so-many-th request with 429 and a hint, after the first ten; 0 for none.
    pub refuse_every: usize,
    /// Answer this request with another text.
    pub lie_at: Option<usize>,
    /// Answer this request with 500.
    pub fail_at: Option<usize>,
    /// Refuse everybody without this key.
    pub key: Option<String>,
}

/// What the service has seen.
#[derive(Default)]
pub struct Seen {
    pub requests: AtomicUsize,
    pub answered: AtomicUsize,
    pub refused: AtomicUsize,
    pub livez: AtomicUsize,
    peers: Mutex<BTreeSet<SocketAddr>>,
}

impl Seen {
    /// Connections over which a recording came.
    pub fn connections(&self) -> usize {
        self.peers.lock().expect("unpoisoned").len()
    }
}

/// Ends when it is dropped.
pub struct CannedService {
    pub url: String,
    pub seen: Arc<Seen>,
    _runtime: Runtime,
}

type Shared = (Behaviour, Arc<Seen>);

impl CannedService {
    pub fn start(behaviour: Behaviour) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let seen = Arc::<Seen>::default();
        let router = Router::new()
            .route("/v1/audio/transcriptions", post(transcribe))
            .route("/livez", get(livez))
            .layer(DefaultBodyLimit::disable())
            .with_state((behaviour, seen.clone()))
            .into_make_service_with_connect_info::<SocketAddr>();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, seen, _runtime: runtime }
    }
}

async fn livez(State((_, seen)): State<Shared>) -> &'static str {
    seen.livez.fetch_add(1, Ordering::Relaxed);
    "ok"
}

async fn transcribe(
    State((behaviour, seen)): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Bytes,
) -> Response {
    seen.peers.lock().expect("unpoisoned").insert(peer);
    let n = seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let error = |status: StatusCode, message: &str| {
        let body = json!({"error": {"message": message, "type": "error", "param": null, "code": null}});
        (status, Json(body)).into_response()
    };
    if let Some(key) = &behaviour.key
        && headers
            .get(AUTHORIZATION)
            .is_none_or(|value| value.as_bytes() != format!("Bearer {key}").as_bytes())
    {
        return error(StatusCode::UNAUTHORIZED, "no key");
    }
    if behaviour.refuse_every > 0 && n > 10 && n.is_multiple_of(behaviour.refuse_every) {
        seen.refused.fetch_add(1, Ordering::Relaxed);
        return ([("retry-after-ms", "20")], error(StatusCode::TOO_MANY_REQUESTS, "busy")).into_response();
    }
    if behaviour.fail_at == Some(n) {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "something broke");
    }
    sleep(behaviour.delay).await;
    seen.answered.fetch_add(1, Ordering::Relaxed);
    // Equal forms have equal answers.
    let length = if behaviour.lie_at == Some(n) { 0 } else { form.len() };
    let text = format!("{length} bytes");
    let has = |part: &[u8]| form.windows(part.len()).any(|bytes| bytes == part);
    if has(b"name=\"stream\"\r\n\r\ntrue") {
        // Cut at another place each time.
        let (first, second) = text.split_at(n % text.len());
        let events = [
            json!({"type": "transcript.text.delta", "delta": first}),
            json!({"type": "transcript.text.delta", "delta": second}),
            json!({"type": "transcript.text.done", "text": text}),
        ];
        let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        return ([("content-type", "text/event-stream")], body).into_response();
    }
    Json(json!({"text": text})).into_response()
}
