//! The special tokens of a vocabulary and the prompts made of them.

mod canary;
mod prompt;

pub use canary::WordTimes;
#[cfg(test)]
pub(crate) use canary::tests::canary_of_times;
pub use prompt::{TRANSLATED_TO, Told};

use std::collections::BTreeSet;
use std::path::Path;

use self::canary::CanaryPrompt;
use crate::Error;
use crate::generation_config::GenerationConfig;
use crate::parakeet::ParakeetCtcConfig;
use crate::tokenizer::Tokenizer;
use crate::whisper::WhisperConfig;

/// Seconds between two timestamps of Whisper, that is between two encoder positions.
pub const TIMESTAMP_SECS: f64 = 0.02;

/// Ids found by name or stated by `generation_config.json`; none is assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Start of transcript; for a model without a decoder, its blank.
    pub start: u32,
    /// End of text; for a model without a decoder, its blank.
    pub end: u32,
    /// Precedes the text before the window.
    pub previous: Option<u32>,
    /// Its probability at the start is that of silence.
    pub no_speech: Option<u32>,
    /// Turns timestamps off; the first timestamp follows it.
    pub no_timestamps: Option<u32>,
    /// Language codes and their tokens, in order of id.
    pub languages: Vec<(String, u32)>,
    /// Whether prompts name a language and a task.
    pub is_multilingual: bool,
    /// The one language of a model that knows no other, where it is known.
    pub only_language: Option<String>,
    /// Codes of the languages that may be spoken; none where prompts do not name one.
    pub source_languages: Vec<String>,
    /// Codes of the languages that a translation may be written in; none of a model that cannot translate.
    pub translation_languages: Vec<String>,
    text: TextIds,
    format: PromptFormat,
}

/// Which ids are text: no timestamps and no control tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TextIds {
    Below(u32),
    AllBut(BTreeSet<u32>),
}

/// How a prompt says what is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PromptFormat {
    /// Start, language, task, and whether times are left out.
    Whisper { transcribe: Option<u32>, translate: Option<u32> },
    /// What is spoken, what is to be written, and how.
    Canary(CanaryPrompt),
    /// There is no decoder.
    None,
}

/// English-only checkpoints have a vocabulary one token smaller (openai/whisper `model.py: is_multilingual`).
const MULTILINGUAL_VOCAB_SIZE: usize = 51_865;

impl SpecialTokens {
    /// Finds Whisper's tokens.
    pub fn of_whisper(config: &WhisperConfig, generation: &GenerationConfig, tokenizer: &Tokenizer) -> Self {
        let task = |name: &str| generation.task_to_id.get(name).copied().or_else(|| tokenizer.special(name));
        let mut languages: Vec<_> = generation
            .lang_to_id
            .iter()
            .map(|(name, id)| (name.trim_matches(['<', '|', '>']).to_owned(), *id))
            .collect();
        languages.sort_by_key(|(_, id)| *id);
        if languages.is_empty() {
            languages = tokenizer.language_tokens();
        }
        let is_multilingual =
            generation.is_multilingual.unwrap_or(config.vocab_size >= MULTILINGUAL_VOCAB_SIZE)
                && !languages.is_empty();
        if !is_multilingual {
            languages.clear();
        }
        let format = PromptFormat::Whisper { transcribe: task("transcribe"), translate: task("translate") };
        let target = is_multilingual.then(|| TRANSLATED_TO.to_owned());
        let source_languages = languages.iter().map(|(code, _)| code.clone()).collect();
        Self {
            start: config.decoder_start_token_id,
            end: config.eos_token_id,
            previous: generation.prev_sot_token_id.or_else(|| tokenizer.special("startofprev")),
            no_speech: tokenizer.special("nospeech").or_else(|| tokenizer.special("nocaptions")),
            no_timestamps: generation.no_timestamps_token_id.or_else(|| tokenizer.special("notimestamps")),
            languages,
            is_multilingual,
            only_language: (!is_multilingual).then(|| "en".to_owned()),
            source_languages,
            translation_languages: target.into_iter().collect(),
            text: TextIds::Below(config.eos_token_id),
            format,
        }
    }

    /// What a CTC model's vocabulary has: a blank.
    pub fn of_ctc(config: &ParakeetCtcConfig, tokenizer: &Tokenizer) -> Self {
        let blank = config.pad_token_id;
        let mut control = tokenizer.special_ids();
        control.insert(blank);
        Self {
            start: blank,
            end: blank,
            previous: None,
            no_speech: None,
            no_timestamps: None,
            languages: Vec::new(),
            is_multilingual: false,
            only_language: config.language.clone(),
            source_languages: Vec::new(),
            translation_languages: Vec::new(),
            text: TextIds::AllBut(control),
            format: PromptFormat::None,
        }
    }

    /// The same of a model that has learnt to hear these languages and no others, as the file `path` says. A Canary of one need not be
    /// told which; a Whisper finds out among them.
    ///
    /// # Errors
    /// None, and those that it has no token for.
    pub fn hearing(self, codes: &[String], path: &Path) -> Result<Self, Error> {
        let refuse = |message: String| Err(Error::key(path, "source_languages", message));
        if codes.is_empty() {
            return refuse("is empty: a model hears one language at least".to_owned());
        }
        if let Some(fault) = self.without_token(codes) {
            return refuse(fault);
        }
        let only_language = match (&self.format, codes) {
            (PromptFormat::Canary(_), [code]) => Some(code.clone()),
            (PromptFormat::Canary(_), _) => None,
            _ => self.only_language,
        };
        Ok(Self { only_language, source_languages: codes.to_vec(), ..self })
    }

    /// The same of a model that has learnt to translate into these languages and no others, as the file `path` says.
    ///
    /// # Errors
    /// More than its prompts can tell apart: any of a model that cannot translate, several of a Whisper, those that a Canary has no
    /// token for.
    pub fn translating_into(self, codes: &[String], path: &Path) -> Result<Self, Error> {
        let fault = match (&self.format, codes) {
            (_, []) => None,
            (PromptFormat::None, _) => Some("a model without a decoder writes what it hears".to_owned()),
            (PromptFormat::Whisper { .. }, _) if !self.is_multilingual => {
                Some("this model knows one language only".to_owned())
            }
            (PromptFormat::Whisper { .. }, [_]) => None,
            (PromptFormat::Whisper { .. }, several) => Some(format!(
                "are {}; a Whisper translates into one, because its <|translate|> says no more",
                several.len()
            )),
            (PromptFormat::Canary(_), _) => self.without_token(codes),
        };
        match fault {
            Some(fault) => Err(Error::key(path, "translation_languages", fault)),
            None => Ok(Self { translation_languages: codes.to_vec(), ..self }),
        }
    }

    /// Refuses a tokenizer, read from `path`, whose special tokens the model has no embedding for.
    ///
    /// # Errors
    /// The token and the size of the vocabulary.
    pub fn check(&self, path: &Path, vocab_size: usize) -> Result<(), Error> {
        let own = match &self.format {
            PromptFormat::Whisper { transcribe, translate } => {
                vec![("transcribe", *transcribe), ("translate", *translate)]
            }
            PromptFormat::Canary(prompt) => prompt.named(),
            PromptFormat::None => Vec::new(),
        };
        let begin = [("startoftranscript", Some(self.start))];
        let rest = [
            ("startofprev", self.previous),
            ("nospeech", self.no_speech),
            ("notimestamps", self.no_timestamps),
        ];
        let named = begin.into_iter().chain(own).chain(rest).filter_map(|(name, id)| Some((name, id?)));
        let languages = self.languages.iter().map(|(code, id)| (code.as_str(), *id));
        match languages.chain(named).find(|(_, id)| *id as usize >= vocab_size) {
            None => Ok(()),
            Some((name, id)) => {
                let message = format!("is token {id}, but config.json has a vocabulary of {vocab_size}");
                Err(Error::key(path, format!("<|{name}|>"), message))
            }
        }
    }

    /// First timestamp, `<|0.00|>`.
    pub fn timestamp_begin(&self) -> Option<u32> {
        self.no_timestamps.map(|id| id + 1)
    }

    /// Whether `id` is text: no timestamp and no control token.
    pub fn is_text(&self, id: u32) -> bool {
        match &self.text {
            TextIds::Below(end) => id < *end,
            TextIds::AllBut(control) => !control.contains(&id),
        }
    }

    /// Whether a decoder that is asked for times says with them how far it got in a window.
    pub fn writes_times(&self) -> bool {
        matches!(self.format, PromptFormat::Whisper { .. })
    }

    /// Whether which language is spoken can be found out by asking for the first token.
    pub fn detects_languages(&self) -> bool {
        self.is_multilingual && matches!(self.format, PromptFormat::Whisper { .. })
    }

    /// Tokens by which words are timed where a prompt asks for times; not Whisper's.
    pub fn word_times(&self) -> Option<WordTimes> {
        match &self.format {
            PromptFormat::Canary(prompt) => prompt.word_times(),
            _ => None,
        }
    }

    /// Token of a language that may be spoken.
    ///
    /// # Errors
    /// A code of another; the message lists those that may.
    pub fn language(&self, code: &str) -> Result<u32, Error> {
        if self.source_languages.iter().any(|known| known == code) {
            return self.token_of("language", code);
        }
        Err(Error::option("language", not_among(code, self.source_languages.iter().map(String::as_str))))
    }

    /// Token of a language code, whether the language may be spoken or not.
    pub fn language_token(&self, code: &str) -> Option<u32> {
        self.languages.iter().find(|(name, _)| name == code).map(|(_, id)| *id)
    }

    /// What is wrong with codes of which one has no token.
    fn without_token(&self, codes: &[String]) -> Option<String> {
        let code = codes.iter().find(|code| self.language_token(code).is_none())?;
        Some(format!("`{code}` has no token <|{code}|> in the vocabulary"))
    }

    /// Nobody said in which language is what the model, as `does` says, hears or reads.
    pub(crate) fn language_needed(&self, does: &str) -> Error {
        let known = self.source_languages.join(", ");
        Error::option("language", format!("is needed: this model is told what {does}, one of {known}"))
    }

    /// [`SpecialTokens::language_token`] of a code that `option` names.
    ///
    /// # Errors
    /// A code that the model has no token for; the message lists those it has.
    pub(crate) fn token_of(&self, option: &'static str, code: &str) -> Result<u32, Error> {
        let known = self.languages.iter().map(|(name, _)| name.as_str());
        self.language_token(code).ok_or_else(|| Error::option(option, not_among(code, known)))
    }

    /// Refuses to translate into a language that the model has not learnt to write translations in; the message lists those that it
    /// has.
    pub(crate) fn reach(&self, code: &str) -> Result<(), Error> {
        if self.translation_languages.iter().any(|known| known == code) {
            return Ok(());
        }
        let message = match self.translation_languages.as_slice() {
            [] => format!("`{code}` is not possible: this model has not learnt to translate"),
            known => {
                format!("`{code}` is not possible: this model translates into {} only", known.join(", "))
            }
        };
        Err(Error::option("to_language", message))
    }
}

fn not_among<'a>(code: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("`{code}` is not among the model's: {}", known.collect::<Vec<_>>().join(", "))
}
