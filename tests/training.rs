//! `speechd train` and `speechd evaluate` as a user runs them: what is killed goes on to the bit, what fails loses nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use models::{NewVocabulary, TextUnit};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{home, run, speechd};

const WORDS: [&str; 4] = ["one", "two", "three", "four"];
const STEPS: u64 = 12;

/// Tones that are called by their pitch, a manifest of them, and a recipe that learns them.
pub fn workplace() -> TempDir {
    let home = home();
    let mut manifest = String::new();
    for index in 0..24 {
        let word = index % WORDS.len();
        let samples = (0..3_200 + 400 * (index % 5))
            .map(|t| (t as f32 * 0.05 * (1 + word) as f32).sin() * 0.5)
            .collect();
        let waveform = audio::Waveform { samples, sample_rate: 16_000 };
        let name = format!("{index}.wav");
        fs::write(home.path().join(&name), audio::encode::wav_bytes(&waveform).expect("a WAV"))
            .expect("written");
        let (duration, text) = (waveform.duration_secs(), WORDS[word]);
        manifest += &format!(
            "{{\"id\":\"{index}\",\"audio_filepath\":\"{name}\",\"duration\":{duration},\"text\":\"{text}\",\"lang\":\"en\"}}\n"
        );
    }
    fs::write(home.path().join("tones.jsonl"), manifest).expect("written");
    let recipe = format!(
        "[model]\nd_model = 16\nn_heads = 2\nencoder_layers = 1\ndecoder_layers = 1\nwindow_secs = 2.0\n\
         max_target_positions = 16\nn_text_tokens = 270\n\
         [data]\ntrain = [\"tones.jsonl\"]\ndev = [\"tones.jsonl\"]\n\
         [sampler]\nbatch_secs = 2.0\nn_duration_buckets = 2\nn_token_buckets = 0\n\
         [augment.speed]\nprobability = 0.5\n[augment.noise]\nprobability = 0.5\n\
         [loss.ctc]\nweight = 0.3\n\
         [schedule]\nkind = \"constant\"\nwarmup_steps = 2\n\
         [train]\ndevice = \"cpu\"\nmax_steps = {STEPS}\nsave_every = 1\nevaluate_every = 6\naverage_decay = 0.9\n\
         [evaluate]\nmax_utterances = 4\n"
    );
    fs::write(home.path().join("tones.toml"), recipe).expect("written");
    home
}

pub fn train(home: &TempDir, out: &str, settings: &[&str]) -> (i32, String, String) {
    run(&mut training(home, out, settings))
}

fn training(home: &TempDir, out: &str, settings: &[&str]) -> Command {
    let mut command = speechd(home.path());
    command.args(["train", "tones.toml", "--out", out]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

/// What was measured, by step and name; times left out.
pub fn figures(run: &Path) -> BTreeMap<(u64, String), f64> {
    measured(run).into_iter().map(|(key, bits)| (key, f64::from_bits(bits))).collect()
}

/// The same to the bit.
fn measured(run: &Path) -> BTreeMap<(u64, String), u64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let scalar = |line: &str| {
        // A killed run may leave half a line.
        let scalar: Value = serde_json::from_str(line).ok()?;
        let name = scalar["name"].as_str()?.to_owned();
        let is_time = ["_secs", "x_real_time", "speed"].iter().any(|part| name.contains(part));
        let bits = scalar["value"].as_f64().map(f64::to_bits)?;
        (!is_time).then_some(((scalar["step"].as_u64()?, name), bits))
    };
    text.lines().filter_map(scalar).collect()
}

fn last_step(run: &Path) -> u64 {
    measured(run).keys().map(|(step, _)| *step).max().unwrap_or(0)
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_bit() {
    let home = workplace();
    let (code, _, stderr) = train(&home, "whole", &[]);
    assert_eq!(code, 0, "{stderr}");
    let expected = measured(&home.path().join("whole"));
    assert_eq!(last_step(&home.path().join("whole")), STEPS);

    let killed = home.path().join("killed");
    for at in [3, 8] {
        // Whatever it does meanwhile: a step, a checkpoint, an evaluation.
        let mut child = training(&home, "killed", &["train.loader_threads=3"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let began = Instant::now();
        while last_step(&killed) < at && began.elapsed() < Duration::from_secs(120) {
            thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(last_step(&killed) >= at, "it did nothing");
    }
    let (code, _, stderr) = train(&home, "killed", &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("going on after update"), "{stderr}");
    assert_eq!(measured(&killed), expected);
    let bytes = |run: &str| fs::read(home.path().join(run).join("model/model.safetensors")).expect("a model");
    assert!(bytes("killed") == bytes("whole"), "the models differ");
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_without_room_is_told_and_costs_nothing() {
    let home = workplace();
    let (code, _, stderr) = train(&home, "whole", &[]);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = train(&home, "full", &["train.max_steps=6"]);
    assert_eq!(code, 0, "{stderr}");
    // Files of more than 16 kB cannot be written: the log can, a bundle cannot.
    let speechd = training(&home, "full", &[]);
    let arguments: Vec<_> = speechd.get_args().map(|part| part.to_string_lossy().into_owned()).collect();
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\""])
        .arg(speechd.get_program())
        .args(arguments)
        .current_dir(home.path());
    let (code, _, stderr) = run(&mut limited);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("no checkpoint after update 7") && stderr.contains("the run goes on"),
        "{stderr}"
    );
    assert!(stderr.contains("cannot be written"), "{stderr}");

    let (code, _, stderr) = train(&home, "full", &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("going on after update 6"), "{stderr}");
    assert_eq!(measured(&home.path().join("full")), measured(&home.path().join("whole")));
}

#[test]
#[cfg(unix)]
fn a_signal_saves_and_says_so() {
    let home = workplace();
    let child = training(&home, "stopped", &["train.max_steps=100000", "train.save_every=0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let stopped = home.path().join("stopped");
    let began = Instant::now();
    while last_step(&stopped) < 2 && began.elapsed() < Duration::from_secs(120) {
        thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("sent").success());
    let output = child.wait_with_output().expect("ended");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("the same command goes on"), "{stderr}");
    // What it did is there, all of it.
    let (checkpoint, state) = newest_checkpoint(&stopped);
    for file in ["config.json", "model.safetensors", "trained.safetensors", "optimizer.safetensors"] {
        assert!(checkpoint.join(file).is_file(), "{} has no {file}", checkpoint.display());
    }
    let step = state["step"].as_u64().expect("a step");
    assert!(step >= 2 && step == last_step(&stopped), "{step} of {}", last_step(&stopped));
    let (code, _, stderr) = train(&home, "stopped", &[&format!("train.max_steps={}", step + 2)]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains(&format!("going on after update {step}")), "{stderr}");
    assert_eq!(last_step(&stopped), step + 2);
}

/// The last checkpoint of a run, and where the run was.
fn newest_checkpoint(run: &Path) -> (PathBuf, Value) {
    let folders = fs::read_dir(run.join("checkpoints")).expect("checkpoints").flatten();
    let newest = folders.map(|entry| entry.path()).max().expect("a checkpoint");
    let text = fs::read_to_string(newest.join("state.json")).expect("where it is");
    (newest, serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn a_run_gets_another_period_and_keeps_those_that_it_had() {
    let home = workplace();
    let kind = "schedule.kind=wsd";
    let two = [kind, "train.max_steps=12", "schedule.periods=[6, 12]"];
    for (out, settings) in [("whole", &two[..]), ("longer", &[kind, "train.max_steps=6"]), ("longer", &two)] {
        let (code, _, stderr) = train(&home, out, settings);
        assert_eq!(code, 0, "{stderr}");
    }
    let [whole, longer] = ["whole", "longer"].map(|out| measured(&home.path().join(out)));
    assert_eq!(longer, whole);
    let (code, _, stderr) = train(&home, "longer", &[kind, "train.max_steps=12", "schedule.periods=[5, 12]"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("schedule.periods"), "{stderr}");
}

/// Epochs, and a warm-up that is a share of them, are counted in updates as soon as the data are known.
#[test]
fn a_run_of_epochs_ends_with_the_last_of_them() {
    let home = workplace();
    let settings = ["train.max_epochs=2", "schedule.warmup_share=0.5", "train.evaluate_every=0"];
    let (code, _, stderr) = train(&home, "epochs", &settings);
    assert_eq!(code, 0, "{stderr}");
    let run = home.path().join("epochs");
    let (_, state) = newest_checkpoint(&run);
    assert_eq!((&state["at"]["epoch"], &state["at"]["batch"]), (&2.into(), &0.into()), "{state}");
    let n_steps = state["step"].as_u64().expect("a step");
    assert!(n_steps != STEPS && n_steps >= 4, "{n_steps}");
    let measured = measured(&run);
    let rate = |step: u64| f64::from_bits(measured[&(step, "train/learning_rate".to_owned())]);
    let peak = rate(n_steps);
    for step in 1..=n_steps {
        let expected = peak * (step as f64 / (n_steps as f64 / 2.0)).min(1.0);
        assert!((rate(step) - expected).abs() < 1e-6 * peak, "update {step}: {}, not {expected}", rate(step));
    }
}

#[test]
fn what_cannot_be_heard_is_left_out_and_told() {
    let home = workplace();
    fs::write(home.path().join("5.wav"), "no sound").expect("written");
    let manifest = home.path().join("tones.jsonl");
    let mut rows = fs::read_to_string(&manifest).expect("read");
    rows += "{\"audio_filepath\":\"none.wav\",\"duration\":1.0,\"text\":\"one\"}\nno JSON\n";
    fs::write(&manifest, rows).expect("written");
    let (code, _, stderr) = train(&home, "run", &["train.max_steps=6"]);
    assert_eq!(code, 0, "{stderr}");
    for part in ["none.wav", "tones.jsonl:26", "5.wav"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let card = fs::read_to_string(home.path().join("run/card.html")).expect("a card");
    assert!(
        card.contains("<svg") && card.contains("Recordings left out") && !card.contains("src="),
        "{card}"
    );
}

#[test]
fn settings_that_make_no_sense_are_named_before_anything_is_done() {
    let home = workplace();
    for (setting, part) in [
        ("train.max_step=3", "max_step"),
        ("model.n_heads=3", "encoder_attention_heads"),
        ("data.train=[\"none.jsonl\"]", "none.jsonl"),
        ("schedule.warmup_steps=1000", "warmup_steps"),
        ("train.best_by=bleu", "bleu"),
    ] {
        let (code, _, stderr) = train(&home, "run", &[setting]);
        assert!(code == 1 || code == 2, "{setting}: {code}");
        assert!(stderr.contains(part), "{setting}: {stderr}");
    }
    // Another run's folder is not written over.
    let (code, _, stderr) = train(&home, "mine", &["train.max_steps=2"]);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = train(&home, "mine", &["model.d_model=32"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("model.d_model") && stderr.contains("--out"), "{stderr}");
}

#[test]
fn a_trained_model_is_evaluated_and_used() {
    let home = workplace();
    let (code, _, stderr) = train(&home, "run", &["train.max_steps=3"]);
    assert_eq!(code, 0, "{stderr}");
    let evaluate = |more: &[&str]| {
        let arguments = ["evaluate", "tones.jsonl", "--model", "run/model", "--limit", "6"];
        run(speechd(home.path()).args(arguments).args(more))
    };
    let (code, stdout, stderr) = evaluate(&["--hypotheses", "heard.tsv"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("WER") && stdout.contains("x real time"), "{stdout}");
    let rows = fs::read_to_string(home.path().join("heard.tsv")).expect("written");
    assert_eq!(rows.lines().count(), 7, "{rows}");
    let (_, stdout, _) = evaluate(&["--json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(json["reports"][0]["words"]["n_reference"], 6, "{stdout}");
    // What another precision changes stands beside it.
    let (code, stdout, stderr) = evaluate(&["--precision", "f32,int8"]);
    assert!(code == 0 && stdout.contains("In int8 instead of f32"), "{stdout}{stderr}");
    let (_, stdout, _) = evaluate(&["--precision", "int8,f32", "--json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&json["precision"], &json["others"][0]["precision"]), (&"int8".into(), &"f32".into()));
    assert!(json["others"][0]["same_words"].as_f64().is_some_and(|same| same <= 1.0), "{stdout}");
    let (code, _, stderr) = evaluate(&["--precision", "f64"]);
    assert!(code == 2 && stderr.contains("bf16"), "{stderr}");
    // And is kept beside the model, where those who look at it later find it.
    let (code, _, stderr) = evaluate(&["--precision", "f32,int8", "--record"]);
    assert!(code == 2 && stderr.contains("--limit"), "{stderr}");
    let arguments =
        ["evaluate", "tones.jsonl", "--model", "run/model", "--precision", "f32,int8", "--record"];
    let (code, _, stderr) = run(speechd(home.path()).args(arguments));
    assert_eq!(code, 0, "{stderr}");
    let (_, stdout, _) = run(speechd(home.path()).args(["models", "inspect", "run/model"]));
    assert!(stdout.contains("of the words are the same") && stdout.contains("tones.jsonl ("), "{stdout}");
    let (code, _, stderr) = run(speechd(home.path()).args(["evaluate", "tones.jsonl", "--record"]));
    assert!(code == 2 && stderr.contains("--precision"), "{stderr}");
    let (code, _, stderr) = run(speechd(home.path()).args(["transcribe", "0.wav", "--model", "run/model"]));
    assert_eq!(code, 0, "{stderr}");
    let bench = |more: &[&str]| {
        let arguments = ["bench", "transcribe", "--model", "run/model", "--runs", "1", "--json", "--quiet"];
        run(speechd(home.path()).args(arguments).args(more))
    };
    let (code, stdout, stderr) = bench(&["--clips", "0.5,1,1"]);
    assert_eq!(code, 0, "{stderr}");
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    let cell = &json["end_to_end"][0];
    assert!(
        cell["concurrency"] == 3 && cell["first_result_secs"].as_f64() <= cell["secs"].as_f64(),
        "{stdout}"
    );
    let (code, _, stderr) = bench(&["--clips", "0"]);
    assert!(code == 2 && stderr.contains("--clips"), "{stderr}");
}

#[test]
fn a_vocabulary_is_learnt_once_and_taken_by_recipes() {
    let home = workplace();
    let learn = |more: &[&str]| {
        let arguments = ["tokenizer", "train", "tones.jsonl", "--size", "262", "--out"];
        run(speechd(home.path()).args(arguments).args(more))
    };
    fs::write(home.path().join("more.txt"), "one two\n\nfive\n").expect("written");
    let (code, stdout, stderr) = learn(&["words", "more.txt", "--window-secs", "2"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("TOKENS A WORD") && stdout.contains("tokenizer.json"), "{stdout}");
    let (code, _, stderr) = learn(&["words"]);
    assert!(code == 2 && stderr.contains("there already"), "{stderr}");
    let (code, _, stderr) = learn(&["few", "--size", "100"]);
    assert!(code == 2 && (stderr.contains("256 bytes") || stderr.contains("--size")), "{stderr}");
    let steps = "train.max_steps=2";
    let (code, _, stderr) = train(&home, "taken", &[steps, "model.tokenizer=words"]);
    assert_eq!(code, 0, "{stderr}");
    let read = |path: &str| fs::read(home.path().join(path)).expect("a vocabulary");
    assert_eq!(read("taken/model/tokenizer.json"), read("words/tokenizer.json"));
    // One of another window has times that this model would not know.
    let (code, _, stderr) = train(&home, "other", &[steps, "model.tokenizer=words", "model.window_secs=1"]);
    assert!(code == 1 && stderr.contains("not those of this window"), "{stderr}");
    // A base takes another one, too, and the beam that is asked for.
    fs::create_dir(home.path().join("fewer")).expect("a folder");
    let vocabulary =
        NewVocabulary { n_text_tokens: 257, unit: TextUnit::Pieces, languages: Vec::new(), window_secs: 2.0 };
    let vocabulary = vocabulary.learn(&[" one two".to_owned()]).expect("a vocabulary");
    fs::write(home.path().join("fewer/tokenizer.json"), vocabulary).expect("written");
    let settings = [steps, "model.base=taken/model", "model.tokenizer=fewer", "model.beam_size=2"];
    let (code, _, stderr) = train(&home, "again", &settings);
    assert_eq!(code, 0, "{stderr}");
    let generation = String::from_utf8(read("again/model/generation_config.json")).expect("text");
    assert!(
        generation.contains("\"num_beams\": 2")
            && read("again/model/tokenizer.json") != read("taken/model/tokenizer.json")
    );
    let (code, _, stderr) = run(speechd(home.path()).args([
        "models",
        "export",
        "taken/model",
        "--format",
        "ggml",
        "--out",
        "x.bin",
    ]));
    assert!(code == 1 && stderr.contains("OpenAI's vocabularies"), "{stderr}");
    assert!(!home.path().join("x.bin").exists());
}

#[test]
fn a_run_that_can_hear_nothing_ends() {
    let home = workplace();
    for index in 0..24 {
        fs::write(home.path().join(format!("{index}.wav")), "no sound").expect("written");
    }
    let (code, _, stderr) = train(&home, "deaf", &["train.max_skipped=2", "data.dev=[]"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("none of their recordings could be read") && stderr.contains("0.wav"),
        "{stderr}"
    );
}

#[test]
fn a_base_brings_its_sizes_and_a_corpus_by_path_stays_as_it_is() {
    let home = workplace();
    let (code, _, stderr) = train(&home, "first", &["train.max_steps=2", "loss.ctc.weight=0"]);
    assert_eq!(code, 0, "{stderr}");
    let corpus = home.path().join("corpus");
    fs::create_dir(&corpus).expect("created");
    let rows = fs::read_to_string(home.path().join("tones.jsonl"))
        .expect("read")
        .replace("filepath\":\"", "filepath\":\"../");
    fs::write(corpus.join("train.jsonl"), &rows).expect("written");
    let named = format!("data.train=[\"{}:train\"]", corpus.display());
    let settings = ["train.max_steps=2", "model.base=first/model", "model.d_model=64", &named, "data.dev=[]"];
    let (code, _, stderr) = train(&home, "second", &settings);
    assert_eq!(code, 0, "{stderr}");
    let run: Value =
        serde_json::from_slice(&fs::read(home.path().join("second/run.json")).expect("read")).expect("JSON");
    assert_eq!((&run["model"]["d_model"], &run["model"]["window_secs"]), (&16.into(), &2.0.into()));
    assert_eq!(fs::read_to_string(corpus.join("train.jsonl")).expect("there"), rows);
}

#[test]
fn a_canary_keeps_the_head_that_knows_when_words_were_said() {
    let home = workplace();
    let canary = [
        "model.architecture=canary",
        "model.subsampling=2",
        "model.conv_channels=8",
        "model.attention_context=[20, 10]",
        "train.average_decay=0.0",
    ];
    let with = |more: &[&'static str]| [&canary[..], more].concat();
    let (code, _, stderr) = train(&home, "run", &with(&["train.max_steps=4", "train.save_every=2"]));
    assert_eq!(code, 0, "{stderr}");
    let config = |run: &str| -> Value {
        let path = home.path().join(run).join("model/config.json");
        serde_json::from_str(&fs::read_to_string(path).expect("written")).expect("JSON")
    };
    assert_eq!(config("run")["encoder_config"]["attention_context"], serde_json::json!([20, 10]));
    let head = |run: &str| {
        let path = home.path().join(run).join("model/model.safetensors");
        let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu).expect("weights");
        tensors.get("ctc_head.weight").map(|weight| weight.dims().to_vec())
    };
    let ids = config("run")["ctc_token_ids"].as_array().map_or(0, Vec::len);
    // A blank comes after the tokens.
    assert!(ids > 1 && head("run") == Some(vec![ids + 1, 16]), "{ids} {:?}", head("run"));
    let transcriber = models::Transcriber::load(
        models::Bundle::open(&home.path().join("run/model")).expect("a bundle"),
        &candle_core::Device::Cpu,
    )
    .expect("a model");
    assert!(transcriber.model().ctc_head().is_some());
    // It knows the tokens of its texts, and no others.
    let encoded = transcriber.encode(transcriber.window_features(&[0.1; 16_000])).expect("states");
    let heard = transcriber.ctc(&encoded).expect("heard").expect("a head");
    let known = transcriber.tokenizer().encode(" one").expect("tokens");
    let labels = heard.align(&known).expect("it can be said in a second");
    assert_eq!(labels.iter().map(|label| label.id).collect::<Vec<_>>(), known);
    assert!(heard.align(&transcriber.tokenizer().encode(" q").expect("tokens")).is_none());
    assert!(heard.read(1).iter().chain(&heard.read(3)).all(|id| (*id as usize) < 300));
    let arguments =
        ["transcribe", "0.wav", "--model", "run/model", "--language", "en", "--format", "verbose_json"];
    let (code, _, stderr) = run(speechd(home.path()).args(arguments).arg("--word-timestamps"));
    assert_eq!(code, 0, "{stderr}");

    // The encoder alone is judged by what the head reads; a run on top of it goes on with the head, and one without CTC drops it.
    let (code, _, stderr) = train(
        &home,
        "encoder",
        &with(&["train.max_steps=2", "loss.cross_entropy.weight=0.0", "loss.ctc.weight=1.0"]),
    );
    assert_eq!(code, 0, "{stderr}");
    let on_top = |run: &str, more: &[&str]| {
        let base = ["model.base=encoder/model", "train.max_steps=2", "train.average_decay=0.0"];
        let (code, _, stderr) = train(&home, run, &[&base[..], more].concat());
        assert_eq!(code, 0, "{stderr}");
        (config(run)["ctc_token_ids"].clone(), head(run))
    };
    let kept = on_top("kept", &["loss.ctc.weight=0.3"]);
    assert_eq!(kept, (config("encoder")["ctc_token_ids"].clone(), head("encoder")));
    assert_eq!(on_top("dropped", &["loss.ctc.weight=0.0"]), (Value::Null, None));
}
