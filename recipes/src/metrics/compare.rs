//! Whether one system is better than another on the same utterances: the paired bootstrap.

use serde::{Deserialize, Serialize};

use super::{Error, Errors, Interval, Score, score::Utterance};

/// Two systems by one error rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The rate of the first.
    pub baseline: f64,
    /// The rate of the second.
    pub candidate: f64,
    /// By how much the candidate's is higher; below 0 it is better.
    pub difference: f64,
    /// Where the difference lies; none where resampling was turned off or a resample has no reference.
    pub interval: Option<Interval>,
    /// The share of resamples in which the candidate is better: Bisani and Ney's probability of improvement. None
    /// where there is no interval.
    pub win_rate: Option<f64>,
    /// The share of resamples in which both are equally good.
    pub tie_rate: Option<f64>,
    /// Utterances on which the candidate made fewer errors.
    pub n_better: usize,
    /// Utterances on which it made more.
    pub n_worse: usize,
}

/// The word error rates and the character error rates of two systems that were scored on the same utterances in the same
/// order, with the same normaliser. Resampling follows the baseline's options; both see the same draws.
pub fn compare(baseline: &Score, candidate: &Score) -> Result<(Comparison, Comparison), Error> {
    let (a, b) = (baseline.utterances(), candidate.utterances());
    if a.is_empty() {
        return Err(Error::Empty);
    }
    if a.len() != b.len() {
        return Err(Error::Unpaired(format!("one has {} utterances and the other {}", a.len(), b.len())));
    }
    let (one, other) = (baseline.options().normaliser, candidate.options().normaliser);
    if one != other {
        return Err(Error::Unpaired(format!("one was normalised with {one} and the other with {other}")));
    }
    if let Some(index) = a.iter().zip(b).position(|(a, b)| a.reference != b.reference) {
        return Err(Error::Unpaired(format!(
            "the references of utterance {index} differ: add the same in the same order"
        )));
    }
    let by = |errors: fn(&Utterance) -> Errors| {
        let pairs: Vec<_> = a.iter().zip(b).map(|(a, b)| (errors(a), errors(b))).collect();
        compare_pairs(baseline, &pairs)
    };
    Ok((by(|utterance| utterance.words)?, by(|utterance| utterance.characters)?))
}

fn compare_pairs(options: &Score, pairs: &[(Errors, Errors)]) -> Result<Comparison, Error> {
    let sum = |pairs: &mut dyn Iterator<Item = (Errors, Errors)>| {
        pairs.fold((Errors::default(), Errors::default()), |(a, b), pair| (a + pair.0, b + pair.1))
    };
    let (a, b) = sum(&mut pairs.iter().copied());
    if a.n_reference == 0 {
        return Err(Error::Unpaired("no utterance has a reference".to_owned()));
    }
    let resampling = &options.options().resampling;
    let differences = resampling.scores(pairs.len(), |drawn| {
        let (a, b) = sum(&mut drawn.iter().map(|i| pairs[*i]));
        // Both have the same reference: whole numbers make a tie a tie.
        (b.errors() as f64 - a.errors() as f64) / a.n_reference as f64
    });
    let share = |test: fn(f64) -> bool| {
        differences.iter().filter(|difference| test(**difference)).count() as f64 / differences.len() as f64
    };
    let (win_rate, tie_rate) = (share(|difference| difference < 0.0), share(|difference| difference == 0.0));
    let interval = resampling.interval(differences);
    Ok(Comparison {
        baseline: a.rate(),
        candidate: b.rate(),
        difference: (b.errors() as f64 - a.errors() as f64) / a.n_reference as f64,
        interval,
        win_rate: interval.map(|_| win_rate),
        tie_rate: interval.map(|_| tie_rate),
        n_better: pairs.iter().filter(|(a, b)| b.errors() < a.errors()).count(),
        n_worse: pairs.iter().filter(|(a, b)| b.errors() > a.errors()).count(),
    })
}

#[cfg(test)]
mod tests;
