//! CPU kernels as plain functions on slices. They know no tensors and no layers.

mod activation;
mod adamw;
mod attention;
mod batch_norm;
mod blocks;
mod convolution;
mod cross_entropy;
mod ctc;
mod depthwise;
mod distillation;
mod epilogue;
mod functions;
mod gemm;
mod instruction_set;
mod layer_norm;
mod low_precision;
mod memory;
mod optimal_transport;
mod packed_weight;
mod peak;
mod reduce;
mod softmax;
mod team;
mod threads;
mod transpose;
mod weight_rows;

pub use activation::{Activation, activate, activate_backward, glu, glu_backward};
pub use adamw::{AdamW, squared_norm};
pub use attention::{
    AttentionPass, AttentionRow, AttentionShape, KeysValues, RelativePositions, attend, attention,
    attention_backward, relative_attention,
};
pub use batch_norm::{
    BatchNormGradients, BatchNormWeights, BatchStatistics, Frames, batch_norm, batch_norm_backward,
};
pub use blocks::{Affine, add_feed_forward, add_product, normed_products};
pub use convolution::{
    ConvolutionShape, add_convolution_weight_gradient, convolution, convolution_input_gradient,
    convolution_packed,
};
pub use cross_entropy::{Labels, cross_entropy, cross_entropy_backward};
pub use ctc::{CtcLabels, CtcPass, ctc, ctc_backward};
pub use depthwise::{DepthwiseShape, add_depthwise_weight_gradient, depthwise, depthwise_input_gradient};
pub use distillation::{Teacher, distillation, distillation_backward};
pub use epilogue::{Epilogue, PostOp};
pub use gemm::{Matrix, Threads, multiply_add, product};
pub use layer_norm::{LayerNormGradients, LayerNormWeights, layer_norm, layer_norm_backward};
pub use low_precision::attention_bf16;
pub(crate) use low_precision::{nearest_byte, scale_of_bytes};
pub use memory::{SERVING_KEEPS_BYTES, keep_freed_memory, zeros};
pub use optimal_transport::{Distance, PairCost, PointSets, Transport, TransportPass, optimal_transport};
pub use packed_weight::{PackedWeight, Precision};
pub use peak::{peak_bytes_per_sec, peak_ops_per_sec};
pub use reduce::add_column_sums;
pub use softmax::{are_finite, argmax, largest_of, log_sum_exp, softmax, softmax_backward};
pub use team::{for_each, together};
pub use threads::leave_threads_to_kernels;
pub use transpose::transpose;
pub use weight_rows::ReadRows;

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
