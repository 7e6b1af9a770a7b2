//! `speechd data` as a user runs it: a corpus becomes manifests, whose contents and faults are told.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cli::{home, run, speechd},
    support,
};

/// Half a second of a tone, told from others by its pitch.
fn wav(pitch: f32) -> Vec<u8> {
    let samples = (0..4_000).map(|index| (index as f32 * pitch).sin() * 0.5).collect();
    audio::encode::wav_bytes(&audio::Waveform { samples, sample_rate: 8_000 }).expect("a WAV")
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    fs::write(path, bytes).expect("written");
}

/// Recordings of ten speakers with their texts in a table, one of them missing and one without its text.
fn corpus(home: &TempDir) -> PathBuf {
    let folder = home.path().join("corpus");
    let mut table = "file_name,transcription,speaker\n".to_owned();
    for index in 0..40 {
        write(&folder.join(format!("{index}.wav")), wav(0.1 + index as f32 * 0.01));
        table += &format!("{index}.wav,دا جمله {index},s{}\n", index % 10);
    }
    table += "none.wav,gone,s1\n0.wav,,s1\n";
    write(&folder.join("metadata.csv"), table);
    folder
}

fn data(home: &TempDir, arguments: &[&str]) -> (i32, String, String) {
    run(speechd(home.path()).arg("data").args(arguments))
}

#[test]
fn a_corpus_becomes_manifests_that_are_described_and_checked() {
    let home = home();
    corpus(&home);
    let import = [
        "import",
        "corpus",
        "--out",
        "data",
        "--language",
        "ps",
        "--split-dev",
        "0.1",
        "--split-test",
        "0.2",
    ];
    let (code, stdout, stderr) = data(&home, &import);
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<_> = stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["SPLIT", "CUTS", "HOURS", "SPEAKERS", "LANGUAGES", "MANIFEST"]);
    assert_eq!(lines[1], ["train", "28", "0.004", "7", "ps", "data/train.jsonl"]);
    assert_eq!(lines[2], ["dev", "4", "0.001", "1", "ps", "data/dev.jsonl"]);
    assert_eq!(lines[3], ["test", "8", "0.001", "2", "ps", "data/test.jsonl"]);
    assert_eq!(lines[4], ["all", "40", "0.006", "10", "ps"]);
    for part in [
        "empty text",
        "missing recording",
        "all of them: data/rejected.tsv",
        "corpus/metadata.csv:43: `text` is empty",
    ] {
        assert!(stdout.contains(part), "{stdout}");
    }
    for part in ["corpus: audiofolder", "No dev set: 4 cuts of speakers of their own"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    let rejected = fs::read_to_string(home.path().join("data/rejected.tsv")).expect("listed");
    assert_eq!(rejected.lines().count(), 3, "{rejected}");
    let manifest = fs::read_to_string(home.path().join("data/train.jsonl")).expect("written");
    assert!(manifest.contains("\"audio_filepath\":\"../corpus/"), "{manifest}");

    let (code, _, stderr) = data(&home, &import);
    assert_eq!(code, 1);
    assert!(stderr.contains("data/train.jsonl: is there already; --overwrite"), "{stderr}");
    let (code, _, stderr) = data(&home, &[&import[..], &["--overwrite", "--quiet"]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""));

    let (code, stdout, stderr) = data(&home, &["stats", "data", "--svg", "plots"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in ["data/train.jsonl", "DURATION, SECS", "█", "LANGUAGE", "ps", "SPEAKER", "CHARS PER SEC"] {
        assert!(stdout.to_uppercase().contains(&part.to_uppercase()), "{part}: {stdout}");
    }
    for plot in ["duration", "chars", "chars_per_sec"] {
        let svg = fs::read_to_string(home.path().join(format!("plots/{plot}.svg"))).expect(plot);
        assert!(svg.starts_with("<svg") && svg.contains("40 cuts"), "{svg}");
    }
    let (_, stdout, _) = data(&home, &["stats", "data", "--tokenizer", "bytes", "--json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON alone");
    assert_eq!((&json["total"]["n_cuts"], &json["durations_secs"]["p50"]), (&40.into(), &0.5.into()));
    assert_eq!((&json["unit"], &json["languages"][0]["name"]), (&"bytes".into(), &"ps".into()));

    let (code, stdout, stderr) = data(&home, &["check", "data"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert_eq!(stdout, "40 cuts, 0.006 hours in 3 manifests: 0 errors, 0 warnings\n");
}

#[test]
fn recordings_with_texts_beside_are_imported_by_any_path() {
    let home = home();
    for (index, name) in ["a", "sub/b"].iter().enumerate() {
        write(&home.path().join(format!("corpus/{name}.wav")), wav(0.1 + index as f32 * 0.1));
        write(&home.path().join(format!("corpus/{name}.txt")), format!("text {name}"));
    }
    let whole = home.path().join("corpus").to_string_lossy().into_owned();
    let import = |folder: &str, corpus: &str, out: &str| {
        let arguments = ["data", "import", corpus, "--out", out, "--split-dev", "0", "--split-test", "0"];
        let (code, _, stderr) =
            run(speechd(home.path()).current_dir(home.path().join(folder)).args(arguments));
        assert_eq!(code, 0, "{corpus}: {stderr}");
        fs::read_to_string(home.path().join(folder).join(out).join("train.jsonl")).expect("written")
    };
    let expected = "{\"id\":\"a\",\"audio_filepath\":\"../corpus/a.wav\",\"duration\":0.5,\"text\":\"text a\"}\n\
        {\"id\":\"sub/b\",\"audio_filepath\":\"../corpus/sub/b.wav\",\"duration\":0.5,\"text\":\"text sub/b\"}\n";
    for (folder, corpus, out) in
        [("", "corpus", "1"), ("", "./corpus/", "2"), ("corpus", ".", "../3"), ("", whole.as_str(), "4")]
    {
        assert_eq!(import(folder, corpus, out), expected, "{corpus}");
    }
}

#[test]
fn texts_without_recordings_become_manifests_too() {
    let home = home();
    let line = |index: usize| format!("text {index}\n");
    write(&home.path().join("opus/train.en"), (0..20).map(line).collect::<String>());
    write(&home.path().join("opus/train.ps"), "جمله\n".repeat(19) + "\n");
    let import = ["import", "opus", "--out", "data", "--language", "en", "--split-dev", "0.1"];
    let (code, stdout, stderr) = data(&home, &import);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("opus: parallel_text"), "{stderr}");
    let rows: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(
        rows[1..4],
        [["train", "16", "0.000"], ["dev", "2", "0.000"], ["test", "1", "0.000"]],
        "{stdout}"
    );
    assert!(stdout.contains("train.en:20: `translation` is empty"), "{stdout}");
    let manifest = fs::read_to_string(home.path().join("data/train.jsonl")).expect("written");
    assert!(!manifest.contains("audio_filepath") && !manifest.contains("duration"), "{manifest}");

    let (code, stdout, stderr) = data(&home, &["stats", "data", "--svg", "plots"]);
    assert_eq!((code, stderr.as_str()), (0, "19 of 19 cuts are texts without a recording.\n"), "{stdout}");
    assert!(stdout.contains("CHARS") && !stdout.contains("DURATION, SECS"), "{stdout}");
    assert!(
        home.path().join("plots/chars.svg").is_file() && !home.path().join("plots/duration.svg").exists()
    );
    let (code, stdout, stderr) = data(&home, &["check", "data"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert_eq!(stdout, "19 cuts, 0.000 hours in 3 manifests: 0 errors, 0 warnings\n");
    // There are no batches of seconds without seconds.
    let (code, stdout, stderr) = data(&home, &["plan", "data/train.jsonl"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("none of its 16 rows") && stderr.contains("no `audio_filepath`"), "{stderr}");

    write(&home.path().join("opus/train.ps"), "جمله\n");
    let (code, _, stderr) = data(&home, &[&import[..], &["--overwrite"]].concat());
    assert_eq!(code, 1);
    assert!(stderr.contains("opus/train.en: has 20 lines") && stderr.contains("has 1"), "{stderr}");
}

#[test]
fn a_manifest_without_cuts_is_told() {
    let home = home();
    write(&home.path().join("data/train.jsonl"), "");
    let (code, stdout, stderr) = data(&home, &["check", "data"]);
    assert_eq!((code, stderr.as_str()), (1, ""));
    assert_eq!(
        stdout,
        "error: 1 manifests without cuts\n  data/train.jsonl: has no rows\n\
         0 cuts, 0.000 hours in 1 manifest: 1 error, 0 warnings\n"
    );
    let (code, stdout, stderr) = data(&home, &["stats", "data", "--svg", "plots"]);
    assert_eq!((code, stderr.as_str()), (0, "warning: no cuts, so nothing was drawn\n"));
    assert!(stdout.contains("data/train.jsonl"), "{stdout}");
    assert!(!home.path().join("plots").exists());
}

#[test]
fn what_is_wrong_is_told_with_the_exit_code() {
    let home = home();
    let folder = corpus(&home);
    let (code, _, stderr) =
        data(&home, &["import", "corpus", "--out", "data", "--split-dev", "0", "--split-test", "0"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("no language; --language"), "{stderr}");
    write(&folder.join("3.wav"), &wav(0.1)[..4_000]);
    write(&folder.join("4.wav"), wav(0.15));
    let test = home.path().join("data/test.jsonl");
    write(
        &test,
        "{\"audio_filepath\": \"../corpus/5.wav\", \"duration\": 0.5, \"text\": \"دا جمله 5\", \"speaker\": \"s5\"}\n",
    );
    let (code, stdout, stderr) = data(&home, &["check", "data", "--examples", "1"]);
    assert_eq!((code, stderr.as_str()), (1, ""), "{stdout}");
    for part in [
        "error: 1 recordings that end early or are damaged\n  data/train.jsonl:",
        "error: 1 cuts beyond the end of their recording\n",
        "error: 2 the same sound with different texts\n",
        "\"دا جمله 5\" here, \"دا جمله 4\" there",
        "error: 1 the same sound in several splits\n  data/test.jsonl:1: ../corpus/5: as ",
        "warning: 1 speakers in several splits\n",
        "warning: 1 texts in several splits\n",
        "41 cuts, 0.006 hours in 2 manifests: 5 errors, 2 warnings\n",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let (code, stdout, _) = data(&home, &["check", "data", "--json"]);
    assert_eq!(code, 1);
    let json: Value = serde_json::from_str(&stdout).expect("JSON alone");
    assert_eq!((&json["n_errors"], &json["groups"][0]["kind"]), (&5.into(), &"damaged_audio".into()));

    let (code, _, _) = data(&home, &["check", "data", "--no-audio"]);
    assert_eq!(code, 0, "speakers and texts are warnings");
    let (code, _, _) = data(&home, &["check", "data", "--no-audio", "--strict"]);
    assert_eq!(code, 1);
}

#[test]
fn wrong_arguments_name_the_thing_and_the_next_step() {
    let home = home();
    write(&home.path().join("empty/notes.md"), "x");
    write(&home.path().join("bad.jsonl"), "[\n{\n");
    write(&home.path().join("file"), "");
    for (arguments, code, parts) in [
        (
            vec!["import", "fsdd", "--out", "o"],
            1,
            vec!["corpus fsdd", "set SPEECHD_DATA", "git clone https://"],
        ),
        (vec!["import", "nowhere", "--out", "o"], 1, vec!["nowhere: no such folder", "common_voice"]),
        (
            vec!["import", "empty", "--out", "o"],
            1,
            vec!["empty: in none of the layouts", "ljspeech", "clips/"],
        ),
        (
            vec!["import", "bad.jsonl", "--out", "o"],
            1,
            vec!["none of its 2 rows", "bad.jsonl:1: not JSON: a list"],
        ),
        (vec!["import", "empty", "--out", "file"], 2, vec!["--out file: is a file"]),
        (vec!["import", "empty", "--out", "o", "--split-dev", "0.9"], 2, vec!["--split-dev", "0 to 0.5"]),
        (vec!["synthesize", "digits-en", "--out", "o", "--clips", "19"], 2, vec!["--clips", "20 to 1000000"]),
        (
            vec!["synthesize", "digits-en", "--out", "o", "--clips", "18446744073709551615"],
            2,
            vec!["--clips", "20 to 1000000"],
        ),
        // Before the manifest is looked at.
        (vec!["plan", "none.jsonl", "--memory-gb", "1"], 2, vec!["--memory-gb", "--tokenizer MODEL"]),
        (vec!["stats", "none.jsonl"], 1, vec!["none.jsonl: no such file"]),
        (vec!["stats", "empty"], 2, vec!["holds no manifests", "speechd data import CORPUS --out empty"]),
        (vec!["check", "bad.jsonl"], 1, vec!["none of its 2 rows"]),
        (vec!["stats"], 2, vec!["MANIFESTS"]),
    ] {
        let (found, stdout, stderr) = data(&home, &arguments);
        assert_eq!((found, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{arguments:?}: {part}: {stderr}");
        }
    }
    assert!(!home.path().join("o").exists(), "nothing is written for what cannot be read");
    let (code, stdout, _) = data(&home, &["import", "--help"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("Examples:") && stdout.contains("ljspeech"), "{stdout}");
}

#[test]
fn batches_are_planned_and_compared() {
    let home = home();
    let row = |index: usize| {
        let (secs, lang) =
            (1.0 + (index * 37 % 100) as f32 / 10.0, if index.is_multiple_of(4) { "en" } else { "ps" });
        let text = "\u{62f}".repeat(8 + index * 13 % 41);
        format!(
            "{{\"audio_filepath\": \"{index}.wav\", \"duration\": {secs}, \"lang\": \"{lang}\", \"text\": \"{text}\"}}\n"
        )
    };
    write(&home.path().join("train.jsonl"), (0..300).map(row).collect::<String>() + "{\n");
    let plan = [
        "plan",
        "train.jsonl",
        "--duration-buckets",
        "4",
        "--token-buckets",
        "2",
        "--batch-secs",
        "40",
        "--max-secs",
        "9.95",
        "--compare",
    ];
    let (code, stdout, stderr) = data(&home, &[&plan[..], &["--svg", "plots"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("warning: 1 rows cannot be used; the first: train.jsonl:301: not JSON"),
        "{stderr}"
    );
    for part in [
        "300 cuts, 0.496 hours",
        "texts in chars",
        "batch size",
        "too long 24",
        "epoch 0: ",
        "random",
        "2-D buckets",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let svg = fs::read_to_string(home.path().join("plots/padding.svg")).expect("drawn");
    assert!(svg.starts_with("<svg") && svg.contains("1-D buckets"), "{svg}");

    let (_, stdout, _) = data(&home, &[&plan[..], &["--json", "--tokenizer", "bytes", "--quiet"]].concat());
    let json: Value = serde_json::from_str(&stdout).expect("JSON alone");
    let buckets = json["plan"]["buckets"].as_array().expect("buckets");
    let n_items: u64 = buckets.iter().filter_map(|bucket| bucket["padding"]["n_items"].as_u64()).sum();
    let by_language = &json["plan"]["epoch"]["admission"]["by_language"];
    assert_eq!((&json["unit"], n_items), (&"bytes".into(), 270), "{json}");
    assert_eq!(by_language["ps"]["n_rejected"]["too_long"], 24, "{by_language}");
    // Two bytes a letter, none of which is in a bucket of fewer.
    assert!(
        buckets.iter().all(|bucket| bucket["bounds"]["max_tokens"].as_u64().is_some_and(|most| most >= 16))
    );
    let padding = |at: usize| {
        let sums = &json["comparison"]["rows"][at]["padding"];
        1.0 - sums["duration_secs"].as_f64().expect("a sum") / sums["padded_secs"].as_f64().expect("a sum")
    };
    assert!(padding(1) < padding(2) && padding(2) < 0.5 * padding(0), "{json}");

    let model = support::fixture("whisper-80").to_string_lossy().into_owned();
    let sized = |memory_gb: &str| -> Value {
        let arguments = [
            &["plan", "train.jsonl", "--duration-buckets", "4", "--token-buckets", "2", "--json"],
            &["--memory-gb", memory_gb, "--tokenizer", &model][..],
        ];
        let (code, stdout, stderr) = data(&home, &arguments.concat());
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).expect("JSON alone")
    };
    let (small, large) = (sized("0.05"), sized("0.1"));
    let sizes = |json: &Value| -> Vec<u64> {
        let buckets = json["plan"]["buckets"].as_array().expect("buckets");
        buckets.iter().map(|bucket| bucket["batch_size"].as_u64().expect("a size")).collect()
    };
    assert_eq!(sizes(&small).len(), 8, "{small}");
    assert!(
        sizes(&small).iter().zip(sizes(&large)).all(|(small, large)| *small >= 1 && large > *small),
        "{small}"
    );

    for (arguments, code, parts) in [
        (vec!["--memory-gb", "1"], 2, vec!["--memory-gb", "--tokenizer MODEL"]),
        (vec!["--memory-gb", "0.0001", "--tokenizer", &model], 1, vec!["not even one item"]),
        (vec!["--batch-secs", "0"], 2, vec!["--batch-secs", "above 0"]),
        (vec!["--min-secs", "5", "--max-secs", "3"], 2, vec!["min_duration_secs = 5", "3"]),
        (vec!["--svg", "plots"], 2, vec!["--compare"]),
        (vec!["--min-secs", "100"], 1, vec!["none of 300 items", "--duration-buckets"]),
        (vec!["--duration-buckets", "1000"], 1, vec!["there are only 300 items", "--duration-buckets"]),
    ] {
        let (found, stdout, stderr) = data(&home, &[&["plan", "train.jsonl"], &arguments[..]].concat());
        assert_eq!((found, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{arguments:?}: {stderr}");
    }
}

#[test]
fn corpora_are_named_below_speechd_data() {
    let Some(folder) = support::data("speech/fsdd") else { return };
    let Some(root) = folder.canonicalize().ok().and_then(|path| Some(path.parent()?.parent()?.to_owned()))
    else {
        return;
    };
    let home = home();
    let named =
        |arguments: &[&str]| run(speechd(home.path()).env("SPEECHD_DATA", &root).arg("data").args(arguments));
    let (code, stdout, stderr) = named(&["import", "fsdd", "--out", "data"]);
    assert_eq!(code, 0, "{stderr}");
    let counts = |stdout: &str| -> Vec<(String, String)> {
        let row = |line: &str| {
            let mut words = line.split_whitespace().map(str::to_owned);
            words.next().zip(words.next())
        };
        stdout.lines().skip(1).filter_map(row).collect()
    };
    let expected = |rows: &[(&str, &str)]| -> Vec<(String, String)> {
        rows.iter().map(|(split, n_cuts)| ((*split).to_owned(), (*n_cuts).to_owned())).collect()
    };
    let whole = [("train", "2150"), ("dev", "100"), ("test", "250"), ("all", "2500")];
    assert_eq!(counts(&stdout), expected(&whole), "{stdout}");
    let (code, stdout, stderr) = named(&["import", "fsdd", "--out", "theo", "--leave-out-speaker", "theo"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("200 recordings of other speakers in the test set were left out"), "{stderr}");
    let without = [("train", "1720"), ("dev", "80"), ("test", "500"), ("all", "2300")];
    assert_eq!(counts(&stdout), expected(&without), "{stdout}");
    let test = fs::read_to_string(home.path().join("theo/test.jsonl")).expect("written");
    assert!(test.lines().all(|line| line.contains("\"speaker\":\"theo\"")));
    let (code, _, stderr) = named(&["import", "fsdd", "--out", "bob", "--leave-out-speaker", "bob"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("no speaker bob to leave out; it has "), "{stderr}");
    let (code, stdout, _) = data(&home, &["check", "data", "--json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON alone");
    assert_eq!(json["n_cuts"], 2500);
    println!("fsdd: {} errors, {} warnings, exit code {code}", json["n_errors"], json["n_warnings"]);
}

#[test]
fn digits_and_commands_are_synthesised_or_the_programs_asked_for() {
    let home = home();
    let synthesize = ["synthesize", "digits-en", "--out", "data", "--clips", "40", "--quiet"];
    let (code, stdout, stderr) =
        run(speechd(home.path()).env("PATH", home.path()).arg("data").args(synthesize));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains("espeak-ng: is not there; to get it: apt-get install espeak-ng flite"),
        "{stderr}"
    );
    assert!(!home.path().join("data").exists(), "nothing is left of it");

    let (code, stdout, stderr) = data(&home, &synthesize);
    if stderr.contains("to get it: apt-get") {
        println!("skipped: {stderr}");
        return;
    }
    assert_eq!((code, stderr.as_str()), (0, ""));
    let rows: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(rows[1..], [["train", "36"], ["dev", "4"], ["all", "40"]], "{stdout}");
    let manifest = fs::read_to_string(home.path().join("data/train.jsonl")).expect("written");
    let cuts: Vec<Value> = manifest.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(
        cuts.iter().all(|cut| cut["audio_filepath"].as_str().is_some_and(|path| path.starts_with("audio/")))
    );
    let unknown: Vec<_> = cuts.iter().filter(|cut| cut["kind"] == "unknown").collect();
    assert!(
        unknown.len() == 12 && unknown.iter().all(|cut| cut["text"] == "" && cut["spoken"] != ""),
        "{unknown:?}"
    );
    let (code, stdout, _) = data(&home, &["check", "data"]);
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("warning: 13 cuts without a text") && stdout.contains(": 0 errors"), "{stdout}");
    let (code, _, stderr) = data(&home, &synthesize);
    assert_eq!(code, 1);
    assert!(stderr.contains("data/train.jsonl: is there already; --overwrite"), "{stderr}");
}

#[test]
fn phrases_are_synthesised_with_their_translations_and_further_texts() {
    let home = home();
    let synthesize = ["synthesize", "phrases-en-ps", "--out", "data", "--clips", "30", "--quiet"];
    let (code, stdout, stderr) = data(&home, &synthesize);
    if stderr.contains("to get it: apt-get") {
        println!("skipped: {stderr}");
        return;
    }
    assert_eq!((code, stderr.as_str()), (0, ""));
    let rows: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    let expected = [["train", "24"], ["dev", "3"], ["test", "3"], ["text", "20000"], ["all", "20030"]];
    assert_eq!(rows[1..], expected, "{stdout}");
    let read = |part: &str| -> Vec<Value> {
        let manifest = fs::read_to_string(home.path().join(format!("data/{part}.jsonl"))).expect("written");
        manifest.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    for part in ["train", "dev", "test", "text"] {
        for row in read(part) {
            assert_eq!((&row["source_lang"], &row["target_lang"]), (&"en".into(), &"ps".into()), "{row}");
            assert!(row["answer"].as_str().is_some_and(|answer| !answer.is_empty()), "{row}");
            assert_eq!(row.get("audio_filepath").is_none(), part == "text", "{row}");
        }
    }
    let (code, stdout, _) = data(&home, &["check", "data"]);
    assert_eq!(code, 0, "{stdout}");
    // What needs recordings passes over the texts.
    let plan = ["plan", "data", "--duration-buckets", "2", "--token-buckets", "0", "--quiet"];
    let (code, stdout, stderr) = data(&home, &plan);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("30 cuts, "), "{stdout}");
    let (_, stdout, _) = data(&home, &["stats", "data", "--json", "--quiet"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON alone");
    assert_eq!((&json["total"]["n_cuts"], &json["total"]["n_texts"]), (&20_030.into(), &20_000.into()));
    let (code, _, stderr) = data(&home, &["synthesize", "digits-en", "--out", "data"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("is there already; --overwrite"), "{stderr}");
    // No recordings of a set are left beside another's, but its texts are.
    let (code, _, stderr) =
        data(&home, &["synthesize", "digits-en", "--out", "data", "--clips", "20", "--overwrite", "--quiet"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(!home.path().join("data/test.jsonl").exists() && home.path().join("data/text.jsonl").exists());
}

#[test]
fn speech_to_learn_from_is_synthesised_by_two_voices() {
    let home = home();
    let synthesize = ["synthesize", "speech-en", "--out", "speech", "--clips", "40", "--quiet"];
    let (code, stdout, stderr) = data(&home, &synthesize);
    if stderr.contains("to get it: apt-get") {
        println!("skipped: {stderr}");
        return;
    }
    assert_eq!((code, stderr.as_str()), (0, ""));
    let rows: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(rows[1..], [["train", "34"], ["dev", "2"], ["test", "4"], ["all", "40"]], "{stdout}");
    let manifest = fs::read_to_string(home.path().join("speech/test.jsonl")).expect("written");
    let cuts: Vec<Value> = manifest.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> = cuts.iter().map(|cut| [&cut["kind"], &cut["speaker"]]).collect();
    assert_eq!(told[..2], [["word", "flite/slt"], ["word", "espeak-ng/en-us+f3"]]);
}

#[test]
fn texts_get_phonemes_and_are_else_as_they_were() {
    let home = home();
    let rows = [
        "{\"id\":\"a\",\"text\":\"good morning\",\"source_lang\":\"en\",\"target_lang\":\"ps\",\"answer\":\"سهار مو پخیر\",\"kind\":\"x\"}",
        "{\"id\":\"b\",\"text\":\"[[a]] dog\",\"source_lang\":\"en\",\"target_lang\":\"ps\",\"answer\":\"سپی\"}",
    ];
    write(&home.path().join("texts/text.jsonl"), rows.join("\n") + "\n{\n");
    let phonemes = ["phonemes", "texts", "--out", "phonemes"];
    let (code, stdout, stderr) = data(&home, &phonemes);
    if stderr.contains("to get it: apt-get") {
        println!("skipped: {stderr}");
        return;
    }
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("left out: texts/text.jsonl:3: "), "{stderr}");
    assert!(stdout.contains("phonemes/text.jsonl"), "{stdout}");
    let written = fs::read_to_string(home.path().join("phonemes/text.jsonl")).expect("written");
    assert_eq!(written.lines().count(), 2, "{written}");
    for (line, row) in written.lines().zip(rows) {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        let phonemes = line.as_object_mut().and_then(|line| line.remove("phonemes")).unwrap_or_default();
        let phonemes = phonemes.as_str().unwrap_or_default();
        assert!(phonemes.starts_with('▁') && phonemes.matches('▁').count() == 2, "{phonemes}");
        assert_eq!(line, serde_json::from_str::<Value>(row).expect("JSON"));
    }

    let (code, _, stderr) = data(&home, &["phonemes", "texts", "--out", "texts", "--overwrite"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("texts/text.jsonl: would lose the 1 of its rows"), "{stderr}");
    let (code, _, stderr) = data(&home, &[&phonemes[..], &["--overwrite", "--voice", "xx"]].concat());
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("speaks no `xx`; its languages: espeak-ng --voices"), "{stderr}");
}

/// TICO-19, by its name.
#[test]
fn real_texts_are_imported_checked_and_counted() {
    let Some(folder) = support::data("text/tico19") else { return };
    let Some(root) = folder.canonicalize().ok().and_then(|path| Some(path.parent()?.parent()?.to_owned()))
    else {
        return;
    };
    let home = home();
    let import = ["data", "import", "tico19", "--out", "pairs"];
    let (code, stdout, stderr) = run(speechd(home.path()).env("SPEECHD_DATA", &root).args(import));
    assert_eq!(code, 0, "{stderr}");
    let rows: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(rows[4], ["all", "2500"], "{stdout}");
    let (code, stdout, _) = data(&home, &["check", "pairs"]);
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("2500 cuts, 0.000 hours in 3 manifests: 0 errors"), "{stdout}");
    let (_, stdout, _) = data(&home, &["stats", "pairs", "--json", "--quiet"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON alone");
    assert_eq!((&json["total"]["n_cuts"], &json["durations_secs"]), (&2500.into(), &Value::Null));
}

/// Real Pashto in the layout of Common Voice (with a synthesised voice).
#[test]
fn a_common_voice_corpus_is_imported_checked_and_planned() {
    let Some(folder) = support::data("speech/ps-synth").and_then(|path| path.canonicalize().ok()) else {
        return;
    };
    let home = home();
    let (code, stdout, stderr) =
        data(&home, &["import", &folder.to_string_lossy(), "--out", "data", "--language", "ps"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains(": common_voice"), "{stderr}");
    let rows: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().take(5).collect()).collect();
    assert_eq!((&rows[1][..2], &rows[4][..2]), (&["train", "1450"][..], &["all", "1750"][..]), "{stdout}");
    // Recordings are left alone here: decoding 1,750 of them takes a while.
    let (code, stdout, _) = data(&home, &["check", "data", "--no-audio"]);
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("warning: 5 speakers in several splits"), "{stdout}");
    let plan = ["plan", "data/train.jsonl", "--duration-buckets", "8", "--compare", "--json"];
    let (code, stdout, stderr) = data(&home, &plan);
    assert_eq!(code, 0, "{stderr}");
    let json: Value = serde_json::from_str(&stdout).expect("JSON alone");
    let of = |row: &Value, real: &str, padded: &str| {
        1.0 - row["padding"][real].as_f64().expect("a sum") / row["padding"][padded].as_f64().expect("a sum")
    };
    let rows = json["comparison"]["rows"].as_array().expect("rows");
    let audio: Vec<_> = rows.iter().map(|row| of(row, "duration_secs", "padded_secs")).collect();
    let tokens: Vec<_> = rows.iter().map(|row| of(row, "n_tokens", "padded_tokens")).collect();
    assert!(audio[3] < 0.5 * audio[0] && tokens[3] < 0.5 * tokens[2], "{audio:?} {tokens:?}");
}
