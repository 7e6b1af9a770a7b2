//! A bundle that writes in another vocabulary: one that was learnt from the texts of what it is trained for.

use serde_json::{Value, json};

use super::new::merge;
use super::{Bundle, Description, NewVocabulary, TextUnit, read_json};
use crate::Error;
use crate::special_tokens::{SpecialTokens, TIMESTAMP_SECS};
use crate::tokenizer::Tokenizer;

/// Files that list the tokens of the old vocabulary and say nothing that `tokenizer.json` does not.
const LISTS: [&str; 5] =
    ["special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"];

impl Bundle {
    /// The same model with another vocabulary, the contents of a `tokenizer.json` as [`NewVocabulary::learn`] makes it for the
    /// languages that the model is to keep and for its window. Control tokens, languages and times keep their embeddings. That
    /// of a token of text starts as the mean of those that the model has spelled the same text with until now: it is heard
    /// where they were, and only how it is written has to be learnt again.
    ///
    /// # Errors
    /// A vocabulary without a control token, without any of the model's languages or with others, with times of another window.
    pub fn with_vocabulary(self, tokenizer: &str) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        let source = description.source();
        let invalid = |error: serde_json::Error| Error::Tokenizer(error.to_string());
        let contents: Value = serde_json::from_str(tokenizer).map_err(invalid)?;
        if source.has("tokenizer.json") && contents == read_json(source, "tokenizer.json")? {
            return Ok(Self { description, weights });
        }
        let (old, before, special) = description.vocabulary()?;
        let new = Tokenizer::from_text(tokenizer)?;
        let vocabulary = new_vocabulary(&new, &special, &description)?;
        let ids = vocabulary.ids_in(&new)?;
        let whisper = description.architecture().require_whisper("another vocabulary")?;
        let spelling = Spelling::new(&old, &special, whisper.vocab_size);
        let mut rows = (0..vocabulary.n_text_tokens as u32)
            .map(|id| spelling.of_text(&new.token_bytes(id)))
            .collect::<Result<Vec<_>, _>>()?;
        for name in vocabulary.control_names() {
            rows.push(vec![spelling.of_control(&name)?]);
        }

        let mut generation = vocabulary.generation(&ids, whisper.max_target_positions)?;
        let mut config = read_json(source, "config.json")?;
        let changed = json!({
            "vocab_size": rows.len(), "decoder_start_token_id": generation["decoder_start_token_id"],
            "eos_token_id": generation["eos_token_id"], "bos_token_id": generation["bos_token_id"],
            "pad_token_id": generation["pad_token_id"], "begin_suppress_tokens": [], "suppress_tokens": null, "forced_decoder_ids": null,
        });
        merge(&mut config, changed);
        // What has nothing to do with the vocabulary stays.
        let kept = json!({
            "max_initial_timestamp_index": before.max_initial_timestamp_index,
            "alignment_heads": before.alignment_heads, "num_beams": before.num_beams,
        });
        merge(&mut generation, kept);
        if let Value::Object(keys) = &mut generation {
            keys.retain(|_, value| !value.is_null());
        }
        let files = vec![
            ("config.json", config),
            ("generation_config.json", generation),
            ("tokenizer.json", contents),
            ("tokenizer_config.json", NewVocabulary::tokenizer_config(whisper.max_target_positions)),
        ];
        let description = description.with_files(&LISTS, files)?;
        Ok(Self { description, weights: weights.with_token_rows(&rows) })
    }
}

/// What the model needs of a vocabulary, in the languages that this one names.
fn new_vocabulary(
    new: &Tokenizer,
    special: &SpecialTokens,
    description: &Description,
) -> Result<NewVocabulary, Error> {
    let place = |name: &str| new.special(name).unwrap_or_default();
    // By their place: a code may look like anything.
    let languages = (place("startoftranscript") + 1..place("translate")).map(|id| new.token_bytes(id));
    let languages: Vec<String> = languages
        .filter_map(|name| {
            Some(String::from_utf8(name).ok()?.strip_prefix("<|")?.strip_suffix("|>")?.to_owned())
        })
        .collect();
    if special.is_multilingual == languages.is_empty() {
        let message = match special.is_multilingual {
            true => "names no language, and the model's prompts do: learn it with --languages",
            false => "names languages, and the model's prompts do not: learn it without --languages",
        };
        return Err(Error::Tokenizer(message.to_owned()));
    }
    for code in &languages {
        special.language(code)?;
    }
    let end = new.special("endoftext");
    let n_text_tokens =
        end.ok_or_else(|| Error::Tokenizer("tokenizer.json has no <|endoftext|>".to_owned()))?;
    Ok(NewVocabulary {
        n_text_tokens: n_text_tokens as usize,
        unit: TextUnit::default(),
        languages,
        window_secs: description.window_secs(),
    })
}

/// How the old vocabulary spells what the new one has tokens for.
struct Spelling<'a> {
    old: &'a Tokenizer,
    special: &'a SpecialTokens,
    n_rows: usize,
    /// The token of each byte.
    bytes: Vec<Option<usize>>,
}

impl<'a> Spelling<'a> {
    fn new(old: &'a Tokenizer, special: &'a SpecialTokens, n_rows: usize) -> Self {
        let mut bytes = vec![None; 256];
        for id in 0..special.end {
            if let [byte] = old.token_bytes(id)[..] {
                bytes[usize::from(byte)].get_or_insert(id as usize);
            }
        }
        Self { old, special, n_rows, bytes }
    }

    /// Old tokens of some bytes of text, which may begin or end within a character.
    fn of_text(&self, bytes: &[u8]) -> Result<Vec<usize>, Error> {
        let ids = match std::str::from_utf8(bytes) {
            Ok(text) => self.old.encode(text)?.into_iter().map(|id| id as usize).collect(),
            Err(_) => Vec::new(),
        };
        if !ids.is_empty() {
            return Ok(ids);
        }
        let unknown = || Error::Tokenizer(format!("the model has no tokens for the bytes {bytes:02x?}"));
        bytes.iter().map(|byte| self.bytes[usize::from(*byte)].ok_or_else(unknown)).collect()
    }

    /// The old token of a control, a language or a time. Checkpoints that do not list their times have them by their place, and some
    /// call silence otherwise.
    fn of_control(&self, name: &str) -> Result<usize, Error> {
        let by_place = || match (name, name.parse::<f64>(), self.special.no_timestamps) {
            ("nospeech", ..) => self.special.no_speech,
            (_, Ok(secs), Some(before)) => Some(before + 1 + (secs / TIMESTAMP_SECS).round() as u32),
            _ => None,
        };
        let id = self.old.special(name).or_else(by_place).filter(|id| (*id as usize) < self.n_rows);
        id.map(|id| id as usize).ok_or_else(|| Error::Tokenizer(format!("the model has no token <|{name}|>")))
    }
}
