//! Encoded bytes to mono samples, within limits.
//!
//! Containers and codecs come from symphonia, Opus from ropus. Both are written for files that mean well, so this
//! module adds what uploads need: bounds checked packet by packet, a deadline that also interrupts a demuxer which
//! reads in circles, panics turned into errors, and a report of what was lost.

mod edit_list;
mod guard;
mod joined;
mod mono;
mod ogg_end;
mod opus;
mod probe;
mod session;
mod sniff;
mod source;
mod track;

use std::fmt;
use std::fs::{self, File};
use std::io::{Cursor, Seek};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Limits, Waveform};

/// The extensions by which files in a folder are taken for recordings, in small letters. What is named is read whatever it is
/// called.
pub const EXTENSIONS: [&str; 22] = [
    "aac", "aif", "aifc", "aiff", "alac", "caf", "flac", "m4a", "m4b", "mka", "mkv", "mov", "mp1", "mp2",
    "mp3", "mp4", "mpga", "oga", "ogg", "opus", "wav", "webm",
];

/// How to decode.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DecodeAudio {
    /// What the decode may cost.
    pub limits: Limits,
    /// Which channels make the mono result.
    pub channel: ChannelChoice,
}

/// Which channels make the mono result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChannelChoice {
    /// The mean of all channels.
    #[default]
    Mix,
    /// One channel, counted from 0.
    Pick(usize),
}

/// Decoded audio and what is known about where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Mono, at the native sample rate, encoder delay and padding removed where the file states them.
    pub waveform: Waveform,
    /// What the file was.
    pub source: SourceInfo,
    /// What was lost or looks suspicious; empty for a sound file.
    pub warnings: Vec<Warning>,
}

/// What an audio file was before it became mono samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceInfo {
    /// Short name of the container, for example `wave`, `flac`, `ogg`, `isomp4`.
    pub format: String,
    /// Short name of the codec, for example `pcm_s16le`, `mp3`, `opus`.
    pub codec: String,
    /// Channels before mixing.
    pub channels: usize,
    /// Native sample rate, Hz (48000 for Opus, which has no other).
    pub sample_rate: u32,
    /// Length of what was decoded, seconds.
    pub duration_secs: f64,
}

/// Something that a caller should tell the user about audio that was decoded nonetheless.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// The file ends, or becomes unreadable, before its own header says that it ends.
    Truncated {
        /// Length that the file states, seconds; `None` where it states none.
        expected_secs: Option<f64>,
        /// Length that was decoded, seconds.
        decoded_secs: f64,
    },
    /// Damaged packets were left out.
    SkippedPackets {
        /// How many.
        count: u64,
    },
    /// NaN or infinite samples were replaced by 0.
    NonFiniteSamples {
        /// How many, after mixing.
        count: u64,
    },
    /// HE-AAC: only its core is decoded, so the sound is band-limited.
    HeAacCoreOnly,
    /// The sample rate changes within the file (chained streams); later parts were converted to the first rate.
    SampleRateChanged {
        /// The rate that a later part has, Hz.
        sample_rate: u32,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Truncated { expected_secs: Some(expected), decoded_secs } => {
                write!(f, "the file is truncated: {decoded_secs:.2} s of {expected:.2} s could be decoded")
            }
            Warning::Truncated { expected_secs: None, decoded_secs } => {
                write!(f, "the file is truncated after {decoded_secs:.2} s")
            }
            Warning::SkippedPackets { count } => write!(f, "{count} damaged packets were skipped"),
            Warning::NonFiniteSamples { count } => write!(f, "{count} samples were not finite and became 0"),
            Warning::HeAacCoreOnly => write!(f, "HE-AAC: only the band-limited core was decoded"),
            Warning::SampleRateChanged { sample_rate } => {
                write!(f, "the sample rate changes to {sample_rate} Hz within the file")
            }
        }
    }
}

/// Decodes a whole file that is in memory.
///
/// `hint` is a file extension or a MIME type; the content decides, the hint only words the error when nothing is
/// recognised.
///
/// # Errors
/// [`Error`] in all its variants but `Io`: bad input is never a panic.
pub fn decode_bytes(bytes: Vec<u8>, hint: Option<&str>, options: &DecodeAudio) -> Result<Decoded, Error> {
    options.limits.check_input_bytes(bytes.len() as u64)?;
    session::decode(Box::new(Cursor::new(bytes)), hint, options)
}

/// Decodes a file, reading it as it goes.
///
/// # Errors
/// As [`decode_bytes`], and [`Error::Io`] when the file cannot be opened or is not a regular file.
pub fn decode_file(path: &Path, options: &DecodeAudio) -> Result<Decoded, Error> {
    // Before it is opened: opening a named pipe waits for a writer, for ever if there is none.
    check_is_file(&fs::metadata(path)?)?;
    let hint = path.extension().and_then(|extension| extension.to_str());
    decode_opened(File::open(path)?, hint, options)
}

/// Decodes a file that is open already, such as one without a name, from its start.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_open_file(mut file: File, options: &DecodeAudio) -> Result<Decoded, Error> {
    file.rewind()?;
    decode_opened(file, None, options)
}

/// What a file is and how long, without decoding it where that can be known: by the header of uncompressed audio whose
/// bytes are all there, by walking the packets of most other formats, by decoding the rest (Opus, chained and damaged files).
///
/// The length is the one that [`decode_file`] gives, but for damaged packets, which only decoding finds.
///
/// # Errors
/// As [`decode_file`].
pub fn probe_file(path: &Path, options: &DecodeAudio) -> Result<SourceInfo, Error> {
    check_is_file(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    check_is_file(&metadata)?;
    options.limits.check_input_bytes(metadata.len())?;
    probe::probe(file, path.extension().and_then(|extension| extension.to_str()), options)
}

fn decode_opened(file: File, hint: Option<&str>, options: &DecodeAudio) -> Result<Decoded, Error> {
    let metadata = file.metadata()?;
    check_is_file(&metadata)?;
    options.limits.check_input_bytes(metadata.len())?;
    session::decode(Box::new(file), hint, options)
}

fn check_is_file(metadata: &fs::Metadata) -> Result<(), Error> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(Error::Io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")))
}
