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

/// Asks until it is stopped. It has its own thread, so that the load does not delay it more than other programs do.
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<Option<Duration>>>>,
}

impl Prober {
    pub(super) fn start(target: Target) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread =
            thread::Builder::new().name("livez".to_owned()).spawn(move || probe(&target, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// The time of each answer from when the question was due; `None` is a failure.
    pub(super) fn stop(self) -> anyhow::Result<Vec<Option<Duration>>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(answers) => answers.context("/livez"),
            Err(_) => bail!("/livez: the thread that asks has panicked"),
        }
    }
}

fn probe(target: &Target, stop: &AtomicBool) -> anyhow::Result<Vec<Option<Duration>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut client = Client::new(target.clone());
    let mut answers = Vec::new();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        // A thread's sleep is finer than the runtime's timers, which count milliseconds.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let answer = runtime.block_on(client.ask(target.get("/livez")?, LIMIT));
        let is_alive = answer.is_ok_and(|answer| answer.status.is_success());
        answers.push(is_alive.then(|| due.elapsed()));
        // A late answer makes the next question late, and its time runs from when it was due.
        due += INTERVAL;
    }
    Ok(answers)
}
