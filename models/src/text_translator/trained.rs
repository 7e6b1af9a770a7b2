//! A translator that was trained here: an encoder of texts and a decoder.

use candle_core::Device;

use super::sentences::{parts, sentences};
use crate::bundle::{Bundle, BundleSource};
use crate::text_encoder::TEXT_ENCODER_CONFIG;
use crate::text_model::TextModel;
use crate::tokenizer::Tokenizer;
use crate::{Error, TRANSLATED_TO};

/// A [`TextModel`] that is given texts as they come.
pub(super) struct Trained {
    model: TextModel,
}

impl Trained {
    /// Reads a bundle.
    ///
    /// # Errors
    /// What [`TextModel::load`] refuses, a model that reads phonemes or has not learnt to translate.
    pub(super) fn load(source: &BundleSource, device: &Device) -> Result<Self, Error> {
        let model = TextModel::load(Bundle::from_source(source.clone())?, device)?;
        let refuse = |key: &str, message: &str| Err(Error::key(&source.path("config.json"), key, message));
        if model.reads_phonemes() {
            return refuse(TEXT_ENCODER_CONFIG, "reads phonemes; a cascade has nothing but text for it");
        }
        if model.special_tokens().translation_languages.is_empty() {
            return refuse("model_type", "is a model that has not learnt to translate");
        }
        Ok(Self { model })
    }

    pub(super) fn languages(&self) -> Vec<&str> {
        self.model.special_tokens().translation_languages.iter().map(String::as_str).collect()
    }

    pub(super) fn check(&self, to_language: Option<&str>) -> Result<(), Error> {
        let special = self.model.special_tokens();
        special.reach(self.target(to_language))
    }

    /// The only one where nobody names any, else English.
    fn target<'a>(&'a self, to_language: Option<&'a str>) -> &'a str {
        let only = match self.languages().as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        to_language.or(only).unwrap_or(TRANSLATED_TO)
    }

    /// All sentences side by side: together they take as many steps as the longest.
    pub(super) fn translate(
        &self,
        text: &str,
        language: Option<&str>,
        to_language: Option<&str>,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<String, Error> {
        let target = self.target(to_language);
        // What reads one language takes any text for one in it: recognisers err about languages.
        let language = self.model.only_source().or(language);
        let prompt = self.model.prompt(language, Some(target))?;
        let is_spaced = !language.is_some_and(Tokenizer::is_unspaced);
        // As training spells it.
        let ids = |text: &str| match is_spaced {
            true => self.model.tokenizer().encode(&format!(" {text}")),
            false => self.model.tokenizer().encode(text),
        };
        let room = self.model.max_positions().saturating_sub(1);
        let mut texts = Vec::new();
        for sentence in sentences(text) {
            texts.extend(parts(sentence, room, &ids)?);
        }
        for ids in &mut texts {
            // One word that is longer than all positions has nowhere to be broken.
            ids.truncate(room);
            ids.push(self.model.end());
        }
        if texts.is_empty() {
            return Ok(String::new());
        }
        let mut written = Vec::new();
        for ids in self.model.write(&texts, &vec![prompt; texts.len()], None, keep_going)? {
            let text = self.model.tokenizer().decode(&ids?)?;
            written.push(text.trim().to_owned());
        }
        written.retain(|text| !text.is_empty());
        Ok(written.join(if Tokenizer::is_unspaced(target) { "" } else { " " }))
    }
}
