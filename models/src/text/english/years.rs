//! Which numbers are years.
//!
//! Four digits from 1100 to 2099 are a year behind a month, a season, a preposition of time or an article, behind any word with a
//! capital (where "twenty fifteen" is right for a room and a model, too), in brackets of their own, before an era, and as one of a
//! range or list of years. They are none where things that are counted follow: a unit, a plural, people. Any other is a number.

use super::dates::month;
use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading, is_capitalised, is_small};
use super::numbers::{self, plural, whole};
use super::units::is_unit;

/// Words before years.
const BEFORE: [&str; 34] = [
    "in",
    "since",
    "of",
    "by",
    "from",
    "until",
    "till",
    "before",
    "after",
    "during",
    "around",
    "circa",
    "between",
    "year",
    "years",
    "early",
    "late",
    "mid",
    "spring",
    "summer",
    "autumn",
    "fall",
    "winter",
    "copyright",
    "dated",
    "the",
    "a",
    "an",
    "this",
    "that",
    "his",
    "her",
    "its",
    "our",
];

/// What is counted without an `s`.
const COUNTED: [&str; 24] = [
    "people",
    "men",
    "women",
    "children",
    "percent",
    "million",
    "billion",
    "more",
    "other",
    "meter",
    "metre",
    "kilometer",
    "kilometre",
    "mile",
    "foot",
    "feet",
    "dollar",
    "pound",
    "euro",
    "calorie",
    "watt",
    "word",
    "page",
    "man",
];

/// Words that end like plurals.
const NO_PLURALS: [&str; 11] = [
    "this",
    "does",
    "always",
    "perhaps",
    "unless",
    "across",
    "besides",
    "towards",
    "thus",
    "sometimes",
    "whereas",
];

/// How many years of a list are looked at to find the word before it.
const MAX_LISTED: usize = 8;

/// `1984` where it is a year; `1990s`, `'90s`, `747s`.
pub(super) fn year(place: Place<'_>) -> Option<Reading> {
    match place.ahead() {
        [Digits(digits), Word("s"), ..] => Some(Reading::new(2, plural(&decade(digits)))),
        [Digits(digits), Mark('\''), Word("s"), ..] => Some(Reading::new(3, plural(&decade(digits)))),
        [Digits(digits), ..] if is_year(place) => Some(Reading::new(1, numbers::year(value(digits)?))),
        _ => None,
    }
}

fn decade(digits: &str) -> String {
    value(digits).map_or_else(|| whole(digits), numbers::year)
}

/// The year that four digits may be.
pub(super) fn value(digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|year| digits.len() == 4 && (1100..2100).contains(year))
}

fn is_year(mut place: Place<'_>) -> bool {
    for _ in 0..MAX_LISTED {
        if !matches!(place.ahead(), [Digits(digits), ..] if value(digits).is_some()) {
            return false;
        }
        if is_marked(place) {
            return true;
        }
        let n_back = match place.behind() {
            [.., Digits(_), Mark(','), Space] => 3,
            [.., Digits(_), Space, Word("and" | "or" | "to" | "until" | "through"), Space] => 4,
            [.., Digits(_), Mark(','), Space, Word("and" | "or"), Space] => 5,
            _ => return false,
        };
        place = place.back(n_back);
    }
    false
}

/// Whether what stands beside a number says that it is a year.
fn is_marked(place: Place<'_>) -> bool {
    let Some((Digits(digits), ahead)) = place.ahead().split_first() else { return false };
    let is_glued =
        matches!(ahead, [Word(_) | Mark('%' | '°'), ..] | [Mark('.' | ',' | ':' | '/'), Digits(_), ..]);
    if is_glued || is_count(ahead) {
        return false;
    }
    match ahead {
        [Space, Word("AD" | "BC" | "CE" | "BCE"), ..] => return true,
        [Mark('-' | '–'), Digits(last), ..] if ends_span(digits, last) => return true,
        _ => {}
    }
    match place.behind() {
        [.., Mark('(')] => matches!(ahead, [Mark(')' | ',' | ';' | '-' | '–'), ..]),
        [.., Digits(first), Mark('-' | '–')] => ends_span(first, digits),
        [.., Word(word), Mark(','), Space] => month(word).is_some(),
        [.., Word(word), Mark('.'), Space] => month(word).is_some() || matches!(*word, "c" | "ca"),
        [.., Word(word), Space] => is_capitalised(word) || BEFORE.contains(&word.to_lowercase().as_str()),
        _ => false,
    }
}

/// Whether years from `first` to `last` are a span: `1990-2000`, `1990-95`.
fn ends_span(first: &str, last: &str) -> bool {
    let short = last.parse::<u64>().ok().filter(|_| last.len() == 2);
    let is_later = |first: u64| {
        value(last).is_some_and(|last| first < last) || short.is_some_and(|last| first % 100 < last)
    };
    value(first).is_some_and(is_later)
}

/// Whether things that are counted follow.
fn is_count(ahead: &[Lexeme<'_>]) -> bool {
    let ahead = match ahead {
        [Mark('-' | '–'), Digits(_), rest @ ..] => rest,
        [Space, Word("to" | "and" | "or"), Space, Digits(_), rest @ ..] => rest,
        ahead => ahead,
    };
    match ahead {
        [Space, Mark('%' | '°'), ..] => true,
        [Space, Word(word), ..] | [Mark('-'), Word(word), ..] => {
            let is_plural =
                is_small(word) && word.len() > 3 && word.ends_with('s') && !NO_PLURALS.contains(word);
            is_plural || is_unit(word) || COUNTED.contains(word)
        }
        _ => false,
    }
}
