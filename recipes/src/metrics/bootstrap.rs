//! How far a score can be trusted: percentile intervals by resampling utterances (Bisani and Ney 2004 for error rates,
//! Koehn 2004 for BLEU).

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde::{Deserialize, Serialize};

use super::Error;

/// How utterances are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resampling {
    /// How often a corpus of the same size is drawn, with replacement; 0 leaves intervals out.
    pub n_samples: usize,
    /// The share of the drawn scores that lies in the interval.
    pub confidence: f64,
    /// Of the random numbers: equal seed and utterances give equal intervals.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { n_samples: 1000, confidence: 0.95, seed: 0 }
    }
}

/// The middle of the drawn scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Resampling {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.confidence > 0.0 && self.confidence < 1.0 {
            return Ok(());
        }
        Err(Error::Option {
            option: "confidence",
            message: format!("{} is not between 0 and 1, both excluded", self.confidence),
        })
    }

    /// The score of each drawn corpus: `score` is given the indices of its utterances. Runs are drawn the same way.
    pub(crate) fn scores<T>(&self, n_utterances: usize, mut score: impl FnMut(&[usize]) -> T) -> Vec<T> {
        if n_utterances == 0 {
            return Vec::new();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut drawn = vec![0; n_utterances];
        let sample = |_| {
            for index in &mut drawn {
                // The high word of the product is uniform below n to one part in 2^64 / n.
                *index = ((u128::from(rng.next_u64()) * n_utterances as u128) >> 64) as usize;
            }
            score(&drawn)
        };
        (0..self.n_samples).map(sample).collect()
    }

    /// The interval of these scores, cut as sacrebleu cuts its own: as many scores below as above. None without
    /// scores or where one is not finite: a drawn corpus with no reference has no error rate.
    pub(crate) fn interval(&self, mut scores: Vec<f64>) -> Option<Interval> {
        if scores.iter().any(|score| !score.is_finite()) {
            return None;
        }
        scores.sort_by(f64::total_cmp);
        let n_outside = (scores.len() as f64 * (1.0 - self.confidence) / 2.0 + 1e-9) as usize;
        let n_outside = n_outside.min(scores.len().saturating_sub(1) / 2);
        let low = *scores.get(n_outside)?;
        let high = *scores.get(scores.len() - 1 - n_outside)?;
        Some(Interval { low, high })
    }
}
