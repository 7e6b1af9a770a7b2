//! Additive noise.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use realfft::num_complex::Complex;
use serde::{Deserialize, Serialize};

use super::level::{active_power, amplitude_of_db, check_rate, check_samples, check_value, energy};
use super::transform;
use crate::{Error, Waveform};

/// Signal-to-noise ratios that are accepted, decibels.
pub(super) const SNRS_DB: std::ops::RangeInclusive<f64> = -60.0..=120.0;

/// Below this frequency a coloured spectrum is flat: neither microphones nor models hear what is there, and the power of
/// brown noise would all be spent on it. Hz.
const FLAT_BELOW_HZ: f64 = 50.0;
/// Shortest period of synthesised noise, samples.
const MIN_PERIOD_SAMPLES: usize = 256;

/// How the power of synthesised noise falls with frequency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseColor {
    /// Not at all: hiss.
    White,
    /// As 1/f, 3 dB per octave, above 50 Hz: rain, crowds from afar.
    Pink,
    /// As 1/f^2, 6 dB per octave, above 50 Hz: traffic, wind.
    Brown,
}

impl NoiseColor {
    /// Amplitude at a frequency.
    fn amplitude(self, hz: f64) -> f64 {
        match self {
            NoiseColor::White => 1.0,
            NoiseColor::Pink => hz.sqrt().recip(),
            NoiseColor::Brown => hz.recip(),
        }
    }
}

/// Gaussian noise of mean power 1, without a constant part (Timmer and Koenig 1995: independent normal Fourier
/// coefficients under the square root of the wanted spectrum).
///
/// # Errors
/// [`Error::BadSampleRate`] for a rate of 0.
pub fn colored_noise(
    color: NoiseColor,
    n_samples: usize,
    sample_rate: u32,
    rng: &mut ChaCha8Rng,
) -> Result<Waveform, Error> {
    let mut waveform = Waveform { samples: Vec::new(), sample_rate };
    check_rate(&waveform, sample_rate)?;
    if n_samples == 0 {
        return Ok(waveform);
    }
    let period = n_samples.next_power_of_two().max(MIN_PERIOD_SAMPLES);
    let inverse = transform::inverse(period);
    let mut spectrum = inverse.make_input_vec();
    let bin_hz = f64::from(sample_rate) / period as f64;
    let nyquist = spectrum.len() - 1;
    for (bin, value) in spectrum.iter_mut().enumerate() {
        let weight = color.amplitude((bin as f64 * bin_hz).max(FLAT_BELOW_HZ)) as f32;
        let (re, im): (f32, f32) = (rng.sample(StandardNormal), rng.sample(StandardNormal));
        *value = match bin {
            0 => Complex::default(),
            // Real, or the signal would not be.
            bin if bin == nyquist => Complex::new(re * weight * std::f32::consts::SQRT_2, 0.0),
            _ => Complex::new(re * weight, im * weight),
        };
    }
    let mut samples = inverse.make_output_vec();
    // Lengths come from the plan itself, so this cannot fail.
    let transformed = inverse.process(&mut spectrum, &mut samples);
    debug_assert!(transformed.is_ok());
    samples.truncate(n_samples);
    let power = energy(&samples) / n_samples as f64;
    if power > 0.0 {
        let scale = power.sqrt().recip();
        samples.iter_mut().for_each(|sample| *sample = (f64::from(*sample) * scale) as f32);
    }
    waveform.samples = samples;
    Ok(waveform)
}

/// `n_samples` of a recording of noise from a random place on, starting over at its end as often as needed.
///
/// # Errors
/// [`Error::Empty`] when samples are wanted and the noise has none.
pub fn noise_excerpt(noise: &Waveform, n_samples: usize, rng: &mut ChaCha8Rng) -> Result<Waveform, Error> {
    let n_noise = noise.samples.len();
    if n_noise == 0 && n_samples > 0 {
        return Err(Error::Empty);
    }
    // A recording that is long enough is not wrapped: its end and its beginning do not fit together.
    let last_start = n_noise.checked_sub(n_samples).unwrap_or(n_noise.saturating_sub(1));
    let start = rng.random_range(0..=last_start);
    let samples = noise.samples.iter().cycle().skip(start).take(n_samples).copied().collect();
    Ok(Waveform { samples, sample_rate: noise.sample_rate })
}

/// Adds noise (at least as many samples as the waveform; the first are used) at a signal-to-noise ratio in decibels.
///
/// The signal's power is that of its active speech ([`active_power`]), so pauses do not make the noise softer; the
/// noise's is the mean over the stretch that is added. Silence has no speech level, and silent noise cannot be scaled:
/// in either case the waveform is returned as it is. Nothing is clipped: the sum may exceed full scale
/// ([`limit_peak`](super::limit_peak) brings it back with the ratio kept).
///
/// # Errors
/// [`Error::BadOption`] for a ratio outside -60 to 120 dB and for noise that is too short, [`Error::BadSampleRate`] when
/// the rates differ, [`Error::Undecodable`] for samples that are not numbers or above 1e10.
pub fn add_noise(waveform: &Waveform, noise: &Waveform, snr_db: f64) -> Result<Waveform, Error> {
    check_value("snr_db", snr_db, SNRS_DB)?;
    check_rate(noise, waveform.sample_rate)?;
    check_samples(waveform)?;
    check_samples(noise)?;
    let n_samples = waveform.samples.len();
    let Some(noise) = noise.samples.get(..n_samples) else {
        let reason =
            format!("has {} samples for {n_samples}: repeat it with noise_excerpt", noise.samples.len());
        return Err(Error::BadOption { field: "noise", reason });
    };
    let noise_power = energy(noise) / n_samples.max(1) as f64;
    let scale = match active_power(waveform) {
        Some(speech_power) if noise_power > 0.0 => {
            (speech_power / noise_power).sqrt() * amplitude_of_db(-snr_db)
        }
        _ => 0.0,
    };
    let mix = |(sample, noise): (&f32, &f32)| (f64::from(*sample) + scale * f64::from(*noise)) as f32;
    let samples = waveform.samples.iter().zip(noise).map(mix).collect();
    Ok(Waveform { samples, sample_rate: waveform.sample_rate })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// Power between two frequencies, by the definition of the Fourier transform at bins 10 Hz apart.
    fn band_power(samples: &[f32], from_hz: usize, to_hz: usize) -> f64 {
        let (n, rate) = (samples.len() as f64, 16_000.0);
        let at = |hz: usize| {
            let turn = std::f64::consts::TAU * hz as f64 / rate;
            let (mut re, mut im) = (0.0, 0.0);
            for (t, sample) in samples.iter().enumerate() {
                re += f64::from(*sample) * (turn * t as f64).cos();
                im -= f64::from(*sample) * (turn * t as f64).sin();
            }
            (re * re + im * im) / n
        };
        (from_hz..to_hz).step_by(10).map(at).sum()
    }

    #[test]
    fn colours_fall_by_their_decibels_per_octave() {
        for (color, db_per_octave) in
            [(NoiseColor::White, 0.0), (NoiseColor::Pink, 3.01), (NoiseColor::Brown, 6.02)]
        {
            let noise = colored_noise(color, 16_000, 16_000, &mut rng(5)).unwrap();
            // Bands of the same width, three octaves apart.
            let low = band_power(&noise.samples, 400, 600) / 20.0;
            let high = band_power(&noise.samples, 3_200, 4_800) / 160.0;
            let fall_db = 10.0 * (low / high).log10() / 3.0;
            assert!((fall_db - db_per_octave).abs() < 0.7, "{color:?}: {fall_db} dB per octave");
            let power = energy(&noise.samples) / 16_000.0;
            assert!((power - 1.0).abs() < 1e-5, "{power}");
        }
    }

    #[test]
    fn excerpts_begin_anywhere_and_repeat_when_short() {
        let noise = Waveform { samples: (0_u8..10).map(f32::from).collect(), sample_rate: 16_000 };
        let mut rng = rng(1);
        let mut starts = [false; 10];
        for _ in 0..200 {
            let long = noise_excerpt(&noise, 25, &mut rng).unwrap().samples;
            assert_eq!(long.len(), 25);
            assert!(long.windows(2).all(|pair| pair[1] == (pair[0] + 1.0) % 10.0));
            starts[long[0] as usize] = true;
            let short = noise_excerpt(&noise, 4, &mut rng).unwrap().samples;
            assert!(short.windows(2).all(|pair| pair[1] == pair[0] + 1.0), "{short:?}");
        }
        assert_eq!(starts, [true; 10]);
        assert!(matches!(noise_excerpt(&Waveform::default(), 1, &mut rng), Err(Error::Empty)));
        assert!(noise_excerpt(&Waveform::default(), 0, &mut rng).unwrap().samples.is_empty());
    }

    #[test]
    fn noise_that_does_not_fit_is_refused() {
        let speech = Waveform { samples: vec![0.1; 100], sample_rate: 16_000 };
        let short = Waveform { samples: vec![0.1; 99], sample_rate: 16_000 };
        assert!(matches!(add_noise(&speech, &short, 10.0), Err(Error::BadOption { field: "noise", .. })));
        let slow = Waveform { samples: vec![0.1; 100], sample_rate: 8_000 };
        assert!(matches!(add_noise(&speech, &slow, 10.0), Err(Error::BadSampleRate { .. })));
        assert!(matches!(add_noise(&speech, &speech, f64::NAN), Err(Error::BadOption { .. })));
        let broken = Waveform { samples: vec![f32::INFINITY; 100], sample_rate: 16_000 };
        assert!(matches!(add_noise(&speech, &broken, 10.0), Err(Error::Undecodable { .. })));
    }

    proptest! {
        #[test]
        fn the_ratio_is_reached(
            seed in 0_u64..1_000,
            n_samples in 1_usize..12_000,
            n_silence in 0_usize..12_000,
            snr_db in -20.0..50.0_f64,
            color in prop::sample::select(vec![NoiseColor::White, NoiseColor::Pink, NoiseColor::Brown]),
        ) {
            let mut rng = rng(seed);
            let mut speech = colored_noise(NoiseColor::White, n_samples, 16_000, &mut rng).unwrap();
            speech.samples.iter_mut().for_each(|sample| *sample *= 0.1);
            speech.samples.extend(vec![0.0; n_silence]);
            let noise = colored_noise(color, speech.samples.len(), 16_000, &mut rng).unwrap();
            let noisy = add_noise(&speech, &noise, snr_db).unwrap();
            let added: Vec<f32> = noisy.samples.iter().zip(&speech.samples).map(|(a, b)| a - b).collect();
            let noise_power = energy(&added) / added.len() as f64;
            let reached_db = 10.0 * (active_power(&speech).unwrap() / noise_power).log10();
            prop_assert!((reached_db - snr_db).abs() < 0.1, "{} for {}", reached_db, snr_db);
        }
    }
}
