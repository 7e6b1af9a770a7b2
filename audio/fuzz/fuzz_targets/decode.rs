//! Any bytes: audio or a typed error. Start from the fixtures:
//! `cargo +nightly fuzz run decode fuzz/corpus/decode ../tests/fixtures/audio -- -malloc_limit_mb=256` in `audio/`.
//! The stable form of this search is `audio/tests/hostile`.
#![no_main]

use audio::{DecodeAudio, Limits, decode_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_duration_secs: 600.0,
        max_samples_bytes: 64 << 20,
        max_cpu_secs: 5.0,
        ..Limits::default()
    };
    if let Ok(decoded) = decode_bytes(bytes.to_vec(), None, &DecodeAudio { limits, ..DecodeAudio::default() }) {
        assert!(decoded.waveform.samples.iter().all(|sample| sample.is_finite()));
        assert!(decoded.source.duration_secs <= 600.0);
    }
});
