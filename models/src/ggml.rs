//! Models for whisper.cpp: its `.bin` files (ggml-org/whisper.cpp, `models/convert-h5-to-ggml.py` and `src/whisper.cpp`,
//! `whisper_model_load`).
//!
//! whisper.cpp knows control tokens by their place, as in OpenAI's vocabularies, and finds out by the vocabulary's size which of them it
//! is. Another vocabulary would be misread without an error, so it is refused here.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use audio::LogMel;
use candle_core::{Device, Tensor};
use half::f16;

use crate::lora::is_factor;
use crate::special_tokens::SpecialTokens;
use crate::whisper::WhisperConfig;
use crate::{Bundle, Error, Tokenizer};

const MAGIC: u32 = 0x6767_6d6c;
/// Tokens of text in OpenAI's multilingual vocabularies, and in the English one.
const MULTILINGUAL_TEXT: usize = 50_257;
const ENGLISH_TEXT: usize = 50_256;
/// The vocabularies that whisper.cpp knows: English, multilingual, large-v3.
const VOCAB_SIZES: [usize; 3] = [51_864, 51_865, 51_866];
/// Read as f32 even where matrices are f16.
const ALWAYS_F32: [&str; 2] = ["encoder.positional_embedding", "decoder.positional_embedding"];

/// How parts of names are called there.
const NAMES: [(&str, &str); 16] = [
    ("self_attn.q_proj", "attn.query"),
    ("self_attn.k_proj", "attn.key"),
    ("self_attn.v_proj", "attn.value"),
    ("self_attn.out_proj", "attn.out"),
    ("self_attn_layer_norm", "attn_ln"),
    ("encoder_attn.q_proj", "cross_attn.query"),
    ("encoder_attn.k_proj", "cross_attn.key"),
    ("encoder_attn.v_proj", "cross_attn.value"),
    ("encoder_attn.out_proj", "cross_attn.out"),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("embed_positions.weight", "positional_embedding"),
    ("embed_tokens", "token_embedding"),
    ("layers", "blocks"),
];

/// Writes a Whisper as whisper.cpp reads it. Matrices are f16: its convolutions take nothing else.
///
/// # Errors
/// Vocabularies and shapes that whisper.cpp would misread, what the disk refuses.
pub fn write_ggml(bundle: &Bundle, path: &Path) -> Result<(), Error> {
    let config = bundle.architecture().require_whisper("a file for whisper.cpp")?;
    let (tokenizer, _, special) = bundle.description().vocabulary()?;
    check(config, &special, &bundle.description().source().path("config.json"))?;
    let refuse = |error: std::io::Error| Error::file(path, format!("cannot be written: {error}"));
    let mut file = BufWriter::new(File::create(path).map_err(refuse)?);
    let header = header(bundle, config)?;
    file.write_all(&header).map_err(refuse)?;
    file.write_all(&vocabulary(config, &tokenizer)).map_err(refuse)?;
    for (name, shape, _) in bundle.weights().tensors() {
        // The output projection is the embedding; what else a checkpoint holds, only training knows.
        if !name.starts_with("model.") || is_factor(name) {
            continue;
        }
        let tensor = bundle.weights().read(name, shape, &Device::Cpu)?;
        file.write_all(&record(&renamed(name), &tensor)?).map_err(refuse)?;
    }
    file.into_inner().map_err(|error| refuse(error.into_error()))?.sync_all().map_err(refuse)
}

fn check(config: &WhisperConfig, special: &SpecialTokens, path: &Path) -> Result<(), Error> {
    let n_text = if config.vocab_size == VOCAB_SIZES[0] { ENGLISH_TEXT } else { MULTILINGUAL_TEXT };
    if !VOCAB_SIZES.contains(&config.vocab_size) || config.eos_token_id as usize != n_text {
        let message = format!(
            "whisper.cpp knows OpenAI's vocabularies alone, of {}, {} and {} tokens; this one has {} with its end at {}",
            VOCAB_SIZES[0], VOCAB_SIZES[1], VOCAB_SIZES[2], config.vocab_size, config.eos_token_id
        );
        return Err(Error::key(path, "vocab_size", message));
    }
    // As it counts them there.
    let n_languages =
        config.vocab_size.saturating_sub(51_765 + usize::from(config.vocab_size > VOCAB_SIZES[0]));
    // A token that was added stands after the times, and makes all others be read one off.
    if special.timestamp_begin() != Some((n_text + n_languages + 8) as u32) {
        let message = "its control tokens are not where whisper.cpp looks for them; a language that was added is one too many";
        return Err(Error::key(path, "vocab_size", message));
    }
    if config.encoder_ffn_dim != 4 * config.d_model || config.decoder_ffn_dim != 4 * config.d_model {
        return Err(Error::key(
            path,
            "encoder_ffn_dim",
            "whisper.cpp takes feed-forward layers of four times the width",
        ));
    }
    if !config.tie_word_embeddings {
        return Err(Error::key(
            path,
            "tie_word_embeddings",
            "whisper.cpp has no output projection of its own",
        ));
    }
    Ok(())
}

fn header(bundle: &Bundle, config: &WhisperConfig) -> Result<Vec<u8>, Error> {
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    for n in [
        config.vocab_size,
        config.max_source_positions,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_layers,
        config.max_target_positions,
        config.d_model,
        config.decoder_attention_heads,
        config.decoder_layers,
        config.num_mel_bins,
        1, // f16
    ] {
        push(&mut bytes, n);
    }
    let features = LogMel::new(bundle.feature_spec())?;
    let filters = features.filters();
    push(&mut bytes, config.num_mel_bins);
    push(&mut bytes, filters.n_bins());
    for value in filters.dense() {
        bytes.extend((value as f32).to_le_bytes());
    }
    Ok(bytes)
}

/// Tokens of text by their bytes; whisper.cpp names the others itself.
fn vocabulary(config: &WhisperConfig, tokenizer: &Tokenizer) -> Vec<u8> {
    // Its end is one more there, in either vocabulary.
    let n_tokens = config.eos_token_id;
    let mut bytes = Vec::new();
    push(&mut bytes, n_tokens as usize);
    for id in 0..n_tokens {
        let token = tokenizer.token_bytes(id);
        push(&mut bytes, token.len());
        bytes.extend(token);
    }
    bytes
}

/// The name that OpenAI's checkpoints have.
fn renamed(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    // What norms the whole stack is called otherwise in its two halves.
    match name {
        "encoder.layer_norm.weight" => return "encoder.ln_post.weight".to_owned(),
        "encoder.layer_norm.bias" => return "encoder.ln_post.bias".to_owned(),
        "decoder.layer_norm.weight" => return "decoder.ln.weight".to_owned(),
        "decoder.layer_norm.bias" => return "decoder.ln.bias".to_owned(),
        _ => {}
    }
    NAMES.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}

/// A tensor: dimensions from the innermost out, name, numbers.
fn record(name: &str, tensor: &Tensor) -> Result<Vec<u8>, Error> {
    let mut dims = tensor.dims().to_vec();
    // A convolution's bias is a column there.
    if ["encoder.conv1.bias", "encoder.conv2.bias"].contains(&name) {
        dims.push(1);
    }
    let is_f16 = tensor.dims().len() > 1 && !ALWAYS_F32.contains(&name);
    let mut bytes = Vec::new();
    push(&mut bytes, dims.len());
    push(&mut bytes, name.len());
    push(&mut bytes, usize::from(is_f16));
    dims.iter().rev().for_each(|n| push(&mut bytes, *n));
    bytes.extend(name.as_bytes());
    for value in tensor.flatten_all()?.to_vec1::<f32>()? {
        match is_f16 {
            true if f16::from_f32(value).is_infinite() => {
                let message = format!("{value} is too large for 16 bits, and whisper.cpp takes no others");
                return Err(Error::option("weights", format!("{name}: {message}")));
            }
            true => bytes.extend(f16::from_f32(value).to_le_bytes()),
            false => bytes.extend(value.to_le_bytes()),
        }
    }
    Ok(bytes)
}

fn push(bytes: &mut Vec<u8>, n: usize) {
    bytes.extend((n as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_openais_checkpoints() {
        for (ours, theirs) in [
            ("model.encoder.conv1.weight", "encoder.conv1.weight"),
            ("model.encoder.embed_positions.weight", "encoder.positional_embedding"),
            ("model.encoder.layers.3.self_attn.q_proj.bias", "encoder.blocks.3.attn.query.bias"),
            ("model.encoder.layers.0.self_attn_layer_norm.weight", "encoder.blocks.0.attn_ln.weight"),
            ("model.encoder.layers.0.final_layer_norm.bias", "encoder.blocks.0.mlp_ln.bias"),
            ("model.encoder.layers.11.fc1.weight", "encoder.blocks.11.mlp.0.weight"),
            ("model.decoder.layers.1.encoder_attn.out_proj.weight", "decoder.blocks.1.cross_attn.out.weight"),
            (
                "model.decoder.layers.1.encoder_attn_layer_norm.weight",
                "decoder.blocks.1.cross_attn_ln.weight",
            ),
            ("model.decoder.layer_norm.weight", "decoder.ln.weight"),
            ("model.encoder.layer_norm.bias", "encoder.ln_post.bias"),
            ("model.decoder.embed_tokens.weight", "decoder.token_embedding.weight"),
        ] {
            assert_eq!(renamed(ours), theirs);
        }
    }

    #[test]
    fn a_tensor_is_written_from_the_innermost_dimension_out() -> Result<(), Error> {
        let tensor = Tensor::new(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::Cpu)?;
        // Positions stay f32.
        let name = ALWAYS_F32[0];
        let bytes = record(name, &tensor)?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        assert_eq!([0, 4, 8, 12, 16].map(number), [2, name.len() as u32, 0, 3, 2]);
        assert_eq!((&bytes[20..20 + name.len()], bytes.len()), (name.as_bytes(), 20 + name.len() + 24));
        // Matrices are f16, vectors are not; a convolution's bias is a column.
        assert_eq!(record("ab", &tensor)?.len(), 22 + 12);
        let bias = record("encoder.conv1.bias", &tensor.get(0)?)?;
        assert_eq!((bias[0], bias[8], bias[12], bias[16]), (2, 0, 1, 3));
        assert!(record("ab", &(tensor * 1e6)?).is_err());
        Ok(())
    }

    #[test]
    fn other_vocabularies_are_refused() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/whisper-80");
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = Bundle::open(&dir).expect("a bundle");
        let error = write_ggml(&bundle, &folder.path().join("x.bin")).expect_err("refused");
        assert!(error.to_string().contains("OpenAI's vocabularies"), "{error}");
    }
}
