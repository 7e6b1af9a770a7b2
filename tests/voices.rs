//! Voices that clients bring over HTTP, and the consents to them.

use serde_json::{Value, json};

use crate::{
    bombs::opus_silence,
    cli::home,
    connections::eventually,
    loopback_server::{LoopbackServer, MODEL, Response, form_with, head, post, post_json},
    service::{Service, serve},
    speech::{body, start, start_in},
    support::fixture,
    transcriptions::noise,
};

const VOICES: &str = "/v1/audio/voices";
const CONSENTS: &str = "/v1/audio/voice_consents";

fn create_consent(server: &LoopbackServer, fields: &[(&str, &str)], recording: &[u8]) -> Response {
    server.send(&post(CONSENTS, &form_with(fields, "recording", Some(recording))))
}

fn create_voice(server: &LoopbackServer, fields: &[(&str, &str)], sample: &[u8]) -> Response {
    server.send(&post(VOICES, &form_with(fields, "audio_sample", Some(sample))))
}

fn id(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["id"].as_str().expect("an id").to_owned()
}

fn consent(server: &LoopbackServer) -> String {
    id(&create_consent(server, &[("name", "me"), ("language", "en-US")], &noise(1.0, 1)))
}

fn speak(server: &LoopbackServer, voice: &Value) -> Response {
    server.send(&post_json("/v1/audio/speech", &body(&json!({"voice": voice}))))
}

#[test]
fn a_voice_is_made_spoken_with_and_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start_in("", folder.path());
    let consent = consent(&server);
    let made = create_voice(&server, &[("name", "mine"), ("consent", &consent)], &noise(2.0, 2));
    let voice = id(&made);
    let object = made.json();
    assert_eq!((&object["object"], &object["name"]), (&json!("audio.voice"), &json!("mine")));
    assert_eq!((&object["type"], &object["consent"]), (&json!("audio_sample"), &json!(consent)));
    assert!(object["created_at"].as_u64().is_some_and(|secs| secs > 1_700_000_000));
    assert_eq!(speak(&server, &json!({"id": voice})).status, 200);
    assert_eq!(server.get(VOICES).json()["data"], json!([object]));
    assert!(server.join());

    // Another server finds it.
    let server = start_in("", folder.path());
    assert_eq!(server.get(VOICES).json()["data"], json!([object]));
    assert_eq!(speak(&server, &json!(voice)).status, 200);
    let deleted = server.delete(&format!("{VOICES}/{voice}")).json();
    assert_eq!(deleted, json!({"id": voice, "object": "audio.voice.deleted", "deleted": true}));
    let again = server.delete(&format!("{VOICES}/{voice}"));
    assert_eq!((again.status, again.error().0.as_str()), (404, "not_found"));
    assert_eq!(speak(&server, &json!(voice)).error().1.as_deref(), Some("voice"));
    assert_eq!(server.get(&format!("{CONSENTS}/{consent}")).status, 200, "the consent stays");
}

#[test]
fn of_two_servers_one_keeps_voices_and_the_other_serves_without() {
    let (first, folder) = start("");
    let consent = consent(&first);
    let settings = format!("[voices]\nfolder = {:?}\n", folder.path().join("voices"));
    let second = LoopbackServer::start_serving(&settings, "", &[(MODEL, fixture("whisper-80"))]);
    let refused = second.get(CONSENTS);
    assert_eq!((refused.status, refused.error().0.as_str()), (503, "voices_unavailable"));
    assert_eq!(refused.headers["x-should-retry"], "false");
    assert_eq!(second.get("/readyz").status, 200);
    assert!(first.join());
    // A refusal is believed for a moment.
    assert!(eventually(|| second.get(&format!("{CONSENTS}/{consent}")).status == 200), "it takes over");
}

#[test]
fn without_a_home_and_a_folder_the_service_says_so_and_goes_on() {
    let home = home();
    let (hears, speaks) = (fixture("whisper-80"), fixture("flow-lm"));
    let models = [format!("tiny={}", hears.display()), format!("voice={}", speaks.display())];
    let start = |model: &str| Service::start(serve(home.path(), &["--model", model]).env_remove("HOME"));
    let service = start(&models[1]);
    assert!(eventually(|| service.log().contains("voices.folder")), "{}", service.log());
    assert_eq!((service.status("/livez"), service.status(CONSENTS)), (Some(200), Some(503)));
    drop(service);
    // Whoever serves no speech asks for no folder, until a request does.
    let service = start(&models[0]);
    assert!(eventually(|| service.status("/readyz") == Some(200)), "{}", service.log());
    assert!(!service.log().contains("voices.folder"), "{}", service.log());
    for _ in 0..2 {
        assert_eq!(service.status(CONSENTS), Some(503));
    }
    assert!(eventually(|| service.log().contains("voices.folder")), "{}", service.log());
    assert_eq!(service.log().matches("voices.folder").count(), 1, "once for a reason: {}", service.log());
    assert_eq!(std::fs::read_dir(home.path()).expect("there").count(), 0, "nothing is kept just anywhere");
}

#[test]
fn consents_are_listed_page_by_page_and_take_their_voices_along() {
    let (server, _folder) = start("");
    let ids: Vec<_> = (0..3).map(|_| consent(&server)).collect();
    let voice = id(&create_voice(&server, &[("name", "v"), ("consent", &ids[0])], &noise(1.5, 2)));
    let first = server.get(&format!("{CONSENTS}?limit=2")).json();
    assert_eq!((first["data"].as_array().expect("a list").len(), &first["has_more"]), (2, &json!(true)));
    let after = first["last_id"].as_str().expect("an id");
    let rest = server.get(&format!("{CONSENTS}?after={after}")).json();
    assert_eq!((rest["data"].as_array().expect("a list").len(), &rest["has_more"]), (1, &json!(false)));
    for query in ["limit=0", "limit=101", "limit=x", "after=cons_none", "order=asc"] {
        assert_eq!(server.get(&format!("{CONSENTS}?{query}")).status, 400, "{query}");
    }
    let path = format!("{CONSENTS}/{}", ids[0]);
    let renamed = server.send(&post_json(&path, &json!({"name": "I"}))).json();
    assert_eq!((&renamed["name"], &server.get(&path).json()), (&json!("I"), &renamed));
    assert_eq!(server.send(&post_json(&path, &json!({"name": "a\0b"}))).error().1.as_deref(), Some("name"));
    let deleted = server.delete(&path).json();
    assert_eq!(deleted, json!({"id": ids[0], "object": "audio.voice_consent", "deleted": true}));
    assert_eq!(speak(&server, &json!({"id": voice})).status, 400, "its voice is gone, too");
    assert_eq!(server.get(VOICES).json()["data"], json!([]));
}

#[test]
fn what_cannot_be_kept_is_refused_by_its_field() {
    let (server, _folder) = start("");
    let consent = consent(&server);
    let named = [("name", "mine"), ("consent", consent.as_str())];
    let long = "x".repeat(201);
    let good = noise(1.5, 3);
    for (fields, sample, code, param) in [
        (&[("consent", &*consent)][..], &*good, "missing_required_parameter", "name"),
        (&[("name", "a")], &good, "missing_required_parameter", "consent"),
        (&[("name", ""), ("consent", &consent)], &good, "invalid_value", "name"),
        (&[("name", "a\x07"), ("consent", &consent)], &good, "invalid_value", "name"),
        (&[("name", &long), ("consent", &consent)], &good, "invalid_value", "name"),
        (&[("name", "a"), ("consent", "cons_none")], &good, "invalid_value", "consent"),
        (&[("name", "a"), ("consent", "../../etc")], &good, "invalid_value", "consent"),
        (&[named[0], named[1], ("type", "prompt")], &good, "unsupported_parameter", "type"),
        (&[named[0], named[1], ("type", "song")], &good, "invalid_value", "type"),
        (&[named[0], named[1], ("colour", "red")], &good, "unknown_parameter", "colour"),
        (&named, b"RIFF", "unsupported_audio", "audio_sample"),
        (&named, b"", "invalid_audio", "audio_sample"),
        (&named, &noise(0.5, 1), "invalid_value", "audio_sample"),
        (&named, &noise(70.0, 1), "audio_too_long", "audio_sample"),
    ] {
        let refused = create_voice(&server, fields, sample);
        assert_eq!(
            (refused.status, refused.error()),
            (400, (code.to_owned(), Some(param.to_owned()))),
            "{fields:?}: {}",
            refused.text()
        );
    }
    let silent = audio::Waveform { samples: vec![0.0; 32_000], sample_rate: 16_000 };
    let silent = audio::encode::wav_bytes(&silent).expect("a file");
    assert_eq!(create_voice(&server, &named, &silent).error().0, "invalid_audio");
    let without = server.send(&post(VOICES, &form_with(&named, "audio_sample", None)));
    assert_eq!(without.error(), ("missing_required_parameter".to_owned(), Some("audio_sample".to_owned())));
    // A description of a voice comes without a recording.
    let described = form_with(&[("name", "a"), ("type", "prompt"), ("prompt", "an old man")], "file", None);
    assert_eq!(server.send(&post(VOICES, &described)).error().1.as_deref(), Some("type"));
    // Longer than any upload may be: it is not decoded so far as to notice that.
    let hours = create_voice(&server, &named, &opus_silence(10_000));
    assert!(hours.error().0 == "audio_too_long" && hours.text().contains(" 60 s"), "{}", hours.text());
    let large = vec![0; 11 << 20];
    assert_eq!(create_voice(&server, &named, &large).status, 413);
    for language in ["", "english please", "../en"] {
        let refused = create_consent(&server, &[("name", "a"), ("language", language)], &good);
        assert_eq!(refused.error().1.as_deref(), Some("language"), "{language}");
    }
    for _ in 0..3 {
        id(&create_voice(&server, &named, &good));
    }
    let full = create_voice(&server, &named, &good);
    assert!(full.status == 400 && full.text().contains("3 voices are kept"), "{}", full.text());
}

#[test]
fn what_will_not_be_kept_is_refused_before_its_recording_is_read() {
    let (server, _folder) = start("");
    let begun = |path: &str, fields: &[(&str, &str)], file: &str| {
        let form = form_with(fields, file, Some(&noise(1.5, 3)));
        let mut connection = server.connect();
        // The other half never comes.
        connection.write(&[head(path, "", form.len()).as_slice(), &form[..form.len() / 2]].concat());
        connection.read().expect("an answer")
    };
    let unknown = begun(VOICES, &[("name", "mine"), ("consent", "cons_none")], "audio_sample");
    assert_eq!((unknown.status, unknown.error().1.as_deref()), (400, Some("consent")));
    let consents: Vec<_> = (0..3).map(|_| consent(&server)).collect();
    let full = begun(CONSENTS, &[("name", "me"), ("language", "en")], "recording");
    assert_eq!((full.status, full.error()), (400, ("limit_reached".to_owned(), None)));
    assert!(full.text().contains("3 consents are kept"), "{}", full.text());
    let named = [("name", "mine"), ("consent", consents[0].as_str())];
    for _ in 0..3 {
        id(&create_voice(&server, &named, &noise(1.5, 3)));
    }
    let full = begun(VOICES, &named, "audio_sample");
    assert!(full.status == 400 && full.text().contains("3 voices are kept"), "{}", full.text());
}

#[test]
fn web_pages_of_others_change_nothing() {
    let (server, _folder) = start("cors_origins = [\"https://app.example.org\"]");
    let consent = consent(&server);
    let form = form_with(&[("name", "me"), ("language", "en")], "recording", Some(&noise(1.0, 1)));
    let voice_form =
        form_with(&[("name", "mine"), ("consent", &consent)], "audio_sample", Some(&noise(1.5, 2)));
    let voice = id(&server.send(&post(VOICES, &voice_form)));
    let from_to = |origin: &str, path: &str, form: &[u8]| {
        let head = head(path, &format!("Origin: {origin}\r\n"), form.len());
        server.send(&[head.as_slice(), form].concat())
    };
    let from = |origin: &str| from_to(origin, CONSENTS, &form);
    for origin in ["https://evil.example.org", "null", "http://localhost"] {
        let refused = from(origin);
        assert_eq!((refused.status, refused.error().0.as_str()), (403, "origin_not_allowed"), "{origin}");
    }
    // Whatever changes something.
    let (of_consent, of_voice) = (format!("{CONSENTS}/{consent}"), format!("{VOICES}/{voice}"));
    let foreign = "Host: x\r\nOrigin: http://y\r\n";
    let rename = r#"{"name": "I"}"#;
    let sent = |method: &str, path: &str, more: &str| {
        server.send(format!("{method} {path} HTTP/1.1\r\n{foreign}{more}").as_bytes())
    };
    let renaming =
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{rename}", rename.len());
    for (what, refused) in [
        ("a consent", from("http://y")),
        ("a voice", from_to("http://y", VOICES, &voice_form)),
        ("another name", sent("POST", &of_consent, &renaming)),
        ("no consent", sent("DELETE", &of_consent, "\r\n")),
        ("no voice", sent("DELETE", &of_voice, "\r\n")),
    ] {
        assert_eq!((refused.status, refused.error().0.as_str()), (403, "origin_not_allowed"), "{what}");
    }
    assert_eq!(server.get(&of_consent).json()["name"], "me");
    for path in [CONSENTS, VOICES] {
        assert_eq!(server.get(path).json()["data"].as_array().expect("a list").len(), 1, "{path}");
    }
    for origin in ["https://app.example.org", "http://x"] {
        assert_eq!(from(origin).status, 200, "{origin}");
    }
}

#[test]
fn ids_lead_to_no_file() {
    let (server, folder) = start("");
    let consent = consent(&server);
    let secret = folder.path().join("voices").join("secret");
    std::fs::create_dir(&secret).expect("made");
    std::fs::write(secret.join("record.json"), "{}").expect("written");
    for name in [
        "..%2Fsecret",
        "../secret",
        "%2e%2e/secret",
        "voice_",
        "voice_%00",
        "%ff",
        &consent,
        &"x".repeat(9_000),
    ] {
        for path in [VOICES, CONSENTS] {
            if path == CONSENTS && name == consent {
                continue;
            }
            let response = server.delete(&format!("{path}/{name}"));
            assert_eq!((response.status, response.error().0.as_str()), (404, "not_found"), "{name:.40}");
            assert!(response.body.len() < 500);
        }
        assert_eq!(server.get(&format!("{VOICES}/{name}")).status, 405, "there is no such path of the API");
    }
    assert!(secret.join("record.json").exists());
}
