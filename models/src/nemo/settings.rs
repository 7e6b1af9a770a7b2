//! A part of `model_config.yaml`: every key of it is understood, known to say nothing, or refused by its name.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

/// A part of a configuration.
pub(super) struct Settings<'a> {
    path: &'a Path,
    name: String,
    keys: Option<&'a Map<String, Value>>,
    seen: BTreeSet<String>,
}

impl<'a> Settings<'a> {
    /// The whole of a configuration, read from `path`.
    pub fn new(path: &'a Path, whole: &'a Value) -> Self {
        Self { path, name: String::new(), keys: whole.as_object(), seen: BTreeSet::new() }
    }

    /// The part below `key`; empty where there is none.
    pub fn below(&mut self, key: &str) -> Self {
        let keys = self.get(key).and_then(Value::as_object);
        Self { path: self.path, name: self.full(key), keys, seen: BTreeSet::new() }
    }

    /// A value, if there is one: null is one, and turns off what is on where there is none.
    pub fn get(&mut self, key: &str) -> Option<&'a Value> {
        self.seen.insert(key.to_owned());
        self.keys?.get(key)
    }

    /// Makes sure that the class of a part, where it names one, is the one that is known.
    ///
    /// # Errors
    /// Another class.
    pub fn class(&mut self, known: &str) -> Result<(), Error> {
        match self.get("_target_") {
            None => Ok(()),
            Some(Value::String(target)) if target.rsplit('.').next() == Some(known) => Ok(()),
            Some(target) => Err(self.refuse("_target_", format!("{target} is not known; {known} is"))),
        }
    }

    /// An error that names the key.
    pub fn refuse(&self, key: &str, message: impl Into<String>) -> Error {
        Error::key(self.path, self.full(key), message.into())
    }

    /// A whole number.
    ///
    /// # Errors
    /// Another value; none, where there is no `default`.
    pub fn count(&mut self, key: &str, default: Option<usize>) -> Result<usize, Error> {
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.refuse(key, "is missing")),
            (Some(value), _) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Ok(n),
                None => Err(self.refuse(key, format!("{value} is no whole number"))),
            },
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// Another value.
    pub fn is(&mut self, key: &str, default: bool) -> Result<bool, Error> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(value) => Err(self.refuse(key, format!("{value} is neither true nor false"))),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// Another value, or none.
    pub fn text(&mut self, key: &str) -> Result<&'a str, Error> {
        match self.get(key) {
            Some(Value::String(text)) => Ok(text),
            Some(value) => Err(self.refuse(key, format!("{value} is no text"))),
            None => Err(self.refuse(key, "is missing")),
        }
    }

    /// Makes sure that a value is one of those that are known, the first of which is meant where there is none.
    ///
    /// # Errors
    /// Another value; the message says which are known.
    pub fn known(&mut self, key: &str, default: &Value, known: &[Value]) -> Result<(), Error> {
        let value = self.get(key).unwrap_or(default);
        let is = |known: &Value| match (value.as_f64(), known.as_f64()) {
            (Some(value), Some(known)) => (value - known).abs() <= 1e-6 * known.abs(),
            _ => value == known,
        };
        if known.iter().any(is) {
            return Ok(());
        }
        let known: Vec<_> = known.iter().map(Value::to_string).collect();
        Err(self.refuse(key, format!("{value} is not known; {} is", known.join(" or "))))
    }

    /// Takes note of keys that say nothing about what a model computes.
    pub fn ignore(&mut self, keys: &[&str]) {
        self.seen.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Refuses keys that nobody asked for, unless they turn something off.
    ///
    /// # Errors
    /// The key and its value.
    pub fn finish(self) -> Result<(), Error> {
        let is_off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(keys) => keys.is_empty(),
            Value::Bool(true) => false,
        };
        let unknown =
            self.keys.into_iter().flatten().find(|(key, value)| !self.seen.contains(*key) && !is_off(value));
        match unknown {
            None => Ok(()),
            Some((key, value)) => {
                let value: String = value.to_string().chars().take(80).collect();
                Err(self.refuse(key, format!("is not known, and is {value}")))
            }
        }
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
