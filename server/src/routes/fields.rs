//! The text fields of a form, taken by name. What nobody takes is unknown, and refused.

use std::{borrow::Cow, ops::RangeInclusive, str::FromStr};

use super::form::{Field, shown_name};
use crate::{
    config::{Off, Threshold},
    error::{Error, quoted},
};

/// Fields from which names are taken.
pub(super) struct Fields<'a> {
    all: &'a [Field],
    is_taken: Vec<bool>,
    /// Every name that was asked for.
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(all: &'a [Field]) -> Self {
        Self { all, is_taken: vec![false; all.len()], asked: Vec::new() }
    }

    /// All fields whose name passes, in order, with their names.
    fn take(&mut self, name: &'static str, is_it: impl Fn(&str) -> bool) -> Vec<(&'a str, &'a str)> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        let mut found = Vec::new();
        for (field, is_taken) in self.all.iter().zip(&mut self.is_taken) {
            if is_it(&field.name) {
                *is_taken = true;
                found.push((field.name.as_str(), field.value.as_str()));
            }
        }
        found
    }

    /// The text of a field that may be given once.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, Error> {
        match self.take(name, |candidate| candidate == name).as_slice() {
            [] => Ok(None),
            [(_, value)] => Ok(Some(value)),
            _ => Err(Error::invalid(name, "given twice")),
        }
    }

    /// The texts of a field that may be given any number of times, as `name` or as `name[]`.
    pub(super) fn list(&mut self, name: &'static str) -> Vec<&'a str> {
        let found = self.take(name, |candidate| {
            candidate.strip_prefix(name).is_some_and(|rest| matches!(rest, "" | "[]"))
        });
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The members of an object: `name[key]`.
    pub(super) fn members(&mut self, name: &'static str) -> Vec<(&'a str, &'a str)> {
        fn key<'a>(candidate: &'a str, name: &str) -> Option<&'a str> {
            candidate.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')
        }
        let found = self.take(name, |candidate| key(candidate, name).is_some());
        found.into_iter().filter_map(|(candidate, value)| Some((key(candidate, name)?, value))).collect()
    }

    /// A number; `NaN` and infinity are none.
    pub(super) fn number<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>, Error> {
        self.text(name)?.map(|text| number(name, text)).transpose()
    }

    /// A number with a fraction.
    pub(super) fn decimal(&mut self, name: &'static str) -> Result<Option<f32>, Error> {
        self.text(name)?.map(|text| decimal(name, text)).transpose()
    }

    /// A number in a range, or `off`.
    pub(super) fn threshold(
        &mut self,
        name: &'static str,
        range: RangeInclusive<f32>,
    ) -> Result<Option<Threshold>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if text == "off" {
            return Ok(Some(Threshold::Word(Off::Off)));
        }
        let (from, to) = (exact(*range.start()), exact(*range.end()));
        match number(name, text) {
            Ok(number) if (from..=to).contains(&number) => Ok(Some(Threshold::At(number as f32))),
            _ => {
                let message = format!("{} is neither a number from {from} to {to} nor \"off\"", quoted(text));
                Err(Error::invalid(name, message))
            }
        }
    }

    /// A switch.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        let switch = |text: &str| match text {
            "true" | "True" | "1" => Ok(true),
            "false" | "False" | "0" => Ok(false),
            text => Err(Error::invalid(name, format!("{} is neither true nor false", quoted(text)))),
        };
        self.text(name)?.map(switch).transpose()
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.all.iter().zip(&self.is_taken).find(|(_, is_taken)| !**is_taken) {
            Some((field, _)) => {
                Err(Error::Unknown { param: shown_name(&field.name), known: self.asked.join(", ") })
            }
            None => Ok(()),
        }
    }
}

/// A number with a fraction.
pub(super) fn decimal(name: impl Into<Cow<'static, str>>, text: &str) -> Result<f32, Error> {
    number(name, text).map(narrowed)
}

/// Of 0.01, the shortest digits rather than the nearest binary fraction.
pub(super) fn exact(limit: f32) -> f64 {
    limit.to_string().parse().unwrap_or_default()
}

/// The nearest number that the options can hold, except that one beyond a limit stays beyond it: limits are whole.
pub(super) fn narrowed(number: f64) -> f32 {
    let nearest = number as f32;
    match number - f64::from(nearest) {
        over if over > 0.0 && nearest.fract() == 0.0 => nearest.next_up(),
        under if under < 0.0 && nearest.fract() == 0.0 => nearest.next_down(),
        _ => nearest,
    }
}

/// A finite number of any type.
pub(super) fn number<T: FromStr>(name: impl Into<Cow<'static, str>>, text: &str) -> Result<T, Error> {
    // What the standard library takes for a number beyond digits, sign, point and exponent are words for no number.
    let is_number = !text.is_empty() && text.bytes().all(|byte| b"0123456789+-.eE".contains(&byte));
    let is_finite = || text.parse::<f32>().is_ok_and(f32::is_finite);
    let value = if is_number && is_finite() { text.parse().ok() } else { None };
    value.ok_or_else(|| {
        Error::invalid(name, format!("{} is not a number that is possible here", quoted(text)))
    })
}
