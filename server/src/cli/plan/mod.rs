//! `speechd plan`: what to train, before much is spent on it.

mod grid;
mod shape;
mod timing;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a grid of small models, fit how their loss falls with encoder and decoder, and split a budget between the two
    Shape(Box<shape::Args>),
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Shape(args) => shape::run(args),
    }
}
