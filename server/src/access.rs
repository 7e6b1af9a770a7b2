//! What every request gets: an id, a line in the log, its place in the metrics, and an answer even when its handler
//! panics.

use std::{
    any::Any,
    fmt,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tracing::{Instrument, Span};

use crate::{error::Error, state::AppState};

/// The header that carries the id, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a client.
const MAX_ID_CHARS: usize = 128;
/// Stands in the log where no response was sent because the client had left.
const CLIENT_LEFT: u16 = 499;

/// Names a request in the log, the response and the client's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The client's, where it is harmless to repeat; otherwise a new one.
    fn of(request: &Request) -> Self {
        let is_harmless = |id: &&str| {
            (1..=MAX_ID_CHARS).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        };
        let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).filter(is_harmless);
        given.map_or_else(Self::new, |id| Self(id.into()))
    }

    /// One that no other request of this process has, and hardly one of another.
    fn new() -> Self {
        static PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        Self(format!("req_{:016x}{count:08x}", PROCESS.hash_one(count)).into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Puts a request under its id, and writes down what became of it.
pub(crate) async fn observe(
    State(state): State<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::of(&request);
    let span = tracing::info_span!("request", %id);
    let mut record = Record {
        state: Arc::clone(&state),
        span: span.clone(),
        method: request.method().clone(),
        route: request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()),
        status: None,
        n_bytes: 0,
        started: Instant::now(),
    };
    let version = request.version();
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(error) = response.extensions_mut().remove::<Arc<Error>>() {
        let _in_span = span.enter();
        response = explain(&state, error, response, &id);
    }
    record.status = Some(response.status());
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, id);
    }
    if state.is_draining() && version < Version::HTTP_2 {
        // The next request of this client goes to a server that stays.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Body::new(Observed { body, record }))
}

/// Logs an error with its cause, counts a refusal, and tells the client which request to ask about.
fn explain(state: &AppState, error: Arc<Error>, response: Response, id: &RequestId) -> Response {
    note(state, &error);
    if let Error::Internal(_) = &*error { error.response(Some(id.as_str())) } else { response }
}

/// Logs an error, with its cause where that is ours, and counts a refusal.
pub(crate) fn note(state: &AppState, error: &Error) {
    match error {
        Error::Internal(cause) => tracing::error!("{cause:#}"),
        error => {
            tracing::debug!("{error}");
            state.metrics.rejected(error.code());
        }
    }
}

/// The answer in place of a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the layer that calls it gives the panic away")]
pub(crate) fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::Internal(anyhow::anyhow!("a handler panicked: {text}")).into_response()
}

/// What is known of a request. Written down when it is dropped: at the end of the response, or when the client left.
struct Record {
    state: Arc<AppState>,
    span: Span,
    method: Method,
    route: Option<String>,
    status: Option<StatusCode>,
    n_bytes: u64,
    started: Instant,
}

impl Drop for Record {
    fn drop(&mut self) {
        let time = self.started.elapsed();
        let status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16());
        let route = self.route.as_deref();
        self.state.metrics.request(route, &self.method, status, time);
        let _in_span = self.span.enter();
        tracing::info!(
            method = %self.method,
            route = route.unwrap_or("unmatched"),
            status,
            bytes = self.n_bytes,
            secs = time.as_secs_f64(),
            "request"
        );
    }
}

/// A response's body that counts its bytes.
struct Observed {
    body: Body,
    record: Record,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.record.n_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware::from_fn_with_state, routing::get};
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;
    use crate::{auth::Keys, config::Config, decode::DecodePool, state::Models};

    fn id_for(header: Option<&[u8]>) -> RequestId {
        let mut request = Request::new(Body::empty());
        if let Some(value) = header {
            request.headers_mut().insert(HEADER, HeaderValue::from_bytes(value).expect("a header"));
        }
        RequestId::of(&request)
    }

    #[test]
    fn a_harmless_id_is_kept_and_another_replaced() {
        assert_eq!(id_for(Some(b"0f-A_b.c:9")).as_str(), "0f-A_b.c:9");
        let long = [b'a'; MAX_ID_CHARS + 1];
        for header in [None, Some(b"".as_slice()), Some(b"a b"), Some(b"a\"b"), Some(b"\xff"), Some(&long)] {
            let id = id_for(header);
            assert!(id.as_str().starts_with("req_") && id.as_str().len() == 28, "{id}");
        }
    }

    #[test]
    fn ids_differ() {
        assert_ne!(RequestId::new(), RequestId::new());
    }

    /// The server goes on, the client learns whom to ask, and nothing of the cause.
    #[test]
    fn a_panic_is_an_internal_error_under_the_requests_id() {
        let config = Config::load(None).expect("the defaults");
        let decoder = DecodePool::new("/none".into(), config.uploads);
        let state = Arc::new(AppState::new(config, Keys::default(), Models::new([]), decoder));
        let boom = || async {
            if true {
                panic!("secret {}", 1)
            }
        };
        let app = Router::new()
            .route("/boom", get(boom))
            .layer(CatchPanicLayer::custom(answer_panic))
            .layer(from_fn_with_state(Arc::clone(&state), observe));
        let request = Request::get("/boom").header(HEADER, "mine").body(Body::empty()).expect("a request");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (status, body) = runtime.block_on(async {
            let response = app.oneshot(request).await.expect("answered");
            let status = response.status();
            (status, axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body"))
        });
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("request mine") && !body.contains("secret"), "{body}");
        let page = state.metrics.encode(&state.models);
        assert!(page.contains(r#"http_requests_total{route="/boom",method="GET",status="500"} 1"#), "{page}");
    }
}
