//! What a text is spelled in.

use std::collections::{BTreeSet, HashMap};

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::{FlowLmConfig, SymbolUnit};
use crate::Error;

/// Unknown characters that an error shows at most.
const MAX_SHOWN: usize = 8;

/// Symbols by number, and back.
#[derive(Debug, Clone)]
pub struct Symbols {
    ids: HashMap<String, u32>,
    unit: SymbolUnit,
    edge: u32,
}

impl Symbols {
    /// Those of a model.
    pub fn new(config: &FlowLmConfig) -> Self {
        let ids = (0u32..).zip(&config.symbols).map(|(id, symbol)| (symbol.clone(), id)).collect();
        Self { ids, unit: config.unit, edge: config.edge() }
    }

    /// All that texts are spelled in, each once and in order: what a new model learns to read.
    pub fn of_texts<'a>(unit: SymbolUnit, texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut symbols = BTreeSet::new();
        for text in texts {
            symbols.extend(units(unit, text));
        }
        symbols.into_iter().collect()
    }

    /// How many a text has, edges left out, for a model that knows them all.
    pub fn count(unit: SymbolUnit, text: &str) -> usize {
        units(unit, text).len()
    }

    /// Ids of a text, an edge before and after them. A character that is not known is read as the one that it is without its accents. A mark that
    /// is not known is not read, and one within a word parts it, if the model knows blanks.
    ///
    /// # Errors
    /// Letters, digits and phonemes that are not known: they would be passed over in silence.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = vec![self.edge];
        let mut unknown = Vec::new();
        let blank = self.ids.get(" ").copied();
        // Whether something was passed over since the last symbol that parts words.
        let mut is_parted = false;
        for unit in units(self.unit, text) {
            match self.find(&unit) {
                Found::Ids(found) => {
                    let is_blank = |id: Option<&u32>| id == blank.as_ref() || id == Some(&self.edge);
                    if let Some(blank) = blank
                        && is_parted
                        && !is_blank(ids.last())
                        && !is_blank(found.first())
                    {
                        ids.push(blank);
                    }
                    is_parted &= found.is_empty();
                    ids.extend(found);
                }
                Found::Silent => is_parted |= unit.chars().any(parts),
                Found::Unknown if unknown.contains(&unit) => (),
                Found::Unknown => unknown.push(unit),
            }
        }
        if !unknown.is_empty() {
            let shown: Vec<String> = unknown.iter().take(MAX_SHOWN).map(|unit| format!("`{unit}`")).collect();
            let more = if unknown.len() > MAX_SHOWN { " and others" } else { "" };
            let message = format!(
                "the model has not learnt to read {}{more}; it reads what it was trained on",
                shown.join(", ")
            );
            return Err(Error::option("input", message));
        }
        ids.push(self.edge);
        Ok(ids)
    }

    fn find(&self, unit: &str) -> Found {
        if let Some(id) = self.ids.get(unit) {
            return Found::Ids(vec![*id]);
        }
        if self.unit == SymbolUnit::Phonemes {
            return Found::Unknown;
        }
        let bare: String = unit.nfd().filter(|c| !is_combining_mark(*c)).collect();
        let ids: Option<Vec<u32>> =
            bare.chars().map(|c| self.ids.get(c.to_string().as_str()).copied()).collect();
        match ids {
            Some(ids) => Found::Ids(ids),
            None if bare.chars().any(char::is_alphanumeric) => Found::Unknown,
            None => Found::Silent,
        }
    }
}

/// Whether a character parts what stands on either side of it: marks and signs do, apostrophes and what is not seen do not.
fn parts(c: char) -> bool {
    let is_apostrophe = matches!(c, '\'' | '\u{2019}' | '\u{2bc}');
    let group = c.general_category_group();
    !is_apostrophe && matches!(group, GeneralCategoryGroup::Punctuation | GeneralCategoryGroup::Symbol)
}

enum Found {
    Ids(Vec<u32>),
    Silent,
    Unknown,
}

/// What a text is made of: its characters in lower case, white space being one blank, or what stands between its blanks.
fn units(unit: SymbolUnit, text: &str) -> Vec<String> {
    match unit {
        SymbolUnit::Characters => {
            let words: Vec<&str> = text.split_whitespace().collect();
            words.join(" ").to_lowercase().nfc().map(String::from).collect()
        }
        SymbolUnit::Phonemes => text.split_whitespace().map(str::to_owned).collect(),
    }
}
