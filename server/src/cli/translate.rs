//! `speechd translate`: recordings in, text in another language out. What it does beside naming the task is `speechd transcribe`.

use std::process::ExitCode;

use models::Task;

use super::transcribe::{Flags, Wanted, parse_target, write_down};

const EXAMPLES: &str = "\
Examples:
  speechd translate models/bundled/translate-en-ps/phrases.wav --to ps
  speechd translate talk.mp3 --model openai/whisper-base
  speechd translate talk.mp3 --model ./my-canary --language en --to ps
  speechd translate recordings/ --model ./my-canary --language ps --format srt --out subtitles/
  speechd translate talk.mp3 --model openai/whisper-base --cascade google/madlad400-3b-mt --to ps

Which languages a model reaches, speechd models inspect tells: Whisper writes English unless it was taught another one,
translate-en-ps, which is part of the program, Pashto alone.
Exit code: 0 all translated, 1 some failed, 2 wrong arguments or configuration.";

/// A translation of what is said.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Language to translate into, as a code or an English name, as far as the model reaches it [default: English]
    #[arg(long, visible_alias = "to-language", value_name = "CODE", value_parser = parse_target)]
    to: Option<String>,
    /// Translate by two models: the recogniser writes down what is said, and this translator of text, a Marian, a T5 or one trained here, translates
    /// that. The result names it [default: none]
    #[arg(long, value_name = "[NAME=]PATH_OR_ID")]
    cascade: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (to_language, cascade) = (args.to.clone(), args.cascade.clone());
    write_down(&args.flags, &Wanted { task: Some(Task::Translate), to_language, cascade })
}
