//! What a student's next tokens lack of its teacher's, softened.

use candle_core::Tensor;
use models::nn::{SoftTargets, distillation};
use serde::{Deserialize, Serialize};

use crate::Error;

/// `[loss.distillation]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
    /// What both models' logits are divided by.
    pub temperature: f32,
}

impl Distillation {
    /// The weighted sum over positions of which both have logits (N, V).
    ///
    /// # Errors
    /// Logits that do not fit each other.
    pub fn sum(&self, logits: &Tensor, teacher: Tensor, weights: Vec<f32>) -> Result<Tensor, Error> {
        let targets = SoftTargets { logits: teacher, weights, temperature: self.temperature };
        Ok(distillation(logits, &targets)?)
    }
}
