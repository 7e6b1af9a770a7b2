//! Numbers, and what is counted, measured or named by them.

use super::currency;
use super::dates::is_ordinal_ending;
use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading, is_small};
use super::numbers::{self, Number, cardinal, digit_by_digit, fraction, ordinal, whole};
use super::units::Unit;
use super::years;

/// Fractions that are names.
const NAMES: [(&str, &str, &str); 2] = [("24", "7", "twenty-four seven"), ("9", "11", "nine eleven")];

/// `1.2.3`, `192.168.0.1`.
pub(super) fn version(place: Place<'_>) -> Option<Reading> {
    let mut parts = Vec::new();
    let mut rest = place.ahead();
    while let [Digits(part), after @ ..] = rest {
        parts.push(whole(part));
        match after {
            [Mark('.'), Digits(_), ..] => rest = &after[1..],
            _ => break,
        }
    }
    // Addresses of machines have four.
    let dot = if parts.len() > 3 { " dot " } else { " point " };
    (parts.len() > 2).then(|| Reading::new(2 * parts.len() - 1, parts.join(dot)))
}

/// `2 1/2`, `2 1/2 km`.
pub(super) fn mixed(place: Place<'_>) -> Option<Reading> {
    let [Digits(before), Space, Digits(numerator), Mark('/'), Digits(denominator), rest @ ..] = place.ahead()
    else {
        return None;
    };
    let before = numbers::value(before).filter(|n| *n < 1000)?;
    let (n, d) = parts(numerator, denominator).filter(|(n, d)| n < d && !is_divided(rest))?;
    let part = fraction(n, d);
    let part = match part.strip_prefix("one ") {
        Some(part) => format!("{} {part}", article(part)),
        None => part,
    };
    let (unit, n_unit) = measure(rest, false).unwrap_or_default();
    let words = format!("{} and {part} {unit}", cardinal(before));
    Some(Reading::new(5 + n_unit, words.trim_end()))
}

/// `3/4`, `1/2 km`, `120/80`, `10/10`.
pub(super) fn fractions(place: Place<'_>) -> Option<Reading> {
    let [Digits(numerator), Mark('/'), Digits(denominator), rest @ ..] = place.ahead() else { return None };
    if is_divided(rest) || matches!(place.behind(), [.., Digits(_), Mark('/')]) {
        return None;
    }
    if let Some((_, _, name)) = NAMES.iter().find(|(n, d, _)| n == numerator && d == denominator) {
        return Some(Reading::new(3, *name));
    }
    let words = match parts(numerator, denominator) {
        Some((n, d)) if n == d => format!("{} out of {}", cardinal(n), cardinal(d)),
        None => format!("{} over {}", whole(numerator), whole(denominator)),
        Some((n, d)) => {
            let n_spaces = usize::from(rest.first() == Some(&Space));
            let fraction = fraction(n, d);
            return Some(match Unit::read(&rest[n_spaces..]) {
                Some(unit) => {
                    let words = format!("{fraction} of {} {}", article(&unit.one), unit.one);
                    Reading::new(3 + n_spaces + unit.taken, words)
                }
                None => Reading::new(3, fraction),
            });
        }
    };
    Some(Reading::new(3, words))
}

fn is_divided(rest: &[Lexeme<'_>]) -> bool {
    matches!(rest, [Mark('/'), Digits(_), ..])
}

/// Numerator and denominator of what has a name as a fraction: few say the thirtieth of something.
fn parts(numerator: &str, denominator: &str) -> Option<(u64, u64)> {
    let pair = numbers::value(numerator).zip(numbers::value(denominator));
    pair.filter(|(n, d)| (1..=20).contains(n) && ((2..=20).contains(d) || *d == 100))
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) || word.starts_with("hour") { "an" } else { "a" }
}

/// Any number, with the percent, the currency or the unit behind it, or the ending of an ordinal.
pub(super) fn quantity(place: Place<'_>) -> Option<Reading> {
    let ahead = place.ahead();
    // A point without a number before it begins one only where nothing is glued to it.
    if ahead.first() == Some(&Mark('.')) && !is_free(place) {
        return None;
    }
    let number = Number::read(ahead)?;
    let rest = &ahead[number.taken..];
    if let ([Word(ending), ..], None, Some(n)) = (rest, number.decimals, numbers::value(&number.whole))
        && is_ordinal_ending(ending)
    {
        return Some(Reading::new(number.taken + 1, ordinal(n)));
    }
    if let Some((measure, n_measure)) = measure(rest, number.is_one()) {
        return Some(Reading::new(number.taken + n_measure, format!("{} {measure}", number.words())));
    }
    let words = match (place.behind(), number.decimals) {
        (behind @ ([.., Word(_)] | [.., Word(_), Mark('-')]), None) if number.taken == 1 => {
            glued(behind, &number.whole)
        }
        _ => number.words(),
    };
    Some(Reading::new(number.taken, words))
}

fn is_free(place: Place<'_>) -> bool {
    place.begins_chunk()
        || matches!(place.behind(), [.., Mark('-' | '−' | '+' | '~' | '±' | '<' | '>' | '=')])
}

/// A number behind letters: `COVID-19`, `G20`, `4x4`, `post-2008`, `A320`.
fn glued(behind: &[Lexeme<'_>], digits: &str) -> String {
    match behind {
        [.., Digits(_), Word("x" | "X")] => whole(digits),
        [.., Word(word), Mark('-')] if is_small(word) => {
            years::value(digits).map_or_else(|| whole(digits), numbers::year)
        }
        // A model or a standard: its digits are its name.
        _ if digits.len() > 2 && !digits.ends_with("00") => digit_by_digit(digits),
        _ => whole(digits),
    }
}

/// What a number at the head of `rest` counts, `is_one` saying whether it is in the singular, and how many lexemes it is.
fn measure(rest: &[Lexeme<'_>], is_one: bool) -> Option<(String, usize)> {
    let n_spaces = usize::from(rest.first() == Some(&Space));
    let what = &rest[n_spaces..];
    match what {
        [Mark('%'), ..] => return Some(("percent".to_owned(), n_spaces + 1)),
        [Mark('‰'), ..] => return Some(("per mille".to_owned(), n_spaces + 1)),
        [Word("in"), ..] if n_spaces == 0 => {
            return Some((if is_one { "inch" } else { "inches" }.to_owned(), 1));
        }
        // `a 5-km run`.
        [Mark('-'), after @ ..] if n_spaces == 0 => {
            let unit = Unit::read(after).filter(|_| matches!(after, [Word(_), ..]))?;
            return Some((unit.one, 1 + unit.taken));
        }
        _ => {}
    }
    if let Some(unit) = Unit::read(what) {
        return Some((if is_one { unit.one } else { unit.many }, n_spaces + unit.taken));
    }
    let (name, taken) = currency::behind(what, is_one)?;
    Some((name, n_spaces + taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_have_articles_that_can_be_said() {
        assert_eq!(["half", "eighth", "hour", "kilometer"].map(article), ["a", "an", "an", "a"]);
    }
}
