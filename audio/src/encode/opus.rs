//! Opus in Ogg (RFC 7845): packets of 20 ms, pages of 200 ms.

use ropus::{Application, Bitrate, Channels, Encoder};

use super::ogg::{Mark, OggWriter};
use crate::Error;

/// Rates at which Opus encodes, Hz.
pub(super) const SAMPLE_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// The clock of positions in the stream, Hz, whatever the rate.
const GRANULE_RATE: u32 = 48_000;
/// Packets per second.
const PACKET_RATE: u32 = 50;
/// Packets of a page but the first, which has one: players can start, and little is spent on headers.
const PAGE_PACKETS: usize = 10;
/// High enough for the codec to keep the waveform itself, not a model of the voice.
const BITRATE_BPS: u32 = 64_000;
/// Effort of the encoder, 0 to 10: more pays at lower rates.
const COMPLEXITY: u8 = 5;
/// Longest packet, bytes (RFC 6716, 3.4).
const MAX_PACKET_BYTES: usize = 1_276;

/// Samples to packets and pages.
pub(super) struct OpusEncoder {
    codec: Encoder,
    pages: OggWriter,
    /// Less than a packet, once `push` has returned.
    frame: Vec<f32>,
    frame_samples: usize,
    /// Units of [`GRANULE_RATE`] in a sample.
    sample_granules: u64,
    n_samples: u64,
    n_packets: u64,
    /// True until the page with the first sound is written.
    is_first_page: bool,
}

impl OpusEncoder {
    /// # Errors
    /// [`Error::Unsupported`] for a rate that is not one of [`SAMPLE_RATES`].
    pub(super) fn new(sample_rate: u32) -> Result<Self, Error> {
        let codec = Encoder::builder(sample_rate, Channels::Mono, Application::Audio)
            .bitrate(Bitrate::Bits(BITRATE_BPS))
            .complexity(COMPLEXITY)
            .build()
            .map_err(|error| failed(&error))?;
        Ok(OpusEncoder {
            codec,
            pages: OggWriter::default(),
            frame: Vec::new(),
            frame_samples: (sample_rate / PACKET_RATE) as usize,
            sample_granules: u64::from(GRANULE_RATE / sample_rate),
            n_samples: 0,
            n_packets: 0,
            is_first_page: true,
        })
    }

    /// The two pages that the stream begins with. `source_rate` is told to players, which need not care.
    pub(super) fn header_pages(&mut self, source_rate: u32) -> Vec<u8> {
        // Version 1, one channel.
        let mut head = b"OpusHead\x01\x01".to_vec();
        head.extend((self.pre_skip() as u16).to_le_bytes());
        head.extend(source_rate.to_le_bytes());
        // No gain; one stream for one channel.
        head.extend([0; 3]);
        let vendor = b"speechd";
        let mut tags = b"OpusTags".to_vec();
        tags.extend((vendor.len() as u32).to_le_bytes());
        tags.extend(vendor);
        // No comments.
        tags.extend([0; 4]);
        let mut bytes = Vec::new();
        self.pages.add(&head);
        self.pages.write_page(Mark::First, 0, &mut bytes);
        self.pages.add(&tags);
        self.pages.write_page(Mark::Middle, 0, &mut bytes);
        bytes
    }

    /// Samples in [-1, 1] to the pages that they fill.
    pub(super) fn push(&mut self, samples: &[f32], bytes: &mut Vec<u8>) -> Result<(), Error> {
        self.n_samples += samples.len() as u64;
        let mut left = samples;
        while !left.is_empty() {
            let (next, rest) = left.split_at(left.len().min(self.frame_samples - self.frame.len()));
            self.frame.extend_from_slice(next);
            left = rest;
            if self.frame.len() < self.frame_samples {
                break;
            }
            self.add_packet()?;
            if self.is_first_page || self.pages.n_packets() == PAGE_PACKETS {
                let granule = self.n_packets * self.packet_granules();
                self.pages.write_page(Mark::Middle, granule, bytes);
                self.is_first_page = false;
            }
        }
        Ok(())
    }

    /// Silence, until the last sample has passed the codec's delay, and the last page, whose position says where the
    /// sound ends.
    pub(super) fn finish(mut self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let end = self.pre_skip() + self.n_samples * self.sample_granules;
        // The delay takes at least one packet more than `push` has made, so the last page is never without any.
        while self.n_packets * self.packet_granules() < end {
            self.frame.resize(self.frame_samples, 0.0);
            self.add_packet()?;
        }
        self.pages.write_page(Mark::Last, end, bytes);
        Ok(())
    }

    fn add_packet(&mut self) -> Result<(), Error> {
        let mut packet = [0; MAX_PACKET_BYTES];
        let n_bytes = self.codec.encode_float(&self.frame, &mut packet).map_err(|error| failed(&error))?;
        self.pages.add(&packet[..n_bytes]);
        self.frame.clear();
        self.n_packets += 1;
        Ok(())
    }

    /// The codec's delay, which players cut away.
    fn pre_skip(&self) -> u64 {
        u64::from(self.codec.lookahead()) * self.sample_granules
    }

    fn packet_granules(&self) -> u64 {
        self.frame_samples as u64 * self.sample_granules
    }
}

fn failed(error: &dyn std::fmt::Debug) -> Error {
    Error::unsupported(format!("Opus: {error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeAudio, Error, decode_bytes};

    fn encode(n_samples: usize, sample_rate: u32) -> Vec<u8> {
        let mut encoder = OpusEncoder::new(sample_rate).unwrap();
        let mut bytes = encoder.header_pages(sample_rate);
        encoder.push(&vec![0.1; n_samples], &mut bytes).unwrap();
        encoder.finish(&mut bytes).unwrap();
        bytes
    }

    /// Marks, position, number and packets of each page.
    fn pages(bytes: &[u8]) -> Vec<(u8, u64, u32, usize)> {
        let mut pages = Vec::new();
        let mut left = bytes;
        while !left.is_empty() {
            assert!(left.starts_with(b"OggS\0"));
            let lacing = &left[27..27 + usize::from(left[26])];
            let n_bytes = 27 + lacing.len() + lacing.iter().map(|length| usize::from(*length)).sum::<usize>();
            let granule = u64::from_le_bytes(left[6..14].try_into().unwrap());
            let number = u32::from_le_bytes(left[18..22].try_into().unwrap());
            pages.push((left[5], granule, number, lacing.iter().filter(|length| **length < 255).count()));
            left = &left[n_bytes..];
        }
        pages
    }

    #[test]
    fn pages_come_at_once_and_then_regularly() {
        // 25 packets and a sample.
        let pages = pages(&encode(25 * 480 + 1, 24_000));
        let expected = [
            (2, 0, 0, 1),
            (0, 0, 1, 1),
            (0, 960, 2, 1),
            (0, 11 * 960, 3, 10),
            (0, 21 * 960, 4, 10),
            (4, 25 * 960 + 2 + 312, 5, 5),
        ];
        assert_eq!(pages, expected);
    }

    #[test]
    fn the_length_is_exact() {
        for sample_rate in SAMPLE_RATES {
            for n_samples in [1, 100, 320, 480, 960, 5_000, 10_560] {
                let decoded =
                    decode_bytes(encode(n_samples, sample_rate), Some("opus"), &DecodeAudio::default())
                        .unwrap();
                let expected = n_samples * (48_000 / sample_rate) as usize;
                assert_eq!(decoded.waveform.samples.len(), expected, "{sample_rate} Hz");
                assert_eq!(decoded.warnings, []);
            }
        }
    }

    #[test]
    fn no_samples_are_a_stream_that_lasts_no_time() {
        let bytes = encode(0, 24_000);
        assert_eq!(pages(&bytes), [(2, 0, 0, 1), (0, 0, 1, 1), (4, 312, 2, 1)]);
        let decoded = decode_bytes(bytes, None, &DecodeAudio::default());
        assert!(matches!(decoded, Err(Error::Undecodable { .. })), "{decoded:?}");
    }
}
