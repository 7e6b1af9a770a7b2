//! `speechd evaluate --task speak`: what a recogniser hears in the speech of a model, beside what it hears in recordings.

use std::process::ExitCode;

use models::Voice;
use recipes::{
    data::manifest::{Cut, Needs},
    evaluate::Unheard,
    text::Normaliser,
};
use serde::Serialize;

use super::{
    super::{
        FAILED, Usage,
        fetch::fetch,
        manifests::{manifests, read_cuts},
        output::print,
        progress::Style,
        speak::load_speaker,
    },
    Args, TaskArg,
    judge::SpeechJudge,
    spoken::{Judged, describe, first_of, judge_all, write_speech},
    to_speak::{Setting, check_unit, note_of_unread, say, texts_to_speak, voice_of},
};
use crate::{compute::Compute, config::Config, load::SPEAKER_PRECISION};

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
    /// speak: how far it is led away from what it would say without text and voice, 0 to 10, 1 being not at all; several give a row each
    /// [default: what the model asks for]
    #[arg(long, value_name = "WEIGHT", value_delimiter = ',', value_parser = guidance)]
    guidance: Vec<f64>,
    /// speak: variance of the noise that speech comes out of, 0 to 2: less is plainer and more alike; several give a row each [default: what the model
    /// asks for]
    #[arg(long, value_name = "VARIANCE", value_delimiter = ',', value_parser = temperature)]
    temperature: Vec<f64>,
}

fn guidance(text: &str) -> Result<f64, String> {
    number(text, 10.0)
}

fn temperature(text: &str) -> Result<f64, String> {
    number(text, 2.0)
}

fn number(text: &str, most: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=most).contains(number));
    number.ok_or_else(|| format!("expected 0 to {most}"))
}

impl SpeakArgs {
    /// What no single flag can refuse.
    pub(super) fn check(&self, args: &Args) -> Result<(), Usage> {
        let own = [
            ("--judge", self.judge.is_some()),
            ("--voice", self.voice.is_some()),
            ("--steps", !self.steps.is_empty()),
            ("--guidance", !self.guidance.is_empty()),
            ("--temperature", !self.temperature.is_empty()),
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

    /// Every number of steps with every guidance and temperature.
    fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        for steps in or_own(&self.steps) {
            for guidance in or_own(&self.guidance) {
                let of_temperature = |temperature| Setting { steps, guidance, temperature };
                settings.extend(or_own(&self.temperature).into_iter().map(of_temperature));
            }
        }
        settings
    }
}

/// What was given, or what the model asks for.
fn or_own<T: Copy>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

#[derive(Serialize)]
struct Json<'a> {
    model: &'a str,
    judge: &'a str,
    /// What the model computes in.
    precision: String,
    /// What the judge does.
    judge_precision: String,
    settings: &'a [Judged],
    /// Rows that were not spoken.
    failed: &'a [Unheard],
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let speak = &args.speak;
    let (Some(model), Some(judge_name)) = (&args.model, &speak.judge) else {
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
    // Who cannot speak is refused before anything is heard.
    let synthesizer = load_speaker(model, &fetch(model, &config, style)?, compute.device())?;
    check_unit(&format!("--model {model}"), synthesizer.config().unit)?;
    let language = args
        .language
        .clone()
        .or_else(|| cuts.iter().find_map(|cut| cut.language.as_deref().map(str::to_owned)));
    let language = language.as_deref();
    let source = fetch(judge_name, &config, style)?;
    let judge = SpeechJudge::load(judge_name, source, &compute, language, args.beam_size, style)?;
    let voice = |cut: &Cut| {
        let named = speak.voice.as_deref().or(cut.speaker.as_deref());
        let named = named.ok_or("its row names no speaker; name a voice by --voice")?;
        let known = || synthesizer.voices().iter().map(Voice::name).collect::<Vec<_>>().join(", ");
        let found = voice_of(&synthesizer, named).map(|voice| voice.name().to_owned());
        found.ok_or_else(|| format!("{named} is none of the model's voices: {}", known()))
    };
    let (texts, mut failed) = texts_to_speak(&cuts, args.language.as_deref(), &voice);
    if texts.is_empty() {
        return Err(Usage(format!("there is nothing to speak{}", first_of(&failed))).into());
    }
    if let Some(note) = note_of_unread(&synthesizer, &texts) {
        style.note(&note);
    }
    let normalisers = match args.normaliser.as_slice() {
        [] => Normaliser::of_language(language),
        named => named,
    };
    let (judged, unread) = judge_all(
        &texts,
        &speak.settings(),
        &mut |setting, text| say(&synthesizer, setting, text),
        &mut |text, waveform| judge.hear(text, waveform),
        normalisers,
        style,
    )?;
    failed.extend(unread);
    if let Some(dir) = &args.analysis {
        write_speech(dir, model, &judged)?;
        style.note(&format!("some of the speech: {}", dir.join("analysis.html").display()));
    }
    if args.json {
        let json = Json {
            model,
            judge: judge_name,
            precision: SPEAKER_PRECISION.to_string(),
            judge_precision: compute.precision().to_string(),
            settings: &judged,
            failed: &failed,
        };
        print(&(serde_json::to_string_pretty(&json)? + "\n"))?;
    } else {
        print(&describe(&judged, &failed))?;
    }
    let is_complete = failed.is_empty() && judged.iter().all(|one| one.evaluation.failed.is_empty());
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

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
        let args = with(&["--temperature", "0.3,1"]).expect("arguments");
        let names: Vec<_> = args.speak.settings().iter().map(|setting| setting.name()).collect();
        assert_eq!(names, ["temperature 0.3", "temperature 1"]);
        let own = with(&[]).expect("arguments").speak.settings();
        assert_eq!(own, [Setting::default()]);
        assert_eq!(own[0].name(), "as the model asks for");
        for (arguments, words) in [
            (&["--task", "speak"][..], "by --model"),
            (&speak[..4], "by --judge"),
            (&["--judge", "words"], "--judge is for speech; add --task speak"),
            (&["--steps", "4", "--task", "translate"], "--steps is for speech"),
            (&["--task", "speak", "--steps", "0"], "1..=64"),
            (&["--task", "speak", "--guidance=-1"], "expected 0 to 10"),
            (&["--task", "speak", "--temperature=nan"], "expected 0 to 2"),
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
}
