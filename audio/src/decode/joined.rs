//! MP3 files that were joined byte by byte.
//!
//! MP3 has no end but that of its bytes. What the LAME tag in its first frame says about its length holds for the file
//! that it was written for; a file appended to it begins where that one ends, with a tag of its own or without. The
//! demuxer reads the first tag only and takes it for the length of everything.

use std::io::ErrorKind;

use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::well_known::{FORMAT_ID_MP1, FORMAT_ID_MP2, FORMAT_ID_MP3};
use symphonia::core::formats::{FormatOptions, FormatReader, Track};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::formats::MpaReader;

use crate::Error;

/// What is known about the end of one of the files.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum FileEnd {
    /// The container knows: not a bare MPEG stream.
    Contained,
    /// Nothing: what the demuxer takes for the length is guessed from the first frames.
    Unknown,
    /// Where the LAME tag says, its padding included.
    At(Timestamp),
}

impl FileEnd {
    /// The end of the first of `reader`'s tracks.
    pub(super) fn of(reader: &dyn FormatReader) -> Self {
        if ![FORMAT_ID_MP1, FORMAT_ID_MP2, FORMAT_ID_MP3].contains(&reader.format_info().format) {
            return Self::Contained;
        }
        reader.tracks().first().and_then(tagged_end).map_or(Self::Unknown, Self::At)
    }

    /// Takes back what the demuxer cut from a packet because of a length that it guessed.
    pub(super) fn mend(self, packet: &mut Packet) {
        if self == Self::Unknown {
            packet.trim_end = Duration::ZERO;
        }
    }

    /// Whether `packet` is the last one of its file.
    pub(super) fn is_reached_by(self, packet: &Packet) -> bool {
        let Self::At(end) = self else { return false };
        packet.pts.checked_add(duration(packet)).is_none_or(|packet_end| packet_end >= end)
    }
}

/// What a packet of layer III decodes to before anything is cut from it: two granules of MPEG 1, one of MPEG 2 and 2.5
/// (ISO 11172-3, 2.4.2.3; 13818-3). The demuxer's own figure counts what it cuts twice.
fn duration(packet: &Packet) -> Duration {
    let is_mpeg_1 = packet.data.get(1).is_some_and(|byte| byte & 0b0001_1000 == 0b0001_1000);
    Duration::from(if is_mpeg_1 { 1152u64 } else { 576 })
}

/// Only the LAME tag states a padding; a length without one may be the demuxer's guess.
fn tagged_end(track: &Track) -> Option<Timestamp> {
    let presented = Timestamp::ZERO.checked_add(Duration::from(track.num_frames?))?;
    presented.checked_add(Duration::from(track.padding?))
}

/// The file that begins where the one ends whose frames `reader` has read; `None` when nothing follows but tags.
///
/// # Errors
/// What the source refuses.
pub(super) fn next_file(reader: Box<dyn FormatReader>) -> Result<Option<Box<dyn FormatReader>>, Error> {
    match MpaReader::try_new(reader.into_inner(), FormatOptions::default()) {
        Ok(next) => Ok(Some(Box::new(next))),
        Err(SymphoniaError::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(Error::undecodable(error.to_string())),
    }
}
