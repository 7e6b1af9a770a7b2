//! What a loaded model computes in.

pub use crate::kernels::Precision;
use crate::{Device, Error};

impl Precision {
    /// What models are loaded in where nothing else is asked for: int8 on a processor where it is faster, else f32.
    pub fn auto(device: &Device) -> Self {
        if device.is_cpu() && Self::Int8.is_fast() { Self::Int8 } else { Self::F32 }
    }

    /// Refuses what would be slower than f32 and no smaller than int8, and what other devices do not compute in.
    ///
    /// # Errors
    /// bf16 on a processor without instructions for it, bf16 and int8 on a GPU.
    pub fn check(self, device: &Device) -> Result<(), Error> {
        let message = match self {
            Self::F32 => return Ok(()),
            _ if !device.is_cpu() => "a GPU computes in f32 alone, so far; --device cpu computes in it",
            Self::Bf16 if !self.is_fast() => {
                "this processor has no instructions for it; f32 and int8 run everywhere"
            }
            Self::Bf16 | Self::Int8 => return Ok(()),
        };
        Err(Error::option("precision", format!("{self}: {message}")))
    }
}
