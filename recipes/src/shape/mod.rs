//! The shape of a model: how loss depends on the sizes of encoder and decoder, fitted to a grid of small runs, and how a budget is best
//! split between the two.
//!
//! `L(N_e, N_d) = α (N̄_e/N_e)^{p_e} (N̄_d/N_d)^{p_d} + L_∞` (Ghorbani et al. 2021), where N counts parameters without embeddings.
//! With it the best split has a closed form: of `N_e + N_d = B` the encoder gets `p_e / (p_e + p_d)`; of a latency
//! `c_e N_e + c_d U N_d` it gets the same share of the time, which is many more parameters, as it runs once and the decoder for each
//! of U tokens.

mod cost;
mod count;
mod error;
mod law;
mod page;
mod plan;
mod scaling;
mod split;
mod table;
#[cfg(test)]
mod tests;
mod warning;

pub use cost::{Depths, Latency, Line};
pub use count::{count_params, last_figures};
pub use error::Error;
pub use law::{Fitted, HUBER_DELTA, Law, Point, fit};
pub use page::shape_page;
pub use plan::{Estimate, Recommendation, ShapeOptions, ShapePlan, plan_shape};
pub use scaling::{HoldOut, Noise};
pub use split::{Budget, Shape};
pub use table::{ShapeRun, read_runs, runs_jsonl};

/// A number of parameters for people.
pub fn count(params: f64) -> String {
    match params.abs() {
        n if n >= 1e9 => format!("{:.2} G", params / 1e9),
        n if n >= 1e6 => format!("{:.2} M", params / 1e6),
        n if n >= 1e3 => format!("{:.1} k", params / 1e3),
        _ => format!("{params:.0}"),
    }
}
