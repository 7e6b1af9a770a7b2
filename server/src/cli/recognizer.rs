//! A loaded model and the way from a recording to its transcript. The only file of the command line that runs a model.

use std::path::Path;

use audio::{ChannelChoice, DecodeAudio};
use models::{BundleSource, DecodeOptions, Progress, Transcriber, Transcript};

use crate::compute::Compute;
use crate::config::Limits;

/// A recording to be read.
pub(super) enum Source<'a> {
    File(&'a Path),
    Bytes(Vec<u8>),
}

/// A loaded model.
pub(super) struct Recognizer {
    transcriber: Transcriber,
    decode: DecodeAudio,
}

impl Recognizer {
    /// Loads a model, and its draft if it has one.
    pub(super) fn load(
        source: BundleSource,
        draft: Option<BundleSource>,
        compute: &Compute,
        limits: Limits,
        channel: ChannelChoice,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            transcriber: compute.load_with_draft(source, draft)?,
            decode: decode_audio(limits, channel),
        })
    }

    /// Refuses options that the model cannot follow.
    pub(super) fn check(&self, options: &DecodeOptions) -> Result<(), models::Error> {
        self.transcriber.check(options)
    }

    /// Decodes the recording and what is said in it. Also returns what is wrong with the recording but did not hinder.
    pub(super) fn transcribe(
        &self,
        source: Source<'_>,
        options: &DecodeOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> anyhow::Result<(Transcript, Vec<String>)> {
        let decoded = match source {
            Source::File(path) => audio::decode_file(path, &self.decode)?,
            Source::Bytes(bytes) => audio::decode_bytes(bytes, None, &self.decode)?,
        };
        let warnings = decoded.warnings.iter().map(ToString::to_string).collect();
        Ok((self.transcriber.transcribe(decoded.waveform, options, progress)?, warnings))
    }
}

/// How recordings are decoded under these limits.
pub(super) fn decode_audio(limits: Limits, channel: ChannelChoice) -> DecodeAudio {
    let limits = audio::Limits {
        max_duration_secs: limits.max_duration_secs,
        max_input_bytes: limits.max_input_bytes,
        max_samples_bytes: limits.max_samples_bytes,
        max_channels: limits.max_channels,
        max_cpu_secs: limits.max_cpu_secs,
        ..audio::Limits::default()
    };
    DecodeAudio { limits, channel }
}
