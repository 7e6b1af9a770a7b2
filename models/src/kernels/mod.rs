//! CPU kernels as plain functions on slices. They know no tensors and no layers.

mod adamw;
mod attention;
mod convolution;
mod cross_entropy;
mod ctc;
mod functions;
mod gelu;
mod gemm;
mod instruction_set;
mod layer_norm;
mod memory;
mod reduce;
mod softmax;
mod threads;
mod transpose;

pub use adamw::{AdamW, squared_norm};
pub use attention::{AttentionPass, AttentionRow, AttentionShape, attend, attention, attention_backward};
pub use convolution::{
    ConvolutionShape, add_convolution_weight_gradient, convolution, convolution_input_gradient,
    convolution_packed,
};
pub use cross_entropy::{Labels, cross_entropy, cross_entropy_backward};
pub use ctc::{CtcLabels, CtcPass, ctc, ctc_backward};
pub use gelu::{gelu, gelu_backward};
pub use gemm::{Matrix, PackedMatrix, multiply, multiply_add};
pub use layer_norm::{LayerNormGradients, LayerNormWeights, layer_norm, layer_norm_backward};
pub use memory::keep_freed_memory;
pub use reduce::add_column_sums;
pub use softmax::{softmax, softmax_backward};
pub use threads::leave_threads_to_kernels;
pub use transpose::transpose;
