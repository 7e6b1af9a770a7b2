//! The HTTP service as clients meet it: what is refused, how, and that nothing else happens.

use std::{io::Write, net::Shutdown, thread, time::Duration};

use serde_json::json;

use crate::loopback_server::{BROKEN, LoopbackServer, MODEL, form, head, part, post};

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TRANSLATIONS: &str = "/v1/audio/translations";

#[test]
fn every_refusal_has_the_shape_of_the_api() {
    let server = LoopbackServer::start("max_upload_bytes = 100000", "");
    let ok = form(&[("model", MODEL)], Some(b"RIFF"));
    let transcription = |fields: &[(&str, &str)]| post(TRANSCRIPTIONS, &form(fields, Some(b"RIFF")));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    let translation = post(TRANSLATIONS, &form(&[("model", MODEL), ("to_language", "ps")], Some(b"RIFF")));
    for (request, status, code, param) in [
        (transcription(&[("model", MODEL), ("temperature", "2")]), 400, "invalid_value", Some("temperature")),
        (transcription(&[]), 400, "missing_required_parameter", Some("model")),
        (
            post(TRANSCRIPTIONS, &form(&[("model", MODEL)], None)),
            400,
            "missing_required_parameter",
            Some("file"),
        ),
        (transcription(&[("model", MODEL), ("beams", "3")]), 400, "unknown_parameter", Some("beams")),
        (translation, 400, "invalid_value", Some("to_language")),
        (post(TRANSCRIPTIONS, b"--b0undary\r\n"), 400, "invalid_form", None),
        (post(TRANSCRIPTIONS, &form(&[("model", MODEL)], Some(b""))), 400, "invalid_audio", Some("file")),
        (transcription(&[("model", "whisper-1")]), 404, "model_not_found", Some("model")),
        (transcription(&[("model", BROKEN)]), 503, "model_unavailable", Some("model")),
        (get("/v1/models/whisper-1"), 404, "model_not_found", Some("model")),
        (get("/v1/audio"), 404, "not_found", None),
        (get("/docs/nothing.js"), 404, "not_found", None),
        (get(TRANSCRIPTIONS), 405, "method_not_allowed", None),
        (raw("DELETE /readyz HTTP/1.1\r\nHost: x\r\n\r\n"), 405, "method_not_allowed", None),
        (head(TRANSCRIPTIONS, "", 100_001), 413, "file_too_large", Some("file")),
        (
            [head(TRANSCRIPTIONS, "Content-Encoding: gzip\r\n", ok.len()), ok.clone()].concat(),
            415,
            "unsupported_content_encoding",
            None,
        ),
        (
            raw("POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: 2\r\n\r\n{}"),
            415,
            "unsupported_content_type",
            None,
        ),
    ] {
        let response = server.send(&request);
        assert_eq!(response.status, status, "{}", response.text());
        assert_eq!(response.error(), (code.to_owned(), param.map(str::to_owned)));
        assert_eq!(response.headers["content-type"], "application/json");
        assert!(response.headers["x-request-id"].starts_with("req_"));
        assert_eq!(response.headers.contains_key("allow"), status == 405, "{:?}", response.headers);
        assert_eq!(response.headers.contains_key("x-should-retry"), status >= 500, "{:?}", response.headers);
    }
    assert!(server.join());
}

/// Refused before the end of the upload, whose size nobody announced.
#[test]
fn an_upload_that_grows_too_large_is_refused() {
    let server = LoopbackServer::start("max_upload_bytes = 100000", "");
    let mut connection = server.connect();
    let head = head(TRANSCRIPTIONS, "", 0);
    let head =
        String::from_utf8(head).expect("ASCII").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let body = part("file", "");
    connection.write(format!("{head}{:x}\r\n{body}\r\n", body.len()).as_bytes());
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    for _ in 0..20 {
        connection.write(chunk.as_bytes());
    }
    let response = connection.read().expect("a response");
    assert_eq!((response.status, response.error().0.as_str()), (413, "file_too_large"));
}

#[test]
fn forms_that_mean_harm_are_refused() {
    let server = LoopbackServer::start("", "");
    let code = |body: &[u8]| {
        let response = server.send(&post(TRANSCRIPTIONS, body));
        (response.status, response.error().0)
    };
    let refused = (400, "invalid_form".to_owned());
    assert_eq!(code(part("x", "").repeat(100_000).as_bytes()), refused);
    assert_eq!(code(part(&"x".repeat(1 << 20), "").as_bytes()), refused);
    assert_eq!(code(&[b'x'; 1 << 20]), refused);
    assert_eq!(code(part("model", MODEL).as_bytes()), refused);
    let deep = format!("a{}", "[b]".repeat(3_000));
    assert_eq!(code(&form(&[(&deep, "")], None)), (400, "unknown_parameter".to_owned()));
    let twice = [part("file", "x"), part("file", "x"), "--b0undary--\r\n".to_owned()].concat();
    assert_eq!(code(twice.as_bytes()), (400, "invalid_value".to_owned()));
    let large = "x".repeat(60_000);
    assert_eq!(code(&form(&[("keywords[]", large.as_str()); 20], None)), refused);
    let response = server.transcribe(&[("model", MODEL), ("prompt", &"x".repeat(70_000))]);
    assert_eq!(response.error(), ("invalid_value".to_owned(), Some("prompt".to_owned())));
    // A megabyte of name is not repeated to whoever sent it.
    assert!(server.transcribe(&[(&"x".repeat(8_000), "")]).body.len() < 2_000);
}

#[test]
fn a_form_without_an_end_is_refused_at_the_end_of_the_connection() {
    let server = LoopbackServer::start("", "");
    let mut connection = server.connect();
    connection.write(&head(TRANSCRIPTIONS, "Connection: close\r\n", 100_000));
    connection.write(part("file", &"x".repeat(1000)).as_bytes());
    connection.close_write();
    // Whoever leaves in the middle of an upload gets no answer or a refusal, and the next one is served.
    if let Some(response) = connection.read() {
        assert_eq!(response.status, 400);
    }
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn slow_uploads_are_given_up() {
    let settings = "upload_idle_secs = 0.4\nupload_timeout_secs = 0.8";
    let server = LoopbackServer::start(settings, "");
    let mut pausing = server.connect();
    pausing.write(&head(TRANSCRIPTIONS, "", 1000));
    pausing.write(part("model", MODEL).as_bytes());
    let response = pausing.read().expect("a response");
    assert_eq!((response.status, response.error().0.as_str()), (400, "upload_timeout"));
    assert!(response.text().contains("0.4 s"), "{}", response.text());

    let mut dripping = server.connect();
    dripping.write(&head(TRANSCRIPTIONS, "", 1000));
    let drip = thread::spawn({
        let mut stream = dripping.stream.try_clone().expect("cloned");
        move || {
            for _ in 0..1000 {
                thread::sleep(Duration::from_millis(20));
                if stream.write_all(b"x").is_err() {
                    break;
                }
            }
        }
    });
    let response = dripping.read().expect("a response");
    assert!(response.text().contains("0.8 s"), "{}", response.text());
    let _ = dripping.stream.shutdown(Shutdown::Both);
    drip.join().expect("no panic");
}

/// Bytes that trickle hold a place only while nobody else wants it.
#[test]
fn clients_that_trickle_cannot_keep_an_honest_client_out() {
    let server = LoopbackServer::start("max_uploads = 3\n[uploads]\nsmall_upload_bytes = 0", "");
    let begin = [part("model", MODEL), part("file", "RIFF")].concat();
    let mut trickling = [(); 3].map(|()| {
        let mut connection = server.connect();
        connection.write(&head(TRANSCRIPTIONS, "Expect: 100-continue\r\n", 1_000_000));
        assert_eq!(connection.read().expect("the request is begun").status, 100);
        connection.write(begin.trim_end().as_bytes());
        let mut stream = connection.stream.try_clone().expect("cloned");
        let trickle = thread::spawn(move || {
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        });
        (connection, trickle)
    });
    // It is served before the official client, which comes back twice, gives up.
    let honest = || server.transcribe_file(&[("model", MODEL)], b"");
    // Nobody leaves for what is refused all the same.
    thread::sleep(Duration::from_millis(1100));
    for _ in 0..5 {
        assert_eq!(server.transcribe_file(&[("model", "none")], b"").status, 404);
    }
    let page = server.get("/metrics").text();
    assert!(!page.contains("upload_displaced"), "{page}");
    let mut n_refused = 0;
    loop {
        let response = honest();
        if response.status != 429 {
            assert_eq!(response.error().0, "invalid_audio");
            break;
        }
        n_refused += 1;
        assert!(n_refused <= 2, "kept out");
        let wait_ms = response.headers["retry-after-ms"].parse().expect("a number");
        thread::sleep(Duration::from_millis(wait_ms));
    }
    // One place is enough for all who come one after the other: the others trickle on.
    for _ in 0..10 {
        assert_eq!(honest().error().0, "invalid_audio");
    }
    let page = server.get("/metrics").text();
    assert!(page.contains(r#"speechd_rejected_total{reason="upload_displaced"} 1"#), "{page}");
    // Who lost its place learns why, and that sending the same again as slowly is of no use.
    let mut n_displaced = 0;
    for (connection, _) in &mut trickling {
        connection.stream.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
        if connection.stream.peek(&mut [0]).is_ok() {
            let response = connection.read().expect("a response");
            assert_eq!((response.status, response.error().0.as_str()), (408, "upload_displaced"));
            assert_eq!(
                (&*response.headers["x-should-retry"], &*response.headers["connection"]),
                ("false", "close")
            );
            n_displaced += 1;
        }
    }
    assert_eq!(n_displaced, 1);
    for (connection, trickle) in trickling {
        let _ = connection.stream.shutdown(Shutdown::Both);
        trickle.join().expect("no panic");
    }
}

#[test]
fn names_of_models_lead_to_no_file() {
    let server = LoopbackServer::start("", "");
    let long = "x".repeat(10_000);
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "%2e%2e%2fetc%2fpasswd",
        "org/../org/tiny",
        "ORG/TINY",
        "org%2Ftiny",
        "org/tiny/",
        "org/tiny\0",
        "\u{43e}rg/tiny",
        "",
        &long,
    ] {
        let response = server.transcribe(&[("model", name)]);
        assert_eq!(response.status, 404, "{name:?}");
        assert_eq!(response.error(), ("model_not_found".to_owned(), Some("model".to_owned())));
        assert!(response.body.len() < 500);
    }
    for path in [
        "../../etc/passwd",
        "%2e%2e%2fetc%2fpasswd",
        "/etc/passwd",
        "org%2F%2E%2E%2Forg%2Ftiny",
        "org/tiny%00",
        "%ff",
        &long,
    ] {
        let response = server.get(&format!("/v1/models/{path}"));
        assert_eq!((response.status, response.error().0.as_str()), (404, "model_not_found"), "{path}");
    }
}

#[test]
fn models_are_listed_and_found_with_plain_and_escaped_slashes() {
    let server = LoopbackServer::start("", "");
    let list = server.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let ids: Vec<_> = list["data"].as_array().expect("models").iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, [MODEL, BROKEN]);
    for path in ["org/tiny", "org%2Ftiny", "%6Frg%2ftiny"] {
        let model = server.get(&format!("/v1/models/{path}")).json();
        assert_eq!(model, list["data"][0]);
        assert_eq!((&model["object"], &model["status"]), (&json!("model"), &json!("ready")));
        assert!(model["created"].as_u64().is_some_and(|created| created > 0));
    }
    assert_eq!(list["data"][1]["status"], "failed");
}

#[test]
fn a_key_opens_the_api_and_nothing_else_does() {
    let server = LoopbackServer::start("", "first-key, second-key");
    let status = |path: &str, headers: &str| {
        server.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).status
    };
    for headers in ["Authorization: Bearer first-key\r\n", "authorization: bearer second-key\r\n"] {
        assert_eq!(status("/v1/models", headers), 200);
    }
    for headers in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer first-ke\r\n",
        "Authorization: Bearer first-keys\r\n",
        "Authorization: Bearer first-key, second-key\r\n",
        "Authorization: Basic first-key\r\n",
        "Authorization: first-key\r\n",
        "X-Api-Key: first-key\r\n",
        "Authorization: Bearer wrong\r\nAuthorization: Bearer first-key\r\n",
    ] {
        assert_eq!(status("/v1/models", headers), 401, "{headers}");
    }
    for path in
        ["/v1/models?api_key=first-key", "/v1/models/org/tiny", TRANSCRIPTIONS, TRANSLATIONS, "/v1//models"]
    {
        assert!(matches!(status(path, ""), 401 | 404 | 405), "{path}");
    }
    let response = server.transcribe(&[("model", MODEL)]);
    assert_eq!((response.status, response.error().0.as_str()), (401, "invalid_api_key"));
    assert_eq!(response.headers["www-authenticate"], "Bearer");
    for path in ["/livez", "/readyz", "/startupz", "/metrics", "/openapi.json", "/docs/"] {
        assert_eq!(status(path, ""), 200, "{path}");
    }
    assert!(!server.get("/metrics").text().contains("first-key"));
}

#[test]
fn request_ids_come_back_when_they_are_harmless() {
    let server = LoopbackServer::start("", "");
    let id = |header: &str| {
        let request = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: {header}\r\n\r\n");
        server.send(request.as_bytes()).headers["x-request-id"].clone()
    };
    assert_eq!(id("abc-1.2_3:4"), "abc-1.2_3:4");
    assert!(
        id("a b").starts_with("req_") && id("<script>").starts_with("req_") && id("").starts_with("req_")
    );
    assert_ne!(id(""), id(""));
}

#[test]
fn pages_call_when_their_origin_is_listed() {
    let allowed = |server: &LoopbackServer, method: &str, origin: &str| {
        let request = format!(
            "{method} /v1/models HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
        );
        server.send(request.as_bytes()).headers.get("access-control-allow-origin").cloned()
    };
    let origin = "https://app.example.org";
    let none = LoopbackServer::start("", "");
    assert_eq!(allowed(&none, "GET", origin), None);
    let listed = LoopbackServer::start("cors_origins = [\"https://app.example.org\"]", "key");
    // A browser asks without the key.
    for method in ["OPTIONS", "GET"] {
        assert_eq!(allowed(&listed, method, origin).as_deref(), Some(origin));
        assert_eq!(allowed(&listed, method, "https://evil.example.org"), None);
    }
    let any = LoopbackServer::start("cors_origins = [\"*\"]", "");
    assert_eq!(allowed(&any, "GET", origin).as_deref(), Some("*"));
}

#[test]
fn probes_tell_living_started_and_ready_apart() {
    let server = LoopbackServer::start_unloaded("", "");
    let status = |path: &str| server.get(path).status;
    assert_eq!((status("/livez"), status("/startupz"), status("/readyz")), (200, 503, 503));
    let response = server.get("/readyz");
    assert_eq!(response.error().0, "model_loading");
    assert!(response.headers["retry-after-ms"].parse::<u64>().is_ok_and(|ms| ms <= 120_000));
    assert_eq!(server.transcribe(&[("model", MODEL)]).error().0, "model_loading");

    let server = LoopbackServer::start("", "");
    let status = |path: &str| server.get(path).status;
    assert_eq!((status("/livez"), status("/startupz"), status("/readyz")), (200, 200, 200));
    server.state.drain();
    assert_eq!((status("/livez"), status("/startupz"), status("/readyz")), (200, 200, 503));
    let response = server.get("/readyz");
    assert_eq!(response.error().0, "shutting_down");
    assert_eq!(response.headers["connection"], "close");
}

#[test]
fn metrics_do_not_grow_with_what_clients_invent() {
    let server = LoopbackServer::start("", "");
    let invent = |round: usize| {
        server.get(&format!("/nothing/{round}"));
        server.get(&format!("/v1/models/{round}"));
        server.send(format!("X{round} /livez HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        server.transcribe(&[("model", &round.to_string())]);
        server.get("/metrics").text()
    };
    invent(0);
    let page = invent(1);
    assert!(page.contains(r#"http_requests_total{route="unmatched",method="GET",status="404"} 2"#), "{page}");
    assert!(page.contains(r#"speechd_rejected_total{reason="model_not_found"} 4"#), "{page}");
    assert!(page.contains(r#"speechd_model_loaded{model="org/tiny"} 1"#), "{page}");
    let n_lines = page.lines().count();
    for round in 2..20 {
        assert_eq!(invent(round).lines().count(), n_lines);
    }
}

/// Everything that the pages need comes from this program.
#[test]
fn the_documentation_works_offline() {
    let server = LoopbackServer::start("", "");
    let page = server.get("/docs/").text();
    assert!(!page.contains("//"), "{page}");
    for name in page.split(['"', '\'']).filter(|text| text.starts_with("./")) {
        let response = server.get(&format!("/docs/{}", name.trim_start_matches("./")));
        assert_eq!(response.status, 200, "{name}");
    }
    let document = server.get("/openapi.json").json();
    assert!(document["paths"]["/v1/models/{id}"]["get"].is_object());
}

#[test]
fn the_committed_document_is_that_of_the_program() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let current = server::routes::document().to_pretty_json().expect("JSON") + "\n";
    assert!(
        committed == current,
        "openapi/openapi.json is stale: cargo run --bin speechd -- openapi > openapi/openapi.json"
    );
}
