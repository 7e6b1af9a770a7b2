//! Attention of whole sequences, with gradients.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, D, Layout, Shape, Tensor};

use super::softmax;
use super::storage::{floats, on_cpu, tensor, with_floats};
use crate::kernels::{
    AttentionPass, AttentionShape, Precision, attention, attention_backward, attention_bf16, zeros,
};

/// Which keys a query sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    /// Those up to its own position alone.
    pub causal: bool,
    /// As many as there are in each row of the batch; the others are padding. `None`: all.
    pub key_lengths: Option<Vec<usize>>,
}

impl Mask {
    /// Every query sees every key.
    pub const NONE: Self = Self { causal: false, key_lengths: None };

    /// Queries see themselves and what is before them.
    pub const CAUSAL: Self = Self { causal: true, key_lengths: None };
}

/// Queries (B, U, D) over keys and values (B, T, D), heads side by side in D: mixed values (B, U, D). Scores are divided by
/// the square root of a head's width. Differentiable. bf16 is used only where nothing is differentiated and the mask is not
/// causal. A query without keys gives zeros.
///
/// # Errors
/// Shapes that do not fit, more keys than T.
pub(super) fn dense_attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    n_heads: usize,
    mask: &Mask,
    precision: Precision,
) -> candle_core::Result<Tensor> {
    let (b, _, width) = queries.dims3()?;
    let (key_rows, n_keys, key_width) = keys.dims3()?;
    if n_heads == 0 || !width.is_multiple_of(n_heads) {
        candle_core::bail!("attention: {n_heads} heads do not divide a width of {width}")
    }
    if (key_rows, key_width) != (b, width) || values.dims() != keys.dims() {
        candle_core::bail!("attention: {queries:?} cannot look at keys {keys:?} and values {values:?}")
    }
    if let Some(lengths) = &mask.key_lengths
        && (lengths.len() != b || lengths.iter().any(|n| *n > n_keys))
    {
        candle_core::bail!("attention: lengths {lengths:?} for {b} rows of {n_keys} keys")
    }
    let tensors = [queries, keys, values];
    let has_kernel = on_cpu(&tensors) && width / n_heads <= AttentionShape::MAX_HEAD;
    if has_kernel {
        let is_tracked = tensors.iter().any(|x| x.track_op());
        let is_rounded = precision == Precision::Bf16 && !mask.causal && !is_tracked;
        let fused = Fused { n_heads, mask: mask.clone(), is_rounded, log_sums: OnceLock::new() };
        queries.contiguous()?.apply_op3(&keys.contiguous()?, &values.contiguous()?, fused)
    } else {
        composed(queries, keys, values, n_heads, mask)
    }
}

/// With plain tensor operations: the path on other devices, and the kernel's oracle.
fn composed(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    n_heads: usize,
    mask: &Mask,
) -> candle_core::Result<Tensor> {
    let (b, u, width) = queries.dims3()?;
    let (_, t, _) = keys.dims3()?;
    let head = width / n_heads;
    let heads = |x: &Tensor| {
        let n = x.dim(1)?;
        x.reshape((b, n, n_heads, head))?.transpose(1, 2)?.contiguous() // (B, H, n, D/H)
    };
    let keys = heads(keys)?;
    // Not the scores, of which there are many more and all are kept for the backward pass.
    let queries = (queries * (head as f64).powf(-0.5))?;
    let scores = heads(&queries)?.matmul(&keys.t()?)?; // (B, H, U, T)
    let hide = |is_hidden: bool| if is_hidden { f32::NEG_INFINITY } else { 0.0 };
    let add = |scores: Tensor, hidden: Vec<f32>, shape: (usize, usize, usize, usize)| {
        let hidden = Tensor::from_vec(hidden, shape, scores.device())?.to_dtype(scores.dtype())?;
        scores.broadcast_add(&hidden)
    };
    let scores = if mask.causal {
        let hidden = (0..u).flat_map(|query| (0..t).map(move |key| hide(key > query))).collect();
        add(scores, hidden, (1, 1, u, t))?
    } else {
        scores
    };
    let scores = match &mask.key_lengths {
        Some(lengths) => {
            // Where nothing is to be seen all is, and forgotten below: a softmax of nothing is no number.
            let is_hidden = |key: usize, n: usize| n > 0 && key >= n;
            let hidden =
                lengths.iter().flat_map(|n| (0..t).map(move |key| hide(is_hidden(key, *n)))).collect();
            add(scores, hidden, (b, 1, 1, t))?
        }
        None => scores,
    };
    let mixed = softmax(&scores)?.matmul(&heads(values)?)?; // (B, H, U, D/H)
    let mixed = mixed.transpose(1, 2)?.flatten(2, D::Minus1)?; // (B, U, D)
    match &mask.key_lengths {
        Some(lengths) if lengths.contains(&0) => {
            let is_empty: Vec<u8> = lengths.iter().map(|n| u8::from(*n == 0)).collect();
            let is_empty = Tensor::from_vec(is_empty, (b, 1, 1), mixed.device())?;
            is_empty.broadcast_as(mixed.shape())?.where_cond(&mixed.zeros_like()?, &mixed)
        }
        _ => Ok(mixed),
    }
}

struct Fused {
    n_heads: usize,
    mask: Mask,
    /// In bf16, which has no gradients.
    is_rounded: bool,
    /// The logarithms of the sums of exponentials, (B, H, U): all that is kept of the scores.
    log_sums: OnceLock<Vec<f32>>,
}

impl Fused {
    fn shape(&self, queries: &Shape, keys: &Shape) -> candle_core::Result<AttentionShape<'_>> {
        let ((_, n_queries, width), (_, n_keys, _)) = (queries.dims3()?, keys.dims3()?);
        let scale = ((width / self.n_heads) as f32).powf(-0.5);
        let (causal, key_lengths) = (self.mask.causal, self.mask.key_lengths.as_deref());
        Ok(AttentionShape { n_queries, n_keys, width, n_heads: self.n_heads, scale, causal, key_lengths })
    }
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape = self.shape(queries_layout.shape(), keys_layout.shape())?;
        let queries = floats(queries, queries_layout)?;
        let (keys, values) = (floats(keys, keys_layout)?, floats(values, values_layout)?);
        let mut out = zeros(queries.len());
        if self.is_rounded {
            attention_bf16(shape, queries, keys, values, &mut out);
        } else {
            let log_sums = attention(shape, queries, keys, values, &mut out);
            self.log_sums.get_or_init(|| log_sums);
        }
        Ok((CpuStorage::F32(out), queries_layout.shape().clone()))
    }

    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        out: &Tensor,
        d_out: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let shape = self.shape(queries.shape(), keys.shape())?;
        let Some(log_sums) = self.log_sums.get() else {
            candle_core::bail!("attention: no forward pass yet")
        };
        let numbers = [queries, keys, values, out, d_out];
        let [dq, dk, dv] = with_floats(numbers, |[queries, keys, values, out, d_out]| {
            attention_backward(shape, AttentionPass { queries, keys, values, out, log_sums, d_out })
        })?;
        let wanted = |x: &Tensor, gradient| x.track_op().then(|| tensor(gradient, x.shape())).transpose();
        Ok((wanted(queries, dq)?, wanted(keys, dk)?, wanted(values, dv)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, gradients, noise};

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> candle_core::Result<()> {
        let lengths = |lengths: &[usize]| Some(lengths.to_vec());
        for (u, t, head, mask) in [
            (1, 1, 2, Mask::NONE),
            (40, 70, 24, Mask::NONE),
            (70, 70, 32, Mask::CAUSAL),
            (9, 50, 64, Mask { causal: false, key_lengths: lengths(&[50, 1, 33]) }),
            (50, 50, 8, Mask { causal: true, key_lengths: lengths(&[7, 50, 20]) }),
        ] {
            let (b, n_heads) = (3, 2);
            let width = head * n_heads;
            let query = Var::from_tensor(&noise((b, u, width), 1)?)?;
            let key = Var::from_tensor(&noise((b, t, width), 2)?)?;
            let value = Var::from_tensor(&noise((t, b, width), 3)?)?;
            let values = value.transpose(0, 1)?; // rows that do not lie one after the other
            let (q, k) = (query.as_tensor(), key.as_tensor());
            let ours = dense_attention(q, k, &values, n_heads, &mask, Precision::F32)?;
            let theirs = composed(q, k, &values, n_heads, &mask)?;
            assert_close(&ours, &theirs, 1e-5)?;
            let vars = [&query, &key, &value];
            for (ours, theirs) in gradients(&ours, &vars)?.iter().zip(gradients(&theirs, &vars)?) {
                let (Some(ours), Some(theirs)) = (ours, theirs) else {
                    candle_core::bail!("a gradient is missing")
                };
                assert_close(ours, &theirs, 1e-4)?;
            }
            let detached =
                dense_attention(&query.as_detached_tensor(), k, &values, n_heads, &mask, Precision::F32)?;
            assert!(gradients(&detached, &vars)?[0].is_none());
        }
        Ok(())
    }

    #[test]
    fn without_keys_there_is_nothing() -> candle_core::Result<()> {
        let (q, k) = (Var::from_tensor(&noise((2, 3, 8), 1)?)?, Var::from_tensor(&noise((2, 5, 8), 2)?)?);
        let mask = Mask { causal: false, key_lengths: Some(vec![0, 4]) };
        let (ours, theirs) =
            (dense_attention(&q, &k, &k, 2, &mask, Precision::F32)?, composed(&q, &k, &k, 2, &mask)?);
        assert_close(&ours, &theirs, 1e-5)?;
        assert_eq!(ours.get(0)?.flatten_all()?.to_vec1::<f32>()?, [0.0; 24]);
        for (ours, theirs) in gradients(&ours, &[&q, &k])?.into_iter().zip(gradients(&theirs, &[&q, &k])?) {
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                candle_core::bail!("a gradient is missing")
            };
            assert_close(&ours, &theirs, 1e-5)?;
            assert_eq!(theirs.get(0)?.abs()?.sum_all()?.to_scalar::<f32>()?, 0.0);
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() -> candle_core::Result<()> {
        let (q, k) = (noise((2, 3, 8), 1)?, noise((2, 5, 8), 2)?);
        let lengths = |lengths: &[usize]| Mask { causal: false, key_lengths: Some(lengths.to_vec()) };
        for (keys, values, n_heads, mask) in [
            (&noise((2, 5, 6), 1)?, &k, 2, Mask::NONE),
            (&noise((1, 5, 8), 1)?, &k, 2, Mask::NONE),
            (&k, &noise((2, 4, 8), 1)?, 2, Mask::NONE),
            (&k, &k, 3, Mask::NONE),
            (&k, &k, 0, Mask::NONE),
            (&k, &k, 2, lengths(&[5])),
            (&k, &k, 2, lengths(&[5, 6])),
        ] {
            let refused = dense_attention(&q, keys, values, n_heads, &mask, Precision::F32);
            assert!(refused.is_err(), "{n_heads} {mask:?}");
        }
        Ok(())
    }
}
