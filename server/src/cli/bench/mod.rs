//! `speechd bench`: how fast things run here.

mod decoder;
mod draft;
mod end_to_end;
mod finetune;
pub(super) mod parts;
mod serve;
mod speak;
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
    /// Time speech, and how soon it is heard
    Speak(Box<speak::Args>),
    /// Time updates of a fine-tuning, beside torch if asked for
    Finetune(finetune::Args),
    /// Load a running service, and time it
    Serve(Box<serve::Args>),
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Transcribe(args) => transcribe::run(args),
        Command::Speak(args) => speak::run(args),
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

/// The smallest of sorted values that is not exceeded by `percent` of them: one that was measured, not one between two.
fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (percent, value) in
            [(0.0, 1.0), (50.0, 50.0), (95.0, 95.0), (99.0, 99.0), (99.5, 100.0), (100.0, 100.0)]
        {
            assert_eq!(percentile(&hundred, percent), Some(value), "{percent}");
        }
        assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
