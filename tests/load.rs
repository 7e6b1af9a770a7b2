//! The load generator against a service whose every move is known.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::Value;

use crate::{
    canned_service::{Behaviour, CannedService},
    cli::{home, run, speechd},
    support::fixture,
};

/// Loads the service with the digits and these arguments; its exit code, report and messages.
fn load(service: &CannedService, arguments: &[&str]) -> (i32, Value, String) {
    let home = home();
    let mut command = speechd(home.path());
    command.args(["bench", "serve", "--model", "m", "--json", "--url", &service.url]).args(arguments);
    let digits = fixture("digits").canonicalize().expect("a fixture");
    let (code, stdout, stderr) = run(command.arg(digits));
    (code, serde_json::from_str(&stdout).unwrap_or_default(), stderr)
}

fn count(report: &Value, path: &str) -> usize {
    let number = report.pointer(path).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("no {path} in {report}")) as usize
}

#[test]
fn every_request_is_accounted_for_and_connections_are_kept() {
    let behaviour = Behaviour { refuse_every: 9, delay: Duration::from_millis(2), ..Behaviour::default() };
    let service = CannedService::start(behaviour);
    let pid = std::process::id().to_string();
    let arguments = [
        ["--requests", "400"],
        ["--clients", "8"],
        ["--rate", "1500"],
        ["--stream", "0.3"],
        ["--abort", "0.1"],
        ["--pid", &pid],
    ];
    let mut arguments = arguments.concat();
    arguments.push("--verify");
    let (code, report, stderr) = load(&service, &arguments);
    assert_eq!(code, 0, "{stderr} {report}");

    let [answered, left] = ["/answered", "/left"].map(|path| count(&report, path));
    let refused = count(&report, "/refused/too_many_requests");
    assert_eq!(answered + left + refused, 400, "{report}");
    assert!(left > 20 && refused > 20, "{report}");
    assert_eq!(count(&report, "/refused/with_retry_after_ms"), refused);
    assert_eq!((count(&report, "/failed/count"), count(&report, "/unsent")), (0, 0));
    assert_eq!(count(&report, "/latency/all/count"), answered);
    assert_eq!((count(&report, "/verify/compared"), count(&report, "/verify/differences")), (answered, 0));
    assert!(count(&report, "/first_event/count") > 50, "{report}");
    assert!(count(&report, "/process/samples") > 0 && count(&report, "/process/rss_max_bytes") > 0);
    // Each client, the one that was alone, and a new one for each that left.
    assert!(service.seen.connections() <= 8 + 1 + left, "{} of {left}", service.seen.connections());
    // The service may have seen nothing of a client that left, and refused one that was gone.
    assert!(service.seen.refused.load(Ordering::Relaxed) >= refused);
    assert_eq!(service.seen.livez.load(Ordering::Relaxed), count(&report, "/livez/latency/count"));
}

#[test]
fn time_runs_from_when_a_request_was_due() {
    // One client, and a service that takes longer than requests take to arrive: the last one has waited for all before it.
    let service =
        CannedService::start(Behaviour { delay: Duration::from_millis(20), ..Behaviour::default() });
    let (code, report, stderr) = load(&service, &["--requests", "20", "--clients", "1", "--rate", "100000"]);
    assert_eq!(code, 0, "{stderr}");
    let max_secs = report["latency"]["all"]["max_secs"].as_f64().expect("a latency");
    assert!(max_secs >= 0.39, "{report}");
    assert_eq!(service.seen.connections(), 2);
}

#[test]
fn an_answer_that_differs_under_load_is_found() {
    let service = CannedService::start(Behaviour { lie_at: Some(40), ..Behaviour::default() });
    let (code, report, stderr) = load(&service, &["--requests", "60", "--rate", "500", "--verify"]);
    assert_eq!((code, count(&report, "/verify/differences")), (1, 1), "{report}");
    assert!(stderr.contains("error: 1 answers differ"), "{stderr}");
}

#[test]
fn a_failure_is_told_with_its_message() {
    let service = CannedService::start(Behaviour { fail_at: Some(30), ..Behaviour::default() });
    let (code, report, stderr) = load(&service, &["--requests", "40", "--utilisation", "0.5"]);
    assert_eq!((code, count(&report, "/failed/count")), (1, 1), "{report}");
    assert_eq!(report["failed"]["messages"]["status 500: something broke"], 1, "{report}");
    assert!(stderr.contains("error: 1 requests failed"), "{stderr}");
}

#[test]
fn a_service_that_refuses_everything_is_not_loaded() {
    let service = CannedService::start(Behaviour { key: Some("k".to_owned()), ..Behaviour::default() });
    let (code, _, stderr) = load(&service, &["--requests", "10", "--rate", "100"]);
    assert_eq!((code, service.seen.requests.load(Ordering::Relaxed)), (1, 1));
    assert!(stderr.contains("asked for alone: status 401: no key"), "{stderr}");
    let (code, report, stderr) = load(&service, &["--requests", "10", "--rate", "100", "--api-key", "k"]);
    assert_eq!((code, count(&report, "/answered")), (0, 10), "{stderr}");
}

#[test]
fn what_cannot_be_loaded_is_a_usage_error() {
    let service = CannedService::start(Behaviour::default());
    for (arguments, part) in [
        (&["--requests", "5"][..], "--rate <R>|--utilisation <SHARE>"),
        (&["--rate", "0"][..], "not between"),
        (&["--rate", "5", "--abort", "1.5"][..], "not between 0 and 1"),
        (&["--rate", "5", "none.wav"][..], "none.wav: no such file"),
    ] {
        let (code, _, stderr) = load(&service, arguments);
        assert!(code == 2 && stderr.contains(part), "{stderr}");
    }
    assert_eq!(service.seen.requests.load(Ordering::Relaxed), 0);
    let home = home();
    let remote = ["bench", "serve", "--model", "m", "--rate", "1", "--url", "http://192.0.2.1", "a.wav"];
    let (code, _, stderr) = run(speechd(home.path()).args(remote));
    assert!(code == 2 && stderr.contains("--allow-remote"), "{stderr}");
}
