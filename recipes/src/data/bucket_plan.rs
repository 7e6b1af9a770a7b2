//! What a run's batches will be: its buckets, how many items fit into a batch of each, and what an epoch puts into them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::Column::Right;
use super::table::TextTable;
use super::{
    Bucket, BucketEstimate, BucketPadding, BucketTable, EpochPadding, Error, Length, LengthLimits, Sampler,
};

/// A bucket of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedBucket {
    /// Its bounds.
    pub bounds: Bucket,
    /// Items of a full batch, when all are as long as the bucket allows.
    pub batch_size: usize,
    /// The first epoch's batches of it.
    pub padding: BucketPadding,
}

/// The first epoch of a sampler, bucket by bucket. Its text is tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketPlan {
    /// In the order of the table.
    pub buckets: Vec<PlannedBucket>,
    /// All of them together, and what is in no batch.
    pub epoch: EpochPadding,
}

impl BucketPlan {
    /// Plans the first epoch that `sampler` makes; `language` tells that of an item.
    ///
    /// # Errors
    /// An epoch without a step.
    pub fn new<'a>(sampler: &Sampler, language: impl Fn(usize) -> &'a str) -> Result<Self, Error> {
        let epoch = EpochPadding::new(0, &sampler.epoch(0)?, sampler, language);
        let bucket = |(index, (bounds, padding)): (usize, (&Bucket, &BucketPadding))| {
            let longest = Length::new(bounds.max_duration_secs, bounds.max_tokens.unwrap_or(0));
            let batch_size = sampler.config().constraint.batch_size(index, longest);
            PlannedBucket { bounds: *bounds, batch_size, padding: *padding }
        };
        let pairs = sampler.table().buckets().iter().zip(&epoch.padding.buckets);
        Ok(Self { buckets: pairs.enumerate().map(bucket).collect(), epoch })
    }
}

/// The table of those lengths that keep the limits: what is rejected anyway must not shape it.
///
/// # Errors
/// Limits or settings without sense; [`Error::NothingAccepted`] when no length keeps the limits.
pub fn table_within(
    lengths: &[Length],
    limits: &LengthLimits,
    estimate: &BucketEstimate,
) -> Result<BucketTable, Error> {
    limits.check()?;
    let kept: Vec<_> = lengths.iter().copied().filter(|length| limits.admit(*length).is_ok()).collect();
    if kept.is_empty() {
        return Err(Error::NothingAccepted { n_items: lengths.len() });
    }
    estimate.table(&kept)
}

impl fmt::Display for BucketPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = TextTable::new(&[
            Right("bucket"),
            Right("up to s"),
            Right("tokens"),
            Right("tokens/s"),
            Right("batch size"),
            Right("items"),
            Right("hours"),
            Right("batches"),
            Right("audio padding"),
            Right("token padding"),
            Right("full"),
        ]);
        let dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let row = |name: String, bounds: [String; 3], batch_size: String, padding: &BucketPadding| {
            let percent = |share: f64| match padding.n_batches {
                0 => "-".to_owned(),
                _ => format!("{:.1} %", 100.0 * share),
            };
            let [secs, tokens, rate] = bounds;
            [
                name,
                secs,
                tokens,
                rate,
                batch_size,
                padding.n_items.to_string(),
                format!("{:.2}", padding.duration_secs / 3600.0),
                padding.n_batches.to_string(),
                percent(padding.audio_padding()),
                percent(padding.token_padding()),
                percent(padding.budget_fill()),
            ]
        };
        for (index, PlannedBucket { bounds, batch_size, padding }) in self.buckets.iter().enumerate() {
            let shown = [
                format!("{:.2}", bounds.max_duration_secs),
                dash(bounds.max_tokens.map(|max| max.to_string())),
                dash(bounds.max_tokens_per_sec.map(|max| format!("{max:.1}"))),
            ];
            table.row(row(index.to_string(), shown, batch_size.to_string(), padding));
        }
        let blank = || [String::new(), String::new(), String::new()];
        table.row(row("all".to_owned(), blank(), String::new(), &self.epoch.padding.total()));
        writeln!(f, "{table}\n{}\n{}", self.epoch.admission, self.epoch.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Constraint, Rejection, SamplerConfig};

    fn lengths() -> Vec<Length> {
        (0..400u32).map(|n| Length::new(1.0 + f64::from(n % 80) / 10.0, 10 + n % 37)).collect()
    }

    fn planned(constraint: Constraint, limits: LengthLimits) -> BucketPlan {
        let estimate =
            BucketEstimate { n_duration_buckets: 3, n_token_buckets: Some(2), ..BucketEstimate::default() };
        let table = table_within(&lengths(), &limits, &estimate).unwrap();
        let config = SamplerConfig { limits, ..SamplerConfig::new(constraint) };
        let sampler = Sampler::new(lengths(), table, config, 0).unwrap();
        BucketPlan::new(&sampler, |item| if item % 2 == 0 { "ps" } else { "" }).unwrap()
    }

    #[test]
    fn every_item_is_planned_or_rejected_by_its_language() {
        let constraint = Constraint::Duration { max_secs: 40.0, quadratic_secs: Some(20.0), max_items: None };
        let limits = LengthLimits { max_duration_secs: Some(7.95), ..LengthLimits::default() };
        let plan = planned(constraint.clone(), limits);
        let n_items: usize = plan.buckets.iter().map(|bucket| bucket.padding.n_items).sum();
        let total = plan.epoch.admission.total();
        assert_eq!((n_items, total.n_accepted), (total.n_accepted, 350));
        assert_eq!(plan.epoch.admission.by_language["ps"].n_rejected[&Rejection::TooLong], 25);
        // What is too long does not make a bucket, and no batch is larger than its bucket says it can be at its shortest.
        let last = plan.buckets.last().unwrap();
        assert!(last.bounds.max_duration_secs < 8.0);
        // 40 s hold three items of 7.9 s, each worth 7.9 (1 + 7.9 / 20) s.
        assert_eq!(last.batch_size, 3);
        assert!(plan.buckets.windows(2).all(|pair| pair[0].batch_size >= pair[1].batch_size));
        let text = plan.to_string();
        for part in ["batch size", "too long 25", "unknown", "epoch 0: "] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let stored: BucketPlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(stored.to_string(), text);
    }

    #[test]
    fn limits_that_nothing_keeps_are_told() {
        let limits = LengthLimits { min_duration_secs: 100.0, ..LengthLimits::default() };
        let error = table_within(&lengths(), &limits, &BucketEstimate::default()).unwrap_err();
        assert!(matches!(error, Error::NothingAccepted { n_items: 400 }), "{error}");
    }
}
