//! Translators of text: what a cascade puts behind a recogniser that cannot write the language itself.

mod generation;
mod marian;
mod sentences;
mod t5;
mod targets;
mod trained;
mod transformers;
mod vocabulary;

use candle_core::Device;

use self::trained::Trained;
use self::transformers::Transformers;
use crate::Error;
use crate::bundle::{BundleSource, read_json};
use crate::text_encoder::TEXT_ENCODER_CONFIG;

/// A model that turns text into text in another language. Immutable; threads share it.
pub struct TextTranslator(Kind);

enum Kind {
    Transformers(Box<Transformers>),
    Trained(Box<Trained>),
}

impl TextTranslator {
    /// Reads a translator that transformers saved, a Marian or a T5 such as MADLAD-400, or one that was trained here
    /// (`task = "translate_text"`).
    ///
    /// # Errors
    /// Missing, damaged or contradictory files, by file and key; models that are no translators of text.
    pub fn load(source: &BundleSource, device: &Device) -> Result<Self, Error> {
        let config = read_json(source, "config.json")?;
        let kind = match config["model_type"].as_str() {
            Some(name @ ("marian" | "t5")) => {
                Kind::Transformers(Box::new(Transformers::load(source, &config, name == "t5", device)?))
            }
            _ if config.get(TEXT_ENCODER_CONFIG).is_some_and(|config| !config.is_null()) => {
                Kind::Trained(Box::new(Trained::load(source, device)?))
            }
            _ => {
                let message = format!(
                    "is {}; translators of text are of the types marian and t5, or trained here by task = \"translate_text\"",
                    config["model_type"]
                );
                return Err(Error::key(&source.path("config.json"), "model_type", message));
            }
        };
        Ok(Self(kind))
    }

    /// Codes of the languages that it translates into, where it says so; empty where only its name does.
    pub fn languages(&self) -> Vec<&str> {
        match &self.0 {
            Kind::Transformers(model) => model.languages(),
            Kind::Trained(model) => model.languages(),
        }
    }

    /// Refuses a language that it does not translate into.
    ///
    /// # Errors
    /// The option `to_language`, and what is possible instead.
    pub fn check(&self, to_language: Option<&str>) -> Result<(), Error> {
        match &self.0 {
            Kind::Transformers(model) => model.check(to_language),
            Kind::Trained(model) => model.check(to_language),
        }
    }

    /// Translates a text sentence by sentence. `language` is that of the text: a translator of several that was trained here has to be told,
    /// others take any text as it comes. Without `to_language` it is the only one, else English. `keep_going` is asked before every token.
    ///
    /// # Errors
    /// Languages that it does not translate from or into, [`Error::Cancelled`] when `keep_going` says no, scores that are not finite.
    pub fn translate(
        &self,
        text: &str,
        language: Option<&str>,
        to_language: Option<&str>,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<String, Error> {
        match &self.0 {
            Kind::Transformers(model) => model.translate(text, to_language, keep_going),
            Kind::Trained(model) => model.translate(text, language, to_language, keep_going),
        }
    }
}

#[cfg(test)]
mod tests;
