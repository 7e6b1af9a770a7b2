//! `speechd transcribe`: recordings in, text out; one bad recording does not stop the others.

use std::{
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use audio::ChannelChoice;
use clap::{ArgAction, ValueEnum};
use models::{DecodeOptions, DeviceChoice, GapReason, Task};

use super::{
    FAILED, Usage,
    fetch::{fetch, fetch_draft, named_or_own},
    input::{self, Input, Inputs},
    output::{self, Closed, error_line},
    progress::{Recording, Style},
    recognizer::{Recognizer, Source},
};
use crate::{
    compute::Compute,
    config::{BeamSize, Config, Precision, Punctuation, Threshold, Vad},
    render::{self, Format},
};

const EXAMPLES: &str = "\
Examples:
  speechd transcribe digits.wav
  speechd transcribe talk.mp3 --model openai/whisper-base
  speechd transcribe talk.mp3 --model ./my-whisper --language ps --format srt > talk.srt
  speechd transcribe recordings/ --model ./my-whisper --format verbose_json --word-timestamps --out transcripts/
  curl -s https://example.org/talk.ogg | speechd transcribe - --model openai/whisper-base

Exit code: 0 all transcribed, 1 some failed, 2 wrong arguments or configuration.";

/// Flags that are not given leave the configuration's value.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Recordings: files, directories (searched for audio files) or - for the standard input
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,
    /// A model's directory, its hub id: ORGANISATION/NAME[@REVISION], or digits-en, which is part of the program and
    /// knows English digits and a few commands [default: digits-en]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// A smaller model of the same vocabulary that guesses what the model is going to write: the same text in fewer steps
    #[arg(long, value_name = "PATH_OR_ID")]
    draft: Option<String>,
    /// What the model computes on: cpu, cuda, cuda:1 ... [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// What the model computes in [default: auto]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Language spoken, as a code or an English name; auto detects it [default: auto]
    #[arg(short, long, value_parser = parse_language)]
    language: Option<String>,
    /// Write what is said, or translate it [default: transcribe]
    #[arg(long, value_enum)]
    task: Option<TaskArg>,
    /// Language that a translation is written in, as far as the model reaches it [default: English]
    #[arg(long, value_name = "CODE", value_parser = parse_target)]
    to_language: Option<String>,
    /// Whether punctuation and capitals are written, by models that can be told, such as Canary [default: as the model does]
    #[arg(long, value_enum)]
    punctuation: Option<Punctuation>,
    /// How the result is written [default: text]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Align every word with the audio (shown by verbose_json; sharpens srt and vtt)
    #[arg(long)]
    word_timestamps: bool,
    /// Hypotheses kept by beam search; 1 is greedy [default: what the model asks for, mostly 1]
    #[arg(long, value_name = "N")]
    beam_size: Option<usize>,
    /// Samples drawn at a temperature above 0, of which the most probable is kept [default: 5]
    #[arg(long, value_name = "N")]
    best_of: Option<usize>,
    /// Beam search ends after beam size times this many hypotheses [default: when none can overtake the best]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    patience: Option<f32>,
    /// Exponent by which beam search favours long hypotheses [default: 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    length_penalty: Option<f32>,
    /// Sampling temperature from 0 to 1; 0 searches, above 0 turns the fallback off [default: 0]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the first result even when it repeats itself or is unsure
    #[arg(long)]
    no_fallback: bool,
    /// Text that precedes the audio: style, names, spelling; of a long one the model reads the end
    #[arg(long, value_name = "S")]
    prompt: Option<String>,
    /// Words that are likely to be said; refused when the model has no room for them
    #[arg(long, value_name = "S")]
    hotwords: Option<String>,
    /// Whether silence is left out [default: auto]
    #[arg(long, value_enum)]
    vad: Option<Vad>,
    /// Windows decoded together [default: 8]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Tokens that a window may produce [default: half of the model's context]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Seed of the sampler: the same seed gives the same text [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Channel to listen to, counted from 0, or mix for all of them
    #[arg(long, value_name = "mix|N", default_value = "mix", value_parser = parse_channel)]
    channel: ChannelChoice,
    /// Write one file per recording into DIR instead of the standard output
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show no progress, only errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    quiet: bool,
}

/// `models::Task` as a flag.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TaskArg {
    /// Text in the language that is spoken
    Transcribe,
    /// Text in another language
    Translate,
}

fn parse_channel(text: &str) -> Result<ChannelChoice, String> {
    match text {
        "mix" => Ok(ChannelChoice::Mix),
        number => {
            number.parse().map(ChannelChoice::Pick).map_err(|_| "expected mix or a number from 0".to_owned())
        }
    }
}

fn parse_language(text: &str) -> Result<String, String> {
    match text {
        "auto" => Ok(text.to_owned()),
        text => parse_target(text).map_err(|allowed| allowed.replace("expected", "expected auto,")),
    }
}

fn parse_target(text: &str) -> Result<String, String> {
    render::parse_language(text).ok_or_else(|| {
        let codes: Vec<_> = render::LANGUAGES.iter().map(|(code, _)| *code).collect();
        format!("expected an English name such as pashto, or a code: {}", codes.join(" "))
    })
}

impl Args {
    /// The configuration with these flags on top.
    fn settings(&self) -> Result<Config, Usage> {
        let mut config = Config::load(self.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
        let settings = &mut config.transcribe;
        set(&mut settings.model, self.model.as_ref());
        if self.model.is_some() {
            // The configured one guesses for the configured model.
            settings.draft.clear();
        }
        set(&mut settings.draft, self.draft.as_ref());
        set(&mut settings.device, self.device.as_ref());
        set(&mut settings.precision, self.precision.as_ref());
        set(&mut settings.language, self.language.as_ref());
        if let Some(task) = self.task {
            settings.task = match task {
                TaskArg::Transcribe => Task::Transcribe,
                TaskArg::Translate => Task::Translate,
            };
        }
        set(&mut settings.to_language, self.to_language.as_ref());
        set(&mut settings.punctuation, self.punctuation.as_ref());
        set(&mut settings.format, self.format.as_ref());
        set(&mut settings.beam_size, self.beam_size.map(BeamSize::Of).as_ref());
        set(&mut settings.best_of, self.best_of.as_ref());
        set(&mut settings.patience, self.patience.map(Threshold::At).as_ref());
        set(&mut settings.length_penalty, self.length_penalty.as_ref());
        set(&mut settings.temperature, self.temperature.as_ref());
        settings.fallback &= !self.no_fallback;
        set(&mut settings.prompt, self.prompt.as_ref());
        set(&mut settings.hotwords, self.hotwords.as_ref());
        set(&mut settings.vad, self.vad.as_ref());
        set(&mut settings.batch_size, self.batch_size.as_ref());
        set(&mut settings.max_new_tokens, self.max_new_tokens.as_ref());
        set(&mut settings.seed, self.seed.as_ref());
        // The file and the environment may hold names too.
        settings.language = parse_language(&settings.language)
            .map_err(|allowed| Usage(format!("language `{}`: {allowed}", settings.language)))?;
        if !settings.to_language.is_empty() {
            settings.to_language = parse_target(&settings.to_language)
                .map_err(|allowed| Usage(format!("to_language `{}`: {allowed}", settings.to_language)))?;
            if self.to_language.is_some() && settings.task == Task::Transcribe {
                return Err(Usage("--to-language is that of a translation; add --task translate".to_owned()));
            }
        }
        settings.model = named_or_own(&settings.model)?.to_owned();
        Ok(config)
    }
}

fn set<T: Clone>(setting: &mut T, flag: Option<&T>) {
    if let Some(flag) = flag {
        setting.clone_from(flag);
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
    let config = args.settings()?;
    let format = config.transcribe.format;
    let options = config.transcribe.decode_options(args.word_timestamps);
    options.check().map_err(|error| Usage(error.to_string()))?;
    let inputs = input::collect(&args.files);
    let destination = Destination::plan(args.out.as_deref(), &inputs, format)?;
    let style = Style::new(args.quiet);
    for failure in &inputs.failures {
        error_line(failure);
    }
    let mut failed = inputs.failures.len();
    if !inputs.found.is_empty() {
        let recognizer = load(&config, args.channel, style)?;
        // Said once, rather than for every recording.
        recognizer
            .check(&options)
            .map_err(|error| Usage(format!("model {}: {error}", config.transcribe.model)))?;
        for (index, input) in inputs.found.iter().enumerate() {
            let done = transcribe(&recognizer, input, &options, &config, style, (index, inputs.found.len()))
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
        None => Source::Bytes(read_stdin(config.limits.max_input_bytes)?),
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

fn read_stdin(max_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        bail!("the standard input is a terminal; pipe a recording into it");
    }
    let mut bytes = Vec::new();
    stdin.lock().take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).context("cannot be read")?;
    if bytes.len() as u64 > max_bytes {
        bail!("more than the {max_bytes} bytes that limits.max_input_bytes allows");
    }
    if bytes.is_empty() {
        bail!("the standard input is empty");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_codes_names_or_left_to_the_model() {
        for (text, code) in [("auto", "auto"), ("ps", "ps"), ("Pashto", "ps"), ("xyz", "xyz")] {
            assert_eq!(parse_language(text).as_deref(), Ok(code));
        }
        assert!(parse_language("klingon").expect_err("refused").contains("pashto"));
    }

    #[test]
    fn channels_are_numbers_or_mix() {
        assert!(matches!(parse_channel("mix"), Ok(ChannelChoice::Mix)));
        assert!(matches!(parse_channel("1"), Ok(ChannelChoice::Pick(1))));
        assert!(parse_channel("-1").is_err() && parse_channel("left").is_err());
    }
}
