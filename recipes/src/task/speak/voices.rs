//! The voices that a model comes with: a recording of each speaker that it learnt from.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use audio::encode::{AudioFormat, encode_bytes};
use audio::{DecodeAudio, Waveform};
use models::flow_lm::FlowLmConfig;

use super::Recordings;
use crate::Error;
use crate::data::read_cut_at;

/// Voices at most: of more speakers, those with the most recordings.
const MAX_VOICES: usize = 32;
/// Seconds of a voice's recording at most.
const MAX_SECS: f64 = 10.0;

/// Recordings by the names of their voices.
#[derive(Debug, Clone, Default)]
pub struct Voices(Vec<(String, Vec<u8>)>);

impl Voices {
    /// Those of the speakers of some recordings.
    ///
    /// # Errors
    /// A recording that cannot be read.
    pub fn of(recordings: &Recordings, sample_rate: u32) -> Result<Self, Error> {
        let mut taken = BTreeSet::new();
        let mut voices = Vec::new();
        for (speaker, cut) in recordings.voices().into_iter().take(MAX_VOICES) {
            let mut waveform = read_cut_at(cut, sample_rate, &DecodeAudio::default())?;
            waveform.samples.truncate((MAX_SECS * f64::from(sample_rate)) as usize);
            let name = name(speaker, &taken);
            taken.insert(name.clone());
            voices.push((name, flac(&waveform)?));
        }
        Ok(Self(voices))
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Writes all of a bundle but its weights into `dir`.
    ///
    /// # Errors
    /// What the disk refuses.
    pub(super) fn describe(&self, dir: &Path, config: &FlowLmConfig) -> Result<(), Error> {
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, bytes).map_err(|error| Error::file(&path, error))
        };
        let text = serde_json::to_string_pretty(&config.to_json())
            .map_err(|error| Error::config("model", error.to_string()))?;
        write("config.json", (text + "\n").as_bytes())?;
        self.0.iter().try_for_each(|(name, flac)| write(&models::flow_lm::voice_file(name), flac))
    }
}

fn flac(waveform: &Waveform) -> Result<Vec<u8>, Error> {
    Ok(encode_bytes(waveform, AudioFormat::Flac)?)
}

/// A name of letters, digits and dashes for a speaker: the last part of what a manifest calls it, as long as that is not taken.
fn name(speaker: &str, taken: &BTreeSet<String>) -> String {
    let plain = |text: &str| {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+') { c } else { '-' };
        let plain: String = text.chars().map(plain).collect();
        if plain.contains(|c: char| c.is_ascii_alphanumeric()) { plain } else { "voice".to_owned() }
    };
    let whole = plain(speaker);
    let last = plain(speaker.rsplit('/').next().unwrap_or(speaker));
    let numbered = (2..=MAX_VOICES).map(|number| format!("{whole}-{number}"));
    let mut names = [last, whole.clone()].into_iter().chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voices_are_called_by_the_last_part_of_their_name_as_long_as_it_is_free() {
        let mut taken = BTreeSet::new();
        for (speaker, expected) in [
            ("flite/slt", "slt"),
            ("espeak-ng/en-us+f3", "en-us+f3"),
            ("other/slt", "other-slt"),
            ("other/slt", "other-slt-2"),
            ("استاد", "voice"),
            ("", "voice-2"),
        ] {
            let name = name(speaker, &taken);
            assert_eq!(name, expected, "{speaker}");
            taken.insert(name);
        }
    }
}
