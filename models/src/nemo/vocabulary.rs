//! The tokenizer of an archive: one SentencePiece model, or several whose ids follow each other, one for each language
//! (`aggregate_tokenizer.py: AggregateTokenizer`).

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::archive::Archive;
use super::settings::Settings;
use crate::Error;
use crate::sentencepiece::{self, SentencePiece};

/// Reads the tokenizer that the configuration names, whose text is `yaml`.
///
/// # Errors
/// Other kinds of tokenizers, files that are not in the archive or are no such models.
pub(super) fn read(archive: &Archive, whole: &mut Settings<'_>, yaml: &str) -> Result<SentencePiece, Error> {
    let mut part = whole.below("tokenizer");
    match part.text("type")? {
        "bpe" => model(archive, &mut part),
        "agg" => {
            let mut languages = part.below("langs");
            let mut models = Vec::new();
            for name in order(yaml) {
                let mut language = languages.below(&name);
                language.known("type", &Value::Null, &["bpe".into()])?;
                models.push((model(archive, &mut language)?, name));
            }
            if models.is_empty() {
                return Err(part.refuse("langs", "is missing; type agg needs a tokenizer for each language"));
            }
            tracing::warn!(
                "the model has a tokenizer for each language: what it writes is read as ever, but texts that it is trained on or \
                 prompted with are cut by all of them together"
            );
            SentencePiece::aggregate(models).map_err(|message| part.refuse("langs", message))
        }
        other => Err(part.refuse("type", format!("{other} is not known; bpe and agg are"))),
    }
}

/// The file that `model_path` names: `nemo:` and its name in the archive.
fn model(archive: &Archive, part: &mut Settings<'_>) -> Result<SentencePiece, Error> {
    let named = part.text("model_path")?;
    let name = named.strip_prefix("nemo:").unwrap_or(named);
    let bytes = archive.read(name, sentencepiece::MAX_BYTES)?;
    SentencePiece::read(&bytes, &archive.path(name))
}

/// Languages in their order, which decides on ids and which a map of JSON does not keep.
fn order(yaml: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Whole {
        tokenizer: Tokenizer,
    }
    #[derive(Deserialize)]
    struct Tokenizer {
        langs: Keys,
    }
    serde_saphyr::from_str::<Whole>(yaml).map(|whole| whole.tokenizer.langs.0).unwrap_or_default()
}

/// Keys of a map in their order.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Keys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of languages")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
