use super::*;
use crate::metrics::{Interval, character_errors, word_errors};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const UTTERANCES: [(&str, &str, f64); 5] = [
    ("The cat sat.", "the cat sat", 1.0),
    ("She's got twenty dollars.", "she has got $21", 2.0),
    ("one", "one one one one", 4.99),
    ("a long sentence about nothing", "", 61.0),
    ("", "um", 0.0),
];

fn score(options: ScoreOptions) -> Result<Score, Error> {
    let mut score = Score::new(options)?;
    for (reference, hypothesis, duration_secs) in UTTERANCES {
        score.add(reference, hypothesis, duration_secs)?;
    }
    Ok(score)
}

fn options(normaliser: Normaliser) -> ScoreOptions {
    ScoreOptions { normaliser, ..ScoreOptions::default() }
}

#[test]
fn a_corpus_is_the_sum_of_its_normalised_utterances() -> Outcome {
    for name in Normaliser::ALL {
        let report = score(options(name))?.report()?;
        let normaliser = TextNormaliser::new(name)?;
        let sum = |errors: fn(&str, &str) -> Errors| -> Errors {
            UTTERANCES.iter().map(|(a, b, _)| errors(&normaliser.apply(a), &normaliser.apply(b))).sum()
        };
        assert_eq!(report.words.errors, sum(word_errors), "{name}");
        assert_eq!(report.characters.errors, sum(character_errors), "{name}");
        assert_eq!(report.words.rate, Some(report.words.errors.rate()));
        assert_eq!((report.n_utterances, report.normaliser), (5, name));
        assert!((report.duration_secs - 68.99).abs() < 1e-9);
        let of_buckets: Errors = report.by_duration.iter().map(|bucket| bucket.words.errors).sum();
        assert_eq!(of_buckets, report.words.errors);
    }
    // "$21" for "$20", "1111" for "one", five words missing; "um" is no word in English.
    let report = score(options(Normaliser::English))?.report()?;
    assert_eq!(
        report.words.errors,
        Errors { substitutions: 2, deletions: 5, insertions: 0, n_reference: 13 }
    );
    assert_eq!(report.n_with_errors, 3);
    Ok(())
}

#[test]
fn durations_fall_into_classes_that_include_where_they_begin() -> Outcome {
    let report = score(options(Normaliser::None))?.report()?;
    let classes: Vec<_> = report
        .by_duration
        .iter()
        .map(|bucket| (bucket.from_secs, bucket.to_secs, bucket.n_utterances))
        .collect();
    assert_eq!(classes, [(0.0, Some(2.0), 2), (2.0, Some(5.0), 2), (30.0, None, 1)]);
    assert_eq!(report.by_duration[2].words.rate, Some(1.0));

    let one = ScoreOptions { bucket_edges_secs: Vec::new(), ..options(Normaliser::None) };
    assert_eq!(score(one)?.report()?.by_duration.len(), 1);
    Ok(())
}

#[test]
fn the_worst_come_first_and_show_what_is_wrong() -> Outcome {
    let mut score = score(ScoreOptions { n_worst: 3, ..options(Normaliser::Basic) })?;
    score.add_named("clip-7.wav", "a b c d e f", "a x c d e f g h i j k", 3.0)?;
    let worst = score.report()?.worst;
    let found: Vec<_> =
        worst.iter().map(|one| (one.index, one.name.as_deref(), one.aligned.as_str())).collect();
    assert_eq!(
        found,
        [
            (5, Some("clip-7.wav"), "a [-b-]{+x+} c d e f {+g+} {+h+} {+i+} {+j+} {+k+}"),
            (3, None, "[-a-] [-long-] [-sentence-] [-about-] [-nothing-]"),
            (2, None, "one {+one+} {+one+} {+one+}"),
        ]
    );
    Ok(())
}

/// Utterances that are right or wrong as a whole make the resampled rate a binomial share.
#[test]
fn the_interval_has_the_width_that_statistics_expects() -> Outcome {
    let resampling = Resampling { n_samples: 2000, ..Resampling::default() };
    let mut score = Score::new(ScoreOptions { resampling, ..options(Normaliser::None) })?;
    for i in 0..400 {
        score.add("word", if i % 5 == 0 { "other" } else { "word" }, 1.0)?;
    }
    let report = score.report()?;
    let Interval { low, high } = report.words.interval.ok_or("an interval")?;
    let half = 1.96 * (0.2_f64 * 0.8 / 400.0).sqrt();
    assert!(
        (low - (0.2 - half)).abs() < 0.006 && (high - (0.2 + half)).abs() < 0.006,
        "{low} {high}, {half}"
    );
    assert_eq!(report, score.report()?, "the same seed");

    let other = Resampling { seed: 1, confidence: 0.5, ..resampling };
    score.options.resampling = other;
    let narrow = score.report()?.words.interval.ok_or("an interval")?;
    let half = 0.674 * (0.2_f64 * 0.8 / 400.0).sqrt();
    assert!(
        (narrow.low - (0.2 - half)).abs() < 0.006 && (narrow.high - (0.2 + half)).abs() < 0.006,
        "{narrow:?}"
    );
    score.options.resampling = Resampling { n_samples: 0, ..other };
    assert_eq!(score.report()?.words.interval, None);
    Ok(())
}

#[test]
fn translations_are_scored_as_they_are_written() -> Outcome {
    let options = ScoreOptions {
        bleu: Some(BleuOptions::default()),
        chrf: Some(ChrfOptions { word_order: 2, ..ChrfOptions::default() }),
        ter: Some(TerOptions::default()),
        ..options(Normaliser::Basic)
    };
    let segments = [
        ("The dog had bit the man.", "The dog bit the man."),
        ("No one was surprised.", "It wasn't surprising."),
        ("The man had bitten the dog.", "The man had just bitten him."),
    ];
    let (mut score, mut bleu) = (Score::new(options)?, Bleu::new(BleuOptions::default())?);
    let mut edits = Ter::new(TerOptions::default())?;
    for (reference, hypothesis) in segments {
        score.add(reference, hypothesis, 1.0)?;
        bleu.add(hypothesis, &[reference])?;
        edits.add(hypothesis, &[reference])?;
    }
    let report = score.report()?;
    let ours = report.bleu.ok_or("BLEU")?;
    assert_eq!(ours.score, bleu.score()?.score);
    assert_eq!(ours.signature, "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp");
    let interval = ours.interval.ok_or("an interval")?;
    assert!(interval.low < ours.score && ours.score < interval.high, "{interval:?}");
    let chrf = report.chrf.ok_or("chrF")?;
    assert_eq!(chrf.signature, "nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no");
    let interval = chrf.interval.ok_or("an interval")?;
    assert!(interval.low < chrf.score && chrf.score < interval.high, "{interval:?}");
    let ter = report.ter.ok_or("TER")?;
    assert_eq!(ter.score, edits.score()?);
    assert_eq!(ter.signature, "nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no");
    let interval = ter.interval.ok_or("an interval")?;
    assert!(interval.low < ter.score && ter.score < interval.high, "{interval:?}");
    Ok(())
}

#[test]
fn silence_has_counts_and_no_rate() -> Outcome {
    let mut score = Score::new(options(Normaliser::None))?;
    score.add("", "thank you", 10.0)?;
    let report = score.report()?;
    assert_eq!((report.words.errors.insertions, report.words.rate, report.words.interval), (2, None, None));
    assert_eq!(serde_json::to_value(&report)?["words"]["rate"], serde_json::Value::Null);
    // Some draws have nothing but silence: there is a rate, but no interval.
    score.add("one two", "one", 1.0)?;
    let words = score.report()?.words;
    assert_eq!((words.rate, words.interval), (Some(1.5), None));
    Ok(())
}

#[test]
fn what_cannot_be_scored_is_refused() -> Outcome {
    let refused = |options| Score::new(options).map(|_| ()).map_err(|error| error.to_string());
    for edges in [vec![0.0, 1.0], vec![2.0, 2.0], vec![3.0, 1.0], vec![f64::NAN], vec![f64::INFINITY]] {
        let refusal = refused(ScoreOptions { bucket_edges_secs: edges.clone(), ..ScoreOptions::default() });
        assert_eq!(refusal, Err(format!("bucket_edges_secs: {edges:?} must be above 0 and ascending")));
    }
    for confidence in [0.0, 1.0, f64::NAN, 95.0] {
        let resampling = Resampling { confidence, ..Resampling::default() };
        let refusal = refused(ScoreOptions { resampling, ..ScoreOptions::default() });
        assert_eq!(refusal, Err(format!("confidence: {confidence} is not between 0 and 1, both excluded")));
    }
    let mut score = Score::new(ScoreOptions::default())?;
    assert!(matches!(score.report(), Err(Error::Empty)));
    score.add("a", "a", 1.0)?;
    for secs in [-1.0, f64::NAN, f64::INFINITY] {
        let refusal = score.add("a", "a", secs);
        assert!(matches!(refusal, Err(Error::Utterance { index: 1, .. })), "{refusal:?}");
    }
    assert_eq!(score.report()?.n_utterances, 1);
    let options: Result<ScoreOptions, _> = serde_json::from_str(r#"{"normalizer": "basic"}"#);
    assert!(options.is_err_and(|error| error.to_string().contains("normalizer")));
    Ok(())
}

#[test]
fn an_interval_is_never_inside_out() -> Outcome {
    for n_samples in 1..6 {
        let resampling = Resampling { n_samples, confidence: 1e-12, seed: 3 };
        let mut score = Score::new(ScoreOptions { resampling, ..options(Normaliser::None) })?;
        for hypothesis in ["a b", "a", "", "b a"] {
            score.add("a b", hypothesis, 1.0)?;
        }
        let Interval { low, high } = score.report()?.words.interval.ok_or("an interval")?;
        assert!(low <= high, "{n_samples}: {low} {high}");
    }
    Ok(())
}
