//! `speechd evaluate --task speak`: what a recogniser hears in the speech of a model, beside what it hears in recordings.

use std::{fmt::Write as _, iter, process::ExitCode};

use audio::DecodeAudio;
use models::{BundleSource, DecodeOptions, SpeakOptions, Transcriber};
use recipes::{
    SETTING_COLUMNS,
    data::{
        manifest::{Cut, Needs},
        read_cut,
    },
    evaluate::{Reference, Unheard, evaluate},
    evaluate_speech::{
        Hear, Speak, SpeechEvaluation, SpeechScores, SpokenReference, evaluate_speech, hear_recordings,
    },
    score_rows, setting_row, speech_page,
    text::Normaliser,
};
use serde::Serialize;

use super::{
    super::{
        FAILED, Usage,
        fetch::fetch,
        manifests::{manifests, read_cuts},
        output::{print, table, write_file},
        progress::{Items, Style},
        speak::load_speaker,
    },
    Args, TaskArg,
    report::tell_failed,
};
use crate::{compute::Compute, config::Config};

/// What rows that name no kind are.
const TEXT: &str = "text";

/// What speaking takes.
#[derive(Debug, clap::Args)]
pub(super) struct SpeakArgs {
    /// speak: the recogniser that hears the speech, and the recordings beside it: a directory or a hub id
    #[arg(long, value_name = "PATH_OR_ID")]
    judge: Option<String>,
    /// speak: the voice of all texts [default: the speaker that each row names]
    #[arg(long, value_name = "VOICE")]
    voice: Option<String>,
    /// speak: steps from noise to speech; several give a row each [default: what the model asks for]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=64))]
    steps: Vec<u32>,
    /// speak: how much more the text counts than what is likely without it, 1 being no more; several give a row each [default: what the
    /// model asks for]
    #[arg(long, value_name = "WEIGHT", value_delimiter = ',', value_parser = guidance)]
    guidance: Vec<f64>,
}

fn guidance(text: &str) -> Result<f64, String> {
    let weight = text.parse::<f64>().ok().filter(|weight| (0.0..=10.0).contains(weight));
    weight.ok_or_else(|| "expected 0 to 10".to_owned())
}

impl SpeakArgs {
    /// What no single flag can refuse.
    pub(super) fn check(&self, args: &Args) -> Result<(), Usage> {
        let own = [
            ("--judge", self.judge.is_some()),
            ("--voice", self.voice.is_some()),
            ("--steps", !self.steps.is_empty()),
            ("--guidance", !self.guidance.is_empty()),
        ];
        let others = [
            ("--draft", args.draft.is_some()),
            ("--fallback", args.fallback),
            ("--to", args.to.is_some()),
            ("--hypotheses", args.hypotheses.is_some()),
            ("--record", args.record),
        ];
        let named = |flags: &[(&'static str, bool)]| {
            flags.iter().find(|(_, is_given)| *is_given).map(|(flag, _)| *flag)
        };
        let message = match args.task {
            Some(TaskArg::Speak) => match (named(&others), args.model.is_some(), self.judge.is_some()) {
                (Some(flag), ..) => format!("{flag} is not for --task speak"),
                (None, false, _) => "--task speak: name the model that speaks by --model".to_owned(),
                (None, true, false) => {
                    "--task speak: name the recogniser that hears the speech by --judge".to_owned()
                }
                (None, true, true) if args.precision.len() > 1 => {
                    "--task speak takes one --precision".to_owned()
                }
                (None, true, true) => return Ok(()),
            },
            _ => match named(&own) {
                Some(flag) => format!("{flag} is for speech; add --task speak"),
                None => return Ok(()),
            },
        };
        Err(Usage(message))
    }

    /// Every number of steps with every guidance.
    fn settings(&self) -> Vec<Setting> {
        let or_own = |n_values: usize| n_values.max(1);
        let settings = (0..or_own(self.steps.len())).flat_map(|step| {
            (0..or_own(self.guidance.len())).map(move |weight| Setting {
                steps: self.steps.get(step).copied(),
                guidance: self.guidance.get(weight).copied(),
            })
        });
        settings.collect()
    }
}

/// How a model speaks; what is not given is the model's own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Setting {
    steps: Option<u32>,
    guidance: Option<f64>,
}

impl Setting {
    /// As a table names it.
    fn name(self) -> String {
        let steps = self.steps.map(|steps| format!("{steps} step{}", if steps == 1 { "" } else { "s" }));
        let guidance = self.guidance.map(|weight| format!("guidance {weight}"));
        match (steps, guidance) {
            (None, None) => "as the model asks for".to_owned(),
            (steps, guidance) => steps.into_iter().chain(guidance).collect::<Vec<_>>().join(", "),
        }
    }
}

/// A setting with what came of it.
#[derive(Serialize)]
struct Judged {
    #[serde(flatten)]
    setting: Setting,
    scores: SpeechScores,
    #[serde(flatten)]
    evaluation: SpeechEvaluation,
}

#[derive(Serialize)]
struct Json<'a> {
    model: &'a str,
    judge: &'a str,
    /// What both compute in.
    precision: String,
    settings: &'a [Judged],
    /// Rows that were not spoken.
    failed: &'a [Unheard],
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let speak = &args.speak;
    let (Some(model), Some(judge)) = (&args.model, &speak.judge) else {
        return Err(Usage("--task speak needs --model and --judge".to_owned()).into());
    };
    let config = Config::load(args.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let style = Style::new(args.quiet);
    let needs = Needs { transcript: true, recording: true, ..Needs::default() };
    let mut cuts = read_cuts(&manifests(&args.manifests)?, needs, style)?;
    cuts.truncate(args.limit.unwrap_or(usize::MAX));
    let refuse = |error: models::Error| Usage(error.to_string());
    let device = args.device.unwrap_or(config.transcribe.device).open().map_err(refuse)?;
    let precision = args.precision.first().copied().unwrap_or(config.transcribe.precision);
    let compute = Compute::new(device, precision).map_err(refuse)?;
    let source = fetch(model, &config, style)?;
    let transcriber = compute.load(fetch(judge, &config, style)?)?;
    let language = args
        .language
        .clone()
        .or_else(|| cuts.iter().find_map(|cut| cut.language.as_deref().map(str::to_owned)));
    let options = DecodeOptions {
        beam_size: args.beam_size,
        language: language.clone().filter(|_| transcriber.special_tokens().is_multilingual),
        ..DecodeOptions::default()
    };
    transcriber.check(&options).map_err(|error| Usage(format!("judge {judge}: {error}")))?;
    let (references, failed) = references(&cuts, speak.voice.as_deref());
    if references.is_empty() {
        let first = failed.first().map(|unheard| format!(": {}: {}", unheard.name, unheard.reason));
        return Err(Usage(format!("there is nothing to speak{}", first.unwrap_or_default())).into());
    }
    let normaliser = args.normaliser.first().or(Normaliser::of_language(language.as_deref()).first());
    let judged = judge_all(
        &references,
        &speak.settings(),
        &mut |setting| speaker(model, &source, &compute, setting),
        &mut |waveform| hear(&transcriber, &options, waveform),
        normaliser.copied().unwrap_or_default(),
        style,
    )?;
    if let Some(dir) = &args.analysis {
        write_file(&dir.join("analysis.json"), &(serde_json::to_string_pretty(&judged)? + "\n"))?;
        let scores: Vec<_> = judged.iter().map(|one| (one.setting.name(), one.scores.clone())).collect();
        let page = match judged.first() {
            Some(first) => {
                speech_page(&format!("Speech of {model}"), &scores, &first.evaluation, &references)?
            }
            None => String::new(),
        };
        write_file(&dir.join("analysis.html"), &page)?;
        style.note(&format!("some of the speech: {}", dir.join("analysis.html").display()));
    }
    if args.json {
        let precision = compute.precision().to_string();
        let json = Json { model, judge, precision, settings: &judged, failed: &failed };
        print(&(serde_json::to_string_pretty(&json)? + "\n"))?;
    } else {
        print(&describe(&judged, &failed))?;
    }
    let is_complete = failed.is_empty() && judged.iter().all(|one| one.evaluation.failed.is_empty());
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What speaks, in a setting: the voice that a row names, or the one that came of its speaker.
///
/// # Errors
/// A model that does not speak, settings that it cannot speak in.
fn speaker(
    model: &str,
    source: &BundleSource,
    compute: &Compute,
    setting: Setting,
) -> anyhow::Result<Box<Speak<'static>>> {
    let synthesizer = load_speaker(model, source, compute.device())?;
    let steps = setting.steps.map(|steps| steps as usize);
    let options = SpeakOptions { steps, guidance: setting.guidance, ..SpeakOptions::default() };
    options.check().map_err(|error| Usage(error.to_string()))?;
    Ok(Box::new(move |text, speaker| {
        let name = speaker.rsplit('/').next().unwrap_or(speaker);
        let voices = synthesizer.voices();
        let voice = [speaker, name].iter().find_map(|name| voices.iter().find(|voice| voice.name() == *name));
        let Some(voice) = voice else {
            let known: Vec<_> = voices.iter().map(models::Voice::name).collect();
            let message = format!("{speaker} is none of the model's: {}", known.join(", "));
            return Err(models::Error::Option { option: "voice", message });
        };
        synthesizer.speak(text, voice, &options)
    }))
}

/// What the judge hears.
fn hear(
    transcriber: &Transcriber,
    options: &DecodeOptions,
    waveform: &audio::Waveform,
) -> Result<String, recipes::Error> {
    let reference = Reference {
        name: String::new(),
        waveform: waveform.clone(),
        text: String::new(),
        language: None,
        to_language: None,
    };
    let mut heard = evaluate(transcriber, iter::once(Ok(reference)), options, &mut |_| {});
    match (heard.heard.pop(), heard.failed.pop()) {
        (Some(heard), _) => Ok(heard.hypothesis),
        // Nothing to hear is heard as nothing.
        (None, None) => Ok(String::new()),
        (None, Some(unheard)) => {
            Err(models::Error::Option { option: "judge", message: unheard.reason }.into())
        }
    }
}

/// Texts with their voices and recordings, and the rows that have none.
fn references(cuts: &[Cut], voice: Option<&str>) -> (Vec<SpokenReference>, Vec<Unheard>) {
    let (mut references, mut failed) = (Vec::new(), Vec::new());
    for cut in cuts {
        let Some(voice) = voice.or(cut.speaker.as_deref()) else {
            let reason = "its row names no speaker; name a voice by --voice".to_owned();
            failed.push(Unheard { name: cut.id.to_string(), reason });
            continue;
        };
        match read_cut(cut, &DecodeAudio::default()) {
            Ok(waveform) => references.push(SpokenReference {
                name: cut.id.to_string(),
                kind: kind(cut).to_owned(),
                text: cut.text.to_string(),
                voice: voice.to_owned(),
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
fn judge_all(
    references: &[SpokenReference],
    settings: &[Setting],
    speaker: &mut dyn FnMut(Setting) -> anyhow::Result<Box<Speak<'static>>>,
    hear: &mut Hear<'_>,
    normaliser: Normaliser,
    style: Style,
) -> anyhow::Result<Vec<Judged>> {
    // Who cannot speak is refused before anything is heard.
    let mut opened = settings.first().map(|setting| speaker(*setting)).transpose()?;
    let mut progress = Items::start(style, "listening to recordings", Some(references.len()));
    let recorded = hear_recordings(references, hear, &mut |n_done| progress.update(n_done));
    progress.clear();
    let mut judged = Vec::with_capacity(settings.len());
    for setting in settings {
        let mut speak = opened.take().map_or_else(|| speaker(*setting), Ok)?;
        let mut progress =
            Items::start(style, &format!("speaking, {}", setting.name()), Some(references.len()));
        let evaluation =
            evaluate_speech(references, &recorded, &mut *speak, hear, &mut |n_done| progress.update(n_done))?;
        progress.clear();
        if evaluation.spoken.is_empty() {
            let first =
                evaluation.failed.first().map(|unheard| format!(": {}: {}", unheard.name, unheard.reason));
            anyhow::bail!("nothing could be spoken{}", first.unwrap_or_default());
        }
        let scores = evaluation.scores(normaliser)?;
        judged.push(Judged { setting: *setting, scores, evaluation });
    }
    Ok(judged)
}

/// Tables: of the settings, and of the kinds of texts in each.
fn describe(judged: &[Judged], failed: &[Unheard]) -> String {
    let columns = SETTING_COLUMNS.map(str::to_owned);
    let rows = judged.iter().map(|one| setting_row(&one.setting.name(), &one.scores));
    let mut text = table(&iter::once(columns).chain(rows).collect::<Vec<_>>());
    for Judged { setting, scores, evaluation } in judged {
        let _ = writeln!(text, "\n{}; normaliser: {}", setting.name(), scores.normaliser);
        text += &table(&score_rows(scores));
        tell_failed(&evaluation.failed, &mut text);
    }
    tell_failed(failed, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use audio::Waveform;
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(more: &[&str]) -> Result<Args, String> {
        let words = ["evaluate", "test.jsonl"].iter().chain(more);
        let args = Line::try_parse_from(words).map_err(|error| error.to_string())?.args;
        args.check().map_err(|error| error.to_string())?;
        Ok(args)
    }

    #[test]
    fn what_speaking_needs_and_what_it_does_not_take_is_told() {
        let speak = ["--task", "speak", "--model", "voice", "--judge", "words"];
        let with = |more: &[&str]| parse(&[&speak, more].concat());
        let args = with(&["--steps", "1,4,8", "--guidance", "1,2.5"]).expect("arguments");
        let names: Vec<_> = args.speak.settings().iter().map(|setting| setting.name()).collect();
        assert_eq!(names[..3], ["1 step, guidance 1", "1 step, guidance 2.5", "4 steps, guidance 1"]);
        assert_eq!(names.len(), 6);
        let own = with(&[]).expect("arguments").speak.settings();
        assert_eq!(own, [Setting { steps: None, guidance: None }]);
        assert_eq!(own[0].name(), "as the model asks for");
        for (arguments, words) in [
            (&["--task", "speak"][..], "by --model"),
            (&speak[..4], "by --judge"),
            (&["--judge", "words"], "--judge is for speech; add --task speak"),
            (&["--steps", "4", "--task", "translate"], "--steps is for speech"),
            (&["--task", "speak", "--steps", "0"], "1..=64"),
            (&["--task", "speak", "--guidance=-1"], "expected 0 to 10"),
        ] {
            let message = parse(arguments).expect_err("refused");
            assert!(message.contains(words), "{arguments:?}: {message}");
        }
        for flag in [&["--fallback"][..], &["--to", "ps"], &["--hypotheses", "x.tsv"], &["--draft", "x"]] {
            let message = with(flag).expect_err("refused");
            assert!(message.contains(&format!("{} is not for --task speak", flag[0])), "{message}");
        }
        assert!(with(&["--precision", "f32,int8"]).expect_err("refused").contains("one --precision"));
    }

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
        let mut speaker = |setting: Setting| -> anyhow::Result<Box<Speak<'static>>> {
            let secs = if setting.steps == Some(1) { 0.25 } else { 0.75 };
            Ok(Box::new(move |_, _| Ok(waveform(secs))))
        };
        let judged =
            judge_all(&references, &settings, &mut speaker, &mut hear, Normaliser::Basic, Style::new(true))
                .expect("judged");
        assert_eq!(n_recorded, 2);
        let rows = describe(&judged, &[Unheard { name: "c".to_owned(), reason: "is not there".to_owned() }]);
        let lines: Vec<_> = rows.lines().collect();
        assert!(lines[0].contains("x real time") && lines[0].contains("cepstral distortion"), "{rows}");
        assert!(lines[1].starts_with("1 step ") && lines[1].contains("100.00 %"), "{rows}");
        assert!(lines[2].starts_with("4 steps ") && lines[2].contains("66.67 %"), "{rows}");
        assert!(rows.contains("1 step; normaliser: basic") && rows.contains("WER recorded"), "{rows}");
        assert!(rows.ends_with("Not decoded: c: is not there\n"), "{rows}");
        let json: Value = serde_json::to_value(&judged).expect("JSON");
        assert_eq!((&json[1]["steps"], &json[1]["scores"]["kinds"][1]["kind"]), (&4.into(), &"word".into()));
        assert_eq!(
            (&json[1]["spoken"][0]["heard"], &json[1]["failed"]),
            (&"tent".into(), &Value::Array(Vec::new()))
        );

        let mut unmoved = |_: &Waveform| Ok(String::new());
        let mut mute = |_: Setting| -> anyhow::Result<Box<Speak<'static>>> {
            Ok(Box::new(|_, _| Err(models::Error::Cancelled)))
        };
        let refused =
            judge_all(&references, &settings, &mut mute, &mut unmoved, Normaliser::Basic, Style::new(true));
        assert!(
            refused.err().is_some_and(|error| error.to_string().contains("nothing could be spoken: a: "))
        );
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
            cut("a", Some("flite/slt"), &path, Some("word")),
            cut("b", None, &path, None),
            cut("c", Some("x"), Path::new("nowhere.wav"), None),
        ];
        let told = |(references, failed): (Vec<SpokenReference>, Vec<Unheard>)| {
            let references =
                references.into_iter().map(|one| format!("{} {} {}", one.name, one.voice, one.kind));
            let failed = failed.into_iter().map(|unheard| unheard.name);
            (references.collect::<Vec<_>>(), failed.collect::<Vec<_>>())
        };
        let expected = (vec!["a flite/slt word".to_owned()], vec!["b".to_owned(), "c".to_owned()]);
        assert_eq!(told(references(&cuts, None)), expected);
        let expected = (vec!["a v word".to_owned(), "b v text".to_owned()], vec!["c".to_owned()]);
        assert_eq!(told(references(&cuts, Some("v"))), expected);
    }
}
