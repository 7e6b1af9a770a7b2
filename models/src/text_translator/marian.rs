//! Marian, as the models of Helsinki-NLP are published (transformers `models/marian`).

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::marian::{Config, MTModel};
use serde::Deserialize;
use serde_json::Value;

use super::targets::Targets;
use super::transformers::{MAX_LAYERS, Network, Parts, damaged, in_range};
use super::vocabulary::Vocabulary;
use crate::Error;
use crate::bundle::{BundleSource, parse, read_json};

const SHARED: &str = "model.shared.weight";
/// Others under which the same matrix may be the one that was kept.
const SHARED_TOO: [&str; 3] =
    ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"];
const BIAS: &str = "final_logits_bias";

/// What transformers calls it.
#[derive(Deserialize)]
struct MarianConfig {
    vocab_size: usize,
    decoder_vocab_size: Option<usize>,
    max_position_embeddings: usize,
    encoder_layers: usize,
    encoder_ffn_dim: usize,
    encoder_attention_heads: usize,
    decoder_layers: usize,
    decoder_ffn_dim: usize,
    decoder_attention_heads: usize,
    activation_function: Activation,
    d_model: usize,
    #[serde(default)]
    scale_embedding: bool,
    pad_token_id: u32,
    #[serde(default = "yes")]
    share_encoder_decoder_embeddings: bool,
}

fn yes() -> bool {
    true
}

/// Reads a Marian.
///
/// # Errors
/// Files that are missing, damaged or contradictory, and vocabularies of two languages that do not share their embeddings.
pub(super) fn load(
    source: &BundleSource,
    config: &Value,
    mut tensors: BTreeMap<String, Tensor>,
    device: &Device,
) -> Result<Parts, Error> {
    let path = source.path("config.json");
    let config: MarianConfig = parse(config.clone(), &path)?;
    config.check(source)?;
    if !tensors.contains_key(SHARED)
        && let Some(same) = SHARED_TOO.into_iter().find_map(|name| tensors.get(name).cloned())
    {
        tensors.insert(SHARED.to_owned(), same);
    }
    // Else its size is nobody's but the file's.
    let is_its_size = |shared: &Tensor| shared.dims().first() == Some(&config.vocab_size);
    if tensors.get(SHARED).is_some_and(is_its_size) && !tensors.contains_key(BIAS) {
        let none = Tensor::zeros((1, config.vocab_size), DType::F32, device)?;
        tensors.insert(BIAS.to_owned(), none);
    }
    let (n_vocab, n_positions) = (config.vocab_size, config.max_position_embeddings);
    let pad = config.pad_token_id;
    let builder = VarBuilder::from_tensors(tensors.into_iter().collect(), DType::F32, device);
    let model = MTModel::new(&config.into_candle(), builder).map_err(|error| damaged(source, &error))?;
    let vocabulary = Vocabulary::of_marian(source)?;
    let names = vocabulary.names();
    let tokens = names.iter().map(|(name, id)| (name.as_str(), *id));
    let targets = match Targets::of_tokens(tokens, (">>", "<<")) {
        Some(tokens) => tokens,
        None => target(source)?.map_or(Targets::Unknown, Targets::One),
    };
    Ok(Parts {
        network: Network::Marian(Box::new(model)),
        vocabulary,
        targets,
        n_vocab,
        n_positions: Some(n_positions),
        // It starts with this one and would go on with it.
        never: Some(pad),
    })
}

/// The one language that its tokenizer says it writes; some say a family.
fn target(source: &BundleSource) -> Result<Option<String>, Error> {
    let name = "tokenizer_config.json";
    if !source.has(name) {
        return Ok(None);
    }
    let tokenizer = read_json(source, name)?;
    let is_code = |code: &&str| (2..=3).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase());
    Ok(tokenizer["target_lang"].as_str().filter(is_code).map(str::to_owned))
}

impl MarianConfig {
    fn check(&self, source: &BundleSource) -> Result<(), Error> {
        let refuse = |key: &str, message: String| Err(Error::key(&source.path("config.json"), key, message));
        if !self.share_encoder_decoder_embeddings {
            let message = "false: two vocabularies are not known; one that both sides share is";
            return refuse("share_encoder_decoder_embeddings", message.to_owned());
        }
        if let Some(other) = self.decoder_vocab_size.filter(|n| *n != self.vocab_size) {
            let message = format!("is {other}, and vocab_size {}: both sides share one", self.vocab_size);
            return refuse("decoder_vocab_size", message);
        }
        in_range(source, "encoder_layers", self.encoder_layers, (1, MAX_LAYERS))?;
        in_range(source, "decoder_layers", self.decoder_layers, (1, MAX_LAYERS))?;
        in_range(source, "max_position_embeddings", self.max_position_embeddings, (2, 1 << 14))?;
        in_range(source, "d_model", self.d_model, (2, 1 << 14))?;
        if !self.d_model.is_multiple_of(2) {
            return refuse("d_model", format!("{} is odd; sines and cosines have a half each", self.d_model));
        }
        for (key, n_heads) in [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ] {
            in_range(source, key, n_heads, (1, self.d_model))?;
            if !self.d_model.is_multiple_of(n_heads) {
                return refuse(key, format!("{n_heads} do not divide d_model, {}", self.d_model));
            }
        }
        Ok(())
    }

    fn into_candle(self) -> Config {
        Config {
            vocab_size: self.vocab_size,
            decoder_vocab_size: None,
            max_position_embeddings: self.max_position_embeddings,
            encoder_layers: self.encoder_layers,
            encoder_ffn_dim: self.encoder_ffn_dim,
            encoder_attention_heads: self.encoder_attention_heads,
            decoder_layers: self.decoder_layers,
            decoder_ffn_dim: self.decoder_ffn_dim,
            decoder_attention_heads: self.decoder_attention_heads,
            activation_function: self.activation_function,
            d_model: self.d_model,
            scale_embedding: self.scale_embedding,
            share_encoder_decoder_embeddings: true,
            use_cache: true,
            is_encoder_decoder: true,
            // Read by whoever generates, and not by the network.
            decoder_start_token_id: self.pad_token_id,
            pad_token_id: self.pad_token_id,
            eos_token_id: self.pad_token_id,
            forced_eos_token_id: self.pad_token_id,
        }
    }
}
