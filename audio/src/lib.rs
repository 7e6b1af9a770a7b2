//! Bytes to waveform to features. No tensors, no async, no HTTP.
//!
//! - [`decode_bytes`], [`decode_file`] and [`decode_open_file`]: any supported recording to a mono [`Waveform`] at its native rate,
//!   within [`Limits`];
//! - [`resample`]: to the rate a model wants;
//! - [`FeatureSpec`], [`LogMel`], [`Features`]: waveform to log-mel features, identified by a digest;
//! - [`features::Stft`], [`features::Istft`], [`GriffinLim`]: samples to complex spectra and back, at once or frame by frame,
//!   and features back to a waveform without a model;
//! - [`Vad`] and [`window::cut_at_silences`]: where speech is, and windows that do not cut through it;
//! - [`PitchTracker`]: how high voices are, frame by frame;
//! - [`augment`]: recordings made to differ, for training;
//! - [`encode`]: speech to MP3, Opus, FLAC, WAV or PCM, at once or as it comes.
#![forbid(unsafe_code)]

pub mod augment;
pub mod decode;
pub mod encode;
mod error;
pub mod features;
mod griffin_lim;
mod limits;
mod pitch;
mod resample;
pub mod vad;
mod waveform;
pub mod window;

pub use decode::{
    ChannelChoice, DecodeAudio, Decoded, EXTENSIONS, SourceInfo, Warning, decode_bytes, decode_file,
    decode_open_file, probe_file,
};
pub use error::Error;
pub use features::{FeatureSpec, Features, LogKind, LogMel, Normalizer, Padding, WindowKind};
pub use griffin_lim::{GriffinLim, GriffinLimConfig};
pub use limits::Limits;
pub use pitch::{PitchConfig, PitchTracker};
pub use resample::resample;
pub use vad::{Vad, VadOptions};
pub use waveform::{Span, Waveform};
pub use window::Window;
