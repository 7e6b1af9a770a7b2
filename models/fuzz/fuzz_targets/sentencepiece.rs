//! Any bytes as a SentencePiece model: a tokenizer that reads and writes, or a typed error.
//! `cargo +nightly fuzz run sentencepiece fuzz/corpus/sentencepiece -- -malloc_limit_mb=512` in `models/`, with
//! `tests/fixtures/sentencepiece/*.model` in the corpus.
//! The stable form of this search is `tests/hostile_bundles.rs`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use models::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_sentencepiece(bytes, Path::new("x.model")) {
        if let Ok(ids) = tokenizer.encode(" hello, <s> \u{ff41} دغه 我\n") {
            let _ = (tokenizer.decode(&ids), tokenizer.split_words(&ids, Some("ps")));
        }
        let _ = (tokenizer.decode(&[0, 1, u32::MAX]), tokenizer.non_speech_tokens(), tokenizer.special("en"));
    }
});
