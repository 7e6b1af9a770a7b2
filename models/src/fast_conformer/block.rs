//! A Conformer block: half a feed-forward layer, attention, convolution, and the other half.
//! Mirrors `ConformerLayer` in NVIDIA NeMo (`conformer_modules.py`), under the names of transformers' Parakeet.

use candle_core::Tensor;

use super::FastConformerConfig;
use crate::Error;
use crate::kernels::Activation;
use crate::nn::{
    BatchNorm, DepthwiseConv, FeedForward, LayerNorm, Linear, RelativeAttention, RelativeEncoding, activate,
    add, glu, normed, within,
};
use crate::params::Scope;

const EPS: f32 = 1e-5;

pub(super) struct Block {
    first_half: FeedForward,
    attention_norm: LayerNorm,
    attention: RelativeAttention,
    convolution: Convolution,
    second_half: FeedForward,
    norm: LayerNorm,
}

impl Block {
    pub fn load(scope: &Scope<'_>, config: &FastConformerConfig) -> Result<Self, Error> {
        let (width, inner, has_bias) = (config.hidden_size, config.intermediate_size, config.attention_bias);
        let half = |name: &str| {
            let layers = scope.sub(name);
            let scopes = [scope.sub(format!("norm_{name}")), layers.sub("linear1"), layers.sub("linear2")];
            Ok::<_, Error>(FeedForward::load(scopes, (width, inner), Activation::Silu, has_bias)?.scaled(0.5))
        };
        let attention = scope.sub("self_attn");
        Ok(Self {
            first_half: half("feed_forward1")?,
            attention_norm: LayerNorm::load(&scope.sub("norm_self_att"), width, EPS)?,
            attention: RelativeAttention::load(&attention, width, config.num_attention_heads, has_bias)?
                .limited_to(config.attention_context),
            convolution: Convolution::load(scope, config)?,
            second_half: half("feed_forward2")?,
            norm: LayerNorm::load(&scope.sub("norm_out"), width, EPS)?,
        })
    }

    /// (B, T, D) of which each row has `lengths` positions, if they are given, to (B, T, D).
    pub fn forward(
        &self,
        x: &Tensor,
        encoding: &RelativeEncoding,
        lengths: Option<&[usize]>,
    ) -> candle_core::Result<Tensor> {
        let x = self.first_half.forward(x)?;
        let x = self.attention.residual(&self.attention_norm, &x, encoding, lengths)?;
        let x = self.convolution.residual(&x, lengths)?;
        self.norm.forward(&self.second_half.forward(&x)?)
    }

    /// Lets running statistics follow the batches of an update, or forget them.
    pub fn follow(&self, is_kept: bool) -> candle_core::Result<()> {
        self.convolution.batch_norm.follow(is_kept)
    }
}

/// What a block hears of the frames around one: a gate, a filter for each channel, a norm, and a mix of the channels.
struct Convolution {
    norm: LayerNorm,
    gated: Linear,
    depthwise: DepthwiseConv,
    batch_norm: BatchNorm,
    out: Linear,
}

impl Convolution {
    fn load(block: &Scope<'_>, config: &FastConformerConfig) -> Result<Self, Error> {
        let (width, has_bias) = (config.hidden_size, config.convolution_bias);
        let scope = block.sub("conv");
        let kernel = config.conv_kernel_size;
        Ok(Self {
            norm: LayerNorm::load(&block.sub("norm_conv"), width, EPS)?,
            gated: Linear::load_pointwise(&scope.sub("pointwise_conv1"), width, 2 * width, 1, has_bias)?,
            depthwise: DepthwiseConv::load_over_frames(
                &scope.sub("depthwise_conv"),
                width,
                kernel,
                has_bias,
            )?,
            batch_norm: BatchNorm::load(&scope.sub("norm"), width)?,
            out: Linear::load_pointwise(&scope.sub("pointwise_conv2"), width, width, 1, has_bias)?,
        })
    }

    /// `x +` what is heard, (B, T, D).
    fn residual(&self, x: &Tensor, lengths: Option<&[usize]>) -> candle_core::Result<Tensor> {
        let [gated] = normed(&self.norm, x, [&self.gated])?; // (B, T, 2 D)
        let mut y = glu(&gated)?;
        let (b, t, _) = y.dims3()?;
        if let Some(lengths) = lengths {
            y = y.broadcast_mul(&within(lengths, t, y.device())?)?;
        }
        let y = if self.batch_norm.is_trained() {
            let y = self.depthwise.forward(&y)?;
            match lengths {
                Some(lengths) => self.batch_norm.forward_batch(&y, lengths)?,
                None => self.batch_norm.forward_batch(&y, &vec![t; b])?,
            }
        } else {
            let (gain, shift) = self.batch_norm.gain_and_shift()?;
            self.depthwise.forward_scaled(&y, &gain, &shift)?
        };
        add(x, &self.out, &activate(Activation::Silu, &y)?)
    }
}
