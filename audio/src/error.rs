//! Why audio was refused.

/// Every way in which this crate refuses audio or a request. Bad input never panics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing to decode: no bytes, or a valid container without a single sample.
    #[error("the audio is empty")]
    Empty,
    /// A container, codec, profile or setting that is not supported; `what` names it.
    #[error("unsupported audio: {what}")]
    Unsupported {
        /// What was found.
        what: String,
    },
    /// The bytes contradict their own format, or no format recognises them.
    #[error("undecodable audio: {reason}")]
    Undecodable {
        /// What the decoder objected to.
        reason: String,
    },
    /// The audio lasts longer than [`Limits::max_duration_secs`](crate::Limits::max_duration_secs).
    #[error("the audio is longer than the limit of {limit_secs} s")]
    TooLong {
        /// The limit, seconds.
        limit_secs: f64,
    },
    /// The input or what it decodes to needs more bytes than allowed.
    #[error("the {what} needs more than {limit_bytes} bytes")]
    TooLarge {
        /// What is too large: "input" or "decoded audio".
        what: &'static str,
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// More channels than [`Limits::max_channels`](crate::Limits::max_channels).
    #[error("{channels} channels, at most {limit} are accepted")]
    TooManyChannels {
        /// Channels in the file.
        channels: usize,
        /// The limit.
        limit: u16,
    },
    /// Decoding took more than [`Limits::max_cpu_secs`](crate::Limits::max_cpu_secs).
    #[error("decoding took more than {limit_secs} s of processor time")]
    Timeout {
        /// The limit, seconds of processor time.
        limit_secs: f64,
    },
    /// A sample rate that is zero, out of the accepted range, or not the one a function needs.
    #[error("sample rate {sample_rate} Hz is not accepted here ({expected})")]
    BadSampleRate {
        /// The rate found, Hz.
        sample_rate: u32,
        /// What would have been accepted, in words.
        expected: String,
    },
    /// [`ChannelChoice::Pick`](crate::ChannelChoice::Pick) named a channel that the file lacks.
    #[error("no channel {channel}: the audio has {channels}")]
    NoSuchChannel {
        /// The channel asked for, from 0.
        channel: usize,
        /// Channels in the file.
        channels: usize,
    },
    /// A [`FeatureSpec`](crate::FeatureSpec) or option that contradicts itself or is not implemented.
    #[error("bad {field}: {reason}")]
    BadOption {
        /// The field.
        field: &'static str,
        /// Why it was refused.
        reason: String,
    },
    /// Features from which no sound can be made.
    #[error("unusable features: {reason}")]
    BadFeatures {
        /// What is wrong with them.
        reason: String,
    },
    /// The caller's `keep_going` said no.
    #[error("given up: nobody waits for the result any more")]
    Cancelled,
    /// The file could not be opened or read; the source says why.
    #[error("could not read the audio")]
    Io(#[from] std::io::Error),
}

impl Error {
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Error::Unsupported { what: what.into() }
    }

    pub(crate) fn undecodable(reason: impl Into<String>) -> Self {
        Error::Undecodable { reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// As a caller prints an error and its causes: each reason once.
    #[test]
    fn a_cause_is_told_once() {
        let error = Error::from(std::io::Error::other("the disk is on fire"));
        let mut told = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            told += &format!(": {error}");
            cause = error.source();
        }
        assert_eq!(told, "could not read the audio: the disk is on fire");
    }
}
