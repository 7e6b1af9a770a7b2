//! How much of what a model computes is padding, counted batch by batch.
//!
//! Shares are of sums, so large batches weigh more: what counts is the compute that is wasted. NeMo logs the two fills
//! as `input_to_padding_ratio` and `output_to_padding_ratio` (`aed_multitask_models.py`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::Column::{Left, Right};
use super::table::TextTable;
use super::{Admission, Batch, Epoch, Length, Sampler};

/// Sums over the batches of one bucket, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BucketPadding {
    /// Batches.
    pub n_batches: usize,
    /// Items, repeated ones too.
    pub n_items: usize,
    /// Audio.
    pub duration_secs: f64,
    /// Audio with its padding: items times the longest of their batch.
    pub padded_secs: f64,
    /// Output tokens.
    pub n_tokens: u64,
    /// Output tokens with their padding.
    pub padded_tokens: u64,
    /// What the items would cost in the unit of the constraint, each by itself.
    pub cost: f64,
    /// What the batches cost.
    pub padded_cost: f64,
    /// Sum over the batches of the share of the budget that each used.
    pub budget_shares: f64,
}

impl BucketPadding {
    /// Share of the input that is no padding, 0 to 1; 1 where there is none at all.
    pub fn input_fill(&self) -> f64 {
        share(self.duration_secs, self.padded_secs)
    }

    /// Share of the output that is no padding.
    pub fn output_fill(&self) -> f64 {
        share(self.n_tokens as f64, self.padded_tokens as f64)
    }

    /// Share of the cost that is no padding: with a quadratic term, padding a long item wastes more than its seconds.
    /// 1 where a constraint counts items.
    pub fn compute_fill(&self) -> f64 {
        share(self.cost, self.padded_cost)
    }

    /// Share of the audio that is padding.
    pub fn audio_padding(&self) -> f64 {
        1.0 - self.input_fill()
    }

    /// Share of the output that is padding.
    pub fn token_padding(&self) -> f64 {
        1.0 - self.output_fill()
    }

    /// Share of the budget that a batch uses, padding included, on average over batches.
    pub fn budget_fill(&self) -> f64 {
        share(self.budget_shares, self.n_batches as f64)
    }

    /// Items of a batch, on average.
    pub fn mean_items(&self) -> f64 {
        self.n_items as f64 / self.n_batches.max(1) as f64
    }

    /// Audio of a batch, on average.
    pub fn mean_secs(&self) -> f64 {
        self.duration_secs / self.n_batches.max(1) as f64
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 1.0 }
}

impl std::ops::AddAssign for BucketPadding {
    fn add_assign(&mut self, other: Self) {
        self.n_batches += other.n_batches;
        self.n_items += other.n_items;
        self.duration_secs += other.duration_secs;
        self.padded_secs += other.padded_secs;
        self.n_tokens += other.n_tokens;
        self.padded_tokens += other.padded_tokens;
        self.cost += other.cost;
        self.padded_cost += other.padded_cost;
        self.budget_shares += other.budget_shares;
    }
}

/// Padding by bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Padding {
    /// In the order of the buckets.
    pub buckets: Vec<BucketPadding>,
    /// Batches of one item that is longer than the budget.
    pub n_over_budget: usize,
}

impl Padding {
    /// Nothing counted yet.
    pub fn new(n_buckets: usize) -> Self {
        Self { buckets: vec![BucketPadding::default(); n_buckets], n_over_budget: 0 }
    }

    /// Counts a batch that `sampler` made.
    pub fn add(&mut self, batch: &Batch, sampler: &Sampler) {
        let lengths = || batch.items.iter().filter_map(|&item| sampler.lengths().get(item).copied());
        let constraint = &sampler.config().constraint;
        let mut filling = constraint.filling(batch.bucket);
        lengths().for_each(|length| filling.add(length));
        let n_items = batch.items.len();
        let longest_secs = lengths().map(|length| length.duration_secs).fold(0.0, f64::max);
        let most_tokens = lengths().map(|length| length.n_tokens).max().unwrap_or(0);
        if self.buckets.len() <= batch.bucket {
            self.buckets.resize(batch.bucket + 1, BucketPadding::default());
        }
        self.buckets[batch.bucket] += BucketPadding {
            n_batches: 1,
            n_items,
            duration_secs: lengths().map(|length| length.duration_secs).sum(),
            padded_secs: n_items as f64 * longest_secs,
            n_tokens: lengths().map(|length| u64::from(length.n_tokens)).sum(),
            padded_tokens: n_items as u64 * u64::from(most_tokens),
            cost: lengths().map(|length: Length| constraint.cost(length)).sum(),
            padded_cost: filling.cost(),
            budget_shares: filling.share(),
        };
        self.n_over_budget += usize::from(filling.is_exceeded());
    }

    /// All buckets together.
    pub fn total(&self) -> BucketPadding {
        let mut total = BucketPadding::default();
        self.buckets.iter().for_each(|&bucket| total += bucket);
        total
    }
}

/// What an epoch's batches hold and waste, and what is in none. The loop logs it; the run card prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochPadding {
    /// Number of the epoch.
    pub epoch: u64,
    /// Steps of each rank.
    pub n_steps: usize,
    /// The batches of all ranks.
    pub padding: Padding,
    /// Items that dropping left out this time.
    pub n_dropped: usize,
    /// Items that no epoch takes.
    pub admission: Admission,
    /// Whether items are texts, whose tokens are counted in the place of seconds.
    #[serde(default)]
    pub is_of_texts: bool,
}

impl EpochPadding {
    /// Counts an epoch that `sampler` made; `language` tells that of an item.
    pub fn new<'a>(
        number: u64,
        epoch: &Epoch,
        sampler: &Sampler,
        language: impl Fn(usize) -> &'a str,
    ) -> Self {
        let mut padding = Padding::new(sampler.table().buckets().len());
        epoch.all_batches().for_each(|batch| padding.add(&batch, sampler));
        Self {
            epoch: number,
            n_steps: epoch.n_steps(),
            padding,
            n_dropped: epoch.n_dropped(),
            admission: sampler.admission(language),
            is_of_texts: false,
        }
    }

    /// The same of texts, whose tokens were counted in the place of seconds.
    #[must_use]
    pub fn of_texts(self) -> Self {
        Self { is_of_texts: true, ..self }
    }

    /// One line for the log.
    pub fn summary(&self) -> String {
        let total = self.padding.total();
        let (read, unit) = if self.is_of_texts { ("source", "tokens") } else { ("audio", "s") };
        format!(
            "epoch {}: {} steps, {:.1} items and {:.0} {unit} a batch, padding {:.1} % of {read}, {:.1} % of tokens, {:.1} % of \
             compute, batches {:.0} % full, {} rejected, {} dropped",
            self.epoch,
            self.n_steps,
            total.mean_items(),
            total.mean_secs(),
            100.0 * total.audio_padding(),
            100.0 * total.token_padding(),
            100.0 * (1.0 - total.compute_fill()),
            100.0 * total.budget_fill(),
            self.admission.total().n_rejected(),
            self.n_dropped,
        )
    }
}

impl fmt::Display for EpochPadding {
    /// The summary, a row for each bucket that had batches, and what was rejected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.summary())?;
        let (length, waste) = match self.is_of_texts {
            true => ("tokens/batch", "source padding"),
            false => ("s/batch", "audio padding"),
        };
        let mut table = TextTable::new(&[
            Left("bucket"),
            Right("batches"),
            Right("items"),
            Right("items/batch"),
            Right(length),
            Right(waste),
            Right("token padding"),
            Right("full"),
        ]);
        let rows =
            self.padding.buckets.iter().enumerate().map(|(index, bucket)| (index.to_string(), *bucket));
        for (name, bucket) in rows.chain([("all".to_owned(), self.padding.total())]) {
            if bucket.n_batches == 0 {
                continue;
            }
            table.row([
                name,
                bucket.n_batches.to_string(),
                bucket.n_items.to_string(),
                format!("{:.1}", bucket.mean_items()),
                format!("{:.1}", bucket.mean_secs()),
                format!("{:.1} %", 100.0 * bucket.audio_padding()),
                format!("{:.1} %", 100.0 * bucket.token_padding()),
                format!("{:.0} %", 100.0 * bucket.budget_fill()),
            ]);
        }
        writeln!(f, "{table}")?;
        if self.padding.n_over_budget > 0 {
            writeln!(
                f,
                "{} items are longer than the budget, each a batch by itself\n",
                self.padding.n_over_budget
            )?;
        }
        self.admission.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BucketTable, Constraint, SamplerConfig};

    #[test]
    fn padding_is_what_the_longest_item_adds() {
        let lengths = [(2.0, 10), (4.0, 30), (10.0, 50), (30.0, 60), (40.0, 7)];
        let lengths: Vec<Length> = lengths.iter().map(|&(secs, tokens)| Length::new(secs, tokens)).collect();
        let constraint = Constraint::Duration { max_secs: 12.0, quadratic_secs: Some(10.0), max_items: None };
        let table = BucketTable::of_durations(&[5.0, 30.0]).unwrap();
        let sampler = Sampler::new(lengths, table, SamplerConfig::new(constraint), 1).unwrap();
        let epoch = sampler.epoch(0).unwrap();
        let counted = EpochPadding::new(0, &epoch, &sampler, |_| "ps");
        let [short, long] = counted.padding.buckets[..] else { panic!("two buckets") };
        assert_eq!((short.n_batches, short.n_items, long.n_batches), (1, 2, 2));
        assert_eq!((short.duration_secs, short.padded_secs), (6.0, 8.0));
        assert_eq!((short.n_tokens, short.padded_tokens), (40, 60));
        assert_eq!((short.audio_padding(), short.mean_items(), short.mean_secs()), (0.25, 2.0, 6.0));
        assert!((short.token_padding() - 1.0 / 3.0).abs() < 1e-12);
        // 2 + 0.4 and 4 + 1.6 in 2 x 5.6 of 12.
        assert!((short.compute_fill() - 8.0 / 11.2).abs() < 1e-12);
        assert!((short.budget_fill() - 11.2 / 12.0).abs() < 1e-12);
        assert_eq!((long.audio_padding(), long.token_padding()), (0.0, 0.0));
        // 10 s count 20, 30 s 120: each is more than the budget.
        assert_eq!(counted.padding.n_over_budget, 2);
        let total = counted.padding.total();
        assert_eq!((total.duration_secs, total.padded_secs, total.n_items), (46.0, 48.0, 4));
        assert_eq!(counted.admission.total().n_rejected(), 1);
        let text = counted.to_string();
        assert!(text.contains("longer than buckets 1") && text.contains("each a batch by itself"), "{text}");
        let stored: EpochPadding = serde_json::from_str(&serde_json::to_string(&counted).unwrap()).unwrap();
        assert_eq!(stored, counted);
    }

    #[test]
    fn nothing_is_not_padded() {
        let total = Padding::new(3).total();
        assert_eq!((total.audio_padding(), total.token_padding(), total.mean_items()), (0.0, 0.0, 0.0));
    }
}
