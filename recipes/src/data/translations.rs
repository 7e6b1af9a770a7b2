//! What becomes of cuts that come with a translation: each row of a manifest may hold two things to learn.

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
    /// The translation; cuts without one are left out.
    Only,
    /// Both, one after the other, as two cuts.
    Both,
}

impl Translations {
    /// Cuts as they are learnt: the text of each is what is to be written, and one that names a target language is a translation into it: into
    /// English where its row names none. Names stay different: a translation's ends with its language.
    pub fn apply(self, cuts: Vec<Cut>) -> Vec<Cut> {
        let mut learnt = Vec::with_capacity(cuts.len());
        for mut cut in cuts {
            let (target_text, target_language) = (cut.target_text.take(), cut.target_language.take());
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
            let is_said = self != Self::Both || !has_translation || !cut.text.trim().is_empty();
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
            let cuts = translations.apply(cuts.clone());
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
}
