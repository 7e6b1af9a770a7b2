//! Both vocabularies, rows that are wrong, and what survives a round trip.

use std::{fs, io::Cursor, path::Path};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ANYTHING: Needs =
    Needs { text: false, transcript: false, audio: true, recording: false, duration: true };
const TEXTS: Needs = Needs { audio: false, ..ANYTHING };

fn read_lines(lines: &str, needs: Needs) -> Vec<Result<Cut, Rejected>> {
    let source = Cursor::new(lines.as_bytes().to_vec());
    Reader::new(source, Path::new("data/train.jsonl"), needs).expect("readable").collect()
}

fn cut(line: &Value) -> Cut {
    let mut rows = read_lines(&line.to_string(), ANYTHING);
    assert_eq!(rows.len(), 1, "{line}");
    rows.remove(0).unwrap_or_else(|rejected| panic!("{line}: {rejected}"))
}

fn reason(line: &str) -> Reason {
    let mut rows = read_lines(line, Needs::default());
    assert_eq!(rows.len(), 1, "{line}");
    rows.remove(0).expect_err(line).reason
}

#[test]
fn nemo_rows_are_read() {
    let row = json!({"audio_filepath": "clips/a.wav", "offset": 1.5, "duration": 2, "text": "سلام", "lang": "ps",
        "speaker": 7, "channel": 1, "pnc": "yes"});
    let cut = cut(&row);
    assert_eq!(&*cut.audio, Path::new("data/clips/a.wav"));
    assert_eq!((&*cut.id, &*cut.text), ("clips/a-000150-000200", "سلام"));
    assert_eq!((cut.start_secs, cut.duration_secs, cut.end_secs(), cut.channel), (1.5, 2.0, 3.5, Some(1)));
    assert_eq!((cut.language.as_deref(), cut.speaker.as_deref()), (Some("ps"), Some("7")));
    assert_eq!(Value::Object(*cut.extra.expect("kept")), json!({"pnc": "yes"}));
}

#[test]
fn rows_without_an_id_are_named_by_their_place_below_the_manifest() {
    for (path, id) in [
        ("s1/1.wav", "s1/1"),
        ("s2/1.wav", "s2/1"),
        ("a.b.wav", "a.b"),
        ("../corpus/1.wav", "../corpus/1"),
        ("/corpus/1.wav", "/corpus/1"),
    ] {
        assert_eq!(&*cut(&json!({"audio_filepath": path, "duration": 1})).id, id);
    }
}

#[test]
fn translations_are_told_from_transcripts() {
    let of = |fields: Value| {
        let mut row = json!({"audio_filepath": "/a.wav", "duration": 1});
        row.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let cut = cut(&row);
        (cut.text.to_string(), cut.target_text.as_deref().map(str::to_owned), cut.output_text().to_owned())
    };
    let some = |text: &str| Some(text.to_owned());
    let translation = json!({"text": "hello", "source_lang": "ps", "target_lang": "en"});
    assert_eq!(of(translation), (String::new(), some("hello"), "hello".to_owned()));
    let both = json!({"text": "سلام", "answer": "hello", "source_lang": "ps", "target_lang": "en"});
    assert_eq!(of(both), ("سلام".to_owned(), some("hello"), "hello".to_owned()));
    let same = json!({"text": "سلام", "source_lang": "ps", "target_lang": "ps"});
    assert_eq!(of(same), ("سلام".to_owned(), None, "سلام".to_owned()));
    let answer_alone = json!({"answer": "سلام", "source_lang": "ps", "target_lang": "ps"});
    assert_eq!(of(answer_alone), ("سلام".to_owned(), None, "سلام".to_owned()));
}

fn lhotse(supervisions: &Value) -> Value {
    json!({"id": "rec-1", "start": 10.0, "duration": 5.0, "channel": 0, "type": "MonoCut", "supervisions": supervisions,
        "custom": {"snr": 12.5},
        "recording": {"id": "rec", "sampling_rate": 16000, "num_samples": 480000, "duration": 30.0, "channel_ids": [0],
            "sources": [{"type": "file", "channels": [0], "source": "audio/rec.flac"}]}})
}

#[test]
fn a_lhotse_cut_keeps_its_span_with_one_segment_and_is_split_by_several() {
    let one = json!([{"id": "s1", "recording_id": "rec", "start": 0.5, "duration": 4.0, "channel": 0, "text": "one",
        "language": "English", "speaker": "A", "gender": "F"}]);
    let whole = cut(&lhotse(&one));
    assert_eq!(
        (&*whole.id, whole.start_secs, whole.duration_secs, whole.channel),
        ("rec-1", 10.0, 5.0, None)
    );
    assert_eq!(
        (&*whole.text, whole.speaker.as_deref(), whole.language.as_deref()),
        ("one", Some("A"), Some("English"))
    );
    assert_eq!(&*whole.audio, Path::new("data/audio/rec.flac"));
    assert_eq!(Value::Object(*whole.extra.expect("kept")), json!({"snr": 12.5, "gender": "F"}));

    let two = json!([{"id": "s1", "start": -0.004, "duration": 2.0, "text": "one"},
        {"id": "s2", "start": 2.0, "duration": 3.004, "text": "two", "speaker": "B"}]);
    let cuts: Vec<_> =
        read_lines(&lhotse(&two).to_string(), ANYTHING).into_iter().map(|row| row.expect("a cut")).collect();
    let spans: Vec<_> =
        cuts.iter().map(|cut| (&*cut.id, &*cut.text, cut.start_secs, cut.duration_secs)).collect();
    assert_eq!(spans, [("s1", "one", 10.0, 1.996), ("s2", "two", 12.0, 3.0)]);
    assert_eq!(cuts[1].speaker.as_deref(), Some("B"));

    assert_eq!(&*cut(&lhotse(&json!([]))).text, "");
}

#[test]
fn a_channel_of_a_lhotse_recording_is_found_in_its_source() {
    let sources = |sources: Value, channel: u16| {
        let mut row = lhotse(&json!([]));
        row["recording"]["sources"] = sources;
        row["channel"] = channel.into();
        let cut = cut(&row);
        (cut.audio.file_name().expect("a name").to_string_lossy().into_owned(), cut.channel)
    };
    let stereo = json!([{"type": "file", "channels": [0, 1], "source": "stereo.wav"}]);
    assert_eq!(sources(stereo, 1), ("stereo.wav".to_owned(), Some(1)));
    let files = json!([{"type": "file", "channels": [0], "source": "left.wav"},
        {"type": "file", "channels": [1], "source": "right.wav"}]);
    assert_eq!(sources(files, 1), ("right.wav".to_owned(), None));
}

/// Lines and the words of their reasons; each is one row.
const BAD_ROWS: &[(&str, &str, &str)] = &[
    ("{", "not JSON", "within a value"),
    ("nonsense", "not JSON", "not JSON"),
    ("[", "not JSON", "one object on each line"),
    ("[1]", "not JSON", "[1] is not a JSON object"),
    ("\"text\"", "not JSON", "is not a JSON object"),
    ("\u{0}\u{1}", "not JSON", "not JSON"),
    ("{}", "missing key", "no `audio_filepath`"),
    (r#"{"audio_filepath": "a.wav", "text": "x"}"#, "missing key", "no `duration`"),
    (r#"{"audio_filepath": "a.wav", "duration": null, "text": "x"}"#, "missing key", "no `duration`"),
    (
        r#"{"audio_filepath": 5, "duration": 1, "text": "x"}"#,
        "wrong type",
        "`audio_filepath`: 5 is not a string",
    ),
    (r#"{"audio_filepath": ["a.wav"], "duration": 1, "text": "x"}"#, "wrong type", "is not a string"),
    (r#"{"audio_filepath": " ", "duration": 1, "text": "x"}"#, "empty text", "`audio_filepath` is empty"),
    (r#"{"audio_filepath": "s3://a/b.wav", "duration": 1, "text": "x"}"#, "unsupported", "is an address"),
    (r#"{"audio_filepath": "a.wav", "duration": "1", "text": "x"}"#, "wrong type", "\"1\" is not a number"),
    (
        r#"{"audio_filepath": "a.wav", "duration": -1, "text": "x"}"#,
        "bad time",
        "`duration`: -1 is not a length",
    ),
    (r#"{"audio_filepath": "a.wav", "duration": 0, "text": "x"}"#, "bad time", "`duration`: 0"),
    (r#"{"audio_filepath": "a.wav", "duration": 1e300, "text": "x"}"#, "bad time", "1e7 s"),
    (r#"{"audio_filepath": "a.wav", "duration": 1e999, "text": "x"}"#, "not JSON", "out of range"),
    (
        r#"{"audio_filepath": "a.wav", "duration": NaN, "text": "x"}"#,
        "not JSON",
        "NaN at column 41 is no number",
    ),
    (r#"{"audio_filepath": "a.wav", "duration": -Infinity, "text": "x"}"#, "not JSON", "Infinity"),
    (
        r#"{"audio_filepath": "a.wav", "duration": 1, "offset": -0.5, "text": "x"}"#,
        "bad time",
        "`offset`: -0.5",
    ),
    (r#"{"audio_filepath": "a.wav", "duration": 1}"#, "empty text", "`text` is empty"),
    (r#"{"audio_filepath": "a.wav", "duration": 1, "text": " \t"}"#, "empty text", "`text` is empty"),
    (r#"{"audio_filepath": "a.wav", "duration": 1, "text": 5}"#, "wrong type", "`text`: 5 is not a string"),
    (
        r#"{"audio_filepath": "a.wav", "duration": 1, "text": "x", "channel": -1}"#,
        "wrong type",
        "`channel`: -1",
    ),
    (
        r#"{"audio_filepath": "a.wav", "duration": 1, "text": "x", "channel": 70000}"#,
        "wrong type",
        "`channel`",
    ),
    (r#"{"audio_filepath": "a.wav", "duration": 1, "text": "x", "lang": ["ps"]}"#, "wrong type", "`lang`"),
    (r#"{"audio_filepath": "a.wav", "duration": 1, "text": "x"} {}"#, "not JSON", "trailing characters"),
    (r#"{"id": "c", "recording": {}, "duration": 1}"#, "missing key", "no `recording.sources`"),
    (r#"{"id": "c", "recording": 3, "duration": 1}"#, "wrong type", "`recording`: 3"),
    (r#"{"id": "c", "supervisions": [], "duration": 1}"#, "missing key", "no `recording`"),
    (r#"{"recording": {}, "duration": 1}"#, "missing key", "no `id`"),
    (r#"{"id": "r", "sources": [], "sampling_rate": 8000}"#, "unsupported", "lhotse cut simple"),
    (r#"{"id": "s", "recording_id": "r", "start": 0, "duration": 1}"#, "unsupported", "lhotse cut simple"),
    (r#"{"id": "m", "tracks": [], "type": "MixedCut"}"#, "unsupported", "CutSet.save_audios"),
    (r#"{"id": "m", "recording": {}, "type": "MultiCut"}"#, "unsupported", "CutSet.to_mono"),
    (
        r#"{"id": "c", "duration": 1, "recording": {"sources": [{"type": "command", "source": "sox"}]}}"#,
        "unsupported",
        "type `command`",
    ),
    (
        r#"{"id": "c", "duration": 1, "recording": {"sources": [{}]}}"#,
        "missing key",
        "no `recording.sources.source`",
    ),
    (
        r#"{"id": "c", "duration": 1, "recording": {"sources": [{"source": "a"}], "transforms": [{"name": "Speed"}]}}"#,
        "unsupported",
        "transformed",
    ),
    (
        r#"{"id": "c", "duration": 1, "recording": {"sources": [{"source": "a"}]}, "supervisions": [7]}"#,
        "wrong type",
        "`supervisions`: 7",
    ),
    (
        r#"{"id": "c", "duration": 1, "recording": {"sources": [{"source": "a"}]}, "supervisions": [{"id": 1, "start": 0, "duration": 2, "text": "x"}]}"#,
        "unsupported",
        "longer than its audio",
    ),
];

#[test]
fn bad_rows_are_named_with_their_reason() {
    for (line, kind, words) in BAD_ROWS {
        let reason = reason(line);
        assert_eq!(reason.kind(), *kind, "{line}: {reason}");
        assert!(reason.to_string().contains(words), "{line}: {reason}");
    }
    let nested = "{\"a\":".repeat(100_000);
    assert!(matches!(reason(&nested), Reason::BadJson(_)));
    let not_text =
        Reader::new(Cursor::new(b"{\"audio_filepath\": \"\xff\"}".to_vec()), Path::new("a"), ANYTHING);
    let rows: Vec<_> = not_text.expect("readable").collect();
    assert!(matches!(&rows[..], [Err(Rejected { reason: Reason::BadJson(_), .. })]), "{rows:?}");
}

#[test]
fn bad_rows_are_skipped_and_their_lines_counted() {
    let good = r#"{"audio_filepath": "a.wav", "duration": 1, "text": "x"}"#;
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat(lines::MAX_LINE_BYTES));
    let text = format!("\u{feff}{good}\r\n\n{{\n{long}\n   \n{good}");
    let rows = read_lines(&text, Needs::default());
    let shown: Vec<_> = rows
        .iter()
        .map(|row| row.as_ref().map_or_else(|rejected| rejected.to_string(), |cut| cut.id.to_string()))
        .collect();
    assert_eq!(shown[0], "a");
    assert!(shown[1].starts_with("data/train.jsonl:3: not JSON"), "{}", shown[1]);
    assert!(shown[2].starts_with("data/train.jsonl:4: longer than"), "{}", shown[2]);
    assert_eq!((shown[3].as_str(), shown.len()), ("a", 4));
}

#[test]
fn a_translation_alone_is_no_silence() {
    let translated = r#"{"audio_filepath": "a.wav", "duration": 1, "text": "x", "source_lang": "ps", "target_lang": "en"}"#;
    let silent = r#"{"audio_filepath": "a.wav", "duration": 1, "text": ""}"#;
    let both = r#"{"audio_filepath": "a.wav", "duration": 1, "text": "x", "answer": "y"}"#;
    let transcript = Needs { transcript: true, ..ANYTHING };
    for (line, is_translation) in [(translated, true), (silent, false), (both, false)] {
        assert!(read_lines(line, ANYTHING)[0].is_ok(), "{line}");
        match &read_lines(line, transcript)[0] {
            Err(rejected) => {
                assert!(is_translation && rejected.to_string().contains("no transcript"), "{line}");
            }
            Ok(_) => assert!(!is_translation, "{line}"),
        }
    }
}

#[test]
fn texts_need_no_recording_where_none_is_asked_for() {
    let pair = r#"{"id": "p", "text": "hello", "answer": "سلام", "source_lang": "en", "target_lang": "ps"}"#;
    assert_eq!(reason(pair).to_string(), "no `audio_filepath`");
    let cut = read_lines(pair, TEXTS).remove(0).expect("a text");
    assert_eq!((&*cut.text, cut.target_text.as_deref()), ("hello", Some("سلام")));
    assert_eq!((cut.language.as_deref(), cut.target_language.as_deref()), (Some("en"), Some("ps")));
    assert!(!cut.has_audio() && cut.duration_secs == 0.0);

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("text.jsonl");
    let mut writer = Writer::create(&path).expect("created");
    writer.write(&cut).expect("written");
    writer.finish().expect("in place");
    let line: Value = serde_json::from_str(&fs::read_to_string(&path).expect("read")).expect("JSON");
    assert_eq!(line, serde_json::from_str::<Value>(pair).expect("JSON"));
    // Nor is one looked for that is not named.
    let needs = Needs { recording: true, text: true, transcript: true, ..TEXTS };
    assert_eq!(read(&path, needs).expect("read").cuts, [cut]);

    // What is named counts as ever.
    for (line, words) in [
        (r#"{"text": "hello", "answer": "سلام"}"#, "no `audio_filepath` and no `id`"),
        (r#"{"id": "p", "text": " "}"#, "`text` is empty"),
        (r#"{"id": "p", "text": "hello", "duration": -1}"#, "`duration`: -1"),
        (r#"{"id": "p", "text": "hello", "audio_filepath": ""}"#, "`audio_filepath` is empty"),
        (r#"{"id": "p", "text": "hello", "audio_filepath": "a.wav"}"#, "no `duration`"),
        (r#"{"id": "p", "text": "hello", "audio_filepath": "a.wav", "duration": 1}"#, "no such recording"),
        (r#"{"id": "c", "supervisions": [], "duration": 1}"#, "no `recording`"),
    ] {
        let message = read_lines(line, needs).remove(0).expect_err(line).to_string();
        assert!(message.contains(words), "{line}: {message}");
    }
}

#[test]
fn only_a_file_without_a_good_row_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("train.jsonl");
    let good = r#"{"audio_filepath": "a.wav", "duration": 1, "text": "x"}"#;
    fs::write(&path, format!("{good}\n{{\n")).expect("written");
    let manifest = read(&path, Needs::default()).expect("one is good");
    assert_eq!((manifest.cuts.len(), manifest.rejected.len()), (1, 1));
    let looking = Needs { recording: true, ..Needs::default() };
    let message = read(&path, looking).expect_err("none is good").to_string();
    assert!(
        message.contains("none of its 2 rows") && message.contains("train.jsonl:1: no such recording"),
        "{message}"
    );
    fs::write(folder.path().join("a.wav"), "").expect("written");
    assert_eq!(read(&path, looking).expect("there").cuts.len(), 1);
    fs::write(&path, "").expect("written");
    assert_eq!(read(&path, looking).expect("empty"), Manifest { cuts: vec![], rejected: vec![] });
    for (path, words) in
        [(folder.path().join("none"), "no such file"), (folder.path().to_owned(), "is a folder")]
    {
        let message = read(&path, looking).expect_err("refused").to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn gzip_is_read_and_a_damaged_end_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cuts.jsonl.gz");
    let row = cut(&json!({"audio_filepath": "/a.wav", "duration": 1, "text": "x"}));
    let mut writer = Writer::create(&path).expect("created");
    for index in 0..2_000 {
        writer.write(&Cut { id: index.to_string().into(), ..row.clone() }).expect("written");
    }
    writer.finish().expect("in place");
    assert_eq!(read(&path, Needs::default()).expect("read").cuts.len(), 2_000);

    let bytes = fs::read(&path).expect("read");
    assert!(bytes.starts_with(&[0x1f, 0x8b]));
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    let manifest = read(&path, Needs::default()).expect("the first half");
    assert!(manifest.cuts.len() > 100);
    assert!(matches!(&manifest.rejected[..], [Rejected { reason: Reason::BrokenOff(_), .. }]));
}

#[test]
fn paths_are_relative_where_both_can_move_together() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path().canonicalize().expect("there");
    let path = root.join("data/train.jsonl");
    let place = |audio: &Path| {
        let row = Cut { audio: audio.into(), ..cut(&json!({"audio_filepath": "x", "duration": 1})) };
        let mut writer = Writer::create(&path).expect("created");
        writer.write(&row).expect("written");
        writer.finish().expect("in place");
        let line: Value = serde_json::from_str(&fs::read_to_string(&path).expect("read")).expect("JSON");
        line["audio_filepath"].as_str().expect("a path").to_owned()
    };
    for folder in ["data/clips", "corpus/x"] {
        fs::create_dir_all(root.join(folder)).expect("created");
    }
    assert_eq!(place(&root.join("data/clips/a.wav")), "clips/a.wav");
    assert_eq!(place(&root.join("corpus/x/a.wav")), "../corpus/x/a.wav");
    assert_eq!(place(&root.join("data/../corpus/x/a.wav")), "../corpus/x/a.wav");
    assert_eq!(place(Path::new("/nowhere/a.wav")), "/nowhere/a.wav");
    assert_eq!(fs::read_dir(root.join("data")).expect("listed").count(), 2, "nothing half-written is left");
}

fn field() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_row_survives_a_round_trip(
        texts in [prop::option::of("\\PC{0,12}"), prop::option::of("\\PC{0,12}")],
        languages in [prop::option::of("[a-z]{2}"), prop::option::of("en|ps")],
        speaker in prop::option::of("[a-z0-9]{1,4}"),
        times in (0_u32..1_000_000, 1_u32..1_000_000),
        channel in prop::option::of(0_u16..4),
        extra in prop::collection::btree_map("x_[a-z]{1,4}", field(), 0..4),
    ) {
        let mut row = json!({"id": "i", "audio_filepath": "/a/b.wav", "offset": f64::from(times.0) / 1e3,
            "duration": f64::from(times.1) / 1e3, "text": texts[0], "answer": texts[1], "source_lang": languages[0],
            "target_lang": languages[1], "speaker": speaker, "channel": channel});
        row.as_object_mut().expect("an object").extend(extra.clone());
        let read = cut(&row);
        prop_assert_eq!(read.extra.clone().map(|kept| *kept).unwrap_or_default(), extra.into_iter().collect::<Extra>());
        let mut line = Vec::new();
        nemo::write(&read, Some("/a/b.wav".into()), &mut line).expect("written");
        let again = cut(&serde_json::from_slice(&line).expect("JSON"));
        prop_assert_eq!(again, read);

        // The same without a recording.
        row.as_object_mut().expect("an object").remove("audio_filepath");
        let read = read_lines(&row.to_string(), TEXTS).remove(0).expect("a text");
        prop_assert!(!read.has_audio() && read.channel.is_none());
        prop_assert_eq!((read.start_secs, read.duration_secs), (0.0, 0.0));
        line.clear();
        nemo::write(&read, None, &mut line).expect("written");
        let again = read_lines(&String::from_utf8(line).expect("text"), TEXTS).remove(0).expect("a text");
        prop_assert_eq!(again, read);
    }

    /// The stable form of `recipes/fuzz`: bad rows with bytes changed.
    #[test]
    fn damaged_rows_are_cuts_or_reasons(
        which in 0..BAD_ROWS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let good = r#"{"audio_filepath": "a.wav", "duration": 1.5, "offset": 2, "text": "x", "speaker": 1}"#;
        let mut bytes = [BAD_ROWS[which].0, good].join("\n").into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let reader = Reader::new(Cursor::new(bytes), Path::new("m"), ANYTHING).expect("memory can be read");
        for cut in reader.flatten() {
            prop_assert!(cut.duration_secs > 0.0 && cut.end_secs().is_finite() && cut.start_secs >= 0.0);
        }
    }
}
