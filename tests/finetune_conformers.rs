//! `speechd finetune` on top of Canary and of CTC models: what it does for Whispers it does for them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use models::{Bundle, DecodeOptions, TextUnit, Transcriber, WeightDtype, write_weights};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{run, speechd};
use crate::finetune::{CONSTANT_RATE, bits, finetune_from, workplace_of};
use crate::support::{difference, fixture, transcriber};

/// Names that the fixtures can spell and that CTC has time for in 0.4 seconds.
const WORDS: [&str; 3] = ["ab", "cd", "ef"];
/// A head over few tokens.
const HEAD: [u32; 4] = [18, 19, 20, 21];

fn json_of(path: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(path).with_context(|| path.display().to_string())?)?)
}

fn tensors(model: &Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors = candle_core::safetensors::load(model.join("model.safetensors"), &Device::Cpu)?;
    tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?))).collect()
}

/// Names of tensors that are others than in the base, or that it does not have.
fn changed(model: &Path, base: &Path) -> Result<Vec<String>> {
    let base = tensors(base)?;
    let mut changed = Vec::new();
    for (name, tensor) in tensors(model)? {
        let is_same = match base.get(&name) {
            Some(before) => bits(before)? == bits(&tensor)?,
            None => false,
        };
        if !is_same {
            changed.push(name);
        }
    }
    Ok(changed)
}

/// Writes a bundle out.
fn write(bundle: &Bundle, dir: &Path) -> Result<()> {
    bundle.description().source().copy_description(dir)?;
    Ok(write_weights(dir, &bundle.weights().read_all(&Device::Cpu)?, WeightDtype::F32)?)
}

/// The fixture of a Canary with a CTC head beside its decoder.
fn canary_with_head(dir: &Path) -> Result<()> {
    let (description, weights) = Bundle::open(&fixture("canary"))?.into_parts();
    let description = description.with_ctc_tokens(&HEAD)?;
    description.source().copy_description(dir)?;
    let mut tensors = weights.read_all(&Device::Cpu)?;
    let values = |n: usize| (0..n).map(|i| (i as f32 * 0.7).sin() * 0.1).collect::<Vec<_>>();
    let n = HEAD.len() + 1;
    tensors.insert("ctc_head.weight".to_owned(), Tensor::from_vec(values(n * 32), (n, 32), &Device::Cpu)?);
    tensors.insert("ctc_head.bias".to_owned(), Tensor::from_vec(values(n), n, &Device::Cpu)?);
    Ok(write_weights(dir, &tensors, WeightDtype::F32)?)
}

/// A tone that models of all kinds hear something in.
fn clip() -> audio::Waveform {
    let samples = (0..32_000).map(|t| (t as f32 * 0.05).sin() * 0.3).collect();
    audio::Waveform { samples, sample_rate: 16_000 }
}

fn heard(model: &Transcriber, language: Option<&str>) -> Result<String> {
    let options = DecodeOptions {
        language: language.map(str::to_owned),
        fallback: false,
        max_new_tokens: Some(12),
        ..DecodeOptions::default()
    };
    Ok(model.transcribe(clip(), &options, &mut |_| {})?.text)
}

#[test]
fn a_canary_is_trained_by_every_strategy_and_all_of_them_are_served() -> Result<()> {
    let (home, base) = (workplace_of(WORDS)?, fixture("canary"));
    let strategies = ["--strategy", "full,lora,frozen-encoder,multistage", "--gate", "1000000"];
    let related = ["--related-data", "corpus", "--related-lang", "de"];
    let small = ["--set", "strategy.frozen_layers=1", "--set", "strategy.lora.rank=2"];
    let (code, stdout, stderr) =
        finetune_from(&base, "ps", &home, &[&strategies[..], &related, &small].concat());
    ensure!(code == 0, "{stdout}{stderr}");
    let out = home.path().join("runs/finetune-ps");
    // The adapter's head is of use to its training alone.
    ensure!(stdout.contains("ps-strict: WER") && stdout.contains("TRAINED counts the head"), "{stdout}");
    for strategy in ["full", "lora", "frozen-encoder", "multistage"] {
        let model = out.join(strategy).join("model");
        let loaded = transcriber(&model)?;
        heard(&loaded, Some("ps"))?;
        // One that has learnt when each token is said keeps it.
        let (has_head, config) = (strategy != "lora", json_of(&model.join("config.json"))?);
        ensure!(loaded.model().ctc_head().is_some() == has_head, "{strategy}");
        ensure!(config["ctc_token_ids"].is_array() == has_head, "{strategy}: {config}");
    }
    let lora = changed(&out.join("lora/model"), &base)?;
    let is_adapted = |name: &String| name.ends_with("q_proj.weight") || name.ends_with("v_proj.weight");
    ensure!(lora.iter().all(is_adapted), "{lora:?}");
    for part in ["encoder.layers.1.self_attn", "decoder.layers.0.self_attn", "decoder.layers.1.encoder_attn"]
    {
        ensure!(lora.iter().any(|name| name.contains(part)), "{part}: {lora:?}");
    }
    let frozen = changed(&out.join("frozen-encoder/model"), &base)?;
    let is_frozen = |name: &String| name.contains("subsampling") || name.contains("encoder.layers.0.");
    ensure!(frozen.len() > 20 && !frozen.iter().any(is_frozen), "{frozen:?}");
    ensure!(frozen.iter().any(|name| name.contains("encoder.layers.1.conv.norm.running_mean")), "{frozen:?}");

    // The adapter beside its base, within it, and evaluated as any model.
    let (adapter, merged) = (out.join("lora/adapter"), home.path().join("merged"));
    let merge = ["models", "merge"];
    let (code, _, stderr) = run(speechd(home.path()).args(merge).arg(&adapter).arg("--out").arg(&merged));
    ensure!(code == 0, "{stderr}");
    let (merged, kept) = (tensors(&merged)?, tensors(&out.join("lora/model"))?);
    ensure!(merged.keys().eq(kept.keys()));
    for (name, tensor) in &merged {
        ensure!(difference(tensor, &kept[name])? < 1e-5, "{name}");
    }
    for model in [adapter, out.join("full/model")] {
        let manifest = out.join("data/corpus-ps/train.jsonl");
        let limits = ["--language", "ps", "--limit", "3", "--model"];
        let (code, stdout, stderr) =
            run(speechd(home.path()).arg("evaluate").arg(manifest).args(limits).arg(&model));
        ensure!(code == 0 && stdout.contains("WER"), "{stderr}");
    }
    Ok(())
}

#[test]
fn conformers_that_were_stopped_go_on_to_the_bit() -> Result<()> {
    let home = workplace_of(WORDS)?;
    for base in ["canary", "parakeet"] {
        let last = |out: &str, steps: &str| -> Result<Vec<u8>> {
            let out = format!("{base}-{out}");
            let more = [&CONSTANT_RATE[..], &["--out", &out, "--set", steps]].concat();
            let (code, _, stderr) = finetune_from(&fixture(base), "ps", &home, &more);
            ensure!(code == 0, "{base}: {stderr}");
            let checkpoints = fs::read_dir(home.path().join(out).join("checkpoints"))?;
            let last = checkpoints.flatten().map(|entry| entry.path()).max().context("no checkpoint")?;
            Ok(fs::read(last.join("model.safetensors"))?)
        };
        let whole = last("whole", "train.max_steps=4")?;
        let half = last("halved", "train.max_steps=2")?;
        ensure!(half != whole && last("halved", "train.max_steps=4")? == whole, "{base}");
    }
    Ok(())
}

#[test]
fn a_head_that_is_there_learns_more_tokens_and_is_left_alone_by_an_adapter() -> Result<()> {
    let home = workplace_of(WORDS)?;
    let base = home.path().join("base");
    fs::create_dir(&base)?;
    canary_with_head(&base)?;
    let known = tensors(&base)?;
    let [weight, bias] = ["ctc_head.weight", "ctc_head.bias"].map(|name| &known[name]);
    let rows = |tensor: &Tensor, ids: &[u32]| -> Result<Tensor> {
        Ok(tensor.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?)
    };
    // 18 to 21 are a space and the letters up to c; d is another one, and starts as all of them do.
    let more = Bundle::open(&base)?.with_ctc_tokens(&[18, 19, 20, 21, 22])?;
    ensure!(more.architecture().ctc_tokens() == [18, 19, 20, 21, 22]);
    let made = more.weights().read_all(&Device::Cpu)?;
    for (name, before) in [("ctc_head.weight", weight), ("ctc_head.bias", bias)] {
        ensure!(bits(&rows(&made[name], &[0, 1, 2, 3, 5])?)? == bits(&rows(before, &[0, 1, 2, 3, 4])?)?);
        let mean = rows(before, &[0, 1, 2, 3])?.mean(0)?;
        ensure!(difference(&made[name].get(4)?, &mean)? < 1e-6, "{name}");
    }
    let none = Bundle::open(&base)?.with_ctc_tokens(&[])?;
    ensure!(none.architecture().ctc_tokens().is_empty() && !none.weights().contains("ctc_head.weight"));

    // Trained, it knows all that the texts are written with.
    let (code, _, stderr) = finetune_from(&base, "ps", &home, &["--out", "full"]);
    ensure!(code == 0, "{stderr}");
    let full = home.path().join("full/model");
    let ids = json_of(&full.join("config.json"))?["ctc_token_ids"].clone();
    ensure!(ids == json!([18, 19, 20, 21, 22, 23, 24]), "{ids}");
    ensure!(tensors(&full)?["ctc_head.weight"].dims() == [8, 32]);
    // An adapter goes by a head that knows them, and leaves it as it is.
    let lora = ["--strategy", "lora", "--set", "strategy.lora.rank=2"];
    let on = |base: &Path, out: &str| -> Result<Vec<String>> {
        let (code, _, stderr) = finetune_from(base, "ps", &home, &[&lora[..], &["--out", out]].concat());
        ensure!(code == 0, "{stderr}");
        let adapter = run(speechd(home.path())
            .args(["transcribe", "corpus/0.wav", "--language", "ps", "--model"])
            .arg(home.path().join(out).join("adapter")));
        ensure!(adapter.0 == 0, "{}", adapter.2);
        changed(&home.path().join(out).join("model"), base)
    };
    let changed = on(&full, "knowing")?;
    ensure!(!changed.is_empty() && changed.iter().all(|name| name.contains("_proj.")), "{changed:?}");
    ensure!(transcriber(&home.path().join("knowing/model"))?.model().ctc_head().is_some());
    // One that does not know them would take them for silence: it goes.
    on(&base, "ignorant")?;
    ensure!(transcriber(&home.path().join("ignorant/model"))?.model().ctc_head().is_none());
    Ok(())
}

#[test]
fn a_language_more_is_a_canarys_last_token() -> Result<()> {
    let refused = |code: &str, like: &str| -> Result<String> {
        let refused = Bundle::open(&fixture("canary"))?.with_language(code, like).err();
        Ok(refused.map(|error| error.to_string()).unwrap_or_default())
    };
    for (code, like, part) in [
        ("ps", "de", "has a token"),
        ("xx", "fr", "`fr`"),
        ("pnc", "de", "no language"),
        ("pt-br", "de", "two or three letters"),
    ] {
        ensure!(refused(code, like)?.contains(part), "{code}: {}", refused(code, like)?);
    }
    let ctc = Bundle::open(&fixture("parakeet"))?.with_language("ps", "en").err().context("taken")?;
    ensure!(ctc.to_string().contains("names no languages"), "{ctc}");

    let folder = tempfile::tempdir()?;
    canary_with_head(folder.path())?;
    // A list of what is never written has the new token, too; rows that nobody used are taken first.
    let id = 67;
    let generation = json!({ "suppress_tokens": [0, 1, 2], "num_beams": 2 });
    fs::write(folder.path().join("generation_config.json"), generation.to_string())?;
    let base = transcriber(folder.path())?;
    let written = tempfile::tempdir()?;
    write(&Bundle::open(folder.path())?.with_language("xx", "de")?, written.path())?;
    let new = transcriber(written.path())?;
    ensure!(new.special_tokens().language("xx")? == id && new.architecture().n_vocab() == 68);
    ensure!(new.architecture().ctc_tokens() == HEAD);
    ensure!(new.rules(false).suppress.contains(&id));
    let config = json_of(&written.path().join("config.json"))?;
    ensure!((&config["vocab_size"], &config["decoder_config"]["vocab_size"]) == (&json!(68), &json!(68)));
    let tensors = tensors(written.path())?;
    for name in ["model.decoder.embed_tokens.weight", "proj_out.bias"] {
        let like = new.special_tokens().language("de")?;
        ensure!(
            bits(&tensors[name].get(id as usize)?)? == bits(&tensors[name].get(like as usize)?)?,
            "{name}"
        );
    }
    ensure!(heard(&new, Some("xx"))? == heard(&base, Some("de"))?);
    ensure!(heard(&new, Some("de"))? == heard(&base, Some("de"))?);

    let home = workplace_of(WORDS)?;
    let (code, _, stderr) = finetune_from(folder.path(), "xx", &home, &[]);
    ensure!(code != 0 && stderr.contains("no token for `xx`") && stderr.contains("--like"), "{stderr}");
    let (code, stdout, stderr) = finetune_from(folder.path(), "xx", &home, &["--like", "de"]);
    ensure!(code == 0 && stdout.contains("WER"), "{stderr}");
    let model = home.path().join("runs/finetune-xx/model");
    ensure!(transcriber(&model)?.special_tokens().language("xx")? == id);
    // It learns: the row is another one now.
    let trained = self::tensors(&model)?;
    let row =
        |tensors: &BTreeMap<String, Tensor>| bits(&tensors["model.decoder.embed_tokens.weight"].get(67)?);
    ensure!(row(&trained)? != row(&tensors)?);
    Ok(())
}

/// It has a token for the language, and said that it hears another one alone.
#[test]
fn what_a_canary_is_taught_it_says_that_it_hears() -> Result<()> {
    let home = workplace_of(WORDS)?;
    let base = home.path().join("german");
    fs::create_dir(&base)?;
    write(&Bundle::open(&fixture("canary"))?.with_source_languages(&["de"])?, &base)?;
    let (code, stdout, stderr) = finetune_from(&base, "ps", &home, &[]);
    ensure!(code == 0 && stdout.contains("WER"), "{stderr}");
    let model = home.path().join("runs/finetune-ps/model");
    ensure!(Bundle::open(&model)?.description().vocabulary()?.2.source_languages == ["de", "ps"]);
    Ok(())
}

/// The fixture of a CTC model as one of English.
fn english_ctc(home: &TempDir) -> Result<std::path::PathBuf> {
    let base = home.path().join("english");
    fs::create_dir(&base)?;
    write(&Bundle::open(&fixture("parakeet"))?.with_only_language("en")?, &base)?;
    Ok(base)
}

#[test]
fn a_ctc_model_becomes_one_of_the_language_that_it_is_taught() -> Result<()> {
    let home = workplace_of(WORDS)?;
    let base = english_ctc(&home)?;
    let (code, stdout, stderr) =
        finetune_from(&base, "ps", &home, &["--strategy", "full,lora,frozen-encoder"]);
    ensure!(code == 0 && stdout.contains("ps-strict: WER"), "{stdout}{stderr}");
    ensure!(!stdout.contains("TRAINED counts") && !stderr.contains("cannot be spelled"), "{stdout}{stderr}");
    let out = home.path().join("runs/finetune-ps");
    for strategy in ["full/model", "lora/model", "lora/adapter", "frozen-encoder/model"] {
        let transcribe = |language: &str| {
            let arguments = ["transcribe", "corpus/0.wav", "--language", language, "--model"];
            run(speechd(home.path()).args(arguments).arg(out.join(strategy)))
        };
        let (code, _, stderr) = transcribe("ps");
        ensure!(code == 0, "{strategy}: {stderr}");
        let (code, _, stderr) = transcribe("en");
        ensure!(code != 0 && stderr.contains("knows `ps` only"), "{strategy}: {stderr}");
    }
    // It reads by CTC alone, whatever the recipe has for others.
    let settings = json_of(&out.join("full/run.json"))?;
    ensure!(settings["loss"]["cross_entropy"]["weight"] == 0.0 && settings["loss"]["ctc"]["weight"] == 1.0);
    let lora = changed(&out.join("lora/model"), &base)?;
    ensure!(!lora.is_empty() && lora.iter().all(|name| name.contains("_proj.")), "{lora:?}");
    let frozen = changed(&out.join("frozen-encoder/model"), &base)?;
    ensure!(frozen.contains(&"ctc_head.weight".to_owned()), "{frozen:?}");

    for (more, part) in [
        (&["--like", "en"][..], "no tokens for languages"),
        (&["--strategy", "lora", "--set", "strategy.lora.targets=[\"out_proj\"]"], "it has q_proj, k_proj"),
        (&["--set", "sampler.memory_gb=4"], "sampler.batch_secs"),
        (&["--set", "model.variable_length=false"], "as long as they are"),
        (&["--set", "loss.ctc.weight=0"], "loss.cross_entropy.weight"),
    ] {
        let (code, _, stderr) = finetune_from(&base, "ps", &home, &[&["--out", "refused"], more].concat());
        ensure!(code != 0 && stderr.contains(part), "{more:?}: {stderr}");
    }
    Ok(())
}

#[test]
fn texts_that_a_model_cannot_spell_are_told_before_anything_is_trained() -> Result<()> {
    // One letter in six.
    let home = workplace_of(["ab", "cd", "eظ"])?;
    let (code, _, stderr) = finetune_from(&fixture("parakeet"), "ps", &home, &[]);
    ensure!(code == 0, "{stderr}");
    let told = stderr.lines().find(|line| line.contains("cannot be spelled with")).context(stderr.clone())?;
    for part in ["16.7 % of the characters", "ظ U+0638", "--new-vocabulary"] {
        ensure!(told.contains(part), "{part}: {told}");
    }
    // One knows two of the six letters.
    for (base, share) in [("parakeet", "100.0 %"), ("canary", "62.5 %")] {
        let home = workplace_of(["یو", "دوه", "درې"])?;
        let (code, _, stderr) = finetune_from(&fixture(base), "ps", &home, &["--dry-run"]);
        ensure!(code == 2 && stderr.contains(&format!("{share} of the characters")), "{base}: {stderr}");
        let more = ["--dry-run", "--new-vocabulary", "262"];
        let (code, stdout, stderr) = finetune_from(&fixture(base), "ps", &home, &more);
        ensure!(code == 0 && stdout.contains("updates: 2"), "{base}: {stderr}");
        ensure!(!stderr.contains("cannot be spelled"), "{base}: {stderr}");
    }
    Ok(())
}

#[test]
fn a_vocabulary_of_ones_own_starts_as_a_conformer_spelled_it() -> Result<()> {
    let texts = ["ab cab", "bad cab", "ظab cab"].map(|text| format!(" {text}"));
    let folder = tempfile::tempdir()?;
    canary_with_head(folder.path())?;
    for (dir, languages, name) in [
        (folder.path().to_owned(), vec!["ps".to_owned()], "model.decoder.embed_tokens.weight"),
        (fixture("parakeet"), vec!["ps".to_owned()], "ctc_head.weight"),
    ] {
        let base = transcriber(&dir)?;
        let description = Bundle::open(&dir)?.description().clone();
        let contents = description.learn_vocabulary(262, TextUnit::Pieces, &languages, &texts)?;
        let written = tempfile::tempdir()?;
        write(&Bundle::open(&dir)?.with_vocabulary(&contents)?, written.path())?;
        let new = transcriber(written.path())?;
        let (before, after) = (tensors(&dir)?, tensors(written.path())?);
        let row = |tensors: &BTreeMap<String, Tensor>, id: u32| -> Result<Tensor> {
            Ok(tensors[name].get(id as usize)?.flatten_all()?)
        };
        // A word that it has a token for, letter by letter; the space before it is a token of its own there.
        let [cab] = new.tokenizer().encode(" cab")?[..] else { anyhow::bail!("{name}: it has no ` cab`") };
        let spelled = ["▁", "c", "a", "b"].iter().map(|piece| {
            let vocabulary = json_of(&dir.join("tokenizer.json"))?["model"]["vocab"].clone();
            row(&before, vocabulary[*piece].as_u64().context("a letter")? as u32)
        });
        let mean = Tensor::stack(&spelled.collect::<Result<Vec<_>>>()?, 0)?.mean(0)?;
        ensure!(difference(&mean, &row(&after, cab)?)? < 1e-6, "{name}");
        // What it could not spell starts as the mean of all that it could.
        let unknown = *new.tokenizer().encode("ظ")?.first().context("bytes")?;
        let text = (0..base.architecture().n_vocab() as u32).filter(|id| base.special_tokens().is_text(*id));
        let rows = text.map(|id| row(&before, id)).collect::<Result<Vec<_>>>()?;
        ensure!(difference(&Tensor::stack(&rows, 0)?.mean(0)?, &row(&after, unknown)?)? < 1e-6, "{name}");
        // What stands for something keeps its row, and says the same.
        let (was, is) = (base.special_tokens(), new.special_tokens());
        let mut pairs = vec![(was.start, is.start), (was.end, is.end)];
        if was.is_multilingual {
            pairs.push((was.language("ps")?, is.language("ps")?));
            ensure!(is.languages.len() == 1 && is.opening().is_some());
        }
        for (was, is) in pairs {
            ensure!(bits(&row(&before, was)?)? == bits(&row(&after, is)?)?, "{name}: {was} and {is}");
        }
        heard(&new, Some("ps"))?;
        ensure!(new.tokenizer().n_tokens() == new.architecture().n_vocab());
        // Its own changes nothing, and one of a Whisper is refused.
        let again = Bundle::open(written.path())?.with_vocabulary(&contents)?;
        ensure!(bits(&again.weights().read_all(&Device::Cpu)?[name])? == bits(&after[name])?);
        let whisper = models::NewVocabulary {
            n_text_tokens: 262,
            unit: TextUnit::Pieces,
            languages: languages.clone(),
            window_secs: 30.0,
        };
        let refused = Bundle::open(&dir)?.with_vocabulary(&whisper.learn(&texts)?).err().context("taken")?;
        ensure!(refused.to_string().contains("--new-vocabulary"), "{refused}");
    }

    // The head beside a decoder: by those of the tokens that it knew.
    let contents = Bundle::open(folder.path())?.description().learn_vocabulary(
        262,
        TextUnit::Pieces,
        &["ps".to_owned()],
        &texts,
    )?;
    let new = Bundle::open(folder.path())?.with_vocabulary(&contents)?;
    let (ids, made) = (new.architecture().ctc_tokens().to_vec(), new.weights().read_all(&Device::Cpu)?);
    let before = tensors(folder.path())?;
    let tokenizer = models::Tokenizer::from_text(&contents)?;
    let n_text = ids.len() as u32;
    ensure!(ids.iter().copied().eq(0..n_text) && made["ctc_head.bias"].dims() == [ids.len() + 1]);
    let [cab] = tokenizer.encode(" cab")?[..] else { anyhow::bail!("no ` cab`") };
    let mean = before["ctc_head.weight"].narrow(0, 0, 4)?.mean(0)?;
    ensure!(difference(&made["ctc_head.weight"].get(cab as usize)?, &mean)? < 1e-6);
    let blank = |tensors: &BTreeMap<String, Tensor>, at: usize| bits(&tensors["ctc_head.weight"].get(at)?);
    ensure!(blank(&made, ids.len())? == blank(&before, HEAD.len())?);
    Ok(())
}

#[test]
fn a_vocabulary_of_ones_own_is_learnt_and_trained_on_top_of_conformers() -> Result<()> {
    let home = workplace_of(["یو", "دوه", "درې"])?;
    let english = english_ctc(&home)?;
    for (base, unit) in [(fixture("canary"), "pieces"), (english, "characters")] {
        let out = format!("own-{unit}");
        let unit = format!("model.text_unit={unit}");
        let more = ["--new-vocabulary", "300", "--out", &out, "--set", &unit, "--set", "join.max_cuts=2"];
        let (code, _, stderr) = finetune_from(&base, "ps", &home, &more);
        ensure!(code == 0 && stderr.contains("vocabulary-300"), "{stderr}");
        let model = home.path().join(&out).join("model");
        let new = transcriber(&model)?;
        ensure!(new.tokenizer().decode(&new.tokenizer().encode(" دوه")?)?.trim() == "دوه");
        // Whole, or three letters and a space.
        let (n, expected) =
            (new.tokenizer().encode(" دوه")?.len(), if base == fixture("canary") { 1 } else { 4 });
        ensure!(n == expected, "{out}: {n}");
        // Multistage learns it of both languages' texts; an adapter cannot.
        let (code, _, stderr) =
            finetune_from(&base, "ps", &home, &[&more[..2], &["--strategy", "lora"]].concat());
        ensure!(code == 2 && stderr.contains("never learn"), "{stderr}");
        let arguments = ["transcribe", "corpus/0.wav", "--language", "ps", "--model"];
        let (code, _, stderr) = run(speechd(home.path()).args(arguments).arg(&model));
        ensure!(code == 0, "{stderr}");
    }
    Ok(())
}

/// What cannot learn a few utterances by heart learns nothing of many. They are what it is judged by, too.
#[test]
fn an_adapter_and_letters_that_a_model_never_wrote_are_learnt_by_heart() -> Result<()> {
    let latin = ["--strategy", "lora", "--set", "sampler.n_duration_buckets=1"];
    let pashto = ["--new-vocabulary", "262", "--set", "sampler.n_duration_buckets=3"];
    for (base, words, n_steps, rate, more) in
        [("canary", WORDS, 60, "1e-2", latin), ("parakeet", ["یو", "دوه", "درې"], 260, "5e-3", pashto)]
    {
        let home = workplace_of(words)?;
        let mut manifest = String::new();
        for index in 0..9 {
            // Their features are without what does not change.
            let mut phase = 0.0;
            let samples = (0..9_600).map(|t| {
                let at = t as f32 / 9_600.0;
                let pitch = [0.1 + 0.5 * at, 0.6 - 0.5 * at, [0.2, 0.9][(t / 1_600) % 2]][index % 3];
                phase += pitch * (1.0 + 0.01 * index as f32);
                phase.sin() * 0.4
            });
            let waveform = audio::Waveform { samples: samples.collect(), sample_rate: 16_000 };
            let name = format!("corpus/{index}.wav");
            fs::write(home.path().join(&name), audio::encode::wav_bytes(&waveform)?)?;
            let text = words[index % 3];
            manifest +=
                &format!("{{\"audio_filepath\": \"{name}\", \"text\": \"{text}\", \"duration\": 0.6}}\n");
        }
        fs::write(home.path().join("nine.jsonl"), manifest)?;
        let settings = [
            "data.train=[\"nine.jsonl\"]",
            "data.dev=[\"nine.jsonl\"]",
            &format!("train.max_steps={n_steps}"),
            "train.evaluate_every=0",
            "train.save_every=0",
            "join.max_cuts=1",
            &format!("optimizer.learning_rate={rate}"),
        ];
        let settings: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let more = [&settings[..], &more, &["--no-augment"]].concat();
        let (code, stdout, stderr) = finetune_from(&fixture(base), "ps", &home, &more);
        ensure!(code == 0 && stdout.contains("ps-strict: WER 0.0 %, CER 0.0 %"), "{base}: {stdout}{stderr}");
    }
    Ok(())
}
