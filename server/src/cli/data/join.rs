//! `speechd data join`: short recordings of a test set become longer ones.

use std::path::PathBuf;

use anyhow::Context;
use recipes::{
    data::manifest::{Needs, Writer},
    prepare::{JoinOptions, join_cuts},
};

use super::{
    super::{
        Usage,
        manifests::{manifests, read_cuts},
        output::{print, table},
        progress::{Items, Style},
    },
    hours, places,
};

const EXAMPLES: &str = "\
Examples:
  speechd data join cv-ps/test.jsonl --out cv-ps-long/
  speechd data join cv-ps/ --out cv-ps-long/ --min-chars 100 --max-secs 30

Recordings are joined within one manifest and one speaker, in their order; each manifest keeps its name, and the recordings, WAV, go to audio/
beside it. Training joins recordings itself ([join] in a recipe): this is for what models are measured by.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Manifests, or directories of them
    #[arg(required = true, value_name = "MANIFESTS")]
    manifests: Vec<PathBuf>,
    /// Write manifests and recordings into DIR
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Characters that a text has at least
    #[arg(long, value_name = "N", default_value_t = 40)]
    min_chars: usize,
    /// Seconds that a recording lasts at most
    #[arg(long, value_name = "SECS", default_value_t = 20.0)]
    max_secs: f64,
    /// Silence between two recordings
    #[arg(long, value_name = "SECS", default_value_t = 0.2)]
    pause_secs: f64,
    /// Sample rate of what is written, Hz
    #[arg(long, value_name = "HZ", default_value_t = 16_000)]
    sample_rate: u32,
    /// Replace manifests that are there
    #[arg(long)]
    overwrite: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    fn options(&self) -> Result<JoinOptions, Usage> {
        let Self { min_chars, max_secs, pause_secs, sample_rate, .. } = *self;
        if !(max_secs.is_finite() && max_secs > 0.0) {
            return Err(Usage(format!("--max-secs: {max_secs} is not a number above 0")));
        }
        if !(pause_secs.is_finite() && (0.0..=max_secs).contains(&pause_secs)) {
            return Err(Usage(format!(
                "--pause-secs: {pause_secs} is not between 0 and --max-secs, {max_secs}"
            )));
        }
        if !(1_000..=192_000).contains(&sample_rate) {
            return Err(Usage(format!("--sample-rate: {sample_rate} is not between 1000 and 192000 Hz")));
        }
        Ok(JoinOptions { min_chars, max_secs, pause_secs, sample_rate })
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (options, style) = (args.options()?, Style::new(args.quiet));
    let sources = manifests(&args.manifests)?;
    let places = places(&sources, &args.out, args.overwrite)?;
    let needs = Needs { text: true, transcript: true, recording: true, ..Needs::default() };
    let mut rows =
        vec![["MANIFEST", "CUTS", "OF", "LEFT OVER", "HOURS", "CHARACTERS EACH"].map(str::to_owned)];
    for (source, (place, name)) in sources.iter().zip(&places) {
        let cuts = read_cuts(std::slice::from_ref(source), needs, style)?;
        let mut progress = Items::start(style, &format!("joining {name}"), None);
        let folder = args.out.join("audio");
        let joined =
            join_cuts(&cuts, &options, &folder, name, &mut |done, all| progress.update_of(done, all));
        progress.clear();
        let (joined, n_left) = joined?;
        if joined.is_empty() {
            let message = format!(
                "no text of {} characters within {} s: lower --min-chars, or raise --max-secs",
                options.min_chars, options.max_secs
            );
            return Err(anyhow::anyhow!(message)).context(source.display().to_string());
        }
        let mut writer = Writer::create(place)?;
        joined.iter().try_for_each(|cut| writer.write(cut))?;
        writer.finish()?;
        let n_chars: usize = joined.iter().map(|cut| cut.text.chars().count()).sum();
        rows.push([
            place.display().to_string(),
            joined.len().to_string(),
            (cuts.len() - n_left).to_string(),
            n_left.to_string(),
            hours(joined.iter().map(|cut| cut.duration_secs).sum()),
            format!("{:.1}", n_chars as f64 / joined.len() as f64),
        ]);
    }
    print(&table(&rows))
}
