//! An encoder of texts beside one of speech: what it makes of a transcript is what the other should make of the recording
//! (Le et al., arXiv 2301.11716, section 3), and what a decoder learns to translate before it has heard anything.
//!
//! A bundle that has one says so in `config.json` (`text_encoder_config`) and keeps its weights below `text_encoder`; readers that know
//! none leave both out.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::encoder_block::EncoderBlock;
use crate::nn::{Embedding, LayerNorm, Mask, checkpoint};
use crate::params::{Params, sinusoids};

/// Where its weights are.
pub const TEXT_ENCODER: &str = "text_encoder";
/// What `config.json` calls its dimensions.
pub(crate) const TEXT_ENCODER_CONFIG: &str = "text_encoder_config";

/// Its tensor that has a row for each token.
pub(crate) const TEXT_ROWS: &str = "text_encoder.embed_tokens.weight";

const EPS: f32 = 1e-5;
/// A dimension above this is a forged or broken file.
const MAX_DIMENSION: usize = 1 << 20;
/// So are more positions: each takes memory.
const MAX_POSITIONS: usize = 1 << 14;

/// Dimensions of an encoder of texts. It is as wide as that of speech.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextEncoderConfig {
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads in each block.
    pub num_attention_heads: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside feed-forward layers.
    pub intermediate_size: usize,
    /// What it reads: ids below this, those of the tokenizer, or of `phonemes` and after them one that ends a text.
    pub vocab_size: usize,
    /// Most of them in a text, its end included.
    pub max_position_embeddings: usize,
    /// What it reads in the place of the tokenizer's tokens, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phonemes: Vec<String>,
}

impl TextEncoderConfig {
    /// Refuses what cannot be loaded beside an encoder of speech of this width and with so many tokens, naming `path` and the key.
    ///
    /// # Errors
    /// Zero or absurd dimensions, heads that do not divide the width, another width or vocabulary.
    pub(crate) fn check(&self, width: usize, n_tokens: usize, path: &Path) -> Result<(), Error> {
        let refuse = |key: &str, message: String| {
            Err(Error::key(path, format!("{TEXT_ENCODER_CONFIG}.{key}"), message))
        };
        for (key, value, most) in [
            ("num_hidden_layers", self.num_hidden_layers, MAX_DIMENSION),
            ("num_attention_heads", self.num_attention_heads, MAX_DIMENSION),
            ("intermediate_size", self.intermediate_size, MAX_DIMENSION),
            ("max_position_embeddings", self.max_position_embeddings, MAX_POSITIONS),
        ] {
            if !(1..=most).contains(&value) {
                return refuse(key, format!("{value} is not between 1 and {most}"));
            }
        }
        let Self { hidden_size, num_attention_heads: heads, vocab_size, .. } = *self;
        if hidden_size != width {
            return refuse(
                "hidden_size",
                format!("{hidden_size} is not the {width} of the encoder of speech"),
            );
        }
        if !hidden_size.is_multiple_of(heads) {
            return refuse("num_attention_heads", format!("{heads} do not divide a width of {hidden_size}"));
        }
        let n_known = if self.phonemes.is_empty() { n_tokens } else { self.phonemes.len() + 1 };
        if vocab_size != n_known {
            return refuse("vocab_size", format!("{vocab_size} is not the {n_known} that there are"));
        }
        Ok(())
    }

    /// What ends a text of phonemes; texts of tokens end as those that a decoder writes.
    pub fn phoneme_end(&self) -> Option<u32> {
        (!self.phonemes.is_empty()).then_some(self.phonemes.len() as u32)
    }
}

/// Writes into a `config.json` how many tokens there are, where an encoder of texts reads tokens.
pub(crate) fn set_text_vocab(config: &mut Value, n_vocab: usize) {
    if let Some(Value::Object(text_encoder)) = config.get_mut(TEXT_ENCODER_CONFIG)
        && !text_encoder.contains_key("phonemes")
    {
        text_encoder.insert("vocab_size".to_owned(), n_vocab.into());
    }
}

/// Texts to hidden states, a position for each token.
pub struct TextEncoder {
    embedding: Embedding,
    /// What embeddings are multiplied by: next to positions they would be too small to be told apart.
    scale: f64,
    positions: Tensor, // (U, D)
    blocks: Vec<Arc<EncoderBlock>>,
    norm: LayerNorm,
    /// Whether training computes blocks again instead of keeping what they compute.
    checkpointing: bool,
}

impl TextEncoder {
    /// Builds it from `params`.
    ///
    /// # Errors
    /// Missing tensors and shapes other than `config` asks for.
    pub fn load(params: &Params, config: &TextEncoderConfig) -> Result<Self, Error> {
        let scope = params.root().sub(TEXT_ENCODER);
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let block = |i| {
            let scope = scope.sub("layers").sub(i);
            EncoderBlock::load(&scope, width, config.num_attention_heads, inner).map(Arc::new)
        };
        let n_positions = config.max_position_embeddings;
        Ok(Self {
            embedding: Embedding::load(&scope.sub("embed_tokens"), config.vocab_size, width)?,
            scale: (width as f64).sqrt(),
            positions: Tensor::from_vec(sinusoids(n_positions, width), (n_positions, width), scope.device())?,
            blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_, _>>()?,
            norm: LayerNorm::load(&scope.sub("layer_norm"), width, EPS)?,
            checkpointing: scope.checkpointing(),
        })
    }

    /// Texts of any lengths to hidden states (B, U, D); those behind a text's end mean nothing, and what comes out for each is what it
    /// gives alone. Differentiable.
    ///
    /// # Errors
    /// A text that is longer than the positions, ids that are not known.
    pub fn forward(&self, texts: &[Vec<u32>]) -> candle_core::Result<Tensor> {
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let (b, u) = (texts.len(), lengths.iter().copied().max().unwrap_or(0));
        let (n_positions, d) = self.positions.dims2()?;
        if u > n_positions {
            candle_core::bail!(
                "a text of {u} tokens is longer than the text encoder's {n_positions} positions"
            )
        }
        let mut ids = vec![0u32; b * u];
        for (row, text) in ids.chunks_mut(u.max(1)).zip(texts) {
            row[..text.len()].copy_from_slice(text);
        }
        let ids = Tensor::from_vec(ids, b * u, self.positions.device())?;
        let tokens = (self.embedding.forward(&ids)?.reshape((b, u, d))? * self.scale)?;
        let mut x = tokens.broadcast_add(&self.positions.narrow(0, 0, u)?)?;
        let mask = Mask { causal: false, key_lengths: Some(lengths) };
        for block in &self.blocks {
            x = if self.checkpointing {
                let (block, mask) = (block.clone(), mask.clone());
                checkpoint(move |inputs| block.forward(&inputs[0], &mask), &[&x])?
            } else {
                block.forward(&x, &mask)?
            };
        }
        self.norm.forward(&x)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::Device;

    use super::*;
    use crate::bundle::BundleSource;
    use crate::nn::backward;
    use crate::nn::test_support::assert_close;
    use crate::weights::Weights;

    type Failure = Box<dyn std::error::Error + Send + Sync>;

    /// `tests/oracle/text_encoder.py`.
    struct Oracle {
        config: TextEncoderConfig,
        texts: Vec<Vec<u32>>,
        expected: HashMap<String, Tensor>,
        folder: tempfile::TempDir,
    }

    impl Oracle {
        fn read() -> Result<Self, Failure> {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/text-encoder.safetensors");
            let expected = candle_core::safetensors::load(path, &Device::Cpu)?;
            let (ids, lengths) = (expected["ids"].to_vec2::<i64>()?, expected["lengths"].to_vec1::<i64>()?);
            let text = |(ids, n): (&Vec<i64>, &i64)| ids[..*n as usize].iter().map(|id| *id as u32).collect();
            let config = TextEncoderConfig {
                num_hidden_layers: 2,
                num_attention_heads: 2,
                hidden_size: 8,
                intermediate_size: 32,
                vocab_size: 11,
                max_position_embeddings: 9,
                phonemes: Vec::new(),
            };
            let folder = tempfile::tempdir()?;
            std::fs::copy(path, folder.path().join("model.safetensors"))?;
            Ok(Self { config, texts: ids.iter().zip(&lengths).map(text).collect(), expected, folder })
        }

        fn params(&self) -> Result<Params, Failure> {
            let weights = Weights::from_source(&BundleSource::Dir(self.folder.path().to_owned()))?;
            Ok(Params::trainable(weights, &Device::Cpu))
        }
    }

    #[test]
    fn states_and_gradients_are_torchs() -> Result<(), Failure> {
        let oracle = Oracle::read()?;
        for checkpointing in [false, true] {
            let params = oracle.params()?.with_checkpointing(checkpointing);
            let encoder = TextEncoder::load(&params, &oracle.config)?;
            let hidden = encoder.forward(&oracle.texts)?;
            for (row, text) in oracle.texts.iter().enumerate() {
                let part = |tensor: &Tensor| tensor.get(row)?.narrow(0, 0, text.len());
                assert_close(&part(&hidden)?, &part(&oracle.expected["hidden"])?, 2e-5)?;
            }
            let gradients = backward(&(hidden * &oracle.expected["direction"])?.sum_all()?)?;
            let vars = params.vars();
            assert_eq!(vars.len(), oracle.expected.len() / 2 - 2);
            for (name, var) in vars {
                let gradient = gradients.get(&var).ok_or_else(|| format!("{name} has no gradient"))?;
                assert_close(gradient, &oracle.expected[&format!("gradient.{name}")], 2e-4)
                    .map_err(|error| format!("{name}: {error}"))?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_text_among_others_is_what_it_is_alone() -> Result<(), Failure> {
        let oracle = Oracle::read()?;
        let params = oracle.params()?;
        TextEncoder::load(&params, &oracle.config)?;
        let encoder = TextEncoder::load(&params.detached(), &oracle.config)?;
        let together = encoder.forward(&oracle.texts)?;
        for (row, text) in oracle.texts.iter().enumerate() {
            let alone = encoder.forward(std::slice::from_ref(text))?.get(0)?;
            let among = together.get(row)?.narrow(0, 0, text.len())?;
            assert_eq!(alone.to_vec2::<f32>()?, among.to_vec2::<f32>()?);
        }
        assert!(encoder.forward(&[vec![1; 10]]).is_err() && encoder.forward(&[vec![11]]).is_err());
        Ok(())
    }

    #[test]
    fn what_does_not_fit_the_model_is_named() -> Result<(), Failure> {
        let config = Oracle::read()?.config;
        let check = |config: &TextEncoderConfig| config.check(8, 11, Path::new("config.json"));
        check(&config)?;
        let with = |phonemes: &[&str], vocab_size| TextEncoderConfig {
            phonemes: phonemes.iter().map(|&phoneme| phoneme.to_owned()).collect(),
            vocab_size,
            ..config.clone()
        };
        check(&with(&["a", "b"], 3))?;
        for (key, broken) in [
            ("hidden_size", TextEncoderConfig { hidden_size: 16, ..config.clone() }),
            ("num_attention_heads", TextEncoderConfig { num_attention_heads: 3, ..config.clone() }),
            ("num_hidden_layers", TextEncoderConfig { num_hidden_layers: 0, ..config.clone() }),
            (
                "max_position_embeddings",
                TextEncoderConfig { max_position_embeddings: 1 << 20, ..config.clone() },
            ),
            ("vocab_size", TextEncoderConfig { vocab_size: 12, ..config.clone() }),
            ("vocab_size", with(&["a", "b"], 2)),
        ] {
            let message = check(&broken).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(&format!("text_encoder_config.{key}")), "{key}: {message}");
        }
        Ok(())
    }
}
