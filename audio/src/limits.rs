//! What one decode may cost.

use crate::Error;

/// Bounds enforced inside the decode loop, packet by packet, so that a small file which unpacks to hours of
/// silence is stopped when it passes a bound and not when it has filled the memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Longest audio, seconds. Default 4 h.
    pub max_duration_secs: f64,
    /// Largest encoded input, bytes. Default 2 GiB.
    pub max_input_bytes: u64,
    /// Most memory for decoded samples, bytes: the mono result plus the channels of the packet being mixed, or plus the
    /// parts of other sample rates (chained streams) before they are converted. Default 2 GiB (4 h at 16 kHz are 0.9 GB, 3 h at 48 kHz are 2.1 GB).
    pub max_samples_bytes: u64,
    /// Most channels. Default 32.
    pub max_channels: u16,
    /// Lowest sample rate, Hz. Default 1000.
    pub min_sample_rate: u32,
    /// Highest sample rate, Hz. Default 768000.
    pub max_sample_rate: u32,
    /// Most processor time of the thread that decodes, seconds, whatever else the machine is busy with. Wall-clock seconds
    /// on systems that do not measure a thread (other than Linux, FreeBSD and Apple's). Default 120 s.
    pub max_cpu_secs: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_duration_secs: 4.0 * 3600.0,
            max_input_bytes: 2 << 30,
            max_samples_bytes: 2 << 30,
            max_channels: 32,
            min_sample_rate: 1_000,
            max_sample_rate: 768_000,
            max_cpu_secs: 120.0,
        }
    }
}

impl Limits {
    pub(crate) fn check_input_bytes(&self, input_bytes: u64) -> Result<(), Error> {
        if input_bytes == 0 {
            return Err(Error::Empty);
        }
        if input_bytes > self.max_input_bytes {
            return Err(Error::TooLarge { what: "input", limit_bytes: self.max_input_bytes });
        }
        Ok(())
    }

    pub(crate) fn check_sample_rate(&self, sample_rate: u32) -> Result<(), Error> {
        if (self.min_sample_rate.max(1)..=self.max_sample_rate).contains(&sample_rate) {
            return Ok(());
        }
        let expected = format!("{} to {} Hz", self.min_sample_rate.max(1), self.max_sample_rate);
        Err(Error::BadSampleRate { sample_rate, expected })
    }

    pub(crate) fn check_channels(&self, channels: usize) -> Result<(), Error> {
        if channels > usize::from(self.max_channels) {
            return Err(Error::TooManyChannels { channels, limit: self.max_channels });
        }
        Ok(())
    }

    /// Refuses a duration beyond the limit. NaN limits refuse everything rather than nothing.
    pub(crate) fn check_duration(&self, duration_secs: f64) -> Result<(), Error> {
        if duration_secs <= self.max_duration_secs {
            return Ok(());
        }
        Err(Error::TooLong { limit_secs: self.max_duration_secs })
    }
}
