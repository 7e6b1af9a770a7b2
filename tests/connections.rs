//! What happens on a connection before and after a request: limits, persistence, orderly ends.

use std::{
    thread,
    time::{Duration, Instant},
};

use server::listener::SPARE_CONNECTIONS;

use crate::loopback_server::{Connection, LoopbackServer, MODEL, form, head, part, post};

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

/// Asks again until it is so.
pub fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if is_so() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn a_connection_goes_on_after_an_error() {
    let server = LoopbackServer::start("", "");
    let mut connection = server.connect();
    for (path, status) in [("/nothing", 404), ("/v1/models/x", 404), ("/livez", 200)] {
        connection.write(&get(path));
        assert_eq!(connection.read().expect("a response").status, status);
    }
    // Pipelined: answered in order.
    connection.write(&[get("/livez"), get("/nothing"), get("/v1/models")].concat());
    let statuses = [(); 3].map(|()| connection.read().expect("a response").status);
    assert_eq!(statuses, [200, 404, 200]);
}

/// A refused client sees why, whatever it was still sending, and may go on.
#[test]
fn a_refused_upload_gets_its_answer() {
    let server = LoopbackServer::start("", "secret");
    let file = vec![0; 4 << 20];
    let unauthorized = form(&[("model", MODEL)], Some(&file));
    let unknown = form(&[("model", "nothing")], Some(&file));
    let mut connection = server.connect();
    for (headers, body, status) in
        [("", &unauthorized, 401), ("Authorization: Bearer secret\r\n", &unknown, 404), ("", &unknown, 401)]
    {
        connection.write(&head(TRANSCRIPTIONS, headers, body.len()));
        connection.write(body);
        assert_eq!(connection.read().expect("a response").status, status);
    }
    connection.write(&get("/livez"));
    assert_eq!(connection.read().expect("a response").status, 200);
}

/// The answer does not wait for the rest of the upload.
#[test]
fn a_request_is_refused_before_its_recording_arrives() {
    let server = LoopbackServer::start("", "");
    let begin = "--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF";
    for (fields, code) in [
        (vec![("model", "nothing")], "model_not_found"),
        (vec![("model", MODEL), ("temperature", "2")], "invalid_value"),
        (vec![("model", MODEL), ("response_format", "srt"), ("stream", "true")], "invalid_value"),
        (vec![("beams", "2")], "unknown_parameter"),
    ] {
        let mut connection = server.connect();
        connection.write(&head(TRANSCRIPTIONS, "", 100_000_000));
        for (name, value) in &fields {
            connection.write(part(name, value).as_bytes());
        }
        connection.write(begin.as_bytes());
        assert_eq!(connection.read().expect("a response").error().0, code, "{fields:?}");
    }
}

/// Where both lengths are given, one of them lies: what hides behind the body is not taken for a request.
#[test]
fn no_request_is_smuggled_in() {
    let server = LoopbackServer::start("", "");
    let hidden = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let both = |first: &str, second: &str| {
        format!("POST /v1/models HTTP/1.1\r\nHost: x\r\n{first}\r\n{second}\r\n\r\n0\r\n\r\n{hidden}")
    };
    let (length, chunked) = (format!("Content-Length: {}", 5 + hidden.len()), "Transfer-Encoding: chunked");
    for request in [both(&length, chunked), both(chunked, &length)] {
        let mut connection = server.connect();
        connection.write(request.as_bytes());
        assert_eq!(connection.read().expect("a response").status, 405, "{request}");
        assert!(connection.is_closed(), "{request}");
    }
    for headers in [
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\r\n folded\r\n",
        "X\0: y\r\n",
    ] {
        let mut connection = server.connect();
        connection.write(format!("POST /v1/models HTTP/1.1\r\nHost: x\r\n{headers}\r\n{hidden}").as_bytes());
        assert_eq!(connection.read().expect("a response").status, 400, "{headers}");
        assert!(connection.is_closed(), "{headers}");
    }
}

#[test]
fn heads_are_limited() {
    let server = LoopbackServer::start("", "");
    let long = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    for request in [long, many, path] {
        let mut connection = server.connect();
        connection.write(request.as_bytes());
        if let Some(response) = connection.read() {
            assert!(matches!(response.status, 414 | 431), "{}", response.status);
            assert!(connection.is_closed());
        }
    }
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn connections_without_a_request_are_closed() {
    let server = LoopbackServer::start("header_timeout_secs = 0.5", "");
    // Among them one that begins as HTTP/2 does.
    let starts = ["", "GET /livez HTT", "PRI * HTT", "GET /livez HTTP/1.1\r\nHost: x\r\n"];
    let silent = starts.map(|start| {
        let mut connection = server.connect();
        connection.write(start.as_bytes());
        (start, connection)
    });
    for (start, mut connection) in silent {
        assert!(connection.is_closed(), "{start}");
    }
    // One that made a request may stay for longer.
    let mut connection = server.connect();
    connection.write(&get("/livez"));
    assert_eq!(connection.read().expect("a response").status, 200);
    thread::sleep(Duration::from_millis(700));
    connection.write(&get("/livez"));
    assert_eq!(connection.read().expect("a response").status, 200);
}

#[test]
fn idle_connections_are_closed() {
    let server = LoopbackServer::start("keep_alive_secs = 0.5", "");
    let mut connection = server.connect();
    connection.write(&get("/livez"));
    assert_eq!(connection.read().expect("a response").status, 200);
    assert!(connection.is_closed());
}

/// Whether there is room for a client, which spare connections are not for.
fn has_room(server: &LoopbackServer) -> bool {
    let mut connection = server.connect();
    connection.write(&get("/v1/models"));
    connection.read().is_some_and(|response| response.status == 200)
}

/// Connections that have each had a request.
fn held(server: &LoopbackServer, n: usize) -> Vec<Connection> {
    let mut held: Vec<_> = (0..n).map(|_| server.connect()).collect();
    for connection in &mut held {
        connection.write(&get("/v1/models"));
        assert_eq!(connection.read().expect("a response").status, 200);
    }
    held
}

/// Else a server that is merely full would be killed for not living.
#[test]
fn a_full_server_answers_its_probes_and_sends_others_away() {
    let server = LoopbackServer::start("max_connections = 2", "");
    let held = held(&server, 2);
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        let mut probe = server.connect();
        // Were it kept, the second request would be answered, too.
        probe.write(&get(path).repeat(2));
        assert_eq!(probe.read().expect(path).status, 200, "{path}");
        assert!(probe.is_closed(), "{path}");
    }
    let upload = form(&[("model", MODEL)], Some(&vec![0; 4 << 20]));
    for request in [post(TRANSCRIPTIONS, &upload), get("/v1/models"), get("/docs/"), get("/openapi.json")] {
        let mut client = server.connect();
        client.write(&request);
        let refused = client.read().expect("a response");
        assert_eq!((refused.status, refused.error().0.as_str()), (503, "too_many_connections"));
        assert_eq!((&*refused.headers["connection"], &*refused.headers["retry-after-ms"]), ("close", "1000"));
        assert!(client.is_closed());
    }
    // Those who come without a request do not keep the spare connections.
    let mut silent: Vec<_> = (0..SPARE_CONNECTIONS).map(|_| server.connect()).collect();
    assert!(silent.iter_mut().all(Connection::is_closed));
    assert_eq!(server.get("/livez").status, 200);
    drop(held);
    assert!(eventually(|| has_room(&server)));
}

#[test]
fn connections_beyond_the_spare_ones_are_closed_at_once_and_counted() {
    let server = LoopbackServer::start("max_connections = 2", "");
    let mut held = held(&server, 2);
    let spare: Vec<_> = (0..SPARE_CONNECTIONS).map(|_| server.connect()).collect();
    assert!(server.connect().is_closed());
    held[0].write(&get("/metrics"));
    let page = held[0].read().expect("a response").text();
    assert!(page.contains(r#"speechd_rejected_total{reason="connections"} 1"#), "{page}");
    drop((held, spare));
    assert!(eventually(|| has_room(&server)));
}

/// A client that asks for more than it takes does not keep its place.
#[test]
fn clients_that_do_not_read_are_cut_off() {
    let server = LoopbackServer::start("max_connections = 1\nwrite_timeout_secs = 0.2", "");
    let mut greedy = server.connect();
    greedy.write(&get("/docs/swagger-ui-bundle.js").repeat(20));
    assert!(eventually(|| has_room(&server)));
    let page = server.get("/metrics").text();
    assert!(page.contains(r#"speechd_rejected_total{reason="read_timeout"} 1"#), "{page}");
    drop(greedy);
}

#[test]
fn requests_in_flight_are_answered_before_the_end() {
    let mut server = LoopbackServer::start("", "");
    let body = form(&[("model", "nothing")], None);
    let mut idle = server.connect();
    idle.write(&get("/livez"));
    assert_eq!(idle.read().expect("a response").status, 200);
    let mut busy = server.connect();
    busy.write(&head(TRANSCRIPTIONS, "Expect: 100-continue\r\n", body.len()));
    assert_eq!(busy.read().expect("the request is begun").status, 100);
    busy.write(&body[..10]);
    server.begin_stop();
    assert!(idle.is_closed());
    let address = server.address;
    assert!(eventually(|| std::net::TcpStream::connect(address).is_err()));
    busy.write(&body[10..]);
    let response = busy.read().expect("a response");
    assert_eq!((response.status, response.headers["connection"].as_str()), (404, "close"));
    assert!(busy.is_closed());
    assert!(server.join());
}

#[test]
fn requests_that_take_too_long_are_cut_off_at_the_end() {
    let server = LoopbackServer::start("drain_secs = 0.1", "");
    let mut stuck = Connection::open(server.address);
    stuck.write(&head(TRANSCRIPTIONS, "Expect: 100-continue\r\n", 1000));
    assert_eq!(stuck.read().expect("the request is begun").status, 100);
    stuck.write(part("model", MODEL).as_bytes());
    assert!(!server.join());
    assert!(stuck.is_closed());
}
