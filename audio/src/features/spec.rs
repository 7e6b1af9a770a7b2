//! Everything that decides the value of a feature.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;

/// Everything that decides a feature. Two specs that differ in any field give features that must not be mixed, so
/// models store the [`digest`](FeatureSpec::digest) and refuse others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// Rate of the waveform, Hz.
    pub sample_rate: u32,
    /// Pre-emphasis coefficient `a` of `x[t] - a x[t-1]` (the first sample stays), before framing; `None` is off.
    pub preemphasis: Option<f32>,
    /// Standard deviation of added noise. Only 0 is accepted: dither makes features irreproducible.
    pub dither: f32,
    /// Transform length, samples.
    pub n_fft: usize,
    /// Window length, samples, at most `n_fft`; centred in the transform.
    pub window_samples: usize,
    /// Window shape.
    pub window: WindowKind,
    /// Distance between frames, samples.
    pub hop_samples: usize,
    /// What stands before the first and after the last sample.
    pub padding: Padding,
    /// What the mel filters add up.
    pub spectrum: SpectrumKind,
    /// Mel bins.
    pub n_mels: usize,
    /// Frequency scale on which the bins are equally spaced.
    pub mel_scale: MelScale,
    /// Scaling of each filter.
    pub mel_norm: MelNorm,
    /// Lower edge of the first filter, Hz.
    pub min_hz: f64,
    /// Upper edge of the last filter, Hz.
    pub max_hz: f64,
    /// Compression.
    pub log: LogKind,
    /// Values further than this below the largest value of the array are raised to that floor; in units of `log`.
    pub dynamic_range: Option<f64>,
    /// The last step.
    pub normalizer: Normalizer,
    /// Whether the last frame is left out, so that `n` samples give `floor(n / hop)` frames when centred.
    pub drop_last_frame: bool,
}

/// Window shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Hann with period `window_samples` (`torch.hann_window`'s default).
    HannPeriodic,
    /// Hann with zero at both ends (`periodic=False`).
    HannSymmetric,
}

/// What stands before the first and after the last sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Nothing: the first frame starts at sample 0.
    None,
    /// `n_fft / 2` zeros: frame `t` is centred on sample `t * hop`.
    Zero,
    /// `n_fft / 2` mirrored samples, the edge sample not repeated: frame `t` is centred on sample `t * hop`.
    Reflect,
}

/// What the mel filters add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpectrumKind {
    /// `|X|`.
    Magnitude,
    /// `|X|^2`.
    Power,
}

/// Frequency scale on which the mel bins are equally spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MelScale {
    /// Linear below 1 kHz, logarithmic above (Auditory Toolbox; librosa's default).
    Slaney,
    /// `2595 log10(1 + f / 700)`.
    Htk,
}

/// Scaling of each mel filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MelNorm {
    /// Peak 1.
    None,
    /// Area 1: `2 / (upper - lower)`, in 1/Hz.
    Slaney,
}

/// Compression of the mel energies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// None.
    Linear,
    /// `log10(max(x, floor))`.
    Log10 {
        /// Smallest argument.
        floor: f64,
    },
    /// `10 log10(max(x, floor))`.
    Decibel {
        /// Smallest argument.
        floor: f64,
    },
    /// `ln(max(x, floor))`.
    Ln {
        /// Smallest argument.
        floor: f64,
    },
    /// `ln(x + offset)`.
    LnOffset {
        /// What is added.
        offset: f64,
    },
}

/// The last step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalizer {
    /// None.
    None,
    /// `(x + offset) / divisor`.
    Affine {
        /// What is added.
        offset: f64,
        /// What it is divided by.
        divisor: f64,
    },
    /// Each bin to zero mean and unit deviation over the frames of the array: `(x - mean) / (std + epsilon)`, with
    /// the unbiased deviation (NeMo's `per_feature`).
    PerBin {
        /// Added to the deviation.
        epsilon: f64,
    },
}

impl FeatureSpec {
    /// The value of every bin of silence, before what a normaliser makes of it.
    pub fn silence(&self) -> f32 {
        match self.log {
            LogKind::Linear => 0.0,
            LogKind::Log10 { floor } => floor.log10() as f32,
            LogKind::Decibel { floor } => (10.0 * floor.log10()) as f32,
            LogKind::Ln { floor } => floor.ln() as f32,
            LogKind::LnOffset { offset } => offset.ln() as f32,
        }
    }

    /// Whisper's features (openai/whisper, `audio.py`): 16 kHz, 25 ms periodic Hann, 10 ms hop, 80 or 128 Slaney
    /// mels to 8 kHz, log10 within 8 of the maximum, `(x + 4) / 4`.
    pub fn whisper(n_mels: usize) -> Self {
        FeatureSpec {
            sample_rate: 16_000,
            preemphasis: None,
            dither: 0.0,
            n_fft: 400,
            window_samples: 400,
            window: WindowKind::HannPeriodic,
            hop_samples: 160,
            padding: Padding::Reflect,
            spectrum: SpectrumKind::Power,
            n_mels,
            mel_scale: MelScale::Slaney,
            mel_norm: MelNorm::Slaney,
            min_hz: 0.0,
            max_hz: 8_000.0,
            log: LogKind::Log10 { floor: 1e-10 },
            dynamic_range: Some(8.0),
            normalizer: Normalizer::Affine { offset: 4.0, divisor: 4.0 },
            drop_last_frame: true,
        }
    }

    /// Features to synthesise speech from, as Vocos and torchaudio's defaults have them (gemelo-ai/vocos,
    /// `feature_extractors.py`, `padding: center`): 1024 samples of periodic Hann every 256, centred and reflected, HTK
    /// mels with peak 1 from 0 Hz to half of `sample_rate` (Hz) over magnitudes, `ln(max(x, 1e-7))`. Vocos' published
    /// model has 24 kHz and 100 mels; at 16 kHz 80 are usual.
    pub fn vocoder(sample_rate: u32, n_mels: usize) -> Self {
        FeatureSpec {
            sample_rate,
            preemphasis: None,
            dither: 0.0,
            n_fft: 1_024,
            window_samples: 1_024,
            window: WindowKind::HannPeriodic,
            hop_samples: 256,
            padding: Padding::Reflect,
            spectrum: SpectrumKind::Magnitude,
            n_mels,
            mel_scale: MelScale::Htk,
            mel_norm: MelNorm::None,
            min_hz: 0.0,
            max_hz: f64::from(sample_rate) / 2.0,
            log: LogKind::Ln { floor: 1e-7 },
            dynamic_range: None,
            normalizer: Normalizer::None,
            drop_last_frame: false,
        }
    }

    /// Frames per second.
    pub fn frame_rate(&self) -> f64 {
        f64::from(self.sample_rate) / self.hop_samples as f64
    }

    /// Frames that `n_samples` give; 0 for no samples.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        let centring = if self.padding == Padding::None { 0 } else { 2 * (self.n_fft / 2) };
        let padded = n_samples.saturating_add(centring);
        if n_samples == 0 || padded < self.n_fft || self.hop_samples == 0 {
            return 0;
        }
        1 + (padded - self.n_fft) / self.hop_samples - usize::from(self.drop_last_frame)
    }

    /// SHA-256 over a canonical text of every field, 64 lower-case hex digits. Stable across versions: a new field
    /// enters the text only where it differs from what was implied before.
    pub fn digest(&self) -> String {
        use std::fmt::Write;
        Sha256::digest(self.canonical_text()).iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    fn canonical_text(&self) -> String {
        // Spelt out, not derived from names in the code: renaming a field must not change a digest.
        let window = match self.window {
            WindowKind::HannPeriodic => "hann-periodic",
            WindowKind::HannSymmetric => "hann-symmetric",
        };
        let padding = match self.padding {
            Padding::None => "none",
            Padding::Zero => "zero",
            Padding::Reflect => "reflect",
        };
        let spectrum = match self.spectrum {
            SpectrumKind::Magnitude => "magnitude",
            SpectrumKind::Power => "power",
        };
        let scale = match self.mel_scale {
            MelScale::Slaney => "slaney",
            MelScale::Htk => "htk",
        };
        let norm = match self.mel_norm {
            MelNorm::None => "none",
            MelNorm::Slaney => "slaney",
        };
        let log = match self.log {
            LogKind::Linear => "linear".to_owned(),
            LogKind::Log10 { floor } => format!("log10 max {floor:e}"),
            LogKind::Decibel { floor } => format!("10log10 max {floor:e}"),
            LogKind::Ln { floor } => format!("ln max {floor:e}"),
            LogKind::LnOffset { offset } => format!("ln plus {offset:e}"),
        };
        let normalizer = match self.normalizer {
            Normalizer::None => "none".to_owned(),
            Normalizer::Affine { offset, divisor } => format!("affine {offset:e} {divisor:e}"),
            Normalizer::PerBin { epsilon } => format!("per-bin {epsilon:e}"),
        };
        let optional = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:e}"));
        format!(
            "speechd features 1\nsample_rate {}\npreemphasis {}\ndither {:e}\nn_fft {}\nwindow {window} {}\nhop {}\n\
             padding {padding}\nspectrum {spectrum}\nmel {} {scale} {norm} {:e} {:e}\nlog {log}\n\
             dynamic_range {}\nnormalizer {normalizer}\ndrop_last_frame {}\n",
            self.sample_rate,
            optional(self.preemphasis.map(f64::from)),
            self.dither,
            self.n_fft,
            self.window_samples,
            self.hop_samples,
            self.n_mels,
            self.min_hz,
            self.max_hz,
            optional(self.dynamic_range),
            self.drop_last_frame,
        )
    }

    /// Refuses specs that contradict themselves or ask for what is not implemented.
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad =
            |field: &'static str, reason: &str| Err(Error::BadOption { field, reason: reason.to_owned() });
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if self.sample_rate == 0 {
            return bad("sample_rate", "must be at least 1 Hz");
        }
        if self.dither != 0.0 {
            return bad("dither", "is not implemented: it makes features irreproducible");
        }
        if self.preemphasis.is_some_and(|coefficient| !coefficient.is_finite()) {
            return bad("preemphasis", "must be finite");
        }
        if !(2..=1 << 16).contains(&self.n_fft) || self.n_fft % 2 == 1 {
            return bad("n_fft", "must be even, 2 to 65536 samples");
        }
        if self.window_samples < 2 || self.window_samples > self.n_fft {
            return bad("window_samples", "must be 2 to n_fft");
        }
        if self.hop_samples == 0 {
            return bad("hop_samples", "must be at least 1");
        }
        if self.n_mels == 0 || self.n_mels > self.n_fft {
            return bad("n_mels", "must be 1 to n_fft");
        }
        let nyquist_hz = f64::from(self.sample_rate) / 2.0;
        if !(self.min_hz >= 0.0 && self.min_hz < self.max_hz && self.max_hz <= nyquist_hz) {
            return bad("max_hz", "needs 0 <= min_hz < max_hz <= sample_rate / 2");
        }
        match self.log {
            LogKind::Log10 { floor } | LogKind::Decibel { floor } | LogKind::Ln { floor }
                if !positive(floor) =>
            {
                return bad("log", "the floor must be positive");
            }
            LogKind::LnOffset { offset } if !positive(offset) => {
                return bad("log", "the offset must be positive");
            }
            _ => {}
        }
        if self.dynamic_range.is_some_and(|range| !positive(range)) {
            return bad("dynamic_range", "must be positive");
        }
        match self.normalizer {
            Normalizer::Affine { offset, divisor } if !offset.is_finite() || !divisor.is_normal() => {
                bad("normalizer", "needs a finite offset and a divisor that is not zero")
            }
            Normalizer::PerBin { epsilon } if !positive(epsilon) => {
                bad("normalizer", "epsilon must be positive")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_stable_and_tells_specs_apart() {
        let spec = FeatureSpec::whisper(80);
        assert_eq!(spec.digest(), spec.clone().digest());
        assert_eq!(spec.digest(), "f08d927e0f6ad3d2c91c322ac05097ebc2a896b77b9b5a66de716c690eca5535");
        assert_ne!(spec.digest(), FeatureSpec::whisper(128).digest());
        let shifted = FeatureSpec { drop_last_frame: false, ..spec.clone() };
        assert_ne!(spec.digest(), shifted.digest());
        let spec = FeatureSpec::vocoder(24_000, 100);
        assert_eq!(spec.digest(), "6861ccfa69b9e2966c6b4b552eb7b5aa7fa5b298006b508ec8ba4c5cc205eeed");
        assert_ne!(spec.digest(), FeatureSpec::vocoder(24_000, 80).digest());
        assert_ne!(spec.digest(), FeatureSpec::vocoder(22_050, 100).digest());
    }

    #[test]
    fn counts_frames_as_the_reference_does() {
        let spec = FeatureSpec::whisper(80);
        assert_eq!(spec.n_frames(480_000), 3_000);
        assert_eq!(spec.n_frames(1), 0);
        assert_eq!(spec.n_frames(160), 1);
        assert_eq!(spec.n_frames(0), 0);
        assert_eq!(FeatureSpec::vocoder(24_000, 100).n_frames(24_000), 94);
        assert_eq!(FeatureSpec::vocoder(24_000, 100).n_frames(1), 1);
        assert_eq!(FeatureSpec { padding: Padding::None, drop_last_frame: false, ..spec }.n_frames(560), 2);
    }

    #[test]
    fn refuses_what_it_does_not_implement() {
        let refused = |spec: FeatureSpec| matches!(spec.check(), Err(Error::BadOption { .. }));
        let spec = FeatureSpec::whisper(80);
        assert!(spec.check().is_ok());
        assert!(FeatureSpec::vocoder(24_000, 100).check().is_ok());
        assert!(FeatureSpec::vocoder(11_025, 80).check().is_ok());
        assert!(refused(FeatureSpec { dither: 1e-5, ..spec.clone() }));
        assert!(refused(FeatureSpec { window_samples: 512, ..spec.clone() }));
        assert!(refused(FeatureSpec { max_hz: 8_001.0, ..spec.clone() }));
        assert!(refused(FeatureSpec { min_hz: f64::NAN, ..spec.clone() }));
        assert!(refused(FeatureSpec { hop_samples: 0, ..spec.clone() }));
        assert!(refused(FeatureSpec { log: LogKind::Ln { floor: 0.0 }, ..spec }));
    }
}
