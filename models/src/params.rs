//! `Params`: the ordered, seeded store through which every layer is built, to train or to serve.
//!
//! candle's own `VarMap` iterates in random order and its CPU generator cannot be seeded, so initial values
//! here come from a generator seeded by `seed` and the parameter's name: independent of construction order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::Error;
use crate::kernels::Precision;
use crate::lora::{Lora, is_factor};
use crate::stored_tensor::StoredTensor;
use crate::weights::Weights;

/// How a parameter starts when no checkpoint holds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero (biases).
    Zeros,
    /// All one (gains).
    Ones,
    /// All the same.
    Filled {
        /// What each is.
        value: f32,
    },
    /// Normal with mean zero.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Normal with mean zero and a variance of `gain / n_inputs`, so that what comes out is about as large as what went in.
    /// 2 makes up for what an activation takes away (He et al. 2015).
    Scaled {
        /// Values that each output is a sum over.
        n_inputs: usize,
        /// Variance of a sum of inputs of variance one.
        gain: f32,
    },
    /// Rows are positions; the first half of the columns are sines, the second cosines, of wavelengths that
    /// grow geometrically from 2 pi to 2 pi 10^4 (Whisper, `model.py: sinusoids`).
    Sinusoids,
}

/// The parameters of one model, by name.
pub struct Params {
    source: Source,
    device: Device,
    /// What a checkpoint may lack: how the names begin and the seed of the initial values.
    new: Vec<(String, u64)>,
    part: TrainedPart,
    precision: Precision,
    checkpointing: bool,
    vars: Mutex<BTreeMap<String, Var>>,
    statistics: Mutex<BTreeMap<String, Var>>,
    buffers: Mutex<BTreeMap<String, Tensor>>,
}

/// What of a checkpoint is trained.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainedPart {
    /// What stays as it is: all whose names begin so, up to a dot or the end. An empty name is all that the checkpoint holds.
    pub frozen: Vec<String>,
    /// Factors that are trained beside linear layers, and their initial values' seed.
    pub lora: Option<(Lora, u64)>,
}

impl TrainedPart {
    fn is_frozen(&self, name: &str) -> bool {
        let begins = |prefix: &String| {
            let rest = name.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('.'))
        };
        !is_factor(name) && self.frozen.iter().any(begins)
    }
}

enum Source {
    /// Random initial values, trainable.
    Seed(u64),
    /// Values from files; trainable only when asked for.
    Files { weights: Weights, trainable: bool },
    /// Another store's live values without their graph.
    Detached(BTreeMap<String, Tensor>),
}

impl Params {
    /// Trainable parameters with random initial values.
    pub fn seeded(seed: u64, device: &Device) -> Self {
        Self::new(Source::Seed(seed), device)
    }

    /// Frozen parameters from a bundle: nothing tracks gradients.
    pub fn frozen(weights: Weights, device: &Device) -> Self {
        Self::new(Source::Files { weights, trainable: false }, device)
    }

    /// Trainable parameters that start from a bundle.
    pub fn trainable(weights: Weights, device: &Device) -> Self {
        Self::new(Source::Files { weights, trainable: true }, device)
    }

    /// Lets parameters whose names begin with `prefix` start from random values where the checkpoint lacks them, such as a head
    /// that only training knows.
    #[must_use]
    pub fn with_new(mut self, prefix: &str, seed: u64) -> Self {
        self.new.push((prefix.to_owned(), seed));
        self
    }

    /// Trains only a part of what a checkpoint holds; what it lacks ([`Params::with_new`], factors) is trained all the same.
    #[must_use]
    pub fn with_part(mut self, part: TrainedPart) -> Self {
        self.part = part;
        self
    }

    /// Layers whose weights never change ([`Scope::is_frozen`]) multiply in this precision.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Whether training keeps what blocks compute for the backward pass, or computes it again there: a forward pass more for the
    /// memory of all blocks but one. Gradients then need [`nn::backward`](crate::nn::backward()).
    #[must_use]
    pub fn with_checkpointing(mut self, checkpointing: bool) -> Self {
        self.checkpointing = checkpointing;
        self
    }

    /// The same storage without gradients: a model built from it sees every later optimiser step (its weights are
    /// not packed), runs the fused kernels and keeps no graph. Evaluation during training runs on it.
    pub fn detached(&self) -> Self {
        let mut tensors: BTreeMap<String, Tensor> =
            self.lock().iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
        let statistics = self.statistics().into_iter();
        tensors.extend(statistics.map(|(name, var)| (name, var.as_detached_tensor())));
        tensors.extend(self.buffers());
        let lora = self.part.lora.clone();
        let part = TrainedPart { frozen: Vec::new(), lora };
        Self::new(Source::Detached(tensors), &self.device).with_part(part)
    }

    fn new(source: Source, device: &Device) -> Self {
        let (vars, statistics, buffers) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self {
            source,
            device: device.clone(),
            new: Vec::new(),
            part: TrainedPart::default(),
            precision: Precision::F32,
            checkpointing: false,
            vars,
            statistics,
            buffers,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Var>> {
        self.vars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root of the names.
    pub fn root(&self) -> Scope<'_> {
        Scope { params: self, prefix: String::new() }
    }

    /// Device that the parameters live on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The trainable parameters built so far, in order of name.
    pub fn vars(&self) -> Vec<(String, Var)> {
        self.lock().iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// What is trained beside linear layers, if anything.
    pub fn lora(&self) -> Option<&Lora> {
        self.part.lora.as_ref().map(|(lora, _)| lora)
    }

    /// What follows training without a gradient, in order of name.
    pub fn statistics(&self) -> Vec<(String, Var)> {
        let statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        statistics.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// The tensors of the checkpoint that are not trained, in order of name.
    pub fn buffers(&self) -> BTreeMap<String, Tensor> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, Error> {
        match self.source {
            Source::Seed(_) | Source::Files { trainable: true, .. } if !self.is_fixed(name) => {
                self.trained(name, shape, init)
            }
            // What belongs to a training run is kept: it is saved and followed with the rest.
            Source::Seed(_) | Source::Files { trainable: true, .. } => self.fixed(name, shape, init),
            _ => self.value(name, shape, init),
        }
    }

    /// What is read of the checkpoint and not trained.
    fn is_fixed(&self, name: &str) -> bool {
        let is_held = match &self.source {
            Source::Files { weights, .. } => weights.contains(name),
            Source::Seed(_) | Source::Detached(_) => false,
        };
        (is_held || self.new_seed(name).is_none()) && self.part.is_frozen(name)
    }

    /// The seed of what a checkpoint need not hold.
    fn new_seed(&self, name: &str) -> Option<u64> {
        let factor = self.part.lora.as_ref().filter(|_| is_factor(name)).map(|(_, seed)| *seed);
        factor.or_else(|| {
            let new = self.new.iter().find(|(prefix, _)| name.starts_with(prefix.as_str()));
            new.map(|(_, seed)| *seed)
        })
    }

    fn trained(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, Error> {
        if let Some(var) = self.lock().get(name) {
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&self.value(name, shape, init)?)?;
        let tensor = var.as_tensor().clone();
        self.lock().insert(name.to_owned(), var);
        Ok(tensor)
    }

    /// A value that follows training without a gradient, and the variable that it is where it does.
    fn statistic(&self, name: &str, shape: &[usize], init: Init) -> Result<(Tensor, Option<Var>), Error> {
        match self.source {
            Source::Seed(_) | Source::Files { trainable: true, .. } if !self.is_fixed(name) => {
                let mut statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
                let var = match statistics.get(name) {
                    Some(var) => var.clone(),
                    None => Var::from_tensor(&self.value(name, shape, init)?)?,
                };
                statistics.insert(name.to_owned(), var.clone());
                Ok((var.as_detached_tensor(), Some(var)))
            }
            _ => Ok((self.fixed(name, shape, init)?, None)),
        }
    }

    fn value(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, Error> {
        match &self.source {
            Source::Seed(seed) => initial(*seed, name, shape, init, &self.device),
            Source::Files { weights, .. } => match self.new_seed(name) {
                // Factors that a checkpoint holds are within its weights already.
                Some(seed) if is_factor(name) || !weights.contains(name) => {
                    initial(seed, name, shape, init, &self.device)
                }
                _ => weights.read(name, shape, &self.device),
            },
            Source::Detached(tensors) => tensors.get(name).cloned().ok_or_else(|| {
                Error::option("parameters", format!("`{name}` is not among the live parameters"))
            }),
        }
    }

    fn fixed(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, Error> {
        if let Source::Detached(_) = self.source {
            return self.value(name, shape, init);
        }
        if let Some(value) = self.buffers().get(name) {
            return Ok(value.clone());
        }
        let value = self.value(name, shape, init)?;
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.insert(name.to_owned(), value.clone());
        Ok(value)
    }
}

fn initial(seed: u64, name: &str, shape: &[usize], init: Init, device: &Device) -> Result<Tensor, Error> {
    let n_values = shape.iter().product();
    let values = match init {
        Init::Zeros => vec![0.0; n_values],
        Init::Ones => vec![1.0; n_values],
        Init::Filled { value } => vec![value; n_values],
        Init::Normal { std } => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(name));
            (0..n_values).map(|_| std * standard_normal(&mut rng)).collect()
        }
        Init::Scaled { n_inputs, gain } => {
            let std = (gain / n_inputs.max(1) as f32).sqrt();
            return initial(seed, name, shape, Init::Normal { std }, device);
        }
        Init::Sinusoids => match *shape {
            [n_positions, width] => sinusoids(n_positions, width),
            _ => vec![0.0; n_values],
        },
    };
    Ok(Tensor::from_vec(values, shape, device)?)
}

/// [`Init::Sinusoids`], (positions, width) row-major.
pub(crate) fn sinusoids(n_positions: usize, width: usize) -> Vec<f32> {
    let n_waves = width / 2;
    let log_step = 10_000f64.ln() / (n_waves.max(2) - 1) as f64;
    let angle = |position: usize, wave: usize| position as f64 * (-log_step * wave as f64).exp();
    (0..n_positions)
        .flat_map(|position| {
            (0..width).map(move |column| match column {
                column if column < n_waves => angle(position, column).sin() as f32,
                column if column < 2 * n_waves => angle(position, column - n_waves).cos() as f32,
                _ => 0.0,
            })
        })
        .collect()
}

/// 64-bit FNV-1a: small, fixed for ever (the standard library's hasher is not), good enough to tell names apart.
fn fnv1a(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Box-Muller, the cosine half.
fn standard_normal(rng: &mut ChaCha8Rng) -> f32 {
    let uniform = |rng: &mut ChaCha8Rng| (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let (radius, angle) = ((-2.0 * uniform(rng).ln()).sqrt(), std::f64::consts::TAU * uniform(rng));
    (radius * angle.cos()) as f32
}

/// A place in the tree of names, handed down while layers are built.
#[derive(Clone)]
pub struct Scope<'a> {
    params: &'a Params,
    prefix: String,
}

impl Scope<'_> {
    /// The place `name` below this one.
    #[must_use]
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        Self { params: self.params, prefix: self.name(name) }
    }

    /// The parameter `name` at this place.
    ///
    /// # Errors
    /// What `Weights::read` refuses.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, Error> {
        self.params.get(&self.name(name), shape, init)
    }

    /// A tensor that follows training without a gradient (running statistics), and the variable that it is where something is
    /// trained here.
    ///
    /// # Errors
    /// What `Weights::read` refuses.
    pub fn statistic(&self, name: &str, shape: &[usize], init: Init) -> Result<(Tensor, Option<Var>), Error> {
        self.params.statistic(&self.name(name), shape, init)
    }

    /// A tensor of the checkpoint that is never trained (fixed positions).
    ///
    /// # Errors
    /// What `Weights::read` refuses.
    pub fn buffer(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, Error> {
        self.params.fixed(&self.name(name), shape, init)
    }

    /// The parameter `name` at this place where it never changes and lies in a file as it is: its values, some at a time.
    ///
    /// # Errors
    /// What `Weights::read` refuses before it reads.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Option<StoredTensor<'_>>, Error> {
        let name = self.name(name);
        match &self.params.source {
            Source::Files { weights, trainable: false } if self.params.new_seed(&name).is_none() => {
                weights.part_by_part(&name, shape)
            }
            _ => Ok(None),
        }
    }

    /// Whether the weight that is read here never changes: it is neither trained nor follows what is.
    pub fn is_frozen(&self) -> bool {
        match self.params.source {
            Source::Files { trainable: false, .. } => true,
            Source::Files { trainable: true, .. } => self.params.is_fixed(&self.name("weight")),
            Source::Seed(_) | Source::Detached(_) => false,
        }
    }

    /// What the layer at this place multiplies in.
    pub fn precision(&self) -> Precision {
        if self.is_frozen() { self.params.precision } else { Precision::F32 }
    }

    /// What is trained beside a linear layer at this place.
    pub fn lora(&self) -> Option<&Lora> {
        self.params.part.lora.as_ref().map(|(lora, _)| lora).filter(|lora| lora.is_target(&self.prefix))
    }

    /// Whether blocks are computed again in the backward pass ([`Params::with_checkpointing`]).
    pub fn checkpointing(&self) -> bool {
        self.params.checkpointing
    }

    /// Device that the parameters live on.
    pub fn device(&self) -> &Device {
        &self.params.device
    }

    fn name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_depend_on_the_name_and_not_on_the_order() -> Result<(), Error> {
        let normal = Init::Normal { std: 1.0 };
        let (one, two) = (Params::seeded(7, &Device::Cpu), Params::seeded(7, &Device::Cpu));
        let a1 = one.root().sub("x").get("a", &[4], normal)?.to_vec1::<f32>()?;
        one.root().get("b", &[3], normal)?;
        two.root().get("b", &[3], normal)?;
        let a2 = two.root().sub("x").get("a", &[4], normal)?.to_vec1::<f32>()?;
        assert_eq!(a1, a2);
        let names: Vec<_> = one.vars().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "x.a"]);
        Ok(())
    }

    #[test]
    fn detached_parameters_follow_the_live_ones() -> Result<(), Error> {
        let params = Params::seeded(1, &Device::Cpu);
        params.root().get("w", &[2], Init::Ones)?;
        let frozen = params.detached().root().get("w", &[2], Init::Ones)?;
        assert!(!frozen.track_op());
        params.vars()[0].1.set(&Tensor::new(&[5f32, 6.0], &Device::Cpu)?)?;
        assert_eq!(frozen.to_vec1::<f32>()?, [5.0, 6.0]);
        Ok(())
    }

    #[test]
    fn normal_values_have_the_asked_spread() -> Result<(), Error> {
        let values =
            initial(3, "w", &[20_000], Init::Normal { std: 0.02 }, &Device::Cpu)?.to_vec1::<f32>()?;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt();
        assert!(mean.abs() < 5e-4 && (std - 0.02).abs() < 5e-4, "mean {mean}, std {std}");
        Ok(())
    }
}
