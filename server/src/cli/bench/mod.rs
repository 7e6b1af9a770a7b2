//! `speechd bench`: how fast things run here.

mod decoder;
mod draft;
mod end_to_end;
mod finetune;
pub(super) mod parts;
mod serve;
mod transcribe;

use std::time::Instant;

use clap::Subcommand;

pub(super) use end_to_end::transcribe_together;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Time encoder, decoder, loading and a whole transcription
    Transcribe(transcribe::Args),
    /// Time updates of a fine-tuning, beside torch if asked for
    Finetune(finetune::Args),
    /// Load a running service, and time it
    Serve(Box<serve::Args>),
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Transcribe(args) => transcribe::run(args),
        Command::Finetune(args) => finetune::run(args),
        Command::Serve(args) => serve::run(args),
    }
}

/// The value in the middle; NaN of nothing.
pub(super) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What `work` gives; the time that it took is added to `seconds`.
fn seconds_of<T>(seconds: &mut Vec<f64>, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    let done = work()?;
    seconds.push(started.elapsed().as_secs_f64());
    Ok(done)
}
