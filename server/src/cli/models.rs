//! `speechd models`: what is in the cache, fetching, describing.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{
    Usage,
    fetch::fetch,
    output::{print, table},
    progress::{Download, Style, bytes},
};
use crate::{
    config::Config,
    registry::{self, Hub, Name, Summary},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the models in the cache
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model, or what changed in it, and print where it lies
    #[command(after_help = "Example: speechd models pull openai/whisper-base")]
    Pull {
        /// A hub id: ORGANISATION/NAME[@REVISION]
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Describe a model: architecture, size, languages, files
    #[command(after_help = "Example: speechd models inspect ./my-whisper --json")]
    Inspect {
        /// A directory or a hub id
        #[arg(value_name = "PATH_OR_ID")]
        model: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let hub = Hub::new(config.hub_options());
    let style = Style::new(args.quiet);
    match &args.command {
        Command::List { json } => list(&hub, *json),
        Command::Pull { id } => {
            let repository = match Name::parse(id)? {
                Name::Repository(repository) => repository,
                Name::Directory(path) => {
                    return Err(
                        Usage(format!("{} is a directory here; nothing to fetch", path.display())).into()
                    );
                }
            };
            let mut download = Download::new(style);
            let path = hub.pull(&repository, &mut |at| download.update(at));
            download.clear();
            print(&format!("{}\n", path?.display()))
        }
        Command::Inspect { model, json } => {
            let summary = Summary::open(&fetch(model, &config, style)?)?;
            print(&if *json { serde_json::to_string_pretty(&summary)? + "\n" } else { describe(&summary) })
        }
    }
}

#[derive(Serialize)]
struct Entry {
    id: String,
    revision: String,
    architecture: String,
    bytes: u64,
    path: PathBuf,
}

fn list(hub: &Hub, json: bool) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for cached in hub.cache().list()? {
        let revision = if cached.revisions.is_empty() { cached.commit } else { cached.revisions.join(",") };
        // The cache is shared: what others left there may be anything.
        let architecture = registry::architecture(&cached.path).unwrap_or_else(|_| "?".to_owned());
        let bytes = registry::size_bytes(&cached.path)?;
        entries.push(Entry { id: cached.id, revision, architecture, bytes, path: cached.path });
    }
    if json {
        return print(&(serde_json::to_string_pretty(&entries)? + "\n"));
    }
    let mut rows = vec![["MODEL", "REVISION", "ARCHITECTURE", "SIZE", "PATH"].map(str::to_owned)];
    rows.extend(entries.into_iter().map(|entry| {
        let path = entry.path.display().to_string();
        [entry.id, entry.revision, entry.architecture, bytes(entry.bytes), path]
    }));
    print(&table(&rows))
}

fn describe(summary: &Summary) -> String {
    let mut lines = vec![
        ["path".to_owned(), summary.path.display().to_string()],
        ["architecture".to_owned(), summary.architecture.clone()],
    ];
    let mut line = |name: &str, value: String| lines.push([name.to_owned(), value]);
    let dtypes: Vec<_> =
        summary.dtypes.iter().map(|(dtype, elements)| format!("{elements} {dtype}")).collect();
    line("parameters", format!("{} ({})", summary.parameters, dtypes.join(", ")));
    for (name, value) in &summary.dimensions {
        line(name, value.to_string());
    }
    if !summary.languages.is_empty() {
        line("languages", format!("{}: {}", summary.languages.len(), summary.languages.join(" ")));
    }
    let features = &summary.features;
    line(
        "features",
        format!(
            "{} mel bands at {} Hz, n_fft {}, hop {}, window {} s",
            features.n_mels, features.sample_rate, features.n_fft, features.hop_samples, summary.window_secs
        ),
    );
    let files: Vec<_> = summary
        .files
        .iter()
        .map(|file| [file.name.clone(), bytes(file.bytes), format!("sha256:{}", file.sha256)])
        .collect();
    format!("{}\n{}", table(&lines), table(&files))
}
