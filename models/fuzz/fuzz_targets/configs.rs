//! Any JSON in the configuration files of a good bundle: a model or a typed error. The first byte says which file.
//! `cargo +nightly fuzz run configs fuzz/corpus/configs -- -malloc_limit_mb=512` in `models/`, with the fixture's
//! files in the corpus, each after the digit of its place in `FILES`.
//! The stable form of this search is `tests/hostile_bundles.rs`.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use models::{Bundle, Transcriber};

const FILES: [&str; 4] =
    ["config.json", "generation_config.json", "preprocessor_config.json", "model.safetensors.index.json"];

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/whisper-80")
}

fn good(file: &str) -> Option<Vec<u8>> {
    std::fs::read(fixture().join(file)).ok()
}

/// A bundle in which only the file under test changes.
fn dir() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        for file in ["tokenizer.json", "model.safetensors"] {
            std::fs::copy(fixture().join(file), dir.path().join(file)).expect("the fixture");
        }
        dir
    })
    .path()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, text)) = bytes.split_first() else { return };
    let dir = dir();
    let changed = FILES[*which as usize % FILES.len()];
    for file in FILES {
        let path = dir.join(file);
        let _ = std::fs::remove_file(&path);
        let contents = if file == changed { Some(text.to_vec()) } else { good(file) };
        if let Some(contents) = contents
            && std::fs::write(&path, contents).is_err()
        {
            return;
        }
    }
    // The index counts only where there is no single file.
    let (whole, hidden) = (dir.join("model.safetensors"), dir.join("whole.safetensors"));
    let sharded = changed.ends_with("index.json");
    if sharded && std::fs::rename(&whole, &hidden).is_err() {
        return;
    }
    if let Ok(bundle) = Bundle::open(dir) {
        let _ = bundle.languages();
        let _ = Transcriber::load(bundle, &candle_core::Device::Cpu);
    }
    if sharded {
        let _ = std::fs::rename(&hidden, &whole);
    }
});
