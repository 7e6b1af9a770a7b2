//! Translation by two models: what a recogniser wrote down, put into another language by a translator of text. The weights of both are
//! random: what is proven is whose text it is, and what is said about it.

use std::path::Path;

use models::{Device, TextTranslator};
use serde_json::{Value, json};

use crate::{
    cli::{home, run, speechd},
    loopback_server::{LoopbackServer, MODEL, Response, form, post},
    support::fixture,
    transcriptions::noise,
};

/// Options under which the recogniser is quick and surely writes something.
const QUICK: [(&str, &str); 6] = [
    ("model", MODEL),
    ("language", "en"),
    ("max_new_tokens", "12"),
    ("fallback", "false"),
    ("no_speech_threshold", "off"),
    ("vad", "off"),
];

fn translator() -> TextTranslator {
    let source = fixture("text-translation/marian").as_path().into();
    TextTranslator::load(&source, &Device::Cpu).expect("a translator")
}

/// The setting that names the translator, which writes Pashto alone.
fn spec() -> String {
    format!("opus={}", fixture("text-translation/marian").display())
}

fn server(settings: &str) -> LoopbackServer {
    LoopbackServer::start(&format!("{settings}\n[translate]\ncascade = \"{}\"", spec()), "")
}

fn send(server: &LoopbackServer, path: &str, more: &[(&str, &str)]) -> Response {
    let fields: Vec<_> = QUICK.iter().chain(more).copied().collect();
    server.send(&post(path, &form(&fields, Some(&noise(70.0, 1)))))
}

fn translate(server: &LoopbackServer, more: &[(&str, &str)]) -> Response {
    send(server, "/v1/audio/translations", more)
}

/// Every segment of the second is the translator's of that of the first, and was said when it was.
fn is_translation_of(translated: &Value, heard: &Value) {
    let translator = translator();
    let segments = |json: &Value| json["segments"].as_array().expect("segments").clone();
    assert!(segments(heard).len() > 1 && segments(heard).len() == segments(translated).len(), "{heard}");
    for (translated, heard) in segments(translated).iter().zip(segments(heard)) {
        for key in ["id", "start", "end", "avg_logprob", "no_speech_prob"] {
            assert_eq!(translated[key], heard[key], "{key}");
        }
        let text = heard["text"].as_str().expect("text");
        let expected = translator.translate(text, None, Some("ps"), &|| true).expect("a translation");
        assert_eq!(translated["text"].as_str().expect("text").trim(), expected);
        assert_eq!(translated["tokens"], json!([]), "those of another text");
    }
    assert_eq!(translated["cascade"], "opus");
    assert_eq!((&translated["task"], &translated["language"]), (&"translate".into(), &"pashto".into()));
    assert!(translated.get("words").is_none() && heard.get("cascade").is_none());
}

#[test]
fn a_request_that_asks_for_it_gets_the_translator_s_text() {
    let server = server("");
    let verbose = ("response_format", "verbose_json");
    let heard = send(&server, "/v1/audio/transcriptions", &[verbose]).json();
    for cascade in ["true", "opus"] {
        let translated = translate(&server, &[("cascade", cascade), ("to_language", "ps"), verbose]);
        assert_eq!(translated.status, 200, "{}", translated.text());
        is_translation_of(&translated.json(), &heard);
    }
    let translated = |format| {
        let asked = [("cascade", "true"), ("to_language", "ps"), ("response_format", format)];
        let response = translate(&server, &asked);
        assert_eq!(response.status, 200, "{}", response.text());
        response
    };
    let json = translated("json").json();
    assert_eq!((&json["cascade"], &json["languages"]), (&"opus".into(), &json!([{"code": "ps"}])));
    assert_eq!(translated("text").text(), format!("{}\n", json["text"].as_str().expect("text")));
    for (format, start) in [("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:00:0")] {
        assert!(translated(format).text().starts_with(start));
    }
    // Not asked for, it has no part in it.
    let english = translate(&server, &[("cascade", "false")]).json();
    assert!(english.get("cascade").is_none() && english["languages"][0]["code"] == "en");
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("speechd_phase_seconds_count{phase=\"translate\"} 6"), "{metrics}");
}

#[test]
fn what_a_cascade_cannot_do_is_refused_and_says_what_it_can() {
    let (server, alone) = (server(""), LoopbackServer::start("", ""));
    for (server, fields, param, parts) in [
        (
            &alone,
            &[("cascade", "true"), ("to_language", "ps")][..],
            "cascade",
            &["no translator of text"][..],
        ),
        (&alone, &[("to_language", "ps")], "to_language", &["`ps`", "into en only"]),
        (&server, &[("cascade", "nllb"), ("to_language", "ps")], "cascade", &["\"nllb\"", "it is opus"]),
        (&server, &[("cascade", "true")], "to_language", &["`en`", "writes ps only"]),
        (&server, &[("cascade", "true"), ("stream", "true")], "cascade", &["not with stream"]),
        (
            &server,
            &[("to_language", "ps")],
            "to_language",
            &["into en only; with cascade=true, opus translates"],
        ),
    ] {
        let refused = translate(server, fields);
        assert_eq!(
            (refused.status, refused.error()),
            (400, ("invalid_value".to_owned(), Some(param.to_owned()))),
            "{}",
            refused.text()
        );
        let message = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(parts.iter().all(|part| message.contains(part)) && !message.contains("/"), "{message}");
    }
    let hint = translate(&alone, &[("to_language", "ps")]).text();
    assert!(!hint.contains("cascade"), "{hint}");
    assert_eq!(
        send(&server, "/v1/audio/transcriptions", &[("cascade", "true")]).error().0,
        "unknown_parameter"
    );
}

#[test]
fn a_translator_that_does_not_load_stops_nobody_else() {
    let broken = format!("[translate]\ncascade = \"opus={}\"", fixture("audio").display());
    let server = LoopbackServer::start(&broken, "");
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(translate(&server, &[]).status, 200);
    let refused = translate(&server, &[("cascade", "true")]);
    assert_eq!((refused.status, refused.error().0.as_str()), (503, "model_unavailable"));
    let unloaded = LoopbackServer::start_unloaded(&broken, "");
    assert_eq!(unloaded.get("/readyz").error().0, "model_loading");
}

#[test]
fn the_command_line_does_the_same_and_says_so() {
    let home = home();
    std::fs::write(home.path().join("a.wav"), noise(70.0, 1)).expect("written");
    let recognise = |arguments: &[&str]| {
        let mut command = speechd(home.path());
        command.args(arguments).args([
            "a.wav",
            "--language",
            "en",
            "--max-new-tokens",
            "12",
            "--no-fallback",
        ]);
        command.args(["--format", "verbose_json", "--vad", "off", "--model"]);
        // Noise is taken for silence.
        command.env("SPEECHD_TRANSCRIBE__NO_SPEECH_THRESHOLD", "off");
        run(command.arg(fixture("whisper-80")))
    };
    let (_, heard, _) = recognise(&["transcribe"]);
    let heard: Value = serde_json::from_str(&heard).expect("JSON");
    let (code, translated, stderr) = recognise(&["translate", "--to", "ps", "--cascade", &spec()]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("opus translates it into ps"), "{stderr}");
    is_translation_of(&serde_json::from_str(&translated).expect("JSON"), &heard);

    for (cascade, code, parts) in [
        (spec(), 2, ["cascade opus: to_language: `en`", "writes ps only"]),
        (fixture("whisper-80").display().to_string(), 1, ["cascade whisper-80", "marian and t5"]),
        ("./none".to_owned(), 2, ["cascade: ", "no such directory"]),
    ] {
        let (exit, stdout, stderr) = recognise(&["translate", "--cascade", &cascade]);
        assert_eq!((exit, stdout.as_str()), (code, ""), "{stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    }
    // The recogniser of a cascade is the one inside, not the translator there.
    #[cfg(feature = "bundled")]
    {
        let clip = crate::bundled::folder("digits-en").join("digits.wav");
        let translate = ["translate", "--to", "ps", "--cascade", &spec(), "--format", "json"];
        let (code, stdout, stderr) = run(speechd(home.path()).args(translate).arg(clip));
        assert_eq!(code, 0, "{stderr}");
        let translated = serde_json::from_str::<Value>(&stdout).expect("JSON")["text"].clone();
        let heard = "nine seven five seven zero five one eight";
        let expected = translator().translate(heard, None, Some("ps"), &|| true).expect("a translation");
        assert_eq!(translated.as_str().expect("text").trim(), expected);
    }
    // What is configured is used where a translation is asked for, and nowhere else.
    let settings = format!("[translate]\ncascade = \"{}\"\n[transcribe]\nto_language = \"ps\"", spec());
    write_settings(home.path(), &settings);
    assert_eq!(recognise(&["translate"]).1, translated);
    assert_eq!(recognise(&["transcribe", "--task", "translate"]).1, translated);
    assert_eq!(serde_json::from_str::<Value>(&recognise(&["transcribe"]).1).expect("JSON"), heard);
    let (code, _, stderr) = recognise(&["translate", "--cascade", ""]);
    assert!(code == 2 && stderr.contains("into en only"), "{stderr}");
}

fn write_settings(home: &Path, settings: &str) {
    let folder = home.join(".config/speechd");
    std::fs::create_dir_all(&folder).expect("created");
    std::fs::write(folder.join("speechd.toml"), settings).expect("written");
}
