//! A ConvNeXt block over frames (Liu et al. 2022, in one dimension), which looks back and never ahead.

use candle_core::Tensor;

use crate::Error;
use crate::kernels::Activation;
use crate::nn::{DepthwiseConv, LayerNorm, Linear, activated};
use crate::params::{Init, Scope};

use super::{EPS, VocosConfig, after};

/// `x + gamma pwconv2(gelu(pwconv1(norm(dwconv(x)))))`.
pub(super) struct ConvNextBlock {
    dwconv: DepthwiseConv,
    norm: LayerNorm,
    pwconv1: Linear,
    pwconv2: Linear,
    gamma: Tensor,
    n_context: usize,
}

impl ConvNextBlock {
    pub fn load(scope: &Scope<'_>, config: &VocosConfig) -> Result<Self, Error> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        // Together, the blocks of a new vocoder add about as much as there was.
        let gamma = Init::Filled { value: 1.0 / config.num_layers as f32 };
        Ok(Self {
            dwconv: DepthwiseConv::load_after_context(&scope.sub("dwconv"), width, config.kernel_size)?,
            norm: LayerNorm::load(&scope.sub("norm"), width, EPS)?,
            pwconv1: Linear::load(&scope.sub("pwconv1"), width, inner, true)?,
            pwconv2: Linear::load(&scope.sub("pwconv2"), inner, width, true)?,
            gamma: scope.get("gamma", &[width], gamma)?,
            n_context: config.kernel_size - 1,
        })
    }

    /// (B, T, D) to (B, T, D), after the frames of `context`.
    pub fn forward(&self, x: &Tensor, context: Option<&mut Tensor>) -> candle_core::Result<Tensor> {
        let h = self.dwconv.forward(&after(context, x, self.n_context, 0.0)?)?;
        let h = activated(&self.pwconv1, &self.norm.forward(&h)?, Activation::Gelu)?; // (B, T, inner)
        x + self.pwconv2.forward(&h)?.broadcast_mul(&self.gamma)?
    }
}
