//! `speechd transcribe`: recordings in, text out; one bad recording does not stop the others.

mod flags;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use audio::ChannelChoice;
use clap::ValueEnum;
use models::{DecodeOptions, GapReason, Task};

use super::{
    FAILED, Usage,
    fetch::{fetch, fetch_draft},
    input::{self, Input, Inputs},
    output::{self, Closed, error_line},
    progress::{Recording, Style},
    recognizer::{Recognizer, Source},
};
use crate::{cascade::Cascade, compute::Compute, config::Config, render::Format};

pub(super) use flags::{Flags, Wanted, parse_target};

const EXAMPLES: &str = "\
Examples:
  speechd transcribe digits.wav
  speechd transcribe talk.mp3 --model openai/whisper-base
  speechd transcribe talk.mp3 --model ./my-whisper --language ps --format srt > talk.srt
  speechd transcribe recordings/ --model ./my-whisper --format verbose_json --word-timestamps --out transcripts/
  curl -s https://example.org/talk.ogg | speechd transcribe - --model openai/whisper-base

Exit code: 0 all transcribed, 1 some failed, 2 wrong arguments or configuration.";

/// What is said, or its translation.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Write what is said, or translate it [default: transcribe]
    #[arg(long, value_enum)]
    task: Option<TaskArg>,
    /// Language that a translation is written in, as far as the model reaches it [default: English]
    #[arg(long, value_name = "CODE", value_parser = parse_target)]
    to_language: Option<String>,
}

/// `models::Task` as a flag.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum TaskArg {
    /// Text in the language that is spoken
    Transcribe,
    /// Text in another language
    Translate,
}

impl From<TaskArg> for Task {
    fn from(task: TaskArg) -> Self {
        match task {
            TaskArg::Transcribe => Self::Transcribe,
            TaskArg::Translate => Self::Translate,
        }
    }
}

/// Where each result goes.
enum Destination {
    Stdout { are_named: bool },
    Files(Vec<PathBuf>),
}

impl Destination {
    fn plan(out: Option<&Path>, inputs: &Inputs, format: Format) -> Result<Self, Usage> {
        match out {
            Some(out) if out.exists() && !out.is_dir() => {
                Err(Usage(format!("--out {}: is a file; give a directory", out.display())))
            }
            Some(out) => input::output_paths(&inputs.found, out, format.extension()).map(Self::Files),
            None if inputs.are_several && matches!(format, Format::Srt | Format::Vtt) => Err(Usage(format!(
                "subtitles of several recordings cannot share the standard output; \
                 use --out DIR to write one .{} file each",
                format.extension()
            ))),
            None => Ok(Self::Stdout { are_named: inputs.are_several }),
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let task = args.task.map(Task::from);
    write_down(&args.flags, &Wanted { task, to_language: args.to_language.clone(), cascade: None })
}

/// Writes down what is wanted of all recordings.
pub(super) fn write_down(flags: &Flags, wanted: &Wanted) -> anyhow::Result<ExitCode> {
    let mut config = flags.settings(wanted)?;
    let target = config.cascade_target();
    if target.is_some() {
        config.transcribe.task = Task::Transcribe;
    }
    let format = config.transcribe.format;
    let options = config.transcribe.decode_options(flags.word_timestamps);
    options.check().map_err(|error| Usage(error.to_string()))?;
    let inputs = input::collect(&flags.files);
    let destination = Destination::plan(flags.out.as_deref(), &inputs, format)?;
    let style = Style::new(flags.quiet);
    for failure in &inputs.failures {
        error_line(failure);
    }
    let mut failed = inputs.failures.len();
    if !inputs.found.is_empty() {
        let recognizer = load(&config, flags.channel, style)?;
        // Said once, rather than for every recording.
        recognizer
            .check(&options)
            .map_err(|error| Usage(format!("model {}: {error}", config.transcribe.model)))?;
        let cascade = target.map(|target| load_cascade(&config, target, style)).transpose()?;
        for (index, input) in inputs.found.iter().enumerate() {
            let done = transcribe(&recognizer, input, &options, &config, style, (index, inputs.found.len()))
                .and_then(|transcript| match &cascade {
                    Some((cascade, target)) => Ok(cascade.translate(transcript, target, &|| true)?),
                    None => Ok(transcript),
                })
                .and_then(|transcript| {
                    let named = |are_named: bool| are_named.then(|| input.name());
                    match &destination {
                        Destination::Stdout { are_named } => {
                            output::print(&output::render(&transcript, format, named(*are_named).as_deref())?)
                        }
                        Destination::Files(paths) => {
                            output::write_file(&paths[index], &output::render(&transcript, format, None)?)
                        }
                    }
                });
            match done {
                Ok(()) => {}
                Err(error) if error.is::<Closed>() => return Err(error),
                Err(error) => {
                    failed += 1;
                    error_line(&format!("{}: {error:#}", input.name()));
                }
            }
        }
    }
    if failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let total = inputs.found.len() + inputs.failures.len();
    if total > 1 {
        error_line(&format!("{failed} of {total} failed"));
    }
    Ok(ExitCode::from(FAILED))
}

fn load(config: &Config, channel: ChannelChoice, style: Style) -> anyhow::Result<Recognizer> {
    let settings = &config.transcribe;
    let compute = Compute::of(settings).map_err(|error| Usage(error.to_string()))?;
    let source = fetch(&settings.model, config, style)?;
    let draft = fetch_draft(&settings.draft, config, style)?;
    Recognizer::load(source, draft, &compute, config.limits, channel)
        .with_context(|| format!("model {}", settings.model))
}

/// The translator of a cascade into `target`.
fn load_cascade(config: &Config, target: String, style: Style) -> anyhow::Result<(Cascade, String)> {
    let Some(spec) = config.translate.spec() else { bail!("no translator") };
    let refuse = |error: models::Error| Usage(format!("cascade {}: {error}", spec.name));
    let compute = Compute::of(&config.transcribe).map_err(refuse)?;
    let source = fetch(&spec.source, config, style)?;
    let cascade = Cascade::load(&spec.name, &source, compute.device(), Arc::default())
        .with_context(|| format!("cascade {}", spec.name))?;
    cascade.check(&target).map_err(refuse)?;
    let model = &config.transcribe.model;
    style.note(&format!(
        "cascade: {model} writes down what is said, {} translates it into {target}",
        spec.name
    ));
    Ok((cascade, target))
}

fn transcribe(
    recognizer: &Recognizer,
    input: &Input,
    options: &DecodeOptions,
    config: &Config,
    style: Style,
    (index, count): (usize, usize),
) -> anyhow::Result<models::Transcript> {
    let position = if count > 1 { format!("[{}/{count}] ", index + 1) } else { String::new() };
    let source = match &input.path {
        Some(path) => Source::File(path),
        None => Source::Bytes(input::read_stdin(
            config.limits.max_input_bytes,
            "that limits.max_input_bytes allows",
        )?),
    };
    let mut progress = Recording::start(style, &format!("{position}{}", input.name()));
    let result =
        recognizer.transcribe(source, options, &mut |at| progress.update(at.decoded_secs, at.duration_secs));
    progress.clear();
    let (transcript, warnings) = result?;
    for warning in warnings {
        style.note(&format!("warning: {}: {warning}", input.name()));
    }
    for gap in &transcript.coverage.gaps {
        let reason = match gap.reason {
            GapReason::NoSpeech => "the model takes it for silence",
            GapReason::TokenLimit => "the text broke off at the token limit",
            GapReason::Empty => "the model wrote nothing",
        };
        let (from, to) = (gap.start_secs, gap.end_secs);
        style
            .note(&format!("warning: {}: no text for speech at {from:.1}-{to:.1} s: {reason}", input.name()));
    }
    progress.finish(transcript.duration_secs);
    Ok(transcript)
}
