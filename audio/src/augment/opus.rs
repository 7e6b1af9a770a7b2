//! A lossy codec: speech as a messenger or a conference transmits it.

use ropus::{Application, Bitrate, Channels, DecodeMode, Decoder, Encoder};

use super::bandwidth::at_rate;
use super::level::check_samples;
use crate::{Error, Waveform};

/// Bits per second that are accepted.
pub(super) const BITRATES_BPS: std::ops::RangeInclusive<u32> = 6_000..=510_000;
/// Rates at which Opus works, Hz.
const SAMPLE_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// Frames per second: 20 ms each.
const FRAME_RATE: u32 = 50;
/// Effort of the encoder, 0 to 10: that of calls on telephones.
const COMPLEXITY: u8 = 5;
/// Longest packet, bytes (RFC 6716, 3.4).
const MAX_PACKET_BYTES: usize = 1_276;

/// Encodes with Opus at `bitrate_bps` bits per second and decodes; length, rate and time stay as they were.
///
/// A rate that Opus does not know is converted to the next higher one and back. What exceeds full scale is cut off.
///
/// # Errors
/// [`Error::BadOption`] for a bit rate outside 6000 to 510000, [`Error::Undecodable`] for samples that are not numbers or
/// above 1e10, and what [`resample`](crate::resample) refuses.
pub fn opus_round_trip(waveform: &Waveform, bitrate_bps: u32) -> Result<Waveform, Error> {
    if !BITRATES_BPS.contains(&bitrate_bps) {
        let reason = format!("is {bitrate_bps}, must be {} to {}", BITRATES_BPS.start(), BITRATES_BPS.end());
        return Err(Error::BadOption { field: "bitrate_bps", reason });
    }
    check_samples(waveform)?;
    if waveform.samples.is_empty() {
        return Ok(waveform.clone());
    }
    let known = SAMPLE_RATES.into_iter().find(|rate| *rate >= waveform.sample_rate);
    let sample_rate = known.unwrap_or(SAMPLE_RATES[SAMPLE_RATES.len() - 1]);
    at_rate(waveform, sample_rate, |sent| transmit(&sent, bitrate_bps))
}

/// The decoded samples, as many as were sent, in time with them.
fn transmit(sent: &Waveform, bitrate_bps: u32) -> Result<Vec<f32>, Error> {
    // None of these can fail on rates, frames and levels that are fixed above.
    let failed = |error: &dyn std::fmt::Debug| Error::unsupported(format!("Opus: {error:?}"));
    let mut encoder = Encoder::builder(sent.sample_rate, Channels::Mono, Application::Voip)
        .bitrate(Bitrate::Bits(bitrate_bps))
        .complexity(COMPLEXITY)
        .build()
        .map_err(|error| failed(&error))?;
    let mut decoder = Decoder::new(sent.sample_rate, Channels::Mono).map_err(|error| failed(&error))?;
    let delay = encoder.lookahead() as usize;
    let frame_samples = (sent.sample_rate / FRAME_RATE) as usize;
    let n_frames = (sent.samples.len() + delay).div_ceil(frame_samples);
    let mut frame = vec![0.0; frame_samples];
    let mut packet = [0; MAX_PACKET_BYTES];
    let mut received = vec![0.0; n_frames * frame_samples];
    for (index, decoded) in received.chunks_exact_mut(frame_samples).enumerate() {
        frame.fill(0.0);
        let left = sent.samples.get(index * frame_samples..).unwrap_or(&[]);
        for (value, sample) in frame.iter_mut().zip(left) {
            *value = sample.clamp(-1.0, 1.0);
        }
        let n_bytes = encoder.encode_float(&frame, &mut packet).map_err(|error| failed(&error))?;
        decoder
            .decode_float(&packet[..n_bytes], decoded, DecodeMode::Normal)
            .map_err(|error| failed(&error))?;
    }
    received.drain(..delay);
    received.truncate(sent.samples.len());
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A voice, roughly: harmonics of a gliding pitch under a slow envelope.
    fn voice(n_samples: u32, sample_rate: u32) -> Waveform {
        let sample = |index: u32| {
            let t = f64::from(index) / f64::from(sample_rate);
            let phase = std::f64::consts::TAU * (120.0 * t + 15.0 * t * t);
            let harmonics: f64 = (1..12).map(|k| (phase * f64::from(k)).sin() / f64::from(k)).sum();
            (0.2 * harmonics * (std::f64::consts::TAU * 3.0 * t).sin().abs()) as f32
        };
        Waveform { samples: (0..n_samples).map(sample).collect(), sample_rate }
    }

    /// Correlation of the decoded with the original, shifted by `lag` samples, over their powers.
    fn correlation(sent: &[f32], received: &[f32], lag: i64) -> f64 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let shifted = |samples: &[f32], by: i64| samples[usize::try_from(by.max(0)).unwrap()..].to_vec();
        let (a, b) = (shifted(sent, -lag), shifted(received, lag));
        dot(&a, &b) / (dot(sent, sent) * dot(received, received)).sqrt()
    }

    /// Within a quarter of a millisecond.
    #[test]
    fn speech_survives_in_time() {
        for sample_rate in [8_000, 16_000, 22_050, 48_000] {
            let sent = voice(sample_rate, sample_rate);
            let received = opus_round_trip(&sent, 24_000).unwrap();
            assert_eq!((received.samples.len(), received.sample_rate), (sent.samples.len(), sample_rate));
            let best = (-60..=60_i64)
                .max_by(|a, b| {
                    let of = |lag: i64| correlation(&sent.samples, &received.samples, lag);
                    of(*a).total_cmp(&of(*b))
                })
                .unwrap();
            let reached = correlation(&sent.samples, &received.samples, best);
            assert!(
                best.unsigned_abs() <= u64::from(sample_rate) / 4_000,
                "{sample_rate} Hz: {best} samples late"
            );
            assert!(reached > 0.8, "{sample_rate} Hz: {reached}");
        }
    }

    #[test]
    fn fewer_bits_lose_more() {
        let sent = voice(16_000, 16_000);
        let error = |bitrate_bps| {
            let received = opus_round_trip(&sent, bitrate_bps).unwrap().samples;
            received.iter().zip(&sent.samples).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        assert!(error(6_000) > error(24_000) && error(24_000) > error(128_000));
        assert!(matches!(opus_round_trip(&sent, 100), Err(Error::BadOption { field: "bitrate_bps", .. })));
    }

    #[test]
    fn short_and_loud_waveforms_pass() {
        for n_samples in [0, 1, 319, 321] {
            let loud = Waveform { samples: vec![9.0; n_samples], sample_rate: 16_000 };
            let received = opus_round_trip(&loud, 12_000).unwrap();
            assert_eq!(received.samples.len(), n_samples);
            assert!(received.samples.iter().all(|sample| sample.is_finite()));
        }
    }
}
