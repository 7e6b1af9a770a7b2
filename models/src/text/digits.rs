//! Digits: their values in every script, and their names in languages that have no rules of their own.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// What a language calls digits that are read one by one.
struct Names {
    language: &'static str,
    digits: [&'static str; 10],
    /// Between a whole number and its decimals.
    point: &'static str,
    /// Behind a number.
    percent: &'static str,
    /// Before a number.
    minus: &'static str,
}

const LANGUAGES: [Names; 1] = [Names {
    language: "ps",
    digits: ["صفر", "یو", "دوه", "درې", "څلور", "پنځه", "شپږ", "اووه", "اته", "نهه"],
    point: "اعشاریه",
    percent: "سلنه",
    minus: "منفي",
}];

/// The value of a decimal digit of any script.
pub(super) fn value(c: char) -> Option<u8> {
    if c.is_ascii_digit() {
        return u8::try_from(c).ok().map(|byte| byte - b'0');
    }
    let is_digit = |code: u32| {
        char::from_u32(code).is_some_and(|c| c.general_category() == GeneralCategory::DecimalNumber)
    };
    let code = u32::from(c);
    if !is_digit(code) {
        return None;
    }
    // Digits come in runs of ten from zero to nine. Where runs touch, whole ones lie before this one.
    let n_before = (1..).take_while(|n| code.checked_sub(*n).is_some_and(is_digit)).count();
    u8::try_from(n_before % 10).ok()
}

/// A paragraph with its digits as words, where the language's are known.
pub(super) fn written_out(paragraph: &str, language: &str) -> String {
    match LANGUAGES.iter().find(|names| names.language == language) {
        Some(names) => names.write_out(paragraph),
        None => paragraph.to_owned(),
    }
}

impl Names {
    fn write_out(&self, paragraph: &str) -> String {
        let chars: Vec<char> = paragraph.chars().collect();
        let mut written = String::with_capacity(paragraph.len());
        let mut is_behind_word = false;
        for (at, &c) in chars.iter().enumerate() {
            let word = self.word(&chars, at);
            // A letter beside a digit begins a word of its own.
            if word.is_some() || (is_behind_word && c.is_alphanumeric()) {
                written.push(' ');
            }
            match word {
                Some(word) => written.push_str(word),
                None => written.push(c),
            }
            is_behind_word = word.is_some();
        }
        written
    }

    /// What is said for a character, if it is not read as it stands.
    fn word(&self, chars: &[char], at: usize) -> Option<&'static str> {
        let c = chars[at];
        if let Some(value) = value(c) {
            return Some(self.digits[usize::from(value)]);
        }
        let (behind, ahead) = (&chars[..at], &chars[at + 1..]);
        let is_before = ahead.first().copied().is_some_and(is_digit);
        let is_between = is_before && behind.last().copied().is_some_and(is_digit);
        match c {
            '.' if is_between => Some(self.point),
            // A comma that groups a large number.
            ',' if is_between && is_group(ahead) => Some(""),
            ',' | ':' | '/' | '-' | '–' if is_between => Some(","),
            '-' | '−' if is_before && behind.last().is_none_or(|c| c.is_whitespace()) => Some(self.minus),
            '%' => {
                behind.iter().rfind(|c| !c.is_whitespace()).filter(|c| is_digit(**c)).map(|_| self.percent)
            }
            _ => None,
        }
    }
}

fn is_digit(c: char) -> bool {
    value(c).is_some()
}

/// Whether three digits follow and no fourth.
fn is_group(ahead: &[char]) -> bool {
    ahead.iter().take(4).take_while(|c| is_digit(**c)).count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::spoken;

    #[test]
    fn digits_of_every_script_have_their_values() {
        for digits in ["0123456789", "٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹", "०१२३४५६७८९", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗𝟘𝟙"]
        {
            for (at, c) in digits.chars().enumerate() {
                assert_eq!(value(c), u8::try_from(at % 10).ok(), "{c}");
            }
        }
        assert_eq!(['a', '½', '五', '²'].map(value), [None; 4]);
    }

    #[test]
    fn pashto_reads_digits_one_by_one() {
        for (text, expected) in [
            ("زه ۲۵ کلن یم.", "زه دوه پنځه کلن یم."),
            ("٠١٢ 345", "صفر یو دوه درې څلور پنځه"),
            ("۶۷۸۹", "شپږ اووه اته نهه"),
            ("3.5", "درې اعشاریه پنځه"),
            ("۳٫۵", "درې اعشاریه پنځه"),
            ("1,234", "یو دوه درې څلور"),
            ("۵۰٪ خلک", "پنځه صفر سلنه خلک"),
            ("-5", "منفي پنځه"),
            ("۱۰:۳۰ بجې", "یو صفر, درې صفر بجې"),
            ("۵کاله", "پنځه کاله"),
            ("سلام، دنیا؟ هو۔", "سلام, دنیا? هو."),
        ] {
            assert_eq!(spoken(text, "ps"), expected, "{text}");
            assert_eq!(spoken(expected, "ps"), expected);
        }
    }

    #[test]
    fn other_languages_keep_their_digits() {
        assert_eq!(spoken("Er hat 3,5 Äpfel; um 10:30!", "de"), "Er hat 3,5 Äpfel, um 10:30!");
        assert_eq!(spoken("۲۵ سال", "fa"), "۲۵ سال");
    }
}
