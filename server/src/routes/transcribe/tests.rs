use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::StreamExt;
use models::{Device, Work};
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::{
    auth::Keys,
    compute::Compute,
    config::Config,
    decode::DecodePool,
    load::load,
    render::sample::{segment, transcript},
    state::{Models, Serving},
};

const BUNDLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");

/// A request that the model is done with: these events wait for it. It came 8 s before it was received, and was samples
/// 4 s later, 16 s ago.
fn running(events: Vec<Event<TextPart, Transcribed>>) -> Running {
    let config = Config::load(None).expect("the defaults");
    let decoder = DecodePool::new("/none".into(), config.uploads);
    let state = AppState::new(config, Keys::default(), Models::new(["m".to_owned()]), decoder);
    let compute = Compute::new(Device::Cpu, state.config.transcribe.precision).expect("a processor");
    let serving = load(&state, "m", std::path::Path::new(BUNDLE).into(), None, &compute, &Arc::default())
        .expect("a model");
    let Serving::Hears(serving) = serving else { panic!("it speaks") };
    let (sender, receiver) = mpsc::channel(events.len());
    for event in events {
        sender.try_send(event).expect("room");
    }
    let now = Instant::now();
    let ago = |secs| now.checked_sub(Duration::from_secs(secs)).expect("the machine runs for longer");
    Running {
        state: Arc::new(state),
        serving,
        shape: Shape { format: Format::Json, words: false, segments: false, logprobs: true },
        terms: Terms {
            id: None,
            arrival: Arrival { started: ago(28), received: ago(20), decoded: ago(16) },
            limit: Duration::from_secs(60),
            deadline: now + Duration::from_secs(60),
        },
        cascade: None,
        has_text: false,
        events: receiver,
    }
}

fn part(delta: &str, n_tokens: usize) -> Event<TextPart, Transcribed> {
    let mut segment = segment(0, 0.0, 1.0, delta);
    segment.token_ids = vec![100; n_tokens];
    segment.token_logprobs = vec![-0.5; n_tokens];
    Event::Part(TextPart { delta: delta.to_owned(), segment })
}

fn done() -> Event<TextPart, Transcribed> {
    let work =
        Work { prepare_secs: 1.0, queue_secs: 2.0, encode_secs: 4.0, decode_secs: 8.0, ..Work::default() };
    Event::Done(Transcribed { transcript: transcript(vec![segment(0, 0.0, 1.0, " سلام")]), work })
}

/// The data of a stream's events, and how many threads had been started for the blocking pool when each was there.
fn told(running: Running) -> Vec<(Value, usize)> {
    let n_threads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&n_threads);
    // Requests are answered on this thread alone: any other is of the blocking pool.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .on_thread_start(move || {
            count.fetch_add(1, SeqCst);
        })
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let events = running.into_stream().into_body().into_data_stream();
        let told = events.map(|data| {
            let data = String::from_utf8(data.expect("a piece").to_vec()).expect("UTF-8");
            let json =
                data.strip_prefix("data: ").and_then(|data| data.strip_suffix("\n\n")).expect("an event");
            (serde_json::from_str(json).expect("JSON"), n_threads.load(SeqCst))
        });
        told.collect().await
    })
}

#[test]
fn long_events_are_written_on_the_blocking_pool_and_stay_in_order() {
    let events = told(running(vec![part("a", 3), part("b", MAX_INLINE_TOKENS), done()]));
    let n_threads: Vec<_> = events.iter().map(|(_, n_threads)| *n_threads).collect();
    assert_eq!(n_threads, [0, 0, 1]);
    assert_eq!(events[2].0["type"], "transcript.text.done");

    let events = told(running(vec![part("a", MAX_INLINE_TOKENS + 1), part("b", 3), done()]));
    assert_eq!(events[0].1, 1);
    assert_eq!(events[0].0["logprobs"].as_array().map(Vec::len), Some(MAX_INLINE_TOKENS + 1));
    let deltas: Vec<_> = events[..2].iter().map(|(event, _)| event["delta"].as_str()).collect();
    assert_eq!((deltas, events.len()), (vec![Some("a"), Some("b")], 3));
}

#[test]
fn a_stream_ends_with_why_there_is_no_text() {
    for (last, code) in [
        (Some(Event::Failed(models::Error::Tokenizer("secret".to_owned()))), "internal_error"),
        (None, "internal_error"),
    ] {
        let events = told(running([part("a", 3)].into_iter().chain(last).collect()));
        let codes: Vec<_> = events.iter().map(|(event, _)| event["error"]["code"].as_str()).collect();
        assert_eq!(codes, [None, Some(code)]);
    }
}

/// The first text and the speed are measured from the end of the upload, the phases cover the time since it was decoded.
#[test]
fn what_a_client_waits_for_is_measured_from_the_end_of_its_upload() {
    let streamed = running(vec![part("a", 3), done()]);
    let answered = running(vec![part("a", 3), done()]);
    let states = [Arc::clone(&streamed.state), Arc::clone(&answered.state)];
    told(streamed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(answered.into_response()).expect("a response");
    for state in states {
        let page = state.metrics.encode(&state.models);
        let value = |name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().parse().expect("a number")
        };
        let audio_secs = value(r#"speechd_audio_seconds_total{task="transcribe",model="m"}"#);
        // What this test itself took comes on top.
        let (first_text, wait) =
            (value("speechd_ttft_seconds_sum"), value(r#"speechd_rtf_sum{model="m"}"#) * audio_secs);
        assert!((20.0..40.0).contains(&first_text), "{first_text}");
        assert!(wait >= first_text && wait < 40.0, "{wait}");
        let phase = |phase: &str| value(&format!("speechd_phase_seconds_sum{{phase=\"{phase}\"}}"));
        assert_eq!(["prepare", "encode", "decode_steps"].map(phase), [1.0, 4.0, 8.0]);
        // Three of the sixteen seconds were nobody's work; after them the test took its time.
        assert!(phase("queue") >= 3.0, "{page}");
        let phases: f64 = ["prepare", "queue", "encode", "decode_steps", "render"].map(phase).iter().sum();
        assert!((phases + 4.0 - wait).abs() < 1e-6, "{phases} {wait}");
    }
}
