//! Log-mel features against transformers' `WhisperFeatureExtractor`.

use audio::{FeatureSpec, LogMel};
use safetensors::{Dtype, SafeTensors};

use super::{fixture, max_difference, noisy_sweep, read_f32, tensor};

const COLUMNS: [usize; 7] = [0, 1, 2, 57, 100, 160, 199];

/// The waveform of `tests/oracle/whisper_features.py`.
fn waveform() -> Vec<f32> {
    use std::f64::consts::TAU;
    let mut samples: Vec<f32> = (0..32_000)
        .map(|index| {
            let t = f64::from(index) / 16_000.0;
            let sweep = 0.3 * (TAU * (150.0 * t + 600.0 * t * t)).sin();
            (sweep + 0.05 * (TAU * 3_217.0 * t).sin() * (TAU * 3.0 * t).cos()) as f32
        })
        .collect();
    samples[20_000..24_000].fill(0.0);
    samples
}

#[test]
fn match_the_whisper_feature_extractor() {
    for n_mels in [80, 128] {
        let features = LogMel::new(&FeatureSpec::whisper(n_mels)).unwrap().compute(&waveform());
        assert_eq!((features.n_mels, features.n_frames), (n_mels, 200));
        let rows = [0, 1, n_mels / 2, n_mels - 1].into_iter().flat_map(|mel| features.row(mel).to_vec());
        let columns =
            COLUMNS.iter().flat_map(|t| (0..n_mels).map(|mel| features.row(mel)[*t]).collect::<Vec<f32>>());
        let values: Vec<f32> = rows.chain(columns).collect();
        let difference = max_difference(&values, &read_f32(&format!("whisper_mel_{n_mels}.f32")));
        println!("{n_mels} bins: largest difference {difference:.1e}");
        assert!(difference < 1e-4, "{n_mels} bins: {difference}");
    }
}

#[test]
fn silence_appended_costs_no_accuracy() {
    let log_mel = LogMel::new(&FeatureSpec::whisper(80)).unwrap();
    let mut samples = waveform();
    let alone = log_mel.compute(&samples);
    samples.resize(480_000, 0.0);
    let padded = log_mel.compute(&samples);
    assert_eq!(padded.n_frames, 3_000);
    // All but the last frames, which mirror the end instead of seeing the silence.
    for mel in 0..80 {
        assert_eq!(alone.row(mel)[..198], padded.row(mel)[..198]);
    }
}

/// Noise and broad-band sound, a length that is no multiple of 30 s, the filters by themselves, and the frames where
/// a padded clip ends: its last sound is mirrored when alone and followed by silence when padded.
#[test]
fn match_it_alone_and_padded_to_30_s() {
    let bytes = std::fs::read(fixture("../log-mel.safetensors")).expect("fixture");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let alone = noisy_sweep(24_080, 16_000);
    let first = max_difference(&alone[..64], &tensor(&tensors, "waveform.first64", &[64]));
    assert!(first < 1e-6, "another waveform: {first}");
    let facts = std::fs::read(fixture("../log-mel.json")).expect("fixture");
    let facts: serde_json::Value = serde_json::from_slice(&facts).expect("JSON");
    assert_eq!(facts["samples"], alone.len());
    let sum: f64 = alone.iter().map(|sample| f64::from(*sample)).sum();
    let squares: f64 = alone.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    for (name, sum) in [("waveform_sum", sum), ("waveform_sum_of_squares", squares)] {
        assert!((sum - facts[name].as_f64().expect(name)).abs() < 1e-5, "another waveform: {name} is {sum}");
    }
    assert_eq!(facts["padded_frames"], serde_json::json!([130, 160]));
    let mut padded = alone.clone();
    padded.resize(480_000, 0.0);
    for n_mels in [80, 128] {
        let log_mel = LogMel::new(&FeatureSpec::whisper(n_mels)).unwrap();
        let features = log_mel.compute(&alone);
        let expected = tensor(&tensors, &format!("features.{n_mels}"), &[n_mels, 150]);
        let of_alone = max_difference(&features.data, &expected);
        let end = log_mel.compute(&padded).slice(130, 30, f32::NAN);
        assert!(features.data.iter().chain(&end.data).all(|value| value.is_finite()), "{n_mels} bins");
        let expected = tensor(&tensors, &format!("features.{n_mels}.padded"), &[n_mels, 30]);
        let of_padded = max_difference(&end.data, &expected);
        println!("{n_mels} bins: largest difference {of_alone:.1e} alone, {of_padded:.1e} padded");
        assert!(of_alone < 1e-4 && of_padded < 1e-4, "{n_mels} bins: {of_alone}, {of_padded}");

        let name = format!("filters.{n_mels}.row_sums");
        let view = tensors.tensor(&name).expect("row sums");
        assert_eq!((view.dtype(), view.shape()), (Dtype::F64, &[n_mels][..]), "{name}");
        let dense = log_mel.filters().dense();
        let rows = dense.chunks_exact(log_mel.filters().n_bins());
        for (mel, (row, sum)) in rows.zip(view.data().chunks_exact(8)).enumerate() {
            let expected = f64::from_le_bytes(sum.try_into().expect("8 bytes"));
            let sum: f64 = row.iter().sum();
            assert!((sum - expected).abs() < 1e-6 * expected, "{name} {mel}: {sum}, not {expected}");
        }
    }
}
