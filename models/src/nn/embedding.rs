//! Vectors by id.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};

use super::backward::gradient_of;
use super::storage::{floats, on_cpu, with_floats};
use super::{Linear, Weight};
use crate::Error;
use crate::kernels::zeros;
use crate::params::{Init, Scope};

/// A table (V, D), which may also serve as the output projection.
pub struct Embedding {
    weight: Weight,
}

impl Embedding {
    /// Loads `weight`.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, n_vectors: usize, width: usize) -> Result<Self, Error> {
        Ok(Self { weight: Weight::load(scope, n_vectors, width, Init::Normal { std: 0.02 })? })
    }

    /// Ids (N) of u32 to vectors (N, D).
    ///
    /// # Errors
    /// An id that is not in the table.
    pub fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let weight = match &self.weight {
            Weight::Dense(weight) if on_cpu(&[weight]) => {
                let (n_vectors, _) = weight.dims2()?;
                let ids = checked(ids, n_vectors)?;
                return weight.contiguous()?.apply_op1(Lookup { ids });
            }
            Weight::Dense(weight) => {
                // A GPU that looks up what is not there is lost for the whole process.
                checked(ids, weight.dim(0)?)?;
                return weight.index_select(ids, 0);
            }
            Weight::Packed(weight) => weight,
        };
        // Out of the packed weight, so that there is no second copy of the largest matrix for a few look-ups.
        let (n_vectors, width) = (weight.n_out(), weight.n_in());
        let ids = checked(ids, n_vectors)?;
        let mut vectors = zeros(ids.len() * width);
        for (id, vector) in ids.iter().zip(vectors.chunks_exact_mut(width.max(1))) {
            weight.copy_row(*id as usize, vector);
        }
        Tensor::from_vec(vectors, (ids.len(), width), &Device::Cpu)
    }

    /// The layer that scores a hidden state (.., D) against every vector, (.., V).
    pub fn tied(&self) -> Linear {
        Linear::tied(self.weight.clone())
    }

    /// D.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn width(&self) -> candle_core::Result<usize> {
        Ok(self.weight.dims()?.1)
    }
}

fn checked(ids: &Tensor, n_vectors: usize) -> candle_core::Result<Vec<u32>> {
    let ids = ids.to_vec1::<u32>()?;
    match ids.iter().find(|id| **id as usize >= n_vectors) {
        Some(id) => candle_core::bail!("id {id} is not among the {n_vectors} of the embedding"),
        None => Ok(ids),
    }
}

/// Vectors of a table whose gradient is added where it is: candle copies the table for it.
struct Lookup {
    ids: Vec<u32>,
}

impl CustomOp1 for Lookup {
    fn name(&self) -> &'static str {
        "lookup"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let table = floats(table, layout)?;
        let mut vectors = Vec::with_capacity(self.ids.len() * width);
        for id in &self.ids {
            vectors.extend_from_slice(&table[*id as usize * width..][..width]);
        }
        Ok((CpuStorage::F32(vectors), Shape::from((self.ids.len(), width))))
    }

    fn bwd(
        &self,
        table: &Tensor,
        _vectors: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let (_, width) = table.dims2()?;
        with_floats([gradient], |[gradient]| {
            gradient_of(table, |sums| {
                for (id, gradient) in self.ids.iter().zip(gradient.chunks_exact(width.max(1))) {
                    let sums = &mut sums[*id as usize * width..][..width];
                    sums.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += gradient);
                }
            })
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weights;
    use crate::nn::test_support::{assert_close, gradients};
    use crate::params::Params;

    #[test]
    fn packed_and_dense_tables_give_the_same_vectors() -> Result<(), Error> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
        let name = "model.decoder.embed_tokens";
        let weights = Weights::open(dir.as_ref())?;
        let (_, shape, _) = weights
            .tensors()
            .find(|(tensor, ..)| *tensor == format!("{name}.weight"))
            .ok_or_else(|| Error::option("fixture", "has no embedding"))?;
        let (n_vectors, width) = (shape[0], shape[1]);
        let load = |params: &Params| Embedding::load(&params.root().sub(name), n_vectors, width);
        let packed = load(&Params::frozen(Weights::open(dir.as_ref())?, &Device::Cpu))?;
        let dense = load(&Params::trainable(Weights::open(dir.as_ref())?, &Device::Cpu))?;
        assert!(matches!((&packed.weight, &dense.weight), (Weight::Packed(_), Weight::Dense(_))));
        let ids = Tensor::new(&[3u32, 0, n_vectors as u32 - 1, 3], &Device::Cpu)?;
        assert_eq!(packed.forward(&ids)?.to_vec2::<f32>()?, dense.forward(&ids)?.to_vec2::<f32>()?);
        for table in [packed, dense] {
            assert!(table.forward(&Tensor::new(&[n_vectors as u32], &Device::Cpu)?).is_err());
        }
        Ok(())
    }

    #[test]
    fn vectors_and_gradients_are_candles() -> Result<(), Error> {
        let params = Params::seeded(1, &Device::Cpu);
        let table = Embedding::load(&params.root(), 7, 5)?;
        let var = &params.vars()[0].1;
        let ids = Tensor::new(&[3u32, 0, 6, 3, 3], &Device::Cpu)?;
        let (ours, theirs) = (table.forward(&ids)?, var.index_select(&ids, 0)?);
        assert_close(&ours, &theirs, 0.0)?;
        let ([Some(ours)], [Some(theirs)]) = (gradients(&ours, &[var])?, gradients(&theirs, &[var])?) else {
            return Err(Error::option("the table", "has no gradient"));
        };
        assert_close(&ours, &theirs, 1e-6)?;
        Ok(())
    }
}
