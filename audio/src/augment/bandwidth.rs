//! Recordings made at a lower sample rate: nothing is left above half of it.

use super::level::{check_samples, check_value};
use crate::{Error, Waveform, resample};

/// Sample rates that are accepted, Hz: less than 4 kHz is not understood by people either.
pub(super) const SAMPLE_RATES: std::ops::RangeInclusive<f64> = 4_000.0..=192_000.0;

/// The waveform as a recorder at `sample_rate` Hz would have kept it; back at its own rate and length, in time with the
/// input. A waveform that has no higher rate is returned as it is.
///
/// A model that knows a language from wide-band recordings of some speakers and narrow-band ones of others takes the band
/// for part of the voice; so narrow bands must come from every speaker.
///
/// # Errors
/// [`Error::BadOption`] for a rate outside 4 to 192 kHz, [`Error::Undecodable`] for samples that are not numbers or above
/// 1e10, and what [`resample`] refuses.
pub fn limit_bandwidth(waveform: &Waveform, sample_rate: u32) -> Result<Waveform, Error> {
    check_samples(waveform)?;
    check_value("sample rate", f64::from(sample_rate), SAMPLE_RATES)?;
    if sample_rate >= waveform.sample_rate {
        return Ok(waveform.clone());
    }
    at_rate(waveform, sample_rate, |narrow| Ok(narrow.samples))
}

/// What `change` makes of a waveform at another rate; back at its own rate and length.
///
/// # Errors
/// Those of `change`, and what [`resample`] refuses.
pub(super) fn at_rate(
    waveform: &Waveform,
    sample_rate: u32,
    change: impl FnOnce(Waveform) -> Result<Vec<f32>, Error>,
) -> Result<Waveform, Error> {
    let samples = change(resample(waveform, sample_rate)?)?;
    let mut changed = resample(&Waveform { samples, sample_rate }, waveform.sample_rate)?;
    // Both conversions round the length.
    changed.samples.resize(waveform.samples.len(), 0.0);
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::fixtures::tone;
    use crate::augment::level::energy;

    #[test]
    fn what_is_below_half_the_rate_stays_in_time_and_the_rest_goes() {
        for (hz, sample_rate) in [(100.0, 8_000), (3_500.0, 8_000), (5_000.0, 11_025)] {
            let sent = tone(hz, 0.5, 16_000);
            let kept = limit_bandwidth(&sent, sample_rate).unwrap();
            // Away from the ends, where the filter sees silence.
            let furthest =
                (1_000..15_000).map(|t| (kept.samples[t] - sent.samples[t]).abs()).fold(0.0, f32::max);
            assert!(furthest < 1e-3, "{hz} Hz at {sample_rate}: {furthest}");
        }
        for (hz, sample_rate) in [(4_500.0, 8_000), (7_000.0, 8_000), (6_200.0, 11_025)] {
            let kept = limit_bandwidth(&tone(hz, 0.5, 16_000), sample_rate).unwrap();
            let left = energy(&kept.samples[1_000..15_000]);
            assert!(left < 1e-6 * 14_000.0, "{hz} Hz at {sample_rate}: {left}");
        }
    }

    #[test]
    fn length_and_rate_stay_and_a_recording_that_has_no_more_is_left_alone() {
        for (n_samples, sample_rate) in [(0, 16_000), (1, 16_000), (2_001, 16_000), (999, 44_100)] {
            let waveform = Waveform { samples: vec![0.3; n_samples], sample_rate };
            let kept = limit_bandwidth(&waveform, 8_000).unwrap();
            assert_eq!((kept.samples.len(), kept.sample_rate), (n_samples, sample_rate));
        }
        for sample_rate in [4_000, 8_000] {
            let waveform = tone(500.0, 0.5, sample_rate);
            assert_eq!(limit_bandwidth(&waveform, 8_000).unwrap(), waveform);
        }
        for refused in [0, 3_999, 192_001] {
            let error = limit_bandwidth(&tone(500.0, 0.5, 16_000), refused).unwrap_err();
            assert!(matches!(error, Error::BadOption { field: "sample rate", .. }), "{error}");
        }
    }
}
