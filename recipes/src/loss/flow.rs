//! What a model that speaks learns: to carry noise to speech (Lipman et al., arXiv 2210.02747; methods, 2.3), at once if it is to (Boffi et
//! al., arXiv 2505.18825: Lagrangian self-distillation; methods, 2.4), and beside it where it is in its text and when it is done.

use candle_core::Tensor;
use models::flow_lm::Noise;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Half the way over which a change in time is measured: the fastest of the waves that tell a time turns by half a radian in it.
const TIME_STEP: f32 = 5e-4;
/// Noise and times of what is learnt as it is, and of what is learnt from itself.
const PLACES: [u64; 4] = [0, 1, 2, 3];

/// `[loss.flow]`. `defaults.toml` says what each key does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// How much it counts; 0 turns it off.
    pub weight: f64,
    /// Draws of noise and time for each patch.
    pub draws: usize,
    /// Draws of them from which the flow map is learnt.
    pub map_draws: usize,
    /// Of whether a patch is the last one.
    pub end_weight: f64,
    /// Of how many symbols a patch passes over.
    pub advance_weight: f64,
    /// Of which frame says which symbol.
    pub alignment_weight: f64,
}

/// A velocity field of rows: `x` (N, patch), times from and to (N), and which patch each row is of (N).
pub type Velocity<'a> = dyn Fn(&Tensor, [&[f32]; 2], &[u32]) -> candle_core::Result<Tensor> + 'a;

impl Flow {
    /// Sums over patches (N, patch) of the squared error of the velocity, a mean over draws and numbers: of the flow, and of its map where
    /// that is learnt. Each patch has noise of its own; `learner` tracks gradients, and `teacher` is the same without.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn sums(
        &self,
        speech: &Tensor,
        noise: &[Noise],
        learner: &Velocity<'_>,
        teacher: &Velocity<'_>,
    ) -> Result<(Tensor, Option<Tensor>), Error> {
        let n_direct = self.draws - self.map_draws;
        let [direct, direct_times, mapped, mapped_times] = PLACES;
        let rows = Rows::new(speech, n_direct, noise, direct)?;
        let times: Vec<f32> =
            rows.places(noise, direct_times).map(|(noise, draw)| noise.uniform(draw)).collect();
        let velocity = learner(&rows.at(&times)?, [&times, &times], &rows.patches)?;
        let flow = mean_error(&velocity, &(&rows.speech - &rows.noise)?, n_direct)?;
        if self.map_draws == 0 {
            return Ok((flow, None));
        }

        let rows = Rows::new(speech, self.map_draws, noise, mapped)?;
        let pair = |(noise, draw): (Noise, u64)| {
            let (a, b) = (noise.uniform(2 * draw), noise.uniform(2 * draw + 1));
            (a.min(b), a.max(b))
        };
        let (from, to): (Vec<f32>, Vec<f32>) = rows.places(noise, mapped_times).map(pair).unzip();
        let x = rows.at(&from)?;
        let at = |shift: f32| {
            let to: Vec<f32> = to.iter().map(|to| to + shift).collect();
            learner(&x, [&from, &to], &rows.patches)
        };
        let (later, earlier) = (at(TIME_STEP)?, at(-TIME_STEP)?);
        let mean = ((&later + &earlier)? * 0.5)?;
        let change = ((later - earlier)? * (0.5 / f64::from(TIME_STEP)))?;
        let ways: Vec<f32> = from.iter().zip(&to).map(|(from, to)| to - from).collect();
        let ways = Tensor::from_vec(ways, (rows.n, 1), speech.device())?;
        // How the end of the way moves when it ends later, and how the flow moves there.
        let moves = (&mean + change.broadcast_mul(&ways)?)?;
        let end = (&x + mean.detach().broadcast_mul(&ways)?)?;
        let flow_there = teacher(&end, [&to, &to], &rows.patches)?.detach();
        Ok((flow, Some(mean_error(&moves, &flow_there, self.map_draws)?)))
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, message: String| Err(Error::config(format!("loss.flow.{key}"), message));
        if !(1..=64).contains(&self.draws) {
            return refuse("draws", format!("{} is not between 1 and 64", self.draws));
        }
        if self.map_draws >= self.draws {
            let message =
                format!("{} leaves none of {} to learn the flow itself", self.map_draws, self.draws);
            return refuse("map_draws", message);
        }
        for (key, weight) in [
            ("end_weight", self.end_weight),
            ("advance_weight", self.advance_weight),
            ("alignment_weight", self.alignment_weight),
        ] {
            // Without one of them a voice would not know where it is, or never be silent.
            if !(weight.is_finite() && weight > 0.0) {
                return refuse(key, format!("{weight} is not a number above 0"));
            }
        }
        Ok(())
    }
}

/// Patches, each several times with noise of its own.
struct Rows {
    n: usize,
    draws: usize,
    speech: Tensor, // (N draws, patch)
    noise: Tensor,  // (N draws, patch)
    /// Which patch each row is of.
    patches: Vec<u32>,
}

impl Rows {
    fn new(speech: &Tensor, draws: usize, noise: &[Noise], place: u64) -> candle_core::Result<Self> {
        let (n_patches, size) = speech.dims2()?;
        if noise.len() != n_patches {
            candle_core::bail!("noise for {} of {n_patches} patches", noise.len())
        }
        let n = n_patches * draws;
        let patches: Vec<u32> = (0..n_patches as u32).flat_map(|patch| vec![patch; draws]).collect();
        let mut values = vec![0f32; n * size];
        values.par_chunks_mut(size.max(1)).enumerate().for_each(|(row, values)| {
            let noise = noise[row / draws].at(place).at((row % draws) as u64);
            noise.fill_normal(1.0, values);
        });
        let ids = Tensor::from_slice(&patches, n, speech.device())?;
        Ok(Self {
            n,
            draws,
            speech: speech.index_select(&ids, 0)?,
            noise: Tensor::from_vec(values, (n, size), speech.device())?,
            patches,
        })
    }

    /// The noise of each row's patch at a place, and which draw of it the row is.
    fn places<'a>(&self, noise: &'a [Noise], place: u64) -> impl Iterator<Item = (Noise, u64)> + use<'a> {
        let draws = self.draws as u64;
        noise.iter().flat_map(move |noise| (0..draws).map(move |draw| (noise.at(place), draw)))
    }

    /// On the straight way from noise to speech.
    fn at(&self, times: &[f32]) -> candle_core::Result<Tensor> {
        let times = Tensor::from_slice(times, (self.n, 1), self.speech.device())?;
        &self.noise + (&self.speech - &self.noise)?.broadcast_mul(&times)?
    }
}

/// Squared errors, a mean over numbers and draws, summed over patches.
fn mean_error(velocity: &Tensor, target: &Tensor, draws: usize) -> candle_core::Result<Tensor> {
    let size = target.dim(1)?;
    (velocity - target)?.sqr()?.sum_all()? / (draws * size) as f64
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn flow(map_draws: usize) -> Flow {
        Flow { weight: 1.0, draws: 4, map_draws, end_weight: 0.1, advance_weight: 0.1, alignment_weight: 0.1 }
    }

    fn normal(n: usize, std: f32) -> candle_core::Result<Tensor> {
        let mut values = vec![0f32; n];
        Noise::new(9).fill_normal(std, &mut values);
        Tensor::from_vec(values, (n, 1), &Device::Cpu)
    }

    fn noise(seed: u64, n: u64) -> Vec<Noise> {
        (0..n).map(|patch| Noise::new(seed).at(patch)).collect()
    }

    /// Rows (N, 1) of what a number of each row is.
    fn column(times: &[f32], value: impl Fn(f64) -> f64) -> candle_core::Result<Tensor> {
        let values: Vec<f32> = times.iter().map(|time| value(f64::from(*time)) as f32).collect();
        Tensor::from_vec(values, (times.len(), 1), &Device::Cpu)
    }

    /// The best mean velocity from N(0, 1) to N(0, std^2) between two times: methods, 2.3.
    fn best(x: &Tensor, [from, to]: [&[f32]; 2], std: f64) -> candle_core::Result<Tensor> {
        let variance = |t: f64| (1.0 - t).powi(2) + t * t * std * std;
        let slopes: Vec<f32> = from
            .iter()
            .zip(to)
            .map(|(from, to)| {
                let (s, t) = (f64::from(*from), f64::from(*to));
                let slope = match (t - s).abs() < 1e-9 {
                    true => (t * std * std - (1.0 - t)) / variance(t),
                    false => ((variance(t) / variance(s)).sqrt() - 1.0) / (t - s),
                };
                slope as f32
            })
            .collect();
        x.broadcast_mul(&Tensor::from_vec(slopes, (from.len(), 1), &Device::Cpu)?)
    }

    #[test]
    fn the_best_velocity_reaches_the_known_floor_and_its_map_costs_nothing() -> Result<(), Error> {
        for std in [1.0, 0.5] {
            let n = 20_000;
            let speech = normal(n, std as f32)?;
            let velocity = |x: &Tensor, times: [&[f32]; 2], _: &[u32]| best(x, times, std);
            let (flow, map) = flow(1).sums(&speech, &noise(1, n as u64), &velocity, &velocity)?;
            let (flow, map) = (flow.to_scalar::<f32>()?, map.expect("a map").to_scalar::<f32>()?);
            let floor = std::f64::consts::PI * std / 2.0;
            assert!((f64::from(flow) / n as f64 - floor).abs() < 0.02 * floor, "{std}: {flow}");
            assert!(map / (n as f32) < 1e-3, "{std}: {map}");
            // A velocity that is not the best one costs more.
            let worse = |x: &Tensor, times: [&[f32]; 2], _: &[u32]| best(x, times, std)? + 0.3;
            let (flow, _) = self::flow(1).sums(&speech, &noise(1, n as u64), &worse, &worse)?;
            assert!((f64::from(flow.to_scalar::<f32>()?) / n as f64 - floor - 0.09).abs() < 0.03 * floor);
        }
        Ok(())
    }

    #[test]
    fn a_learnt_map_says_a_gaussian_in_one_step() -> Result<(), Error> {
        // F = x times a polynomial of s and t, fitted by descent.
        const POWERS: usize = 5;
        let std = 0.5;
        let weights = Var::zeros((POWERS * POWERS, 1), candle_core::DType::F32, &Device::Cpu)?;
        let features = |[from, to]: [&[f32]; 2]| {
            let mut columns = Vec::new();
            for i in 0..POWERS {
                for j in 0..POWERS {
                    let from = column(from, |s| (2.0 * s - 1.0).powi(i as i32))?;
                    columns.push((from * column(to, |t| (2.0 * t - 1.0).powi(j as i32))?)?);
                }
            }
            Tensor::cat(&columns, 1)
        };
        let field = |x: &Tensor, times: [&[f32]; 2], _: &[u32]| x * features(times)?.matmul(&weights)?;
        let mut moments = [Tensor::zeros_like(&weights)?, Tensor::zeros_like(&weights)?];
        let flow = Flow { draws: 2, ..flow(1) };
        for step in 0..1500u64 {
            let mut values = vec![0f32; 256];
            Noise::new(4).at(step).fill_normal(std as f32, &mut values);
            let speech = Tensor::from_vec(values, (256, 1), &Device::Cpu)?;
            let (direct, map) = flow.sums(&speech, &noise(5 + step, 256), &field, &field)?;
            let loss = ((direct + map.expect("a map"))? / 256.0)?;
            let gradients = loss.backward()?;
            let gradient = gradients.get(&weights).expect("a gradient");
            // Adam: powers differ much in how steep they are.
            moments[0] = ((&moments[0] * 0.9)? + (gradient * 0.1)?)?;
            moments[1] = ((&moments[1] * 0.99)? + (gradient.sqr()? * 0.01)?)?;
            let bias = 1.0 - 0.99f64.powi(step as i32 + 1);
            let rate = 0.03 * (1.0 - step as f64 / 1500.0);
            let update = (&moments[0] / ((&moments[1] / bias)?.sqrt()? + 1e-8)?)?;
            weights.set(&(weights.as_tensor() - (update * rate)?)?)?;
        }
        let n = 20_000;
        let noise = normal(n, 1.0)?;
        let spread = |x: &Tensor| -> Result<f64, Error> {
            Ok(f64::from((x.sqr()?.sum_all()?.to_scalar::<f32>()? / n as f32).sqrt()))
        };
        let (from, to) = (vec![0f32; n], vec![1f32; n]);
        let said = (&noise + field(&noise, [&from, &to], &[])?)?;
        let share = spread(&said)? / spread(&noise)?;
        assert!((share - std).abs() < 0.03 * std, "one step of the map: {share}");
        let plain = (&noise + field(&noise, [&from, &from], &[])?)?;
        assert!(spread(&plain)? < 0.15, "one step of the flow itself: {}", spread(&plain)?);
        // In two steps it goes where it goes in one.
        let half = vec![0.5f32; n];
        let middle = (&noise + (field(&noise, [&from, &half], &[])? * 0.5)?)?;
        let twice = (&middle + (field(&middle, [&half, &to], &[])? * 0.5)?)?;
        assert!(spread(&(twice - said)?)? < 0.03);
        Ok(())
    }

    #[test]
    fn mistakes_name_their_key() {
        for (flow, key) in [
            (Flow { draws: 0, ..flow(0) }, "loss.flow.draws"),
            (flow(4), "loss.flow.map_draws"),
            (Flow { end_weight: 0.0, ..flow(0) }, "loss.flow.end_weight"),
            (Flow { advance_weight: f64::NAN, ..flow(0) }, "loss.flow.advance_weight"),
            (Flow { alignment_weight: -1.0, ..flow(0) }, "loss.flow.alignment_weight"),
        ] {
            let message = flow.check().expect_err(key).to_string();
            assert!(message.contains(key), "{message}");
        }
        assert!(flow(1).check().is_ok());
    }
}
