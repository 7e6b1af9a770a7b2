//! Whisper's `BasicTextNormalizer`, for every language but English (openai/whisper, `normalizers/basic.py`).

use regex::Regex;
use unicode_segmentation::UnicodeSegmentation;

use super::characters::{remove_symbols, remove_symbols_and_diacritics, squeeze};

/// Lower case, nothing in brackets, no symbols or punctuation, single spaces.
#[derive(Debug)]
pub struct Basic {
    asides: Asides,
    remove_diacritics: bool,
    split_letters: bool,
}

impl Basic {
    /// `remove_diacritics` decomposes and deletes combining marks; without it they become spaces unless they compose.
    /// `split_letters` puts a space between all extended grapheme clusters.
    pub fn new(remove_diacritics: bool, split_letters: bool) -> Result<Self, regex::Error> {
        Ok(Self { asides: Asides::new()?, remove_diacritics, split_letters })
    }

    /// The normalised text.
    pub fn apply(&self, text: &str) -> String {
        let text = self.asides.remove(&text.to_lowercase());
        let text = if self.remove_diacritics {
            remove_symbols_and_diacritics(&text, "")
        } else {
            remove_symbols(&text)
        };
        let mut text = text.to_lowercase();
        if self.split_letters {
            text = text.graphemes(true).collect::<Vec<_>>().join(" ");
        }
        squeeze(&text)
    }
}

/// What stands in brackets: `[noise]`, `<unk>`, `(laughs)`.
#[derive(Debug)]
pub(super) struct Asides {
    square: Regex,
    round: Regex,
}

impl Asides {
    pub(super) fn new() -> Result<Self, regex::Error> {
        Ok(Self { square: Regex::new(r"[<\[][^>\]]*[>\]]")?, round: Regex::new(r"\([^)]+?\)")? })
    }

    pub(super) fn remove(&self, text: &str) -> String {
        self.round.replace_all(&self.square.replace_all(text, ""), "").into_owned()
    }
}
