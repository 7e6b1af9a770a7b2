//! What a loaded model computes in.

use crate::Error;
pub use crate::kernels::Precision;

impl Precision {
    /// What models are loaded in where nothing else is asked for: int8 where this processor has instructions for it, else f32.
    pub fn auto() -> Self {
        if Self::Int8.is_fast() { Self::Int8 } else { Self::F32 }
    }

    /// Refuses what this processor would have to emulate.
    ///
    /// # Errors
    /// bf16 without instructions for it.
    pub fn check(self) -> Result<(), Error> {
        if self == Self::Bf16 && !self.is_fast() {
            let message = "bf16: this processor has no instructions for it; f32 and int8 run everywhere";
            return Err(Error::option("precision", message));
        }
        Ok(())
    }
}
