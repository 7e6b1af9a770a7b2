//! Rows whose texts are to be spoken, and how a model says them.

use std::collections::BTreeSet;

use audio::{DecodeAudio, Waveform};
use models::{SpeakOptions, Synthesizer, Voice, flow_lm::SymbolUnit};
use recipes::{
    data::{manifest::Cut, read_cut},
    evaluate::Unheard,
    evaluate_speech::SpokenReference,
    task::speak::Voices,
};
use serde::Serialize;

use super::super::Usage;

/// What rows that name no kind are.
const TEXT: &str = "text";

/// How a model speaks; what is not given is the model's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(in crate::cli) struct Setting {
    pub(super) steps: Option<u32>,
    pub(super) guidance: Option<f64>,
    pub(super) temperature: Option<f64>,
}

impl Setting {
    /// As a table names it.
    pub(super) fn name(self) -> String {
        let steps = self.steps.map(|steps| format!("{steps} step{}", if steps == 1 { "" } else { "s" }));
        let guidance = self.guidance.map(|weight| format!("guidance {weight}"));
        let temperature = self.temperature.map(|variance| format!("temperature {variance}"));
        let given: Vec<String> = [steps, guidance, temperature].into_iter().flatten().collect();
        if given.is_empty() { "as the model asks for".to_owned() } else { given.join(", ") }
    }
}

/// A row whose text is to be spoken. Its recording is read whenever it is its turn: all of them together may be more than the memory holds.
pub(in crate::cli) struct ToSpeak<'a> {
    pub(super) cut: &'a Cut,
    /// The voice's name.
    voice: String,
    /// As the row says, or else as all of them are taken for.
    pub(super) language: Option<&'a str>,
}

impl ToSpeak<'_> {
    /// It, with its recording.
    ///
    /// # Errors
    /// A recording that cannot be read.
    pub(super) fn read(&self) -> Result<SpokenReference, Unheard> {
        let Self { cut, voice, .. } = self;
        let waveform =
            read_cut(cut, &DecodeAudio::default()).map_err(|error| Unheard::new(&cut.id, &error))?;
        Ok(SpokenReference {
            name: cut.id.to_string(),
            kind: kind(cut).to_owned(),
            text: cut.text.to_string(),
            voice: voice.clone(),
            waveform,
        })
    }
}

/// Texts with their voices and languages, and the rows that have no voice. `voice` names that of a row, or says why there is none; rows that
/// state no language are taken for `language`.
pub(in crate::cli) fn texts_to_speak<'a>(
    cuts: &'a [Cut],
    language: Option<&'a str>,
    voice: &dyn Fn(&Cut) -> Result<String, String>,
) -> (Vec<ToSpeak<'a>>, Vec<Unheard>) {
    let (mut texts, mut failed) = (Vec::new(), Vec::new());
    for cut in cuts {
        match voice(cut) {
            Ok(voice) => texts.push(ToSpeak { cut, voice, language: cut.language.as_deref().or(language) }),
            Err(reason) => failed.push(Unheard { name: cut.id.to_string(), reason }),
        }
    }
    (texts, failed)
}

/// What a row says that it is for.
fn kind(cut: &Cut) -> &str {
    cut.extra.as_ref().and_then(|extra| extra.get("kind")?.as_str()).unwrap_or(TEXT)
}

/// The voice that a speaker of a manifest became: it goes by the speaker's name, or by the last part of it, as names of voices are written. `None`
/// where there is none, and where nothing but a number would tell it from others.
pub(in crate::cli) fn voice_of<'a>(synthesizer: &'a Synthesizer, speaker: &str) -> Option<&'a Voice> {
    let named = |name: &str| synthesizer.voices().iter().find(|voice| voice.name() == name);
    if let Some(voice) = named(speaker) {
        return Some(voice);
    }
    let [whole, last] = Voices::names_of(speaker);
    // Others may be written alike: who was first is not known here.
    let is_one_of_many = named(&format!("{whole}-2")).is_some();
    if is_one_of_many { None } else { named(&whole).or_else(|| named(&last)) }
}

/// Refuses voices that read phonemes, as `what` asks for one: manifests hold texts in letters, and by those such a voice says nothing that could
/// be judged.
///
/// # Errors
/// The unit.
pub(in crate::cli) fn check_unit(what: &str, unit: SymbolUnit) -> Result<(), Usage> {
    match unit {
        SymbolUnit::Characters => Ok(()),
        SymbolUnit::Phonemes => Err(Usage(format!(
            "{what}: the voice reads phonemes, and the texts are written in letters; a voice that reads letters can be judged, of this one \
             held-out losses tell"
        ))),
    }
}

/// Says a text in its voice, in its language where the model reads that, else in the model's first.
///
/// # Errors
/// What the model refuses.
pub(in crate::cli) fn say(
    synthesizer: &Synthesizer,
    setting: Setting,
    text: &ToSpeak<'_>,
) -> Result<Waveform, models::Error> {
    let voice = voice_of(synthesizer, &text.voice).ok_or_else(|| models::Error::Option {
        option: "voice",
        message: format!("{} is none of the model's", text.voice),
    })?;
    let options = SpeakOptions {
        language: text.language.filter(|code| reads(synthesizer, code)).map(str::to_owned),
        steps: setting.steps.map(|steps| steps as usize),
        guidance: setting.guidance,
        temperature: setting.temperature,
        ..SpeakOptions::default()
    };
    synthesizer.speak(&text.cut.text, voice, &options)
}

fn reads(synthesizer: &Synthesizer, language: &str) -> bool {
    synthesizer.languages().iter().any(|known| known == language)
}

/// What is to be told of texts in languages that the model does not read; nothing where it reads all of them.
pub(in crate::cli) fn note_of_unread(synthesizer: &Synthesizer, texts: &[ToSpeak<'_>]) -> Option<String> {
    let stated = texts.iter().filter_map(|text| text.language);
    let unread: Vec<_> = stated.filter(|language| !reads(synthesizer, language)).collect();
    let codes: BTreeSet<_> = unread.iter().copied().collect();
    let first = synthesizer.languages().first()?;
    (!unread.is_empty()).then(|| {
        format!(
            "{} of {} texts are in languages that the model does not read ({}): it says them as if they were in `{first}`",
            unread.len(),
            texts.len(),
            codes.into_iter().collect::<Vec<_>>().join(", ")
        )
    })
}

/// Rows, and recordings of them.
#[cfg(test)]
pub(super) mod fixtures {
    use std::path::{Path, PathBuf};

    use serde_json::Value;

    use super::*;

    pub fn waveform(secs: f32) -> Waveform {
        let n_samples = (secs * 16_000.0) as u16;
        Waveform {
            samples: (0..n_samples).map(|t| (f32::from(t) * 0.06).sin() * 0.4).collect(),
            sample_rate: 16_000,
        }
    }

    /// A row of the recording `path`.
    pub fn cut(id: &str, path: &Path, kind: Option<&str>, text: &str) -> Cut {
        Cut {
            id: id.into(),
            audio: path.into(),
            start_secs: 0.0,
            duration_secs: 0.5,
            channel: None,
            text: text.into(),
            language: None,
            speaker: None,
            target_text: None,
            target_language: None,
            extra: kind.map(|kind| Box::new([("kind".to_owned(), Value::from(kind))].into_iter().collect())),
        }
    }

    /// A recording of half a second in this folder.
    pub fn recording(folder: &Path) -> PathBuf {
        let path = folder.join("a.wav");
        std::fs::write(&path, audio::encode::wav_bytes(&waveform(0.5)).expect("a WAV")).expect("written");
        path
    }

    pub fn to_speak<'a>(cut: &'a Cut, voice: &str, language: Option<&'a str>) -> ToSpeak<'a> {
        ToSpeak { cut, voice: voice.to_owned(), language }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::{
        fixtures::{cut, recording, to_speak},
        *,
    };

    /// The tiny model with voices of these names.
    fn speaker_with(voices: &[&str]) -> Synthesizer {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/flow-lm");
        let folder = tempfile::tempdir().expect("a folder");
        let config = std::fs::read_to_string(fixture.join("config.json")).expect("settings");
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        config["voices"] = voices.iter().copied().collect();
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
        std::fs::copy(fixture.join("model.safetensors"), folder.path().join("model.safetensors"))
            .expect("weights");
        for voice in voices {
            let file = folder.path().join(models::flow_lm::voice_file(voice));
            std::fs::copy(fixture.join("voice-anna.flac"), file).expect("a recording");
        }
        Synthesizer::load(&folder.path().into(), &models::Device::Cpu).expect("a model")
    }

    #[test]
    fn voices_are_found_by_the_names_that_they_were_stored_under() {
        // As they are called that learn from flite/slt, other/slt, a speaker with a Pashto name, and another one of two words.
        let synthesizer = speaker_with(&["slt", "other-slt", "voice", "my-voice"]);
        for (speaker, expected) in [
            ("flite/slt", Some("slt")),
            ("other/slt", Some("other-slt")),
            ("other-slt", Some("other-slt")),
            ("استاد", Some("voice")),
            ("my voice", Some("my-voice")),
            ("nobody", None),
        ] {
            assert_eq!(voice_of(&synthesizer, speaker).map(Voice::name), expected, "{speaker}");
        }
        // Which of two Pashto names came first is not known: neither is judged in the other's voice.
        let synthesizer = speaker_with(&["voice", "voice-2"]);
        assert!(voice_of(&synthesizer, "استاد").is_none());
        assert_eq!(voice_of(&synthesizer, "voice-2").map(Voice::name), Some("voice-2"));
    }

    #[test]
    fn speakers_are_known_by_the_last_part_of_their_name_and_what_is_unknown_is_refused() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/flow-lm");
        let synthesizer =
            Synthesizer::load(&Path::new(fixture).into(), &models::Device::Cpu).expect("a model");
        let name = |speaker: &str| voice_of(&synthesizer, speaker).map(Voice::name);
        assert_eq!([name("ben"), name("espeak-ng/ben")], [Some("ben"); 2]);
        assert_eq!([name("carl"), name("ben/carl"), name("")], [None; 3]);
        let cut = cut("a", Path::new("a.wav"), None, "no");
        let say = |voice: &str, language: Option<&str>| {
            let text = to_speak(&cut, voice, language);
            say(&synthesizer, Setting::default(), &text).map(|said| said.samples)
        };
        let said = say("anna", None).expect("said");
        // What it does not read is read as what it reads first.
        assert!(!said.is_empty() && said == say("anna", Some("xx")).expect("said"));
        let message = say("carl", None).expect_err("refused").to_string();
        assert!(message.contains("carl is none of the model's"), "{message}");
        let texts = [None, Some("ps"), Some("xx"), Some("xx"), Some("aa")]
            .map(|language| to_speak(&cut, "anna", language));
        let note = note_of_unread(&synthesizer, &texts).expect("two languages");
        assert!(
            note.starts_with("3 of 5 texts") && note.contains("(aa, xx)") && note.contains("`en`"),
            "{note}"
        );
        assert_eq!(note_of_unread(&synthesizer, &texts[..2]), None);
    }

    #[test]
    fn voices_that_read_phonemes_are_not_judged_by_letters() {
        assert!(check_unit("--judge", SymbolUnit::Characters).is_ok());
        let Usage(message) = check_unit("--judge", SymbolUnit::Phonemes).expect_err("refused");
        assert!(message.starts_with("--judge: the voice reads phonemes"), "{message}");
    }

    #[test]
    fn rows_name_their_voices_kinds_and_languages() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = recording(folder.path());
        let cuts = [
            Cut { speaker: Some("slt".into()), ..cut("a", &path, Some("word"), "tent") },
            Cut { language: Some("de".into()), ..cut("b", &path, None, "tent") },
        ];
        let told = |voice: &dyn Fn(&Cut) -> Result<String, String>| {
            let (texts, failed) = texts_to_speak(&cuts, Some("ps"), voice);
            let texts = texts.iter().map(|text| {
                let SpokenReference { name, kind, voice, .. } = text.read().expect("a recording");
                format!("{name} {voice} {kind} {}", text.language.unwrap_or("-"))
            });
            let texts: Vec<_> = texts.collect();
            (texts, failed.into_iter().map(|unheard| unheard.name).collect::<Vec<_>>())
        };
        let by_speaker =
            |cut: &Cut| cut.speaker.as_deref().map(str::to_owned).ok_or_else(|| "no speaker".to_owned());
        assert_eq!(told(&by_speaker), (vec!["a slt word ps".to_owned()], vec!["b".to_owned()]));
        let expected = ["a v word ps", "b v text de"].map(str::to_owned).to_vec();
        assert_eq!(told(&|_| Ok("v".to_owned())), (expected, Vec::new()));
    }
}
