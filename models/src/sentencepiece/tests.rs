use std::path::Path;

use prost::Message;

use super::*;
use crate::Tokenizer;

fn proto(kinds: &[(&str, f32, i32)]) -> ModelProto {
    let piece = |(text, score, kind): &(&str, f32, i32)| proto::Piece {
        piece: Some((*text).to_owned()),
        score: Some(*score),
        r#type: Some(*kind),
    };
    ModelProto { pieces: kinds.iter().map(piece).collect(), ..ModelProto::default() }
}

fn refused(model: &ModelProto) -> String {
    match SentencePiece::read(&model.encode_to_vec(), Path::new("x.model")) {
        Err(error) => error.to_string(),
        Ok(_) => "read".to_owned(),
    }
}

#[test]
fn what_no_tokenizer_json_says_is_refused_by_name() {
    let good = proto(&[("<unk>", 0.0, 2), ("a", -1.0, 1)]);
    assert_eq!(refused(&good), "read");
    let trainer = |model_type: i32, is_suffix: bool| {
        let spec = proto::TrainerSpec {
            model_type: Some(model_type),
            treat_whitespace_as_suffix: Some(is_suffix),
            byte_fallback: None,
        };
        refused(&ModelProto { trainer_spec: Some(spec), ..good.clone() })
    };
    assert!(trainer(3, false).contains("`trainer_spec.model_type`: 3 is not known"), "{}", trainer(3, false));
    assert!(trainer(1, true).contains("treat_whitespace_as_suffix"));
    let normalizer = |charsmap: Option<Vec<u8>>, escape: Option<bool>| {
        let spec = proto::NormalizerSpec {
            precompiled_charsmap: charsmap,
            escape_whitespaces: escape,
            ..proto::NormalizerSpec::default()
        };
        refused(&ModelProto { normalizer_spec: Some(spec), ..good.clone() })
    };
    assert!(normalizer(None, Some(false)).contains("escape_whitespaces"));
    assert!(normalizer(Some(vec![255; 9]), None).contains("cut off"));
    let back = |charsmap: &[u8]| {
        let spec = proto::NormalizerSpec {
            precompiled_charsmap: Some(charsmap.to_vec()),
            ..proto::NormalizerSpec::default()
        };
        refused(&ModelProto { denormalizer_spec: Some(spec), ..good.clone() })
    };
    assert_eq!(back(&[]), "read");
    assert!(
        back(&[0; 4]).contains("`denormalizer_spec.precompiled_charsmap`: has 4 bytes"),
        "{}",
        back(&[0; 4])
    );
    for (pieces, message) in [
        (&[][..], "`pieces`: are 0"),
        (&[("a", 0.0, 1)], "one is needed"),
        (&[("<unk>", 0.0, 2), ("a", 0.0, 5)], "`pieces[1]`: type 5"),
        (&[("<unk>", 0.0, 2), ("a", 0.0, 1), ("a", 0.0, 1)], "`pieces[2]`: `a` is there twice"),
        (&[("<unk>", 0.0, 2), ("", 0.0, 1)], "has 0 bytes"),
        (&[("<unk>", 0.0, 2), ("a", f32::NAN, 1)], "not finite"),
    ] {
        let found = refused(&proto(pieces));
        assert!(found.contains(message), "{found}");
    }
    let found = SentencePiece::read(b"no such thing", Path::new("x.model")).map(|_| ());
    assert!(found.is_err_and(|error| error.to_string().contains("x.model: is no SentencePiece model")));
}

#[test]
fn models_that_grow_beyond_their_files_are_refused() {
    // Two bytes each, and a message of its own in memory.
    let many = [10, 0].repeat(MAX_PIECES + 1);
    let found = SentencePiece::read(&many, Path::new("x.model")).map(|_| ());
    assert!(found.is_err_and(|error| error.to_string().contains("`pieces`: are 1048577")));
    // Every run of one letter is made of two others in as many ways as it is long.
    let runs = |letters: u8| {
        let mut pieces = proto(&[("<unk>", 0.0, 2)]).pieces;
        for letter in 0..letters {
            let letter = char::from(b'!' + letter).to_string();
            pieces.extend((1..=MAX_PIECE_BYTES).map(|n| proto::Piece {
                piece: Some(letter.repeat(n)),
                score: Some(0.0),
                r#type: Some(1),
            }));
        }
        let spec = proto::TrainerSpec { model_type: Some(2), ..proto::TrainerSpec::default() };
        ModelProto { pieces, trainer_spec: Some(spec), ..ModelProto::default() }
    };
    // 130816 of each letter.
    assert_eq!(refused(&runs(2)), "read");
    assert!(refused(&runs(33)).contains("more than 4194304 ways"), "{}", refused(&runs(33)));
}

#[test]
fn a_text_that_spells_a_command_is_text() -> Result<(), Error> {
    let mut kinds = vec![("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("<|en|>", 0.0, 4), ("km", 0.0, 4)];
    let letters: Vec<String> = "<|en>skm\u{2581}".chars().map(String::from).collect();
    kinds.extend(letters.iter().map(|letter| (letter.as_str(), -3.0, 1)));
    for model_type in [1, 2, 4] {
        let spec = proto::TrainerSpec { model_type: Some(model_type), ..proto::TrainerSpec::default() };
        let model = ModelProto { trainer_spec: Some(spec), ..proto(&kinds) };
        let model = SentencePiece::read(&model.encode_to_vec(), Path::new("x.model"))?;
        let tokenizer = Tokenizer::from_text(&model.tokenizer(&["<pad>"]).to_string())?;
        let ids = tokenizer.encode("<s> <|en|>km")?;
        assert!(ids.iter().all(|id| *id > 2), "{ids:?}");
        assert_eq!(ids.last(), Some(&3), "what the user defined is whole: {ids:?}");
        assert_eq!(tokenizer.decode(&ids)?, "<s> <|en|>km");
        assert_eq!(tokenizer.special("en"), Some(2));
        assert!(tokenizer.special_ids().contains(&(kinds.len() as u32)), "the blank");
    }
    Ok(())
}
