//! The formats in which speech is given out.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A format that [`Encoder`](super::Encoder) writes, under the name that OpenAI's `response_format` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioFormat {
    /// MPEG 1 and 2, layer III, at a constant 128 (from 32 kHz on) or 96 kbit/s.
    Mp3,
    /// Opus in Ogg, at about 64 kbit/s.
    Opus,
    /// FLAC, 16 bits.
    Flac,
    /// WAV, 16-bit PCM.
    Wav,
    /// 16-bit PCM, little-endian, without any header.
    Pcm,
}

impl AudioFormat {
    /// All formats, those first that most players know.
    pub const ALL: [AudioFormat; 5] =
        [AudioFormat::Mp3, AudioFormat::Opus, AudioFormat::Flac, AudioFormat::Wav, AudioFormat::Pcm];

    /// The MIME type of a response.
    pub fn content_type(self) -> &'static str {
        match self {
            AudioFormat::Mp3 => "audio/mpeg",
            AudioFormat::Opus => "audio/ogg",
            AudioFormat::Flac => "audio/flac",
            AudioFormat::Wav => "audio/wav",
            AudioFormat::Pcm => "audio/pcm",
        }
    }

    /// What names of files end with, without the dot; also the format's name.
    pub fn extension(self) -> &'static str {
        match self {
            AudioFormat::Mp3 => "mp3",
            AudioFormat::Opus => "opus",
            AudioFormat::Flac => "flac",
            AudioFormat::Wav => "wav",
            AudioFormat::Pcm => "pcm",
        }
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

impl FromStr for AudioFormat {
    type Err = Error;

    /// # Errors
    /// [`Error::BadOption`] for a name that is not one of the formats, AAC's among them, with a list of those that are.
    fn from_str(name: &str) -> Result<Self, Error> {
        AudioFormat::ALL.into_iter().find(|format| format.extension() == name).ok_or_else(|| {
            let known = AudioFormat::ALL.map(AudioFormat::extension).join(", ");
            Error::BadOption { field: "response_format", reason: format!("{name:?} is not one of {known}") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for format in AudioFormat::ALL {
            assert_eq!(format.to_string().parse::<AudioFormat>().unwrap(), format);
        }
    }

    #[test]
    fn other_names_are_refused_with_a_list() {
        for name in ["aac", "MP3", "", "ogg"] {
            let told = name.parse::<AudioFormat>().unwrap_err().to_string();
            assert_eq!(
                told,
                format!("bad response_format: {name:?} is not one of mp3, opus, flac, wav, pcm")
            );
        }
    }
}
