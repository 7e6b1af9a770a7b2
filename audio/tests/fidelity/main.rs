//! What comes out is what went in: formats against their source signal, features, spectra and resampling against reference
//! implementations, and real recordings where they are at hand.
//!
//! Fixtures are made by `tests/oracle/{formats.sh,chirp.py,whisper_features.py,log_mel.py,vocoder_mel.py,augment.py}`; recordings lie where
//! `SPEECHD_DATA` says, or in `../shared/data` beside the repository. `--nocapture` shows the figures.
#![allow(clippy::print_stdout)]

mod augment;
mod features;
mod formats;
mod joined;
mod recordings;
mod resampling;
mod synthesis;

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/audio").join(name)
}

fn read_f32(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixture(name)).expect("fixture");
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()
}

/// One f32 tensor of a fixture.
fn tensor(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Vec<f32> {
    let view = tensors.tensor(name).expect(name);
    assert_eq!((view.dtype(), view.shape()), (Dtype::F32, shape), "{name}");
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The waveform that `tests/fixtures/log-mel.json` and `vocoder-mel.json` describe.
fn noisy_sweep(n_samples: u32, sample_rate: u32) -> Vec<f32> {
    use std::f64::consts::TAU;
    let mut state = 12_345_u32;
    let sample = |index: u32| {
        let t = f64::from(index) / f64::from(sample_rate);
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = f64::from(state) / 2.0_f64.powi(31) - 1.0;
        let sweep = 0.4 * (TAU * (220.0 * t + 300.0 * t * t)).sin();
        (sweep + 0.2 * (TAU * 1_234.5 * t).sin() + 0.05 * noise) as f32
    };
    (0..n_samples).map(sample).collect()
}

fn pcm_s16le(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0).collect()
}

fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Signal-to-noise ratio of `decoded` against `source`, decibels.
fn snr_db(source: &[f32], decoded: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let signal: f64 = source.iter().map(|s| square(*s)).sum();
    let noise: f64 = source.iter().zip(decoded).map(|(s, d)| square(s - d)).sum();
    10.0 * (signal / noise.max(1e-30)).log10()
}
