//! What a decoder reads before it writes.

use super::{PromptFormat, SpecialTokens};
use crate::{DecodeOptions, Error, Task};

/// English for a translation whose language nobody names, as OpenAI's service has it.
pub const TRANSLATED_TO: &str = "en";

/// What a decoder is told before it writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told<'a> {
    /// Code of the language that is spoken.
    pub language: Option<&'a str>,
    /// Whether that is what is written.
    pub task: Task,
    /// Code of the language that a translation is written in; English where nobody names one.
    pub to_language: Option<&'a str>,
    /// Whether punctuation and capitals are written; `None` is what the model does where it cannot be told.
    pub punctuation: Option<bool>,
    /// Whether times are written.
    pub timestamps: bool,
}

impl<'a> Told<'a> {
    /// What `options` say of a recording in `language`.
    pub fn by(options: &'a DecodeOptions, language: Option<&'a str>, timestamps: bool) -> Self {
        Self {
            language,
            task: options.task,
            to_language: options.to_language.as_deref(),
            punctuation: options.punctuation,
            timestamps,
        }
    }

    /// The language that is written, where it may be another than the one that is spoken.
    pub fn target(&self) -> Option<&'a str> {
        match self.task {
            Task::Transcribe => None,
            Task::Translate => Some(self.to_language.unwrap_or(TRANSLATED_TO)),
        }
    }
}

impl SpecialTokens {
    /// What a prompt begins with where nothing was said before.
    pub fn opening(&self) -> Option<u32> {
        match &self.format {
            PromptFormat::Canary(prompt) => prompt.opening(),
            _ => None,
        }
    }

    /// What a decoder reads before a text, `context` first, and where the start of the transcript is in it. A context begins with
    /// the token that announces one.
    ///
    /// # Errors
    /// What [`SpecialTokens::prompt`] refuses.
    pub fn prompt_after(&self, context: &[u32], told: Told<'_>) -> Result<(Vec<u32>, usize), Error> {
        let mut tokens = context.to_vec();
        if tokens.is_empty() {
            tokens.extend(self.opening());
        }
        let start = tokens.len();
        tokens.extend(self.prompt(told)?);
        Ok((tokens, start))
    }

    /// From the start of the transcript on: languages, task, and what says that there are no times unless they are wanted.
    ///
    /// # Errors
    /// A language or a task that the model has no token for, what it cannot be told, times that it cannot tell.
    pub fn prompt(&self, told: Told<'_>) -> Result<Vec<u32>, Error> {
        if let (Task::Transcribe, Some(code)) = (told.task, told.to_language) {
            return Err(Error::option(
                "to_language",
                format!("`{code}`: only a translation is written in another language"),
            ));
        }
        match &self.format {
            PromptFormat::Canary(prompt) => prompt.tokens(self, told),
            PromptFormat::Whisper { transcribe, translate } => {
                self.whisper_prompt(told, (*transcribe, *translate))
            }
            PromptFormat::None => {
                is_not_told_how_to_write(told)?;
                if told.timestamps {
                    return Err(no_times());
                }
                if told.task == Task::Translate {
                    return Err(Error::option(
                        "task",
                        "this model writes what it hears; it cannot translate",
                    ));
                }
                Ok(Vec::new())
            }
        }
    }

    fn whisper_prompt(
        &self,
        told: Told<'_>,
        (transcribe, translate): (Option<u32>, Option<u32>),
    ) -> Result<Vec<u32>, Error> {
        is_not_told_how_to_write(told)?;
        let mut prompt = vec![self.start];
        if self.is_multilingual {
            if let Some(language) = told.language {
                prompt.push(self.language(language)?);
            }
            let token = match told.task {
                Task::Transcribe => transcribe,
                Task::Translate => translate,
            };
            let missing = || Error::option("task", "the model's vocabulary has no token for it");
            prompt.push(token.ok_or_else(missing)?);
        } else if told.task == Task::Translate {
            return Err(Error::option("task", "this model knows one language only; it cannot translate"));
        }
        told.target().map_or(Ok(()), |code| self.reach(code))?;
        match (told.timestamps, self.no_timestamps) {
            (true, None) => return Err(no_times()),
            (false, Some(id)) => prompt.push(id),
            _ => {}
        }
        Ok(prompt)
    }
}

pub(super) fn no_times() -> Error {
    Error::option("timestamps", "the model's vocabulary has no timestamps")
}

/// Refuses what models without a token for it cannot be told.
fn is_not_told_how_to_write(told: Told<'_>) -> Result<(), Error> {
    match told.punctuation {
        None => Ok(()),
        Some(_) => Err(Error::option("punctuation", "this model cannot be told; it writes as it learnt to")),
    }
}
