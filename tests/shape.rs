//! `speechd plan shape`: a table or a grid of runs in, a split of a budget out.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cli::{home, run, speechd},
    support::json,
    training::workplace,
};

const ENCODER: (f64, f64) = (120_000.0, 790_000.0);
const DECODER: (f64, f64) = (1_000.0, 1_050_000.0);

/// Losses that follow a law with exponents of 0.4 and 0.2, off by up to 0.002, of models of which the encoder takes 1 ms and 2 ms a million
/// parameters, and a token 0.3 ms and 1 ms a million.
fn table() -> String {
    let mut rows = String::new();
    let mut n_rows = 0_u32;
    for (encoder, decoder) in [1.0, 2.0, 4.0].into_iter().flat_map(|e| [1.0, 2.0, 4.0].map(|d| (e, d))) {
        for seed in 0..2 {
            let (e, d) = (ENCODER.0 + ENCODER.1 * encoder, DECODER.0 + DECODER.1 * decoder);
            let off = 0.001 * (f64::from(n_rows * 7 % 5) - 2.0);
            let loss = 0.8 * (2e6 / e).powf(0.4) * (2e6 / d).powf(0.2) + 1.2 + off;
            let (encoder_secs, token_secs) = (1e-3 + 2e-9 * e, 3e-4 + 1e-9 * d);
            rows += &format!(
                "{{\"encoder_params\":{e},\"decoder_params\":{d},\"loss\":{loss},\"seed\":{seed},\"encoder_layers\":{encoder},\
                 \"decoder_layers\":{decoder},\"audio_secs\":10,\"encoder_secs\":{encoder_secs},\"token_secs\":{token_secs},\"note\":\"x\"}}\n"
            );
            n_rows += 1;
        }
    }
    rows
}

fn plan(home: &TempDir, arguments: &[&str]) -> (i32, String, String) {
    run(speechd(home.path()).args(["plan", "shape"]).args(arguments))
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn a_table_of_runs_gives_a_split_of_parameters_and_of_time() {
    let home = home();
    fs::write(home.path().join("mine.jsonl"), table()).expect("written");
    let budgets = ["--params", "30M", "--latency-ms", "80", "--tokens", "40"];
    let (code, stdout, stderr) = plan(
        &home,
        &[&["--from", "mine.jsonl", "--out", "out", "--bootstrap", "200"][..], &budgets].concat(),
    );
    assert_eq!(code, 0, "{stderr}");
    for part in [
        "p_e",
        "95 % INTERVAL",
        "by the total size alone",
        "left out: predicted",
        "30.00 M parameters",
        "80.0 ms for 40 tokens",
        "model.encoder_layers = ",
        "out/shape.html",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert!(stderr.contains("beyond the grid"), "{stderr}");
    let result = json(&home.path().join("out/shape.json")).expect("a result");
    for (name, expected) in [("encoder_exponent", 0.4), ("decoder_exponent", 0.2), ("floor", 1.2)] {
        let estimate = &result[name];
        let value = number(&estimate["value"]);
        assert!((value - expected).abs() < 0.15 * expected, "{name}: {value}");
        let [low, high] = ["low", "high"].map(|bound| number(&estimate["interval"][bound]));
        assert!(low <= value && value <= high && low > 0.0, "{name}: {estimate}");
    }
    assert!(number(&result["r_squared"]) > 0.999 && number(&result["total_r_squared"]) < 0.99);
    // Two thirds of the parameters, and of the time: 80 ms less 1 ms and 40 times 0.3 ms.
    let [by_params, by_latency] = [0, 1].map(|index| &result["recommendations"][index]);
    let share = number(&by_params["encoder_share"]["value"]);
    assert!((share - 2.0 / 3.0).abs() < 0.05, "{share}");
    assert!((number(&by_params["encoder_params"]["value"]) - 30e6 * share).abs() < 1.0);
    let encoder = number(&by_latency["encoder_params"]["value"]);
    assert!((encoder - share * 0.067 / 2e-9).abs() < 1e4, "{encoder}");
    let (layers, secs) = (&by_latency["shape"], number(&by_latency["secs"]));
    // A decoder is a block at least, which takes 42 ms; what is left is the encoder's.
    assert_eq!((number(&layers["encoder_layers"]), number(&layers["decoder_layers"])), (15.0, 1.0));
    assert!(secs <= 0.08, "{secs}");
    let page = fs::read_to_string(home.path().join("out/shape.html")).expect("a page");
    assert!(page.matches("<svg").count() == 3 && !page.contains("src="), "{page}");

    assert_eq!(result["figure"], "loss");

    // The same again, as JSON; and of another table, which says nothing of depths and times.
    let (_, again, _) = plan(
        &home,
        &[&["--from", "mine.jsonl", "--out", "out", "--json", "--bootstrap", "200"][..], &budgets].concat(),
    );
    assert_eq!(serde_json::from_str::<Value>(&again).expect("JSON"), result);
    let mut csv = "encoder_params,decoder_params,loss\n".to_owned();
    for row in table().lines() {
        let row: Value = serde_json::from_str(row).expect("JSON");
        csv += &format!("{},{},{}\n", row["encoder_params"], row["decoder_params"], row["loss"]);
    }
    fs::write(home.path().join("plain.csv"), &csv).expect("written");
    let (code, stdout, stderr) = plan(&home, &["--from", "plain.csv", "--params", "30M"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        !stdout.contains("model.encoder_layers") && home.path().join("runs/plain-shape/shape.html").is_file()
    );
}

#[test]
fn what_gives_no_split_is_named() {
    let home = home();
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).expect("written");
    write("mine.jsonl", &table());
    write(
        "few.jsonl",
        &table()
            .lines()
            .filter(|row| !row.contains("\"decoder_layers\":4,"))
            .map(|row| row.to_owned() + "\n")
            .collect::<String>(),
    );
    write("diverged.jsonl", &table().replacen("\"loss\":", "\"loss\":null,\"was\":", 1));
    write("deaf.csv", "encoder_params,decoder_params,loss\n1,0,2\n");
    write("broken.csv", "encoder_params,decoder_params,loss\n1,2,3\n1,x,3\n");
    for (arguments, code, parts) in [
        (&["--from", "few.jsonl", "--params", "30M"][..], 1, ["the decoder has 2", "add runs"]),
        (&["--from", "diverged.jsonl", "--params", "30M"], 1, ["run 1", "not finite"]),
        (&["--from", "deaf.csv", "--params", "30M"], 1, ["decoder has no parameters", "run 1"]),
        (&["--from", "broken.csv", "--params", "30M"], 1, ["broken.csv:3", "decoder_params"]),
        (&["--from", "none.csv", "--params", "30M"], 1, ["none.csv", "No such file"]),
        (&["--from", "mine.jsonl", "--params", "1M"], 1, ["1.00 M parameters", "a layer each"]),
        (
            &["--from", "mine.jsonl", "--latency-ms", "5", "--tokens", "40"],
            1,
            ["5.0 ms", "before the first layer"],
        ),
        (&["--from", "mine.jsonl", "--latency-ms", "50"], 2, ["--tokens", "required"]),
        (&["--from", "mine.jsonl", "--bootstrap", "100001"], 2, ["--bootstrap", "100000"]),
        (&["digits_en", "--figure", "bleu"], 2, ["--figure bleu", "cross_entropy"]),
        (&["digits_en", "--set", "train.max_epochs=2"], 2, ["train.max_epochs", "train.max_steps"]),
        (
            &["digits_en", "--latency-ms", "50", "--tokens", "4", "--audio-secs", "0.01"],
            2,
            ["--audio-secs", "0.1 seconds"],
        ),
        (&["--from", "mine.jsonl", "--params", "much"], 2, ["--params", "20M"]),
        (&["--params", "20M"], 2, ["RECIPE", "required"]),
        (&["digits_en", "--decoder-layers", "1,2"], 2, ["--decoder-layers 1,2", "3 different"]),
        (&["ctc_ps", "--params", "20M"], 2, ["parakeet_ctc", "no decoder"]),
        (&["digits_en", "--set", "seed=3"], 2, ["seed", "--seeds"]),
        (
            &["digits_en", "--latency-ms", "50", "--tokens", "4", "--audio-secs", "20"],
            2,
            ["--audio-secs 20", "8 s"],
        ),
    ] {
        let (found, _, stderr) = plan(&home, arguments);
        assert!(
            found == code && parts.iter().all(|part| stderr.contains(part)),
            "{arguments:?}: {found} {stderr}"
        );
    }
    // Nothing was trained, and what the law says is there whatever becomes of a budget.
    let folders = fs::read_dir(home.path().join("runs")).expect("a folder");
    let folders: Vec<_> = folders.map(|folder| folder.expect("a folder").file_name()).collect();
    assert_eq!(folders, ["mine-shape"]);
}

#[test]
fn a_latency_that_cannot_be_split_costs_nothing_but_itself() {
    let home = home();
    // Times that do not grow with the decoder.
    let table = table();
    let rows = table.lines().map(|row| {
        let mut row: Value = serde_json::from_str(row).expect("JSON");
        row["token_secs"] = 1e-3.into();
        row.to_string() + "\n"
    });
    fs::write(home.path().join("mine.jsonl"), rows.collect::<String>()).expect("written");
    let from = ["--from", "mine.jsonl", "--out", "out", "--bootstrap", "20", "--params", "30M"];
    let (code, stdout, stderr) = plan(&home, &from);
    assert!(code == 0 && stderr.contains("mind: latency: "), "{code} {stderr}");
    let layers =
        stdout.lines().find(|line| line.contains("model.encoder_layers")).expect("layers").to_owned();
    fs::remove_dir_all(home.path().join("out")).expect("removed");
    let (code, stdout, stderr) =
        plan(&home, &[&from[..], &["--latency-ms", "80", "--tokens", "40"]].concat());
    assert!(code == 1 && stderr.contains("error: latency: `token_secs` does not grow"), "{code} {stderr}");
    assert!(stdout.contains(&layers), "{stdout}");
    let page = fs::read_to_string(home.path().join("out/shape.html")).expect("a page");
    assert!(page.contains("Failed:") && page.contains("30.00 M parameters"), "{page}");
    let result = json(&home.path().join("out/shape.json")).expect("a result");
    assert_eq!(result["recommendations"].as_array().map(Vec::len), Some(1));
    assert!(result["failures"][0].as_str().is_some_and(|text| text.contains("token_secs")), "{result}");
}

/// What training wrote, by file: when and how long.
fn written(run: &Path) -> Vec<(std::time::SystemTime, u64)> {
    ["metrics.jsonl", "model/model.safetensors", "card.html"]
        .map(|name| fs::metadata(run.join(name)).expect(name))
        .map(|file| (file.modified().expect("a time"), file.len()))
        .to_vec()
}

#[test]
fn a_grid_is_trained_once_and_goes_on_where_it_was() {
    let home = workplace();
    let grid = |more: &[&str]| {
        let arguments = [
            "tones.toml",
            "--out",
            "grid",
            "--seeds",
            "1",
            "--encoder-layers",
            "1,2,3",
            "--decoder-layers",
            "1,2,3",
            "--bootstrap",
            "20",
            "--bench-runs",
            "1",
            "--set",
            "train.evaluate_every=0",
            "--set",
            "train.save_every=0",
            "--set",
            "evaluate.max_utterances=2",
            "--set",
            "sampler.batch_secs=1.0",
        ];
        plan(&home, &[&arguments[..], more].concat())
    };
    let steps = ["--set", "train.max_steps=2"];
    let (code, stdout, stderr) = grid(&steps);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("run 1 of 9: e1-d1-s0") && stderr.contains("run 9 of 9: e3-d3-s0"), "{stderr}");
    assert!(stdout.contains("9 runs, cross_entropy") && stdout.contains("grid/shape.html"), "{stdout}");
    let folder = home.path().join("grid");
    let rows = fs::read_to_string(folder.join("losses.jsonl")).expect("a table");
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    assert_eq!(rows.len(), 9);
    // A block of width 16: four projections, three of them with a bias, two layers four times as wide, and norms.
    let block = 4 * 16 * 16 + 3 * 16 + 2 * 4 * 16 * 16 + 5 * 16 + 2 * 2 * 16;
    let attention = 4 * 16 * 16 + 3 * 16 + 2 * 16;
    let size = |row: usize, name: &str| rows[row][name].as_u64().expect("a number");
    assert_eq!(size(3, "encoder_params") - size(0, "encoder_params"), block);
    assert_eq!(size(1, "decoder_params") - size(0, "decoder_params"), block + attention);
    assert!(rows.iter().all(|row| row["loss"].as_f64().is_some_and(|loss| loss > 0.0)));
    // It is the last evaluation that counts.
    let metrics = fs::read_to_string(folder.join("runs/e2-d1-s0/metrics.jsonl")).expect("a log");
    let last = metrics.lines().rfind(|line| line.contains("dev/cross_entropy")).expect("an evaluation");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((&last["value"], &last["step"]), (&rows[3]["loss"], &2.into()));

    // One run is lost: it alone is trained again. What is new is measured, and the table is a plan's input.
    let before = written(&folder.join("runs/e1-d1-s0"));
    fs::remove_dir_all(folder.join("runs/e3-d2-s0")).expect("removed");
    let (code, _, stderr) = grid(&steps);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(written(&folder.join("runs/e1-d1-s0")), before);
    assert_eq!(stderr.matches("is there already").count(), 8, "{stderr}");
    let again = fs::read_to_string(folder.join("losses.jsonl")).expect("a table");
    let again: Vec<Value> = again.lines().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    assert_eq!(again, rows);

    // Other settings are another grid, in another folder.
    let (code, _, stderr) = grid(&["--set", "train.max_steps=2", "--set", "model.d_model=32"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("e1-d1-s0") && stderr.contains("model.d_model"), "{stderr}");
    // So is one that is judged otherwise, or by other speech under the same name, whatever a run alone would go on with.
    let (code, _, stderr) = grid(&[&steps[..], &["--set", "evaluate.beam_size=2"]].concat());
    assert!(
        code == 1 && stderr.contains("evaluate.beam_size") && stderr.contains("--out"),
        "{code} {stderr}"
    );
    let manifest = home.path().join("tones.jsonl");
    let speech = fs::read_to_string(&manifest).expect("a manifest");
    fs::write(&manifest, speech.clone() + "\n").expect("written");
    let (code, _, stderr) = grid(&steps);
    assert!(code == 1 && stderr.contains("something else in data.dev"), "{code} {stderr}");
    fs::write(&manifest, speech).expect("written");
    // A run that somebody trained further says something else than the others.
    let log = folder.join("runs/e1-d2-s0/metrics.jsonl");
    let metrics = fs::read_to_string(&log).expect("a log");
    let mut further: Value = serde_json::from_str(metrics.lines().next().expect("a line")).expect("JSON");
    (further["step"], further["name"], further["value"]) = (3.into(), "dev/cross_entropy".into(), 1.into());
    fs::write(&log, format!("{metrics}{further}\n")).expect("written");
    let (code, _, stderr) = grid(&steps);
    assert!(
        code == 1 && stderr.contains("after update 2") && stderr.contains("e1-d2-s0 after 3"),
        "{stderr}"
    );
    fs::write(&log, metrics).expect("written");

    // Models this small are timed; what their times say of a budget is the machine's.
    let (code, _, stderr) = grid(&[&steps[..], &["--latency-ms", "1000", "--tokens", "5"]].concat());
    assert!(code < 2, "{code} {stderr}");
    let read = || fs::read_to_string(folder.join("losses.jsonl")).expect("a table");
    let times = read();
    for (name, n_timed) in
        [("encoder_secs", 3), ("listen_secs", 3), ("token_secs", 3), ("\"audio_secs\":2.0", 5)]
    {
        assert_eq!(times.matches(name).count(), n_timed, "{name}: {times}");
    }
    // They outlive a command that does not time, and what follows from them is the same on any machine.
    let (code, _, stderr) = grid(&steps);
    assert_eq!(code, 0, "{stderr}");
    let known = |table: &str| -> Vec<Option<f64>> {
        let rows = table.lines().map(|row| serde_json::from_str::<Value>(row).expect("JSON"));
        let names = ["audio_secs", "encoder_secs", "listen_secs", "token_secs"];
        rows.flat_map(|row| names.map(|name| row[name].as_f64())).collect()
    };
    // A number that is read and written again may differ in its last digit.
    for (before, after) in known(&times).into_iter().zip(known(&read())) {
        let is_same = before.zip(after).is_some_and(|(before, after)| (before - after).abs() < 1e-12);
        assert!(is_same || before.or(after).is_none(), "{before:?}, then {after:?}");
    }
    let table = table();
    let known = rows.iter().zip(table.lines().step_by(2)).map(|(row, known)| {
        let (mut row, known): (Value, Value) = (row.clone(), serde_json::from_str(known).expect("JSON"));
        let params = |stack: &str| row[stack].as_f64().expect("a number");
        let (encoder_secs, token_secs) =
            (1e-3 + 2e-9 * params("encoder_params"), 3e-4 + 1e-9 * params("decoder_params"));
        row["loss"] = known["loss"].clone();
        row["audio_secs"] = 2.0.into();
        (row["encoder_secs"], row["token_secs"]) = (encoder_secs.into(), token_secs.into());
        row.to_string() + "\n"
    });
    fs::write(folder.join("losses.jsonl"), known.collect::<String>()).expect("written");
    fs::remove_file(folder.join("shape.json")).expect("removed");
    let from = ["--from", "grid/losses.jsonl", "--latency-ms", "2.6", "--tokens", "5", "--bootstrap", "20"];
    let (code, stdout, stderr) = plan(&home, &from);
    assert!(code == 0 && stdout.contains("2.6 ms for 5 tokens: model.encoder_layers = "), "{stdout}{stderr}");
    let result = json(&folder.join("shape.json")).expect("a result, beside the table");
    assert_eq!(result["figure"], "cross_entropy");
}
