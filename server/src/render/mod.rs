//! A transcript as text, JSON or subtitles: pure functions, the same for the terminal and for HTTP.

mod cue;
mod json;
mod language;
mod srt;
pub mod stream;
mod text;
mod verbose_json;
mod vtt;

#[cfg(test)]
pub(crate) mod sample;

pub use json::{Json, LanguageJson, LogprobJson, Usage, json};
pub use language::{LANGUAGES, name as language_name, parse as parse_language};
pub use srt::srt;
pub use text::text;
pub use verbose_json::{CoverageJson, GapJson, SegmentJson, VerboseJson, WordJson, verbose_json};
pub use vtt::vtt;

use serde::{Deserialize, Serialize};

/// How a transcript is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Format {
    /// The text alone
    Text,
    /// {"text", "usage"}
    Json,
    /// Segments with times and figures, and what was not decoded
    VerboseJson,
    /// SubRip subtitles
    Srt,
    /// WebVTT subtitles
    Vtt,
}

impl Format {
    /// The usual end of a file name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json | Self::VerboseJson => "json",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
        }
    }

    /// The type of a response's body.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json | Self::VerboseJson => "application/json",
            Self::Srt => "application/x-subrip; charset=utf-8",
            Self::Vtt => "text/vtt; charset=utf-8",
        }
    }

    /// Whether the format shows times, so that the decoder has to predict them.
    pub fn has_times(self) -> bool {
        matches!(self, Self::VerboseJson | Self::Srt | Self::Vtt)
    }
}
