//! Clients of HTTP/2, who can keep a response from being sent although their connection lives.

use std::{
    thread,
    time::{Duration, Instant},
};

use axum::http::{Method, Request, StatusCode, Version};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use tokio::{net::TcpStream, runtime::Runtime, task::JoinHandle, time::timeout};

use crate::{
    connections::eventually,
    loopback_server::{BOUNDARY, LoopbackServer, MODEL, form},
    transcriptions::{metric, n_running, noise},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// What a response may have of its client at first.
const DEFAULT_WINDOW: u32 = 65_535;

/// A connection; its client answers pings, and grants bytes of responses when it is told to.
struct Http2 {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    /// Every response may send so many bytes until its client grants more.
    fn connect(server: &LoopbackServer, window_bytes: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (requests, connection) = runtime.block_on(async {
            let stream = TcpStream::connect(server.address).await.expect("connected");
            let mut client = client::Builder::new();
            client.initial_window_size(window_bytes);
            let (requests, connection) = client.handshake(stream).await.expect("a handshake");
            (requests, tokio::spawn(connection))
        });
        Self { runtime, requests, connection }
    }

    /// Begins a request, whose body may follow.
    fn begin(&mut self, request: Request<()>, has_body: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let requests = self.requests.clone();
        let ready = self.runtime.block_on(async { timeout(PATIENCE, requests.ready()).await });
        ready.expect("in time").expect("open").send_request(request, !has_body).expect("sent")
    }

    fn upload(&mut self, form: Vec<u8>) -> ResponseFuture {
        let (response, mut stream) = self.begin(upload(), true);
        stream.send_data(form.into(), true).expect("sent");
        response
    }

    fn get(&mut self, path: &str) -> ResponseFuture {
        self.begin(request(Method::GET, path).body(()).expect("a request"), false).0
    }

    /// The status, and what is to come.
    fn head(&self, response: ResponseFuture) -> (StatusCode, RecvStream) {
        let response = self.runtime.block_on(async { timeout(PATIENCE, response).await }).expect("in time");
        let (head, body) = response.expect("a response").into_parts();
        assert_eq!(head.version, Version::HTTP_2);
        (head.status, body)
    }

    /// All of a body; room for more is granted `pause` after each piece, or never.
    fn read(&self, mut body: RecvStream, pause: Option<Duration>) -> Result<Vec<u8>, h2::Error> {
        self.runtime.block_on(async {
            let mut bytes = Vec::new();
            while let Some(piece) = timeout(PATIENCE, body.data()).await.expect("in time") {
                let piece = piece?;
                bytes.extend(&piece);
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                    body.flow_control().release_capacity(piece.len())?;
                }
            }
            Ok(bytes)
        })
    }

    fn is_closed(&mut self) -> bool {
        self.runtime.block_on(async { timeout(PATIENCE, &mut self.connection).await }).is_ok()
    }
}

fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(format!("http://x{path}"))
}

/// The head of a form.
fn upload() -> Request<()> {
    let form = format!("multipart/form-data; boundary={BOUNDARY}");
    let upload = request(Method::POST, "/v1/audio/transcriptions").header("content-type", form);
    upload.body(()).expect("a request")
}

fn reason<T: std::fmt::Debug>(outcome: Result<T, h2::Error>) -> Option<Reason> {
    outcome.expect_err("cut off").reason()
}

#[test]
fn a_response_that_its_client_does_not_take_is_cut_off_and_its_work_ends() {
    let server = LoopbackServer::start("write_timeout_secs = 0.3", "");
    // Enough for what the probe says, and less than an event.
    let mut client = Http2::connect(&server, 40);
    let slow = [
        ("model", MODEL),
        ("language", "en"),
        ("vad", "off"),
        ("stream", "true"),
        ("fallback", "false"),
        ("include[]", "logprobs"),
    ];
    let response = client.upload(form(&slow, Some(&noise(600.0, 1))));
    let (status, body) = client.head(response);
    assert_eq!((status, n_running(&server)), (StatusCode::OK, 1.0));
    assert!(eventually(|| n_running(&server) == 0.0));
    assert_eq!(reason(client.read(body, None)), Some(Reason::CANCEL));
    // Not because it was done.
    assert_eq!(metric(&server, r#"speechd_phase_seconds_count{phase="render"}"#), 0.0);
    assert_eq!(metric(&server, r#"speechd_rejected_total{reason="read_timeout"}"#), 1.0);
    // The others on the connection go on.
    let response = client.get("/livez");
    let (status, body) = client.head(response);
    assert_eq!((status, client.read(body, None).expect("a body").len()), (StatusCode::OK, 15));
}

/// To the last byte: what was not granted does not lie about for ever when all of the body was handed over.
#[test]
fn a_response_ends_when_its_client_has_room_for_all_of_it() {
    let server = LoopbackServer::start("write_timeout_secs = 0.2", "");
    let body = server.get("/livez").body;
    let length = u32::try_from(body.len()).expect("short");
    for window_bytes in [0, 1, length - 1] {
        let mut client = Http2::connect(&server, window_bytes);
        let response = client.get("/livez");
        let (status, body) = client.head(response);
        assert_eq!((status, reason(client.read(body, None))), (StatusCode::OK, Some(Reason::CANCEL)));
    }
    let mut client = Http2::connect(&server, length);
    let response = client.get("/livez");
    let (_, stream) = client.head(response);
    assert_eq!(client.read(stream, None).expect("a body"), body);
}

/// The connection's room can be withheld, too: that of many responses together.
#[test]
fn responses_that_share_a_connections_room_are_cut_off_as_well() {
    let server = LoopbackServer::start("write_timeout_secs = 0.3", "");
    let mut client = Http2::connect(&server, 1 << 20);
    let responses: Vec<_> = (0..8).map(|_| client.get("/docs/swagger-ui-bundle.js")).collect();
    let bodies: Vec<_> = responses.into_iter().map(|response| client.head(response).1).collect();
    for body in bodies {
        assert_eq!(reason(client.read(body, None)), Some(Reason::CANCEL));
    }
    // What they were sent is no longer withheld: they are gone.
    let response = client.get("/openapi.json");
    let (status, body) = client.head(response);
    assert_eq!(status, StatusCode::OK);
    assert_eq!(client.read(body, Some(Duration::ZERO)).expect("a body"), server.get("/openapi.json").body);
}

#[test]
fn a_client_that_reads_slowly_is_served() {
    let server = LoopbackServer::start("write_timeout_secs = 1", "");
    let mut client = Http2::connect(&server, 8192);
    let response = client.get("/docs/swagger-ui.css");
    let (_, body) = client.head(response);
    let began = Instant::now();
    let bytes = client.read(body, Some(Duration::from_millis(60))).expect("a body");
    assert!(began.elapsed() > Duration::from_secs(1), "longer than a client may take nothing");
    assert_eq!(bytes, server.get("/docs/swagger-ui.css").body);
}

#[test]
fn streams_and_heads_are_limited() {
    let server = LoopbackServer::start("", "");
    let mut client = Http2::connect(&server, 0);
    let responses: Vec<_> = (0..64).map(|_| client.get("/livez")).collect();
    let bodies: Vec<_> = responses.into_iter().map(|response| client.head(response).1).collect();
    assert_eq!(client.requests.current_max_send_streams(), 64);
    let mut next = client.get("/livez");
    let early = client.runtime.block_on(async { timeout(Duration::from_millis(100), &mut next).await });
    assert!(early.is_err(), "as many streams as may be");
    drop(bodies);
    assert_eq!(client.head(next).0, StatusCode::OK);

    let mut client = Http2::connect(&server, DEFAULT_WINDOW);
    let long = request(Method::GET, "/livez").header("x", "x".repeat(70_000)).body(()).expect("a request");
    let (response, _) = client.begin(long, false);
    assert_eq!(client.head(response).0, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let response = client.get("/livez");
    assert_eq!(client.head(response).0, StatusCode::OK);
}

#[test]
fn idle_connections_are_closed() {
    let server = LoopbackServer::start("keep_alive_secs = 0.3\nheader_timeout_secs = 0.1", "");
    let mut silent = Http2::connect(&server, DEFAULT_WINDOW);
    let mut idle = Http2::connect(&server, DEFAULT_WINDOW);
    let response = idle.get("/livez");
    let (_, body) = idle.head(response);
    assert!(idle.read(body, None).is_ok());
    assert!(silent.is_closed() && idle.is_closed());
}

/// A request that takes longer than an idle connection is kept.
#[test]
fn busy_connections_are_kept() {
    let server = LoopbackServer::start("keep_alive_secs = 0.1\nheader_timeout_secs = 0.1", "");
    let mut client = Http2::connect(&server, DEFAULT_WINDOW);
    let body = form(&[("model", "nothing")], None);
    let (response, mut stream) = client.begin(upload(), true);
    thread::sleep(Duration::from_millis(500));
    stream.send_data(body.into(), true).expect("sent");
    assert_eq!(client.head(response).0, StatusCode::NOT_FOUND);
    assert!(client.is_closed());
}

#[test]
fn a_full_server_answers_one_probe_on_a_connection() {
    let server = LoopbackServer::start("max_connections = 1", "");
    let mut held = Http2::connect(&server, DEFAULT_WINDOW);
    let response = held.get("/v1/models");
    assert_eq!(held.head(response).0, StatusCode::OK);
    for (path, expected) in [("/livez", StatusCode::OK), ("/v1/models", StatusCode::SERVICE_UNAVAILABLE)] {
        let mut client = Http2::connect(&server, DEFAULT_WINDOW);
        let response = client.get(path);
        let (status, body) = client.head(response);
        assert_eq!(status, expected);
        assert!(!client.read(body, None).expect("a body").is_empty());
        assert!(client.is_closed());
    }
}
