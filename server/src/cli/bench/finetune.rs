//! `speechd bench finetune`: how fast a model is trained here, and beside torch if there is one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
};

use anyhow::{Context, bail};
use audio::{Waveform, encode::wav_bytes};
use models::{Bundle, BundleSource, Task, params::TrainedPart};
use recipes::{
    config::{RunConfig, StrategyConfig, list_setting, text_setting},
    run::{self, Progress},
    train::Event,
};
use serde::{Deserialize, Serialize};

use super::{
    super::{
        Usage,
        fetch::{fetch, named_or_own},
        output::print,
        progress::{Style, bytes},
    },
    middle,
};
use crate::{config::Config, process};

/// What the same updates are in torch.
const TORCH: &str = include_str!("finetune.py");

const EXAMPLES: &str = "\
Examples:
  speechd bench finetune --model ./my-whisper
  speechd bench finetune --model ./my-whisper --strategy lora --batch 4
  speechd bench finetune --model ./my-whisper --beside python3      # and the same updates in torch and transformers

Recordings are noise of the length of the model's window; the first update is not counted.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The model to train: a directory or a hub id [default: digits-en]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// What of it is trained: full, lora or frozen-encoder
    #[arg(long, value_name = "NAME", default_value = "full")]
    strategy: String,
    /// Recordings in an update
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Updates that are timed
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// A Python with torch and transformers (and peft, for lora) to run the same updates in
    #[arg(long, value_name = "PYTHON")]
    beside: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Serialize)]
struct Report {
    strategy: String,
    n_parameters: usize,
    batch: u16,
    tokens: usize,
    step_secs: f64,
    x_real_time: f64,
    peak_bytes: Option<u64>,
    torch_n_parameters: Option<usize>,
    torch_step_secs: Option<f64>,
    torch_peak_bytes: Option<u64>,
    /// Our time over torch's.
    ratio: Option<f64>,
}

#[derive(Deserialize)]
struct Torch {
    step_secs: Vec<f64>,
    peak_bytes: Option<u64>,
    n_parameters: usize,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let style = Style::new(args.quiet);
    let settings = Config::load(None).map_err(|error| Usage(error.to_string()))?;
    let name = named_or_own(args.model.as_deref().unwrap_or_default(), Task::Transcribe)?;
    let base = fetch(name, &settings, style)?;
    if args.beside.is_some() && !matches!(base, BundleSource::Dir(_)) {
        let message =
            format!("--beside: transformers reads a directory, and {name} is none; name one by --model");
        return Err(Usage(message).into());
    }
    let bundle = Bundle::from_source(base.clone())?;
    let window_secs = bundle.description().window_secs();
    let language = bundle.description().languages()?.first().cloned().unwrap_or_else(|| "en".to_owned());

    let folder = tempfile::tempdir().context("no folder for the recordings")?;
    let manifest = record(folder.path(), usize::from(args.batch), window_secs, &language)?;
    let set = |key: &str, value: String| format!("{key}={value}");
    let mut config = RunConfig::load(
        Some(Path::new("finetune")),
        &[
            text_setting("strategy.kind", &args.strategy),
            text_setting("model.base", name),
            text_setting("data.language", &language),
            list_setting("data.train", [manifest.display().to_string()]),
            set("sampler.batch_secs", format!("{:?}", window_secs * f64::from(args.batch) + 0.5)),
            set("sampler.max_items", args.batch.to_string()),
            set("sampler.n_duration_buckets", "1".to_owned()),
            set("sampler.n_token_buckets", "0".to_owned()),
            // As torch does it beside.
            set("join.max_cuts", "1".to_owned()),
            set("loss.ctc.weight", "0".to_owned()),
            set("train.max_epochs", "0".to_owned()),
            set("train.max_steps", (args.steps + 1).to_string()),
            set("train.evaluate_every", "0".to_owned()),
            set("train.save_every", "0".to_owned()),
        ],
    )
    .map_err(|error| Usage(error.to_string()))?;
    config.augment = Default::default();
    let (mut times, mut audio_secs, mut tokens) = (Vec::new(), 0.0, 0);
    let go_on = AtomicBool::new(false);
    let outcome =
        run::run("bench", &config, base.clone(), &folder.path().join("run"), &go_on, &mut |told| {
            if let Progress::Training(Event::Step(step)) = told {
                times.push(step.busy_secs - step.wait_secs);
                audio_secs = step.extent.padded_secs;
                tokens = step.extent.padded_tokens / step.extent.n_cuts.max(1);
            }
        })?;
    let step_secs = middle(times.split_off(1.min(times.len())));
    let peak_bytes = process::peak_memory_bytes();
    let torch = match &args.beside {
        Some(python) => Some(beside(python, &base.path(""), args, tokens, &config.strategy)?),
        None => None,
    };
    let torch_step_secs =
        torch.as_ref().map(|torch| middle(torch.step_secs.iter().skip(1).copied().collect()));
    let report = Report {
        strategy: args.strategy.clone(),
        n_parameters: outcome.n_parameters,
        batch: args.batch,
        tokens,
        step_secs,
        x_real_time: audio_secs / step_secs.max(1e-9),
        peak_bytes,
        torch_n_parameters: torch.as_ref().map(|torch| torch.n_parameters),
        torch_step_secs,
        torch_peak_bytes: torch.and_then(|torch| torch.peak_bytes),
        ratio: torch_step_secs.map(|torch| step_secs / torch),
    };
    print(&if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { describe(&report) })
}

/// Noise, and texts of some twenty words.
fn record(folder: &Path, n_clips: usize, secs: f64, language: &str) -> anyhow::Result<PathBuf> {
    const RATE: u32 = 16_000;
    let mut rows = String::new();
    for clip in 0..n_clips {
        let mut state = clip as u32 + 1;
        let samples = (0..(secs * f64::from(RATE)) as usize).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0 * 0.2 - 0.1
        });
        let waveform = Waveform { samples: samples.collect(), sample_rate: RATE };
        let path = folder.join(format!("{clip}.wav"));
        fs::write(&path, wav_bytes(&waveform)?).with_context(|| path.display().to_string())?;
        let text = vec!["seven"; (secs * 0.7) as usize + 1].join(" ");
        let row = serde_json::json!({
            "id": clip.to_string(), "audio_filepath": path, "duration": waveform.duration_secs(), "text": text,
            "lang": language,
        });
        rows += &format!("{row}\n");
    }
    let path = folder.join("noise.jsonl");
    fs::write(&path, rows).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// The same updates in torch.
fn beside(
    python: &Path,
    model: &Path,
    args: &Args,
    tokens: usize,
    strategy: &StrategyConfig,
) -> anyhow::Result<Torch> {
    let bundle = Bundle::open(model)?;
    bundle.architecture().require_whisper("the comparison with torch")?;
    let TrainedPart { frozen, lora } = strategy.part(bundle.architecture(), 0);
    let part = serde_json::to_string(&(frozen, lora.map(|(lora, _)| lora)))?;
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let output = Command::new(python)
        .args(["-c", TORCH])
        .arg(model)
        .args(
            [usize::from(args.batch), tokens, usize::from(args.steps) + 1, n_threads].map(|n| n.to_string()),
        )
        .arg(part)
        .output()
        .with_context(|| format!("{} cannot be run", python.display()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", python.display(), errors.lines().last().unwrap_or("it failed without a word"));
    }
    serde_json::from_slice(&output.stdout).context("torch's side printed no figures")
}

fn describe(report: &Report) -> String {
    let memory = |peak: Option<u64>| peak.map_or_else(|| "-".to_owned(), bytes);
    let mut text = format!(
        "strategy {}, {:.2} million parameters trained, {} recordings and {} tokens each in an update\n\
         speechd: {:.3} s an update, {:.1} x real time, {} at its peak\n",
        report.strategy,
        report.n_parameters as f64 / 1e6,
        report.batch,
        report.tokens,
        report.step_secs,
        report.x_real_time,
        memory(report.peak_bytes),
    );
    if let (Some(secs), Some(n_parameters), Some(ratio)) =
        (report.torch_step_secs, report.torch_n_parameters, report.ratio)
    {
        text += &format!(
            "torch:   {secs:.3} s an update of {:.2} million parameters, {} at its peak; speechd takes {ratio:.2} x its time\n",
            n_parameters as f64 / 1e6,
            memory(report.torch_peak_bytes)
        );
    }
    text
}
