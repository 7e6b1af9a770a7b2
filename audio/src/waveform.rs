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
