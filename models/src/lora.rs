//! LoRA: what is trained beside a frozen matrix, `W + alpha / r * B A` (Hu et al. 2021, section 4.1), in the files and under the
//! names of Hugging Face's PEFT (`adapter_config.json`, `adapter_model.safetensors`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::bundle::BundleSource;
use crate::weights::{WeightDtype, Weights, write_named};

/// The file that makes a directory an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before every name: the wrappers around the model.
const WRAPPERS: &str = "base_model.model.";
/// The factors of an update, as they are called beside the matrix.
pub(crate) const FACTORS: [&str; 2] = ["lora_A", "lora_B"];
/// PEFT's initial A is uniform within `1 / sqrt(n_in)` (Kaiming with a = sqrt 5): a third of that as variance.
pub(crate) const GAIN: f32 = 1.0 / 3.0;

/// Which layers get an adapter, and how large it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// The update counts `alpha / rank` times.
    pub alpha: f64,
    /// Last parts of the names of linear layers: `q_proj`, `v_proj`.
    pub targets: Vec<String>,
}

impl Lora {
    /// What the update is multiplied by.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank.max(1) as f64
    }

    /// Whether the linear layer of this name has one.
    pub(crate) fn is_target(&self, layer: &str) -> bool {
        layer.rsplit('.').next().is_some_and(|last| self.targets.iter().any(|target| target == last))
    }
}

/// Whether a parameter is a factor of an update.
pub fn is_factor(name: &str) -> bool {
    name.rsplit('.').nth(1).is_some_and(|part| FACTORS.contains(&part))
}

/// `adapter_config.json`, as far as it decides what an adapter does.
#[derive(Deserialize)]
struct AdapterConfig {
    peft_type: String,
    base_model_name_or_path: Option<String>,
    revision: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    bias: Option<String>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, Value>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, Value>,
    modules_to_save: Option<Vec<String>>,
}

/// An adapter on disk.
pub struct Adapter {
    base: Option<String>,
    scale: f64,
    rank: usize,
    weights: Weights,
}

impl Adapter {
    /// Whether a directory holds an adapter rather than a model.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(ADAPTER_CONFIG).is_file() && !dir.join("model.safetensors").exists()
    }

    /// Opens an adapter's directory.
    ///
    /// # Errors
    /// Missing or damaged files, adapters of another kind.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let source = BundleSource::from(dir);
        let path = source.path(ADAPTER_CONFIG);
        let config: AdapterConfig = serde_json::from_slice(&source.read(ADAPTER_CONFIG)?)
            .map_err(|error| Error::file(&path, error))?;
        let refuse = |key: &str, message: &str| Err(Error::key(&path, key, message));
        if config.peft_type != "LORA" {
            return refuse("peft_type", &format!("`{}` is not supported; LORA is", config.peft_type));
        }
        if config.r == 0 {
            return refuse("r", "0 is no rank");
        }
        if config.fan_in_fan_out {
            return refuse("fan_in_fan_out", "true is not supported: no layer of these models is stored so");
        }
        if config.use_dora {
            return refuse("use_dora", "DoRA is not supported");
        }
        if config.bias.is_some_and(|bias| bias != "none") {
            return refuse("bias", "trained biases are not supported; \"none\" is");
        }
        if !config.rank_pattern.is_empty() || !config.alpha_pattern.is_empty() {
            return refuse("rank_pattern", "layers of unequal rank or alpha are not supported");
        }
        if config.modules_to_save.is_some_and(|modules| !modules.is_empty()) {
            return refuse("modules_to_save", "whole modules beside the adapter are not supported");
        }
        let rank = config.r as f64;
        let scale = config.lora_alpha / if config.use_rslora { rank.sqrt() } else { rank };
        let weights = Weights::of_file(&source, ADAPTER_WEIGHTS)?;
        let base = match (config.base_model_name_or_path, config.revision) {
            (Some(base), Some(revision)) => Some(format!("{base}@{revision}")),
            (base, _) => base,
        };
        let adapter = Self { base, scale, rank: config.r, weights };
        adapter.check(&source.path(ADAPTER_WEIGHTS))?;
        Ok(adapter)
    }

    /// The model that it belongs to, as whoever trained it called it.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref().filter(|base| !base.is_empty())
    }

    /// Every tensor is one of two factors that fit each other.
    fn check(&self, path: &Path) -> Result<(), Error> {
        let shapes: BTreeMap<&str, &[usize]> =
            self.weights.tensors().map(|(name, shape, _)| (name, shape)).collect();
        if shapes.is_empty() {
            return Err(Error::file(path, "holds no tensors"));
        }
        for (name, shape) in &shapes {
            let layer = name.strip_prefix(WRAPPERS).filter(|name| is_factor(name));
            if layer.is_none() {
                return Err(Error::key(path, *name, "is no factor of a LoRA update"));
            }
            let (is_first, dims) = (name.contains(FACTORS[0]), shape.len());
            let other = if is_first {
                name.replace(FACTORS[0], FACTORS[1])
            } else {
                name.replace(FACTORS[1], FACTORS[0])
            };
            let rank = if is_first { shape.first() } else { shape.get(1) };
            if dims != 2 || rank != Some(&self.rank) || !shapes.contains_key(other.as_str()) {
                let message =
                    format!("{shape:?} is no factor of rank {} that has another beside it", self.rank);
                return Err(Error::key(path, *name, message));
            }
        }
        Ok(())
    }

    /// What a checkpoint's tensor, on the CPU, is with the update: the tensor itself where there is none for it.
    pub(crate) fn apply(&self, name: &str, tensor: Tensor) -> Result<Tensor, Error> {
        let Some([a, b]) = self.factors(name) else { return Ok(tensor) };
        let (n_out, n_in) = tensor.dims2()?;
        let a = self.weights.read(&a, &[self.rank, n_in], &Device::Cpu)?;
        let b = self.weights.read(&b, &[n_out, self.rank], &Device::Cpu)?;
        Ok(updated(&tensor, &a, &b, self.scale)?)
    }

    /// Whether there is an update for a checkpoint's tensor.
    pub(crate) fn changes(&self, name: &str) -> bool {
        self.factors(name).is_some()
    }

    /// The names of a tensor's factors.
    fn factors(&self, name: &str) -> Option<[String; 2]> {
        let layer = name.strip_suffix(".weight")?;
        let names = FACTORS.map(|factor| format!("{WRAPPERS}{layer}.{factor}.weight"));
        self.weights.contains(&names[0]).then_some(names)
    }

    /// The layers that it changes, in order of name.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &str> {
        let suffix = format!(".{}.weight", FACTORS[0]);
        self.weights
            .tensors()
            .filter_map(move |(name, ..)| name.strip_prefix(WRAPPERS)?.strip_suffix(&*suffix))
    }

    /// Its weight file.
    pub fn path(&self) -> PathBuf {
        self.weights.paths().next().map(Path::to_owned).unwrap_or_default()
    }
}

/// `W + scale B A`.
fn updated(weight: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> candle_core::Result<Tensor> {
    weight + (b.matmul(a)? * scale)?
}

/// Adds the updates that are among `tensors` to the weights that they are beside. The factors stay where they are.
///
/// # Errors
/// Factors that do not fit.
pub fn add_updates(tensors: &mut BTreeMap<String, Tensor>, lora: &Lora) -> Result<(), Error> {
    let suffix = format!(".{}.weight", FACTORS[0]);
    let layers: Vec<String> =
        tensors.keys().filter_map(|name| Some(name.strip_suffix(&*suffix)?.to_owned())).collect();
    for layer in layers {
        let at = |name: &str| {
            let missing = || Error::option("lora", format!("`{name}` is not among the parameters"));
            tensors.get(name).cloned().ok_or_else(missing)
        };
        let [a, b] = FACTORS.map(|factor| at(&format!("{layer}.{factor}.weight")));
        let name = format!("{layer}.weight");
        let updated = updated(&at(&name)?, &a?, &b?, lora.scale())?;
        tensors.insert(name, updated);
    }
    Ok(())
}

/// Writes the factors among `tensors` as an adapter of the model `base` into `dir`.
///
/// # Errors
/// Values that are not finite, what the disk refuses.
pub fn write_adapter(
    dir: &Path,
    lora: &Lora,
    base: &str,
    tensors: &BTreeMap<String, Tensor>,
    dtype: WeightDtype,
) -> Result<(), Error> {
    // A hub id may name a revision, which is a key of its own there.
    let (base, revision) = match base.split_once('@') {
        Some((base, revision)) if !Path::new(base).is_absolute() => (base, Some(revision)),
        _ => (base, None),
    };
    let config = serde_json::json!({
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": lora.targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "task_type": null,
    });
    let path = dir.join(ADAPTER_CONFIG);
    let text = serde_json::to_string_pretty(&config).map_err(|error| Error::file(&path, error))?;
    std::fs::write(&path, text + "\n").map_err(|error| Error::file(&path, error))?;
    let factors = tensors.iter().filter(|(name, _)| is_factor(name));
    let factors = factors.map(|(name, tensor)| (format!("{WRAPPERS}{name}"), tensor.clone())).collect();
    write_named(&dir.join(ADAPTER_WEIGHTS), &factors, dtype)
}
