//! Making the requests: each once alone, then all of them at their times.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};

use super::{
    answer,
    client::{Answer, Client},
    recordings::Recording,
    schedule::{Arrival, Kind, Leave},
    target::Target,
};
use crate::cli::progress::Items;

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(200);
/// Of an error's message, as far as it is repeated.
const MESSAGE_CHARS: usize = 200;

/// What a request gets when nobody else asks.
#[derive(Debug)]
pub(super) struct Alone {
    pub(super) latency: Duration,
    content: Vec<u8>,
}

/// Everything that the clients share.
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) recordings: Vec<Recording>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) alone: BTreeMap<Kind, Alone>,
    /// Time for one answer.
    pub(super) request_limit: Duration,
    /// Time after which nothing more is sent.
    pub(super) send_limit: Duration,
    /// Requests that have ended, however.
    pub(super) ended: Arc<AtomicUsize>,
}

/// How one request went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) kind: Kind,
    /// From the time it was due, not from the time a client was free to send it.
    pub(super) latency: Duration,
    /// When it ended, from the start.
    pub(super) ended_at: Duration,
    pub(super) verdict: Verdict,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Answered {
        /// Whether the answer is another one than it was alone.
        differs: bool,
        /// From the time the request was due to the first event of a stream.
        first_event: Option<Duration>,
    },
    /// Not now: 429 or 503.
    Refused { status: u16, has_hint: bool },
    /// The client went before the end, as planned.
    Left,
    /// Anything else.
    Failed(String),
}

/// Makes each kind of request once, one after the other, after one that is not counted.
pub(super) async fn alone(
    target: &Target,
    recordings: &[Recording],
    kinds: &[Kind],
    limit: Duration,
    progress: &mut Items,
) -> anyhow::Result<BTreeMap<Kind, Alone>> {
    let mut client = Client::new(target.clone());
    let mut references = BTreeMap::new();
    for (index, &kind) in kinds.first().into_iter().chain(kinds).enumerate() {
        let recording = &recordings[kind.recording];
        let started = Instant::now();
        let answer = client.ask(target.transcription(recording.body(kind))?, limit).await;
        let latency = started.elapsed();
        let answer = answer.with_context(|| format!("{}, asked for alone", recording.name))?;
        let content = match read(&answer, kind) {
            Ok(content) => content,
            Err(Verdict::Failed(message)) => bail!("{}, asked for alone: {message}", recording.name),
            Err(_) => bail!("{}, asked for alone: {}", recording.name, describe(&answer)),
        };
        references.insert(kind, Alone { latency, content });
        progress.update(index);
    }
    Ok(references)
}

/// Makes all requests of the plan with so many clients. The clients take what is due next, in order: while all are busy,
/// requests wait and their time runs.
pub(super) async fn run(
    plan: Plan,
    clients: usize,
    progress: &mut Items,
) -> anyhow::Result<(Plan, Vec<Outcome>)> {
    let plan = Arc::new(plan);
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(client(plan.clone(), next.clone(), start));
    }
    let mut outcomes = Vec::with_capacity(plan.arrivals.len());
    let mut ticks = interval(TICK);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(ended) => outcomes.extend(ended??),
                None => break,
            },
            _ = ticks.tick() => progress.update(plan.ended.load(Ordering::Relaxed)),
        }
    }
    let plan = Arc::into_inner(plan).context("a client still holds the plan")?;
    Ok((plan, outcomes))
}

async fn client(plan: Arc<Plan>, next: Arc<AtomicUsize>, start: Instant) -> anyhow::Result<Vec<Outcome>> {
    let mut client = Client::new(plan.target.clone());
    let mut outcomes = Vec::new();
    while let Some(&arrival) = plan.arrivals.get(next.fetch_add(1, Ordering::Relaxed)) {
        let due = start + arrival.at;
        sleep_until(due.min(start + plan.send_limit)).await;
        if start.elapsed() >= plan.send_limit {
            break;
        }
        let verdict = plan.make(&mut client, arrival, due).await?;
        plan.ended.fetch_add(1, Ordering::Relaxed);
        outcomes.push(Outcome {
            kind: arrival.kind,
            latency: due.elapsed(),
            ended_at: start.elapsed(),
            verdict,
        });
    }
    Ok(outcomes)
}

impl Plan {
    async fn make(&self, client: &mut Client, arrival: Arrival, due: Instant) -> anyhow::Result<Verdict> {
        let kind = arrival.kind;
        let alone = self.alone.get(&kind).context("a request that was not made alone")?;
        let body = self.recordings[kind.recording].body(kind);
        let request = self.target.transcription(body)?;
        Ok(match arrival.leave {
            Some(Leave::DuringUpload(share)) => {
                client.leave_during_upload(request, body, share).await;
                Verdict::Left
            }
            Some(Leave::DuringWork(share)) => {
                client.ask_and_leave(request, alone.latency.mul_f64(share)).await;
                Verdict::Left
            }
            None => match client.ask(request, self.request_limit).await {
                Ok(answer) => match read(&answer, kind) {
                    Ok(content) => Verdict::Answered {
                        differs: content != alone.content,
                        first_event: answer.first_event.map(|at| at - due),
                    },
                    Err(verdict) => verdict,
                },
                Err(failure) => Verdict::Failed(failure.to_string()),
            },
        })
    }
}

/// What the answer says, or what it is instead of one.
fn read(answer: &Answer, kind: Kind) -> Result<Vec<u8>, Verdict> {
    match answer.status.as_u16() {
        200 => answer::content(&answer.body, kind.is_stream).map_err(Verdict::Failed),
        status @ (429 | 503) => {
            Err(Verdict::Refused { status, has_hint: answer.headers.contains_key("retry-after-ms") })
        }
        _ => Err(Verdict::Failed(describe(answer))),
    }
}

/// The status and the message of an error.
fn describe(answer: &Answer) -> String {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let message =
        body.as_ref().and_then(|body| body["error"]["message"].as_str()).unwrap_or("without a message");
    let message: String = message.chars().take(MESSAGE_CHARS).collect();
    format!("status {}: {message}", answer.status.as_u16())
}
