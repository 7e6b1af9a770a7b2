use super::*;
use crate::{
    metrics::{Resampling, ScoreOptions},
    text::Normaliser,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// `n_wrong` of 200 references of two words have one word wrong, from `first` on.
fn score(first: usize, n_wrong: usize, options: &ScoreOptions) -> Result<Score, Error> {
    let mut score = Score::new(options.clone())?;
    for i in 0..200 {
        let wrong = (first..first + n_wrong).contains(&i);
        score.add("good word", if wrong { "good ward" } else { "good word" }, 1.0)?;
    }
    Ok(score)
}

#[test]
fn a_better_system_wins_and_an_equal_one_ties() -> Outcome {
    let options = ScoreOptions::default();
    let (words, characters) = compare(&score(0, 40, &options)?, &score(10, 10, &options)?)?;
    assert!((words.baseline - 0.1).abs() < 1e-12 && (words.candidate - 0.025).abs() < 1e-12, "{words:?}");
    assert!((words.difference + 0.075).abs() < 1e-12);
    assert_eq!((words.win_rate, words.tie_rate), (Some(1.0), Some(0.0)));
    assert_eq!((words.n_better, words.n_worse), (30, 0));
    let interval = words.interval.ok_or("an interval")?;
    assert!(
        interval.low < words.difference && words.difference < interval.high && interval.high < 0.0,
        "{interval:?}"
    );
    assert!((characters.baseline - 40.0 / 1800.0).abs() < 1e-12, "{characters:?}");

    let (same, _) = compare(&score(0, 40, &options)?, &score(0, 40, &options)?)?;
    assert_eq!((same.difference, same.win_rate, same.tie_rate), (0.0, Some(0.0), Some(1.0)));
    // As many errors elsewhere: a coin toss.
    let (other, _) = compare(&score(0, 40, &options)?, &score(100, 40, &options)?)?;
    let (win_rate, tie_rate) = (other.win_rate.ok_or("wins")?, other.tie_rate.ok_or("ties")?);
    assert!((win_rate + tie_rate / 2.0 - 0.5).abs() < 0.05, "{other:?}");
    let interval = other.interval.ok_or("an interval")?;
    assert!(interval.low < 0.0 && interval.high > 0.0, "{interval:?}");
    Ok(())
}

#[test]
fn without_resampling_there_is_no_interval() -> Outcome {
    let options = ScoreOptions {
        resampling: Resampling { n_samples: 0, ..Resampling::default() },
        ..ScoreOptions::default()
    };
    let (words, _) = compare(&score(0, 4, &options)?, &score(0, 2, &options)?)?;
    assert_eq!((words.interval, words.win_rate, words.tie_rate, words.n_better), (None, None, None, 2));
    Ok(())
}

#[test]
fn what_is_not_paired_is_refused() -> Outcome {
    let options = ScoreOptions::default();
    let refused = |a: &Score, b: &Score| compare(a, b).map(|_| ()).map_err(|error| error.to_string());
    let baseline = score(0, 1, &options)?;
    assert!(matches!(compare(&Score::new(options.clone())?, &baseline), Err(Error::Empty)));

    let mut longer = score(0, 1, &options)?;
    longer.add("a", "a", 1.0)?;
    assert_eq!(
        refused(&baseline, &longer),
        Err("the systems cannot be compared: one has 200 utterances and the other 201".to_owned())
    );
    let mut third = score(0, 1, &options)?;
    third.add("b", "a", 1.0)?;
    assert_eq!(
        refused(&longer, &third),
        Err("the systems cannot be compared: the references of utterance 200 differ: add the same in the same order"
            .to_owned())
    );
    let basic = ScoreOptions { normaliser: Normaliser::Basic, ..options.clone() };
    assert_eq!(
        refused(&baseline, &score(0, 1, &basic)?),
        Err("the systems cannot be compared: one was normalised with none and the other with basic"
            .to_owned())
    );
    let mut silent = Score::new(options)?;
    silent.add("", "a", 1.0)?;
    assert_eq!(
        refused(&silent, &silent),
        Err("the systems cannot be compared: no utterance has a reference".to_owned())
    );
    Ok(())
}
