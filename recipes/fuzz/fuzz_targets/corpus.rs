//! Any bytes as the table of a corpus: cuts of recordings that are there, or the reason why not. The first byte says which table.
//! `cargo +nightly fuzz run corpus` in `recipes/`.
//! The stable form of this search is the property in `recipes/src/prepare/tests/damaged.rs`.
#![no_main]

use std::{fs, path::PathBuf, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use recipes::prepare::{Layout, Options, prepare};

const TABLES: [(Layout, &str); 10] = [
    (Layout::CommonVoice, "train.tsv"),
    (Layout::CommonVoice, "clip_durations.tsv"),
    (Layout::AudioFolder, "metadata.csv"),
    (Layout::AudioFolder, "metadata.jsonl"),
    (Layout::LjSpeech, "metadata.csv"),
    (Layout::Kaldi, "wav.scp"),
    (Layout::Kaldi, "text"),
    (Layout::Kaldi, "segments"),
    (Layout::WebDataset, "train.tar"),
    (Layout::ParallelText, "en-ps.tsv"),
];

/// A corpus for each table, in which only the table changes.
fn folder(which: usize) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let root = FOLDER.get_or_init(|| {
        let root = tempfile::tempdir().expect("a folder");
        for which in 0..TABLES.len() {
            let folder = root.path().join(which.to_string());
            let samples = (0..800).map(|index| (index as f32 * 0.3).sin() * 0.5).collect();
            let wav = audio::encode::wav_bytes(&audio::Waveform { samples, sample_rate: 8_000 }).expect("a WAV");
            for place in ["clips", "wavs", "."] {
                fs::create_dir_all(folder.join(place)).expect("a folder");
                fs::write(folder.join(place).join("a.wav"), &wav).expect("written");
            }
            fs::write(folder.join("wav.scp"), "r a.wav\n").expect("written");
            fs::write(folder.join("text"), "r one\nu two\n").expect("written");
            fs::write(folder.join("train.tsv"), "client_id\tpath\tsentence\ns\ta.wav\tx\n").expect("written");
        }
        root
    });
    root.path().join(which.to_string())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, table)) = bytes.split_first() else { return };
    let which = usize::from(*which) % TABLES.len();
    let (layout, name) = TABLES[which];
    let folder = folder(which);
    if fs::write(folder.join(name), table).is_err() {
        return;
    }
    let unpack_into = Some(folder.join("unpacked"));
    let options = Options { layout: Some(layout), unpack_into, ..Options::default() };
    let Ok(prepared) = prepare(&folder, &options, &|_, _| {}) else { return };
    for cut in prepared.splits.values().flatten() {
        if layout == Layout::ParallelText {
            assert!(!cut.has_audio() && !cut.text.trim().is_empty());
        } else {
            assert!(cut.duration_secs > 0.0 && cut.end_secs().is_finite() && cut.audio.is_file());
        }
        assert!(!cut.output_text().trim().is_empty());
    }
});
