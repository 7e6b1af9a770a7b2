//! Data with one thing wrong each, and data with nothing wrong.

use std::{fs, path::PathBuf};

use audio::encode::wav_bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const RATE: u32 = 8_000;

struct Data(TempDir);

impl Data {
    /// Two splits of sound recordings with texts of their own.
    fn new() -> Self {
        let data = Self(TempDir::new().expect("a folder"));
        for (index, name) in ["a", "b", "c"].iter().enumerate() {
            data.wav(name, &tone(0.3 + 0.1 * index as f32, 0.5, 4_000));
        }
        data.manifest("train", &[row("a", "the first text", "s1"), row("b", "the second text", "s1")]);
        data.manifest("test", &[row("c", "the third text", "s2")]);
        data
    }

    fn path(&self, split: &str) -> PathBuf {
        self.0.path().join(format!("{split}.jsonl"))
    }

    fn wav(&self, name: &str, samples: &[f32]) {
        let waveform = audio::Waveform { samples: samples.to_vec(), sample_rate: RATE };
        self.bytes(name, &wav_bytes(&waveform).expect("a WAV"));
    }

    fn bytes(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(format!("{name}.wav")), bytes).expect("written");
    }

    fn manifest(&self, split: &str, rows: &[Value]) {
        let lines: Vec<_> = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(self.path(split), lines.concat()).expect("written");
    }

    fn check(&self, options: &Options) -> Report {
        check(&[self.path("train"), self.path("test")], options, &|_, _| {}).expect("checked")
    }

    /// Kind, name and detail of every finding.
    fn found(&self) -> Vec<(Kind, String, String)> {
        self.found_with(&Options::default())
    }

    fn found_with(&self, options: &Options) -> Vec<(Kind, String, String)> {
        let name = |id: Option<Box<str>>| id.map_or_else(String::new, String::from);
        self.check(options)
            .findings
            .into_iter()
            .map(|found| (found.kind, name(found.id), found.detail))
            .collect()
    }
}

fn tone(step: f32, amplitude: f32, n_samples: usize) -> Vec<f32> {
    (0..n_samples).map(|index| (index as f32 * step).sin() * amplitude).collect()
}

fn row(name: &str, text: &str, speaker: &str) -> Value {
    json!({"audio_filepath": format!("{name}.wav"), "duration": 0.5, "text": text, "speaker": speaker})
}

/// The one finding there is.
fn only(found: Vec<(Kind, String, String)>) -> (Kind, String, String) {
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().expect("one")
}

#[test]
fn sound_data_has_nothing_to_find() {
    let report = Data::new().check(&Options { tokens: Some(Tokens::Chars), ..Options::default() });
    assert_eq!(
        (report.n_cuts, report.total_secs, report.findings.len()),
        (3, 1.5, 0),
        "{:?}",
        report.findings
    );
}

#[test]
fn bad_recordings_are_found() {
    let data = Data::new();
    let whole = fs::read(data.0.path().join("a.wav")).expect("read");
    data.bytes("a", &whole[..whole.len() - 4_000]);
    let found = data.found();
    assert_eq!(
        found.iter().map(|found| found.0).collect::<Vec<_>>(),
        [Kind::DamagedAudio, Kind::DurationMismatch]
    );
    assert!(
        found[0].2.contains("0.25 s of 0.50 s") && found[1].2.contains("a.wav lasts 0.25 s"),
        "{found:?}"
    );

    data.bytes("a", b"RIFF");
    let (kind, name, detail) = only(data.found());
    assert_eq!((kind, name.as_str()), (Kind::UnreadableAudio, "a"));
    assert!(detail.contains("a.wav: unsupported audio"), "{detail}");
    assert_eq!(data.found_with(&Options { skip_audio: true, ..Options::default() }), []);

    fs::remove_file(data.0.path().join("a.wav")).expect("removed");
    assert!(
        only(data.found()).2.ends_with("could not read the audio: No such file or directory (os error 2)")
    );
}

#[test]
fn lengths_that_differ_are_found() {
    let data = Data::new();
    data.wav("a", &tone(0.3, 0.5, 4_640));
    assert_eq!(data.found(), [], "80 ms are within what tools count differently");
    data.wav("a", &tone(0.3, 0.5, 8_000));
    let (kind, _, detail) = only(data.found());
    assert_eq!(kind, Kind::UnusedRest);
    assert!(detail.starts_with("0.50 s of 1.00 s of "), "{detail}");
    // The rest is somebody else's.
    let mut rest = row("a", "and the rest of it", "s1");
    rest["offset"] = json!(0.5);
    data.manifest(
        "train",
        &[row("a", "the first text", "s1"), row("b", "the second text", "s1"), rest.clone()],
    );
    assert_eq!(data.found(), []);
    rest["offset"] = json!(0.7);
    data.manifest("train", &[row("a", "the first text", "s1"), row("b", "the second text", "s1"), rest]);
    let (kind, name, detail) = only(data.found());
    assert_eq!((kind, name.as_str()), (Kind::DurationMismatch, "a-000070-000050"));
    assert!(detail.starts_with("from 0.70 to 1.20 s, but"), "{detail}");

    // Nothing to hear, though hardly beyond the end or not at all.
    for (offset, duration) in [(1.0, 0.05), (0.7, 1e-5)] {
        let mut nothing = row("a", "and the rest of it", "s1");
        (nothing["offset"], nothing["duration"]) = (json!(offset), json!(duration));
        data.manifest(
            "train",
            &[row("a", "the first text", "s1"), row("b", "the second text", "s1"), nothing],
        );
        assert_eq!(only(data.found()).0, Kind::DurationMismatch, "{offset}");
    }
}

#[test]
fn a_split_without_cuts_is_an_error() {
    let data = Data::new();
    data.manifest("test", &[]);
    let (kind, _, detail) = only(data.found());
    assert_eq!(
        (kind, kind.severity(), detail.as_str()),
        (Kind::EmptyManifest, Severity::Error, "has no rows")
    );
    data.manifest("train", &[]);
    let report = data.check(&Options::default());
    assert_eq!((report.findings.len(), report.total_secs.is_sign_positive()), (2, true));
}

#[test]
fn silence_and_clipping_are_found() {
    let data = Data::new();
    data.wav("a", &[0.0; 4_000]);
    assert_eq!(only(data.found()), (Kind::Silence, "a".into(), "all samples are 0".into()));
    data.wav("a", &tone(0.3, 0.0005, 4_000));
    assert!(only(data.found()).2.starts_with("nowhere above -"));
    data.wav("a", &tone(0.05, 0.99, 4_000));
    assert_eq!(data.found(), []);
    data.wav("a", &tone(0.05, 2.0, 4_000));
    let (kind, _, detail) = only(data.found());
    assert_eq!(kind, Kind::Clipping);
    // sin(x) is above 1/2 for two thirds of the time.
    assert!(detail.starts_with("66."), "{detail}");
}

#[test]
fn the_same_sound_is_found_wherever_it_is() {
    let data = Data::new();
    let same = tone(0.3, 0.5, 4_000);
    data.wav("b", &same);
    let (kind, name, detail) = only(data.found());
    assert_eq!((kind, name.as_str()), (Kind::ContradictingTexts, "b"));
    assert!(detail.contains("\"the second text\" here, \"the first text\" there"), "{detail}");
    data.manifest("train", &[row("a", "the first text", "s1"), row("b", "the first text", "s1")]);
    assert_eq!(only(data.found()).0, Kind::DuplicateAudio);

    let data = Data::new();
    data.wav("c", &same);
    data.manifest("test", &[row("c", "the first text", "s2")]);
    let kinds: Vec<_> = data.found().into_iter().map(|found| found.0).collect();
    assert_eq!(kinds, [Kind::AudioInSplits, Kind::TextInSplits]);
}

#[test]
fn recordings_that_may_be_the_same_are_found_by_text_speaker_and_length() {
    let data = Data::new();
    let text = "a text that is not said twice";
    data.manifest("train", &[row("a", text, "s1"), row("b", text, "s1")]);
    let (kind, name, detail) = only(data.found());
    assert_eq!((kind, name.as_str()), (Kind::SimilarCuts, "b"));
    assert!(detail.starts_with("as a (") && detail.ends_with("train.jsonl:1)"), "{detail}");
    data.manifest("train", &[row("a", text, "s1"), row("b", text, "s3")]);
    assert_eq!(data.found(), []);
    data.manifest("train", &[row("a", "yes", "s1"), row("b", "yes", "s1")]);
    assert_eq!(data.found(), []);
}

#[test]
fn what_splits_share_is_found_once() {
    let data = Data::new();
    data.manifest("test", &[row("c", "the  first text", "s1"), row("c", "the fourth text", "s1")]);
    let found: Vec<_> = data.found_with(&Options { skip_audio: true, ..Options::default() });
    let kinds: Vec<_> = found.iter().map(|found| (found.0, found.1.as_str())).collect();
    assert_eq!(kinds, [(Kind::DuplicateId, "c"), (Kind::SpeakerInSplits, "a"), (Kind::TextInSplits, "a")]);
    assert!(found[1].2.starts_with("\"s1\" in ") && found[1].2.contains("test.jsonl"), "{found:?}");
}

#[test]
fn cuts_without_a_text_are_told_and_share_nothing() {
    let data = Data::new();
    data.manifest("train", &[row("a", " ", "s1"), row("b", "the second text", "s1")]);
    data.manifest("test", &[row("c", "", "s2")]);
    let found: Vec<_> = data.found();
    let kinds: Vec<_> = found.iter().map(|found| (found.0, found.1.as_str())).collect();
    assert_eq!(kinds, [(Kind::EmptyText, "a"), (Kind::EmptyText, "c")]);
    assert!(found[0].2.starts_with("0.50 s of "), "{found:?}");
}

#[test]
fn texts_are_looked_at() {
    let data = Data::new();
    data.manifest(
        "train",
        &[row("a", "دا ok", "s1"), row("b", "bro\u{fffd}ken", "s1"), json!({"duration": 1})],
    );
    let found: Vec<_> = data.found();
    let kinds: Vec<_> = found.iter().map(|found| (found.0, found.1.as_str())).collect();
    assert_eq!(kinds, [(Kind::BadRow, ""), (Kind::MixedScripts, "a"), (Kind::OddCharacters, "b")]);
    let report = data.check(&Options::default());
    assert_eq!((report.count(Severity::Error), report.count(Severity::Warning)), (1, 2));
    let groups = report.groups();
    assert_eq!((groups[0].kind, groups[0].severity, groups.len()), (Kind::BadRow, Severity::Error, 3));
}

#[test]
fn characters_that_a_vocabulary_lacks_are_found() {
    let data = Data::new();
    data.manifest("train", &[row("a", "ab", "s1"), row("b", "a\u{e9}b\u{e9}", "s1")]);
    let folder = TempDir::new().expect("a folder");
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, " ": 3, "t": 4, "h": 5, "e": 6,
            "i": 7, "r": 8, "d": 9, "x": 10}, "merges": []}});
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).expect("written");
    let tokens = Tokens::Model(Box::new(models::Tokenizer::open(folder.path()).expect("a tokenizer")));
    assert_eq!(tokens.count("a\u{e9}b").expect("counted"), 3);
    let found = only(data.found_with(&Options { tokens: Some(tokens), ..Options::default() }));
    assert_eq!(found, (Kind::UnknownCharacters, "b".into(), "\u{e9} U+00E9".into()));
}

#[test]
fn texts_without_recordings_are_looked_at_and_not_listened_to() {
    let data = Data::new();
    let pair = |id: &str, text: &str, answer: &str| json!({"id": id, "text": text, "answer": answer, "source_lang": "en", "target_lang": "ps"});
    data.manifest(
        "train",
        &[pair("a", "one", "یو"), pair("b", "", "دوه"), pair("a", "three", "درې\u{fffd}")],
    );
    let found: Vec<_> = data.found().into_iter().map(|(kind, id, _)| (kind, id)).collect();
    let expected = [(Kind::EmptyText, "b"), (Kind::OddCharacters, "a"), (Kind::DuplicateId, "a")];
    assert_eq!(found, expected.map(|(kind, id)| (kind, id.to_owned())));

    // Among recordings they are a mistake.
    data.manifest("train", &[row("a", "the first text", "s1"), pair("p", "one", "یو")]);
    let report = data.check(&Options::default());
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!(
        (finding.kind, finding.line, &*finding.detail),
        (Kind::BadRow, Some(2), "no `audio_filepath`")
    );
    assert_eq!(report.n_cuts, 2);
}
