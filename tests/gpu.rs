//! What a GPU computes is what the processor computes. Parity with transformers and torch is tested on both, where there are
//! both (`parity`, `gradients`); here are whole runs. Skipped where there is no GPU, but for how one is asked for.

use crate::{
    cli::{run, speechd},
    support::{fixture, gpu},
    training::{figures, train, workplace},
};

/// Figures after a few updates, which rounding in another order moves.
const TOLERANCE: f64 = 1e-3;

#[test]
fn a_gpu_that_cannot_be_used_is_refused_by_name() {
    let home = workplace();
    let model = fixture("whisper-80").canonicalize().expect("a fixture");
    let model = model.to_str().expect("a path");
    // What a recipe asks for is looked at when the run begins.
    for (device, part, train_code) in
        [("gpu", "`gpu` is none of auto, cpu, cuda", 2), ("cuda:4096", "device: cuda:4096: ", 1)]
    {
        let setting = format!("train.device={device}");
        for arguments in [
            vec!["transcribe", "0.wav", "--model", model, "--device", device],
            vec!["evaluate", "tones.jsonl", "--model", model, "--device", device],
            vec!["bench", "transcribe", "--model", model, "--device", device],
            vec!["serve", "--model", model, "--device", device],
            vec!["train", "tones.toml", "--out", "none", "--set", &setting],
        ] {
            let (code, stdout, stderr) = run(speechd(home.path()).args(&arguments));
            let expected = if arguments[0] == "train" { train_code } else { 2 };
            assert_eq!((code, stdout.as_str()), (expected, ""), "{arguments:?}: {stderr}");
            assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        }
    }
    assert!(!home.path().join("none").join("checkpoints").exists());
}

#[test]
fn a_gpu_trains_and_transcribes_as_the_processor_does() {
    if gpu().is_none() {
        return;
    }
    let home = workplace();
    for (out, settings) in [
        ("cpu", vec!["train.device=cpu"]),
        ("gpu", vec!["train.device=cuda"]),
        ("again", vec!["train.device=cuda", "model.gradient_checkpointing=true"]),
    ] {
        let (code, _, stderr) = train(&home, out, &settings);
        assert_eq!(code, 0, "{out}: {stderr}");
    }
    let expected = figures(&home.path().join("cpu"));
    assert!(!expected.is_empty());
    for out in ["gpu", "again"] {
        let found = figures(&home.path().join(out));
        assert_eq!(found.len(), expected.len());
        for (key, expected) in &expected {
            let found = found[key];
            let is_close = (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0);
            assert!(is_close, "{out} {key:?}: {found}, not {expected}");
        }
    }
    // A run goes on elsewhere.
    let (code, _, stderr) = train(&home, "gpu", &["train.device=cpu", "train.max_steps=14"]);
    assert_eq!(code, 0, "{stderr}");

    let heard = |device: &str| {
        let mut command = speechd(home.path());
        let (code, stdout, stderr) = run(command
            .args(["transcribe", "0.wav", "1.wav", "--format", "json", "--model", "./cpu/model"])
            .args(["--precision", "f32", "--device", device]));
        assert_eq!(code, 0, "{stderr}");
        stdout
    };
    assert_eq!(heard("cpu"), heard("cuda"));
    let (code, _, stderr) = run(speechd(home.path()).args([
        "transcribe",
        "0.wav",
        "--model",
        "./cpu/model",
        "--device",
        "cuda",
        "--precision",
        "int8",
    ]));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("precision: int8: a GPU computes in f32 alone"), "{stderr}");
}
