//! AdamW with parameter groups, whose moments are kept by name so that they can be saved; and the gradients that it takes.

use std::collections::BTreeMap;
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
    /// A configuration that makes no sense.
    pub fn new(config: &OptimizerConfig, vars: Vec<(String, Var)>) -> Result<Self, Error> {
        config.check()?;
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
