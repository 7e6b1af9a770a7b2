//! Translators that transformers saved. The networks are candle-transformers', greedy search and what may not be said are transformers'
//! (`generation/utils.py`, `logits_process.py`).

use candle_core::{Device, Tensor};
use candle_transformers::models::marian::MTModel;
use serde_json::Value;

use super::generation::Generation;
use super::sentences::{parts, sentences};
use super::t5::T5;
use super::targets::{Target, Targets};
use super::vocabulary::Vocabulary;
use super::{marian, t5};
use crate::bundle::BundleSource;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use crate::{Error, TRANSLATED_TO};

/// Tokens that a sentence may have and that its translation may have, where the model does not say otherwise.
const MAX_TOKENS: usize = 512;

/// More than any that was published.
pub(super) const MAX_LAYERS: usize = 256;

/// A Marian, or a T5 such as MADLAD-400. Immutable; threads share it.
pub(super) struct Transformers {
    network: Network,
    pub(super) vocabulary: Vocabulary,
    pub(super) targets: Targets,
    generation: Generation,
    pub(super) max_source_tokens: usize,
    device: Device,
}

/// Weights, and where a text is being translated what its decoder keeps. A copy shares the weights.
#[derive(Clone)]
pub(super) enum Network {
    Marian(Box<MTModel>),
    T5(Box<T5>),
}

/// What a file says a translator is, checked.
pub(super) struct Parts {
    pub(super) network: Network,
    pub(super) vocabulary: Vocabulary,
    pub(super) targets: Targets,
    pub(super) n_vocab: usize,
    /// Positions that the network has for a text, if it counts them.
    pub(super) n_positions: Option<usize>,
    /// Never written, whatever the files forbid.
    pub(super) never: Option<u32>,
}

impl Transformers {
    /// Reads a Marian, or a T5 where `is_t5`, whose `config.json` is `config`.
    ///
    /// # Errors
    /// Missing, damaged or contradictory files, by file and key.
    pub(super) fn load(
        source: &BundleSource,
        config: &Value,
        is_t5: bool,
        device: &Device,
    ) -> Result<Self, Error> {
        let path = source.path("config.json");
        let tensors = Weights::from_source(source)?.read_all(device)?;
        let parts = match is_t5 {
            true => t5::load(source, config, tensors, device)?,
            false => marian::load(source, config, tensors, device)?,
        };
        let Parts { network, vocabulary, targets, n_vocab, n_positions, never } = parts;
        let most = n_positions.map_or(MAX_TOKENS, |n| n.min(MAX_TOKENS));
        let generation = Generation::read(source, config, (n_vocab, most), never)?;
        if let Some(id) = vocabulary.last_id().filter(|id| *id as usize >= n_vocab) {
            let message = format!("is {n_vocab}, but the vocabulary has the token {id}");
            return Err(Error::key(&path, "vocab_size", message));
        }
        Ok(Self { network, vocabulary, targets, generation, max_source_tokens: most, device: device.clone() })
    }

    /// Codes of the languages that it translates into, where it says so; empty where only its name does.
    pub(super) fn languages(&self) -> Vec<&str> {
        self.targets.codes()
    }

    /// Refuses a language that it does not translate into.
    ///
    /// # Errors
    /// The option `to_language`, and what is possible instead.
    pub(super) fn check(&self, to_language: Option<&str>) -> Result<(), Error> {
        self.targets.of(to_language).map(|_| ())
    }

    /// Translates a text, a sentence at a time; without a language into the only one, else into English. `keep_going` is asked
    /// before every token.
    ///
    /// # Errors
    /// A language that it does not translate into, [`Error::Cancelled`] when `keep_going` says no, scores that are not finite.
    pub(super) fn translate(
        &self,
        text: &str,
        to_language: Option<&str>,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<String, Error> {
        let target = self.targets.of(to_language)?;
        let mut written: Vec<String> = Vec::new();
        for sentence in sentences(text) {
            for source in parts(sentence, self.max_source_tokens, &|text| self.ids(text, &target))? {
                let ids = self.write(&source, keep_going)?;
                written.push(self.vocabulary.decode(&ids)?.trim().to_owned());
            }
        }
        written.retain(|text| !text.is_empty());
        let code = to_language.or_else(|| self.targets.only()).unwrap_or(TRANSLATED_TO);
        Ok(written.join(if Tokenizer::is_unspaced(code) { "" } else { " " }))
    }

    /// What the network reads of a sentence: the language, the tokens of the text, and what ends it.
    ///
    /// # Errors
    /// A text that its vocabulary cannot spell.
    pub(super) fn ids(&self, sentence: &str, target: &Target<'_>) -> Result<Vec<u32>, Error> {
        let mut ids = match target {
            Target::Unsaid => self.vocabulary.encode(sentence)?,
            Target::Said(prefix) => self.vocabulary.encode(&format!("{prefix}{sentence}"))?,
            Target::Token { id, name } => self.vocabulary.encode_after(*id, name, sentence)?,
        };
        ids.extend(self.generation.end());
        Ok(ids)
    }

    /// The most probable next token, one after the other, without the token that starts a text and with the one that ends it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `keep_going` says no, scores that are not finite, tokens that the network does not have.
    pub(super) fn write(&self, source: &[u32], keep_going: &dyn Fn() -> bool) -> Result<Vec<u32>, Error> {
        if !keep_going() {
            return Err(Error::Cancelled);
        }
        // What a decoder keeps is its own; the weights are shared.
        let mut network = self.network.clone();
        // One word that is longer than all positions has nowhere to be broken.
        let source = &source[..source.len().min(self.max_source_tokens)];
        let encoded = network.encode(&Tensor::new(source, &self.device)?.unsqueeze(0)?)?;
        let mut tokens = vec![self.generation.start];
        while tokens.len() <= self.generation.max_new_tokens {
            if !keep_going() {
                return Err(Error::Cancelled);
            }
            let past = tokens.len() - 1;
            let last = Tensor::new(&tokens[past..], &self.device)?.unsqueeze(0)?;
            let mut scores = network.step(&last, &encoded, past)?.flatten_all()?.to_vec1::<f32>()?;
            let next = self.generation.next(&tokens, &mut scores)?;
            tokens.push(next);
            if self.generation.ends(next) {
                break;
            }
        }
        tokens.remove(0);
        Ok(tokens)
    }
}

impl Network {
    /// Hidden states (1, T, D) of ids (1, T).
    fn encode(&mut self, ids: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Marian(model) => {
                // Its encoder keeps what it read, as if it were a decoder.
                model.reset_kv_cache();
                model.encoder().forward(ids, 0)
            }
            Self::T5(model) => model.encode(ids),
        }
    }

    /// Scores (V) of what follows the id (1, 1), before which there were `past`.
    fn step(&mut self, id: &Tensor, encoded: &Tensor, past: usize) -> candle_core::Result<Tensor> {
        match self {
            Self::Marian(model) => model.decode(id, encoded, past),
            Self::T5(model) => model.step(id, encoded),
        }
    }
}

/// What is wrong with a network's tensors, in candle's words.
pub(super) fn damaged(source: &BundleSource, error: &candle_core::Error) -> Error {
    Error::file(&source.path("model.safetensors"), error)
}

/// A number that config.json has to have.
pub(super) fn in_range(
    source: &BundleSource,
    key: &str,
    value: usize,
    (least, most): (usize, usize),
) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let message = format!("{value} is not between {least} and {most}");
    Err(Error::key(&source.path("config.json"), key, message))
}

/// `null` where a key is not there.
pub(super) fn first_of<'a>(own: &'a Value, other: &'a Value, key: &str) -> &'a Value {
    if own[key].is_null() { &other[key] } else { &own[key] }
}
