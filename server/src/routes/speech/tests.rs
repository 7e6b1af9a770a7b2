use audio::{DecodeAudio, Waveform, decode_bytes};
use axum::{
    body::{BodyDataStream, to_bytes},
    http::StatusCode,
};
use models::Device;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    auth::Keys,
    compute::Compute,
    config::Config,
    decode::DecodePool,
    engine::CorePermit,
    load::load,
    routes::router,
    speaking::tests::{bundle, busy, sample},
    state::{ModelState, Models, Serving},
};

const HEARS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
const TEXT: &str = "Good morning, and a long day to all of you.";

/// A service with a model that speaks and one that hears, and these settings.
fn state(settings: &str) -> (Arc<AppState>, tempfile::TempDir) {
    state_on(&Arc::default(), settings)
}

/// The same whose models compute when these let them.
fn state_on(cores: &Arc<CorePermit>, settings: &str) -> (Arc<AppState>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("speechd.toml");
    let voices = format!("{settings}\n[voices]\nfolder = {:?}\n", folder.path().join("voices"));
    std::fs::write(&path, voices).expect("written");
    let config = Config::load(Some(&path)).expect("a configuration");
    let decoder = DecodePool::new("/none".into(), config.uploads);
    let models = Models::new(["org/hears".to_owned(), "org/speaks".to_owned()]);
    let state = AppState::new(config, Keys::default(), models, decoder);
    let compute = Compute::new(Device::Cpu, state.config.transcribe.precision).expect("a processor");
    for (name, source) in [("org/hears", std::path::Path::new(HEARS).into()), ("org/speaks", bundle())] {
        let serving = load(&state, name, source, None, &compute, cores).expect("a model");
        state.models.set(name, ModelState::Ready(serving));
    }
    (Arc::new(state), folder)
}

struct Answer {
    status: StatusCode,
    content_type: String,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("JSON")
    }

    fn error(&self) -> (u16, String, String, String) {
        let error = &self.json()["error"];
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), text("code"), text("param"), text("message"))
    }

    fn events(&self) -> Vec<Value> {
        assert_eq!(self.content_type, "text/event-stream");
        let text = std::str::from_utf8(&self.bytes).expect("UTF-8");
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|json| serde_json::from_str(json).expect("JSON")).collect()
    }
}

async fn send(state: &Arc<AppState>, path: &str, body: String) -> Answer {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
    let response = router(state).oneshot(request.expect("a request")).await.expect("answered");
    let content_type = response.headers()[header::CONTENT_TYPE].to_str().expect("text").to_owned();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 30).await.expect("a body").to_vec();
    Answer { status, content_type, bytes }
}

async fn speak(state: &Arc<AppState>, more: &Value) -> Answer {
    let mut body = json!({"model": "org/speaks", "input": TEXT, "voice": "anna"});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    send(state, "/v1/audio/speech", body.to_string()).await
}

/// Events of a speech, as they come.
struct Coming {
    pieces: BodyDataStream,
    text: String,
}

impl Coming {
    /// Speaks the longest text, which takes the model hundreds of steps.
    async fn begin(state: &Arc<AppState>) -> Self {
        let body = json!({
            "model": "org/speaks", "input": TEXT.repeat(95), "voice": "anna", "response_format": "pcm", "stream_format": "sse"
        });
        let request = Request::post("/v1/audio/speech")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        let response = router(state).oneshot(request.expect("a request")).await.expect("answered");
        assert_eq!(response.status(), StatusCode::OK);
        Self { pieces: response.into_body().into_data_stream(), text: String::new() }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let json = data.map(|data| serde_json::from_str(data).expect("JSON"));
                self.text = rest.to_owned();
                match json {
                    Some(json) => return Some(json),
                    // It says that the connection is alive.
                    None => continue,
                }
            }
            let piece = timeout(Duration::from_secs(60), self.pieces.next()).await.expect("more")?;
            self.text.push_str(std::str::from_utf8(&piece.expect("a piece")).expect("UTF-8"));
        }
    }
}

#[tokio::test]
async fn sound_is_sent_while_more_of_it_is_made() {
    let cores = Arc::default();
    let (state, _folder) = state_on(&cores, "");
    let speaking = state.models.speaking("org/speaks").expect("a model");
    let mut coming = Coming::begin(&state).await;
    // The model takes no further step.
    let busy = busy(&cores);
    let first = coming.next().await.expect("an event");
    assert_eq!(first["type"], "speech.audio.delta");
    assert_eq!(speaking.engine.admission().load().n_requests, 1, "it is not done");
    drop(busy);
    let mut n_deltas = 1;
    loop {
        let event = coming.next().await.expect("an end");
        if event["type"] == "speech.audio.done" {
            break;
        }
        assert_eq!(event["type"], "speech.audio.delta");
        n_deltas += 1;
    }
    assert!(n_deltas > 100, "{n_deltas}: pieces are sent as they are made");
    assert!(coming.next().await.is_none());
}

#[tokio::test]
async fn speech_that_takes_too_long_ends_in_an_error() {
    let cores = Arc::default();
    let (state, _folder) = state_on(&cores, "[serve]\nrequest_timeout_secs = 3.0");
    let speaking = state.models.speaking("org/speaks").expect("a model");
    let mut coming = Coming::begin(&state).await;
    let busy = busy(&cores);
    let mut last = coming.next().await.expect("an event");
    assert_eq!(last["type"], "speech.audio.delta");
    while let Some(event) = coming.next().await {
        last = event;
    }
    assert_eq!(last["error"]["code"], "timeout", "{last}");
    drop(busy);
    until("nobody works on it", || speaking.engine.admission().load().n_requests == 0).await;
    let page = state.metrics.encode(&state.models);
    for line in
        [r#"speechd_rejected_total{reason="timeout"} 1"#, r#"speechd_cancelled_total{phase="speak"} 1"#]
    {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

fn decoded(bytes: Vec<u8>, format: AudioFormat) -> Waveform {
    decode_bytes(bytes, Some(format.extension()), &DecodeAudio::default()).expect("sound").waveform
}

#[tokio::test]
async fn every_format_has_the_same_sound_at_24_khz() {
    let (state, _folder) = state("");
    let pcm = speak(&state, &json!({"response_format": "pcm"})).await;
    assert_eq!((pcm.status, pcm.content_type.as_str()), (StatusCode::OK, "audio/pcm"));
    let secs = pcm.bytes.len() as f64 / 48_000.0;
    assert!(secs > 0.5 && pcm.bytes.iter().any(|byte| *byte != 0), "{secs}");
    for format in [AudioFormat::Mp3, AudioFormat::Opus, AudioFormat::Flac, AudioFormat::Wav] {
        let answer = speak(&state, &json!({"response_format": format.extension()})).await;
        assert_eq!((answer.status, answer.content_type.as_str()), (StatusCode::OK, format.content_type()));
        if format == AudioFormat::Wav {
            // As long as the stream lasts, players take from it.
            assert_eq!(
                (&answer.bytes[4..8], &answer.bytes[40..44]),
                ([0xff; 4].as_slice(), [0xff; 4].as_slice())
            );
            assert_eq!(&answer.bytes[44..], pcm.bytes);
        }
        let waveform = decoded(answer.bytes, format);
        assert_eq!(waveform.sample_rate, if format == AudioFormat::Opus { 48_000 } else { 24_000 });
        assert!((waveform.duration_secs() - secs).abs() < 0.12, "{format}: {} s", waveform.duration_secs());
    }
    let standard = speak(&state, &json!({})).await;
    assert_eq!(standard.content_type, "audio/mpeg");
}

#[tokio::test]
async fn events_hold_the_same_bytes_and_say_what_was_spoken() {
    let (state, _folder) = state("");
    for format in AudioFormat::ALL {
        let options = json!({"response_format": format.extension(), "input": TEXT.repeat(20)});
        let plain = speak(&state, &options).await;
        let mut options = options;
        options["stream_format"] = "sse".into();
        let events = speak(&state, &options).await.events();
        let (done, deltas) = events.split_last().expect("events");
        assert!(deltas.len() > 3, "{format}: {} pieces", deltas.len());
        let mut bytes = Vec::new();
        for delta in deltas {
            assert_eq!(delta["type"], "speech.audio.delta");
            bytes.extend(STANDARD.decode(delta["audio"].as_str().expect("text")).expect("Base64"));
        }
        assert!(bytes == plain.bytes, "{format}");
        assert_eq!(done["type"], "speech.audio.done");
        let tokens = |key: &str| done["usage"][key].as_u64().expect("a number");
        assert!(tokens("input_tokens") > 0 && tokens("output_tokens") > 0);
        assert_eq!(tokens("total_tokens"), tokens("input_tokens") + tokens("output_tokens"));
    }
    let page = state.metrics.encode(&state.models);
    let n_spoken = AudioFormat::ALL.len() * 2;
    assert!(page.contains(&format!("speechd_ttfa_seconds_count {n_spoken}\n")), "{page}");
    for part in [
        r#"speechd_audio_seconds_total{task="speak",model="org/speaks"} "#,
        r#"speechd_queue_audio_seconds{model="org/speaks"} 0.0"#,
        r#"speechd_phase_seconds_count{phase="speak"} "#,
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
}

#[tokio::test]
async fn a_model_that_cannot_names_one_that_can() {
    let (state, _folder) = state("");
    let (status, code, param, message) = speak(&state, &json!({"model": "org/hears"})).await.error();
    assert_eq!((status, code.as_str(), param.as_str()), (400, "invalid_value", "model"));
    assert!(message.contains("org/speaks does"), "{message}");
    let message = state.models.hearing("org/speaks").map(drop).expect_err("it speaks").to_string();
    assert!(message.contains("org/hears does"), "{message}");
    state.models.set("org/speaks", ModelState::Failed("no".to_owned()));
    let (.., message) = speak(&state, &json!({"model": "org/hears"})).await.error();
    assert!(message.contains("no model that is served here does"), "{message}");
    assert_eq!(speak(&state, &json!({})).await.error().1, "model_unavailable");
    assert_eq!(speak(&state, &json!({"model": "../org/speaks"})).await.error().0, 404);
}

#[tokio::test]
async fn what_cannot_be_spoken_has_a_status_and_a_name() {
    let (state, _folder) = state("");
    for (more, param, part) in [
        (json!({"voice": "nobody"}), "voice", "anna, ben"),
        (json!({"voice": {"id": "voice_../../x"}}), "voice", "GET /v1/audio/voices"),
        (json!({"language": "de"}), "language", "en, ps"),
        (json!({"input": "😀 ... \u{1b}"}), "input", "nothing"),
        (json!({"input": "a".repeat(4097)}), "input", "4096"),
        (json!({"steps": 0}), "steps", "64"),
        (json!({"steps": 17}), "steps", "16"),
        (json!({"guidance": 10.5}), "guidance", "10"),
    ] {
        let (status, code, found, message) = speak(&state, &more).await.error();
        assert_eq!((status, code.as_str(), found.as_str()), (400, "invalid_value", param), "{message}");
        assert!(message.contains(part), "{message}");
    }
    for (body, code) in [("", "invalid_json"), ("[1]", "invalid_json"), ("{}", "missing_required_parameter")]
    {
        let (status, found, ..) = send(&state, "/v1/audio/speech", body.to_owned()).await.error();
        assert_eq!((status, found.as_str()), (400, code));
    }
    // All that is as long as it may be.
    let long =
        speak(&state, &json!({"input": "é".repeat(4096), "speed": 4.0, "response_format": "pcm"})).await;
    assert!(long.status == StatusCode::OK && !long.bytes.is_empty());
}

#[tokio::test]
async fn voices_that_were_brought_speak() -> Result<(), crate::store::Error> {
    let (state, _folder) = state("");
    let consent = state.voices.add_consent("me".to_owned(), "en".to_owned(), sample(1.0)).await?.id;
    let id = state.voices.add_voice("mine".to_owned(), consent.clone(), sample(3.0)).await?.id;
    for voice in [json!({"id": id}), json!(id), json!("alloy"), json!("cedar"), json!({"id": "ben"})] {
        let answer = speak(&state, &json!({"voice": voice})).await;
        assert_eq!(answer.status, StatusCode::OK, "{voice}");
    }
    let speaking = state.models.speaking("org/speaks").expect("a model");
    for path in [format!("/v1/audio/voices/{id}"), format!("/v1/audio/voice_consents/{consent}")] {
        let again = state.voices.add_voice("again".to_owned(), consent.clone(), sample(3.0)).await?.id;
        for voice in [&id, &again] {
            speak(&state, &json!({"voice": voice})).await;
        }
        assert!(speaking.learnt_ids().contains(&again));
        let request = Request::delete(&path).body(Body::empty()).expect("a request");
        let deleted = router(&state).oneshot(request).await.expect("answered");
        assert_eq!(deleted.status(), StatusCode::OK);
        assert!(!speaking.learnt_ids().contains(&id), "it is nowhere any more");
    }
    assert!(speaking.learnt_ids().is_empty(), "they went with their consent");
    Ok(())
}

#[tokio::test]
async fn where_no_voices_can_be_kept_the_models_own_speak_and_others_are_unknown() {
    let (state, folder) = state("");
    std::fs::write(folder.path().join("voices"), "no folder").expect("written");
    assert_eq!(speak(&state, &json!({})).await.status, StatusCode::OK);
    for unknown in ["nobody", "voice_1", "voice_../../x"] {
        let (status, code, param, _) = speak(&state, &json!({"voice": unknown})).await.error();
        assert_eq!((status, code.as_str(), param.as_str()), (400, "invalid_value", "voice"), "{unknown}");
    }
    let kept = format!("voice_{}", "0".repeat(32));
    let (status, code, ..) = speak(&state, &json!({"voice": kept})).await.error();
    assert_eq!((status, code.as_str()), (503, "voices_unavailable"));
}

#[tokio::test]
async fn who_comes_when_there_is_no_room_is_told_when_to_come_back() {
    let (state, _folder) = state("[serve]\nmax_queued_requests = 1");
    let Serving::Speaks(speaking) = state.models.serving("org/speaks").expect("a model") else {
        panic!("it hears")
    };
    let inside = speaking.engine.admission().enter(60.0, None).expect("room");
    let (status, code, ..) = speak(&state, &json!({})).await.error();
    assert_eq!((status, code.as_str()), (429, "rate_limit_exceeded"));
    drop(inside);
    assert_eq!(speak(&state, &json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nobody_has_work_done_before_it_is_let_in() -> Result<(), crate::store::Error> {
    let cores = Arc::default();
    let (state, _folder) = state_on(&cores, "[serve]\nmax_queued_requests = 1");
    let consent = state.voices.add_consent("me".to_owned(), "en".to_owned(), sample(1.0)).await?.id;
    let id = state.voices.add_voice("mine".to_owned(), consent, sample(3.0)).await?.id;
    let speaking = state.models.speaking("org/speaks").expect("a model");
    let load = || speaking.engine.admission().load();
    let busy = busy(&cores);
    let asked = Arc::clone(&state);
    // Its voice is to be learnt, which waits for its turn.
    let first =
        tokio::spawn(async move { speak(&asked, &json!({"voice": id, "input": "1234567890"})).await });
    until("it is let in", || load().n_requests == 1).await;
    let expected_secs = load().audio_secs;
    let (status, code, ..) = speak(&state, &json!({"voice": "anna"})).await.error();
    assert_eq!((status, code.as_str()), (429, "rate_limit_exceeded"));
    drop(busy);
    assert_eq!(first.await.expect("no panic").status, StatusCode::OK);

    // Ten digits are read as one number, in many more letters.
    let busy = self::busy(&cores);
    let asked = Arc::clone(&state);
    let second = tokio::spawn(async move { speak(&asked, &json!({"input": "1234567890"})).await });
    until("it is read", || load().audio_secs > 3.0 * expected_secs).await;
    drop(busy);
    assert_eq!(second.await.expect("no panic").status, StatusCode::OK);
    Ok(())
}

/// Pieces as the model's side sends them.
fn pieces(sent: Vec<Result<Piece, Error>>) -> Pieces {
    let (sender, receiver) = channel(sent.len());
    for piece in sent {
        sender.try_send(piece).map_err(drop).expect("room");
    }
    Pieces { receiver, span: Span::none() }
}

fn spoken() -> Spoken {
    Spoken { n_symbols: 3, n_patches: 4, duration_secs: 1.0, n_stopped: 0 }
}

#[tokio::test]
async fn an_error_after_the_first_byte_is_seen() {
    let late = || Err(Error::Deadline { limit_secs: 1.0 });
    let sound = || Ok(Piece::Sound(Bytes::from_static(&[1, 2, 3])));
    let id = None;
    for broken in [vec![sound(), late()], vec![sound()]] {
        let body = audio_response(pieces(broken), AudioFormat::Mp3).into_body();
        let read = to_bytes(body, 100).await;
        assert!(read.is_err(), "it looks whole");
    }
    let whole = vec![sound(), Ok(Piece::Sound(Bytes::from_static(&[4]))), Ok(Piece::Done(spoken()))];
    let body = audio_response(pieces(whole), AudioFormat::Mp3).into_body();
    assert_eq!(to_bytes(body, 100).await.expect("whole").to_vec(), [1, 2, 3, 4]);

    for (broken, code) in [(vec![sound(), late()], "timeout"), (vec![sound()], "internal_error")] {
        let body = events_response(pieces(broken), id.clone()).into_body();
        let text = String::from_utf8(to_bytes(body, 10_000).await.expect("events").to_vec()).expect("UTF-8");
        let (first, last) = text.trim_end().split_once("\n\n").expect("two events");
        assert!(first.contains("speech.audio.delta") && first.contains("AQID"), "{first}");
        assert!(last.starts_with("event: error\ndata: {\"error\":{") && last.contains(code), "{last}");
    }
}

/// All of a text may come at once.
#[test]
fn no_event_is_larger_than_a_thread_that_answers_has_time_for() {
    let said = Said { sound: (0..100_000).map(|n| n as u8).collect(), spoken: Some(spoken()) };
    let (pieces, mut bytes) = (said.into_pieces(), Vec::new());
    let (last, sound) = pieces.split_last().expect("pieces");
    assert!(matches!(last, Piece::Done(_)));
    for piece in sound {
        let Piece::Sound(piece) = piece else { panic!("the end is in the middle") };
        assert!((1..=MAX_PIECE_BYTES).contains(&piece.len()));
        bytes.extend_from_slice(piece);
    }
    assert!(
        sound.len() == 4
            && bytes.iter().enumerate().all(|(n, byte)| *byte == n as u8)
            && bytes.len() == 100_000
    );
}

/// What a model says.
type Told = Sender<Event<Vec<f32>, Spoken>>;

/// A request for PCM whose model is the test.
fn running(state: &Arc<AppState>) -> (Told, Running) {
    let (told, events) = channel(16);
    let speaking = state.models.speaking("org/speaks").expect("a model");
    let encoder = Encoder::converting(AudioFormat::Pcm, SAMPLE_RATE, SAMPLE_RATE, None).expect("an encoder");
    let now = Instant::now();
    let terms = Terms { id: None, received: now, limit: Duration::from_secs(60) };
    let state = Arc::clone(state);
    let running =
        Running { state, speaking, terms, began: now, events, encoder: Some(encoder), has_sound: true };
    (told, running)
}

/// A byte, which is on its way to the client before anything is kept.
fn byte() -> Said {
    Said { sound: vec![1], spoken: None }
}

/// A second of sound: 48,000 bytes.
fn second() -> Event<Vec<f32>, Spoken> {
    Event::Part(vec![0.25; SAMPLE_RATE as usize])
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.expect(what);
}

/// How many bytes of sound a client gets, and what comes last.
async fn taken(mut pieces: Pieces) -> (usize, Option<Result<Piece, Error>>) {
    let mut n_bytes = 0;
    loop {
        match pieces.receiver.recv().await {
            Some(Ok(Piece::Sound(bytes))) => n_bytes += bytes.len(),
            last => return (n_bytes, last),
        }
    }
}

#[tokio::test]
async fn sound_waits_for_slow_clients_and_when_there_is_no_room_whoever_left_the_most_is_cut_off() {
    let (state, _folder) = state("[serve]\nmax_unread_bytes = 300_000");
    let ((most, first), (less, second_one)) = (running(&state), running(&state));
    let (idle, slow) = (first.into_pieces(byte()), second_one.into_pieces(byte()));
    for _ in 0..5 {
        most.send(second()).await.expect("the request is there");
    }
    until("it is kept", || state.unread.n_bytes() >= 240_000).await;
    for event in [second(), second(), Event::Done(spoken())] {
        less.send(event).await.expect("the request is there");
    }
    timeout(Duration::from_secs(20), most.closed()).await.expect("its model hears of it");
    until("its sound is gone", || (96_000..100_000).contains(&state.unread.n_bytes())).await;
    let (n_bytes, last) = taken(idle).await;
    assert!(n_bytes == 1 && matches!(last, Some(Err(Error::Unread { limit_bytes: 300_000 }))));
    let (n_bytes, last) = taken(slow).await;
    assert!(n_bytes == 96_001 && matches!(last, Some(Ok(Piece::Done(_)))));
    until("nothing waits any more", || state.unread.n_bytes() == 0).await;
}

/// A client that leaves is one whose pieces are dropped.
#[tokio::test]
async fn work_for_nobody_ends() {
    let (state, _folder) = state("");
    let (told, running) = running(&state);
    let pieces = running.into_pieces(byte());
    assert!(!told.is_closed());
    drop(pieces);
    timeout(Duration::from_secs(20), told.closed()).await.expect("the model hears of it");
}
