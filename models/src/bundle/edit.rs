//! Descriptions that differ from a bundle's own: a language more, or recordings as long as they are.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::source::DESCRIBING;
use super::{Architecture, Bundle, BundleSource, Description, MemoryBundle, read_json};
use crate::Error;

/// Files that list special tokens by name, and where.
const TOKEN_LISTS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
const TOKEN_LIST: &str = "additional_special_tokens";

impl Bundle {
    /// The same model, taking recordings as long as they are or always a full window.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn with_variable_length(self, variable_length: bool) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        description.architecture().require_whisper("variable_length")?;
        let mut config = read_json(description.source(), "config.json")?;
        config["variable_length"] = json!(variable_length);
        Ok(Self { description: description.with_files(&[], vec![("config.json", config)])?, weights })
    }

    /// The same model, keeping so many hypotheses where nobody says otherwise.
    ///
    /// # Errors
    /// No generation_config.json, which is where it is said.
    pub fn with_beam_size(self, beam_size: usize) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        let mut generation = read_json(description.source(), "generation_config.json")?;
        generation["num_beams"] = json!(beam_size);
        Ok(Self {
            description: description.with_files(&[], vec![("generation_config.json", generation)])?,
            weights,
        })
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
        let source = description.source();
        description.architecture().require_whisper("a new language")?;
        if source.tokenizer_file() != "tokenizer.json" {
            let message = "no such file: a language is added to it, and to a tokenizer.model none can be; save it with transformers";
            return Err(Error::file(&source.path("tokenizer.json"), message));
        }
        let (_, _, special) = description.vocabulary()?;
        if !special.is_multilingual {
            let message = "this model names no languages in its prompts; train it as it is";
            return Err(Error::option("language", message));
        }
        if special.language(code).is_ok() {
            return Err(Error::option("language", format!("the model has a token for `{code}`")));
        }
        let row = special.language(like)?;
        let (generation_path, tokenizer_path) =
            (source.path("generation_config.json"), source.path("tokenizer.json"));
        if !source.has("generation_config.json") {
            let message = "no such file: it says which languages the model has, and one is to be added";
            return Err(Error::file(&generation_path, message));
        }
        let mut config = read_json(source, "config.json")?;
        let mut generation = read_json(source, "generation_config.json")?;
        let mut tokenizer = read_json(source, "tokenizer.json")?;

        let id = next_id(&tokenizer).ok_or_else(|| Error::file(&tokenizer_path, "lists no tokens"))?;
        let vocab_size = config["vocab_size"].as_u64().unwrap_or_default();
        if id > vocab_size {
            let message = format!("has {id} tokens, and config.json a vocabulary of {vocab_size}");
            return Err(Error::file(&tokenizer_path, message));
        }
        let name = format!("<|{code}|>");
        config["vocab_size"] = json!(vocab_size.max(id + 1));
        // Where the file does not list them, the tokenizer did until now.
        let languages = special.languages.iter().map(|(code, id)| (format!("<|{code}|>"), json!(id)));
        let mut languages: serde_json::Map<_, _> = languages.collect();
        languages.insert(name.clone(), json!(id));
        generation["lang_to_id"] = Value::Object(languages);
        push(&mut generation["suppress_tokens"], json!(id));
        let token = json!({
            "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
        });
        let mut with_id = token.clone();
        with_id["id"] = json!(id);
        push(&mut tokenizer["added_tokens"], with_id);
        let mut files = vec![
            ("config.json", config),
            ("generation_config.json", generation),
            ("tokenizer.json", tokenizer),
        ];
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
        let weights = weights.with_token(id as usize, row as usize);
        Ok(Self { description: description.with_files(&[], files)?, weights })
    }
}

impl Description {
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
fn next_id(tokenizer: &Value) -> Option<u64> {
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let ids = added.filter_map(|token| token["id"].as_u64());
    let vocabulary = tokenizer["model"]["vocab"].as_object().into_iter().flatten();
    ids.chain(vocabulary.filter_map(|(_, id)| id.as_u64())).max().map(|last| last + 1)
}

fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(values) => values.push(value),
        other => *other = Value::Array(vec![value]),
    }
}
