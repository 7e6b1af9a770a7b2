//! Augmentation: recordings made to differ, so that a model learns what stays the same.
//!
//! Each file is one augmentation: a pure function of input, parameters and, where chance is involved, a random number
//! generator that the caller seeds. None of them reads a file. [`Augment`] says which are on, how often and within
//! which bounds; [`Augmenter`] applies them in a fixed order.
//!
//! Functions on waveforms take any sample rate and any length, including none, and return as many samples as they were
//! given; only [`perturb_speed`] changes the length, by a rule that is known beforehand ([`perturbed_samples`]).

mod augmenter;
mod bandwidth;
mod clip;
pub mod config;
mod convolve;
mod equaliser;
#[cfg(test)]
mod fixtures;
mod gain;
mod level;
mod noise;
mod opus;
mod reverb;
mod room;
mod spec_augment;
mod speed;
mod telephone;
mod transform;

pub use augmenter::{Augmenter, Sources, cut_rng};
pub use bandwidth::limit_bandwidth;
pub use clip::clip;
pub use config::{Augment, Preset};
pub use equaliser::{BANDS_HZ, equalise, sloped_gains_db};
pub use gain::change_gain;
pub use level::{active_power, limit_peak};
pub use noise::{NoiseColor, add_noise, colored_noise, noise_excerpt};
pub use opus::opus_round_trip;
pub use reverb::{ImpulseResponse, reverberate};
pub use room::{Shoebox, decaying_noise};
pub use spec_augment::{MaskFill, SpecAugment, spec_augment};
pub use speed::{perturb_speed, perturbed_samples, perturbed_secs};
pub use telephone::{Companding, telephone};
