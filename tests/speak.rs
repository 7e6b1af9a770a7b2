//! `speechd speak` as a user runs it, and what `models inspect` says of a model that speaks.

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
};

use audio::{DecodeAudio, decode_file};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cli::{home, run, speechd},
    support::{fixture, json, write_speaker},
    transcriptions::noise,
};

/// A home with a model that speaks in it: `voice`.
fn home_with_model() -> TempDir {
    let home = home();
    write_speaker(&home.path().join("voice")).expect("a model");
    home
}

#[test]
fn a_text_becomes_a_file_of_the_format_that_its_name_says() {
    let home = home_with_model();
    fs::write(home.path().join("text.txt"), "Good morning.\nAnd a good night.").expect("written");
    for name in ["a.wav", "a.mp3", "a.opus", "a.flac"] {
        let (code, stdout, stderr) =
            run(speechd(home.path()).args(["speak", "-f", "text.txt", "-o", name, "--model", "./voice"]));
        assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
        assert!(stderr.contains("x real time, first sound after"), "{stderr}");
        let decoded = decode_file(&home.path().join(name), &DecodeAudio::default()).expect("sound");
        assert!(decoded.warnings.is_empty() && decoded.waveform.duration_secs() > 0.3, "{name}");
    }
    let speak = |more: &[&str]| {
        let base = ["speak", "Good", "morning.", "--model", "./voice", "--quiet", "-o", "b.wav"];
        run(speechd(home.path()).args(base).args(more))
    };
    assert_eq!(speak(&[]), (0, String::new(), String::new()));
    let first = fs::read(home.path().join("b.wav")).expect("a file");
    let (code, _, stderr) = speak(&[]);
    assert!(code == 2 && stderr.contains("b.wav is there already") && stderr.contains("--force"), "{stderr}");
    assert_eq!(speak(&["--force", "--speed", "2", "--voice", "ben", "--seed", "7"]).0, 0);
    assert!(fs::read(home.path().join("b.wav")).expect("a file").len() < first.len(), "twice as fast");
}

/// What the model says of a text that comes through a pipe.
fn say(home: &TempDir, args: &[&str]) -> Output {
    let mut command = speechd(home.path());
    command.arg("speak").args(args).args(["--model", "./voice", "--quiet"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    child.stdin.take().expect("open").write_all(b"Good morning.").expect("written");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn speech_goes_to_the_standard_output_while_it_is_made() {
    let output = say(&home_with_model(), &["-", "-o", "-", "--format", "wav"]);
    assert!(output.stdout.starts_with(b"RIFF\xff\xff\xff\xff") && output.stdout.len() > 1_000);
}

#[test]
#[cfg(unix)]
fn a_file_states_its_length_and_a_text_may_come_through_any_pipe() {
    let home = home_with_model();
    assert!(say(&home, &["-f", "/dev/stdin", "-o", "a.wav"]).stdout.is_empty());
    let bytes = fs::read(home.path().join("a.wav")).expect("a file");
    assert_eq!(bytes[40..44], ((bytes.len() - 44) as u32).to_le_bytes());
    assert_eq!(bytes[44..], say(&home, &["-", "-o", "-", "--format", "wav"]).stdout[44..]);
    let names = fs::read_dir(home.path()).expect("a folder").map(|file| file.expect("a file").file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn voices_are_listed_chosen_and_taken_from_recordings() {
    let home = home_with_model();
    let listed = run(speechd(home.path()).args(["speak", "--list-voices", "--model", "./voice"]));
    assert_eq!(listed, (0, "anna\nben\n".to_owned(), String::new()));
    for (flag, value) in [
        ("--voice", "ben"),
        ("--voice-sample", "me.wav"),
        ("-o", "a.wav"),
        ("--language", "ps"),
        ("--speed", "2"),
    ] {
        let list = ["speak", "--list-voices", "--model", "./voice", flag, value];
        let (code, _, stderr) = run(speechd(home.path()).args(list));
        assert!(code == 2 && stderr.contains("cannot be used with"), "{flag}: {stderr}");
    }
    fs::write(home.path().join("me.wav"), noise(2.0, 1)).expect("written");
    fs::write(home.path().join("short.wav"), noise(0.2, 1)).expect("written");
    let speak = |more: &[&str]| {
        let base = ["speak", "Hello.", "--model", "./voice", "--quiet", "--force", "-o", "a.wav"];
        run(speechd(home.path()).args(base).args(more))
    };
    assert_eq!(speak(&["--voice-sample", "me.wav", "--language", "Pashto", "--steps", "4"]).0, 0);
    for (more, code, part) in [
        (&["--voice", "carl"][..], 2, "anna, ben"),
        (&["--voice-sample", "short.wav"], 1, "short.wav"),
        (&["--voice-sample", "none.wav"], 1, "none.wav"),
        (&["--voice", "ben", "--voice-sample", "me.wav"], 2, "cannot be used with"),
        (&["--language", "de"], 2, "--language"),
        (&["--speed", "9"], 2, "speed"),
        (&["--temperature", "-1"], 2, "temperature"),
    ] {
        let (found, _, stderr) = speak(more);
        assert!(found == code && stderr.contains(part), "{more:?}: {found}, {stderr}");
    }
}

#[test]
fn what_cannot_be_spoken_says_what_to_do() {
    let home = home_with_model();
    let hears = fixture("whisper-80").canonicalize().expect("a path");
    let hears = hears.to_str().expect("UTF-8");
    fs::write(home.path().join("latin.txt"), b"caf\xe9").expect("written");
    let vocoder = home.path().join("vocoder");
    fs::create_dir(&vocoder).expect("made");
    fs::write(vocoder.join("config.json"), r#"{"model_type": "vocos"}"#).expect("written");
    for (args, code, part) in [
        (&["speak", "-o", "a.wav"][..], 2, "required"),
        (&["speak", "Hello."], 2, "--out"),
        (&["speak", "Hello.", "-o", "a.txt", "--model", "./voice"], 2, ".wav"),
        (&["speak", "Hello.", "-o", "-", "--model", "./voice"], 2, "--format"),
        (&["speak", "Hello.", "-o", "-", "--format", "wav", "--force", "--model", "./voice"], 2, "--force"),
        (&["speak", "-f", "/dev/zero", "-o", "a.wav", "--model", "./voice"], 1, "16777216 bytes that a text"),
        (&["speak", "...", "-o", "a.wav", "--model", "./voice"], 2, "the text:"),
        (&["speak", "-f", "none.txt", "-o", "a.wav", "--model", "./voice"], 1, "none.txt"),
        (&["speak", "-f", "latin.txt", "-o", "a.wav", "--model", "./voice"], 2, "UTF-8"),
        (&["speak", "Hello.", "-o", "a.wav", "--model", hears], 2, "speechd transcribe"),
        (&["speak", "Hello.", "-o", "a.wav", "--model", "./vocoder"], 2, "vocoder alone"),
        (&["models", "inspect", "./vocoder"], 1, "vocoder alone"),
    ] {
        let (found, stdout, stderr) = run(speechd(home.path()).args(args));
        assert!(found == code && stdout.is_empty() && stderr.contains(part), "{args:?}: {found}, {stderr}");
        assert!(!home.path().join("a.wav").exists(), "{args:?}");
    }
    if models::bundled_speaker().is_none() {
        let (code, _, stderr) = run(speechd(home.path()).args(["speak", "Hello.", "-o", "a.wav"]));
        assert!(code == 2 && stderr.contains("--model") && stderr.contains("[speak]"), "{stderr}");
    }
}

#[test]
fn a_model_that_speaks_is_described_by_its_voices() {
    let home = home_with_model();
    let (code, stdout, stderr) = run(speechd(home.path()).args(["models", "inspect", "./voice"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in
        ["architecture", "flow_lm", "parameters", "speaks", "2: en ps", "voices", "2: anna ben", "16000 Hz"]
    {
        assert!(stdout.contains(part), "{part} is not in\n{stdout}");
    }
    let (_, stdout, _) = run(speechd(home.path()).args(["models", "inspect", "./voice", "--json"]));
    let path = home.path().join("inspected.json");
    fs::write(&path, stdout).expect("written");
    let summary = json(&path).expect("JSON");
    assert_eq!(summary["voices"], serde_json::json!(["anna", "ben"]));
    let files: Vec<_> =
        summary["files"].as_array().expect("a list").iter().map(|file| &file["name"]).collect();
    assert_eq!(files, ["config.json", "model.safetensors", "voice-anna.flac", "voice-ben.flac"]);
}

#[test]
fn speaking_is_timed_for_every_number_of_texts_and_steps() {
    let home = home_with_model();
    fs::write(home.path().join("texts.txt"), "yes\n\nno\n so it is \n").expect("written");
    let bench = |more: &[&str]| {
        let base = ["bench", "speak", "--model", "./voice", "--text-file", "texts.txt", "--quiet"];
        run(speechd(home.path()).args(base).args(more))
    };
    let (code, stdout, stderr) =
        bench(&["--batch", "1,2", "--steps", "1,2", "--repeats", "2", "--language", "Pashto", "--json"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (&report["precision"], &report["n_texts"], &report["voice"]),
        (&"f32".into(), &3.into(), &"anna".into())
    );
    assert_eq!(report["max_batch_rows"], 16);
    let config = json(&home.path().join("voice/config.json")).expect("JSON");
    let has_vocoder = !config["vocoder"].is_null();
    assert_eq!(report["has_vocoder"], has_vocoder);
    let number = |cell: &Value, key: &str| cell[key].as_f64().expect("a number");
    let cells = report["cells"].as_array().expect("cells");
    let shapes: Vec<_> =
        cells.iter().map(|cell| ["batch", "steps", "n_spoken"].map(|key| number(cell, key))).collect();
    assert_eq!(shapes, [[1.0, 1.0, 3.0], [1.0, 2.0, 3.0], [2.0, 1.0, 4.0], [2.0, 2.0, 4.0]]);
    assert_eq!(number(&cells[0], "beside_first"), 1.0);
    for cell in cells {
        assert!(number(cell, "times_real_time") > 0.0 && number(cell, "secs") > 0.0, "{cell}");
        assert!(number(cell, "first_sound_secs") <= number(cell, "first_sound_p95_secs"), "{cell}");
    }
    let (code, stdout, stderr) = bench(&["--repeats", "1", "--batch", "3"]);
    assert_eq!(code, 0, "{stderr}");
    for part in [
        "in f32",
        "in the voice anna, at most 16 clauses computed together",
        "X REAL TIME",
        "FIRST SOUND",
        "peak memory",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert_eq!(stdout.contains("the model has no vocoder"), !has_vocoder);
    for (more, part) in [(&["--language", "de"][..], "not `de`"), (&["--steps", "65"], "1..=64")] {
        let (code, _, stderr) = bench(more);
        assert!(code == 2 && stderr.contains(part), "{more:?}: {stderr}");
    }
}
