//! Multi-head self-attention that tells apart how far before or after a query a key lies (Dai et al., arXiv 1901.02860, section
//! 3.3, with biases of its own for each layer, as Conformers have it).

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, D, Layout, Shape, Tensor};

use super::fused::{add, normed};
use super::storage::{floats, on_cpu, with_floats};
use super::{LayerNorm, Linear, softmax};
use crate::Error;
use crate::kernels::{AttentionShape, RelativePositions, relative_attention, zeros};
use crate::params::{Init, Scope};

/// What relative positions look like before layers project them: sines and cosines in turn, of wavelengths that grow
/// geometrically from 2 pi on.
pub struct RelativeEncoding {
    width: usize,
    /// (2 P - 1, D), of the longest that was asked for yet.
    table: Mutex<Option<Tensor>>,
    /// The last that was asked for, (T, T), and its context: all layers of an encoder ask for the same.
    band: Mutex<Option<(Tensor, [usize; 2])>>,
}

/// Tables are made for some more positions than are asked for, so that few are made.
const STEP: usize = 64;

impl RelativeEncoding {
    /// Of `width` numbers, an even one.
    pub fn new(width: usize) -> Self {
        Self { width, table: Mutex::new(None), band: Mutex::new(None) }
    }

    /// (2 P - 1, D) for some P from `n_positions` on: row `P - 1 - d` is what lies `d` positions before.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn table(&self, n_positions: usize, device: &candle_core::Device) -> candle_core::Result<Tensor> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.as_ref().filter(|table| n_known(table) >= n_positions) {
            Some(known) => Ok(known.clone()),
            None => {
                let n = n_positions.next_multiple_of(STEP);
                let made = Tensor::from_vec(self.values(n), (2 * n - 1, self.width), device)?;
                *table = Some(made.clone());
                Ok(made)
            }
        }
    }

    /// [`band`], made once for all layers.
    fn band(
        &self,
        t: usize,
        context: [usize; 2],
        device: &candle_core::Device,
    ) -> candle_core::Result<Tensor> {
        let mut known = self.band.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref().filter(|(band, of)| *of == context && band.dims() == [t, t]) {
            Some((band, _)) => Ok(band.clone()),
            None => {
                let made = band(t, context, device)?;
                *known = Some((made.clone(), context));
                Ok(made)
            }
        }
    }

    fn values(&self, n: usize) -> Vec<f32> {
        let waves = (0..self.width / 2).map(|i| 10_000f64.powf(-2.0 * i as f64 / self.width as f64));
        let waves: Vec<f64> = waves.collect();
        (0..2 * n - 1)
            .flat_map(|row| {
                let distance = (n - 1) as f64 - row as f64;
                waves.iter().flat_map(move |wave| {
                    let (sin, cos) = (distance * wave).sin_cos();
                    [sin as f32, cos as f32]
                })
            })
            .collect()
    }
}

/// P of a table.
fn n_known(table: &Tensor) -> usize {
    table.dims().first().map_or(0, |n| n.div_ceil(2))
}

/// The middle of a table, for `n` positions.
fn middle(table: &Tensor, n: usize) -> candle_core::Result<Tensor> {
    table.narrow(0, n_known(table) - n, 2 * n - 1)
}

/// Attention with `n_heads` heads side by side in the model width.
pub struct RelativeAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    position: Linear,
    out: Linear,
    content_bias: Tensor,  // (H, D / H)
    position_bias: Tensor, // (H, D / H)
    n_heads: usize,
    /// Positions before and after one that it attends to; all where there are none given.
    context: Option<[usize; 2]>,
    /// Projected positions, where the projection does not change any more.
    projected: Option<Mutex<Option<Tensor>>>,
}

impl RelativeAttention {
    /// Loads `q_proj`, `k_proj`, `v_proj`, `o_proj`, `relative_k_proj` (never with a bias), `bias_u` and `bias_v`.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, width: usize, n_heads: usize, has_bias: bool) -> Result<Self, Error> {
        let linear = |name, has_bias| Linear::load(&scope.sub(name), width, width, has_bias);
        let bias = |name| scope.get(name, &[n_heads, width / n_heads], Init::Zeros);
        Ok(Self {
            query: linear("q_proj", has_bias)?,
            key: linear("k_proj", has_bias)?,
            value: linear("v_proj", has_bias)?,
            out: linear("o_proj", has_bias)?,
            position: linear("relative_k_proj", false)?,
            content_bias: bias("bias_u")?,
            position_bias: bias("bias_v")?,
            n_heads,
            context: None,
            projected: scope.sub("relative_k_proj").is_frozen().then(Mutex::default),
        })
    }

    /// Lets each position attend to so many before and after it alone (NeMo's `conformer_encoder.py: _create_masks`).
    pub fn limited_to(self, context: Option<[usize; 2]>) -> Self {
        Self { context, ..self }
    }

    /// Positions in one direction, itself among them, that one of `t` positions attends to at most.
    fn n_met(&self, t: usize) -> usize {
        self.context.map_or(t, |[before, after]| t.min(before.max(after).saturating_add(1)))
    }

    /// `x + attention(norm(x))` of x (B, T, D), each position over the first `lengths` ones of its row; of all where there are none
    /// given; in either case within its context. What comes out for positions beyond `lengths` means nothing. Differentiable.
    /// `encoding` is what positions look like.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn residual(
        &self,
        norm: &LayerNorm,
        x: &Tensor,
        encoding: &RelativeEncoding,
        lengths: Option<&[usize]>,
    ) -> candle_core::Result<Tensor> {
        let (b, t, width) = x.dims3()?;
        if lengths.is_some_and(|lengths| lengths.len() != b || lengths.iter().any(|n| *n > t)) {
            candle_core::bail!("attention: lengths {lengths:?} for {b} rows of {t} positions")
        }
        let [query, key, value] = normed(norm, x, [&self.query, &self.key, &self.value])?;
        let n_met = self.n_met(t);
        let positions = self.positions(encoding, n_met, x.device())?; // (2 P - 1, D)
        let tensors = [&query, &key, &value, &positions, &self.content_bias, &self.position_bias];
        let has_kernel = width / self.n_heads <= AttentionShape::MAX_HEAD;
        let mixed = if on_cpu(&tensors) && has_kernel && !tensors.iter().any(|x| x.track_op()) {
            let attention = Relative { layer: self, positions: &positions, lengths };
            let [query, key, value] = [query.contiguous()?, key.contiguous()?, value.contiguous()?];
            query.apply_op3_no_bwd(&key, &value, &attention)?
        } else {
            self.composed(encoding, [&query, &key, &value], &middle(&positions, n_met)?, lengths)?
        };
        add(x, &self.out, &mixed)
    }

    /// Positions as keys see them, (2 P - 1, D) for some P from `n_positions` on.
    fn positions(
        &self,
        encoding: &RelativeEncoding,
        n_positions: usize,
        device: &candle_core::Device,
    ) -> candle_core::Result<Tensor> {
        let table = encoding.table(n_positions, device)?;
        let Some(projected) = &self.projected else {
            return self.position.forward(&middle(&table, n_positions)?);
        };
        // Not locked while it computes: a thread that waits for others may be given another window to encode meanwhile.
        let lock = || projected.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().as_ref().filter(|known| n_known(known) >= n_positions).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = self.position.forward(&table)?;
        let mut projected = lock();
        if projected.as_ref().is_none_or(|known| n_known(known) < n_known(&made)) {
            *projected = Some(made.clone());
        }
        Ok(made)
    }

    /// With plain tensor operations: the path of training and of other devices, and the kernel's oracle. `positions` (2 M - 1, D) of
    /// the M positions that may be met.
    fn composed(
        &self,
        encoding: &RelativeEncoding,
        [query, key, value]: [&Tensor; 3],
        positions: &Tensor,
        lengths: Option<&[usize]>,
    ) -> candle_core::Result<Tensor> {
        let (b, t, width) = query.dims3()?;
        let (n_heads, head) = (self.n_heads, width / self.n_heads);
        let heads = |x: &Tensor| {
            let (b, n, _) = x.dims3()?;
            x.reshape((b, n, n_heads, head))?.transpose(1, 2)?.contiguous() // (B, H, n, D/H)
        };
        let scale = (head as f64).powf(-0.5);
        let query = |bias: &Tensor| heads(&(query.broadcast_add(&bias.flatten_all()?)? * scale)?);
        let content = query(&self.content_bias)?.matmul(&heads(key)?.t()?)?; // (B, H, T, T)
        let n_met = n_known(positions);
        let positions = heads(&positions.unsqueeze(0)?)?.broadcast_as((b, n_heads, 2 * n_met - 1, head))?;
        let by_distance = query(&self.position_bias)?.matmul(&positions.contiguous()?.t()?)?; // (B, H, T, 2 M - 1)
        // What lies further away is hidden.
        let by_distance = by_distance.pad_with_zeros(D::Minus1, t - n_met, t - n_met)?; // (B, H, T, 2 T - 1)
        let mut scores = (content + shifted(&by_distance)?)?;
        if let Some(lengths) = lengths {
            let hidden = |t: usize, n: usize| if n > 0 && t >= n { f32::NEG_INFINITY } else { 0.0 };
            let hidden = lengths.iter().flat_map(|n| (0..t).map(move |t| hidden(t, *n))).collect();
            let hidden = Tensor::from_vec::<_, f32>(hidden, (b, 1, 1, t), scores.device())?;
            scores = scores.broadcast_add(&hidden)?;
        }
        if let Some(context) = self.context {
            scores = scores.broadcast_add(&encoding.band(t, context, scores.device())?)?;
        }
        let mixed = softmax(&scores)?.matmul(&heads(value)?)?; // (B, H, T, D/H)
        mixed.transpose(1, 2)?.flatten(2, D::Minus1) // (B, T, D)
    }
}

/// What hides keys outside of a context when it is added to scores, (T, T). It is finite: a query beyond a recording's end may see
/// none of its keys, and what comes out must be numbers, for later layers multiply it by zero.
fn band(t: usize, [before, after]: [usize; 2], device: &candle_core::Device) -> candle_core::Result<Tensor> {
    let is_seen = |i: usize, j: usize| j.saturating_add(before) >= i && j <= i.saturating_add(after);
    let hidden = |i, j| if is_seen(i, j) { 0.0 } else { -1e30 };
    let hidden = (0..t).flat_map(|i| (0..t).map(move |j| hidden(i, j))).collect();
    Tensor::from_vec::<_, f32>(hidden, (t, t), device)
}

/// Scores by distance (B, H, T, 2 T - 1), as `positions` are ordered, to scores by key (B, H, T, T): each query's begin one
/// place earlier than those of the query before it.
fn shifted(scores: &Tensor) -> candle_core::Result<Tensor> {
    let (b, h, t, n) = scores.dims4()?;
    let padded = scores.pad_with_zeros(D::Minus1, 1, 0)?.reshape((b, h, n + 1, t))?;
    let rows = padded.narrow(2, 1, n)?.contiguous()?.reshape((b, h, t, n))?;
    rows.narrow(3, 0, t)
}

/// Without gradients.
struct Relative<'a> {
    layer: &'a RelativeAttention,
    positions: &'a Tensor,
    lengths: Option<&'a [usize]>,
}

impl CustomOp3 for Relative<'_> {
    fn name(&self) -> &'static str {
        "relative-attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        key: &CpuStorage,
        key_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, t, width) = query_layout.shape().dims3()?;
        let n_heads = self.layer.n_heads;
        let shape = AttentionShape {
            n_queries: t,
            n_keys: t,
            width,
            n_heads,
            scale: ((width / n_heads) as f32).powf(-0.5),
            causal: false,
            key_lengths: self.lengths,
        };
        let query = floats(query, query_layout)?;
        let (key, value) = (floats(key, key_layout)?, floats(value, value_layout)?);
        let mut out = zeros(query.len());
        let RelativeAttention { content_bias, position_bias, .. } = self.layer;
        with_floats([self.positions, content_bias, position_bias], |[keys, content_bias, position_bias]| {
            let context = self.layer.context;
            let positions = RelativePositions { keys, context, content_bias, position_bias };
            relative_attention(shape, positions, query, key, value, &mut out);
        })?;
        Ok((CpuStorage::F32(out), query_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::test_support::{assert_close, composed as without_kernels, noise};
    use crate::params::Params;

    #[test]
    fn scores_by_distance_are_shifted_to_keys() -> candle_core::Result<()> {
        // Each score is its distance.
        let t = 5;
        let row: Vec<f32> = (0..2 * t - 1).map(|i| (t - 1) as f32 - i as f32).collect();
        let scores = Tensor::from_vec(row, (1, 1, 1, 2 * t - 1), &Device::Cpu)?.repeat((1, 2, t, 1))?;
        let by_key = shifted(&scores)?.get(0)?.get(1)?.to_vec2::<f32>()?;
        for (i, row) in by_key.iter().enumerate() {
            for (j, distance) in row.iter().enumerate() {
                assert_eq!(*distance, i as f32 - j as f32);
            }
        }
        Ok(())
    }

    #[test]
    fn kernel_and_composed_forms_agree_and_padding_changes_nothing() -> Result<(), Error> {
        let params = Params::seeded(1, &Device::Cpu);
        let (width, n_heads) = (24, 3);
        let load = |params: &Params| -> Result<_, Error> {
            let norm = LayerNorm::load(&params.root().sub("norm"), width, 1e-5)?;
            Ok((norm, RelativeAttention::load(&params.root(), width, n_heads, true)?))
        };
        load(&params)?;
        for (seed, (name, var)) in params.vars().iter().enumerate() {
            if name.contains("bias") {
                var.set(&noise(var.shape(), seed as u32)?)?;
            }
        }
        let (norm, layer) = load(&params.detached())?;
        let encoding = RelativeEncoding::new(width);
        let x = noise((2, 90, width), 3)?;
        for lengths in [None, Some([90, 41].as_slice())] {
            let run = || layer.residual(&norm, &x, &encoding, lengths);
            assert_close(&run()?, &without_kernels(run)??, 1e-5)?;
        }
        for context in [None, Some([90, 200]), Some([17, 5]), Some([0, 30]), Some([0, 0])] {
            // Their positions are projected anew.
            let layer = load(&params.detached())?.1.limited_to(context);
            let run = |x: &Tensor, lengths: Option<&[usize]>| {
                layer.residual(&norm, x, &RelativeEncoding::new(width), lengths)
            };
            let padded = run(&x, Some(&[90, 41]))?;
            let composed = without_kernels(|| run(&x, Some(&[90, 41])))??;
            for (row, n) in [90, 41].into_iter().enumerate() {
                let alone = run(&x.narrow(0, row, 1)?.narrow(1, 0, n)?, None)?;
                let of = |x: &Tensor| x.narrow(0, row, 1)?.narrow(1, 0, n);
                assert_close(&of(&padded)?, &of(&composed)?, 1e-5)?;
                let values = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
                assert_eq!(values(&of(&padded)?)?, values(&alone)?, "row {row}, {context:?}");
            }
            assert!(
                composed.sum_all()?.to_scalar::<f32>()?.is_finite(),
                "{context:?}: no numbers in padding"
            );
        }
        assert!(layer.residual(&norm, &x, &encoding, Some(&[91, 1])).is_err());
        Ok(())
    }

    #[test]
    fn a_context_hides_what_lies_outside_of_it() -> Result<(), Error> {
        let params = Params::seeded(2, &Device::Cpu);
        let width = 8;
        let norm = LayerNorm::load(&params.root().sub("norm"), width, 1e-5)?;
        let layer = RelativeAttention::load(&params.root(), width, 2, false)?.limited_to(Some([2, 1]));
        let encoding = RelativeEncoding::new(width);
        let x = Var::from_tensor(&noise((1, 9, width), 3)?)?;
        let y = layer.residual(&norm, x.as_tensor(), &encoding, None)?;
        for i in 0..9 {
            let found = y.narrow(1, i, 1)?.sum_all()?.backward()?;
            let gradient = found.get(&x).map(|gradient| gradient.abs()?.sum(2)?.get(0)?.to_vec1::<f32>());
            let is_met: Vec<_> =
                gradient.transpose()?.unwrap_or_default().iter().map(|size| *size > 0.0).collect();
            let expected: Vec<_> = (0..9).map(|j| j + 2 >= i && j <= i + 1).collect();
            assert_eq!(is_met, expected, "position {i}");
        }
        Ok(())
    }
}
