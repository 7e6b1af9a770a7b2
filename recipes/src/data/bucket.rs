//! Buckets: items of like duration, and of like number of output tokens, share batches, so that little is padding.
//!
//! The rules are those of lhotse (`dynamic_bucketing.py`: an upper bound belongs to its bucket) and NeMo
//! (`lhotse/sampling.py: find_smallest_bucket`). Estimating a table from data is in `estimate.rs`.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Error, Length, Rejection, hex, or_dash};

/// Upper bounds of what a bucket takes. All are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Longest item.
    pub max_duration_secs: f64,
    /// Most output tokens; `None` for any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Most output tokens per second; `None` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_sec: Option<f64>,
}

/// Where an item goes that has too many tokens for the buckets of its duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Nowhere: it is rejected, as is one that speaks faster than its bucket allows.
    #[default]
    Strict,
    /// Into the first bucket of longer items that has room for its tokens.
    Lenient,
}

/// Buckets in ascending order of duration, then tokens, and how items are assigned to them. With only durations it
/// is one-dimensional.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct BucketTable {
    fit: Fit,
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    fit: Fit,
    buckets: Vec<Bucket>,
}

impl TryFrom<Fields> for BucketTable {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self, Error> {
        Self::new(fields.buckets, fields.fit)
    }
}

impl BucketTable {
    /// A table of these buckets.
    ///
    /// # Errors
    /// When there is none, when bounds are not positive numbers, not in ascending order, given for some buckets and
    /// not for others, or when a bound on tokens per second would not be looked at.
    pub fn new(buckets: Vec<Bucket>, fit: Fit) -> Result<Self, Error> {
        let Some(first) = buckets.first() else {
            return Err(Error::setting("buckets", "[]", "give at least one"));
        };
        for (index, bucket) in buckets.iter().enumerate() {
            let refuse = |message: String| Err(Error::Bucket { bucket: index, message });
            let is_positive = |value: f64| value.is_finite() && value > 0.0;
            if !is_positive(bucket.max_duration_secs) {
                return refuse(format!(
                    "max_duration_secs = {}: must be a positive number",
                    bucket.max_duration_secs
                ));
            }
            if let Some(rate) = bucket.max_tokens_per_sec {
                if !is_positive(rate) && rate != 0.0 {
                    return refuse(format!("max_tokens_per_sec = {rate}: must be a number from 0"));
                }
                if fit == Fit::Lenient {
                    return refuse(format!(
                        "max_tokens_per_sec = {rate}: a lenient table does not look at it; leave it out or be strict"
                    ));
                }
            }
            if bucket.max_tokens.is_some() != first.max_tokens.is_some() {
                return refuse("max_tokens must be given for all buckets or for none".to_owned());
            }
        }
        let order = |bucket: &Bucket| (bucket.max_duration_secs, bucket.max_tokens);
        if let Some(index) = buckets.windows(2).position(|pair| order(&pair[0]) >= order(&pair[1])) {
            return Err(Error::Bucket {
                bucket: index + 1,
                message: "bounds must ascend: by duration, then by tokens, none twice".to_owned(),
            });
        }
        Ok(Self { fit, buckets })
    }

    /// A one-dimensional table of these longest durations.
    ///
    /// # Errors
    /// As [`BucketTable::new`].
    pub fn of_durations(max_durations_secs: &[f64]) -> Result<Self, Error> {
        let bucket = |&max_duration_secs: &f64| Bucket {
            max_duration_secs,
            max_tokens: None,
            max_tokens_per_sec: None,
        };
        Self::new(max_durations_secs.iter().map(bucket).collect(), Fit::Strict)
    }

    /// The buckets in order.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// How items are assigned.
    pub fn fit(&self) -> Fit {
        self.fit
    }

    /// Whether tokens are looked at, too.
    pub fn is_2d(&self) -> bool {
        self.buckets.first().is_some_and(|bucket| bucket.max_tokens.is_some())
    }

    /// Index of the bucket that takes an item: the first that is long enough and, in two dimensions, has room for its
    /// tokens. A length equal to a bound is within it.
    ///
    /// # Errors
    /// Why no bucket takes it.
    pub fn assign(&self, length: Length) -> Result<usize, Rejection> {
        if !length.is_valid() {
            return Err(Rejection::InvalidDuration);
        }
        let is_too_short = |bucket: &Bucket| bucket.max_duration_secs < length.duration_secs;
        let has_room = |bucket: &Bucket| bucket.max_tokens.is_none_or(|max| length.n_tokens <= max);
        let first = self.buckets.partition_point(is_too_short);
        let Some(shortest) = self.buckets.get(first) else { return Err(Rejection::LongerThanBuckets) };
        let candidates = &self.buckets[first..];
        let n_candidates = match self.fit {
            Fit::Lenient => candidates.len(),
            Fit::Strict => {
                candidates.partition_point(|bucket| bucket.max_duration_secs <= shortest.max_duration_secs)
            }
        };
        let Some(offset) = candidates[..n_candidates].iter().position(has_room) else {
            return Err(Rejection::MoreTokensThanBuckets);
        };
        match candidates[offset].max_tokens_per_sec {
            Some(max) if length.tokens_per_sec() > max => Err(Rejection::FasterThanBucket),
            _ => Ok(first + offset),
        }
    }

    /// SHA-256 over a canonical text of every bound, 64 lower-case hex digits: a checkpoint that stores it can tell
    /// whether its batches come again. Stable across versions.
    pub fn digest(&self) -> String {
        // Spelt out, not derived from names in the code: renaming a field must not change a digest.
        let mut text = match self.fit {
            Fit::Strict => "buckets 1 strict\n".to_owned(),
            Fit::Lenient => "buckets 1 lenient\n".to_owned(),
        };
        for Bucket { max_duration_secs, max_tokens, max_tokens_per_sec } in &self.buckets {
            text +=
                &format!("{max_duration_secs} {} {}\n", or_dash(*max_tokens), or_dash(*max_tokens_per_sec));
        }
        hex(&Sha256::digest(text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(bounds: &[(f64, u32)], fit: Fit) -> BucketTable {
        let bucket = |&(max_duration_secs, tokens): &(f64, u32)| Bucket {
            max_duration_secs,
            max_tokens: Some(tokens),
            max_tokens_per_sec: None,
        };
        BucketTable::new(bounds.iter().map(bucket).collect(), fit).unwrap()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let table = BucketTable::of_durations(&[2.0, 4.0]).unwrap();
        let assigned = [1.0, 2.0, 3.0, 4.0, 5.0].map(|secs| table.assign(Length::new(secs, 9)));
        assert_eq!(assigned, [Ok(0), Ok(0), Ok(1), Ok(1), Err(Rejection::LongerThanBuckets)]);
        assert!(!table.is_2d());
        for secs in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(table.assign(Length::new(secs, 1)), Err(Rejection::InvalidDuration), "{secs}");
        }
    }

    #[test]
    fn strict_tables_reject_what_lenient_ones_promote() {
        let bounds = [(10.0, 5), (10.0, 10), (20.0, 12), (20.0, 18)];
        let (strict, lenient) = (table(&bounds, Fit::Strict), table(&bounds, Fit::Lenient));
        let item = Length::new(8.0, 11);
        assert_eq!(strict.assign(item), Err(Rejection::MoreTokensThanBuckets));
        assert_eq!(lenient.assign(item), Ok(2));
        for (secs, n_tokens, expected) in
            [(10.0, 5, Ok(0)), (10.0, 6, Ok(1)), (10.1, 6, Ok(2)), (15.0, 13, Ok(3))]
        {
            assert_eq!(strict.assign(Length::new(secs, n_tokens)), expected);
            assert_eq!(lenient.assign(Length::new(secs, n_tokens)), expected);
        }
        assert_eq!(lenient.assign(Length::new(1.0, 19)), Err(Rejection::MoreTokensThanBuckets));
        assert_eq!(lenient.assign(Length::new(21.0, 1)), Err(Rejection::LongerThanBuckets));
    }

    #[test]
    fn fast_speakers_are_rejected_where_the_bucket_says_so() {
        let bucket = Bucket { max_duration_secs: 10.0, max_tokens: Some(50), max_tokens_per_sec: Some(12.0) };
        let table = BucketTable::new(vec![bucket], Fit::Strict).unwrap();
        assert_eq!(table.assign(Length::new(4.0, 48)), Ok(0));
        assert_eq!(table.assign(Length::new(4.0, 49)), Err(Rejection::FasterThanBucket));
        let refused = BucketTable::new(vec![bucket], Fit::Lenient).unwrap_err();
        assert!(refused.to_string().contains("lenient"), "{refused}");
    }

    #[test]
    fn tables_without_sense_are_refused() {
        let bucket =
            |secs, tokens| Bucket { max_duration_secs: secs, max_tokens: tokens, max_tokens_per_sec: None };
        for buckets in [
            vec![],
            vec![bucket(0.0, None)],
            vec![bucket(f64::NAN, None)],
            vec![bucket(2.0, None), bucket(2.0, None)],
            vec![bucket(2.0, Some(4)), bucket(1.0, Some(9))],
            vec![bucket(2.0, Some(4)), bucket(2.0, Some(4))],
            vec![bucket(2.0, Some(4)), bucket(3.0, None)],
        ] {
            assert!(BucketTable::new(buckets.clone(), Fit::Strict).is_err(), "{buckets:?}");
        }
        let json = r#"{"fit":"strict","buckets":[{"max_duration_secs":3.0},{"max_duration_secs":2.0}]}"#;
        assert!(serde_json::from_str::<BucketTable>(json).is_err());
    }

    #[test]
    fn the_digest_is_stable_and_survives_storing() {
        let table = table(&[(10.0, 5), (10.0, 10), (20.125, 12)], Fit::Strict);
        assert_eq!(table.digest(), "79b1ae552df608da0427e5880391df4b3471ce691cd43330f67623a374398ab9");
        let stored: BucketTable = serde_json::from_str(&serde_json::to_string(&table).unwrap()).unwrap();
        assert_eq!((stored.digest(), &stored), (table.digest(), &table));
        let others = [
            BucketTable::new(table.buckets.clone(), Fit::Lenient).unwrap(),
            BucketTable::new(table.buckets[1..].to_vec(), Fit::Strict).unwrap(),
            BucketTable::of_durations(&[10.0, 20.125]).unwrap(),
        ];
        for other in others {
            assert_ne!(other.digest(), table.digest());
        }
    }

    proptest! {
        /// `find_smallest_bucket`, said in another way: look at all buckets, one after the other.
        #[test]
        fn assignment_is_that_of_a_plain_search(
            durations in prop::collection::btree_set(1u32..12, 1..5),
            tokens in prop::collection::btree_set(1u32..20, 1..4),
            secs in 1u32..13, n_tokens in 0u32..22,
        ) {
            let bounds: Vec<_> = durations.iter()
                .flat_map(|&secs| tokens.iter().map(move |&n| (f64::from(secs), n * secs)))
                .collect();
            let item = Length::new(f64::from(secs), n_tokens);
            let fits = |&(max, n): &(f64, u32)| item.duration_secs <= max && n_tokens <= n;
            let lenient = bounds.iter().position(fits);
            prop_assert_eq!(table(&bounds, Fit::Lenient).assign(item).ok(), lenient);
            let shortest = bounds.iter().find(|bound| item.duration_secs <= bound.0).map(|bound| bound.0);
            let strict = lenient.filter(|&index| Some(bounds[index].0) == shortest);
            prop_assert_eq!(table(&bounds, Fit::Strict).assign(item).ok(), strict);
        }
    }
}
