//! T5, as MADLAD-400 and the first T5s are published (transformers `models/t5`).

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::t5::{Config, T5EncoderModel, T5ForConditionalGeneration};
use serde_json::Value;

use super::targets::Targets;
use super::transformers::{MAX_LAYERS, Network, Parts, damaged, in_range};
use super::vocabulary::Vocabulary;
use crate::Error;
use crate::bundle::{BundleSource, parse};

const SHARED: &str = "shared.weight";
/// Others under which the same matrix may be the one that was kept.
const SHARED_TOO: [&str; 2] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
const HEAD: &str = "lm_head.weight";
const DECODER_BIAS: &str = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";

/// Both halves. candle's decoder counts positions as if it saw what is to come, with half of its buckets; transformers' does not.
/// Of twice as many buckets candle takes the half that there are, by transformers' rule: so the decoder is built for twice as many, whose
/// second half nothing reads.
#[derive(Clone)]
pub(super) struct T5 {
    encoder: T5EncoderModel,
    decoder: T5ForConditionalGeneration,
}

impl T5 {
    /// Hidden states (1, T, D) of ids (1, T).
    pub fn encode(&mut self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.decoder.clear_kv_cache();
        self.encoder.forward(ids)
    }

    /// Scores (1, V) of what follows the id (1, 1).
    pub fn step(&mut self, id: &Tensor, encoded: &Tensor) -> candle_core::Result<Tensor> {
        self.decoder.decode(id, encoded)
    }

    fn new(
        config: &Config,
        mut tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> candle_core::Result<Self> {
        if !tensors.contains_key(SHARED)
            && let Some(same) = SHARED_TOO.into_iter().find_map(|name| tensors.get(name).cloned())
        {
            tensors.insert(SHARED.to_owned(), same);
        }
        // Newer files say of themselves that both are tied whatever they hold.
        let tied = !tensors.contains_key(HEAD);
        let builder = |tensors: &BTreeMap<String, Tensor>| {
            let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone()));
            VarBuilder::from_tensors(tensors.collect(), DType::F32, device)
        };
        let encoder = T5EncoderModel::load(builder(&tensors), config)?;
        if let Some(bias) = tensors.get_mut(DECODER_BIAS) {
            *bias = Tensor::cat(&[&*bias, &bias.zeros_like()?], 0)?;
        }
        let config = Config {
            // Its own encoder has nothing to do.
            num_layers: 0,
            num_decoder_layers: Some(config.num_decoder_layers.unwrap_or(config.num_layers)),
            relative_attention_num_buckets: 2 * config.relative_attention_num_buckets,
            tie_word_embeddings: tied,
            use_cache: true,
            ..config.clone()
        };
        let decoder = T5ForConditionalGeneration::load(builder(&tensors), &config)?;
        Ok(Self { encoder, decoder })
    }
}

/// Reads a T5 that translates.
///
/// # Errors
/// Files that are missing, damaged or contradictory, and a T5 that nothing tells how to translate.
pub(super) fn load(
    source: &BundleSource,
    json: &Value,
    tensors: BTreeMap<String, Tensor>,
    device: &Device,
) -> Result<Parts, Error> {
    let path = source.path("config.json");
    let config: Config = parse(json.clone(), &path)?;
    check(source, &config, !json["feed_forward_proj"].is_null())?;
    let vocabulary = Vocabulary::whole(source)?;
    let names = vocabulary.names();
    let tokens = names.iter().map(|(name, id)| (name.as_str(), *id));
    let targets = match Targets::of_tokens(tokens, ("<2", ">")) {
        Some(tokens) => tokens,
        None => prefixes(json).ok_or_else(|| {
            let message = "names no translation, and the vocabulary has no token such as <2ps>: nothing says how this T5 is asked for one";
            Error::key(&path, "task_specific_params", message)
        })?,
    };
    let model = T5::new(&config, tensors, device).map_err(|error| damaged(source, &error))?;
    Ok(Parts {
        network: Network::T5(Box::new(model)),
        vocabulary,
        targets,
        n_vocab: config.vocab_size,
        n_positions: None,
        never: None,
    })
}

/// What is written before a text, by the language that it asks for: of `translation_en_to_de`, German.
fn prefixes(config: &Value) -> Option<Targets> {
    let tasks = config["task_specific_params"].as_object()?;
    let prefixes = tasks.iter().filter_map(|(task, settings)| {
        let (_, code) = task.strip_prefix("translation_")?.split_once("_to_")?;
        Some((code.to_owned(), settings["prefix"].as_str()?.to_owned()))
    });
    Some(prefixes.collect()).filter(|prefixes: &BTreeMap<_, _>| !prefixes.is_empty()).map(Targets::Prefixes)
}

fn check(source: &BundleSource, config: &Config, names_activation: bool) -> Result<(), Error> {
    let refuse = |key: &str, message: String| Err(Error::key(&source.path("config.json"), key, message));
    if !config.is_encoder_decoder {
        return refuse("is_encoder_decoder", "false: a translator has both".to_owned());
    }
    let (proj, buckets) = (&config.feed_forward_proj, config.relative_attention_num_buckets);
    // candle has no other, whatever it is asked for; the first T5s name none and mean it.
    if names_activation && !proj.gated && !matches!(proj.activation, Activation::Relu) {
        return refuse("feed_forward_proj", "only relu, gated-gelu and gated-silu are known".to_owned());
    }
    in_range(source, "relative_attention_num_buckets", buckets, (4, 1 << 12))?;
    if !buckets.is_multiple_of(4) {
        return refuse("relative_attention_num_buckets", format!("{buckets} cannot be halved twice"));
    }
    in_range(
        source,
        "relative_attention_max_distance",
        config.relative_attention_max_distance,
        (buckets / 2 + 1, 1 << 20),
    )?;
    in_range(source, "num_layers", config.num_layers, (1, MAX_LAYERS))?;
    let n_decoder_layers = config.num_decoder_layers.unwrap_or(config.num_layers);
    in_range(source, "num_decoder_layers", n_decoder_layers, (1, MAX_LAYERS))?;
    in_range(source, "num_heads", config.num_heads, (1, 1 << 12))?;
    in_range(source, "d_kv", config.d_kv, (1, 1 << 14))
}
