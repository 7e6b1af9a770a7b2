//! Waveform to log-mel features, by a specification that travels with the model; and spectra back to a waveform.

mod istft;
mod log_mel;
mod mel;
mod spec;
mod stft;

pub use istft::{FrameAlignment, Istft, OverlapAdd};
pub use log_mel::LogMel;
pub use mel::MelFilters;
/// A complex number, of which spectra are made.
pub use realfft::num_complex::Complex;
pub use spec::{FeatureSpec, LogKind, MelNorm, MelScale, Normalizer, Padding, SpectrumKind, WindowKind};
pub use stft::{Spectrogram, Stft};

pub(crate) use istft::MIN_ENVELOPE;

/// A feature matrix, mel bins x frames.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// Row-major (F, T): the value of bin `f` at frame `t` is `data[f * n_frames + t]`.
    pub data: Vec<f32>,
    /// F.
    pub n_mels: usize,
    /// T.
    pub n_frames: usize,
}

impl Features {
    /// The row of one mel bin, all frames.
    ///
    /// # Panics
    /// When `mel` is not below `n_mels`, as slices do.
    pub fn row(&self, mel: usize) -> &[f32] {
        &self.data[mel * self.n_frames..(mel + 1) * self.n_frames]
    }

    /// Frames `start_frame .. start_frame + n_frames` as a matrix of exactly `n_frames`; frames beyond the end are
    /// filled with `pad_value`.
    pub fn slice(&self, start_frame: usize, n_frames: usize, pad_value: f32) -> Features {
        let start = start_frame.min(self.n_frames);
        let n_copied = n_frames.min(self.n_frames - start);
        let mut data = vec![pad_value; self.n_mels * n_frames];
        if n_copied > 0 {
            for (mel, row) in data.chunks_exact_mut(n_frames).enumerate() {
                row[..n_copied].copy_from_slice(&self.row(mel)[start..start + n_copied]);
            }
        }
        Features { data, n_mels: self.n_mels, n_frames }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_padded_to_their_length() {
        let features = Features { data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], n_mels: 2, n_frames: 3 };
        assert_eq!(features.slice(1, 3, -1.0).data, [2.0, 3.0, -1.0, 5.0, 6.0, -1.0]);
        assert_eq!(features.slice(9, 1, 0.5).data, [0.5, 0.5]);
        assert!(features.slice(0, 0, 0.5).data.is_empty());
        assert_eq!(features.slice(0, 3, 0.0), features);
    }
}
