//! A student of a model: what it begins with, what it learns, and that its guesses change nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use server::{
    compute::Compute,
    config::Precision,
    load::{Spec, load_models},
    registry::Hub,
    state::ModelState,
};
use tempfile::TempDir;

use crate::cli::{home, run, speechd};
use crate::loopback_server::{BROKEN, LoopbackServer, MODEL};
use crate::support::fixture;

/// A base whose decoder has two blocks, and tones that are called by their pitch.
fn workplace() -> Result<TempDir> {
    let home = home();
    let corpus = home.path().join("corpus");
    fs::create_dir(&corpus)?;
    let mut table = "file_name,text,speaker_id\n".to_owned();
    for index in 0..20 {
        let pitch = 0.05 * (1 + index % 3) as f32;
        let samples = (0..6_400).map(|t| (t as f32 * pitch + index as f32).sin() * 0.5).collect();
        let waveform = audio::Waveform { samples, sample_rate: 16_000 };
        fs::write(corpus.join(format!("{index}.wav")), audio::encode::wav_bytes(&waveform)?)?;
        table += &format!("{index}.wav,{},{}\n", ["one", "two", "three"][index % 3], index % 5);
    }
    fs::write(corpus.join("metadata.csv"), table)?;
    Ok(home)
}

fn distil(home: &TempDir, more: &[&str]) -> (i32, String, String) {
    let base = format!("model.base={}", fixture("whisper-80").display());
    let data = ["data.train=[\"corpus:train\"]", "data.dev=[\"corpus:dev\"]", "data.language=en"];
    let small =
        ["train.max_steps=3", "train.max_epochs=0", "sampler.batch_secs=60", "model.variable_length=true"];
    let mut command = speechd(home.path());
    command.args([
        "train",
        "distil",
        "--out",
        "student",
        "--set",
        &base,
        "--set",
        "strategy.distil.decoder_layers=1",
    ]);
    for setting in data.iter().chain(&small).chain(more) {
        command.args(["--set", setting]);
    }
    run(&mut command)
}

fn weights(dir: &Path) -> Result<BTreeMap<String, Tensor>> {
    Ok(candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu)?.into_iter().collect())
}

#[test]
fn a_student_learns_what_its_base_writes_and_guesses_for_it() -> Result<()> {
    let home = workplace()?;
    // Random weights write nothing like the texts.
    let (code, _, stderr) = distil(&home, &[]);
    ensure!(code == 1 && stderr.contains("strategy.distil.max_wer: 0.2 leaves nothing to learn"), "{stderr}");
    ensure!(stderr.contains("the teacher wrote 18 recordings"), "{stderr}");
    let labels = home.path().join("student/data/pseudo-labels.jsonl");
    let written = fs::read_to_string(&labels)?;

    // A run that was killed left half of them, and one in the middle of its line.
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let half: String = written.split_inclusive('\n').take(lines(&written).len() / 2).collect();
    fs::write(&labels, half + "{\"cut\":\"a0")?;
    let (code, _, stderr) = distil(&home, &["strategy.distil.max_wer=1000"]);
    ensure!(code == 0, "{stderr}");
    ensure!(lines(&fs::read_to_string(&labels)?) == lines(&written));
    let (student, base) = (weights(&home.path().join("student/model"))?, weights(&fixture("whisper-80"))?);
    let layers = |weights: &BTreeMap<String, Tensor>, part: &str| {
        weights.keys().filter(|name| name.starts_with(&format!("model.{part}.layers."))).count()
    };
    ensure!(layers(&base, "decoder") == 2 * layers(&student, "decoder"), "{:?}", student.keys());
    ensure!(layers(&base, "encoder") == layers(&student, "encoder"));
    let bits = |tensor: &Tensor| -> Result<Vec<u32>> {
        Ok(tensor
            .to_dtype(candle_core::DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?
            .into_iter()
            .map(f32::to_bits)
            .collect())
    };
    let mut n_changed = 0;
    for (name, tensor) in &student {
        let of_base = match name.strip_prefix("model.decoder.layers.0.") {
            Some(rest) => format!("model.decoder.layers.1.{rest}"),
            None => name.clone(),
        };
        let is_same = bits(tensor)? == bits(base.get(&of_base).context(of_base)?)?;
        ensure!(is_same || name.starts_with("model.decoder."), "{name} was changed");
        n_changed += usize::from(!is_same);
    }
    ensure!(n_changed > 10, "{n_changed} tensors learnt");

    // Done: the same command evaluates nothing anew, and has nothing to label.
    let (code, _, stderr) = distil(&home, &["strategy.distil.max_wer=1000"]);
    ensure!(code == 0, "{stderr}");

    let base = fixture("whisper-80").display().to_string();
    let transcribe = |more: &[&str]| {
        let (code, stdout, stderr) = run(speechd(home.path())
            .args([
                "transcribe",
                "corpus/1.wav",
                "--model",
                &base,
                "--no-fallback",
                "--format",
                "verbose_json",
            ])
            .args(more));
        ensure!(code == 0, "{stderr}");
        Ok(stdout)
    };
    ensure!(transcribe(&[])? == transcribe(&["--draft", "student/model"])?);
    let (code, stdout, stderr) = run(speechd(home.path()).args([
        "bench",
        "transcribe",
        "corpus/1.wav",
        "--model",
        &base,
        "--draft",
        "student/model",
        "--runs",
        "1",
        "--concurrency",
        "1",
    ]));
    ensure!(code == 0, "{stderr}");
    let line = stdout.lines().find(|line| line.starts_with("draft ")).context("a draft")?;
    // What was copied of it, and never trained, is its own.
    ensure!(line.contains("with the model's encoder") && line.contains("the same tokens"), "{line}");
    let evaluate = |more: &[&str]| {
        let manifest = "student/data/corpus-en/dev.jsonl";
        let (code, stdout, stderr) = run(speechd(home.path())
            .args(["evaluate", manifest, "--model", &base, "--language", "en", "--json"])
            .args(more));
        ensure!(code == 0, "{stderr}");
        Ok(serde_json::from_str::<serde_json::Value>(&stdout)?["heard"].clone())
    };
    ensure!(evaluate(&[])? == evaluate(&["--draft", "student/model"])?);
    Ok(())
}

#[test]
fn students_that_cannot_be_are_refused() -> Result<()> {
    let home = workplace()?;
    for (settings, part) in [
        (
            &["strategy.distil.decoder_layers=3"][..],
            "strategy.distil.decoder_layers: 3 is not between 1 and the base's 2",
        ),
        (&["loss.ctc.weight=0.3"], "loss.ctc.weight: a student keeps"),
        (&["strategy.kind=full"], "loss.distillation.weight: there is no teacher"),
        (&["loss.distillation.temperature=0.0"], "loss.distillation.temperature: 0 is not"),
        (&["strategy.distil.max_wer=nan"], "strategy.distil.max_wer"),
        (&["data.weights=[1.0]"], "data.weights: not beside"),
        (&["sampler.memory_gb=4.0"], "sampler.memory_gb: does not count"),
    ] {
        let (code, _, stderr) = distil(&home, settings);
        ensure!(code != 0 && stderr.contains(part), "{settings:?}: {code}: {stderr}");
    }
    Ok(())
}

#[test]
fn a_service_loads_drafts_with_their_models() {
    let server = LoopbackServer::start_unloaded("", "");
    let path = |name: &str| fixture(name).to_string_lossy().into_owned();
    let spec = |name: &str, draft: &str| Spec {
        name: name.to_owned(),
        source: path("whisper-80"),
        draft: Some(path(draft)),
    };
    let specs = [spec(MODEL, "whisper-80"), spec(BROKEN, "whisper-128")];
    let hub = Hub::new(server.state.config.hub_options());
    let compute = Compute::new(Device::Cpu, Precision::F32).expect("a processor");
    load_models(&server.state, &specs, &hub, &compute);
    let state = |name: &str| server.state.models.get(name).expect("a model").state;
    assert!(matches!(state(MODEL), ModelState::Ready(_)));
    let ModelState::Failed(why) = state(BROKEN) else { panic!("it was loaded") };
    assert!(why.contains("draft:") && why.contains("features"), "{why}");
}
