//! British to American spelling, by the table that Whisper ships (`english.json`, MIT, from
//! <https://www.tysto.com/uk-us-spelling-list.html>).

use std::collections::HashMap;

use crate::text::words;

const TABLE: &str = include_str!("english.json");

#[derive(Debug)]
pub(super) struct Spelling {
    american: HashMap<String, String>,
}

impl Spelling {
    pub(super) fn new() -> Result<Self, serde_json::Error> {
        Ok(Self { american: serde_json::from_str(TABLE)? })
    }

    /// Words joined by single spaces.
    pub(super) fn apply(&self, text: &str) -> String {
        words(text)
            .map(|word| self.american.get(word).map_or(word, String::as_str))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() -> Result<(), serde_json::Error> {
        let spelling = Spelling::new()?;
        assert_eq!(spelling.american.len(), 1739);
        assert_eq!(spelling.apply("  the colour of\tthe cancelation "), "the color of the cancellation");
        Ok(())
    }
}
