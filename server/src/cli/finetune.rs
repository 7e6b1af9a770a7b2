//! `speechd finetune`: recordings of a language in, a model that knows it out, or a voice that speaks it.

mod data;
mod hearing;
mod judge;
mod letters;
mod report;
mod speech;
mod voice;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, bail};
use clap::{ArgAction, ValueEnum};
use models::{BundleSource, DeviceChoice};
use recipes::{
    Error,
    config::{RunConfig, StrategyKind, list_setting, text_setting},
    run::Forecast,
    text::Normaliser,
};

use self::data::Data;
use super::{
    Usage,
    fetch::fetch,
    output::status_line,
    progress::{Style, bytes},
    signals::stop_flag,
    train::{STOPPED, Teller},
};
use crate::{
    config::Config,
    process,
    registry::{self, Hub, HubOptions},
};

const EXAMPLES: &str = "\
Examples:
  speechd finetune --lang ps --model openai/whisper-base --data cv-corpus-21.0/ps
  speechd finetune --lang ps --model openai/whisper-small --data recordings/ --strategy lora --dry-run
  speechd finetune --lang ps --data cv-corpus/ps --data our-recordings/=3            # ours three times as often
  speechd finetune --lang xx --like fa --model openai/whisper-base --data recordings/   # a language that it has no token for
  speechd finetune --lang ps --model ./tiny --data d/ --new-vocabulary 512           # tokens of its own, fewer a word
  speechd finetune --lang ps --model ./parakeet-ctc --data d/ --new-vocabulary 512   # a CTC model of another language, and letters
  speechd finetune --lang ps --data d/ --strategy full,lora,frozen-encoder            # one after the other, and a table
  speechd finetune --task speak --lang ps --data recordings/ --model ./my-voice       # a voice that reads Pashto
  speechd finetune --task speak --lang ps --data recordings/ --vocoder runs/vocoder_en/model --judge ./my-whisper

It imports the data, looks for what is wrong with it, measures the model as it is, trains, measures again, and says how to serve
the result. Everything lies in the run's folder; the same command goes on where it was stopped.
Every setting of `speechd train --show finetune`, or finetune_voice with --task speak, can be changed by --set.

With --task speak recordings with their texts become a voice: one for each speaker, of the 32 with the most recordings. It starts from a voice that
there is, which learns the letters that it lacks, and keeps that one's vocoder unless --vocoder names another; without one a new voice is trained.
Exit code: 0 done, 1 failed, 2 wrong arguments or settings, 3 stopped by a signal.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Language of the recordings, as a code; training and decoding are told it
    #[arg(short, long, value_name = "CODE")]
    lang: String,
    /// What is taught: to write what is said in recordings, or to speak as they do
    #[arg(long, value_enum, default_value = "transcribe")]
    task: TaskArg,
    /// A language that the model knows and that this one is related to, where the model has no token for this one
    #[arg(long, value_name = "CODE")]
    like: Option<String>,
    /// The model to start from, a Whisper, a Canary or a CTC model, or with --task speak a voice: a directory or a hub id [default:
    /// openai/whisper-base; of speak the voice that is part of the program, or else a new one]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// A corpus in any layout that `speechd data import` reads, or a folder of manifests; with =WEIGHT it is heard so many times as
    /// often [default: common_voice below SPEECHD_DATA]
    #[arg(short, long, value_name = "CORPUS[=WEIGHT]")]
    data: Vec<String>,
    /// The run's folder [default: runs/finetune-CODE, of speak runs/voice-CODE]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What of the model is trained; several are run one after the other and compared
    #[arg(short, long, value_enum, value_delimiter = ',', default_value = "full")]
    strategy: Vec<StrategyArg>,
    /// multistage: a corpus of a related language, learnt first
    #[arg(long, value_name = "CORPUS")]
    related_data: Option<String>,
    /// multistage: the related language
    #[arg(long, value_name = "CODE")]
    related_lang: Option<String>,
    /// multistage: word error rate of the related language above which the second stage is not begun
    #[arg(long, value_name = "RATE")]
    gate: Option<f64>,
    /// Give the model a vocabulary of its own: N tokens learnt from the texts. Fewer tokens a word are fewer steps and easier to
    /// learn; it forgets how other languages are written, and whisper.cpp does not take it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(256..))]
    new_vocabulary: Option<u32>,
    /// Train and serve on recordings as long as they are, without silence up to the model's window [default: as the model]
    #[arg(long)]
    variable_length: bool,
    /// speak: the vocoder that the voice comes with, or a voice that has one: a directory or a hub id [default: that of the voice to start
    /// from]
    #[arg(long, value_name = "PATH_OR_ID")]
    vocoder: Option<String>,
    /// speak: a recogniser of the language, by which the speech is judged in the end: a directory or a hub id [default: none; held-out losses
    /// say how well it learnt]
    #[arg(long, value_name = "PATH_OR_ID")]
    judge: Option<String>,
    /// Times that the data are gone through
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Hear recordings as they are: no change of speed, no noise, no rooms, no masks
    #[arg(long)]
    no_augment: bool,
    /// Change a setting, such as optimizer.learning_rate=1e-5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Import and look at the data, print the plan, the memory and the time that it will take, and train nothing
    #[arg(long)]
    dry_run: bool,
    /// Show no progress
    #[arg(short, long, action = ArgAction::SetTrue)]
    quiet: bool,
}

/// What is taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TaskArg {
    /// Speech to text
    Transcribe,
    /// Text to speech
    Speak,
}

/// `StrategyKind` as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StrategyArg {
    /// All of it
    Full,
    /// Small matrices beside its attention; the result is an adapter and a merged model
    Lora,
    /// All but the beginning of the encoder
    FrozenEncoder,
    /// All of it, on a related language first
    Multistage,
}

impl StrategyArg {
    fn kind(self) -> StrategyKind {
        match self {
            Self::Full => StrategyKind::Full,
            Self::Lora => StrategyKind::Lora,
            Self::FrozenEncoder => StrategyKind::FrozenEncoder,
            Self::Multistage => StrategyKind::Multistage,
        }
    }
}

/// Asked to stop before it came to a model. What was done is on disk.
#[derive(Debug, thiserror::Error)]
#[error("stopped; the same command goes on")]
struct Stopped;

/// Ends the command where that is asked for.
fn go_on(stop: &AtomicBool) -> Result<(), Stopped> {
    if stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    finetune(args).or_else(|error| match error.downcast::<Stopped>() {
        Ok(stopped) => {
            status_line(&stopped.to_string());
            Ok(ExitCode::from(STOPPED))
        }
        Err(error) => Err(error),
    })
}

fn finetune(args: &Args) -> anyhow::Result<ExitCode> {
    // Mistakes are told before anything is fetched or read.
    check(args)?;
    let kind = if args.task == TaskArg::Speak { "voice" } else { "finetune" };
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("{kind}-{}", args.lang)));
    let style = Style::new(args.quiet);
    let stop =
        stop_flag("stopping after what is being done; a second signal ends it at once, without saving")?;
    match args.task {
        TaskArg::Transcribe => hearing::teach_to_hear(args, &out, &stop, style),
        TaskArg::Speak => voice::teach_to_speak(args, &out, &stop, style),
    }
}

/// Makes manifests of the data, unless that was done before.
fn import(
    config: &RunConfig,
    out: &Path,
    are_imported: bool,
    stop: &AtomicBool,
    style: Style,
) -> anyhow::Result<Data> {
    let mut teller = Teller::new(style);
    let data = Data::import(config, out, stop, &mut |progress| teller.tell(&progress));
    teller.end();
    let data = data?;
    if are_imported {
        style.note(&format!(
            "the data were imported before; to import them again, remove {}",
            out.join("data").display()
        ));
    }
    go_on(stop)?;
    Ok(data)
}

/// The model to start from. Where data are missing it is not fetched: all that is, is told together.
fn base(name: &str, mut missing: Vec<String>, hub: &Config, style: Style) -> anyhow::Result<BundleSource> {
    let what = format!(
        "the model to start from, {name}; `speechd models pull {name}` fetches it, --model names another"
    );
    if missing.is_empty() {
        return fetch(name, hub, style).context(what);
    }
    let offline = Hub::new(HubOptions { offline: true, ..hub.hub_options() });
    if registry::resolve(name, &offline, &mut |_| {}).is_err() {
        missing.push(format!("nor is there {what}"));
    }
    bail!(missing.join("\n"))
}

/// What the command line says of the data, whatever is taught.
fn data_settings(args: &Args) -> Vec<String> {
    let normaliser = Normaliser::of_language(Some(&args.lang)).first().copied().unwrap_or_default();
    let corpora: Vec<(&str, f64)> = match args.data.as_slice() {
        [] => vec![("common_voice", 1.0)],
        data => data.iter().map(|data| weighted(data)).collect(),
    };
    let parts = |split: &str| corpora.iter().map(|(name, _)| format!("{name}:{split}")).collect::<Vec<_>>();
    let weights: Vec<_> = corpora.iter().map(|(_, weight)| format!("{weight:?}")).collect();
    vec![
        text_setting("data.language", &args.lang),
        list_setting("data.train", parts("train")),
        format!("data.weights=[{}]", weights.join(", ")),
        list_setting("data.dev", parts("dev")),
        text_setting("evaluate.normaliser", normaliser.name()),
    ]
}

/// Refuses settings, with the flags that say the same, that `--set` made others.
fn check_flags(settings: &[(&str, &str, bool)]) -> Result<(), Error> {
    match settings.iter().find(|(.., is_other)| *is_other) {
        Some((key, flag, _)) => {
            Err(Error::Config { key: (*key).to_owned(), message: format!("has a flag: give {flag}") })
        }
        None => Ok(()),
    }
}

/// Flags that say nothing beside the others.
fn check(args: &Args) -> Result<(), Usage> {
    let refused = match args.task {
        TaskArg::Speak => voice::refused_flag(args),
        TaskArg::Transcribe => [("--vocoder", args.vocoder.is_some()), ("--judge", args.judge.is_some())]
            .into_iter()
            .find(|(_, is_given)| *is_given)
            .map(|(flag, _)| (flag, "is for a voice: add --task speak")),
    };
    if let Some((flag, why)) = refused {
        return Err(Usage(format!("{flag} {why}")));
    }
    let is_staged = args.strategy.contains(&StrategyArg::Multistage);
    if !is_staged && (args.related_data.is_some() || args.related_lang.is_some() || args.gate.is_some()) {
        return Err(Usage(
            "--related-data, --related-lang and --gate are for --strategy multistage".to_owned(),
        ));
    }
    let is_twice =
        |strategy: &StrategyArg| args.strategy.iter().filter(|other| *other == strategy).count() > 1;
    if let Some(strategy) = args.strategy.iter().find(|strategy| is_twice(strategy)) {
        return Err(Usage(format!("--strategy names {} twice", strategy.kind().name())));
    }
    Ok(())
}

/// A corpus and its weight: `folder/=3`.
fn weighted(text: &str) -> (&str, f64) {
    match text.rsplit_once('=').map(|(name, weight)| (name, weight.parse::<f64>())) {
        Some((name, Ok(weight))) if !Path::new(text).exists() => (name, weight),
        _ => (text, 1.0),
    }
}

/// What a run will take; `stage` says what does not count.
fn describe(what: &str, stage: &str, forecast: &Forecast) -> String {
    let Forecast { config, n_batches, n_steps, padding, step_secs, moments_bytes } = forecast;
    // Of the processor's memory: what a GPU holds is not known here.
    let peak = process::peak_memory_bytes().filter(|_| config.train.device == DeviceChoice::Cpu);
    let memory = peak.map(|peak| bytes(peak + moments_bytes));
    let told = |secs: f64| match secs {
        secs if secs < 5400.0 => format!("{:.0} min", (secs / 60.0).ceil()),
        secs => format!("{:.1} h", secs / 3600.0),
    };
    let time = match step_secs {
        Some(secs) => format!("{secs:.2} s an update, {} in all", told(secs * *n_steps as f64)),
        None => "unknown, as no batch could be read".to_owned(),
    };
    format!(
        "{what}\n{padding}\n{}\nupdates: {n_steps}, {n_batches} batches in an epoch, learning rate {:.1e}\n\
         memory:  {}, its heaviest batch and the optimiser counted\ntime:    {time}, evaluations not counted{stage}\n",
        padding.summary(),
        config.optimizer.learning_rate,
        memory.unwrap_or_else(|| "unknown".to_owned()),
    )
}
