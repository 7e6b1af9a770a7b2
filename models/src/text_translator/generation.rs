//! What may be written, and when a translation ends.

use serde::Deserialize;
use serde_json::Value;

use super::transformers::first_of;
use crate::Error;
use crate::bundle::{BundleSource, parse, read_json};

/// Lists of tokens that may not be written one after the other.
const MAX_BAD_WORDS: usize = 4096;

/// How transformers generates with a model, as far as greedy search goes.
pub(super) struct Generation {
    /// Before the first token.
    pub start: u32,
    end: Vec<u32>,
    forced_start: Option<u32>,
    forced_end: Option<u32>,
    bad_words: Vec<Vec<u32>>,
    pub max_new_tokens: usize,
}

/// One id, or several of which any will do.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "a token or a list of tokens was expected")]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

/// Keys of `generation_config.json`, which older models have in `config.json`.
#[derive(Deserialize)]
struct Keys {
    decoder_start_token_id: Option<u32>,
    pad_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
    forced_bos_token_id: Option<u32>,
    forced_eos_token_id: Option<Ids>,
    bad_words_ids: Option<Vec<Vec<u32>>>,
    max_length: Option<usize>,
    max_new_tokens: Option<usize>,
}

/// In the order of [`Keys`].
const KEYS: [&str; 8] = [
    "decoder_start_token_id",
    "pad_token_id",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "max_length",
    "max_new_tokens",
];

impl Ids {
    fn list(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

impl Generation {
    /// Reads `generation_config.json`, and `config.json` for what it does not say, of a model with so many tokens that writes at most
    /// so many. `never` is not written whatever they say.
    ///
    /// # Errors
    /// Keys that are no such settings, tokens that the model does not have.
    pub fn read(
        source: &BundleSource,
        config: &Value,
        (n_vocab, most): (usize, usize),
        never: Option<u32>,
    ) -> Result<Self, Error> {
        let name = "generation_config.json";
        let own = if source.has(name) { read_json(source, name)? } else { Value::Null };
        let path = source.path(if source.has(name) { name } else { "config.json" });
        let merged = KEYS.into_iter().map(|key| (key.to_owned(), first_of(&own, config, key).clone()));
        let keys: Keys = parse(Value::Object(merged.collect()), &path)?;

        let missing = |key: &str| Error::key(&path, key, "is missing; a translator has to say it");
        let start = keys.decoder_start_token_id.or(keys.pad_token_id);
        let start = start.ok_or_else(|| missing("decoder_start_token_id"))?;
        let end = keys.eos_token_id.map(Ids::list).filter(|ids| !ids.is_empty());
        let end = end.ok_or_else(|| missing("eos_token_id"))?;
        let mut bad_words = keys.bad_words_ids.unwrap_or_default();
        if bad_words.len() > MAX_BAD_WORDS {
            let message = format!("are {}; at most {MAX_BAD_WORDS} are read", bad_words.len());
            return Err(Error::key(&path, "bad_words_ids", message));
        }
        // As in transformers: a text has to end.
        bad_words.retain(|word| match word.as_slice() {
            [] => false,
            [id] => !end.contains(id),
            _ => true,
        });
        bad_words.extend(never.map(|id| vec![id]));
        let forced_end = keys.forced_eos_token_id.map(Ids::list).and_then(|ids| ids.first().copied());
        let named =
            [("decoder_start_token_id", Some(start)), ("forced_bos_token_id", keys.forced_bos_token_id)];
        let ended = end.iter().chain(&forced_end).map(|id| ("eos_token_id", *id));
        let all = named.into_iter().filter_map(|(key, id)| Some((key, id?))).chain(ended);
        let mut all = all.chain(bad_words.iter().flatten().map(|id| ("bad_words_ids", *id)));
        if let Some((key, id)) = all.find(|(_, id)| *id as usize >= n_vocab) {
            return Err(Error::key(&path, key, format!("token {id} is outside the vocabulary of {n_vocab}")));
        }
        // The length of transformers counts the start, which is not written.
        let asked = keys.max_new_tokens.or(keys.max_length.map(|n| n.saturating_sub(1)));
        Ok(Self {
            start,
            end,
            forced_start: keys.forced_bos_token_id,
            forced_end,
            bad_words,
            max_new_tokens: asked.unwrap_or(most).clamp(1, most),
        })
    }

    /// What ends a text that is read.
    pub fn end(&self) -> Option<u32> {
        self.end.first().copied()
    }

    /// Whether a token ends a text that is written.
    pub fn ends(&self, id: u32) -> bool {
        self.end.contains(&id)
    }

    /// The token that follows `tokens`, the start among them, by its score (V).
    ///
    /// # Errors
    /// Scores of which none can be taken.
    pub fn next(&self, tokens: &[u32], scores: &mut [f32]) -> Result<u32, Error> {
        if tokens.len() == self.max_new_tokens
            && let Some(id) = self.forced_end
        {
            return Ok(id);
        }
        if tokens.len() == 1
            && let Some(id) = self.forced_start
        {
            return Ok(id);
        }
        for word in &self.bad_words {
            if let Some((last, before)) = word.split_last()
                && tokens.ends_with(before)
                && let Some(score) = scores.get_mut(*last as usize)
            {
                *score = f32::NEG_INFINITY;
            }
        }
        // The first of equal ones, as torch takes it.
        let best =
            scores.iter().enumerate().fold(None, |best: Option<(usize, f32)>, (id, score)| match best {
                Some((_, highest)) if highest >= *score => best,
                _ if score.is_nan() => best,
                _ => Some((id, *score)),
            });
        match best {
            Some((id, score)) if score.is_finite() && !scores.iter().any(|score| score.is_nan()) => {
                Ok(id as u32)
            }
            _ => Err(Error::NotFinite { what: "scores" }),
        }
    }
}
