//! Where fixtures and optional data lie, and how tensors are compared.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use candle_core::{Device, Tensor};
use models::{Bundle, DeviceChoice, Transcriber};
use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A committed fixture.
pub fn fixture(name: &str) -> PathBuf {
    workspace().join("tests/fixtures").join(name)
}

/// `SPEECHD_DATA`, else `../shared/data`; `None` (and a line that says so) when it is not there.
pub fn data(name: &str) -> Option<PathBuf> {
    optional("SPEECHD_DATA", "../shared/data", name)
}

/// `SPEECHD_MODELS`, else `../shared/models`; `None` (and a line that says so) when it is not there.
pub fn reference_model(name: &str) -> Option<PathBuf> {
    optional("SPEECHD_MODELS", "../shared/models", name)
}

fn optional(variable: &str, default: &str, name: &str) -> Option<PathBuf> {
    let root = std::env::var_os(variable).map_or_else(|| workspace().join(default), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there ({variable} says where to look)", path.display());
    None
}

/// A committed JSON file.
pub fn json(path: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// A bundle, loaded for serving.
pub fn transcriber(dir: &Path) -> anyhow::Result<Transcriber> {
    Ok(Transcriber::load(Bundle::open(dir)?, &Device::Cpu)?)
}

/// Copies a tiny model that speaks English and Pashto with two voices, anna and ben.
pub fn write_speaker(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    for file in std::fs::read_dir(fixture("flow-lm"))? {
        let file = file?;
        std::fs::copy(file.path(), dir.join(file.file_name()))?;
    }
    Ok(())
}

/// The GPU, where the program was built for one and there is one; opened once. Else `None`, and a line that says so.
pub fn gpu() -> Option<&'static Device> {
    static GPU: LazyLock<Option<Device>> = LazyLock::new(|| match DeviceChoice::Cuda(0).open() {
        Ok(device) => Some(device),
        // Where there must be one, nothing is skipped.
        Err(error) if std::env::var_os("SPEECHD_REQUIRE_GPU").is_some() => panic!("{error}"),
        Err(error) => {
            println!("skipped on a GPU: {error}");
            None
        }
    });
    GPU.as_ref()
}

/// All that models can compute on here.
pub fn devices() -> impl Iterator<Item = &'static Device> {
    [Some(&Device::Cpu), gpu()].into_iter().flatten()
}

/// Numbers of a JSON array.
pub fn numbers<T: TryFrom<u64>>(value: &Value) -> Vec<T> {
    value.as_array().into_iter().flatten().filter_map(|v| T::try_from(v.as_u64()?).ok()).collect()
}

/// Numbers of a JSON array of floats.
pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().into_iter().flatten().filter_map(|v| Some(v.as_f64()? as f32)).collect()
}

/// Largest absolute difference.
pub fn difference(a: &Tensor, b: &Tensor) -> anyhow::Result<f32> {
    let [a, b] = [a, b].map(|x| x.to_device(&Device::Cpu));
    Ok((a? - b?)?.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

/// A recording at the rate it has in its file.
pub fn recording(path: &Path) -> anyhow::Result<audio::Waveform> {
    Ok(audio::decode_file(path, &audio::DecodeAudio::default())?.waveform)
}

/// The niceness in a process's or a thread's `stat` below `/proc`: `1 (name) S ...`, the 19th field.
#[cfg(target_os = "linux")]
pub fn niceness_of(stat: &str) -> Option<i32> {
    stat.rsplit(") ").next()?.split(' ').nth(16)?.parse().ok()
}
