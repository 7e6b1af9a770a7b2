//! Packets of interleaved samples to one mono waveform, every growth accounted for.

use super::source::Deadline;
use super::{ChannelChoice, Warning};
use crate::resample::gcd;
use crate::{Error, Limits, Waveform, resample};

/// Growth step of the result, samples: at most this much is reserved beyond what is needed.
const MAX_SPARE_SAMPLES: usize = 1 << 22;

/// Changes of sample rate within one chain of streams. Real chains have a few; each costs a resampler.
const MAX_RATE_CHANGES: usize = 8;
/// A resampler's transform is as long as the larger rate over the rates' common divisor.
const MAX_RATE_UNITS: u32 = 200_000;

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
        let packet_samples = (n_frames as u64).saturating_mul(channels as u64);
        let held = self.parts.iter().fold(0u64, |held, part| {
            held.saturating_add(self.cost_samples(part.samples.len() as u64, part.sample_rate))
        });
        let added = self.cost_samples(n_frames as u64, sample_rate).saturating_add(packet_samples);
        let bytes = held.saturating_add(added).saturating_mul(4);
        if bytes > self.limits.max_samples_bytes {
            return Err(self.too_large());
        }
        self.limits.check_duration(self.duration_secs() + n_frames as f64 / f64::from(sample_rate))
    }

    /// Samples that `n_samples` at a rate stand for: themselves, and what they become at the rate of the first part.
    fn cost_samples(&self, n_samples: u64, sample_rate: u32) -> u64 {
        match self.parts.first().map(|first| first.sample_rate) {
            Some(first) if first != sample_rate => {
                let resampled = u128::from(n_samples) * u128::from(first) / u128::from(sample_rate.max(1));
                n_samples.saturating_add(u64::try_from(resampled).unwrap_or(u64::MAX))
            }
            _ => n_samples,
        }
    }

    /// Refuses a change of rate that no real chain has, before it costs anything.
    fn admit_rate(&self, sample_rate: u32) -> Result<(), Error> {
        let Some(first) = self.parts.first().map(|first| first.sample_rate) else { return Ok(()) };
        if self.parts.len() > MAX_RATE_CHANGES {
            return Err(Error::unsupported(format!("more than {MAX_RATE_CHANGES} changes of sample rate")));
        }
        if first.max(sample_rate) / gcd(first, sample_rate) > MAX_RATE_UNITS {
            return Err(Error::unsupported(format!("streams of {first} and {sample_rate} Hz in one file")));
        }
        Ok(())
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
        if self.parts.last().is_none_or(|part| part.sample_rate != sample_rate) {
            self.admit_rate(sample_rate)?;
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
    pub(super) fn finish(
        self,
        warnings: &mut Vec<Warning>,
        deadline: Deadline,
    ) -> Result<Option<Waveform>, Error> {
        if self.n_non_finite > 0 {
            warnings.push(Warning::NonFiniteSamples { count: self.n_non_finite });
        }
        let mut parts = self.parts.into_iter();
        let Some(mut whole) = parts.next() else { return Ok(None) };
        for part in parts {
            deadline.check()?;
            if part.sample_rate != whole.sample_rate {
                warnings.push(Warning::SampleRateChanged { sample_rate: part.sample_rate });
            }
            let part = resample(&part, whole.sample_rate)?;
            let bytes = (whole.samples.len() as u64 + part.samples.len() as u64).saturating_mul(4);
            if bytes > self.limits.max_samples_bytes {
                return Err(Error::TooLarge {
                    what: "decoded audio",
                    limit_bytes: self.limits.max_samples_bytes,
                });
            }
            whole.samples.extend_from_slice(&part.samples);
        }
        Ok(Some(whole))
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { what: "decoded audio", limit_bytes: self.limits.max_samples_bytes }
    }
}
