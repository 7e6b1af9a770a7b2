//! Rows that were skipped, and why.

use std::{fmt, path::Path, sync::Arc};

use serde_json::Value;

/// A row that was skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The manifest or table it stands in, or the recording where there is no table.
    pub file: Arc<Path>,
    /// Its line, counted from 1; `None` where the file is not a table.
    pub line: Option<u64>,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

/// Why a row was skipped: what is wrong, with its value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No JSON.
    #[error("not JSON: {0}")]
    BadJson(String),
    /// JSON, but no object.
    #[error("{0} is not a JSON object")]
    NotAnObject(String),
    /// A line that is longer than any row.
    #[error("longer than {limit_bytes} bytes")]
    LongLine {
        /// The limit, bytes.
        limit_bytes: usize,
    },
    /// The file could not be read to its end.
    #[error("the file cannot be read on from here: {0}")]
    BrokenOff(String),
    /// A table's row has other columns than its header.
    #[error("{found} columns where the header has {expected}")]
    Columns {
        /// Columns of the row.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// A table's row that is no text or breaks the table's rules of quoting.
    #[error("not a row: {0}")]
    BadRow(String),
    /// A key or column is missing.
    #[error("no `{0}`")]
    Missing(&'static str),
    /// A value is of another type.
    #[error("`{key}`: {value} is not {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The value, shortened.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A time that cannot be.
    #[error("`{key}`: {value} is not {expected}")]
    BadTime {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A text that is needed is empty.
    #[error("`{0}` is empty")]
    EmptyText(&'static str),
    /// A recording without its text beside it.
    #[error("no text for it: {0}")]
    NoTranscript(String),
    /// Something that is understood but cannot be used.
    #[error("{0}")]
    Unsupported(String),
    /// The recording is not there.
    #[error("no such recording: {0}")]
    NoRecording(String),
    /// The recording cannot be measured.
    #[error("{0}")]
    BadRecording(String),
}

impl Reason {
    /// A few words by which to count.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadJson(_) | Self::NotAnObject(_) => "not JSON",
            Self::LongLine { .. } => "line too long",
            Self::BrokenOff(_) => "file breaks off",
            Self::Columns { .. } | Self::BadRow(_) => "bad columns",
            Self::Missing(_) => "missing key",
            Self::WrongType { .. } => "wrong type",
            Self::BadTime { .. } => "bad time",
            Self::EmptyText(_) => "empty text",
            Self::NoTranscript(_) => "no transcript",
            Self::Unsupported(_) => "unsupported",
            Self::NoRecording(_) => "missing recording",
            Self::BadRecording(_) => "unreadable recording",
        }
    }

    pub(crate) fn wrong_type(key: &'static str, value: &Value, expected: &'static str) -> Self {
        Self::WrongType { key, value: short(&value.to_string()), expected }
    }

    pub(crate) fn bad_time(key: &'static str, value: f64, expected: &'static str) -> Self {
        Self::BadTime { key, value: value.to_string(), expected }
    }
}

/// The beginning of a value, for a message.
pub(crate) fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
