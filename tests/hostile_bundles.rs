//! Files of a bundle with bytes and values changed at random, from a fixed seed: a model or a typed error, never a
//! panic. The stable form of `models/fuzz`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use models::{
    Bundle, DecodeOptions, Error, SpeakOptions, Synthesizer, TextTranslator, Timestamps, Tokenizer,
    Transcriber, WeightDtype, Weights, import_nemo,
};
use serde_json::{Value, json};

use crate::bundles::copy;
use crate::support::fixture;

/// Numerical Recipes' generator: the corpus is the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Flips, cuts, repeats or inserts a few bytes.
fn mutate_bytes(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(5) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            2 if !bytes.is_empty() => bytes[at] = chance.next() as u8,
            3 => bytes.insert(at, b"\"{}[],:0-9e\\\0\xff"[chance.below(14)]),
            _ => {
                let end = (at + chance.below(40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

/// Replaces some value in the tree by one that a parser or a size check may not expect.
fn mutate_value(value: &mut Value, chance: &mut Chance) {
    let odd = [
        Value::Null,
        json!(0),
        json!(-1),
        json!(1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!(true),
        json!(""),
        json!("\u{0}"),
        json!("<|en|>"),
        json!([]),
        json!([[u64::MAX, 0]]),
        json!({}),
    ];
    let n = match &*value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    if n == 0 || chance.below(6) == 0 {
        *value = odd[chance.below(odd.len())].clone();
        return;
    }
    let at = chance.below(n);
    match value {
        Value::Array(items) if chance.below(8) == 0 => {
            let again = items[at].clone();
            items.insert(at, again);
        }
        Value::Array(items) => mutate_value(&mut items[at], chance),
        Value::Object(fields) => {
            let Some(key) = fields.keys().nth(at).cloned() else { return };
            if chance.below(8) == 0 {
                fields.remove(&key);
            } else {
                mutate_value(&mut fields[&key], chance);
            }
        }
        _ => {}
    }
}

/// An error that a loader may give: it names a file.
fn ensure_typed(error: &Error, case: &str) -> Result<()> {
    ensure!(matches!(error, Error::File { .. } | Error::Key { .. }), "{case}: {error}");
    Ok(())
}

fn open(dir: &Path) -> Result<Bundle, Error> {
    let bundle = Bundle::open(dir)?;
    bundle.description().languages()?;
    Ok(bundle)
}

/// Every other case with damaged bytes, the others with up to `most` changed values.
fn mutant(good: &[u8], tree: &Value, case: usize, most: usize, chance: &mut Chance) -> Result<Vec<u8>> {
    if case.is_multiple_of(2) {
        let mut bytes = good.to_vec();
        mutate_bytes(&mut bytes, chance);
        return Ok(bytes);
    }
    let mut tree = tree.clone();
    for _ in 0..1 + chance.below(most) {
        mutate_value(&mut tree, chance);
    }
    Ok(serde_json::to_vec(&tree)?)
}

#[test]
fn mutated_configurations_are_refused_or_read() -> Result<()> {
    for file in ["config.json", "generation_config.json", "preprocessor_config.json"] {
        let dir = copy()?;
        let path = dir.path().join(file);
        let good = std::fs::read(&path)?;
        let tree: Value = serde_json::from_slice(&good)?;
        let mut chance = Chance(17);
        let (mut n_read, mut n_refused) = (0, 0);
        for case in 0..60 {
            let bytes = mutant(&good, &tree, case, 2, &mut chance)?;
            std::fs::write(&path, &bytes)?;
            let case = format!("{file} {case}: {}", String::from_utf8_lossy(&bytes));
            match open(dir.path()).and_then(|bundle| Transcriber::load(bundle, &Device::Cpu)) {
                Ok(_) => n_read += 1,
                Err(error) => {
                    ensure_typed(&error, &case)?;
                    n_refused += 1;
                }
            }
        }
        ensure!(n_read > 0 && n_refused > 0, "{file}: {n_read} read, {n_refused} refused");
    }
    Ok(())
}

/// What can be loaded can be used, too.
#[test]
fn mutated_configurations_of_conformers_are_refused_or_read() -> Result<()> {
    let samples = (0..20_000).map(|t| (t as f32 * 0.05).sin() * 0.3).collect();
    let waveform = audio::Waveform { samples, sample_rate: 16_000 };
    for name in ["canary", "parakeet"] {
        let dir = tempfile::tempdir()?;
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            std::fs::copy(fixture(name).join(file), dir.path().join(file))?;
        }
        let path = dir.path().join("config.json");
        let good = std::fs::read(&path)?;
        let tree: Value = serde_json::from_slice(&good)?;
        let mut chance = Chance(5);
        let (mut n_read, mut n_refused) = (0, 0);
        for case in 0..300 {
            let bytes = mutant(&good, &tree, case, 2, &mut chance)?;
            std::fs::write(&path, &bytes)?;
            let case = format!("{name} {case}: {}", String::from_utf8_lossy(&bytes));
            match open(dir.path()).and_then(|bundle| Transcriber::load(bundle, &Device::Cpu)) {
                Ok(transcriber) => {
                    n_read += 1;
                    let options = DecodeOptions {
                        language: transcriber.languages().next().map(str::to_owned),
                        timestamps: Timestamps::Word,
                        max_new_tokens: Some(4),
                        fallback: false,
                        ..DecodeOptions::default()
                    };
                    let _ = transcriber.transcribe(waveform.clone(), &options, &mut |_| {});
                }
                Err(error) => {
                    ensure_typed(&error, &case)?;
                    n_refused += 1;
                }
            }
        }
        ensure!(n_read > 30 && n_refused > 30, "{name}: {n_read} read, {n_refused} refused");
    }
    Ok(())
}

/// What can be loaded can speak, or says why not.
#[test]
fn mutated_configurations_of_voices_are_refused_or_read() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for file in ["config.json", "model.safetensors", "voice-anna.flac", "voice-ben.flac"] {
        std::fs::copy(fixture("flow-lm").join(file), dir.path().join(file))?;
    }
    let path = dir.path().join("config.json");
    let good = std::fs::read(&path)?;
    let tree: Value = serde_json::from_slice(&good)?;
    let mut chance = Chance(11);
    let (mut n_read, mut n_refused) = (0, 0);
    for case in 0..300 {
        let bytes = mutant(&good, &tree, case, 2, &mut chance)?;
        std::fs::write(&path, &bytes)?;
        match Synthesizer::load(&dir.path().into(), &Device::Cpu) {
            Ok(synthesizer) => {
                n_read += 1;
                let voice = synthesizer.voices().first();
                let options = SpeakOptions { steps: Some(1), ..SpeakOptions::default() };
                let _ = voice.map(|voice| synthesizer.speak("ab", voice, &options));
            }
            Err(error) => {
                ensure_typed(&error, &format!("{case}: {}", String::from_utf8_lossy(&bytes)))?;
                n_refused += 1;
            }
        }
    }
    ensure!(n_read > 5 && n_refused > 30, "{n_read} read, {n_refused} refused");
    Ok(())
}

#[test]
fn mutated_weights_are_refused_or_read() -> Result<()> {
    let good = std::fs::read(fixture("whisper-80").join("model.safetensors"))?;
    let n_header = u64::from_le_bytes(good[..8].try_into()?) as usize;
    let (header, data) = (&good[8..8 + n_header], &good[8 + n_header..]);
    let tree: Value = serde_json::from_slice(header)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    let mut chance = Chance(23);
    for case in 0..400 {
        let bytes = match case % 3 {
            0 => {
                let mut head = good[..8 + n_header].to_vec();
                mutate_bytes(&mut head, &mut chance);
                [&head, data].concat()
            }
            1 => {
                let mut tree = tree.clone();
                mutate_value(&mut tree, &mut chance);
                let header = serde_json::to_vec(&tree)?;
                [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat()
            }
            _ => {
                let mut bytes = good.clone();
                mutate_bytes(&mut bytes, &mut chance);
                bytes
            }
        };
        std::fs::write(&path, &bytes)?;
        match Weights::open(dir.path()) {
            Err(error) => ensure_typed(&error, &case.to_string())?,
            Ok(weights) => {
                ensure!(weights.n_bytes() == bytes.len() as u64, "{case}: {} bytes", weights.n_bytes());
                for (name, shape, _) in weights.tensors() {
                    if let Err(error) = weights.read(name, shape, &Device::Cpu) {
                        ensure_typed(&error, &case.to_string())?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn mutated_tokenizers_are_refused_or_read() -> Result<()> {
    let text = std::fs::read_to_string(fixture("whisper-80").join("tokenizer.json"))?;
    let mut tree: Value = serde_json::from_str(&text)?;
    // Fewer times, so that mutations hit what matters.
    tree["added_tokens"].as_array_mut().context("added_tokens")?.truncate(20);
    let good = serde_json::to_vec(&tree)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("tokenizer.json");
    let mut chance = Chance(42);
    let (mut n_read, mut n_refused) = (0, 0);
    for case in 0..1500 {
        let bytes = mutant(&good, &tree, case, 3, &mut chance)?;
        std::fs::write(&path, &bytes)?;
        match Tokenizer::open(dir.path()) {
            Err(error) => {
                ensure_typed(&error, &case.to_string())?;
                n_refused += 1;
            }
            Ok(tokenizer) => {
                n_read += 1;
                if let Ok(ids) = tokenizer.encode(" hello, <|0.00|> دغه 我\n")
                    && let Ok(words) = tokenizer.split_words(&ids, Some("ps"))
                {
                    ensure!(words.iter().map(|(_, n)| n).sum::<usize>() == ids.len(), "{case}: {words:?}");
                }
                let _ = (tokenizer.decode(&[0, 1, 300, u32::MAX]), tokenizer.non_speech_tokens());
                tokenizer.language_tokens();
            }
        }
    }
    ensure!(n_read > 30 && n_refused > 30, "{n_read} read, {n_refused} refused");
    Ok(())
}

#[test]
fn mutated_models_of_sentencepiece_are_refused_or_read() -> Result<()> {
    for (name, seed) in [("unigram", 3), ("bpe", 5), ("char", 7)] {
        let path = fixture("sentencepiece").join(format!("{name}.model"));
        let good = std::fs::read(&path)?;
        let mut chance = Chance(seed);
        let (mut n_read, mut n_refused) = (0, 0);
        for case in 0..400 {
            let mut bytes = good.clone();
            mutate_bytes(&mut bytes, &mut chance);
            match Tokenizer::from_sentencepiece(&bytes, &path) {
                Err(error) => {
                    ensure_typed(&error, &format!("{name} {case}"))?;
                    n_refused += 1;
                }
                Ok(tokenizer) => {
                    n_read += 1;
                    if let Ok(ids) = tokenizer.encode(" hello, <s> \u{ff41} km دغه 我\n") {
                        let _ = (tokenizer.decode(&ids), tokenizer.split_words(&ids, Some("ps")));
                    }
                    let _ = (tokenizer.decode(&[0, 1, 300, u32::MAX]), tokenizer.non_speech_tokens());
                }
            }
        }
        ensure!(n_read > 10 && n_refused > 30, "{name}: {n_read} read, {n_refused} refused");
    }
    Ok(())
}

/// One that is compressed fails at its sum; what is in it is damaged in `models::nemo`'s own tests.
#[test]
fn mutated_archives_of_nemo_are_refused_or_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.nemo");
    let good = std::fs::read(fixture("nemo").join("ctc.nemo"))?;
    let mut chance = Chance(11);
    let (mut n_read, mut n_refused) = (0, 0);
    for case in 0..300 {
        // Headers, configuration and pickle come first, the zip's directory and the tokenizer last, numbers between them.
        let mut bytes = good.clone();
        let (start, end) = match chance.below(5) {
            0 | 1 => (0, 4_000),
            2 | 3 => (4_000, 16_000),
            _ => (good.len() - 40_000, good.len()),
        };
        let mut part = bytes[start..end].to_vec();
        mutate_bytes(&mut part, &mut chance);
        bytes.splice(start..end, part);
        std::fs::write(&path, &bytes)?;
        let dir = tempfile::tempdir()?;
        match import_nemo(&path, dir.path(), WeightDtype::F32) {
            Ok(()) => {
                n_read += 1;
                Transcriber::load(open(dir.path())?, &Device::Cpu)?;
            }
            Err(error) => {
                ensure_typed(&error, &case.to_string())?;
                n_refused += 1;
            }
        }
    }
    ensure!(n_read > 10 && n_refused > 30, "{n_read} read, {n_refused} refused");
    Ok(())
}

#[test]
fn mutated_translators_of_text_are_refused_or_translate() -> Result<()> {
    for (name, files) in [
        (
            "marian",
            &["config.json", "generation_config.json", "tokenizer_config.json", "vocab.json", "source.spm"][..],
        ),
        ("madlad", &["config.json", "generation_config.json", "tokenizer.json"]),
    ] {
        for file in files {
            let dir = tempfile::tempdir()?;
            for entry in std::fs::read_dir(fixture(&format!("text-translation/{name}")))? {
                let entry = entry?;
                std::fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
            }
            let path = dir.path().join(file);
            let good = std::fs::read(&path)?;
            let tree: Value = serde_json::from_slice(&good).unwrap_or_default();
            let mut chance = Chance(23);
            for case in 0..40 {
                // What is no JSON has bytes alone.
                let case = if tree.is_null() { 2 * case } else { case };
                let bytes = mutant(&good, &tree, case, 2, &mut chance)?;
                std::fs::write(&path, &bytes)?;
                let case = format!("{name}/{file} {case}: {}", String::from_utf8_lossy(&bytes));
                match TextTranslator::load(&dir.path().into(), &Device::Cpu) {
                    Err(error) => ensure_typed(&error, &case)?,
                    // Whatever it writes, or that it cannot.
                    Ok(translator) => {
                        drop(translator.translate("people of the earth", None, Some("ps"), &|| true));
                    }
                }
            }
        }
    }
    Ok(())
}
