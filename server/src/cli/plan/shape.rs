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
use serde::Serialize;

use super::{
    super::{
        Usage,
        output::{error_line, print, status_line, table, write_file},
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
/// The shortest; below, a model has nothing to hear.
const MIN_AUDIO_SECS: f64 = 0.1;
/// Drawings beyond which intervals gain nothing and take long.
const MAX_BOOTSTRAP: usize = 100_000;
/// What the folder of a grid ends in, where nobody says which.
const SUFFIX: &str = "-shape";
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
Exit code: 0 planned, 1 failed or a budget that cannot be split, 2 wrong arguments or settings, 3 stopped by a signal after saving.";

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
    /// The folder of runs, table, page and result [default: runs/RECIPE-shape; with --from the folder of a grid's losses.jsonl, or
    /// runs/TABLE-shape of another table]
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
    #[arg(long, value_name = "SECS", value_parser = audio_secs, conflicts_with = "from", requires = "latency_ms", help_heading = "Budgets")]
    audio_secs: Option<f64>,
    /// Times that each is timed, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "from", help_heading = "Budgets")]
    bench_runs: u32,

    /// Times that runs are drawn anew for the intervals; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = Resampling::default().n_samples, value_parser = bootstrap)]
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

fn audio_secs(text: &str) -> Result<f64, String> {
    let secs = positive(text).ok().filter(|secs| *secs >= MIN_AUDIO_SECS);
    secs.ok_or_else(|| format!("expected {MIN_AUDIO_SECS} seconds or more"))
}

fn bootstrap(text: &str) -> Result<usize, String> {
    let n_samples = text.parse().ok().filter(|n_samples| *n_samples <= MAX_BOOTSTRAP);
    n_samples.ok_or_else(|| format!("expected a number from 0 to {MAX_BOOTSTRAP}"))
}

/// `20M`, `1.5G`, `800k`, `2e7`.
fn params(text: &str) -> Result<f64, String> {
    let units = [('k', 1e3), ('K', 1e3), ('M', 1e6), ('G', 1e9), ('B', 1e9)];
    let unit = units.into_iter().find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)));
    let (digits, unit) = unit.unwrap_or((text, 1.0));
    let number = positive(digits.trim()).map(|number| number * unit);
    number.map_err(|_| "expected a number of parameters such as 20M, 800k or 2e7".to_owned())
}

/// What is written as JSON.
#[derive(Serialize)]
struct Document<'a> {
    /// What was fitted.
    figure: &'a str,
    #[serde(flatten)]
    plan: &'a ShapePlan,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let style = Style::new(args.quiet);
    let (name, dir) = args.place();
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
    let (title, figure) = (format!("The shape of {name}"), figure_of(&runs));
    write_file(&dir.join(PAGE), &shape_page(&title, figure, &plan)?)?;
    let json = serde_json::to_string_pretty(&Document { figure, plan: &plan })? + "\n";
    write_file(&dir.join(RESULT), &json)?;
    plan.warnings.iter().for_each(|line| status_line(&format!("mind: {line}")));
    print(&if args.json { json } else { describe(&plan, figure, &dir) })?;
    // What could be planned is there by now; that something could not is for the exit code to say, too.
    let Some((last, others)) = plan.failures.split_last() else { return Ok(ExitCode::SUCCESS) };
    others.iter().for_each(|failure| error_line(&failure.to_string()));
    Err(last.clone().into())
}

/// What the runs' losses are; of a table that does not say nobody knows more than its column does.
fn figure_of(runs: &[ShapeRun]) -> &str {
    let first = runs.first().and_then(|run| run.figure.as_deref());
    first.filter(|figure| runs.iter().all(|run| run.figure.as_deref() == Some(figure))).unwrap_or("loss")
}

impl Args {
    /// What is planned, and the folder of everything. The table of a grid lies in the grid's.
    fn place(&self) -> (String, PathBuf) {
        let source = self.from.as_ref().or(self.recipe.as_ref());
        let grid = self.from.as_deref().filter(|table| table.file_name().is_some_and(|name| name == TABLE));
        let grid = grid.and_then(Path::parent);
        let named = grid.and_then(Path::file_name).or(source.and_then(|path| path.file_stem()));
        let mut name = named.unwrap_or_default().to_string_lossy().into_owned();
        if let Some(recipe) = name.strip_suffix(SUFFIX).filter(|_| grid.is_some()) {
            name = recipe.to_owned();
        }
        let own = || match grid {
            Some(dir) => dir.to_owned(),
            None => PathBuf::from("runs").join(format!("{name}{SUFFIX}")),
        };
        let dir = self.out.clone().unwrap_or_else(own);
        (name, dir)
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
    let figure = args.figure.as_deref().unwrap_or("cross_entropy");
    let mut grid = Grid::new(name.to_owned(), &config, dir, depths, args.seeds, figure)?;
    if config.train.patience > 0 {
        style.note("train.patience counts for nothing in a grid: losses are compared at equal updates");
    }
    let stop = stop_flag(
        "stopping after this update, or after this model's times; a second signal ends it at once, without saving",
    )?;
    let Some(mut runs) = grid.train(figure, &stop, style)? else { return Ok(None) };
    // A table that is not there, or broken, has no times either.
    let before = read_runs(&dir.join(TABLE)).unwrap_or_default();
    runs.iter_mut().for_each(|run| carry_times(run, &before));
    // Before anything else can fail.
    keep(&runs, dir)?;
    if args.latency_ms.is_some() {
        // Times of another length of sound, or of another day, are not mixed with these.
        runs.iter_mut().for_each(|run| carry_times(run, &[]));
        let (n_repeats, grid) = (args.bench_runs, grid.runs());
        let Some(precision) = timing::time(grid, &mut runs, audio_secs, n_repeats, &stop, style)? else {
            return Ok(None);
        };
        style.note(&format!("timed in {precision}, as speechd transcribe computes here"));
        keep(&runs, dir)?;
    }
    Ok(Some(runs))
}

/// Gives a run the times that it had in an earlier table; it has none where that had none.
fn carry_times(run: &mut ShapeRun, before: &[ShapeRun]) {
    let key = |run: &ShapeRun| (run.name.clone(), run.encoder_params, run.decoder_params);
    let was = before.iter().find(|was| key(was) == key(run)).cloned().unwrap_or_default();
    run.audio_secs = was.audio_secs;
    run.encoder_secs = was.encoder_secs;
    run.listen_secs = was.listen_secs;
    run.token_secs = was.token_secs;
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

    #[test]
    fn times_stay_with_the_model_that_they_are_of() {
        let timed = ShapeRun {
            name: "e1-d1-s0".to_owned(),
            encoder_params: 10,
            decoder_params: 20,
            audio_secs: Some(1.0),
            encoder_secs: Some(2.0),
            listen_secs: Some(3.0),
            token_secs: Some(4.0),
            ..ShapeRun::default()
        };
        let untimed = ShapeRun { encoder_secs: Some(9.0), ..ShapeRun::default() };
        for (name, decoder_params, is_same) in
            [("e1-d1-s0", 20, true), ("e1-d1-s0", 21, false), ("e1-d1-s1", 20, false)]
        {
            let mut run = ShapeRun {
                name: name.to_owned(),
                encoder_params: 10,
                decoder_params,
                loss: Some(5.0),
                ..untimed.clone()
            };
            carry_times(&mut run, std::slice::from_ref(&timed));
            let times = (run.audio_secs, run.encoder_secs, run.listen_secs, run.token_secs);
            let expected =
                if is_same { (Some(1.0), Some(2.0), Some(3.0), Some(4.0)) } else { (None, None, None, None) };
            assert_eq!((times, run.loss), (expected, Some(5.0)), "{name} {decoder_params}");
        }
    }

    #[test]
    fn a_grid_s_table_lies_in_the_grid_s_folder() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        let place = |arguments: &[&str]| {
            let arguments = [&["shape"], arguments].concat();
            let (name, dir) = <Cli as clap::Parser>::parse_from(arguments).args.place();
            (name, dir.to_string_lossy().into_owned())
        };
        for (arguments, name, dir) in [
            (&["my.toml"][..], "my", "runs/my-shape"),
            (&["--from", "mine.csv"], "mine", "runs/mine-shape"),
            (&["--from", "runs/my-shape/losses.jsonl"], "my", "runs/my-shape"),
            (&["--from", "grid/losses.jsonl"], "grid", "grid"),
            (&["--from", "losses.jsonl"], "losses", ""),
            (&["--from", "grid/losses.jsonl", "--out", "there"], "grid", "there"),
        ] {
            assert_eq!(place(arguments), (name.to_owned(), dir.to_owned()), "{arguments:?}");
        }
    }
}
