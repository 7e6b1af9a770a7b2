//! Pieces of a text, and the places at which rules read them.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::text::clean::is_joiner;

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lexeme<'a> {
    /// A run of the digits 0 to 9.
    Digits(&'a str),
    /// A run of letters, with the marks on them and the apostrophes between them.
    Word(&'a str),
    /// Any other character.
    Mark(char),
    /// White space, however much.
    Space,
}

use Lexeme::{Digits, Mark, Space, Word};

/// A place in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    lexemes: &'a [Lexeme<'a>],
    at: usize,
    /// Whether the text is in capitals, which then mark nothing.
    pub(super) is_shouted: bool,
}

/// What is read at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// How many lexemes it is.
    pub(super) taken: usize,
    /// What is said; nothing for signs that nobody reads.
    pub(super) words: String,
}

impl Reading {
    pub(super) fn new(taken: usize, words: impl Into<String>) -> Self {
        Self { taken, words: words.into() }
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(lexemes: &'a [Lexeme<'a>], at: usize, is_shouted: bool) -> Self {
        Self { lexemes, at, is_shouted }
    }

    /// What is to be read.
    pub(super) fn ahead(self) -> &'a [Lexeme<'a>] {
        &self.lexemes[self.at..]
    }

    /// What has been read.
    pub(super) fn behind(self) -> &'a [Lexeme<'a>] {
        &self.lexemes[..self.at]
    }

    /// The place `n` lexemes before, or the first.
    pub(super) fn back(self, n: usize) -> Self {
        Self { at: self.at.saturating_sub(n), ..self }
    }

    /// Whether nothing is glued to it in front but an opening mark.
    pub(super) fn begins_chunk(self) -> bool {
        matches!(self.behind(), [] | [.., Space | Mark('(' | '[' | '{' | '<' | '"' | '\'' | '—' | '|')])
    }

    /// The word before a space, or before a dot and a space.
    pub(super) fn word_behind(self) -> Option<&'a str> {
        match self.behind() {
            [.., Word(word), Space] | [.., Word(word), Mark('.'), Space] => Some(word),
            _ => None,
        }
    }
}

/// A paragraph in pieces.
pub(super) fn lexemes(text: &str) -> Vec<Lexeme<'_>> {
    let mut lexemes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            c if c.is_whitespace() => rest.len() - rest.trim_start().len(),
            c if c.is_ascii_digit() => {
                rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len()
            }
            c if is_letter(c) => word_len(rest),
            c => c.len_utf8(),
        };
        let (piece, after) = rest.split_at(len);
        lexemes.push(match c {
            c if c.is_whitespace() => Space,
            c if c.is_ascii_digit() => Digits(piece),
            c if is_letter(c) => Word(piece),
            c => Mark(c),
        });
        rest = after;
    }
    lexemes
}

fn word_len(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let is_apostrophe = c == '\'' && chars.peek().is_some_and(|(_, next)| is_letter(*next));
        if !is_letter(c) && !is_apostrophe {
            return at;
        }
    }
    text.len()
}

/// Letters of all scripts, with what stands on them, and numbers that have no digits.
fn is_letter(c: char) -> bool {
    let is_number = c.is_numeric() && !c.is_ascii_digit() && !matches!(c, '²' | '³');
    c.is_alphabetic() || is_number || is_joiner(c) || c.general_category_group() == GeneralCategoryGroup::Mark
}

/// Whether a word begins with a capital.
pub(super) fn is_capitalised(word: &str) -> bool {
    word.starts_with(char::is_uppercase)
}

/// Whether a word is nothing but capitals of ASCII.
pub(super) fn is_capitals(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Whether a word is nothing but small letters of ASCII.
pub(super) fn is_small(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// `words`, with a capital where `written` has one.
pub(super) fn cased(words: &str, written: &str) -> String {
    let mut chars = words.chars();
    match chars.next() {
        Some(first) if is_capitalised(written) => first.to_uppercase().chain(chars).collect(),
        _ => words.to_owned(),
    }
}

/// Words that begin sentences more often than they follow an abbreviation in one.
const OPENERS: [&str; 44] = [
    "A", "After", "All", "Although", "An", "And", "As", "At", "Because", "Before", "But", "By", "For",
    "From", "He", "Her", "His", "How", "However", "I", "If", "In", "It", "Its", "My", "No", "On", "Our",
    "She", "So", "That", "The", "Their", "Then", "There", "These", "They", "This", "We", "What", "When",
    "Why", "You", "Your",
];

/// Whether the dot of an abbreviation ends the sentence too, by what follows it.
pub(super) fn ends_sentence(rest: &[Lexeme<'_>]) -> bool {
    match rest {
        [] | [Mark('"' | '\'' | ')' | ']')] => true,
        [Space, Word(word), ..]
        | [Space, Mark('"' | '\'' | '('), Word(word), ..]
        | [Mark('"' | '\'' | ')' | ']'), Space, Word(word), ..] => OPENERS.contains(word),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_apostrophes_and_numbers_fall_apart() {
        assert_eq!(
            lexemes("Don't 'pay'  $3.50 né\u{301}"),
            [
                Word("Don't"),
                Space,
                Mark('\''),
                Word("pay"),
                Mark('\''),
                Space,
                Mark('$'),
                Digits("3"),
                Mark('.'),
                Digits("50"),
                Space,
                Word("né\u{301}"),
            ]
        );
        assert_eq!(lexemes("m²"), [Word("m"), Mark('²')]);
        assert_eq!(lexemes(""), []);
    }
}
