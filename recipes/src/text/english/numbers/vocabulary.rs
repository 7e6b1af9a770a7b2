//! The words of which spoken numbers are made.

use std::collections::HashMap;

const ONES: [&str; 19] = [
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
/// Ordinals that are not made of a number and `th`.
const ORDINALS: [(&str, u32, &str); 6] = [
    ("zeroth", 0, "th"),
    ("first", 1, "st"),
    ("second", 2, "nd"),
    ("third", 3, "rd"),
    ("fifth", 5, "th"),
    ("twelfth", 12, "th"),
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
/// With their powers of ten.
const MULTIPLIERS: [(&str, u32); 12] = [
    ("hundred", 2),
    ("thousand", 3),
    ("million", 6),
    ("billion", 9),
    ("trillion", 12),
    ("quadrillion", 15),
    ("quintillion", 18),
    ("sextillion", 21),
    ("septillion", 24),
    ("octillion", 27),
    ("nonillion", 30),
    ("decillion", 33),
];
const SIGNS: [(&str, char); 4] = [("minus", '-'), ("negative", '-'), ("plus", '+'), ("positive", '+')];
const CURRENCIES: [(&str, char); 8] = [
    ("pound", '£'),
    ("pounds", '£'),
    ("euro", '€'),
    ("euros", '€'),
    ("dollar", '$'),
    ("dollars", '$'),
    ("cent", '¢'),
    ("cents", '¢'),
];

/// What a word does to the number that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Zero,
    /// One to nineteen.
    One(u32),
    /// The same as plural or ordinal, with its end.
    OneWith(u32, &'static str),
    Ten(u32),
    TenWith(u32, &'static str),
    /// Ten to this power.
    Multiplier(u32),
    MultiplierWith(u32, &'static str),
    Sign(char),
    Currency(char),
    Per,
    Percent,
    And,
    /// `double` and `triple`.
    Repeat(usize),
    Point,
}

/// Every word that can be part of a number.
pub(super) fn vocabulary() -> HashMap<String, Word> {
    let mut words = HashMap::new();
    for zero in ["o", "oh", "zero"] {
        words.insert(zero.to_owned(), Word::Zero);
    }
    for (value, name) in (1..).zip(ONES) {
        words.insert(name.to_owned(), Word::One(value));
        let plural = if name == "six" { "sixes".to_owned() } else { format!("{name}s") };
        words.insert(plural, Word::OneWith(value, "s"));
        if value > 3 && value != 5 && value != 12 {
            // "nineth" and not "ninth", as in the reference.
            let end = if name.ends_with('t') { "h" } else { "th" };
            words.insert(format!("{name}{end}"), Word::OneWith(value, "th"));
        }
    }
    for (name, value, end) in ORDINALS {
        words.insert(name.to_owned(), Word::OneWith(value, end));
    }
    for (value, name) in (20..).step_by(10).zip(TENS) {
        words.insert(name.to_owned(), Word::Ten(value));
        words.insert(name.replace('y', "ies"), Word::TenWith(value, "s"));
        words.insert(name.replace('y', "ieth"), Word::TenWith(value, "th"));
    }
    for (name, power) in MULTIPLIERS {
        words.insert(name.to_owned(), Word::Multiplier(power));
        words.insert(format!("{name}s"), Word::MultiplierWith(power, "s"));
        words.insert(format!("{name}th"), Word::MultiplierWith(power, "th"));
    }
    words.extend(SIGNS.map(|(name, sign)| (name.to_owned(), Word::Sign(sign))));
    words.extend(CURRENCIES.map(|(name, symbol)| (name.to_owned(), Word::Currency(symbol))));
    let others = [
        ("per", Word::Per),
        ("percent", Word::Percent),
        ("and", Word::And),
        ("double", Word::Repeat(2)),
        ("triple", Word::Repeat(3)),
        ("point", Word::Point),
    ];
    words.extend(others.map(|(name, word)| (name.to_owned(), word)));
    words
}
