//! The special tokens of a Whisper vocabulary and the prompts made of them.

use std::path::Path;

use super::{GenerationConfig, WhisperConfig};
use crate::tokenizer::Tokenizer;
use crate::{Error, Task};

/// Seconds between two timestamps, that is between two encoder positions.
pub const TIMESTAMP_SECS: f64 = 0.02;

/// Ids found by name or stated by `generation_config.json`; none is assumed.
#[derive(Debug, Clone)]
pub struct SpecialTokens {
    /// Start of transcript.
    pub start: u32,
    /// End of text. Text ids are below it.
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
    transcribe: Option<u32>,
    translate: Option<u32>,
}

/// English-only checkpoints have a vocabulary one token smaller (openai/whisper `model.py: is_multilingual`).
const MULTILINGUAL_VOCAB_SIZE: usize = 51_865;

impl SpecialTokens {
    /// Finds the tokens.
    pub fn find(config: &WhisperConfig, generation: &GenerationConfig, tokenizer: &Tokenizer) -> Self {
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
        Self {
            start: config.decoder_start_token_id,
            end: config.eos_token_id,
            previous: generation.prev_sot_token_id.or_else(|| tokenizer.special("startofprev")),
            no_speech: tokenizer.special("nospeech").or_else(|| tokenizer.special("nocaptions")),
            no_timestamps: generation.no_timestamps_token_id.or_else(|| tokenizer.special("notimestamps")),
            transcribe: task("transcribe"),
            translate: task("translate"),
            languages,
            is_multilingual,
        }
    }

    /// Refuses a tokenizer, read from `path`, whose special tokens the model has no embedding for.
    ///
    /// # Errors
    /// The token and the size of the vocabulary.
    pub fn check(&self, path: &Path, vocab_size: usize) -> Result<(), Error> {
        let named = [
            ("transcribe", self.transcribe),
            ("translate", self.translate),
            ("startofprev", self.previous),
            ("nospeech", self.no_speech),
            ("notimestamps", self.no_timestamps),
        ];
        let named = named.into_iter().filter_map(|(name, id)| Some((name, id?)));
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
        id < self.end
    }

    /// Start, language and task, and `<|notimestamps|>` unless timestamps are wanted.
    ///
    /// # Errors
    /// A language or a task that the model has no token for.
    pub fn prompt(&self, language: Option<&str>, task: Task, timestamps: bool) -> Result<Vec<u32>, Error> {
        let mut prompt = vec![self.start];
        if self.is_multilingual {
            if let Some(language) = language {
                prompt.push(self.language(language)?);
            }
            let token = match task {
                Task::Transcribe => self.transcribe,
                Task::Translate => self.translate,
            };
            let missing = || Error::option("task", "the model's vocabulary has no token for it");
            prompt.push(token.ok_or_else(missing)?);
        } else if task == Task::Translate {
            return Err(Error::option("task", "this model knows one language only; it cannot translate"));
        }
        match (timestamps, self.no_timestamps) {
            (true, None) => {
                return Err(Error::option("timestamps", "the model's vocabulary has no timestamps"));
            }
            (false, Some(id)) => prompt.push(id),
            _ => {}
        }
        Ok(prompt)
    }

    /// Token of a language code.
    ///
    /// # Errors
    /// A code that the model has no token for; the message lists those it has.
    pub fn language(&self, code: &str) -> Result<u32, Error> {
        self.languages.iter().find(|(name, _)| name == code).map(|(_, id)| *id).ok_or_else(|| {
            let known: Vec<_> = self.languages.iter().map(|(name, _)| name.as_str()).collect();
            Error::option("language", format!("`{code}` is not among the model's: {}", known.join(", ")))
        })
    }
}
