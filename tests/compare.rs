//! `speechd data join` and `speechd compare` as a user runs them.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{home, run, speechd};
use crate::support::fixture;

/// A manifest of twelve tones, each of 0.4 s, by two speakers.
fn workplace() -> Result<TempDir> {
    let home = home();
    let mut manifest = String::new();
    for index in 0..12 {
        let samples = (0..6_400).map(|t| (t as f32 * 0.05 * (1 + index % 3) as f32).sin() * 0.5).collect();
        let waveform = audio::Waveform { samples, sample_rate: 16_000 };
        fs::write(home.path().join(format!("{index}.wav")), audio::encode::wav_bytes(&waveform)?)?;
        let text = ["one two", "three", "four five six"][index % 3];
        manifest += &format!(
            "{{\"id\":\"{index}\",\"audio_filepath\":\"{index}.wav\",\"duration\":0.4,\"text\":\"{text}\",\"lang\":\"en\",\"speaker\":\"s{}\"}}\n",
            index % 2
        );
    }
    fs::write(home.path().join("test.jsonl"), manifest)?;
    Ok(home)
}

#[test]
fn short_recordings_become_longer_ones_that_models_are_compared_by() -> Result<()> {
    let home = workplace()?;
    let join = |min_chars: &str, more: &[&str]| {
        run(speechd(home.path())
            .args([
                "data",
                "join",
                "test.jsonl",
                "--out",
                "long",
                "--min-chars",
                min_chars,
                "--max-secs",
                "1.5",
            ])
            .args(more))
    };
    let (code, stdout, stderr) = join("20", &[]);
    ensure!(code == 0 && stdout.contains("long/test.jsonl"), "{stdout}{stderr}");
    let manifest = fs::read_to_string(home.path().join("long/test.jsonl"))?;
    let rows: Vec<Value> = manifest.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(!rows.is_empty());
    for row in &rows {
        let text = row["text"].as_str().unwrap_or_default();
        ensure!(text.chars().count() >= 20, "{row}");
        let path = home.path().join("long").join(row["audio_filepath"].as_str().unwrap_or_default());
        let decoded = audio::decode_file(&path, &audio::DecodeAudio::default())?;
        let secs = decoded.waveform.duration_secs();
        ensure!((secs - row["duration"].as_f64().unwrap_or_default()).abs() < 1e-3 && secs <= 1.5, "{secs}");
        // Two of 0.4 s with a pause between them are 1 s, and three 1.6.
        ensure!((secs - 1.0).abs() < 1e-3, "{secs}");
    }
    // Of one speaker, whose texts come in the order of the manifest.
    ensure!(rows[0]["text"] == "one two four five six" && rows[0]["speaker"] == "s0", "{}", rows[0]);
    let (code, _, stderr) = join("20", &[]);
    ensure!(code == 2 && stderr.contains("--overwrite"), "{stderr}");
    let (code, _, stderr) = join("400", &["--overwrite"]);
    ensure!(code == 1 && stderr.contains("no text of 400 characters within 1.5 s"), "{stderr}");

    let model = fixture("whisper-80").display().to_string();
    let compare = |more: &[&str]| {
        run(speechd(home.path())
            .args(["compare", "test.jsonl", "--runs", "1", "--limit", "3", "--batch", "1,2"])
            .args(["--model", &format!("one={model}"), "--model", &format!("other={model}")])
            .args(more))
    };
    let (code, _, stderr) = compare(&["--card", "."]);
    ensure!(code == 1 && stderr.contains("name the folder of a run"), "{stderr}");
    fs::write(home.path().join("card.html"), "<h1>run</h1>\n<h2>Curves</h2>\n")?;
    let (code, stdout, stderr) = compare(&["--card", "."]);
    ensure!(code == 0, "{stderr}");
    ensure!(stdout.contains("one ") && stdout.contains("+0.00 (0.00 to 0.00)"), "{stdout}");
    let card = fs::read_to_string(home.path().join("card.html"))?;
    ensure!(card.contains("Beside other models") && card.contains("+0.00"), "{card}");
    let (code, stdout, stderr) = compare(&["--json"]);
    ensure!(code == 0, "{stderr}");
    let json: Value = serde_json::from_str(&stdout)?;
    let speeds = json["models"][1]["speeds"].as_array().map_or(0, Vec::len);
    ensure!(speeds == 2 && json["models"][0]["words"].is_null(), "{json}");
    let params = |key: &str| json["models"][0][key].as_u64().unwrap_or_default();
    ensure!(params("encoder_params") > 0 && params("decoder_params") > params("encoder_params"));
    Ok(())
}
