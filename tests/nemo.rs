//! Archives of NVIDIA NeMo become bundles that compute what transformers' modules do with the weights in them
//! (`tests/oracle/nemo.py`).

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::{Told, Transcriber, WeightDtype, import_nemo};
use serde_json::Value;

use crate::cli::{home, run, speechd};
use crate::parity::features;
use crate::support::{difference, fixture, json, numbers, transcriber};

fn expected() -> Result<(Value, HashMap<String, Tensor>)> {
    let dir = fixture("nemo");
    let tensors = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu)?;
    Ok((json(&dir.join("expected.json"))?, tensors))
}

fn imported(name: &str, dtype: WeightDtype) -> Result<(Transcriber, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    import_nemo(&fixture("nemo").join(name), dir.path(), dtype)?;
    Ok((transcriber(dir.path())?, dir))
}

#[test]
fn a_ctc_model_of_nemo_hears_what_transformers_hears() -> Result<()> {
    let (expected, tensors) = expected()?;
    // The weights are such that halving them loses nothing.
    for dtype in [WeightDtype::F32, WeightDtype::F16] {
        let (transcriber, _dir) = imported("ctc.nemo", dtype)?;
        let head = transcriber.model().ctc_head().context("a head")?;
        for (clip, n_frames) in numbers::<usize>(&expected["frames"]).into_iter().enumerate() {
            let encoded = transcriber.encode(features(clip, 80, n_frames))?;
            let worst =
                difference(&head.linear().forward(&encoded)?, &tensors[&format!("ctc.logits.{clip}")])?;
            ensure!(worst < 1e-3, "clip {clip}: {worst}");
            let ids = transcriber.ctc(&encoded)?.context("what is heard")?.read(1);
            ensure!(ids == numbers::<u32>(&expected["ctc_greedy"][clip]), "{ids:?}");
            let text = transcriber.tokenizer().decode(&ids)?;
            ensure!(Some(text.as_str()) == expected["ctc_texts"][clip].as_str(), "{text}");
        }
    }
    Ok(())
}

#[test]
fn a_canary_of_nemo_computes_what_its_own_weights_say() -> Result<()> {
    let (expected, tensors) = expected()?;
    let (transcriber, _dir) = imported("canary.nemo", WeightDtype::F32)?;
    let special = transcriber.special_tokens();
    let (prompt, start_index) =
        special.prompt_after(&[], Told { language: Some("ps"), ..Told::default() })?;
    ensure!(prompt == numbers::<u32>(&expected["prompt"]) && start_index == 1, "{prompt:?}");
    let decoder = transcriber.model().decoder()?;
    for (clip, n_frames) in numbers::<usize>(&expected["frames"]).into_iter().enumerate() {
        let encoded = transcriber.encode(features(clip, 80, n_frames))?;
        let worst = difference(&encoded, &tensors[&format!("canary.encoded.{clip}")])?;
        ensure!(worst < 2e-4, "states of clip {clip}: {worst}");
        let tokens: Vec<u32> = numbers(&expected["sequences"][clip]);
        let ids = Tensor::new(tokens.as_slice(), &Device::Cpu)?.unsqueeze(0)?;
        let logits = decoder.logits(&decoder.forward(&ids, &encoded.unsqueeze(0)?)?)?.get(0)?;
        let worst = difference(&logits, &tensors[&format!("canary.logits.{clip}")])?;
        ensure!(worst < 1e-3, "logits of clip {clip}: {worst}");
        // Also where two languages have pieces of one name.
        let text = transcriber.tokenizer().decode(&tokens)?;
        ensure!(Some(text.as_str()) == expected["canary_texts"][clip].as_str(), "{text}");
    }
    let text = expected["encoded_text"]["text"].as_str().context("text")?;
    let ids = transcriber.tokenizer().encode(text)?;
    ensure!(ids == numbers::<u32>(&expected["encoded_text"]["ids"]), "{ids:?}");
    Ok(())
}

#[test]
fn an_archive_of_nemo_is_imported_by_a_command_which_errors_name() -> Result<()> {
    let home = home();
    let archive = home.path().join("tiny.nemo");
    std::fs::copy(fixture("nemo").join("ctc.nemo"), &archive)?;
    let (code, _, stderr) = run(speechd(home.path()).args(["models", "inspect", "tiny.nemo"]));
    ensure!(code != 0 && stderr.contains("speechd models import tiny.nemo --out tiny"), "{stderr}");
    let import = ["models", "import", "tiny.nemo", "--out", "tiny"];
    let (code, stdout, stderr) = run(speechd(home.path()).args(import));
    ensure!(code == 0 && stdout == "tiny\n", "{stderr}");
    let (code, stdout, stderr) = run(speechd(home.path()).args(["models", "inspect", "tiny"]));
    ensure!(code == 0 && stdout.contains("parakeet_ctc"), "{stdout}{stderr}");
    // What is there stays there.
    let (code, _, stderr) = run(speechd(home.path()).args(import));
    ensure!(code == 2 && stderr.contains("is there already"), "{stderr}");
    std::fs::write(home.path().join("no.nemo"), "no tar")?;
    let (code, _, stderr) = run(speechd(home.path()).args(["models", "import", "no.nemo", "--out", "no"]));
    ensure!(code == 1 && stderr.contains("no.nemo: is no .nemo archive"), "{stderr}");
    ensure!(!home.path().join("no").exists());
    Ok(())
}
