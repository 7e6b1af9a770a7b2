use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::fixtures;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn ter(options: TerOptions, segments: &[Value]) -> Result<Ter, Box<dyn std::error::Error>> {
    let mut ter = Ter::new(options)?;
    for segment in segments {
        ter.add(segment[0].as_str().ok_or("a hypothesis")?, &texts(&segment[1]))?;
    }
    Ok(ter)
}

/// `tests/oracle/translation.py`: all options.
#[test]
fn scores_are_those_of_sacrebleu() -> Outcome {
    let expected = fixtures::committed("translation.json")?;
    for case in expected["cases"].as_array().ok_or("cases")? {
        let segments = case["segments"].as_array().ok_or("segments")?;
        let theirs: Vec<f64> =
            case["ter"].as_array().ok_or("ter")?.iter().filter_map(Value::as_f64).collect();
        assert_eq!(theirs.len(), 16);
        for (i, theirs) in theirs.into_iter().enumerate() {
            let options = TerOptions {
                normalized: i & 8 > 0,
                no_punct: i & 4 > 0,
                asian_support: i & 2 > 0,
                case_sensitive: i & 1 > 0,
            };
            let ours = ter(options, segments)?.score()?;
            assert!((ours - theirs).abs() < 1e-9, "{}, {options:?}: {ours} and not {theirs}", case["name"]);
        }
        let default = ter(TerOptions::default(), segments)?;
        let signature = case["default"]["ter_signature"].as_str().ok_or("signature")?;
        assert!(signature.starts_with(&(default.signature() + "|version:")), "{signature}");
    }
    Ok(())
}

/// The same script: words that stand elsewhere, up to every limit of the search.
#[test]
fn edits_are_those_of_sacrebleu() -> Outcome {
    let expected = fixtures::committed("translation.json")?;
    let segments = expected["shifts"].as_array().ok_or("shifts")?;
    assert_eq!(segments.len(), 150);
    for (segment, ours) in segments.iter().zip(ter(TerOptions::default(), segments)?.segments()) {
        assert_eq!(serde_json::to_value(ours.n_edits)?, segment[2], "{segment}");
        let n_reference = segment[3].as_f64().ok_or("a length")?;
        assert!((ours.n_reference - n_reference).abs() < 1e-12, "{segment}: {ours:?}");
    }
    Ok(())
}

#[test]
fn words_that_moved_together_are_one_edit() -> Outcome {
    let mut ter = Ter::new(TerOptions::default())?;
    ter.add("on the mat the cat sat", &["The cat sat on the mat"])?;
    assert_eq!(ter.segments(), [TerStatistics { n_edits: 1, n_reference: 6.0 }]);
    // Of two references the nearer one counts, and the mean of their lengths.
    ter.add("نن دغه علايم", &["دغه علايم نن", "علايم"])?;
    assert_eq!(ter.segments()[1], TerStatistics { n_edits: 1, n_reference: 2.0 });
    assert_eq!(ter.score()?, 25.0);
    assert_eq!(ter.signature(), "nrefs:var|case:lc|tok:tercom|norm:no|punct:yes|asian:no");
    Ok(())
}

#[test]
fn what_cannot_be_scored_is_refused() -> Outcome {
    let mut ter = Ter::new(TerOptions::default())?;
    assert!(matches!(ter.score(), Err(Error::Empty)));
    assert!(matches!(ter.add("a", &[]), Err(Error::Utterance { index: 0, .. })));
    let options: Result<TerOptions, _> = serde_json::from_str(r#"{"normalised": true}"#);
    assert!(options.is_err_and(|error| error.to_string().contains("normalised")));
    Ok(())
}

/// A model that loops says one thing again and again.
#[test]
fn long_texts_take_no_longer_than_their_beam() -> Outcome {
    let reference: Vec<String> = (0..4000).map(|i| format!("w{}", i % 700)).collect();
    let mut ter = Ter::new(TerOptions::default())?;
    ter.add(&"w3 w4 ".repeat(2000), &[&reference.join(" "), "w4 w3 w5"])?;
    ter.add(&[&reference[2000..], &reference[..2000]].concat().join(" "), &[&reference.join(" ")])?;
    assert!(ter.score()? > 0.0);
    Ok(())
}

fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof!["[ab]", "[a-c]{1,2}", "[0-9]\\.[0-9]", "پو|هم", "\\PC{0,3}", "'s|&lt;|\n-|。「"];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// At most all words are wrong, and a text is right about itself.
    #[test]
    fn any_texts_have_a_score(hypothesis in text(), reference in text(), options in any::<[bool; 4]>()) {
        let [normalized, no_punct, asian_support, case_sensitive] = options;
        let mut ter = Ter::new(TerOptions { normalized, no_punct, asian_support, case_sensitive }).expect("options");
        ter.add(&hypothesis, &[&reference]).expect("a reference");
        ter.add(&reference, &[&reference, ""]).expect("references");
        let [one, same] = ter.segments() else { panic!("two segments") };
        let n_words = text::words(&ter.tokenizer.apply(&hypothesis)).count();
        prop_assert!(one.n_edits as f64 <= one.n_reference.max(n_words as f64), "{one:?}");
        prop_assert_eq!(same.n_edits, 0);
        prop_assert!(ter.score().is_ok_and(f64::is_finite));
    }
}
