use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::Value;

use super::*;
use crate::fixtures;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn texts(row: &Value) -> Vec<&str> {
    row.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// `tests/oracle/normaliser.py`.
#[test]
fn normalisers_write_what_transformers_writes() -> Outcome {
    let expected = fixtures::committed("normaliser.json")?;
    let english = TextNormaliser::new(Normaliser::English)?;
    let cases = expected["english"].as_array().ok_or("english")?;
    assert!(cases.len() > 200, "{}", cases.len());
    for case in cases {
        let [text, normalised] = texts(case)[..] else { return Err("not a pair".into()) };
        assert_eq!(english.apply(text), normalised, "{text:?}");
    }

    let all = Normaliser::ALL.map(TextNormaliser::new);
    let cases = expected["unicode_cases"].as_array().ok_or("unicode_cases")?;
    assert!(cases.len() > 30, "{}", cases.len());
    for case in cases {
        // The text itself is what `none` leaves.
        for ((name, normaliser), normalised) in Normaliser::ALL.iter().zip(&all).zip(texts(case)) {
            let normaliser = normaliser.as_ref().map_err(ToString::to_string)?;
            assert_eq!(normaliser.apply(texts(case)[0]), normalised, "{name} of {:?}", texts(case)[0]);
        }
    }
    Ok(())
}

/// The cases in openai/whisper's own tests.
#[test]
fn the_published_cases_hold() -> Outcome {
    let Some(cases) = fixtures::published("normalizer/cases.json")? else { return Ok(()) };
    let cases = cases["cases"].as_array().ok_or("cases")?;
    let english = TextNormaliser::new(Normaliser::English)?;
    assert_eq!(cases.len(), 30);
    for case in cases {
        let (Some(text), Some(expected)) = (case["in"].as_str(), case["out"].as_str()) else {
            return Err("a case without texts".into());
        };
        assert_eq!(english.apply(text).trim(), expected, "{text:?}");
    }
    Ok(())
}

#[test]
fn names_are_the_same_everywhere() -> Outcome {
    for name in Normaliser::ALL {
        assert_eq!(serde_json::to_value(name)?, name.name());
        assert_eq!(name.to_string().parse::<Normaliser>()?, name);
    }
    let refusal = "English".parse::<Normaliser>().map_err(|error| error.to_string());
    assert_eq!(
        refusal,
        Err("there is no normaliser `English`: use one of none, basic, basic-remove-diacritics, \
             basic-split-letters, english, ps-strict, ps-lenient"
            .to_owned())
    );
    Ok(())
}

#[test]
fn digits_of_all_scripts_have_values() {
    for (zero, script) in
        [('0', "ASCII"), ('٠', "Arabic"), ('۰', "extended Arabic"), ('०', "Devanagari"), ('๐', "Thai")]
    {
        let values: Vec<_> =
            (0..10).map(|n| char::from_u32(u32::from(zero) + n).and_then(characters::digit)).collect();
        assert_eq!(values, (0..10).map(Some).collect::<Vec<_>>(), "{script}");
    }
    assert_eq!(['a', '½', '²', '௰', ' '].map(characters::digit), [None; 5]);
}

/// Whatever is written, the normalisers end and leave words that a score can split.
#[test]
fn no_text_is_too_strange() -> Outcome {
    let normalisers = [
        TextNormaliser::new(Normaliser::Basic)?,
        TextNormaliser::new(Normaliser::BasicRemoveDiacritics)?,
        TextNormaliser::new(Normaliser::BasicSplitLetters)?,
        TextNormaliser::new(Normaliser::English)?,
    ];
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let numbers = "((one|twenty|million|and|a|half|point|double|cent|per|\\$5|¢|'s|[0-9.,%]) ?){0,12}";
    TestRunner::new(config).run(&prop_oneof!["(?s).{0,60}", numbers], |text| {
        for normaliser in &normalisers {
            let normalised = normaliser.apply(&text);
            prop_assert!(!normalised.contains("  "), "{normalised:?}");
            prop_assert!(!normalised.contains(['\n', '\t', '(', '!', '\'']), "{normalised:?}");
        }
        Ok(())
    })?;
    Ok(())
}
