//! The speech of a model, judged by what a recogniser hears in it beside what it hears in recordings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    iter,
    path::Path,
    slice,
};

use audio::{DecodeAudio, Waveform};
use models::{
    BundleSource, DecodeOptions, SpeakOptions, Synthesizer, Transcriber, Voice, flow_lm::SymbolUnit,
};
use recipes::{
    SETTING_COLUMNS,
    data::{manifest::Cut, read_cut},
    evaluate::{Reference, Unheard, evaluate},
    evaluate_speech::{Example, SpeechEvaluation, SpeechScores, SpokenReference, evaluate_speech},
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

/// Texts of a kind whose speech and recordings are kept, to be looked at.
const EXAMPLES_OF_KIND: usize = 2;

/// Says a text by a setting: the samples, or why there are none.
pub(in crate::cli) type Speak<'a> = dyn FnMut(Setting, &ToSpeak<'_>) -> Result<Waveform, models::Error> + 'a;
/// Writes down what is said, of a text that is spoken or recorded.
pub(in crate::cli) type Hear<'a> = dyn FnMut(&ToSpeak<'_>, &Waveform) -> Result<String, recipes::Error> + 'a;

/// What hears speech, and the recordings beside it.
pub(in crate::cli) struct SpeechJudge {
    transcriber: Transcriber,
    options: DecodeOptions,
}

impl SpeechJudge {
    /// Loads the recogniser `name`, which is told `language` where it has several. Where nobody knows whether it hears that one, it is noted.
    ///
    /// # Errors
    /// What its bundle lacks, a language that it does not hear, options that it cannot follow.
    pub(in crate::cli) fn load(
        name: &str,
        source: BundleSource,
        compute: &Compute,
        language: Option<&str>,
        beam_size: Option<usize>,
        style: Style,
    ) -> anyhow::Result<Self> {
        let transcriber = compute.load(source)?;
        let stated = language.map(str::to_owned);
        let options = DecodeOptions { beam_size, language: stated, ..DecodeOptions::default() };
        transcriber.check(&options).map_err(|error| Usage(format!("judge {name}: {error}")))?;
        let special = transcriber.special_tokens();
        let is_told = special.is_multilingual;
        if let Some(language) = language.filter(|_| !is_told && special.only_language.is_none()) {
            style.note(&format!(
                "judge {name}: it does not say which language it hears; what it makes of speech tells something only where that is \
                 `{language}`"
            ));
        }
        let language = options.language.filter(|_| is_told);
        Ok(Self { transcriber, options: DecodeOptions { beam_size, language, ..DecodeOptions::default() } })
    }

    /// What it hears, told the language of the text where it has several, else that which it was loaded with.
    ///
    /// # Errors
    /// Sound that it cannot listen to, a language that it does not know.
    pub(in crate::cli) fn hear(
        &self,
        text: &ToSpeak<'_>,
        waveform: &Waveform,
    ) -> Result<String, recipes::Error> {
        let is_told = self.transcriber.special_tokens().is_multilingual;
        let reference = Reference {
            name: String::new(),
            waveform: waveform.clone(),
            text: String::new(),
            language: text.language.filter(|_| is_told).map(str::to_owned),
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

/// A setting with what came of it.
#[derive(Serialize)]
pub(in crate::cli) struct Judged {
    #[serde(flatten)]
    pub(super) setting: Setting,
    pub(in crate::cli) scores: SpeechScores,
    #[serde(flatten)]
    pub(super) evaluation: SpeechEvaluation,
    /// What its examples refer to.
    #[serde(skip)]
    shown: Vec<SpokenReference>,
}

/// A row whose text is to be spoken. Its recording is read whenever it is its turn: all of them together may be more than the memory holds.
pub(in crate::cli) struct ToSpeak<'a> {
    cut: &'a Cut,
    /// The voice's name.
    voice: String,
    /// As the row says, or else as all of them are taken for.
    language: Option<&'a str>,
}

impl ToSpeak<'_> {
    /// It, with its recording.
    fn read(&self) -> Result<SpokenReference, Unheard> {
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

/// Hears the recordings once, and then the speech of every setting. Texts whose recordings cannot be read come with them, and count nowhere.
///
/// # Errors
/// Recordings of which none can be read, and a setting in which nothing could be spoken.
pub(in crate::cli) fn judge_all(
    texts: &[ToSpeak<'_>],
    settings: &[Setting],
    speak: &mut Speak<'_>,
    hear: &mut Hear<'_>,
    normalisers: &[Normaliser],
    style: Style,
) -> anyhow::Result<(Vec<Judged>, Vec<Unheard>)> {
    let (mut recorded, mut unread) = (Vec::with_capacity(texts.len()), Vec::new());
    let mut progress = Items::start(style, "listening to recordings", Some(texts.len()));
    for (index, text) in texts.iter().enumerate() {
        match text.read() {
            Ok(SpokenReference { name, waveform, .. }) => {
                let heard = hear(text, &waveform).map_err(|error| Unheard::new(&name, &error));
                recorded.push((text, heard));
            }
            Err(unheard) => unread.push(unheard),
        }
        progress.update(index + 1);
    }
    progress.clear();
    if recorded.is_empty() {
        anyhow::bail!("none of the recordings can be read{}", first_of(&unread));
    }
    let mut judged = Vec::with_capacity(settings.len());
    for setting in settings {
        let mut progress =
            Items::start(style, &format!("speaking, {}", setting.name()), Some(recorded.len()));
        let mut sum = Sum::default();
        for (index, (text, heard)) in recorded.iter().enumerate() {
            match text.read() {
                Ok(reference) => {
                    let one = evaluate_speech(
                        slice::from_ref(&reference),
                        slice::from_ref(heard),
                        &mut |_, _| speak(*setting, text),
                        &mut |waveform| hear(text, waveform),
                        &mut |_| {},
                    )?;
                    sum.add(reference, one);
                }
                Err(unheard) => sum.evaluation.failed.push(unheard),
            }
            progress.update(index + 1);
        }
        progress.clear();
        let Sum { evaluation, shown, .. } = sum;
        if evaluation.spoken.iter().all(|spoken| spoken.is_refused) {
            anyhow::bail!("nothing could be spoken and heard{}", first_of(&evaluation.failed));
        }
        let scores = evaluation.scores(normalisers)?;
        judged.push(Judged { setting: *setting, scores, evaluation, shown });
    }
    Ok((judged, unread))
}

/// Why the first of them failed, to be said after what that led to.
pub(in crate::cli) fn first_of(failed: &[Unheard]) -> String {
    failed.first().map(|unheard| format!(": {}: {}", unheard.name, unheard.reason)).unwrap_or_default()
}

/// What is known of a setting, text after text.
#[derive(Default)]
struct Sum {
    evaluation: SpeechEvaluation,
    shown: Vec<SpokenReference>,
    /// By their kinds.
    n_shown: BTreeMap<String, usize>,
}

impl Sum {
    /// Adds what was found of one text.
    fn add(&mut self, reference: SpokenReference, found: SpeechEvaluation) {
        let SpeechEvaluation { spoken, failed, busy_secs, audio_secs, examples } = found;
        let all = &mut self.evaluation;
        let n_before = all.spoken.len();
        all.spoken.extend(spoken);
        all.failed.extend(failed);
        all.busy_secs += busy_secs;
        all.audio_secs += audio_secs;
        let n_shown = self.n_shown.entry(reference.kind.clone()).or_default();
        if let Some(example) = examples.into_iter().next().filter(|_| *n_shown < EXAMPLES_OF_KIND) {
            *n_shown += 1;
            let (reference_place, spoken) = (self.shown.len(), n_before + example.spoken);
            all.examples.push(Example { reference: reference_place, spoken, ..example });
            self.shown.push(reference);
        }
    }
}

/// Tables: of the settings, and of the kinds of texts in each.
pub(in crate::cli) fn describe(judged: &[Judged], failed: &[Unheard]) -> String {
    let columns = SETTING_COLUMNS.map(str::to_owned);
    let rows = judged.iter().map(|one| setting_row(&one.setting.name(), &one.scores));
    let mut text = table(&iter::once(columns).chain(rows).collect::<Vec<_>>());
    for Judged { setting, scores, evaluation, .. } in judged {
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
pub(in crate::cli) fn write_speech(dir: &Path, model: &str, judged: &[Judged]) -> anyhow::Result<()> {
    write_file(&dir.join("analysis.json"), &(serde_json::to_string_pretty(judged)? + "\n"))?;
    let scores: Vec<_> = judged.iter().map(|one| (one.setting.name(), one.scores.clone())).collect();
    let page = match judged.first() {
        Some(first) => speech_page(&format!("Speech of {model}"), &scores, &first.evaluation, &first.shown)?,
        None => String::new(),
    };
    write_file(&dir.join("analysis.html"), &page)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;

    fn waveform(secs: f32) -> Waveform {
        let n_samples = (secs * 16_000.0) as u16;
        Waveform {
            samples: (0..n_samples).map(|t| (f32::from(t) * 0.06).sin() * 0.4).collect(),
            sample_rate: 16_000,
        }
    }

    /// A row of the recording `path`.
    fn cut(id: &str, path: &Path, kind: Option<&str>, text: &str) -> Cut {
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
    fn recording(folder: &Path) -> PathBuf {
        let path = folder.join("a.wav");
        std::fs::write(&path, audio::encode::wav_bytes(&waveform(0.5)).expect("a WAV")).expect("written");
        path
    }

    fn to_speak<'a>(cut: &'a Cut, voice: &str, language: Option<&'a str>) -> ToSpeak<'a> {
        ToSpeak { cut, voice: voice.to_owned(), language }
    }

    #[test]
    fn every_setting_is_a_row_and_recordings_are_heard_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = recording(folder.path());
        let cuts = [
            cut("a", &path, Some("word"), "tent"),
            cut("x", &folder.path().join("nowhere.wav"), None, "tent"),
            cut("b", &path, Some("digits"), "one two"),
        ];
        let texts = cuts.each_ref().map(|cut| to_speak(cut, "v", None));
        let settings = [1, 4].map(|steps| Setting { steps: Some(steps), ..Setting::default() });
        let mut n_recorded = 0;
        // What has taken one step is half as long, and not understood.
        let mut hear = |_: &ToSpeak<'_>, waveform: &Waveform| {
            n_recorded += usize::from(waveform.samples.len() == 8_000);
            Ok(if waveform.samples.len() < 8_000 { "what".to_owned() } else { "tent".to_owned() })
        };
        let mut speak = |setting: Setting, _: &ToSpeak<'_>| {
            Ok(waveform(if setting.steps == Some(1) { 0.25 } else { 0.75 }))
        };
        let normalisers = [Normaliser::Basic, Normaliser::None];
        let (judged, unread) =
            judge_all(&texts, &settings, &mut speak, &mut hear, &normalisers, Style::new(true))
                .expect("judged");
        assert_eq!(n_recorded, 2);
        // What cannot be read is told, and counts nowhere.
        assert!(unread.len() == 1 && unread[0].name == "x" && unread[0].reason.contains("nowhere.wav"));
        assert_eq!((judged[0].evaluation.failed.len(), judged[0].scores.n_unheard), (0, 0));
        // The examples are known by what was recorded of them.
        let shown = |one: &Judged| {
            let places = one.evaluation.examples.iter().map(|example| (example.reference, example.spoken));
            let names: Vec<_> = one.shown.iter().map(|reference| reference.name.clone()).collect();
            (places.collect::<Vec<_>>(), names)
        };
        assert_eq!(shown(&judged[1]), (vec![(0, 0), (1, 1)], vec!["a".to_owned(), "b".to_owned()]));
        write_speech(folder.path(), "m", &judged).expect("written");
        let page = std::fs::read_to_string(folder.path().join("analysis.html")).expect("a page");
        assert_eq!(page.matches("<audio").count(), 4, "two spoken, two recorded");
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

        let mut unmoved = |_: &ToSpeak<'_>, _: &Waveform| Ok(String::new());
        let mut mute = |_: Setting, _: &ToSpeak<'_>| Err(models::Error::Cancelled);
        let refused = judge_all(&texts, &settings, &mut mute, &mut unmoved, &normalisers, Style::new(true));
        assert!(
            refused
                .err()
                .is_some_and(|error| error.to_string().contains("nothing could be spoken and heard: a: "))
        );
        // One that is refused is counted, and told.
        let mut half = |_: Setting, text: &ToSpeak<'_>| match &*text.cut.text {
            "tent" => Ok(waveform(0.75)),
            _ => Err(models::Error::Cancelled),
        };
        let mut tent = |_: &ToSpeak<'_>, _: &Waveform| Ok("tent".to_owned());
        let (judged, _) =
            judge_all(&texts, &settings[..1], &mut half, &mut tent, &normalisers, Style::new(true))
                .expect("judged");
        let rows = describe(&judged, &[]);
        assert!(rows.contains("1 text could not be spoken") && rows.contains("Not decoded: b: "), "{rows}");
        assert_eq!(judged[0].scores.n_refused, 1);
        let refused =
            judge_all(&texts[1..2], &settings, &mut half, &mut tent, &normalisers, Style::new(true));
        let message = refused.err().expect("nothing can be read").to_string();
        assert!(message.starts_with("none of the recordings can be read: x: "), "{message}");
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
    fn a_recogniser_judges_the_languages_that_it_says_it_hears() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let compute = Compute::new(models::Device::Cpu, crate::config::Precision::F32).expect("a processor");
        let told = |name: &str, language: &str| {
            let source = fixtures.join(name).as_path().into();
            let judge = SpeechJudge::load(name, source, &compute, Some(language), None, Style::new(true));
            judge.map(|judge| judge.options.language).map_err(|error| error.to_string())
        };
        assert_eq!(told("whisper-80", "ps"), Ok(Some("ps".to_owned())));
        assert_eq!(told("whisper-en", "en"), Ok(None), "it need not be told");
        for (name, language) in [("whisper-en", "ps"), ("whisper-80", "xx")] {
            let message = told(name, language).expect_err("refused");
            assert!(message.contains(&format!("judge {name}")) && message.contains(language), "{message}");
        }
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
