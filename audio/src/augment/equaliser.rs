//! Microphones and rooms that favour some frequencies over others.

use super::convolve::{convolve, hamming};
use super::level::{amplitude_of_db, check_samples, check_value};
use super::transform;
use crate::{Error, Waveform};

/// Frequencies whose gains are given, an octave apart, Hz.
pub const BANDS_HZ: [f64; 7] = [125.0, 250.0, 500.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0];
/// The band whose gain a slope leaves alone.
const MIDDLE_BAND: usize = 3;
/// Gains that are accepted, decibels.
pub(super) const GAINS_DB: std::ops::RangeInclusive<f64> = -60.0..=60.0;
/// Slopes that are accepted, decibels per octave: the outer bands are three octaves from the middle.
pub(super) const SLOPES_DB: std::ops::RangeInclusive<f64> = -12.0..=12.0;
/// Deviations from a slope that are accepted, decibels.
pub(super) const RIPPLES_DB: std::ops::RangeInclusive<f64> = 0.0..=12.0;
/// Length of the filter, seconds: frequencies less than about 150 Hz apart are not told apart.
const FILTER_SECS: f64 = 0.016;

/// Gains that rise by `slope_db` an octave around 1 kHz, each changed by one of `ripples_db`.
pub fn sloped_gains_db(slope_db: f64, ripples_db: &[f64; BANDS_HZ.len()]) -> [f64; BANDS_HZ.len()] {
    std::array::from_fn(|band| slope_db * (band as f64 - MIDDLE_BAND as f64) + ripples_db[band])
}

/// Multiplies each frequency by the gain of its band, decibels; between two bands it is linear over the logarithm of the
/// frequency, beyond the outer ones that of the outer one. In time with the input (linear phase), of its length.
///
/// The filter is a sampled frequency response under a Hamming window (scipy's `firwin2`).
///
/// # Errors
/// [`Error::BadOption`] for a gain beyond 60 dB either way, [`Error::Undecodable`] for samples that are not numbers or
/// above 1e10.
pub fn equalise(waveform: &Waveform, gains_db: &[f64; BANDS_HZ.len()]) -> Result<Waveform, Error> {
    gains_db.iter().try_for_each(|gain| check_value("gains_db", *gain, GAINS_DB))?;
    check_samples(waveform)?;
    let taps = filter(gains_db, waveform.sample_rate);
    let samples = convolve(&waveform.samples, &taps, taps.len() / 2);
    Ok(Waveform { samples, sample_rate: waveform.sample_rate })
}

/// The gain at a frequency, decibels.
fn gain_db(gains_db: &[f64; BANDS_HZ.len()], hz: f64) -> f64 {
    let last = BANDS_HZ.len() - 1;
    let position = (hz / BANDS_HZ[0]).log2().clamp(0.0, last as f64);
    let band = (position as usize).min(last - 1);
    let share = position - band as f64;
    gains_db[band] * (1.0 - share) + gains_db[band + 1] * share
}

/// An odd number of taps, symmetric around the middle one.
fn filter(gains_db: &[f64; BANDS_HZ.len()], sample_rate: u32) -> Vec<f32> {
    let half = (FILTER_SECS * f64::from(sample_rate) / 2.0).ceil().max(1.0) as usize;
    let n_taps = 2 * half + 1;
    // Twice what the taps need, so that the response is sampled more finely than the window blurs it.
    let n_fft = 2 * n_taps.next_power_of_two();
    let plan = transform::inverse(n_fft);
    let (mut response, mut impulse) = (plan.make_input_vec(), plan.make_output_vec());
    for (bin, value) in response.iter_mut().enumerate() {
        let hz = bin as f64 * f64::from(sample_rate) / n_fft as f64;
        // Real: the impulse lies around sample 0.
        *value = (amplitude_of_db(gain_db(gains_db, hz)) as f32).into();
    }
    // Lengths come from the plan itself and the first and last value are real, so this cannot fail.
    let transformed = plan.process(&mut response, &mut impulse);
    debug_assert!(transformed.is_ok());
    (0..n_taps)
        .map(|tap| {
            let offset = tap as f64 - half as f64;
            let sample = impulse[(tap + n_fft - half) % n_fft];
            (hamming(offset, half as f64) / n_fft as f64) as f32 * sample
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::fixtures::tone;

    /// Amplitude relative to the tone's, away from the edges, decibels.
    fn measured_db(hz: f64, sample_rate: u32, gains_db: &[f64; BANDS_HZ.len()]) -> f64 {
        let tone = tone(hz, 0.1, sample_rate);
        let heard = equalise(&tone, gains_db).unwrap();
        let middle = sample_rate as usize / 4..3 * sample_rate as usize / 4;
        let energy = |samples: &[f32]| -> f64 { samples.iter().map(|s| f64::from(*s).powi(2)).sum() };
        10.0 * (energy(&heard.samples[middle.clone()]) / energy(&tone.samples[middle])).log10()
    }

    #[test]
    fn tones_come_out_with_the_gain_of_their_band() {
        let gains_db = sloped_gains_db(-5.0, &[0.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0]);
        assert_eq!(gains_db, [15.0, 10.0, 6.0, 0.0, -6.0, -10.0, -15.0]);
        for sample_rate in [16_000, 44_100] {
            for (band, hz) in
                BANDS_HZ.iter().enumerate().filter(|(_, hz)| **hz < f64::from(sample_rate) / 2.0)
            {
                let heard_db = measured_db(*hz, sample_rate, &gains_db);
                // The lowest bands are closer together than the filter resolves.
                let within_db = if *hz < 500.0 { 2.0 } else { 0.5 };
                assert!((heard_db - gains_db[band]).abs() < within_db, "{hz} Hz: {heard_db} dB");
            }
            let between_db = measured_db(2_828.0, sample_rate, &gains_db);
            assert!((between_db + 8.0).abs() < 0.5, "{between_db}");
        }
        let beyond_db = measured_db(16_000.0, 44_100, &gains_db);
        assert!((beyond_db + 15.0).abs() < 0.1, "{beyond_db}");
    }

    #[test]
    fn no_gain_changes_nothing_and_equal_gains_are_a_gain() {
        let tone = tone(700.0, 0.1, 16_000);
        for (gain_db, amplitude) in [(0.0, 1.0), (20.0, 10.0)] {
            let heard = equalise(&tone, &[gain_db; BANDS_HZ.len()]).unwrap();
            assert_eq!(heard.samples.len(), tone.samples.len());
            for (a, b) in heard.samples.iter().zip(&tone.samples) {
                assert!((a - amplitude * b).abs() < 1e-5, "{gain_db} dB: {a} {b}");
            }
        }
    }

    #[test]
    fn what_cannot_be_filtered_is_refused() {
        let broken = Waveform { samples: vec![f32::NAN], sample_rate: 8_000 };
        assert!(matches!(equalise(&broken, &[0.0; BANDS_HZ.len()]), Err(Error::Undecodable { .. })));
        let empty = Waveform { samples: Vec::new(), sample_rate: 1 };
        assert_eq!(equalise(&empty, &[3.0; BANDS_HZ.len()]).unwrap(), empty);
        for gain_db in [f64::NAN, 61.0] {
            let refused = equalise(&empty, &[gain_db; BANDS_HZ.len()]);
            assert!(matches!(refused, Err(Error::BadOption { field: "gains_db", .. })));
        }
    }
}
