//! Phonemes of what is said, which rows of manifests hold beside their texts: `"phonemes": "s a l aː m"`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::manifest::Cut;
use crate::Error;

/// The key of a row that has them.
pub(crate) const KEY: &str = "phonemes";

/// Phonemes by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phonemes {
    symbols: Vec<String>,
    ids: BTreeMap<String, u32>,
}

impl Phonemes {
    /// Those of the transcripts among some cuts, in the order of their symbols.
    ///
    /// # Errors
    /// A cut with a text that has none.
    pub fn of_cuts(cuts: &[Cut]) -> Result<Self, Error> {
        let mut symbols = BTreeSet::new();
        for cut in cuts.iter().filter(|cut| is_transcript(cut)) {
            symbols.extend(symbols_of(cut)?);
        }
        Ok(Self::new(symbols.into_iter().map(str::to_owned).collect()))
    }

    /// These, in their order.
    pub fn new(symbols: Vec<String>) -> Self {
        let ids = (0u32..).zip(&symbols).map(|(id, symbol)| (symbol.clone(), id)).collect();
        Self { symbols, ids }
    }

    /// Their symbols by number.
    pub fn symbols(&self) -> &[String] {
        &self.symbols
    }

    /// Those of a cut, none of a translation. What is not known is not there, as a token that CTC does not know.
    ///
    /// # Errors
    /// A cut with a text that has none.
    pub fn ids(&self, cut: &Cut) -> Result<Vec<u32>, Error> {
        if !is_transcript(cut) {
            return Ok(Vec::new());
        }
        Ok(symbols_of(cut)?.filter_map(|symbol| self.ids.get(symbol).copied()).collect())
    }

    /// Phonemes among cuts that are not known, each once.
    pub fn unknown<'a>(&self, cuts: &'a [Cut]) -> BTreeSet<&'a str> {
        let transcripts = cuts.iter().filter(|cut| is_transcript(cut));
        let symbols = transcripts.filter_map(|cut| symbols_of(cut).ok()).flatten();
        symbols.filter(|symbol| !self.ids.contains_key(*symbol)).collect()
    }

    /// Numbers as a text of symbols.
    pub fn spell(&self, ids: &[u32]) -> String {
        let symbols = ids.iter().filter_map(|id| self.symbols.get(*id as usize));
        symbols.map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// Whether what a cut is learnt with is what is said in it.
fn is_transcript(cut: &Cut) -> bool {
    cut.target_language.is_none()
}

pub(crate) fn symbols_of(cut: &Cut) -> Result<impl Iterator<Item = &str>, Error> {
    let phonemes = cut.extra.as_ref().and_then(|extra| extra.get(KEY)).and_then(Value::as_str);
    let phonemes = match phonemes {
        Some(phonemes) => phonemes,
        None if cut.text.trim().is_empty() => "",
        None => {
            let message = format!("{} has none: add them to its row (\"{KEY}\": \"s a l a m\")", cut.id);
            return Err(Error::config(KEY, message));
        }
    };
    Ok(phonemes.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, phonemes: Option<&str>) -> Cut {
        let row =
            serde_json::json!({ "audio_filepath": "a.wav", "duration": 1, "text": text, KEY: phonemes });
        let row = std::io::Cursor::new(row.to_string());
        let mut reader = super::super::manifest::Reader::new(
            row,
            "a.jsonl".as_ref(),
            super::super::manifest::Needs { text: false, ..Default::default() },
        )
        .expect("a reader");
        reader.next().expect("a row").expect("a cut")
    }

    #[test]
    fn phonemes_are_numbered_by_their_symbols_and_spelled_again() {
        let cuts = [cut("salam", Some("s a  l aː m")), cut("", None)];
        let phonemes = Phonemes::of_cuts(&cuts).expect("phonemes");
        assert_eq!(phonemes.symbols(), ["a", "aː", "l", "m", "s"]);
        let ids = phonemes.ids(&cuts[0]).expect("ids");
        assert_eq!((ids.as_slice(), phonemes.spell(&ids)), (&[4, 0, 2, 1, 3][..], "s a l aː m".to_owned()));
        assert_eq!(phonemes.ids(&cuts[1]).expect("none"), Vec::<u32>::new());
        let translation = Cut { target_language: Some("ps".into()), ..cut("x", None) };
        assert_eq!(phonemes.ids(&translation).expect("none"), Vec::<u32>::new());
    }

    #[test]
    fn a_text_without_phonemes_is_refused_and_unknown_ones_are_not_there() {
        let refused = Phonemes::of_cuts(&[cut("salam", None)]).expect_err("refused").to_string();
        assert!(refused.contains("\"phonemes\"") && refused.contains('a'), "{refused}");
        let (known, other) = (Phonemes::new(vec!["a".to_owned()]), [cut("x", Some("q a q"))]);
        assert_eq!(known.ids(&other[0]).expect("ids"), [0]);
        assert_eq!(known.unknown(&other).into_iter().collect::<Vec<_>>(), ["q"]);
    }
}
