use std::cell::Cell;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::generation::Generation;
use super::sentences::parts;
use super::*;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn fixture(name: &str) -> BundleSource {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/text-translation");
    Path::new(dir).join(name).as_path().into()
}

fn open(name: &str) -> Result<TextTranslator, Error> {
    TextTranslator::load(&fixture(name), &Device::Cpu)
}

/// The same with what only these have.
fn transformers(name: &str) -> Result<Transformers, Error> {
    let source = fixture(name);
    Transformers::load(&source, &read_json(&source, "config.json")?, name != "marian", &Device::Cpu)
}

fn source_ids(model: &Transformers, text: &str, code: Option<&str>) -> Result<Vec<u32>, Error> {
    model.ids(text, &model.targets.of(code)?)
}

const NAMES: [(&str, &str); 3] = [("marian", "ps"), ("t5", "de"), ("madlad", "ps")];

#[test]
fn tokens_and_texts_are_transformers() -> Outcome {
    for (name, code) in NAMES {
        let translator = transformers(name)?;
        let expected = read_json(&fixture(name), "expected.json")?;
        for case in expected["cases"].as_array().ok_or("cases")? {
            let text = case["text"].as_str().ok_or("text")?;
            let source = source_ids(&translator, text, Some(code))?;
            assert_eq!(json!(source), case["ids"], "{name}: {text}");
            let written = translator.write(&source, &|| true)?;
            assert_eq!(json!(written), case["written"], "{name}: {text}");
            assert_eq!(json!(translator.vocabulary.decode(&written)?.trim()), case["translation"], "{name}");
        }
    }
    Ok(())
}

#[test]
fn a_text_is_translated_sentence_by_sentence_and_again_the_same() -> Outcome {
    for (name, code) in NAMES {
        let translator = open(name)?;
        let translate = |text: &str| translator.translate(text, None, Some(code), &|| true);
        let [first, second] = ["We are met.", "The people of the earth"].map(translate);
        let expected = [first?, second?].join(" ");
        assert_eq!(translate(" We are met.  The people of the earth\n")?, expected.trim(), "{name}");
        assert_eq!(translate("")?, "");
    }
    Ok(())
}

#[test]
fn languages_are_told_or_refused_with_those_that_there_are() -> Outcome {
    for (name, known, refused) in
        [("marian", &["ps"][..], "en"), ("t5", &["de"], "ps"), ("madlad", &["de", "ps"], "en")]
    {
        let translator = open(name)?;
        assert_eq!(translator.languages(), known);
        let Err(error) = translator.translate("a", None, Some(refused), &|| true) else {
            return Err(format!("{name}: accepted").into());
        };
        let message = format!(
            "to_language: `{refused}` is not possible: this translator writes {} only",
            known.join(", ")
        );
        assert_eq!(error.to_string(), message);
        // Nobody needs to name the only one.
        assert_eq!(translator.check(None).is_ok(), known.len() == 1);
    }
    let translator = transformers("madlad")?;
    assert_ne!(source_ids(&translator, "a", Some("de"))?, source_ids(&translator, "a", Some("ps"))?);
    Ok(())
}

#[test]
fn nobody_waiting_ends_it_within_a_sentence() -> Outcome {
    let translator = open("marian")?;
    let asked = Cell::new(0);
    let keep_going = || asked.replace(asked.get() + 1) < 5;
    assert!(matches!(
        translator.translate("people of the earth", None, None, &keep_going),
        Err(Error::Cancelled)
    ));
    assert_eq!(asked.get(), 6);
    Ok(())
}

#[test]
fn a_sentence_without_room_is_broken_between_words() -> Outcome {
    let translator = transformers("marian")?;
    let most = translator.max_source_tokens;
    assert_eq!(most, 64);
    let sources = |text: &str| parts(text, most, &|text| source_ids(&translator, text, None));
    let long = "people of the earth ".repeat(30);
    let broken = sources(&long)?;
    let written = broken.iter().map(|ids| translator.vocabulary.decode(&translator.write(ids, &|| true)?));
    let mut written = written.collect::<Result<Vec<_>, _>>()?;
    written.iter_mut().for_each(|text| *text = text.trim().to_owned());
    written.retain(|text| !text.is_empty());
    assert_eq!(translator.translate(&long, None, &|| true)?, written.join(" "));
    assert!(broken.len() > 2 && broken.iter().all(|ids| (1..=64).contains(&ids.len())));
    let word = "p".repeat(200);
    assert_eq!(sources(&word)?.len(), 1);
    translator.translate(&word, None, &|| true)?;
    Ok(())
}

/// A copy with another value at a pointer of a file.
fn changed(
    name: &str,
    file: &str,
    pointer: &str,
    value: Value,
) -> Result<TempDir, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let BundleSource::Dir(from) = fixture(name) else { return Err("a directory".into()) };
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
    }
    let path = dir.path().join(file);
    let mut all: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    *all.pointer_mut(pointer).ok_or("a pointer")? = value;
    std::fs::write(path, all.to_string())?;
    Ok(dir)
}

#[test]
fn what_is_no_translator_is_refused_by_file_and_key() -> Outcome {
    for (name, file, pointer, value, part) in [
        ("marian", "config.json", "/model_type", json!("bert"), "`model_type`: is \"bert\""),
        ("marian", "config.json", "/share_encoder_decoder_embeddings", json!(false), "two vocabularies"),
        ("marian", "config.json", "/d_model", json!(15), "is odd"),
        ("marian", "config.json", "/encoder_attention_heads", json!(3), "do not divide"),
        ("marian", "config.json", "/encoder_attention_heads", json!(0), "not between"),
        ("marian", "config.json", "/max_position_embeddings", json!(1 << 30), "not between"),
        ("marian", "config.json", "/activation_function", json!("tan"), "activation_function"),
        ("marian", "config.json", "/vocab_size", json!(5), "decoder_vocab_size"),
        ("marian", "config.json", "/encoder_layers", json!(9), "model.safetensors"),
        ("marian", "config.json", "/encoder_layers", json!(u64::MAX), "not between"),
        ("marian", "config.json", "/d_model", json!(18), "model.safetensors"),
        ("marian", "generation_config.json", "/decoder_start_token_id", json!(500), "outside the vocabulary"),
        ("marian", "generation_config.json", "/bad_words_ids", json!([[500]]), "outside the vocabulary"),
        ("marian", "vocab.json", "/<unk>", json!(4_000_000_000_u32), "ids up to"),
        ("t5", "config.json", "/task_specific_params", json!({}), "nothing says how"),
        ("t5", "config.json", "/is_encoder_decoder", json!(false), "has both"),
        ("t5", "config.json", "/feed_forward_proj", json!("gelu"), "only relu"),
        ("t5", "config.json", "/relative_attention_num_buckets", json!(0), "not between"),
        ("t5", "config.json", "/vocab_size", json!(5), "model.safetensors"),
        ("t5", "config.json", "/num_layers", json!(9), "model.safetensors"),
    ] {
        let dir = changed(name, file, pointer, value)?;
        let Err(error) = TextTranslator::load(&dir.path().into(), &Device::Cpu) else {
            return Err(format!("{name}: {file} with another {pointer} is accepted").into());
        };
        assert!(error.to_string().contains(part), "{name}: {file}{pointer}: {error}");
    }
    Ok(())
}

#[test]
fn what_may_not_be_written_is_not_and_what_has_to_be_is() -> Outcome {
    let source = fixture("marian");
    let generation = |changes: Value| -> Result<Generation, Error> {
        let mut config = json!({"decoder_start_token_id": 4, "eos_token_id": [0, 3], "max_length": 6});
        for (key, value) in changes.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        // Of files of its own it would read those.
        let source = BundleSource::Dir(source.path("none"));
        Generation::read(&source, &config, (5, 8), Some(4))
    };
    let next =
        |generation: &Generation, tokens: &[u32]| generation.next(tokens, &mut [0.1, 0.5, 0.4, 0.2, 9.0]);
    let plain = generation(json!({}))?;
    assert_eq!((next(&plain, &[4])?, plain.max_new_tokens, plain.end()), (1, 5, Some(0)));
    assert!(plain.ends(3) && plain.ends(0) && !plain.ends(1));
    let words = generation(json!({"bad_words_ids": [[1], [2, 2], [0]]}))?;
    assert_eq!((next(&words, &[4])?, next(&words, &[4, 2])?), (2, 3));
    let forced =
        generation(json!({"forced_bos_token_id": 2, "forced_eos_token_id": 3, "max_new_tokens": 100}))?;
    assert_eq!(forced.max_new_tokens, 8);
    assert_eq!((next(&forced, &[4])?, next(&forced, &[4, 1])?, next(&forced, &[4; 8])?), (2, 1, 3));
    assert!(plain.next(&[4], &mut [0.1, f32::NAN, 0.4, 0.2, 9.0]).is_err());
    assert!(plain.next(&[4], &mut [f32::NEG_INFINITY; 5]).is_err());
    Ok(())
}
