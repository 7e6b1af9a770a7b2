use serde_json::Value;

use super::*;
use crate::fixtures;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn chrf(options: ChrfOptions, segments: &[Value]) -> Result<Chrf, Box<dyn std::error::Error>> {
    let mut chrf = Chrf::new(options)?;
    for segment in segments {
        chrf.add(segment[0].as_str().ok_or("a hypothesis")?, &texts(&segment[1]))?;
    }
    Ok(chrf)
}

/// `tests/oracle/translation.py`: chrF and chrF++ with all options.
#[test]
fn scores_are_those_of_sacrebleu() -> Outcome {
    let expected = fixtures::committed("translation.json")?;
    for case in expected["cases"].as_array().ok_or("cases")? {
        let segments = case["segments"].as_array().ok_or("segments")?;
        let theirs: Vec<f64> =
            case["chrf"].as_array().ok_or("chrf")?.iter().filter_map(Value::as_f64).collect();
        assert_eq!(theirs.len(), 16);
        for (i, theirs) in theirs.into_iter().enumerate() {
            let options = ChrfOptions {
                word_order: if i & 8 > 0 { 2 } else { 0 },
                lowercase: i & 4 > 0,
                whitespace: i & 2 > 0,
                eps_smoothing: i & 1 > 0,
                ..ChrfOptions::default()
            };
            let ours = chrf(options, segments)?.score()?;
            assert!((ours - theirs).abs() < 1e-9, "{}, {options:?}: {ours} and not {theirs}", case["name"]);
        }
        let plus_plus = chrf(ChrfOptions { word_order: 2, ..ChrfOptions::default() }, segments)?;
        let signature = case["default"]["chrf_signature"].as_str().ok_or("signature")?;
        assert!(signature.starts_with(&(plus_plus.signature() + "|version:")), "{signature}");
    }
    Ok(())
}

/// sacrebleu's own cases, which weigh recall by three.
#[test]
fn the_published_cases_hold() -> Outcome {
    let Some(file) = fixtures::published("sacrebleu/test_chrf.json")? else { return Ok(()) };
    for (key, whitespace, n_cases) in [("test_cases", false, 13), ("test_cases_keep_whitespace", true, 2)] {
        let cases = file["values"][key].as_array().ok_or(key)?;
        assert_eq!(cases.len(), n_cases);
        for case in cases {
            let options =
                ChrfOptions { beta: 3.0, whitespace, eps_smoothing: !whitespace, ..ChrfOptions::default() };
            let mut chrf = Chrf::new(options)?;
            for (hypothesis, reference) in texts(&case[0]).into_iter().zip(texts(&case[1])) {
                chrf.add(hypothesis, &[reference])?;
            }
            let (ours, theirs) = (chrf.score()?, case[2].as_f64().ok_or("a score")?);
            assert!((ours - theirs).abs() < 1e-4, "{case}: {ours}");
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_scored_is_refused() -> Outcome {
    let mut chrf = Chrf::new(ChrfOptions::default())?;
    assert!(matches!(chrf.score(), Err(Error::Empty)));
    assert!(matches!(chrf.add("a", &[]), Err(Error::Utterance { index: 0, .. })));
    for (options, name) in [
        (ChrfOptions { char_order: 0, ..ChrfOptions::default() }, "char_order"),
        (ChrfOptions { beta: 0.0, ..ChrfOptions::default() }, "beta"),
        (ChrfOptions { beta: f64::NAN, ..ChrfOptions::default() }, "beta"),
    ] {
        let refusal = Chrf::new(options);
        assert!(matches!(refusal, Err(Error::Option { option, .. }) if option == name), "{refusal:?}");
    }
    Ok(())
}
