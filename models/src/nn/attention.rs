//! Multi-head attention: dense over padded batches (encoder, training) and ragged over caches (decoding).

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};

use super::cache::Held;
use super::dense_attention::dense_attention;
use super::fused::{add, normed};
use super::storage::has_kernels;
use super::{KvCache, LayerNorm, Linear, Mask, rotary, softmax};
use crate::Error;
use crate::kernels::{AttentionRow, Precision, attend, zeros};
use crate::params::Scope;

/// Scaled dot-product attention with `n_heads` heads side by side in the model width.
pub struct MultiHeadAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    width: usize,
    n_heads: usize,
    scale: f64,
    precision: Precision,
}

/// Consecutive queries of one row, and the cache that they look at.
#[derive(Clone, Copy)]
pub struct KeySpan<'a> {
    /// Keys and values.
    pub cache: &'a KvCache,
    /// Queries that belong to this row.
    pub n_queries: usize,
    /// The last query sees the whole cache and each one before it one position less; otherwise all see all.
    pub causal: bool,
}

impl KeySpan<'_> {
    fn n_keys(&self, query: usize) -> usize {
        self.cache.n_positions() - if self.causal { self.n_queries - 1 - query } else { 0 }
    }
}

/// What architectures differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Projections {
    /// Name of the last projection.
    pub out: &'static str,
    /// Whether the projection of keys has a bias.
    pub key_bias: bool,
    /// Whether the others have.
    pub bias: bool,
}

impl Projections {
    /// Whisper's: a bias of all keys alike would change no score.
    pub const WHISPER: Self = Self { out: "out_proj", key_bias: false, bias: true };
}

impl MultiHeadAttention {
    /// Loads `q_proj`, `k_proj`, `v_proj` and the last projection.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(
        scope: &Scope<'_>,
        width: usize,
        n_heads: usize,
        projections: Projections,
    ) -> Result<Self, Error> {
        let Projections { out, key_bias, bias } = projections;
        let linear = |name: &str, bias| Linear::load(&scope.sub(name), width, width, bias);
        Ok(Self {
            query: linear("q_proj", bias)?,
            key: linear("k_proj", key_bias)?,
            value: linear("v_proj", bias)?,
            out: linear(out, bias)?,
            width,
            n_heads,
            scale: ((width / n_heads) as f64).powf(-0.5),
            // Its projections are frozen together.
            precision: scope.sub("q_proj").precision(),
        })
    }

    /// `x + attention(norm(x))` of x (B, U, D), each position over those that `mask` shows it. Differentiable.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn residual(&self, norm: &LayerNorm, x: &Tensor, mask: &Mask) -> candle_core::Result<Tensor> {
        let [query, key, value] = normed(norm, x, [&self.query, &self.key, &self.value])?;
        let mixed =
            dense_attention(&query, &key, &value, self.n_heads, mask, self.precision.for_activations())?;
        add(x, &self.out, &mixed)
    }

    /// The same where queries and keys are turned by the places of their positions, of which there are B U.
    ///
    /// # Errors
    /// Shapes that do not fit, another number of places.
    pub fn residual_rotary(
        &self,
        norm: &LayerNorm,
        x: &Tensor,
        mask: &Mask,
        places: &Arc<[u32]>,
    ) -> candle_core::Result<Tensor> {
        let [query, key, value] = self.project_rotary(norm, x, places)?;
        let mixed =
            dense_attention(&query, &key, &value, self.n_heads, mask, self.precision.for_activations())?;
        add(x, &self.out, &mixed)
    }

    /// `x + attention(norm(x))` of x (B, U, D) over the positions of `source` (B, T, D) that `mask` shows it. Differentiable.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn residual_cross(
        &self,
        norm: &LayerNorm,
        x: &Tensor,
        source: &Tensor,
        mask: &Mask,
    ) -> candle_core::Result<Tensor> {
        let [query] = normed(norm, x, [&self.query])?;
        let (key, value) = self.keys_values(source)?;
        let mixed =
            dense_attention(&query, &key, &value, self.n_heads, mask, self.precision.for_activations())?;
        add(x, &self.out, &mixed)
    }

    /// Queries, keys and values of `norm(x)`, heads side by side, each (.., D).
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn project(&self, norm: &LayerNorm, x: &Tensor) -> candle_core::Result<[Tensor; 3]> {
        normed(norm, x, [&self.query, &self.key, &self.value])
    }

    /// The same with queries and keys turned by the places of their positions.
    ///
    /// # Errors
    /// A last dimension other than D, another number of places than positions.
    pub fn project_rotary(
        &self,
        norm: &LayerNorm,
        x: &Tensor,
        places: &Arc<[u32]>,
    ) -> candle_core::Result<[Tensor; 3]> {
        let [query, key, value] = self.project(norm, x)?;
        Ok([rotary(&query, places, self.n_heads)?, rotary(&key, places, self.n_heads)?, value])
    }

    /// Queries of `norm(x)`, heads side by side: (.., D) to (.., D).
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn query(&self, norm: &LayerNorm, x: &Tensor) -> candle_core::Result<Tensor> {
        let [query] = normed(norm, x, [&self.query])?;
        Ok(query)
    }

    /// Keys and values of `x`, each (.., D).
    ///
    /// # Errors
    /// A last dimension other than D.
    fn keys_values(&self, x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        Ok((self.key.forward(x)?, self.value.forward(x)?))
    }

    /// Keys and values of `source` (T, D) for queries that are still to come.
    ///
    /// # Errors
    /// A last dimension other than D.
    pub fn cache(&self, source: &Tensor) -> candle_core::Result<KvCache> {
        let (keys, values) = self.keys_values(source)?;
        let (n, _) = keys.dims2()?;
        let mut cache = self.empty_cache(n, source.device())?;
        cache.append(&keys, &values)?;
        Ok(cache)
    }

    /// Room for the keys and values of `capacity` positions that are still to come, as are their queries.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn empty_cache(&self, capacity: usize, device: &Device) -> candle_core::Result<KvCache> {
        KvCache::new(capacity, self.width, self.n_heads, self.precision, device)
    }

    /// `x` and, added to it, what queries (N, D) of several rows, one span after the other, find in their own caches. No
    /// padding is computed and a row's result does not depend on its neighbours. Without gradients: decoding only.
    ///
    /// # Errors
    /// Spans that do not add up to N.
    pub fn attend(&self, x: &Tensor, query: &Tensor, spans: &[KeySpan<'_>]) -> candle_core::Result<Tensor> {
        let mixed = if has_kernels(query.device()) {
            let (n_heads, scale) = (self.n_heads, self.scale as f32);
            query.contiguous()?.apply_op1_no_bwd(&RaggedAttention { spans, n_heads, scale })?
        } else {
            attend_composed(&(query * self.scale)?, spans, self.n_heads)?
        };
        add(x, &self.out, &mixed)
    }

    /// Heads that the width is divided into.
    pub fn n_heads(&self) -> usize {
        self.n_heads
    }

    /// What products of queries with keys are multiplied by.
    pub fn scale(&self) -> f64 {
        self.scale
    }
}

struct RaggedAttention<'a> {
    spans: &'a [KeySpan<'a>],
    n_heads: usize,
    scale: f32,
}

impl CustomOp1 for RaggedAttention<'_> {
    fn name(&self) -> &'static str {
        "ragged-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, width) = layout.shape().dims2()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("ragged attention needs contiguous queries")
        };
        let queries = &storage.as_slice::<f32>()?[start..end];
        let mut rows = Vec::with_capacity(n);
        let mut query_rows = queries.chunks_exact(width);
        for span in self.spans {
            let Held::Packed(cache) = span.cache.held() else {
                candle_core::bail!("ragged attention on the CPU needs caches there")
            };
            if (cache.width(), cache.n_heads()) != (width, self.n_heads) {
                candle_core::bail!(
                    "ragged attention: a cache of {} heads in {} numbers for queries of {} in {width}",
                    cache.n_heads(),
                    cache.width(),
                    self.n_heads
                )
            }
            for i in 0..span.n_queries {
                let Some(query) = query_rows.next() else {
                    candle_core::bail!("ragged attention: the spans hold more than {n} queries")
                };
                rows.push(AttentionRow { query, cache, n_keys: span.n_keys(i) });
            }
        }
        if rows.len() != n {
            candle_core::bail!("ragged attention: the spans hold {} of {n} queries", rows.len())
        }
        let mut out = zeros(n * width);
        attend(&rows, self.n_heads, self.scale, &mut out);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

/// The same with plain tensor operations: the path on other devices, and the kernel's oracle.
fn attend_composed(query: &Tensor, spans: &[KeySpan<'_>], n_heads: usize) -> candle_core::Result<Tensor> {
    let (_, width) = query.dims2()?;
    let heads = |x: &Tensor| {
        let (n, _) = x.dims2()?;
        x.reshape((n, n_heads, width / n_heads))?.transpose(0, 1)?.contiguous() // (H, n, D/H)
    };
    let mut mixed = Vec::with_capacity(spans.len());
    let mut start = 0;
    for span in spans {
        let query = heads(&query.narrow(0, start, span.n_queries)?)?;
        let (keys, values) = (heads(&span.cache.keys()?)?, heads(&span.cache.values()?)?);
        let mut scores = query.matmul(&keys.t()?)?; // (H, U, T)
        if span.causal && span.n_queries > 1 {
            let n_keys = span.cache.n_positions();
            let hidden = |i: usize, t: usize| if t < span.n_keys(i) { 0f32 } else { f32::NEG_INFINITY };
            let mask: Vec<f32> =
                (0..span.n_queries).flat_map(|i| (0..n_keys).map(move |t| hidden(i, t))).collect();
            scores =
                scores.broadcast_add(&Tensor::from_vec(mask, (span.n_queries, n_keys), query.device())?)?;
        }
        let rows = softmax(&scores)?.matmul(&values)?; // (H, U, D/H)
        mixed.push(rows.transpose(0, 1)?.reshape((span.n_queries, width))?);
        start += span.n_queries;
    }
    Tensor::cat(&mixed, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(rows: usize, width: usize, phase: f32) -> candle_core::Result<Tensor> {
        let values: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.37 + phase).sin()).collect();
        Tensor::from_vec(values, (rows, width), &Device::Cpu)
    }

    fn far(a: &Tensor, b: &Tensor) -> candle_core::Result<f32> {
        (a - b)?.abs()?.max_all()?.to_scalar::<f32>()
    }

    fn filled(
        keys: &Tensor,
        values: &Tensor,
        n_heads: usize,
        precision: Precision,
    ) -> candle_core::Result<KvCache> {
        let (n, width) = keys.dims2()?;
        let mut cache = KvCache::new(n, width, n_heads, precision, &Device::Cpu)?;
        cache.append(keys, values)?;
        Ok(cache)
    }

    #[test]
    fn kernel_and_composed_forms_agree_and_rows_do_not_see_each_other() -> candle_core::Result<()> {
        let (width, n_heads) = (24, 2);
        let mut caches = Vec::new();
        for (n, phase) in [(5, 0.1), (1, 0.2), (300, 0.3)] {
            caches.push(filled(&waves(n, width, phase)?, &waves(n, width, phase + 7.0)?, 2, Precision::F32)?);
        }
        let spans: Vec<_> = caches
            .iter()
            .zip([(3, true), (1, true), (2, false)])
            .map(|(cache, (n_queries, causal))| KeySpan { cache, n_queries, causal })
            .collect();
        let query = waves(6, width, 0.5)?;
        let ragged = |query: &Tensor, spans: &[KeySpan<'_>]| {
            query.apply_op1_no_bwd(&RaggedAttention { spans, n_heads, scale: 0.5 })
        };
        let kernel = ragged(&query, &spans)?;
        let difference = far(&kernel, &attend_composed(&(&query * 0.5)?, &spans, n_heads)?)?;
        assert!(difference < 1e-6, "{difference}");
        let alone = ragged(&query.narrow(0, 4, 2)?.contiguous()?, &spans[2..])?;
        assert_eq!(alone.to_vec2::<f32>()?, kernel.narrow(0, 4, 2)?.to_vec2::<f32>()?);
        Ok(())
    }

    #[test]
    fn what_is_read_back_is_what_queries_see_however_it_was_appended() -> candle_core::Result<()> {
        // Heads narrower and wider than a column, and than a tile of dense attention.
        for (n, width, n_heads) in [(300, 24, 2), (75, 64, 1), (33, 192, 4), (40, 800, 2), (1, 3, 3)] {
            let [keys, values, query] =
                [(n, 0.1), (n, 7.1), (6, 0.5)].map(|(n, phase)| waves(n, width, phase));
            let (keys, values, query) = (keys?, values?, query?);
            for (precision, tolerance) in
                [(Precision::F32, 0.0), (Precision::Bf16, 0.002), (Precision::Int8, 0.004)]
            {
                let cache = filled(&keys, &values, n_heads, precision)?;
                for (ours, theirs) in [(cache.keys()?, &keys), (cache.values()?, &values)] {
                    let difference = far(&ours, theirs)?;
                    assert!(difference <= tolerance, "{precision}: {difference}");
                    assert!(n == 1 || (difference > 0.0) == (tolerance > 0.0), "{precision}: {difference}");
                }
                let of = |spans: &[KeySpan<'_>]| {
                    query.apply_op1_no_bwd(&RaggedAttention { spans, n_heads, scale: 0.05 })
                };
                let all = |cache| [KeySpan { cache, n_queries: 6, causal: n >= 6 }];
                let ours = of(&all(&cache))?;
                let difference = far(&ours, &attend_composed(&(&query * 0.05)?, &all(&cache), n_heads)?)?;
                assert!(difference < 1e-6, "{precision}: {difference}");

                let mut little_by_little = KvCache::new(n, width, n_heads, precision, &Device::Cpu)?;
                let mut start = 0;
                for step in [1, 1, 40, 3, 29, 64].into_iter().cycle() {
                    let step = step.min(n - start);
                    little_by_little
                        .append(&keys.narrow(0, start, step)?, &values.narrow(0, start, step)?)?;
                    start += step;
                    if start == n {
                        break;
                    }
                }
                let theirs = of(&all(&little_by_little))?;
                assert_eq!(ours.to_vec2::<f32>()?, theirs.to_vec2::<f32>()?, "{precision}");

                let alone = KeySpan { cache: &cache, n_queries: 1, causal: false };
                let beside = of(&[KeySpan { n_queries: 5, ..alone }, alone])?.narrow(0, 5, 1)?;
                let last = query.narrow(0, 5, 1)?.contiguous()?;
                let kernel = RaggedAttention { spans: &[alone], n_heads, scale: 0.05 };
                assert_eq!(last.apply_op1_no_bwd(&kernel)?.to_vec2::<f32>()?, beside.to_vec2::<f32>()?);
            }
        }
        Ok(())
    }

    #[test]
    fn numbers_that_are_none_stay_none() -> candle_core::Result<()> {
        let keys = waves(40, 8, 0.1)?;
        for place in [0, 39 * 8 + 7] {
            let mut values = keys.flatten_all()?.to_vec1::<f32>()?;
            values[place] = f32::NAN;
            let values = Tensor::from_vec(values, (40, 8), &Device::Cpu)?;
            for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
                for (keys, values) in [(&keys, &values), (&values, &keys)] {
                    let cache = filled(keys, values, 1, precision)?;
                    let spans = [KeySpan { cache: &cache, n_queries: 1, causal: false }];
                    let attention = RaggedAttention { spans: &spans, n_heads: 1, scale: 1.0 };
                    let out = waves(1, 8, 0.0)?.apply_op1_no_bwd(&attention)?.flatten_all()?;
                    assert!(out.to_vec1::<f32>()?.iter().any(|x| x.is_nan()), "{precision}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_cache_refuses_what_does_not_fit() -> candle_core::Result<()> {
        assert!(KvCache::new(4, 10, 3, Precision::F32, &Device::Cpu).is_err());
        let mut cache = KvCache::new(4, 2, 1, Precision::F32, &Device::Cpu)?;
        for (keys, values) in [((5, 2), (5, 2)), ((1, 3), (1, 3)), ((1, 2), (2, 2))] {
            assert!(cache.append(&waves(keys.0, keys.1, 0.0)?, &waves(values.0, values.1, 0.0)?).is_err());
        }
        assert_eq!(cache.n_positions(), 0);
        Ok(())
    }

    #[test]
    fn a_fork_keeps_its_own_positions() -> candle_core::Result<()> {
        let mut cache = KvCache::new(4, 2, 1, Precision::F32, &Device::Cpu)?;
        cache.append(&waves(2, 2, 0.0)?, &waves(2, 2, 1.0)?)?;
        let mut fork = cache.fork()?;
        fork.append(&waves(1, 2, 5.0)?, &waves(1, 2, 6.0)?)?;
        assert_eq!((cache.n_positions(), fork.n_positions()), (2, 3));
        assert_eq!(fork.keys()?.narrow(0, 0, 2)?.to_vec2::<f32>()?, cache.keys()?.to_vec2::<f32>()?);
        Ok(())
    }
}
