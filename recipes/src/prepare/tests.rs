//! Small corpora in every layout.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use audio::{Waveform, encode::wav_bytes};
use tempfile::TempDir;

use super::*;
use crate::data::manifest::{Needs, read};

mod damaged;
mod parallel_text;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// A file, its folders made.
    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, contents).expect("written");
        self
    }

    /// A recording of so many milliseconds.
    fn wav(&self, name: &str, millis: usize) -> &Self {
        let samples = (0..millis * 8).map(|index| (index as f32 * 0.3).sin() * 0.5).collect();
        self.file(name, wav_bytes(&Waveform { samples, sample_rate: 8_000 }).expect("a WAV"))
    }

    fn prepare(&self, options: &Options) -> Prepared {
        prepare(&self.path(), options, &|_, _| {}).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refuse(&self, options: &Options) -> String {
        prepare(&self.path(), options, &|_, _| {}).expect_err("refused").to_string()
    }
}

/// Without splits of our own making.
fn as_is() -> Options {
    Options { dev_fraction: 0.0, test_fraction: 0.0, ..Options::default() }
}

/// Id, text, milliseconds, speaker, language.
fn shown(prepared: &Prepared, split: Split) -> Vec<(String, String, u64, String, String)> {
    let text = |name: &Option<Arc<str>>| name.as_deref().unwrap_or("-").to_owned();
    let cuts = prepared.splits.get(&split).into_iter().flatten();
    cuts.map(|cut| {
        let millis = (cut.duration_secs * 1e3).round() as u64;
        (cut.id.to_string(), cut.text.to_string(), millis, text(&cut.speaker), text(&cut.language))
    })
    .collect()
}

fn row(
    id: &str,
    text: &str,
    millis: u64,
    speaker: &str,
    language: &str,
) -> (String, String, u64, String, String) {
    (id.to_owned(), text.to_owned(), millis, speaker.to_owned(), language.to_owned())
}

fn rejections(prepared: &Prepared) -> Vec<String> {
    prepared
        .rejected
        .iter()
        .map(|rejected| format!("{} {}", rejected.line.unwrap_or(0), rejected.reason))
        .collect()
}

#[test]
fn common_voice_is_read_with_its_quotes_and_splits() {
    let folder = Folder::new();
    let header = "client_id\tpath\tsentence\tgender\tlocale\n";
    folder
        .wav("clips/a.wav", 250)
        .wav("clips/b.wav", 500)
        .file("clips/broken.wav", "RIFF")
        .file(
            "train.tsv",
            format!(
                "{header}s1\ta.wav\tHe said \"yes\tfemale\tps\ns1\tnone.wav\tgone\t\tps\ns1\tbroken.wav\tx\t\tps\n\
                 s1\ta.wav\ns1\ta.wav\t \t\tps\n"
            ),
        )
        .file("test.tsv", format!("{header}s2\tb.wav\tدا\t\tps\n"))
        .file("clip_durations.tsv", "clip\tduration[ms]\nb.wav\t504\n");
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::CommonVoice);
    let prepared = folder.prepare(&as_is());
    assert_eq!(shown(&prepared, Split::Train), [row("a", "He said \"yes", 250, "s1", "ps")]);
    assert_eq!(shown(&prepared, Split::Test), [row("b", "دا", 504, "s2", "ps")]);
    assert!(!prepared.splits.contains_key(&Split::Dev));
    let extra = prepared.splits[&Split::Train][0].extra.clone().expect("kept");
    assert_eq!(extra["gender"], "female");
    let rejected = rejections(&prepared);
    assert_eq!(rejected.len(), 4, "{rejected:?}");
    for (line, words) in [
        ("3", "no such recording"),
        ("4", "broken.wav: unsupported audio"),
        ("5", "2 columns where the header has 5"),
        ("6", "`text` is empty"),
    ] {
        assert!(
            rejected.iter().any(|row| row.starts_with(line) && row.contains(words)),
            "{words}: {rejected:?}"
        );
    }
}

#[test]
fn common_voice_without_a_training_table_takes_what_is_validated_and_not_held_out() {
    let folder = Folder::new();
    let header = "client_id\tpath\tsentence\n";
    for name in ["a", "b", "c", "d"] {
        folder.wav(&format!("ps/clips/{name}.wav"), 100);
    }
    let rows = "s1\ta.wav\tone\ns2\tb.wav\ttwo\ns1\tc.wav\tthree\ns3\td.wav\tone\n";
    folder
        .file("ps/validated.tsv", format!("{header}{rows}"))
        .file("ps/test.tsv", format!("{header}s1\ta.wav\tone\n"));
    let options = Options { language: Some("ps".to_owned()), ..as_is() };
    let prepared = folder.prepare(&options);
    assert_eq!(shown(&prepared, Split::Train), [row("b", "two", 100, "s2", "ps")]);
    assert!(prepared.notes[0].contains("train.tsv"), "{:?}", prepared.notes);
    folder.wav("en/clips/a.wav", 100).file("en/validated.tsv", format!("{header}s\ta.wav\tx\n"));
    let message = folder.refuse(&as_is());
    assert!(message.contains("holds en, ps") && message.contains("--language"), "{message}");
    assert_eq!(folder.prepare(&options).splits[&Split::Train].len(), 1);
    let message = folder.refuse(&Options { language: Some("fr".to_owned()), ..as_is() });
    assert!(message.contains("no language fr"), "{message}");
}

#[test]
fn audiofolders_are_read_with_tables() {
    let folder = Folder::new();
    folder
        .wav("train/a.wav", 100)
        .wav("train/sub/a.wav", 200)
        .wav("train/unused.wav", 100)
        .wav("validation/b.wav", 300)
        .file(
            "train/metadata.csv",
            "file_name,transcription,speaker_id,mood\na.wav,\"one, \"\"two\"\"\",7,glad\nsub/a.wav,three,8,\nnone.wav,x,8,\n\
             a.wav,,8,\n",
        )
        .file("validation/metadata.jsonl", "{\"file_name\": \"b.wav\", \"sentence\": \"four\", \"language\": \"ps\"}\n{\n");
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::AudioFolder);
    let prepared = folder.prepare(&Options { language: Some("en".to_owned()), ..as_is() });
    assert_eq!(
        shown(&prepared, Split::Train),
        [row("train/a", "one, \"two\"", 100, "7", "en"), row("train/sub/a", "three", 200, "8", "en")]
    );
    assert_eq!(shown(&prepared, Split::Dev), [row("validation/b", "four", 300, "-", "ps")]);
    assert_eq!(prepared.splits[&Split::Train][0].extra.clone().expect("kept")["mood"], "glad");
    let rejected = rejections(&prepared);
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    assert!(rejected.iter().any(|row| row.starts_with("5 `text` is empty")), "{rejected:?}");
}

#[test]
fn audiofolders_are_read_with_texts_beside_and_split_columns() {
    let folder = Folder::new();
    folder
        .wav("test/a.wav", 100)
        .file("test/a.txt", "one\n  two\n")
        .wav("b.wav", 100)
        .file("b.txt", "three")
        .wav("c.wav", 100);
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::AudioFolder);
    let prepared = folder.prepare(&as_is());
    assert_eq!(shown(&prepared, Split::Test), [row("test/a", "one two", 100, "-", "-")]);
    assert_eq!(shown(&prepared, Split::Train), [row("b", "three", 100, "-", "-")]);
    assert_eq!(prepared.rejected[0].reason.kind(), "no transcript");

    let folder = Folder::new();
    folder.wav("a.wav", 100).file("metadata.tsv", "file_name\ttext\tsplit\tduration\na.wav\tx\ttest\t0.1\n");
    let prepared = folder.prepare(&as_is());
    assert_eq!(shown(&prepared, Split::Test), [row("a", "x", 100, "-", "-")]);

    // Excel's mark of UTF-8, and a recording elsewhere, in a folder whose name means nothing here.
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    elsewhere.wav("test/b.wav", 200);
    let outside = elsewhere.path().join("test/b.wav");
    let table = format!("\u{feff}file_name,text\r\na.wav,x\r\n{},y\r\n", outside.display());
    folder.wav("a.wav", 100).file("metadata.csv", table);
    let prepared = folder.prepare(&as_is());
    let id = outside.with_extension("").display().to_string();
    assert_eq!(shown(&prepared, Split::Train), [row("a", "x", 100, "-", "-"), row(&id, "y", 200, "-", "-")]);

    // Tables of other names, each a split, beside one that speaks of no recordings.
    let folder = Folder::new();
    folder
        .wav("a.wav", 100)
        .wav("b.wav", 200)
        .file("train.csv", "path,sentence\na.wav,x\n")
        .file("test.tsv", "path\ttext\nb.wav\ty\n")
        .file("speakers.csv", "speaker,age\n7,40\n");
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::AudioFolder);
    let prepared = folder.prepare(&as_is());
    assert_eq!(shown(&prepared, Split::Train), [row("a", "x", 100, "-", "-")]);
    assert_eq!(shown(&prepared, Split::Test), [row("b", "y", 200, "-", "-")]);

    // The first column that says something counts, and `null` says nothing.
    let folder = Folder::new();
    folder.wav("a.wav", 100).wav("b.wav", 200).file(
        "metadata.jsonl",
        "{\"file_name\": \"a.wav\", \"transcription\": \"one\", \"text\": \"other\"}\n\
         {\"file_name\": \"b.wav\", \"transcription\": null, \"text\": \"two\", \"id\": null, \"speaker_id\": 7}\n\
         {\"text\": \"three\"}\n",
    );
    let prepared = folder.prepare(&as_is());
    assert_eq!(
        shown(&prepared, Split::Train),
        [row("a", "one", 100, "-", "-"), row("b", "two", 200, "7", "-")]
    );
    assert_eq!(rejections(&prepared), ["3 no `file_name`"]);

    for (name, contents, words) in [
        ("metadata.csv", "file_name,words\na.wav,x\n", "no column `transcription`"),
        ("metadata.csv", "", "is empty"),
        ("metadata.parquet", "PAR1", "Parquet is not read,"),
    ] {
        let folder = Folder::new();
        folder.file(name, contents);
        let message = folder.refuse(&Options { layout: Some(Layout::AudioFolder), ..as_is() });
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn kaldi_directories_are_read_with_segments_and_without() {
    let folder = Folder::new();
    folder
        .wav("audio/a.wav", 1000)
        .wav("audio/b.wav", 300)
        .file("data/train/wav.scp", "rec-a audio/a.wav\nrec-x sox x.wav -t wav - |\nrec-y feats.ark:12\n")
        .file(
            "data/train/segments",
            "u1 rec-a 0.1 0.35\nu2 rec-a 0.5 -1\nu3 rec-x 0 1\nu4 rec-a 3 2\nu5 rec-y 0 1\n\
             u7 rec-z 0 1\nu8 rec-a 0 0.5\n",
        )
        .file("data/train/text", "u1  one  two\nu2 three\nu3 x\nu4 x\nu5 x\nu6 x\nu7 x\n")
        .file("data/train/utt2spk", "u1 s1\nu2 s2\n")
        .file("data/dev/wav.scp", "b audio/b.wav\nc audio/none.wav\n")
        .file("data/dev/text", "b څلور\nc x\n")
        .file("data/dev/reco2file_and_channel", "b b A\n")
        .file("data/dev/utt2lang", "b ps\n");
    let path = folder.path().join("data");
    assert_eq!(Layout::detect(&path).expect("detected"), Layout::Kaldi);
    let prepared = prepare(&path, &as_is(), &|_, _| {}).expect("prepared");
    assert_eq!(
        shown(&prepared, Split::Train),
        [row("u1", "one  two", 250, "s1", "-"), row("u2", "three", 500, "s2", "-")]
    );
    assert_eq!(shown(&prepared, Split::Dev), [row("b", "څلور", 300, "-", "ps")]);
    assert_eq!(prepared.splits[&Split::Dev][0].channel, Some(0));
    let rejected = rejections(&prepared).join("\n");
    for part in [
        "3 `sox x.wav -t wav - |` is a command",
        "4 not a row: `rec-a 3 2`",
        "5 `feats.ark:12` lies in an archive",
        "6 no line of `segments` for u6",
        "7 no such recording: rec-z is not in wav.scp",
        "2 no such recording",
    ] {
        assert!(rejected.contains(part), "{part}: {rejected}");
    }
    assert_eq!(prepared.notes.len(), 1, "{:?}", prepared.notes);
    assert!(prepared.notes[0].ends_with("left out: 1."), "{:?}", prepared.notes);
}

/// A tar of files.
fn shard(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, name, contents.as_slice()).expect("written");
    }
    archive.into_inner().expect("a tar")
}

#[test]
fn shards_of_webdataset_are_unpacked() {
    let wav = |millis: usize| {
        let samples = vec![0.25; millis * 8];
        wav_bytes(&Waveform { samples, sample_rate: 8_000 }).expect("a WAV")
    };
    let folder = Folder::new();
    let train = shard(&[
        ("a/0001.wav", wav(100)),
        ("a/0001.txt", b" one\ntwo ".to_vec()),
        (
            "a/0002.json",
            br#"{"sentence": "three", "speaker": "s", "path": "elsewhere.wav", "audio_file_name": "other.wav"}"#.to_vec(),
        ),
        ("a/0002.wav", wav(200)),
        ("a/0003.txt", b"no recording".to_vec()),
        ("a/0004.wav", wav(100)),
        ("a/0004.json", b"{".to_vec()),
        ("a/0005.wav", wav(100)),
    ]);
    let cut_off = train[..train.len() - 3000].to_vec();
    let dev = shard(&[("b.extra.wav", wav(300)), ("b.txt", "څلور".as_bytes().to_vec())]);
    folder.file("train-000.tar", train).file("train-001.tar", cut_off).file("dev-000.tar", dev);
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::WebDataset);
    let message = folder.refuse(&as_is());
    assert!(message.contains("import it into a folder"), "{message}");
    let out = Folder::new();
    let options = Options { unpack_into: Some(out.path().join("audio")), ..as_is() };
    let prepared = folder.prepare(&options);
    let train = shown(&prepared, Split::Train);
    assert_eq!(
        train[..2],
        [row("train-000/a/0001", "one two", 100, "-", "-"), row("train-000/a/0002", "three", 200, "s", "-")]
    );
    assert_eq!(shown(&prepared, Split::Dev), [row("dev-000/b", "څلور", 300, "-", "-")]);
    assert!(prepared.splits[&Split::Dev][0].audio.starts_with(out.path()));
    let rejected = rejections(&prepared).join("\n");
    for part in ["a/0003 has no recording", "a/0004: EOF", "`text`", "a/0005.wav: breaks off after"] {
        assert!(rejected.contains(part), "{part}: {rejected}");
    }
}

/// `tests/oracle/parquet_corpus.py`.
#[cfg(feature = "parquet")]
#[test]
fn parquet_with_recordings_inside_is_unpacked() {
    let (folder, out) = (Folder::new(), Folder::new());
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parquet/train-00000-of-00001.parquet");
    folder.file("default/train-00000-of-00001.parquet", fs::read(fixture).expect("a fixture"));
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::Parquet);
    let prepared = folder.prepare(&Options { unpack_into: Some(out.path()), ..as_is() });
    let name = |line: u32| format!("default/train-00000-of-00001/{line}");
    assert_eq!(
        shown(&prepared, Split::Train),
        [row(&name(1), "one two", 100, "s1", "en"), row(&name(2), "درې", 200, "s2", "ps")]
    );
    assert!(rejections(&prepared)[0].contains("recordings elsewhere are not fetched"));
    let message = folder
        .file("default/broken.parquet", "PAR1")
        .refuse(&Options { unpack_into: Some(out.path()), ..as_is() });
    assert!(message.contains("broken.parquet"), "{message}");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_says_how_it_would_be_read() {
    let folder = Folder::new();
    folder.file("a.parquet", "PAR1");
    let message = folder.refuse(&Options { layout: Some(Layout::Parquet), ..as_is() });
    assert!(message.contains("--features parquet"), "{message}");
}

#[test]
fn ljspeech_is_read_with_and_without_its_folder() {
    let folder = Folder::new();
    folder
        .wav("wavs/LJ001-0001.wav", 100)
        .wav("x.wav", 100)
        .file("metadata.csv", "LJ001-0001|It's \"1\"|It's \"one\"\nx|two\nnone|three|three\nbroken\n");
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::LjSpeech);
    let prepared = folder.prepare(&as_is());
    assert_eq!(
        shown(&prepared, Split::Train),
        [row("LJ001-0001", "It's \"1\"", 100, "LJ", "en"), row("x", "two", 100, "-", "-")]
    );
    let extra = prepared.splits[&Split::Train][0].extra.clone().expect("kept");
    assert_eq!(extra["normalized_text"], "It's \"one\"");
    let rejected = rejections(&prepared);
    assert!(
        rejected[0].starts_with("3 no such recording") && rejected[1].starts_with("4 not a row: 1 columns"),
        "{rejected:?}"
    );
}

#[test]
fn the_digits_are_read_by_their_names() {
    let folder = Folder::new();
    folder
        .wav("recordings/3_theo_4.wav", 100)
        .wav("recordings/3_theo_5.wav", 100)
        .wav("recordings/3_theo_7.wav", 100)
        .wav("recordings/9_ann_17.wav", 100)
        .wav("recordings/other.wav", 100);
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::Fsdd);
    let prepared = folder.prepare(&as_is());
    let shown_as = |id: &str, text: &str, speaker: &str| row(id, text, 100, speaker, "en");
    assert_eq!(shown(&prepared, Split::Test), [shown_as("3_theo_4", "three", "theo")]);
    assert_eq!(shown(&prepared, Split::Dev), [shown_as("3_theo_5", "three", "theo")]);
    assert_eq!(
        shown(&prepared, Split::Train),
        [shown_as("3_theo_7", "three", "theo"), shown_as("9_ann_17", "nine", "ann")]
    );
    assert!(rejections(&prepared)[0].contains("digit_speaker_index"));
}

#[test]
fn sounds_have_labels_and_no_words() {
    let folder = Folder::new();
    folder
        .wav("001 - Dog bark/1-100-A.wav", 100)
        .wav("001 - Dog bark/4-101-A.wav", 100)
        .wav("002 - Rain/5-102-B.wav", 100)
        .wav("002 - Rain/rain.wav", 100)
        .wav("other/1-103-A.wav", 100);
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::Esc);
    let prepared = folder.prepare(&as_is());
    assert_eq!(shown(&prepared, Split::Train), [row("1-100-A", "", 100, "100", "-")]);
    assert_eq!(shown(&prepared, Split::Test), [row("4-101-A", "", 100, "101", "-")]);
    assert_eq!(shown(&prepared, Split::Dev), [row("5-102-B", "", 100, "102", "-")]);
    let label = |split| prepared.splits[&split][0].extra.as_ref().map(|extra| extra["label"].clone());
    assert_eq!([label(Split::Train), label(Split::Dev)], [Some("dog bark".into()), Some("rain".into())]);
    assert!(rejections(&prepared)[0].contains("fold-clip-take"), "{:?}", rejections(&prepared));
    // Others number their folders, too.
    let book = Folder::new();
    book.wav("001 - Chapter/a.wav", 100).file("metadata.csv", "file_name,text\n001 - Chapter/a.wav,said\n");
    assert_eq!(Layout::detect(&book.path()).expect("detected"), Layout::AudioFolder);
}

#[test]
fn a_speaker_is_left_out_of_everything_but_the_test_set() {
    let folder = Folder::new();
    for speaker in ["theo", "ann"] {
        for index in [0, 5, 9] {
            folder.wav(&format!("recordings/1_{speaker}_{index}.wav"), 100);
        }
    }
    let leave_out = |name: &str| Options { leave_out_speaker: Some(name.to_owned()), ..as_is() };
    let prepared = folder.prepare(&leave_out("theo"));
    let ids = |split| -> Vec<_> { prepared.splits[&split].iter().map(|cut| cut.id.to_string()).collect() };
    assert_eq!(
        Split::ALL.map(ids),
        [vec!["1_ann_9"], vec!["1_ann_5"], vec!["1_theo_0", "1_theo_5", "1_theo_9"]]
    );
    assert_eq!(
        prepared.notes,
        ["1 recordings of other speakers in the test set were left out: it is theo's alone."]
    );
    let message = folder.refuse(&leave_out("bob"));
    assert!(message.contains("no speaker bob") && message.contains("ann, theo"), "{message}");
    let nameless = Folder::new();
    nameless.wav("a.wav", 100).file("a.txt", "x");
    assert!(nameless.refuse(&leave_out("bob")).contains("names no speakers"));
}

#[test]
fn manifests_are_read_measured_where_needed_and_counted_from_where_told() {
    let folder = Folder::new();
    folder
        .wav("audio/a.wav", 500)
        .file(
            "train_manifest.json",
            "{\"audio_filepath\": \"audio/a.wav\", \"text\": \"x\"}\n\
             {\"audio_filepath\": \"audio/a.wav\", \"text\": \"y\", \"offset\": 0.1}\n\
             {\"audio_filepath\": \"audio/a.wav\", \"text\": \"z\", \"offset\": 0.6}\n",
        )
        .file("config.json", "{}");
    let prepared = folder.prepare(&as_is());
    let spans: Vec<_> =
        prepared.splits[&Split::Train].iter().map(|cut| (cut.start_secs, cut.duration_secs)).collect();
    assert_eq!((prepared.layout, spans), (Layout::Jsonl, vec![(0.0, 0.5), (0.1, 0.4)]));
    assert!(rejections(&prepared)[0].contains("`offset`: 0.6 is not a time within its recording"));

    // Splits are named anywhere before the extension.
    let named = Folder::new();
    named.wav("a.wav", 100);
    for name in ["corpus.train.jsonl", "corpus.v2.dev.jsonl.gz", "Corpus.Test.JSONL"] {
        named.file(name, "{\"audio_filepath\": \"a.wav\", \"text\": \"x\"}\n");
    }
    let prepared = named.prepare(&as_is());
    assert_eq!(prepared.splits.keys().copied().collect::<Vec<_>>(), Split::ALL);

    let manifest = folder.path().join("manifests/cuts.jsonl");
    folder.file("manifests/cuts.jsonl", "{\"audio_filepath\": \"audio/a.wav\", \"text\": \"x\"}\n");
    let message = prepare(&manifest, &as_is(), &|_, _| {}).expect_err("elsewhere").to_string();
    assert!(message.contains("none of its 1 rows") && message.contains("manifests/audio/a.wav"), "{message}");
    let options = Options { audio_root: Some(folder.path()), ..as_is() };
    assert_eq!(prepare(&manifest, &options, &|_, _| {}).expect("there").splits[&Split::Train].len(), 1);
}

#[test]
fn manifests_of_texts_are_a_part_of_their_own() {
    let folder = Folder::new();
    let pair = |id: &str, text: &str| {
        format!("{{\"id\": \"{id}\", \"text\": \"{text}\", \"answer\": \"یو\", \"target_lang\": \"ps\"}}\n")
    };
    let heard = "{\"audio_filepath\": \"a.wav\", \"text\": \"x\"}\n";
    folder
        .wav("a.wav", 100)
        .file("train.jsonl", heard.to_owned() + &pair("alone", "one"))
        .file("text.jsonl", pair("a", "one") + &pair("b", " ") + "{\"text\": \"x\"}\n");
    let options = Options { language: Some("en".to_owned()), ..as_is() };
    let prepared = folder.prepare(&options);
    let counts: Vec<_> = prepared.splits.iter().map(|(split, cuts)| (*split, cuts.len())).collect();
    assert_eq!(counts, [(Split::Train, 1), (Split::Text, 1)]);
    let cut = &prepared.splits[&Split::Text][0];
    assert!(!cut.has_audio() && cut.duration_secs == 0.0, "{cut:?}");
    assert_eq!((&*cut.id, cut.language.as_deref()), ("a", Some("en")));
    let rejected = rejections(&prepared).join("\n");
    assert_eq!(prepared.rejected.len(), 3, "{rejected}");
    for part in ["no `audio_filepath`", "`text` is empty", "and no `id`"] {
        assert!(rejected.contains(part), "{part}: {rejected}");
    }

    // They stay where recordings take the place of others, unless they are replaced themselves.
    let out = folder.path().join("data");
    write(&prepared.splits, &[], &out, false).expect("written");
    let mut splits = prepared.splits.clone();
    splits.remove(&Split::Text);
    fs::remove_file(out.join("train.jsonl")).expect("removed");
    write(&splits, &[], &out, false).expect("texts are not in its way");
    write(&splits, &[], &out, true).expect("written");
    assert!(out.join("text.jsonl").is_file());
    fs::remove_file(out.join("train.jsonl")).expect("removed");
    let message = write(&prepared.splits, &[], &out, false).expect_err("there").to_string();
    assert!(message.contains("text.jsonl: is there already"), "{message}");
}

#[test]
fn an_unknown_folder_lists_the_layouts() {
    let folder = Folder::new();
    folder.file("notes.md", "x");
    let message = folder.refuse(&as_is());
    assert!(Layout::ALL.iter().all(|layout| message.contains(layout.name())), "{message}");
    let message =
        prepare(&folder.path().join("none"), &as_is(), &|_, _| {}).expect_err("missing").to_string();
    assert!(message.contains("no such file"), "{message}");
    let message = folder.refuse(&Options { layout: Some(Layout::Jsonl), ..as_is() });
    assert!(message.contains("no manifests"), "{message}");
    folder.wav("a.wav", 100).file("a.txt", "x");
    let message = folder.refuse(&Options { audio_root: Some(folder.path()), ..as_is() });
    assert!(message.contains("audiofolder count from its own folder"), "{message}");
}

/// A corpus of so many speakers with ten recordings of a tenth of a second each.
fn speakers(n_speakers: usize) -> Folder {
    let folder = Folder::new();
    let mut table = "file_name,text,speaker\n".to_owned();
    for speaker in 0..n_speakers {
        for index in 0..10 {
            table += &format!("{speaker}_{index}.wav,x,s{speaker}\n");
            folder.wav(&format!("{speaker}_{index}.wav"), 100);
        }
    }
    folder.file("metadata.csv", table);
    folder
}

#[test]
fn missing_splits_take_whole_speakers_where_there_are_enough() {
    let prepared =
        speakers(30).prepare(&Options { dev_fraction: 0.1, test_fraction: 0.2, ..Options::default() });
    let of =
        |split| prepared.splits[&split].iter().filter_map(|cut| cut.speaker.clone()).collect::<BTreeSet<_>>();
    let [train, dev, test] = Split::ALL.map(of);
    assert_eq!((train.len(), dev.len(), test.len()), (21, 3, 6));
    assert!(train.is_disjoint(&dev) && train.is_disjoint(&test) && dev.is_disjoint(&test));
    assert_eq!(prepared.splits.values().map(Vec::len).sum::<usize>(), 300);
    assert!(prepared.notes.iter().all(|note| note.contains("speakers of their own")), "{:?}", prepared.notes);

    // Few speakers stay, and recordings go.
    let prepared = speakers(3).prepare(&Options::default());
    assert_eq!(Split::ALL.map(|split| prepared.splits[&split].len()), [26, 2, 2]);
    assert!(prepared.notes.iter().all(|note| note.contains("too few")), "{:?}", prepared.notes);

    // Names alone decide, so that a corpus that grows keeps its splits.
    let ids = |prepared: &Prepared| {
        prepared.splits[&Split::Test].iter().map(|cut| cut.id.clone()).collect::<Vec<_>>()
    };
    let again = speakers(3).prepare(&Options::default());
    assert_eq!(ids(&prepared), ids(&again));

    let one = Folder::new();
    one.wav("a.wav", 100).file("a.txt", "x");
    let prepared = one.prepare(&Options::default());
    assert_eq!(prepared.splits.keys().copied().collect::<Vec<_>>(), [Split::Train]);
    assert!(prepared.notes[0].contains("too little"), "{:?}", prepared.notes);
}

#[test]
fn cuts_that_name_no_speaker_stay_in_train_where_whole_speakers_go() {
    let folder = speakers(30);
    let table = fs::read_to_string(folder.path().join("metadata.csv")).expect("a table");
    folder.wav("unnamed.wav", 100).file("metadata.csv", table + "unnamed.wav,x,\n");
    let prepared = folder.prepare(&Options { dev_fraction: 0.1, test_fraction: 0.2, ..Options::default() });
    let of = |split| prepared.splits[&split].iter().map(|cut| cut.speaker.clone()).collect::<BTreeSet<_>>();
    let [train, dev, test] = Split::ALL.map(of);
    assert!(train.contains(&None) && train.is_disjoint(&dev) && train.is_disjoint(&test));
    assert!(dev.is_disjoint(&test) && !dev.is_empty() && !test.is_empty());
    for split in ["dev", "test"] {
        let words = format!("those who speak in {split} may");
        let is_told =
            |note: &String| note.starts_with("1 cuts that name no speaker") && note.contains(&words);
        assert!(prepared.notes.iter().any(is_told), "{:?}", prepared.notes);
    }
}

#[test]
fn a_split_that_the_corpus_has_is_not_made_anew_when_none_of_it_can_be_used() {
    let folder = Folder::new();
    let mut table = "file_name,text,speaker,split\n".to_owned();
    for index in 0..30 {
        folder.wav(&format!("{index}.wav"), 100);
        table += &format!("{index}.wav,x,ann,train\n");
    }
    folder.file("metadata.csv", table + "none.wav,x,bob,test\n");
    let options = Options::default();
    let prepared = folder.prepare(&options);
    assert_eq!(prepared.splits.keys().copied().collect::<Vec<_>>(), [Split::Train, Split::Dev]);
    let is_told = |prepared: &Prepared| {
        prepared.notes.iter().any(|note| note.starts_with("No test set: the corpus has"))
    };
    assert!(is_told(&prepared), "{:?}", prepared.notes);
    let message = folder.refuse(&Options { leave_out_speaker: Some("bob".to_owned()), ..options.clone() });
    assert!(
        message.contains("speaker bob cannot be left out")
            && message.contains("metadata.csv:32: no such recording"),
        "{message}"
    );

    // Rows that are wrong themselves.
    let folder = Folder::new();
    let good = "{\"audio_filepath\": \"a.wav\", \"text\": \"x\"}\n";
    folder.wav("a.wav", 100).file("train.jsonl", good).file("test.jsonl", good.replace("\"x\"", "\" \""));
    let prepared = folder.prepare(&options);
    assert_eq!(prepared.splits.keys().copied().collect::<Vec<_>>(), [Split::Train]);
    assert!(is_told(&prepared), "{:?}", prepared.notes);
}

#[test]
fn what_is_written_is_read_again_and_nothing_old_is_left() {
    let folder = Folder::new();
    folder.wav("corpus/test/a.wav", 100).file("corpus/test/a.txt", "one");
    folder.wav("corpus/b.wav", 100).file("corpus/b.txt", "two").wav("corpus/c.wav", 100);
    let out = folder.path().join("data");
    let prepare_it = || prepare(&folder.path().join("corpus"), &as_is(), &|_, _| {}).expect("a corpus");
    let prepared = prepare_it();
    let written = write(&prepared.splits, &prepared.rejected, &out, false).expect("written");
    let names = |paths: &[PathBuf]| -> Vec<_> {
        paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
    };
    assert_eq!(names(&written), ["train.jsonl", "test.jsonl", "rejected.tsv"]);
    let needs = Needs { recording: true, ..Needs::default() };
    let manifest = read(&out.join("test.jsonl"), needs).expect("found from there");
    assert_eq!((&*manifest.cuts[0].text, manifest.cuts.len()), ("one", 1));
    let line = fs::read_to_string(out.join("train.jsonl")).expect("read");
    assert_eq!(
        line,
        "{\"id\":\"b\",\"audio_filepath\":\"../corpus/b.wav\",\"duration\":0.1,\"text\":\"two\"}\n"
    );
    let table = fs::read_to_string(out.join(REJECTED_FILE)).expect("read");
    assert!(
        table.starts_with("file\tline\tkind\treason\n") && table.contains("\tno transcript\t"),
        "{table}"
    );

    let message = write(&prepared.splits, &prepared.rejected, &out, false).expect_err("there").to_string();
    assert!(message.contains("--overwrite"), "{message}");
    fs::remove_dir_all(folder.path().join("corpus/test")).expect("removed");
    fs::remove_file(folder.path().join("corpus/c.wav")).expect("removed");
    let again = prepare_it();
    let written = write(&again.splits, &again.rejected, &out, true).expect("written");
    assert_eq!(names(&written), ["train.jsonl"]);
    assert_eq!(fs::read_dir(&out).expect("listed").count(), 1, "the old test set is gone");
}

/// `SPEECHD_DATA`, else `../shared/data`; says so when a corpus is not there.
fn data(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = std::env::var_os("SPEECHD_DATA").map_or(beside, PathBuf::from).join(name);
    if path.is_dir() {
        return Some(path);
    }
    #[expect(clippy::print_stdout, reason = "tests print what they skip")]
    {
        println!("skipped: {} is not there (SPEECHD_DATA says where to look)", path.display());
    }
    None
}

#[test]
fn corpora_at_hand_are_read_whole() {
    for (name, layout, counts) in [
        ("speech/fsdd", Layout::Fsdd, [2150, 100, 250]),
        ("audio-captions/esc10", Layout::Esc, [238, 0, 80]),
        ("speech/ps-synth", Layout::CommonVoice, [1450, 150, 150]),
        ("speech/ljspeech-32", Layout::LjSpeech, [8, 0, 0]),
        ("text/tico19", Layout::ParallelText, [2500, 0, 0]),
    ] {
        let Some(folder) = data(name) else { continue };
        let prepared = prepare(&folder, &as_is(), &|_, _| {}).expect("a corpus");
        assert_eq!((prepared.layout, prepared.rejected.len()), (layout, 0), "{name}");
        let unlisted = prepared.notes.iter().any(|note| note.starts_with("16 recordings are in no table"));
        assert_eq!(unlisted, layout == Layout::LjSpeech, "{name}: {:?}", prepared.notes);
        let found = Split::ALL.map(|split| prepared.splits.get(&split).map_or(0, Vec::len));
        assert_eq!(found, counts, "{name}");
    }
}
