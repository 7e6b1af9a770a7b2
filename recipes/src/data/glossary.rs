//! Translations word by word, for cuts that come without one and say nothing but words of a list: numbers, commands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::Cut;
use crate::Error;

/// `[data.glossary]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Glossary {
    /// The language of the words; empty is any, also one that is not stated.
    #[serde(default)]
    pub from: String,
    /// The language that the words are translated into.
    pub language: String,
    /// Words in lower case, and what each is in that language.
    pub words: BTreeMap<String, String>,
}

impl Glossary {
    /// Whether it translates anything.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Refuses words that no text would have, or that are translated into nothing, and a glossary that says not into what.
    ///
    /// # Errors
    /// The first such, by its key.
    pub fn check(&self) -> Result<(), Error> {
        if !self.is_empty() && self.language.trim().is_empty() {
            let message = "is empty: say which language data.glossary.words are translated into";
            return Err(Error::config("data.glossary.language", message));
        }
        for (word, translation) in &self.words {
            let refuse = |message: &str| Err(Error::config(format!("data.glossary.words.{word}"), message));
            if word.split_whitespace().collect::<String>() != *word || word.is_empty() {
                return refuse("is not one word");
            }
            if word.to_lowercase() != *word {
                return refuse("is not in lower case, in which texts are looked up");
            }
            if translation.trim().is_empty() {
                return refuse("is translated into nothing");
            }
        }
        Ok(())
    }

    /// Translates the cuts of the words' language that have no translation and no word that is not in the glossary, in the order of their
    /// words.
    pub fn apply(&self, cuts: &mut [Cut]) {
        if self.is_empty() {
            return;
        }
        for cut in cuts.iter_mut().filter(|cut| cut.target_text.is_none()) {
            let language = cut.language.as_deref();
            let is_other = !self.from.is_empty() && language != Some(&*self.from);
            if is_other || language == Some(&*self.language) {
                continue;
            }
            let words = cut.text.split_whitespace().map(|word| self.words.get(&word.to_lowercase()));
            let translated: Option<Vec<_>> = words.map(|word| word.map(|word| word.trim())).collect();
            if let Some(words) = translated.filter(|words| !words.is_empty()) {
                cut.target_text = Some(words.join(" ").into());
                cut.target_language = Some(self.language.as_str().into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn glossary(language: &str, words: &[(&str, &str)]) -> Glossary {
        let words = words.iter().map(|(word, translation)| ((*word).to_owned(), (*translation).to_owned()));
        Glossary { from: String::new(), language: language.to_owned(), words: words.collect() }
    }

    fn cut(text: &str, language: &str, target: Option<&str>) -> Cut {
        Cut {
            id: text.into(),
            audio: Path::new("a.wav").into(),
            start_secs: 0.0,
            duration_secs: 1.0,
            channel: None,
            text: text.into(),
            language: Some(language.into()),
            speaker: None,
            target_text: target.map(Into::into),
            target_language: target.map(|_| "de".into()),
            extra: None,
        }
    }

    #[test]
    fn words_of_another_language_are_left_alone() {
        let glossary = Glossary { from: "en".to_owned(), ..glossary("ps", &[("no", "نه")]) };
        let unstated = Cut { language: None, ..cut("no", "", None) };
        let mut cuts = [cut("no", "en", None), cut("no", "es", None), unstated.clone()];
        glossary.apply(&mut cuts);
        assert_eq!(cuts.each_ref().map(|cut| cut.target_text.as_deref()), [Some("نه"), None, None]);
        let mut cuts = [unstated];
        Glossary { from: String::new(), ..glossary }.apply(&mut cuts);
        assert_eq!(cuts[0].target_text.as_deref(), Some("نه"));
    }

    #[test]
    fn texts_of_its_words_alone_are_translated() {
        let glossary = glossary("ps", &[("one", "یو"), ("two", " دوه "), ("stop", "بس کړه")]);
        let mut cuts = [
            cut("two  One stop", "en", None),
            cut("one three", "en", None),
            cut(" ", "en", None),
            cut("one", "en", Some("eins")),
            cut("one", "ps", None),
        ];
        glossary.apply(&mut cuts);
        let of = |cut: &Cut| {
            Some((cut.target_text.as_deref()?.to_owned(), cut.target_language.as_deref()?.to_owned()))
        };
        let pair = |text: &str, language: &str| Some((text.to_owned(), language.to_owned()));
        assert_eq!(
            cuts.each_ref().map(of),
            [pair("دوه یو بس کړه", "ps"), None, None, pair("eins", "de"), None]
        );
    }

    #[test]
    fn what_translates_nothing_is_named() {
        assert!(Glossary::default().check().is_ok() && glossary("ps", &[("one", "یو")]).check().is_ok());
        for (glossary, key) in [
            (glossary("", &[("one", "یو")]), "data.glossary.language: is empty"),
            (glossary("ps", &[("one two", "x")]), "data.glossary.words.one two: is not one word"),
            (glossary("ps", &[("One", "x")]), "data.glossary.words.One: is not in lower case"),
            (glossary("ps", &[("one", " ")]), "data.glossary.words.one: is translated into nothing"),
        ] {
            let message = glossary.check().expect_err(key).to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
