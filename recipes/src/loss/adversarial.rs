//! Discriminators tell sound that was made from sound that was recorded, and a vocoder learns to leave them nothing to tell by (Kong et al.
//! 2020, HiFi-GAN), with the hinge loss of Vocos.

use candle_core::Tensor;
use models::nn::absolute_difference;
use serde::{Deserialize, Serialize};

use crate::Error;

/// `[loss.adversarial]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
    /// How much more what discriminators see of sound counts than what they say.
    pub feature_scale: f64,
    /// The share of a run's updates after which discriminators begin.
    pub begin: f64,
    /// Their learning rate, always the same; 0 is that of the vocoder.
    pub learning_rate: f64,
    /// Distances between the samples that discriminators look at, one each.
    pub periods: Vec<usize>,
    /// Samples of the windows whose spectra discriminators look at, one each.
    pub n_fft: Vec<usize>,
    /// Channels of their first layers.
    pub channels: usize,
}

/// What a discriminator says of some sound.
pub struct Verdict {
    /// Above 0 where it takes it for recorded.
    pub scores: Tensor,
    /// What each of its layers sees.
    pub features: Vec<Tensor>,
}

impl Adversarial {
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse =
            |key: &str, message: String| Err(Error::config(format!("loss.adversarial.{key}"), message));
        if !(0.0..1.0).contains(&self.begin) {
            return refuse("begin", format!("{} is not from 0 to below 1", self.begin));
        }
        if !(self.learning_rate.is_finite() && self.learning_rate >= 0.0) {
            return refuse("learning_rate", format!("{} is not a number from 0 on", self.learning_rate));
        }
        if !(self.feature_scale.is_finite() && self.feature_scale >= 0.0) {
            return refuse("feature_scale", format!("{} is not a number from 0 on", self.feature_scale));
        }
        if !(1..=512).contains(&self.channels) {
            return refuse("channels", format!("{} is not between 1 and 512", self.channels));
        }
        if let Some(period) = self.periods.iter().find(|period| !(1..=256).contains(*period)) {
            return refuse("periods", format!("{period} is not between 1 and 256"));
        }
        if let Some(n) = self.n_fft.iter().find(|n| !(16..=1 << 14).contains(*n) || !n.is_multiple_of(4)) {
            return refuse("n_fft", format!("{n} is not a multiple of 4 from 16 to {}", 1 << 14));
        }
        if self.weight > 0.0 && self.periods.is_empty() && self.n_fft.is_empty() {
            return refuse("periods", "and n_fft name no discriminator".to_owned());
        }
        Ok(())
    }

    /// What discriminators are to make less of: `max(0, 1 - recorded) + max(0, 1 + made)`, a mean over each one's scores and over
    /// discriminators.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn discriminators_loss(&self, recorded: &[Verdict], made: &[Verdict]) -> Result<Tensor, Error> {
        let losses = recorded.iter().zip(made).map(|(recorded, made)| {
            let recorded = (1.0 - &recorded.scores)?.relu()?.mean_all()?;
            recorded + (1.0 + &made.scores)?.relu()?.mean_all()?
        });
        mean(&losses.collect::<candle_core::Result<Vec<_>>>()?)
    }

    /// What a vocoder is to make less of: `max(0, 1 - made)`, likewise.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn vocoder_loss(&self, made: &[Verdict]) -> Result<Tensor, Error> {
        let losses = made.iter().map(|made| (1.0 - &made.scores)?.relu()?.mean_all());
        mean(&losses.collect::<candle_core::Result<Vec<_>>>()?)
    }

    /// How far apart made and recorded sound are in what layers see of them: the mean absolute difference, a mean over layers and
    /// discriminators. Recorded sound is taken as it is.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn feature_loss(&self, recorded: &[Verdict], made: &[Verdict]) -> Result<Tensor, Error> {
        let pairs = recorded.iter().zip(made).flat_map(|(a, b)| a.features.iter().zip(&b.features));
        let losses = pairs
            .map(|(recorded, made)| absolute_difference(made, recorded)? / made.elem_count().max(1) as f64);
        mean(&losses.collect::<candle_core::Result<Vec<_>>>()?)
    }
}

fn mean(losses: &[Tensor]) -> Result<Tensor, Error> {
    if losses.is_empty() {
        return Err(Error::config("loss.adversarial.periods", "and n_fft name no discriminator"));
    }
    Ok(Tensor::stack(losses, 0)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn verdict(scores: &[f32], seen: &[f32]) -> Verdict {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        Verdict { scores: tensor(scores), features: vec![tensor(seen)] }
    }

    #[test]
    fn losses_are_those_that_are_computed_by_hand() {
        let loss = Adversarial {
            weight: 1.0,
            feature_scale: 1.0,
            begin: 0.5,
            learning_rate: 0.0,
            periods: vec![2],
            n_fft: Vec::new(),
            channels: 4,
        };
        let recorded = [verdict(&[2.0, 0.5], &[1.0, 0.0]), verdict(&[-1.0], &[0.0])];
        let made = [verdict(&[-2.0, 0.0], &[0.0, 0.5]), verdict(&[1.0], &[3.0])];
        let value = |loss: Result<Tensor, Error>| loss.unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(value(loss.discriminators_loss(&recorded, &made)), (0.25 + 0.5 + 2.0 + 2.0) / 2.0);
        assert_eq!(value(loss.vocoder_loss(&made)), (2.0 + 0.0) / 2.0);
        assert_eq!(value(loss.feature_loss(&recorded, &made)), (0.75 + 3.0) / 2.0);
        assert!(loss.check().is_ok());
        for wrong in [
            Adversarial { begin: 1.0, ..loss.clone() },
            Adversarial { learning_rate: f64::NAN, ..loss.clone() },
            Adversarial { channels: 0, ..loss.clone() },
            Adversarial { periods: vec![0], ..loss.clone() },
            Adversarial { n_fft: vec![17], ..loss.clone() },
            Adversarial { periods: Vec::new(), ..loss.clone() },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
