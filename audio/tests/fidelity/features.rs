//! Log-mel features against transformers' `WhisperFeatureExtractor`.

use audio::{FeatureSpec, LogMel};

use super::{max_difference, read_f32};

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
