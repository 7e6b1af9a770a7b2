//! `speechd models`: what is in the cache, fetching, describing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use candle_core::Device;
use clap::{Subcommand, ValueEnum};
use models::{
    BUNDLED, Bundle, BundleSource, Kind, WeightDtype, bundled, import_nemo, write_ggml, write_weights,
};
use serde::Serialize;

use super::{
    Usage,
    fetch::fetch,
    output::{print, table, write_new},
    progress::{Download, Style, bytes},
};
use crate::{
    config::Config,
    registry::{self, FileSummary, Hub, Name, PrecisionCosts, SpeakerSummary, Summary},
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

const EXPORT: &str = "\
Example: speechd models export runs/finetune-ps/model --format ggml --out ps.bin

Hugging Face's libraries open models as they are, without an export. So does CTranslate2's own converter:
  ct2-transformers-converter --model runs/finetune-ps/model --output_dir ps-ct2 --copy_files tokenizer.json preprocessor_config.json";

/// A format of another program.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExportFormat {
    /// One .bin file for whisper.cpp
    Ggml,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the models at hand: part of the program, and in the cache
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
    /// Add an adapter's updates to its base's weights: a model of its own
    #[command(after_help = "Example: speechd models merge runs/finetune-ps/adapter --out ps-merged")]
    Merge {
        /// The adapter's directory (adapter_config.json, adapter_model.safetensors)
        #[arg(value_name = "ADAPTER")]
        adapter: String,
        /// Write the model into DIR
        #[arg(short, long, value_name = "DIR")]
        out: PathBuf,
        /// Halve the size: 16-bit numbers
        #[arg(long)]
        f16: bool,
    },
    /// Make a model's directory of another program's file: NVIDIA NeMo's .nemo (FastConformer CTC, Canary)
    #[command(after_help = "Example: speechd models import canary-1b-flash.nemo --out canary-1b-flash")]
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Write the model into DIR
        #[arg(short, long, value_name = "DIR")]
        out: PathBuf,
        /// Halve the size: 16-bit numbers
        #[arg(long)]
        f16: bool,
    },
    /// Write a model in another program's format
    #[command(after_help = EXPORT)]
    Export {
        /// A directory, a hub id, or an adapter's directory
        #[arg(value_name = "PATH_OR_ID")]
        model: String,
        /// The format
        #[arg(long, value_enum)]
        format: ExportFormat,
        /// Write it into FILE
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Describe a model: architecture, size, languages, voices, files
    #[command(after_help = "Example: speechd models inspect ./my-whisper --json")]
    Inspect {
        /// A directory, a hub id, or a model that is part of the program, such as digits-en
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
                Name::Bundled(name) => {
                    return Err(Usage(format!("{name} is part of the program; nothing to fetch")).into());
                }
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
        Command::Merge { adapter, out, f16 } => {
            let source = fetch(adapter, &config, style)?;
            if !matches!(source, BundleSource::Adapted { .. }) {
                return Err(Usage(format!("{adapter} is no adapter; there is nothing to merge")).into());
            }
            merge(source, out, dtype(*f16))?;
            print(&format!("{}\n", out.display()))
        }
        Command::Import { file, out, f16 } => {
            write_new(out, |unfinished| {
                std::fs::create_dir(unfinished).with_context(|| unfinished.display().to_string())?;
                Ok(import_nemo(file, unfinished, dtype(*f16))?)
            })?;
            print(&format!("{}\n", out.display()))
        }
        Command::Export { model, format: ExportFormat::Ggml, out } => {
            let bundle = Bundle::from_source(fetch(model, &config, style)?)?;
            write_new(out, |unfinished| Ok(write_ggml(&bundle, unfinished)?))?;
            print(&format!("{}\n", out.display()))
        }
        Command::Inspect { model, json } => {
            let source = fetch(model, &config, style)?;
            let inspected = Inspected::open(&source)?;
            print(&if *json {
                serde_json::to_string_pretty(&inspected)? + "\n"
            } else {
                match &inspected {
                    Inspected::Hears { summary, precision } => describe(summary, precision.as_ref()),
                    Inspected::Speaks(summary) => describe_speaker(summary),
                }
            })
        }
    }
}

/// What `inspect` prints.
#[derive(Serialize)]
#[serde(untagged)]
enum Inspected {
    Hears {
        #[serde(flatten)]
        summary: Box<Summary>,
        /// What its precisions cost, where that was measured.
        precision: Option<PrecisionCosts>,
    },
    Speaks(SpeakerSummary),
}

impl Inspected {
    fn open(source: &BundleSource) -> anyhow::Result<Self> {
        Ok(match Kind::of(source)? {
            Kind::Hears => {
                let precision = PrecisionCosts::read(source)?;
                Self::Hears { summary: Box::new(Summary::open(source)?), precision }
            }
            Kind::Speaks => Self::Speaks(SpeakerSummary::open(source)?),
            Kind::Vocodes => bail!(
                "{source} is a vocoder alone, which turns features into sound; inspect the model that speaks with it"
            ),
        })
    }
}

fn dtype(f16: bool) -> WeightDtype {
    if f16 { WeightDtype::F16 } else { WeightDtype::F32 }
}

/// Writes a model of its own.
fn merge(source: BundleSource, out: &Path, dtype: WeightDtype) -> anyhow::Result<()> {
    let bundle = Bundle::from_source(source)?;
    write_new(out, |unfinished| {
        std::fs::create_dir(unfinished).with_context(|| unfinished.display().to_string())?;
        bundle.description().source().copy_description(unfinished)?;
        Ok(write_weights(unfinished, &bundle.weights().read_all(&Device::Cpu)?, dtype)?)
    })
}

#[derive(Serialize)]
struct Entry {
    id: String,
    revision: String,
    architecture: String,
    bytes: u64,
    /// None of what is part of the program.
    path: Option<PathBuf>,
}

fn list(hub: &Hub, json: bool) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for name in BUNDLED {
        let source = bundled(name).with_context(|| format!("{name} is not part of this program"))?;
        let architecture = registry::architecture(&source)?;
        let bytes = registry::files(&source)?.iter().map(|file| file.bytes).sum();
        let revision = env!("CARGO_PKG_VERSION").to_owned();
        entries.push(Entry { id: (*name).to_owned(), revision, architecture, bytes, path: None });
    }
    for cached in hub.cache().list()? {
        let revision = if cached.revisions.is_empty() { cached.commit } else { cached.revisions.join(",") };
        // The cache is shared: what others left there may be anything.
        let architecture =
            registry::architecture(&cached.path.as_path().into()).unwrap_or_else(|_| "?".to_owned());
        let bytes = registry::size_bytes(&cached.path)?;
        entries.push(Entry { id: cached.id, revision, architecture, bytes, path: Some(cached.path) });
    }
    if json {
        return print(&(serde_json::to_string_pretty(&entries)? + "\n"));
    }
    let mut rows = vec![["MODEL", "REVISION", "ARCHITECTURE", "SIZE", "PATH"].map(str::to_owned)];
    rows.extend(entries.into_iter().map(|entry| {
        let path = entry.path.map_or_else(|| "in the program".to_owned(), |path| path.display().to_string());
        [entry.id, entry.revision, entry.architecture, bytes(entry.bytes), path]
    }));
    print(&table(&rows))
}

/// How many numbers of which formats there are.
fn parameters(n_parameters: u64, dtypes: &BTreeMap<String, u64>) -> String {
    let dtypes: Vec<_> = dtypes.iter().map(|(dtype, elements)| format!("{elements} {dtype}")).collect();
    format!("{n_parameters} ({})", dtypes.join(", "))
}

fn describe_speaker(summary: &SpeakerSummary) -> String {
    let line = |name: &str, value: String| [name.to_owned(), value];
    let lines = [
        line("path", summary.path.display().to_string()),
        line("architecture", summary.architecture.clone()),
        line("parameters", parameters(summary.parameters, &summary.dtypes)),
        line("speaks", format!("{}: {}", summary.languages.len(), summary.languages.join(" "))),
        line("voices", format!("{}: {}", summary.voices.len(), summary.voices.join(" "))),
        line("sample rate", format!("{} Hz", summary.sample_rate)),
    ];
    format!("{}\n{}", table(&lines), file_table(&summary.files))
}

fn file_table(files: &[FileSummary]) -> String {
    let row = |file: &FileSummary| [file.name.clone(), bytes(file.bytes), format!("sha256:{}", file.sha256)];
    table(&files.iter().map(row).collect::<Vec<_>>())
}

fn describe(summary: &Summary, precision: Option<&PrecisionCosts>) -> String {
    let mut lines = vec![
        ["path".to_owned(), summary.path.display().to_string()],
        ["architecture".to_owned(), summary.architecture.clone()],
    ];
    let mut line = |name: &str, value: String| lines.push([name.to_owned(), value]);
    line("parameters", parameters(summary.parameters, &summary.dtypes));
    for (name, value) in &summary.dimensions {
        line(name, value.to_string());
    }
    if !summary.languages.is_empty() {
        line("languages", format!("{}: {}", summary.languages.len(), summary.languages.join(" ")));
    }
    if summary.source_languages.len() < summary.languages.len() {
        line("understands", summary.source_languages.join(" "));
    }
    if !summary.translation_languages.is_empty() {
        line("translates into", summary.translation_languages.join(" "));
    }
    if summary.beam_size > 1 {
        line("beam size", summary.beam_size.to_string());
    }
    let features = &summary.features;
    line(
        "features",
        format!(
            "{} mel bands at {} Hz, n_fft {}, hop {}, window {} s",
            features.n_mels, features.sample_rate, features.n_fft, features.hop_samples, summary.window_secs
        ),
    );
    if let Some(costs) = precision {
        let percent =
            |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.2} %", 100.0 * rate));
        for cost in &costs.precisions {
            let rates = cost.error_rates.iter().map(|rates| {
                format!("{}: WER {}, CER {}", rates.normaliser, percent(rates.wer), percent(rates.cer))
            });
            let rates = rates.collect::<Vec<_>>().join("; ");
            line(
                &cost.precision,
                format!("{} of the words are the same; {rates}", percent(Some(cost.same_words))),
            );
        }
        let n = costs.n_recordings;
        line(
            "measured on",
            format!(
                "{} ({n} recordings, {:.0} s, beam of {})",
                costs.manifests.join(", "),
                costs.audio_secs,
                costs.beam_size
            ),
        );
    }
    format!("{}\n{}", table(&lines), file_table(&summary.files))
}
