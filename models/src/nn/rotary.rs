//! Rotary positions (Su et al., arXiv 2104.09864, section 3.4): queries and keys are turned by their places, so that their products
//! depend on how far apart they are. No table limits how long a sequence is.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::storage::{floats, on_cpu, tensor, with_floats};

/// Wavelengths grow geometrically up to 2 pi times this.
const BASE: f64 = 10_000.0;

/// Vectors (.., D) with `n_heads` heads side by side, each turned by its place: `places` has one for every vector, in their order. Of a
/// head, number `i` of the first half and number `i` of the second are a pair. Differentiable.
///
/// # Errors
/// Heads that do not divide D in even parts, another number of places.
pub fn rotary(x: &Tensor, places: &Arc<[u32]>, n_heads: usize) -> candle_core::Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if n_heads == 0 || !width.is_multiple_of(2 * n_heads) {
        candle_core::bail!("rotary positions: {n_heads} heads of pairs do not divide a width of {width}")
    }
    let n_vectors = x.elem_count() / width.max(1);
    if n_vectors != places.len() {
        candle_core::bail!("rotary positions: {} places for {n_vectors} vectors", places.len())
    }
    let turn = Turn { places: places.clone(), n_heads, sign: 1.0 };
    if on_cpu(&[x]) { x.contiguous()?.apply_op1(turn) } else { turn.composed(x) }
}

/// By the angles of the places, or back.
struct Turn {
    places: Arc<[u32]>,
    n_heads: usize,
    sign: f32,
}

impl Turn {
    /// Cosine and sine of each place's angles, (places, half a head). Rows of a batch have the same places: those are computed once.
    fn angles(&self, half: usize) -> (Vec<f32>, Vec<f32>) {
        let speed = |i: usize| BASE.powf(-(i as f64) / half as f64);
        let speeds: Vec<f64> = (0..half).map(speed).collect();
        let turned = |places: &mut dyn Iterator<Item = u32>| -> (Vec<f32>, Vec<f32>) {
            let angles = places.flat_map(|place| speeds.iter().map(move |speed| f64::from(place) * speed));
            angles.map(|angle| (angle.cos() as f32, self.sign * angle.sin() as f32)).unzip()
        };
        let first = self.places.iter().copied().min().unwrap_or(0);
        let last = self.places.iter().copied().max().unwrap_or(0);
        if (last - first) as usize >= self.places.len() {
            return turned(&mut self.places.iter().copied());
        }
        let (cosines, sines) = turned(&mut (first..=last));
        let gathered = |table: &[f32]| -> Vec<f32> {
            let row = |place: &u32| &table[(place - first) as usize * half..][..half];
            self.places.iter().flat_map(row).copied().collect()
        };
        (gathered(&cosines), gathered(&sines))
    }

    fn turn(&self, x: &[f32], width: usize) -> Vec<f32> {
        let head = width / self.n_heads.max(1);
        let half = head / 2;
        let (cosines, sines) = self.angles(half);
        let mut turned = x.to_vec();
        let rows = turned.par_chunks_exact_mut(width.max(1)).zip(cosines.par_chunks_exact(half.max(1)));
        rows.zip(sines.par_chunks_exact(half.max(1))).with_min_len(64).for_each(|((row, cosines), sines)| {
            for head in row.chunks_exact_mut(head) {
                let (first, second) = head.split_at_mut(half);
                let pairs = first.iter_mut().zip(second).zip(cosines.iter().zip(sines));
                for ((a, b), (cosine, sine)) in pairs {
                    (*a, *b) = (*a * cosine - *b * sine, *a * sine + *b * cosine);
                }
            }
        });
        turned
    }

    /// With plain tensor operations: the path on other devices, and the kernel's oracle.
    fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let width = x.dim(D::Minus1)?;
        let (n, half) = (self.places.len(), width / self.n_heads / 2);
        let (cosines, sines) = self.angles(half);
        let table = |values| Tensor::from_vec(values, (n, 1, half), x.device());
        let (cosines, sines) = (table(cosines)?, table(sines)?);
        let pairs = x.reshape((n, self.n_heads, 2, half))?;
        let (a, b) = (pairs.narrow(2, 0, 1)?.squeeze(2)?, pairs.narrow(2, 1, 1)?.squeeze(2)?); // (N, H, half)
        let first = (a.broadcast_mul(&cosines)? - b.broadcast_mul(&sines)?)?;
        let second = (a.broadcast_mul(&sines)? + b.broadcast_mul(&cosines)?)?;
        Tensor::cat(&[first, second], 2)?.reshape(x.shape())
    }
}

impl CustomOp1 for Turn {
    fn name(&self) -> &'static str {
        "rotary-positions"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let width = layout.dims().last().copied().unwrap_or(1);
        Ok((CpuStorage::F32(self.turn(floats(x, layout)?, width)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let back = Self { places: self.places.clone(), n_heads: self.n_heads, sign: -self.sign };
        let width = x.dim(D::Minus1)?;
        let dx = with_floats([dy], |[dy]| back.turn(dy, width))?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::test_support::{assert_close, composed as without_kernels, gradients, noise};

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> candle_core::Result<()> {
        let x = Var::from_tensor(&noise((2, 5, 24), 1)?)?;
        let places: Arc<[u32]> = (0..10).map(|row| row * 3).collect();
        let both = || -> candle_core::Result<_> {
            let y = rotary(&x, &places, 3)?;
            Ok((y.clone(), gradients(&y, &[&x])?))
        };
        let (ours, theirs) = (both()?, without_kernels(both)??);
        assert_close(&ours.0, &theirs.0, 1e-6)?;
        let ([Some(ours)], [Some(theirs)]) = (ours.1, theirs.1) else {
            unreachable!("a gradient is missing")
        };
        assert_close(&ours, &theirs, 1e-6)?;
        assert!(rotary(&x, &places, 5).is_err() && rotary(&x, &places[1..].into(), 3).is_err());
        Ok(())
    }

    #[test]
    fn products_depend_on_distances_alone() -> candle_core::Result<()> {
        let (query, key) = (noise((1, 16), 1)?, noise((1, 16), 2)?);
        let product = |at: u32, other: u32| -> candle_core::Result<f32> {
            let query = rotary(&query, &[at].into(), 1)?;
            let key = rotary(&key, &[other].into(), 1)?;
            (query * key)?.sum_all()?.to_scalar()
        };
        assert!((product(7, 3)? - product(1_007, 1_003)?).abs() < 1e-4);
        assert!((product(7, 3)? - product(7, 4)?).abs() > 1e-3);
        let same = Tensor::zeros((1, 16), candle_core::DType::F32, &Device::Cpu)?;
        assert_close(&rotary(&query, &[0].into(), 1)?, &(query + same)?, 0.0)
    }
}
