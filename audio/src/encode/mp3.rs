//! MP3: frames of a constant rate, each decodable by itself as far as the format allows.
//!
//! The codec is rusty_mp3's, frame by frame: its own stream keeps everything until the end, to let frames borrow bits of
//! their neighbours. What it wins by that matters at rates lower than these.

use rusty_mp3::encode::lametag::{ENCODER_DELAY, frames_for, padding_for};
use rusty_mp3::header::FrameHeader;
use rusty_mp3::{Mp3Encode, encoder_header};

use crc::{CRC_16_ARC, Crc};

use crate::Error;

/// Rates of MPEG 2 and 1, Hz. Those of MPEG 2.5, below, belong to no standard.
pub(super) const SAMPLE_RATES: [u32; 6] = [16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

static TAG_SUM: Crc<u16> = Crc::<u16>::new(&CRC_16_ARC);

/// Samples to frames.
pub(super) struct Mp3Encoder {
    codec: Mp3Encode,
    header: FrameHeader,
    /// Less than a frame, once `push` has returned.
    frame: Vec<f32>,
    n_samples: u64,
    n_frames: u64,
}

impl Mp3Encoder {
    /// # Errors
    /// [`Error::Unsupported`] for a rate that is not one of [`SAMPLE_RATES`].
    pub(super) fn new(sample_rate: u32) -> Result<Self, Error> {
        let bitrate_kbps = if sample_rate < 32_000 { 96 } else { 128 };
        let header = encoder_header(sample_rate, 1, bitrate_kbps).map_err(|error| failed(&error))?;
        Ok(Mp3Encoder { codec: Mp3Encode::new(), header, frame: Vec::new(), n_samples: 0, n_frames: 0 })
    }

    /// What the file begins with if it is known to hold `n_samples`: a silent frame with Xing's header and LAME's
    /// extension of it. By these players seek, and cut away what the codec adds at both ends.
    pub(super) fn tag_frame(&self, n_samples: u64) -> Vec<u8> {
        let frame_samples = self.header.version.samples_per_frame();
        let n_frames = frames_for(n_samples, ENCODER_DELAY, frame_samples);
        let n_bytes = (n_frames + 1) * self.header.frame_size() as u64;
        let n_bytes = u32::try_from(n_bytes).unwrap_or(u32::MAX).to_be_bytes();
        let padding = padding_for(n_samples, ENCODER_DELAY, frame_samples) as u32;

        let mut frame = self.header.to_bytes().to_vec();
        frame.resize(frame.len() + self.header.side_info_len(), 0);
        // A constant rate; frames, bytes, table and quality are there.
        frame.extend(b"Info\0\0\0\x0f");
        frame.extend(u32::try_from(n_frames).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend(n_bytes);
        // Where each percent of the time begins, in 256ths of the bytes.
        frame.extend((0..100_u32).map(|percent| (percent * 256 / 100) as u8));
        frame.extend([0; 4]);
        // Readers look for the first four letters before they believe the delays.
        frame.extend(b"LAMErusty");
        // Revision 0, constant rate; then filter, gains, flags and rate, all unknown.
        frame.push(1);
        frame.extend([0; 11]);
        // 12 bits each.
        frame.extend(&((ENCODER_DELAY as u32) << 12 | padding).to_be_bytes()[1..]);
        // The rate of the source in two bits, then mono and no gain or preset.
        let source_rate = match self.header.sample_rate {
            44_100 => 1,
            48_000 => 2,
            _ => 0,
        };
        frame.push(source_rate << 6);
        frame.extend([0; 3]);
        frame.extend(n_bytes);
        // The sum of all frames: they are still to come.
        frame.extend([0; 2]);
        frame.extend(TAG_SUM.checksum(&frame).to_be_bytes());
        frame.resize(self.header.frame_size(), 0);
        frame
    }

    /// A frame in which nothing is heard, as long as [`Mp3Encoder::tag_frame`].
    pub(super) fn silent_frame(&self) -> Vec<u8> {
        let mut frame = self.header.to_bytes().to_vec();
        frame.resize(self.header.frame_size(), 0);
        frame
    }

    /// Samples in [-1, 1] to the frames that they fill.
    pub(super) fn push(&mut self, samples: &[f32], bytes: &mut Vec<u8>) -> Result<(), Error> {
        let frame_samples = self.header.version.samples_per_frame();
        self.n_samples += samples.len() as u64;
        let mut left = samples;
        while !left.is_empty() {
            let (next, rest) = left.split_at(left.len().min(frame_samples - self.frame.len()));
            self.frame.extend_from_slice(next);
            left = rest;
            if self.frame.len() == frame_samples {
                self.write_frame(bytes)?;
            }
        }
        Ok(())
    }

    /// Silence, until the last sample has passed the delays of encoder and decoder.
    pub(super) fn finish(mut self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let frame_samples = self.header.version.samples_per_frame();
        let n_frames = frames_for(self.n_samples, ENCODER_DELAY, frame_samples);
        while self.n_frames < n_frames {
            self.frame.resize(frame_samples, 0.0);
            self.write_frame(bytes)?;
        }
        Ok(())
    }

    fn write_frame(&mut self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let channels = [self.frame.as_slice()];
        // Without a quality to reach, the rate of the header is kept.
        let frame = self.codec.encode_frame(&self.header, &channels, None).map_err(|error| failed(&error))?;
        bytes.extend(frame);
        self.frame.clear();
        self.n_frames += 1;
        Ok(())
    }
}

fn failed(error: &rusty_mp3::Error) -> Error {
    Error::unsupported(format!("MP3: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeAudio, decode_bytes};

    fn encode(samples: &[f32], sample_rate: u32, is_tagged: bool) -> Vec<u8> {
        let mut encoder = Mp3Encoder::new(sample_rate).unwrap();
        let mut bytes = if is_tagged { encoder.tag_frame(samples.len() as u64) } else { Vec::new() };
        encoder.push(samples, &mut bytes).unwrap();
        encoder.finish(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn frames_are_whole_and_of_one_size() {
        for sample_rate in SAMPLE_RATES {
            let header = Mp3Encoder::new(sample_rate).unwrap().header;
            for n_samples in [0, 1, 575, 576, 5_000] {
                let bytes = encode(&vec![0.1; n_samples], sample_rate, true);
                assert!(bytes.len().is_multiple_of(header.frame_size()), "{sample_rate} Hz, {n_samples}");
                let n_frames = bytes.len() / header.frame_size();
                assert!(bytes.chunks(header.frame_size()).all(|frame| frame[..2] == bytes[..2]));
                // Their number as the tag has it, without itself.
                let at = 4 + header.side_info_len() + 8;
                assert_eq!(bytes[at..at + 4], (n_frames as u32 - 1).to_be_bytes());
                assert_eq!(bytes[at + 4..at + 8], (bytes.len() as u32).to_be_bytes());
            }
        }
    }

    #[test]
    fn a_tag_gives_the_exact_length() {
        for sample_rate in SAMPLE_RATES {
            for n_samples in [1, 94, 95, 96, 575, 576, 1_151, 1_153, 5_000] {
                let bytes = encode(&vec![0.1; n_samples], sample_rate, true);
                let decoded = decode_bytes(bytes, Some("mp3"), &DecodeAudio::default()).unwrap();
                assert_eq!(decoded.waveform.samples.len(), n_samples, "{sample_rate} Hz");
                assert_eq!((decoded.source.sample_rate, decoded.warnings), (sample_rate, Vec::new()));
            }
        }
    }

    #[test]
    fn without_a_tag_the_codec_s_delays_remain() {
        for sample_rate in SAMPLE_RATES {
            let decoded =
                decode_bytes(encode(&[0.1; 5_000], sample_rate, false), Some("mp3"), &DecodeAudio::default())
                    .unwrap();
            let frame_samples = if sample_rate < 32_000 { 576 } else { 1_152 };
            let surplus = decoded.waveform.samples.len() - 5_000;
            assert!((1_057..1_057 + frame_samples).contains(&surplus), "{sample_rate} Hz: {surplus}");
            assert_eq!(decoded.warnings, []);
        }
    }
}
