//! Speech over HTTP with a model at work: streams, refusals, and the end of work that nobody waits for.

use std::{
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use models::{
    Device, SpeakOptions, Speech, Spoken, StepReport, SynthesisWorker, Synthesizer, Update, Worker,
};
use serde_json::{Value, json};
use server::{
    engine::{Bounds, Engine, Event},
    metrics::Metrics,
};
use tempfile::TempDir;

use crate::{
    loopback_server::{LoopbackServer, MODEL, post_json},
    support::{fixture, write_speaker},
    transcriptions::metric,
};

pub const SPEAKER: &str = "org/voice";
const PATH: &str = "/v1/audio/speech";

/// A service that hears and speaks, and keeps voices in a folder of its own.
pub fn start(settings: &str) -> (LoopbackServer, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start_in(settings, folder.path());
    (server, folder)
}

/// The same in this folder.
pub fn start_in(settings: &str, folder: &Path) -> LoopbackServer {
    let speaker = folder.join("speaker");
    write_speaker(&speaker).expect("a model");
    let settings = format!("{settings}\n[voices]\nmax_voices = 3\nfolder = {:?}\n", folder.join("voices"));
    LoopbackServer::start_serving(&settings, "", &[(MODEL, fixture("whisper-80")), (SPEAKER, speaker)])
}

pub fn body(more: &Value) -> Value {
    let mut body = json!({"model": SPEAKER, "input": "Good morning to all of you.", "voice": "anna"});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

#[test]
fn speech_comes_in_pieces_and_every_model_is_listed() {
    let (server, _folder) = start("");
    let response = server.send(&post_json(PATH, &body(&json!({"response_format": "wav"}))));
    assert_eq!((response.status, &*response.headers["content-type"]), (200, "audio/wav"));
    assert_eq!(response.headers["transfer-encoding"], "chunked");
    assert!(response.body.starts_with(b"RIFF\xff\xff\xff\xffWAVE") && response.body.len() > 10_000);
    let again = server.send(&post_json(PATH, &body(&json!({"response_format": "wav"}))));
    assert_eq!(response.body, again.body, "the same seed");
    let events =
        json!({"stream_format": "sse", "response_format": "pcm", "input": "Good morning. ".repeat(20)});
    let events = server.send(&post_json(PATH, &body(&events))).events();
    let (done, deltas) = events.split_last().expect("events");
    assert_eq!(done["type"], "speech.audio.done");
    assert!(deltas.len() > 3, "{} pieces", deltas.len());
    assert_eq!(metric(&server, "speechd_ttfa_seconds_count"), 3.0);

    let models = server.get("/v1/models").json();
    let tasks: Vec<_> = models["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|model| (&model["id"], &model["task"]))
        .collect();
    assert_eq!(tasks, [(&json!(MODEL), &json!("transcription")), (&json!(SPEAKER), &json!("speech"))]);
}

#[test]
fn a_model_is_asked_for_what_it_can_do() {
    let (server, _folder) = start("");
    let refused = server.transcribe(&[("model", SPEAKER)]);
    assert_eq!((refused.status, refused.error().1.as_deref()), (400, Some("model")));
    assert!(refused.text().contains(&format!("{MODEL} does")), "{}", refused.text());
    let refused = server.send(&post_json(PATH, &body(&json!({"model": MODEL}))));
    assert_eq!((refused.status, refused.error().1.as_deref()), (400, Some("model")));
    assert!(refused.text().contains(&format!("{SPEAKER} does")), "{}", refused.text());
}

#[test]
fn bodies_that_mean_harm_are_refused_and_the_next_one_is_served() {
    let (server, _folder) = start("");
    let send = |head: &str, body: &str| {
        let n_bytes = body.len();
        let head =
            format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {n_bytes}\r\n\r\n{body}");
        server.send(head.as_bytes())
    };
    let json_type = "Content-Type: application/json\r\n";
    for (head, body, status, code) in [
        ("", "{}", 415, "unsupported_content_type"),
        (
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
            "{}",
            415,
            "unsupported_content_encoding",
        ),
        (json_type, "", 400, "invalid_json"),
        (json_type, &"[".repeat(100_000), 400, "invalid_json"),
        (json_type, &" ".repeat(1_000_000), 413, "body_too_large"),
        (json_type, "{\"model\": \"a\", \"model\": \"b\"}", 400, "invalid_value"),
    ] {
        let response = send(head, body);
        assert_eq!((response.status, response.error().0.as_str()), (status, code), "{head} {body:.40}");
    }
    for (more, param) in [
        (json!({"input": "a".repeat(4097)}), "input"),
        (json!({"input": " \u{1b}\n"}), "input"),
        (json!({"voice": "../../etc/passwd"}), "voice"),
        (json!({"voice": {"id": "voice_/../x"}}), "voice"),
        (json!({"instructions": "as a pirate"}), "instructions"),
        (json!({"response_format": "aac"}), "response_format"),
        (json!({"speed": "fast"}), "speed"),
        (json!({"speed": 5}), "speed"),
        (json!({"stream": true}), "stream"),
    ] {
        let response = server.send(&post_json(PATH, &body(&more)));
        assert_eq!((response.status, response.error().1.as_deref()), (400, Some(param)), "{more}");
    }
    let emoji = server.send(&post_json(PATH, &body(&json!({"input": format!("Hi {}", "😀".repeat(4093))}))));
    assert_eq!(emoji.status, 200, "4096 characters in more bytes");
}

fn running() -> String {
    format!("speechd_queue_requests{{model=\"{SPEAKER}\"}}")
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_client_that_takes_nothing_of_a_long_speech_does_not_hold_up_the_model() {
    // However slow the machine: it is not the client that is looked at here.
    let (server, _folder) = start("write_timeout_secs = 600.0");
    let mut idle = server.connect();
    // At least as many patches as a third of the letters, four times as long each: far more than sockets hold.
    let long = json!({"input": "a ".repeat(2048), "speed": 0.25, "response_format": "pcm"});
    idle.write(&post_json(PATH, &body(&long)));
    let spoken = format!("speechd_audio_seconds_total{{task=\"speak\",model=\"{SPEAKER}\"}}");
    wait_until("the model waits for its client", || {
        metric(&server, &spoken) > 0.0 && metric(&server, &running()) == 0.0
    });
    let n_unread = server.state.unread.n_bytes();
    assert!(n_unread > 100_000, "{n_unread} bytes are kept");
    let response = idle.read().expect("a response");
    let (secs, expected_secs) = (response.body.len() as f64 / 48_000.0, metric(&server, &spoken));
    assert!(response.status == 200 && (secs - expected_secs).abs() < 1.0, "{secs} of {expected_secs} s");
    wait_until("nothing is kept any more", || server.state.unread.n_bytes() == 0);
}

#[test]
fn sound_arrives_while_more_is_made_which_ends_when_the_client_leaves() {
    let (server, _folder) = start("");
    let long = json!({
        "input": "Good morning to all of you. ".repeat(140), "speed": 0.25, "response_format": "pcm", "stream_format": "sse"
    });
    let mut listening = server.connect();
    listening.write(&post_json(PATH, &body(&long)));
    let (mut received, mut buffer) = (String::new(), [0; 4096]);
    while received.matches("speech.audio.delta").count() < 4 {
        let n_bytes = listening.stream.read(&mut buffer).expect("more");
        assert!(n_bytes > 0, "it ends: {received}");
        received.push_str(std::str::from_utf8(&buffer[..n_bytes]).expect("ASCII"));
    }
    assert_eq!(metric(&server, &running()), 1.0, "the model is at it");
    drop(listening);
    wait_until("nobody works for who has left", || metric(&server, &running()) == 0.0);
    assert_eq!(metric(&server, "speechd_cancelled_total{phase=\"speak\"}"), 1.0);
    wait_until("nothing is kept for who has left", || server.state.unread.n_bytes() == 0);
}

/// A synthesiser that takes no step before it may, and notes who leaves.
struct Gated {
    inner: SynthesisWorker,
    gate: Arc<AtomicBool>,
    n_left: Arc<AtomicUsize>,
}

impl Worker for Gated {
    type Request = Speech;
    type Part = Vec<f32>;
    type Output = Spoken;

    fn join(&mut self, id: u64, request: Speech) {
        self.inner.join(id, request);
    }

    fn leave(&mut self, id: u64) -> bool {
        self.n_left.fetch_add(1, Ordering::SeqCst);
        self.inner.leave(id)
    }

    fn clear(&mut self) {
        self.inner.clear();
    }

    fn step(
        &mut self,
        is_wanted: &(dyn Fn(u64) -> bool + Sync),
        tell: &mut dyn FnMut(u64, Update<Vec<f32>, Spoken>),
    ) -> Result<StepReport, models::Error> {
        while !self.gate.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        self.inner.step(is_wanted, tell)
    }
}

#[tokio::test]
async fn speech_for_a_client_that_left_is_not_spoken_on() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    write_speaker(folder.path())?;
    let synthesizer = Synthesizer::load(&folder.path().into(), &Device::Cpu)?;
    let (gate, n_left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let worker = Gated {
        inner: SynthesisWorker::new(&synthesizer, 4),
        gate: Arc::clone(&gate),
        n_left: Arc::clone(&n_left),
    };
    let bounds = Bounds { max_requests: 4, max_audio_secs: 1e9 };
    let metrics = Arc::new(Metrics::new([].iter()));
    let engine = Engine::start("test", worker, bounds, 1, Arc::default(), metrics)?;
    let voice = synthesizer.voices()[0].clone();
    let mut requests = Vec::new();
    for text in ["This one is for nobody. ".repeat(50), "This one is heard.".to_owned()] {
        let speech = synthesizer.prepare(&text, &voice, &SpeakOptions::default())?;
        let permit = engine.admission().enter(speech.expected_secs(), None).expect("room");
        requests.push(engine.submit(permit, move |_, _| Ok(speech)).await);
    }
    let mut heard = requests.pop().expect("two");
    drop(requests);
    gate.store(true, Ordering::SeqCst);
    let mut n_samples = 0;
    let spoken = loop {
        match heard.recv().await.expect("an end") {
            Event::Part(part) => n_samples += part.len(),
            Event::Done(spoken) => break spoken,
            Event::Failed(error) => return Err(error.into()),
        }
    };
    let secs = n_samples as f64 / f64::from(synthesizer.sample_rate());
    assert!(
        n_samples > 0 && (secs - spoken.duration_secs).abs() < 0.01,
        "{secs} of {} s",
        spoken.duration_secs
    );
    assert_eq!(n_left.load(Ordering::SeqCst), 1);
    assert_eq!(engine.admission().load().n_requests, 0);
    Ok(())
}
