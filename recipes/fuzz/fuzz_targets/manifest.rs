//! Any bytes as a manifest: cuts that can be trained on, or the reason why not; and what is written of them reads as it was.
//! `cargo +nightly fuzz run manifest` in `recipes/`.
//! The stable forms of this search are the properties in `recipes/src/data/manifest/tests.rs`.
#![no_main]

use std::{io::Cursor, path::Path};

use libfuzzer_sys::fuzz_target;
use recipes::data::manifest::{Cut, Needs, Reader, Writer};

fn read(bytes: Vec<u8>, path: &Path) -> Vec<Cut> {
    let needs = Needs { text: false, audio: false, ..Needs::default() };
    let Ok(reader) = Reader::new(Cursor::new(bytes), path, needs) else { return Vec::new() };
    reader.filter_map(Result::ok).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let cuts = read(bytes.to_vec(), Path::new("/data/train.jsonl"));
    for cut in &cuts {
        assert!(cut.start_secs >= 0.0 && cut.end_secs().is_finite());
        assert_eq!(cut.duration_secs > 0.0, cut.has_audio());
    }
    let Ok(dir) = tempfile::tempdir() else { return };
    let path = dir.path().join("train.jsonl");
    let Ok(mut writer) = Writer::create(&path) else { return };
    for cut in &cuts {
        assert!(writer.write(cut).is_ok());
    }
    assert!(writer.finish().is_ok());
    let Ok(written) = std::fs::read(&path) else { return };
    let again = read(written, &path);
    assert_eq!(again.len(), cuts.len());
    for (again, cut) in again.iter().zip(&cuts) {
        assert_eq!((&again.id, &again.text, &again.target_text), (&cut.id, &cut.text, &cut.target_text));
        assert_eq!((&again.extra, again.channel), (&cut.extra, cut.channel));
    }
});
