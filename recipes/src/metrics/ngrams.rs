//! Counts of n-grams, for BLEU over words and for chrF over characters.

use std::collections::BTreeMap;

/// How often each n-gram of one order occurs.
pub(super) type Counts<'a, T> = BTreeMap<&'a [T], usize>;

pub(super) fn count<T: Ord>(units: &[T], order: usize) -> Counts<'_, T> {
    let mut counts = Counts::new();
    for ngram in units.windows(order) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

pub(super) fn total<T>(counts: &Counts<'_, T>) -> usize {
    counts.values().sum()
}

/// N-grams that both have, each as often as in the one that has it less often.
pub(super) fn matches<T: Ord>(hypothesis: &Counts<'_, T>, reference: &Counts<'_, T>) -> usize {
    hypothesis.iter().map(|(ngram, n)| reference.get(ngram).map_or(0, |m| *n.min(m))).sum()
}
