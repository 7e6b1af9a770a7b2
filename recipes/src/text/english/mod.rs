//! Whisper's `EnglishTextNormalizer` (openai/whisper, `normalizers/english.py`), to the letter: its oddities are part
//! of every word error rate that was published with it.

mod numbers;
mod spelling;

use regex::Regex;

use self::{numbers::Numbers, spelling::Spelling};
use super::{
    Error,
    basic::Asides,
    characters::{SPACE, begins_word, ends_word, remove_symbols_and_diacritics, squeeze},
};

/// Sounds that are no words.
const SOUNDS: [&str; 6] = ["hmm", "mm", "mhm", "mmm", "uh", "um"];

/// Whole words, replaced in this order.
const WORDS: [(&str, &str); 35] = [
    // Common contractions
    ("won't", "will not"),
    ("can't", "can not"),
    ("let's", "let us"),
    ("ain't", "aint"),
    ("y'all", "you all"),
    ("wanna", "want to"),
    ("gotta", "got to"),
    ("gonna", "going to"),
    ("i'ma", "i am going to"),
    ("imma", "i am going to"),
    ("woulda", "would have"),
    ("coulda", "could have"),
    ("shoulda", "should have"),
    ("ma'am", "madam"),
    // Titles
    ("mr", "mister "),
    ("mrs", "missus "),
    ("st", "saint "),
    ("dr", "doctor "),
    ("prof", "professor "),
    ("capt", "captain "),
    ("gov", "governor "),
    ("ald", "alderman "),
    ("gen", "general "),
    ("sen", "senator "),
    ("rep", "representative "),
    ("pres", "president "),
    ("rev", "reverend "),
    ("hon", "honorable "),
    ("asst", "assistant "),
    ("assoc", "associate "),
    ("lt", "lieutenant "),
    ("col", "colonel "),
    ("jr", "junior "),
    ("sr", "senior "),
    ("esq", "esquire "),
];

/// Ends of words, replaced after `WORDS` and in this order.
const ENDS: [(&str, &str); 14] = [
    // Perfect tenses
    ("'d been", " had been"),
    ("'s been", " has been"),
    ("'d gone", " had gone"),
    ("'s gone", " has gone"),
    ("'d done", " had done"),
    ("'s got", " has got"),
    // General contractions
    ("n't", " not"),
    ("'re", " are"),
    ("'s", " is"),
    ("'d", " would"),
    ("'ll", " will"),
    ("'t", " not"),
    ("'ve", " have"),
    ("'m", " am"),
];

/// The normaliser behind the published English word error rates.
#[derive(Debug)]
pub struct English {
    asides: Asides,
    apostrophe: Regex,
    comma: Regex,
    period: Regex,
    before_number: Regex,
    after_number: Regex,
    numbers: Numbers,
    spelling: Spelling,
}

impl English {
    /// Compiles the patterns and reads the table of spellings.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            asides: Asides::new()?,
            apostrophe: Regex::new(&format!("{SPACE}+'"))?,
            comma: Regex::new(r"(\d),(\d)")?,
            period: Regex::new(r"\.([^0-9]|$)")?,
            before_number: Regex::new(r"[.$¢€£]([^0-9])")?,
            after_number: Regex::new(r"([^0-9])%")?,
            numbers: Numbers::new()?,
            spelling: Spelling::new()?,
        })
    }

    /// The normalised text.
    pub fn apply(&self, text: &str) -> String {
        let mut text = self.asides.remove(&text.to_lowercase());
        for sound in SOUNDS {
            text = replace(text, sound, "", true);
        }
        text = self.apostrophe.replace_all(&text, "'").into_owned();
        for (word, replacement) in WORDS {
            text = replace(text, word, replacement, true);
        }
        for (end, replacement) in ENDS {
            text = replace(text, end, replacement, false);
        }
        // Commas between digits, then periods that no digit follows; the rest is for the numbers.
        let text = self.comma.replace_all(&text, "${1}${2}");
        let text = self.period.replace_all(&text, " ${1}");
        let text = remove_symbols_and_diacritics(&text, ".%$¢€£");

        let text = self.spelling.apply(&self.numbers.apply(&text));

        // Symbols that ended up beside no number.
        let text = self.before_number.replace_all(&text, " ${1}");
        let text = self.after_number.replace_all(&text, "${1} ");
        squeeze(&text)
    }
}

/// `re.sub(r"\bliteral\b", ..)`, the first `\b` only for a `whole` word.
fn replace(text: String, literal: &str, replacement: &str, whole: bool) -> String {
    let mut replaced = String::new();
    let mut copied = 0;
    for (start, _) in text.match_indices(literal) {
        let end = start + literal.len();
        if ends_word(&text, end) && (!whole || begins_word(&text, start)) {
            replaced.push_str(&text[copied..start]);
            replaced.push_str(replacement);
            copied = end;
        }
    }
    if copied == 0 {
        return text;
    }
    replaced.push_str(&text[copied..]);
    replaced
}
