//! Tables that something happened to.

use proptest::prelude::*;

use super::*;

/// Tables in every layout: good rows, and rows with one thing wrong each.
const TABLES: [(Layout, &str, &str); 7] = [
    (
        Layout::CommonVoice,
        "train.tsv",
        "client_id\tpath\tsentence\tlocale\ns\ta.wav\tone\tps\ns\t../a.wav\t\"two\tps\ns\ta.wav\n\ta\t\t\n",
    ),
    (
        Layout::CommonVoice,
        "clip_durations.tsv",
        "clip\tduration[ms]\na.wav\t100\na.wav\t-5\na.wav\tNaN\na.wav\t1e300\n",
    ),
    (
        Layout::AudioFolder,
        "metadata.csv",
        "file_name,text,duration,split\na.wav,\"one, \"\"two\"\"\",0.1,test\na.wav,x,-1,\n,y,,\na.wav,\"open,0.1,dev\n",
    ),
    (
        Layout::AudioFolder,
        "metadata.jsonl",
        "{\"file_name\": \"a.wav\", \"text\": \"x\", \"offset\": 0.05}\n[]\n{\"file_name\": 3}\n",
    ),
    (Layout::LjSpeech, "metadata.csv", "a|one|two\nnone|x|x\na\n|||\n"),
    (Layout::Kaldi, "segments", "u r 0.01 0.09\nr r 0 -1\nx r 1 0\ny z 0 1\n"),
    (Layout::Kaldi, "wav.scp", "r a.wav\nz cat a.wav |\nq x.ark:3\n"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The stable form of `recipes/fuzz`'s `corpus`: tables with bytes changed.
    #[test]
    fn damaged_tables_are_cuts_or_reasons(
        which in 0..TABLES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let (layout, name, table) = TABLES[which];
        let mut bytes = table.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let folder = Folder::new();
        folder.wav("clips/a.wav", 100).wav("wavs/a.wav", 100).wav("a.wav", 100);
        folder.file("wav.scp", "r a.wav\n").file("text", "u one\nr two\nz x\nq x\n");
        folder.file("train.tsv", TABLES[0].2).file(name, &bytes);
        let options = Options { layout: Some(layout), ..as_is() };
        let Ok(prepared) = prepare(&folder.path(), &options, &|_, _| {}) else { return Ok(()) };
        for cut in prepared.splits.values().flatten() {
            prop_assert!(cut.duration_secs > 0.0 && cut.end_secs().is_finite() && cut.audio.is_file());
            prop_assert!(!cut.output_text().trim().is_empty());
        }
    }

    /// The stable form of `recipes/fuzz`'s `corpus`: shards with bytes changed, and cut off.
    #[test]
    fn damaged_shards_are_cuts_or_reasons(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        let wav = wav_bytes(&Waveform { samples: vec![0.25; 800], sample_rate: 8_000 }).expect("a WAV");
        let files = [("a.wav", wav.clone()), ("a.txt", b"one".to_vec()), ("b.json", b"{\"text\": \"x\"}".to_vec()), ("b.wav", wav)];
        let mut bytes = shard(&files);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        let (folder, out) = (Folder::new(), Folder::new());
        folder.file("train.tar", &bytes);
        let options = Options { unpack_into: Some(out.path()), ..as_is() };
        let Ok(prepared) = prepare(&folder.path(), &options, &|_, _| {}) else { return Ok(()) };
        for cut in prepared.splits.values().flatten() {
            prop_assert!(cut.duration_secs > 0.0 && cut.audio.is_file() && cut.audio.starts_with(out.path()));
        }
    }
}
