//! Vocoders' features, transforms and inverse transforms against torch's.

use audio::features::{Complex, FrameAlignment, Istft, Spectrogram, Stft};
use audio::{FeatureSpec, LogMel};
use safetensors::SafeTensors;

use super::{fixture, max_difference, noisy_sweep, tensor};

fn with_fixture(check: impl Fn(&SafeTensors<'_>)) {
    let bytes = std::fs::read(fixture("../vocoder-mel.safetensors")).expect("fixture");
    check(&SafeTensors::deserialize(&bytes).expect("safetensors"));
}

/// Real and imaginary parts in turn.
fn parts(bins: &[Complex<f64>]) -> Vec<f32> {
    bins.iter().flat_map(|bin| [bin.re as f32, bin.im as f32]).collect()
}

#[test]
fn features_match_torch() {
    with_fixture(|tensors| {
        for (sample_rate, n_mels, n_samples) in [(24_000, 100, 4_800), (16_000, 80, 4_080)] {
            let log_mel = LogMel::new(&FeatureSpec::vocoder(sample_rate, n_mels)).unwrap();
            let features = log_mel.compute(&noisy_sweep(n_samples, sample_rate));
            let shape = [n_mels, 1 + n_samples as usize / 256];
            assert_eq!([features.n_mels, features.n_frames], shape);
            let expected = tensor(tensors, &format!("features.{sample_rate}.{n_mels}"), &shape);
            let difference = max_difference(&features.data, &expected);
            println!("{sample_rate} Hz, {n_mels} bins: largest difference {difference:.1e}");
            assert!(difference < 1e-5, "{sample_rate} Hz, {n_mels} bins: {difference}");
        }
    });
}

#[test]
fn spectra_match_torch() {
    with_fixture(|tensors| {
        let stft = Stft::new(&FeatureSpec::vocoder(24_000, 100)).unwrap();
        let spectrogram = stft.spectrogram(&noisy_sweep(4_800, 24_000));
        assert_eq!((spectrogram.n_frames, spectrogram.n_bins), (19, 513));
        // Both ends, where samples are mirrored, and between them.
        let frames: Vec<f32> =
            [0, 1, 9, 18].iter().flat_map(|frame| parts(spectrogram.frame(*frame))).collect();
        let difference = max_difference(&frames, &tensor(tensors, "stft.24000", &[4, 513, 2]));
        println!("largest difference {difference:.1e}");
        // The loudest bins are about 100, where f32 has steps of 8e-6.
        assert!(difference < 1e-5, "{difference}");
    });
}

/// Of random numbers, which are the spectrum of no signal: every weight of every frame counts.
#[test]
fn inverse_transforms_match_torch() {
    with_fixture(|tensors| {
        for (n_fft, window_samples, hop_samples, n_frames) in
            [(64, 64, 16, 9), (64, 48, 20, 7), (1_024, 1_024, 256, 4)]
        {
            let name = format!("{n_fft}.{window_samples}.{hop_samples}");
            let n_bins = n_fft / 2 + 1;
            let numbers = tensor(tensors, &format!("spectrogram.{name}"), &[n_frames, n_bins, 2]);
            let bins =
                numbers.chunks_exact(2).map(|pair| Complex::new(pair[0].into(), pair[1].into())).collect();
            let spectrogram = Spectrogram { bins, n_bins, n_frames };
            let spec = FeatureSpec { n_fft, window_samples, hop_samples, ..FeatureSpec::vocoder(24_000, 20) };
            for (alignment, kind, n_samples) in [
                (FrameAlignment::Centred, "centred", (n_frames - 1) * hop_samples),
                (FrameAlignment::Same, "same", n_frames * hop_samples),
            ] {
                let samples = Istft::new(&spec, alignment).unwrap().samples(&spectrogram).unwrap();
                let expected = tensor(tensors, &format!("istft.{name}.{kind}"), &[n_samples]);
                let difference = max_difference(&samples, &expected);
                println!("{name} {kind}: largest difference {difference:.1e}");
                assert!(difference < 1e-6, "{name} {kind}: {difference}");
            }
        }
    });
}
