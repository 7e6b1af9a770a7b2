//! One way to write each character, before anybody reads them.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

const TATWEEL: char = '\u{640}';
const ZERO_WIDTH_SPACE: char = '\u{200b}';
const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';

/// Marks that other scripts and widths have for those of ASCII. No space need follow them.
const MARKS: [(&str, char); 6] =
    [("。｡．।॥۔։።។။", '.'), ("、､，،՝፣၊", ','), ("；؛፤", ';'), ("：፥", ':'), ("！", '!'), ("？؟՞፧", '?')];

/// Letters and digits, with the marks on them.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c.general_category_group() == GeneralCategoryGroup::Mark || is_joiner(c)
}

/// Whether letters join across it: it stands within words, and is no part of their sound.
pub(super) fn is_joiner(c: char) -> bool {
    matches!(c, ZERO_WIDTH_NON_JOINER | ZERO_WIDTH_JOINER)
}

/// Composed, with one kind of quotes, dashes and dots, without what nobody reads: control characters, emoji, pictures. A line is a
/// paragraph, and none is blank.
pub(super) fn paragraphs(text: &str) -> Vec<String> {
    let plain = plain(text);
    let mut clean = String::with_capacity(text.len());
    for (at, &c) in plain.iter().enumerate() {
        let behind = at.checked_sub(1).map(|at| plain[at]);
        let is_within = behind.is_some_and(is_word) && plain.get(at + 1).copied().is_some_and(is_word);
        match c {
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => clean.push('\n'),
            ZERO_WIDTH_SPACE => clean.push(' '),
            c if is_joiner(c) && is_within => clean.push(c),
            c if c.is_whitespace() => clean.push(' '),
            c if is_silent(c) => {}
            c if is_picture(c) => clean.push(' '),
            c => clean.push(sign(c)),
        }
    }
    // What stood around a character that is gone may compose.
    let clean: String = clean.nfc().collect();
    clean.split('\n').map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// Composed, with plain characters for those that only look different, and spaces behind marks of scripts that need none.
fn plain(text: &str) -> Vec<char> {
    let composed: Vec<char> = text.nfc().collect();
    let mut plain = Vec::with_capacity(composed.len());
    for (at, &c) in composed.iter().enumerate() {
        if let Some(mark) = mark(c) {
            plain.push(mark);
            // Full-width numbers have commas and points of full width.
            let around = [at.checked_sub(1), Some(at + 1)].map(|at| at.and_then(|at| composed.get(at)));
            let is_in_number = matches!(mark, '.' | ',' | ':')
                && around.into_iter().all(|c| c.is_some_and(|c| c.is_numeric()));
            if !is_in_number {
                plain.push(' ');
            }
            continue;
        }
        match c {
            '…' => plain.extend(['.'; 3]),
            '‥' => plain.extend(['.'; 2]),
            '¼'..='¾' | '⅐'..='⅟' | '↉' => {
                if plain.last().is_some_and(|last: &char| last.is_ascii_digit()) {
                    plain.push(' ');
                }
                plain.extend([c].into_iter().nfkc().map(|c| if c == '⁄' { '/' } else { c }));
            }
            c if is_variant(c) => plain.extend([c].into_iter().nfkc()),
            c => plain.push(c),
        }
    }
    plain
}

/// The mark of ASCII that another script's or width's stands for.
fn mark(c: char) -> Option<char> {
    MARKS.iter().find(|(marks, _)| marks.contains(c)).map(|(_, mark)| *mark)
}

/// Characters that are others in another form: full width, ligatures, presentation forms, styled letters, circled numbers.
fn is_variant(c: char) -> bool {
    matches!(c,
        '\u{2080}'..='\u{208e}' // subscripts
        | '℃' | '℉' | '№'
        | '\u{2160}'..='\u{217f}' // Roman numerals
        | '\u{2460}'..='\u{24fe}' // circled
        | '\u{3200}'..='\u{33ff}' // squared
        | '\u{fb00}'..='\u{fb06}' // ligatures
        | '\u{fb50}'..='\u{fdfc}' | '\u{fe70}'..='\u{fefc}' // Arabic
        | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ffef}' // small, full and half width
        | '\u{1d400}'..='\u{1d7ff}' // styled letters
    )
}

/// What leaves no gap where it is deleted: controls, selectors, the stretching of Arabic lines.
fn is_silent(c: char) -> bool {
    let is_control = matches!(c.general_category(), GeneralCategory::Control | GeneralCategory::Format);
    is_control
        || c == TATWEEL
        || matches!(c, '\u{34f}' | '\u{20dd}'..='\u{20e4}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// What leaves one: emoji and other symbols that nobody reads, accents that stand alone, characters that are none.
fn is_picture(c: char) -> bool {
    let is_read = matches!(c, '°' | '^' | '`' | '´');
    !is_read
        && matches!(
            c.general_category(),
            GeneralCategory::OtherSymbol
                | GeneralCategory::ModifierSymbol
                | GeneralCategory::PrivateUse
                | GeneralCategory::Surrogate
                | GeneralCategory::Unassigned
        )
}

/// The sign that stands for all of its kind.
fn sign(c: char) -> char {
    match c {
        '“' | '”' | '„' | '‟' | '«' | '»' | '‹' | '›' | '″' | '〝' | '〞' | '〟' => '"',
        '‘' | '’' | '‚' | '‛' | '′' | 'ʼ' | '`' | '´' => '\'',
        '‐' | '‑' => '-',
        '‒' => '–',
        '―' | '⸺' | '⸻' => '—',
        '⁃' | '‣' | '◦' => '•',
        '٫' => '.',
        '٬' => ',',
        '٪' => '%',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_a_kind_are_one() {
        for (text, clean) in [
            ("“It’s” ‐ ‚so‘ «là»", "\"It's\" - 'so' \"là\""),
            ("ａｂｃ！１２％", "abc! 12%"),
            ("你好。再见，３，０００", "你好. 再见, 3,000"),
            ("تاسو څنګه یاست؟ښه", "تاسو څنګه یاست? ښه"),
            ("e\u{301}te\u{301}", "été"),
            ("a\u{200b}b\u{ad}c\u{feff}d\u{0}e", "a bcde"),
            ("ســلام", "سلام"),
            ("wait… 2½ ½ ﬁsh № ℃", "wait... 2 1/2 1/2 fish No °C"),
            ("①Ⅳ𝐀㎏H₂O", "1IVAkgH2O"),
            ("a😀b 👩‍👩‍👧 1️⃣ ❤️ © c", "a b     1     c"),
        ] {
            assert_eq!(paragraphs(text).join("|"), clean, "{text}");
        }
    }

    #[test]
    fn what_joins_letters_stays_between_them() {
        assert_eq!(paragraphs("می\u{200c}روم \u{200c}و"), ["می\u{200c}روم و"]);
    }

    #[test]
    fn every_line_is_a_paragraph() {
        assert_eq!(paragraphs("one\r\n\r\n two \u{2028}three\n \n"), ["one", "two", "three"]);
    }
}
