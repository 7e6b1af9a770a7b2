//! Hidden states of an encoder that does not learn: each recording is encoded once, as long as there is room to keep what came out.

use candle_core::{DType, Tensor};
use models::Encoder;
use sha2::{Digest as _, Sha256};

use super::Batch;
use crate::Error;
use crate::task::kept::Kept;

/// States by the features that they are of.
pub(super) struct EncoderStates {
    kept: Kept<[u8; 32], Tensor>,
}

impl EncoderStates {
    /// Keeps so many bytes at most.
    pub fn new(max_bytes: usize) -> Self {
        Self { kept: Kept::new(max_bytes) }
    }

    /// What `encoder` makes of a batch, (B, T, D), rows beyond their positions zeros. Each row is what it is alone, to the bit,
    /// whether it was kept or not.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn encode(&self, encoder: &Encoder, batch: &Batch) -> Result<Tensor, Error> {
        let rows = batch.n_frames.iter().zip(&batch.are_repeated).enumerate();
        let rows = rows.map(|(row, (n_frames, is_repeated))| {
            let mel = batch.mel.narrow(0, row, 1)?.narrow(2, 0, *n_frames)?.contiguous()?; // (1, F, T)
            if *is_repeated { self.states(encoder, &mel) } else { states(encoder, &mel) }
        });
        let rows = rows.collect::<Result<Vec<_>, Error>>()?;
        let n_positions = rows.iter().map(|row| row.dims()[0]).max().unwrap_or(0);
        let padded = rows.into_iter().map(|row| row.pad_with_zeros(0, 0, n_positions - row.dims()[0]));
        let padded = padded.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::stack(&padded, 0)?)
    }

    /// Of a recording that is heard again.
    fn states(&self, encoder: &Encoder, mel: &Tensor) -> Result<Tensor, Error> {
        let digest = digest(mel)?;
        if let Some(states) = self.kept.get(&digest) {
            return Ok(states);
        }
        let states = states(encoder, mel)?;
        let n_bytes = states.elem_count() * DType::F32.size_in_bytes();
        self.kept.keep(digest, states.clone(), n_bytes);
        Ok(states)
    }

    #[cfg(test)]
    pub fn n_kept(&self) -> usize {
        self.kept.len()
    }
}

/// Of one recording, (T, D).
fn states(encoder: &Encoder, mel: &Tensor) -> Result<Tensor, Error> {
    Ok(encoder.forward(mel, &|| true)?.squeeze(0)?.detach())
}

fn digest(mel: &Tensor) -> Result<[u8; 32], Error> {
    let mut hash = Sha256::new();
    for value in mel.flatten_all()?.to_vec1::<f32>()? {
        hash.update(value.to_le_bytes());
    }
    Ok(hash.finalize().into())
}
