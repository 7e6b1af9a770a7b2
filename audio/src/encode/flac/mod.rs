//! FLAC (RFC 9639), the part of it that speech needs: mono, 16 bits, blocks of one length, the five fixed predictors and
//! partitioned Rice codes.
//!
//! Its frames come as they fill. Linear prediction would save a few percent and take most of the time.

mod bits;
mod residual;

use crc::{CRC_8_SMBUS, CRC_16_UMTS, Crc};

use super::wav::to_i16;
use crate::Error;
use bits::BitWriter;
use residual::Residual;

/// Samples of a block: 48 ms at 24 kHz, over which speech hardly changes.
const BLOCK_SAMPLES: usize = 1_152;
/// [`BLOCK_SAMPLES`] in a frame header (RFC 9639, 9.1.1).
const BLOCK_CODE: u8 = 0b0011;
/// A length minus one in the 16 bits to come.
const LENGTH_FOLLOWS: u8 = 0b0111;
/// A rate in Hz in the 16 bits to come (RFC 9639, 9.1.2).
const RATE_FOLLOWS: u8 = 0b1101;
/// A rate that the stream's header states.
const RATE_OF_STREAM: u8 = 0;
/// Highest rate that decoders know, Hz.
const MAX_SAMPLE_RATE: u32 = 655_350;
const BITS_PER_SAMPLE: u32 = 16;
/// Highest order of the fixed predictors.
const MAX_ORDER: usize = 4;

static HEADER_SUM: Crc<u8> = Crc::<u8>::new(&CRC_8_SMBUS);
static FRAME_SUM: Crc<u16> = Crc::<u16>::new(&CRC_16_UMTS);

/// What a stream begins with: its marker and `STREAMINFO`. 0 samples stand for a length that is not known; sizes of
/// frames and the check sum of all samples are unknown in any case, as the samples are still to come.
pub(super) fn stream_header(sample_rate: u32, n_samples: u64) -> Vec<u8> {
    let mut bytes = b"fLaC".to_vec();
    // The last block of metadata, of type 0, 34 bytes.
    bytes.extend([0x80, 0, 0, 34]);
    let block_samples = (BLOCK_SAMPLES as u16).to_be_bytes();
    bytes.extend([block_samples, block_samples].concat());
    bytes.extend([0; 6]);
    // 20 bits rate, 3 bits channels - 1, 5 bits width - 1, 36 bits length.
    let shape = (u64::from(sample_rate) << 44) | (u64::from(BITS_PER_SAMPLE - 1) << 36);
    let length = if n_samples < 1 << 36 { n_samples } else { 0 };
    bytes.extend((shape | length).to_be_bytes());
    bytes.extend([0; 16]);
    bytes
}

/// Samples to frames; [`stream_header`] goes before them.
pub(super) struct FlacEncoder {
    sample_rate: u32,
    /// Less than a block, once `push` has returned.
    block: Vec<i32>,
    n_frames: u32,
}

impl FlacEncoder {
    /// # Errors
    /// [`Error::BadSampleRate`] above 655350 Hz.
    pub(super) fn new(sample_rate: u32) -> Result<Self, Error> {
        if sample_rate > MAX_SAMPLE_RATE {
            let expected = format!("FLAC: at most {MAX_SAMPLE_RATE} Hz");
            return Err(Error::BadSampleRate { sample_rate, expected });
        }
        Ok(FlacEncoder { sample_rate, block: Vec::with_capacity(BLOCK_SAMPLES), n_frames: 0 })
    }

    pub(super) fn push(&mut self, samples: &[f32], bytes: &mut Vec<u8>) {
        for sample in samples {
            self.block.push(i32::from(to_i16(*sample)));
            if self.block.len() == BLOCK_SAMPLES {
                self.write_frame(bytes);
            }
        }
    }

    pub(super) fn finish(mut self, bytes: &mut Vec<u8>) {
        if !self.block.is_empty() {
            self.write_frame(bytes);
        }
    }

    fn write_frame(&mut self, bytes: &mut Vec<u8>) {
        let mut frame = self.frame_header();
        let mut bits = BitWriter::default();
        write_subframe(&self.block, &mut bits);
        frame.extend(bits.into_bytes());
        frame.extend(FRAME_SUM.checksum(&frame).to_be_bytes());
        bytes.extend(frame);
        self.block.clear();
        self.n_frames += 1;
    }

    fn frame_header(&self) -> Vec<u8> {
        let is_full = self.block.len() == BLOCK_SAMPLES;
        let length_code = if is_full { BLOCK_CODE } else { LENGTH_FOLLOWS };
        let rate_code = rate_code(self.sample_rate);
        // The sync code with a fixed block size; one channel of 16 bits.
        let mut header = vec![0xff, 0xf8, (length_code << 4) | rate_code, 0x08];
        header.extend(coded_number(self.n_frames));
        if !is_full {
            header.extend((self.block.len() as u16 - 1).to_be_bytes());
        }
        if rate_code == RATE_FOLLOWS {
            header.extend((self.sample_rate as u16).to_be_bytes());
        }
        header.push(HEADER_SUM.checksum(&header));
        header
    }
}

fn rate_code(sample_rate: u32) -> u8 {
    match sample_rate {
        88_200 => 1,
        176_400 => 2,
        192_000 => 3,
        8_000 => 4,
        16_000 => 5,
        22_050 => 6,
        24_000 => 7,
        32_000 => 8,
        44_100 => 9,
        48_000 => 10,
        96_000 => 11,
        _ if sample_rate <= u32::from(u16::MAX) => RATE_FOLLOWS,
        _ => RATE_OF_STREAM,
    }
}

/// A number of up to 31 bits, coded as UTF-8 codes characters (RFC 9639, 9.1.5).
fn coded_number(number: u32) -> Vec<u8> {
    if number < 0x80 {
        return vec![number as u8];
    }
    // With n bytes to follow, the first has 6 - n bits for the number.
    let n_more = (1..5).find(|n| number >> (5 * n + 6) == 0).unwrap_or(5);
    let first = (0xff00 >> (n_more + 1)) as u8 | (number >> (6 * n_more)) as u8;
    let more = (0..n_more).rev().map(|index| 0x80 | (number >> (6 * index)) as u8 & 0x3f);
    std::iter::once(first).chain(more).collect()
}

/// Writes one channel in whichever way takes fewest bits (RFC 9639, 9.2).
fn write_subframe(block: &[i32], bits: &mut BitWriter) {
    let write_sample =
        |bits: &mut BitWriter, sample: i32| bits.write(sample as u32 & 0xffff, BITS_PER_SAMPLE);
    // A subframe's header is a zero, six bits for its kind, and a zero for "no bits are wasted".
    if block.iter().all(|sample| *sample == block[0]) {
        bits.write(0, 8);
        write_sample(bits, block[0]);
        return;
    }
    let best = residuals(block).into_iter().min_by_key(Residual::n_bits);
    match best.filter(|residual| residual.n_bits() < block.len() as u64 * u64::from(BITS_PER_SAMPLE)) {
        Some(residual) => {
            bits.write((0b00_1000 | residual.order() as u32) << 1, 8);
            block[..residual.order()].iter().for_each(|sample| write_sample(bits, *sample));
            residual.write(bits);
        }
        None => {
            bits.write(0b00_0001 << 1, 8);
            block.iter().for_each(|sample| write_sample(bits, *sample));
        }
    }
}

/// What each fixed predictor leaves to be coded: the differences of its order (RFC 9639, 9.2.5).
fn residuals(block: &[i32]) -> Vec<Residual> {
    let n_orders = block.len().min(MAX_ORDER + 1);
    let mut differences = block.to_vec();
    let mut residuals = Vec::with_capacity(n_orders);
    for order in 0..n_orders {
        residuals.push(Residual::new(order, block.len(), BITS_PER_SAMPLE, &differences));
        differences = differences.windows(2).map(|pair| pair[1] - pair[0]).collect();
    }
    residuals
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{DecodeAudio, Waveform, decode_bytes};

    fn encode(samples: &[f32], sample_rate: u32) -> Vec<u8> {
        let mut encoder = FlacEncoder::new(sample_rate).unwrap();
        let mut bytes = stream_header(sample_rate, samples.len() as u64);
        encoder.push(samples, &mut bytes);
        encoder.finish(&mut bytes);
        bytes
    }

    fn assert_survives(values: &[i16], sample_rate: u32) {
        let samples: Vec<f32> = values.iter().map(|value| f32::from(*value) / 32768.0).collect();
        let decoded =
            decode_bytes(encode(&samples, sample_rate), Some("flac"), &DecodeAudio::default()).unwrap();
        assert_eq!(decoded.waveform, Waveform { samples, sample_rate });
        assert_eq!(decoded.warnings, []);
    }

    #[test]
    fn numbers_are_coded_as_characters_are() {
        for number in [0, 24, 0x7f, 0x80, 0x7ff, 0x800, 66_376, 0x10_ffff] {
            let character = char::from_u32(number).unwrap();
            assert_eq!(coded_number(number), character.to_string().into_bytes(), "{number}");
        }
        assert_eq!(coded_number(0x7fff_ffff), [0xfd, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf]);
        assert_eq!(coded_number(0x3ff_ffff), [0xfb, 0xbf, 0xbf, 0xbf, 0xbf]);
    }

    #[test]
    fn every_kind_of_subframe_is_read_back() {
        let noise = |t: i32| (t.wrapping_mul(1_103_515_245).wrapping_add(12_345) >> 8) as i16;
        let silence = vec![0; 3_000];
        let constant = vec![-7; BLOCK_SAMPLES];
        let extremes: Vec<i16> = (0..2_500).map(|t| if t % 2 == 0 { i16::MIN } else { i16::MAX }).collect();
        let loud_noise: Vec<i16> = (0..2_500).map(noise).collect();
        let ramp: Vec<i16> = (0..2_500).map(|t| (t - 1_250) as i16).collect();
        let wave: Vec<i16> = (0..5_000).map(|t| (9e3 * (t as f32 * 0.05).sin()) as i16).collect();
        for values in [silence, constant, extremes, loud_noise, ramp, wave] {
            assert_survives(&values, 24_000);
        }
    }

    #[test]
    fn every_rate_is_stated() {
        let wave: Vec<i16> = (0..2_000).map(|t| (9e3 * (t as f32 * 0.05).sin()) as i16).collect();
        for sample_rate in [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 65_535, 70_001, 96_000] {
            assert_survives(&wave, sample_rate);
        }
        assert!(matches!(FlacEncoder::new(655_351), Err(Error::BadSampleRate { .. })));
    }

    #[test]
    fn speech_becomes_smaller() {
        let wave: Vec<f32> = (0..24_000).map(|t| 0.1 * (t as f32 * 0.05).sin()).collect();
        let n_bytes = encode(&wave, 24_000).len();
        assert!(n_bytes < 24_000, "{n_bytes}");
        assert!(encode(&[0.0; 24_000], 24_000).len() < 400);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_samples_survive(
            values in proptest::collection::vec(any::<i16>(), 1..1_400),
            shift in 0..16u32,
            n_repeats in 1..4usize,
        ) {
            let values: Vec<i16> = values.into_iter().map(|value| value >> shift).collect();
            assert_survives(&values.repeat(n_repeats), 24_000);
        }
    }
}
