//! The files that describe a FastConformer model, as transformers has them, whoever made it.

use serde::Serialize;
use serde_json::{Value, json};

use super::new::merge;
use crate::Error;
use crate::canary::CanaryConfig;
use crate::fast_conformer::FastConformerConfig;
use crate::parakeet::ParakeetCtcConfig;

/// Files by name.
pub(crate) type Files = [(&'static str, Value); 4];

/// Tokens that stand for something.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    /// End of text.
    pub end: &'a str,
    /// What fills up rows of a batch, and what CTC says where it hears nothing.
    pub pad: &'a str,
    /// What no token stands for.
    pub unknown: &'a str,
}

/// All but weights and tokenizer of a Canary whose transcripts start with the token `begin`.
///
/// # Errors
/// None that a caller can cause.
pub(crate) fn canary_files(
    config: &CanaryConfig,
    begin: u32,
    beam_size: usize,
    names: Names<'_>,
) -> Result<Files, Error> {
    let decoder = &config.decoder_config;
    let (n_vocab, n_positions) = (decoder.vocab_size, decoder.max_position_embeddings);
    let (start, end, pad) = (config.decoder_start_token_id, config.eos_token_id, config.pad_token_id);
    let mut keys = value(config)?;
    keys["encoder_config"]["model_type"] = json!("parakeet_encoder");
    keys["decoder_config"]["model_type"] = json!("canary_decoder");
    merge(
        &mut keys,
        json!({
            "model_type": "canary", "architectures": ["CanaryForConditionalGeneration"], "vocab_size": n_vocab,
            "is_encoder_decoder": true, "tie_word_embeddings": true, "bos_token_id": begin,
        }),
    );
    let generation = json!({
        "bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad, "decoder_start_token_id": start,
        "max_length": n_positions, "num_beams": beam_size,
    });
    let tokenizer = tokenizer_config("PreTrainedTokenizerFast", n_positions, names);
    Ok(files(keys, generation, &config.encoder_config, tokenizer))
}

/// All but weights and tokenizer of a CTC model that writes so many tokens at most.
///
/// # Errors
/// None that a caller can cause.
pub(crate) fn ctc_files(
    config: &ParakeetCtcConfig,
    beam_size: usize,
    max_tokens: usize,
    names: Names<'_>,
) -> Result<Files, Error> {
    let mut keys = value(config)?;
    keys["encoder_config"]["model_type"] = json!("parakeet_encoder");
    merge(&mut keys, json!({"model_type": "parakeet_ctc", "architectures": ["ParakeetForCTC"]}));
    let generation = json!({"pad_token_id": config.pad_token_id, "num_beams": beam_size});
    // It joins runs of equal tokens, as CTC has to.
    let tokenizer = tokenizer_config("ParakeetTokenizer", max_tokens, names);
    Ok(files(keys, generation, &config.encoder_config, tokenizer))
}

/// `tokenizer_config.json` of a tokenizer of transformers' `class`.
pub(super) fn tokenizer_config(class: &str, max_tokens: usize, names: Names<'_>) -> Value {
    json!({
        "tokenizer_class": class, "eos_token": names.end, "pad_token": names.pad, "unk_token": names.unknown,
        "model_max_length": max_tokens, "clean_up_tokenization_spaces": false,
    })
}

fn files(config: Value, generation: Value, encoder: &FastConformerConfig, tokenizer: Value) -> Files {
    let spec = encoder.feature_spec();
    let preprocessor = json!({
        "feature_extractor_type": "ParakeetFeatureExtractor", "feature_size": spec.n_mels,
        "sampling_rate": spec.sample_rate, "hop_length": spec.hop_samples, "n_fft": spec.n_fft,
        "win_length": spec.window_samples, "preemphasis": 0.97, "padding_value": 0.0, "return_attention_mask": true,
    });
    [
        ("config.json", config),
        ("generation_config.json", generation),
        ("preprocessor_config.json", preprocessor),
        ("tokenizer_config.json", tokenizer),
    ]
}

fn value(config: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(config).map_err(|error| Error::Tokenizer(format!("config.json: {error}")))
}
