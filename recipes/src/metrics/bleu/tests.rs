use serde_json::Value;

use super::*;
use crate::fixtures;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn bleu(options: BleuOptions, segments: &[Value]) -> Result<Bleu, Box<dyn std::error::Error>> {
    let mut bleu = Bleu::new(options)?;
    for segment in segments {
        bleu.add(segment[0].as_str().ok_or("a hypothesis")?, &texts(&segment[1]))?;
    }
    Ok(bleu)
}

/// `tests/oracle/translation.py`: all tokenisers and options.
#[test]
fn scores_are_those_of_sacrebleu() -> Outcome {
    let expected = fixtures::committed("translation.json")?;
    let cases = expected["cases"].as_array().ok_or("cases")?;
    assert_eq!(cases.len(), 17);
    for case in cases {
        let name = &case["name"];
        let segments = case["segments"].as_array().ok_or("segments")?;
        let mut theirs = numbers(&case["bleu"]).into_iter();
        for tokenizer in BleuTokenizer::ALL {
            for lowercase in [false, true] {
                let options = BleuOptions { tokenizer, lowercase, ..BleuOptions::default() };
                let sum: BleuStatistics = bleu(options, segments)?.segments().iter().copied().sum();
                for effective_order in [false, true] {
                    for smoothing in
                        [Smoothing::Exp, Smoothing::None, Smoothing::Floor(0.1), Smoothing::AddK(1.0)]
                    {
                        let options = BleuOptions { smoothing, effective_order, ..options };
                        let ours = sum.score(&options).score;
                        let theirs = theirs.next().ok_or("too few scores")?;
                        assert!((ours - theirs).abs() < 1e-9, "{name}, {options:?}: {ours} and not {theirs}");
                    }
                }
            }
        }
        assert_eq!(theirs.next(), None);

        let default = bleu(BleuOptions::default(), segments)?;
        let (score, sum) = (default.score()?, default.segments().iter().copied().sum::<BleuStatistics>());
        let theirs = &case["default"];
        for (ours, theirs) in score.precisions.iter().zip(numbers(&theirs["precisions"])) {
            assert!((ours - theirs).abs() < 1e-9, "{name}: {score:?}");
        }
        assert!(
            (score.brevity_penalty - theirs["brevity_penalty"].as_f64().ok_or("bp")?).abs() < 1e-12,
            "{name}"
        );
        assert_eq!(serde_json::to_value(sum.matches)?, theirs["counts"], "{name}");
        assert_eq!(serde_json::to_value(sum.totals)?, theirs["totals"], "{name}");
        assert_eq!(serde_json::to_value(score.n_hypothesis)?, theirs["n_hypothesis"], "{name}");
        assert_eq!(serde_json::to_value(score.n_reference)?, theirs["n_reference"], "{name}");
        let signature = theirs["signature"].as_str().ok_or("signature")?;
        assert!(signature.starts_with(&(default.signature() + "|version:")), "{name}: {signature}");
    }
    Ok(())
}

/// sacrebleu's own cases, which smooth with a floor and do not tokenise.
#[test]
fn the_published_cases_hold() -> Outcome {
    let Some(file) = fixtures::published("sacrebleu/test_bleu.json")? else { return Ok(()) };
    let values = &file["values"];
    let raw = |case: &Value, floor: f64| -> Result<f64, Box<dyn std::error::Error>> {
        let mut bleu = Bleu::new(BleuOptions {
            tokenizer: BleuTokenizer::None,
            smoothing: Smoothing::Floor(floor),
            effective_order: true,
            lowercase: false,
        })?;
        for (i, hypothesis) in texts(&case[0]).into_iter().enumerate() {
            let references = case[1].as_array().ok_or("references")?;
            bleu.add(hypothesis, &references.iter().map(|one| texts(one)[i]).collect::<Vec<_>>())?;
        }
        Ok(bleu.score()?.score / 100.0)
    };
    let cases = values["test_raw_bleu_cases"].as_array().ok_or("raw")?;
    assert_eq!(cases.len(), 3);
    for case in cases {
        assert!((raw(case, 0.01)? - case[2].as_f64().ok_or("a score")?).abs() < 1e-8, "{case}");
    }
    for case in values["test_case_offset"].as_array().ok_or("offset")? {
        assert!((raw(case, 0.1)? - case[2].as_f64().ok_or("a score")?).abs() < 1e-8, "{case}");
        assert!((raw(case, 0.0)? - case[3].as_f64().ok_or("a score")?).abs() < 1e-8, "{case}");
    }

    // Counts, lengths, for the second also the floor, and the score, written as Python.
    for (key, n_numbers) in [("test_case_scoring", 11), ("test_case_degenerate_stats", 12)] {
        let text = values[key].as_str().ok_or(key)?;
        let numbers: Vec<f64> = text
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        assert_eq!((numbers.len() % n_numbers, numbers.is_empty()), (0, false), "{text}");
        for case in numbers.chunks(n_numbers) {
            let count = |i: usize| case[i] as usize;
            let statistics = BleuStatistics {
                matches: array::from_fn(count),
                totals: array::from_fn(|i| count(4 + i)),
                n_hypothesis: count(8),
                n_reference: count(9),
            };
            let smoothing = if n_numbers == 12 { Smoothing::Floor(case[10]) } else { Smoothing::None };
            let score = statistics.score(&BleuOptions { smoothing, ..BleuOptions::default() }).score / 100.0;
            assert!((score - case[n_numbers - 1]).abs() < 1e-8, "{case:?}: {score}");
        }
    }

    let Some(file) = fixtures::published("sacrebleu/test_sentence_bleu.json")? else { return Ok(()) };
    let values = &file["values"];
    for case in values["test_cases_zero_bleu"].as_array().ok_or("zero")? {
        let smoothing = match (case[0].as_str(), case[1].as_f64()) {
            (Some("exp"), _) => Smoothing::Exp,
            (Some("none"), _) => Smoothing::None,
            (Some("floor"), value) => Smoothing::Floor(value.unwrap_or(0.1)),
            (Some("add-k"), value) => Smoothing::AddK(value.unwrap_or(1.0)),
            other => return Err(format!("{other:?}").into()),
        };
        let mut bleu = Bleu::new(BleuOptions { smoothing, effective_order: true, ..BleuOptions::default() })?;
        bleu.add(values["SYS"].as_str().ok_or("SYS")?, &[values["REF_0"].as_str().ok_or("REF_0")?])?;
        assert_eq!(Some(bleu.score()?.score), case[4].as_f64(), "{case}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_scored_is_refused() -> Outcome {
    let mut bleu = Bleu::new(BleuOptions::default())?;
    assert!(matches!(bleu.score(), Err(Error::Empty)));
    bleu.add("a", &["a", "b"])?;
    let refusal = bleu.add("b", &[]).map_err(|error| error.to_string());
    assert_eq!(refusal, Err("utterance 1: it has no reference: give at least one".to_owned()));
    bleu.add("c", &["c"])?;
    assert_eq!(bleu.signature(), "nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp");

    let refusal = Bleu::new(BleuOptions { smoothing: Smoothing::AddK(-1.0), ..BleuOptions::default() });
    assert!(matches!(refusal, Err(Error::Option { option: "smoothing", .. })), "{refusal:?}");
    for name in BleuTokenizer::ALL {
        assert_eq!(serde_json::to_value(name)?, name.name());
        assert_eq!(name.to_string().parse::<BleuTokenizer>()?, name);
    }
    let refusal = "spm".parse::<BleuTokenizer>().map_err(|error| error.to_string());
    assert_eq!(
        refusal,
        Err("tokenizer: there is no BLEU tokeniser `spm`: use one of none, 13a, intl, zh, char".to_owned())
    );
    let options: BleuOptions = serde_json::from_str(r#"{"tokenizer": "13a", "smoothing": {"floor": 0.1}}"#)?;
    assert_eq!(options.smoothing, Smoothing::Floor(0.1));
    Ok(())
}
