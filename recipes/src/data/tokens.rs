//! How many tokens a text is, by the unit that a model will write.

use models::Tokenizer;

use crate::text;

/// What counts as a token.
pub enum Tokens {
    /// A character: a Unicode scalar value.
    Chars,
    /// A byte of UTF-8.
    Bytes,
    /// What stands between white space.
    Words,
    /// A token of a model's vocabulary, without the prompt and the end that a model adds.
    Model(Box<Tokenizer>),
}

impl Tokens {
    /// How many tokens a text is.
    ///
    /// # Errors
    /// Text that the vocabulary cannot spell.
    pub fn count(&self, text: &str) -> Result<usize, models::Error> {
        match self {
            Self::Chars => Ok(text.chars().count()),
            Self::Bytes => Ok(text.len()),
            Self::Words => Ok(text::words(text).count()),
            Self::Model(tokenizer) => tokenizer.encode(text).map(|ids| ids.len()),
        }
    }

    /// Whether a character comes back when it is written in tokens: what does not, a model can neither learn nor write. Spaces alone
    /// say nothing: some vocabularies have one before every text, and leave it out at the beginning.
    pub fn can_spell(&self, character: char) -> bool {
        match self {
            _ if character.is_whitespace() => true,
            Self::Chars | Self::Bytes | Self::Words => true,
            Self::Model(tokenizer) => {
                let text = character.to_string();
                let again = tokenizer.encode(&text).and_then(|ids| tokenizer.decode(&ids));
                again.is_ok_and(|again| again.contains(character))
            }
        }
    }

    /// A token's name in a table: "chars", "bytes", "tokens".
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Chars => "chars",
            Self::Bytes => "bytes",
            Self::Words => "words",
            Self::Model(_) => "tokens",
        }
    }
}
