//! Digits in groups that nobody adds up: telephone numbers and their like. They are read one by one, with a pause between groups.

use std::ops::RangeInclusive;

use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading};
use super::numbers::digit_by_digit;

/// How many digits a telephone number has; E.164 allows no more.
const N_DIGITS: RangeInclusive<usize> = 7..=15;
/// How many belong together at most: those of a bank card.
const MAX_DIGITS: usize = 19;

/// `555-1234`, `(555) 123-4567`, `+44 20 7946 0958`, `020 7946 0958`, `978-3-16-148410-0`.
pub(super) fn telephone(place: Place<'_>) -> Option<Reading> {
    if matches!(place.behind(), [.., Word(_) | Digits(_)] | [.., Digits(_), Mark('.' | ',' | '-' | '/')]) {
        return None;
    }
    let ahead = place.ahead();
    let is_international = ahead.first() == Some(&Mark('+'));
    let n_sign = usize::from(is_international);
    let number = &ahead[n_sign..];
    let loose = [Space, Mark('-'), Mark('.'), Mark('('), Mark(')')];
    let (groups, taken) = match number {
        [Mark('('), Digits(area), Mark(')'), ..]
            if is_international || area.len() == 3 || area.starts_with('0') =>
        {
            let (groups, taken) = groups(&number[1..], &loose, 3);
            (groups, taken + 1)
        }
        [Digits(_), ..] if is_international => groups(number, &loose, 3),
        [Digits(_), separator @ (Space | Mark('.' | '-')), ..] => {
            let (groups, taken) = groups(number, &[*separator], 1);
            let is_code = match (separator, lengths(&groups).as_slice()) {
                (_, [3, 3, 4]) | (Mark('-'), [3, 4] | [_, _, _, ..]) | (Space, [4, 4, 4, 4]) => true,
                // The zero that is dialled first.
                (Space, lengths) => {
                    groups.first().is_some_and(|first| first.starts_with('0')) && is_dialled(lengths)
                }
                _ => false,
            };
            return is_code.then(|| Reading::new(taken, spoken(&groups)));
        }
        _ => return None,
    };
    let sign = if is_international { "plus " } else { "" };
    let is_number = is_dialled(&lengths(&groups));
    is_number.then(|| Reading::new(n_sign + taken, format!("{sign}{}", spoken(&groups))))
}

fn is_dialled(lengths: &[usize]) -> bool {
    N_DIGITS.contains(&lengths.iter().sum::<usize>())
}

fn lengths(groups: &[&str]) -> Vec<usize> {
    groups.iter().map(|group| group.len()).collect()
}

fn spoken(groups: &[&str]) -> String {
    groups.iter().map(|group| digit_by_digit(group)).collect::<Vec<_>>().join(", ")
}

/// Groups of digits with at most `max_run` separators between two, and how many lexemes they are.
fn groups<'a>(lexemes: &[Lexeme<'a>], separators: &[Lexeme<'_>], max_run: usize) -> (Vec<&'a str>, usize) {
    let (mut groups, mut n_digits, mut taken, mut at) = (Vec::new(), 0, 0, 0);
    while let Some(Digits(group)) = lexemes.get(at) {
        n_digits += group.len();
        if n_digits > MAX_DIGITS {
            break;
        }
        groups.push(*group);
        taken = at + 1;
        let run =
            lexemes[taken..].iter().take(max_run).take_while(|lexeme| separators.contains(lexeme)).count();
        at = taken + run;
    }
    (groups, taken)
}
