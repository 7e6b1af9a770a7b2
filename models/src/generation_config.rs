//! What `generation_config.json` says about decoding. Where the file exists it wins over every built-in list.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::Error;
use crate::bundle::{BundleSource, parse, read_json};
use crate::options::MAX_BEAMS;
use crate::tokenizer::Tokenizer;
use crate::whisper::WhisperConfig;

/// The keys of `generation_config.json` that decoding uses, under the names they have there.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct GenerationConfig {
    /// Tokens that may never be produced.
    #[serde(default)]
    pub suppress_tokens: Option<Vec<u32>>,
    /// Tokens that may not come first.
    #[serde(default)]
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// (decoder block, head) pairs whose cross-attention follows the speech.
    #[serde(default)]
    pub alignment_heads: Option<Vec<(usize, usize)>>,
    /// Language tokens by name (`<|ps|>`).
    #[serde(default)]
    pub lang_to_id: BTreeMap<String, u32>,
    /// Task tokens by name (`transcribe`).
    #[serde(default)]
    pub task_to_id: BTreeMap<String, u32>,
    /// Whether prompts name a language and a task.
    #[serde(default)]
    pub is_multilingual: Option<bool>,
    /// The token that turns timestamps off; the first timestamp follows it.
    #[serde(default)]
    pub no_timestamps_token_id: Option<u32>,
    /// The token before text that precedes the window.
    #[serde(default)]
    pub prev_sot_token_id: Option<u32>,
    /// Latest first timestamp, in timestamp steps.
    #[serde(default)]
    pub max_initial_timestamp_index: Option<u32>,
    /// Hypotheses that beam search keeps where nobody says otherwise.
    #[serde(default)]
    pub num_beams: Option<usize>,
    /// Codes of the languages that the model has learnt to hear or to read, where it says so: ours alone, others leave it as it is.
    #[serde(default)]
    pub source_languages: Option<Vec<String>>,
    /// Codes of the languages that the model has learnt to translate into, where it says so: ours alone, others leave it as it is.
    #[serde(default)]
    pub translation_languages: Option<Vec<String>>,
}

/// Whisper starts a window within its first second (`DecodingOptions.max_initial_timestamp`).
const MAX_INITIAL_TIMESTAMP: u32 = 50;

impl GenerationConfig {
    /// Reads `generation_config.json` of a model with so many token ids and, in its decoder, blocks and heads; without one, nothing is
    /// asked for but that control tokens stay out of a text.
    ///
    /// # Errors
    /// A file that is no such configuration, or ids outside the vocabulary.
    pub fn read_plain(
        source: &BundleSource,
        control: Vec<u32>,
        n_vocab: usize,
        heads: (usize, usize),
    ) -> Result<Self, Error> {
        let name = "generation_config.json";
        let path = source.path(name);
        let mut generation: Self =
            if source.has(name) { parse(read_json(source, name)?, &path)? } else { Self::default() };
        generation.suppress_tokens.get_or_insert(control);
        generation.check(&path, n_vocab, heads)?;
        Ok(generation)
    }

    /// Reads Whisper's `generation_config.json`; without one, the lists of `config.json` and of the reference
    /// implementation (`whisper/decoding.py: _get_suppress_tokens`) stand in.
    ///
    /// # Errors
    /// A file that is no such configuration, or ids outside the vocabulary.
    pub fn read(source: &BundleSource, config: &WhisperConfig, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let name = "generation_config.json";
        let path = source.path(name);
        let heads = (config.decoder_layers, config.decoder_attention_heads);
        if source.has(name) {
            let generation: Self = parse(read_json(source, name)?, &path)?;
            generation.check(&path, config.vocab_size, heads)?;
            Ok(generation)
        } else {
            let generation = Self::built_in(config, tokenizer);
            generation.check(&path.with_file_name("config.json"), config.vocab_size, heads)?;
            Ok(generation)
        }
    }

    /// Hypotheses that the checkpoint asks beam search to keep; 1 is greedy.
    pub fn beam_size(&self) -> usize {
        self.num_beams.unwrap_or(1)
    }

    fn built_in(config: &WhisperConfig, tokenizer: &Tokenizer) -> Self {
        let specials = [
            "transcribe",
            "translate",
            "startoftranscript",
            "startofprev",
            "startoflm",
            "nospeech",
            "nocaptions",
        ];
        let suppress = || {
            let mut ids = tokenizer.non_speech_tokens();
            ids.extend(specials.iter().filter_map(|name| tokenizer.special(name)));
            // Those that the model has no embedding for are the tokenizer's fault, and refused as such.
            ids.retain(|id| (*id as usize) < config.vocab_size);
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let begin = || {
            let mut ids = tokenizer.encode(" ").unwrap_or_default();
            ids.push(config.eos_token_id);
            ids
        };
        Self {
            suppress_tokens: config.suppress_tokens.clone().or_else(|| Some(suppress())),
            begin_suppress_tokens: config.begin_suppress_tokens.clone().or_else(|| Some(begin())),
            max_initial_timestamp_index: Some(MAX_INITIAL_TIMESTAMP),
            ..Self::default()
        }
    }

    fn check(&self, path: &Path, n_vocab: usize, (n_blocks, n_heads): (usize, usize)) -> Result<(), Error> {
        let lists = [
            ("suppress_tokens", &self.suppress_tokens),
            ("begin_suppress_tokens", &self.begin_suppress_tokens),
        ];
        for (key, ids) in lists {
            if let Some(id) = ids.iter().flatten().find(|id| **id as usize >= n_vocab) {
                let message = format!("token {id} is outside the vocabulary of {n_vocab}");
                return Err(Error::key(path, key, message));
            }
        }
        let single = [
            ("no_timestamps_token_id", self.no_timestamps_token_id),
            ("prev_sot_token_id", self.prev_sot_token_id),
        ];
        let single = single.into_iter().filter_map(|(name, id)| Some((name, id?)));
        let named = self.lang_to_id.iter().chain(&self.task_to_id).map(|(name, id)| (name.as_str(), *id));
        if let Some((name, id)) = named.chain(single).find(|(_, id)| *id as usize >= n_vocab) {
            let message = format!("token {id} is outside the vocabulary of {n_vocab}");
            return Err(Error::key(path, name, message));
        }
        if let Some(n) = self.num_beams.filter(|n| !(1..=MAX_BEAMS).contains(n)) {
            return Err(Error::key(path, "num_beams", format!("{n} is not between 1 and {MAX_BEAMS}")));
        }
        for &(block, head) in self.alignment_heads.iter().flatten() {
            if block >= n_blocks || head >= n_heads {
                let message = format!("the decoder has no head {head} in block {block}");
                return Err(Error::key(path, "alignment_heads", message));
            }
        }
        Ok(())
    }
}
