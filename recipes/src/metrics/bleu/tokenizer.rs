//! How BLEU cuts a text into words: sacrebleu's tokenisers, since a score without its tokeniser means nothing.

use std::{borrow::Cow, fmt, str::FromStr};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{metrics::Error, text};

/// A tokeniser's name, as in sacrebleu's signature. Its `ja-mecab`, `ko-mecab` and `spm` need dictionaries and are not
/// here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BleuTokenizer {
    /// Words are what white space separates.
    None,
    /// mteval-v13a, the default.
    #[default]
    #[serde(rename = "13a")]
    V13a,
    /// mteval-v14: all punctuation and symbols of Unicode.
    Intl,
    /// Chinese characters alone, the rest as in 13a.
    Zh,
    /// Every character is a word.
    Char,
}

impl BleuTokenizer {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::V13a, Self::Intl, Self::Zh, Self::Char];

    /// The name, the same as serde's and sacrebleu's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V13a => "13a",
            Self::Intl => "intl",
            Self::Zh => "zh",
            Self::Char => "char",
        }
    }
}

impl fmt::Display for BleuTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for BleuTokenizer {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| Error::Option {
            option: "tokenizer",
            message: format!(
                "there is no BLEU tokeniser `{name}`: use one of {}",
                Self::ALL.map(Self::name).join(", ")
            ),
        })
    }
}

/// A tokeniser with its patterns compiled: replacements that put spaces between words.
#[derive(Debug)]
pub(super) struct Tokenizer {
    name: BleuTokenizer,
    rules: Vec<(Regex, &'static str)>,
}

impl Tokenizer {
    pub(super) fn new(name: BleuTokenizer) -> Result<Self, regex::Error> {
        let rules: &[(&str, &str)] = match name {
            BleuTokenizer::None | BleuTokenizer::Char => &[],
            BleuTokenizer::V13a | BleuTokenizer::Zh => &[
                (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", " ${1} "),
                // Periods and commas, unless a digit precedes; unless a digit follows.
                (r"([^0-9])([\.,])", "${1} ${2} "),
                (r"([\.,])([^0-9])", " ${1} ${2}"),
                // Dashes after a digit
                (r"([0-9])(-)", "${1} ${2} "),
            ],
            BleuTokenizer::Intl => &[
                // Punctuation, unless between digits; then symbols.
                (r"(\P{N})(\p{P})", "${1} ${2} "),
                (r"(\p{P})(\P{N})", " ${1} ${2}"),
                (r"(\p{S})", " ${1} "),
            ],
        };
        let compile =
            |(pattern, replacement): &(&str, &'static str)| Ok((Regex::new(pattern)?, *replacement));
        Ok(Self { name, rules: rules.iter().map(compile).collect::<Result<_, regex::Error>>()? })
    }

    /// The text with white space between its words.
    pub(super) fn apply(&self, line: &str) -> String {
        let mut text = match self.name {
            BleuTokenizer::None | BleuTokenizer::Intl => Cow::Borrowed(line),
            BleuTokenizer::Char => return separate(line, |_| true),
            BleuTokenizer::V13a => Cow::Owned(unescape(line)),
            BleuTokenizer::Zh => Cow::Owned(separate(line.trim_matches(text::is_space), is_chinese)),
        };
        for (pattern, replacement) in &self.rules {
            text = Cow::Owned(pattern.replace_all(&text, *replacement).into_owned());
        }
        text.into_owned()
    }
}

/// The part of mteval-v13a that no language needs: markup, and a space at both ends.
fn unescape(line: &str) -> String {
    let line = line.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let line = line.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    format!(" {line} ")
}

fn separate(line: &str, alone: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(2 * line.len());
    for c in line.chars() {
        if alone(c) {
            text.extend([' ', c, ' ']);
        } else {
            text.push(c);
        }
    }
    text
}

/// sacrebleu's ranges. Its two beyond the first plane are written as characters of four digits and a fifth character,
/// so what they cover there, and here, is U+2001 to U+2A6D and U+2F81 to U+2FA1.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{2001}'..='\u{2a6d}'
        | '\u{2e80}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{303f}'
        | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{3200}'..='\u{4db5}'
        | '\u{4e00}'..='\u{9fbb}'
        | '\u{f900}'..='\u{fa2d}'
        | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}'
        | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{ff00}'..='\u{ffef}'
    )
}
