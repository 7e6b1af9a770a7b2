//! `speechd data`: corpora become manifests, and what is in those.

mod check;
mod import;
mod join;
mod phonemes;
mod plan;
mod stats;
mod synthesize;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::Subcommand;
use models::BundleSource;
use recipes::{
    data::{Cut, Tokens, manifest::Rejected},
    prepare::{self, Split},
};

use super::{Usage, fetch::fetch, output::table, progress::Style};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make manifests of a corpus: train.jsonl, dev.jsonl, test.jsonl
    Import(import::Args),
    /// Make recordings by speech synthesisers, with their manifests: digits and commands, phrases to translate, or the lines of a text
    #[command(alias = "synthesise")]
    Synthesize(synthesize::Args),
    /// Join short recordings into longer ones, to measure models by
    Join(join::Args),
    /// Add to rows of manifests the phonemes of what is said, which encoders may be held against
    Phonemes(phonemes::Args),
    /// Say what is in manifests: hours, lengths, tokens, languages, speakers
    Stats(stats::Args),
    /// Say what batches training will make of manifests: buckets, sizes, padding, rejected cuts
    Plan(Box<plan::Args>),
    /// Find what is wrong: recordings, texts, and what splits share
    Check(check::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Import(args) => import::run(args).map(|()| ExitCode::SUCCESS),
        Command::Synthesize(args) => synthesize::run(args).map(|()| ExitCode::SUCCESS),
        Command::Join(args) => join::run(args).map(|()| ExitCode::SUCCESS),
        Command::Phonemes(args) => phonemes::run(args).map(|()| ExitCode::SUCCESS),
        Command::Stats(args) => stats::run(args).map(|()| ExitCode::SUCCESS),
        Command::Plan(args) => plan::run(args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::run(args),
    }
}

/// Refuses a place for manifests before they are made; `with_texts` says that one of texts is among them.
fn check_out(out: &Path, overwrite: bool, with_texts: bool) -> anyhow::Result<()> {
    if out.exists() && !out.is_dir() {
        return Err(Usage(format!("--out {}: is a file; give a directory", out.display())).into());
    }
    if !overwrite {
        prepare::check_free(out, with_texts)?;
    }
    Ok(())
}

/// Where manifests that are made of others go, each under its name, which comes with it.
fn places(sources: &[PathBuf], out: &Path, overwrite: bool) -> Result<Vec<(PathBuf, String)>, Usage> {
    let mut places: Vec<(PathBuf, String)> = Vec::new();
    for source in sources {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let name = name.strip_suffix(".jsonl").unwrap_or(name).to_owned();
        let place = out.join(format!("{name}.jsonl"));
        if places.iter().any(|(taken, _)| *taken == place) {
            return Err(Usage(format!("two manifests are called {name}: take them one after the other")));
        }
        if place.exists() && !overwrite {
            let place = place.display();
            return Err(Usage(format!(
                "{place}: is there already; --overwrite replaces it, --out writes elsewhere"
            )));
        }
        places.push((place, name));
    }
    Ok(places)
}

/// What was written for each split.
fn by_split(splits: &BTreeMap<Split, Vec<Cut>>, out: &Path) -> String {
    let mut rows = vec![["SPLIT", "CUTS", "HOURS", "SPEAKERS", "LANGUAGES", "MANIFEST"].map(str::to_owned)];
    for (split, cuts) in splits {
        let manifest = out.join(format!("{}.jsonl", split.name()));
        rows.push(row(split.name(), cuts.iter(), manifest.display().to_string()));
    }
    if splits.len() > 1 {
        rows.push(row("all", splits.values().flatten(), String::new()));
    }
    table(&rows)
}

fn row<'a>(name: &str, cuts: impl Iterator<Item = &'a Cut>, manifest: String) -> [String; 6] {
    let (mut n_cuts, mut secs) = (0_usize, 0.0);
    let (mut speakers, mut languages) = (BTreeSet::<&Arc<str>>::new(), BTreeSet::<&str>::new());
    for cut in cuts {
        n_cuts += 1;
        secs += cut.duration_secs;
        speakers.extend(&cut.speaker);
        languages.insert(cut.language.as_deref().unwrap_or("?"));
    }
    let speakers = if speakers.is_empty() { "?".to_owned() } else { speakers.len().to_string() };
    let languages = languages.into_iter().collect::<Vec<_>>().join(" ");
    [name.to_owned(), n_cuts.to_string(), hours(secs), speakers, languages, manifest]
}

/// The unit that `--tokenizer` names.
fn tokens(spec: &str, style: Style) -> anyhow::Result<Tokens> {
    match spec {
        "chars" => Ok(Tokens::Chars),
        "bytes" => Ok(Tokens::Bytes),
        model => {
            let source = model_source(model, style)?;
            let tokenizer =
                models::Tokenizer::from_source(&source).with_context(|| format!("tokenizer {model}"))?;
            Ok(Tokens::Model(Box::new(tokenizer)))
        }
    }
}

/// Where a model lies, fetched if need be.
fn model_source(model: &str, style: Style) -> anyhow::Result<BundleSource> {
    let config = Config::load(None).map_err(|error| Usage(error.to_string()))?;
    Ok(fetch(model, &config, style)?)
}

/// Tells of cuts that count less than they should, or not at all.
fn warn_of_skipped(style: Style, unspelled: Option<&(u64, String)>, rejected: &[Rejected]) {
    if let Some((n_cuts, first)) = unspelled {
        style.note(&format!(
            "warning: {n_cuts} texts cannot be spelled and count as 0 tokens; the first: {first}"
        ));
    }
    if let Some(first) = rejected.first() {
        style.note(&format!("warning: {} rows cannot be used; the first: {first}", rejected.len()));
    }
}

/// A length for a table.
fn hours(secs: f64) -> String {
    let hours = secs / 3600.0;
    if hours < 10.0 { format!("{hours:.3}") } else { format!("{hours:.1}") }
}

/// The reasons for which rows were skipped, and how often, the most frequent first.
fn by_kind<'a>(kinds: impl Iterator<Item = &'a str>) -> Vec<(&'a str, usize)> {
    let mut counts = BTreeMap::<_, usize>::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_have_as_many_digits_as_matter() {
        assert_eq!([hours(36.0), hours(3600.0), hours(360_000.0)], ["0.010", "1.000", "100.0"]);
    }
}
