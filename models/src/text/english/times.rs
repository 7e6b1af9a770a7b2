//! Times of day, and the ratios and scores that are written like them.

use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading, ends_sentence};
use super::numbers::{cardinal, whole};

/// `am`, `PM`, `a.m.` behind a time: its letters, and how many lexemes it is. The last dot stays where it ends a sentence as well.
fn half_of_day(rest: &[Lexeme<'_>]) -> Option<(&'static str, usize)> {
    let n_spaces = usize::from(rest.first() == Some(&Space));
    match &rest[n_spaces..] {
        [Word("am" | "AM" | "Am"), ..] => Some(("A M", n_spaces + 1)),
        [Word("pm" | "PM" | "Pm"), ..] => Some(("P M", n_spaces + 1)),
        [Word(half @ ("a" | "A" | "p" | "P")), Mark('.'), Word("m" | "M"), after @ ..] => {
            let letters = if matches!(*half, "a" | "A") { "A M" } else { "P M" };
            let has_dot = matches!(after, [Mark('.'), rest @ ..] if !ends_sentence(rest));
            Some((letters, n_spaces + 3 + usize::from(has_dot)))
        }
        _ => None,
    }
}

/// A number of at most two digits that is no larger than `most`.
fn at_most(digits: &str, most: u64) -> Option<u64> {
    digits.parse().ok().filter(|n| digits.len() <= 2 && *n <= most)
}

/// `10:30`, `10:05 pm`, `12:00`, `10:30:15`, `10am`, `16:9`.
pub(super) fn time(place: Place<'_>) -> Option<Reading> {
    let ahead = place.ahead();
    match ahead {
        [Digits(hour), Mark(':' | '.'), Digits(minute), rest @ ..]
            if minute.len() == 2 && half_of_day(rest).is_some() =>
        {
            let (letters, n_letters) = half_of_day(rest)?;
            let time = match (cardinal(at_most(hour, 24)?), at_most(minute, 59)?) {
                (hour, 0) => hour,
                (hour, minute) => format!("{hour} {}", minutes(minute)),
            };
            Some(Reading::new(3 + n_letters, format!("{time} {letters}")))
        }
        [Digits(hour), Mark(':'), Digits(minute), Mark(':'), Digits(second), rest @ ..]
            if minute.len() == 2 && second.len() == 2 =>
        {
            let second = at_most(second, 59)?;
            let time = clock(at_most(hour, 24)?, at_most(minute, 59)?);
            let unit = if second == 1 { "second" } else { "seconds" };
            let (letters, n_letters) = half_of_day(rest).unwrap_or_default();
            let words = format!("{time} and {} {unit} {letters}", cardinal(second));
            Some(Reading::new(5 + n_letters, words.trim_end()))
        }
        [Digits(hour), Mark(':'), Digits(minute), ..] => {
            let is_time = minute.len() == 2 && at_most(hour, 24).is_some();
            let time = at_most(minute, 59).filter(|_| is_time).zip(at_most(hour, 24));
            let words = match time {
                Some((minute, hour)) => clock(hour, minute),
                None => format!("{} to {}", whole(hour), whole(minute)),
            };
            Some(Reading::new(3, words))
        }
        [Digits(hour), rest @ ..] => {
            let hour = at_most(hour, 12).filter(|hour| *hour > 0)?;
            let (letters, n_letters) = half_of_day(rest)?;
            Some(Reading::new(1 + n_letters, format!("{} {letters}", cardinal(hour))))
        }
        _ => None,
    }
}

/// 9, 5: nine oh five; 12, 0: twelve o'clock.
fn clock(hour: u64, minute: u64) -> String {
    match (hour, minute) {
        (0 | 24, 0) => "midnight".to_owned(),
        (1..=12, 0) => format!("{} o'clock", cardinal(hour)),
        (_, 0) => format!("{} hundred", cardinal(hour)),
        _ => format!("{} {}", cardinal(hour), minutes(minute)),
    }
}

fn minutes(minute: u64) -> String {
    if minute < 10 { format!("oh {}", cardinal(minute)) } else { cardinal(minute) }
}
