//! All that is counted and measured, declared once. Label values come from closed sets: routes as they are written in the
//! router, models as they were named at the start, codes and phases as the program knows them.

mod timeline;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::Method;
use models::Task;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::{
    process,
    state::{ModelState, Models},
};

pub use timeline::{Arrival, Spent, Timeline};

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds, from a probe to a recording of hours.
const REQUEST_BUCKETS: [f64; 14] =
    [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];
/// Seconds of one phase of a request.
const PHASE_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];
/// Seconds of work per second of sound.
const RTF_BUCKETS: [f64; 11] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// Rows.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// A part of a request's way. Those of a transcription that succeeds add up to its time, from its head until its response
/// can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The body arrives.
    Upload,
    /// The file becomes samples; it may wait for a decoder.
    Decode,
    /// It waits: to be prepared, for the model, for others that share it.
    Queue,
    /// Samples become windows and features.
    Prepare,
    /// The encoder runs for it.
    Encode,
    /// The decoder runs for it, and perhaps for others.
    DecodeSteps,
    /// The model speaks, waiting for its turn included, and what it says is encoded.
    Speak,
    /// A cascade translates the transcript, or waits for its turn.
    Translate,
    /// The transcript becomes a response.
    Render,
}

impl Phase {
    /// Its name in labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Prepare => "prepare",
            Self::Encode => "encode",
            Self::DecodeSteps => "decode_steps",
            Self::Speak => "speak",
            Self::Translate => "translate",
            Self::Render => "render",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    task: &'static str,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Makes histograms of the same buckets.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Histograms<L> = Family<L, Histogram, Buckets>;
type SecondsCounter = Counter<f64, AtomicU64>;
type SecondsGauge = Gauge<f64, AtomicU64>;

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_secs: Histograms<RouteLabels>,
    queue_requests: Family<ModelLabels, Gauge>,
    queue_audio_secs: Family<ModelLabels, SecondsGauge>,
    audio_secs: Family<TaskLabels, SecondsCounter>,
    rtf: Histograms<ModelLabels>,
    ttft_secs: Histogram,
    ttfa_secs: Histogram,
    phase_secs: Histograms<PhaseLabels>,
    tokens: Counter,
    patches: Counter,
    cancelled: Family<PhaseLabels, Counter>,
    rejected: Family<ReasonLabels, Counter>,
    batch_size: Histogram,
    model_loaded: Family<ModelLabels, Gauge>,
    gap_secs: Family<ModelLabels, SecondsCounter>,
    resident_bytes: Gauge,
}

impl Metrics {
    /// All metrics at zero, those of these models included.
    pub fn new<'a>(models: impl Iterator<Item = &'a Arc<str>>) -> Self {
        let histograms = |buckets| Family::new_with_constructor(Buckets(buckets));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            request_secs: Family::new_with_constructor(Buckets(&REQUEST_BUCKETS)),
            queue_requests: Family::default(),
            queue_audio_secs: Family::default(),
            audio_secs: Family::default(),
            rtf: Family::new_with_constructor(Buckets(&RTF_BUCKETS)),
            ttft_secs: Buckets(&PHASE_BUCKETS).new_metric(),
            ttfa_secs: Buckets(&PHASE_BUCKETS).new_metric(),
            phase_secs: histograms(&PHASE_BUCKETS),
            tokens: Counter::default(),
            patches: Counter::default(),
            cancelled: Family::default(),
            rejected: Family::default(),
            batch_size: Buckets(&BATCH_BUCKETS).new_metric(),
            model_loaded: Family::default(),
            gap_secs: Family::default(),
            resident_bytes: Gauge::default(),
        };
        metrics.register();
        for model in models {
            let labels = ModelLabels { model: model.as_ref().to_owned() };
            drop(metrics.queue_requests.get_or_create(&labels));
            drop(metrics.queue_audio_secs.get_or_create(&labels));
            drop(metrics.model_loaded.get_or_create(&labels));
            drop(metrics.gap_secs.get_or_create(&labels));
        }
        metrics
    }

    /// Names, in one place. The registry writes `_total` behind counters.
    fn register(&mut self) {
        let started: SecondsGauge = Gauge::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        started.set(now.as_secs_f64());
        let to = &mut self.registry;
        to.register("http_requests", "Requests answered", self.requests.clone());
        to.register(
            "http_request_duration_seconds",
            "Time from a request's head to the end of its response",
            self.request_secs.clone(),
        );
        to.register(
            "speechd_queue_requests",
            "Requests that wait or are worked on",
            self.queue_requests.clone(),
        );
        to.register(
            "speechd_queue_audio_seconds",
            "Sound that waits or is worked on, in whole windows, or as long as texts are expected to last",
            self.queue_audio_secs.clone(),
        );
        to.register(
            "speechd_audio_seconds",
            "Sound that was worked through, or spoken",
            self.audio_secs.clone(),
        );
        to.register(
            "speechd_rtf",
            "Seconds from the end of the upload to the response, or to the last sound, per second of sound",
            self.rtf.clone(),
        );
        to.register(
            "speechd_ttft_seconds",
            "Time from the end of the upload to the first text",
            self.ttft_secs.clone(),
        );
        to.register(
            "speechd_ttfa_seconds",
            "Time from the end of a request to speak to the first sound",
            self.ttfa_secs.clone(),
        );
        to.register(
            "speechd_phase_seconds",
            "Time spent in each part of a request; those of a transcription add up",
            self.phase_secs.clone(),
        );
        to.register("speechd_tokens", "Tokens that were written", self.tokens.clone());
        to.register("speechd_patches", "Patches of sound that were spoken", self.patches.clone());
        to.register(
            "speechd_cancelled",
            "Requests whose client left, by where they were",
            self.cancelled.clone(),
        );
        to.register(
            "speechd_rejected",
            "Requests that were refused or cut off, by the error's code",
            self.rejected.clone(),
        );
        to.register("speechd_batch_size", "Rows that were decoded together", self.batch_size.clone());
        to.register("speechd_model_loaded", "1 when the model serves", self.model_loaded.clone());
        to.register("speechd_coverage_gap_seconds", "Speech that got no text", self.gap_secs.clone());
        to.register("process_start_time_seconds", "When the process began, since 1970", started);
        to.register(
            "process_resident_memory_bytes",
            "Memory that the process has in use",
            self.resident_bytes.clone(),
        );
    }

    /// Everything as OpenMetrics text.
    pub fn encode(&self, models: &Models) -> String {
        for model in models.all() {
            let labels = ModelLabels { model: model.name.as_ref().to_owned() };
            let load = match &model.state {
                ModelState::Ready(serving) => Some(serving.load()),
                ModelState::Loading | ModelState::Failed(_) => None,
            };
            self.model_loaded.get_or_create(&labels).set(load.is_some().into());
            let load = load.unwrap_or_default();
            self.queue_requests.get_or_create(&labels).set(load.n_requests as i64);
            self.queue_audio_secs.get_or_create(&labels).set(load.audio_secs);
        }
        if let Some(bytes) = process::memory_bytes() {
            self.resident_bytes.set(bytes as i64);
        }
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }

    /// A response is complete. `route` as the router has it, `None` where it has none.
    pub fn request(&self, route: Option<&str>, method: &Method, status: u16, time: Duration) {
        let route = route.unwrap_or("unmatched").to_owned();
        let labels = RequestLabels { route: route.clone(), method: method_name(method), status };
        self.requests.get_or_create(&labels).inc();
        self.request_secs.get_or_create(&RouteLabels { route }).observe(time.as_secs_f64());
    }

    /// A request was refused with this code.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A request's client left.
    pub fn cancelled(&self, phase: Phase) {
        self.cancelled.get_or_create(&PhaseLabels { phase: phase.name() }).inc();
    }

    /// Awaits a phase of a request, and counts a cancellation in it when it is dropped before its end.
    pub async fn during<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        let mut counted = InPhase { metrics: self, phase, is_over: false };
        let outcome = work.await;
        counted.is_over = true;
        outcome
    }

    /// A phase of a request is over.
    pub fn phase(&self, phase: Phase, time: Duration) {
        self.phase_secs.get_or_create(&PhaseLabels { phase: phase.name() }).observe(time.as_secs_f64());
    }

    /// A transcript is ready: so much sound, so much time from the end of its upload, so much of its speech without
    /// text.
    pub fn transcribed(&self, model: &str, task: Task, audio_secs: f64, time: Duration, gap_secs: f64) {
        let labels = ModelLabels { model: model.to_owned() };
        if audio_secs > 0.0 {
            self.rtf.get_or_create(&labels).observe(time.as_secs_f64() / audio_secs);
        }
        self.gap_secs.get_or_create(&labels).inc_by(gap_secs);
        let task = match task {
            Task::Transcribe => "transcribe",
            Task::Translate => "translate",
        };
        self.audio_secs.get_or_create(&TaskLabels { task, model: labels.model }).inc_by(audio_secs);
    }

    /// A text was spoken: so much sound, in so many patches, so much time from the end of its request.
    pub fn spoken(&self, model: &str, audio_secs: f64, n_patches: usize, time: Duration) {
        self.patches.inc_by(n_patches as u64);
        let labels = ModelLabels { model: model.to_owned() };
        if audio_secs > 0.0 {
            self.rtf.get_or_create(&labels).observe(time.as_secs_f64() / audio_secs);
        }
        self.audio_secs.get_or_create(&TaskLabels { task: "speak", model: labels.model }).inc_by(audio_secs);
    }

    /// The first sound of a request is there, so much time after its end.
    pub fn first_sound(&self, time: Duration) {
        self.ttfa_secs.observe(time.as_secs_f64());
    }

    /// The first text of a request is there, so much time after the end of its upload.
    pub fn first_text(&self, time: Duration) {
        self.ttft_secs.observe(time.as_secs_f64());
    }

    /// A decoder step over so many rows is done.
    pub fn step(&self, rows: usize) {
        self.batch_size.observe(rows as f64);
    }

    /// Tokens of a result.
    pub fn tokens(&self, tokens: usize) {
        self.tokens.inc_by(tokens as u64);
    }
}

/// A request in a phase: a future that is dropped here belongs to a client that left.
struct InPhase<'a> {
    metrics: &'a Metrics,
    phase: Phase,
    is_over: bool,
}

impl Drop for InPhase<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.metrics.cancelled(self.phase);
        }
    }
}

/// Methods are anything; labels are few.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn used() -> String {
        let models = Models::new(["a\"b".to_owned()]);
        let metrics = Metrics::new(models.names());
        let second = Duration::from_secs(1);
        for status in [200, 404] {
            metrics.request(Some("/v1/models/{*id}"), &Method::GET, status, second);
        }
        metrics.request(None, &Method::from_bytes(b"BREW").expect("a method"), 405, second);
        metrics.rejected("queue_full");
        metrics.cancelled(Phase::Upload);
        for phase in [Phase::Upload, Phase::DecodeSteps] {
            metrics.phase(phase, second);
        }
        metrics.transcribed("a\"b", Task::Transcribe, 10.0, second, 0.5);
        metrics.spoken("a\"b", 4.0, 7, second);
        metrics.first_text(second);
        metrics.first_sound(second);
        metrics.step(3);
        metrics.tokens(3);
        metrics.encode(&models)
    }

    /// What Prometheus' own linter asks for, and that no label can grow without end.
    #[test]
    fn metrics_are_named_helped_typed_and_bounded() {
        let page = used();
        assert!(page.ends_with("# EOF\n"), "{page}");
        let mut types = BTreeMap::new();
        let mut helped = BTreeSet::new();
        let mut labels = BTreeSet::new();
        for line in page.lines() {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["#", "HELP", name, help] => {
                    assert!(help.ends_with('.') && helped.insert((*name).to_owned()), "{line}");
                }
                ["#", "TYPE", name, kind] => {
                    assert!(types.insert((*name).to_owned(), (*kind).to_owned()).is_none(), "{line}");
                }
                ["#", ..] => {}
                _ => {
                    let name = line.split(['{', ' ']).next().unwrap_or_default();
                    let suffixes = ["_total", "_bucket", "_sum", "_count", ""];
                    let kind =
                        suffixes.iter().find_map(|suffix| types.get(name.strip_suffix(suffix)?)).expect(line);
                    assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                    if let Some((_, rest)) = line.split_once('{') {
                        let pairs = rest.rsplit_once('}').expect("closed").0.split("\",");
                        labels.extend(pairs.map(|pair| pair.split('=').next().expect("a name").to_owned()));
                    }
                }
            }
        }
        assert_eq!(helped, types.keys().cloned().collect());
        for name in types.keys() {
            let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let has_prefix = ["http_", "speechd_", "process_"].iter().any(|start| name.starts_with(start));
            assert!(is_plain && has_prefix && !name.ends_with("_total"), "{name}");
        }
        let known = ["le", "method", "model", "phase", "reason", "route", "status", "task"];
        assert_eq!(labels, known.map(str::to_owned).into());
    }

    #[test]
    fn what_happened_is_what_is_shown() {
        let page = used();
        for line in [
            r#"http_requests_total{route="/v1/models/{*id}",method="GET",status="404"} 1"#,
            r#"http_requests_total{route="unmatched",method="OTHER",status="405"} 1"#,
            r#"speechd_queue_audio_seconds{model="a\"b"} 0.0"#,
            r#"speechd_audio_seconds_total{task="transcribe",model="a\"b"} 10.0"#,
            r#"speechd_rtf_bucket{le="0.1",model="a\"b"} 1"#,
            r#"speechd_model_loaded{model="a\"b"} 0"#,
            "speechd_tokens_total 3",
            "speechd_patches_total 7",
            "speechd_ttft_seconds_count 1",
            "speechd_ttfa_seconds_count 1",
            r#"speechd_audio_seconds_total{task="speak",model="a\"b"} 4.0"#,
            r#"speechd_phase_seconds_sum{phase="decode_steps"} 1.0"#,
        ] {
            assert!(page.lines().any(|candidate| candidate == line), "{line} is not in\n{page}");
        }
        #[cfg(target_os = "linux")]
        assert!(!page.contains("process_resident_memory_bytes 0\n"));
    }
}
