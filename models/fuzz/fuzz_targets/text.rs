//! Any text in clauses: in each language with rules and in one without, none is empty or longer than it may be.
//! `cargo +nightly fuzz run text fuzz/corpus/text` in `models/`, with any texts in the corpus.
//! The stable form of this search is the properties in `src/text/tests.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::text::clauses;

fuzz_target!(|bytes: &[u8]| {
    let Some((max_chars, text)) = bytes.split_first() else { return };
    let (max_chars, text) = (usize::from(*max_chars), String::from_utf8_lossy(text));
    for language in ["en", "ps", "de"] {
        for clause in clauses(&text, language, max_chars) {
            assert!(!clause.text.trim().is_empty());
            assert!(clause.text.chars().count() <= max_chars.max(1));
            assert!(language != "en" || !clause.text.contains(|c: char| c.is_ascii_digit()));
        }
    }
});
