//! `speechd bench`: how fast things run here.

mod transcribe;

use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Time encoder, decoder, loading and a whole transcription
    Transcribe(transcribe::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Transcribe(args) => transcribe::run(args),
    }
}
