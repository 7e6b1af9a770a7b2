//! The special tokens of a vocabulary and the prompts made of them.

use std::collections::BTreeSet;
use std::path::Path;

use crate::canary::CanaryConfig;
use crate::generation_config::GenerationConfig;
use crate::parakeet::ParakeetCtcConfig;
use crate::tokenizer::Tokenizer;
use crate::whisper::WhisperConfig;
use crate::{Error, Task};

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
    /// Start, language that is spoken, task, language that is written, punctuation (NeMo `prompts/canary.py`).
    Canary { transcribe: u32, translate: u32, punctuation: u32 },
    /// Context, start, and one token for each of its slots: emotion, languages that are spoken and written, punctuation, inverse
    /// text normalisation, times, speakers (NeMo `prompts/canary2.py`).
    Canary2 { context: u32, emotion: u32, slots: [u32; 4] },
    /// There is no decoder.
    None,
}

/// English-only checkpoints have a vocabulary one token smaller (openai/whisper `model.py: is_multilingual`).
const MULTILINGUAL_VOCAB_SIZE: usize = 51_865;

/// English for a translation whose language nobody names, as OpenAI's service has it.
const TRANSLATED_TO: &str = "en";

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
        Self {
            start: config.decoder_start_token_id,
            end: config.eos_token_id,
            previous: generation.prev_sot_token_id.or_else(|| tokenizer.special("startofprev")),
            no_speech: tokenizer.special("nospeech").or_else(|| tokenizer.special("nocaptions")),
            no_timestamps: generation.no_timestamps_token_id.or_else(|| tokenizer.special("notimestamps")),
            languages,
            is_multilingual,
            only_language: (!is_multilingual).then(|| "en".to_owned()),
            text: TextIds::Below(config.eos_token_id),
            format,
        }
    }

    /// Finds Canary's tokens.
    ///
    /// # Errors
    /// A tokenizer, read from `path`, without a token of its prompts.
    pub fn of_canary(path: &Path, config: &CanaryConfig, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let need = |name: &str| {
            let missing = || Error::key(path, format!("<|{name}|>"), "is missing; Canary's prompts need it");
            tokenizer.special(name).ok_or_else(missing)
        };
        let start = need("startoftranscript")?;
        let format = match tokenizer.special("startofcontext") {
            Some(context) => PromptFormat::Canary2 {
                context,
                emotion: need("emo:undefined")?,
                slots: [need("pnc")?, need("noitn")?, need("notimestamp")?, need("nodiarize")?],
            },
            None => PromptFormat::Canary {
                transcribe: need("transcribe")?,
                translate: need("translate")?,
                punctuation: need("pnc")?,
            },
        };
        let previous = match format {
            PromptFormat::Canary2 { context, .. } => Some(context),
            _ => None,
        };
        let mut languages = tokenizer.language_tokens();
        // Slots that look like languages.
        languages.retain(|(name, _)| !["pnc", "itn", "pad"].contains(&name.as_str()));
        if languages.is_empty() {
            return Err(Error::key(
                path,
                "<|en|>",
                "or another language is missing; Canary's prompts name two",
            ));
        }
        let mut control = tokenizer.special_ids();
        control.extend([config.eos_token_id, config.pad_token_id]);
        let only_language = match languages.as_slice() {
            [(code, _)] => Some(code.clone()),
            _ => None,
        };
        Ok(Self {
            start,
            end: config.eos_token_id,
            previous,
            no_speech: None,
            no_timestamps: None,
            languages,
            is_multilingual: true,
            only_language,
            text: TextIds::AllBut(control),
            format,
        })
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
            text: TextIds::AllBut(control),
            format: PromptFormat::None,
        }
    }

    /// Refuses a tokenizer, read from `path`, whose special tokens the model has no embedding for.
    ///
    /// # Errors
    /// The token and the size of the vocabulary.
    pub fn check(&self, path: &Path, vocab_size: usize) -> Result<(), Error> {
        let (transcribe, translate) = match self.format {
            PromptFormat::Whisper { transcribe, translate } => (transcribe, translate),
            PromptFormat::Canary { transcribe, translate, .. } => (Some(transcribe), Some(translate)),
            PromptFormat::Canary2 { .. } | PromptFormat::None => (None, None),
        };
        let slots = match self.format {
            PromptFormat::Canary2 { emotion, slots: [pnc, noitn, notimestamp, nodiarize], .. } => vec![
                ("emo:undefined", Some(emotion)),
                ("pnc", Some(pnc)),
                ("noitn", Some(noitn)),
                ("notimestamp", Some(notimestamp)),
                ("nodiarize", Some(nodiarize)),
            ],
            PromptFormat::Canary { punctuation, .. } => vec![("pnc", Some(punctuation))],
            _ => Vec::new(),
        };
        let named = [
            ("startoftranscript", Some(self.start)),
            ("transcribe", transcribe),
            ("translate", translate),
            ("startofprev", self.previous),
            ("nospeech", self.no_speech),
            ("notimestamps", self.no_timestamps),
        ];
        let named = named.into_iter().chain(slots).filter_map(|(name, id)| Some((name, id?)));
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

    /// Whether times are told as tokens, where a prompt asks for them.
    pub fn writes_times(&self) -> bool {
        matches!(self.format, PromptFormat::Whisper { .. })
    }

    /// Whether which language is spoken can be found out by asking for the first token.
    pub fn detects_languages(&self) -> bool {
        self.is_multilingual && matches!(self.format, PromptFormat::Whisper { .. })
    }

    /// What a prompt begins with where nothing was said before.
    pub fn opening(&self) -> Option<u32> {
        match self.format {
            PromptFormat::Canary2 { context, .. } => Some(context),
            _ => None,
        }
    }

    /// What a decoder reads before a text, `context` first, and where the start of the transcript is in it. A context begins with
    /// the token that announces one.
    ///
    /// # Errors
    /// What [`SpecialTokens::prompt`] refuses.
    pub fn prompt_after(
        &self,
        context: &[u32],
        language: Option<&str>,
        task: Task,
        timestamps: bool,
    ) -> Result<(Vec<u32>, usize), Error> {
        let mut tokens = context.to_vec();
        if tokens.is_empty() {
            tokens.extend(self.opening());
        }
        let start = tokens.len();
        tokens.extend(self.prompt(language, task, timestamps)?);
        Ok((tokens, start))
    }

    /// Start, language and task, and what says that there are no times unless they are wanted.
    ///
    /// # Errors
    /// A language or a task that the model has no token for, times that it cannot tell.
    pub fn prompt(&self, language: Option<&str>, task: Task, timestamps: bool) -> Result<Vec<u32>, Error> {
        let no_times = || Error::option("timestamps", "the model's vocabulary has no timestamps");
        let (transcribe, translate) = match self.format {
            PromptFormat::Whisper { transcribe, translate } => (transcribe, translate),
            _ if timestamps => return Err(no_times()),
            PromptFormat::None if task == Task::Translate => {
                return Err(Error::option("task", "this model writes what it hears; it cannot translate"));
            }
            PromptFormat::None => return Ok(Vec::new()),
            PromptFormat::Canary { .. } | PromptFormat::Canary2 { .. } => {
                return self.canary_prompt(language, task);
            }
        };
        let mut prompt = vec![self.start];
        if self.is_multilingual {
            if let Some(language) = language {
                prompt.push(self.language(language)?);
            }
            let token = match task {
                Task::Transcribe => transcribe,
                Task::Translate => translate,
            };
            let missing = || Error::option("task", "the model's vocabulary has no token for it");
            prompt.push(token.ok_or_else(missing)?);
        } else if task == Task::Translate {
            return Err(Error::option("task", "this model knows one language only; it cannot translate"));
        }
        match (timestamps, self.no_timestamps) {
            (true, None) => return Err(no_times()),
            (false, Some(id)) => prompt.push(id),
            _ => {}
        }
        Ok(prompt)
    }

    fn canary_prompt(&self, language: Option<&str>, task: Task) -> Result<Vec<u32>, Error> {
        let spoken = match (language, self.languages.as_slice()) {
            (Some(code), _) => self.language(code)?,
            (None, [(_, only)]) => *only,
            (None, known) => {
                let known: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
                let message =
                    format!("is needed: this model is told what is spoken, one of {}", known.join(", "));
                return Err(Error::option("language", message));
            }
        };
        let written = match task {
            Task::Transcribe => spoken,
            Task::Translate => self.language(TRANSLATED_TO)?,
        };
        Ok(match self.format {
            PromptFormat::Canary { transcribe, translate, punctuation } => {
                let task = if spoken == written { transcribe } else { translate };
                vec![self.start, spoken, task, written, punctuation]
            }
            PromptFormat::Canary2 { emotion, slots, .. } => {
                [&[self.start, emotion, spoken, written], &slots[..]].concat()
            }
            PromptFormat::Whisper { .. } | PromptFormat::None => Vec::new(),
        })
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
