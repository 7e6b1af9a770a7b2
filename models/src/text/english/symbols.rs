//! Symbols that are read, and those that nobody reads.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::currency::is_amount;
use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading, is_capitalised};
use super::numbers::whole;
use super::units::is_unit;

/// Symbols that have a name wherever they stand.
const NAMES: [(char, &str); 15] = [
    ('&', "and"),
    ('+', "plus"),
    ('@', "at"),
    ('%', "percent"),
    ('‰', "per mille"),
    ('°', "degrees"),
    ('×', "times"),
    ('÷', "divided by"),
    ('±', "plus or minus"),
    ('≈', "about"),
    ('≤', "less than or equal to"),
    ('≥', "greater than or equal to"),
    ('≠', "not equal to"),
    ('√', "square root of"),
    ('∞', "infinity"),
];

/// A symbol, read or passed over.
pub(super) fn symbol(place: Place<'_>) -> Option<Reading> {
    let (Mark(mark), rest) = place.ahead().split_first()? else { return None };
    let name = NAMES.iter().find(|(symbol, _)| symbol == mark).map(|(_, name)| *name);
    let is_drawn = name.is_some() || matches!(mark, '=' | '#' | '<' | '>');
    let run = 1 + rest.iter().take_while(|lexeme| is_drawn && **lexeme == Mark(*mark)).count();
    // Lines of them are drawn, not written.
    if run > 2 {
        return Some(Reading::new(run, ""));
    }
    match (mark, name) {
        (_, Some(name)) => Some(Reading::new(1, name)),
        ('=', _) => Some(Reading::new(run, "equals")),
        ('§', _) => Some(Reading::new(1, "section")),
        ('→', _) => Some(Reading::new(1, "to")),
        ('-' | '–' | '−', _) => hyphen(place, rest),
        ('#', _) => Some(Reading::new(1, hash(place, rest))),
        ('/', _) => Some(Reading::new(1, slash(place, rest))),
        ('.', _) => dot(place, rest),
        ('^' | '²' | '³', _) => Some(power(place, *mark, rest)),
        ('*', _) => Some(Reading::new(1, if is_between_numbers(place, rest) { "times" } else { "" })),
        ('~', _) => Some(Reading::new(1, if matches!(rest, [Digits(_), ..]) { "about" } else { "" })),
        ('<' | '>', _) => Some(comparison(place, *mark, rest)),
        ('|', _) => None,
        (mark, _) if mark.general_category() == GeneralCategory::MathSymbol => Some(Reading::new(1, "")),
        _ => None,
    }
}

/// Minus, "to", or nothing between a word and its number; a hyphen between two words is left alone, and so is a dash.
fn hyphen(place: Place<'_>, rest: &[Lexeme<'_>]) -> Option<Reading> {
    if place.ahead().first() == Some(&Mark('−')) {
        return Some(Reading::new(1, "minus"));
    }
    let is_number = matches!(rest, [Digits(_), ..] | [Mark('.'), Digits(_), ..]) || is_amount(rest);
    let is_spaced_number = matches!(rest, [Space, Digits(_), ..]);
    let is_equation = matches!(rest, [Space, Digits(_), Space, Mark('='), ..]);
    match place.behind() {
        // `5 - 3 = 2`, and `10:00 - 12:00`.
        [.., Digits(_) | Mark('%' | '°'), Space] if is_spaced_number => {
            Some(Reading::new(1, if is_equation { "minus" } else { "to" }))
        }
        [.., Word("am" | "pm" | "AM" | "PM"), Space] if is_spaced_number => Some(Reading::new(1, "to")),
        [.., Digits(_) | Mark('%' | '°')] if is_number => Some(Reading::new(1, "to")),
        // `B2B-5` is no span; `9am-5pm` is one.
        [.., Word(_), Digits(_), Word(_)] if is_number => Some(Reading::new(1, "")),
        [.., Digits(_), Word(_)] if is_number => Some(Reading::new(1, "to")),
        [.., Word(_)] if is_number => Some(Reading::new(1, "")),
        []
        | [
            ..,
            Space
            | Mark('(' | '[' | '{' | '=' | '<' | '>' | '~' | '±' | '≈' | '≤' | '≥' | '^' | '"' | '×' | '*'),
        ] if is_number => Some(Reading::new(1, "minus")),
        _ => None,
    }
}

/// `#1`, `#tag`, `C#`.
fn hash(place: Place<'_>, rest: &[Lexeme<'_>]) -> &'static str {
    match (place.behind(), rest) {
        ([.., Word(word)], _) if word.len() == 1 => "sharp",
        (_, [Digits(_), ..]) => "number",
        (_, [Word(_), ..]) => "hashtag",
        _ => "",
    }
}

/// `$5/month`, `either/or`.
fn slash(place: Place<'_>, rest: &[Lexeme<'_>]) -> &'static str {
    let is_rate = match place.behind() {
        [.., Digits(_)] => true,
        [.., Digits(_), Word(unit)] | [.., Digits(_), Space, Word(unit)] => is_unit(unit),
        _ => false,
    };
    match rest {
        [Word(_), ..] if is_rate => "per",
        [Word(_) | Digits(_) | Space, ..] => "slash",
        _ => "",
    }
}

/// `Node.js`, `.NET`: a dot within a name. One without the space behind it, as in `end.The`, is none.
fn dot(place: Place<'_>, rest: &[Lexeme<'_>]) -> Option<Reading> {
    let [Word(word), ..] = rest else { return None };
    let is_within = match place.behind() {
        [] | [.., Space] => word.is_ascii() && word.len() <= 4,
        [.., Word(_) | Digits(_)] => word.is_ascii() && !is_capitalised(word),
        _ => false,
    };
    is_within.then(|| Reading::new(1, "dot"))
}

/// `x²`, `10^6`. Behind a word it is the number of a footnote.
fn power(place: Place<'_>, mark: char, rest: &[Lexeme<'_>]) -> Reading {
    let is_base = match place.behind() {
        [.., Digits(_)] | [.., Mark(')')] => true,
        [.., Word(word)] => word.chars().count() <= 2 || is_unit(word),
        _ => false,
    };
    let (taken, power) = match (mark, rest) {
        ('²', _) => (1, "squared".to_owned()),
        ('³', _) => (1, "cubed".to_owned()),
        (_, [Digits(digits), ..]) => (2, format!("to the power of {}", whole(digits))),
        (_, [Mark('-'), Digits(digits), ..]) => (3, format!("to the power of minus {}", whole(digits))),
        _ => (1, String::new()),
    };
    Reading::new(taken, if is_base { power } else { String::new() })
}

/// `5 * 3`, `5*3`.
fn is_between_numbers(place: Place<'_>, rest: &[Lexeme<'_>]) -> bool {
    matches!(place.behind(), [.., Digits(_)] | [.., Digits(_), Space])
        && matches!(rest, [Digits(_), ..] | [Space, Digits(_), ..])
}

/// `x < 5`, `>= 5`. Others are brackets or arrows.
fn comparison(place: Place<'_>, mark: char, rest: &[Lexeme<'_>]) -> Reading {
    let (taken, rest, equal) = match rest {
        [Mark('='), rest @ ..] => (2, rest, " or equal to"),
        rest => (1, rest, ""),
    };
    let is_spaced = matches!((place.behind(), rest), ([.., Space], [Space, ..]));
    let is_compared = is_spaced || matches!(rest, [Digits(_), ..] | [Space, Digits(_), ..]);
    let than = if mark == '<' { "less than" } else { "greater than" };
    Reading::new(taken, if is_compared { format!("{than}{equal}") } else { String::new() })
}
