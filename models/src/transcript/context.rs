//! What the decoder reads before a window's text: words to expect, and what was said before.

use crate::SpecialTokens;
use crate::tokenizer::Tokenizer;
use crate::{DecodeOptions, Error};

/// Tokens that a request puts before the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Context {
    /// Before the first text of a track, where said text stands later.
    pub prompt: Vec<u32>,
    /// Precedes all texts; absent from vocabularies that cannot be prompted.
    previous: Option<u32>,
    hotwords: Vec<u32>,
    max_tokens: usize,
}

impl Context {
    /// At most `max_tokens` precede a text. Of a prompt that is longer, the end is read (openai/whisper `decoding.py:
    /// _get_initial_tokens`).
    ///
    /// # Errors
    /// What [`check`] refuses, and a prompt that the vocabulary cannot spell.
    pub fn new(
        options: &DecodeOptions,
        tokenizer: &Tokenizer,
        special: &SpecialTokens,
        max_tokens: usize,
    ) -> Result<Self, Error> {
        let hotwords = check(options, tokenizer, special, max_tokens)?;
        let mut prompt =
            given(options.prompt.as_ref()).map_or(Ok(Vec::new()), |text| encode(tokenizer, text))?;
        let room = max_tokens - hotwords.len();
        if let Some(n_unread) = prompt.len().checked_sub(room).filter(|n| *n > 0) {
            tracing::warn!("prompt: of its {} tokens the last {room} are read", prompt.len());
            // Each track begins with a copy of it.
            prompt.drain(..n_unread);
        }
        Ok(Self { prompt, previous: special.previous, hotwords, max_tokens })
    }

    /// Tokens of a window's prompt before the start token: hotwords, then the end of what was said before.
    pub fn before(&self, said: &[u32]) -> Vec<u32> {
        let Some(previous) = self.previous else { return Vec::new() };
        let said = &said[said.len().saturating_sub(self.max_tokens - self.hotwords.len())..];
        if self.hotwords.is_empty() && said.is_empty() {
            return Vec::new();
        }
        [&[previous], self.hotwords.as_slice(), said].concat()
    }
}

/// Refuses what cannot precede a text of which `max_tokens` tell; the tokens of the hotwords, which take half the room at
/// most, are what it finds out. Quick: the prompt is not looked at.
///
/// # Errors
/// Hotwords that take more than half the room; a prompt or hotwords for a vocabulary that cannot be prompted; hotwords that
/// it cannot spell.
pub(crate) fn check(
    options: &DecodeOptions,
    tokenizer: &Tokenizer,
    special: &SpecialTokens,
    max_tokens: usize,
) -> Result<Vec<u32>, Error> {
    let (prompt, hotwords) = (given(options.prompt.as_ref()), given(options.hotwords.as_ref()));
    if special.previous.is_none() {
        for (option, text) in [("prompt", prompt), ("hotwords", hotwords)] {
            if text.is_some() {
                let message =
                    "this model's vocabulary has no <|startofprev|>, which would precede it; leave it out";
                return Err(Error::option(option, message));
            }
        }
    }
    let Some(text) = hotwords else { return Ok(Vec::new()) };
    let (tokens, room) = (encode(tokenizer, text)?, max_tokens / 2);
    if tokens.len() > room {
        let n = tokens.len();
        let message =
            format!("{n} tokens are more than the {room} that this model has room for; leave some out");
        return Err(Error::option("hotwords", message));
    }
    Ok(tokens)
}

/// A text that is more than white space.
fn given(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// The reference encodes with a leading space, as the text would stand in running text.
fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    tokenizer.encode(&format!(" {text}"))
}
