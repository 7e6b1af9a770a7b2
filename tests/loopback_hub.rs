//! A hub on the loopback interface that can misbehave on request.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What the hub does instead of simply answering.
#[derive(Default, Clone)]
pub struct Behaviour {
    /// Files are reached over a redirect: to a path of this hub, or to the other address.
    pub redirect: Redirect,
    /// Cut the connection after so many bytes of a body of weights, once per entry.
    pub cuts: Vec<usize>,
    /// Answer 503 to so many requests.
    pub busy: usize,
    /// Send the whole file whatever range is asked for.
    pub ignores_ranges: bool,
    /// Answer requests for a range with the first bytes of the file.
    pub wrong_ranges: bool,
    /// Send so many of the weights with one byte changed.
    pub corrupt: usize,
    /// Refuse everybody without this token.
    pub token: Option<String>,
    /// List these files beside those that there are.
    pub listed: Vec<String>,
}

#[derive(Default, Clone, Copy, PartialEq)]
pub enum Redirect {
    #[default]
    None,
    Relative,
    OtherHost,
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub is_other_host: bool,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    behaviour: Behaviour,
    seen: Vec<Seen>,
    other_host: String,
}

pub struct LoopbackHub {
    state: Arc<Mutex<State>>,
    pub endpoint: String,
}

pub const ID: &str = "speech/micro";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl LoopbackHub {
    pub fn start(files: BTreeMap<String, Vec<u8>>, behaviour: Behaviour) -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").expect("a port");
        let cdn = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", hub.local_addr().expect("an address"));
        let other_host = format!("http://{}", cdn.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { files, behaviour, seen: Vec::new(), other_host }));
        for (listener, is_other_host) in [(hub, false), (cdn, true)] {
            let state = state.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    thread::spawn(move || answer(stream, &state, is_other_host));
                }
            });
        }
        Self { state, endpoint }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().expect("unpoisoned").seen.clone()
    }

    /// The requests for the contents of the weights, as they reach the host that has them.
    pub fn weight_requests(&self) -> Vec<Seen> {
        let mut seen = self.seen();
        let redirects = self.state.lock().expect("unpoisoned").behaviour.redirect != Redirect::None;
        let place = if redirects { "/stored/" } else { "/resolve/" };
        seen.retain(|seen| {
            seen.method == "GET" && seen.path.contains(place) && seen.path.contains("/model.safetensors")
        });
        seen
    }

    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().expect("unpoisoned").behaviour);
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>, is_other_host: bool) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let mut state = state.lock().expect("unpoisoned");
    let seen = Seen {
        method,
        path,
        range: headers.get("range").cloned(),
        authorization: headers.get("authorization").cloned(),
        is_other_host,
    };
    state.seen.push(seen.clone());
    let reply = reply(&mut state, &seen);
    drop(state);
    send(stream, &seen, &reply);
}

struct Reply {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
}

fn plain(status: &'static str) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new(), cut: None }
}

fn reply(state: &mut State, seen: &Seen) -> Reply {
    if state.behaviour.busy > 0 {
        state.behaviour.busy -= 1;
        return plain("503 Service Unavailable");
    }
    if let Some(token) = &state.behaviour.token
        && !seen.is_other_host
        && seen.authorization.as_deref() != Some(&format!("Bearer {token}"))
    {
        let mut reply = plain("401 Unauthorized");
        reply.headers.push(("x-error-code", "GatedRepo".to_owned()));
        return reply;
    }
    if let Some(revision) = seen.path.strip_prefix(&format!("/api/models/{ID}/revision/")) {
        if revision != "main" && revision != COMMIT && revision != "refs%2Fpr%2F1" {
            let mut reply = plain("404 Not Found");
            reply.headers.push(("x-error-code", "RevisionNotFound".to_owned()));
            return reply;
        }
        let files: Vec<_> = state
            .files
            .keys()
            .chain(&state.behaviour.listed)
            .map(|name| serde_json::json!({"rfilename": name}))
            .collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": files, "private": false});
        return Reply {
            status: "200 OK",
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
            cut: None,
        };
    }
    let resolve = format!("/{ID}/resolve/{COMMIT}/");
    let (name, is_stored) = match (seen.path.strip_prefix(&resolve), seen.path.strip_prefix("/stored/")) {
        (Some(name), _) => (name, false),
        (_, Some(name)) => (name.split('?').next().unwrap_or(name), true),
        _ => {
            let mut reply = plain("401 Unauthorized");
            reply.headers.push(("x-error-code", "RepoNotFound".to_owned()));
            return reply;
        }
    };
    let Some(body) = state.files.get(name).cloned() else { return plain("404 Not Found") };
    let is_large = name.ends_with(".safetensors");
    if is_large && !is_stored && state.behaviour.redirect != Redirect::None {
        let host =
            if state.behaviour.redirect == Redirect::OtherHost { state.other_host.as_str() } else { "" };
        return Reply {
            status: "302 Found",
            headers: vec![
                ("location", format!("{host}/stored/{name}?signature=1")),
                ("x-linked-etag", format!("\"{}\"", etag(&body, true))),
                ("x-linked-size", body.len().to_string()),
                ("x-repo-commit", COMMIT.to_owned()),
                ("etag", "\"of-the-redirect\"".to_owned()),
            ],
            body: b"elsewhere".to_vec(),
            cut: None,
        };
    }
    contents(state, seen, body, is_large)
}

fn contents(state: &mut State, seen: &Seen, mut body: Vec<u8>, is_large: bool) -> Reply {
    let mut headers =
        vec![("etag", format!("\"{}\"", etag(&body, is_large))), ("x-repo-commit", COMMIT.to_owned())];
    let is_contents = is_large && seen.method == "GET";
    if is_contents && state.behaviour.corrupt > 0 {
        state.behaviour.corrupt -= 1;
        body[0] ^= 1;
    }
    let len = body.len();
    let start = seen
        .range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let mut status = "200 OK";
    if let Some(start) = start.filter(|_| !state.behaviour.ignores_ranges) {
        if start >= len {
            return plain("416 Range Not Satisfiable");
        }
        let start = if state.behaviour.wrong_ranges { 0 } else { start };
        status = "206 Partial Content";
        headers.push(("content-range", format!("bytes {start}-{}/{len}", len - 1)));
        body.drain(..start);
    }
    let cut = if is_contents && !state.behaviour.cuts.is_empty() {
        Some(state.behaviour.cuts.remove(0))
    } else {
        None
    };
    Reply { status, headers, body, cut }
}

fn send(mut stream: TcpStream, seen: &Seen, reply: &Reply) {
    let mut head =
        format!("HTTP/1.1 {}\r\ncontent-length: {}\r\nconnection: close\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if seen.method != "HEAD" {
        let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
        let _ = stream.write_all(&reply.body[..end]);
    }
    let _ = stream.shutdown(Shutdown::Write);
    // Closing with unread bytes would reset the connection before the client has read the answer.
    let _ = stream.read(&mut [0; 1]);
}

/// As the real hub names contents: git's name of a small file, SHA-256 of a large one.
pub fn etag(body: &[u8], is_large: bool) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("contents");
    std::fs::write(&path, body).expect("written");
    if is_large {
        return server::registry::sha256(&path).expect("read");
    }
    let git = server::registry::Digest::from_etag(&"0".repeat(40)).expect("an etag");
    git.of_file(&path).expect("read").expect("a known scheme")
}
