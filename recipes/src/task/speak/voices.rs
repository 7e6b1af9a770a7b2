//! The voices that a model comes with: a recording of each speaker that it learnt from.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use audio::encode::{AudioFormat, encode_bytes};
use audio::{DecodeAudio, Waveform, decode_bytes};
use models::MIN_VOICE_SECS;
use models::flow_lm::FlowLmConfig;

use super::Recordings;
use crate::Error;
use crate::data::{Cut, read_cut_at};

/// Voices at most: of more speakers, those with the most recordings.
const MAX_VOICES: usize = 32;
/// Recordings of a speaker that are tried at most.
const MAX_TRIED: usize = 20;
/// Seconds of a voice's recording at most.
const MAX_SECS: f64 = 10.0;

/// Recordings by the names of their voices.
#[derive(Debug, Clone, Default)]
pub struct Voices(Vec<RecordedVoice>);

#[derive(Debug, Clone)]
struct RecordedVoice {
    name: String,
    /// What manifests call it; nothing is none that they know.
    speaker: Option<String>,
    flac: Vec<u8>,
}

impl Voices {
    /// Those of the speakers of some recordings, and behind them those that a base has, FLAC by their names, as long as there is room.
    ///
    /// # Errors
    /// Recordings of which none can be read.
    pub fn of(
        recordings: &Recordings,
        base: Vec<(String, Vec<u8>)>,
        sample_rate: u32,
    ) -> Result<Self, Error> {
        let mut taken = BTreeSet::new();
        let mut voices = Vec::new();
        for (speaker, cuts) in recordings.voices().into_iter().take(MAX_VOICES) {
            let Some(waveform) = sample(&cuts, sample_rate)? else { continue };
            let name = name(speaker, &taken);
            taken.insert(name.clone());
            voices.push(RecordedVoice { name, speaker: Some(speaker.to_owned()), flac: flac(&waveform)? });
        }
        for (known, flac) in base.into_iter().take(MAX_VOICES.saturating_sub(voices.len())) {
            let name = name(&known, &taken);
            taken.insert(name.clone());
            voices.push(RecordedVoice { name, speaker: None, flac });
        }
        Ok(Self(voices))
    }

    /// What the voice of a speaker may be called, as a manifest calls the speaker: by all of that name, or by its last part. Letters, digits and
    /// dashes alone; where no letter is left, `voice`. Where others took both, a number from 2 on follows the first.
    pub fn names_of(speaker: &str) -> [String; 2] {
        let plain = |text: &str| {
            let plain =
                |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+') { c } else { '-' };
            let plain: String = text.chars().map(plain).collect();
            if plain.contains(|c: char| c.is_ascii_alphanumeric()) { plain } else { "voice".to_owned() }
        };
        [plain(speaker), plain(speaker.rsplit('/').next().unwrap_or(speaker))]
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|voice| voice.name.clone()).collect()
    }

    /// Which of them that of a speaker is: the first of all where it is not among them.
    pub(super) fn place(&self, speaker: Option<&str>) -> usize {
        let is_theirs =
            |voice: &RecordedVoice| voice.speaker.is_some() && voice.speaker.as_deref() == speaker;
        self.0.iter().position(is_theirs).unwrap_or(0)
    }

    /// The recording of one.
    pub(super) fn recording(&self, name: &str) -> Result<Waveform, models::Error> {
        let flac = self.0.iter().find(|voice| voice.name == name).map(|voice| voice.flac.clone());
        let decoded = decode_bytes(flac.unwrap_or_default(), Some("flac"), &DecodeAudio::default())?;
        Ok(decoded.waveform)
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
        self.0.iter().try_for_each(|voice| write(&models::flow_lm::voice_file(&voice.name), &voice.flac))
    }
}

/// The first of these recordings, and those after it until a voice can be made of them; `None` where there is not that much. Those that cannot be
/// read are passed over, as it is told of them when they are to be learnt.
fn sample(cuts: &[&Cut], sample_rate: u32) -> Result<Option<Waveform>, Error> {
    let (mut waveform, mut last) = (Waveform { samples: Vec::new(), sample_rate }, None);
    for cut in cuts.iter().take(MAX_TRIED) {
        match read_cut_at(cut, sample_rate, &DecodeAudio::default()) {
            Ok(read) => waveform.samples.extend(read.samples),
            Err(error) => last = Some(error),
        }
        if waveform.duration_secs() >= MIN_VOICE_SECS {
            waveform.samples.truncate((MAX_SECS * f64::from(sample_rate)) as usize);
            return Ok(Some(waveform));
        }
    }
    match last {
        Some(error) if waveform.samples.is_empty() => Err(error),
        _ => Ok(None),
    }
}

fn flac(waveform: &Waveform) -> Result<Vec<u8>, Error> {
    Ok(encode_bytes(waveform, AudioFormat::Flac)?)
}

/// A name of letters, digits and dashes for a speaker: the last part of what a manifest calls it, as long as that is not taken.
fn name(speaker: &str, taken: &BTreeSet<String>) -> String {
    let [whole, last] = Voices::names_of(speaker);
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
