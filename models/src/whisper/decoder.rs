//! The text decoder: causal self-attention, cross-attention to the encoder, tied output.
//! Mirrors `TextDecoder` in openai/whisper `whisper/model.py` (c0d2f62).
//!
//! It runs in two ways over the same weights: `forward` over whole padded sequences (training), and `step` over
//! a ragged batch of rows that each bring their own cache (decoding).

use std::sync::Arc;

use candle_core::{Tensor, WithDType};

use super::WhisperConfig;
use super::feed_forward::feed_forward;
use crate::Error;
use crate::nn::{
    Embedding, FeedForward, KeySpan, KvCache, LayerNorm, Linear, Mask, MultiHeadAttention, Projections,
    checkpoint, product_into,
};
use crate::params::{Init, Scope};

const EPS: f32 = 1e-5;

/// Token ids and hidden states of the encoder to logits.
pub struct Decoder {
    embedding: Embedding,
    positions: Tensor, // (U, D)
    blocks: Vec<Arc<DecoderBlock>>,
    norm: LayerNorm,
    output: Linear,
    embedding_scale: f64,
    /// Whether training computes blocks again instead of keeping what they compute.
    pub(super) checkpointing: bool,
}

struct DecoderBlock {
    self_norm: LayerNorm,
    self_attention: MultiHeadAttention,
    cross_norm: LayerNorm,
    cross_attention: MultiHeadAttention,
    feed_forward: FeedForward,
}

/// Cross-attention keys and values of one window, one cache per block; shared by every row that reads it.
pub struct CrossCache {
    blocks: Vec<KvCache>,
}

/// Self-attention keys and values of one row, one cache per block.
pub struct RowCache {
    blocks: Vec<KvCache>,
}

impl RowCache {
    /// A copy that can go its own way.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn fork(&self) -> candle_core::Result<Self> {
        Ok(Self { blocks: self.blocks.iter().map(KvCache::fork).collect::<candle_core::Result<_>>()? })
    }

    /// Forgets all tokens but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        self.blocks.iter_mut().for_each(|cache| cache.truncate(n));
    }

    /// Tokens seen so far.
    pub fn n_positions(&self) -> usize {
        self.blocks.first().map_or(0, KvCache::n_positions)
    }
}

/// What one row brings to a step: the tokens that its cache has not seen yet.
pub struct StepRow<'a> {
    /// New tokens: the whole prompt at first, then one and those that are guessed to follow it.
    pub tokens: &'a [u32],
    /// The row's own state.
    pub cache: &'a mut RowCache,
    /// The window it listens to.
    pub cross: &'a CrossCache,
}

impl Decoder {
    /// Loads the weights below `scope` (`model.decoder`); `root` holds `proj_out` if it is not tied.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, root: &Scope<'_>, config: &WhisperConfig) -> Result<Self, Error> {
        let (d, heads) = (config.d_model, config.decoder_attention_heads);
        let blocks = (0..config.decoder_layers)
            .map(|i| {
                let scope = scope.sub("layers").sub(i);
                Ok(Arc::new(DecoderBlock {
                    self_norm: LayerNorm::load(&scope.sub("self_attn_layer_norm"), d, EPS)?,
                    self_attention: MultiHeadAttention::load(&scope.sub("self_attn"), d, heads, Projections::WHISPER)?,
                    cross_norm: LayerNorm::load(&scope.sub("encoder_attn_layer_norm"), d, EPS)?,
                    cross_attention: MultiHeadAttention::load(&scope.sub("encoder_attn"), d, heads, Projections::WHISPER)?,
                    feed_forward: feed_forward(&scope, d, config.decoder_ffn_dim)?,
                }))
            })
            .collect::<Result<_, Error>>()?;
        let embedding = Embedding::load(&scope.sub("embed_tokens"), config.vocab_size, d)?;
        let output = if config.tie_word_embeddings {
            embedding.tied()
        } else {
            Linear::load(&root.sub("proj_out"), d, config.vocab_size, false)?
        };
        Ok(Self {
            embedding,
            positions: scope.sub("embed_positions").get(
                "weight",
                &[config.max_target_positions, d],
                Init::Normal { std: 0.02 },
            )?,
            blocks,
            norm: LayerNorm::load(&scope.sub("layer_norm"), d, EPS)?,
            output,
            embedding_scale: if config.scale_embedding { (d as f64).sqrt() } else { 1.0 },
            checkpointing: false,
        })
    }

    /// Whole sequences: ids (B, U) of u32 and `encoded` (B, T, D) to hidden states (B, U, D). Differentiable;
    /// positions after a sequence's end must be masked in the loss.
    ///
    /// # Errors
    /// Sequences longer than the model's positions.
    pub fn forward(&self, ids: &Tensor, encoded: &Tensor) -> candle_core::Result<Tensor> {
        self.run(ids, encoded, &Mask::NONE)
    }

    /// [`Decoder::forward`] over hidden states of which `n_positions` of each row mean something.
    ///
    /// # Errors
    /// Sequences longer than the model's positions, lengths that do not fit.
    pub fn forward_padded(
        &self,
        ids: &Tensor,
        encoded: &Tensor,
        n_positions: &[usize],
    ) -> candle_core::Result<Tensor> {
        self.run(ids, encoded, &Mask { causal: false, key_lengths: Some(n_positions.to_vec()) })
    }

    fn run(&self, ids: &Tensor, encoded: &Tensor, cross: &Mask) -> candle_core::Result<Tensor> {
        let (b, u) = ids.dims2()?;
        let d = self.embedding.width()?;
        let tokens = self.embedding.forward(&ids.flatten_all()?)?.reshape((b, u, d))?;
        let positions = self.positions.narrow(0, 0, u)?;
        let mut x = (tokens * self.embedding_scale)?.broadcast_add(&positions)?;
        for block in &self.blocks {
            x = if self.checkpointing {
                let (block, cross) = (block.clone(), cross.clone());
                checkpoint(move |inputs| block.forward(&inputs[0], &inputs[1], &cross), &[&x, encoded])?
            } else {
                block.forward(&x, encoded, cross)?
            };
        }
        self.norm.forward(&x)
    }

    /// Hidden states (.., D) to logits (.., V).
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        self.output.forward(hidden)
    }

    /// The same as numbers, without gradients. Memory of `logits` is used again.
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn logits_into(&self, hidden: &Tensor, logits: &mut Vec<f32>) -> candle_core::Result<()> {
        product_into(&self.output, hidden, logits)
    }

    /// Where it computes.
    pub fn device(&self) -> &candle_core::Device {
        self.positions.device()
    }

    /// Keys and values of one window's hidden states (T, D), computed once for all its rows.
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn cross_cache(&self, encoded: &Tensor) -> candle_core::Result<CrossCache> {
        let cache = |block: &Arc<DecoderBlock>| block.cross_attention.cache(encoded);
        Ok(CrossCache { blocks: self.blocks.iter().map(cache).collect::<candle_core::Result<_>>()? })
    }

    /// An empty cache with room for `capacity` tokens.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn row_cache(&self, capacity: usize) -> candle_core::Result<RowCache> {
        let device = self.positions.device();
        let cache = |block: &Arc<DecoderBlock>| block.self_attention.empty_cache(capacity, device);
        Ok(RowCache { blocks: self.blocks.iter().map(cache).collect::<candle_core::Result<_>>()? })
    }

    /// One step of a ragged batch: each row's new tokens enter its cache. Returns the hidden states of all new
    /// tokens, (N, D), the first row's first. No gradients.
    ///
    /// # Errors
    /// Rows longer than their cache or the model's positions.
    pub fn step(&self, rows: &mut [StepRow<'_>]) -> candle_core::Result<Tensor> {
        self.step_watched(rows, &mut |_, _| Ok(()))
    }

    /// Raw scores (before softmax) of one row's tokens over its window for the given (block, head) pairs, each
    /// (U, T) row-major: what word timestamps are aligned by.
    ///
    /// # Errors
    /// A head that the model does not have.
    pub fn cross_scores(
        &self,
        tokens: &[u32],
        cross: &CrossCache,
        heads: &[(usize, usize)],
    ) -> candle_core::Result<Vec<Vec<f32>>> {
        let mut cache = self.row_cache(tokens.len())?;
        let mut scores: Vec<Vec<f32>> = vec![Vec::new(); heads.len()];
        let mut rows = [StepRow { tokens, cache: &mut cache, cross }];
        self.step_watched(&mut rows, &mut |i, query| {
            let (_, d) = query.dims2()?;
            let attention = &self.blocks[i].cross_attention;
            let width = d / attention.n_heads();
            let mut of_block = scores.iter_mut().zip(heads).filter(|(_, (block, _))| *block == i).peekable();
            if of_block.peek().is_none() {
                return Ok(());
            }
            let keys = cross.blocks[i].keys()?;
            for (scores, (_, head)) in of_block {
                let part = |x: &Tensor| x.narrow(1, head * width, width)?.contiguous();
                let products = (part(query)? * attention.scale())?.matmul(&part(&keys)?.t()?)?;
                *scores = products.flatten_all()?.to_vec1::<f32>()?;
            }
            Ok(())
        })?;
        Ok(scores)
    }

    /// `step` that shows `watch` the cross-attention queries (N, D) of every block.
    fn step_watched(
        &self,
        rows: &mut [StepRow<'_>],
        watch: &mut dyn FnMut(usize, &Tensor) -> candle_core::Result<()>,
    ) -> candle_core::Result<Tensor> {
        let device = self.positions.device();
        let ids: Vec<u32> = rows.iter().flat_map(|row| row.tokens.iter().copied()).collect();
        let places: Vec<u32> = rows
            .iter()
            .flat_map(|row| {
                let start = row.cache.n_positions();
                (start..start + row.tokens.len()).map(|place| place as u32)
            })
            .collect();
        let n_positions = self.positions.dim(0)?;
        if let Some(place) = places.iter().find(|place| **place as usize >= n_positions) {
            candle_core::bail!("position {place} is not among the decoder's {n_positions}")
        }
        let mut tokens = self.embedding.forward(&vector(ids, device)?)?;
        if self.embedding_scale != 1.0 {
            tokens = (tokens * self.embedding_scale)?;
        }
        let mut x = (tokens + self.positions.index_select(&vector(places, device)?, 0)?)?; // (N, D)
        for (i, block) in self.blocks.iter().enumerate() {
            let [query, keys, values] = block.self_attention.project(&block.self_norm, &x)?;
            let mut start = 0;
            for row in rows.iter_mut() {
                let n = row.tokens.len();
                row.cache.blocks[i].append(&keys.narrow(0, start, n)?, &values.narrow(0, start, n)?)?;
                start += n;
            }
            let spans: Vec<_> =
                rows.iter().map(|row| span(&row.cache.blocks[i], row.tokens.len(), true)).collect();
            x = block.self_attention.attend(&x, &query, &spans)?;

            let query = block.cross_attention.query(&block.cross_norm, &x)?;
            watch(i, &query)?;
            let spans: Vec<_> =
                rows.iter().map(|row| span(&row.cross.blocks[i], row.tokens.len(), false)).collect();
            x = block.cross_attention.attend(&x, &query, &spans)?;
            x = block.feed_forward.forward(&x)?;
        }
        self.norm.forward(&x)
    }
}

impl DecoderBlock {
    /// Whole sequences, (B, U, D) to (B, U, D).
    fn forward(&self, x: &Tensor, encoded: &Tensor, cross: &Mask) -> candle_core::Result<Tensor> {
        let x = self.self_attention.residual(&self.self_norm, x, &Mask::CAUSAL)?;
        let x = self.cross_attention.residual_cross(&self.cross_norm, &x, encoded, cross)?;
        self.feed_forward.forward(&x)
    }
}

fn span(cache: &KvCache, n_queries: usize, causal: bool) -> KeySpan<'_> {
    KeySpan { cache, n_queries, causal }
}

fn vector<T: WithDType>(values: Vec<T>, device: &candle_core::Device) -> candle_core::Result<Tensor> {
    let n = values.len();
    Tensor::from_vec(values, n, device)
}
