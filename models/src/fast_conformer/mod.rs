//! FastConformer (Rekesh et al., arXiv 2305.05084): an encoder that hears eight feature frames as one position, with relative
//! positions in its attention and a convolution in each block.

mod block;
mod config;
mod subsampling;

pub use config::FastConformerConfig;

use std::sync::Arc;

use candle_core::Tensor;

use self::block::Block;
use self::subsampling::Subsampling;
use crate::Error;
use crate::nn::{RelativeEncoding, checkpoint};
use crate::params::Scope;

/// Features to hidden states.
pub struct Encoder {
    config: FastConformerConfig,
    subsampling: Subsampling,
    encoding: Arc<RelativeEncoding>,
    blocks: Vec<Arc<Block>>,
    /// Whether training computes blocks again instead of keeping what they compute.
    checkpointing: bool,
}

impl Encoder {
    /// Loads the weights below `scope` (`encoder`).
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, config: FastConformerConfig) -> Result<Self, Error> {
        let blocks = (0..config.num_hidden_layers)
            .map(|i| Ok(Arc::new(Block::load(&scope.sub("layers").sub(i), &config)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            subsampling: Subsampling::load(&scope.sub("subsampling"), &config)?,
            encoding: Arc::new(RelativeEncoding::new(config.hidden_size)),
            blocks,
            checkpointing: scope.checkpointing(),
            config,
        })
    }

    /// Its dimensions.
    pub fn config(&self) -> &FastConformerConfig {
        &self.config
    }

    /// Features (B, F, T) to hidden states (B, T', D), T' being [`FastConformerConfig::n_positions`]. `keep_going` is asked before
    /// every block, so that abandoned work stops.
    ///
    /// # Errors
    /// More positions than the configuration allows, no frames; `keep_going` said no.
    pub fn forward(&self, mel: &Tensor, keep_going: &dyn Fn() -> bool) -> candle_core::Result<Tensor> {
        self.run(mel, None, keep_going)
    }

    /// [`Encoder::forward`] of a batch of recordings with `n_frames` each, zeros after them: what comes out for each is what
    /// it gives alone, and rows of it beyond its positions mean nothing.
    ///
    /// # Errors
    /// As [`Encoder::forward`]; lengths that do not fit.
    pub fn forward_padded(&self, mel: &Tensor, n_frames: &[usize]) -> candle_core::Result<Tensor> {
        self.run(mel, Some(n_frames), &|| true)
    }

    fn run(
        &self,
        mel: &Tensor,
        n_frames: Option<&[usize]>,
        keep_going: &dyn Fn() -> bool,
    ) -> candle_core::Result<Tensor> {
        let (b, _, t) = mel.dims3()?;
        if let Some(n_frames) = n_frames
            && (n_frames.len() != b || n_frames.iter().any(|n| *n > t))
        {
            candle_core::bail!("encoder: lengths {n_frames:?} for {b} rows of {t} frames")
        }
        let (n, limit) = (self.config.n_positions(t), self.config.max_position_embeddings);
        if n > limit {
            candle_core::bail!("encoder: {n} positions are more than {limit}")
        }
        let mut x = self.subsampling.forward(mel, n_frames)?; // (B, T', D)
        if self.config.scale_input {
            x = (x * (self.config.hidden_size as f64).sqrt())?;
        }
        let lengths: Option<Vec<usize>> =
            n_frames.map(|n| n.iter().map(|n| self.config.n_positions(*n)).collect());
        for block in &self.blocks {
            if !keep_going() {
                candle_core::bail!("cancelled");
            }
            x = if self.checkpointing {
                let (block, encoding, lengths) = (block.clone(), self.encoding.clone(), lengths.clone());
                checkpoint(move |x| block.forward(&x[0], &encoding, lengths.as_deref()), &[&x])?
            } else {
                block.forward(&x, &self.encoding, lengths.as_deref())?
            };
        }
        Ok(x)
    }

    /// Lets running statistics follow the batches of an update, or forget them where it was skipped: what training calls after each.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn follow(&self, is_kept: bool) -> candle_core::Result<()> {
        self.blocks.iter().try_for_each(|block| block.follow(is_kept))
    }
}
