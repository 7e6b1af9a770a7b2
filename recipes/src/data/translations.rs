//! What becomes of cuts that come with a translation: each row of a manifest may hold two things to learn.

use std::sync::Arc;

use models::TRANSLATED_TO;
use serde::{Deserialize, Serialize};

use super::manifest::Cut;

/// What is learnt of cuts that come with a translation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Translations {
    /// What is said.
    #[default]
    Off,
    /// The translation; cuts without one, in which something is said, are left out.
    Only,
    /// Both, one after the other, as two cuts.
    Both,
}

impl Translations {
    /// Cuts as they are learnt: the text of each is what is to be written, and one that names a target language is a translation into it: into
    /// English where its row names none. Cuts in which nothing is said are translated into nothing, in each of the `targets` that is not
    /// their own language, by turns. Names stay different: a translation's ends with its language.
    pub fn apply(self, cuts: Vec<Cut>, targets: &[Arc<str>]) -> Vec<Cut> {
        let mut learnt = Vec::with_capacity(cuts.len());
        let mut n_silent = 0;
        for mut cut in cuts {
            let (mut target_text, mut target_language) = (cut.target_text.take(), cut.target_language.take());
            let is_silent = target_text.is_none() && cut.text.trim().is_empty();
            if is_silent {
                let others = || targets.iter().filter(|target| cut.language.as_ref() != Some(*target));
                if let Some(language) = others().nth(n_silent % others().count().max(1)) {
                    (target_text, target_language) = (Some("".into()), Some(language.clone()));
                    n_silent += 1;
                }
            }
            let translation = target_text.map(|text| {
                let language = target_language.unwrap_or_else(|| TRANSLATED_TO.into());
                let id = format!("{} > {language}", cut.id).into();
                Cut { id, text, target_language: Some(language), ..cut.clone() }
            });
            let has_translation = translation.is_some();
            if self != Self::Off {
                learnt.extend(translation);
            }
            // Nothing is written down that could be learnt, or it is said already.
            let is_said = self != Self::Both || !has_translation || !cut.text.trim().is_empty() || is_silent;
            if self != Self::Only && is_said {
                learnt.push(cut);
            }
        }
        learnt
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn cut(id: &str, text: &str, target: Option<(&str, &str)>) -> Cut {
        Cut {
            id: id.into(),
            audio: Path::new("a.wav").into(),
            start_secs: 0.0,
            duration_secs: 1.0,
            channel: None,
            text: text.into(),
            language: Some("ps".into()),
            speaker: None,
            target_text: target.map(|(text, _)| text.into()),
            target_language: target.map(|(_, language)| language.into()),
            extra: None,
        }
    }

    #[test]
    fn each_row_is_what_was_asked_for() {
        let cuts = vec![
            cut("a", "یو", Some(("one", "en"))),
            cut("b", "دوه", None),
            cut("c", "", Some(("three", "en"))),
        ];
        let learnt = |translations: Translations| -> Vec<(String, String, Option<String>)> {
            let cuts = translations.apply(cuts.clone(), &[]);
            assert!(
                cuts.iter().all(|cut| cut.target_text.is_none() && cut.language.as_deref() == Some("ps"))
            );
            cuts.iter()
                .map(|cut| {
                    (
                        cut.id.to_string(),
                        cut.text.to_string(),
                        cut.target_language.as_deref().map(str::to_owned),
                    )
                })
                .collect()
        };
        let row =
            |id: &str, text: &str, to: Option<&str>| (id.to_owned(), text.to_owned(), to.map(str::to_owned));
        assert_eq!(
            learnt(Translations::Off),
            [row("a", "یو", None), row("b", "دوه", None), row("c", "", None)]
        );
        let (first, third) = (row("a > en", "one", Some("en")), row("c > en", "three", Some("en")));
        assert_eq!(learnt(Translations::Only), [first.clone(), third.clone()]);
        assert_eq!(learnt(Translations::Both), [first, row("a", "یو", None), row("b", "دوه", None), third]);
    }

    #[test]
    fn silence_is_translated_into_each_language_by_turns() {
        let cuts = vec![cut("a", " ", None), cut("b", "دوه", None), cut("c", "", None)];
        let learnt = |translations: Translations| -> Vec<(String, Option<String>)> {
            let cuts = translations.apply(cuts.clone(), &["de".into(), "en".into(), "ps".into()]);
            let row = |cut: &Cut| (cut.id.to_string(), cut.target_language.as_deref().map(str::to_owned));
            cuts.iter().map(row).collect()
        };
        let row = |id: &str, to: Option<&str>| (id.to_owned(), to.map(str::to_owned));
        let (a, c) = (row("a > de", Some("de")), row("c > en", Some("en")));
        assert_eq!(learnt(Translations::Only), [a.clone(), c.clone()]);
        assert_eq!(learnt(Translations::Both), [a, row("a", None), row("b", None), c, row("c", None)]);
        assert_eq!(learnt(Translations::Off), ["a", "b", "c"].map(|id| row(id, None)));
    }
}
