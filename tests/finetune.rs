//! `speechd finetune` as a user runs it, and what it leaves: adapters, frozen weights, a language more.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::params::{Params, TrainedPart};
use models::{
    Adapter, Bundle, BundleSource, DecodeOptions, Lora, NewVocabulary, TextUnit, Transcriber, WeightDtype,
    add_updates, write_adapter,
};
use models::{SpeechModel, write_weights};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{home, run, speechd};
use crate::support::{difference, fixture};

/// A folder in audiofolder's layout: tones that are called by their pitch, by three speakers.
fn workplace() -> Result<TempDir> {
    workplace_of(["یو", "دوه", "درې"])
}

/// The same with these names.
pub fn workplace_of(words: [&str; 3]) -> Result<TempDir> {
    let home = home();
    let corpus = home.path().join("corpus");
    fs::create_dir(&corpus)?;
    let mut table = "file_name,text,speaker_id\n".to_owned();
    for index in 0..30 {
        let word = words[index % 3];
        let samples = (0..6_400)
            .map(|t| (t as f32 * 0.05 * (1 + index % 3) as f32 + index as f32).sin() * 0.5)
            .collect();
        let waveform = audio::Waveform { samples, sample_rate: 16_000 };
        fs::write(corpus.join(format!("{index}.wav")), audio::encode::wav_bytes(&waveform)?)?;
        table += &format!("{index}.wav,{word},{}\n", index % 5);
    }
    fs::write(corpus.join("metadata.csv"), table)?;
    Ok(home)
}

fn finetune(home: &TempDir, more: &[&str]) -> (i32, String, String) {
    finetune_for("ps", home, more)
}

fn finetune_for(language: &str, home: &TempDir, more: &[&str]) -> (i32, String, String) {
    finetune_from(&fixture("whisper-80"), language, home, more)
}

/// Two updates on top of any model.
pub fn finetune_from(base: &Path, language: &str, home: &TempDir, more: &[&str]) -> (i32, String, String) {
    let base = base.display().to_string();
    let settings =
        ["--set", "train.max_steps=2", "--set", "train.max_epochs=0", "--set", "sampler.batch_secs=60"];
    run(speechd(home.path())
        .args(["finetune", "--lang", language, "--model", &base, "--data", "corpus", "--variable-length"])
        .args(settings)
        .args(more))
}

#[test]
fn one_command_imports_trains_and_measures_before_and_after() -> Result<()> {
    let home = workplace()?;
    let (code, stdout, stderr) = finetune(&home, &["--dry-run"]);
    ensure!(code == 0, "{stderr}");
    for part in ["strategy full", "updates: 2", "memory:", "time:"] {
        ensure!(stdout.contains(part), "{part}: {stdout}");
    }
    ensure!(stderr.contains("tokens of") && stderr.contains("a word"), "{stderr}");
    ensure!(!home.path().join("runs/finetune-ps/model").exists());

    let (code, stdout, stderr) = finetune(&home, &[]);
    ensure!(code == 0, "{stderr}");
    for part in ["none", "full", "ps-strict: WER", "ps-lenient: WER", "points"] {
        ensure!(stdout.contains(part), "{part}: {stdout}");
    }
    ensure!(stderr.contains("speechd serve --model ps=runs/finetune-ps/model"), "{stderr}");
    let run_folder = home.path().join("runs/finetune-ps");
    for file in
        ["model/config.json", "card.html", "errors/analysis.html", "errors/analysis.json", "finetune.json"]
    {
        ensure!(run_folder.join(file).is_file(), "{file}");
    }
    let page = fs::read_to_string(run_folder.join("errors/analysis.html"))?;
    ensure!(page.contains("<audio controls") && page.contains("retroflex"));
    let config: Value = serde_json::from_str(&fs::read_to_string(run_folder.join("model/config.json"))?)?;
    ensure!(config["variable_length"] == true, "{config}");

    // The base is listened to once: what it heard is on disk.
    let before = run_folder.join("before.json");
    let mut kept: Value = serde_json::from_str(&fs::read_to_string(&before)?)?;
    for heard in kept["evaluation"]["heard"].as_array_mut().context("heard")? {
        heard["hypothesis"] = heard["reference"].clone();
    }
    fs::write(&before, kept.to_string())?;
    let (code, stdout, stderr) = finetune(&home, &[]);
    ensure!(code == 0 && stdout.contains("ps-strict: WER 0.0 %"), "{stdout}{stderr}");
    ensure!(
        stderr.contains("imported before") && stderr.contains("remove runs/finetune-ps/data"),
        "{stderr}"
    );
    ensure!(stderr.contains("run cards: runs/finetune-ps/finetune.html"), "{stderr}");
    let page = fs::read_to_string(run_folder.join("finetune.html"))?;
    ensure!(page.contains("href=\"card.html\"") && page.contains("href=\"errors/analysis.html\""), "{page}");
    // Of another base it says nothing.
    let key = std::mem::replace(&mut kept["key"], "another".into());
    fs::write(&before, kept.to_string())?;
    let (code, stdout, stderr) = finetune(&home, &[]);
    ensure!(code == 0 && !stdout.contains("ps-strict: WER 0.0 %"), "{stdout}{stderr}");

    // A recording that is lost since is no reason to give no result, nor to listen to the base again.
    let gone = kept["evaluation"]["heard"][0]["name"].as_str().context("a name")?.to_owned();
    let heard = kept["evaluation"]["heard"].as_array_mut().context("heard")?;
    heard.remove(0);
    kept["evaluation"]["failed"] = serde_json::json!([{ "name": gone, "reason": "lost" }]);
    kept["key"] = key;
    fs::write(&before, kept.to_string())?;
    let (code, stdout, stderr) = finetune(&home, &[]);
    ensure!(
        code == 0 && stdout.contains("ps-strict: WER 0.0 %") && stdout.contains("points"),
        "{stdout}{stderr}"
    );
    ensure!(stderr.contains("1 recordings that only one of the models could hear"), "{stderr}");
    Ok(())
}

#[test]
fn what_is_missing_is_told_together_before_anything_is_fetched() -> Result<()> {
    let home = home();
    let (code, _, stderr) = run(speechd(home.path()).args(["finetune", "--lang", "ps"]));
    ensure!(code == 1, "{stderr}");
    for part in ["commonvoice.mozilla.org", "(--data FOLDER)", "speechd models pull openai/whisper-base"] {
        ensure!(stderr.contains(part), "{part}: {stderr}");
    }
    ensure!(!home.path().join("runs").exists());
    // Neither is the base fetched for a corpus that is nowhere.
    let two = ["--data", "one", "--data", "two", "--strategy", "multistage", "--related-lang", "ur"];
    let (code, _, stderr) = run(speechd(home.path())
        .args(["finetune", "--lang", "ps", "--related-data", "three"])
        .args(two)
        .env("HF_HUB_OFFLINE", "1"));
    ensure!(code == 1 && stderr.contains("(--related-data FOLDER)"), "{stderr}");
    for name in ["one: no such", "two: no such", "three: no such", "models pull"] {
        ensure!(stderr.matches(name).count() == 1, "{name}: {stderr}");
    }
    Ok(())
}

#[test]
fn strategies_are_compared_and_a_refused_stage_is_a_row() -> Result<()> {
    let home = workplace()?;
    let more = [
        "--strategy",
        "lora,frozen-encoder,multistage",
        "--related-data",
        "corpus",
        "--related-lang",
        "fa",
        "--gate",
        "0.0001",
        "--set",
        "strategy.lora.rank=4",
        "--set",
        "strategy.frozen_layers=1",
    ];
    let (code, stdout, stderr) = finetune(&home, &more);
    ensure!(code == 0, "{stderr}");
    ensure!(stdout.contains("stage A did not pass") && stdout.contains("at most 0.0001"), "{stdout}");
    let out = home.path().join("runs/finetune-ps");
    ensure!(!out.join("multistage/checkpoints").exists());
    ensure!(stdout.contains("2 (2 of stage A)"), "{stdout}");
    let page = fs::read_to_string(out.join("finetune.html"))?;
    for card in ["lora/card.html", "frozen-encoder/card.html", "multistage/stage-a/card.html"] {
        ensure!(page.contains(&format!("href=\"{card}\"")) && out.join(card).is_file(), "{card}: {page}");
    }
    // One folder is two corpora: each stage is told its own language.
    for language in ["ps", "fa"] {
        let manifest = fs::read_to_string(out.join(format!("data/corpus-{language}/train.jsonl")))?;
        let lang = |row: &str| -> Result<Value> { Ok(serde_json::from_str::<Value>(row)?["lang"].clone()) };
        for row in manifest.lines() {
            ensure!(lang(row)? == language, "{row}");
        }
    }

    // What is frozen stays as it is to the bit, and nothing else does.
    let base = candle_core::safetensors::load(fixture("whisper-80").join("model.safetensors"), &Device::Cpu)?;
    let changed = |strategy: &str| -> Result<Vec<String>> {
        let path = out.join(strategy).join("model/model.safetensors");
        let tensors: BTreeMap<_, _> =
            candle_core::safetensors::load(path, &Device::Cpu)?.into_iter().collect();
        let mut changed = Vec::new();
        for (name, tensor) in &tensors {
            let before = base.get(name).with_context(|| name.clone())?.to_dtype(tensor.dtype())?;
            if bits(&before)? != bits(tensor)? {
                changed.push(name.clone());
            }
        }
        Ok(changed)
    };
    let lora = changed("lora")?;
    ensure!(
        !lora.is_empty()
            && lora.iter().all(|name| name.contains("q_proj.weight") || name.contains("v_proj.weight")),
        "{lora:?}"
    );
    let frozen = changed("frozen-encoder")?;
    let is_frozen = |name: &String| name.contains("encoder.conv") || name.contains("encoder.layers.0.");
    ensure!(frozen.len() > 20 && !frozen.iter().any(is_frozen), "{frozen:?}");

    // The adapter is served by its name beside its base, and merged it is the model that the run kept.
    let clip = home.path().join("corpus/0.wav");
    let adapter = out.join("lora/adapter");
    let transcribe = ["--language", "ps", "--model"];
    let (code, _, stderr) =
        run(speechd(home.path()).arg("transcribe").arg(&clip).args(transcribe).arg(&adapter));
    ensure!(code == 0, "{stderr}");
    let merged = home.path().join("merged");
    let merge =
        || run(speechd(home.path()).args(["models", "merge"]).arg(&adapter).arg("--out").arg(&merged));
    let (code, _, stderr) = merge();
    ensure!(code == 0, "{stderr}");
    let (code, _, stderr) = merge();
    ensure!(code == 2 && stderr.contains("there already"), "{stderr}");
    let read = |path: &Path| -> Result<_> { Ok(Bundle::open(path)?.weights().read_all(&Device::Cpu)?) };
    let (merged, kept) = (read(&merged)?, read(&out.join("lora/model"))?);
    ensure!(merged.len() == kept.len());
    for (name, tensor) in &merged {
        ensure!(difference(tensor, &kept[name])? < 1e-5, "{name}");
    }
    // What the run changed beside the weights is in both.
    let config = |path: &Path| -> Result<Value> { Ok(serde_json::from_str(&fs::read_to_string(path)?)?) };
    let paths = [home.path().join("merged"), out.join("lora/model")];
    let [one, other] = [config(&paths[0].join("config.json"))?, config(&paths[1].join("config.json"))?];
    ensure!(one == other && one["variable_length"] == true);
    Ok(())
}

/// Hidden states of a decoder's end, or what a model without one reads.
fn outcome(model: &SpeechModel, mel: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let encoded = model.encoder.forward(mel, &|| true)?;
    Ok(match (model.decoder(), model.ctc_head()) {
        (Ok(decoder), _) => decoder.forward(&Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?, &encoded)?,
        (_, head) => head.context("a head")?.linear().forward(&encoded)?,
    })
}

#[test]
fn an_adapter_is_nothing_at_first_and_the_same_beside_and_within_the_weights() -> Result<()> {
    for (name, ids, targets) in [
        (
            "whisper-80",
            [301, 308, 311, 40, 50],
            &["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"][..],
        ),
        (
            "canary",
            [7, 4, 14, 17, 30],
            &["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "linear1", "linear2"],
        ),
        ("parakeet", [0; 5], &["q_proj", "k_proj", "v_proj", "o_proj", "linear1", "linear2"]),
    ] {
        let dir = fixture(name);
        let architecture = Bundle::open(&dir)?.architecture().clone();
        let targets = targets.iter().map(|&target| target.to_owned()).collect();
        let lora = Lora { rank: 3, alpha: 7.0, targets };
        let part = TrainedPart { frozen: vec![String::new()], lora: Some((lora.clone(), 5)) };
        let adapted = Params::trainable(models::Weights::open(&dir)?, &Device::Cpu).with_part(part);
        let model = SpeechModel::load(&adapted, &architecture)?;
        let load = |params: &Params| SpeechModel::load(params, &architecture);
        let plain = load(&Params::frozen(models::Weights::open(&dir)?, &Device::Cpu))?;
        let n_frames = architecture.window_frames().min(3000);
        let features = crate::parity::features(0, architecture.n_mels(), n_frames);
        let mel = Tensor::from_vec(features.data, (1, architecture.n_mels(), n_frames), &Device::Cpu)?;
        let outcome = |model: &SpeechModel| outcome(model, &mel, &ids);
        // Kernels of conformers are not what is trained: they agree up to rounding.
        let off = difference(&outcome(&model)?, &outcome(&plain)?)?;
        ensure!(off <= if name == "whisper-80" { 0.0 } else { 1e-4 }, "{name}: B = 0 changes nothing: {off}");

        // Only factors are trained, and every one of them gets a gradient once B is not zero.
        let vars = adapted.vars();
        ensure!(!vars.is_empty() && vars.iter().all(|(name, _)| models::is_factor(name)));
        for target in &lora.targets {
            ensure!(vars.iter().any(|(name, _)| name.contains(&format!(".{target}."))), "{name}: {target}");
        }
        for (name, var) in vars.iter().filter(|(name, _)| name.contains("lora_B")) {
            let n = var.elem_count();
            let values = (0..n).map(|i| ((i * 7 + name.len()) as f32).sin() * 0.05).collect::<Vec<_>>();
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
        }
        let gradients = models::nn::backward(&outcome(&model)?.sqr()?.sum_all()?)?;
        for (name, var) in &vars {
            let gradient =
                gradients.get(var.as_tensor()).with_context(|| format!("{name} has no gradient"))?;
            ensure!(gradient.abs()?.sum_all()?.to_scalar::<f32>()? > 0.0, "{name}");
        }

        // Within the weights, and as PEFT's files beside them.
        let mut tensors: BTreeMap<String, Tensor> =
            vars.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
        tensors.extend(adapted.buffers());
        let folder = tempfile::tempdir()?;
        write_adapter(folder.path(), &lora, name, &tensors, WeightDtype::F32)?;
        let source =
            BundleSource::Adapted { base: Box::new(dir.as_path().into()), adapter: folder.path().to_owned() };
        let beside = Params::frozen(models::Weights::from_source(&source)?, &Device::Cpu);
        let expected = outcome(&model)?;
        let off = difference(&expected, &outcome(&load(&beside)?)?)?;
        add_updates(&mut tensors, &lora)?;
        tensors.retain(|name, _| !models::is_factor(name));
        let merged = tempfile::tempdir()?;
        write_weights(merged.path(), &tensors, WeightDtype::F32)?;
        let merged = Params::frozen(models::Weights::open(merged.path())?, &Device::Cpu);
        let merged = difference(&expected, &outcome(&load(&merged)?)?)?;
        println!("{name}: adapter beside and within its base: off by {off:.1e} and {merged:.1e}");
        let bound = if name == "whisper-80" { 1e-5 } else { 1e-4 };
        ensure!(off < bound && merged < bound, "{name}: {off} {merged}");
        ensure!(difference(&expected, &outcome(&plain)?)? > 1e-3, "{name}");
    }
    Ok(())
}

/// What cannot learn a few utterances by heart learns nothing of many. They are what it is judged by, too.
#[test]
fn eight_utterances_are_learnt_by_heart() -> Result<()> {
    let home = workplace()?;
    let row = |index: usize| {
        let text = ["یو", "دوه", "درې"][index % 3];
        format!("{{\"audio_filepath\": \"corpus/{index}.wav\", \"text\": \"{text}\", \"duration\": 0.4}}\n")
    };
    fs::write(home.path().join("eight.jsonl"), (0..8).map(row).collect::<String>())?;
    let settings = [
        "data.train=[\"eight.jsonl\"]",
        "data.dev=[\"eight.jsonl\"]",
        "train.max_steps=300",
        "train.evaluate_every=50",
        "join.max_cuts=1",
        "optimizer.learning_rate=3e-3",
    ];
    let settings: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let (code, stdout, stderr) = finetune(&home, &[&settings[..], &["--no-augment"]].concat());
    ensure!(code == 0 && stdout.contains("ps-strict: WER 0.0 %, CER 0.0 %"), "{stdout}{stderr}");
    Ok(())
}

#[test]
fn pashto_has_its_own_token_in_every_model_of_many_languages() -> Result<()> {
    let Some(model) = crate::support::reference_model("micro-whisper-digits") else { return Ok(()) };
    let tokenizer = models::Tokenizer::open(&model)?;
    ensure!(tokenizer.special("ps") == Some(50_340), "{:?}", tokenizer.special("ps"));
    Ok(())
}

/// whisper.cpp reads it: `tests/compat/finetuned.py --ggml`. Here it is read as its loader reads it.
#[test]
fn a_file_for_whisper_cpp_holds_every_tensor() -> Result<()> {
    let Some(model) = crate::support::reference_model("micro-whisper-digits") else { return Ok(()) };
    let home = home();
    let export = ["models", "export", "--format", "ggml", "--out", "out/micro.bin"];
    let (code, _, stderr) = run(speechd(home.path()).args(export).arg(&model));
    ensure!(code == 0, "{stderr}");
    let bytes = fs::read(home.path().join("out/micro.bin"))?;
    let mut at = 0;
    let number = |at: &mut usize| -> Result<usize> {
        let four = bytes.get(*at..*at + 4).context("it breaks off")?;
        *at += 4;
        Ok(u32::from_le_bytes(four.try_into()?) as usize)
    };
    ensure!(number(&mut at)? == 0x6767_6d6c);
    let sizes = (0..11).map(|_| number(&mut at)).collect::<Result<Vec<_>>>()?;
    ensure!(sizes == [51_866, 400, 128, 2, 4, 96, 128, 2, 2, 128, 1], "{sizes:?}");
    let (n_mels, n_bins) = (number(&mut at)?, number(&mut at)?);
    ensure!((n_mels, n_bins) == (128, 201));
    at += 4 * n_mels * n_bins;
    let n_tokens = number(&mut at)?;
    ensure!(n_tokens == 50_257, "{n_tokens}");
    for _ in 0..n_tokens {
        at += number(&mut at)?;
    }
    let mut n_tensors = 0;
    while at < bytes.len() {
        let (n_dims, n_name, is_f16) = (number(&mut at)?, number(&mut at)?, number(&mut at)?);
        let n_values: usize = (0..n_dims).map(|_| number(&mut at)).product::<Result<usize>>()?;
        let name = std::str::from_utf8(bytes.get(at..at + n_name).context("a name")?)?;
        ensure!(name.starts_with("encoder.") || name.starts_with("decoder."), "{name}");
        at += n_name + n_values * if is_f16 == 1 { 2 } else { 4 };
        n_tensors += 1;
    }
    // 7 in front and at the end of the encoder, 15 a block; 4 of the decoder, 24 a block.
    ensure!(at == bytes.len() && n_tensors == 7 + 4 * 15 + 4 + 2 * 24, "{n_tensors}");
    Ok(())
}

/// `tests/oracle/lora.py`.
#[test]
fn an_adapter_of_peft_says_what_it_says_there() -> Result<()> {
    let expected = candle_core::safetensors::load(fixture("lora/expected.safetensors"), &Device::Cpu)?;
    let dir = fixture("whisper-80");
    let architecture = Bundle::open(&dir)?.architecture().clone();
    let features = crate::parity::features(0, architecture.n_mels(), architecture.window_frames());
    let shape = (1, architecture.n_mels(), architecture.window_frames());
    let mel = Tensor::from_vec(features.data, shape, &Device::Cpu)?;
    let ids = expected["ids"].to_dtype(candle_core::DType::U32)?.unsqueeze(0)?;
    let logits = |source: &BundleSource| -> Result<Tensor> {
        let params = Params::frozen(models::Weights::from_source(source)?, &Device::Cpu);
        let model = SpeechModel::load(&params, &architecture)?;
        let hidden = model.decoder()?.forward(&ids, &model.encoder.forward(&mel, &|| true)?)?;
        Ok(model.decoder()?.logits(&hidden.squeeze(0)?)?)
    };
    let base = BundleSource::from(dir.as_path());
    let beside = BundleSource::Adapted { base: Box::new(base.clone()), adapter: fixture("lora") };
    let without = difference(&logits(&base)?, &expected["base_logits"])?;
    let with = difference(&logits(&beside)?, &expected["logits"])?;
    println!("PEFT's adapter: logits off by {with:.1e}, those of its base by {without:.1e}");
    ensure!(with < 1e-3 && without < 1e-3);
    ensure!(difference(&expected["logits"], &expected["base_logits"])? > 0.1, "it does nothing");
    // By its directory alone: it names its base.
    let home = home();
    let inspect = ["models", "inspect", "--json"];
    let (code, stdout, stderr) = run(speechd(home.path()).args(inspect).arg(fixture("lora")));
    ensure!(code == 0 && stdout.contains("adapter_model.safetensors"), "{stderr}");
    Ok(())
}

#[test]
fn damaged_adapters_are_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path();
    let lora = Lora { rank: 2, alpha: 2.0, targets: vec!["q_proj".to_owned()] };
    let factor =
        |rows: usize, columns: usize| Tensor::ones((rows, columns), candle_core::DType::F32, &Device::Cpu);
    let layer = "model.encoder.layers.0.self_attn.q_proj";
    let tensors = |a: (usize, usize)| -> Result<BTreeMap<String, Tensor>> {
        Ok(BTreeMap::from([
            (format!("{layer}.lora_A.weight"), factor(a.0, a.1)?),
            (format!("{layer}.lora_B.weight"), factor(16, 2)?),
        ]))
    };
    let refused = || Adapter::open(dir).err().map(|error| error.to_string()).unwrap_or_default();
    write_adapter(dir, &lora, "org/base@v2", &tensors((2, 16))?, WeightDtype::F32)?;
    ensure!(Adapter::open(dir)?.base() == Some("org/base@v2") && Adapter::is_in(dir));
    write_adapter(dir, &lora, "base", &tensors((3, 16))?, WeightDtype::F32)?;
    ensure!(refused().contains("no factor of rank 2"), "{}", refused());
    write_adapter(dir, &lora, "base", &tensors((2, 16))?, WeightDtype::F32)?;
    let path = dir.join("adapter_config.json");
    let config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    for (key, value, part) in [
        ("peft_type", "IA3".into(), "IA3"),
        ("use_dora", true.into(), "DoRA"),
        ("bias", "all".into(), "biases"),
        ("r", 0.into(), "no rank"),
        ("modules_to_save", serde_json::json!(["proj_out"]), "whole modules"),
    ] {
        let mut config = config.clone();
        config[key] = value;
        fs::write(&path, config.to_string())?;
        ensure!(refused().contains(part), "{key}: {}", refused());
    }
    fs::write(&path, "{")?;
    ensure!(refused().contains("adapter_config.json"), "{}", refused());
    Ok(())
}

#[test]
fn a_language_more_is_a_token_after_all_others() -> Result<()> {
    let dir = fixture("whisper-80");
    let refused = |code: &str, like: &str| -> Result<String> {
        Ok(Bundle::open(&dir)?
            .with_language(code, like)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default())
    };
    ensure!(refused("ps", "fa")?.contains("has a token"));
    ensure!(refused("xx", "yy")?.contains("`yy`"));
    ensure!(refused("X?", "fa")?.contains("no code"));
    let plain = tempfile::tempdir()?;
    Bundle::open(&dir)?.description().source().copy_description(plain.path())?;
    fs::copy(dir.join("model.safetensors"), plain.path().join("model.safetensors"))?;
    fs::remove_file(plain.path().join("tokenizer.json"))?;
    fs::copy(fixture("sentencepiece").join("bpe.model"), plain.path().join("tokenizer.model"))?;
    let found = Bundle::open(plain.path())?.with_language("xx", "fa").err().context("taken")?.to_string();
    ensure!(found.contains("tokenizer.json: no such file: a language is added to it"), "{found}");
    let base = Transcriber::load(Bundle::open(&dir)?, &Device::Cpu)?;
    let bundle = Bundle::open(&dir)?.with_language("xx", "fa")?;
    let n_tokens = base.architecture().n_vocab();
    let written = tempfile::tempdir()?;
    // Written out and read again it is the same model.
    bundle.description().source().copy_description(written.path())?;
    let architecture = bundle.architecture().clone();
    ensure!(architecture.n_vocab() >= n_tokens);
    let params = Params::trainable(bundle.into_parts().1, &Device::Cpu);
    SpeechModel::load(&params, &architecture)?;
    let mut tensors: BTreeMap<String, Tensor> =
        params.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
    tensors.extend(params.buffers());
    write_weights(written.path(), &tensors, WeightDtype::F32)?;
    let new = Transcriber::load(Bundle::open(written.path())?, &Device::Cpu)?;
    let (id, like) = (new.special_tokens().language("xx")?, new.special_tokens().language("fa")?);
    ensure!(id as usize == architecture.n_vocab() - 1, "{id}");
    let embeddings = &tensors["model.decoder.embed_tokens.weight"];
    ensure!(bits(&embeddings.get(id as usize)?)? == bits(&embeddings.get(like as usize)?)?);
    // It is told as its relative is, hears the same, and is never written.
    ensure!(new.rules(true).suppress.contains(&id));
    let clip = audio::Waveform {
        samples: (0..16_000).map(|t| (t as f32 * 0.1).sin()).collect(),
        sample_rate: 16_000,
    };
    let text = |model: &Transcriber, language: &str| -> Result<String> {
        let options = DecodeOptions {
            language: Some(language.to_owned()),
            fallback: false,
            ..DecodeOptions::default()
        };
        Ok(model.transcribe(clip.clone(), &options, &mut |_| {})?.text)
    };
    ensure!(text(&new, "xx")? == text(&base, "fa")?);
    Ok(())
}

#[test]
fn a_new_language_is_taught_whatever_the_corpus_calls_it() -> Result<()> {
    let home = workplace()?;
    let path = home.path().join("corpus/metadata.csv");
    let table = fs::read_to_string(&path)?;
    let row = |(index, row): (usize, &str)| match index {
        0 => format!("{row},language\n"),
        // One that the model has a token for, and one that no model has.
        _ => format!("{row},{}\n", ["fa", "Pashto", ""][index % 3]),
    };
    fs::write(&path, table.lines().enumerate().map(row).collect::<String>())?;
    let (code, _, stderr) = finetune_for("xx", &home, &[]);
    ensure!(code != 0 && stderr.contains("no token for `xx`") && stderr.contains("--like"), "{stderr}");
    let (code, stdout, stderr) = finetune_for("xx", &home, &["--like", "fa"]);
    ensure!(code == 0 && stdout.contains("WER"), "{stderr}");
    ensure!(stderr.contains("20 cuts state another language (Pashto, fa)"), "{stderr}");
    let model = Transcriber::load(Bundle::open(&home.path().join("runs/finetune-xx/model"))?, &Device::Cpu)?;
    ensure!(model.special_tokens().language("xx")? as usize == model.architecture().n_vocab() - 1);
    Ok(())
}

#[test]
fn another_vocabulary_starts_as_the_old_one_spelled_it() -> Result<()> {
    let dir = fixture("whisper-80");
    let base = Transcriber::load(Bundle::open(&dir)?, &Device::Cpu)?;
    let texts = ["یو دوه درې", "one two three", "یو دوه"].map(|text| format!(" {text}"));
    let learn = |languages: &[&str], window_secs: f64| {
        let languages = languages.iter().map(|code| (*code).to_owned()).collect();
        NewVocabulary { n_text_tokens: 270, unit: TextUnit::Pieces, languages, window_secs }.learn(&texts)
    };
    let vocabulary = learn(&["ps", "fa"], 30.0)?;
    for (other, part) in [
        (learn(&[], 30.0)?, "names no language"),
        (learn(&["xx"], 30.0)?, "`xx`"),
        (learn(&["ps"], 8.0)?, "window"),
        ("{".to_owned(), "EOF"),
    ] {
        let refused = Bundle::open(&dir)?.with_vocabulary(&other).err().context("taken")?.to_string();
        ensure!(refused.contains(part), "{part}: {refused}");
    }
    let bundle = Bundle::open(&dir)?.with_vocabulary(&vocabulary)?;
    let written = tempfile::tempdir()?;
    bundle.description().source().copy_description(written.path())?;
    let tensors = bundle.weights().read_all(&Device::Cpu)?;
    write_weights(written.path(), &tensors, WeightDtype::F32)?;
    let new = Transcriber::load(Bundle::open(written.path())?, &Device::Cpu)?;
    ensure!(!written.path().join("vocab.json").exists());
    let end = new.special_tokens().end;
    ensure!((257..=270).contains(&end), "{end}");
    // Text, its end, its start, two languages, six controls, 1501 times.
    ensure!(new.architecture().n_vocab() == end as usize + 2 + 2 + 6 + 1501);

    let name = "model.decoder.embed_tokens.weight";
    let old = Bundle::open(&dir)?.weights().read_all(&Device::Cpu)?.remove(name).context("embeddings")?;
    let embeddings = &tensors[name];
    for control in
        ["endoftext", "startoftranscript", "ps", "fa", "transcribe", "notimestamps", "0.00", "30.00"]
    {
        let id = |model: &Transcriber| model.tokenizer().special(control).context(control);
        let (was, is) = (old.get(id(&base)? as usize)?, embeddings.get(id(&new)? as usize)?);
        ensure!(bits(&was)? == bits(&is)?, "{control}");
    }
    let mut n_longer = 0;
    for id in 256..end {
        let Ok(text) = String::from_utf8(new.tokenizer().token_bytes(id)) else { continue };
        let spelled = base.tokenizer().encode(&text)?;
        n_longer += usize::from(spelled.len() > 1);
        let spelled = Tensor::from_vec(spelled.clone(), spelled.len(), &Device::Cpu)?;
        let mean = old.index_select(&spelled, 0)?.mean(0)?;
        ensure!(difference(&mean, &embeddings.get(id as usize)?)? < 1e-6, "{text}");
    }
    ensure!(n_longer > 0);
    ensure!(new.tokenizer().encode(" دوه")?.len() < base.tokenizer().encode(" دوه")?.len());
    let clip = audio::Waveform { samples: vec![0.1; 16_000], sample_rate: 16_000 };
    let options = DecodeOptions { language: Some("ps".to_owned()), ..DecodeOptions::default() };
    new.transcribe(clip, &options, &mut |_| {})?;

    // Models of one language, and those whose times are not marked, can be given one, too.
    for (fixture_name, languages, window_secs) in
        [("whisper-en", &[][..], 10.0), ("whisper-128", &["ps"], 30.0)]
    {
        let bundle =
            Bundle::open(&fixture(fixture_name))?.with_vocabulary(&learn(languages, window_secs)?)?;
        let architecture = bundle.architecture().clone();
        let (tokenizer, _, special) = bundle.description().vocabulary()?;
        ensure!(
            special.is_multilingual != languages.is_empty() && tokenizer.n_tokens() == architecture.n_vocab()
        );
        let rows = bundle.weights().read_all(&Device::Cpu)?[name].dim(0)?;
        ensure!(rows == architecture.n_vocab(), "{rows}");
    }

    // Another library's list of the old tokens is left behind.
    fs::write(written.path().join("tokenizer.model"), "sentencepiece")?;
    let other = Bundle::open(written.path())?.with_vocabulary(&learn(&["ps"], 30.0)?)?;
    ensure!(!other.description().source().has("tokenizer.model"));

    // Its own vocabulary changes nothing.
    let again = Bundle::open(written.path())?.with_vocabulary(&vocabulary)?;
    ensure!(bits(&again.weights().read_all(&Device::Cpu)?[name])? == bits(embeddings)?);
    Ok(())
}

#[test]
fn a_vocabulary_of_ones_own_is_learnt_from_the_texts_and_trained() -> Result<()> {
    let home = workplace()?;
    let (code, _, stderr) = finetune(&home, &["--new-vocabulary", "270"]);
    ensure!(code == 0 && stderr.contains("tokens of runs/finetune-ps/vocabulary-270"), "{stderr}");
    // Beside what the base takes for them.
    ensure!(stderr.matches(" a word, ").count() == 2, "{stderr}");
    let model = home.path().join("runs/finetune-ps/model");
    let config: Value = serde_json::from_str(&fs::read_to_string(model.join("config.json"))?)?;
    ensure!(config["eos_token_id"].as_u64().is_some_and(|end| end <= 270), "{config}");
    let (code, _, stderr) = run(speechd(home.path())
        .args(["transcribe", "corpus/0.wav", "--language", "ps", "--model"])
        .arg(&model));
    ensure!(code == 0, "{stderr}");
    for (more, part) in [
        (&["--new-vocabulary", "270", "--strategy", "lora"][..], "never learn"),
        (&["--new-vocabulary", "270", "--set", "model.tokenizer=t"], "--new-vocabulary"),
        (&["--new-vocabulary", "200"], "256"),
        (&["--strategy", "multistage", "--new-vocabulary", "270", "--like", "fa"], "not beside model.like"),
    ] {
        let (code, _, stderr) = finetune(&home, more);
        ensure!(code != 0 && stderr.contains(part), "{more:?}: {stderr}");
    }
    Ok(())
}

#[test]
fn a_second_stage_begins_after_the_first_has_passed_and_a_stopped_run_goes_on() -> Result<()> {
    let home = workplace()?;
    let more = [
        "--strategy",
        "multistage",
        "--related-data",
        "corpus",
        "--related-lang",
        "fa",
        "--gate",
        "1000000",
        "--set",
        "strategy.stage.max_steps=1",
    ];
    let (code, _, stderr) = finetune(&home, &more);
    ensure!(code == 0 && stderr.contains("stage A passed"), "{stderr}");
    let out = home.path().join("runs/finetune-ps");
    let model = |path: &Path| -> Result<Vec<u8>> { Ok(fs::read(path.join("model/model.safetensors"))?) };
    let (first, second) = (model(&out.join("stage-a"))?, model(&out)?);
    let settings = fs::read_to_string(out.join("stage-a/run.json"))?;
    let settings: Value = serde_json::from_str(&settings)?;
    ensure!(settings["data"]["language"] == "fa", "{settings}");
    let manifest = settings["data"]["train"][0].as_str().context("a manifest")?;
    let manifest = fs::read_to_string(home.path().join(manifest))?;
    ensure!(manifest.lines().count() > 0);
    ensure!(manifest.lines().all(|row| row.contains("\"lang\":\"fa\"")), "{manifest}");
    ensure!(first != second);
    // The same command again trains nothing anew, and comes to the same.
    let (code, _, stderr) = finetune(&home, &more);
    ensure!(code == 0 && !stderr.contains("stage A: fa"), "{stderr}");
    ensure!(model(&out)? == second);
    // One update more: the first stage stays, the second goes on.
    let (code, _, stderr) = finetune(&home, &[&more[..], &["--set", "train.max_steps=3"]].concat());
    ensure!(code == 0 && stderr.contains("going on after update 2 of 3"), "{stderr}");
    ensure!(!stderr.contains("stage A: fa") && model(&out.join("stage-a"))? == first);
    Ok(())
}

#[test]
fn a_refused_gate_may_be_raised_without_training_the_first_stage_again() -> Result<()> {
    let home = workplace()?;
    let with = |more: &[&str]| {
        let staged = ["--strategy", "multistage", "--related-data", "corpus", "--related-lang", "fa"];
        finetune(&home, &[&staged[..], more].concat())
    };
    let (code, stdout, stderr) = with(&["--gate", "0.0001"]);
    ensure!(code == 1 && stderr.contains("stage A did not pass") && stdout.contains("--gate"), "{stderr}");
    let out = home.path().join("runs/finetune-ps");
    let model = || fs::read(out.join("stage-a/model/model.safetensors"));
    // Longer: it goes on.
    let (code, _, stderr) = with(&["--gate", "0.0001", "--set", "strategy.stage.max_steps=3"]);
    ensure!(code == 1 && stderr.contains("going on after update 2 of 3"), "{stderr}");
    let first = model()?;
    let (code, _, stderr) = with(&["--gate", "1000000", "--set", "strategy.stage.max_steps=3"]);
    ensure!(code == 0 && stderr.contains("stage A passed") && !stderr.contains("stage A: fa"), "{stderr}");
    ensure!(model()? == first && out.join("model/model.safetensors").is_file());
    Ok(())
}

#[test]
fn an_adapter_that_was_stopped_goes_on_to_the_bit_and_corpora_have_weights() -> Result<()> {
    let home = workplace()?;
    let last = |out: &str, settings: &[&str]| -> Result<Vec<u8>> {
        let more =
            [&["--strategy", "lora", "--out", out, "--set", "strategy.lora.rank=2"][..], settings].concat();
        let (code, _, stderr) = finetune(&home, &more);
        ensure!(code == 0, "{stderr}");
        ensure!(home.path().join(out).join("adapter/adapter_model.safetensors").is_file());
        let checkpoints = fs::read_dir(home.path().join(out).join("checkpoints"))?;
        let last = checkpoints.flatten().map(|entry| entry.path()).max().context("no checkpoint")?;
        Ok(fs::read(last.join("model.safetensors"))?)
    };
    let with = |steps: &'static str| [&CONSTANT_RATE[..], &["--set", steps]].concat();
    let whole = last("whole", &with("train.max_steps=4"))?;
    let half = last("halved", &with("train.max_steps=2"))?;
    ensure!(half != whole && last("halved", &with("train.max_steps=4"))? == whole);

    // Twice as often is twice as many batches.
    let batches = |data: &str| -> Result<String> {
        let base = fixture("whisper-80").display().to_string();
        let arguments =
            ["finetune", "--lang", "ps", "--model", &base, "--data", data, "--dry-run", "--variable-length"];
        let out = ["--out", data, "--set", "sampler.batch_secs=2"];
        let (code, stdout, stderr) = run(speechd(home.path()).args(arguments).args(out));
        ensure!(code == 0, "{stderr}");
        let line = stdout.lines().find(|line| line.starts_with("updates:")).context("updates")?;
        Ok(line.to_owned())
    };
    let count = |line: String| -> Result<usize> {
        Ok(line.split(", ").nth(1).context("batches")?.split(' ').next().context("a number")?.parse()?)
    };
    let (once, twice) = (count(batches("corpus")?)?, count(batches("corpus=2")?)?);
    ensure!((2 * once - 2..=2 * once + 2).contains(&twice), "{once} {twice}");
    Ok(())
}

#[test]
fn flags_that_say_nothing_are_refused_and_adapters_that_name_each_other_have_an_end() -> Result<()> {
    let home = workplace()?;
    for (more, part) in [
        (&["--gate", "0.5"][..], "multistage"),
        (&["--strategy", "full,full"], "twice"),
        (&["--like", "fa"], "not needed"),
        (&["--epochs", "0"], "--epochs"),
        (&["--set", "data.language=fa"], "--lang"),
        (&["--strategy", "multistage", "--related-data", "corpus"], "--related-lang"),
        (&["--strategy", "lora", "--set", "strategy.lora.targets=[\"q_prj\"]"], "q_prj"),
        (&["--strategy", "frozen-encoder", "--set", "strategy.frozen_layers=99"], "frozen_layers"),
    ] {
        let (code, _, stderr) = finetune(&home, more);
        ensure!(code == 2 && stderr.contains(part), "{more:?}: {stderr}");
        ensure!(!home.path().join("runs").exists(), "{more:?}: told after the data were imported");
    }
    let dir = home.path().join("adapter");
    fs::create_dir(&dir)?;
    let lora = Lora { rank: 1, alpha: 1.0, targets: vec!["q_proj".to_owned()] };
    let layer = "model.encoder.layers.0.self_attn.q_proj";
    let factor = |name: &str| -> Result<_> {
        Ok((format!("{layer}.{name}.weight"), Tensor::ones((1, 1), candle_core::DType::F32, &Device::Cpu)?))
    };
    let tensors = BTreeMap::from([factor("lora_A")?, factor("lora_B")?]);
    write_adapter(&dir, &lora, &dir.display().to_string(), &tensors, WeightDtype::F32)?;
    let (code, _, stderr) = run(speechd(home.path()).args(["models", "inspect", "adapter"]));
    ensure!(code == 1 && stderr.contains("an adapter itself"), "{stderr}");
    Ok(())
}

/// A rate that does not depend on how many updates there will be: runs of different lengths begin alike.
pub const CONSTANT_RATE: [&str; 6] = [
    "--set",
    "schedule.kind=constant",
    "--set",
    "schedule.warmup_share=0",
    "--set",
    "schedule.warmup_steps=1",
];

pub fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    let values = tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().map(f32::to_bits).collect())
}
