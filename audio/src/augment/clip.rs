//! Overload: what a microphone does that stands too close.

use super::level::{amplitude_of_db, check_samples, check_value, peak};
use crate::{Error, Waveform};

/// Depths that are accepted, decibels.
pub(super) const DEPTHS_DB: std::ops::RangeInclusive<f64> = 0.0..=60.0;

/// Cuts off what exceeds a level `depth_db` decibels below the peak (hard clipping).
///
/// # Errors
/// [`Error::BadOption`] for a depth outside 0 to 60 dB, [`Error::Undecodable`] for samples that are not numbers or above
/// 1e10.
pub fn clip(waveform: &Waveform, depth_db: f64) -> Result<Waveform, Error> {
    check_value("depth_db", depth_db, DEPTHS_DB)?;
    check_samples(waveform)?;
    let limit = (f64::from(peak(&waveform.samples)) * amplitude_of_db(-depth_db)) as f32;
    let samples = waveform.samples.iter().map(|sample| sample.clamp(-limit, limit)).collect();
    Ok(Waveform { samples, sample_rate: waveform.sample_rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_is_below_the_peak() {
        let waveform = Waveform { samples: vec![0.05, -0.2, 0.8, 0.0], sample_rate: 8_000 };
        let clipped = clip(&waveform, 20.0).unwrap();
        let expected = [0.05, -0.08, 0.08, 0.0];
        assert!(clipped.samples.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6));
        assert_eq!(clip(&waveform, 0.0).unwrap(), waveform);
        let silence = Waveform { samples: vec![0.0; 4], sample_rate: 8_000 };
        assert_eq!(clip(&silence, 12.0).unwrap(), silence);
        assert!(matches!(clip(&waveform, -1.0), Err(Error::BadOption { .. })));
    }
}
