//! The audio encoder: two convolutions and pre-norm Transformer blocks.
//! Mirrors `AudioEncoder` in openai/whisper `whisper/model.py` (c0d2f62).

use candle_core::Tensor;

use super::WhisperConfig;
use super::feed_forward::FeedForward;
use crate::Error;
use crate::nn::{Conv1d, LayerNorm, Mask, MultiHeadAttention, gelu};
use crate::params::{Init, Scope};

const EPS: f32 = 1e-5;

/// Features to hidden states, two frames to one position.
pub struct Encoder {
    conv1: Conv1d,
    conv2: Conv1d,
    positions: Tensor, // (T, D)
    blocks: Vec<EncoderBlock>,
    norm: LayerNorm,
}

struct EncoderBlock {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    feed_forward: FeedForward,
}

impl Encoder {
    /// Loads the weights below `scope` (`model.encoder`).
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, config: &WhisperConfig) -> Result<Self, Error> {
        let d = config.d_model;
        let blocks = (0..config.encoder_layers)
            .map(|i| {
                let scope = scope.sub("layers").sub(i);
                Ok(EncoderBlock {
                    attention_norm: LayerNorm::load(&scope.sub("self_attn_layer_norm"), d, EPS)?,
                    attention: MultiHeadAttention::load(
                        &scope.sub("self_attn"),
                        d,
                        config.encoder_attention_heads,
                    )?,
                    feed_forward: FeedForward::load(&scope, d, config.encoder_ffn_dim)?,
                })
            })
            .collect::<Result<_, Error>>()?;
        let positions = [config.max_source_positions, d];
        Ok(Self {
            conv1: Conv1d::load(&scope.sub("conv1"), config.num_mel_bins, d, 3, 1, 1)?,
            conv2: Conv1d::load(&scope.sub("conv2"), d, d, 3, 2, 1)?,
            positions: scope.sub("embed_positions").buffer("weight", &positions, Init::Sinusoids)?,
            blocks,
            norm: LayerNorm::load(&scope.sub("layer_norm"), d, EPS)?,
        })
    }

    /// Features (B, F, T) to hidden states (B, ceil(T/2), D). `keep_going` is asked before every block, so that
    /// abandoned work stops.
    ///
    /// # Errors
    /// More frames than the window holds; `keep_going` said no.
    pub fn forward(&self, mel: &Tensor, keep_going: &dyn Fn() -> bool) -> candle_core::Result<Tensor> {
        let x = gelu(&self.conv1.forward(mel)?)?; // (B, D, T)
        let x = gelu(&self.conv2.forward(&x)?)?.transpose(1, 2)?.contiguous()?; // (B, T/2, D)
        let mut x = x.broadcast_add(&self.positions.narrow(0, 0, x.dim(1)?)?)?;
        for block in &self.blocks {
            if !keep_going() {
                candle_core::bail!("cancelled");
            }
            x = block.forward(&x)?;
        }
        self.norm.forward(&x)
    }
}

impl EncoderBlock {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let h = self.attention_norm.forward(x)?;
        let x = (x + self.attention.forward(&h, &h, &Mask::NONE)?)?;
        self.feed_forward.forward(&x)
    }
}
