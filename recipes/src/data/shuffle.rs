//! Random order that is the same everywhere: it depends on its key alone, not on what was drawn before, on hash maps
//! or on the version of a library.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What random numbers are drawn for: two uses never share a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// The order of the items of a bucket.
    Items = 1,
    /// The order of the steps.
    Steps = 2,
    /// What synthesised recordings say, and in which voice.
    Synthesis = 3,
    /// Which cuts are joined into utterances.
    Join = 4,
    /// How often a cut is heard in an epoch.
    Weights = 5,
    /// In which voice a text is read.
    Reading = 6,
    /// Which sentences of a grammar there are, and in which voices they are spoken.
    Phrases = 7,
    /// In which voices phrases of a corpus are spoken.
    CorpusPhrases = 8,
    /// Which numbers and digits a voice is learnt from.
    Speech = 9,
    /// Which words and phrases a recogniser of words hears, and in which voices.
    Words = 10,
    /// Where in a recording a stretch begins that is trained on.
    Crops = 11,
    /// Which other recording a voice is told by, and the noise that is carried to speech.
    Prompts = 12,
}

/// The generator of `(seed, epoch, purpose, index)`. All four are its key in full, so neighbouring seeds and epochs
/// have nothing in common.
pub(crate) fn generator(seed: u64, epoch: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, epoch, purpose as u64, index]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Fisher and Yates: all orders are equally likely.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut impl RngCore) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last as u64 + 1, rng) as usize);
    }
}

/// Uniform in 0..1, with all the digits that a number has.
pub(crate) fn uniform(rng: &mut impl RngCore) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform in a range.
pub(crate) fn between([least, most]: [f64; 2], rng: &mut impl RngCore) -> f64 {
    least + (most - least) * uniform(rng)
}

/// Uniform in `0..n`, `n > 0`: the high half of a product, redrawn where some results would be likelier (Lemire 2019).
pub(crate) fn below(n: u64, rng: &mut impl RngCore) -> u64 {
    let unbiased_from = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= unbiased_from {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_key_changes_the_order() {
        let order = |seed, epoch, purpose, index| {
            let mut items: Vec<usize> = (0..20).collect();
            shuffle(&mut items, &mut generator(seed, epoch, purpose, index));
            items
        };
        let base = order(1, 2, Purpose::Items, 3);
        assert_eq!(base, order(1, 2, Purpose::Items, 3));
        for other in [
            order(2, 1, Purpose::Items, 3),
            order(0, 2, Purpose::Items, 3),
            order(1, 3, Purpose::Items, 3),
            order(1, 2, Purpose::Steps, 3),
            order(1, 2, Purpose::Items, 4),
        ] {
            assert_ne!(base, other);
        }
        let mut sorted = base;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }

    /// A checkpoint of one version resumes in the next: the order is part of the format.
    #[test]
    fn the_order_never_changes() {
        let mut items: Vec<usize> = (0..10).collect();
        shuffle(&mut items, &mut generator(42, 0, Purpose::Items, 0));
        assert_eq!(items, [8, 6, 0, 2, 5, 4, 1, 3, 7, 9]);
    }

    #[test]
    fn all_orders_are_equally_likely() {
        let mut rng = generator(7, 0, Purpose::Items, 0);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            shuffle(&mut items, &mut rng);
            *counts.entry(items).or_insert(0usize) += 1;
        }
        assert_eq!(counts.len(), 24);
        // Standard deviation 31.
        assert!(counts.values().all(|count| count.abs_diff(1000) < 150), "{counts:?}");
    }
}
