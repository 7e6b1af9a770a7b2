//! `speechd serve`: the HTTP service, from the command line to the last answer.

use std::{
    env,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context;
use axum::http::HeaderValue;
use models::DeviceChoice;
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::sleep,
};

use super::{FAILED, Usage, output::status_line};
use crate::{
    auth::{self, Keys},
    compute::Compute,
    config::{Config, Precision},
    decode::{self, DecodePool},
    listener,
    load::{Spec, load_models},
    process,
    registry::Hub,
    render, routes,
    state::{AppState, Models},
};

const HELP: &str = "\
Examples:
  speechd serve --model openai/whisper-base
  speechd serve --model openai/whisper-base --model voice=./my-voice      # one that hears, one that speaks
  speechd serve --model whisper-1=./my-whisper --model openai/whisper-base --listen 127.0.0.1:9000
  SPEECHD_API_KEYS=$(openssl rand -hex 24) speechd serve --model ./my-whisper --listen 0.0.0.0:8000

Clients of the OpenAI API work unchanged with the base URL http://127.0.0.1:8000/v1. The other settings are under
[serve] in speechd.toml. SPEECHD_API_KEYS holds the API keys, separated by commas or spaces.

SIGTERM and SIGINT let requests in flight finish; a second one does not.
Exit code: 0 all of them were answered, 1 some were not, 2 wrong arguments or configuration.";

/// After the second signal: connections that are only idle close in this time, and are not cut off.
const LAST_MOMENT: Duration = Duration::from_millis(200);
/// Beyond this, threads that are busy at the end are left behind.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Flags that are not given leave the configuration's value.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8000]
    #[arg(short, long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// A model to serve, one that hears or one that speaks, as often as needed: its directory or hub id, and the name it goes by [default: those that are
    /// part of the program]
    #[arg(short, long, value_name = "[NAME=]PATH_OR_ID")]
    model: Vec<String>,
    /// A smaller model that guesses what the one called NAME writes, as often as needed: the same text in fewer steps
    #[arg(long, value_name = "NAME=PATH_OR_ID")]
    draft: Vec<String>,
    /// A translator of text for requests that ask for a cascade: its directory or hub id, and the name it goes by
    #[arg(long, value_name = "[NAME=]PATH_OR_ID")]
    cascade: Option<String>,
    /// What models compute on: cpu, cuda, cuda:1 ... [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// What models that hear compute in; those that speak compute in f32 [default: auto]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Listen on a public address although there are no API keys
    #[arg(long)]
    allow_anonymous: bool,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is needed to begin, checked.
struct Plan {
    config: Config,
    keys: Keys,
    specs: Vec<Spec>,
    addresses: Vec<SocketAddr>,
    compute: Compute,
}

impl Args {
    fn plan(&self) -> Result<Plan, Usage> {
        let mut config = Config::load(self.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
        if let Some(listen) = &self.listen {
            listen.clone_into(&mut config.serve.listen);
        }
        if !self.model.is_empty() {
            config.serve.models.clone_from(&self.model);
            // The configured ones guess for the configured models.
            config.serve.drafts.clear();
        }
        if !self.draft.is_empty() {
            config.serve.drafts.clone_from(&self.draft);
        }
        if let Some(cascade) = &self.cascade {
            cascade.clone_into(&mut config.translate.cascade);
        }
        if !config.translate.cascade.is_empty() {
            Spec::parse(&config.translate.cascade)
                .map_err(|error| Usage(format!("translate.cascade: {error}")))?;
        }
        if let Some(device) = self.device {
            config.transcribe.device = device;
        }
        if let Some(precision) = self.precision {
            config.transcribe.precision = precision;
        }
        config.serve.allow_anonymous |= self.allow_anonymous;

        // Requests build on these defaults: they are wrong now, or never.
        let language = &mut config.transcribe.language;
        if language != "auto" {
            let refuse = || Usage(format!("language `{language}`: neither auto, a code nor an English name"));
            *language = render::parse_language(language).ok_or_else(refuse)?;
        }
        let to_language = &mut config.transcribe.to_language;
        if !to_language.is_empty() {
            let refuse = || Usage(format!("to_language `{to_language}`: neither a code nor an English name"));
            *to_language = render::parse_language(to_language).ok_or_else(refuse)?;
        }
        let defaults = config.transcribe.decode_options(false);
        defaults.check().map_err(|error| Usage(error.to_string()))?;
        if let Some((option, n_rows)) = config.serve.too_many_rows(&defaults) {
            let max_rows = config.serve.max_batch_rows;
            return Err(Usage(format!(
                "serve.max_batch_rows: {max_rows} is less than transcribe.{option}, {n_rows}; raise it, or lower that"
            )));
        }
        for origin in &config.serve.cors_origins {
            let is_origin = origin == "*"
                || (origin.contains("://")
                    && !origin.ends_with('/')
                    && HeaderValue::from_str(origin).is_ok());
            if !is_origin {
                let message = "neither \"*\" nor an origin such as \"https://app.example.org\"";
                return Err(Usage(format!("serve.cors_origins: `{origin}`: {message}")));
            }
        }
        let specs = Spec::parse_all(&config.serve.models, &config.serve.drafts).map_err(Usage)?;
        let keys = Keys::parse(&env::var(auth::VARIABLE).unwrap_or_default());
        let listen = &config.serve.listen;
        let addresses: Vec<_> = listen
            .to_socket_addrs()
            .map_err(|error| {
                Usage(format!("listen `{listen}`: {error}; expected ADDR:PORT such as 127.0.0.1:8000"))
            })?
            .collect();
        let is_public = !addresses.iter().all(|address| address.ip().is_loopback());
        if is_public && keys.is_empty() && !config.serve.allow_anonymous {
            return Err(Usage(format!(
                "listen `{listen}`: others can reach this address, and there are no API keys; \
                 set {}, or say --allow-anonymous",
                auth::VARIABLE
            )));
        }
        let compute = Compute::of(&config.transcribe).map_err(|error| Usage(error.to_string()))?;
        Ok(Plan { config, keys, specs, addresses, compute })
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let plan = args.plan()?;
    if let Err(error) = process::raise_file_limit() {
        tracing::warn!("no more files than usual may be open: {error}");
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?;
    let finished = runtime.block_on(serve(plan));
    // A model that is still being read does not hold up the end.
    runtime.shutdown_timeout(LAST_WAIT);
    Ok(if finished? { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Says whether every request was answered.
async fn serve(plan: Plan) -> anyhow::Result<bool> {
    // Before anything else: a signal while models are loaded is an orderly end, too.
    let signals = Signals::install().context("no signals")?;
    let listen = &plan.config.serve.listen;
    let listener = TcpListener::bind(&*plan.addresses).await.with_context(|| format!("listen `{listen}`"))?;
    let address = listener.local_addr()?;
    let hub = Hub::new(plan.config.hub_options());
    let models = Models::new(plan.specs.iter().map(|spec| spec.name.clone()));
    let decoder = DecodePool::new(decode::own_program().context("no decoder")?, plan.config.uploads);
    let state = Arc::new(AppState::new(plan.config, plan.keys, models, decoder));
    let app = routes::router(&state);
    status_line(&format!("listening on http://{address}"));

    let loading = Arc::clone(&state);
    thread::Builder::new()
        .name("load-models".to_owned())
        .spawn(move || load_models(&loading, &plan.specs, &hub, &plan.compute))
        .context("no thread")?;

    let count = signals.count();
    let (stop, abort) = (stop(Arc::clone(&state), count.clone()), abort(count));
    let finished = listener::serve(listener, app, state, stop, abort).await;
    if !finished {
        tracing::warn!("requests in flight were cut off");
    }
    Ok(finished)
}

/// Ends when no more connections are to be accepted.
async fn stop(state: Arc<AppState>, signals: watch::Receiver<u32>) {
    received(signals.clone(), 1).await;
    tracing::info!("shutting down: requests in flight may finish");
    state.drain();
    tokio::select! {
        () = sleep(state.config.serve.drain_delay_secs.duration()) => {}
        () = received(signals, 2) => {}
    }
}

/// Ends when requests in flight are to be cut off.
async fn abort(signals: watch::Receiver<u32>) {
    received(signals, 2).await;
    sleep(LAST_MOMENT).await;
}

async fn received(mut signals: watch::Receiver<u32>, n: u32) {
    // The sender lives as long as the runtime.
    let _ = signals.wait_for(|count| *count >= n).await;
}

/// The signals that end the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// How many came so far.
    fn count(mut self) -> watch::Receiver<u32> {
        let (count, receiver) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => {}
                    _ = self.interrupt.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        receiver
    }
}
