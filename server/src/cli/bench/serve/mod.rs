//! `speechd bench serve`: requests arrive at a service at times drawn beforehand, whether it keeps up or not (an open loop), and
//! their time runs from when they were due. A service that slows down is asked no less, so that its queue is seen.

mod answer;
mod client;
mod figures;
mod livez;
mod load;
mod process;
mod recordings;
mod report;
mod schedule;
mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use anyhow::ensure;

use super::super::{
    Usage,
    output::print,
    progress::{Items, Style},
};
use crate::{config::Config, render::Format};
use load::{Alone, Plan};
use report::Report;
use schedule::{Arrival, Kind, Shares};

const EXAMPLES: &str = "\
Examples:
  speechd bench serve --url http://127.0.0.1:8000 --model my-whisper --utilisation 0.8 recordings/
  speechd bench serve --url http://127.0.0.1:8000 --model my-whisper --rate 20 --requests 2000 --stream 0.2 --abort 0.05 \
    --verify --pid $(pidof speechd) --json recordings/

Exit code: 0 done, 1 a request failed or (--verify) got another answer than alone, 2 wrong arguments. Refusals (429, 503) and
clients that leave are no failures.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("arrivals").required(true).args(["rate", "utilisation"]))]
pub(super) struct Args {
    /// Recordings, or directories of them, of which each request takes one at random
    #[arg(value_name = "FILES", required = true)]
    files: Vec<PathBuf>,
    /// Where the service listens, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    url: String,
    /// The model's name there
    #[arg(short, long, value_name = "NAME")]
    model: String,
    /// Requests per second, on average
    #[arg(long, value_name = "R", value_parser = positive)]
    rate: Option<f64>,
    /// Requests per second as a share of what one client alone gets, measured first; above 1 is more than that
    #[arg(long, value_name = "SHARE", value_parser = positive)]
    utilisation: Option<f64>,
    /// Requests to make
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// Clients, each with one connection; what arrives while all are busy waits, and its time runs
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// Recordings to choose from, themselves chosen by the seed when there are more
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    distinct: u16,
    /// Recordings of at least so many seconds count as long
    #[arg(long, value_name = "SECS", default_value_t = 10.0, value_parser = positive)]
    long: f64,
    /// How answers in one piece are asked for
    #[arg(short, long, value_enum, default_value = "json")]
    format: Format,
    /// Share of requests that want the text while it is written
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    stream: f64,
    /// Share of clients that hang up at a random point
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    abort: f64,
    /// Of everything that is drawn: the same seed asks for the same things at the same times
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Compare every answer with the one that the same request got alone
    #[arg(long)]
    verify: bool,
    /// The service's process on this machine: shows its memory, processor time, open files and threads
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// An API key
    #[arg(long, value_name = "KEY", env = "SPEECHD_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Seconds for one answer
    #[arg(long, value_name = "SECS", default_value_t = 600.0, value_parser = positive)]
    timeout: f64,
    /// Seconds after which nothing more is sent
    #[arg(long, value_name = "SECS", default_value_t = 600.0, value_parser = positive)]
    max_secs: f64,
    /// Load a service on another machine
    #[arg(long)]
    allow_remote: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (1e-3..=1e6).contains(&number) { Ok(number) } else { Err("not between 0.001 and 1000000".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("not between 0 and 1".to_owned()) }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let target = target::Target::new(&args.url, args.api_key.as_deref(), args.allow_remote)?;
    let fields = recordings::Fields { model: &args.model, format: args.format };
    let n_recordings = usize::from(args.distinct);
    let recordings = recordings::read(&args.files, n_recordings, args.seed, config.limits, fields)?;
    let shares = Shares { stream: args.stream, abort: args.abort };
    let arrivals = schedule::arrivals(args.seed, args.requests as usize, recordings.len(), shares);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let request_limit = Duration::from_secs_f64(args.timeout);
    let kinds: Vec<Kind> =
        arrivals.iter().map(|arrival| arrival.kind).collect::<BTreeSet<_>>().into_iter().collect();
    let mut progress = Items::start(Style::new(false), "alone", Some(kinds.len()));
    let alone = load::alone(&target, &recordings, &kinds, request_limit, &mut progress);
    let alone = runtime.block_on(alone);
    progress.clear();
    let alone = alone?;

    let rate_per_sec = args.rate.or(args.utilisation.map(|share| share / mean_secs(&arrivals, &alone)));
    let rate_per_sec = rate_per_sec.unwrap_or_default();
    let plan = Plan {
        target: target.clone(),
        recordings,
        arrivals: schedule::at_rate(arrivals, rate_per_sec),
        alone,
        request_limit,
        send_limit: Duration::from_secs_f64(args.max_secs),
        ended: std::sync::Arc::default(),
    };
    let observer = args.pid.map(|pid| process::Observer::start(pid, plan.ended.clone())).transpose()?;
    let prober = livez::Prober::start(target)?;
    let mut progress = Items::start(Style::new(false), "loaded", Some(plan.arrivals.len()));
    let loaded = runtime.block_on(load::run(plan, usize::from(args.clients), &mut progress));
    progress.clear();
    let livez = prober.stop()?;
    let process = observer.map(process::Observer::stop).transpose()?;
    let (plan, outcomes) = loaded?;

    let report = Report::new(args, rate_per_sec, &plan, &outcomes, &livez, process);
    print(&if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.describe() })?;
    ensure!(report.failed.count == 0, "{} requests failed", report.failed.count);
    let n_different = report.verify.as_ref().map_or(0, |verify| verify.differences);
    ensure!(n_different == 0, "{n_different} answers differ from those that were given alone");
    Ok(())
}

/// Of a request of this mix, alone.
fn mean_secs(arrivals: &[Arrival], alone: &BTreeMap<Kind, Alone>) -> f64 {
    let secs = arrivals
        .iter()
        .filter_map(|arrival| alone.get(&arrival.kind))
        .map(|alone| alone.latency.as_secs_f64());
    secs.sum::<f64>() / arrivals.len().max(1) as f64
}
