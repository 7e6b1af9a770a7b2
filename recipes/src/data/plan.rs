//! What each way of making batches would waste on given lengths, before anything is trained.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::Column::{Left, Right};
use super::table::TextTable;
use super::{
    BucketEstimate, BucketPadding, BucketTable, Constraint, Error, Length, Padding, Sampler, SamplerConfig,
};
use crate::plot::{self, BarChart};

/// What to compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanOptions {
    /// When a batch is full. Sizes by bucket can't be compared: each way has other buckets.
    pub constraint: Constraint,
    /// Buckets of the two-dimensional way, which is left out where tokens have none; those of the one-dimensional way are
    /// its duration buckets.
    pub estimate: BucketEstimate,
    /// Seed of the order of items.
    pub seed: u64,
}

/// A way of making batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Any items together.
    Random,
    /// In order of duration and tokens: the least audio padding that there can be, but the same batches in every epoch.
    Sorted,
    /// Items of a duration bucket.
    #[serde(rename = "1d")]
    DurationBuckets,
    /// Items of a duration bucket with like numbers of tokens.
    #[serde(rename = "2d")]
    TokenBuckets,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Random => "random",
            Self::Sorted => "sorted",
            Self::DurationBuckets => "1-D buckets",
            Self::TokenBuckets => "2-D buckets",
        })
    }
}

/// An epoch of one strategy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StrategyPadding {
    /// The way.
    pub strategy: Strategy,
    /// Its buckets.
    pub n_buckets: usize,
    /// Its batches.
    pub padding: BucketPadding,
    /// Items that it takes into no batch.
    pub n_rejected: usize,
}

/// All strategies on the same lengths. Its text is a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// In the order of [`Strategy`].
    pub rows: Vec<StrategyPadding>,
    /// The buckets of the last row.
    pub table: BucketTable,
}

/// Makes one epoch in each way and counts its padding.
///
/// # Errors
/// Options without sense, or lengths of which none can be used.
pub fn compare(lengths: &[Length], options: &PlanOptions) -> Result<Comparison, Error> {
    if let Constraint::BatchSizes { batch_sizes } = &options.constraint {
        let message = "give a budget of seconds or tokens: sizes belong to buckets, and each way has its own";
        return Err(Error::setting("batch_sizes", format!("{batch_sizes:?}"), message));
    }
    let estimate = &options.estimate;
    let table = estimate.table(lengths)?;
    let durations = BucketEstimate { n_token_buckets: None, ..estimate.clone() }.table(lengths)?;
    let one_bucket =
        BucketEstimate { n_duration_buckets: 1, n_token_buckets: None, ..estimate.clone() }.table(lengths)?;
    let mut sorted = lengths.to_vec();
    sorted.sort_by(|a, b| a.duration_secs.total_cmp(&b.duration_secs).then(a.n_tokens.cmp(&b.n_tokens)));
    let row = |strategy, lengths: &[Length], table: &BucketTable| {
        let shuffle = strategy != Strategy::Sorted;
        let config = SamplerConfig { shuffle, ..SamplerConfig::new(options.constraint.clone()) };
        let sampler = Sampler::new(lengths.to_vec(), table.clone(), config, options.seed)?;
        let mut padding = Padding::new(table.buckets().len());
        sampler.epoch(0)?.all_batches().for_each(|batch| padding.add(&batch, &sampler));
        let (n_buckets, n_rejected) = (table.buckets().len(), sampler.rejected().len());
        Ok(StrategyPadding { strategy, n_buckets, padding: padding.total(), n_rejected })
    };
    let mut rows = vec![
        row(Strategy::Random, lengths, &one_bucket)?,
        row(Strategy::Sorted, &sorted, &one_bucket)?,
        row(Strategy::DurationBuckets, lengths, &durations)?,
    ];
    if table.is_2d() {
        rows.push(row(Strategy::TokenBuckets, lengths, &table)?);
    }
    Ok(Comparison { rows, table })
}

impl Comparison {
    /// The row of a strategy.
    pub fn row(&self, strategy: Strategy) -> Option<&StrategyPadding> {
        self.rows.iter().find(|row| row.strategy == strategy)
    }

    /// Audio and token padding as bars, a self-contained SVG.
    ///
    /// # Errors
    /// When it can't be drawn.
    pub fn to_svg(&self) -> Result<String, plot::Error> {
        let percent = |share: fn(&BucketPadding) -> f64| -> Vec<f64> {
            self.rows.iter().map(|row| 100.0 * share(&row.padding)).collect()
        };
        BarChart {
            title: "Padding by way of making batches".to_owned(),
            y_label: "padding, %".to_owned(),
            groups: self.rows.iter().map(|row| row.strategy.to_string()).collect(),
            series: vec![
                ("audio".to_owned(), percent(BucketPadding::audio_padding)),
                ("tokens".to_owned(), percent(BucketPadding::token_padding)),
            ],
        }
        .to_svg()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = TextTable::new(&[
            Left("batches"),
            Right("buckets"),
            Right("steps"),
            Right("items/batch"),
            Right("s/batch"),
            Right("audio padding"),
            Right("token padding"),
            Right("full"),
            Right("rejected"),
        ]);
        for StrategyPadding { strategy, n_buckets, padding, n_rejected } in &self.rows {
            table.row([
                strategy.to_string(),
                n_buckets.to_string(),
                padding.n_batches.to_string(),
                format!("{:.1}", padding.mean_items()),
                format!("{:.1}", padding.mean_secs()),
                format!("{:.1} %", 100.0 * padding.audio_padding()),
                format!("{:.1} %", 100.0 * padding.token_padding()),
                format!("{:.1} %", 100.0 * padding.budget_fill()),
                n_rejected.to_string(),
            ]);
        }
        table.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Fit;

    fn options(estimate: BucketEstimate) -> PlanOptions {
        PlanOptions { constraint: Constraint::max_duration(60.0), estimate, seed: 0 }
    }

    fn lengths() -> Vec<Length> {
        // Fixed, but without order.
        (0..3_000u32)
            .map(|n| Length::new(1.0 + f64::from(n * 7919 % 2003) / 100.0, 20 + n * 104_729 % 211))
            .collect()
    }

    #[test]
    fn each_dimension_saves_its_padding() {
        let estimate =
            BucketEstimate { n_duration_buckets: 8, n_token_buckets: Some(3), ..BucketEstimate::default() };
        let compared = compare(&lengths(), &options(estimate.clone())).unwrap();
        let [random, sorted, durations, tokens] =
            [Strategy::Random, Strategy::Sorted, Strategy::DurationBuckets, Strategy::TokenBuckets]
                .map(|strategy| compared.row(strategy).unwrap().padding);
        assert!(sorted.audio_padding() < 0.02);
        assert!(durations.audio_padding() < 0.5 * random.audio_padding());
        assert!(tokens.token_padding() < 0.7 * durations.token_padding());
        // Every way sees every item that it does not reject.
        for row in &compared.rows {
            assert_eq!(row.padding.n_items + row.n_rejected, 3_000);
        }
        assert_eq!(compared, compare(&lengths(), &options(estimate.clone())).unwrap());
        let text = compared.to_string();
        assert!(text.contains("2-D buckets") && text.lines().count() == 5, "{text}");
        assert!(compared.to_svg().unwrap().contains("2-D buckets"));
        let stored: Comparison = serde_json::from_str(&serde_json::to_string(&compared).unwrap()).unwrap();
        assert_eq!(stored.table, compared.table);

        let flat = BucketEstimate { n_token_buckets: None, fit: Fit::Lenient, ..estimate };
        assert_eq!(compare(&lengths(), &options(flat)).unwrap().rows.len(), 3);
    }

    #[test]
    fn sizes_of_other_buckets_are_refused() {
        let constraint = Constraint::BatchSizes { batch_sizes: vec![3] };
        let options = PlanOptions { constraint, ..options(BucketEstimate::default()) };
        let error = compare(&lengths(), &options).unwrap_err();
        assert!(error.to_string().contains("batch_sizes = [3]"), "{error}");
    }
}
