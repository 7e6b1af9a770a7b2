//! Whisper's `EnglishNumberNormalizer`: spelled numbers become digits, with their signs, currencies and ordinal ends.

mod reading;
mod vocabulary;

use std::{collections::HashMap, mem};

use regex::{Captures, Regex};

use self::{
    reading::{Fraction, Reading, Value, is_numeric},
    vocabulary::{Word, vocabulary},
};
use crate::text::{
    characters::{SPACE, begins_word, ends_word},
    words,
};

/// What can stand before digits.
const PREFIXES: [char; 6] = ['-', '+', '£', '€', '$', '¢'];

#[derive(Debug)]
pub(super) struct Numbers {
    words: HashMap<String, Word>,
    and_a_half: Regex,
    letter_digit: Regex,
    digit_letter: Regex,
    suffix: Regex,
    currency_and_cents: Regex,
    only_cents: Regex,
    ones: Regex,
}

impl Numbers {
    pub(super) fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            words: vocabulary(),
            and_a_half: Regex::new(&format!("and{SPACE}+a{SPACE}+half"))?,
            letter_digit: Regex::new("([a-z])([0-9])")?,
            digit_letter: Regex::new("([0-9])([a-z])")?,
            suffix: Regex::new(&format!("([0-9]){SPACE}+(st|nd|rd|th|s)"))?,
            currency_and_cents: Regex::new("([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})")?,
            // The period is any character in the reference too.
            only_cents: Regex::new("[€£$]0.([0-9]{1,2})")?,
            ones: Regex::new("1(s?)")?,
        })
    }

    /// Words joined by single spaces, spelled numbers as digits.
    pub(super) fn apply(&self, text: &str) -> String {
        let text = self.prepare(text);
        let text = self.read(&words(&text).collect::<Vec<_>>()).join(" ");

        // "$2 and ¢7" is "$2.07", "$0.36" is "¢36", and a 1 alone is easier to read as a word.
        let text = replace(&self.currency_and_cents, &text, false, |found| {
            format!("{}{}.{:0>2}", &found[1], &found[2], &found[3])
        });
        let text = replace(&self.only_cents, &text, false, |found| {
            let cents = found[1].trim_start_matches('0');
            format!("¢{}", if cents.is_empty() { "0" } else { cents })
        });
        replace(&self.ones, &text, true, |found| format!("one{}", &found[1]))
    }

    /// "... and a half" as "... point five" after a number, and spaces between letters and digits.
    fn prepare(&self, text: &str) -> String {
        let mut segments = Vec::new();
        let mut start = 0;
        for found in self.and_a_half.find_iter(text) {
            if begins_word(text, found.start()) && ends_word(text, found.end()) {
                segments.push(&text[start..found.start()]);
                start = found.end();
            }
        }
        let n_halves = segments.len();
        segments.push(&text[start..]);

        let mut parts = Vec::new();
        for (i, segment) in segments.into_iter().enumerate() {
            // A half that nothing precedes is dropped, in the reference too.
            let Some(last) = words(segment).last() else { continue };
            parts.push(segment);
            if i < n_halves {
                let is_number = matches!(
                    self.words.get(last),
                    Some(Word::Zero | Word::One(_) | Word::Ten(_) | Word::Multiplier(_))
                );
                parts.push(if is_number { "point five" } else { "and a half" });
            }
        }
        let text = parts.join(" ");
        let text = self.letter_digit.replace_all(&text, "${1} ${2}");
        let text = self.digit_letter.replace_all(&text, "${1} ${2}");
        replace(&self.suffix, &text, false, |found| format!("{}{}", &found[1], &found[2]))
    }

    /// The one pass over the words in which numbers are put together.
    fn read(&self, words: &[&str]) -> Vec<String> {
        let mut reading = Reading::default();
        let mut previous = None;
        let mut skip = false;
        for (i, &current) in words.iter().enumerate() {
            let word = self.words.get(current).copied();
            if !mem::take(&mut skip) {
                let next = words.get(i + 1).copied();
                skip = self.step(&mut reading, previous, (current, word), next);
            }
            previous = word;
        }
        reading.flush();
        reading.words
    }

    /// Takes one word; returns whether the next one is used up.
    fn step(
        &self,
        reading: &mut Reading,
        previous: Option<Word>,
        (current, word): (&str, Option<Word>),
        next: Option<&str>,
    ) -> bool {
        let next_word = next.and_then(|next| self.words.get(next).copied());
        let number_may_follow = next_word.is_some() || next.is_some_and(is_numeric);

        let prefix = current.chars().next().filter(|c| PREFIXES.contains(c));
        let bare = prefix.map_or(current, |prefix| &current[prefix.len_utf8()..]);
        if is_numeric(bare) {
            if let Some(Value::Digits(digits)) = &mut reading.value
                && digits.ends_with('.')
            {
                digits.push_str(current); // decimals, or the parts of an address
                return false;
            }
            reading.flush();
            reading.prefix = prefix.or(reading.prefix);
            let whole = Fraction::parse(bare).and_then(|fraction| fraction.times(&1_u32.into()));
            reading.value = Some(whole.map_or_else(|| Value::Digits(bare.to_owned()), Value::Sum));
            return false;
        }
        let Some(word) = word else {
            reading.flush();
            reading.write(current);
            return false;
        };
        match word {
            Word::Zero => {
                reading.value = Some(Value::Digits(Value::into_digits(reading.value.take()) + "0"));
            }
            Word::One(ones) => reading.value = Some(reading.with_ones(ones, previous)),
            Word::OneWith(ones, end) => {
                let text = reading.with_ones(ones, previous).into_text();
                reading.write(&(text + end));
            }
            Word::Ten(tens) => reading.value = Some(reading.with_tens(tens)),
            Word::TenWith(tens, end) => {
                let text = reading.with_tens(tens).into_text();
                reading.write(&(text + end));
            }
            Word::Multiplier(power) => {
                reading.value = Some(reading.multiplied(power));
            }
            Word::MultiplierWith(power, end) => {
                let text = reading.multiplied(power).into_text();
                reading.write(&(text + end));
            }
            Word::Sign(sign) => {
                reading.flush();
                if number_may_follow {
                    reading.prefix = Some(sign);
                } else {
                    reading.write(current);
                }
            }
            Word::Currency(symbol) => {
                if reading.value.is_some() {
                    reading.prefix = Some(symbol);
                    reading.flush();
                } else {
                    reading.write(current);
                }
            }
            Word::Percent | Word::Per => match reading.value.take() {
                None => reading.write(current),
                Some(value) if word == Word::Percent || next == Some("cent") => {
                    reading.write(&(value.into_text() + "%"));
                    return word == Word::Per;
                }
                Some(value) => {
                    reading.write(&value.into_text());
                    reading.write(current);
                }
            },
            Word::And | Word::Repeat(_) | Word::Point if !number_may_follow => {
                reading.flush();
                reading.write(current);
            }
            // Left out after hundreds, thousands and so on.
            Word::And if matches!(previous, Some(Word::Multiplier(_))) => {}
            Word::And => {
                reading.flush();
                reading.write(current);
            }
            Word::Repeat(n_times) => {
                let ones = match next_word {
                    Some(Word::Zero) => 0,
                    Some(Word::One(ones)) => ones,
                    _ => {
                        reading.flush();
                        reading.write(current);
                        return false;
                    }
                };
                let digits = Value::into_digits(reading.value.take()) + &ones.to_string().repeat(n_times);
                reading.value = Some(Value::Digits(digits));
                return true;
            }
            Word::Point => {
                // Before another word of numbers, such as "hundred", the point is dropped.
                let decimals_follow = matches!(next_word, Some(Word::Zero | Word::One(_) | Word::Ten(_)));
                if decimals_follow || next.is_some_and(is_numeric) {
                    reading.value = Some(Value::Digits(Value::into_digits(reading.value.take()) + "."));
                }
            }
        }
        false
    }
}

/// `re.sub(pattern + r"\b", ..)`, with `\b` in front as well for a `whole` word. Whatever matches ends with a word character.
fn replace(
    pattern: &Regex,
    text: &str,
    whole: bool,
    replacement: impl Fn(&Captures<'_>) -> String,
) -> String {
    let mut replaced = String::with_capacity(text.len());
    let (mut copied, mut from) = (0, 0);
    while let Some(found) = pattern.captures_at(text, from) {
        let (start, end) =
            found.get(0).map_or((text.len(), text.len()), |whole| (whole.start(), whole.end()));
        if ends_word(text, end) && (!whole || begins_word(text, start)) {
            replaced.push_str(&text[copied..start]);
            replaced.push_str(&replacement(&found));
            (copied, from) = (end, end);
        } else {
            // Python would try shorter matches here; those of our patterns end before a word character too.
            from = start + text[start..].chars().next().map_or(1, char::len_utf8);
        }
    }
    replaced.push_str(&text[copied..]);
    replaced
}
