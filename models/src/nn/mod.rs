//! Layers. Each exists once, trains and serves. On the CPU they run the kernels, wrapped in custom ops with a backward
//! pass; elsewhere plain tensor operations, because candle's fused ops cut the graph without an error. Tests compare the
//! two, in values and gradients.

mod activation;
mod adamw;
mod attention;
mod backward;
mod cache;
mod checkpoint;
mod conv;
mod cross_entropy;
mod ctc;
mod dense_attention;
mod embedding;
mod fused;
mod linear;
mod norm;
mod softmax;
mod storage;
#[cfg(test)]
pub(crate) mod test_support;
mod weight;

pub use activation::gelu;
pub use adamw::{AdamW, Moments, adamw_step, squared_norm};
pub use attention::{KeySpan, MultiHeadAttention};
pub use backward::backward;
pub use cache::KvCache;
pub use checkpoint::checkpoint;
pub use conv::Conv1d;
pub use cross_entropy::{Targets, cross_entropy};
pub use ctc::{CtcTargets, ctc};
pub use dense_attention::Mask;
pub use embedding::Embedding;
pub use fused::{feed_forward, product_into};
pub use linear::Linear;
pub use norm::LayerNorm;
pub use softmax::softmax;
pub use weight::Weight;
