//! Packets of interleaved samples to one mono waveform, every growth accounted for.

use super::source::Deadline;
use super::{ChannelChoice, Warning};
use crate::resample::{append_resampled, check_rates, resampled_len};
use crate::{Error, Limits, Waveform};

/// Growth step of the result, samples: at most this much is reserved beyond what is needed.
const MAX_SPARE_SAMPLES: usize = 1 << 22;

/// Changes of the sample rate in one file; each costs a converter of its own.
const MAX_RATE_CHANGES: usize = 8;

/// The mono result while it grows: one part per sample rate, normally one in all.
pub(super) struct Mono<'a> {
    limits: &'a Limits,
    choice: ChannelChoice,
    parts: Vec<Waveform>,
    n_non_finite: u64,
}

impl<'a> Mono<'a> {
    pub(super) fn new(limits: &'a Limits, choice: ChannelChoice) -> Self {
        Mono { limits, choice, parts: Vec::new(), n_non_finite: 0 }
    }

    /// Refuses a packet of `n_frames` x `channels` before its samples are written anywhere.
    pub(super) fn admit(&self, n_frames: usize, channels: usize, sample_rate: u32) -> Result<(), Error> {
        self.limits.check_sample_rate(sample_rate)?;
        self.limits.check_channels(channels)?;
        if let ChannelChoice::Pick(channel) = self.choice
            && channel >= channels
        {
            return Err(Error::NoSuchChannel { channel, channels });
        }
        if self.starts_a_part(sample_rate) {
            if self.parts.len() > MAX_RATE_CHANGES {
                return Err(Error::unsupported(format!(
                    "a file whose sample rate changes more than {MAX_RATE_CHANGES} times"
                )));
            }
            if let Some(rate) = self.whole_rate().filter(|rate| *rate != sample_rate) {
                check_rates(sample_rate, rate)?;
            }
        }
        let packet_samples = (n_frames as u64).saturating_mul(channels as u64);
        let mut samples = self.cost_samples(n_frames, sample_rate).saturating_add(packet_samples);
        for part in &self.parts {
            samples = samples.saturating_add(self.cost_samples(part.samples.len(), part.sample_rate));
        }
        let bytes = samples.saturating_mul(4);
        if bytes > self.limits.max_samples_bytes {
            return Err(self.too_large());
        }
        self.limits.check_duration(self.duration_secs() + n_frames as f64 / f64::from(sample_rate))
    }

    /// Appends one packet, interleaved `[frame * channels + channel]`, after [`Mono::admit`] accepted it.
    pub(super) fn push(
        &mut self,
        interleaved: &[f32],
        channels: usize,
        sample_rate: u32,
    ) -> Result<(), Error> {
        if channels == 0 || interleaved.is_empty() {
            return Ok(());
        }
        if self.starts_a_part(sample_rate) {
            self.parts.push(Waveform { samples: Vec::new(), sample_rate });
        }
        let too_large = self.too_large();
        let Some(part) = self.parts.last_mut() else { return Ok(()) };
        let n_frames = interleaved.len() / channels;
        if part.samples.capacity() - part.samples.len() < n_frames {
            let spare = (part.samples.len() / 2).min(MAX_SPARE_SAMPLES);
            part.samples.try_reserve_exact(n_frames + spare).map_err(|_| too_large)?;
        }
        let scale = 1.0 / channels as f32;
        let mut n_non_finite = 0;
        let mut finite = |sample: f32| {
            if sample.is_finite() {
                sample
            } else {
                n_non_finite += 1;
                0.0
            }
        };
        match self.choice {
            ChannelChoice::Mix if channels == 1 => {
                part.samples.extend(interleaved.iter().map(|&sample| finite(sample)));
            }
            ChannelChoice::Mix => part.samples.extend(
                interleaved.chunks_exact(channels).map(|frame| finite(frame.iter().sum::<f32>() * scale)),
            ),
            ChannelChoice::Pick(channel) => part.samples.extend(
                interleaved.chunks_exact(channels).filter_map(|frame| frame.get(channel)).map(|&s| finite(s)),
            ),
        }
        self.n_non_finite += n_non_finite;
        Ok(())
    }

    /// Length so far, seconds.
    pub(super) fn duration_secs(&self) -> f64 {
        self.parts.iter().map(Waveform::duration_secs).sum()
    }

    /// The whole at the rate of its first part; `None` when no sample was pushed.
    ///
    /// Converting later parts can make them hundreds of times larger, so what it will take is counted before any of
    /// it is done: the result and the parts still to be converted, at once.
    pub(super) fn finish(
        self,
        deadline: Deadline,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Waveform>, Error> {
        let too_large = self.too_large();
        if self.n_non_finite > 0 {
            warnings.push(Warning::NonFiniteSamples { count: self.n_non_finite });
        }
        let max_samples = u128::from(self.limits.max_samples_bytes / 4);
        let mut parts = self.parts.into_iter();
        let Some(mut whole) = parts.next() else { return Ok(None) };
        let later = parts.as_slice();
        let n_held: u128 = later.iter().map(|part| part.samples.len() as u128).sum();
        let n_added: u128 = later
            .iter()
            .map(|part| resampled_len(part.samples.len(), part.sample_rate, whole.sample_rate))
            .sum();
        if !later.is_empty() && whole.samples.len() as u128 + n_held + n_added > max_samples {
            return Err(too_large);
        }
        // Once for all parts: growing by doubling would take twice what was counted.
        let Ok(n_added) = usize::try_from(n_added) else { return Err(too_large) };
        whole.samples.try_reserve_exact(n_added).map_err(|_| too_large)?;
        for part in parts {
            if part.sample_rate != whole.sample_rate {
                warnings.push(Warning::SampleRateChanged { sample_rate: part.sample_rate });
            }
            append_resampled(&part, whole.sample_rate, &mut whole.samples, || deadline.check())?;
        }
        Ok(Some(whole))
    }

    /// What `n_samples` of a part take in the end: themselves, and what they become at the rate of the first part.
    fn cost_samples(&self, n_samples: usize, sample_rate: u32) -> u64 {
        let converted = match self.whole_rate() {
            Some(rate) if rate != sample_rate => resampled_len(n_samples, sample_rate, rate),
            _ => 0,
        };
        u64::try_from(converted).unwrap_or(u64::MAX).saturating_add(n_samples as u64)
    }

    /// The rate of the first part, to which all are converted.
    fn whole_rate(&self) -> Option<u32> {
        self.parts.first().map(|first| first.sample_rate)
    }

    fn starts_a_part(&self, sample_rate: u32) -> bool {
        self.parts.last().is_none_or(|part| part.sample_rate != sample_rate)
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { what: "decoded audio", limit_bytes: self.limits.max_samples_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(limits: &Limits, cpu_secs: f64) -> Result<Option<Waveform>, Error> {
        let mut mono = Mono::new(limits, ChannelChoice::Mix);
        for sample_rate in [16_000, 8_000, 16_000] {
            mono.admit(1_000, 1, sample_rate)?;
            mono.push(&[0.5; 1_000], 1, sample_rate)?;
        }
        mono.finish(Deadline::after(cpu_secs), &mut Vec::new())
    }

    #[test]
    fn parts_are_joined_at_the_first_rate() {
        let whole = joined(&Limits::default(), 60.0).unwrap().unwrap();
        assert_eq!((whole.samples.len(), whole.sample_rate), (4_000, 16_000));
    }

    #[test]
    fn joining_keeps_to_the_deadline() {
        assert!(matches!(joined(&Limits::default(), 0.0), Err(Error::Timeout { .. })));
    }

    /// The result, 4000 samples, and the 2000 that wait to be converted.
    #[test]
    fn joining_counts_what_it_will_hold() {
        let limits = |n_samples: u64| Limits { max_samples_bytes: 4 * n_samples, ..Limits::default() };
        assert!(joined(&limits(6_000), 60.0).is_ok());
        assert!(matches!(joined(&limits(5_999), 60.0), Err(Error::TooLarge { .. })));
    }
}
