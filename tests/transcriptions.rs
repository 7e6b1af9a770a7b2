//! Transcription over HTTP with a model at work: formats, streams, equal answers under load, refusals of what is busy or
//! late, and the end of work that nobody waits for.

use std::{
    thread,
    time::{Duration, Instant},
};

use audio::{Waveform, encode::wav_bytes};

use crate::{
    bombs::{flac_silence, mp3_silence, opus_silence, wav},
    loopback_server::{LoopbackServer, MODEL, Response, form, head, post},
};

/// A recording of noise: the model, whose weights are random, writes something about it.
pub fn noise(secs: f64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let samples = (0..(secs * 16_000.0) as usize).map(|i| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let loud = if (i / 8_000) % 3 == 0 { 0.01 } else { 0.3 };
        loud * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
    });
    wav_bytes(&Waveform { samples: samples.collect(), sample_rate: 16_000 }).expect("encoded")
}

/// Options under which the model is quick and surely writes something.
const QUICK: [(&str, &str); 5] = [
    ("model", MODEL),
    ("language", "en"),
    ("max_new_tokens", "12"),
    ("fallback", "false"),
    ("no_speech_threshold", "off"),
];

fn fields<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    QUICK.iter().chain(more).copied().collect()
}

fn ok(response: Response) -> Response {
    assert_eq!(response.status, 200, "{}", response.text());
    response
}

/// A request that takes as long as the model's context allows, window after window.
fn endless_form() -> Vec<u8> {
    let slow =
        [("model", MODEL), ("language", "en"), ("vad", "off"), ("logprob_threshold", "0"), ("best_of", "8")];
    form(&slow, Some(&noise(600.0, 1)))
}

fn endless() -> Vec<u8> {
    post("/v1/audio/transcriptions", &endless_form())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn metric(server: &LoopbackServer, name: &str) -> f64 {
    let page = server.get("/metrics").text();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or(0.0)
}

pub fn n_running(server: &LoopbackServer) -> f64 {
    metric(server, &format!("speechd_queue_requests{{model=\"{MODEL}\"}}"))
}

#[test]
fn every_format_says_the_same() {
    let server = LoopbackServer::start("", "");
    let recording = noise(4.0, 1);
    let json = ok(server.transcribe_file(&fields(&[]), &recording)).json();
    let text = json["text"].as_str().expect("text").to_owned();
    assert!(!text.is_empty());
    assert!(
        json["coverage"]["gaps"].is_array()
            && json["usage"]["seconds"] == 4
            && json["languages"][0]["code"] == "en"
    );
    let plain = ok(server.transcribe_file(&fields(&[("response_format", "text")]), &recording));
    assert_eq!(
        (plain.text(), &*plain.headers["content-type"]),
        (format!("{text}\n"), "text/plain; charset=utf-8")
    );

    // With times the decoder writes another text; all formats with times share it.
    let verbose = |granularity| {
        let more = [("response_format", "verbose_json"), ("timestamp_granularities[]", granularity)];
        ok(server.transcribe_file(&fields(&more), &recording)).json()
    };
    let (segments, words) = (verbose("segment"), verbose("word"));
    assert!(segments.get("words").is_none() && words.get("segments").is_none());
    assert!(!segments["segments"].as_array().expect("a list").is_empty() && words["words"].is_array());
    for (format, start, content_type) in [
        ("srt", "1\n00:00:0", "application/x-subrip; charset=utf-8"),
        ("vtt", "WEBVTT\n\n00:00:0", "text/vtt; charset=utf-8"),
    ] {
        let subtitles = ok(server.transcribe_file(&fields(&[("response_format", format)]), &recording));
        assert!(subtitles.text().starts_with(start), "{}", subtitles.text());
        assert_eq!(subtitles.headers["content-type"], content_type);
    }
    let translation = ok(server.send(&post("/v1/audio/translations", &form(&fields(&[]), Some(&recording)))));
    assert_eq!(translation.json()["languages"][0]["code"], "en");
}

#[test]
fn deltas_of_a_stream_add_up_to_its_text_and_that_of_the_json() {
    let server = LoopbackServer::start("", "");
    let recording = noise(70.0, 2);
    let options = fields(&[("vad", "off"), ("include[]", "logprobs")]);
    let json = ok(server.transcribe_file(&options, &recording)).json();
    let streamed =
        ok(server.transcribe_file(&[options, vec![("stream", "true")]].concat(), &recording)).events();
    let (done, deltas) = streamed.split_last().expect("events");
    assert!(
        deltas.len() > 1 && deltas.iter().all(|event| event["type"] == "transcript.text.delta"),
        "{deltas:?}"
    );
    assert_eq!(done["type"], "transcript.text.done");
    let told: String = deltas.iter().map(|event| event["delta"].as_str().expect("text")).collect();
    assert_eq!(told, done["text"].as_str().expect("text"));
    assert_eq!(
        (&done["text"], &done["logprobs"], &done["coverage"]),
        (&json["text"], &json["logprobs"], &json["coverage"])
    );
    let tokens: Vec<_> =
        deltas.iter().flat_map(|event| event["logprobs"].as_array().expect("a list").clone()).collect();
    assert_eq!(&tokens, done["logprobs"].as_array().expect("a list"));
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token["bytes"].as_array().expect("a list"))
        .map(|byte| byte.as_u64().expect("a byte") as u8)
        .collect();
    // A random model breaks characters apart and begins no segment with a space, so one is put there.
    let without_spaces = |text: &str| text.replace(' ', "");
    assert_eq!(without_spaces(&String::from_utf8_lossy(&bytes)), without_spaces(&told));
}

#[test]
fn translations_stream_as_transcriptions_do() {
    let server = LoopbackServer::start("", "");
    let recording = noise(70.0, 3);
    let translate = |more: &[(&str, &str)]| {
        let form = form(&fields(&[&[("vad", "off")], more].concat()), Some(&recording));
        ok(server.send(&post("/v1/audio/translations", &form)))
    };
    let json = translate(&[]).json();
    let streamed = translate(&[("stream", "true")]).events();
    let (done, deltas) = streamed.split_last().expect("events");
    assert!(
        deltas.len() > 1 && deltas.iter().all(|event| event["type"] == "transcript.text.delta"),
        "{deltas:?}"
    );
    assert_eq!(done["type"], "transcript.text.done");
    let told: String = deltas.iter().map(|event| event["delta"].as_str().expect("text")).collect();
    assert_eq!(told, done["text"].as_str().expect("text"));
    for key in ["text", "languages", "coverage"] {
        assert_eq!(done[key], json[key], "{key}");
    }
}

#[test]
fn equal_requests_give_equal_bytes_alone_and_under_load() {
    let server = LoopbackServer::start("", "");
    let kinds: Vec<Vec<u8>> = (0..6)
        .map(|kind| {
            let more: &[(&str, &str)] = match kind {
                0 => &[("response_format", "verbose_json")],
                1 => &[("beam_size", "4"), ("include[]", "logprobs")],
                2 => &[("temperature", "0.8"), ("seed", "7"), ("include[]", "logprobs")],
                3 => &[
                    ("vad", "off"),
                    ("response_format", "verbose_json"),
                    ("timestamp_granularities[]", "word"),
                ],
                4 => &[("prompt", "one two three"), ("include[]", "logprobs"), ("stream", "true")],
                _ => &[("response_format", "srt"), ("hotwords", "nine")],
            };
            post(
                "/v1/audio/transcriptions",
                &form(&fields(more), Some(&noise([3.0, 40.0, 7.0][kind % 3], kind as u64))),
            )
        })
        .collect();
    let alone: Vec<Vec<u8>> = kinds.iter().map(|request| ok(server.send(request)).body).collect();
    thread::scope(|scope| {
        for client in 0..12 {
            let (server, kinds, alone) = (&server, &kinds, &alone);
            scope.spawn(move || {
                for round in 0..3 {
                    let kind = (client + round) % kinds.len();
                    let answer = ok(server.send(&kinds[kind]));
                    assert_eq!(answer.text(), String::from_utf8_lossy(&alone[kind]), "{kind}");
                }
            });
        }
    });
    assert_eq!(n_running(&server), 0.0);
}

/// The tiny vocabulary spells a letter each: more than the 111 tokens that hotwords may be, more than the 223 of a prompt.
#[test]
fn words_that_do_not_fit_are_refused_by_name_and_a_long_prompt_is_read_from_its_end() {
    let server = LoopbackServer::start("", "");
    let (fits, many, long) = ("q".repeat(100), "q".repeat(200), "q".repeat(1000));
    for (field, param) in [("hotwords[]", "hotwords"), ("keywords", "keywords")] {
        assert_eq!(ok(server.transcribe_file(&fields(&[(field, &fits)]), &noise(1.0, 1))).status, 200);
        // Refused before the recording is read: there is none.
        let refused = server.transcribe(&fields(&[(field, &many)]));
        assert_eq!(
            (refused.status, refused.error()),
            (400, ("invalid_value".to_owned(), Some(param.to_owned())))
        );
        for part in ["201 tokens", "the 111", "leave some out"] {
            assert!(refused.text().contains(part), "{}", refused.text());
        }
    }
    let text = |prompt: &str| {
        let more = [("prompt", prompt), ("include[]", "logprobs")];
        ok(server.transcribe_file(&fields(&more), &noise(3.0, 1))).text()
    };
    let (whole, other_end) = (text(&long), text(&format!("{long} end")));
    assert_eq!(whole, text(&format!("other words, {long}")), "what is before the end makes no difference");
    assert_ne!(whole, other_end);
}

#[test]
fn what_is_too_much_is_sent_away_with_the_time_to_come_back() {
    let server = LoopbackServer::start("max_queued_requests = 1", "");
    let mut patient = server.connect();
    patient.write(&endless());
    wait_until("a request runs", || n_running(&server) == 1.0);
    // Before the recording is read: only the head and the fields are sent.
    let body = form(&fields(&[]), Some(&noise(1.0, 1)));
    let mut early = server.connect();
    early.write(&head("/v1/audio/transcriptions", "", body.len()));
    early.write(&body[..body.len() - 20_000]);
    let refused = early.read().expect("a response");
    assert_eq!(
        (refused.status, refused.error().0.as_str()),
        (429, "rate_limit_exceeded"),
        "{}",
        refused.text()
    );
    let wait_ms: u64 = refused.headers["retry-after-ms"].parse().expect("a number");
    assert!((100..=60_000).contains(&wait_ms), "{wait_ms}");
    // Others are served when there is room again.
    drop(patient);
    wait_until("the room is empty", || n_running(&server) == 0.0);
    ok(server.transcribe_file(&fields(&[]), &noise(1.0, 1)));
}

#[test]
fn the_patience_of_a_client_ends_the_work() {
    let server = LoopbackServer::start("", "");
    let body = endless_form();
    let patience = "X-Stainless-Read-Timeout: 1\r\n";
    let hurried = [head("/v1/audio/transcriptions", patience, body.len()), body].concat();
    let late = server.send(&hurried);
    assert_eq!((late.status, late.error().0.as_str()), (504, "timeout"), "{}", late.text());
    assert_eq!(late.headers["x-should-retry"], "false");
    wait_until("the work stops", || n_running(&server) == 0.0);
}

#[test]
fn a_client_that_leaves_stops_the_work_wherever_it_is() {
    let server = LoopbackServer::start("max_batch_rows = 8", "");
    let n_cancelled = || -> f64 {
        let phases = ["upload", "decode", "prepare", "queue", "encode", "decode_steps", "render"];
        phases
            .iter()
            .map(|phase| metric(&server, &format!("speechd_cancelled_total{{phase=\"{phase}\"}}")))
            .sum()
    };
    let request = endless();
    // In the middle of its upload.
    let mut uploading = server.connect();
    uploading.write(&request[..request.len() / 2]);
    thread::sleep(Duration::from_millis(50));
    drop(uploading);
    wait_until("the upload is noticed", || n_cancelled() == 1.0);
    // At moments that fall into decoding, preparing, waiting, encoding and writing.
    for delay_ms in [0, 20, 60, 120, 250, 500, 1000] {
        let before = n_cancelled();
        let mut client = server.connect();
        client.write(&request);
        thread::sleep(Duration::from_millis(delay_ms));
        drop(client);
        wait_until("the work stops", || n_cancelled() == before + 1.0 && n_running(&server) == 0.0);
    }
    // So does the client of a stream.
    let slow =
        [("model", MODEL), ("language", "en"), ("vad", "off"), ("stream", "true"), ("fallback", "false")];
    let mut streaming = server.connect();
    streaming.write(&post("/v1/audio/transcriptions", &form(&slow, Some(&noise(600.0, 1)))));
    wait_until("a request runs", || n_running(&server) == 1.0);
    drop(streaming);
    wait_until("the work stops", || n_running(&server) == 0.0);
    ok(server.transcribe_file(&fields(&[]), &noise(1.0, 1)));
}

#[test]
fn recordings_that_mean_harm_are_refused_and_the_next_one_is_served() {
    let server =
        LoopbackServer::start("[uploads]\nmax_duration_secs = 600\nmax_samples_bytes = 67108864", "");
    let refused = |file: &[u8]| {
        let response = server.transcribe_file(&fields(&[]), file);
        let (code, param) = response.error();
        assert!(response.status == 400 && param.as_deref() == Some("file"), "{}", response.text());
        code
    };
    assert_eq!(refused(b""), "invalid_audio");
    assert_eq!(refused(b"RIFF\0\0\0\0WAVEfmt "), "invalid_audio");
    let hours = 8 * 3600;
    assert_eq!(refused(&flac_silence(48_000, 2, hours, false)), "audio_too_long");
    assert_eq!(refused(&mp3_silence(hours)), "audio_too_long");
    assert_eq!(refused(&opus_silence(hours)), "audio_too_long");
    // A forged rate makes the samples many and the seconds few.
    assert_eq!(refused(&flac_silence(655_350, 8, 500, false)), "audio_too_long");
    assert_eq!(refused(&wav(255, 16_000, 51_000, &[0; 51_000])), "invalid_audio");
    ok(server.transcribe_file(&fields(&[]), &noise(1.0, 1)));
}
