//! What it costs to move the states of a recording onto those of its text (Le et al., arXiv 2301.11716): an encoder of speech that
//! learns to hear like one that reads leaves less for a translation to learn.

use candle_core::{D, Tensor};
use models::kernels::{Distance, PairCost, Transport};
use models::nn::{TransportRows, optimal_transport};
use serde::{Deserialize, Serialize};

use crate::Error;

/// `[loss.optimal_transport]`. `defaults.toml` says what each key does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimalTransport {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
    /// Of the distance between states, 1 or 2.
    pub power: u8,
    /// How near states have to be not to be told apart.
    pub blur: f64,
    /// By what the blur falls from step to step.
    pub scaling: f64,
    /// How far a state is moved at most; 0 moves all.
    pub reach: f64,
    /// Whether what both sides cost with themselves is taken off.
    pub debias: bool,
    /// Weight of where in its sequence a state lies.
    pub position_weight: f64,
    /// Whether states are brought to a length of 1 first.
    pub normalise: bool,
    /// Whether the encoder of texts stays as it is.
    pub freeze_text: bool,
}

impl OptimalTransport {
    /// Whether the encoder of texts learns.
    pub fn trains_text(&self) -> bool {
        self.weight > 0.0 && !self.freeze_text
    }

    /// The sum over utterances, given states of speech (B, T, D) and of text (B, U, D), and what was found of each.
    ///
    /// # Errors
    /// States that are no finite numbers, lengths that do not fit.
    pub fn sum(
        &self,
        speech: &Tensor,
        text: &Tensor,
        rows: &TransportRows,
    ) -> Result<(Tensor, Vec<PairCost>), Error> {
        let transport = Transport {
            distance: if self.power == 1 { Distance::Euclidean } else { Distance::HalfSquared },
            blur: self.blur,
            scaling: self.scaling,
            reach: (self.reach > 0.0).then_some(self.reach),
            debiased: self.debias,
            position_weight: self.position_weight,
        };
        Ok(match self.normalise {
            true => optimal_transport(&of_length_1(speech)?, &of_length_1(text)?, rows, transport)?,
            false => optimal_transport(speech, text, rows, transport)?,
        })
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), Error> {
        let refuse =
            |key: &str, message: String| Err(Error::config(format!("loss.optimal_transport.{key}"), message));
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        if !matches!(self.power, 1 | 2) {
            return refuse("power", format!("{} is neither 1 nor 2", self.power));
        }
        if !is_positive(self.blur) {
            return refuse("blur", format!("{} is not a number above 0", self.blur));
        }
        if !(is_positive(self.scaling) && self.scaling < 1.0) {
            return refuse("scaling", format!("{} does not lie between 0 and 1", self.scaling));
        }
        for (key, value) in [("reach", self.reach), ("position_weight", self.position_weight)] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, format!("{value} is not a number from 0 on"));
            }
        }
        Ok(())
    }
}

/// (.., D) over its length; what is 0 stays so.
fn of_length_1(x: &Tensor) -> Result<Tensor, Error> {
    let lengths = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    Ok(x.broadcast_div(&lengths)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn settings() -> OptimalTransport {
        OptimalTransport {
            weight: 1.0,
            power: 2,
            blur: 0.05,
            scaling: 0.5,
            reach: 0.0,
            debias: true,
            position_weight: 0.0,
            normalise: false,
            freeze_text: false,
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let usual = settings();
        usual.check().expect("sense");
        for (key, broken) in [
            ("power", OptimalTransport { power: 3, ..usual.clone() }),
            ("blur", OptimalTransport { blur: 0.0, ..usual.clone() }),
            ("scaling", OptimalTransport { scaling: 1.0, ..usual.clone() }),
            ("reach", OptimalTransport { reach: -1.0, ..usual.clone() }),
            ("position_weight", OptimalTransport { position_weight: f64::NAN, ..usual.clone() }),
        ] {
            let message = broken.check().expect_err("refused").to_string();
            assert!(message.contains(&format!("loss.optimal_transport.{key}")), "{message}");
        }
    }

    /// States that differ in length alone are the same once they are normalised, and both sides have gradients.
    #[test]
    fn states_of_length_1_differ_in_direction_alone() {
        let of = |values: &[f32]| {
            let tensor = Tensor::from_slice(values, (1, 2, 2), &Device::Cpu).expect("a tensor");
            Var::from_tensor(&tensor).expect("a variable")
        };
        let (x, y) = (of(&[3.0, 4.0, 0.0, 2.0]), of(&[0.3, 0.4, 0.0, 7.0]));
        let rows = TransportRows { lengths: vec![2], other_lengths: vec![2], weights: vec![1.0] };
        let normalised = OptimalTransport { normalise: true, ..settings() };
        let (sum, _) = normalised.sum(&x, &y, &rows).expect("a sum");
        assert!(sum.to_scalar::<f32>().expect("a number").abs() < 1e-6);
        let (sum, pairs) = settings().sum(&x, &y, &rows).expect("a sum");
        assert!(sum.to_scalar::<f32>().expect("a number") > 1.0 && pairs.len() == 1);
        let gradients = sum.backward().expect("gradients");
        assert!(gradients.get(&x).is_some() && gradients.get(&y).is_some());
    }
}
