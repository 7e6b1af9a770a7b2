//! `speechd plan shape`: how to split a budget between encoder and decoder, learnt from a grid of small runs.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use recipes::{
    config::RunConfig,
    metrics::Resampling,
    shape::{
        Budget, Estimate, Recommendation, ShapeOptions, ShapePlan, ShapeRun, count, plan_shape, read_runs,
        runs_jsonl, shape_page,
    },
};

use super::{
    super::{
        Usage,
        output::{print, status_line, table, write_file},
        progress::Style,
        signals::stop_flag,
        train::STOPPED,
    },
    grid::Grid,
    timing,
};

/// Files in the plan's folder.
const TABLE: &str = "losses.jsonl";
const RESULT: &str = "shape.json";
const PAGE: &str = "shape.html";
/// Sound by which models are timed, where nobody says how much and the window holds it.
const AUDIO_SECS: f64 = 10.0;
/// Settings that the grid decides.
const OWN: [(&str, &str); 3] = [
    ("model.encoder_layers", "--encoder-layers"),
    ("model.decoder_layers", "--decoder-layers"),
    ("seed", "--seeds"),
];

const EXAMPLES: &str = "\
Examples:
  speechd plan shape my_recipe.toml --set train.max_steps=2000 --params 20M
  speechd plan shape my_recipe.toml --encoder-layers 2,4,8 --decoder-layers 1,2,4 --latency-ms 80 --tokens 40
  speechd plan shape --from runs/my_recipe-shape/losses.jsonl --params 50M

Every model of the grid is a run of the recipe with other depths and another seed, in a folder of its own; the same command goes on where it
was stopped, and trains nothing twice. What is fitted is the last evaluation of each, at equal updates:
  L(N_e, N_d) = \u{3b1} (N\u{304}_e/N_e)^p_e (N\u{304}_d/N_d)^p_d + L_\u{221e}
with the parameters of encoder and decoder, embeddings left out. Parameters are split by the exponents; a latency too, but
in time, so that the encoder, which runs once, gets more of them than the decoder, which runs for every token.
Exit code: 0 planned, 1 failed, 2 wrong arguments or settings, 3 stopped by a signal after saving.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A recipe that trains a small model from nothing: a TOML file, or one of those that are part of the program
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    recipe: Option<PathBuf>,
    /// Take runs from a table (.jsonl, .csv) instead of training: encoder_params, decoder_params, loss, and what else losses.jsonl has
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Change a setting of all runs, such as train.max_steps=2000
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "from")]
    settings: Vec<String>,
    /// The folder of runs, table, page and result [default: runs/RECIPE-shape]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Depths of encoders
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', default_value = "1,2,4", value_parser = layers, conflicts_with = "from", help_heading = "Grid")]
    encoder_layers: Vec<usize>,
    /// Depths of decoders
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', default_value = "1,2,4", value_parser = layers, conflicts_with = "from", help_heading = "Grid")]
    decoder_layers: Vec<usize>,
    /// Runs of each model, from the recipe's seed on; two or more show how much chance decides
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100), conflicts_with = "from", help_heading = "Grid")]
    seeds: u64,
    /// Which figure of held-out speech is fitted: cross_entropy, by which the decoder learns; or loss, the sum of all losses [default:
    /// cross_entropy]
    #[arg(long, value_name = "NAME", conflicts_with = "from", help_heading = "Grid")]
    figure: Option<String>,

    /// Parameters of encoder and decoder together, without embeddings, such as 20M
    #[arg(long, value_name = "N", value_parser = params, help_heading = "Budgets")]
    params: Option<f64>,
    /// Time of a recording, milliseconds
    #[arg(long, value_name = "MS", value_parser = positive, requires = "tokens", help_heading = "Budgets")]
    latency_ms: Option<f64>,
    /// Tokens that are written in that time
    #[arg(long, value_name = "U", value_parser = positive, requires = "latency_ms", help_heading = "Budgets")]
    tokens: Option<f64>,
    /// Length of the recording by which models are timed [default: 10, or the model's window]
    #[arg(long, value_name = "SECS", value_parser = positive, conflicts_with = "from", requires = "latency_ms", help_heading = "Budgets")]
    audio_secs: Option<f64>,
    /// Times that each is timed, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "from", help_heading = "Budgets")]
    bench_runs: u32,

    /// Times that runs are drawn anew for the intervals; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = Resampling::default().n_samples)]
    bootstrap: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

fn layers(text: &str) -> Result<usize, String> {
    let layers = text.trim().parse().ok().filter(|layers| (1..=1000).contains(layers));
    layers.ok_or_else(|| "expected depths from 1 to 1000, such as 1,2,4".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

/// `20M`, `1.5G`, `800k`, `2e7`.
fn params(text: &str) -> Result<f64, String> {
    let units = [('k', 1e3), ('K', 1e3), ('M', 1e6), ('G', 1e9), ('B', 1e9)];
    let unit = units.into_iter().find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)));
    let (digits, unit) = unit.unwrap_or((text, 1.0));
    let number = positive(digits.trim()).map(|number| number * unit);
    number.map_err(|_| "expected a number of parameters such as 20M, 800k or 2e7".to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let style = Style::new(args.quiet);
    let source = args.from.as_ref().or(args.recipe.as_ref());
    let name = source.and_then(|path| path.file_stem()).unwrap_or_default().to_string_lossy().into_owned();
    let dir = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("{name}-shape")));
    let runs = match &args.from {
        Some(table) => read_runs(table)?,
        None => match train(args, &name, &dir, style)? {
            Some(runs) => runs,
            None => {
                status_line(&format!("stopped; the same command goes on from {}", dir.display()));
                return Ok(ExitCode::from(STOPPED));
            }
        },
    };
    let resampling = Resampling { n_samples: args.bootstrap, ..Resampling::default() };
    let options = ShapeOptions { resampling, ..ShapeOptions::default() };
    let plan = plan_shape(&runs, &args.budgets(), &options)?;
    let title = format!("The shape of {name}");
    write_file(&dir.join(PAGE), &shape_page(&title, args.figure(), &plan)?)?;
    let json = serde_json::to_string_pretty(&plan)? + "\n";
    write_file(&dir.join(RESULT), &json)?;
    plan.warnings.iter().for_each(|line| status_line(&format!("mind: {line}")));
    print(&if args.json { json } else { describe(&plan, args.figure(), &dir) })?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// What is fitted; of a table nobody knows more than its column says.
    fn figure(&self) -> &str {
        let own = if self.from.is_some() { "loss" } else { "cross_entropy" };
        self.figure.as_deref().unwrap_or(own)
    }

    fn budgets(&self) -> Vec<Budget> {
        let latency = self.latency_ms.zip(self.tokens);
        let latency = latency.map(|(ms, n_tokens)| Budget::Latency { secs: ms / 1e3, n_tokens });
        self.params.map(Budget::Params).into_iter().chain(latency).collect()
    }
}

/// The results of the grid, also as a table; None where it was stopped.
fn train(args: &Args, name: &str, dir: &Path, style: Style) -> anyhow::Result<Option<Vec<ShapeRun>>> {
    for (key, flag) in OWN {
        if args
            .settings
            .iter()
            .any(|setting| setting.split('=').next().is_some_and(|name| name.trim() == key))
        {
            return Err(Usage(format!("--set {key}: the grid decides it; use {flag}")).into());
        }
    }
    let config =
        RunConfig::load(args.recipe.as_deref(), &args.settings).map_err(|error| Usage(error.to_string()))?;
    config.train.device.open().map_err(|error| Usage(error.to_string()))?;
    let window_secs = config.model.window_secs;
    let audio_secs = args.audio_secs.unwrap_or_else(|| AUDIO_SECS.min(window_secs));
    if audio_secs > window_secs {
        let message =
            format!("--audio-secs {audio_secs}: is longer than the model's window of {window_secs} s");
        return Err(Usage(message).into());
    }
    let depths = [args.encoder_layers.as_slice(), args.decoder_layers.as_slice()];
    let mut grid = Grid::new(name.to_owned(), &config, dir, depths, args.seeds)?;
    if config.train.patience > 0 {
        style.note("train.patience counts for nothing in a grid: losses are compared at equal updates");
    }
    let stop = stop_flag("stopping after this update; a second signal ends it at once, without saving")?;
    let Some(mut runs) = grid.train(args.figure(), &stop, style)? else { return Ok(None) };
    // Before anything else can fail.
    keep(&runs, dir)?;
    if args.latency_ms.is_some() {
        let precision = timing::time(grid.runs(), &mut runs, audio_secs, args.bench_runs, style)?;
        style.note(&format!("timed in {precision}, as speechd transcribe computes here"));
        keep(&runs, dir)?;
    }
    Ok(Some(runs))
}

fn keep(runs: &[ShapeRun], dir: &Path) -> anyhow::Result<()> {
    write_file(&dir.join(TABLE), &runs_jsonl(runs).context("runs as JSON")?)
}

fn describe(plan: &ShapePlan, figure: &str, dir: &Path) -> String {
    let interval = |estimate: &Estimate, show: &dyn Fn(f64) -> String| {
        let interval = estimate.interval;
        interval.map_or_else(|| "-".to_owned(), |it| format!("{} to {}", show(it.low), show(it.high)))
    };
    let digits = |value: f64| format!("{value:.4}");
    let mut text = format!(
        "{} runs, {figure} of held-out speech; N\u{304}_e = {}, N\u{304}_d = {}\n\n",
        plan.runs.len(),
        count(plan.normalisers[0]),
        count(plan.normalisers[1])
    );
    let mut rows = vec![["FIGURE", "VALUE", "95 % INTERVAL"].map(str::to_owned)];
    for (name, estimate) in [
        ("\u{3b1}", &plan.alpha),
        ("p_e", &plan.encoder_exponent),
        ("p_d", &plan.decoder_exponent),
        ("L_\u{221e}", &plan.floor),
    ] {
        rows.push([name.to_owned(), digits(estimate.value), interval(estimate, &digits)]);
    }
    text += &table(&rows);
    text += &format!(
        "R\u{b2}      {:.4}, and {:.4} by the total size alone\n",
        plan.r_squared, plan.total_r_squared
    );
    if let Some(left_out) = &plan.hold_out {
        text += &format!(
            "largest  {} + {}, left out: predicted {:.4}, actual {:.4}\n",
            count(left_out.encoder_params as f64),
            count(left_out.decoder_params as f64),
            left_out.predicted,
            left_out.actual
        );
    }
    if !plan.recommendations.is_empty() {
        let mut rows = vec![["BUDGET", "ENCODER", "DECODER", "ENCODER'S SHARE", "LOSS"].map(str::to_owned)];
        for one in &plan.recommendations {
            rows.push([
                one.budget.to_string(),
                one.encoder_params.told(&count),
                one.decoder_params.told(&count),
                one.encoder_share.told(&|share| format!("{:.0} %", 100.0 * share)),
                one.loss.told(&digits),
            ]);
        }
        text += "\n";
        text += &table(&rows);
        plan.recommendations.iter().for_each(|one| text += &in_layers(one));
    }
    text + &format!("\npage: {}\n", dir.join(PAGE).display())
}

/// What to write into a recipe.
fn in_layers(one: &Recommendation) -> String {
    let Some(shape) = one.shape else { return String::new() };
    let intervals = one.layers_intervals.map_or_else(String::new, |[encoder, decoder]| {
        format!(" ({:.0} to {:.0}, and {:.0} to {:.0})", encoder.low, encoder.high, decoder.low, decoder.high)
    });
    let secs = one.secs.map_or_else(String::new, |secs| format!(", {:.1} ms", 1e3 * secs));
    format!(
        "{}: model.encoder_layers = {}, model.decoder_layers = {}{intervals}: {} parameters{secs}\n",
        one.budget,
        shape.encoder_layers,
        shape.decoder_layers,
        count(shape.encoder_params + shape.decoder_params)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_units() {
        for (text, expected) in [("20M", 2e7), ("1.5G", 1.5e9), ("800k", 8e5), ("2e7", 2e7), ("12", 12.0)] {
            assert_eq!(params(text), Ok(expected));
        }
        for text in ["", "M", "-1M", "many", "inf", "1T"] {
            assert!(params(text).is_err(), "{text}");
        }
    }
}
