//! AdamW with parameter groups, whose moments are kept by name so that they can be saved; and the gradients that it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use models::nn::{Moments, adamw_step, squared_norm};
use serde::{Deserialize, Serialize};

use crate::Error;

/// How weights follow gradients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Decay of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Parameters whose name holds one of these do not decay.
    pub no_decay: Vec<String>,
    /// Gradients are scaled down to this global norm; 0 leaves them.
    pub clip_norm: f64,
    /// Parameters that learn at their own pace; the first group whose prefix fits counts.
    pub groups: Vec<GroupConfig>,
}

/// Parameters that learn at their own pace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// How their names begin.
    pub prefix: String,
    /// Their learning rate as a share of everybody's.
    pub rate_scale: f64,
}

impl OptimizerConfig {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, message: String| Err(Error::config(format!("optimizer.{key}"), message));
        let (first, second) = self.betas;
        if ![first, second].iter().all(|beta| (0.0..1.0).contains(beta)) {
            return refuse("betas", format!("{:?} are not both between 0 and 1", self.betas));
        }
        for (key, value) in
            [("epsilon", self.epsilon), ("weight_decay", self.weight_decay), ("clip_norm", self.clip_norm)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, format!("{value} is not a number from 0 on"));
            }
        }
        match self.groups.iter().find(|group| !(group.rate_scale.is_finite() && group.rate_scale >= 0.0)) {
            Some(group) => {
                refuse("groups", format!("{}: a rate_scale of {} is below 0", group.prefix, group.rate_scale))
            }
            None => Ok(()),
        }
    }
}

/// Sums of gradients, one for each parameter, in the parameters' order.
#[derive(Debug)]
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// What a backward pass found.
    pub fn found(found: &mut GradStore, vars: &[(String, Var)]) -> Self {
        Self(vars.iter().map(|(_, var)| found.remove(var)).collect())
    }

    /// Adds others of the same parameters.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn add(&mut self, others: Self) -> candle_core::Result<()> {
        for (sum, other) in self.0.iter_mut().zip(others.0) {
            let Some(gradient) = other else { continue };
            *sum = Some(match sum.take() {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            });
        }
        Ok(())
    }

    /// No gradients yet.
    pub fn none(n_vars: usize) -> Self {
        Self((0..n_vars).map(|_| None).collect())
    }

    /// The parameters, by their place, that no gradient reached.
    #[cfg(test)]
    pub(crate) fn missing(&self) -> Vec<usize> {
        self.0.iter().enumerate().filter(|(_, gradient)| gradient.is_none()).map(|(place, _)| place).collect()
    }

    /// Euclidean norm of all of them together, added up in the order of the parameters: the same on every machine.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn norm(&self) -> candle_core::Result<f64> {
        let squares = self.0.iter().flatten().map(squared_norm).collect::<candle_core::Result<Vec<f64>>>()?;
        Ok(squares.iter().sum::<f64>().sqrt())
    }
}

/// The optimiser: parameters, and what it remembers of each.
pub struct AdamW {
    config: OptimizerConfig,
    vars: Vec<(String, Var)>,
    /// In the parameters' order.
    memory: Vec<Memory>,
}

/// Some of how names begin, for whoever misspelt one.
fn beginnings(vars: &[(String, Var)]) -> String {
    const N_SHOWN: usize = 8;
    let cut = |name: &str| match name.match_indices('.').nth(1) {
        Some((end, _)) => name[..=end].to_owned(),
        None => name.to_owned(),
    };
    let all: BTreeSet<String> = vars.iter().map(|(name, _)| cut(name)).collect();
    let more = if all.len() > N_SHOWN { ", ..." } else { "" };
    all.into_iter().take(N_SHOWN).collect::<Vec<_>>().join(", ") + more
}

/// What is remembered of a parameter, and how it learns.
struct Memory {
    moments: Moments,
    rate_scale: f64,
    decays: bool,
}

impl AdamW {
    /// An optimiser of these parameters, which remembers nothing yet.
    ///
    /// # Errors
    /// A configuration that makes no sense, a group of none of these parameters.
    pub fn new(config: &OptimizerConfig, vars: Vec<(String, Var)>) -> Result<Self, Error> {
        config.check()?;
        // Parts of `no_decay` may be of no parameter: the usual ones are none of lora's.
        let has = |prefix: &str| vars.iter().any(|(name, _)| name.starts_with(prefix));
        if let Some(GroupConfig { prefix, .. }) = config.groups.iter().find(|group| !has(&group.prefix)) {
            let message = format!(
                "no parameter that is trained begins with `{prefix}`; there are {}",
                beginnings(&vars)
            );
            return Err(Error::config("optimizer.groups", message));
        }
        let remember = |(name, var): &(String, Var)| {
            let group = config.groups.iter().find(|group| name.starts_with(&group.prefix));
            Ok(Memory {
                moments: Moments::zeros(var)?,
                rate_scale: group.map_or(1.0, |group| group.rate_scale),
                decays: !config.no_decay.iter().any(|part| name.contains(part)),
            })
        };
        let memory = vars.iter().map(remember).collect::<Result<_, Error>>()?;
        Ok(Self { config: config.clone(), vars, memory })
    }

    /// The parameters, in order of name.
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// Makes update `step`, from 1 on, at this rate. Parameters without a gradient stay.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn step(
        &mut self,
        gradients: &Gradients,
        gradient_scale: f64,
        step: u64,
        rate: f64,
    ) -> Result<(), Error> {
        let (beta1, beta2) = self.config.betas;
        for ((gradient, (_, var)), group) in gradients.0.iter().zip(&self.vars).zip(&mut self.memory) {
            let Some(gradient) = gradient else { continue };
            let adamw = models::nn::AdamW {
                learning_rate: rate * group.rate_scale,
                beta1,
                beta2,
                eps: self.config.epsilon,
                weight_decay: if group.decays { self.config.weight_decay } else { 0.0 },
                step,
                gradient_scale,
            };
            adamw_step(var, gradient, &mut group.moments, &adamw)?;
        }
        Ok(())
    }

    /// Writes the moments.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut tensors = BTreeMap::new();
        for ((name, _), Memory { moments, .. }) in self.vars.iter().zip(&self.memory) {
            tensors.insert(format!("first.{name}"), &moments.first);
            tensors.insert(format!("second.{name}"), &moments.second);
        }
        safetensors::serialize_to_file(tensors, None, path).map_err(|error| Error::file(path, error))
    }

    /// Reads what [`AdamW::save`] wrote.
    ///
    /// # Errors
    /// A file of other parameters.
    pub fn load(&mut self, path: &Path) -> Result<(), Error> {
        let mut tensors =
            candle_core::safetensors::load(path, &Device::Cpu).map_err(|error| Error::file(path, error))?;
        for ((name, var), Memory { moments, .. }) in self.vars.iter().zip(&mut self.memory) {
            for (kind, moment) in [("first", &mut moments.first), ("second", &mut moments.second)] {
                let key = format!("{kind}.{name}");
                let tensor = tensors.remove(&key).filter(|tensor| tensor.shape() == var.shape());
                let tensor = tensor
                    .ok_or_else(|| Error::file(path, format!("has no `{key}` of shape {:?}", var.shape())))?;
                *moment = tensor.to_device(var.device())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> OptimizerConfig {
        OptimizerConfig {
            learning_rate: 1.0,
            betas: (0.5, 0.75),
            epsilon: 2.0,
            weight_decay: 0.25,
            no_decay: vec!["bias".to_owned()],
            clip_norm: 0.0,
            groups: Vec::new(),
        }
    }

    fn group(prefix: &str, rate_scale: f64) -> GroupConfig {
        GroupConfig { prefix: prefix.to_owned(), rate_scale }
    }

    fn vars(names: &[&str]) -> candle_core::Result<Vec<(String, Var)>> {
        names.iter().map(|name| Ok(((*name).to_owned(), Var::new(&[1.0f32], &Device::Cpu)?))).collect()
    }

    fn gradients(values: &[Option<f32>]) -> candle_core::Result<Gradients> {
        let tensor = |value: &Option<f32>| value.map(|value| Tensor::new(&[value], &Device::Cpu)).transpose();
        Ok(Gradients(values.iter().map(tensor).collect::<candle_core::Result<_>>()?))
    }

    #[track_caller]
    fn assert_values(optimizer: &AdamW, expected: &[f32]) {
        let values: Vec<f32> =
            optimizer.vars().iter().flat_map(|(_, var)| var.to_vec1().expect("numbers")).collect();
        let is_close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
        assert!(
            values.len() == expected.len() && values.iter().zip(expected).all(is_close),
            "{values:?}, not {expected:?}"
        );
    }

    /// By hand. Gradients 2 and then -2: corrected first moments 2 and -2/3, roots of the corrected second moments 2 and 2, so
    /// that the steps are 1/2 and -1/6 of the rate; weights first shrink by a quarter of it.
    #[test]
    fn two_updates_are_those_that_are_computed_by_hand() -> Result<(), Error> {
        let groups = vec![group("encoder.", 0.5), group("encoder.weight", 100.0)];
        let names = ["bias", "encoder.bias", "encoder.weight", "weight", "without"];
        let mut optimizer = AdamW::new(&OptimizerConfig { groups, ..config() }, vars(&names)?)?;
        let g = Some(4.0);
        optimizer.step(&gradients(&[g, g, g, g, None])?, 0.5, 1, 0.5)?;
        assert_values(&optimizer, &[0.75, 0.875, 0.8125, 0.625, 1.0]);
        let g = Some(-4.0);
        optimizer.step(&gradients(&[g, g, g, g, None])?, 0.5, 2, 0.5)?;
        let (whole, half) = (0.5 / 6.0, 0.25 / 6.0);
        let expected = [0.75 + whole, 0.875 + half, 0.8125 * 0.9375 + half, 0.625 * 0.875 + whole, 1.0];
        assert_values(&optimizer, &expected);
        Ok(())
    }

    #[test]
    fn what_is_saved_is_gone_on_with_and_fits_its_parameters_only() -> Result<(), Error> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("optimizer.safetensors");
        let (mut whole, mut first) =
            (AdamW::new(&config(), vars(&["a"])?)?, AdamW::new(&config(), vars(&["a"])?)?);
        for optimizer in [&mut whole, &mut first] {
            optimizer.step(&gradients(&[Some(2.0)])?, 1.0, 1, 0.5)?;
        }
        first.save(&path)?;
        let mut second = AdamW::new(&config(), first.vars().to_vec())?;
        second.load(&path)?;
        for optimizer in [&mut whole, &mut second] {
            optimizer.step(&gradients(&[Some(-2.0)])?, 1.0, 2, 0.5)?;
        }
        assert_values(&second, &[0.625 * 0.875 + 0.5 / 6.0]);
        assert_values(&whole, &[0.625 * 0.875 + 0.5 / 6.0]);
        let error = AdamW::new(&config(), vars(&["b"])?)?.load(&path).expect_err("another").to_string();
        assert!(error.contains("first.b"), "{error}");
        Ok(())
    }

    #[test]
    fn sums_of_gradients_have_their_norm() -> Result<(), Error> {
        let mut sum = Gradients::none(3);
        sum.add(gradients(&[Some(1.0), None, None])?)?;
        sum.add(gradients(&[Some(2.0), Some(-4.0), None])?)?;
        assert!((sum.norm()? - 5.0).abs() < 1e-9);
        Ok(())
    }

    #[test]
    fn a_group_of_no_parameter_is_refused_by_its_name() -> Result<(), Error> {
        let names = ["model.decoder.a.weight", "model.decoder.b.weight", "model.encoder.a.weight", "scale"];
        let with = |prefix: &str| OptimizerConfig { groups: vec![group(prefix, 0.1)], ..config() };
        AdamW::new(&with("model.encoder."), vars(&names)?)?;
        let error = AdamW::new(&with("encoder."), vars(&names)?).err().map(|error| error.to_string());
        let expected = "optimizer.groups: no parameter that is trained begins with `encoder.`; there are \
                        model.decoder., model.encoder., scale";
        assert_eq!(error.as_deref(), Some(expected));
        // Where all are of one kind, none may be called so.
        AdamW::new(&OptimizerConfig { no_decay: vec!["layer_norm".to_owned()], ..config() }, vars(&names)?)?;
        Ok(())
    }
}
