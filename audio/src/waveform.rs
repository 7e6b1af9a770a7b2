//! The two values that everything else in the crate exchanges: mono samples, and stretches of time.

/// Mono audio.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Waveform {
    /// Amplitudes, nominally within [-1, 1]; float sources may exceed it. Always finite when decoded here.
    pub samples: Vec<f32>,
    /// Samples per second.
    pub sample_rate: u32,
}

impl Waveform {
    /// Length in seconds; 0 when the sample rate is 0.
    pub fn duration_secs(&self) -> f64 {
        if self.sample_rate == 0 { 0.0 } else { self.samples.len() as f64 / f64::from(self.sample_rate) }
    }

    /// The samples from one instant to a later one, seconds, as far as there are some.
    pub fn between(&self, start_secs: f64, end_secs: f64) -> &[f32] {
        let place =
            |secs: f64| ((secs * f64::from(self.sample_rate)).round() as usize).min(self.samples.len());
        let end = place(end_secs);
        &self.samples[place(start_secs).min(end)..end]
    }
}

/// A stretch of time in a recording, seconds from its start, `start_secs <= end_secs`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// First instant.
    pub start_secs: f64,
    /// One past the last instant.
    pub end_secs: f64,
}

impl Span {
    /// Length in seconds.
    pub fn duration_secs(&self) -> f64 {
        self.end_secs - self.start_secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_rounded_to_samples_and_end_with_the_recording() {
        let waveform = Waveform { samples: (0..10).map(|t| t as f32).collect(), sample_rate: 10 };
        assert_eq!(waveform.between(0.14, 0.46), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(waveform.between(0.8, 7.0), [8.0, 9.0]);
        for (start_secs, end_secs) in [(0.3, 0.3), (1.0, 2.0), (5.0, 9.0), (0.5, 0.2)] {
            assert!(waveform.between(start_secs, end_secs).is_empty(), "{start_secs} to {end_secs}");
        }
    }
}
