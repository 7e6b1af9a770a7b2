//! Checkpoints: directories that are bundles, with what the loop needs to go on beside. One is written into a folder of
//! another name, brought to the disk and renamed: whatever has its name is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::loader::Position;
use crate::optim::AdamW;

const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
/// The weights that are trained, where those of the bundle are their moving average.
const TRAINED: &str = "trained.safetensors";
const WEIGHTS: &str = "model.safetensors";
/// Begins the names of checkpoints that are not whole.
const UNFINISHED: &str = ".unfinished-";

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Updates made, skipped ones included.
    pub step: u64,
    /// The next batch.
    pub at: Position,
    /// Updates that were skipped because something was not finite.
    pub n_skipped: u64,
    /// Updates of each of the phases beside the model's, of tasks that have some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_steps: Vec<u64>,
    /// Recordings that were left out because they could not be read.
    pub n_faults: u64,
    /// Seconds of audio trained on.
    pub audio_secs: f64,
    /// Seconds spent on it.
    pub busy_secs: f64,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Evaluations without a better one, of those that tell: see `train.patience`.
    pub n_worse: u32,
    /// The checkpoint that a decay branched off from, to be returned to.
    pub branch: Option<u64>,
    /// Whether the learning rate has just come down: only then is a model at its best.
    pub is_settled: bool,
    /// Identifies data, buckets and order: resuming with others would not be resuming.
    pub data_digest: String,
    /// Identifies what the model is judged by: figures of another kind cannot be compared with the best.
    #[serde(default)]
    pub held_out_digest: String,
}

/// The best evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Its update.
    pub step: u64,
    /// Its figure.
    pub value: f64,
}

/// The checkpoints of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Those in `dir`, which is made. What was never finished is removed.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|error| Error::file(dir, error))?;
        for entry in fs::read_dir(dir).map_err(|error| Error::file(dir, error))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path()).map_err(|error| Error::file(&entry.path(), error))?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where the checkpoint of this update is, or would be.
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("{step:08}"))
    }

    /// Updates that there are checkpoints of, rising.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn steps(&self) -> Result<Vec<u64>, Error> {
        let entries = fs::read_dir(&self.dir).map_err(|error| Error::file(&self.dir, error))?;
        let mut steps: Vec<u64> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Writes the checkpoint of update `step`, which `fill` puts into the folder that it is given. All or nothing: what was
    /// there before stays until the new one is whole.
    ///
    /// # Errors
    /// What `fill` and the disk refuse.
    pub fn write(&self, step: u64, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
        let unfinished = self.dir.join(format!("{UNFINISHED}{step:08}"));
        let path = self.path(step);
        let written = self.write_into(&unfinished, &path, fill);
        if written.is_err() {
            // Room for the next try.
            let _ = fs::remove_dir_all(&unfinished);
        }
        written.map(|()| path)
    }

    fn write_into(
        &self,
        unfinished: &Path,
        path: &Path,
        fill: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| Error::file(&path, format!("cannot be written: {error}"))
        };
        fs::create_dir_all(unfinished).map_err(refused(unfinished))?;
        fill(unfinished)?;
        sync_folder(unfinished)?;
        if path.exists() {
            fs::remove_dir_all(path).map_err(refused(path))?;
        }
        fs::rename(unfinished, path).map_err(refused(path))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(refused(&self.dir))
    }

    /// Removes all but the newest `keep` and those of `protected`. 0 keeps all.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn prune(&self, keep: usize, protected: &[u64]) -> Result<(), Error> {
        let steps = self.steps()?;
        if keep == 0 || steps.len() <= keep {
            return Ok(());
        }
        for step in steps[..steps.len() - keep].iter().filter(|step| !protected.contains(step)) {
            let path = self.path(*step);
            fs::remove_dir_all(&path).map_err(|error| Error::file(&path, error))?;
        }
        Ok(())
    }
}

/// Makes sure that a folder and the files in it are on the disk.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), Error> {
    let refused =
        |path: &Path, error: std::io::Error| Error::file(path, format!("cannot be written: {error}"));
    let paths = fs::read_dir(dir).map_err(|error| refused(dir, error))?.flatten().map(|entry| entry.path());
    for path in paths.chain([dir.to_owned()]) {
        File::open(&path).and_then(|file| file.sync_all()).map_err(|error| refused(&path, error))?;
    }
    Ok(())
}

impl State {
    /// Reads it from a checkpoint.
    ///
    /// # Errors
    /// A missing or foreign file.
    pub fn read(checkpoint: &Path) -> Result<Self, Error> {
        let path = checkpoint.join(STATE);
        let text = fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
        serde_json::from_str(&text).map_err(|error| Error::file(&path, error))
    }

    fn write(&self, checkpoint: &Path) -> Result<(), Error> {
        let path = checkpoint.join(STATE);
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::file(&path, error))?;
        fs::write(&path, text + "\n").map_err(|error| Error::file(&path, error))
    }
}

/// Writes what the loop needs beside the bundle.
///
/// # Errors
/// What the disk refuses.
pub fn write_training(
    dir: &Path,
    state: &State,
    optimizer: &AdamW,
    trained: Option<&[(String, Tensor)]>,
) -> Result<(), Error> {
    optimizer.save(&dir.join(OPTIMIZER))?;
    if let Some(tensors) = trained {
        let path = dir.join(TRAINED);
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        safetensors::serialize_to_file(tensors, None, &path).map_err(|error| Error::file(&path, error))?;
    }
    state.write(dir)
}

/// Where what is trained beside a model has its parameters and its moments.
fn further_files(dir: &Path, name: &str) -> [PathBuf; 2] {
    [dir.join(format!("{name}.safetensors")), dir.join(format!("{name}.{OPTIMIZER}"))]
}

/// Writes the parameters and the moments of what is trained beside a model.
///
/// # Errors
/// What the disk refuses.
pub fn write_further(dir: &Path, name: &str, optimizer: &AdamW) -> Result<(), Error> {
    let [weights, moments] = further_files(dir, name);
    let tensors = optimizer.vars().iter().map(|(name, var)| (name.as_str(), var.as_detached_tensor()));
    safetensors::serialize_to_file(tensors, None, &weights).map_err(|error| Error::file(&weights, error))?;
    optimizer.save(&moments)
}

/// Reads what [`write_further`] wrote.
///
/// # Errors
/// Files of other parameters.
pub fn restore_further(dir: &Path, name: &str, optimizer: &mut AdamW) -> Result<(), Error> {
    let [weights, moments] = further_files(dir, name);
    optimizer.load(&moments)?;
    set_vars(&weights, optimizer.vars())
}

/// Sets parameters to those of a file.
fn set_vars(path: &Path, vars: &[(String, Var)]) -> Result<(), Error> {
    let weights =
        candle_core::safetensors::load(path, &Device::Cpu).map_err(|error| Error::file(path, error))?;
    for (name, var) in vars {
        let value = weights.get(name).filter(|value| value.shape() == var.shape());
        let value =
            value.ok_or_else(|| Error::file(path, format!("has no `{name}` of shape {:?}", var.shape())))?;
        set_var(var, value)?;
    }
    Ok(())
}

/// Sets a parameter to a value from anywhere, such as a file.
pub(crate) fn set_var(var: &Var, value: &Tensor) -> candle_core::Result<()> {
    var.set(&value.to_device(var.device())?)
}

/// Sets moments, and the weights and statistics of `followed`, to those of a checkpoint. `average` gets those of the bundle where they
/// are others than those that are trained.
///
/// # Errors
/// Files of another model.
pub fn restore(
    dir: &Path,
    optimizer: &mut AdamW,
    followed: &[(String, Var)],
    average: &mut dyn FnMut(&str, &Tensor),
) -> Result<(), Error> {
    optimizer.load(&dir.join(OPTIMIZER))?;
    let trained = dir.join(TRAINED);
    let is_averaged = trained.exists();
    let path = if is_averaged { trained } else { dir.join(WEIGHTS) };
    set_vars(&path, followed)?;
    if is_averaged {
        let path = dir.join(WEIGHTS);
        let averages =
            candle_core::safetensors::load(&path, &Device::Cpu).map_err(|error| Error::file(&path, error))?;
        for (name, var) in followed {
            if let Some(value) = averages.get(name) {
                average(name, &value.to_device(var.device())?);
            }
        }
    }
    Ok(())
}
