//! The feed-forward half of a block, the same in encoder and decoder.

use crate::Error;
use crate::kernels::Activation;
use crate::nn::FeedForward;
use crate::params::Scope;

/// Loads `final_layer_norm`, `fc1` and `fc2` of a block.
///
/// # Errors
/// What `Scope::get` refuses.
pub(super) fn feed_forward(scope: &Scope<'_>, width: usize, inner: usize) -> Result<FeedForward, Error> {
    let scopes = ["final_layer_norm", "fc1", "fc2"].map(|name| scope.sub(name));
    FeedForward::load(scopes, (width, inner), Activation::Gelu, true)
}
