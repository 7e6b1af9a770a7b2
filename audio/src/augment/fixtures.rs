//! Sounds that tests of several augmentations need.

use crate::Waveform;

/// A second of one frequency.
pub(super) fn tone(hz: f64, amplitude: f64, sample_rate: u32) -> Waveform {
    let turn = std::f64::consts::TAU * hz / f64::from(sample_rate);
    let samples = (0..sample_rate).map(|t| (amplitude * (turn * f64::from(t)).sin()) as f32).collect();
    Waveform { samples, sample_rate }
}
