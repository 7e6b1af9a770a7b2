//! Layers. Each exists once, trains and serves. On the CPU they run the kernels, wrapped in custom ops with a backward
//! pass; elsewhere plain tensor operations, because candle's fused ops cut the graph without an error. Tests compare the
//! two, in values and gradients.

mod activation;
mod adamw;
mod attention;
mod backward;
mod batch_norm;
mod cache;
mod checkpoint;
mod conv;
mod cross_entropy;
mod ctc;
mod dense_attention;
mod depthwise;
mod distillation;
mod embedding;
mod feed_forward;
mod fused;
mod l1;
mod linear;
mod norm;
mod optimal_transport;
mod padding;
mod relative_attention;
mod rotary;
mod softmax;
mod spectrum;
mod stft;
mod storage;
#[cfg(test)]
pub(crate) mod test_support;
mod weight;

pub use activation::{activate, glu, leaky_relu};
pub use adamw::{AdamW, Moments, adamw_step, squared_norm};
pub use attention::{KeySpan, MultiHeadAttention, Projections};
pub use backward::backward;
pub use batch_norm::BatchNorm;
pub use cache::KvCache;
pub use checkpoint::checkpoint;
pub use conv::Conv1d;
pub use cross_entropy::{Targets, cross_entropy};
pub use ctc::{CtcTargets, ctc};
pub use dense_attention::Mask;
pub use depthwise::DepthwiseConv;
pub use distillation::{SoftTargets, distillation};
pub use embedding::Embedding;
pub use feed_forward::FeedForward;
pub use fused::{activated, product_into};
pub(crate) use fused::{add, normed};
pub use l1::absolute_difference;
pub use linear::Linear;
pub use norm::LayerNorm;
pub use optimal_transport::{TransportRows, optimal_transport};
pub use padding::within;
pub use relative_attention::{RelativeAttention, RelativeEncoding};
pub use rotary::rotary;
pub use softmax::softmax;
pub use spectrum::{from_polar, magnitude, spectral_distance};
pub use stft::{Istft, Stft};
pub use weight::Weight;
