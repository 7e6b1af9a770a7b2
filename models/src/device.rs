//! Where models compute.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

pub use candle_core::Device;
use candle_core::DeviceLocation;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The setting `device`: what computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU of a program that was built for one, where there is one; else the processor.
    #[default]
    Auto,
    /// The processor, by this project's kernels.
    Cpu,
    /// A GPU, by candle's, counted from 0.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device, which a model's tensors can then be put on. The same choice gives the same device: tensors of two that were
    /// opened apart could not meet.
    ///
    /// # Errors
    /// A GPU that this program was not built for, or that is not there.
    pub fn open(self) -> Result<Device, Error> {
        let refuse = |message: &str| Error::option("device", format!("{self}: {message}"));
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if !cfg!(feature = "cuda") => Ok(Device::Cpu),
            Self::Auto => Ok(cuda(0).unwrap_or_else(|message| {
                tracing::warn!("no GPU can be used, the processor computes: {message}");
                Device::Cpu
            })),
            Self::Cuda(_) if !cfg!(feature = "cuda") => {
                Err(refuse("this program was built without the feature cuda; say cpu, or build it with it"))
            }
            Self::Cuda(ordinal) => cuda(ordinal).map_err(|message| refuse(&message)),
        }
    }

    /// What chooses this device.
    pub fn of(device: &Device) -> Self {
        match device.location() {
            DeviceLocation::Cuda { gpu_id } => Self::Cuda(gpu_id),
            // The others are never opened.
            DeviceLocation::Cpu | DeviceLocation::Metal { .. } => Self::Cpu,
        }
    }
}

/// A GPU, or what its driver says about it.
fn cuda(ordinal: usize) -> Result<Device, String> {
    static OPENED: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&ordinal) {
        return Ok(device.clone());
    }
    // One stream for all threads. candle's `new_cuda` has one for each, and nothing makes them wait for one another: what one
    // thread writes (a batch, weights, the gradients of a part) another would read before it is there.
    let device = Device::new_cuda_with_stream(ordinal)
        // Where RUST_BACKTRACE asks for it, candle's errors have the whole way to them below.
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
    opened.insert(ordinal, device.clone());
    Ok(device)
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok());
                ordinal.map(Self::Cuda).ok_or_else(|| {
                    Error::option("device", format!("`{text}` is none of auto, cpu, cuda, cuda:1 and so on"))
                })
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_written_as_they_are_read() -> Result<(), Error> {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:12", DeviceChoice::Cuda(12)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>()?, choice);
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>()?, DeviceChoice::Cuda(0));
        for text in ["", "CPU", "cuda:", "cuda:-1", "cuda:99999999999999999999", "gpu", "metal"] {
            let message = text.parse::<DeviceChoice>().map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(
                message,
                Err(format!("device: `{text}` is none of auto, cpu, cuda, cuda:1 and so on"))
            );
        }
        Ok(())
    }

    #[test]
    fn the_processor_is_always_there_and_a_gpu_is_refused_by_name() -> Result<(), Error> {
        assert!(DeviceChoice::Cpu.open()?.is_cpu());
        assert_eq!(DeviceChoice::of(&Device::Cpu), DeviceChoice::Cpu);
        let device = DeviceChoice::Auto.open()?;
        assert!(DeviceChoice::of(&device).open()?.same_device(&device));
        // No machine has so many.
        let error = DeviceChoice::Cuda(4096).open().expect_err("no such GPU").to_string();
        assert!(error.starts_with("device: cuda:4096: "), "{error}");
        Ok(())
    }
}
