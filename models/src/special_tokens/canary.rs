//! Prompts of the two generations of Canary, which say what is spoken, what is to be written, and how.

use std::path::Path;

use super::prompt::no_times;
use super::{PromptFormat, SpecialTokens, TextIds, Told};
use crate::Error;
use crate::canary::CanaryConfig;
use crate::tokenizer::Tokenizer;

/// Slots that look like languages.
const NO_LANGUAGES: [&str; 3] = ["pnc", "itn", "pad"];

/// Tokens that a prompt has a place for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CanaryPrompt {
    generation: Generation,
    punctuation: u32,
    /// Absent from vocabularies whose texts always have it.
    no_punctuation: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Generation {
    /// Start, language that is spoken, task, language that is written, punctuation (NeMo `prompts/canary.py`).
    First { transcribe: u32, translate: u32 },
    /// Context, start, and one token for each of its slots: emotion, languages that are spoken and written, punctuation, inverse
    /// text normalisation, times, speakers (NeMo `prompts/canary2.py`).
    Second {
        context: u32,
        emotion: u32,
        as_spoken: u32,
        no_times: u32,
        times: Option<TimesSlot>,
        one_speaker: u32,
    },
}

/// What asks for times, and what tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimesSlot {
    asked: u32,
    told: WordTimes,
}

/// Tokens `<|0|>`, `<|1|>` and so on, one after the other: the position at which a word begins stands before it, and the one at
/// which it ends after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordTimes {
    first: u32,
    n: u32,
}

impl WordTimes {
    /// Seconds of a position, whatever the encoder's are: NeMo's data count in those of eightfold subsampling.
    pub const POSITION_SECS: f64 = 0.08;
    /// The longest window whose words are timed well (NeMo `aed_batched_streaming` has the same).
    pub const WINDOW_SECS: f64 = 10.0;

    fn find(tokenizer: &Tokenizer) -> Option<Self> {
        let first = tokenizer.special("0")?;
        let follow = |n: &u32| tokenizer.special(&n.to_string()) == first.checked_add(*n);
        let n = (0..).take_while(follow).count() as u32;
        // Fewer could not tell the end of a window.
        (f64::from(n) * Self::POSITION_SECS >= Self::WINDOW_SECS).then_some(Self { first, n })
    }

    /// Seconds from the start of the window that `id` stands for, if it is a time.
    pub fn secs(self, id: u32) -> Option<f64> {
        let position = id.checked_sub(self.first).filter(|position| *position < self.n)?;
        Some(f64::from(position) * Self::POSITION_SECS)
    }
}

impl SpecialTokens {
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
        let generation = match tokenizer.special("startofcontext") {
            Some(context) => Generation::Second {
                context,
                emotion: need("emo:undefined")?,
                as_spoken: need("noitn")?,
                no_times: need("notimestamp")?,
                times: tokenizer
                    .special("timestamp")
                    .zip(WordTimes::find(tokenizer))
                    .map(|(asked, told)| TimesSlot { asked, told }),
                one_speaker: need("nodiarize")?,
            },
            None => Generation::First { transcribe: need("transcribe")?, translate: need("translate")? },
        };
        let format = CanaryPrompt {
            generation,
            punctuation: need("pnc")?,
            no_punctuation: tokenizer.special("nopnc"),
        };
        let previous = format.opening();
        let mut languages = tokenizer.language_tokens();
        languages.retain(|(name, _)| !NO_LANGUAGES.contains(&name.as_str()));
        if languages.is_empty() {
            return Err(Error::key(
                path,
                "<|en|>",
                "or another language is missing; Canary's prompts name two",
            ));
        }
        let mut control = tokenizer.special_ids();
        control.extend([config.eos_token_id, config.pad_token_id]);
        // Unless it says otherwise, whatever it can be told.
        let all: Vec<_> = languages.iter().map(|(code, _)| code.clone()).collect();
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
            source_languages: all.clone(),
            translation_languages: all,
            text: TextIds::AllBut(control),
            format: PromptFormat::Canary(format),
        })
    }
}

impl CanaryPrompt {
    /// Its tokens with their names.
    pub fn named(&self) -> Vec<(&'static str, Option<u32>)> {
        let own = match self.generation {
            Generation::First { transcribe, translate } => {
                vec![("transcribe", Some(transcribe)), ("translate", Some(translate))]
            }
            Generation::Second { emotion, as_spoken, no_times, times, one_speaker, .. } => vec![
                ("emo:undefined", Some(emotion)),
                ("noitn", Some(as_spoken)),
                ("notimestamp", Some(no_times)),
                ("timestamp", times.map(|times| times.asked)),
                ("the last time", times.map(|times| times.told.first + times.told.n - 1)),
                ("nodiarize", Some(one_speaker)),
            ],
        };
        [own, vec![("pnc", Some(self.punctuation)), ("nopnc", self.no_punctuation)]].concat()
    }

    pub fn opening(&self) -> Option<u32> {
        match self.generation {
            Generation::First { .. } => None,
            Generation::Second { context, .. } => Some(context),
        }
    }

    pub fn word_times(&self) -> Option<WordTimes> {
        match self.generation {
            Generation::First { .. } => None,
            Generation::Second { times, .. } => times.map(|times| times.told),
        }
    }

    /// From the start of the transcript on. `special` knows the languages.
    ///
    /// # Errors
    /// What is not named or not known, times and texts without punctuation that there are no tokens for.
    pub fn tokens(&self, special: &SpecialTokens, told: Told<'_>) -> Result<Vec<u32>, Error> {
        let Some(spoken) = told.language.or(special.only_language.as_deref()) else {
            return Err(special.language_needed("is spoken"));
        };
        let spoken = special.language(spoken)?;
        let written = match told.target() {
            None => spoken,
            // Also where it is what is spoken: who sends a language that was not asked for should hear of it.
            Some(code) => {
                special.reach(code)?;
                special.token_of("to_language", code)?
            }
        };
        let punctuation = match (told.punctuation, self.no_punctuation) {
            (Some(false), Some(without)) => without,
            (Some(false), None) => {
                let message = "the model's vocabulary has no <|nopnc|>, which asks for texts without";
                return Err(Error::option("punctuation", message));
            }
            _ => self.punctuation,
        };
        match self.generation {
            Generation::First { .. } if told.timestamps => Err(no_times()),
            Generation::First { transcribe, translate } => {
                let task = if spoken == written { transcribe } else { translate };
                Ok(vec![special.start, spoken, task, written, punctuation])
            }
            Generation::Second { emotion, as_spoken, no_times, times, one_speaker, .. } => {
                let times = match (told.timestamps, times) {
                    (false, _) => no_times,
                    (true, Some(times)) => times.asked,
                    (true, None) => return Err(self::no_times()),
                };
                Ok(vec![special.start, emotion, spoken, written, punctuation, as_spoken, times, one_speaker])
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::Task;

    const LETTERS: [&str; 5] = ["a", "b", "y", "z", "c"];

    /// A Canary's vocabulary of some letters with these special tokens.
    fn canary(names: &[&str]) -> Result<(Tokenizer, SpecialTokens), Error> {
        // The third and the fourth are what fills up rows and the end of text, by default.
        let letters = LETTERS.iter().enumerate().map(|(id, text)| ((*text).to_owned(), json!(id)));
        let added: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                json!({
                    "id": at + LETTERS.len(), "content": format!("<|{name}|>"), "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true,
                })
            })
            .collect();
        let vocabulary: serde_json::Map<_, _> = letters.collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false},
            "post_processor": null, "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"},
        });
        let tokenizer = Tokenizer::from_text(&tokenizer.to_string())?;
        let config: CanaryConfig = serde_json::from_value(json!({}))
            .map_err(|error| Error::key(Path::new("config.json"), "model", error.to_string()))?;
        let special = SpecialTokens::of_canary(Path::new("tokenizer.json"), &config, &tokenizer)?;
        Ok((tokenizer, special))
    }

    const FIRST: [&str; 7] = ["startoftranscript", "transcribe", "translate", "pnc", "nopnc", "en", "ps"];
    const SECOND: [&str; 9] = [
        "startofcontext",
        "startoftranscript",
        "emo:undefined",
        "pnc",
        "noitn",
        "notimestamp",
        "nodiarize",
        "en",
        "ps",
    ];

    /// One that times words.
    pub(crate) fn canary_of_times() -> Result<(Tokenizer, SpecialTokens), Error> {
        let times: Vec<String> = (0..125).map(|position| position.to_string()).collect();
        let names =
            [&SECOND[..], &["timestamp"], &times.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        canary(&names)
    }

    fn names(tokens: &[u32], names: &[&str]) -> Vec<String> {
        tokens.iter().map(|id| names[*id as usize - LETTERS.len()].to_owned()).collect()
    }

    fn refused(told: Told<'_>, special: &SpecialTokens) -> String {
        special.prompt(told).map_or_else(|error| error.to_string(), |prompt| format!("{prompt:?}"))
    }

    #[test]
    fn the_first_generation_names_its_task() -> Result<(), Error> {
        let (_, special) = canary(&FIRST)?;
        let ps = Told { language: Some("ps"), ..Told::default() };
        let prompt = |told| special.prompt_after(&[], told).map(|(prompt, _)| names(&prompt, &FIRST));
        assert_eq!(prompt(ps)?, ["startoftranscript", "ps", "transcribe", "ps", "pnc"]);
        let translation = Told { task: Task::Translate, ..ps };
        assert_eq!(prompt(translation)?, ["startoftranscript", "ps", "translate", "en", "pnc"]);
        let other =
            Told { language: Some("en"), to_language: Some("ps"), punctuation: Some(false), ..translation };
        assert_eq!(prompt(other)?, ["startoftranscript", "en", "translate", "ps", "nopnc"]);
        // Into the language that is spoken.
        let same = Told { language: Some("en"), ..translation };
        assert_eq!(prompt(same)?, ["startoftranscript", "en", "transcribe", "en", "pnc"]);
        assert!(refused(Told { timestamps: true, ..ps }, &special).starts_with("timestamps: "));
        let unknown = refused(Told { to_language: Some("fr"), ..translation }, &special);
        assert!(unknown.starts_with("to_language: `fr`") && unknown.contains("en, ps"), "{unknown}");
        // One that has learnt to write translations in Pashto alone.
        let path = Path::new("generation_config.json");
        let taught = special.clone().translating_into(&["ps".to_owned()], path)?;
        let from_en = Told { language: Some("en"), to_language: Some("ps"), ..translation };
        assert_eq!(
            taught.prompt_after(&[], from_en).map(|(prompt, _)| names(&prompt, &FIRST))?,
            ["startoftranscript", "en", "translate", "ps", "pnc"]
        );
        for (told, code) in [
            (translation, "`en`"),
            (same, "`en`"),
            (Told { to_language: Some("en"), ..translation }, "`en`"),
            (Told { to_language: Some("fr"), ..translation }, "`fr`"),
        ] {
            let refused = refused(told, &taught);
            assert!(
                refused.starts_with("to_language: ")
                    && refused.contains(code)
                    && refused.ends_with("into ps only"),
                "{refused}"
            );
        }
        // A transcript needs no language that is translated into.
        assert_eq!(taught.prompt(ps)?, special.prompt(ps)?);
        let none = special.clone().translating_into(&[], path)?;
        assert!(refused(translation, &none).contains("has not learnt to translate"));
        let unknown = special.clone().translating_into(&["ps".to_owned(), "fr".to_owned()], path);
        let unknown = unknown.map_or_else(|error| error.to_string(), |_| "accepted".to_owned());
        assert_eq!(
            unknown,
            "generation_config.json: `translation_languages`: `fr` has no token <|fr|> in the vocabulary"
        );
        assert!(refused(Told { to_language: Some("en"), ..ps }, &special).starts_with("to_language: "));
        let (_, plain) = canary(&FIRST.iter().copied().filter(|name| *name != "nopnc").collect::<Vec<_>>())?;
        assert!(refused(Told { punctuation: Some(false), ..ps }, &plain).contains("<|nopnc|>"));
        assert!(plain.prompt(Told { punctuation: Some(true), ..ps }).is_ok());
        Ok(())
    }

    #[test]
    fn the_second_generation_has_a_token_for_each_slot() -> Result<(), Error> {
        let (tokenizer, special) = canary_of_times()?;
        let all: Vec<String> = SECOND
            .iter()
            .map(|name| (*name).to_owned())
            .chain(["timestamp".to_owned()])
            .chain((0..125).map(|position| position.to_string()))
            .collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let told = Told { language: Some("ps"), task: Task::Translate, timestamps: true, ..Told::default() };
        let (prompt, start) = special.prompt_after(&[], told)?;
        assert_eq!(
            names(&prompt, &all),
            [
                "startofcontext",
                "startoftranscript",
                "emo:undefined",
                "ps",
                "en",
                "pnc",
                "noitn",
                "timestamp",
                "nodiarize"
            ]
        );
        assert_eq!(start, 1);
        let times = special.word_times().ok_or(Error::Cancelled)?;
        let secs = |name: &str| tokenizer.special(name).and_then(|id| times.secs(id));
        assert_eq!((secs("0"), secs("124").map(|secs| (secs * 100.0).round())), (Some(0.0), Some(992.0)));
        assert_eq!(secs("timestamp"), None);
        // Numbers that stand for less than a window are no times.
        let few = canary(&[&SECOND[..], &["timestamp", "0", "1", "2"]].concat())?.1;
        assert_eq!(few.word_times(), None);
        assert!(refused(told, &few).starts_with("timestamps: "));
        Ok(())
    }
}
