//! `speechd train`: a recipe becomes a model.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ArgAction;
use recipes::{
    config::{DEFAULTS, RECIPES, RunConfig, TaskKind},
    loader::Fault,
    run::{self, Bases, Outcome, Progress},
    train::{Ending, Event, StepReport},
};

use super::{
    Usage,
    fetch::{fetch, fetch_parts},
    output::{self, error_line, status_line},
    progress::{Items, Style, Training},
    signals::stop_flag,
};
use crate::config::Config;

/// Stopped before its end; the same command goes on.
pub(super) const STOPPED: u8 = 3;
/// Rows and recordings that are told one by one; the others are counted.
const MAX_TOLD: usize = 10;

const EXAMPLES: &str = "\
Examples:
  speechd train digits_en
  speechd train my_recipe.toml --set train.max_steps=2000 --set optimizer.learning_rate=3e-4
  speechd train --show digits_en

A run lives in its folder: the same command goes on where it was stopped, and nothing is lost when it is killed.
Exit code: 0 trained, 1 failed, 2 wrong arguments or settings, 3 stopped by a signal after saving.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A recipe: a TOML file, or one of those that are part of the program
    #[arg(required_unless_present_any = ["list", "defaults"])]
    recipe: Option<PathBuf>,
    /// Change a setting, such as train.max_steps=2000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The run's folder [default: runs/RECIPE]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print all settings of the run as JSON, and train nothing
    #[arg(long)]
    show: bool,
    /// List the recipes that are part of the program
    #[arg(long)]
    list: bool,
    /// Print every setting with its default and what it does
    #[arg(long)]
    defaults: bool,
    /// Show no progress, only errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    quiet: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.defaults {
        output::print(DEFAULTS)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (Some(recipe), false) = (&args.recipe, args.list) else {
        let lines = RECIPES.iter().map(|(name, text)| format!("{name}  {}\n", first_comment(text)));
        output::print(&lines.collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    };
    let config = RunConfig::load(Some(recipe), &args.settings).map_err(|error| Usage(error.to_string()))?;
    if args.show {
        output::print(&(serde_json::to_string_pretty(&config)? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before anything is fetched; it stays open for the run.
    config.train.device.open().map_err(|error| Usage(error.to_string()))?;
    let name = recipe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let dir = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&name));
    let style = Style::new(args.quiet);
    let stop = stop_flag("stopping after this update; a second signal ends it at once, without saving")?;
    let mut teller = Teller::new(style);
    let bases = match config.model.base.as_str() {
        "" => Bases::default(),
        base => {
            let hub = Config::load(None).map_err(|error| Usage(error.to_string()))?;
            Bases { base: Some(fetch(base, &hub, style)?), parts: fetch_parts(&config, &hub, style)? }
        }
    };
    let outcome = run::run(&name, &config, bases, &dir, &stop, &mut |progress| teller.tell(&progress));
    teller.end();
    let outcome = match outcome {
        Err(recipes::Error::Stopped(how_far)) => {
            style.note(&format!("stopped: {how_far}"));
            return Ok(ExitCode::from(STOPPED));
        }
        outcome => outcome?,
    };
    report(&outcome, config.task, style, &dir);
    Ok(match outcome.ending {
        Ending::Complete | Ending::NoBetter => ExitCode::SUCCESS,
        Ending::Stopped => ExitCode::from(STOPPED),
    })
}

fn first_comment(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
}

/// What a run tells, for people.
pub(super) struct Teller {
    style: Style,
    /// Which of several runs it is; empty for the only one.
    run: String,
    /// What is done before training, and how far it is.
    preparing: Option<(String, Items)>,
    bar: Option<Training>,
    n_rejected: usize,
    n_faults: usize,
}

impl Teller {
    pub(super) fn new(style: Style) -> Self {
        Self::of_one(style, String::new())
    }

    /// Of one of several runs, whose name and what follows it stand before its progress.
    pub(super) fn of_one(style: Style, run: String) -> Self {
        Self { style, run, preparing: None, bar: None, n_rejected: 0, n_faults: 0 }
    }

    /// Shows how far what comes before training is.
    fn prepare(&mut self, what: &str, n_done: usize, n_all: usize) {
        let style = self.style;
        let items = match self.preparing.take() {
            Some((name, items)) if name == what => items,
            earlier => {
                earlier.inspect(|(_, items)| items.clear());
                Items::start(style, what, Some(n_all))
            }
        };
        let (_, items) = self.preparing.insert((what.to_owned(), items));
        items.update_of(n_done, n_all);
    }

    pub(super) fn tell(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Preparing { corpus, n_done, n_all } => {
                self.prepare(&format!("preparing {corpus}"), *n_done, *n_all);
            }
            Progress::Labelling { n_done, n_all } => self.prepare("the teacher writes", *n_done, *n_all),
            Progress::Note(note) => {
                if let Some((_, items)) = self.preparing.take() {
                    items.clear();
                }
                self.style.note(note);
            }
            Progress::Rejected(rejected) => {
                self.n_rejected += 1;
                if self.n_rejected <= MAX_TOLD {
                    self.style.note(&format!("left out: {rejected}"));
                }
            }
            Progress::Data { n_train, train_secs, n_dev, padding, n_parameters } => {
                if let Some((_, items)) = self.preparing.take() {
                    items.clear();
                }
                if self.n_rejected > MAX_TOLD {
                    self.style.note(&format!("{} rows were left out", self.n_rejected));
                }
                let train = match padding.is_of_texts {
                    true => format!("{n_train} pairs of texts"),
                    false => format!("{n_train} cuts, {:.2} h,", train_secs / 3600.0),
                };
                self.style.note(&format!(
                    "{train} to train on, {n_dev} to judge by; {:.2} million parameters",
                    *n_parameters as f64 / 1e6
                ));
                self.style.note(&padding.summary());
                if padding.admission.total().n_rejected() > 0 {
                    self.style.note(padding.admission.to_string().trim_end());
                }
            }
            Progress::Epoch(padding) => self.line(&padding.summary()),
            Progress::Training(event) => self.event(event),
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Began { step, n_steps } => {
                if *step > 0 {
                    self.style.note(&format!("going on after update {step} of {n_steps}"));
                }
                self.bar = Some(Training::start(self.style, &self.run, *step, *n_steps));
            }
            Event::Step(report) => {
                if let Some(bar) = &mut self.bar {
                    bar.update(report);
                }
                if report.is_skipped {
                    let StepReport { step, loss, gradient_norm, .. } = report;
                    self.line(&format!("update {step} skipped: loss {loss}, gradient norm {gradient_norm}"));
                }
            }
            Event::Fault(Fault { cut, reason }) => {
                self.n_faults += 1;
                if self.n_faults <= MAX_TOLD {
                    self.line(&format!("left out: {cut}: {reason}"));
                }
            }
            Event::Evaluated { step, figures, is_best } => {
                let figures: Vec<_> =
                    figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
                let best = if *is_best { ", the best so far" } else { "" };
                self.line(&format!("update {step}: {}{best}", figures.join(", ")));
            }
            Event::Saved { .. } => {}
            Event::SaveFailed { step, reason } => {
                error_line(&format!("no checkpoint after update {step}: {reason}; the run goes on"));
            }
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.note(line),
            None => self.style.note(line),
        }
    }

    pub(super) fn end(&mut self) {
        if let Some((_, items)) = self.preparing.take() {
            items.clear();
        }
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
        if self.n_faults > MAX_TOLD {
            self.style.note(&format!("{} recordings were left out", self.n_faults));
        }
    }
}

fn report(outcome: &Outcome, task: TaskKind, style: Style, dir: &Path) {
    let state = &outcome.state;
    style.note(&match task {
        TaskKind::Transcribe | TaskKind::Speak | TaskKind::Vocode => format!(
            "{:.2} h of audio in {:.2} h, {:.0} x real time",
            state.audio_secs / 3600.0,
            state.busy_secs / 3600.0,
            state.audio_secs / state.busy_secs.max(1e-9)
        ),
        TaskKind::TranslateText => format!("{} updates in {:.2} h", state.step, state.busy_secs / 3600.0),
    });
    style.note(&format!("run card: {}", outcome.card.display()));
    match &outcome.model {
        Some((path, figures)) => {
            let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            status_line(&format!("{}: {}", path.display(), figures.join(", ")));
            style.note(&match task {
                TaskKind::Transcribe => {
                    format!("use it: speechd transcribe FILES --model {}", path.display())
                }
                TaskKind::Speak => {
                    format!("use it: speechd speak TEXT -o out.wav --model {}", path.display())
                }
                TaskKind::Vocode => {
                    format!(
                        "speak with it: speechd train RECIPE --set model.parts.vocoder={}",
                        path.display()
                    )
                }
                TaskKind::TranslateText => {
                    format!("go on with it: speechd train RECIPE --set model.base={}", path.display())
                }
            });
        }
        None => status_line(&format!(
            "stopped after update {}; the same command goes on from {}",
            state.step,
            dir.display()
        )),
    }
}
