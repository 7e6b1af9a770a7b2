//! Fetching models from a hub that is slow, broken, hostile or not there.

use std::{collections::BTreeMap, fs, path::Path, thread, time::Duration};

use server::registry::{self, Error, Hub, HubOptions, Repository, Summary};
use tempfile::TempDir;

use crate::{
    loopback_hub::{Behaviour, COMMIT, ID, LoopbackHub, Redirect, etag},
    support::fixture,
};

/// A whole, tiny bundle, and the files of other frameworks that stand beside it.
pub fn bundle_files() -> BTreeMap<String, Vec<u8>> {
    let bundle = [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "model.safetensors",
    ];
    let mut files: BTreeMap<_, _> = bundle
        .into_iter()
        .map(|name| (name.to_owned(), fs::read(fixture("whisper-80").join(name)).expect("a fixture")))
        .collect();
    for (name, text) in [
        ("vocab.json", "{}"),
        ("pytorch_model.bin", "pickle"),
        ("flax_model.msgpack", "flax"),
        ("README.md", "# Micro"),
    ] {
        files.insert(name.to_owned(), text.as_bytes().to_vec());
    }
    files
}

fn hub(endpoint: &str, cache: &Path) -> HubOptions {
    HubOptions {
        endpoint: endpoint.to_owned(),
        cache: cache.to_owned(),
        token: None,
        offline: false,
        retry_delay: Duration::from_millis(1),
    }
}

struct Fixture {
    server: LoopbackHub,
    cache: TempDir,
}

impl Fixture {
    fn new(behaviour: Behaviour) -> Self {
        Self::with_files(bundle_files(), behaviour)
    }

    fn with_files(files: BTreeMap<String, Vec<u8>>, behaviour: Behaviour) -> Self {
        Self { server: LoopbackHub::start(files, behaviour), cache: TempDir::new().expect("a directory") }
    }

    fn pull(&self) -> Result<std::path::PathBuf, Error> {
        Hub::new(hub(&self.server.endpoint, self.cache.path())).pull(&repository("speech/micro"), &mut |_| ())
    }

    fn repository_folder(&self) -> std::path::PathBuf {
        self.cache.path().join("models--speech--micro")
    }

    fn assert_whole(&self, snapshot: &Path) {
        let weights = fs::read(snapshot.join("model.safetensors")).expect("weights");
        assert!(weights == bundle_files()["model.safetensors"], "the weights differ");
        let blobs = fs::read_dir(self.repository_folder().join("blobs")).expect("blobs");
        let partial: Vec<_> = blobs.flatten().filter(|blob| blob.path().extension().is_some()).collect();
        assert!(partial.is_empty(), "{partial:?}");
    }
}

fn repository(spec: &str) -> Repository {
    Repository::parse(spec).expect("an id")
}

#[test]
fn a_pull_leaves_the_layout_that_python_reads() {
    let fixture = Fixture::new(Behaviour::default());
    let mut last = BTreeMap::new();
    let snapshot = Hub::new(hub(&fixture.server.endpoint, fixture.cache.path()))
        .pull(&repository(ID), &mut |at| {
            last.insert(at.file.to_owned(), (at.received, at.total));
        })
        .expect("pulled");
    fixture.assert_whole(&snapshot);
    let folder = fixture.repository_folder();
    assert_eq!(snapshot, folder.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).expect("a ref"), COMMIT);
    let sha256 = etag(&bundle_files()["model.safetensors"], true);
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(snapshot.join("model.safetensors")).expect("a link"),
        Path::new("../../blobs").join(&sha256)
    );
    assert!(
        folder.join("blobs").join(etag(&bundle_files()["config.json"], false)).is_file(),
        "small files are named as git names them"
    );
    let size = bundle_files()["model.safetensors"].len() as u64;
    assert_eq!(last["model.safetensors"], (size, Some(size)));
    let mut names: Vec<_> = fs::read_dir(&snapshot)
        .expect("a snapshot")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let wanted = ["config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"];
    assert_eq!(
        (&names[..4], names[4].as_str(), names.len()),
        (&wanted.map(str::to_owned)[..], "tokenizer.json", 5)
    );
    let summary = Summary::open(&snapshot.as_path().into()).expect("described");
    assert_eq!((summary.architecture.as_str(), summary.languages.len()), ("whisper", 8));
    assert_eq!(
        summary.files.iter().find(|file| file.name == "model.safetensors").expect("listed").sha256,
        sha256
    );
}

#[test]
fn a_model_of_sentencepiece_is_fetched_where_it_is_the_only_tokenizer() {
    let mut files = bundle_files();
    files.insert("tokenizer.model".to_owned(), b"sentencepiece".to_vec());
    let both = Fixture::with_files(files.clone(), Behaviour::default());
    let snapshot = both.pull().expect("pulled");
    assert!(snapshot.join("tokenizer.json").is_file() && !snapshot.join("tokenizer.model").exists());
    files.remove("tokenizer.json");
    let alone = Fixture::with_files(files.clone(), Behaviour::default());
    let snapshot = alone.pull().expect("pulled");
    assert!(snapshot.join("tokenizer.model").is_file());
    let offline = Hub::new(HubOptions { offline: true, ..hub("http://127.0.0.1:9", alone.cache.path()) });
    assert_eq!(offline.resolve(&repository(ID), &mut |_| ()).expect("complete"), snapshot);
    files.remove("tokenizer.model");
    let message = Fixture::with_files(files, Behaviour::default()).pull().expect_err("refused").to_string();
    assert!(message.contains("neither tokenizer.json nor tokenizer.model"), "{message}");
}

#[test]
fn a_translator_of_text_is_fetched_with_its_own_pieces() {
    let folder = |name: &str| -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(fixture(&format!("text-translation/{name}"))).expect("a fixture");
        let file = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a file"))
        };
        files.flatten().map(file).collect()
    };
    let marian = Fixture::with_files(folder("marian"), Behaviour::default());
    let source = marian.pull().expect("pulled").as_path().into();
    let translator = models::TextTranslator::load(&source, &models::Device::Cpu).expect("a translator");
    assert_eq!(translator.languages(), ["ps"]);
    let mut files = folder("madlad");
    files.insert("spiece.model".to_owned(), b"sentencepiece".to_vec());
    let both = Fixture::with_files(files.clone(), Behaviour::default());
    assert!(!both.pull().expect("pulled").join("spiece.model").exists());
    files.remove("tokenizer.json");
    let pieces = Fixture::with_files(files, Behaviour::default());
    assert!(pieces.pull().expect("pulled").join("spiece.model").is_file());
}

#[test]
fn what_is_in_the_cache_needs_no_network() {
    let fixture = Fixture::new(Behaviour::default());
    let pulled = fixture.pull().expect("pulled");
    let before = fixture.server.seen().len();
    let online = Hub::new(hub(&fixture.server.endpoint, fixture.cache.path()));
    assert_eq!(registry::resolve(ID, &online, &mut |_| ()).expect("cached").path(""), pulled);
    assert_eq!(fixture.server.seen().len(), before, "a complete snapshot is used as it is");
    online.pull(&repository(ID), &mut |_| ()).expect("pulled again");
    assert_eq!(fixture.server.weight_requests().len(), 1, "equal files are not fetched again");

    let offline = Hub::new(HubOptions { offline: true, ..hub("http://127.0.0.1:9", fixture.cache.path()) });
    for spec in [ID, &format!("{ID}@main"), &format!("{ID}@{COMMIT}")] {
        assert_eq!(registry::resolve(spec, &offline, &mut |_| ()).expect("cached").path(""), pulled);
    }
    let message =
        registry::resolve("speech/other", &offline, &mut |_| ()).expect_err("not there").to_string();
    assert!(message.contains("speech/other") && message.contains("HF_HUB_OFFLINE"), "{message}");
    assert_eq!(online.cache().list().expect("listed")[0].revisions, ["main"]);
}

#[test]
fn an_incomplete_snapshot_is_completed() {
    let fixture = Fixture::new(Behaviour::default());
    let snapshot = fixture.pull().expect("pulled");
    fs::remove_file(snapshot.join("model.safetensors").canonicalize().expect("a blob")).expect("removed");
    let hub = Hub::new(hub(&fixture.server.endpoint, fixture.cache.path()));
    registry::resolve(ID, &hub, &mut |_| ()).expect("completed");
    fixture.assert_whole(&snapshot);
}

#[test]
fn broken_connections_are_resumed_where_they_broke() {
    for redirect in [Redirect::None, Redirect::Relative, Redirect::OtherHost] {
        let behaviour = Behaviour { redirect, cuts: vec![100_000, 50_000, 0], ..Behaviour::default() };
        let fixture = Fixture::new(behaviour);
        fixture.assert_whole(&fixture.pull().expect("pulled"));
        let ranges: Vec<_> = fixture.server.weight_requests().into_iter().map(|seen| seen.range).collect();
        let expected = [None, Some("bytes=100000-"), Some("bytes=150000-"), Some("bytes=150000-")];
        assert_eq!(ranges, expected.map(|range| range.map(str::to_owned)));
    }
}

#[test]
fn a_later_run_resumes_what_an_earlier_one_left() {
    let fixture = Fixture::new(Behaviour { cuts: vec![100_000, 0, 0, 0, 0, 0], ..Behaviour::default() });
    let error = fixture.pull().expect_err("cut every time");
    assert!(matches!(error, Error::Network { attempts: 5, .. }), "{error}");
    fixture.server.set(|behaviour| behaviour.cuts.clear());
    fixture.assert_whole(&fixture.pull().expect("resumed"));
    assert_eq!(
        fixture.server.weight_requests().last().expect("asked").range.as_deref(),
        Some("bytes=100000-")
    );
}

#[test]
fn hubs_without_working_ranges_are_read_from_the_start() {
    let ignores = Behaviour { cuts: vec![100_000], ignores_ranges: true, ..Behaviour::default() };
    let wrong = Behaviour { cuts: vec![100_000], wrong_ranges: true, ..Behaviour::default() };
    for behaviour in [ignores, wrong] {
        let fixture = Fixture::new(behaviour);
        fixture.assert_whole(&fixture.pull().expect("pulled"));
    }
}

#[test]
fn a_hub_that_cuts_and_cannot_resume_is_given_up() {
    let behaviour = Behaviour { cuts: vec![1000; 50], wrong_ranges: true, ..Behaviour::default() };
    let error = Fixture::new(behaviour).pull().expect_err("no progress");
    assert!(matches!(error, Error::Network { .. }), "{error}");
}

#[test]
fn what_an_earlier_run_left_wrong_is_fetched_anew() {
    let fixture = Fixture::new(Behaviour::default());
    let blob =
        fixture.repository_folder().join("blobs").join(etag(&bundle_files()["model.safetensors"], true));
    fs::create_dir_all(blob.parent().expect("a folder")).expect("created");
    for leftover in [vec![7; 1000], vec![7; 400_000], bundle_files()["model.safetensors"].clone()] {
        let _ = fs::remove_file(&blob);
        fs::write(format!("{}.incomplete", blob.display()), leftover).expect("written");
        fixture.assert_whole(&fixture.pull().expect("pulled"));
    }
}

#[test]
fn wrong_contents_never_enter_the_cache() {
    let fixture = Fixture::new(Behaviour { corrupt: 1, ..Behaviour::default() });
    let message = fixture.pull().expect_err("refused").to_string();
    let expected = etag(&bundle_files()["model.safetensors"], true);
    assert!(message.contains("model.safetensors: digest is") && message.contains(&expected), "{message}");
    assert!(!fixture.repository_folder().join("refs/main").exists());
    fixture.assert_whole(&fixture.pull().expect("the next one is right"));
}

#[test]
fn a_busy_hub_is_asked_again() {
    let fixture = Fixture::new(Behaviour { busy: 4, ..Behaviour::default() });
    fixture.assert_whole(&fixture.pull().expect("pulled"));
    let fixture = Fixture::new(Behaviour { busy: 500, ..Behaviour::default() });
    let message = fixture.pull().expect_err("gives up").to_string();
    assert!(message.contains("503") && message.contains("tried 5 times"), "{message}");
}

#[test]
fn nobody_there_is_a_network_error() {
    let cache = TempDir::new().expect("a directory");
    let error = Hub::new(hub("http://127.0.0.1:9", cache.path())).pull(&repository(ID), &mut |_| ());
    let message = error.expect_err("nobody").to_string();
    assert!(
        message.starts_with("http://127.0.0.1:9/api/models/speech/micro") && message.contains("HF_ENDPOINT"),
        "{message}"
    );
}

#[test]
fn refusals_say_what_to_do() {
    let fixture = Fixture::new(Behaviour::default());
    let hub = Hub::new(hub(&fixture.server.endpoint, fixture.cache.path()));
    for (spec, parts) in [
        ("speech/none", ["speech/none", "HF_TOKEN if it is private"]),
        ("speech/micro@v9", ["speech/micro@v9", "no such revision"]),
    ] {
        let message = hub.pull(&repository(spec), &mut |_| ()).expect_err("refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    hub.pull(&repository("speech/micro@refs/pr/1"), &mut |_| ()).expect("a branch with slashes");
    assert!(fixture.repository_folder().join("refs/refs/pr/1").is_file());
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let behaviour = Behaviour {
        token: Some("hf_secret".to_owned()),
        redirect: Redirect::OtherHost,
        ..Behaviour::default()
    };
    let fixture = Fixture::new(behaviour);
    let message = fixture.pull().expect_err("gated").to_string();
    assert!(message.contains("gated") && message.contains("HF_TOKEN"), "{message}");
    let options = HubOptions {
        token: Some("hf_secret".to_owned()),
        ..hub(&fixture.server.endpoint, fixture.cache.path())
    };
    let snapshot = Hub::new(options).pull(&repository(ID), &mut |_| ()).expect("pulled");
    fixture.assert_whole(&snapshot);
    let seen = fixture.server.seen();
    let elsewhere: Vec<_> = seen.iter().filter(|seen| seen.is_other_host).collect();
    assert!(
        !elsewhere.is_empty() && elsewhere.iter().all(|seen| seen.authorization.is_none()),
        "{elsewhere:?}"
    );
}

#[test]
fn repositories_that_cannot_run_are_refused_before_anything_large_is_fetched() {
    let without = |names: &[&str]| {
        let mut files = bundle_files();
        files.retain(|name, _| !names.contains(&name.as_str()));
        files
    };
    for (files, part) in [
        (without(&["model.safetensors"]), "no model.safetensors"),
        (without(&["config.json"]), "no config.json"),
    ] {
        let fixture = Fixture::with_files(files, Behaviour::default());
        let message = fixture.pull().expect_err("refused").to_string();
        assert!(message.contains("speech/micro") && message.contains(part), "{message}");
        assert_eq!(fixture.server.seen().len(), 1);
    }
    for hostile in ["../../outside", "/etc/passwd", "a/../../b", "C:\\x"] {
        let fixture = Fixture::new(Behaviour { listed: vec![hostile.to_owned()], ..Behaviour::default() });
        let message = fixture.pull().expect_err("refused").to_string();
        assert!(message.contains("unsafe name"), "{message}");
    }
}

#[test]
fn sharded_weights_are_fetched_by_their_index() {
    let mut files = bundle_files();
    let weights = files.remove("model.safetensors").expect("weights");
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        files.insert(shard.to_owned(), weights.clone());
    }
    let index = |shard: &str| {
        format!(r#"{{"weight_map":{{"a":"model-00001-of-00002.safetensors","b":"{shard}"}}}}"#).into_bytes()
    };
    files.insert("model.safetensors.index.json".to_owned(), index("model-00002-of-00002.safetensors"));
    let fixture = Fixture::with_files(files.clone(), Behaviour::default());
    let snapshot = fixture.pull().expect("pulled");
    assert!(
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
            .into_iter()
            .all(|shard| fs::read(snapshot.join(shard)).expect("a shard") == weights)
    );
    for (shard, part) in
        [("../../../escape.safetensors", "no safetensors file"), ("model-3.safetensors", "does not have")]
    {
        files.insert("model.safetensors.index.json".to_owned(), index(shard));
        let message =
            Fixture::with_files(files.clone(), Behaviour::default()).pull().expect_err("refused").to_string();
        assert!(message.contains(shard) && message.contains(part), "{message}");
    }
}

#[test]
fn simultaneous_pulls_share_one_download() {
    let fixture = Fixture::new(Behaviour::default());
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.pull())).collect();
        for pull in pulls {
            fixture.assert_whole(&pull.join().expect("no panic").expect("pulled"));
        }
    });
    assert_eq!(fixture.server.weight_requests().len(), 1);
}
