//! Ids, words and the non-speech set equal the reference tokenizer's: `tests/oracle/tokenizer.py`.

use anyhow::{Context, Result, ensure};
use models::{BundleSource, Tokenizer};
use serde_json::{Value, json};

use crate::support::{data, fixture, json as read_json, numbers, reference_model};

fn expected() -> Result<Value> {
    read_json(&fixture("tokenizer.json"))
}

/// The large-v3 vocabulary, as published and as a trained checkpoint carries it.
fn large() -> Result<Vec<Tokenizer>> {
    [data("tokenizers/whisper-large-v3-hf"), reference_model("micro-whisper-digits")]
        .into_iter()
        .flatten()
        .map(|dir| Ok(Tokenizer::open(&dir)?))
        .collect()
}

fn rows<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| key.to_owned())
}

fn text(row: &Value) -> Result<&str> {
    row["text"].as_str().context("text")
}

#[test]
fn the_tiny_vocabulary_spells_every_text_and_reads_it_back() -> Result<()> {
    let tokenizer = Tokenizer::open(&fixture("whisper-80"))?;
    for row in rows(&expected()?, "tiny")? {
        let text = text(row)?;
        let ids = tokenizer.encode(text)?;
        if text.contains("<|startoftranscript|>") || text.contains("<|0.00|>") {
            // The oracle's ids are the commands; a user's text is never one.
            ensure!(ids.iter().all(|id| *id < 300), "{text}: {ids:?}");
        } else {
            ensure!(ids == numbers::<u32>(&row["ids"]), "{text}: {ids:?}");
        }
        ensure!(tokenizer.decode(&ids)? == text, "{text}");
        ensure!(bytes(&tokenizer, &ids) == text.as_bytes(), "{text}");
    }
    Ok(())
}

/// What the tokens stand for one by one, though a character be spread over several.
fn bytes(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect()
}

#[test]
fn the_large_vocabulary_spells_every_text_as_the_reference_does() -> Result<()> {
    let expected = expected()?;
    for tokenizer in large()? {
        for row in rows(&expected, "cases")? {
            let text = text(row)?;
            let ids = tokenizer.encode(text)?;
            ensure!(ids == numbers::<u32>(&row["plain_ids"]), "{text:?}: {ids:?}");
            ensure!(tokenizer.decode(&ids)? == text, "{text:?}");
            ensure!(bytes(&tokenizer, &ids) == text.as_bytes(), "{text:?}");
        }
        let specials = expected["specials"].as_object().context("specials")?;
        for (name, id) in specials {
            ensure!(tokenizer.special(name).map(u64::from) == id.as_u64(), "{name}");
        }
        let languages = tokenizer.language_tokens();
        ensure!(languages.len() == 100 && languages[0] == ("en".to_owned(), 50259), "{languages:?}");
    }
    Ok(())
}

#[test]
fn control_tokens_and_times_are_no_text() -> Result<()> {
    let tiny = Tokenizer::open(&fixture("whisper-80"))?;
    ensure!(tiny.decode(&[301, 308, 311, 315, 71, 316, 72, 391, 300])? == "hi");
    for tokenizer in large()? {
        ensure!(tokenizer.decode(&[50258, 50259, 50360, 50365, 7751, 50440, 50257])? == " hello");
    }
    Ok(())
}

#[test]
fn words_split_as_in_the_reference() -> Result<()> {
    let expected = expected()?;
    for tokenizer in large()? {
        for row in rows(&expected, "splits")? {
            let mut ids: Vec<u32> = numbers(&row["ids"]);
            // The reference splits the end of text off as a word of its own; ours are text ids only.
            ensure!(ids.pop() == Some(50257), "{row}");
            let words = tokenizer.split_words(&ids, row["language"].as_str())?;
            let mut theirs: Vec<(String, usize)> = rows(row, "words")?
                .iter()
                .zip(rows(row, "word_tokens")?)
                .map(|(word, tokens)| Some((word.as_str()?.to_owned(), tokens.as_array()?.len())))
                .collect::<Option<_>>()
                .context("words")?;
            theirs.pop();
            ensure!(words == theirs, "{}: {words:?}, not {theirs:?}", row["language"]);
        }
        // Bytes that never complete a character stand alone; in a language without spaces every piece is a word.
        let row = &expected["split_on_unicode"];
        let words = tokenizer.split_words(&numbers::<u32>(&row["ids"]), Some("zh"))?;
        let texts: Vec<_> = words.iter().map(|(text, _)| text.as_str()).collect();
        ensure!(json!(texts) == row["words"], "{texts:?}");
        ensure!(words.iter().all(|(_, n)| *n == 1), "{words:?}");
    }
    Ok(())
}

/// Needs no data: what the rule says about punctuation and white space, spelled byte by byte.
#[test]
fn punctuation_and_bare_white_space_begin_words() -> Result<()> {
    let tokenizer = Tokenizer::open(&fixture("whisper-80"))?;
    let split = |text: &str, language| -> Result<Vec<String>> {
        let ids = tokenizer.encode(text)?;
        let words = tokenizer.split_words(&ids, Some(language))?;
        ensure!(words.iter().map(|(_, n)| n).sum::<usize>() == ids.len(), "{words:?}");
        Ok(words.into_iter().map(|(text, _)| text).collect())
    };
    ensure!(split(" ab, c", "en")? == [" ab", ",", " c"]);
    // Stripped, a line break is the empty string, which every string contains.
    ensure!(split("a\nb", "en")? == ["a", "\nb"], "{:?}", split("a\nb", "en")?);
    ensure!(split("é 我", "ps")? == ["é", " 我"]);
    ensure!(split("é我a", "ja")? == ["é", "我", "a"]);
    // Half a character at the end belongs to some word.
    let mut ids = tokenizer.encode("a我")?;
    ids.pop();
    let words = tokenizer.split_words(&ids, Some("zh"))?;
    ensure!(words.iter().map(|(_, n)| n).sum::<usize>() == ids.len(), "{words:?}");
    ensure!(tokenizer.split_words(&[], None)?.is_empty());
    Ok(())
}

#[test]
fn annotations_are_the_references() -> Result<()> {
    let expected = expected()?;
    for tokenizer in large()? {
        ensure!(tokenizer.non_speech_tokens() == numbers::<u32>(&expected["non_speech_tokens"]));
    }
    // Of the tiny vocabulary's single bytes, the same symbols.
    let tiny = Tokenizer::open(&fixture("whisper-80"))?;
    let ids = tiny.non_speech_tokens();
    for symbol in ["\"", "(", "[", "~"] {
        ensure!(ids.contains(&tiny.encode(symbol)?[0]), "{symbol}");
    }
    ensure!(!ids.contains(&tiny.encode("a")?[0]));
    Ok(())
}

/// What the published file says about padding and truncation is about training batches.
#[test]
fn texts_are_neither_padded_nor_cut() -> Result<()> {
    let dir = crate::bundles::copy()?;
    let path = dir.path().join("tokenizer.json");
    let mut file = read_json(&path)?;
    file["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 4_000_000_000_000u64}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 300, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    std::fs::write(&path, file.to_string())?;
    let (odd, usual) = (Tokenizer::open(dir.path())?, Tokenizer::open(&fixture("whisper-80"))?);
    ensure!(odd.encode("hello there")? == usual.encode("hello there")?);
    Ok(())
}

/// Large-v3 lists its times as plain added tokens: they are no more text than the others.
#[test]
fn a_user_cannot_write_times_that_are_not_marked_as_special() -> Result<()> {
    let dir = crate::bundles::copy()?;
    let path = dir.path().join("tokenizer.json");
    let mut file = read_json(&path)?;
    for token in file["added_tokens"].as_array_mut().context("added_tokens")? {
        let is_time = token["id"].as_u64().is_some_and(|id| id > 315);
        token["special"] = json!(!is_time);
    }
    std::fs::write(&path, file.to_string())?;
    let tokenizer = Tokenizer::open(dir.path())?;
    let ids = tokenizer.encode("<|0.00|> hi")?;
    ensure!(ids.iter().all(|id| *id < 300), "{ids:?}");
    ensure!(tokenizer.special("0.00") == Some(316) && tokenizer.special("30.00") == Some(1816));
    ensure!(tokenizer.decode(&[316, 71, 72, 391])? == "hi");
    Ok(())
}

/// Of ids and texts that `tests/oracle/sentencepiece_models.py` had from SentencePiece itself.
fn ensure_sentencepiece(tokenizer: &Tokenizer, expected: &Value, key: &str) -> Result<()> {
    let cases = if key.ends_with(".model") { &expected["real"][key] } else { &expected[key] };
    let cases = cases.as_array().with_context(|| key.to_owned())?;
    for (text, case) in rows(expected, "texts")?.iter().zip(cases) {
        let text = text.as_str().context("text")?;
        let ids = tokenizer.encode(text)?;
        ensure!(ids == numbers::<u32>(&case["ids"]), "{key} {text:?}: {ids:?}, not {}", case["ids"]);
        let decoded = tokenizer.decode(&ids)?;
        ensure!(Some(decoded.as_str()) == case["decoded"].as_str(), "{key} {text:?}: {decoded:?}");
        let words = tokenizer.split_words(&ids, Some("ps"))?;
        ensure!(words.iter().map(|(_, n)| n).sum::<usize>() == ids.len(), "{key} {text:?}: {words:?}");
    }
    Ok(())
}

#[test]
fn models_of_sentencepiece_spell_and_read_as_it_does() -> Result<()> {
    let expected = read_json(&fixture("sentencepiece").join("expected.json"))?;
    for key in ["unigram", "bpe", "char"] {
        let path = fixture("sentencepiece").join(format!("{key}.model"));
        let tokenizer = Tokenizer::from_sentencepiece(&std::fs::read(&path)?, &path)?;
        ensure_sentencepiece(&tokenizer, &expected, key)?;
        // As a bundle has it, too.
        let dir = tempfile::tempdir()?;
        std::fs::copy(&path, dir.path().join("tokenizer.model"))?;
        ensure_sentencepiece(&Tokenizer::open(dir.path())?, &expected, key)?;
        let source = BundleSource::from(dir.path());
        ensure!(source.tokenizer_file() == "tokenizer.model");
        std::fs::write(dir.path().join("tokenizer.json"), "{}")?;
        ensure!(source.tokenizer_file() == "tokenizer.json");
    }
    Ok(())
}

#[test]
fn real_models_of_sentencepiece_spell_and_read_as_it_does() -> Result<()> {
    let Some(dir) = data("tokenizers/sentencepiece") else { return Ok(()) };
    let expected = read_json(&fixture("sentencepiece").join("expected.json"))?;
    for key in ["botchan_test_model.model", "librispeech_960_unigram5000.model"] {
        let path = dir.join(key);
        ensure_sentencepiece(&Tokenizer::from_sentencepiece(&std::fs::read(&path)?, &path)?, &expected, key)?;
    }
    Ok(())
}
