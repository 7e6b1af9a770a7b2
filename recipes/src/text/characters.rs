//! Classes of characters as Python has them, since the normalisers and the scores that are published run in Python.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// The class of white space in a pattern: `\s` of Python's `re`.
pub(super) const SPACE: &str = r"[\s\x1c-\x1f]";

/// `str.isspace`: Unicode's white space and the four separators of ASCII.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `str.split`: what stands between white space.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Every run of white space becomes one space, at the ends too.
pub(crate) fn squeeze(text: &str) -> String {
    let mut squeezed = String::with_capacity(text.len());
    for c in text.chars() {
        if !is_space(c) {
            squeezed.push(c);
        } else if !squeezed.ends_with(' ') {
            squeezed.push(' ');
        }
    }
    squeezed
}

/// `\w` of Python's `re`: letters, numbers and the low line, but no marks, unlike Unicode's own definition.
pub(super) fn is_word(c: char) -> bool {
    let group = c.general_category_group();
    c == '_' || matches!(group, GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
}

/// Whether `\b` holds between `text[..at]`, which ends with a word character, and the rest.
pub(super) fn ends_word(text: &str, at: usize) -> bool {
    !text[at..].starts_with(is_word)
}

/// Whether `\b` holds between `text[..at]` and the rest, which begins with a word character.
pub(super) fn begins_word(text: &str, at: usize) -> bool {
    !text[..at].ends_with(is_word)
}

/// The value of a decimal digit of any script.
pub(super) fn digit(c: char) -> Option<u8> {
    let is_digit = |code: u32| {
        char::from_u32(code).is_some_and(|c| c.general_category() == GeneralCategory::DecimalNumber)
    };
    let code = u32::from(c);
    // Digits come in runs of ten from zero to nine, and no two runs touch once compatibility forms are decomposed.
    is_digit(code).then(|| (1..=9).take_while(|n| code.checked_sub(*n).is_some_and(is_digit)).count() as u8)
}

fn is_mark_symbol_or_punctuation(c: char) -> bool {
    matches!(
        c.general_category_group(),
        GeneralCategoryGroup::Mark | GeneralCategoryGroup::Symbol | GeneralCategoryGroup::Punctuation
    )
}

/// Compatibility composition, with a space for every mark, symbol and punctuation.
pub(super) fn remove_symbols(text: &str) -> String {
    text.nfkc().map(|c| if is_mark_symbol_or_punctuation(c) { ' ' } else { c }).collect()
}

/// Compatibility decomposition, without non-spacing marks, with plain letters for those that do not decompose and a
/// space for every other mark, symbol and punctuation but those in `keep`.
pub(super) fn remove_symbols_and_diacritics(text: &str, keep: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.nfkd() {
        if keep.contains(c) {
            clean.push(c);
            continue;
        }
        match c {
            'œ' => clean.push_str("oe"),
            'Œ' => clean.push_str("OE"),
            'ø' => clean.push('o'),
            'Ø' => clean.push('O'),
            'æ' => clean.push_str("ae"),
            'Æ' => clean.push_str("AE"),
            'ß' => clean.push_str("ss"),
            'ẞ' => clean.push_str("SS"),
            'đ' | 'ð' => clean.push('d'),
            'Đ' | 'Ð' => clean.push('D'),
            'þ' | 'Þ' => clean.push_str("th"),
            'ł' => clean.push('l'),
            'Ł' => clean.push('L'),
            c if c.general_category() == GeneralCategory::NonspacingMark => {}
            c if is_mark_symbol_or_punctuation(c) => clean.push(' '),
            c => clean.push(c),
        }
    }
    clean
}

/// A text as somebody writes it who does not care: small letters, no punctuation, single spaces. What belongs to a word stays, as in
/// `don't`, `well-known` and `3.5`, and so do signs that are read aloud.
pub(crate) fn unpunctuated(text: &str) -> String {
    const READ_ALOUD: &str = "%&@#";
    const IN_WORDS: &str = "'’-‐";
    const IN_NUMBERS: &str = ".,:٫٬";
    let chars: Vec<char> = text.chars().collect();
    let group = |at: Option<usize>| {
        at.and_then(|at| chars.get(at))
            .map(|c| c.general_category_group())
            .unwrap_or(GeneralCategoryGroup::Other)
    };
    // Marks are parts of letters.
    let is_word = |at| {
        matches!(
            group(at),
            GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number | GeneralCategoryGroup::Mark
        )
    };
    let is_number = |at| group(at) == GeneralCategoryGroup::Number;
    let kept = chars.iter().enumerate().map(|(at, c)| {
        let (before, after) = (at.checked_sub(1), Some(at + 1));
        let is_inside = (IN_WORDS.contains(*c) && is_word(before) && is_word(after))
            || (IN_NUMBERS.contains(*c) && is_number(before) && is_number(after));
        let is_punctuation = group(Some(at)) == GeneralCategoryGroup::Punctuation;
        if is_punctuation && !is_inside && !READ_ALOUD.contains(*c) { ' ' } else { *c }
    });
    squeeze(&kept.collect::<String>().to_lowercase()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_goes_and_words_stay() {
        for (text, expected) in [
            ("Don't go: it's 3.5 km, well-known.", "don't go it's 3.5 km well-known"),
            ("one,two (three) -four- \"five\"", "one two three four five"),
            ("50% of R&D at 10:30!", "50% of r&d at 10:30"),
            ("سلام،څنګه یې؟", "سلام څنګه یې"),
            ("你好，世界。", "你好 世界"),
            ("हिन्दी-भाषा।", "हिन्दी-भाषा"),
            ("...", ""),
        ] {
            assert_eq!(unpunctuated(text), expected, "{text}");
        }
    }
}
