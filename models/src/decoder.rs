//! A Transformer decoder of text: causal self-attention and cross-attention to an encoder. What architectures differ in is in its
//! parts, which they load.
//!
//! It runs in two ways over the same weights: `forward` over whole padded sequences (training), and `step` over
//! a ragged batch of rows that each bring their own cache (decoding).

use std::sync::Arc;

use candle_core::{Tensor, WithDType};

use crate::nn::{
    Embedding, FeedForward, KeySpan, KvCache, LayerNorm, Linear, Mask, MultiHeadAttention, checkpoint,
    product_into,
};

/// Token ids and hidden states of the encoder to logits.
pub struct Decoder {
    pub(crate) embedding: Embedding,
    /// What is added to the embedding of the token at each position, (U, D).
    pub(crate) positions: Tensor,
    /// What embeddings are multiplied by before that.
    pub(crate) embedding_scale: f64,
    /// Over the sum of both.
    pub(crate) embedding_norm: Option<LayerNorm>,
    pub(crate) blocks: Vec<Arc<DecoderBlock>>,
    pub(crate) norm: LayerNorm,
    pub(crate) output: Linear,
    /// V.
    pub(crate) n_vocab: usize,
    /// Whether training computes blocks again instead of keeping what they compute.
    pub(crate) checkpointing: bool,
}

/// A block, each part with the norm before it.
pub(crate) struct DecoderBlock {
    pub self_norm: LayerNorm,
    pub self_attention: MultiHeadAttention,
    pub cross_norm: LayerNorm,
    pub cross_attention: MultiHeadAttention,
    pub feed_forward: FeedForward,
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
    /// Most tokens of a sequence.
    pub fn max_positions(&self) -> usize {
        self.positions.dims().first().copied().unwrap_or(0)
    }

    /// Token ids, V.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Blocks, and heads in each of their cross-attentions.
    pub fn n_blocks_and_heads(&self) -> (usize, usize) {
        let n_heads = self.blocks.first().map_or(0, |block| block.cross_attention.n_heads());
        (self.blocks.len(), n_heads)
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
        let mut x = self.normed(&(tokens * self.embedding_scale)?.broadcast_add(&positions)?)?;
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

    /// What enters the blocks.
    fn normed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.embedding_norm.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
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
        let n_positions = self.max_positions();
        if let Some(place) = places.iter().find(|place| **place as usize >= n_positions) {
            candle_core::bail!("position {place} is not among the decoder's {n_positions}")
        }
        let mut tokens = self.embedding.forward(&vector(ids, device)?)?;
        if self.embedding_scale != 1.0 {
            tokens = (tokens * self.embedding_scale)?;
        }
        let mut x = self.normed(&(tokens + self.positions.index_select(&vector(places, device)?, 0)?)?)?; // (N, D)
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
