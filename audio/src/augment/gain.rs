//! Louder and quieter.

use super::level::{amplitude_of_db, check_samples, check_value};
use crate::{Error, Waveform};

/// Gains that are accepted, decibels.
pub(super) const GAINS_DB: std::ops::RangeInclusive<f64> = -120.0..=120.0;

/// Multiplies by `gain_db` decibels. Nothing is clipped: the result may exceed full scale.
///
/// # Errors
/// [`Error::BadOption`] for a gain beyond 120 dB either way, [`Error::Undecodable`] for samples that are not numbers or
/// above 1e10.
pub fn change_gain(waveform: &Waveform, gain_db: f64) -> Result<Waveform, Error> {
    check_value("gain_db", gain_db, GAINS_DB)?;
    check_samples(waveform)?;
    let gain = amplitude_of_db(gain_db);
    let samples = waveform.samples.iter().map(|sample| (f64::from(*sample) * gain) as f32).collect();
    Ok(Waveform { samples, sample_rate: waveform.sample_rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_decibels_are_about_twice() {
        let waveform = Waveform { samples: vec![0.25, -0.5, 0.0], sample_rate: 8_000 };
        let louder = change_gain(&waveform, 20.0 * 2.0_f64.log10()).unwrap();
        assert_eq!(louder.samples, [0.5, -1.0, 0.0]);
        assert_eq!(change_gain(&waveform, 0.0).unwrap(), waveform);
        assert!(matches!(change_gain(&waveform, f64::NAN), Err(Error::BadOption { .. })));
        let broken = Waveform { samples: vec![f32::NAN], sample_rate: 8_000 };
        assert!(matches!(change_gain(&broken, 1.0), Err(Error::Undecodable { .. })));
    }
}
