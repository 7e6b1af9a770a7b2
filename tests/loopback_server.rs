//! The HTTP service on the loopback interface, in this process, and a client that can misbehave.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use models::Device;
use serde_json::Value;
use server::{
    auth::Keys,
    compute::Compute,
    config::Config,
    decode::DecodePool,
    listener,
    load::{Spec, load_models},
    registry::Hub,
    routes,
    state::{AppState, Models},
};
use tokio::{net::TcpListener, runtime, sync::oneshot};

use crate::support::fixture;

/// The name of the only model that loads.
pub const MODEL: &str = "org/tiny";
/// A model that does not load.
pub const BROKEN: &str = "broken";
/// A test that waits longer than this for an answer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct LoopbackServer {
    pub address: SocketAddr,
    pub state: Arc<AppState>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<bool>>,
}

impl LoopbackServer {
    /// With these settings under `[serve]` and these keys; [`MODEL`] is loaded.
    pub fn start(settings: &str, keys: &str) -> Self {
        Self::start_serving(settings, keys, &[(MODEL, fixture("whisper-80")), (BROKEN, fixture("audio"))])
    }

    /// With these models.
    pub fn start_serving(settings: &str, keys: &str, models: &[(&str, PathBuf)]) -> Self {
        let names: Vec<_> = models.iter().map(|(name, _)| *name).collect();
        let server = Self::start_named(settings, keys, &names);
        let spec = |(name, source): &(&str, PathBuf)| Spec {
            name: (*name).to_owned(),
            source: source.to_string_lossy().into_owned(),
            draft: None,
        };
        let specs: Vec<_> = models.iter().map(spec).collect();
        let hub = Hub::new(server.state.config.hub_options());
        let compute =
            Compute::new(Device::Cpu, server.state.config.transcribe.precision).expect("a processor");
        load_models(&server.state, &specs, &hub, &compute);
        server
    }

    /// Before any model is loaded.
    pub fn start_unloaded(settings: &str, keys: &str) -> Self {
        Self::start_named(settings, keys, &[MODEL, BROKEN])
    }

    fn start_named(settings: &str, keys: &str, names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("speechd.toml");
        std::fs::write(&file, format!("[serve]\n{settings}")).expect("written");
        let config = Config::load(Some(&file)).expect("a configuration");
        let decoder = DecodePool::new(env!("CARGO_BIN_EXE_speechd").into(), config.uploads);
        let models = Models::new(names.iter().map(|name| (*name).to_owned()));
        let state = Arc::new(AppState::new(config, Keys::parse(keys), models, decoder));
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                bound.send(listener.local_addr().expect("an address")).expect("somebody waits");
                let app = routes::router(&shared);
                let stop = async { drop(stopped.await) };
                listener::serve(listener, app, shared, stop, std::future::pending()).await
            })
        });
        let address = address.recv_timeout(PATIENCE).expect("the server starts");
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// One request on a connection of its own.
    pub fn send(&self, request: &[u8]) -> Response {
        let mut connection = self.connect();
        connection.write(request);
        connection.read().expect("a response")
    }

    pub fn delete(&self, path: &str) -> Response {
        self.send(format!("DELETE {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }

    pub fn get(&self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }

    /// A form with these text fields and then a file.
    pub fn transcribe(&self, fields: &[(&str, &str)]) -> Response {
        self.send(&post("/v1/audio/transcriptions", &form(fields, Some(b"RIFF"))))
    }

    /// A form with these text fields and this recording.
    pub fn transcribe_file(&self, fields: &[(&str, &str)], file: &[u8]) -> Response {
        self.send(&post("/v1/audio/transcriptions", &form(fields, Some(file))))
    }

    /// Takes no more connections.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits for the end, and says whether all requests were answered.
    pub fn join(mut self) -> bool {
        self.begin_stop();
        self.thread.take().expect("joined once").join().expect("no panic")
    }
}

pub const BOUNDARY: &str = "b0undary";

pub fn part(name: &str, value: &str) -> String {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

pub fn form(fields: &[(&str, &str)], file: Option<&[u8]>) -> Vec<u8> {
    form_with(fields, "file", file)
}

/// A form whose recording has this name.
pub fn form_with(fields: &[(&str, &str)], name: &str, file: Option<&[u8]>) -> Vec<u8> {
    let mut form: Vec<u8> = fields.iter().flat_map(|(name, value)| part(name, value).into_bytes()).collect();
    if let Some(file) = file {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"talk.wav\"");
        form.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").into_bytes());
        form.extend(file);
        form.extend(b"\r\n");
    }
    form.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    form
}

/// A request with a JSON body.
pub fn post_json(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The head of an upload of this many bytes.
pub fn head(path: &str, more: &str, n_bytes: usize) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n\
         Content-Length: {n_bytes}\r\n{more}\r\n"
    )
    .into_bytes()
}

pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    [head(path, "", body.len()).as_slice(), body].concat()
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The data of server-sent events.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream", "{}", self.text());
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|json| serde_json::from_str(json).expect("JSON")).collect()
    }

    /// The code and the parameter of an error of the right shape.
    pub fn error(&self) -> (String, Option<String>) {
        let json = self.json();
        let error = json["error"].as_object().expect("an error");
        assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "param", "type"]);
        assert!(!error["message"].as_str().expect("a message").is_empty());
        let text = |key: &str| error[key].as_str().map(str::to_owned);
        (text("code").expect("a code"), text("param"))
    }
}

pub struct Connection {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        Self { stream, received: Vec::new() }
    }

    /// Sends what the server takes; whether it closed the connection is seen when reading.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn close_write(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next response; `None` when the server closed the connection instead.
    pub fn read(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill() == 0 {
                assert!(self.received.is_empty(), "{:?}", String::from_utf8_lossy(&self.received));
                return None;
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).expect("ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let body = if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
            self.read_chunks()
        } else {
            let length = headers.get("content-length");
            self.take(length.map_or(0, |length| length.parse().expect("a length")))
        };
        Some(Response { status, headers, body })
    }

    fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = self.received.windows(2).position(|window| window == b"\r\n") {
                    break at + 2;
                }
                assert!(self.fill() > 0, "the body breaks off");
            };
            let line = String::from_utf8(self.take(end)).expect("ASCII");
            let n_bytes = usize::from_str_radix(line.trim(), 16).expect("a length");
            let chunk = self.take(n_bytes + 2);
            body.extend(&chunk[..n_bytes]);
            if n_bytes == 0 {
                return body;
            }
        }
    }

    fn take(&mut self, n_bytes: usize) -> Vec<u8> {
        while self.received.len() < n_bytes {
            assert!(self.fill() > 0, "the body breaks off");
        }
        self.received.drain(..n_bytes).collect()
    }

    /// Whether the server closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty() && self.fill() == 0
    }

    fn fill(&mut self) -> usize {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(n_bytes) => {
                    self.received.extend(&buffer[..n_bytes]);
                    return n_bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }
}
