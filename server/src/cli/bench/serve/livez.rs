//! Whether the service says that it lives, asked twenty times a second while it is loaded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{client::Client, target::Target};

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(50);
/// After which there is no answer.
const LIMIT: Duration = Duration::from_secs(10);

/// One question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    /// How much longer than it meant to this thread slept before: what whoever keeps the machine busy adds, be it the
    /// service or somebody else.
    pub(super) overslept: Duration,
    /// From when it was due to its answer; `None` is a failure.
    pub(super) answered: Option<Duration>,
}

/// Asks until it is stopped. It has its own thread, so that the load does not delay it more than other programs do.
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<Probe>>>,
}

impl Prober {
    pub(super) fn start(target: Target) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread =
            thread::Builder::new().name("livez".to_owned()).spawn(move || probe(&target, &stopped))?;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) -> anyhow::Result<Vec<Probe>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(probes) => probes.context("/livez"),
            Err(_) => bail!("/livez: the thread that asks has panicked"),
        }
    }
}

fn probe(target: &Target, stop: &AtomicBool) -> anyhow::Result<Vec<Probe>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut client = Client::new(target.clone());
    let mut probes = Vec::new();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        // A thread's sleep is finer than the runtime's timers, which count milliseconds.
        let wake_at = due.max(Instant::now());
        thread::sleep(wake_at.saturating_duration_since(Instant::now()));
        let overslept = wake_at.elapsed();
        let answer = runtime.block_on(client.ask(target.get("/livez")?, LIMIT));
        let is_alive = answer.is_ok_and(|answer| answer.status.is_success());
        probes.push(Probe { overslept, answered: is_alive.then(|| due.elapsed()) });
        // A late answer makes the next question late, and its time runs from when it was due.
        due += INTERVAL;
    }
    Ok(probes)
}
