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
    for (device, part) in [("gpu", "`gpu` is none of auto, cpu, cuda"), ("cuda:4096", "device: cuda:4096: ")]
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
            assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
            assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        }
    }
    assert!(!home.path().join("none").exists());
}

#[test]
fn a_gpu_trains_and_transcribes_as_the_processor_does() {
    if gpu().is_none() {
        return;
    }
    let home = workplace();
    for (out, settings) in [
        ("cpu", vec!["train.device=cpu", "bundle.average=2"]),
        ("gpu", vec!["train.device=cuda", "bundle.average=2"]),
        ("alone", vec!["train.device=cuda", "train.parts=1"]),
        ("again", vec!["train.device=cuda", "model.gradient_checkpointing=true"]),
    ] {
        let (code, _, stderr) = train(&home, out, &settings);
        assert_eq!(code, 0, "{out}: {stderr}");
    }
    // Words of a model that has hardly begun are another thing: a near tie may fall either way.
    let figures = |out: &str| {
        let mut figures = figures(&home.path().join(out));
        figures.retain(|(_, name), _| name.contains("loss") || name.contains("norm"));
        figures
    };
    let expected = figures("cpu");
    assert!(expected.len() > 24);
    for out in ["gpu", "alone", "again"] {
        let found = figures(out);
        assert_eq!(found.len(), expected.len());
        for (key, expected) in &expected {
            let found = found[key];
            let is_close = (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0);
            assert!(is_close, "{out} {key:?}: {found}, not {expected}");
        }
    }
    // A run goes on elsewhere.
    for (out, device) in [("gpu", "train.device=cpu"), ("cpu", "train.device=cuda")] {
        let (code, _, stderr) = train(&home, out, &[device, "bundle.average=2", "train.max_steps=14"]);
        assert_eq!(code, 0, "{out}: {stderr}");
    }

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
