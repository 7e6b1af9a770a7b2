//! How loud a waveform is: peak, mean power, and the power of the speech in it.

use crate::{Error, Waveform};

/// Largest amplitude that is augmented: powers and convolutions of anything below stay finite. Integers of 32 bits that
/// were read without scaling reach 2.1e9.
const MAX_AMPLITUDE: f32 = 1e10;

/// Time constant of each of the two smoothers of the envelope, seconds (P.56, T).
const ENVELOPE_SECS: f64 = 0.03;
/// How long speech goes on being active after its envelope fell below a threshold, seconds (P.56, H).
const HANGOVER_SECS: f64 = 0.2;
/// How far the level of active speech lies above the threshold that defines it, decibels (P.56, M).
const MARGIN_DB: f64 = 15.9;
/// Thresholds, a factor of two apart, the highest at half the peak.
const N_THRESHOLDS: usize = 15;

/// Mean square of the stretches in which somebody speaks: ITU-T P.56 (12/2011), method B, without its optional filters.
///
/// Pauses of up to 0.2 s belong to speech, longer ones do not, so leading and trailing silence change nothing. Thresholds
/// are relative to the peak, which makes the measure proportional to the square of the waveform. Sounds too short to have
/// an envelope (a few samples) have their mean power. `None` for silence and for no samples.
pub fn active_power(waveform: &Waveform) -> Option<f64> {
    let peak = f64::from(peak(&waveform.samples));
    if peak == 0.0 || !peak.is_finite() {
        return None;
    }
    let energy: f64 = waveform.samples.iter().map(|sample| (f64::from(*sample) / peak).powi(2)).sum();
    let activities = activities(waveform, peak);
    let mut below: Option<(f64, f64)> = None;
    for (index, n_active) in activities.iter().enumerate() {
        if *n_active == 0 {
            break;
        }
        let level_db = 10.0 * (energy / *n_active as f64).log10();
        let threshold_db = 20.0 * threshold(index).log10();
        let excess_db = level_db - threshold_db - MARGIN_DB;
        if excess_db <= 0.0 {
            // Between two thresholds both levels are linear in decibels (P.56, 6.2.3).
            let level_db = below.map_or(level_db, |(level_before_db, excess_before_db)| {
                let share = excess_before_db / (excess_before_db - excess_db);
                level_before_db + share * (level_db - level_before_db)
            });
            return Some(10.0_f64.powf(level_db / 10.0) * peak * peak);
        }
        below = Some((level_db, excess_db));
    }
    Some(energy / waveform.samples.len() as f64 * peak * peak)
}

/// Threshold `index`, relative to the peak.
fn threshold(index: usize) -> f64 {
    0.5_f64.powi((N_THRESHOLDS - index) as i32)
}

/// For each threshold, the samples at which the envelope is above it or was within the hangover.
fn activities(waveform: &Waveform, peak: f64) -> [usize; N_THRESHOLDS] {
    let rate = f64::from(waveform.sample_rate.max(1));
    let smoothing = (-1.0 / (rate * ENVELOPE_SECS)).exp();
    let hangover = (rate * HANGOVER_SECS).ceil() as usize;
    let thresholds: [f64; N_THRESHOLDS] = std::array::from_fn(threshold);
    let mut activities = [0; N_THRESHOLDS];
    let mut since_above = [hangover; N_THRESHOLDS];
    let (mut smooth, mut envelope) = (0.0, 0.0);
    for sample in &waveform.samples {
        smooth = smoothing * smooth + (1.0 - smoothing) * f64::from(sample.abs()) / peak;
        envelope = smoothing * envelope + (1.0 - smoothing) * smooth;
        for (index, threshold) in thresholds.iter().enumerate() {
            if envelope >= *threshold {
                since_above[index] = 0;
            } else if since_above[index] < hangover {
                since_above[index] += 1;
            } else {
                // What is inactive at a threshold is so at all higher ones.
                break;
            }
            activities[index] += 1;
        }
    }
    activities
}

/// Scales samples down so that none exceeds `limit`; quieter ones are left as they are.
pub fn limit_peak(samples: &mut [f32], limit: f32) {
    let peak = peak(samples);
    if peak > limit {
        let scale = f64::from(limit) / f64::from(peak);
        // The last rounding may pass the limit.
        samples
            .iter_mut()
            .for_each(|sample| *sample = ((f64::from(*sample) * scale) as f32).clamp(-limit, limit));
    }
}

/// Largest magnitude; 0 for no samples.
pub(super) fn peak(samples: &[f32]) -> f32 {
    samples.iter().fold(0.0, |peak, sample| peak.max(sample.abs()))
}

/// Sum of squares.
pub(super) fn energy(samples: &[f32]) -> f64 {
    samples.iter().map(|sample| f64::from(*sample) * f64::from(*sample)).sum()
}

/// Factor on amplitudes that `db` decibels are.
pub(super) fn amplitude_of_db(db: f64) -> f64 {
    10.0_f64.powf(db / 20.0)
}

/// Refuses samples that are not numbers or too large to compute with.
pub(super) fn check_samples(waveform: &Waveform) -> Result<(), Error> {
    match waveform.samples.iter().find(|sample| !(-MAX_AMPLITUDE..=MAX_AMPLITUDE).contains(*sample)) {
        None => Ok(()),
        Some(sample) => Err(Error::undecodable(format!(
            "a sample of {sample:e} cannot be augmented: full scale is 1, at most {MAX_AMPLITUDE:e} is accepted"
        ))),
    }
}

/// Refuses a waveform of another sample rate than `sample_rate`, and a rate of 0.
pub(super) fn check_rate(waveform: &Waveform, sample_rate: u32) -> Result<(), Error> {
    if waveform.sample_rate == sample_rate && sample_rate > 0 {
        return Ok(());
    }
    let expected = match sample_rate {
        0 => "at least 1 Hz".to_owned(),
        rate => format!("{rate} Hz as the recording has; resample it first"),
    };
    Err(Error::BadSampleRate { sample_rate: waveform.sample_rate, expected })
}

/// Refuses a value outside `allowed`, NaN included.
pub(super) fn check_value(
    field: &'static str,
    value: f64,
    allowed: std::ops::RangeInclusive<f64>,
) -> Result<(), Error> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let reason = format!("is {value}, must be {} to {}", allowed.start(), allowed.end());
    Err(Error::BadOption { field, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(n_samples: usize, amplitude: f32) -> Vec<f32> {
        (0..n_samples).map(|t| amplitude * (t as f32 * 0.4).sin()).collect()
    }

    fn level_db(samples: Vec<f32>) -> f64 {
        10.0 * active_power(&Waveform { samples, sample_rate: 16_000 }).unwrap().log10()
    }

    #[test]
    fn silence_around_speech_does_not_lower_its_level() {
        let speech_db = level_db(tone(32_000, 0.5));
        // A sine of amplitude 0.5 has -9.03 dB.
        assert!((speech_db + 9.03).abs() < 0.2, "{speech_db}");
        let padded = [vec![0.0; 48_000], tone(32_000, 0.5), vec![0.0; 48_000]].concat();
        let padded_db = level_db(padded.clone());
        // The hangover of 0.2 s counts as speech.
        assert!((speech_db - 0.8..=speech_db).contains(&padded_db), "{padded_db} for {speech_db}");
        let mean_db = 10.0 * (energy(&padded) / padded.len() as f64).log10();
        assert!(mean_db < speech_db - 5.0);
    }

    #[test]
    fn the_level_is_proportional_to_the_waveform() {
        let speech = [tone(9_000, 0.5), vec![0.0; 20_000], tone(4_000, 0.05)].concat();
        let reference_db = level_db(speech.clone());
        for gain in [1e-6_f32, 0.01, 30.0] {
            let scaled_db = level_db(speech.iter().map(|sample| gain * sample).collect());
            let expected_db = reference_db + 20.0 * f64::from(gain).log10();
            assert!((scaled_db - expected_db).abs() < 1e-4, "{gain}: {scaled_db} {expected_db}");
        }
    }

    #[test]
    fn silence_has_no_level_and_a_click_has_one() {
        let power =
            |samples: &[f32]| active_power(&Waveform { samples: samples.to_vec(), sample_rate: 16_000 });
        assert_eq!(power(&[]), None);
        assert_eq!(power(&[0.0; 100]), None);
        assert_eq!(power(&[0.5]), Some(0.25));
    }

    #[test]
    fn peaks_are_scaled_down_only() {
        let mut samples = vec![0.5, -3.0, 1.0];
        limit_peak(&mut samples, 1.0);
        assert_eq!(samples[1], -1.0);
        assert!((samples[0] - 0.5 / 3.0).abs() < 1e-7);
        let quiet = vec![0.25, -0.5];
        let mut limited = quiet.clone();
        limit_peak(&mut limited, 1.0);
        assert_eq!(limited, quiet);
    }
}
