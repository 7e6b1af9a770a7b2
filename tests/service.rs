//! `speechd serve` as a process: what it says, what it refuses, how it ends.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    cli::{home, run, speechd},
    connections::{eventually, get},
    loopback_server::{Connection, Response, form, head, post},
    support::fixture,
};

pub struct Service {
    child: Child,
    address: SocketAddr,
    /// Everything on standard error so far.
    log: Arc<Mutex<String>>,
}

impl Service {
    /// Starts `command` and waits until it listens.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("started");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let copy = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = copy.lock().expect("no panic");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let said = || -> Option<SocketAddr> {
            let log = log.lock().expect("no panic");
            let line = log.lines().find_map(|line| line.strip_prefix("listening on http://"))?;
            line.parse().ok()
        };
        assert!(eventually(|| said().is_some()), "{}", log.lock().expect("no panic"));
        let address = said().expect("an address");
        Self { child, address, log }
    }

    pub fn status(&self, path: &str) -> Option<u16> {
        self.send(&get(path)).map(|response| response.status)
    }

    pub fn send(&self, request: &[u8]) -> Option<Response> {
        let mut connection = Connection::open(self.address);
        connection.write(request);
        connection.read()
    }

    /// What a model says to have heard in a recording.
    fn transcribe(&self, model: &str, recording: &[u8]) -> String {
        let fields =
            [("model", model), ("language", "en"), ("response_format", "text"), ("temperature", "0")];
        let response = self.send(&post("/v1/audio/transcriptions", &form(&fields, Some(recording))));
        let response = response.expect("an answer");
        assert_eq!(response.status, 200, "{}", response.text());
        response.text()
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().expect("kill").success());
    }

    /// The exit code.
    fn join(mut self) -> Option<i32> {
        self.child.wait().expect("ended").code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tiny() -> String {
    format!("tiny={}", fixture("whisper-80").display())
}

/// `speechd serve` on a free port of the loopback interface.
pub fn serve(home: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = speechd(home);
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
    command
}

#[test]
fn what_cannot_be_served_is_refused_at_once() {
    let home = home();
    let tiny = tiny();
    let model = ["--model", tiny.as_str()];
    for (arguments, parts) in [
        #[cfg(not(feature = "bundled"))]
        (vec![], ["no model", "openai/whisper-base"]),
        (vec!["--model", "./none"], ["./none", "no such directory"]),
        ([model, model].concat(), ["two models", "`tiny`"]),
        ([&model[..], &["--listen", "nowhere"]].concat(), ["listen `nowhere`", "127.0.0.1:8000"]),
        ([&model[..], &["--listen", "0.0.0.0:0"]].concat(), ["SPEECHD_API_KEYS", "--allow-anonymous"]),
        ([&model[..], &["--listen", "[::]:0"]].concat(), ["SPEECHD_API_KEYS", "--allow-anonymous"]),
    ] {
        let mut command = speechd(home.path());
        let (code, stdout, stderr) = run(command.arg("serve").args(&arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{arguments:?}: {stderr}");
    }
    for (variable, value, part) in [
        ("SPEECHD_SERVE__CORS_ORIGINS", "[\"app.example.org\"]", "https://app.example.org"),
        ("SPEECHD_SERVE__DRAIN_SECS", "-1", "serve.drain_secs"),
        ("SPEECHD_TRANSCRIBE__LANGUAGE", "klingon", "language `klingon`"),
        ("SPEECHD_TRANSCRIBE__BEAM_SIZE", "0", "beam_size"),
    ] {
        let (code, _, stderr) = run(speechd(home.path()).arg("serve").args(model).env(variable, value));
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.to_lowercase().contains(&part.to_lowercase()), "{stderr}");
    }
}

#[test]
fn a_public_address_needs_keys_or_leave() {
    let home = home();
    let tiny = tiny();
    let arguments = ["serve", "--model", &tiny, "--listen", "0.0.0.0:0"];
    let with_key = Service::start(speechd(home.path()).args(arguments).env("SPEECHD_API_KEYS", "key"));
    assert_eq!(with_key.status("/v1/models"), Some(401));
    let with_leave = Service::start(speechd(home.path()).args(arguments).arg("--allow-anonymous"));
    assert_eq!(with_leave.status("/v1/models"), Some(200));
}

#[test]
fn keys_are_not_logged_however_much_is() {
    let home = home();
    let mut command = serve(home.path(), &["--model", &tiny()]);
    let service =
        Service::start(command.env("SPEECHD_API_KEYS", "s3cret-a s3cret-b").env("RUST_LOG", "trace"));
    for key in ["s3cret-a", "s3cret-x"] {
        let mut connection = Connection::open(service.address);
        let request = format!(
            "GET /v1/models?key={key} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nX-Request-Id: seen\r\n\r\n"
        );
        connection.write(request.as_bytes());
        assert!(connection.read().is_some_and(|response| matches!(response.status, 200 | 401)));
    }
    assert!(eventually(|| service.log().matches("route=\"/v1/models\"").count() == 2), "{}", service.log());
    let log = service.log();
    assert!(log.contains("status=200") && log.contains("status=401") && log.contains("seen"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

/// Each thread has a priority of its own.
#[cfg(target_os = "linux")]
#[test]
fn what_computes_gives_way_to_what_answers() {
    let home = home();
    let mut command = serve(home.path(), &["--model", &tiny()]);
    let service = Service::start(command.env("SPEECHD_SERVE__COMPUTE_NICENESS", "4"));
    assert!(eventually(|| service.status("/readyz") == Some(200)), "{}", service.log());
    let niceness_of_all = || -> Vec<(String, i32)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", service.child.id())).expect("alive");
        tasks
            .filter_map(|task| {
                let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
                let (name, _) = stat.split_once('(')?.1.rsplit_once(") ")?;
                Some((name.to_owned(), crate::support::niceness_of(&stat)?))
            })
            .collect()
    };
    // A thread gives itself its name, when it has begun to run.
    let is_named = |name: &str| niceness_of_all().iter().any(|(thread, _)| thread.starts_with(name));
    assert!(eventually(|| is_named("model-tiny") && is_named("prepare-tiny")), "{:?}", niceness_of_all());
    let niceness = niceness_of_all();
    let of = |name: &str| -> Vec<i32> {
        niceness.iter().filter(|(thread, _)| thread.starts_with(name)).map(|(_, nice)| *nice).collect()
    };
    let usual = of("tokio-").into_iter().max().expect("threads that answer");
    let given_way = (usual + 4).min(19);
    for name in ["model-tiny", "prepare-tiny"] {
        let all = of(name);
        assert!(!all.is_empty() && all.iter().all(|nice| *nice == given_way), "{name}: {niceness:?}");
    }
    assert!(of("tokio-").iter().all(|nice| *nice == usual), "{niceness:?}");
}

#[test]
fn the_first_signal_drains_and_the_second_ends() {
    let home = home();
    let mut command = serve(home.path(), &["--model", &tiny()]);
    let service = Service::start(command.env("SPEECHD_SERVE__DRAIN_DELAY_SECS", "600"));
    assert!(eventually(|| service.status("/readyz") == Some(200)), "{}", service.log());
    service.signal("TERM");
    // Balancers see it while requests are still served.
    assert!(eventually(|| service.status("/readyz") == Some(503)));
    assert_eq!((service.status("/livez"), service.status("/v1/models")), (Some(200), Some(200)));
    service.signal("INT");
    assert_eq!(service.join(), Some(0));

    let mut command = serve(home.path(), &["--model", &tiny()]);
    let service = Service::start(command.env("SPEECHD_SERVE__DRAIN_SECS", "600"));
    let mut held = Connection::open(service.address);
    held.write(&head("/v1/audio/transcriptions", "Expect: 100-continue\r\n", 100));
    assert!(held.read().is_some_and(|response| response.status == 100));
    service.signal("TERM");
    assert!(eventually(|| service.log().contains("shutting down")));
    service.signal("TERM");
    assert_eq!(service.join(), Some(1));
    assert!(held.is_closed());

    for name in ["TERM", "INT"] {
        let service = Service::start(&mut serve(home.path(), &["--model", &tiny()]));
        service.signal(name);
        assert_eq!(service.join(), Some(0));
    }
}

/// The clip that ships with the model that is part of the program.
fn digits() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundled/digits-en/digits.wav");
    std::fs::read(path).expect("the clip")
}

/// Without a word about models the service has those that are part of the program.
#[test]
fn the_model_inside_is_served_where_none_is_named() {
    if models::BUNDLED.is_empty() {
        return;
    }
    let home = home();
    let service = Service::start(&mut serve(home.path(), &[]));
    assert!(eventually(|| service.status("/readyz") == Some(200)), "{}", service.log());
    let heard = service.transcribe("digits-en", &digits());
    assert_eq!(heard.trim(), "nine seven five seven zero five one eight");
}

#[test]
fn an_adapter_is_served_by_its_name_beside_its_base() {
    let home = home();
    let (base, adapter) = (fixture("whisper-80"), fixture("lora"));
    let names = [("base", &base), ("ps", &adapter)].map(|(name, dir)| format!("{name}={}", dir.display()));
    let service = Service::start(&mut serve(home.path(), &["--model", &names[0], "--model", &names[1]]));
    assert!(eventually(|| service.status("/readyz") == Some(200)), "{}", service.log());
    let clip = home.path().join("digits.wav");
    std::fs::write(&clip, digits()).expect("written");
    let mut heard = std::collections::BTreeSet::new();
    for (name, dir) in [("base", base), ("ps", adapter)] {
        let transcribe = ["transcribe", "--language", "en", "--model"];
        let (code, alone, stderr) = run(speechd(home.path()).args(transcribe).arg(dir).arg(&clip));
        assert_eq!(code, 0, "{stderr}");
        // A terminal gets no control characters, which these two write now and then.
        let served: String =
            service.transcribe(name, &digits()).chars().filter(|c| !c.is_control()).collect();
        assert_eq!(served.trim(), alone.trim(), "{name}");
        heard.insert(served);
    }
    assert_eq!(heard.len(), 2, "the adapter changes nothing");
}

/// While the hub keeps the server waiting for a model.
#[test]
fn a_signal_is_heeded_while_models_are_loaded() {
    let home = home();
    let hub = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", hub.local_addr().expect("an address"));
    let mut command = serve(home.path(), &["--model", &tiny(), "--model", "org/slow"]);
    let service = Service::start(command.env("HF_ENDPOINT", endpoint));
    let _asked = hub.accept().expect("the hub is asked");
    assert_eq!((service.status("/livez"), service.status("/readyz")), (Some(200), Some(503)));
    service.signal("TERM");
    assert_eq!(service.join(), Some(0));
}

/// `speechd serve` under a limit on open files that `ulimit` sets in this way.
fn serve_with_files(home: &std::path::Path, ulimit: &str) -> Service {
    // The shell gives the limit on to the program that takes its place.
    let script = format!("ulimit {ulimit} 40; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_speechd"), "serve"]);
    command.args(["--listen", "127.0.0.1:0", "--model", &tiny()]).env("HOME", home);
    Service::start(&mut command)
}

#[test]
fn running_out_of_files_is_survived() {
    let home = home();
    let service = serve_with_files(home.path(), "-n");
    let held: Vec<_> = (0..60).map(|_| Connection::open(service.address)).collect();
    assert!(eventually(|| service.log().contains("no connection can be accepted")), "{}", service.log());
    drop(held);
    assert!(eventually(|| service.status("/livez") == Some(200)));
    service.signal("TERM");
    assert_eq!(service.join(), Some(0));
}

/// Systems begin with fewer than they allow.
#[test]
fn as_many_files_as_may_be_are_used() {
    let home = home();
    let service = serve_with_files(home.path(), "-S -n");
    let held: Vec<_> = (0..60).map(|_| Connection::open(service.address)).collect();
    assert_eq!(service.status("/livez"), Some(200));
    drop(held);
    service.signal("TERM");
    assert_eq!(service.join(), Some(0));
}
