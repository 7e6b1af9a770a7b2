//! `speechd data check`: what is wrong with data, by kind, with examples.

use std::{path::PathBuf, process::ExitCode};

use parking_lot::Mutex;
use recipes::data::check::{Finding, Group, Options, Report, Severity, check};
use serde::Serialize;

use super::{
    super::{
        FAILED,
        manifests::manifests_and_texts,
        output::print,
        progress::{Items, Style},
    },
    hours, tokens,
};

const EXAMPLES: &str = "\
Examples:
  speechd data check data/
  speechd data check data/train.jsonl data/test.jsonl --tokenizer ./my-whisper
  speechd data check data/ --strict --json > findings.json

Each manifest counts as a split. Every recording is decoded once; --no-audio looks at rows and texts alone.
Errors are rows that cannot be used, manifests without cuts, recordings that are unreadable, damaged or shorter than their cuts,
silence, the same sound with different texts or in several splits. Warnings, which corpora may have their reasons for: empty texts, names and sounds that come again, clipping,
characters that the tokenizer lacks, several scripts in one text, speakers and texts in several splits.
Exit code: 0 nothing wrong, 1 errors (with --strict also warnings), 2 wrong arguments.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Manifests, or directories of them
    #[arg(required = true, value_name = "MANIFESTS")]
    manifests: Vec<PathBuf>,
    /// Model whose tokenizer has to spell the texts: a directory or a hub id
    #[arg(short, long, value_name = "MODEL")]
    tokenizer: Option<String>,
    /// Leave the recordings alone
    #[arg(long)]
    no_audio: bool,
    /// Let warnings count as errors
    #[arg(long)]
    strict: bool,
    /// Show so many examples of each kind
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,
    /// Print JSON, with all findings
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let style = Style::new(args.quiet);
    let paths = manifests_and_texts(&args.manifests)?;
    let tokens = args.tokenizer.as_deref().map(|spec| tokens(spec, style)).transpose()?;
    let progress = Mutex::new(Items::start(style, "listening", Some(0)));
    let options = Options { tokens, skip_audio: args.no_audio, ..Options::default() };
    let report = check(&paths, &options, &|done, total| progress.lock().update_of(done, total));
    progress.lock().clear();
    let report = report?;
    let (n_errors, n_warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    if args.json {
        let json = Json {
            n_cuts: report.n_cuts,
            total_secs: report.total_secs,
            n_errors,
            n_warnings,
            groups: report.groups(),
        };
        print(&(serde_json::to_string_pretty(&json)? + "\n"))?;
    } else {
        print(&describe(&report, paths.len(), args.examples))?;
    }
    let is_wrong = n_errors > 0 || (args.strict && n_warnings > 0);
    Ok(if is_wrong { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

#[derive(Serialize)]
struct Json<'a> {
    n_cuts: usize,
    total_secs: f64,
    n_errors: usize,
    n_warnings: usize,
    groups: Vec<Group<'a>>,
}

fn describe(report: &Report, n_manifests: usize, n_examples: usize) -> String {
    let mut text = String::new();
    for Group { kind, severity, findings } in report.groups() {
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        text += &format!("{severity}: {} {}\n", findings.len(), kind.describe());
        for finding in findings.iter().take(n_examples) {
            text += &format!("  {}\n", line(finding));
        }
        if findings.len() > n_examples {
            text += &format!("  and {} more\n", findings.len() - n_examples);
        }
    }
    let plural = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    text + &format!(
        "{}, {} hours in {}: {}, {}\n",
        plural(report.n_cuts, "cut"),
        hours(report.total_secs),
        plural(n_manifests, "manifest"),
        plural(report.count(Severity::Error), "error"),
        plural(report.count(Severity::Warning), "warning")
    )
}

fn line(finding: &Finding) -> String {
    let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
    let id = finding.id.as_ref().map(|id| format!(" {id}:")).unwrap_or_default();
    format!("{}{line}:{id} {}", finding.manifest.display(), finding.detail)
}
