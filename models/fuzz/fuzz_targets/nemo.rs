//! Any bytes as a `.nemo` archive: a bundle that opens, or a typed error.
//! `cargo +nightly fuzz run nemo fuzz/corpus/nemo -- -malloc_limit_mb=512` in `models/`, with `tests/fixtures/nemo/*.nemo` in the
//! corpus.
//! The stable form of this search is `tests/hostile_bundles.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::{Bundle, WeightDtype, import_nemo};

fuzz_target!(|bytes: &[u8]| {
    let Ok(dir) = tempfile::tempdir() else { return };
    let (archive, out) = (dir.path().join("x.nemo"), dir.path().join("out"));
    if std::fs::create_dir(&out).is_err() || std::fs::write(&archive, bytes).is_err() {
        return;
    }
    if import_nemo(&archive, &out, WeightDtype::F32).is_ok() {
        assert!(Bundle::open(&out).is_ok());
    }
    // Nothing was written beside the bundle.
    let written = std::fs::read_dir(dir.path()).map(Iterator::count).unwrap_or_default();
    assert_eq!(written, 2);
});
