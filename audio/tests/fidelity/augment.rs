//! Augmentations against scipy, CPython's audioop, pyroomacoustics and SonusAI (`tests/oracle/augment.py`).

use std::f64::consts::{PI, TAU};

use audio::Waveform;
use audio::augment::{
    Companding, ImpulseResponse, Shoebox, active_power, colored_noise, cut_rng, equalise, reverberate,
    telephone,
};
use safetensors::{Dtype, SafeTensors};

use super::{fixture, max_difference, snr_db};

/// The speech of the oracle: four syllables in 3.2 s.
fn speech() -> Waveform {
    let syllables = [(0.3, 0.8, 1.0), (1.3, 1.5, 0.4), (1.65, 2.1, 0.7), (2.6, 2.9, 0.2)];
    let sample = |index: u32| {
        let t = f64::from(index) / 16_000.0;
        let loudness = |(start, end, amplitude): &(f64, f64, f64)| {
            if (*start..*end).contains(&t) {
                amplitude * (PI * (t - start) / (end - start)).sin().powi(2)
            } else {
                0.0
            }
        };
        (syllables.iter().map(loudness).sum::<f64>() * (TAU * (150.0 * t + 40.0 * t * t)).sin()) as f32
    };
    Waveform { samples: (0..51_200).map(sample).collect(), sample_rate: 16_000 }
}

/// One tensor of the fixture, as f64 or f32 little-endian.
fn expected(name: &str) -> Vec<f64> {
    let bytes = std::fs::read(fixture("../augment.safetensors")).expect("fixture");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = tensors.tensor(name).expect("tensor");
    match tensor.dtype() {
        Dtype::F32 => {
            tensor.data().as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
        }
        Dtype::F64 => tensor.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        other => panic!("{other:?}"),
    }
}

fn expected_f32(name: &str) -> Vec<f32> {
    expected(name).into_iter().map(|value| value as f32).collect()
}

#[test]
fn the_level_of_speech_is_that_of_p56() {
    let measured = active_power(&speech()).unwrap();
    let difference_db = 10.0 * (measured / expected("active_power")[0]).log10();
    println!("active speech level: {difference_db:.4} dB from SonusAI");
    assert!(difference_db.abs() < 0.001, "{difference_db} dB");
}

#[test]
fn a_room_is_scipys_convolution() {
    let dry = Waveform { samples: speech().samples[4_800..8_800].to_vec(), sample_rate: 16_000 };
    let response = Waveform { samples: expected_f32("response"), sample_rate: 16_000 };
    let room = ImpulseResponse::recorded(response).unwrap();
    assert_eq!(room.direct_sample(), 25);
    let wet = reverberate(&dry, &room).unwrap();
    let difference = max_difference(&wet.samples, &expected_f32("reverberated"));
    println!("reverberation: largest difference {difference:.1e}");
    assert!(difference < 2e-6, "{difference}");
}

#[test]
fn a_microphone_is_scipys_firwin2() {
    let flat = Waveform { samples: speech().samples[4_800..8_800].to_vec(), sample_rate: 16_000 };
    let coloured = equalise(&flat, &[9.0, 10.0, 1.0, 0.0, -6.0, -5.0, -20.0]).unwrap();
    let difference = max_difference(&coloured.samples, &expected_f32("equalised"));
    println!("equaliser: largest difference {difference:.1e}");
    assert!(difference < 2e-6, "{difference}");
}

/// Filtered values that lie on the edge between two steps may be rounded to either.
#[test]
fn a_telephone_is_scipys_filter_and_audioops_g711() {
    let call = Waveform { samples: expected_f32("call"), sample_rate: 8_000 };
    for (companding, name) in [(Companding::MuLaw, "telephone_mu"), (Companding::ALaw, "telephone_a")] {
        let received = telephone(&call, companding).unwrap().samples;
        let reference = expected_f32(name);
        let n_other = received.iter().zip(&reference).filter(|(a, b)| a != b).count();
        println!("{name}: {n_other} of {} differ", reference.len());
        assert!(n_other <= 8, "{name}: {n_other}");
        for (a, b) in received.iter().zip(&reference) {
            // Steps are at most a sixteenth of the value.
            assert!((a - b).abs() <= b.abs() / 15.0 + 5e-4, "{name}: {a} {b}");
        }
    }
}

#[test]
fn echoes_are_those_of_pyroomacoustics() {
    let room = Shoebox {
        sides_m: [5.0, 4.0, 3.0],
        source_m: [1.2, 1.0, 1.6],
        microphone_m: [3.4, 2.7, 1.3],
        rt60_secs: 0.4,
    };
    let response = room.impulse_response(16_000, &mut cut_rng(0, 0, "room")).unwrap();
    let reference = expected_f32("room");
    let snr = snr_db(&reference, &response.response().samples[..reference.len()]);
    println!("image sources: {snr:.1} dB against pyroomacoustics");
    assert!(snr > 50.0, "{snr} dB");
}

/// What a telephone passes of white noise lies in its band.
#[test]
fn nothing_is_left_outside_the_band_of_a_telephone() {
    let mut noise =
        colored_noise(audio::augment::NoiseColor::White, 16_384, 16_000, &mut cut_rng(0, 0, "noise"))
            .unwrap();
    noise.samples.iter_mut().for_each(|sample| *sample *= 0.1);
    let received = telephone(&noise, Companding::ALaw).unwrap().samples;
    // Frames of 512 samples under a Hann window, bins of 31.25 Hz.
    let mut powers = [0.0; 257];
    for frame in received.chunks_exact(512) {
        for (bin, power) in powers.iter_mut().enumerate() {
            let (mut re, mut im) = (0.0, 0.0);
            for (t, sample) in frame.iter().enumerate() {
                let turn = TAU * t as f64 / 512.0;
                let value = f64::from(*sample) * (0.5 - 0.5 * turn.cos());
                re += value * (turn * bin as f64).cos();
                im -= value * (turn * bin as f64).sin();
            }
            *power += re * re + im * im;
        }
    }
    let band = |from_hz: f64, to_hz: f64| {
        let (first, end) = ((from_hz / 31.25).ceil() as usize, (to_hz / 31.25).floor() as usize);
        powers[first..end].iter().sum::<f64>() / (end - first) as f64
    };
    let inside = band(500.0, 3_200.0);
    for (from_hz, to_hz) in [(0.0, 200.0), (3_600.0, 4_000.0), (4_200.0, 8_000.0)] {
        let below_db = 10.0 * (inside / band(from_hz, to_hz)).log10();
        println!("{from_hz} to {to_hz} Hz: {below_db:.1} dB below the band");
        // The noise of eight bits is everywhere below 4 kHz.
        assert!(below_db > 28.0, "{from_hz} to {to_hz} Hz: {below_db} dB");
    }
}
