//! How a vocabulary spells what another one has tokens for.

use std::collections::HashMap;

use crate::special_tokens::SpecialTokens;
use crate::tokenizer::Tokenizer;

/// A vocabulary's tokens of text.
pub(super) struct Spelling<'a> {
    tokenizer: &'a Tokenizer,
    /// By the bytes that they stand for; of several the first.
    ids: HashMap<Vec<u8>, usize>,
    /// Bytes of the longest.
    longest: usize,
}

impl<'a> Spelling<'a> {
    /// That of a model with embeddings of so many tokens.
    pub fn new(tokenizer: &'a Tokenizer, special: &SpecialTokens, n_vocab: usize) -> Self {
        let (mut ids, mut longest) = (HashMap::new(), 0);
        for id in (0..n_vocab as u32).filter(|id| special.is_text(*id)) {
            let bytes = tokenizer.token_bytes(id);
            if !bytes.is_empty() {
                longest = longest.max(bytes.len());
                ids.entry(bytes).or_insert(id as usize);
            }
        }
        Self { tokenizer, ids, longest }
    }

    /// All tokens of text, in order.
    pub fn tokens(&self) -> Vec<usize> {
        let mut tokens: Vec<_> = self.ids.values().copied().collect();
        tokens.sort_unstable();
        tokens
    }

    /// The tokens of some bytes of text, which may begin or end within a character: those that the vocabulary writes it with, else as
    /// few as there are. None where it cannot be spelled.
    pub fn of(&self, bytes: &[u8]) -> Vec<usize> {
        let written = std::str::from_utf8(bytes).ok().and_then(|text| self.tokenizer.encode(text).ok());
        // Some put a space before every text, and what they do not know becomes something else.
        let is_it = |ids: &Vec<u32>| {
            let spelled: Vec<u8> = ids.iter().flat_map(|id| self.tokenizer.token_bytes(*id)).collect();
            spelled == bytes
        };
        match written.filter(is_it) {
            Some(ids) => ids.into_iter().map(|id| id as usize).collect(),
            None => self.fewest(bytes).unwrap_or_default(),
        }
    }

    fn fewest(&self, bytes: &[u8]) -> Option<Vec<usize>> {
        // Up to each place: how many tokens, and the last of them with where it begins.
        let mut best: Vec<Option<(usize, usize, usize)>> = vec![Some((0, 0, 0))];
        for end in 1..=bytes.len() {
            let starts = end.saturating_sub(self.longest)..end;
            let ways = starts.filter_map(|start| {
                let (n, ..) = best[start]?;
                Some((n + 1, start, *self.ids.get(&bytes[start..end])?))
            });
            let way = ways.min();
            best.push(way);
        }
        let (mut tokens, mut end) = (Vec::new(), bytes.len());
        while end > 0 {
            let (_, start, id) = best[end]?;
            tokens.push(id);
            end = start;
        }
        tokens.reverse();
        Some(tokens)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Bundle, Error};

    #[test]
    fn a_part_of_a_word_is_spelled_without_the_space_that_every_text_gets() -> Result<(), Error> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parakeet");
        let bundle = Bundle::open(&path)?;
        let (tokenizer, _, special) = bundle.description().vocabulary()?;
        let spelling = Spelling::new(&tokenizer, &special, bundle.architecture().n_vocab());
        // A space is 1, and letters come after it.
        assert_eq!(spelling.of(b" cab"), [1, 4, 2, 3]);
        assert_eq!(spelling.of(b"cab"), [4, 2, 3]);
        assert!(spelling.of("cظ".as_bytes()).is_empty(), "it has no such letter");
        assert!(spelling.of(b"\xd8").is_empty(), "nor bytes");
        // All but what is unknown, and the blank.
        assert_eq!(spelling.tokens(), (1..29).collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn bytes_within_a_character_are_spelled_by_as_few_tokens_as_there_are() -> Result<(), Error> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/whisper-80");
        let bundle = Bundle::open(&path)?;
        let (tokenizer, _, special) = bundle.description().vocabulary()?;
        let spelling = Spelling::new(&tokenizer, &special, bundle.architecture().n_vocab());
        for bytes in ["\u{68e}".as_bytes(), &[0x8e, b'a', 0xda], b"\xff\xfe"] {
            let ids = spelling.of(bytes);
            let spelled: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id as u32)).collect();
            assert!(spelled == bytes && ids.len() <= bytes.len(), "{ids:?}");
        }
        Ok(())
    }
}
