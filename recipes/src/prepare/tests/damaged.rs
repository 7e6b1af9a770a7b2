//! Tables that something happened to.

use proptest::prelude::*;

use super::*;

/// Tables in every layout: good rows, and rows with one thing wrong each.
const TABLES: [(Layout, &str, &str); 5] = [
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
        folder.file("train.tsv", TABLES[0].2).file(name, &bytes);
        let options = Options { layout: Some(layout), ..as_is() };
        let Ok(prepared) = prepare(&folder.path(), &options, &|_, _| {}) else { return Ok(()) };
        for cut in prepared.splits.values().flatten() {
            prop_assert!(cut.duration_secs > 0.0 && cut.end_secs().is_finite() && cut.audio.is_file());
            prop_assert!(!cut.output_text().trim().is_empty());
        }
    }
}
