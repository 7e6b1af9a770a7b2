//! The best split of a budget between encoder and decoder: the law's optimum under a linear cost, exactly, and in whole blocks.

use serde::Serialize;

use super::cost::{Depths, Latency};
use super::law::Law;
use super::{Error, count};

/// Blocks of a stack at most that are looked at: beyond, a model should become wider.
const MAX_LAYERS: usize = 1000;

/// What a model may cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Parameters of encoder and decoder, without embeddings.
    Params(f64),
    /// Time of a recording.
    Latency {
        /// Seconds.
        secs: f64,
        /// U: tokens that are written in it.
        n_tokens: f64,
    },
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Params(params) => write!(f, "{} parameters", count(*params)),
            Self::Latency { secs, n_tokens } => write!(f, "{:.1} ms for {n_tokens:.0} tokens", 1e3 * secs),
        }
    }
}

/// `c_e N_e + c_d N_d ≤ available`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Constraint {
    /// c: of a parameter of the encoder, and of the decoder.
    pub costs: [f64; 2],
    pub available: f64,
}

impl Constraint {
    /// What a budget leaves for sizes.
    ///
    /// # Errors
    /// A latency without times, or one that is used up before there is a model.
    pub(super) fn of(budget: Budget, latency: Option<&Latency>) -> Result<Self, Error> {
        let refuse = |message: String| Error::Budget { budget: budget.to_string(), message };
        let (secs, n_tokens) = match budget {
            Budget::Params(available) if available.is_finite() && available > 0.0 => {
                return Ok(Self { costs: [1.0, 1.0], available });
            }
            Budget::Latency { secs, n_tokens } if secs > 0.0 && n_tokens > 0.0 => (secs, n_tokens),
            _ => return Err(refuse("budgets are positive and finite".to_owned())),
        };
        let Some(latency) = latency else {
            let message = "the runs have no times (encoder_secs, token_secs, audio_secs); time them, or give parameters";
            return Err(refuse(message.to_owned()));
        };
        let fixed_secs = latency.secs([0.0, 0.0], n_tokens);
        if secs <= fixed_secs {
            let message = format!(
                "{:.1} ms are gone before the first layer: features, embedding, logits, search",
                1e3 * fixed_secs
            );
            return Err(refuse(message));
        }
        let costs =
            [latency.encoder_secs.slope, latency.listen_secs.slope + n_tokens * latency.token_secs.slope];
        if costs[1] <= 0.0 {
            return Err(Error::Latency("a larger decoder is not slower; measure again".to_owned()));
        }
        Ok(Self { costs, available: secs - fixed_secs })
    }

    /// What sizes cost.
    pub(super) fn cost(&self, sizes: [f64; 2]) -> f64 {
        self.costs[0] * sizes[0] + self.costs[1] * sizes[1]
    }

    /// Sizes at which the encoder takes this share of the budget.
    pub(super) fn sizes(&self, encoder_share: f64) -> [f64; 2] {
        [
            encoder_share * self.available / self.costs[0],
            (1.0 - encoder_share) * self.available / self.costs[1],
        ]
    }

    /// Encoder and decoder of equal size.
    pub(super) fn balanced(&self) -> [f64; 2] {
        [self.available / (self.costs[0] + self.costs[1]); 2]
    }
}

/// The encoder's share of a budget at the optimum, `p_e / (p_e + p_d)`; None where neither size changes the loss. With Lagrange:
/// at the optimum the loss falls by as much for a second, or a parameter, in either stack.
pub(super) fn best_share(law: &Law<2>) -> Option<f64> {
    let [encoder, decoder] = law.exponents;
    (encoder + decoder > 0.0).then(|| encoder / (encoder + decoder))
}

/// A model in whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shape {
    /// Blocks of the encoder.
    pub encoder_layers: usize,
    /// Blocks of the decoder.
    pub decoder_layers: usize,
    /// N_e.
    pub encoder_params: f64,
    /// N_d.
    pub decoder_params: f64,
    /// What the law says that it loses.
    pub loss: f64,
}

impl Shape {
    pub(super) fn sizes(&self) -> [f64; 2] {
        [self.encoder_params, self.decoder_params]
    }
}

/// The best of all depths that a budget has room for: for each encoder the deepest decoder beside it.
///
/// # Errors
/// A budget smaller than a block each, or so large that depth alone cannot be the answer.
pub(super) fn best_depths(
    law: &Law<2>,
    depths: &Depths,
    constraint: &Constraint,
    budget: Budget,
) -> Result<Shape, Error> {
    let refuse = |message: String| Error::Budget { budget: budget.to_string(), message };
    let smallest = constraint.cost([depths.encoder.at(1.0), depths.decoder.at(1.0)]);
    if smallest > constraint.available {
        let message = match budget {
            Budget::Params(_) => {
                format!("is less than a layer each, which have {} parameters", count(smallest))
            }
            Budget::Latency { secs, .. } => {
                let least_secs = secs - constraint.available + smallest;
                format!("is less than a layer each, which take {:.1} ms", 1e3 * least_secs)
            }
        };
        return Err(refuse(message));
    }
    let room = |stack: usize, other: f64| {
        let line = [depths.encoder, depths.decoder][stack];
        let left = constraint.available - constraint.costs[1 - stack] * other;
        // A rounding error is no reason to leave out a block that just fits.
        ((left / constraint.costs[stack] * (1.0 + 1e-12) - line.fixed) / line.slope).floor()
    };
    let most = room(0, depths.decoder.at(1.0));
    if most.max(room(1, depths.encoder.at(1.0))) > MAX_LAYERS as f64 {
        return Err(refuse(format!(
            "has room for more than {MAX_LAYERS} layers of this width; give a smaller one, or plan with a wider model.d_model"
        )));
    }
    let shape = |encoder_layers: usize| {
        let encoder_params = depths.encoder.at(encoder_layers as f64).round();
        let decoder_layers = room(1, encoder_params).max(1.0) as usize;
        let decoder_params = depths.decoder.at(decoder_layers as f64).round();
        let loss = law.loss([encoder_params, decoder_params]);
        Shape { encoder_layers, decoder_layers, encoder_params, decoder_params, loss }
    };
    let first = shape(1);
    let others = (2..=most as usize).map(shape);
    // Of equals the first: its encoder is the smaller.
    Ok(others.fold(first, |best, next| if next.loss < best.loss { next } else { best }))
}
