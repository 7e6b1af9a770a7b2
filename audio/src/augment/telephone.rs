//! The telephone network: narrow band, 8 kHz, eight bits a sample.

use audio_codec_algorithms::{decode_alaw, decode_ulaw, encode_alaw, encode_ulaw};
use serde::{Deserialize, Serialize};

use super::bandwidth::at_rate;
use super::convolve::{convolve, hamming};
use super::level::check_samples;
use super::room::sinc;
use crate::{Error, Waveform};

/// Rate of the telephone network, Hz.
const SAMPLE_RATE: u32 = 8_000;
/// What telephones transmit, Hz (ITU-T G.711, G.712).
const BAND_HZ: [f64; 2] = [300.0, 3_400.0];
/// Taps of the band filter, odd: the transition between pass and stop band is about 100 Hz wide.
const N_TAPS: usize = 255;

/// How a telephone exchange stores a sample in eight bits (ITU-T G.711).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Companding {
    /// North America and Japan.
    MuLaw,
    /// Everywhere else.
    ALaw,
}

impl Companding {
    /// A 16-bit sample after eight bits.
    fn round_trip(self, sample: i16) -> i16 {
        match self {
            Companding::MuLaw => decode_ulaw(encode_ulaw(sample)),
            Companding::ALaw => decode_alaw(encode_alaw(sample)),
        }
    }
}

/// The waveform at the other end of a telephone line: 300 to 3400 Hz, 8 kHz, G.711; back at its own rate and length, in
/// time with the input.
///
/// What exceeds full scale is cut off, as the line does.
///
/// # Errors
/// [`Error::Undecodable`] for samples that are not numbers or above 1e10, [`Error::BadSampleRate`] for rates that do not
/// convert to 8 kHz.
pub fn telephone(waveform: &Waveform, companding: Companding) -> Result<Waveform, Error> {
    check_samples(waveform)?;
    at_rate(waveform, SAMPLE_RATE, |narrow| {
        let filtered = convolve(&narrow.samples, &band_filter(), N_TAPS / 2);
        // A float-to-integer `as` saturates.
        let stored = filtered.iter().map(|sample| companding.round_trip((sample * 32_768.0).round() as i16));
        Ok(stored.map(|sample| f32::from(sample) / 32_768.0).collect())
    })
}

/// A linear-phase band pass: a difference of sincs under a Hamming window, 1 in the middle of the band.
fn band_filter() -> Vec<f32> {
    let middle = (N_TAPS / 2) as f64;
    let [low, high] = BAND_HZ.map(|hz| 2.0 * hz / f64::from(SAMPLE_RATE));
    let taps: Vec<f64> = (0..N_TAPS)
        .map(|tap| {
            let offset = tap as f64 - middle;
            hamming(offset, middle) * (high * sinc(high * offset) - low * sinc(low * offset))
        })
        .collect();
    let centre = std::f64::consts::PI * (low + high) / 2.0;
    let gain: f64 =
        taps.iter().enumerate().map(|(tap, value)| value * (centre * (tap as f64 - middle)).cos()).sum();
    taps.iter().map(|value| (value / gain) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::fixtures::tone;

    /// Decibels by which a tone is weaker at the other end, its own frequency only.
    fn loss_db(hz: f64, companding: Companding) -> f64 {
        let sent = tone(hz, 0.5, 16_000);
        let received = telephone(&sent, companding).unwrap();
        let correlation: f64 =
            sent.samples.iter().zip(&received.samples).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let power: f64 = sent.samples.iter().map(|a| f64::from(a * a)).sum();
        -20.0 * (correlation / power).abs().max(1e-9).log10()
    }

    #[test]
    fn the_band_passes_in_time_and_the_rest_does_not() {
        for companding in [Companding::MuLaw, Companding::ALaw] {
            for hz in [450.0, 1_000.0, 3_200.0] {
                assert!(loss_db(hz, companding).abs() < 0.2, "{hz} Hz: {}", loss_db(hz, companding));
            }
            for hz in [50.0, 150.0, 3_700.0, 6_000.0] {
                assert!(loss_db(hz, companding) > 35.0, "{hz} Hz: {}", loss_db(hz, companding));
            }
        }
    }

    /// G.711 has a signal-to-noise ratio of about 38 dB, whatever the level.
    #[test]
    fn eight_bits_add_their_noise() {
        for (companding, amplitude) in [
            (Companding::MuLaw, 0.5),
            (Companding::MuLaw, 0.05),
            (Companding::ALaw, 0.5),
            (Companding::ALaw, 0.05),
        ] {
            let sent = tone(1_020.0, amplitude, 8_000);
            let received = telephone(&sent, companding).unwrap().samples;
            // Away from the ends, where the filter sees silence.
            let inner = 200..7_800;
            let noise: f64 = inner.clone().map(|t| f64::from(received[t] - sent.samples[t]).powi(2)).sum();
            let signal: f64 = inner.map(|t| f64::from(sent.samples[t]).powi(2)).sum();
            let snr_db = 10.0 * (signal / noise).log10();
            assert!((33.0..43.0).contains(&snr_db), "{companding:?} at {amplitude}: {snr_db} dB");
        }
    }

    #[test]
    fn length_and_rate_stay_and_nothing_exceeds_full_scale() {
        for (n_samples, sample_rate) in
            [(0, 16_000), (1, 16_000), (2_001, 16_000), (999, 44_100), (500, 8_000)]
        {
            let loud = Waveform { samples: vec![40.0; n_samples], sample_rate };
            let received = telephone(&loud, Companding::ALaw).unwrap();
            assert_eq!((received.samples.len(), received.sample_rate), (n_samples, sample_rate));
            assert!(received.samples.iter().all(|sample| sample.is_finite() && sample.abs() < 2.0));
        }
        let broken = Waveform { samples: vec![f32::NAN], sample_rate: 16_000 };
        assert!(matches!(telephone(&broken, Companding::MuLaw), Err(Error::Undecodable { .. })));
    }
}
