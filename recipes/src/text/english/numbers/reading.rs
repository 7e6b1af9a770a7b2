//! A number while its words come in.

use num_bigint::BigUint;

use super::vocabulary::Word;
use crate::text::characters::digit;

/// A number half read: a sum, or digits in a row (`one oh one`, `3.`).
#[derive(Debug)]
pub(super) enum Value {
    Sum(BigUint),
    Digits(String),
}

impl Value {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Sum(sum) => sum.to_string(),
            Self::Digits(digits) => digits,
        }
    }

    /// The digits so far, to which others are appended; those of a sum of zero are dropped.
    pub(super) fn into_digits(value: Option<Self>) -> String {
        match value {
            None => String::new(),
            Some(Self::Sum(sum)) if sum == BigUint::ZERO => String::new(),
            Some(value) => value.into_text(),
        }
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) prefix: Option<char>,
    pub(super) value: Option<Value>,
    pub(super) words: Vec<String>,
}

impl Reading {
    /// Ends the number, writing `text` in its place.
    pub(super) fn write(&mut self, text: &str) {
        self.value = None;
        let prefix = self.prefix.take();
        self.words.push(prefix.into_iter().chain(text.chars()).collect());
    }

    /// Writes the number that was being read, if there is one.
    pub(super) fn flush(&mut self) {
        if let Some(value) = self.value.take() {
            self.write(&value.into_text());
        }
    }

    /// The number with one to nineteen added or appended.
    pub(super) fn with_ones(&mut self, ones: u32, previous: Option<Word>) -> Value {
        let round = if ones < 10 { 10_u32 } else { 100 };
        match self.value.take() {
            None => Value::Sum(ones.into()),
            Some(Value::Sum(sum))
                if !matches!(previous, Some(Word::One(_))) && &sum % round == BigUint::ZERO =>
            {
                Value::Sum(sum + ones)
            }
            Some(value) => {
                let tens_precede =
                    matches!(previous, Some(Word::Ten(_))) && matches!(value, Value::Digits(_));
                let mut digits = value.into_text();
                if tens_precede && ones < 10 {
                    digits.pop(); // the zero of the tens
                }
                Value::Digits(format!("{digits}{ones}"))
            }
        }
    }

    /// The number with twenty to ninety added or appended.
    pub(super) fn with_tens(&mut self, tens: u32) -> Value {
        match self.value.take() {
            None => Value::Sum(tens.into()),
            Some(Value::Sum(sum)) if &sum % 100_u32 == BigUint::ZERO => Value::Sum(sum + tens),
            Some(value) => Value::Digits(format!("{}{tens}", value.into_text())),
        }
    }

    /// The number times a power of ten. Digits that do not give a whole number are written first, and what
    /// remains is the power alone.
    pub(super) fn multiplied(&mut self, power: u32) -> Value {
        let multiplier = BigUint::from(10_u32).pow(power);
        match self.value.take() {
            None => Value::Sum(multiplier),
            Some(Value::Sum(sum)) => {
                let residual = &sum % 1000_u32;
                Value::Sum(sum - &residual + residual * multiplier)
            }
            Some(Value::Digits(digits)) => {
                let product = Fraction::parse(&digits).and_then(|fraction| fraction.times(&multiplier));
                Value::Sum(product.unwrap_or_else(|| {
                    self.write(&digits);
                    multiplier
                }))
            }
        }
    }
}

/// `numerator` over ten to the power of `scale`.
pub(super) struct Fraction {
    numerator: BigUint,
    scale: u32,
}

impl Fraction {
    /// Digits of any script with at most one period, as Python's `Fraction` reads them.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits: Option<Vec<u8>> = whole.chars().chain(decimals.chars()).map(digit).collect();
        let numerator = BigUint::from_radix_be(&digits.filter(|digits| !digits.is_empty())?, 10)?;
        Some(Self { numerator, scale: u32::try_from(decimals.chars().count()).ok()? })
    }

    /// The product where it is whole.
    pub(super) fn times(self, multiplier: &BigUint) -> Option<BigUint> {
        let (product, denominator) = (self.numerator * multiplier, BigUint::from(10_u32).pow(self.scale));
        (&product % &denominator == BigUint::ZERO).then(|| product / denominator)
    }
}

/// `^\d+(\.\d+)?$`
pub(super) fn is_numeric(word: &str) -> bool {
    let is_digits = |part: &str| !part.is_empty() && part.chars().all(|c| digit(c).is_some());
    match word.split_once('.') {
        Some((whole, decimals)) => is_digits(whole) && is_digits(decimals),
        None => is_digits(word),
    }
}
