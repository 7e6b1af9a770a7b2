//! How a translator is told what to translate into.

use std::collections::BTreeMap;

use crate::{Error, TRANSLATED_TO};

/// Languages that a translator can be told, and how.
pub(super) enum Targets {
    /// It cannot be told, and its files do not say which it knows.
    Unknown,
    /// The only one that it knows.
    One(String),
    /// By a token before the text: its name and its id, by code.
    Tokens(BTreeMap<String, (String, u32)>),
    /// By words before the text, by code.
    Prefixes(BTreeMap<String, String>),
}

/// What is said about the language before a text.
pub(super) enum Target<'a> {
    /// Nothing.
    Unsaid,
    /// These words.
    Said(&'a str),
    /// This token.
    Token { id: u32, name: &'a str },
}

impl Targets {
    /// Those of tokens in a vocabulary whose names are codes between these two.
    pub fn of_tokens<'a>(
        tokens: impl Iterator<Item = (&'a str, u32)>,
        (before, after): (&str, &str),
    ) -> Option<Self> {
        let named = tokens.filter_map(|(name, id)| {
            let code = name.strip_prefix(before)?.strip_suffix(after)?;
            let is_code = code.len() >= 2 && code.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
            is_code.then(|| (code.to_owned(), (name.to_owned(), id)))
        });
        Some(named.collect()).filter(|tokens: &BTreeMap<_, _>| !tokens.is_empty()).map(Self::Tokens)
    }

    /// All codes, in order.
    pub fn codes(&self) -> Vec<&str> {
        match self {
            Self::Unknown => Vec::new(),
            Self::One(code) => vec![code],
            Self::Tokens(tokens) => tokens.keys().map(String::as_str).collect(),
            Self::Prefixes(prefixes) => prefixes.keys().map(String::as_str).collect(),
        }
    }

    /// The only one.
    pub fn only(&self) -> Option<&str> {
        match self.codes().as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// What is said of a language; of none, the only one's or English.
    ///
    /// # Errors
    /// A language that is not among them.
    pub fn of(&self, to_language: Option<&str>) -> Result<Target<'_>, Error> {
        let code = to_language.or_else(|| self.only()).unwrap_or(TRANSLATED_TO);
        let target = match self {
            Self::Unknown => Some(Target::Unsaid),
            Self::One(only) => (only == code).then_some(Target::Unsaid),
            Self::Tokens(tokens) => tokens.get(code).map(|(name, id)| Target::Token { id: *id, name }),
            Self::Prefixes(prefixes) => prefixes.get(code).map(|prefix| Target::Said(prefix)),
        };
        target.ok_or_else(|| {
            let known = self.codes().join(", ");
            Error::option(
                "to_language",
                format!("`{code}` is not possible: this translator writes {known} only"),
            )
        })
    }
}
