//! What a cut sounds like.

use audio::decode::{ChannelChoice, DecodeAudio, decode_file};
use audio::{Waveform, resample};

use super::Cut;
use crate::Error;

/// The stretch of its recording that a cut means, at the recording's sample rate.
///
/// # Errors
/// A recording that cannot be read or has nothing there.
pub fn read_cut(cut: &Cut, options: &DecodeAudio) -> Result<Waveform, Error> {
    let channel = cut.channel.map_or(options.channel, |channel| ChannelChoice::Pick(channel.into()));
    let decoded = decode_file(&cut.audio, &DecodeAudio { channel, ..options.clone() });
    let recording = decoded.map_err(|error| Error::file(&cut.audio, error))?.waveform;
    let samples = recording.between(cut.start_secs, cut.end_secs());
    if samples.is_empty() {
        let message = format!(
            "has nothing from {:.2} s to {:.2} s; it lasts {:.2} s",
            cut.start_secs,
            cut.end_secs(),
            recording.duration_secs()
        );
        return Err(Error::file(&cut.audio, message));
    }
    Ok(Waveform { samples: samples.to_vec(), sample_rate: recording.sample_rate })
}

/// [`read_cut`] at another sample rate.
///
/// # Errors
/// What `read_cut` refuses, and rates that are none.
pub fn read_cut_at(cut: &Cut, sample_rate: u32, options: &DecodeAudio) -> Result<Waveform, Error> {
    let waveform = read_cut(cut, options)?;
    Ok(if waveform.sample_rate == sample_rate { waveform } else { resample(&waveform, sample_rate)? })
}
