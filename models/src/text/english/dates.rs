//! Dates.

use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading};
use super::numbers::{self, ordinal};
use super::years;

const MONTHS: [(&str, &str); 12] = [
    ("January", "Jan"),
    ("February", "Feb"),
    ("March", "Mar"),
    ("April", "Apr"),
    ("May", "May"),
    ("June", "Jun"),
    ("July", "Jul"),
    ("August", "Aug"),
    ("September", "Sep"),
    ("October", "Oct"),
    ("November", "Nov"),
    ("December", "Dec"),
];

/// The month of a name or an abbreviation, both with a capital.
pub(super) fn month(word: &str) -> Option<&'static str> {
    let word = if word == "Sept" { "Sep" } else { word };
    MONTHS.iter().find(|(name, short)| *name == word || *short == word).map(|(name, _)| *name)
}

/// The month at the head of `lexemes`, with the dot of its abbreviation: its name and how many lexemes it is.
fn month_ahead(lexemes: &[Lexeme<'_>]) -> Option<(&'static str, usize)> {
    let [Word(word), rest @ ..] = lexemes else { return None };
    let name = month(word)?;
    let has_dot = *word != name && rest.first() == Some(&Mark('.'));
    Some((name, 1 + usize::from(has_dot)))
}

/// The day of a month that one or two digits may be.
fn day(digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|day| digits.len() <= 2 && (1..=31).contains(day))
}

/// The month of which this is the number.
fn numbered(digits: &str) -> Option<&'static str> {
    let month = digits.parse::<usize>().ok().filter(|_| digits.len() <= 2)?;
    MONTHS.get(month.checked_sub(1)?).map(|(name, _)| *name)
}

/// The year that four digits are, behind a month.
fn full_year(digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|year| digits.len() == 4 && (1000..3000).contains(year))
}

/// The year that two digits are: of the century in which 70 is past and 69 is to come.
fn any_year(digits: &str) -> Option<u64> {
    let short = digits.parse::<u64>().ok().filter(|_| digits.len() == 2);
    full_year(digits).or_else(|| short.map(|year| if year < 70 { 2000 + year } else { 1900 + year }))
}

/// `st`, `nd`, `rd` or `th`.
pub(super) fn is_ordinal_ending(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "st" | "nd" | "rd" | "th")
}

/// How many lexemes the ending of an ordinal is.
fn ending(lexemes: &[Lexeme<'_>]) -> usize {
    usize::from(matches!(lexemes, [Word(word), ..] if is_ordinal_ending(word)))
}

/// Whether a number goes on, so that what has been read of it is no day or year.
fn goes_on(rest: &[Lexeme<'_>]) -> bool {
    matches!(rest, [Digits(_) | Word(_) | Mark('%' | '°'), ..] | [Mark('.' | ',' | ':' | '/'), Digits(_), ..])
}

fn spoken(month: &str, day: u64, year: u64) -> String {
    format!("{month} {} {}", ordinal(day), numbers::year(year))
}

/// `, 2024` or ` 2024`: the year as it is said behind a day, and how many lexemes it is.
fn year_ahead(lexemes: &[Lexeme<'_>]) -> Option<(String, usize)> {
    let (digits, taken) = match lexemes {
        [Mark(','), Space, Digits(digits), ..] => (digits, 3),
        [Space, Digits(digits), ..] => (digits, 2),
        _ => return None,
    };
    let year = full_year(digits).filter(|_| !goes_on(&lexemes[taken..]))?;
    Some((format!(" {}", numbers::year(year)), taken))
}

/// `May 1, 2024`, `May 1st`, `May 5-10`, `Jan. 2024`.
pub(super) fn month_first(place: Place<'_>) -> Option<Reading> {
    let ahead = place.ahead();
    let (month, mut taken) = month_ahead(ahead)?;
    let [Space, Digits(digits), rest @ ..] = &ahead[taken..] else { return None };
    taken += 2;
    let Some(first) = day(digits) else {
        let year = full_year(digits).filter(|_| !goes_on(rest))?;
        return Some(Reading::new(taken, format!("{month} {}", numbers::year(year))));
    };
    taken += ending(rest);
    if goes_on(&ahead[taken..]) {
        return None;
    }
    let mut words = format!("{month} {}", ordinal(first));
    if let [Mark('-' | '–'), Digits(digits), rest @ ..] = &ahead[taken..]
        && let Some(last) = day(digits).filter(|last| *last > first)
        && !goes_on(rest)
    {
        words = format!("{words} to {}", ordinal(last));
        taken += 2;
    }
    if let Some((year, n_year)) = year_ahead(&ahead[taken..]) {
        words.push_str(&year);
        taken += n_year;
    }
    Some(Reading::new(taken, words))
}

/// `1 May 2024`, `1st May`, `5-10 May`, `5-May-2024`.
pub(super) fn day_first(place: Place<'_>) -> Option<Reading> {
    let ahead = place.ahead();
    if let [Digits(first), Mark('-'), Word(word), Mark('-'), Digits(last), ..] = ahead {
        return Some(Reading::new(5, spoken(month(word)?, day(first)?, any_year(last)?)));
    }
    let [Digits(digits), rest @ ..] = ahead else { return None };
    let first = ordinal(day(digits)?);
    let (days, mut taken) = match rest {
        [Mark('-' | '–'), Digits(digits), ..] => (format!("{first} to {}", ordinal(day(digits)?)), 3),
        rest => (first, 1 + ending(rest)),
    };
    if ahead.get(taken) != Some(&Space) {
        return None;
    }
    let (month, n_month) = month_ahead(&ahead[taken + 1..])?;
    taken += 1 + n_month;
    let has_article = matches!(place.behind(), [.., Word("the" | "The"), Space]);
    let article = if has_article { "" } else { "the " };
    let mut words = format!("{article}{days} of {month}");
    if let Some((year, n_year)) = year_ahead(&ahead[taken..]) {
        words.push_str(&year);
        taken += n_year;
    }
    Some(Reading::new(taken, words))
}

/// `2024-05-01`, `5/1/2024` with the month first where it can be, `25.12.2024`, `2024-05`.
pub(super) fn numeric(place: Place<'_>) -> Option<Reading> {
    if matches!(place.behind(), [.., Word(_)] | [.., Digits(_) | Word(_), Mark('-' | '/' | '.')]) {
        return None;
    }
    let ahead = place.ahead();
    match ahead {
        [Digits(year), Mark('-'), Digits(month), Mark('-'), Digits(day), rest @ ..]
        | [Digits(year), Mark('/'), Digits(month), Mark('/'), Digits(day), rest @ ..]
            if year.len() == 4 =>
        {
            // A time follows.
            let has_time = matches!(rest, [Word("T"), Digits(_), ..]);
            let is_part = matches!(rest, [Mark('-' | '/'), Digits(_), ..]) || (goes_on(rest) && !has_time);
            dated(5 + usize::from(has_time), month, day, full_year(year).filter(|_| !is_part)?)
        }
        [Digits(first), Mark('/'), Digits(second), Mark('/'), Digits(year), rest @ ..]
        | [Digits(first), Mark('-'), Digits(second), Mark('-'), Digits(year), rest @ ..]
            if year.len() == 4 || ahead[1] == Mark('/') =>
        {
            let year = any_year(year).filter(|_| !goes_on(rest))?;
            dated(5, first, second, year).or_else(|| dated(5, second, first, year))
        }
        [Digits(day), Mark('.'), Digits(month), Mark('.'), Digits(year), rest @ ..] if !goes_on(rest) => {
            dated(5, month, day, full_year(year)?)
        }
        [Digits(year), Mark('-'), Digits(month), rest @ ..]
            if month.len() == 2 && !goes_on(rest) && !matches!(rest, [Mark('-'), Digits(_), ..]) =>
        {
            let year = years::value(year)?;
            // `2010-12` is a span of years.
            month.parse::<u64>().ok().filter(|month| *month <= year % 100)?;
            Some(Reading::new(3, format!("{} {}", numbered(month)?, numbers::year(year))))
        }
        _ => None,
    }
}

fn dated(taken: usize, month: &str, digits: &str, year: u64) -> Option<Reading> {
    Some(Reading::new(taken, spoken(numbered(month)?, day(digits)?, year)))
}
