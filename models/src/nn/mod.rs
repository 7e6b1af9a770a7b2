//! Layers. Each exists once, trains and serves: when an input tracks gradients a layer runs differentiable
//! ops, when not the fused kernels, because candle's fused ops cut the graph without an error.

mod attention;
mod cache;
mod conv;
mod embedding;
mod linear;
mod norm;
mod weight;

pub use attention::{KeySpan, MultiHeadAttention, softmax};
pub use cache::KvCache;
pub use conv::Conv1d;
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::LayerNorm;
pub use weight::Weight;
