//! Speed perturbation: tempo and pitch together (Ko et al. 2015, "Audio augmentation for speech recognition").

use super::level::check_value;
use crate::resample::{check_rates, resampled_len};
use crate::{Error, Waveform, resample};

/// Factors that are accepted.
pub(super) const FACTORS: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// Plays a waveform `factor` times as fast: 1.1 is shorter and higher.
///
/// The waveform is resampled as if it had been recorded at `round(factor * sample_rate)` Hz, as sox and Kaldi do. The
/// result has exactly [`perturbed_samples`] samples; what happened at `t` seconds happens at `t / factor`.
///
/// # Errors
/// [`Error::BadOption`] for a factor outside 0.5 to 2, and what [`resample`] refuses.
pub fn perturb_speed(waveform: &Waveform, factor: f64) -> Result<Waveform, Error> {
    let sample_rate = waveform.sample_rate;
    let played_rate = played_rate(sample_rate, factor)?;
    let played = Waveform { samples: waveform.samples.clone(), sample_rate: played_rate };
    resample(&played, sample_rate)
}

/// Samples that [`perturb_speed`] makes of `n_samples`.
///
/// # Errors
/// As [`perturb_speed`].
pub fn perturbed_samples(n_samples: usize, sample_rate: u32, factor: f64) -> Result<usize, Error> {
    let played_rate = played_rate(sample_rate, factor)?;
    usize::try_from(resampled_len(n_samples, played_rate, sample_rate))
        .map_err(|_| Error::TooLarge { what: "resampled audio", limit_bytes: u64::MAX })
}

/// Length in seconds of a recording of `duration_secs` at `sample_rate` after [`perturb_speed`], to the sample: what a
/// sampler sorts by before any audio is read.
///
/// # Errors
/// As [`perturb_speed`]; [`Error::BadOption`] for a duration that is negative, not a number or beyond 1e9 s.
pub fn perturbed_secs(duration_secs: f64, sample_rate: u32, factor: f64) -> Result<f64, Error> {
    check_value("duration_secs", duration_secs, 0.0..=1e9)?;
    let n_samples = (duration_secs * f64::from(sample_rate)).round() as usize;
    Ok(perturbed_samples(n_samples, sample_rate, factor)? as f64 / f64::from(sample_rate))
}

fn played_rate(sample_rate: u32, factor: f64) -> Result<u32, Error> {
    check_value("speed factor", factor, FACTORS)?;
    let played_rate = (f64::from(sample_rate) * factor).round() as u32;
    check_rates(played_rate, sample_rate)?;
    Ok(played_rate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Zero crossings of a tone, which count its periods.
    fn crossings(samples: &[f32]) -> usize {
        samples.windows(2).filter(|pair| pair[0] <= 0.0 && pair[1] > 0.0).count()
    }

    #[test]
    fn a_faster_tone_is_shorter_and_higher() {
        let samples =
            (0..16_000).map(|t| (std::f32::consts::TAU * 440.0 * t as f32 / 16_000.0).sin()).collect();
        let tone = Waveform { samples, sample_rate: 16_000 };
        let fast = perturb_speed(&tone, 1.1).unwrap();
        assert_eq!((fast.samples.len(), fast.sample_rate), (14_545, 16_000));
        // As many periods, in less time.
        assert!(crossings(&fast.samples).abs_diff(440) <= 1, "{}", crossings(&fast.samples));
        assert_eq!(perturb_speed(&tone, 1.0).unwrap(), tone);
    }

    #[test]
    fn factors_and_rates_that_make_no_sense_are_refused() {
        let waveform = Waveform { samples: vec![0.0; 10], sample_rate: 16_000 };
        for factor in [f64::NAN, 0.0, -1.0, 0.49, 2.1, f64::INFINITY] {
            assert!(matches!(perturb_speed(&waveform, factor), Err(Error::BadOption { .. })), "{factor}");
        }
        assert!(matches!(perturbed_secs(1.0, 0, 1.1), Err(Error::BadSampleRate { .. })));
        assert!(matches!(perturbed_secs(f64::NAN, 16_000, 1.1), Err(Error::BadOption { .. })));
    }

    proptest! {
        #[test]
        fn the_length_is_known_beforehand(
            n_samples in 0_usize..3_000,
            sample_rate in prop::sample::select(vec![8_000_u32, 16_000, 22_050]),
            percent in 50_u32..=200,
        ) {
            let factor = f64::from(percent) / 100.0;
            let waveform = Waveform { samples: vec![0.3; n_samples], sample_rate };
            let perturbed = perturb_speed(&waveform, factor).unwrap();
            prop_assert_eq!(perturbed.samples.len(), perturbed_samples(n_samples, sample_rate, factor).unwrap());
            let expected_secs = perturbed_secs(waveform.duration_secs(), sample_rate, factor).unwrap();
            prop_assert_eq!(perturbed.duration_secs(), expected_secs);
            prop_assert!((expected_secs - waveform.duration_secs() / factor).abs() <= 1.0 / f64::from(sample_rate));
            prop_assert!(perturbed.samples.iter().all(|sample| sample.is_finite()));
        }
    }
}
