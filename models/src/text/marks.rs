//! Punctuation: of all its marks the four that a model reads.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::clean::is_word;
use super::digits;

/// What a bracket or a dash leaves: a comma where words follow, nothing where none do.
const ASIDE: char = '(';

/// From the weakest to the strongest: where several meet, one stays.
const STRENGTHS: [char; 5] = [ASIDE, ',', '.', '!', '?'];

/// How far behind an ellipsis the text goes on, if it does.
const MAX_GAP: usize = 8;

/// Whether it is one of the marks that stay.
pub(super) fn is_mark(c: char) -> bool {
    c != ASIDE && STRENGTHS.contains(&c)
}

/// What a character is to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Mark(char),
    Letter(char),
    Space,
    Silent,
}

/// A paragraph with `.`, `,`, `?` and `!` behind its words, single spaces between them and no other punctuation, but what belongs to
/// a word: apostrophes, hyphens, a point or a comma within a number. Settling it again changes nothing.
pub(super) fn settle(paragraph: &str) -> String {
    let chars: Vec<char> = paragraph.chars().collect();
    let mut settled = String::with_capacity(paragraph.len());
    let (mut mark, mut is_spaced) = (None, false);
    let mut at = 0;
    while at < chars.len() {
        let (role, taken) = role(&chars, at);
        match role {
            Role::Mark(next) => mark = Some(mark.map_or(next, |mark| stronger(mark, next))),
            Role::Space => is_spaced = true,
            Role::Silent => {}
            Role::Letter(c) => {
                if !settled.is_empty() {
                    is_spaced |= mark.is_some();
                    settled.extend(mark.map(|mark| if mark == ASIDE { ',' } else { mark }));
                    settled.extend(is_spaced.then_some(' '));
                }
                settled.push(c);
                (mark, is_spaced) = (None, false);
            }
        }
        at += taken;
    }
    if !settled.is_empty() {
        settled.extend(mark.filter(|mark| *mark != ASIDE));
    }
    settled
}

fn stronger(one: char, other: char) -> char {
    let strength = |mark| STRENGTHS.iter().position(|c| *c == mark);
    if strength(other) > strength(one) { other } else { one }
}

/// The role of the character at `at`, and how many characters have it.
fn role(chars: &[char], at: usize) -> (Role, usize) {
    let c = chars[at];
    let behind = at.checked_sub(1).map(|at| chars[at]);
    let ahead = chars.get(at + 1).copied();
    let is_word_ahead = ahead.is_some_and(is_word);
    let is_within = behind.is_some_and(is_word) && is_word_ahead;
    let is_between_digits = [behind, ahead].iter().all(|side| side.and_then(digits::value).is_some());
    // Only what is then passed over as a whole is counted.
    let run = match c {
        '.' | '-' | '\'' => chars[at..].iter().take_while(|next| **next == c).count(),
        _ => 1,
    };
    let role = match c {
        c if c.is_whitespace() => Role::Space,
        c if is_word(c) => Role::Letter(c),
        '.' if run > 1 => return (Role::Mark(ellipsis(&chars[at + run..])), run),
        '.' if is_within && is_inside_word(&chars[..at], ahead) => Role::Letter('.'),
        ',' | ':' if is_between_digits => Role::Letter(c),
        '.' | '!' | '?' => Role::Mark(c),
        ',' | ';' | ':' => Role::Mark(','),
        '-' if run > 1 => return (Role::Mark(ASIDE), run),
        '-' | '–' if is_within => Role::Letter('-'),
        // A sign.
        '-' | '−' if ahead.is_some_and(char::is_numeric) => Role::Letter('-'),
        '-' if is_apart(behind) && is_apart(ahead) => Role::Mark(ASIDE),
        '-' | '−' => Role::Space,
        '–' | '—' | '•' | '|' => Role::Mark(ASIDE),
        '\'' | '·' | '/' if is_within => Role::Letter(c),
        // Several are quotes; one is no gap between letters.
        '\'' if run > 1 => return (Role::Space, run),
        '\'' => Role::Silent,
        '#' | '@' if is_word_ahead => Role::Letter(c),
        '&' | '%' => Role::Letter(c),
        // Marks of writing alone: of emphasis, quotation, programs.
        '*' | '_' | '~' | '^' | '<' | '>' | '\\' | '#' | '@' | '"' => Role::Space,
        c => other(c, is_within),
    };
    (role, 1)
}

fn other(c: char, is_within: bool) -> Role {
    match (c.general_category(), c.general_category_group()) {
        // `word(s)`.
        (GeneralCategory::OpenPunctuation | GeneralCategory::ClosePunctuation, _) if is_within => Role::Space,
        (GeneralCategory::OpenPunctuation | GeneralCategory::ClosePunctuation, _) => Role::Mark(ASIDE),
        // Scripts have signs of their own within words.
        (GeneralCategory::OtherPunctuation, _) if is_within && !c.is_ascii() => Role::Letter(c),
        (_, GeneralCategoryGroup::Punctuation) => Role::Space,
        _ => Role::Letter(c),
    }
}

fn is_apart(side: Option<char>) -> bool {
    side.is_none_or(char::is_whitespace)
}

/// The mark that an ellipsis stands for, by how the text goes on.
fn ellipsis(rest: &[char]) -> char {
    let next = rest.iter().take(MAX_GAP).find(|c| is_word(**c));
    if next.is_some_and(|c| c.is_lowercase()) { ',' } else { '.' }
}

/// Whether a point between two letters or digits is part of a word, as in `3.14`, `z.B.` and `example.com`, and not of a sentence
/// without the space behind it.
fn is_inside_word(behind: &[char], ahead: Option<char>) -> bool {
    let is_long = behind.iter().rev().take(2).filter(|c| c.is_alphabetic()).count() == 2;
    ahead.is_some_and(|c| c.is_numeric() || c.is_lowercase() || (c.is_uppercase() && !is_long))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_all_punctuation_four_marks_stay() {
        for (text, settled) in [
            ("One; two: three - four -- five—six", "One, two, three, four, five, six"),
            ("He left (finally). \"Why?\" (Nobody knows)", "He left, finally. Why? Nobody knows"),
            ("What?! No!!! Wait... what? So... Yes...", "What? No! Wait, what? So. Yes."),
            ("well-known 'tis don't -dashed ¿que?", "well-known tis don't dashed que?"),
            ("- a bullet", "a bullet"),
            ("# A *title* _here_", "A title here"),
            ("3.14 1,234 10:30 5–10 −5 z.B. end.Next", "3.14 1,234 10:30 5-10 -5 z.B. end. Next"),
            ("50% of R&D @home #tag", "50% of R&D @home #tag"),
            ("(((", ""),
            ("''go''on ab''.C", "go on ab. C"),
            ("col·lecció צה״ל", "col·lecció צה״ל"),
        ] {
            assert_eq!(settle(text), settled, "{text}");
            assert_eq!(settle(settled), settled);
        }
    }

    fn texts() -> impl Strategy<Value = String> {
        let chars: Vec<char> = "abXé09 .,;:?!'\"()-–—−/#@%&…؟*|".chars().collect();
        proptest::collection::vec(proptest::sample::select(chars), 0..24)
            .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn settling_again_changes_nothing(text in texts()) {
            let settled = settle(&text);
            prop_assert_eq!(settle(&settled), settled);
        }
    }
}
