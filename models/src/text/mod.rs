//! What a synthesiser reads: a text with everything written out that is not spelled as words, clause by clause.
//!
//! A written-out text holds words, one space between two of them, and of all punctuation `.`, `,`, `?` and `!`, each at the end of a
//! word. Every line of it is a paragraph. What no rule knows, such as letters of other scripts, is left as it is: whoever calls knows
//! which letters a model can spell.

mod clause;
mod clean;
mod digits;
mod english;
mod marks;

pub use clause::{Breaks, Clause, Pause};

/// A text as it is spoken, in clauses of at most `max_chars` characters (at least one), none of which is empty.
///
/// `language` is a code such as `en` or `en-GB`. A clause ends with its mark, if it has one; one that is too long is cut between
/// words, and a word that is too long between graphemes.
pub fn clauses(text: &str, language: &str, max_chars: usize, breaks: Breaks) -> Vec<Clause> {
    let spoken = spoken(text, language);
    spoken.lines().flat_map(|paragraph| clause::split(paragraph, max_chars, breaks)).collect()
}

/// A text as it is spoken, a paragraph a line.
///
/// English (`en`) has rules for numbers, dates, times, amounts, units, abbreviations, acronyms and addresses. Pashto (`ps`) reads its
/// digits one by one, whichever digits they are. In other languages digits stay digits.
pub fn spoken(text: &str, language: &str) -> String {
    let code = language.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    let paragraphs = clean::paragraphs(text).into_iter().map(|paragraph| {
        let written = match code.as_str() {
            "en" => english::written_out(&paragraph),
            code => digits::written_out(&paragraph, code),
        };
        marks::settle(&written)
    });
    paragraphs.filter(|paragraph| !paragraph.is_empty()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
