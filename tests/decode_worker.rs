//! Uploads are decoded in children that can be killed: what a hostile file or a child out of control can do, and
//! what not.

use std::{
    fs,
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use server::{
    config::Uploads,
    decode::{DecodeError, DecodePool, DecodedAudio},
};
use tempfile::TempDir;

use crate::{
    bombs::{flac_silence, mp3_silence, opus_silence, wav},
    support::{fixture, recording},
};

const SPEECHD: &str = env!("CARGO_BIN_EXE_speechd");

/// Ten minutes, 64 MiB of samples.
fn limits() -> Uploads {
    Uploads {
        max_duration_secs: 600.0,
        max_samples_bytes: 64 << 20,
        max_channels: 8,
        max_decode_cpu_secs: 60.0,
        max_decode_wall_secs: 60.0,
        max_decode_memory_bytes: 1 << 30,
        decode_children: 2,
        small_upload_bytes: 0,
    }
}

fn pool(limits: Uploads) -> DecodePool {
    DecodePool::new(SPEECHD.into(), limits)
}

/// As the service spools it: without a name, the position where the last byte was written.
fn upload(bytes: &[u8]) -> fs::File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

async fn decode(limits: Uploads, bytes: &[u8]) -> Result<DecodedAudio, DecodeError> {
    pool(limits).decode(upload(bytes), 16_000).await
}

/// A program that stands in for a worker out of control.
///
/// Another process writes it: a descriptor for writing that a child of another test inherits would make it busy.
fn script(folder: &Path, body: &str) -> PathBuf {
    let path = folder.join("worker");
    let status = Command::new("/bin/sh")
        .args(["-c", "printf '#!/bin/sh\n%s\n' \"$1\" > \"$2\" && chmod +x \"$2\"", "sh", body])
        .arg(&path)
        .status()
        .expect("a shell");
    assert!(status.success());
    path
}

/// What a decode by such a program gives.
async fn decode_by(body: &str, limits: Uploads) -> Result<DecodedAudio, DecodeError> {
    let folder = TempDir::new().expect("a directory");
    DecodePool::new(script(folder.path(), body), limits).decode(upload(b"anything"), 16_000).await
}

/// Waits for what has to come, however slow the machine is.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: waited 30 s");
}

#[tokio::test]
async fn every_format_becomes_what_it_is_in_process() {
    let pool = pool(limits());
    for name in ["digits/utterance.mp3", "digits/utterance.m4a", "audio/stereo.wav", "audio/opus.webm"] {
        let path = fixture(name);
        let bytes = fs::read(&path).expect(name);
        let expected = audio::resample(&recording(&path).expect(name), 16_000).expect(name);
        let decoded = pool.decode(upload(&bytes), 16_000).await.expect(name);
        assert_eq!(decoded.waveform, expected, "{name}");
        let source = audio::decode_file(&path, &audio::DecodeAudio::default()).expect(name).source;
        assert_eq!(decoded.source, source, "{name}");
        assert!(decoded.warnings.is_empty(), "{name}: {:?}", decoded.warnings);
    }
}

#[tokio::test]
async fn what_was_lost_is_told() {
    let mut bytes = fs::read(fixture("digits/utterance.flac")).expect("a fixture");
    bytes.truncate(bytes.len() / 2);
    let decoded = decode(limits(), &bytes).await.expect("its first half");
    assert!(decoded.warnings[0].contains("truncated"), "{:?}", decoded.warnings);
}

#[tokio::test]
async fn what_is_no_audio_is_refused_with_the_reason() {
    let empty = decode(limits(), b"").await;
    assert!(
        matches!(&empty, Err(DecodeError::Invalid(message)) if message == "the audio is empty"),
        "{empty:?}"
    );
    let text = decode(limits(), &b"The quick brown fox.\n".repeat(1_000)).await;
    assert!(matches!(&text, Err(DecodeError::Unsupported(message)) if message.contains("text")), "{text:?}");
    // Numbers whose sums overflow, on the way to another rate.
    let mut loud = fs::read(fixture("audio/pcm_f32le.wav")).expect("a fixture");
    let start = loud.len() - 4_000;
    loud[start..].as_chunks_mut().0.iter_mut().for_each(|sample| *sample = (f32::MAX / 2.0).to_le_bytes());
    let loud = pool(limits()).decode(upload(&loud), 8_000).await;
    assert!(
        matches!(&loud, Err(DecodeError::Invalid(message)) if message.contains("a sample of 1.701")),
        "{loud:?}"
    );
    let cut = decode(limits(), &fs::read(fixture("audio/aac.m4a")).expect("a fixture")[..200]).await;
    assert!(matches!(cut, Err(DecodeError::Invalid(_))), "{cut:?}");
}

#[tokio::test]
async fn eight_hours_of_silence_are_refused() {
    const SECS: usize = 8 * 3_600;
    // Ten minutes of Opus, whose rate is 48 kHz, fit.
    let limits = Uploads { max_samples_bytes: 128 << 20, ..limits() };
    for (what, bytes) in [
        ("FLAC of stated length", flac_silence(16_000, 1, SECS, true)),
        ("FLAC of unstated length", flac_silence(16_000, 1, SECS, false)),
        ("MP3", mp3_silence(SECS)),
        ("Opus", opus_silence(SECS)),
    ] {
        let outcome = decode(limits, &bytes).await;
        assert!(
            matches!(&outcome, Err(DecodeError::TooLong(message)) if message.contains("600 s")),
            "{what}: {outcome:?}"
        );
    }
}

/// 75 GB in 1.3 MB.
#[tokio::test]
async fn flac_forged_to_655350_hz_in_8_channels_is_refused() {
    let hour = Uploads { max_duration_secs: 3_600.0, ..limits() };
    let bytes = flac_silence(655_350, 8, 3_600, false);
    let outcome = decode(hour, &bytes).await;
    assert!(
        matches!(&outcome, Err(DecodeError::TooLarge(message)) if message.contains("67108864 bytes")),
        "{outcome:?}"
    );
    let outcome = decode(Uploads { max_channels: 2, ..hour }, &bytes).await;
    assert!(
        matches!(&outcome, Err(DecodeError::Layout(message)) if message.contains("8 channels")),
        "{outcome:?}"
    );
    // The same header before frames of another shape.
    let mut tone = fs::read(fixture("audio/tone.flac")).expect("a fixture");
    tone[18..26].copy_from_slice(&bytes[18..26]);
    let outcome = decode(hour, &tone).await;
    assert!(
        !matches!(outcome, Err(DecodeError::Crashed | DecodeError::Worker(_) | DecodeError::Timeout { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_wav_that_claims_4_gib_is_what_it_holds() {
    let header = decode(limits(), &wav(1, 16_000, u32::MAX, &[])).await;
    assert!(matches!(header, Err(DecodeError::Invalid(_))), "{header:?}");
    let decoded = decode(limits(), &wav(1, 16_000, u32::MAX, &[1; 4_096])).await.expect("what is there");
    assert_eq!(decoded.waveform.samples.len(), 2_048);
}

#[tokio::test]
async fn a_file_that_outgrows_the_memory_is_refused() {
    // Two hours, 460 MB: all limits but the memory allow it.
    let two_hours = Uploads {
        max_duration_secs: 7_200.0,
        max_samples_bytes: 2 << 30,
        max_decode_memory_bytes: 256 << 20,
        ..limits()
    };
    let bytes = flac_silence(16_000, 1, 7_200, false);
    let outcome = decode(two_hours, &bytes).await;
    assert!(
        matches!(&outcome, Err(DecodeError::TooLarge(message)) if message.contains("268435456 bytes")),
        "{outcome:?}"
    );
    // Where nothing can be allocated at all, the child dies, and only the child.
    let outcome = decode(Uploads { max_decode_memory_bytes: 1 << 20, ..two_hours }, &bytes).await;
    assert!(matches!(outcome, Err(DecodeError::Crashed | DecodeError::TooLarge(_))), "{outcome:?}");
}

#[tokio::test]
async fn decoding_that_takes_too_long_is_ended_by_the_childs_clock() {
    let outcome = decode(Uploads { max_decode_cpu_secs: 0.0, ..limits() }, &mp3_silence(500)).await;
    assert!(matches!(outcome, Err(DecodeError::Timeout { limit_secs }) if limit_secs == 0.0), "{outcome:?}");
}

#[tokio::test]
async fn a_child_that_hangs_is_killed() {
    let at_once = Uploads { max_decode_cpu_secs: 0.1, max_decode_wall_secs: 0.1, ..limits() };
    for body in ["exec sleep 1000", "trap '' TERM INT HUP; exec sleep 1000", "while :; do :; done"] {
        let outcome = decode_by(body, at_once).await;
        assert!(matches!(outcome, Err(DecodeError::Busy { limit_secs: 0.1 })), "{body}: {outcome:?}");
    }
}

/// On a busy machine a child gets its processor time late. That is no fault of the file, nor of the one that takes its time.
#[tokio::test]
async fn a_busy_machine_is_no_fault_of_the_file() {
    let folder = TempDir::new().expect("a directory");
    let late = script(folder.path(), &format!("sleep 4; exec {SPEECHD} \"$@\""));
    let bytes = fs::read(fixture("digits/utterance.flac")).expect("a fixture");
    let decode_late =
        async |limits| DecodePool::new(late.clone(), limits).decode(upload(&bytes), 16_000).await;
    let little = Uploads { max_decode_cpu_secs: 0.3, ..limits() };
    decode_late(little).await.expect("enough processor time, however late");
    let impatient = Uploads { max_decode_wall_secs: 0.1, ..little };
    let outcome = decode_late(impatient).await;
    // Never less than the processor time that it is granted.
    assert!(matches!(outcome, Err(DecodeError::Busy { limit_secs: 0.3 })), "{outcome:?}");
    let costly = Uploads { max_decode_cpu_secs: 0.0, ..limits() };
    let outcome = decode_late(costly).await;
    assert!(matches!(outcome, Err(DecodeError::Timeout { limit_secs: 0.0 })), "{outcome:?}");
}

#[tokio::test]
async fn a_child_that_reaches_the_processor_limit_took_too_long() {
    let outcome = decode_by("kill -XCPU $$", limits()).await;
    assert!(matches!(outcome, Err(DecodeError::Timeout { .. })), "{outcome:?}");
}

/// A sound first line that announces so many samples.
fn head(n_samples: u64) -> String {
    let source =
        json!({"format": "wave", "codec": "pcm", "channels": 1, "sample_rate": 16_000, "duration_secs": 1.0});
    let head = json!({"sample_rate": 16_000, "n_samples": n_samples, "warnings": [], "source": source});
    json!({ "ok": head }).to_string()
}

#[tokio::test]
async fn a_child_that_writes_nonsense_is_not_believed() {
    let not_finite = r"printf '\000\000\300\177'";
    for body in [
        "echo '{\"ok\": nonsense'".to_owned(),
        "echo '{\"ok\": {}}'".to_owned(),
        "echo no JSON; exec sleep 1000".to_owned(),
        // Without end: no first line, more than was announced, complaints.
        "exec cat /dev/zero".to_owned(),
        format!("echo '{}'; exec cat /dev/zero", head(4)),
        "exec cat /dev/zero >&2".to_owned(),
        // More than any upload may have, fewer than announced, none.
        format!("echo '{}'; exec cat /dev/zero", head(u64::MAX)),
        format!("echo '{}'; head -c 12 /dev/zero", head(4)),
        format!("echo '{}'; {not_finite}", head(1)),
        "exit 0".to_owned(),
        "exec >&- 2>&-; exec sleep 1000".to_owned(),
        // Sound, but for its end.
        format!("echo '{}'; head -c 16 /dev/zero; exit 3", head(4)),
    ] {
        let outcome = decode_by(&body, limits()).await;
        assert!(matches!(outcome, Err(DecodeError::Crashed)), "{body}: {outcome:?}");
    }
    let sound = decode_by(&format!("echo '{}'; head -c 16 /dev/zero", head(4)), limits()).await;
    assert_eq!(sound.expect("a reply").waveform.samples, [0.0; 4]);
}

#[tokio::test]
async fn a_child_that_dies_costs_only_its_own_file() {
    for signal in ["ABRT", "SEGV", "KILL"] {
        let error = decode_by(&format!("kill -{signal} $$"), limits()).await.expect_err("it died");
        assert!(matches!(error, DecodeError::Crashed), "{signal}: {error:?}");
        assert_eq!(error.to_string(), "the decoder gave up on this file");
    }
}

#[tokio::test]
async fn what_is_our_fault_is_not_the_files() {
    let none = DecodePool::new("/nowhere/speechd".into(), limits()).decode(upload(b"x"), 16_000).await;
    assert!(matches!(none, Err(DecodeError::Worker(_))), "{none:?}");
    let arguments = decode_by("exit 2", limits()).await;
    assert!(matches!(arguments, Err(DecodeError::Worker(_))), "{arguments:?}");
}

/// The process id that a script wrote.
fn pid(path: &Path) -> Option<Pid> {
    fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok().and_then(Pid::from_raw)
}

#[tokio::test]
async fn a_dropped_future_kills_the_child_and_frees_its_place() {
    let folder = TempDir::new().expect("a directory");
    let file = folder.path().join("pid");
    let program = script(folder.path(), &format!("echo $$ > {}; exec sleep 1000", file.display()));
    let pool = DecodePool::new(program, Uploads { decode_children: 1, ..limits() });
    // With one place, the second starts only when the first has left.
    for _ in 0..2 {
        let _ = fs::remove_file(&file);
        let child = tokio::select! {
            outcome = pool.decode(upload(b"anything"), 16_000) => panic!("{outcome:?}"),
            child = until("the child starts", || pid(&file)) => child,
        };
        until("the child is gone", || test_kill_process(child).err()).await;
    }
}

#[tokio::test]
async fn no_more_children_than_places() {
    let folder = TempDir::new().expect("a directory");
    let log = folder.path().join("log");
    let body = format!("echo start >> {0}; sleep 0.1; echo end >> {0}", log.display());
    let pool =
        Arc::new(DecodePool::new(script(folder.path(), &body), Uploads { decode_children: 3, ..limits() }));
    let mut decodes = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let pool = Arc::clone(&pool);
        decodes.spawn(async move { pool.decode(upload(b"anything"), 16_000).await });
    }
    decodes.join_all().await;
    let mut running = 0_i32;
    let mut most = 0;
    for line in fs::read_to_string(&log).expect("a log").lines() {
        running += if line == "start" { 1 } else { -1 };
        most = most.max(running);
    }
    assert_eq!((running, most), (0, 3));
}

/// Recordings of hours are being decoded, and a clip comes.
#[tokio::test]
async fn a_clip_does_not_wait_for_recordings_of_hours() {
    let folder = TempDir::new().expect("a directory");
    let file = |name: &str| folder.path().join(name).display().to_string();
    // Each writes down how it was started; the long ones then wait for the clip to be done.
    let body = format!(
        "if [ $(wc -c) -gt 1000 ]; then echo \"$*\" >> {long}; while [ ! -e {clip} ]; do sleep 0.01; done; \
         else echo \"$*\" >> {clip}; fi; echo '{sound}'; head -c 16 /dev/zero",
        long = file("long"),
        clip = file("clip"),
        sound = head(4),
    );
    let limits = Uploads { small_upload_bytes: 1000, ..limits() };
    let pool = Arc::new(DecodePool::new(script(folder.path(), &body), limits));
    let of_size = |n_bytes: usize| {
        let (pool, mut upload) = (Arc::clone(&pool), upload(&vec![0; n_bytes]));
        upload.rewind().expect("a file");
        tokio::spawn(async move { pool.decode(upload, 16_000).await })
    };
    let long = [(); 4].map(|()| of_size(1001));
    let read = |name: &str| fs::read_to_string(file(name)).unwrap_or_default();
    until("both places are taken", || (read("long").lines().count() == 2).then_some(())).await;
    assert!(long.iter().all(|decode| !decode.is_finished()));
    let clip = of_size(1000);
    for decode in long.into_iter().chain([clip]) {
        decode.await.expect("no panic").expect("decoded");
    }
    let n_started = |name: &str, niceness: &str| read(name).matches(niceness).count();
    assert_eq!((n_started("clip", "--niceness=5"), n_started("long", "--niceness=10")), (1, 4));
}

#[tokio::test]
async fn a_child_sees_no_secrets() {
    let folder = TempDir::new().expect("a directory");
    let seen = folder.path().join("seen");
    let program = script(folder.path(), &format!("env > {}", seen.display()));
    let _ = DecodePool::new(program, limits()).decode(upload(b"anything"), 16_000).await;
    let seen = fs::read_to_string(seen).expect("an environment");
    // Cargo sets it for this process.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(!seen.contains("CARGO_MANIFEST_DIR") && !seen.contains("HOME="), "{seen}");
}

/// The worker by itself, its standard input a pipe.
fn worker() -> Command {
    let mut command = Command::new(SPEECHD);
    command.args(["decode-worker", "--sample-rate=16000", "--max-duration-secs=600", "--max-channels=8"]);
    command.args(["--max-samples-bytes=67108864", "--max-cpu-secs=59.5", "--max-memory-bytes=536870912"]);
    command.arg("--niceness=7");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Whether the last limit that the kernel shows is in force.
#[cfg(target_os = "linux")]
fn is_limited(pid: u32) -> bool {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    limits.lines().any(|line| line.split_whitespace().eq(["Max", "open", "files", "16", "16", "files"]))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_worker_limits_itself_before_it_reads() {
    let mut child = worker().spawn().expect("started");
    let of_process = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).expect("alive");
    // It waits for its input. The niceness is the last of its limits.
    let own = crate::support::niceness_of(&fs::read_to_string("/proc/self/stat").expect("alive"))
        .expect("a number");
    let goal = (own + 7).min(19);
    until("it is nicer", || crate::support::niceness_of(&of_process("stat")).filter(|nice| *nice == goal))
        .await;
    until("it is limited", || is_limited(child.id()).then_some(())).await;
    let limits = of_process("limits");
    for (name, values) in [
        ("Max cpu time", ["60", "61"]),
        ("Max file size", ["0", "0"]),
        ("Max core file size", ["0", "0"]),
        ("Max address space", ["536870912", "536870912"]),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).expect(name);
        assert!(line[name.len()..].split_whitespace().take(2).eq(values), "{line}");
    }
    child.stdin.take().expect("a pipe").write_all(&wav(1, 16_000, 8, &[0; 8])).expect("written");
    let mut reply = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut reply).expect("read");
    assert!(child.wait().expect("ended").success());
    let head = reply.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    let json: Value = serde_json::from_slice(&reply[..head]).expect("JSON");
    assert_eq!((&json["ok"]["n_samples"], &json["ok"]["source"]["format"]), (&4.into(), &"wave".into()));
    assert_eq!(reply[head..], [0; 16]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_worker_dies_with_its_parent() {
    let folder = TempDir::new().expect("a directory");
    let file = folder.path().join("pid");
    let program =
        script(folder.path(), &format!("exec 3<&0; \"$@\" <&3 & echo $! > {}; wait", file.display()));
    let worker = worker();
    let mut parent = Command::new(program)
        .arg(worker.get_program())
        .args(worker.get_args())
        .stdin(Stdio::piped())
        .spawn()
        .expect("started");
    let child = until("the worker starts", || pid(&file)).await.as_raw_nonzero().get();
    until("it is limited", || is_limited(child.unsigned_abs()).then_some(())).await;
    parent.kill().expect("killed");
    // What remains may be a name that nobody has buried. Its input is still open.
    let stat = || fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    until("the worker is gone", || (stat().is_empty() || stat().contains(") Z ")).then_some(())).await;
    drop(parent.stdin.take());
    parent.wait().expect("ended");
}

/// In a process of its own, whose memory no other test fills.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_parent_holds_no_more_than_the_samples() {
    const INNER: &str = "SPEECHD_TEST_HOLDS_NO_MORE";
    const SPARE_BYTES: u64 = 32 << 20;
    if std::env::var_os(INNER).is_none() {
        let inner = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "decode_worker::the_parent_holds_no_more_than_the_samples", "--nocapture"])
            .env(INNER, "1")
            .output()
            .expect("started");
        let stdout = String::from_utf8_lossy(&inner.stdout);
        println!("{}", stdout.lines().filter(|line| line.starts_with("held")).collect::<Vec<_>>().join("\n"));
        assert!(inner.status.success() && stdout.contains("held"), "{stdout}");
        return;
    }
    let peak_bytes = || {
        let status = fs::read_to_string("/proc/self/status").expect("alive");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak").to_owned();
        1024 * line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
    };
    let before = peak_bytes();
    let limits = limits();
    for (what, announced) in [("announced honestly", 9_600_000), ("announced without shame", u64::MAX)] {
        let body = format!("echo '{}'; exec cat /dev/zero", head(announced));
        let outcome = decode_by(&body, limits).await;
        assert!(matches!(outcome, Err(DecodeError::Crashed)), "{outcome:?}");
        println!("held {} bytes: more than was {what}", peak_bytes() - before);
    }
    // Just below ten minutes.
    let decoded = decode(limits, &flac_silence(16_000, 1, 599, false)).await.expect("silence");
    let samples_bytes = 4 * decoded.waveform.samples.len() as u64;
    let held = peak_bytes() - before;
    println!("held {held} bytes for {samples_bytes} bytes of samples");
    assert!(samples_bytes > 38_000_000 && held <= samples_bytes + SPARE_BYTES);
}
