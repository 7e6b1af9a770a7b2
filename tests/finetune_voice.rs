//! `speechd finetune --task speak` as a user runs it: recordings with texts in, a voice that speaks out.

use std::{f32::consts::TAU, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{home, run, speechd};
use crate::support::{fixture, json, write_speaker};

const SAMPLE_RATE: u32 = 16_000;
/// Letters and what they sound like. The last one is new to the voice that is started from.
const LETTERS: [(char, f32); 4] = [('a', 150.0), ('b', 220.0), ('c', 330.0), ('ß', 480.0)];

/// A folder of manifests: words of eight to ten letters by five speakers, of whom three are to be learnt from.
fn workplace() -> Result<TempDir> {
    let home = home();
    let corpus = home.path().join("corpus");
    fs::create_dir(&corpus)?;
    let mut splits = [("train", String::new()), ("dev", String::new()), ("test", String::new())];
    for index in 0..30 {
        let letter = |place: usize| LETTERS[(index * 7 + place * place * 3 + index / 4 * place) % 4];
        let letters: Vec<(char, f32)> = (0..8 + index % 3).map(letter).collect();
        let text: String = letters.iter().map(|(letter, _)| letter).collect();
        let mut state = index as u32 + 1;
        let samples = letters.iter().flat_map(|(_, hz)| (0..2_560).map(move |t| (*hz, t))).map(|(hz, t)| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hiss = (state >> 8) as f32 / 16_777_216.0 - 0.5;
            let phase = TAU * hz * t as f32 / SAMPLE_RATE as f32;
            let tone: f32 = (1..8_u8).map(|k| (phase * f32::from(k)).sin() / f32::from(k)).sum();
            0.2 * tone + 0.05 * hiss
        });
        let waveform = audio::Waveform { samples: samples.collect(), sample_rate: SAMPLE_RATE };
        fs::write(corpus.join(format!("{index}.wav")), audio::encode::wav_bytes(&waveform)?)?;
        let speaker = index % 5;
        let row = serde_json::json!({
            "id": index.to_string(), "audio_filepath": format!("{index}.wav"), "duration": waveform.duration_secs(),
            "text": text, "lang": "de", "speaker": format!("s{speaker}"),
        });
        splits[speaker.saturating_sub(2)].1 += &format!("{row}\n");
    }
    for (split, rows) in splits {
        fs::write(corpus.join(format!("{split}.jsonl")), rows)?;
    }
    Ok(home)
}

/// Two updates.
fn finetune(home: &TempDir, more: &[&str]) -> (i32, String, String) {
    let mut command = speechd(home.path());
    command.args(["finetune", "--task", "speak", "--lang", "de", "--data", "corpus"]);
    for setting in
        ["train.max_steps=2", "train.evaluate_every=1", "sampler.batch_secs=20", "train.device=cpu"]
    {
        command.args(["--set", setting]);
    }
    run(command.args(more))
}

fn path_of(name: &str) -> Result<String> {
    Ok(fixture(name).canonicalize()?.display().to_string())
}

/// A voice to start from, which has no vocoder: `base`.
fn write_base(home: &TempDir) -> Result<String> {
    let dir = home.path().join("base");
    write_speaker(&dir)?;
    let path = dir.join("config.json");
    let mut config = json(&path)?;
    config.as_object_mut().context("settings")?.remove("vocoder");
    fs::write(&path, config.to_string())?;
    Ok(dir.display().to_string())
}

fn speak(home: &TempDir, model: &str, out: &str) -> (i32, String, String) {
    let text = ["speak", "aßb", "--language", "de", "--steps", "1", "--quiet"];
    run(speechd(home.path()).args(text).args(["--model", model, "-o", out]))
}

fn config_of(model: &Path) -> Result<Value> {
    json(&model.join("config.json"))
}

#[test]
fn a_voice_learns_a_language_its_letters_and_its_speakers() -> Result<()> {
    let home = workplace()?;
    let (base, judge) = (write_base(&home)?, path_of("whisper-80")?);
    let from_one = ["--model", &base];
    let (code, stdout, stderr) = finetune(&home, &[&from_one[..], &["--dry-run"]].concat());
    ensure!(code == 0, "{stderr}");
    for part in ["a voice that reads de", "updates: 2", "memory:", "time:"] {
        ensure!(stdout.contains(part), "{part}: {stdout}");
    }
    for part in [
        "new to the voice that it starts from: 1 (ß)",
        "speakers to learn from: 3",
        "without a vocoder it will sound hollow",
        "voice prompts of at most 1.02 s",
    ] {
        ensure!(stderr.contains(part), "{part}: {stderr}");
    }
    let folder = home.path().join("runs/voice-de");
    ensure!(!folder.join("model").exists());

    let (code, stdout, stderr) = finetune(&home, &[&from_one[..], &["--judge", &judge]].concat());
    ensure!(code == 0, "{stderr}");
    for part in ["HELD-OUT", "AFTER 1 UPDATES", "flow", "alignment", "WER recorded", "normaliser: basic"] {
        ensure!(stdout.contains(part), "{part}: {stdout}");
    }
    for part in [
        "imported before",
        "speechd speak TEXT --language de -o out.wav --model runs/voice-de/model",
        "speechd serve --model de=runs/voice-de/model",
        "by nobody who became a voice",
        "runs/voice-de/speech/analysis.html",
    ] {
        ensure!(stderr.contains(part), "{part}: {stderr}");
    }
    for file in ["card.html", "speech/analysis.html", "speech/analysis.json", "model/model.safetensors"] {
        ensure!(folder.join(file).is_file(), "{file}");
    }
    let report = json(&folder.join("finetune.json"))?;
    ensure!(report["language"] == "de" && report["n_steps"] == 2 && report["first"][0] == 1, "{report}");
    ensure!(report["figures"]["flow"].as_f64().is_some() && report["first"][1]["flow"].as_f64().is_some());
    ensure!(report["judged"]["reports"][0]["normaliser"] == "basic", "{report}");

    let (before, after) = (config_of(Path::new(&base))?, config_of(&folder.join("model"))?);
    ensure!(after["languages"] == serde_json::json!(["en", "ps", "de"]), "{}", after["languages"]);
    let n_symbols = |config: &Value| config["symbols"].as_array().map_or(0, Vec::len);
    ensure!(n_symbols(&after) == n_symbols(&before) + 1);
    let symbols = after["symbols"].as_array().context("symbols")?;
    ensure!(symbols.contains(&"ß".into()), "{symbols:?}");
    let voices = after["voices"].as_array().context("voices")?;
    ensure!(
        voices.iter().filter(|name| name.as_str().is_some_and(|name| name.starts_with('s'))).count() == 3
    );

    // It speaks, as the base cannot.
    let (code, _, stderr) = speak(&home, &base, "no.wav");
    ensure!(code == 2 && stderr.contains("en, ps") && stderr.contains("`de`"), "{stderr}");
    let (code, _, stderr) = speak(&home, "runs/voice-de/model", "yes.wav");
    ensure!(code == 0 && home.path().join("yes.wav").is_file(), "{stderr}");

    // The same command goes on, here at its end; without a judge it says what is known then.
    let (code, stdout, stderr) = finetune(&home, &from_one);
    ensure!(code == 0 && stdout.contains("HELD-OUT") && !stdout.contains("WER"), "{stdout}{stderr}");
    ensure!(stderr.contains("held-out losses alone") && stderr.contains("--judge RECOGNISER"), "{stderr}");
    // What was judged is not forgotten: it is the same voice.
    ensure!(json(&folder.join("finetune.json"))?["judged"] == report["judged"]);
    Ok(())
}

#[test]
fn a_voice_is_trained_from_nothing_and_a_vocoder_comes_along() -> Result<()> {
    let home = workplace()?;
    // A vocoder of other features than the recipe's.
    let mut vocoder = speechd(home.path());
    vocoder.args(["train", "vocoder_en", "--out", "vocoder", "--quiet"]);
    for setting in [
        "data.train=[\"corpus/train.jsonl\"]",
        "data.dev=[\"corpus/dev.jsonl\"]",
        "vocoder={n_mels=20, crop_secs=0.5, hidden_size=8, intermediate_size=16, num_layers=1, kernel_size=3}",
        "loss.adversarial.weight=0",
        "sampler.batch_secs=4",
        "schedule.warmup_steps=1",
        "train.max_steps=1",
        "train.device=cpu",
    ] {
        vocoder.args(["--set", setting]);
    }
    let (code, _, stderr) = run(&mut vocoder);
    ensure!(code == 0, "{stderr}");

    let new = ["--set", "model.base=", "--set", "model.d_model=16", "--set", "model.n_heads=2"];
    let more = ["--vocoder", "vocoder/model", "--out", "new", "--set", "speech.head_width=80"];
    let (code, stdout, stderr) = finetune(&home, &[&new[..], &more].concat());
    ensure!(code == 0 && stdout.contains("HELD-OUT"), "{stdout}{stderr}");
    for part in ["no voice to start from", "the recipe finetune_voice", "characters of the texts: 4"] {
        ensure!(stderr.contains(part), "{part}: {stderr}");
    }
    ensure!(!stderr.contains("hollow") && !stderr.contains("new to the voice"), "{stderr}");
    let config = config_of(&home.path().join("new/model"))?;
    ensure!(config["feature_spec"]["n_mels"] == 20 && config["vocoder"]["hidden_size"] == 8, "{config}");
    ensure!(
        config["languages"] == serde_json::json!(["de"])
            && config["symbols"] == serde_json::json!(["a", "b", "c", "ß"])
    );
    let (code, _, stderr) = speak(&home, "new/model", "new.wav");
    ensure!(code == 0, "{stderr}");
    Ok(())
}

#[test]
fn what_no_voice_can_be_made_of_is_told_before_anything_is_imported() -> Result<()> {
    let home = workplace()?;
    let (base, hears) = (write_base(&home)?, path_of("whisper-80")?);
    for (more, part) in [
        (&["--model", &base, "--like", "en"][..], "--like is not for --task speak"),
        (&["--model", &base, "--strategy", "lora"], "--strategy is not for --task speak"),
        (&["--model", &hears], "turns speech into text"),
        (&["--model", &base, "--vocoder", &base], "a voice without a vocoder"),
        (&["--model", &base, "--vocoder", &hears], "is no vocoder"),
        (&["--model", &base, "--judge", &base], "--judge"),
        (
            &["--set", "model.base=", "--set", "target.unit=phonemes", "--judge", &hears],
            "--judge: the voice reads phonemes",
        ),
        (&["--model", &base, "--set", "join.max_cuts=4"], "join"),
    ] {
        let (code, stdout, stderr) = finetune(&home, more);
        ensure!(code != 0 && stdout.is_empty() && stderr.contains(part), "{more:?}: {code}, {stderr}");
        ensure!(!home.path().join("runs").exists(), "{more:?}");
    }
    let hearing = ["finetune", "--lang", "de", "--data", "corpus", "--model", &hears];
    for flag in [["--vocoder", "v"], ["--judge", "j"]] {
        let (code, _, stderr) = run(speechd(home.path()).args(hearing).args(flag));
        ensure!(code == 2 && stderr.contains(&format!("{} is for a voice", flag[0])), "{stderr}");
    }
    let (code, _, stderr) = finetune(&home, &["--model", &base, "--data", "nowhere"]);
    ensure!(code == 1 && stderr.contains("(--data FOLDER)"), "{stderr}");
    Ok(())
}
