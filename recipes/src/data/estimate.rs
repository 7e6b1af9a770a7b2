//! A bucket table from data: duration buckets that hold equal shares of the audio, divided into buckets that hold equal
//! shares of the tokens.
//!
//! lhotse `dynamic_bucketing.py: estimate_duration_buckets` and NeMo `estimate_duration_bins_2d.py`, with these
//! differences: bounds are rounded up (rounding down moves the item that made the bound into the next bucket), a
//! bucket's tokens are counted over the items that will be assigned to it, and equal rates leave no outlier.

use serde::{Deserialize, Serialize};

use super::{Bucket, BucketTable, Error, Fit, Length};

/// How to estimate a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketEstimate {
    /// Duration buckets.
    pub n_duration_buckets: usize,
    /// Token buckets of each; `None` for a one-dimensional table.
    pub n_token_buckets: Option<usize>,
    /// Shortest item that is taken.
    pub min_duration_secs: f64,
    /// Longest item that is taken and the last bucket's bound; `None` for the longest that there is.
    pub max_duration_secs: Option<f64>,
    /// Items whose tokens per second are more than so many standard deviations above the mean of their duration bucket
    /// are left out, and a strict table rejects them: they would decide how much memory the whole bucket needs.
    pub outlier_z: f64,
    /// How the table assigns.
    pub fit: Fit,
}

impl Default for BucketEstimate {
    /// The best division of 100 buckets for speech of ordinary spread (`tests/padding.rs` measures it): fewer duration
    /// buckets pad the audio more, fewer token buckets the tokens. A corpus of a few hours wants fewer of both: it
    /// ends with a batch that is not full in each bucket.
    fn default() -> Self {
        Self {
            n_duration_buckets: 25,
            n_token_buckets: Some(4),
            min_duration_secs: 0.0,
            max_duration_secs: None,
            outlier_z: 4.0,
            fit: Fit::Strict,
        }
    }
}

impl BucketEstimate {
    /// The table of `lengths`, in O(n log n). Equal bounds are merged: k duration buckets that end at the same
    /// duration become one with k times the token buckets.
    ///
    /// # Errors
    /// Settings without sense, and more duration buckets than items.
    pub fn table(&self, lengths: &[Length]) -> Result<BucketTable, Error> {
        self.check()?;
        let taken = self.min_duration_secs..=self.max_duration_secs.unwrap_or(f64::INFINITY);
        let is_taken = |length: &Length| length.is_valid() && taken.contains(&length.duration_secs);
        let mut lengths: Vec<Length> = lengths.iter().copied().filter(is_taken).collect();
        if lengths.len() < self.n_duration_buckets {
            return Err(Error::setting(
                "n_duration_buckets",
                self.n_duration_buckets,
                format!("there are only {} items to estimate buckets from", lengths.len()),
            ));
        }
        lengths.sort_unstable_by(|a, b| {
            a.duration_secs.total_cmp(&b.duration_secs).then(a.n_tokens.cmp(&b.n_tokens))
        });
        let mut buckets = Vec::new();
        let mut start = 0;
        for (max_duration_secs, n_merged) in self.duration_bounds(&lengths) {
            let end = lengths.partition_point(|length| length.duration_secs <= max_duration_secs);
            let Some(n_token_buckets) = self.n_token_buckets else {
                buckets.push(Bucket { max_duration_secs, max_tokens: None, max_tokens_per_sec: None });
                continue;
            };
            let (max_tokens, max_rate) = self.token_bounds(&lengths[start..end], n_merged * n_token_buckets);
            let max_tokens_per_sec = (self.fit == Fit::Strict).then_some(max_rate);
            buckets.extend(max_tokens.into_iter().map(|max| Bucket {
                max_duration_secs,
                max_tokens: Some(max),
                max_tokens_per_sec,
            }));
            start = end;
        }
        BucketTable::new(buckets, self.fit)
    }

    fn check(&self) -> Result<(), Error> {
        if self.n_duration_buckets == 0 {
            return Err(Error::setting("n_duration_buckets", 0, "must be at least 1"));
        }
        if self.n_token_buckets == Some(0) {
            return Err(Error::setting(
                "n_token_buckets",
                0,
                "must be at least 1; leave it out for one dimension",
            ));
        }
        if !(self.min_duration_secs.is_finite() && self.min_duration_secs >= 0.0) {
            return Err(Error::setting(
                "min_duration_secs",
                self.min_duration_secs,
                "must be a number from 0",
            ));
        }
        if let Some(secs) = self.max_duration_secs.filter(|secs| !(secs.is_finite() && *secs > 0.0)) {
            return Err(Error::setting("max_duration_secs", secs, "must be a positive number"));
        }
        if self.outlier_z.is_nan() || self.outlier_z < 0.0 {
            return Err(Error::setting("outlier_z", self.outlier_z, "must be a number from 0"));
        }
        Ok(())
    }

    /// Bounds of the duration buckets, each with the number of buckets that were merged into it. `lengths` are sorted.
    fn duration_bounds(&self, lengths: &[Length]) -> Vec<(f64, usize)> {
        let Some(longest) = lengths.last().map(|length| length.duration_secs) else { return Vec::new() };
        let last = self.max_duration_secs.unwrap_or_else(|| round_up(longest));
        let durations: Vec<f64> = lengths.iter().map(|length| length.duration_secs).collect();
        let bounds = equal_shares(&durations, self.n_duration_buckets).into_iter().map(round_up);
        let mut merged: Vec<(f64, usize)> = Vec::new();
        // A bound that nothing lies above is the last one: a bucket for what is longer would be empty.
        for bound in bounds.map(|bound| if bound >= longest { last } else { bound }).chain([last]) {
            match merged.last_mut() {
                Some((end, n_merged)) if *end == bound => *n_merged += 1,
                _ => merged.push((bound, 1)),
            }
        }
        merged
    }

    /// Bounds of the token buckets of one duration bucket, and the most tokens per second among those that are no
    /// outliers. There is at least one length.
    fn token_bounds(&self, lengths: &[Length], n_buckets: usize) -> (Vec<u32>, f64) {
        let rates: Vec<f64> = lengths.iter().map(|length| length.tokens_per_sec()).collect();
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let std = (rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64).sqrt();
        // Not (rate - mean) / std, which is no number when all are equal.
        let is_outlier = |rate: f64| rate - mean > self.outlier_z * std && std > f64::EPSILON * mean;
        let kept = || lengths.iter().zip(&rates).filter(|(_, rate)| !is_outlier(**rate));
        let max_rate = kept().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let mut tokens: Vec<u32> = kept().map(|(length, _)| length.n_tokens).collect();
        tokens.sort_unstable();
        let counts: Vec<f64> = tokens.iter().map(|&n| f64::from(n)).collect();
        // Counts below 2^32 are exact in f64, so is their sum.
        let mut bounds: Vec<u32> = equal_shares(&counts, n_buckets).into_iter().map(|n| n as u32).collect();
        bounds.extend(tokens.last());
        bounds.dedup();
        (bounds, round_up(max_rate))
    }
}

impl BucketTable {
    /// A one-dimensional table whose bounds are equally far apart, the last at `max_secs` (NeMo
    /// `determine_bucket_duration_bins`): for when there is nothing to estimate from.
    ///
    /// # Errors
    /// When there is no bucket, or `min_secs` and `max_secs` are not ascending numbers from 0.
    pub fn uniform(min_secs: f64, max_secs: f64, n_buckets: usize) -> Result<Self, Error> {
        if !(min_secs.is_finite() && min_secs >= 0.0) {
            return Err(Error::setting("min_secs", min_secs, "must be a number from 0"));
        }
        if !(max_secs.is_finite() && max_secs > min_secs) {
            return Err(Error::setting("max_secs", max_secs, format!("must be a number above {min_secs}")));
        }
        let step = (max_secs - min_secs) / n_buckets as f64;
        let inner = (1..n_buckets).map(|bucket| round_up(min_secs + step * bucket as f64).min(max_secs));
        let mut bounds: Vec<f64> = inner.chain((n_buckets > 0).then_some(max_secs)).collect();
        bounds.dedup();
        Self::of_durations(&bounds)
    }
}

/// Bounds inside the ascending `lengths` that part them into at most `n` runs of equal sums: an item becomes a bound
/// when what came before it since the last bound exceeds a share.
pub(super) fn equal_shares(lengths: &[f64], n: usize) -> Vec<f64> {
    let share = lengths.iter().sum::<f64>() / n as f64;
    let mut bounds = Vec::new();
    let mut total = 0.0;
    for &length in lengths {
        if total > share {
            bounds.push(length);
            total = 0.0;
        }
        total += length;
    }
    bounds
}

/// The next number of at most three decimals. Such numbers survive being written as decimals and read again.
fn round_up(value: f64) -> f64 {
    let nearest = (value * 1e3).round();
    if nearest / 1e3 >= value { nearest / 1e3 } else { (nearest + 1.0) / 1e3 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(durations: &[f64]) -> Vec<Length> {
        durations.iter().map(|&secs| Length::new(secs, 1)).collect()
    }

    fn one_dimension(n_duration_buckets: usize) -> BucketEstimate {
        BucketEstimate { n_duration_buckets, n_token_buckets: None, ..BucketEstimate::default() }
    }

    fn bounds(table: &BucketTable) -> Vec<(f64, u32)> {
        let bound = |bucket: &Bucket| (bucket.max_duration_secs, bucket.max_tokens.unwrap_or_default());
        table.buckets().iter().map(bound).collect()
    }

    /// Known values of lhotse's tests.
    #[test]
    fn duration_buckets_hold_equal_shares_of_the_audio() {
        let two = [[1.0; 5], [2.0; 5]].concat();
        assert_eq!(equal_shares(&two, 2), [2.0]);
        let four = [[1.0; 5], [2.0; 5], [3.0; 5], [4.0; 5]].concat();
        assert_eq!(equal_shares(&four, 4), [2.0, 3.0, 4.0]);
        // The last bound is that of the longest item: one bucket less where it is a bound already.
        let estimate = |n, durations: &[f64]| bounds(&one_dimension(n).table(&seconds(durations)).unwrap());
        assert_eq!(estimate(2, &two), [(2.0, 0)]);
        assert_eq!(estimate(4, &four), [(2.0, 0), (3.0, 0), (4.0, 0)]);
        let limited = BucketEstimate { max_duration_secs: Some(3.5), ..one_dimension(2) };
        assert_eq!(bounds(&limited.table(&seconds(&four)).unwrap()), [(3.5, 0)]);
        let limited = BucketEstimate { max_duration_secs: Some(9.0), ..one_dimension(4) };
        assert_eq!(bounds(&limited.table(&seconds(&four)).unwrap()), [(2.0, 0), (3.0, 0), (9.0, 0)]);
        let limited = BucketEstimate { min_duration_secs: 1.5, ..one_dimension(3) };
        assert_eq!(bounds(&limited.table(&seconds(&four)).unwrap()), [(3.0, 0), (4.0, 0)]);
    }

    #[test]
    fn merged_duration_buckets_have_more_token_buckets() {
        // Half of the audio lies in clips of 30 s: their duration buckets fall together.
        let mut lengths: Vec<Length> = (1..=60).map(|n| Length::new(f64::from(n % 10 + 1), 10)).collect();
        lengths.extend((0..100).map(|n| Length::new(30.0, 100 + n)));
        let estimate =
            BucketEstimate { n_duration_buckets: 10, n_token_buckets: Some(2), ..BucketEstimate::default() };
        let table = estimate.table(&lengths).unwrap();
        let of_30 = table.buckets().iter().filter(|bucket| bucket.max_duration_secs == 30.0).count();
        // 3330 s of audio in ten shares of 333: the first runs from 1 s into the 30 s clips, which fill the rest, so all
        // ten end at 30 s. Of twenty shares of the tokens eighteen are used: each one is exceeded a little.
        assert_eq!((table.buckets().len(), of_30), (18, 18));
        assert!(table.buckets().iter().all(|bucket| bucket.max_tokens_per_sec.is_some()));
        for &length in &lengths {
            assert!(table.assign(length).is_ok(), "{length:?}");
        }
    }

    #[test]
    fn only_those_who_speak_far_too_fast_are_outliers() {
        // Rates of 10 and one of 40 and one of 0: with 98 equal ones, the deviation is 3.15 and z is 9.4.
        let mut lengths: Vec<Length> = (0..98).map(|_| Length::new(5.0, 50)).collect();
        lengths.extend([Length::new(5.0, 200), Length::new(5.0, 0)]);
        let estimate =
            BucketEstimate { n_duration_buckets: 1, n_token_buckets: Some(1), ..BucketEstimate::default() };
        let table = estimate.table(&lengths).unwrap();
        assert_eq!(bounds(&table), [(5.0, 50)]);
        assert_eq!(table.buckets()[0].max_tokens_per_sec, Some(10.0));
        let patient = BucketEstimate { outlier_z: 10.0, ..estimate.clone() }.table(&lengths).unwrap();
        assert_eq!(bounds(&patient), [(5.0, 200)]);
        // All equal: no deviation, no outlier; a third is no exact number.
        let equal = vec![Length::new(0.3, 7); 30];
        assert_eq!(bounds(&estimate.table(&equal).unwrap()), [(0.3, 7)]);
        // A lenient table does not look at rates.
        let lenient = BucketEstimate { fit: Fit::Lenient, ..estimate }.table(&lengths).unwrap();
        assert_eq!(lenient.buckets()[0].max_tokens_per_sec, None);
    }

    #[test]
    fn bounds_are_rounded_up() {
        for (value, expected) in [(1.0, 1.0), (1.2344, 1.235), (1.2346, 1.235), (8.2, 8.2), (16.1, 16.1)] {
            assert_eq!(round_up(value), expected);
        }
        let table = one_dimension(2).table(&seconds(&[1.0001, 1.0002, 2.0001, 2.0004])).unwrap();
        assert_eq!(bounds(&table), [(2.001, 0)]);
    }

    #[test]
    fn uniform_bounds_end_at_the_longest() {
        let table = BucketTable::uniform(0.0, 30.0, 3).unwrap();
        assert_eq!(bounds(&table), [(10.0, 0), (20.0, 0), (30.0, 0)]);
        let thirds = BucketTable::uniform(0.5, 10.0, 3).unwrap();
        assert_eq!(bounds(&thirds), [(3.667, 0), (6.834, 0), (10.0, 0)]);
        for (min, max, n) in [(0.0, 30.0, 0), (5.0, 5.0, 2), (-1.0, 5.0, 2), (0.0, f64::INFINITY, 2)] {
            assert!(BucketTable::uniform(min, max, n).is_err(), "{min} {max} {n}");
        }
    }

    #[test]
    fn settings_without_sense_are_refused() {
        let lengths = seconds(&[1.0, 2.0]);
        for estimate in [
            one_dimension(0),
            one_dimension(3),
            BucketEstimate { n_token_buckets: Some(0), ..one_dimension(1) },
            BucketEstimate { min_duration_secs: f64::NAN, ..one_dimension(1) },
            BucketEstimate { max_duration_secs: Some(0.0), ..one_dimension(1) },
            BucketEstimate { max_duration_secs: Some(0.5), ..one_dimension(1) },
            BucketEstimate { outlier_z: f64::NAN, ..one_dimension(1) },
        ] {
            assert!(estimate.table(&lengths).is_err(), "{estimate:?}");
        }
        assert!(one_dimension(2).table(&seconds(&[f64::NAN, -1.0, 0.0])).is_err());
    }

    proptest! {
        /// Whatever the data, every item but the outliers has a bucket, and there are no more than were asked for.
        #[test]
        fn estimated_tables_take_the_data(
            items in prop::collection::vec((0.01..40f64, 0u32..500), 8..200),
            n_duration_buckets in 1usize..8,
            n_token_buckets in prop::option::of(1usize..4),
            lenient in any::<bool>(),
        ) {
            let lengths: Vec<Length> =
                items.iter().map(|&(secs, tokens)| Length::new(secs, tokens)).collect();
            let fit = if lenient { Fit::Lenient } else { Fit::Strict };
            let estimate = BucketEstimate {
                n_duration_buckets, n_token_buckets, fit, outlier_z: f64::INFINITY, ..BucketEstimate::default()
            };
            let table = estimate.table(&lengths).unwrap();
            prop_assert!(table.buckets().len() <= n_duration_buckets * n_token_buckets.unwrap_or(1));
            for &length in &lengths {
                prop_assert!(table.assign(length).is_ok(), "{length:?} in {table:?}");
            }
            let stored: BucketTable =
                serde_json::from_str(&serde_json::to_string(&table).unwrap()).unwrap();
            prop_assert_eq!(stored.digest(), table.digest());
        }
    }
}
