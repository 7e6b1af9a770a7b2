//! The largest batch of each bucket that fits into memory, by trial.
//!
//! NeMo `scripts/speech_recognition/oomptimizer.py`: from the largest bucket to the smallest, double until a batch does
//! not fit, halve until one does, then bisect. Unlike it, the search ends when not even one item fits, and batch sizes
//! never grow with the length.

use serde::{Deserialize, Serialize};

use super::{Bucket, BucketTable, Constraint, Error, Length};

/// Says whether a training step fits into memory.
///
/// An oracle that runs steps on a device makes the optimiser's moments before the first trial (they appear only after
/// the first step, and then the largest batch no longer fits), keeps the allocator's cache between trials as training
/// would, and runs trials in a child process where a failed allocation poisons the device's context.
pub trait MemoryOracle {
    /// Whether `batch_size` items as long as `longest` fit: forward, backward and the optimiser's step.
    ///
    /// # Errors
    /// When it cannot be told: anything but a lack of memory.
    fn fits(&mut self, longest: Length, batch_size: usize) -> anyhow::Result<bool>;
}

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSizeSearch {
    /// First size that is tried in the largest bucket; smaller buckets start from double the size before.
    pub start: usize,
    /// Ends when the smallest failure is above the largest success by no more than this share of itself, or by one.
    pub relative_gap: f64,
    /// Largest size that is tried.
    pub max_batch_size: usize,
    /// Output tokens per second of a bucket's longest item, where the table does not bound tokens.
    pub tokens_per_sec: f64,
    /// Output tokens that an item may have beyond what its bucket bounds.
    pub extra_tokens: u32,
    /// Output tokens of any item.
    pub max_tokens: Option<u32>,
}

impl Default for BatchSizeSearch {
    fn default() -> Self {
        Self {
            start: 32,
            relative_gap: 0.05,
            max_batch_size: 4096,
            tokens_per_sec: 12.0,
            extra_tokens: 0,
            max_tokens: None,
        }
    }
}

/// One question to the oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Index of the bucket in the table that was searched.
    pub bucket: usize,
    /// Items.
    pub batch_size: usize,
    /// The answer.
    pub fits: bool,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchSizes {
    /// The buckets; in one dimension neighbours of equal size are merged.
    pub table: BucketTable,
    /// Items of a batch of each bucket.
    pub batch_sizes: Vec<usize>,
    /// Everything that was asked, in order.
    pub trials: Vec<Trial>,
}

impl BatchSizeSearch {
    /// Searches all buckets of `table`.
    ///
    /// # Errors
    /// Settings without sense; [`Error::Unfit`] for a bucket of which not even one item fits; [`Error::Trial`] when the
    /// oracle fails.
    pub fn run(&self, table: &BucketTable, oracle: &mut dyn MemoryOracle) -> Result<BatchSizes, Error> {
        self.check()?;
        let mut trials = Vec::new();
        let mut sizes = vec![0; table.buckets().len()];
        let mut start = self.start;
        for (bucket, bounds) in table.buckets().iter().enumerate().rev() {
            let longest = self.longest(bounds);
            let mut fits = |batch_size| {
                let answer = oracle.fits(longest, batch_size);
                let fits = answer.map_err(|source| Error::Trial { bucket, batch_size, source })?;
                trials.push(Trial { bucket, batch_size, fits });
                Ok(fits)
            };
            let Length { duration_secs, n_tokens } = longest;
            let unfit = Error::Unfit { bucket, duration_secs, n_tokens };
            sizes[bucket] = self.largest(start, &mut fits)?.ok_or(unfit)?;
            start = sizes[bucket].saturating_mul(2);
        }
        let sizes = descending(table.buckets(), &sizes);
        if table.is_2d() {
            return Ok(BatchSizes { table: table.clone(), batch_sizes: sizes, trials });
        }
        let (table, batch_sizes) = merge_equal(table, &sizes)?;
        Ok(BatchSizes { table, batch_sizes, trials })
    }

    /// The search for items of these lengths, of which the fastest speaker may be in any bucket: the table, of which buckets of equal
    /// sizes may have become one, and the items of a batch of each.
    ///
    /// # Errors
    /// As [`BatchSizeSearch::run`].
    pub fn fit(
        self,
        table: &BucketTable,
        lengths: &[Length],
        oracle: &mut dyn MemoryOracle,
    ) -> Result<(BucketTable, Vec<usize>), Error> {
        let taken = lengths.iter().filter(|length| table.assign(**length).is_ok());
        let tokens_per_sec = taken.map(|length| length.tokens_per_sec()).fold(0.0, f64::max);
        let BatchSizes { table, batch_sizes, .. } = Self { tokens_per_sec, ..self }.run(table, oracle)?;
        Ok((table, batch_sizes))
    }

    fn check(&self) -> Result<(), Error> {
        for (name, value) in [("start", self.start), ("max_batch_size", self.max_batch_size)] {
            if value == 0 {
                return Err(Error::setting(name, 0, "must be at least 1"));
            }
        }
        if !(self.relative_gap >= 0.0 && self.relative_gap < 1.0) {
            return Err(Error::setting("relative_gap", self.relative_gap, "must be from 0 to below 1"));
        }
        if !(self.tokens_per_sec.is_finite() && self.tokens_per_sec >= 0.0) {
            return Err(Error::setting("tokens_per_sec", self.tokens_per_sec, "must be a number from 0"));
        }
        Ok(())
    }

    /// The largest item that a bucket takes.
    fn longest(&self, bucket: &Bucket) -> Length {
        let estimate = || (self.tokens_per_sec * bucket.max_duration_secs).ceil() as u32;
        let n_tokens = bucket.max_tokens.unwrap_or_else(estimate).saturating_add(self.extra_tokens);
        Length::new(bucket.max_duration_secs, n_tokens.min(self.max_tokens.unwrap_or(u32::MAX)))
    }

    /// The largest size that fits, as far as the gap lets it be known; `None` when one item does not.
    fn largest(
        &self,
        start: usize,
        fits: &mut dyn FnMut(usize) -> Result<bool, Error>,
    ) -> Result<Option<usize>, Error> {
        let (mut success, mut failure) = (None, None);
        let mut size = start.clamp(1, self.max_batch_size);
        loop {
            if fits(size)? {
                success = Some(size);
            } else {
                failure = Some(size);
            }
            size = match (success, failure) {
                (Some(success), None) if success >= self.max_batch_size => return Ok(Some(success)),
                (Some(success), None) => success.saturating_mul(2).min(self.max_batch_size),
                (None, Some(failure)) if failure > 1 => failure / 2,
                (Some(success), Some(failure)) => {
                    let gap = failure - success;
                    if gap <= 1 || gap as f64 / failure as f64 <= self.relative_gap {
                        return Ok(Some(success));
                    }
                    success + gap / 2
                }
                _ => return Ok(None),
            };
        }
    }
}

/// Lowers sizes so that no bucket has a larger one than a bucket that is no longer in either dimension. Lowered ones
/// certainly fit; raising the others would trust a neighbour more than a trial.
fn descending(buckets: &[Bucket], sizes: &[usize]) -> Vec<usize> {
    let is_within =
        |a: &Bucket, b: &Bucket| a.max_duration_secs <= b.max_duration_secs && a.max_tokens <= b.max_tokens;
    let smallest = |bucket: &Bucket| {
        let within = buckets.iter().zip(sizes).filter(|(other, _)| is_within(other, bucket));
        within.map(|(_, &size)| size).min().unwrap_or(0)
    };
    buckets.iter().map(smallest).collect()
}

/// Merges neighbours of equal size in a one-dimensional table: the longer one takes the items of both.
fn merge_equal(table: &BucketTable, sizes: &[usize]) -> Result<(BucketTable, Vec<usize>), Error> {
    let mut merged: Vec<(Bucket, usize)> = Vec::new();
    for (&bucket, &size) in table.buckets().iter().zip(sizes) {
        match merged.last_mut() {
            Some((last, last_size)) if *last_size == size => {
                let rates = last.max_tokens_per_sec.zip(bucket.max_tokens_per_sec);
                *last = Bucket { max_tokens_per_sec: rates.map(|(a, b)| a.max(b)), ..bucket };
            }
            _ => merged.push((bucket, size)),
        }
    }
    let (buckets, sizes) = merged.into_iter().unzip();
    Ok((BucketTable::new(buckets, table.fit())?, sizes))
}

/// What batch sizes depend on besides the buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileKey {
    /// Digest of the model's configuration.
    pub model: String,
    /// Data type of weights and activations.
    pub dtype: String,
    /// Device and its memory, as the device tells them.
    pub device: String,
    /// Optimiser: its moments need memory.
    pub optimizer: String,
    /// Whether activations are computed again in the backward pass instead of being kept.
    pub gradient_checkpointing: bool,
}

/// Batch sizes to be stored and used again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSizeProfile {
    /// What they were found for.
    pub key: ProfileKey,
    /// The buckets.
    pub table: BucketTable,
    /// Items of a batch of each bucket.
    pub batch_sizes: Vec<usize>,
}

impl BatchSizeProfile {
    /// A profile of what a search found.
    pub fn new(key: ProfileKey, found: &BatchSizes) -> Self {
        Self { key, table: found.table.clone(), batch_sizes: found.batch_sizes.clone() }
    }

    /// The constraint that goes with the profile's table, for a run with this key.
    ///
    /// # Errors
    /// [`Error::OtherProfile`] when the sizes were found for something else; sizes that don't go with the table.
    pub fn constraint(&self, key: &ProfileKey) -> Result<Constraint, Error> {
        let (stored, wanted) = (&self.key, key);
        let fields = [
            ("model", stored.model.clone(), wanted.model.clone()),
            ("dtype", stored.dtype.clone(), wanted.dtype.clone()),
            ("device", stored.device.clone(), wanted.device.clone()),
            ("optimizer", stored.optimizer.clone(), wanted.optimizer.clone()),
            (
                "gradient_checkpointing",
                stored.gradient_checkpointing.to_string(),
                wanted.gradient_checkpointing.to_string(),
            ),
        ];
        if let Some((field, stored, wanted)) = fields.into_iter().find(|(_, stored, wanted)| stored != wanted)
        {
            return Err(Error::OtherProfile { field, stored, wanted });
        }
        let constraint = Constraint::BatchSizes { batch_sizes: self.batch_sizes.clone() };
        constraint.check(self.table.buckets().len())?;
        Ok(constraint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::Fit;

    /// Fits a fixed number of padded seconds and of padded tokens.
    struct Capacity {
        secs: f64,
        tokens: u64,
    }

    impl MemoryOracle for Capacity {
        fn fits(&mut self, longest: Length, batch_size: usize) -> anyhow::Result<bool> {
            let tokens = batch_size as u64 * u64::from(longest.n_tokens);
            Ok(batch_size as f64 * longest.duration_secs <= self.secs && tokens <= self.tokens)
        }
    }

    fn trace(capacity: usize) -> (Vec<usize>, Vec<usize>) {
        let table = BucketTable::of_durations(&[1.0]).unwrap();
        let mut oracle = Capacity { secs: capacity as f64, tokens: u64::MAX };
        let found = BatchSizeSearch::default().run(&table, &mut oracle).unwrap();
        (found.trials.iter().map(|trial| trial.batch_size).collect(), found.batch_sizes)
    }

    #[test]
    fn sizes_are_doubled_halved_and_bisected() {
        assert_eq!(trace(100), (vec![32, 64, 128, 96, 112, 104, 100], vec![100]));
        assert_eq!(trace(7), (vec![32, 16, 8, 4, 6, 7], vec![7]));
        assert_eq!(trace(1), (vec![32, 16, 8, 4, 2, 1], vec![1]));
        assert_eq!(trace(32).1, [32]);
        // Everything fits: the search ends all the same.
        assert_eq!(trace(usize::MAX), (vec![32, 64, 128, 256, 512, 1024, 2048, 4096], vec![4096]));
    }

    #[test]
    fn what_cannot_fit_is_told() {
        let table = BucketTable::of_durations(&[2.0, 5.0]).unwrap();
        let mut oracle = Capacity { secs: 4.0, tokens: u64::MAX };
        let error = BatchSizeSearch::default().run(&table, &mut oracle).unwrap_err();
        assert!(matches!(error, Error::Unfit { bucket: 1, n_tokens: 60, .. }), "{error}");

        struct Broken;
        impl MemoryOracle for Broken {
            fn fits(&mut self, _: Length, _: usize) -> anyhow::Result<bool> {
                anyhow::bail!("the device is gone")
            }
        }
        let error = BatchSizeSearch::default().run(&table, &mut Broken).unwrap_err();
        assert!(matches!(error, Error::Trial { bucket: 1, batch_size: 32, .. }), "{error}");
        let settings = BatchSizeSearch::default();
        for bad in [
            BatchSizeSearch { start: 0, ..settings },
            BatchSizeSearch { max_batch_size: 0, ..settings },
            BatchSizeSearch { relative_gap: 1.0, ..settings },
            BatchSizeSearch { relative_gap: f64::NAN, ..settings },
            BatchSizeSearch { tokens_per_sec: f64::INFINITY, ..settings },
        ] {
            assert!(matches!(bad.run(&table, &mut oracle), Err(Error::Setting { .. })), "{bad:?}");
        }
    }

    #[test]
    fn smaller_buckets_start_from_double_the_size_before() {
        let table = BucketTable::of_durations(&[5.0, 10.0, 20.0]).unwrap();
        let mut oracle = Capacity { secs: 200.0, tokens: u64::MAX };
        let found = BatchSizeSearch::default().run(&table, &mut oracle).unwrap();
        assert_eq!(found.batch_sizes, [40, 20, 10]);
        let first = |bucket| found.trials.iter().find(|trial| trial.bucket == bucket).unwrap().batch_size;
        assert_eq!([2, 1, 0].map(first), [32, 20, 40]);
    }

    #[test]
    fn equal_neighbours_are_merged_in_one_dimension_only() {
        let search = BatchSizeSearch { max_batch_size: 16, ..BatchSizeSearch::default() };
        let mut oracle = Capacity { secs: 100.0, tokens: u64::MAX };
        let table = BucketTable::of_durations(&[1.0, 2.0, 5.0, 10.0]).unwrap();
        let found = search.run(&table, &mut oracle).unwrap();
        assert_eq!(found.table, BucketTable::of_durations(&[5.0, 10.0]).unwrap());
        assert_eq!(found.batch_sizes, [16, 10]);
        let bucket = |secs, tokens| Bucket {
            max_duration_secs: secs,
            max_tokens: Some(tokens),
            max_tokens_per_sec: None,
        };
        let table =
            BucketTable::new(vec![bucket(1.0, 5), bucket(1.0, 9), bucket(2.0, 9)], Fit::Strict).unwrap();
        let found = search.run(&table, &mut oracle).unwrap();
        assert_eq!((found.table, found.batch_sizes), (table, vec![16, 16, 16]));
    }

    #[test]
    fn stored_sizes_are_used_for_what_they_were_found() {
        let key = ProfileKey {
            model: "3f".to_owned(),
            dtype: "bf16".to_owned(),
            device: "cuda:0 80 GB".to_owned(),
            optimizer: "adamw".to_owned(),
            gradient_checkpointing: false,
        };
        let table = BucketTable::of_durations(&[5.0, 10.0]).unwrap();
        let mut oracle = Capacity { secs: 100.0, tokens: u64::MAX };
        let found = BatchSizeSearch::default().run(&table, &mut oracle).unwrap();
        let profile = BatchSizeProfile::new(key.clone(), &found);
        let text = serde_json::to_string(&profile).unwrap();
        let stored: BatchSizeProfile = serde_json::from_str(&text).unwrap();
        assert_eq!(stored, profile);
        let expected = Constraint::BatchSizes { batch_sizes: vec![20, 10] };
        assert_eq!(stored.constraint(&key).unwrap(), expected);
        let other = ProfileKey { gradient_checkpointing: true, ..key.clone() };
        let error = stored.constraint(&other).unwrap_err();
        assert!(
            error.to_string().contains("gradient_checkpointing `false` and this run has `true`"),
            "{error}"
        );
        let broken = BatchSizeProfile { batch_sizes: vec![20], ..stored };
        assert!(broken.constraint(&key).is_err());
    }

    proptest! {
        /// An oracle that is now and then wrong, as fragmented memory is, does not make larger buckets larger.
        #[test]
        fn sizes_never_grow_with_the_length(
            durations in prop::collection::btree_set(1u32..40, 1..5),
            tokens in prop::collection::btree_set(1u32..40, 1..4),
            secs in 40.0..5_000f64,
            whims in prop::collection::vec(0.7..1f64, 1..9),
        ) {
            struct Moody { secs: f64, whims: Vec<f64>, asked: usize }
            impl MemoryOracle for Moody {
                fn fits(&mut self, longest: Length, batch_size: usize) -> anyhow::Result<bool> {
                    self.asked += 1;
                    let secs = self.secs * self.whims[self.asked % self.whims.len()];
                    let cost = longest.duration_secs * (1.0 + f64::from(longest.n_tokens) / 100.0);
                    Ok(batch_size == 1 || batch_size as f64 * cost <= secs)
                }
            }
            let buckets: Vec<Bucket> = durations.iter()
                .flat_map(|&secs| tokens.iter().map(move |&n| Bucket {
                    max_duration_secs: f64::from(secs), max_tokens: Some(n), max_tokens_per_sec: None,
                }))
                .collect();
            let table = BucketTable::new(buckets.clone(), Fit::Strict).unwrap();
            let mut oracle = Moody { secs, whims, asked: 0 };
            let found = BatchSizeSearch::default().run(&table, &mut oracle).unwrap();
            for (a, size_a) in buckets.iter().zip(&found.batch_sizes) {
                prop_assert!(*size_a > 0);
                for (b, size_b) in buckets.iter().zip(&found.batch_sizes) {
                    let is_longer = a.max_duration_secs <= b.max_duration_secs && a.max_tokens <= b.max_tokens;
                    prop_assert!(!is_longer || size_b <= size_a);
                }
            }
        }
    }
}
