//! How TER cuts a text into words: sacrebleu's `tercom`.

use std::borrow::Cow;

use regex::Regex;

use super::TerOptions;

/// Line ends, escaped marks, and spaces around punctuation.
const WESTERN: [(&str, &str); 11] = [
    ("\n-", ""),
    ("\n", " "),
    ("&quot;", "\""),
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", " ${1} "),
    ("'s ", " 's "),
    // Periods and commas, unless a digit precedes; unless a digit follows.
    (r"([^0-9])([\.,])", "${1} ${2} "),
    (r"([\.,])([^0-9])", " ${1} ${2}"),
    // Dashes after a digit
    (r"([0-9])(-)", "${1} ${2} "),
];

/// Spaces around ideographs and punctuation. sacrebleu's block of letters in circles ends at U+3F22; its rules for kana hold at
/// the beginning of a text alone, where it has put a space.
const ASIAN: [(&str, &str); 3] = [
    (
        r"([\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{31c0}-\x{31ef}\x{2e80}-\x{2eff}\x{3300}-\x{33ff}\x{f900}-\x{faff}\x{fe30}-\x{fe4f}\x{3200}-\x{3f22}])",
        " ${1} ",
    ),
    (r"([\x{3001}\x{3002}\x{3008}-\x{3011}\x{3014}-\x{301f}\x{ff61}-\x{ff65}\x{30fb}])", " ${1} "),
    (r"([\x{ff0e}\x{ff0c}\x{ff1f}\x{ff1a}\x{ff1b}\x{ff01}\x{ff02}\x{ff08}\x{ff09}])", " ${1} "),
];

const NO_WESTERN_PUNCTUATION: (&str, &str) = (r#"[\.,\?:;!"\(\)]"#, "");

/// A tokeniser with its patterns compiled.
#[derive(Debug)]
pub(super) struct Tokenizer {
    is_case_sensitive: bool,
    rules: Vec<(Regex, &'static str)>,
}

impl Tokenizer {
    pub(super) fn new(options: TerOptions) -> Result<Self, regex::Error> {
        let mut rules = Vec::new();
        if options.normalized {
            rules.extend(WESTERN);
            if options.asian_support {
                rules.extend(ASIAN);
            }
        }
        if options.no_punct {
            rules.push(NO_WESTERN_PUNCTUATION);
            if options.asian_support {
                rules.extend([(ASIAN[1].0, ""), (ASIAN[2].0, "")]);
            }
        }
        let compile = |(pattern, replacement): (&str, &'static str)| Ok((Regex::new(pattern)?, replacement));
        Ok(Self {
            is_case_sensitive: options.case_sensitive,
            rules: rules.into_iter().map(compile).collect::<Result<_, regex::Error>>()?,
        })
    }

    /// The text with white space between its words.
    pub(super) fn apply(&self, line: &str) -> String {
        // The rules want something on both sides of the first mark and the last.
        let text = format!(" {line} ");
        let mut text = Cow::Owned(if self.is_case_sensitive { text } else { text.to_lowercase() });
        for (pattern, replacement) in &self.rules {
            text = Cow::Owned(pattern.replace_all(&text, *replacement).into_owned());
        }
        text.into_owned()
    }
}
