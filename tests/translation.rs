//! Speech translation in three stages as a user runs them: texts to texts, speech beside texts, speech to texts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::{Bundle, Part, TextTranslator};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{home, run, speechd};
use crate::support::fixture;
use crate::training::figures;

const WORDS: [(&str, &str); 4] = [("one", "یو"), ("two", "دوه"), ("red", "سور"), ("cat", "پیشو")];

/// Tones that are called by their pitch in one language and in another one, and recipes of the three stages and of one that is enough.
fn workplace(architecture: &str) -> Result<TempDir> {
    let home = home();
    let mut manifest = String::new();
    for index in 0..24 {
        let (word, translation) = WORDS[index % WORDS.len()];
        let pitch = 0.05 * (1 + index % WORDS.len()) as f32;
        let samples = (0..8_000 + 400 * (index % 5)).map(|t| (t as f32 * pitch).sin() * 0.5).collect();
        let waveform = audio::Waveform { samples, sample_rate: 16_000 };
        let name = format!("{index}.wav");
        fs::write(home.path().join(&name), audio::encode::wav_bytes(&waveform)?)?;
        let row = json!({
            "id": index.to_string(), "audio_filepath": name, "duration": waveform.duration_secs(), "text": word,
            "answer": translation, "source_lang": "en", "target_lang": "ps",
            "phonemes": word.chars().map(String::from).collect::<Vec<_>>().join(" "),
        });
        manifest += &format!("{row}\n");
    }
    fs::write(home.path().join("tones.jsonl"), manifest)?;
    let model = format!(
        "architecture = \"{architecture}\"\nd_model = 16\nn_heads = 2\nencoder_layers = 1\ndecoder_layers = 1\n\
         subsampling = 4\nconv_channels = 8\nconv_kernel = 5\nwindow_secs = 2.0\nmax_target_positions = 32\n\
         n_text_tokens = 270\nlanguages = [\"en\", \"ps\"]\n"
    );
    let rest = |max_steps: u64| {
        format!(
            "[data]\ntrain = [\"tones.jsonl\"]\ndev = [\"tones.jsonl\"]\n\
             [sampler]\nbatch_secs = 2.0\nbatch_tokens = 100\nn_duration_buckets = 1\nn_token_buckets = 0\n\
             [target]\ntimestamps = 0.0\n\
             [optimizer]\nlearning_rate = 5e-3\n[schedule]\nkind = \"constant\"\nwarmup_steps = 2\n\
             [train]\ndevice = \"cpu\"\nmax_steps = {max_steps}\nevaluate_every = 4\nsave_every = 2\nbest_by = \"loss\"\n\
             [evaluate]\nmax_utterances = 8\n"
        )
    };
    let texts = format!("task = \"translate_text\"\n[model]\n{model}{}", rest(12));
    fs::write(home.path().join("mt.toml"), texts)?;
    let both = format!(
        "loss = {{ cross_entropy.weight = 0.0, ctc.weight = 1.0, optimal_transport.weight = 0.1 }}\n\
         [model]\nbase = \"mt/model\"\n{}",
        rest(8)
    );
    fs::write(home.path().join("siamese.toml"), both)?;
    let speech = format!(
        "[model]\nbase = \"siamese/model\"\ntext_encoder_layers = 0\n[model.parts]\ndecoder = \"mt/model\"\n{}",
        rest(4).replace("[data]\n", "[data]\ntranslations = \"only\"\n")
    );
    fs::write(home.path().join("st.toml"), speech)?;
    let alone = rest(4).replace("[data]\n", "[data]\ntranslations = \"only\"\n");
    fs::write(home.path().join("alone.toml"), format!("[model]\n{model}{alone}"))?;
    Ok(home)
}

fn train(home: &TempDir, recipe: &str, out: &str, settings: &[&str]) -> (i32, String, String) {
    let mut command = speechd(home.path());
    command.args(["train", recipe, "--out", out]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    run(&mut command)
}

fn trained(home: &TempDir, recipe: &str, out: &str, settings: &[&str]) -> Result<()> {
    let (code, _, stderr) = train(home, recipe, out, settings);
    ensure!(code == 0, "{recipe}: {stderr}");
    Ok(())
}

fn tensors(model: &Path) -> Result<BTreeMap<String, Vec<f32>>> {
    let bundle = Bundle::open(model)?;
    let values = |tensor: Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let all = bundle.weights().read_all(&Device::Cpu)?.into_iter();
    all.map(|(name, tensor)| Ok((name, values(tensor)?))).collect()
}

fn below<'a>(tensors: &'a BTreeMap<String, Vec<f32>>, prefix: &str) -> BTreeMap<&'a str, &'a Vec<f32>> {
    let found = tensors.iter().filter(|(name, _)| name.starts_with(prefix));
    found.map(|(name, values)| (name.as_str(), values)).collect()
}

#[test]
fn three_stages_hand_their_parts_on_to_a_model_that_translates_speech() -> Result<()> {
    for architecture in ["canary", "whisper"] {
        let home = workplace(architecture)?;
        let at = |name: &str| home.path().join(name);
        trained(&home, "mt.toml", "mt", &[])?;
        let texts = figures(&at("mt"));
        for name in ["dev/bleu", "dev/chrf", "dev/ter", "dev/cross_entropy", "train/cross_entropy"] {
            ensure!(texts.contains_key(&(12, name.to_owned())), "{architecture}: no {name} in {texts:?}");
        }
        // It reads and writes, and has no ears.
        let (code, _, stderr) =
            run(speechd(home.path()).args(["transcribe", "0.wav", "--model", "mt/model"]));
        ensure!(code != 0 && stderr.contains("has not learnt to hear"), "{stderr}");

        // What it writes stands behind a recogniser as any other translator of text does.
        let translator = TextTranslator::load(&at("mt/model").as_path().into(), &Device::Cpu)?;
        ensure!(translator.languages() == ["ps"] && translator.check(None).is_ok());
        ensure!(translator.check(Some("en")).is_err());
        let translate = |text: &str| translator.translate(text, Some("en"), Some("ps"), &|| true);
        let apart = [translate("one two.")?, translate("red cat.")?].map(|text| text.trim().to_owned());
        ensure!(translate("one two. red cat.")? == apart.join(" ").trim(), "{apart:?}");
        ensure!(translate(&"red ".repeat(200)).is_ok() && translate(" ")?.is_empty());
        ensure!(translator.translate("one", None, None, &|| true)? == translate("one")?, "{architecture}");
        // What a recogniser took for another language is read all the same.
        ensure!(translator.translate("one", Some("cy"), None, &|| true)? == translate("one")?);
        let cancelled = translator.translate("one", None, None, &|| false);
        ensure!(matches!(cancelled, Err(models::Error::Cancelled)));
        let write = |arguments: &[&str]| -> Result<Value> {
            let quick = ["--language", "en", "--no-fallback", "--vad", "off", "--max-new-tokens", "12"];
            let mut command = speechd(home.path());
            command.args(arguments).args(quick).args(["--format", "verbose_json", "0.wav", "--model"]);
            // Tones are taken for silence.
            command.env("SPEECHD_TRANSCRIBE__NO_SPEECH_THRESHOLD", "off");
            let (code, stdout, stderr) = run(command.arg(fixture("whisper-80")));
            ensure!(code == 0, "{stderr}");
            Ok(serde_json::from_str(&stdout)?)
        };
        let heard = write(&["transcribe"])?;
        let translated = write(&["translate", "--cascade", "mt/model", "--to", "ps"])?;
        let texts = |json: &Value| -> Vec<String> {
            let segments = json["segments"].as_array().into_iter().flatten();
            segments.map(|segment| segment["text"].as_str().unwrap_or_default().trim().to_owned()).collect()
        };
        ensure!(
            !texts(&heard).concat().is_empty() && translated["cascade"] == "model",
            "{heard}{translated}"
        );
        for (heard, translated) in texts(&heard).iter().zip(texts(&translated)) {
            ensure!(translate(heard)?.trim() == translated, "{heard}: {translated}");
        }

        trained(&home, "siamese.toml", "siamese", &[])?;
        let beside = figures(&at("siamese"));
        for name in [
            "dev/speech_text_distance",
            "dev/speech_spread",
            "dev/wer",
            "train/optimal_transport",
            "train/ctc",
        ] {
            ensure!(beside.contains_key(&(8, name.to_owned())), "{architecture}: no {name} in {beside:?}");
        }
        let (mt, siamese) = (tensors(&at("mt/model"))?, tensors(&at("siamese/model"))?);
        // The decoder, which nothing taught, is the one that it was; the encoder of texts moved.
        ensure!(below(&mt, "model.decoder") == below(&siamese, "model.decoder"), "{architecture}");
        ensure!(below(&mt, "text_encoder") != below(&siamese, "text_encoder"), "{architecture}");

        trained(&home, "st.toml", "st", &[])?;
        let bundle = Bundle::open(&at("st/model"))?;
        ensure!(bundle.description().text_encoder().is_none() && !bundle.has_part(Part::TextEncoder));
        ensure!(figures(&at("st")).contains_key(&(4, "dev/bleu".to_owned())));
        let st = tensors(&at("st/model"))?;
        ensure!(!st.keys().any(|name| name.starts_with("ctc_head")), "{:?}", st.keys());
        // Of the languages that it has tokens for it has heard one, which nobody has to name.
        let special = bundle.description().vocabulary()?.2;
        ensure!(special.source_languages == ["en"] && special.translation_languages == ["ps"]);
        let arguments = ["translate", "0.wav", "--model", "st/model", "--to", "ps"];
        let (code, _, stderr) = run(speechd(home.path()).args(arguments));
        ensure!(code == 0, "{architecture}: {stderr}");
        // What says that it translates into nothing is no translator.
        let mut generation: Value =
            serde_json::from_str(&fs::read_to_string(at("mt/model/generation_config.json"))?)?;
        generation["translation_languages"] = json!([]);
        fs::write(at("mt/model/generation_config.json"), generation.to_string())?;
        let refused = TextTranslator::load(&at("mt/model").as_path().into(), &Device::Cpu);
        ensure!(refused.is_err_and(|error| error.to_string().contains("has not learnt to translate")));
        let (code, _, stderr) = run(speechd(home.path()).args(arguments).args(["--language", "ps"]));
        ensure!(code == 2 && stderr.contains("language: `ps` is not among the model's: en"), "{stderr}");
    }
    Ok(())
}

#[test]
fn translations_are_told_by_three_scores_with_intervals_and_signatures() -> Result<()> {
    let home = workplace("canary")?;
    trained(&home, "alone.toml", "alone", &[])?;
    ensure!(figures(&home.path().join("alone")).contains_key(&(4, "dev/ter".to_owned())));
    let evaluate = |manifest: &str, more: &[&str]| {
        run(speechd(home.path())
            .args(["evaluate", manifest, "--model", "alone/model", "--limit", "4"])
            .args(more))
    };
    let (code, stdout, stderr) = evaluate("tones.jsonl", &["--task", "translate", "--hypotheses", "ps.tsv"]);
    ensure!(code == 0, "{stderr}");
    for (name, signature) in [
        ("BLEU", "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"),
        ("chrF", "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no"),
        ("TER", "nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no"),
    ] {
        let is_told =
            |line: &str| line.starts_with(name) && line.contains(" to ") && line.ends_with(signature);
        ensure!(stdout.lines().filter(|line| is_told(line)).count() == 1, "{name}: {stdout}");
    }
    // Words are those of the language that is written, by whichever name the task goes.
    let reports = |arguments: &[&str], manifest: &str| -> Result<Value> {
        let (code, stdout, stderr) = evaluate(manifest, &[arguments, &["--json"]].concat());
        ensure!(code == 0, "{stderr}");
        Ok(serde_json::from_str::<Value>(&stdout)?["reports"].clone())
    };
    let told = reports(&["--task", "translate"], "tones.jsonl")?;
    ensure!(told[0]["normaliser"] == "ps-strict" && told[1]["normaliser"] == "ps-lenient", "{told}");
    for score in ["bleu", "chrf", "ter"] {
        let Value::Object(score) = &told[0][score] else { anyhow::bail!("no {score}: {told}") };
        ensure!(score["score"].is_f64() && score["interval"]["low"].is_f64(), "{score:?}");
        ensure!(score["signature"].as_str().is_some_and(|signature| signature.starts_with("nrefs:1|")));
    }
    ensure!(reports(&["--translation"], "tones.jsonl")? == told);
    // Rows that do not say which language their text is in are translated into the one that is named.
    let rows = fs::read_to_string(home.path().join("tones.jsonl"))?;
    let plain = rows.lines().map(|row| -> Result<String> {
        let mut row: Value = serde_json::from_str(row)?;
        let fields = row.as_object_mut().context("a row")?;
        let translation = fields.remove("answer").context("a translation")?;
        fields.remove("target_lang");
        fields.insert("text".to_owned(), translation);
        Ok(format!("{row}\n"))
    });
    fs::write(home.path().join("plain.jsonl"), plain.collect::<Result<String>>()?)?;
    ensure!(reports(&["--task", "translate", "--to", "Pashto"], "plain.jsonl")? == told);

    for (arguments, part) in [
        (&["--to", "ps"][..], "--task translate"),
        (&["--task", "translate", "--to", "klingon"], "pashto"),
        (&["--task", "translate", "--translation"], "--translation"),
    ] {
        let (code, _, stderr) = evaluate("tones.jsonl", arguments);
        ensure!(code == 2 && stderr.contains(part), "{arguments:?}: {stderr}");
    }
    let arguments = ["evaluate", "tones.jsonl", "--model", "alone/model", "--task", "translate"];
    let (code, _, stderr) =
        run(speechd(home.path()).args(arguments).args(["--precision", "f32,int8", "--record"]));
    ensure!(code == 2 && stderr.contains("--record"), "{stderr}");
    Ok(())
}

#[test]
fn a_stage_that_was_stopped_goes_on_to_the_bit() -> Result<()> {
    let home = workplace("canary")?;
    let at = |name: &str| home.path().join(name);
    for (recipe, n_steps) in [("mt.toml", 12), ("siamese.toml", 8)] {
        let name = recipe.trim_end_matches(".toml");
        trained(&home, recipe, name, &[])?;
        let stopped = format!("{name}-stopped");
        trained(&home, recipe, &stopped, &[&format!("train.max_steps={}", n_steps / 2)])?;
        trained(&home, recipe, &stopped, &[])?;
        ensure!(tensors(&at(name).join("model"))? == tensors(&at(&stopped).join("model"))?, "{recipe}");
    }
    Ok(())
}

#[test]
fn arms_differ_by_one_setting_and_all_tell_how_far_speech_is_from_text() -> Result<()> {
    let home = workplace("canary")?;
    trained(&home, "mt.toml", "mt", &["train.max_steps=2"])?;
    for (arm, weights) in
        [("ce", [1, 0, 0]), ("ctc", [0, 1, 0]), ("ctc-ce", [1, 1, 0]), ("ot-frozen", [0, 1, 1])]
    {
        let [ce, ctc, ot] = weights;
        let loss = format!(
            "loss={{ cross_entropy.weight = {ce}.0, ctc.weight = {ctc}.0, optimal_transport.weight = {ot}.0, \
             optimal_transport.freeze_text = true }}"
        );
        trained(&home, "siamese.toml", arm, &[&loss, "train.max_steps=2"])?;
        let out = home.path().join(arm);
        let told = figures(&out);
        ensure!(told.contains_key(&(2, "dev/speech_text_distance".to_owned())), "{arm}: {told:?}");
        ensure!(told.contains_key(&(2, "dev/ctc".to_owned())) == (ctc > 0), "{arm}: {told:?}");
        // What only measures, or is frozen, stays as it is.
        let (before, after) = (tensors(&home.path().join("mt/model"))?, tensors(&out.join("model"))?);
        ensure!(below(&before, "text_encoder") == below(&after, "text_encoder"), "{arm}");
    }
    Ok(())
}

#[test]
fn phonemes_are_what_encoders_are_held_against_where_a_recipe_says_so() -> Result<()> {
    let home = workplace("canary")?;
    trained(&home, "mt.toml", "mt", &["target.unit=phonemes", "train.max_steps=4"])?;
    let config: Value = serde_json::from_str(&fs::read_to_string(home.path().join("mt/model/config.json"))?)?;
    let phonemes = config["text_encoder_config"]["phonemes"].as_array().context("no phonemes")?;
    ensure!(phonemes.iter().any(|phoneme| phoneme == "t") && !phonemes.iter().any(|phoneme| phoneme == "q"));
    // A cascade has no phonemes for it.
    let behind = TextTranslator::load(&home.path().join("mt/model").as_path().into(), &Device::Cpu);
    ensure!(behind.is_err_and(|error| error.to_string().contains("reads phonemes")));
    let words = ["target.unit=phonemes", "train.best_by=wer"];
    let (code, _, stderr) = train(&home, "siamese.toml", "words", &words);
    ensure!(code == 2 && stderr.contains("`wer` is none of loss, per"), "{stderr}");
    trained(&home, "siamese.toml", "siamese", &["target.unit=phonemes", "train.best_by=per"])?;
    let told = figures(&home.path().join("siamese"));
    ensure!(told.contains_key(&(8, "dev/per".to_owned())), "{told:?}");
    trained(&home, "st.toml", "st", &[])?;
    let (code, _, stderr) = train(&home, "siamese.toml", "other", &[]);
    ensure!(code != 0 && stderr.contains("target.unit"), "{stderr}");
    Ok(())
}

/// Of a window that is always full, the silence is held against no text.
#[test]
fn models_of_full_windows_learn_beside_texts_too() -> Result<()> {
    let home = workplace("whisper")?;
    trained(&home, "mt.toml", "mt", &["train.max_steps=2"])?;
    trained(&home, "siamese.toml", "padded", &["train.max_steps=2", "model.variable_length=false"])?;
    let told = figures(&home.path().join("padded"));
    let distance = told.get(&(2, "dev/speech_text_distance".to_owned())).context("no distance")?;
    ensure!(distance.is_finite() && *distance > 0.0, "{told:?}");
    Ok(())
}

/// What a base heard by is no part of what texts teach, and that is said.
#[test]
fn a_model_that_hears_and_goes_on_with_texts_is_told_that_it_forgets() -> Result<()> {
    let home = workplace("canary")?;
    trained(&home, "mt.toml", "mt", &["train.max_steps=2"])?;
    trained(&home, "siamese.toml", "siamese", &["train.max_steps=2"])?;
    let (code, _, stderr) =
        train(&home, "mt.toml", "again", &["train.max_steps=2", "model.base=siamese/model"]);
    ensure!(code == 0 && stderr.contains("the base's encoder of speech is left out"), "{stderr}");
    ensure!(!Bundle::open(&home.path().join("again/model"))?.has_part(Part::Encoder));
    Ok(())
}

#[test]
fn parts_that_do_not_fit_are_named() -> Result<()> {
    let home = workplace("canary")?;
    trained(&home, "mt.toml", "mt", &["train.max_steps=2"])?;
    trained(&home, "mt.toml", "wider", &["train.max_steps=2", "model.d_model=24"])?;
    trained(&home, "mt.toml", "other", &["train.max_steps=2", "model.n_text_tokens=262"])?;
    for (setting, part) in [
        ("model.parts.decoder=wider/model", "wider/model/config.json"),
        ("model.parts.decoder=other/model", "other/model/"),
        ("model.parts.text_encoder=other/model", "tokenizer.json"),
        ("model.parts.encoder=mt/model", "without a part `encoder`"),
        ("model.text_encoder_layers=7", "model.text_encoder_layers"),
        ("model.text_encoder_layers=0", "loss.optimal_transport.weight"),
        ("strategy.kind=lora", "loss.optimal_transport.weight"),
        ("strategy={ kind = \"frozen-encoder\", frozen_layers = 1 }", "no encoder of speech yet"),
        ("train.best_by=bleu", "train.best_by"),
    ] {
        let (code, _, stderr) = train(&home, "siamese.toml", "refused", &[setting]);
        ensure!(code != 0 && stderr.contains(part), "{setting}: {stderr}");
    }
    for (recipe, setting, part) in [
        ("mt.toml", "model.parts.decoder=mt/model", "model.parts"),
        ("mt.toml", "loss.ctc.weight=1.0", "loss.ctc.weight"),
        ("mt.toml", "data.translations=only", "data.translations"),
        // Before anything is trained.
        ("siamese.toml", "train.best_by=per", "train.best_by"),
    ] {
        let (code, _, stderr) = train(&home, recipe, "refused", &[setting]);
        ensure!(code != 0 && stderr.contains(part), "{setting}: {stderr}");
    }
    Ok(())
}
