//! The causal Transformer: a voice prompt, a text, and what has been said so far, in one sequence.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{FlowLmConfig, places, rows, zeros};
use crate::encoder_block::feed_forward;
use crate::nn::{
    FeedForward, KeySpan, KvCache, LayerNorm, Linear, Mask, MultiHeadAttention, Projections, checkpoint,
};
use crate::params::{Init, Params, Scope};
use crate::{Error, TextEncoder};

const EPS: f32 = 1e-5;

/// Blocks over sequences of states, and what makes states of texts and patches.
pub struct Backbone {
    text_encoder: TextEncoder,
    /// A patch as it is heard, of a prompt or said before.
    input: Linear,
    /// A symbol as what is to be said.
    symbol: Linear,
    /// What stands where nothing has been said yet.
    begin: Tensor, // (1, D)
    /// What tells voice, text and speech apart.
    segments: Tensor, // (3, D)
    blocks: Vec<Arc<CausalBlock>>,
    norm: LayerNorm,
    checkpointing: bool,
}

/// A pre-norm block that sees what is before it, by rotary positions.
struct CausalBlock {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    feed_forward: FeedForward,
}

/// A sequence to learn from.
pub struct Sequence<'a> {
    /// Symbols of the text, both edges included.
    pub text: &'a [u32],
    /// Patches of the voice prompt; none is no voice.
    pub n_prompt: usize,
    /// Of each patch that is said, the place in the text of the symbol that its middle says.
    pub pointers: &'a [u32],
}

impl CausalBlock {
    fn load(scope: &Scope<'_>, config: &FlowLmConfig) -> Result<Self, Error> {
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        Ok(Self {
            attention_norm: LayerNorm::load(&scope.sub("self_attn_layer_norm"), width, EPS)?,
            attention: MultiHeadAttention::load(&scope.sub("self_attn"), width, heads, Projections::WHISPER)?,
            feed_forward: feed_forward(scope, width, config.intermediate_size)?,
        })
    }

    /// Whole sequences, (B, L, D) to (B, L, D).
    fn forward(&self, x: &Tensor, places: &Arc<[u32]>) -> candle_core::Result<Tensor> {
        let x = self.attention.residual_rotary(&self.attention_norm, x, &Mask::CAUSAL, places)?;
        self.feed_forward.forward(&x)
    }
}

/// Keys and values of one sequence, one cache per block.
#[derive(Default)]
pub struct SequenceCache {
    blocks: Vec<KvCache>,
}

impl SequenceCache {
    /// Positions so far.
    pub fn n_positions(&self) -> usize {
        self.blocks.first().map_or(0, KvCache::n_positions)
    }
}

/// What one sequence brings to a step: new positions, (n, D) as [`Backbone::prefix`] and [`Backbone::speech`] give them.
pub struct SequenceStep<'a> {
    /// New positions of this sequence.
    pub n_new: usize,
    /// Its own state.
    pub cache: &'a mut SequenceCache,
}

impl Backbone {
    pub(super) fn load(params: &Params, config: &FlowLmConfig) -> Result<Self, Error> {
        let (scope, width) = (params.root(), config.hidden_size);
        let block = |i| CausalBlock::load(&scope.sub("layers").sub(i), config).map(Arc::new);
        let small = Init::Normal { std: 0.02 };
        Ok(Self {
            text_encoder: TextEncoder::load(params, &config.text_encoder())?,
            input: Linear::load(&scope.sub("input"), config.patch_size(), width, true)?,
            symbol: Linear::load(&scope.sub("symbol"), width, width, true)?,
            begin: scope.get("begin", &[1, width], small)?,
            segments: scope.get("segments", &[3, width], small)?,
            blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_, _>>()?,
            norm: LayerNorm::load(&scope.sub("norm"), width, EPS)?,
            checkpointing: scope.checkpointing(),
        })
    }

    /// States (N, D) of all patches of some sequences, one after the other, from which each patch is said. `prompts` and `said` are
    /// standardised patches (N, patch) of all sequences, in the same order; of `said`, each sequence's first is the first one that is said, and
    /// its state knows nothing of it: a patch is seen by those after it. Differentiable.
    ///
    /// # Errors
    /// Numbers of patches that do not fit, texts that are too long, places behind a text.
    pub fn states(
        &self,
        sequences: &[Sequence<'_>],
        prompts: Option<&Tensor>,
        said: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let texts: Vec<Vec<u32>> = sequences.iter().map(|sequence| sequence.text.to_vec()).collect();
        let encoded = self.text_encoder.forward(&texts)?; // (B, U, D)
        let (b, u, d) = encoded.dims3()?;
        let encoded = encoded.reshape((b * u, d))?;
        let n_said = said.dim(0)?;
        let counted: usize = sequences.iter().map(|sequence| sequence.pointers.len()).sum();
        if counted != n_said {
            candle_core::bail!("{counted} places in texts for {n_said} patches")
        }
        let n_prompts = prompts.map_or(Ok(0), |prompts| prompts.dim(0))?;
        let counted: usize = sequences.iter().map(|sequence| sequence.n_prompt).sum();
        if counted != n_prompts {
            candle_core::bail!("{n_prompts} patches of prompts, and sequences say {counted}")
        }

        // What is heard so far, and what is to be said.
        let heard = Tensor::cat(&[&self.begin, &self.input.forward(said)?], 0)?;
        let (mut before, mut pointed) = (Vec::with_capacity(n_said), Vec::with_capacity(n_said));
        for (row, sequence) in sequences.iter().enumerate() {
            for (i, pointer) in sequence.pointers.iter().enumerate() {
                if *pointer as usize >= sequence.text.len() {
                    candle_core::bail!("place {pointer} is behind a text of {} symbols", sequence.text.len())
                }
                before.push(if i == 0 { 0 } else { before.len() as u32 });
                pointed.push((row * u) as u32 + pointer);
            }
        }
        let symbols = self.symbol.forward(&rows(&encoded, &pointed)?)?;
        let speech = self.of_segment(2, &(rows(&heard, &before)? + symbols)?)?;
        let text = self.of_segment(1, &encoded)?;
        let nothing = zeros(1, d, said.device())?;
        let mut parts = vec![nothing, text, speech];
        if let Some(prompts) = prompts {
            parts.push(self.of_segment(0, &self.input.forward(prompts)?)?);
        }
        let all = Tensor::cat(&parts, 0)?;

        // Each sequence from the left, nothing behind it.
        let lengths = sequences.iter().map(|s| s.n_prompt + s.text.len() + s.pointers.len());
        let longest = lengths.max().unwrap_or(0);
        let (first_text, first_speech) = (1, (1 + b * u) as u32);
        let mut ids = vec![0u32; b * longest];
        let mut ends = Vec::with_capacity(n_said);
        let (mut n_speech, mut n_prompt) = (0u32, 0u32);
        for (row, sequence) in sequences.iter().enumerate() {
            let prompt = (0..sequence.n_prompt as u32).map(|i| first_speech + n_said as u32 + n_prompt + i);
            let text = (0..sequence.text.len() as u32).map(|i| first_text + (row * u) as u32 + i);
            let speech = (0..sequence.pointers.len() as u32).map(|i| first_speech + n_speech + i);
            let n_before = sequence.n_prompt + sequence.text.len();
            let ids = &mut ids[row * longest..(row + 1) * longest];
            ids.iter_mut().zip(prompt.chain(text).chain(speech)).for_each(|(id, of)| *id = of);
            ends.extend((0..sequence.pointers.len()).map(|i| (row * longest + n_before + i) as u32));
            n_speech += sequence.pointers.len() as u32;
            n_prompt += sequence.n_prompt as u32;
        }
        let mut x = rows(&all, &ids)?.reshape((b, longest, d))?;
        let places = places(b, longest);
        for block in &self.blocks {
            x = if self.checkpointing {
                let (block, places) = (block.clone(), places.clone());
                checkpoint(move |inputs| block.forward(&inputs[0], &places), &[&x])?
            } else {
                block.forward(&x, &places)?
            };
        }
        self.norm.forward(&rows(&x.reshape((b * longest, d))?, &ends)?)
    }

    /// Hidden states (U, D) of a text, both edges included, alone.
    ///
    /// # Errors
    /// A text that is too long, symbols that are not known.
    pub fn text(&self, text: &[u32]) -> candle_core::Result<Tensor> {
        self.text_encoder.forward(&[text.to_vec()])?.squeeze(0)
    }

    /// What a sequence begins with, (P + U, D): standardised patches (P, patch) of a prompt, if there is one, and a text's states (U, D).
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn prefix(&self, prompt: Option<&Tensor>, text: &Tensor) -> candle_core::Result<Tensor> {
        let text = self.of_segment(1, text)?;
        match prompt {
            Some(prompt) => Tensor::cat(&[self.of_segment(0, &self.input.forward(prompt)?)?, text], 0),
            None => Ok(text),
        }
    }

    /// The positions of patches that are to be said, (N, D): the standardised patch before each, (N, patch), which counts for nothing where
    /// `is_first`, and the state (N, D) of the symbol that the middle of each says.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn speech(
        &self,
        before: &Tensor,
        is_first: &[bool],
        symbols: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let heard = Tensor::cat(&[&self.begin, &self.input.forward(before)?], 0)?;
        let ids: Vec<u32> =
            (1u32..).zip(is_first).map(|(row, is_first)| if *is_first { 0 } else { row }).collect();
        self.of_segment(2, &(rows(&heard, &ids)? + self.symbol.forward(symbols)?)?)
    }

    /// One step of several sequences: their new positions (N, D), the first sequence's first, enter the caches. Gives the states (N, D) of all of
    /// them. A sequence's states do not depend on its neighbours. No gradients.
    ///
    /// # Errors
    /// Sequences that are longer than their caches, positions that do not add up to N.
    pub fn step(&self, x: &Tensor, sequences: &mut [SequenceStep<'_>]) -> candle_core::Result<Tensor> {
        let new = |sequence: &SequenceStep<'_>| {
            let start = sequence.cache.n_positions() as u32;
            start..start + sequence.n_new as u32
        };
        let places: Arc<[u32]> = sequences.iter().flat_map(new).collect();
        let mut x = x.clone();
        for (i, block) in self.blocks.iter().enumerate() {
            let [query, keys, values] = block.attention.project_rotary(&block.attention_norm, &x, &places)?;
            let mut start = 0;
            for sequence in sequences.iter_mut() {
                let n = sequence.n_new;
                sequence.cache.blocks[i].append(&keys.narrow(0, start, n)?, &values.narrow(0, start, n)?)?;
                start += n;
            }
            let spans: Vec<_> = sequences
                .iter()
                .map(|sequence| KeySpan {
                    cache: &sequence.cache.blocks[i],
                    n_queries: sequence.n_new,
                    causal: true,
                })
                .collect();
            x = block.attention.attend(&x, &query, &spans)?;
            x = block.feed_forward.forward(&x)?;
        }
        self.norm.forward(&x)
    }

    /// An empty cache with room for `capacity` positions.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn cache(&self, capacity: usize, device: &Device) -> candle_core::Result<SequenceCache> {
        let cache = |block: &Arc<CausalBlock>| block.attention.empty_cache(capacity, device);
        Ok(SequenceCache { blocks: self.blocks.iter().map(cache).collect::<candle_core::Result<_>>()? })
    }

    fn of_segment(&self, segment: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        x.broadcast_add(&self.segments.narrow(0, segment, 1)?)
    }
}
