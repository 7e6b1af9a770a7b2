//! English: what is not spelled as words, as people read it aloud.
//!
//! A paragraph falls into lexemes; at each, the rules for its kind are asked in order, and what none of them reads is copied. Numbers
//! are American (one hundred twenty-three, month before day), and so are the spellings of units.

mod abbreviations;
mod acronyms;
mod addresses;
mod currency;
mod dates;
mod lexeme;
mod numbers;
mod quantities;
mod roman;
mod symbols;
mod telephone;
mod times;
mod units;
mod years;

use super::digits;
use lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use lexeme::{Place, Reading, is_capitals, lexemes};

/// What reads the lexemes at a place, if it knows them.
type Rule = fn(Place<'_>) -> Option<Reading>;

const AT_DIGITS: [Rule; 10] = [
    addresses::address,
    dates::numeric,
    dates::day_first,
    times::time,
    telephone::telephone,
    quantities::version,
    quantities::mixed,
    quantities::fractions,
    years::year,
    // Any digits are one.
    quantities::quantity,
];

const AT_WORDS: [Rule; 10] = [
    addresses::address,
    dates::month_first,
    currency::amount,
    abbreviations::initials,
    abbreviations::abbreviation,
    abbreviations::slashed,
    roman::roman,
    units::rate,
    dimensions,
    acronyms::acronym,
];

const AT_MARKS: [Rule; 4] = [telephone::telephone, currency::amount, quantities::quantity, symbols::symbol];

/// A paragraph without digits, symbols and abbreviations. Words that are spelled as they are said stay as they are.
pub(super) fn written_out(paragraph: &str) -> String {
    let paragraph = plain(paragraph);
    let lexemes = lexemes(&paragraph);
    let is_shouted = is_shouted(&lexemes);
    let mut written = Written::default();
    let mut at = 0;
    while let Some(lexeme) = lexemes.get(at) {
        let place = Place::new(&lexemes, at, is_shouted);
        let rules: &[Rule] = match lexeme {
            Digits(_) => &AT_DIGITS,
            Word(_) => &AT_WORDS,
            Mark(_) => &AT_MARKS,
            Space => &[],
        };
        match rules.iter().find_map(|rule| rule(place)) {
            Some(reading) => {
                written.read(&reading.words);
                at += reading.taken;
            }
            None => {
                written.copy(*lexeme);
                at += 1;
            }
        }
    }
    written.text
}

/// Digits as ASCII has them, and numbers above the line behind a `^`, but for ² and ³ on their own.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(first) = raised(c) else {
            match digits::value(c) {
                Some(value) => plain.push(char::from(b'0' + value)),
                // As in 20º, from keyboards without °.
                None if c == 'º' && plain.ends_with(|c: char| c.is_ascii_digit()) => plain.push('°'),
                None => plain.push(c),
            }
            continue;
        };
        let mut run = String::from(first);
        while let Some(next) = chars.peek().copied().and_then(raised) {
            run.push(next);
            chars.next();
        }
        if run.len() == 1 && matches!(c, '²' | '³') {
            plain.push(c);
        } else {
            plain.push('^');
            plain.push_str(&run);
        }
    }
    plain
}

/// The digit or the minus that stands above the line.
fn raised(c: char) -> Option<char> {
    match c {
        '⁰' => Some('0'),
        '¹' => Some('1'),
        '²' => Some('2'),
        '³' => Some('3'),
        '⁴'..='⁹' => char::from_digit(u32::from(c) - u32::from('⁴') + 4, 10),
        '⁻' => Some('-'),
        _ => None,
    }
}

/// Whether a text is in capitals: more of its words are than are not, and there are three at least.
fn is_shouted(lexemes: &[Lexeme<'_>]) -> bool {
    let words = lexemes.iter().filter(|lexeme| matches!(lexeme, Word(word) if word.len() > 1));
    let n_capitals = words.clone().filter(|lexeme| matches!(lexeme, Word(word) if is_capitals(word))).count();
    n_capitals > 2 && 2 * n_capitals > words.count()
}

/// `4x4`, `5 x 10`.
fn dimensions(place: Place<'_>) -> Option<Reading> {
    let [Word("x" | "X"), ahead @ ..] = place.ahead() else { return None };
    let is_dimension = matches!(
        (place.behind(), ahead),
        ([.., Digits(_)], [Digits(_), ..]) | ([.., Digits(_), Space], [Space, Digits(_), ..])
    );
    is_dimension.then(|| Reading::new(1, "by"))
}

/// What has been written, with spaces around what was read.
#[derive(Default)]
struct Written {
    text: String,
    is_behind_reading: bool,
}

impl Written {
    fn read(&mut self, words: &str) {
        self.part();
        self.text.push_str(words);
        self.is_behind_reading = true;
    }

    fn copy(&mut self, lexeme: Lexeme<'_>) {
        match lexeme {
            Space => self.text.push(' '),
            Mark(mark) => self.text.push(mark),
            Word(text) | Digits(text) => {
                if self.is_behind_reading {
                    self.part();
                }
                self.text.push_str(text);
            }
        }
        self.is_behind_reading = false;
    }

    fn part(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with(' ') {
            self.text.push(' ');
        }
    }
}
