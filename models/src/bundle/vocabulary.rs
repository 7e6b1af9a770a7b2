//! A bundle that writes in another vocabulary: one that was learnt from the texts of what it is trained for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::conformer_files::{Names, tokenizer_config};
use super::new::merge;
use super::new_conformer::PAD;
use super::spelling::Spelling;
use super::{Architecture, Bundle, Description, NewVocabulary, TextUnit, read_json};
use crate::Error;
use crate::canary::CanaryConfig;
use crate::ctc_head::CTC_ROWS;
use crate::generation_config::GenerationConfig;
use crate::row_means::RowMeans;
use crate::special_tokens::{SpecialTokens, TIMESTAMP_SECS};
use crate::tokenizer::Tokenizer;
use crate::whisper::WhisperConfig;

/// Files that list the tokens of the old vocabulary and say nothing that `tokenizer.json` does not.
const LISTS: [&str; 5] =
    ["special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"];
/// Lists of old ids in `generation_config.json`. Without them all is as special tokens are by default.
const ID_LISTS: [&str; 3] = ["suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids"];
/// What ends a text.
const END: &str = "endoftext";

/// A token beside text.
struct Control {
    name: String,
    /// The token that it is in the old vocabulary.
    was: usize,
}

impl Description {
    /// Learns a vocabulary of at most so many tokens of text, the 256 bytes among them, that [`Bundle::with_vocabulary`] takes for this
    /// model: beside text it has what the model has now, of the languages that its prompts name these. The contents of a
    /// `tokenizer.json`.
    ///
    /// # Errors
    /// A language that the model has no token for, fewer tokens than bytes.
    pub fn learn_vocabulary(
        &self,
        n_text_tokens: usize,
        unit: TextUnit,
        languages: &[String],
        texts: &[String],
    ) -> Result<String, Error> {
        let (old, _, special) = self.vocabulary()?;
        let languages = if special.is_multilingual { languages.to_vec() } else { Vec::new() };
        let vocabulary = NewVocabulary { n_text_tokens, unit, languages, window_secs: self.window_secs() };
        let controls = self.controls(&old, &special, &vocabulary.languages)?;
        let names: Vec<_> = controls.into_iter().map(|control| control.name).collect();
        vocabulary.learn_beside(texts, &names)
    }

    /// What the model needs beside text, in the order in which it has it, with these languages.
    fn controls(
        &self,
        old: &Tokenizer,
        special: &SpecialTokens,
        languages: &[String],
    ) -> Result<Vec<Control>, Error> {
        for code in languages {
            special.token_of("language", code)?;
        }
        match self.architecture() {
            Architecture::Whisper(config) => {
                let names = whisper_vocabulary(self, languages.to_vec()).control_names().into_iter();
                let control =
                    |name: String| Ok(Control { was: whisper_control(&name, old, special, config)?, name });
                names.map(control).collect()
            }
            Architecture::Canary(config) => Ok(canary_controls(config, old, special, languages)),
            Architecture::ParakeetCtc(config) => {
                Ok(vec![Control { name: PAD.to_owned(), was: config.pad_token_id as usize }])
            }
        }
    }
}

impl Bundle {
    /// The same model with another vocabulary, the contents of a `tokenizer.json` as [`Description::learn_vocabulary`] makes it, or, for
    /// a Whisper, [`NewVocabulary::learn`] for languages of the model and for its window. Control tokens, languages and times keep
    /// their embeddings. That of a token of text starts as the mean of those that the model has spelled the same text with
    /// until now: it is heard where they were, and only how it is written has to be learnt again. What the model could not spell
    /// starts as the mean of all. So do the outputs of a CTC head.
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
        let architecture = description.architecture().clone();
        let (old, before, special) = description.vocabulary()?;
        let new = Tokenizer::from_text(tokenizer)?;
        let languages = languages_in(&new, &special, &architecture)?;
        let controls = description.controls(&old, &special, &languages)?;
        let names: Vec<_> = controls.iter().map(|control| control.name.clone()).collect();
        let ids = NewVocabulary::ids_of(&names, &new)?;
        let n_text_tokens = ids.values().min().map_or(0, |first| *first as usize);
        let n_vocab = n_text_tokens + controls.len();

        let spelling = Spelling::new(&old, &special, architecture.n_vocab());
        let spelled: Vec<_> = (0..n_text_tokens as u32).map(|id| spelling.of(&new.token_bytes(id))).collect();
        let kept = controls.iter().map(|control| vec![control.was]);
        let rows = spelled.iter().cloned().chain(kept).collect();
        let means = RowMeans { rows, typical: spelling.tokens() };
        let mut weights = weights.with_rows(&description.token_tensors(), &means);
        // A head beside a decoder knows some of the old tokens, and will know all new ones of text.
        let heard = architecture.ctc_tokens();
        if !heard.is_empty() {
            let outputs = |ids: &Vec<usize>| {
                ids.iter().filter_map(|id| heard.binary_search(&(*id as u32)).ok()).collect()
            };
            let rows = spelled.iter().map(outputs).chain([vec![heard.len()]]).collect();
            let means = RowMeans { rows, typical: (0..heard.len()).collect() };
            weights = weights.with_rows(&CTC_ROWS, &means);
        }

        let mut files = match &architecture {
            Architecture::Whisper(config) => {
                let vocabulary = whisper_vocabulary(&description, languages.clone());
                whisper_files(&description, config, &vocabulary, (&ids, n_vocab), &before)?
            }
            Architecture::Canary(config) => {
                // What begins a text or fills up a batch may be called anything in the old vocabulary.
                let id = |key: &'static str, was: u32| {
                    let at = controls.iter().position(|control| control.was == was as usize);
                    let missing = || {
                        let message = format!(
                            "{was} is no special token of its tokenizer.json that is written <|like this|>, and a new vocabulary keeps no others"
                        );
                        Error::key(&description.source().path("config.json"), key, message)
                    };
                    at.map(|at| (key, (n_text_tokens + at) as u32)).ok_or_else(missing)
                };
                let named = [
                    id("bos_token_id", special.start)?,
                    id("eos_token_id", config.eos_token_id)?,
                    id("pad_token_id", config.pad_token_id)?,
                    id("decoder_start_token_id", config.decoder_start_token_id)?,
                ];
                let (end, has_pad) = ("<|endoftext|>", ids.contains_key(PAD));
                let pad = if has_pad { "<|pad|>" } else { end };
                let n_positions = config.decoder_config.max_position_embeddings;
                let names = Names { end, pad, unknown: end };
                let tokenizer = tokenizer_config("PreTrainedTokenizerFast", n_positions, names);
                conformer_files(&description, n_vocab, &named, tokenizer)?
            }
            Architecture::ParakeetCtc(_) => {
                let pad = "<|pad|>";
                let names = Names { end: pad, pad, unknown: pad };
                let tokenizer =
                    tokenizer_config("ParakeetTokenizer", architecture.max_target_positions(), names);
                conformer_files(&description, n_vocab, &[("pad_token_id", n_text_tokens as u32)], tokenizer)?
            }
        };
        if let (false, Some((_, config))) = (heard.is_empty(), files.first_mut()) {
            config["ctc_token_ids"] = json!((0..n_text_tokens).collect::<Vec<_>>());
        }
        let is_whisper = matches!(architecture, Architecture::Whisper(_));
        files.iter_mut().for_each(|(_, file)| forget_other_languages(file, &languages, is_whisper));
        files.push(("tokenizer.json", contents));
        Ok(Self { description: description.with_files(&LISTS, files)?, weights })
    }
}

/// The model's languages that a vocabulary has tokens for; none where its prompts name none.
fn languages_in(
    new: &Tokenizer,
    special: &SpecialTokens,
    architecture: &Architecture,
) -> Result<Vec<String>, Error> {
    let languages: Vec<String> = match architecture {
        Architecture::Whisper(_) => {
            let place = |name: &str| new.special(name).unwrap_or_default();
            // By their place: a code may look like anything.
            let tokens = place("startoftranscript") + 1..place("translate");
            tokens.filter_map(|id| name_of(new, id)).collect()
        }
        Architecture::Canary(_) => {
            let codes = special.languages.iter().map(|(code, _)| code);
            codes.filter(|code| new.special(code).is_some()).cloned().collect()
        }
        Architecture::ParakeetCtc(_) => Vec::new(),
    };
    if special.is_multilingual == languages.is_empty() {
        let message = match special.is_multilingual {
            true => "names no language, and the model's prompts do: learn it with --languages",
            false => "names languages, and the model's prompts do not: learn it without --languages",
        };
        return Err(Error::Tokenizer(message.to_owned()));
    }
    Ok(languages)
}

/// What stands between `<|` and `|>` in the name of a token.
fn name_of(tokenizer: &Tokenizer, id: u32) -> Option<String> {
    let name = String::from_utf8(tokenizer.token_bytes(id)).ok()?;
    Some(name.strip_prefix("<|")?.strip_suffix("|>")?.to_owned())
}

/// The special tokens of a Canary that have a name, its end and what fills up its batches; the last of them, as in our own, that.
fn canary_controls(
    config: &CanaryConfig,
    old: &Tokenizer,
    special: &SpecialTokens,
    languages: &[String],
) -> Vec<Control> {
    let [end, pad] = [config.eos_token_id, config.pad_token_id];
    let mut ids = old.special_ids();
    ids.insert(end);
    let is_left_out = |id: u32| {
        let language = special.languages.iter().find(|(_, token)| *token == id);
        id as usize >= config.decoder_config.vocab_size
            || (id == pad && pad != end)
            || language.is_some_and(|(code, _)| !languages.contains(code))
    };
    let mut controls: Vec<Control> = Vec::new();
    for id in ids.into_iter().filter(|id| !is_left_out(*id)) {
        let name = match name_of(old, id) {
            _ if id == end => END.to_owned(),
            Some(name) if name != END && name != PAD => name,
            _ => continue,
        };
        controls.push(Control { name, was: id as usize });
    }
    if pad != end {
        controls.push(Control { name: PAD.to_owned(), was: pad as usize });
    }
    controls
}

/// `config.json` first, and what else changes of a FastConformer model, whose tokens in `named` have other ids.
fn conformer_files(
    description: &Description,
    n_vocab: usize,
    named: &[(&'static str, u32)],
    tokenizer: Value,
) -> Result<Vec<(&'static str, Value)>, Error> {
    let source = description.source();
    let mut config = read_json(source, "config.json")?;
    description.architecture().set_n_vocab(&mut config, n_vocab);
    for (key, id) in named {
        config[*key] = json!(id);
        if let Some(value) = config.get_mut("decoder_config").and_then(|decoder| decoder.get_mut(*key)) {
            *value = json!(id);
        }
    }
    let mut files = vec![("config.json", config), ("tokenizer_config.json", tokenizer)];
    let name = "generation_config.json";
    if source.has(name) {
        let mut generation = read_json(source, name)?;
        if let Value::Object(keys) = &mut generation {
            keys.retain(|key, _| !ID_LISTS.contains(&key.as_str()));
            for (key, id) in named {
                keys.insert((*key).to_owned(), json!(id));
            }
        }
        files.push((name, generation));
    }
    Ok(files)
}

/// Leaves those languages in the lists of a `generation_config.json` that the vocabulary still has. Into what a Whisper translates no
/// token says. A model that heard none of them may be told any.
fn forget_other_languages(file: &mut Value, languages: &[String], is_whisper: bool) {
    let Value::Object(keys) = file else { return };
    let is_kept = |code: &Value| code.as_str().is_some_and(|code| languages.iter().any(|kept| kept == code));
    for key in ["source_languages", "translation_languages"] {
        if let Some(codes) = keys.get_mut(key).and_then(Value::as_array_mut)
            && !(is_whisper && key == "translation_languages")
        {
            codes.retain(is_kept);
        }
    }
    if keys.get("source_languages").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        keys.remove("source_languages");
    }
}

fn whisper_vocabulary(description: &Description, languages: Vec<String>) -> NewVocabulary {
    let window_secs = description.window_secs();
    // What it says of text is in the tokens that were learnt.
    NewVocabulary { n_text_tokens: 0, unit: TextUnit::default(), languages, window_secs }
}

/// The old token of a control, a language or a time of a Whisper. Checkpoints that do not list their times have them by their place, and
/// some call silence otherwise.
fn whisper_control(
    name: &str,
    old: &Tokenizer,
    special: &SpecialTokens,
    config: &WhisperConfig,
) -> Result<usize, Error> {
    let by_place = || match (name, name.parse::<f64>(), special.no_timestamps) {
        ("nospeech", ..) => special.no_speech,
        (_, Ok(secs), Some(before)) => Some(before + 1 + (secs / TIMESTAMP_SECS).round() as u32),
        _ => None,
    };
    let id = old.special(name).or_else(by_place).filter(|id| (*id as usize) < config.vocab_size);
    id.map(|id| id as usize).ok_or_else(|| Error::Tokenizer(format!("the model has no token <|{name}|>")))
}

/// What changes of a Whisper.
fn whisper_files(
    description: &Description,
    whisper: &WhisperConfig,
    vocabulary: &NewVocabulary,
    (ids, n_vocab): (&BTreeMap<String, u32>, usize),
    before: &GenerationConfig,
) -> Result<Vec<(&'static str, Value)>, Error> {
    let mut generation = vocabulary.generation(ids, whisper.max_target_positions)?;
    let mut config = read_json(description.source(), "config.json")?;
    let changed = json!({
        "decoder_start_token_id": generation["decoder_start_token_id"],
        "eos_token_id": generation["eos_token_id"], "bos_token_id": generation["bos_token_id"],
        "pad_token_id": generation["pad_token_id"], "begin_suppress_tokens": [], "suppress_tokens": null, "forced_decoder_ids": null,
    });
    merge(&mut config, changed);
    description.architecture().set_n_vocab(&mut config, n_vocab);
    // What has nothing to do with the vocabulary stays.
    let kept = json!({
        "max_initial_timestamp_index": before.max_initial_timestamp_index,
        "alignment_heads": before.alignment_heads, "num_beams": before.num_beams,
        "source_languages": before.source_languages, "translation_languages": before.translation_languages,
    });
    merge(&mut generation, kept);
    if let Value::Object(keys) = &mut generation {
        keys.retain(|_, value| !value.is_null());
    }
    Ok(vec![
        ("config.json", config),
        ("generation_config.json", generation),
        ("tokenizer_config.json", NewVocabulary::tokenizer_config(whisper.max_target_positions)),
    ])
}
