//! Bundles that differ in one thing from those that they are made of: a language more, recordings as long as they are, a head.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::source::DESCRIBING;
use super::{Architecture, Bundle, BundleSource, Description, MemoryBundle, read_json};
use crate::Error;
use crate::ctc_head::{CTC_HEAD, CTC_ROWS};
use crate::row_means::RowMeans;
use crate::special_tokens::SpecialTokens;

/// What `generation_config.json` repeats of `config.json`.
const GENERATION_KEYS: [&str; 4] = ["bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"];
/// Files that list special tokens by name, and where.
const TOKEN_LISTS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
const TOKEN_LIST: &str = "additional_special_tokens";

impl Bundle {
    /// The same model, taking recordings as long as they are or always a full window.
    ///
    /// # Errors
    /// Files that cannot be read; full windows of a model that knows none.
    pub fn with_variable_length(self, variable_length: bool) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        let architecture = description.architecture();
        if architecture.whisper().is_none() {
            if !variable_length {
                let message =
                    format!("false: a {} hears recordings as long as they are", architecture.name());
                return Err(Error::option("variable_length", message));
            }
            return Ok(Self { description, weights });
        }
        let mut config = read_json(description.source(), "config.json")?;
        config["variable_length"] = json!(variable_length);
        Ok(Self { description: description.with_files(&[], vec![("config.json", config)])?, weights })
    }

    /// The same model, keeping so many hypotheses where nobody says otherwise.
    ///
    /// # Errors
    /// A Whisper without generation_config.json, which is where it is said, beside much else.
    pub fn with_beam_size(self, beam_size: usize) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        Ok(Self { description: description.with_generation("num_beams", json!(beam_size))?, weights })
    }

    /// The same model as one that has learnt to translate into these languages and no others, whatever it said before.
    ///
    /// # Errors
    /// What [`Description::with_translation_languages`] refuses.
    pub fn with_translation_languages(self, codes: &[impl AsRef<str>]) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        Ok(Self { description: description.with_translation_languages(codes)?, weights })
    }

    /// The same model as one that has learnt to hear these languages and no others, whatever it said before.
    ///
    /// # Errors
    /// What [`Description::with_source_languages`] refuses.
    pub fn with_source_languages(self, codes: &[impl AsRef<str>]) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        Ok(Self { description: description.with_source_languages(codes)?, weights })
    }

    /// The same model as one of this language, where it is of one alone and says so in a word: a CTC model, whatever it was of before.
    /// Others tell languages by tokens, or are of English, and stay as they are.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn with_only_language(self, code: &str) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        let Architecture::ParakeetCtc(_) = description.architecture() else {
            return Ok(Self { description, weights });
        };
        let mut config = read_json(description.source(), "config.json")?;
        config["language"] = json!(code);
        Ok(Self { description: description.with_files(&[], vec![("config.json", config)])?, weights })
    }

    /// The same model with a CTC head that tells these tokens apart beside its decoder, each once and in ascending order; of none there
    /// is no head. What a head that is there knows of them it keeps knowing, and of the others it says what it says of any.
    ///
    /// # Errors
    /// A model that is no Canary, tokens that it does not have.
    pub fn with_ctc_tokens(self, ids: &[u32]) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        let known = description.architecture().ctc_tokens().to_vec();
        let description = description.with_ctc_tokens(ids)?;
        if known.is_empty() || ids.is_empty() {
            return Ok(Self { description, weights: weights.without(CTC_HEAD) });
        }
        if known == ids {
            return Ok(Self { description, weights });
        }
        let row = |id: &u32| known.binary_search(id).into_iter().collect();
        let blank = vec![known.len()];
        let rows = ids.iter().map(row).chain([blank]).collect();
        let means = RowMeans { rows, typical: (0..known.len()).collect() };
        Ok(Self { description, weights: weights.with_rows(&CTC_ROWS, &means) })
    }

    /// The same model with these of its decoder's blocks alone, in this order: what is left of it says little until it is trained, and
    /// shows what a block costs.
    ///
    /// # Errors
    /// A model without a decoder, blocks that it does not have or that are not in ascending order, none; an adapter,
    /// which knows blocks by their number, unless the first ones are kept.
    pub fn with_decoder_blocks(self, blocks: &[usize]) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        let (_, n_known) = description.architecture().n_layers();
        let are_ascending = blocks.windows(2).all(|pair| pair[0] < pair[1]);
        if !are_ascending || blocks.is_empty() || blocks.iter().any(|block| *block >= n_known) {
            let message = format!("{blocks:?} are not some of the {n_known} blocks, in their order");
            return Err(Error::option("decoder_blocks", message));
        }
        let n_layers = blocks.len();
        let weights = weights.with_layers("model.decoder.layers.", blocks)?;
        let source = description.source();
        let mut config = read_json(source, "config.json")?;
        match description.architecture() {
            Architecture::Canary(_) => config["decoder_config"]["num_hidden_layers"] = json!(n_layers),
            _ => config["decoder_layers"] = json!(n_layers),
        }
        let mut files = vec![("config.json", config)];
        if source.has("generation_config.json") {
            let mut generation = read_json(source, "generation_config.json")?;
            if let Value::Object(keys) = &mut generation {
                // They may be in blocks that are gone.
                keys.remove("alignment_heads");
            }
            files.push(("generation_config.json", generation));
        }
        Ok(Self { description: description.with_files(&[], files)?, weights })
    }

    /// The same model with a token for one more language, which starts as the token of `like`. It comes after all others, so that
    /// every one of them keeps its id, and is never written: prompts alone hold it.
    ///
    /// # Errors
    /// A code that is none or that the model has a token for, a model of one language, files that do not say which its
    /// languages are, a tokenizer that is no `tokenizer.json`.
    pub fn with_language(self, code: &str, like: &str) -> Result<Self, Error> {
        if !(2..=8).contains(&code.len())
            || !code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        {
            return Err(Error::option("language", format!("`{code}` is no code such as ps")));
        }
        let (description, weights) = self.into_parts();
        let (source, architecture) = (description.source(), description.architecture().clone());
        if source.tokenizer_file() != "tokenizer.json" {
            let message = "no such file: a language is added to it, and to a tokenizer.model none can be; save it with transformers";
            return Err(Error::file(&source.path("tokenizer.json"), message));
        }
        let (known, _, special) = description.vocabulary()?;
        if !special.is_multilingual {
            let message = "this model names no languages in its prompts; train it as it is";
            return Err(Error::option("language", message));
        }
        if special.language_token(code).is_some() {
            return Err(Error::option("language", format!("the model has a token for `{code}`")));
        }
        if known.special(code).is_some() {
            let message = format!("the model has a token <|{code}|> that is no language; take another code");
            return Err(Error::option("language", message));
        }
        let row = special.token_of("language", like)? as usize;
        let tokenizer_path = source.path("tokenizer.json");
        let mut config = read_json(source, "config.json")?;
        let mut tokenizer = read_json(source, "tokenizer.json")?;
        let id = next_id(&tokenizer).ok_or_else(|| Error::file(&tokenizer_path, "lists no tokens"))?;
        let n_vocab = architecture.n_vocab();
        if id > n_vocab {
            let message = format!("has {id} tokens, and config.json a vocabulary of {n_vocab}");
            return Err(Error::file(&tokenizer_path, message));
        }
        let name = format!("<|{code}|>");
        let token = json!({
            "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
        });
        let mut with_id = token.clone();
        with_id["id"] = json!(id);
        push(&mut tokenizer["added_tokens"], with_id);
        // The row may be there: some pad their matrices.
        let n_rows = n_vocab.max(id + 1);
        architecture.set_n_vocab(&mut config, n_rows);
        let mut files = vec![("config.json", config), ("tokenizer.json", tokenizer)];
        files.extend(
            generation_with(&description, &special, code, id)?.map(|file| ("generation_config.json", file)),
        );
        for file in TOKEN_LISTS.into_iter().filter(|file| source.has(file)) {
            let mut value = read_json(source, file)?;
            if value[TOKEN_LIST].is_array() {
                push(&mut value[TOKEN_LIST], json!(name));
            }
            if let Some(Value::Object(tokens)) = value.get_mut("added_tokens_decoder") {
                tokens.insert(id.to_string(), token.clone());
            }
            files.push((file, value));
        }
        if source.has("added_tokens.json") {
            let mut value = read_json(source, "added_tokens.json")?;
            if let Value::Object(tokens) = &mut value {
                tokens.insert(name, json!(id));
            }
            files.push(("added_tokens.json", value));
        }
        let description = description.with_files(&[], files)?;
        let (_, _, special) = description.vocabulary()?;
        if special.language_token(code) != Some(id as u32) {
            let message =
                format!("`{code}` is no name that this model tells a language by: two or three letters");
            return Err(Error::option("language", message));
        }
        let rows = (0..n_rows).map(|at| vec![if at == id { row } else { at }]).collect();
        let means = RowMeans { rows, ..RowMeans::default() };
        let weights = weights.with_rows(&description.token_tensors(), &means);
        Ok(Self { description, weights })
    }
}

/// `generation_config.json` with a language more; `None` where there is none and none is needed: then what is special is never
/// written, and a tokenizer says which languages there are.
fn generation_with(
    description: &Description,
    special: &SpecialTokens,
    code: &str,
    id: usize,
) -> Result<Option<Value>, Error> {
    let (source, file) = (description.source(), "generation_config.json");
    let lists_languages = description.architecture().whisper().is_some();
    if !source.has(file) {
        if lists_languages {
            let message = "no such file: it says which languages the model has, and one is to be added";
            return Err(Error::file(&source.path(file), message));
        }
        return Ok(None);
    }
    let mut generation = read_json(source, file)?;
    if lists_languages {
        // Where the file does not list them, the tokenizer did until now.
        let languages = special.languages.iter().map(|(code, id)| (format!("<|{code}|>"), json!(id)));
        let mut languages: serde_json::Map<_, _> = languages.collect();
        languages.insert(format!("<|{code}|>"), json!(id));
        generation["lang_to_id"] = Value::Object(languages);
    }
    if lists_languages || generation["suppress_tokens"].is_array() {
        push(&mut generation["suppress_tokens"], json!(id));
    }
    if generation["source_languages"].is_array() {
        push(&mut generation["source_languages"], json!(code));
    }
    Ok(Some(generation))
}

impl Description {
    /// The same of a model that has learnt to translate into these languages and no others, whatever it said before.
    ///
    /// # Errors
    /// Languages that its prompts cannot tell apart: several of a Whisper, those that a Canary has no token for, any of a CTC
    /// model; a Whisper without generation_config.json, which is where it is said, beside much else.
    pub fn with_translation_languages(self, codes: &[impl AsRef<str>]) -> Result<Self, Error> {
        self.with_language_codes("translation_languages", codes)
    }

    /// The same of a model that has learnt to hear, or to read, these languages and no others, whatever it said before.
    ///
    /// # Errors
    /// None, those that it has no token for; a Whisper without generation_config.json, which is where it is said, beside much else.
    pub fn with_source_languages(self, codes: &[impl AsRef<str>]) -> Result<Self, Error> {
        self.with_language_codes("source_languages", codes)
    }

    fn with_language_codes(self, key: &str, codes: &[impl AsRef<str>]) -> Result<Self, Error> {
        let codes: Vec<&str> = codes.iter().map(AsRef::as_ref).collect();
        let description = self.with_generation(key, json!(codes))?;
        description.vocabulary()?;
        Ok(description)
    }

    /// The same with another value of a key of `generation_config.json`.
    fn with_generation(self, key: &str, value: Value) -> Result<Self, Error> {
        let (source, name) = (self.source(), "generation_config.json");
        let is_needed = self.architecture().whisper().is_some();
        let mut generation = match is_needed || source.has(name) {
            true => read_json(source, name)?,
            // What others read from it, once it is there, instead of from the model's description.
            false => {
                let config = read_json(source, "config.json")?;
                let kept = GENERATION_KEYS.into_iter().filter(|key| !config[*key].is_null());
                Value::Object(kept.map(|key| (key.to_owned(), config[key].clone())).collect())
            }
        };
        generation[key] = value;
        self.with_files(&[], vec![(name, generation)])
    }

    /// The same of a Canary that also reads by CTC, by a head that tells these tokens apart, each once and in ascending order; of none
    /// there is no head.
    ///
    /// # Errors
    /// Another model, tokens that it does not have.
    pub fn with_ctc_tokens(self, ids: &[u32]) -> Result<Self, Error> {
        let Architecture::Canary(_) = self.architecture() else {
            return Err(Error::option(
                "ctc_token_ids",
                "is for Canary alone: other bundles have no place for such a head",
            ));
        };
        let mut config = read_json(self.source(), "config.json")?;
        match &mut config {
            Value::Object(keys) if ids.is_empty() => drop(keys.remove("ctc_token_ids")),
            config => config["ctc_token_ids"] = json!(ids),
        }
        self.with_files(&[], vec![("config.json", config)])
    }

    /// The same without some files and with other contents of some.
    pub(super) fn with_files(
        self,
        removed: &[&str],
        changed: Vec<(&'static str, Value)>,
    ) -> Result<Self, Error> {
        let source = self.source();
        let name = Cow::Owned(source.to_string());
        let mut files = std::collections::BTreeMap::new();
        for file in DESCRIBING.into_iter().filter(|file| source.has(file) && !removed.contains(file)) {
            files.insert(Cow::Borrowed(file), Cow::Owned(source.read(file)?.into_owned()));
        }
        for (file, value) in changed {
            files.insert(Cow::Borrowed(file), Cow::Owned(format!("{value:#}\n").into_bytes()));
        }
        Self::open(BundleSource::Memory(Arc::new(MemoryBundle { name, files })))
    }
}

/// The id that a further token gets: after all that the file lists.
fn next_id(tokenizer: &Value) -> Option<usize> {
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let ids = added.filter_map(|token| token["id"].as_u64());
    let vocabulary = &tokenizer["model"]["vocab"];
    let named = vocabulary.as_object().into_iter().flatten().filter_map(|(_, id)| id.as_u64());
    // Unigram models have them in their order.
    let n_listed = vocabulary.as_array().map_or(0, Vec::len) as u64;
    let last = ids.chain(named).chain(n_listed.checked_sub(1)).max();
    last.map(|last| last as usize + 1)
}

fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(values) => values.push(value),
        other => *other = Value::Array(vec![value]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_token_comes_after_all_that_are_listed_in_either_way() {
        let added = json!([{ "id": 4, "content": "<|a|>" }]);
        for (tokenizer, expected) in [
            (json!({ "model": { "vocab": { "x": 0, "y": 7 } }, "added_tokens": added }), Some(8)),
            (json!({ "model": { "vocab": [["x", 0.0], ["y", -1.0]] }, "added_tokens": added }), Some(5)),
            (json!({ "model": { "vocab": [["x", 0.0], ["y", -1.0], ["z", -1.0]] } }), Some(3)),
            (json!({ "model": { "vocab": [] } }), None),
        ] {
            assert_eq!(next_id(&tokenizer), expected, "{tokenizer}");
        }
    }
}
