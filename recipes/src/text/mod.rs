//! What is done to a text before it is scored. A word error rate means something only beside the name of its normaliser.

mod basic;
mod characters;
mod english;
mod pashto;
mod script;

pub use basic::Basic;
pub use english::English;
pub use script::{Row, Script};

pub(crate) use characters::{is_space, unpunctuated, words};

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A normaliser's name, as in a file, on a command line and in a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normaliser {
    /// The text as it is: case and punctuation count.
    #[default]
    None,
    /// Whisper's `BasicTextNormalizer`: lower case, no brackets, no marks, symbols or punctuation. It puts a space
    /// where a combining mark was, so a vocalised Arabic word falls to pieces.
    Basic,
    /// `BasicTextNormalizer(remove_diacritics=True)`: compatibility decomposition, combining marks deleted. It makes
    /// ئ the same as ي, and آ the same as ا.
    BasicRemoveDiacritics,
    /// `BasicTextNormalizer(split_letters=True)`: every letter is a word, for scripts that put no space between words.
    BasicSplitLetters,
    /// Whisper's `EnglishTextNormalizer`: contractions, titles, numbers, currencies and British spelling as well.
    English,
    /// Pashto with one way to write each letter: no vowel marks, one kaf, one yeh of two keyboards; its own yehs stay apart.
    PsStrict,
    /// Pashto as Kaldi's BABEL recipe folds it: yehs, hamzas and Urdu's letters become one as well.
    PsLenient,
}

/// Why there is no normaliser.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing has this name.
    #[error("there is no normaliser `{name}`: use one of {}", Normaliser::names())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A pattern of the normaliser does not compile.
    #[error(transparent)]
    Pattern(#[from] regex::Error),
    /// The table of spellings is no table.
    #[error("english.json: {0}")]
    Spelling(#[from] serde_json::Error),
}

impl Normaliser {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Basic,
        Self::BasicRemoveDiacritics,
        Self::BasicSplitLetters,
        Self::English,
        Self::PsStrict,
        Self::PsLenient,
    ];

    /// Those by which texts of a language are scored unless somebody says otherwise, the first being what decides.
    pub fn of_language(language: Option<&str>) -> &'static [Self] {
        match language {
            Some("ps") => &[Self::PsStrict, Self::PsLenient],
            _ => &[Self::Basic],
        }
    }

    /// The name, the same as serde's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::BasicRemoveDiacritics => "basic-remove-diacritics",
            Self::BasicSplitLetters => "basic-split-letters",
            Self::English => "english",
            Self::PsStrict => "ps-strict",
            Self::PsLenient => "ps-lenient",
        }
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Normaliser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Normaliser {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|one| one.name() == name)
            .ok_or_else(|| Error::Unknown { name: name.to_owned() })
    }
}

/// A normaliser with its patterns and tables made: build once, apply to every text.
#[derive(Debug)]
pub enum TextNormaliser {
    /// Leaves the text alone.
    None,
    /// `Normaliser::Basic` and its two variants.
    Basic(Basic),
    /// `Normaliser::English`.
    English(Box<English>),
    /// `Normaliser::PsStrict` and `PsLenient`.
    Language(fn(&str) -> String),
}

impl TextNormaliser {
    /// Makes the one of this name.
    pub fn new(name: Normaliser) -> Result<Self, Error> {
        Ok(match name {
            Normaliser::None => Self::None,
            Normaliser::Basic => Self::Basic(Basic::new(false, false)?),
            Normaliser::BasicRemoveDiacritics => Self::Basic(Basic::new(true, false)?),
            Normaliser::BasicSplitLetters => Self::Basic(Basic::new(false, true)?),
            Normaliser::English => Self::English(Box::new(English::new()?)),
            Normaliser::PsStrict => Self::Language(pashto::strict),
            Normaliser::PsLenient => Self::Language(pashto::lenient),
        })
    }

    /// The normalised text. As in Whisper it may begin or end with a space, which no score counts.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self {
            Self::None => Cow::Borrowed(text),
            Self::Basic(basic) => Cow::Owned(basic.apply(text)),
            Self::English(english) => Cow::Owned(english.apply(text)),
            Self::Language(normalise) => Cow::Owned(normalise(text)),
        }
    }
}

#[cfg(test)]
mod tests;
