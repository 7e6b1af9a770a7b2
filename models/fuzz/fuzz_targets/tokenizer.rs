//! Any bytes as tokenizer.json: a tokenizer that reads and writes, or a typed error.
//! `cargo +nightly fuzz run tokenizer fuzz/corpus/tokenizer -- -malloc_limit_mb=512` in `models/`, with
//! `tests/fixtures/whisper-80/tokenizer.json` in the corpus.
//! The stable form of this search is `tests/hostile_bundles.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    let Ok(dir) = tempfile::tempdir() else { return };
    if std::fs::write(dir.path().join("tokenizer.json"), bytes).is_err() {
        return;
    }
    if let Ok(tokenizer) = Tokenizer::open(dir.path()) {
        if let Ok(ids) = tokenizer.encode(" hello, <|0.00|> دغه 我\n") {
            let _ = tokenizer.decode(&ids);
            let words = tokenizer.split_words(&ids, Some("ps"));
            assert!(
                words.is_err()
                    || words.is_ok_and(|words| words.iter().map(|(_, n)| n).sum::<usize>() == ids.len())
            );
        }
        let _ = tokenizer.decode(&[0, 1, u32::MAX]);
        let _ = (tokenizer.language_tokens(), tokenizer.non_speech_tokens(), tokenizer.special("en"));
    }
});
