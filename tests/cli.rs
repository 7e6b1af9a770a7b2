//! The program as a user runs it: exit codes, what goes where, and what errors say.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::{
    hub::bundle_files,
    loopback_hub::{Behaviour, ID, LoopbackHub},
    support::{fixture, json, reference_model},
};

/// The program without the settings of whoever runs the tests.
pub fn speechd(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_speechd"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["SPEECHD_", "HF_", "XDG_"].iter().any(|prefix| name.starts_with(prefix)) || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    // Where nothing else is asked for, tests compare what the processor computes.
    command.env("SPEECHD_TRANSCRIBE__DEVICE", "cpu");
    command.env("HOME", home).current_dir(home).env("NO_PROXY", "127.0.0.1").stdin(Stdio::null());
    command
}

pub fn home() -> TempDir {
    TempDir::new().expect("a directory")
}

pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("started");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

/// A trained checkpoint, where there is one, by a path that holds from any folder.
fn model() -> Option<PathBuf> {
    reference_model("micro-whisper-digits")?.canonicalize().ok()
}

/// A second of quiet 16-bit mono at 8 kHz.
fn wav() -> Vec<u8> {
    let samples = vec![0_u8; 16_000];
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + samples.len() as u32).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(8000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend((samples.len() as u32).to_le_bytes());
    wav.extend(samples);
    wav
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    fs::write(path, bytes).expect("written");
}

#[test]
fn help_is_an_answer_and_wrong_arguments_are_not() {
    let home = home();
    let (code, stdout, stderr) = run(speechd(home.path()).args(["transcribe", "--help"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in ["--word-timestamps", "--hotwords", "Examples:", "Exit code:"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    let (code, stdout, stderr) = run(speechd(home.path()).args(["translate", "--help"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in ["another language", "--to <CODE>", "--to-language", "--word-timestamps", "Examples:"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    let model = ["--model", "./none"];
    for (arguments, parts) in [
        (vec!["transcribe"], ["FILES", "required"]),
        #[cfg(not(feature = "bundled"))]
        (vec!["transcribe", "a.wav"], ["no model", "openai/whisper-base"]),
        (vec!["transcribe", "a.wav", "--frobnicate"], ["--frobnicate", "unexpected"]),
        (vec!["transcribe", "a.wav", "--format", "doc"], ["'doc'", "verbose_json"]),
        (vec!["transcribe", "a.wav", "--language", "klingon"], ["'klingon'", "pashto"]),
        (vec!["transcribe", "a.wav", "--temperature", "-1"], ["temperature: -1", "between 0 and 1"]),
        (vec!["transcribe", "a.wav", "--beam-size", "0"], ["beam_size: 0", "between 1 and 64"]),
        (vec!["transcribe", "a.wav", "--channel", "left"], ["'left'", "mix or a number"]),
        (vec!["transcribe", "a.wav", "b.wav", "--format", "srt"], ["--out DIR", ".srt"]),
        (vec!["transcribe", "a.wav", "--config", "none.toml"], ["none.toml", "no such configuration file"]),
        (vec!["translate", "a.wav", "--to", "klingon"], ["'klingon'", "pashto"]),
        (vec!["translate", "a.wav", "--task", "transcribe"], ["--task", "unexpected"]),
        (vec!["transcribe", "a.wav", "--to-language", "ps"], ["--to-language", "add --task translate"]),
        (vec!["models", "frobnicate"], ["frobnicate", "unrecognized"]),
    ] {
        let mut command = speechd(home.path());
        command.args(&arguments);
        if arguments[0].starts_with("trans") && arguments.len() > 2 {
            command.args(model);
        }
        let (code, stdout, stderr) = run(&mut command);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{arguments:?}: {stderr}");
    }
}

/// One path under two names.
#[test]
fn a_translation_is_the_same_by_either_command() {
    let home = home();
    write(&home.path().join("a.wav"), &wav());
    let translated = |arguments: &[&str]| {
        let mut command = speechd(home.path());
        command.args(arguments).args(["a.wav", "--format", "json", "--quiet", "--no-fallback"]);
        run(command.args(["--max-new-tokens", "8", "--language", "ps", "--model"]).arg(fixture("whisper-80")))
    };
    let (code, stdout, stderr) = translated(&["translate"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(translated(&["transcribe", "--task", "translate"]), (0, stdout.clone(), String::new()));
    assert_eq!(translated(&["translate", "--to", "English"]).1, stdout);
    let result: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(result["languages"][0]["code"], "en");
    for flag in ["--to", "--to-language"] {
        let (code, stdout, stderr) = translated(&["translate", flag, "ps"]);
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.contains("to_language: `ps`") && stderr.contains("into en only"), "{stderr}");
    }
}

#[test]
fn a_whisper_that_was_taught_another_language_translates_into_that_alone() {
    let home = home();
    write(&home.path().join("a.wav"), &wav());
    let taught = home.path().join("taught");
    for file in crate::bundles::FILES {
        write(&taught.join(file), &fs::read(fixture("whisper-80").join(file)).expect("a file"));
    }
    let path = taught.join("generation_config.json");
    let mut generation = json(&path).expect("JSON");
    generation["translation_languages"] = serde_json::json!(["ps"]);
    generation["source_languages"] = serde_json::json!(["en"]);
    write(&path, generation.to_string().as_bytes());

    let (code, stdout, stderr) = run(speechd(home.path()).args(["models", "inspect", "./taught"]));
    assert_eq!(code, 0, "{stderr}");
    let row = stdout.lines().find(|line| line.starts_with("translates into")).expect("a row");
    assert!(row.ends_with(" ps"), "{row}");
    let row = stdout.lines().find(|line| line.starts_with("understands")).expect("a row");
    assert!(row.ends_with(" en"), "{row}");
    let translate = |to: &[&str]| {
        let mut command = speechd(home.path());
        command.args(["translate", "a.wav", "--model", "./taught", "--language", "en", "--quiet"]);
        run(command.args(["--format", "verbose_json", "--no-fallback", "--max-new-tokens", "8"]).args(to))
    };
    let (code, stdout, stderr) = translate(&["--to", "Pashto"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let result: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&result["task"], &result["language"]), (&"translate".into(), &"pashto".into()));
    let (code, _, stderr) = translate(&[]);
    assert_eq!(code, 2);
    assert!(stderr.contains("to_language: `en`") && stderr.contains("into ps only"), "{stderr}");
}

/// Said once, and not for every recording.
#[test]
fn hotwords_that_the_model_has_no_room_for_are_wrong_arguments() {
    let home = home();
    write(&home.path().join("a.wav"), &wav());
    let mut command = speechd(home.path());
    command.args(["transcribe", "a.wav", "a.wav", "--hotwords", &"q".repeat(200), "--model"]);
    let (code, stdout, stderr) = run(command.arg(fixture("whisper-80")));
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("hotwords: 201 tokens are more than the 111"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn names_that_lead_nowhere_say_so() {
    let home = home();
    write(&home.path().join("a.wav"), &wav());
    for (model, part) in [
        ("./none", "model `./none`: no such directory"),
        ("whisper-base", "not a hub id"),
        ("a.wav", "is a file; give the directory"),
    ] {
        let (code, stdout, stderr) =
            run(speechd(home.path()).args(["transcribe", "a.wav", "--model", model]));
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(
            stderr.starts_with("error: ") && stderr.contains(part) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    let (code, stdout, stderr) = run(speechd(home.path()).args(["transcribe", "b.wav", "--model", "./none"]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert_eq!(stderr, "error: b.wav: no such file or directory\n");
}

#[test]
fn settings_come_from_file_then_environment_then_flags() {
    let home = home();
    let file = home.path().join(".config/speechd/speechd.toml");
    write(&file, b"[transcribe]\nbeams = 3\n");
    let (code, _, stderr) = run(speechd(home.path()).args(["transcribe", "a.wav", "--model", "x"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("speechd.toml") && stderr.contains("beams"), "{stderr}");

    write(&file, b"[transcribe]\nbeam_size = 2000\nmodel = \"./none\"\n");
    let beam_size = |command: &mut Command| {
        let (_, _, stderr) = run(command.args(["transcribe", "a.wav"]));
        stderr
    };
    assert!(beam_size(&mut speechd(home.path())).contains("beam_size: 2000"));
    let stderr = beam_size(speechd(home.path()).env("SPEECHD_TRANSCRIBE__BEAM_SIZE", "3000"));
    assert!(stderr.contains("beam_size: 3000"), "{stderr}");
    let mut command = speechd(home.path());
    command.env("SPEECHD_TRANSCRIBE__BEAM_SIZE", "3000").env("SPEECHD_DATA", "/elsewhere");
    command.args(["transcribe", "a.wav", "--beam-size", "4"]);
    assert_eq!(run(&mut command), (1, String::new(), "error: a.wav: no such file or directory\n".to_owned()));
    let stderr = beam_size(speechd(home.path()).env("SPEECHD_TRANSCRIBE__BEAMS", "1"));
    assert!(stderr.to_lowercase().contains("beams") && stderr.contains("SPEECHD_"), "{stderr}");
}

#[test]
fn models_are_pulled_listed_and_described() {
    let home = home();
    let server = LoopbackHub::start(bundle_files(), Behaviour::default());
    let online = |arguments: &[&str]| {
        let mut command = speechd(home.path());
        run(command
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HOME", home.path().join("hf"))
            .args(arguments))
    };
    let (code, stdout, stderr) = online(&["models", "pull", ID]);
    assert_eq!(code, 0, "{stderr}");
    let path = PathBuf::from(stdout.trim_end());
    assert!(path.starts_with(home.path().join("hf/hub/models--speech--micro/snapshots")), "{stdout}");
    assert!(path.join("model.safetensors").is_file());
    assert!(stderr.contains("fetching model.safetensors"), "{stderr}");

    let (code, stdout, stderr) = online(&["models", "list"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    // After what is part of the program.
    let row = stdout.lines().find(|line| line.starts_with(ID)).expect("a row");
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), [ID, "main", "whisper"]);
    let (_, stdout, _) = online(&["models", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    let ids = list.as_array().into_iter().flatten().map(|entry| &entry["id"]);
    assert_eq!(ids.filter(|id| *id == ID).count(), 1);

    let before = server.seen().len();
    let mut offline = speechd(home.path());
    offline.env("HF_HOME", home.path().join("hf")).env("HF_HUB_OFFLINE", "1");
    let (code, stdout, stderr) = run(offline.args(["models", "inspect", ID, "--json"]));
    assert_eq!(code, 0, "{stderr}");
    let summary: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&summary["architecture"], &summary["languages"][6]), (&"whisper".into(), &"ps".into()));
    assert_eq!(server.seen().len(), before);
    let (code, stdout, stderr) = run(offline.args(["models", "inspect", "speech/other"]));
    assert_eq!((code, stdout.as_str()), (2, ""), "two models are too many: {stderr}");
    let (code, _, stderr) = run(speechd(home.path()).env("HF_HUB_OFFLINE", "1").args(["models", "pull", ID]));
    assert_eq!(code, 1);
    assert!(stderr.contains("HF_HUB_OFFLINE") && stderr.contains(".cache/huggingface/hub"), "{stderr}");
}

#[test]
fn a_checkpoint_is_described() {
    let Some(model) = model() else { return };
    let home = home();
    let (code, stdout, stderr) = run(speechd(home.path()).args(["models", "inspect"]).arg(&model));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in ["whisper", "51866", "128 mel bands at 16000 Hz", "model.safetensors", "sha256:"] {
        assert!(stdout.contains(part), "{stdout}");
    }
}

#[test]
fn one_bad_recording_does_not_stop_the_others() {
    let Some(model) = model() else { return };
    let home = home();
    for file in ["a.wav", "d/b.wav", "d/e/b.wav"] {
        write(&home.path().join(file), &wav());
    }
    write(&home.path().join("bad.wav"), b"this is no recording");
    let transcribe = |arguments: &[&str]| {
        let mut command = speechd(home.path());
        run(command.arg("transcribe").args(arguments).arg("--no-fallback").arg("--model").arg(&model))
    };
    let (code, stdout, stderr) = transcribe(&["bad.wav", "a.wav", "none.wav", "--format", "json"]);
    assert_eq!(code, 1, "{stderr}");
    let lines: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("JSON alone")).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["file"], "a.wav");
    for part in ["error: bad.wav: ", "error: none.wav: ", "error: 2 of 3 failed", "x real time"] {
        assert!(stderr.contains(part), "{stderr}");
    }

    let (code, stdout, _) = transcribe(&["a.wav", "d", "--quiet"]);
    assert_eq!(code, 0);
    let names: Vec<_> = stdout.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(names, ["a.wav", "d/b.wav", "d/e/b.wav"]);

    let (code, stdout, stderr) = transcribe(&["a.wav", "d", "--format", "vtt", "--out", "out", "--quiet"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    for file in ["a.vtt", "b.vtt", "e/b.vtt"] {
        let vtt = fs::read_to_string(home.path().join("out").join(file)).expect(file);
        assert!(vtt.starts_with("WEBVTT\n"), "{vtt}");
    }
    let mut left: Vec<_> =
        fs::read_dir(home.path().join("out")).expect("out").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.vtt", "b.vtt", "e"], "nothing half-written is left");

    let (code, _, stderr) = transcribe(&["a.wav", "--language", "xx"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("`xx`") && stderr.contains(" ps,"), "{stderr}");
}

#[test]
fn the_standard_input_is_a_recording_and_a_closed_output_is_no_error() {
    let Some(model) = model() else { return };
    let home = home();
    let start = |stdout: Stdio| {
        let mut command = speechd(home.path());
        command.args(["transcribe", "-", "--format", "verbose_json", "--quiet", "--model"]).arg(&model);
        command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().expect("started")
    };
    let mut child = start(Stdio::piped());
    child.stdin.take().expect("a pipe").write_all(&wav()).expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let transcript: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert_eq!((&transcript["task"], &transcript["duration"]), (&"transcribe".into(), &1.0.into()));

    let mut child = start(Stdio::piped());
    drop(child.stdout.take());
    child.stdin.take().expect("a pipe").write_all(&wav()).expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let (code, _, stderr) = run(speechd(home.path()).args(["transcribe", "-", "--model"]).arg(&model));
    assert_eq!(code, 1);
    assert!(stderr.contains("error: -: the standard input is empty"), "{stderr}");
}

#[test]
fn a_mistyped_path_says_that_there_is_no_such_directory() {
    let home = home();
    let mut command = speechd(home.path());
    command.env("HF_HUB_OFFLINE", "1").env("SPEECHD_TRANSCRIBE__PROMPT", "1984");
    let (code, stdout, stderr) = run(command.args(["transcribe", "a.wav", "--model", "models/my-whisper"]));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    // The prompt is text although it looks like a number.
    assert!(!stderr.contains("prompt"), "{stderr}");
    assert!(stderr.contains("a.wav: no such file"), "{stderr}");

    fs::write(home.path().join("a.wav"), wav()).expect("written");
    let (code, _, stderr) = run(&mut command);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("there is no directory `models/my-whisper` here"), "{stderr}");
}
