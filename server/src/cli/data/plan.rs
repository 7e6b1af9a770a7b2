//! `speechd data plan`: the batches that a training run will make of manifests, and what they waste.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use models::Bundle;
use recipes::data::{
    BatchSizeSearch, BucketEstimate, BucketPlan, Comparison, Constraint, Fit, LengthLimits, Lengths,
    ModelDims, PlanOptions, Sampler, SamplerConfig, TokensPerPosition, TrainingMemory, compare, table_within,
};
use serde::Serialize;

use super::{
    super::{
        Usage,
        manifests::manifests,
        output::{print, write_file},
        progress::{Items, Style},
    },
    hours, model_source, tokens,
};

const EXAMPLES: &str = "\
Examples:
  speechd data plan data/train.jsonl --batch-secs 240 --tokenizer openai/whisper-base --prompt-tokens 4
  speechd data plan data/train.jsonl --memory-gb 24 --tokenizer openai/whisper-base --prompt-tokens 4
  speechd data plan data/train.jsonl --max-secs 30 --ctc-position-secs 0.08
  speechd data plan data/train.jsonl --compare --svg plots/

Cuts of like duration, and of like numbers of tokens, share batches. A batch costs its cuts times the longest of them, and what a cut
adds to the longest is padding. Rejected cuts are counted by language: strict buckets drop fast speakers without a word.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Manifests, or directories of them
    #[arg(required = true, value_name = "MANIFESTS")]
    manifests: Vec<PathBuf>,
    /// What to count texts in: chars, bytes, or the tokens of a model (a directory or a hub id)
    #[arg(short, long, value_name = "chars|bytes|MODEL", default_value = "chars")]
    tokenizer: String,
    /// Tokens that the model writes around each text: its prompt and its end
    #[arg(long, value_name = "N", default_value_t = 0)]
    prompt_tokens: u32,

    /// Most audio in a batch, padding included, seconds
    #[arg(long, value_parser = positive, value_name = "SECS", default_value_t = 120.0, help_heading = "Batches")]
    batch_secs: f64,
    /// Duration that counts double, as attention costs its square: 15 to 40 for transformers
    #[arg(long, value_parser = positive, value_name = "SECS", help_heading = "Batches")]
    quadratic_secs: Option<f64>,
    /// Most cuts in a batch
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Batches")]
    max_items: Option<usize>,
    /// Duration buckets; fewer for a corpus of a few hours
    #[arg(long, value_parser = at_least_one, value_name = "N", default_value_t = BucketEstimate::default().n_duration_buckets, help_heading = "Batches")]
    duration_buckets: usize,
    /// Token buckets within each; 0 looks at durations alone
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Batches")]
    token_buckets: usize,
    /// Put cuts with many tokens into buckets of longer ones instead of rejecting them
    #[arg(long, help_heading = "Batches")]
    lenient: bool,
    /// Let batches be as large as fits into so much memory, by arithmetic, when the model of --tokenizer is trained
    #[arg(long, value_name = "GB", value_parser = positive, conflicts_with_all = ["batch_secs", "quadratic_secs", "max_items", "compare"], help_heading = "Batches")]
    memory_gb: Option<f64>,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value_t = Dtype::Bf16, requires = "memory_gb", help_heading = "Batches")]
    dtype: Dtype,
    /// Compute activations again in the backward pass instead of keeping them
    #[arg(long, requires = "memory_gb", help_heading = "Batches")]
    gradient_checkpointing: bool,
    /// Machines or GPUs that train together
    #[arg(long, value_parser = at_least_one, value_name = "N", default_value_t = 1, help_heading = "Batches")]
    ranks: usize,
    /// Seed of the order of cuts
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Batches")]
    seed: u64,

    /// Reject shorter cuts
    #[arg(long, value_parser = from_zero, value_name = "SECS", default_value_t = 0.0, help_heading = "Limits")]
    min_secs: f64,
    /// Reject longer cuts
    #[arg(long, value_parser = positive, value_name = "SECS", help_heading = "Limits")]
    max_secs: Option<f64>,
    /// Reject cuts with fewer tokens
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Limits")]
    min_tokens: u32,
    /// Reject cuts with more tokens
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_tokens: Option<u32>,
    /// Reject slower speech: often a transcript that lacks a part
    #[arg(long, value_parser = from_zero, value_name = "RATE", default_value_t = 0.0, help_heading = "Limits")]
    min_tokens_per_sec: f64,
    /// Reject faster speech: often a transcript of more than there is
    #[arg(long, value_parser = positive, value_name = "RATE", help_heading = "Limits")]
    max_tokens_per_sec: Option<f64>,
    /// Reject cuts with more tokens than encoder positions of so many seconds, which CTC cannot write
    #[arg(long, value_parser = positive, value_name = "SECS", help_heading = "Limits")]
    ctc_position_secs: Option<f64>,

    /// Compare with random and sorted batches, and with buckets of durations alone
    #[arg(long)]
    compare: bool,
    /// Draw the comparison into DIR as SVG
    #[arg(long, value_name = "DIR", requires = "compare")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// A number format.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    /// Four bytes
    F32,
    /// Two bytes, and a master copy of four of each weight
    Bf16,
}

impl Dtype {
    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl Args {
    fn constraint(&self) -> Constraint {
        Constraint::Duration {
            max_secs: self.batch_secs,
            quadratic_secs: self.quadratic_secs,
            max_items: self.max_items,
        }
    }

    fn limits(&self) -> LengthLimits {
        LengthLimits {
            min_duration_secs: self.min_secs,
            max_duration_secs: self.max_secs,
            min_tokens: self.min_tokens,
            max_tokens: self.max_tokens,
            min_tokens_per_sec: self.min_tokens_per_sec,
            max_tokens_per_sec: self.max_tokens_per_sec,
            tokens_per_position: self.ctc_position_secs.map(|position_secs| TokensPerPosition {
                position_secs,
                max: 1.0,
                n_unsaid: 0,
            }),
        }
    }

    /// What training the model of `--tokenizer` needs, where memory is to decide.
    fn memory(&self, style: Style) -> anyhow::Result<Option<TrainingMemory>> {
        let Some(memory_gb) = self.memory_gb else { return Ok(None) };
        if matches!(&*self.tokenizer, "chars" | "bytes") {
            let message = "--memory-gb: what fits depends on the model; name it by --tokenizer MODEL";
            return Err(Usage(message.to_owned()).into());
        }
        let bundle = Bundle::from_source(model_source(&self.tokenizer, style)?)?;
        bundle.architecture().require_whisper("--memory-gb").map_err(|error| Usage(error.to_string()))?;
        let dims = ModelDims::of(bundle.description(), bundle.weights().n_parameters() as u64);
        Ok(Some(TrainingMemory {
            gradient_checkpointing: self.gradient_checkpointing,
            ..TrainingMemory::new(dims, self.dtype.bytes(), memory_gb)
        }))
    }

    fn estimate(&self) -> BucketEstimate {
        BucketEstimate {
            n_duration_buckets: self.duration_buckets,
            n_token_buckets: Some(self.token_buckets).filter(|n| *n > 0),
            fit: if self.lenient { Fit::Lenient } else { Fit::Strict },
            ..BucketEstimate::default()
        }
    }
}

#[derive(Serialize)]
struct Json {
    unit: &'static str,
    plan: BucketPlan,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Comparison>,
}

fn positive(text: &str) -> Result<f64, String> {
    from_zero(text).ok().filter(|number| *number > 0.0).ok_or_else(|| "expected a number above 0".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a whole number above 0".to_owned())
}

fn from_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "expected a number, 0 or more".to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let limits = args.limits();
    limits.check().map_err(|error| Usage(error.to_string()))?;
    let style = Style::new(args.quiet);
    let paths = manifests(&args.manifests)?;
    // Before manifests are read, which may take a while.
    let memory = args.memory(style)?;
    let tokens = tokens(&args.tokenizer, style)?;
    let mut progress = Items::start(style, "counting", None);
    let found =
        Lengths::read(&paths, &tokens, args.prompt_tokens, &mut |n_cuts| progress.update(n_cuts as usize));
    progress.clear();
    let found = found?;
    super::warn_of_skipped(style, found.unspelled.as_ref(), &found.rejected);
    let estimate = args.estimate();
    let table = table_within(&found.lengths, &limits, &estimate)
        .context("no buckets (--duration-buckets, --token-buckets and the limits make them)")?;
    let (table, constraint) = match memory {
        Some(mut memory) => {
            let search = BatchSizeSearch { max_tokens: args.max_tokens, ..BatchSizeSearch::default() };
            let (table, batch_sizes) = search.fit(&table, &found.lengths, &mut memory)?;
            (table, Constraint::BatchSizes { batch_sizes })
        }
        None => (table, args.constraint()),
    };
    let config = SamplerConfig { limits, world_size: args.ranks, ..SamplerConfig::new(constraint) };
    let sampler = Sampler::new(found.lengths.clone(), table, config, args.seed)?;
    let plan = BucketPlan::new(&sampler, |item| found.language(item))?;
    let comparison = args.compare.then(|| {
        let kept: Vec<_> =
            found.lengths.iter().copied().filter(|length| limits.admit(*length).is_ok()).collect();
        compare(&kept, &PlanOptions { constraint: args.constraint(), estimate, seed: args.seed })
    });
    let comparison = comparison.transpose()?;
    if let (Some(folder), Some(comparison)) = (&args.svg, &comparison) {
        write_file(&folder.join("padding.svg"), &comparison.to_svg()?)?;
    }
    if args.json {
        let json = Json { unit: tokens.unit(), plan, comparison };
        return print(&(serde_json::to_string_pretty(&json)? + "\n"));
    }
    let total_secs: f64 = found.lengths.iter().map(|length| length.duration_secs).sum();
    let comparison = comparison.map(|comparison| format!("\n{comparison}")).unwrap_or_default();
    let unit = match tokens.unit() {
        "tokens" => format!("tokens of {}", args.tokenizer),
        unit => unit.to_owned(),
    };
    let n_cuts = found.lengths.len();
    print(&format!("{n_cuts} cuts, {} hours, texts in {unit}\n\n{plan}{comparison}", hours(total_secs)))
}
