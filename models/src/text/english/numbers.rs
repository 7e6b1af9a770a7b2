//! Numbers as words.

use super::lexeme::Lexeme::{self, Digits, Mark};

/// The largest number with a name of its own here; those beyond are read digit by digit.
pub(super) const LARGEST: u64 = 1_000_000_000_000_000;

const UNITS: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] =
    ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const SCALES: [(u64, &str); 6] = [
    (1_000_000_000_000_000, "quadrillion"),
    (1_000_000_000_000, "trillion"),
    (1_000_000_000, "billion"),
    (1_000_000, "million"),
    (1_000, "thousand"),
    (100, "hundred"),
];
/// Ordinals that are not made by an ending alone.
const ORDINALS: [(&str, &str); 7] = [
    ("one", "first"),
    ("two", "second"),
    ("three", "third"),
    ("five", "fifth"),
    ("eight", "eighth"),
    ("nine", "ninth"),
    ("twelve", "twelfth"),
];

/// 123: one hundred twenty-three.
pub(super) fn cardinal(n: u64) -> String {
    if let Some((scale, name)) = SCALES.iter().find(|(scale, _)| n >= *scale) {
        let head = format!("{} {name}", cardinal(n / scale));
        return if n.is_multiple_of(*scale) { head } else { format!("{head} {}", cardinal(n % scale)) };
    }
    // Below a hundred.
    let n = usize::try_from(n).unwrap_or_default();
    match (TENS[n / 10], UNITS.get(n)) {
        (_, Some(unit)) => (*unit).to_owned(),
        (tens, None) if n % 10 == 0 => tens.to_owned(),
        (tens, None) => format!("{tens}-{}", UNITS[n % 10]),
    }
}

/// 123: one hundred twenty-third.
pub(super) fn ordinal(n: u64) -> String {
    let cardinal = cardinal(n);
    let (head, last) = cardinal.split_at(cardinal.rfind([' ', '-']).map_or(0, |at| at + 1));
    let last = match ORDINALS.iter().find(|(cardinal, _)| *cardinal == last) {
        Some((_, ordinal)) => (*ordinal).to_owned(),
        None => match last.strip_suffix('y') {
            Some(stem) => format!("{stem}ieth"),
            None => format!("{last}th"),
        },
    };
    format!("{head}{last}")
}

/// 1984: nineteen eighty-four; 2005: two thousand five.
pub(super) fn year(n: u64) -> String {
    let (century, rest) = (n / 100, n % 100);
    match (century, rest) {
        (10..=99, _) if century % 10 == 0 && rest < 10 => cardinal(n),
        (10..=99, 0) => format!("{} hundred", cardinal(century)),
        (10..=99, 1..=9) => format!("{} oh {}", cardinal(century), cardinal(rest)),
        (10..=99, _) => format!("{} {}", cardinal(century), cardinal(rest)),
        _ => cardinal(n),
    }
}

/// 911: nine one one.
pub(super) fn digit_by_digit(digits: &str) -> String {
    let names = digits.bytes().filter_map(|byte| UNITS.get(usize::from(byte.wrapping_sub(b'0'))).copied());
    names.collect::<Vec<_>>().join(" ")
}

/// The value of digits that are no code: without leading zeros, and not too large for a name.
pub(super) fn value(digits: &str) -> Option<u64> {
    let is_code = digits.len() > 1 && digits.starts_with('0');
    digits.parse().ok().filter(|n| !is_code && *n <= LARGEST)
}

/// A cardinal, or digit by digit what is a code or too large.
pub(super) fn whole(digits: &str) -> String {
    value(digits).map_or_else(|| digit_by_digit(digits), cardinal)
}

/// Ninety: nineties; six: sixes.
pub(super) fn plural(words: &str) -> String {
    match words.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if words.ends_with('x') => format!("{words}es"),
        None => format!("{words}s"),
    }
}

/// 3 and 4: three quarters.
pub(super) fn fraction(numerator: u64, denominator: u64) -> String {
    let part = match denominator {
        2 if numerator != 1 => return format!("{} halves", cardinal(numerator)),
        2 => "half".to_owned(),
        4 => "quarter".to_owned(),
        n => ordinal(n).trim_start_matches("one ").to_owned(),
    };
    let ending = if numerator == 1 { "" } else { "s" };
    format!("{} {part}{ending}", cardinal(numerator))
}

/// A number as it is written: with commas between thousands and a decimal point.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Number<'a> {
    /// Without commas; empty where the number begins with its point.
    pub(super) whole: String,
    /// What is behind the point.
    pub(super) decimals: Option<&'a str>,
    /// How many lexemes it is.
    pub(super) taken: usize,
}

impl<'a> Number<'a> {
    /// The number at the head of `lexemes`.
    pub(super) fn read(lexemes: &[Lexeme<'a>]) -> Option<Self> {
        if let [Mark('.'), Digits(decimals), ..] = lexemes {
            return Some(Self { whole: String::new(), decimals: Some(decimals), taken: 2 });
        }
        let [Digits(first), rest @ ..] = lexemes else { return None };
        let mut number = Self { whole: (*first).to_owned(), decimals: None, taken: 1 };
        if first.len() <= 3 && !first.starts_with('0') {
            let mut rest = rest;
            while let [Mark(','), Digits(group), after @ ..] = rest
                && group.len() == 3
            {
                number.whole.push_str(group);
                number.taken += 2;
                rest = after;
            }
        }
        if let [Mark('.'), Digits(decimals), ..] = lexemes[number.taken..] {
            number.decimals = Some(decimals);
            number.taken += 2;
        }
        Some(number)
    }

    /// 3.14: three point one four.
    pub(super) fn words(&self) -> String {
        match (self.whole.as_str(), self.decimals) {
            (digits, None) => whole(digits),
            ("", Some(decimals)) => format!("point {}", digit_by_digit(decimals)),
            (digits, Some(decimals)) => format!("{} point {}", whole(digits), digit_by_digit(decimals)),
        }
    }

    /// Whether what it counts is in the singular.
    pub(super) fn is_one(&self) -> bool {
        self.whole == "1" && self.decimals.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::english::lexeme::lexemes;

    #[test]
    fn cardinals_and_ordinals_have_their_names() {
        for (n, cardinal_name, ordinal_name) in [
            (0, "zero", "zeroth"),
            (12, "twelve", "twelfth"),
            (20, "twenty", "twentieth"),
            (21, "twenty-one", "twenty-first"),
            (100, "one hundred", "one hundredth"),
            (103, "one hundred three", "one hundred third"),
            (1_001, "one thousand one", "one thousand first"),
            (1_000_000, "one million", "one millionth"),
            (
                987_654_321,
                "nine hundred eighty-seven million six hundred fifty-four thousand three hundred twenty-one",
                "nine hundred eighty-seven million six hundred fifty-four thousand three hundred twenty-first",
            ),
            (LARGEST, "one quadrillion", "one quadrillionth"),
        ] {
            assert_eq!((cardinal(n).as_str(), ordinal(n).as_str()), (cardinal_name, ordinal_name));
        }
        cardinal(u64::MAX);
    }

    #[test]
    fn years_are_read_in_pairs() {
        for (n, name) in [
            (476, "four hundred seventy-six"),
            (1066, "ten sixty-six"),
            (1005, "one thousand five"),
            (1100, "eleven hundred"),
            (1805, "eighteen oh five"),
            (1999, "nineteen ninety-nine"),
            (2000, "two thousand"),
            (2009, "two thousand nine"),
            (2010, "twenty ten"),
            (2100, "twenty-one hundred"),
        ] {
            assert_eq!(year(n), name);
        }
    }

    #[test]
    fn numbers_end_where_they_do() {
        let read = |text: &str| Number::read(&lexemes(text)).map(|number| (number.words(), number.taken));
        for (text, words, taken) in [
            (
                "1,234,567.89",
                "one million two hundred thirty-four thousand five hundred sixty-seven point eight nine",
                7,
            ),
            ("1,23", "one", 1),
            ("12.", "twelve", 1),
            ("007", "zero zero seven", 1),
            (".5", "point five", 2),
            (
                "1000000000000001",
                "one zero zero zero zero zero zero zero zero zero zero zero zero zero zero one",
                1,
            ),
        ] {
            assert_eq!(read(text), Some((words.to_owned(), taken)), "{text}");
        }
        assert_eq!(read("x"), None);
    }

    #[test]
    fn parts_have_the_names_of_ordinals() {
        let names = [(1, 2), (3, 2), (3, 4), (1, 3), (5, 8), (7, 100)].map(|(n, d)| fraction(n, d));
        assert_eq!(
            names,
            ["one half", "three halves", "three quarters", "one third", "five eighths", "seven hundredths"]
        );
        assert_eq!(["ninety", "six", "ten"].map(plural), ["nineties", "sixes", "tens"]);
    }
}
