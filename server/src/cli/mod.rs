//! The command line: what is asked, and the exit code. Results go to standard output, everything else to standard error.

mod bench;
mod compare;
mod data;
mod decode_worker;
mod evaluate;
mod fetch;
mod finetune;
mod input;
mod manifests;
mod models;
mod openapi;
mod output;
mod plan;
mod progress;
mod recognizer;
mod serve;
mod signals;
mod speak;
mod tokenizer;
mod train;
mod transcribe;
mod translate;

use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

use ::models::kernels::{SERVING_KEEPS_BYTES, keep_freed_memory, leave_threads_to_kernels};
use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use output::Closed;

/// Some inputs failed, or the command did.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was done.
const USAGE: u8 = 2;

/// Speech to text and text to speech on your own machine.
#[derive(Debug, Parser)]
#[command(name = "speechd", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// Log more: -v for what is done, -vv for details; RUST_LOG says it exactly
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn recordings into text or subtitles
    Transcribe(Box<transcribe::Args>),
    /// Turn recordings into text or subtitles in another language
    Translate(Box<translate::Args>),
    /// Turn text into speech
    Speak(Box<speak::Args>),
    /// Serve models over HTTP, in the shape of the OpenAI audio API
    Serve(serve::Args),
    /// List, fetch and describe models
    Models(models::Args),
    /// Prepare recordings and texts for training, and look at them
    Data(data::Args),
    /// Teach a model a language from a few hours of recordings
    Finetune(Box<finetune::Args>),
    /// Train a model by a recipe
    Train(train::Args),
    /// Plan what to train: how to split a budget between encoder and decoder
    Plan(plan::Args),
    /// Learn vocabularies from texts
    Tokenizer(tokenizer::Args),
    /// Measure how well a model hears, or speaks: word and character error rates
    Evaluate(Box<evaluate::Args>),
    /// Measure several models beside each other: error rates, and speed
    Compare(compare::Args),
    /// Measure how fast a model runs on this machine
    Bench(bench::Args),
    /// Print the OpenAPI document of the HTTP service
    Openapi,
    /// Decode the standard input into samples, within limits: run by the server for each upload
    #[command(hide = true)]
    DecodeWorker(decode_worker::Args),
}

/// The user asked for something that cannot be; nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs the program with these arguments, the first being its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    leave_threads_to_kernels();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors, and go to standard output with code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    match cli.command {
        // What it finds is in its reply; what it would log, a hostile file could make endless.
        Command::DecodeWorker(_) => {}
        // What a service does is its log.
        Command::Serve(_) => start_log(cli.verbose.max(1)),
        _ => start_log(cli.verbose),
    }
    if let Command::Transcribe(_)
    | Command::Translate(_)
    | Command::Speak(_)
    | Command::Serve(_)
    | Command::Evaluate(_)
    | Command::Compare(_)
    | Command::Bench(_) = cli.command
    {
        keep_freed_memory(SERVING_KEEPS_BYTES);
    }
    let result = match &cli.command {
        Command::Transcribe(args) => transcribe::run(args),
        Command::Translate(args) => translate::run(args),
        Command::Speak(args) => speak::run(args).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => serve::run(args),
        Command::Models(args) => models::run(args).map(|()| ExitCode::SUCCESS),
        Command::Data(args) => data::run(args),
        Command::Finetune(args) => finetune::run(args),
        Command::Train(args) => train::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Tokenizer(args) => tokenizer::run(args).map(|()| ExitCode::SUCCESS),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Compare(args) => compare::run(args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(args).map(|()| ExitCode::SUCCESS),
        Command::Openapi => openapi::run().map(|()| ExitCode::SUCCESS),
        Command::DecodeWorker(args) => decode_worker::run(args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        if error.is::<Closed>() {
            // The reader has what it wanted (`| head`).
            return ExitCode::SUCCESS;
        }
        output::error_line(&format!("{error:#}"));
        ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILED })
    })
}

fn start_log(verbose: u8) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call in one process, as tests make, keeps the first log.
    let _ = if verbose == 0 {
        // Times and modules are for whoever asked for a log, not for a warning.
        log.without_time().with_target(false).try_init()
    } else {
        log.try_init()
    };
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_flag_has_help() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut commands = vec![command];
        while let Some(command) = commands.pop() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{}: {}", command.get_name(), argument.get_id());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
