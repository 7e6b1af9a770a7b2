//! Sample-rate conversion.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler};

use crate::{Error, Waveform};

/// Shortest FFT block on the slower of the two sides, samples. The anti-aliasing filter has the length of one
/// block, so this sets how close to Nyquist the pass band reaches: at 16 kHz, flat to about 7.8 kHz.
const MIN_BLOCK_SAMPLES: u32 = 1024;

/// Highest rate on either side, Hz.
const MAX_SAMPLE_RATE: u32 = 1_536_000;

/// Longest FFT block on either side, samples: bounds the time and the memory of the transforms where two rates share
/// few factors or lie far apart. Any two rates from 1 kHz to 65.5 kHz stay below it.
const MAX_BLOCK_SAMPLES: u64 = 1 << 17;

/// Largest amplitude that is converted: beyond, sums over a block could overflow, and the transforms do not take
/// infinities.
const MAX_AMPLITUDE: f32 = 1e24;

/// Converts to `sample_rate` Hz.
///
/// The filter's delay is removed and its tail flushed: sample `i` of the result is the instant `i / sample_rate`,
/// and the result has exactly `round(n * sample_rate / waveform.sample_rate)` samples. A waveform that already has
/// the rate is copied.
///
/// # Errors
/// [`Error::BadSampleRate`] when a rate is 0 or above 1.536 MHz, or when the two rates are so far apart or, above
/// 65.5 kHz, share so few factors that converting would cost too much; [`Error::TooLarge`] when the memory for the
/// result cannot be had; [`Error::Undecodable`] when a sample is not a number or above 1e24 (full scale is 1).
pub fn resample(waveform: &Waveform, sample_rate: u32) -> Result<Waveform, Error> {
    let mut samples = Vec::new();
    append_resampled(waveform, sample_rate, &mut samples, || Ok(()))?;
    Ok(Waveform { samples, sample_rate })
}

/// [`resample`] to the end of `samples`. `check` is asked before every block, and ends the work with its error.
pub(crate) fn append_resampled(
    waveform: &Waveform,
    sample_rate: u32,
    samples: &mut Vec<f32>,
    check: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    check_rates(waveform.sample_rate, sample_rate)?;
    check()?;
    let too_large = || Error::TooLarge { what: "resampled audio", limit_bytes: u64::MAX };
    let n_out = resampled_len(waveform.samples.len(), waveform.sample_rate, sample_rate);
    let n_out = usize::try_from(n_out).map_err(|_| too_large())?;
    if waveform.sample_rate == sample_rate || waveform.samples.is_empty() {
        samples.try_reserve_exact(n_out).map_err(|_| too_large())?;
        samples.extend_from_slice(&waveform.samples);
        return Ok(());
    }
    if let Some(sample) =
        waveform.samples.iter().find(|sample| !(-MAX_AMPLITUDE..=MAX_AMPLITUDE).contains(*sample))
    {
        return Err(Error::undecodable(format!(
            "a sample of {sample:e} cannot be converted to another rate"
        )));
    }
    let mut converter = Converter::new(waveform.sample_rate, sample_rate)?;
    samples.try_reserve_exact(n_out).map_err(|_| too_large())?;
    let mut position = 0;
    let mut n_left = n_out;
    while n_left > 0 {
        check()?;
        let input = waveform.samples.get(position..).unwrap_or(&[]);
        position = position.saturating_add(converter.block_in);
        let block = converter.next_block(input)?;
        let n_taken = block.len().min(n_left);
        samples.extend_from_slice(&block[..n_taken]);
        n_left -= n_taken;
    }
    Ok(())
}

/// [`resample`] of samples that come in parts: what it gives in all is what [`resample`] gives of all at once.
///
/// A block of 1024 samples or more has to be there before something comes out.
pub(crate) struct StreamResampler {
    rate_in: u32,
    rate_out: u32,
    converter: Converter,
    /// Less than a block, once `push` has returned.
    pending: Vec<f32>,
    n_in: usize,
    n_out: u128,
}

impl StreamResampler {
    /// # Errors
    /// [`Error::BadSampleRate`] as [`resample`].
    pub(crate) fn new(rate_in: u32, rate_out: u32) -> Result<Self, Error> {
        check_rates(rate_in, rate_out)?;
        let converter = Converter::new(rate_in, rate_out)?;
        Ok(StreamResampler { rate_in, rate_out, converter, pending: Vec::new(), n_in: 0, n_out: 0 })
    }

    /// Takes samples, finite and within 1e24, and returns what is ready.
    pub(crate) fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>, Error> {
        self.n_in += samples.len();
        self.pending.extend_from_slice(samples);
        let mut converted = Vec::new();
        let mut position = 0;
        while self.pending.len() - position >= self.converter.block_in {
            let block = self.converter.next_block(&self.pending[position..])?;
            converted.extend_from_slice(block);
            position += self.converter.block_in;
        }
        self.pending.drain(..position);
        self.n_out += converted.len() as u128;
        Ok(converted)
    }

    /// Returns the rest.
    pub(crate) fn finish(mut self) -> Result<Vec<f32>, Error> {
        let n_total = resampled_len(self.n_in, self.rate_in, self.rate_out);
        let n_left = usize::try_from(n_total.saturating_sub(self.n_out)).unwrap_or(usize::MAX);
        let mut rest = Vec::new();
        while rest.len() < n_left {
            // Silence follows the last samples until the filter's delay is over.
            let pending = std::mem::take(&mut self.pending);
            rest.extend_from_slice(self.converter.next_block(&pending)?);
        }
        rest.truncate(n_left);
        Ok(rest)
    }
}

/// Samples that `n_in` become at another rate; `rate_in` must not be 0.
pub(crate) fn resampled_len(n_in: usize, rate_in: u32, rate_out: u32) -> u128 {
    let (n_in, rate_in, rate_out) = (n_in as u128, u128::from(rate_in), u128::from(rate_out));
    (2 * n_in * rate_out + rate_in) / (2 * rate_in)
}

/// Refuses rates between which [`resample`] does not convert.
pub(crate) fn check_rates(rate_in: u32, rate_out: u32) -> Result<(), Error> {
    for rate in [rate_in, rate_out] {
        if rate == 0 || rate > MAX_SAMPLE_RATE {
            return Err(Error::BadSampleRate {
                sample_rate: rate,
                expected: format!("1 to {MAX_SAMPLE_RATE} Hz"),
            });
        }
    }
    let (unit_in, units) = block_units(rate_in, rate_out);
    let block_in = u64::from(unit_in) * u64::from(units);
    let block_out = block_in * u64::from(rate_out) / u64::from(rate_in);
    if rate_in != rate_out && block_in.max(block_out) > MAX_BLOCK_SAMPLES {
        return Err(Error::BadSampleRate {
            sample_rate: rate_in,
            expected: format!("a rate in a simpler ratio to {rate_out} Hz"),
        });
    }
    Ok(())
}

/// The fewest input samples that become a whole number of output samples, and how many times that a block has.
fn block_units(rate_in: u32, rate_out: u32) -> (u32, u32) {
    let gcd = gcd(rate_in, rate_out);
    let (unit_in, unit_out) = (rate_in / gcd, rate_out / gcd);
    // An even number of units makes both blocks even, hence the delay (half a block) a whole number of samples.
    (unit_in, MIN_BLOCK_SAMPLES.div_ceil(unit_in.min(unit_out)).next_multiple_of(2))
}

/// One rubato converter with its block buffers; hands out blocks from which the start-up delay is already gone.
struct Converter {
    resampler: Fft<f32>,
    block_in: usize,
    block: Vec<f32>,
    delay_left: usize,
}

impl Converter {
    fn new(rate_in: u32, rate_out: u32) -> Result<Self, Error> {
        let (unit_in, units) = block_units(rate_in, rate_out);
        let failed = |error: &dyn std::fmt::Display| Error::BadOption {
            field: "sample_rate",
            reason: error.to_string(),
        };
        let resampler = Fft::<f32>::new_custom(
            rate_in as usize,
            rate_out as usize,
            (unit_in * units) as usize,
            1,
            1,
            rubato::WindowFunction::BlackmanHarris2,
            FixedSync::Both,
        )
        .map_err(|error| failed(&error))?;
        let delay_left = resampler.output_delay();
        let block = vec![0.0; resampler.output_frames_max()];
        let block_in = resampler.input_frames_next();
        Ok(Converter { resampler, block_in, block, delay_left })
    }

    /// Consumes up to `block_in` samples from the front of `input`; silence stands in for what is missing.
    fn next_block(&mut self, input: &[f32]) -> Result<&[f32], Error> {
        let failed = |reason: String| Error::BadOption { field: "sample_rate", reason };
        let n_in = input.len().min(self.block_in);
        let indexing = Indexing::new().partial_len(n_in);
        let frames_out = self.block.len();
        let source =
            InterleavedSlice::new(&input[..n_in], 1, n_in).map_err(|error| failed(error.to_string()))?;
        let mut sink = InterleavedSlice::new_mut(&mut self.block, 1, frames_out)
            .map_err(|error| failed(error.to_string()))?;
        let (_, n_out) = self
            .resampler
            .process_into_buffer(&source, &mut sink, Some(&indexing))
            .map_err(|error| failed(error.to_string()))?;
        let skip = self.delay_left.min(n_out);
        self.delay_left -= skip;
        Ok(&self.block[skip..n_out])
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_give_what_the_whole_gives() {
        for (rate_in, rate_out) in [(22_050, 24_000), (8_000, 16_000), (44_100, 48_000), (96_000, 48_000)] {
            for n_samples in [0, 1, 1_023, 5_000] {
                let samples: Vec<f32> = (0..n_samples).map(|t| (t as f32 * 0.05).sin()).collect();
                let waveform = Waveform { samples, sample_rate: rate_in };
                let whole = resample(&waveform, rate_out).unwrap().samples;
                for n_part in [1, 7, 1_024, 9_999] {
                    let mut resampler = StreamResampler::new(rate_in, rate_out).unwrap();
                    let mut parts = Vec::new();
                    for part in waveform.samples.chunks(n_part) {
                        parts.extend(resampler.push(part).unwrap());
                    }
                    parts.extend(resampler.finish().unwrap());
                    assert_eq!(parts, whole, "{rate_in} to {rate_out} Hz, {n_samples} by {n_part}");
                }
            }
        }
    }
}
