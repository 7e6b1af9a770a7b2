//! Opus packets to samples (RFC 6716, RFC 7845), which symphonia demuxes and does not decode.

use ropus::{Channels, DecodeMode, Decoder};
use symphonia::core::packet::Packet;

use crate::Error;

/// Opus is always decoded at its own clock, Hz.
pub(super) const SAMPLE_RATE: u32 = 48_000;
/// Longest packet: 120 ms.
const MAX_PACKET_FRAMES: usize = 5_760;

/// What an `OpusHead` says (RFC 7845, 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpusHead {
    pub(super) channels: usize,
    pub(super) pre_skip_frames: usize,
    /// Q7.8 decibels.
    pub(super) output_gain: i16,
}

impl OpusHead {
    /// Reads the identification header.
    ///
    /// MP4's `dOps` box is the same header at version 0, with big-endian numbers.
    pub(super) fn parse(header: &[u8]) -> Result<Self, Error> {
        let short = || Error::undecodable("the Opus identification header is too short");
        let field = |at: usize| {
            header.get(at..at + 2).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()).ok_or_else(short)
        };
        if !header.starts_with(b"OpusHead") {
            return Err(Error::undecodable("no Opus identification header"));
        }
        let channels = usize::from(*header.get(9).ok_or_else(short)?);
        let (pre_skip, gain) = (field(10)?, field(16)?);
        let family = *header.get(18).ok_or_else(short)?;
        let (pre_skip, output_gain) = if header.get(8) == Some(&0) {
            (u16::from_be_bytes(pre_skip), i16::from_be_bytes(gain))
        } else {
            (u16::from_le_bytes(pre_skip), i16::from_le_bytes(gain))
        };
        // Family 1 with one or two channels is one plain stream, as family 0.
        if channels == 0 || channels > 2 || family > 1 {
            return Err(Error::unsupported(format!(
                "Opus with {channels} channels in mapping family {family}"
            )));
        }
        Ok(OpusHead { channels, pre_skip_frames: usize::from(pre_skip), output_gain })
    }
}

/// The decoder of one Opus stream.
pub(super) struct OpusDecoder {
    decoder: Decoder,
    head: OpusHead,
    pre_skip_left: usize,
}

impl OpusDecoder {
    pub(super) fn new(head: OpusHead) -> Result<Self, Error> {
        let layout = if head.channels == 1 { Channels::Mono } else { Channels::Stereo };
        let mut decoder =
            Decoder::new(SAMPLE_RATE, layout).map_err(|error| Error::undecodable(format!("{error:?}")))?;
        if head.output_gain != 0 {
            decoder
                .set_gain(i32::from(head.output_gain))
                .map_err(|error| Error::undecodable(format!("output gain: {error:?}")))?;
        }
        Ok(OpusDecoder { decoder, head, pre_skip_left: head.pre_skip_frames })
    }

    pub(super) fn channels(&self) -> usize {
        self.head.channels
    }

    /// Writes the packet's frames, interleaved, to `interleaved` (cleared first), without the pre-skip at the start
    /// of the stream and the `trim_end_frames` that the container declares to be padding.
    pub(super) fn decode(
        &mut self,
        packet: &Packet,
        trim_end_frames: usize,
        interleaved: &mut Vec<f32>,
    ) -> Result<(), String> {
        interleaved.clear();
        if packet.data.is_empty() {
            return Err("empty Opus packet".into());
        }
        let channels = self.head.channels;
        interleaved.resize(MAX_PACKET_FRAMES * channels, 0.0);
        let decoded = self.decoder.decode_float(&packet.data, interleaved, DecodeMode::Normal);
        let n_frames = match decoded {
            Ok(n_frames) => n_frames.min(MAX_PACKET_FRAMES),
            Err(error) => {
                interleaved.clear();
                return Err(format!("Opus: {error:?}"));
            }
        };
        let skip = self.pre_skip_left.min(n_frames);
        self.pre_skip_left -= skip;
        let end = n_frames.saturating_sub(trim_end_frames).max(skip);
        interleaved.truncate(end * channels);
        interleaved.drain(..skip * channels);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(channels: u8, family: u8) -> Vec<u8> {
        let mut header = b"OpusHead\x01".to_vec();
        header.push(channels);
        header.extend(312u16.to_le_bytes());
        header.extend(16_000u32.to_le_bytes());
        header.extend((-256i16).to_le_bytes());
        header.push(family);
        header
    }

    #[test]
    fn reads_the_identification_header() {
        let head = OpusHead::parse(&header(2, 0)).unwrap();
        assert_eq!(head, OpusHead { channels: 2, pre_skip_frames: 312, output_gain: -256 });
    }

    #[test]
    fn refuses_surround_and_short_headers() {
        assert!(matches!(OpusHead::parse(&header(6, 1)), Err(Error::Unsupported { .. })));
        assert!(matches!(OpusHead::parse(&header(2, 255)), Err(Error::Unsupported { .. })));
        assert!(matches!(OpusHead::parse(&header(1, 0)[..17]), Err(Error::Undecodable { .. })));
    }
}
