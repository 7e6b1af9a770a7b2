//! Fundamental frequency of speech: YIN (de Cheveigné and Kawahara, "YIN, a fundamental frequency estimator for speech and music", JASA
//! 111, 2002; steps 1 to 5).

use rayon::prelude::*;

use crate::Error;

/// What is below this power is silence, whatever its period: -100 dB of full scale.
const SILENT_POWER: f64 = 1e-10;

/// Where a pitch is looked for, and what is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PitchConfig {
    /// Lowest pitch, Hz.
    pub min_hz: f64,
    /// Highest pitch, Hz.
    pub max_hz: f64,
    /// Aperiodicity below which a frame is voiced, 0 to 1: the share of its power that does not repeat after a period.
    pub threshold: f64,
}

impl Default for PitchConfig {
    /// 60 to 500 Hz: people who speak. The threshold is between the paper's 0.1 and what rough voices need.
    fn default() -> Self {
        Self { min_hz: 60.0, max_hz: 500.0, threshold: 0.15 }
    }
}

/// Finds the pitch of frames. Immutable; threads may share it.
#[derive(Debug, Clone)]
pub struct PitchTracker {
    sample_rate: u32,
    hop_samples: usize,
    threshold: f64,
    /// Shortest and longest period, samples.
    min_lag: usize,
    max_lag: usize,
}

impl PitchTracker {
    /// A tracker of waveforms of `sample_rate` (Hz) with a frame every `hop_samples`.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a range without periods of two samples and more, a hop of 0 and a threshold beyond 0 to 1.
    pub fn new(sample_rate: u32, hop_samples: usize, config: &PitchConfig) -> Result<Self, Error> {
        let PitchConfig { min_hz, max_hz, threshold } = *config;
        let bad =
            |field: &'static str, reason: &str| Err(Error::BadOption { field, reason: reason.to_owned() });
        let rate = f64::from(sample_rate);
        if !(min_hz >= 1.0 && min_hz < max_hz && max_hz <= rate / 4.0) {
            return bad("max_hz", "needs 1 <= min_hz < max_hz <= sample_rate / 4");
        }
        if hop_samples == 0 {
            return bad("hop_samples", "must be at least 1");
        }
        if !(threshold > 0.0 && threshold < 1.0) {
            return bad("threshold", "must be between 0 and 1");
        }
        let (min_lag, max_lag) = ((rate / max_hz).floor() as usize, (rate / min_hz).ceil() as usize);
        Ok(Self { sample_rate, hop_samples, threshold, min_lag, max_lag })
    }

    /// Samples over which periods are compared: two of the longest.
    fn window_samples(&self) -> usize {
        2 * self.max_lag
    }

    /// The pitch of each frame, Hz, and `None` where there is none. Frame `t` is centred on sample `t * hop`, among zeros before the first
    /// and after the last sample: `1 + n / hop` frames, as centred features have; none for no samples.
    pub fn track(&self, samples: &[f32]) -> Vec<Option<f64>> {
        let n_frames = if samples.is_empty() { 0 } else { 1 + samples.len() / self.hop_samples };
        let length = self.window_samples() + self.max_lag + 1;
        (0..n_frames)
            .into_par_iter()
            .map(|frame| {
                let start = (frame * self.hop_samples) as i64 - (length / 2) as i64;
                let sample = |at: i64| usize::try_from(at).ok().and_then(|at| samples.get(at)).copied();
                let values = (start..start + length as i64).map(|at| f64::from(sample(at).unwrap_or(0.0)));
                self.pitch(&values.collect::<Vec<_>>())
            })
            .collect()
    }

    /// The pitch of a window with as many samples behind it as the longest period has, and one more.
    fn pitch(&self, frame: &[f64]) -> Option<f64> {
        let window = self.window_samples();
        let power = frame[..window].iter().map(|value| value * value).sum::<f64>() / window as f64;
        if power < SILENT_POWER {
            return None;
        }
        let differences: Vec<f64> =
            (0..=self.max_lag + 1).map(|lag| difference(frame, window, lag)).collect();
        let normalized = normalized(&differences);
        let mut lag = (self.min_lag..=self.max_lag).find(|lag| normalized[*lag] < self.threshold)?;
        while lag < self.max_lag && normalized[lag + 1] < normalized[lag] {
            lag += 1;
        }
        let period = lag as f64 + vertex_offset(&normalized[lag - 1..=lag + 1]);
        Some(f64::from(self.sample_rate) / period)
    }
}

/// Squared difference between a window and the same so many samples later (equation 6).
fn difference(frame: &[f64], window: usize, lag: usize) -> f64 {
    frame[..window].iter().zip(&frame[lag..]).map(|(one, other)| (one - other).powi(2)).sum()
}

/// Differences over their mean up to each lag, 1 at lag 0 (equation 8).
fn normalized(differences: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let mut normalize = |(lag, difference): (usize, &f64)| {
        sum += difference;
        if lag == 0 || sum <= 0.0 { 1.0 } else { difference * lag as f64 / sum }
    };
    differences.iter().enumerate().map(&mut normalize).collect()
}

/// How far the lowest point of a parabola through three neighbours lies from the middle one, -0.5 to 0.5; 0 where the middle is not the
/// lowest.
fn vertex_offset(values: &[f64]) -> f64 {
    let [left, middle, right] = values else { return 0.0 };
    let curvature = left - 2.0 * middle + right;
    let offset = 0.5 * (left - right) / curvature;
    if curvature > 0.0 && offset.abs() <= 0.5 { offset } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 16_000;

    fn tracker() -> PitchTracker {
        PitchTracker::new(RATE, 256, &PitchConfig::default()).expect("a tracker")
    }

    /// A second of a tone with overtones that fall off as those of a voice.
    fn tone(hz: f64, n_harmonics: u32) -> Vec<f32> {
        let value = |at: usize| {
            let turn = std::f64::consts::TAU * hz * at as f64 / f64::from(RATE);
            (1..=n_harmonics).map(f64::from).map(|k| (k * turn + k).sin() / k).sum::<f64>()
        };
        (0..RATE as usize).map(|at| (0.3 * value(at)) as f32).collect()
    }

    #[test]
    fn tones_have_their_pitch_and_not_that_of_a_harmonic() {
        for (hz, n_harmonics) in [(63.0, 20), (100.0, 1), (147.3, 8), (220.0, 3), (311.1, 10), (480.0, 2)] {
            let track = tracker().track(&tone(hz, n_harmonics));
            assert_eq!(track.len(), 63);
            // Frames at the edges have zeros in them.
            for pitch in &track[3..59] {
                let cents = 1200.0 * (pitch.expect("voiced") / hz).log2();
                assert!(cents.abs() < 5.0, "{hz} Hz with {n_harmonics}: {pitch:?}");
            }
        }
    }

    #[test]
    fn silence_noise_and_what_is_beyond_the_range_have_no_pitch() {
        let tracker = tracker();
        assert!(tracker.track(&[]).is_empty());
        assert!(tracker.track(&[0.0; 5_000]).iter().all(Option::is_none));
        assert!(tracker.track(&[1e-6; 5_000]).iter().all(Option::is_none));
        let mut state = 12_345_u32;
        let noise: Vec<f32> = (0..RATE)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (f64::from(state) / 2_147_483_648.0 - 1.0) as f32
            })
            .collect();
        assert!(tracker.track(&noise).iter().all(Option::is_none));
        // 40 Hz has a period that is longer than any that is looked for.
        let voiced = tracker.track(&tone(40.0, 1)).into_iter().flatten().count();
        assert!(voiced < 6, "{voiced}");
    }

    #[test]
    fn a_pitch_that_moves_is_followed() {
        // From 100 to 200 Hz within a second.
        let phase = |t: f64| std::f64::consts::TAU * (100.0 * t + 50.0 * t * t);
        let samples: Vec<f32> =
            (0..RATE).map(|at| phase(f64::from(at) / 16_000.0).sin() as f32 * 0.5).collect();
        for (frame, pitch) in tracker().track(&samples).iter().enumerate().take(58).skip(4) {
            let expected = 100.0 + 100.0 * frame as f64 * 256.0 / 16_000.0;
            let pitch = pitch.expect("voiced");
            // The window leans to the side of its start by half a period at most.
            assert!((1200.0 * (pitch / expected).log2()).abs() < 50.0, "{frame}: {pitch} {expected}");
        }
    }

    #[test]
    fn parabolas_have_their_vertex_between_neighbours() {
        let at = |x: f64| (x - 0.3).powi(2) + 2.0;
        assert!((vertex_offset(&[at(-1.0), at(0.0), at(1.0)]) - 0.3).abs() < 1e-12);
        assert_eq!(vertex_offset(&[1.0, 1.0, 1.0]), 0.0);
        assert_eq!(vertex_offset(&[0.0, 1.0, 5.0]), 0.0);
    }

    #[test]
    fn ranges_without_periods_are_refused() {
        let refused = |config: PitchConfig| {
            matches!(PitchTracker::new(RATE, 256, &config), Err(Error::BadOption { .. }))
        };
        let config = PitchConfig::default();
        assert!(!refused(config));
        assert!(
            refused(PitchConfig { min_hz: 0.0, ..config }) && refused(PitchConfig { max_hz: 50.0, ..config })
        );
        assert!(refused(PitchConfig { max_hz: 8_000.0, ..config }));
        assert!(refused(PitchConfig { max_hz: f64::NAN, ..config }));
        assert!(refused(PitchConfig { threshold: 0.0, ..config }));
        assert!(PitchTracker::new(RATE, 0, &config).is_err());
    }
}
