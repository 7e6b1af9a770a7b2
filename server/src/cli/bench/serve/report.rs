//! What was measured, for people and for programs.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    Args,
    figures::Latency,
    livez::Probe,
    load::{Outcome, Plan, Verdict},
    process::Usage,
    schedule::Kind,
};
use crate::cli::progress::bytes;

/// Kinds of failures that are told; the count has all.
const MAX_MESSAGES: usize = 5;

/// The figures of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    url: String,
    model: String,
    seed: u64,
    clients: u16,
    recordings: Recordings,
    /// Each kind of request made once, one after the other.
    alone: Alone,
    requests: usize,
    /// Requests that were due after the time limit, or were never due.
    unsent: usize,
    asked_requests_per_sec: f64,
    elapsed_secs: f64,
    answered: usize,
    audio_secs_per_sec: f64,
    requests_per_sec: f64,
    /// Audio seconds per second over those that one client alone gets for the same requests.
    times_alone: f64,
    latency: Split,
    first_event: Option<Latency>,
    refused: Refused,
    left: usize,
    pub(super) failed: Failed,
    livez: Livez,
    process: Option<Usage>,
    pub(super) verify: Option<Verify>,
}

#[derive(Debug, Serialize)]
struct Recordings {
    count: usize,
    long: usize,
    /// From so many seconds on a recording is long.
    long_secs: f64,
    total_secs: f64,
    max_secs: f64,
}

#[derive(Debug, Serialize)]
struct Alone {
    requests: usize,
    audio_secs_per_sec: f64,
    requests_per_sec: f64,
    latency: Split,
}

/// Of answers, by the length of their recordings.
#[derive(Debug, Serialize)]
struct Split {
    all: Option<Latency>,
    short: Option<Latency>,
    long: Option<Latency>,
}

#[derive(Debug, Serialize)]
struct Refused {
    too_many_requests: usize,
    unavailable: usize,
    with_retry_after_ms: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Failed {
    pub(super) count: usize,
    /// Some of them, and how often.
    messages: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct Livez {
    failed: usize,
    /// From when a question was due.
    latency: Option<Latency>,
    /// The part of it for which the machine did not let the question be asked.
    overslept: Option<Latency>,
}

/// Answers under load against those alone.
#[derive(Debug, Serialize)]
pub(super) struct Verify {
    compared: usize,
    pub(super) differences: usize,
}

impl Report {
    pub(super) fn new(
        args: &Args,
        rate_per_sec: f64,
        plan: &Plan,
        outcomes: &[Outcome],
        livez: &[Probe],
        process: Option<Usage>,
    ) -> Self {
        let secs_of = |kind: Kind| plan.recordings[kind.recording].duration_secs;
        let split = |times: &[(Kind, Duration)]| {
            let of = |keep: &dyn Fn(f64) -> bool| {
                Latency::of(times.iter().filter(|(kind, _)| keep(secs_of(*kind))).map(|(_, time)| *time))
            };
            Split {
                all: of(&|_| true),
                short: of(&|secs| secs < args.long),
                long: of(&|secs| secs >= args.long),
            }
        };
        let alone: Vec<_> = plan.alone.iter().map(|(kind, alone)| (*kind, alone.latency)).collect();
        let (alone_audio_secs, alone_secs) = total(&alone, secs_of);

        let elapsed_secs =
            outcomes.iter().map(|outcome| outcome.ended_at).max().unwrap_or_default().as_secs_f64();
        let mut answered = Vec::new();
        let mut first_events = Vec::new();
        let mut refused = Refused { too_many_requests: 0, unavailable: 0, with_retry_after_ms: 0 };
        let mut failed = Failed { count: 0, messages: BTreeMap::new() };
        let (mut left, mut differences) = (0, 0);
        for outcome in outcomes {
            match &outcome.verdict {
                Verdict::Answered { differs, first_event } => {
                    answered.push((outcome.kind, outcome.latency));
                    first_events.extend(*first_event);
                    differences += usize::from(*differs);
                }
                Verdict::Refused { status, has_hint } => {
                    match status {
                        429 => refused.too_many_requests += 1,
                        _ => refused.unavailable += 1,
                    }
                    refused.with_retry_after_ms += usize::from(*has_hint);
                }
                Verdict::Left => left += 1,
                Verdict::Failed(message) => {
                    failed.count += 1;
                    if failed.messages.contains_key(message) || failed.messages.len() < MAX_MESSAGES {
                        *failed.messages.entry(message.clone()).or_default() += 1;
                    }
                }
            }
        }
        // What the same requests take when one client makes them one after the other.
        let (audio_secs, _) = total(&answered, secs_of);
        let one_by_one: f64 = answered
            .iter()
            .filter_map(|(kind, _)| plan.alone.get(kind))
            .map(|alone| alone.latency.as_secs_f64())
            .sum();
        let durations = || plan.recordings.iter().map(|recording| recording.duration_secs);
        Self {
            url: args.url.clone(),
            model: args.model.clone(),
            seed: args.seed,
            clients: args.clients,
            recordings: Recordings {
                count: plan.recordings.len(),
                long: durations().filter(|secs| *secs >= args.long).count(),
                long_secs: args.long,
                total_secs: durations().sum(),
                max_secs: durations().fold(0.0, f64::max),
            },
            alone: Alone {
                requests: alone.len(),
                audio_secs_per_sec: alone_audio_secs / alone_secs,
                requests_per_sec: alone.len() as f64 / alone_secs,
                latency: split(&alone),
            },
            requests: plan.arrivals.len(),
            unsent: plan.arrivals.len() - outcomes.len(),
            asked_requests_per_sec: rate_per_sec,
            elapsed_secs,
            answered: answered.len(),
            audio_secs_per_sec: audio_secs / elapsed_secs,
            requests_per_sec: answered.len() as f64 / elapsed_secs,
            times_alone: one_by_one / elapsed_secs,
            latency: split(&answered),
            first_event: Latency::of(first_events.into_iter()),
            refused,
            left,
            failed,
            livez: Livez {
                failed: livez.iter().filter(|probe| probe.answered.is_none()).count(),
                latency: Latency::of(livez.iter().filter_map(|probe| probe.answered)),
                overslept: Latency::of(livez.iter().map(|probe| probe.overslept)),
            },
            process,
            verify: args.verify.then_some(Verify { compared: answered.len(), differences }),
        }
    }

    /// One figure a line.
    pub(super) fn describe(&self) -> String {
        let Self { recordings, alone, refused, .. } = self;
        let mut lines = vec![
            format!("{}, {}, seed {}", self.url, self.model, self.seed),
            format!(
                "recordings        {} ({} of at least {:.0} s), {:.1} s, the longest {:.1} s",
                recordings.count,
                recordings.long,
                recordings.long_secs,
                recordings.total_secs,
                recordings.max_secs
            ),
            format!(
                "alone             {:.1} audio seconds per second, {:.1} requests per second",
                alone.audio_secs_per_sec, alone.requests_per_sec
            ),
        ];
        split_lines(&mut lines, &alone.latency);
        lines.push(format!(
            "loaded            {:.1} audio seconds per second, {:.1} requests per second: {:.2} x one client alone",
            self.audio_secs_per_sec, self.requests_per_sec, self.times_alone
        ));
        lines.push(format!(
            "  asked           {} requests of {} clients at {:.2} per second; all ended after {:.1} s",
            self.requests, self.clients, self.asked_requests_per_sec, self.elapsed_secs
        ));
        lines.push(format!(
            "  answered        {}; left {}, unsent {}, failed {}",
            self.answered, self.left, self.unsent, self.failed.count
        ));
        lines.push(format!(
            "  refused         {} with 429, {} with 503; {} of them with retry-after-ms",
            refused.too_many_requests, refused.unavailable, refused.with_retry_after_ms
        ));
        split_lines(&mut lines, &self.latency);
        latency_line(&mut lines, "  first event", self.first_event.as_ref());
        latency_line(&mut lines, "/livez", self.livez.latency.as_ref());
        latency_line(&mut lines, "  of it asleep", self.livez.overslept.as_ref());
        if self.livez.failed > 0 {
            lines.push(format!("/livez            {} did not succeed", self.livez.failed));
        }
        if let Some(process) = &self.process {
            process_lines(&mut lines, process);
        }
        if let Some(verify) = &self.verify {
            lines.push(format!(
                "verified          {} answers, {} differ from those alone",
                verify.compared, verify.differences
            ));
        }
        for (message, count) in &self.failed.messages {
            lines.push(format!("failed            {count} x {message}"));
        }
        lines.join("\n") + "\n"
    }
}

/// Seconds of audio and of time.
fn total(times: &[(Kind, Duration)], secs_of: impl Fn(Kind) -> f64) -> (f64, f64) {
    times
        .iter()
        .fold((0.0, 0.0), |(audio, time), (kind, took)| (audio + secs_of(*kind), time + took.as_secs_f64()))
}

fn split_lines(lines: &mut Vec<String>, split: &Split) {
    latency_line(lines, "  latency", split.all.as_ref());
    if split.short.is_some() && split.long.is_some() {
        latency_line(lines, "    short", split.short.as_ref());
        latency_line(lines, "    long", split.long.as_ref());
    }
}

fn latency_line(lines: &mut Vec<String>, name: &str, latency: Option<&Latency>) {
    if let Some(latency) = latency {
        let ms = |secs: f64| format!("{:.1} ms", 1e3 * secs);
        lines.push(format!(
            "{name:<18}p50 {}, p95 {}, p99 {}, max {} ({})",
            ms(latency.p50_secs),
            ms(latency.p95_secs),
            ms(latency.p99_secs),
            ms(latency.max_secs),
            latency.count
        ));
    }
}

fn process_lines(lines: &mut Vec<String>, process: &Usage) {
    let mb = |size: f64| if size < 0.0 { format!("-{}", bytes(-size as u64)) } else { bytes(size as u64) };
    lines.push(format!(
        "memory            {} in the first quarter, {} in the last, at most {} (+ {} in children)",
        mb(process.rss_first_quarter_bytes),
        mb(process.rss_last_quarter_bytes),
        bytes(process.rss_max_bytes),
        bytes(process.children_rss_max_bytes)
    ));
    lines.push(format!(
        "  slope           {} per 1,000 requests; {} in the second half",
        mb(process.rss_bytes_per_1000_requests),
        mb(process.rss_bytes_per_1000_requests_second_half)
    ));
    lines.push(format!("processor         {:.2} s", process.cpu_secs));
    lines.push(format!("open files        {}", process.open_files));
    lines.push(format!("threads           {}", process.threads));
}
