//! Any bytes: weights whose header is true, or a typed error. Start from a fixture:
//! `cargo +nightly fuzz run weights fuzz/corpus/weights -- -malloc_limit_mb=256` in `models/`, with
//! `tests/fixtures/whisper-80/model.safetensors` in the corpus.
//! The stable form of this search is `tests/hostile_bundles.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::Weights;

fuzz_target!(|bytes: &[u8]| {
    let Ok(dir) = tempfile::tempdir() else { return };
    let path = dir.path().join("model.safetensors");
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    if let Ok(weights) = Weights::open(dir.path()) {
        assert_eq!(weights.n_bytes(), bytes.len() as u64);
        for (name, shape, _) in weights.tensors() {
            // Values may be refused; reading them must not go beyond the file.
            let _ = weights.read(name, shape, &candle_core::Device::Cpu);
        }
    }
});
