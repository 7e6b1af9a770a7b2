//! The audio encoder: two convolutions and pre-norm Transformer blocks.
//! Mirrors `AudioEncoder` in openai/whisper `whisper/model.py` (c0d2f62).

use std::sync::Arc;

use candle_core::Tensor;

use super::WhisperConfig;
use crate::Error;
use crate::encoder_block::EncoderBlock;
use crate::nn::{Conv1d, LayerNorm, Mask, checkpoint, within};
use crate::params::{Init, Scope};

const EPS: f32 = 1e-5;

/// Features to hidden states, two frames to one position.
pub struct Encoder {
    conv1: Conv1d,
    conv2: Conv1d,
    positions: Tensor, // (T, D)
    blocks: Vec<Arc<EncoderBlock>>,
    norm: LayerNorm,
    /// Whether training computes blocks again instead of keeping what they compute.
    checkpointing: bool,
}

impl Encoder {
    /// Loads the weights below `scope` (`model.encoder`).
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, config: &WhisperConfig) -> Result<Self, Error> {
        let (d, heads, inner) = (config.d_model, config.encoder_attention_heads, config.encoder_ffn_dim);
        let block = |i| EncoderBlock::load(&scope.sub("layers").sub(i), d, heads, inner).map(Arc::new);
        let blocks = (0..config.encoder_layers).map(block).collect::<Result<_, _>>()?;
        let positions = [config.max_source_positions, d];
        Ok(Self {
            conv1: Conv1d::load(&scope.sub("conv1"), config.num_mel_bins, d, 3, 1, 1)?,
            conv2: Conv1d::load(&scope.sub("conv2"), d, d, 3, 2, 1)?,
            positions: scope.sub("embed_positions").buffer("weight", &positions, Init::Sinusoids)?,
            blocks,
            norm: LayerNorm::load(&scope.sub("layer_norm"), d, EPS)?,
            checkpointing: scope.checkpointing(),
        })
    }

    /// Features (B, F, T) to hidden states (B, ceil(T/2), D). `keep_going` is asked before every block, so that
    /// abandoned work stops.
    ///
    /// # Errors
    /// More frames than the window holds; `keep_going` said no.
    pub fn forward(&self, mel: &Tensor, keep_going: &dyn Fn() -> bool) -> candle_core::Result<Tensor> {
        self.run(mel, None, keep_going)
    }

    /// [`Encoder::forward`] of a batch of recordings with `n_frames` each, zeros after them: what comes out for each is what
    /// it gives alone, and rows of it beyond [`Encoder::n_positions`] mean nothing.
    ///
    /// # Errors
    /// More frames than the window holds, lengths that do not fit.
    pub fn forward_padded(&self, mel: &Tensor, n_frames: &[usize]) -> candle_core::Result<Tensor> {
        self.run(mel, Some(n_frames), &|| true)
    }

    /// Positions that come out of so many frames.
    pub fn n_positions(n_frames: usize) -> usize {
        n_frames.div_ceil(2)
    }

    fn run(
        &self,
        mel: &Tensor,
        n_frames: Option<&[usize]>,
        keep_going: &dyn Fn() -> bool,
    ) -> candle_core::Result<Tensor> {
        let mut x = self.conv1.forward_gelu(&mel.transpose(1, 2)?)?; // (B, T, D)
        let mut mask = Mask::NONE;
        if let Some(n_frames) = n_frames {
            // The second convolution looks one frame ahead, where a recording alone has zeros.
            let (b, _, t) = mel.dims3()?;
            if n_frames.len() != b || n_frames.iter().any(|n| *n > t) {
                candle_core::bail!("encoder: lengths {n_frames:?} for {b} rows of {t} frames")
            }
            x = x.broadcast_mul(&within(n_frames, t, mel.device())?)?;
            mask.key_lengths = Some(n_frames.iter().map(|n| Self::n_positions(*n)).collect());
        }
        let x = self.conv2.forward_gelu(&x)?; // (B, T/2, D)
        let mut x = x.broadcast_add(&self.positions.narrow(0, 0, x.dim(1)?)?)?;
        for block in &self.blocks {
            if !keep_going() {
                candle_core::bail!("cancelled");
            }
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
