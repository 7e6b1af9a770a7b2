//! `speechd data stats`: what manifests hold, as tables, bars and drawings.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use recipes::{
    data::{
        Histogram,
        stats::{Quantiles, Stats, Sum, stats},
    },
    plot,
};
use serde::Serialize;

use super::{
    super::{
        manifests::manifests_and_texts,
        output::{print, table, write_file},
        progress::{Items, Style},
    },
    by_kind, hours, tokens,
};

const EXAMPLES: &str = "\
Examples:
  speechd data stats data/
  speechd data stats data/train.jsonl --tokenizer openai/whisper-base --svg plots/
  speechd data stats data/ --tokenizer bytes --json | jq .durations_secs.p99";

/// Bins of a histogram, about.
const N_BINS: usize = 20;
/// Width of the longest bar, characters.
const BAR_WIDTH: usize = 50;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Manifests, or directories of them
    #[arg(required = true, value_name = "MANIFESTS")]
    manifests: Vec<PathBuf>,
    /// What to count texts in: chars, bytes, or the tokens of a model (a directory or a hub id)
    #[arg(short, long, value_name = "chars|bytes|MODEL", default_value = "chars")]
    tokenizer: String,
    /// Draw the histograms into DIR as SVG
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// List so many languages and speakers, the longest first
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let style = Style::new(args.quiet);
    let paths = manifests_and_texts(&args.manifests)?;
    let tokens = tokens(&args.tokenizer, style)?;
    let mut progress = Items::start(style, "counting", None);
    let found = stats(&paths, &tokens, &mut |n_cuts| progress.update(n_cuts as usize));
    progress.clear();
    let found = found?;
    super::warn_of_skipped(style, found.unspelled.as_ref(), &found.rejected);
    let Sum { n_cuts, n_texts, .. } = found.total;
    if n_texts > 0 {
        style.note(&format!("{n_texts} of {n_cuts} cuts are texts without a recording."));
    }
    if let Some(folder) = &args.svg {
        if n_cuts > 0 {
            draw(&found, tokens.unit(), folder)?;
        } else {
            style.note("warning: no cuts, so nothing was drawn");
        }
    }
    if args.json {
        return print(&(serde_json::to_string_pretty(&Json::from(&found, tokens.unit()))? + "\n"));
    }
    print(&describe(&found, tokens.unit(), args.top))
}

/// The distributions that are shown: name, unit, values.
fn distributions<'a>(stats: &'a Stats, unit: &'static str) -> [(String, &'static str, &'a [f32]); 3] {
    [
        ("duration".to_owned(), "secs", &*stats.durations_secs),
        (unit.to_owned(), unit, &*stats.tokens),
        (format!("{unit} per sec"), "1/s", &*stats.tokens_per_sec),
    ]
}

fn draw(stats: &Stats, unit: &'static str, folder: &Path) -> anyhow::Result<()> {
    for (name, unit, values) in distributions(stats, unit) {
        let file = folder.join(format!("{}.svg", name.replace(' ', "_")));
        let title = format!("{name}: {} cuts, {} hours", values.len(), hours(stats.total.total_secs));
        if values.is_empty() {
            // Texts without recordings have no lengths.
            continue;
        }
        let values = values.iter().copied().map(f64::from).collect();
        let plot = plot::Histogram { title, x_label: unit.to_owned(), n_bins: 2 * N_BINS, values };
        write_file(&file, &plot.to_svg()?)?;
    }
    Ok(())
}

fn describe(stats: &Stats, unit: &'static str, top: usize) -> String {
    let head = |name: &str| [name, "cuts", "hours", "mean secs", unit, "per sec"].map(str::to_uppercase);
    let mut rows = vec![head("manifest")];
    rows.extend(stats.by_manifest.iter().map(|(path, sum)| row(&path.display().to_string(), sum)));
    if stats.by_manifest.len() > 1 {
        rows.push(row("all", &stats.total));
    }
    let mut text = table(&rows);
    let mut rows =
        vec![["", "MIN", "5 %", "25 %", "50 %", "75 %", "95 %", "99 %", "MAX", "MEAN"].map(str::to_owned)];
    for (name, _, values) in distributions(stats, unit) {
        if let Some(q) = Quantiles::of(values) {
            let numbers = [q.min, q.p5, q.p25, q.p50, q.p75, q.p95, q.p99, q.max, q.mean]
                .map(|value| format!("{value:.2}"));
            rows.push(std::array::from_fn(|at| if at == 0 { name.clone() } else { numbers[at - 1].clone() }));
        }
    }
    text += &format!("\n{}", table(&rows));
    for (name, _, values) in distributions(stats, unit).into_iter().take(2) {
        if let Some(histogram) = Histogram::of(values.iter().copied().map(f64::from), N_BINS) {
            let name = if name == "duration" { "duration, secs" } else { &name };
            text += &format!("\n{}\n{}\n", name.to_uppercase(), histogram.bars(BAR_WIDTH).join("\n"));
        }
    }
    for (name, sums) in [("language", &stats.by_language), ("speaker", &stats.by_speaker)] {
        text += &format!("\n{}", table(&ranked(name, sums, top, head(name))));
    }
    text
}

/// The groups with most hours, and what is left.
fn ranked(
    name: &str,
    sums: &BTreeMap<Option<Arc<str>>, Sum>,
    top: usize,
    head: [String; 6],
) -> Vec<[String; 6]> {
    let mut order: Vec<_> = sums.iter().collect();
    order.sort_by(|a, b| b.1.total_secs.total_cmp(&a.1.total_secs));
    let mut rows = vec![head];
    rows.extend(order.iter().take(top).map(|(key, sum)| row(key.as_deref().unwrap_or("not stated"), sum)));
    let rest = order.iter().skip(top);
    if rest.len() > 0 {
        let label = format!("{} further {name}s", rest.len());
        let sum = rest.fold(Sum::default(), |all, (_, sum)| Sum {
            n_cuts: all.n_cuts + sum.n_cuts,
            total_secs: all.total_secs + sum.total_secs,
            n_tokens: all.n_tokens + sum.n_tokens,
            n_texts: all.n_texts + sum.n_texts,
            n_text_tokens: all.n_text_tokens + sum.n_text_tokens,
        });
        rows.push(row(&label, &sum));
    }
    rows
}

fn row(name: &str, sum: &Sum) -> [String; 6] {
    // Texts without a recording take no time.
    let mean_secs = sum.total_secs / (sum.n_cuts - sum.n_texts).max(1) as f64;
    let n_spoken = sum.n_tokens - sum.n_text_tokens;
    let per_sec = if sum.total_secs > 0.0 { n_spoken as f64 / sum.total_secs } else { 0.0 };
    [
        name.to_owned(),
        sum.n_cuts.to_string(),
        hours(sum.total_secs),
        format!("{mean_secs:.2}"),
        sum.n_tokens.to_string(),
        format!("{per_sec:.2}"),
    ]
}

#[derive(Serialize)]
struct Json<'a> {
    unit: &'static str,
    total: Sum,
    durations_secs: Option<Quantiles>,
    tokens: Option<Quantiles>,
    tokens_per_sec: Option<Quantiles>,
    manifests: Vec<Named<'a>>,
    languages: Vec<Named<'a>>,
    speakers: Vec<Named<'a>>,
    rejected: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
struct Named<'a> {
    /// `null` where it is not stated.
    name: Option<std::borrow::Cow<'a, str>>,
    #[serde(flatten)]
    sum: Sum,
}

impl<'a> Json<'a> {
    fn from(stats: &'a Stats, unit: &'static str) -> Self {
        let named = |sums: &'a BTreeMap<Option<Arc<str>>, Sum>| {
            sums.iter()
                .map(|(name, sum)| Named { name: name.as_deref().map(Into::into), sum: *sum })
                .collect()
        };
        let manifests = stats.by_manifest.iter();
        Self {
            unit,
            total: stats.total,
            durations_secs: Quantiles::of(&stats.durations_secs),
            tokens: Quantiles::of(&stats.tokens),
            tokens_per_sec: Quantiles::of(&stats.tokens_per_sec),
            manifests: manifests
                .map(|(path, sum)| Named { name: Some(path.to_string_lossy()), sum: *sum })
                .collect(),
            languages: named(&stats.by_language),
            speakers: named(&stats.by_speaker),
            rejected: by_kind(stats.rejected.iter().map(|rejected| rejected.reason.kind()))
                .into_iter()
                .collect(),
        }
    }
}
