//! The speech of a model, judged by what a recogniser hears in it beside what it hears in recordings.

use std::{fmt::Write as _, iter, path::Path};

use audio::{DecodeAudio, Waveform};
use models::{BundleSource, DecodeOptions, SpeakOptions, Synthesizer, Transcriber, Voice};
use recipes::{
    SETTING_COLUMNS,
    data::{manifest::Cut, read_cut},
    evaluate::{Reference, Unheard, evaluate},
    evaluate_speech::{
        Hear, SpeechEvaluation, SpeechScores, SpokenReference, evaluate_speech, hear_recordings,
    },
    score_rows, setting_row, speech_failures, speech_page,
    task::speak::Voices,
    text::Normaliser,
};
use serde::Serialize;

use super::{
    super::{
        Usage,
        output::{table, write_file},
        progress::{Items, Style},
    },
    report::tell_failed,
};
use crate::compute::Compute;

/// What rows that name no kind are.
const TEXT: &str = "text";

/// Says a text in a voice by a setting: the samples, or why there are none.
pub(in crate::cli) type Speak<'a> = dyn FnMut(Setting, &str, &str) -> Result<Waveform, models::Error> + 'a;

/// What hears speech, and the recordings beside it.
pub(in crate::cli) struct SpeechJudge {
    transcriber: Transcriber,
    options: DecodeOptions,
}

impl SpeechJudge {
    /// Loads the recogniser `name`, which is told `language` where it has several.
    ///
    /// # Errors
    /// What its bundle lacks, options that it cannot follow.
    pub(in crate::cli) fn load(
        name: &str,
        source: BundleSource,
        compute: &Compute,
        language: Option<&str>,
        beam_size: Option<usize>,
    ) -> anyhow::Result<Self> {
        let transcriber = compute.load(source)?;
        let is_told = transcriber.special_tokens().is_multilingual;
        let language = language.filter(|_| is_told).map(str::to_owned);
        let options = DecodeOptions { beam_size, language, ..DecodeOptions::default() };
        transcriber.check(&options).map_err(|error| Usage(format!("judge {name}: {error}")))?;
        Ok(Self { transcriber, options })
    }

    /// What it hears.
    ///
    /// # Errors
    /// Sound that it cannot listen to.
    pub(in crate::cli) fn hear(&self, waveform: &Waveform) -> Result<String, recipes::Error> {
        let reference = Reference {
            name: String::new(),
            waveform: waveform.clone(),
            text: String::new(),
            language: None,
            to_language: None,
        };
        let mut heard = evaluate(&self.transcriber, iter::once(Ok(reference)), &self.options, &mut |_| {});
        match (heard.heard.pop(), heard.failed.pop()) {
            (Some(heard), _) => Ok(heard.hypothesis),
            // Nothing to hear is heard as nothing.
            (None, None) => Ok(String::new()),
            (None, Some(unheard)) => {
                Err(models::Error::Option { option: "judge", message: unheard.reason }.into())
            }
        }
    }
}

/// How a model speaks; what is not given is the model's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(in crate::cli) struct Setting {
    pub(super) steps: Option<u32>,
    pub(super) guidance: Option<f64>,
}

impl Setting {
    /// As a table names it.
    pub(super) fn name(self) -> String {
        let steps = self.steps.map(|steps| format!("{steps} step{}", if steps == 1 { "" } else { "s" }));
        let guidance = self.guidance.map(|weight| format!("guidance {weight}"));
        match (steps, guidance) {
            (None, None) => "as the model asks for".to_owned(),
            (steps, guidance) => steps.into_iter().chain(guidance).collect::<Vec<_>>().join(", "),
        }
    }
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

/// Says a text in one of the model's voices, in a language where the model reads it, else in the model's first.
///
/// # Errors
/// What the model refuses.
pub(in crate::cli) fn say(
    synthesizer: &Synthesizer,
    setting: Setting,
    language: Option<&str>,
    (text, voice): (&str, &str),
) -> Result<Waveform, models::Error> {
    let voice = voice_of(synthesizer, voice).ok_or_else(|| models::Error::Option {
        option: "voice",
        message: format!("{voice} is none of the model's"),
    })?;
    let reads = |code: &&str| synthesizer.languages().iter().any(|known| known == code);
    let options = SpeakOptions {
        language: language.filter(reads).map(str::to_owned),
        steps: setting.steps.map(|steps| steps as usize),
        guidance: setting.guidance,
        ..SpeakOptions::default()
    };
    synthesizer.speak(text, voice, &options)
}

/// A setting with what came of it.
#[derive(Serialize)]
pub(in crate::cli) struct Judged {
    #[serde(flatten)]
    pub(super) setting: Setting,
    pub(in crate::cli) scores: SpeechScores,
    #[serde(flatten)]
    pub(super) evaluation: SpeechEvaluation,
}

/// Texts with their voices and recordings, and the rows that have none. `voice` names that of a row, or says why there is none.
pub(in crate::cli) fn references(
    cuts: &[Cut],
    voice: &dyn Fn(&Cut) -> Result<String, String>,
) -> (Vec<SpokenReference>, Vec<Unheard>) {
    let (mut references, mut failed) = (Vec::new(), Vec::new());
    for cut in cuts {
        let voice = match voice(cut) {
            Ok(voice) => voice,
            Err(reason) => {
                failed.push(Unheard { name: cut.id.to_string(), reason });
                continue;
            }
        };
        match read_cut(cut, &DecodeAudio::default()) {
            Ok(waveform) => references.push(SpokenReference {
                name: cut.id.to_string(),
                kind: kind(cut).to_owned(),
                text: cut.text.to_string(),
                voice,
                waveform,
            }),
            Err(error) => failed.push(Unheard::new(&cut.id, &error)),
        }
    }
    (references, failed)
}

/// What a row says that it is for.
fn kind(cut: &Cut) -> &str {
    cut.extra.as_ref().and_then(|extra| extra.get("kind")?.as_str()).unwrap_or(TEXT)
}

/// Hears the recordings once, and then the speech of every setting.
///
/// # Errors
/// A setting in which nothing could be spoken.
pub(in crate::cli) fn judge_all(
    references: &[SpokenReference],
    settings: &[Setting],
    speak: &mut Speak<'_>,
    hear: &mut Hear<'_>,
    normalisers: &[Normaliser],
    style: Style,
) -> anyhow::Result<Vec<Judged>> {
    let mut progress = Items::start(style, "listening to recordings", Some(references.len()));
    let recorded = hear_recordings(references, hear, &mut |n_done| progress.update(n_done));
    progress.clear();
    let mut judged = Vec::with_capacity(settings.len());
    for setting in settings {
        let mut progress =
            Items::start(style, &format!("speaking, {}", setting.name()), Some(references.len()));
        let mut speak = |text: &str, voice: &str| speak(*setting, text, voice);
        let evaluation =
            evaluate_speech(references, &recorded, &mut speak, hear, &mut |n_done| progress.update(n_done))?;
        progress.clear();
        if evaluation.spoken.iter().all(|spoken| spoken.is_refused) {
            let first =
                evaluation.failed.first().map(|unheard| format!(": {}: {}", unheard.name, unheard.reason));
            anyhow::bail!("nothing could be spoken and heard{}", first.unwrap_or_default());
        }
        let scores = evaluation.scores(normalisers)?;
        judged.push(Judged { setting: *setting, scores, evaluation });
    }
    Ok(judged)
}

/// Tables: of the settings, and of the kinds of texts in each.
pub(in crate::cli) fn describe(judged: &[Judged], failed: &[Unheard]) -> String {
    let columns = SETTING_COLUMNS.map(str::to_owned);
    let rows = judged.iter().map(|one| setting_row(&one.setting.name(), &one.scores));
    let mut text = table(&iter::once(columns).chain(rows).collect::<Vec<_>>());
    for Judged { setting, scores, evaluation } in judged {
        for report in &scores.reports {
            let _ = writeln!(text, "\n{}; normaliser: {}", setting.name(), report.normaliser);
            text += &table(&score_rows(report));
        }
        if let Some(told) = speech_failures(scores) {
            let _ = writeln!(text, "{told}");
        }
        tell_failed(&evaluation.failed, &mut text);
    }
    tell_failed(failed, &mut text);
    text
}

/// Writes `analysis.json` and `analysis.html`, with some of the speech to listen to.
///
/// # Errors
/// What the disk refuses.
pub(in crate::cli) fn write_speech(
    dir: &Path,
    model: &str,
    judged: &[Judged],
    references: &[SpokenReference],
) -> anyhow::Result<()> {
    write_file(&dir.join("analysis.json"), &(serde_json::to_string_pretty(judged)? + "\n"))?;
    let scores: Vec<_> = judged.iter().map(|one| (one.setting.name(), one.scores.clone())).collect();
    let page = match judged.first() {
        Some(first) => speech_page(&format!("Speech of {model}"), &scores, &first.evaluation, references)?,
        None => String::new(),
    };
    write_file(&dir.join("analysis.html"), &page)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn waveform(secs: f32) -> Waveform {
        let n_samples = (secs * 16_000.0) as u16;
        Waveform {
            samples: (0..n_samples).map(|t| (f32::from(t) * 0.06).sin() * 0.4).collect(),
            sample_rate: 16_000,
        }
    }

    fn reference(name: &str, kind: &str, text: &str) -> SpokenReference {
        let (name, kind, text) = (name.to_owned(), kind.to_owned(), text.to_owned());
        SpokenReference { name, kind, text, voice: "v".to_owned(), waveform: waveform(0.5) }
    }

    #[test]
    fn every_setting_is_a_row_and_recordings_are_heard_once() {
        let references = [reference("a", "word", "tent"), reference("b", "digits", "one two")];
        let settings = [1, 4].map(|steps| Setting { steps: Some(steps), guidance: None });
        let mut n_recorded = 0;
        // What has taken one step is half as long, and not understood.
        let mut hear = |waveform: &Waveform| {
            n_recorded += usize::from(waveform.samples.len() == 8_000);
            Ok(if waveform.samples.len() < 8_000 { "what".to_owned() } else { "tent".to_owned() })
        };
        let mut speak = |setting: Setting, _: &str, _: &str| {
            Ok(waveform(if setting.steps == Some(1) { 0.25 } else { 0.75 }))
        };
        let normalisers = [Normaliser::Basic, Normaliser::None];
        let judged = judge_all(&references, &settings, &mut speak, &mut hear, &normalisers, Style::new(true))
            .expect("judged");
        assert_eq!(n_recorded, 2);
        let rows = describe(&judged, &[Unheard { name: "c".to_owned(), reason: "is not there".to_owned() }]);
        let lines: Vec<_> = rows.lines().collect();
        assert!(lines[0].contains("x real time") && lines[0].contains("cepstral distortion"), "{rows}");
        assert!(lines[1].starts_with("1 step ") && lines[1].contains("100.00 %"), "{rows}");
        assert!(lines[2].starts_with("4 steps ") && lines[2].contains("66.67 %"), "{rows}");
        for told in ["1 step; normaliser: basic", "1 step; normaliser: none", "WER recorded"] {
            assert!(rows.contains(told), "{told}: {rows}");
        }
        assert!(rows.ends_with("Not decoded: c: is not there\n"), "{rows}");
        let json: Value = serde_json::to_value(&judged).expect("JSON");
        let report = &json[1]["scores"]["reports"][0];
        assert_eq!(
            (&json[1]["steps"], &report["normaliser"], &report["kinds"][1]["kind"]),
            (&4.into(), &"basic".into(), &"word".into())
        );
        assert_eq!(
            (&json[1]["spoken"][0]["heard"], &json[1]["failed"]),
            (&"tent".into(), &Value::Array(Vec::new()))
        );

        let mut unmoved = |_: &Waveform| Ok(String::new());
        let mut mute = |_: Setting, _: &str, _: &str| Err(models::Error::Cancelled);
        let refused =
            judge_all(&references, &settings, &mut mute, &mut unmoved, &normalisers, Style::new(true));
        assert!(
            refused
                .err()
                .is_some_and(|error| error.to_string().contains("nothing could be spoken and heard: a: "))
        );
        // One that is refused is counted, and told.
        let mut half = |_: Setting, text: &str, _: &str| match text {
            "tent" => Ok(waveform(0.75)),
            _ => Err(models::Error::Cancelled),
        };
        let mut tent = |_: &Waveform| Ok("tent".to_owned());
        let judged =
            judge_all(&references, &settings[..1], &mut half, &mut tent, &normalisers, Style::new(true))
                .expect("judged");
        let rows = describe(&judged, &[]);
        assert!(rows.contains("1 text could not be spoken") && rows.contains("Not decoded: b: "), "{rows}");
        assert_eq!(judged[0].scores.n_refused, 1);
    }

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
        let say = |voice: &str, language: Option<&str>| {
            say(&synthesizer, Setting::default(), language, ("no", voice)).map(|said| said.samples)
        };
        let said = say("anna", None).expect("said");
        // What it does not read is read as what it reads first.
        assert!(!said.is_empty() && said == say("anna", Some("xx")).expect("said"));
        let message = say("carl", None).expect_err("refused").to_string();
        assert!(message.contains("carl is none of the model's"), "{message}");
    }

    #[test]
    fn rows_name_their_voices_and_kinds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.wav");
        std::fs::write(&path, audio::encode::wav_bytes(&waveform(0.5)).expect("a WAV")).expect("written");
        let cut = |id: &str, speaker: Option<&str>, path: &Path, kind: Option<&str>| Cut {
            id: id.into(),
            audio: path.into(),
            start_secs: 0.0,
            duration_secs: 0.5,
            channel: None,
            text: "tent".into(),
            language: None,
            speaker: speaker.map(Into::into),
            target_text: None,
            target_language: None,
            extra: kind.map(|kind| Box::new([("kind".to_owned(), Value::from(kind))].into_iter().collect())),
        };
        let cuts = [
            cut("a", Some("slt"), &path, Some("word")),
            cut("b", None, &path, None),
            cut("c", Some("x"), Path::new("nowhere.wav"), None),
        ];
        let told = |(references, failed): (Vec<SpokenReference>, Vec<Unheard>)| {
            let references =
                references.into_iter().map(|one| format!("{} {} {}", one.name, one.voice, one.kind));
            let failed = failed.into_iter().map(|unheard| unheard.name);
            (references.collect::<Vec<_>>(), failed.collect::<Vec<_>>())
        };
        let voice =
            |cut: &Cut| cut.speaker.as_deref().map(str::to_owned).ok_or_else(|| "no speaker".to_owned());
        let expected = (vec!["a slt word".to_owned()], vec!["b".to_owned(), "c".to_owned()]);
        assert_eq!(told(references(&cuts, &voice)), expected);
        let expected = (vec!["a v word".to_owned(), "b v text".to_owned()], vec!["c".to_owned()]);
        assert_eq!(told(references(&cuts, &|_| Ok("v".to_owned()))), expected);
    }
}
