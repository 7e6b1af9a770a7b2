//! `y = x W^T + b`.

use candle_core::Tensor;

use crate::Error;
use crate::params::{Init, Scope};

/// A linear layer. `weight` is (out, in), as in checkpoints.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Loads `weight` and, if asked for, `bias`.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, n_in: usize, n_out: usize, bias: bool) -> Result<Self, Error> {
        let weight = scope.get("weight", &[n_out, n_in], Init::Normal { std: 0.02 })?;
        let bias = if bias { Some(scope.get("bias", &[n_out], Init::Zeros)?) } else { None };
        Ok(Self { weight, bias })
    }

    /// A layer that shares another's weight, such as an output projection tied to the embedding.
    pub fn tied(weight: Tensor) -> Self {
        Self { weight, bias: None }
    }

    /// (.., in) to (.., out).
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (n_out, n_in) = self.weight.dims2()?;
        let mut dims = x.dims().to_vec();
        let n_rows = x.elem_count() / n_in.max(1);
        // One flat product: candle's batched matmul would run one GEMM per leading index.
        let y = x.reshape((n_rows, n_in))?.matmul(&self.weight.t()?)?; // (rows, out)
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        if let Some(last) = dims.last_mut() {
            *last = n_out;
        }
        y.reshape(dims)
    }
}
