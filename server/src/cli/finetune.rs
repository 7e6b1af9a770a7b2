//! `speechd finetune`: recordings of a language in, a model that knows it out.

mod data;
mod judge;
mod report;

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
    config::{RunConfig, StrategyKind, TaskKind, list_setting, text_setting},
    run::{self, Bases, Forecast},
    text::Normaliser,
};

use self::{
    data::{Corpora, Data},
    judge::Judge,
    report::{Row, Table},
};
use super::{
    FAILED, Usage,
    fetch::{fetch, fetch_parts},
    output::{print, status_line},
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

It imports the data, looks for what is wrong with it, measures the model as it is, trains, measures again, and says how to serve
the result. Everything lies in the run's folder; the same command goes on where it was stopped.
Every setting of `speechd train --show finetune` can be changed by --set.
Exit code: 0 done, 1 failed, 2 wrong arguments or settings, 3 stopped by a signal.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Language of the recordings, as a code; training and decoding are told it
    #[arg(short, long, value_name = "CODE")]
    lang: String,
    /// A language that the model knows and that this one is related to, where the model has no token for this one
    #[arg(long, value_name = "CODE")]
    like: Option<String>,
    /// The model to start from, a Whisper, a Canary or a CTC model: a directory or a hub id [default: openai/whisper-base]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// A corpus in any layout that `speechd data import` reads, or a folder of manifests; with =WEIGHT it is heard so many times as
    /// often [default: common_voice below SPEECHD_DATA]
    #[arg(short, long, value_name = "CORPUS[=WEIGHT]")]
    data: Vec<String>,
    /// The run's folder [default: runs/finetune-CODE]
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
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("finetune-{}", args.lang)));
    let style = Style::new(args.quiet);
    let stop =
        stop_flag("stopping after what is being done; a second signal ends it at once, without saving")?;
    // Mistakes are told before anything is fetched or read.
    check(args)?;
    let mut configs = Vec::new();
    for strategy in &args.strategy {
        configs.push(config(args, strategy.kind(), &out).map_err(|error| Usage(error.to_string()))?);
    }
    let Some(first) = configs.first().cloned() else { return Err(Usage("no strategy".to_owned()).into()) };
    if first.task != TaskKind::Transcribe {
        let message = "--set task: finetune teaches a model to hear; texts are trained on by speechd train";
        return Err(Usage(message.to_owned()).into());
    }
    let device = first.train.device.open().map_err(|error| Usage(error.to_string()))?;
    let hub = Config::load(None).map_err(|error| Usage(error.to_string()))?;
    let corpora = Corpora::find(&first, &out);
    let are_imported = corpora.are_imported();
    let base = base(&first.model.base, corpora.missing, &hub, style)?;
    let bases = Bases { base: Some(base.clone()), parts: fetch_parts(&first, &hub, style)? };
    for config in &configs {
        check_base(args, config, &base)?;
    }

    let mut teller = Teller::new(style);
    let data = Data::import(&first, &out, &stop, &mut |progress| teller.tell(&progress));
    teller.end();
    let data = data?;
    if are_imported {
        style.note(&format!(
            "the data were imported before; to import them again, remove {}",
            out.join("data").display()
        ));
    }
    go_on(&stop)?;
    if let Some(n_tokens) = args.new_vocabulary {
        data.learn_vocabulary(n_tokens as usize, &first, &base, style)?;
    }
    data.look(&first, &base, &stop, style)?;
    for config in &mut configs {
        data.put_into(config);
    }
    if args.dry_run {
        for (config, strategy) in configs.iter().zip(&args.strategy) {
            let folder = folder(&out, args, *strategy);
            // Each for itself: what an earlier one took is not counted again.
            process::reset_peak_memory();
            let mut teller = Teller::new(Style::new(true));
            let forecast = run::forecast("finetune", config, bases.clone(), &folder, &mut |told| {
                teller.tell(&told);
            })?;
            print(&describe(strategy.kind(), &forecast))?;
            go_on(&stop)?;
        }
        return Ok(ExitCode::SUCCESS);
    }

    let test = data.test(&first, style)?;
    let judge = Judge::new(&args.lang, &test, device, &stop, style);
    let before = judge.before(&first, &base, &out)?;
    let mut table = Table::new(&first, &before.scores);
    let mut has_failed = false;
    let mut page = None;
    for (config, strategy) in configs.iter().zip(&args.strategy) {
        go_on(&stop)?;
        let kind = strategy.kind();
        let folder = folder(&out, args, *strategy);
        if args.strategy.len() > 1 {
            style.note(&format!("strategy {}", kind.name()));
        }
        let mut teller = Teller::new(style);
        let name = format!("finetune {} ({})", args.lang, kind.name());
        let outcome = run::run(&name, config, bases.clone(), &folder, &stop, &mut |told| teller.tell(&told));
        teller.end();
        match outcome {
            Ok(outcome) => {
                let Some((model, _)) = &outcome.model else {
                    let step = outcome.state.step;
                    status_line(&format!("stopped after update {step}; the same command goes on"));
                    return Ok(ExitCode::from(STOPPED));
                };
                let after = judge.report(model, &outcome, &folder)?;
                let difference = judge.difference(&before, &after)?;
                table.add(Row::trained(kind, &folder, &out, &outcome, &after.scores, difference.as_ref())?);
            }
            // A gate that refuses is a result, too.
            Err(error @ Error::Gate { .. }) => {
                style.note(&error.to_string());
                has_failed |= args.strategy.len() == 1;
                table.add(Row::refused(kind, &folder, &out, &error.to_string())?);
            }
            Err(error) => return Err(error.into()),
        }
        page = Some(table.write(&out)?);
    }
    print(&table.to_string())?;
    if let Some(page) = page {
        style.note(&format!("as a page, with the run cards: {}", page.display()));
    }
    Ok(if has_failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
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

/// Tells what a strategy could not begin with before data are imported and other strategies run for hours.
fn check_base(args: &Args, config: &RunConfig, base: &BundleSource) -> anyhow::Result<()> {
    let mut config = config.clone();
    if args.new_vocabulary.is_some() {
        // Learnt from the data, for this base.
        config.model.tokenizer.clear();
    }
    run::check_base(&config, base).map_err(|error| match error {
        Error::Config { .. } => Usage(error.to_string()).into(),
        error => error.into(),
    })
}

/// Where a strategy's run is: in the folder itself where it is the only one.
fn folder(out: &Path, args: &Args, strategy: StrategyArg) -> PathBuf {
    if args.strategy.len() == 1 { out.to_owned() } else { out.join(strategy.kind().name()) }
}

/// The recipe with what the command line says on top.
fn config(args: &Args, kind: StrategyKind, out: &Path) -> Result<RunConfig, Error> {
    let normaliser = Normaliser::of_language(Some(&args.lang)).first().copied().unwrap_or_default();
    let corpora: Vec<(&str, f64)> = match args.data.as_slice() {
        [] => vec![("common_voice", 1.0)],
        data => data.iter().map(|data| weighted(data)).collect(),
    };
    let parts = |split: &str| corpora.iter().map(|(name, _)| format!("{name}:{split}")).collect::<Vec<_>>();
    let weights: Vec<_> = corpora.iter().map(|(_, weight)| format!("{weight:?}")).collect();
    let mut settings = vec![
        text_setting("strategy.kind", kind.name()),
        text_setting("data.language", &args.lang),
        list_setting("data.train", parts("train")),
        format!("data.weights=[{}]", weights.join(", ")),
        list_setting("data.dev", parts("dev")),
        text_setting("evaluate.normaliser", normaliser.name()),
    ];
    let optional = [
        ("model.base", args.model.as_deref()),
        ("model.like", args.like.as_deref()),
        ("strategy.stage.language", args.related_lang.as_deref()),
    ];
    settings.extend(optional.iter().filter_map(|(key, value)| Some(text_setting(key, (*value)?))));
    if let Some(related) = &args.related_data {
        for split in ["train", "dev"] {
            settings.push(list_setting(&format!("strategy.stage.{split}"), [format!("{related}:{split}")]));
        }
    }
    settings.extend(args.gate.map(|gate| format!("strategy.stage.gate={gate:?}")));
    settings.extend(args.epochs.map(|epochs| format!("train.max_epochs={epochs}")));
    if args.variable_length {
        settings.push("model.variable_length=true".to_owned());
    }
    // Its size is part of its name: a run of another one is another run.
    let vocabulary = args.new_vocabulary.map(|n| out.join(format!("vocabulary-{n}")).display().to_string());
    settings.extend(vocabulary.iter().map(|dir| text_setting("model.tokenizer", dir)));
    settings.extend(args.settings.iter().cloned());
    let mut config = RunConfig::load(Some(Path::new("finetune")), &settings)?;
    // What has a flag of its own decides more than the recipe: folders, names, how models are judged.
    for (key, flag, is_other) in [
        ("strategy.kind", "--strategy", config.strategy.kind != kind),
        ("data.language", "--lang", config.data.language != args.lang),
        (
            "model.tokenizer",
            "--new-vocabulary",
            vocabulary.is_some_and(|vocabulary| config.model.tokenizer != vocabulary),
        ),
    ] {
        if is_other {
            return Err(Error::Config { key: key.to_owned(), message: format!("has a flag: give {flag}") });
        }
    }
    if args.no_augment {
        config.augment = Default::default();
    }
    Ok(config)
}

/// Flags that say nothing beside the others.
fn check(args: &Args) -> Result<(), Usage> {
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

fn describe(kind: StrategyKind, forecast: &Forecast) -> String {
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
    let stage = if kind == StrategyKind::Multistage { "; stage A comes on top" } else { "" };
    format!(
        "strategy {}\n{padding}\n{}\nupdates: {n_steps}, {n_batches} batches in an epoch, learning rate {:.1e}\n\
         memory:  {}, its heaviest batch and the optimiser counted\ntime:    {time}, evaluations not counted{stage}\n",
        kind.name(),
        padding.summary(),
        config.optimizer.learning_rate,
        memory.unwrap_or_else(|| "unknown".to_owned()),
    )
}
