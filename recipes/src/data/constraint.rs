//! When a batch is full: a number of items for each bucket, or a budget of padded seconds or tokens.
//!
//! lhotse `sampling/base.py: TimeConstraint`, NeMo `lhotse/sampling.py: MultimodalSamplingConstraint`. Unlike theirs, a
//! batch of several items never exceeds its budget: an item that would stretch it too far begins the next one.

use models::{effective_length, padded_cost};
use serde::{Deserialize, Serialize};

use super::{Error, Length, or_dash};

/// What bounds a batch. Costs are padded: items times the longest one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Constraint {
    /// So many items in a batch of each bucket, as a search found them to fit into memory.
    BatchSizes {
        /// Items, in the order of the buckets.
        batch_sizes: Vec<usize>,
    },
    /// Padded seconds of audio.
    Duration {
        /// Most padded seconds.
        max_secs: f64,
        /// Duration that counts double, because attention costs its square; 15 to 40 for transformers, `None` to
        /// count seconds as they are.
        quadratic_secs: Option<f64>,
        /// Most items.
        max_items: Option<usize>,
    },
    /// Padded tokens.
    Tokens {
        /// Most padded tokens.
        max_tokens: u64,
        /// Which tokens count.
        counted: CountedTokens,
        /// Number of tokens that counts double; `None` to count them as they are.
        quadratic_tokens: Option<f64>,
        /// Most items.
        max_items: Option<usize>,
    },
}

/// Which tokens a budget of tokens counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case", deny_unknown_fields)]
pub enum CountedTokens {
    /// Those of the output; at least one, so that a batch of items without any ends.
    Output,
    /// Those that the audio is worth, the last one rounded up.
    Audio {
        /// Seconds that a token stands for: hop times subsampling.
        token_secs: f64,
    },
    /// Both: for models that read audio and text as one sequence.
    Total {
        /// Seconds that a token stands for.
        token_secs: f64,
    },
}

impl Constraint {
    /// A budget of padded seconds alone.
    pub fn max_duration(max_secs: f64) -> Self {
        Self::Duration { max_secs, quadratic_secs: None, max_items: None }
    }

    /// Refuses bounds that no batch can keep.
    ///
    /// # Errors
    /// The bound and what is allowed.
    pub fn check(&self, n_buckets: usize) -> Result<(), Error> {
        let positive = |name, value: f64| match value {
            value if value.is_finite() && value > 0.0 => Ok(()),
            value => Err(Error::setting(name, value, "must be a positive number")),
        };
        let items = |max: Option<usize>| match max {
            Some(0) => Err(Error::setting("max_items", 0, "must be at least 1")),
            _ => Ok(()),
        };
        match self {
            Self::BatchSizes { batch_sizes } => {
                if batch_sizes.len() != n_buckets {
                    let message = format!("must name a size for each of the {n_buckets} buckets");
                    return Err(Error::setting("batch_sizes", format!("{batch_sizes:?}"), message));
                }
                match batch_sizes.iter().position(|&size| size == 0) {
                    Some(bucket) => Err(Error::Bucket { bucket, message: "a batch size of 0".to_owned() }),
                    None => Ok(()),
                }
            }
            Self::Duration { max_secs, quadratic_secs, max_items } => {
                positive("max_secs", *max_secs)?;
                quadratic_secs.map_or(Ok(()), |value| positive("quadratic_secs", value))?;
                items(*max_items)
            }
            Self::Tokens { max_tokens, counted, quadratic_tokens, max_items } => {
                positive("max_tokens", *max_tokens as f64)?;
                quadratic_tokens.map_or(Ok(()), |value| positive("quadratic_tokens", value))?;
                if let CountedTokens::Audio { token_secs } | CountedTokens::Total { token_secs } = counted {
                    positive("token_secs", *token_secs)?;
                }
                items(*max_items)
            }
        }
    }

    /// How long an item is in the unit of the budget; 1 where items are counted.
    pub fn measure(&self, length: Length) -> f64 {
        let audio_tokens = |token_secs: f64| (length.duration_secs / token_secs).ceil();
        match self {
            Self::BatchSizes { .. } => 1.0,
            Self::Duration { .. } => length.duration_secs,
            Self::Tokens { counted, .. } => match counted {
                CountedTokens::Output => f64::from(length.n_tokens.max(1)),
                CountedTokens::Audio { token_secs } => audio_tokens(*token_secs),
                CountedTokens::Total { token_secs } => audio_tokens(*token_secs) + f64::from(length.n_tokens),
            },
        }
    }

    /// What an item costs by itself: its measure, with the quadratic term.
    pub fn cost(&self, length: Length) -> f64 {
        effective_length(self.measure(length), self.quadratic())
    }

    /// Items of a full batch of `bucket` that are all as long as `longest`; one at least.
    pub fn batch_size(&self, bucket: usize, longest: Length) -> usize {
        let filling = self.filling(bucket);
        let cost = self.cost(longest);
        // A quotient may be off by one where its product is not.
        let mut count = (filling.budget / cost).min(filling.max_items as f64) as usize;
        while count > 1 && count as f64 * cost > filling.budget {
            count -= 1;
        }
        while count < filling.max_items && (count + 1) as f64 * cost <= filling.budget {
            count += 1;
        }
        count.max(1)
    }

    /// Every bound, spelt out for a digest.
    pub(super) fn canonical_text(&self) -> String {
        match self {
            Self::BatchSizes { batch_sizes } => format!("sizes {batch_sizes:?}"),
            Self::Duration { max_secs, quadratic_secs, max_items } => {
                format!("secs {max_secs} {} {}", or_dash(*quadratic_secs), or_dash(*max_items))
            }
            Self::Tokens { max_tokens, counted, quadratic_tokens, max_items } => {
                let counted = match counted {
                    CountedTokens::Output => "output".to_owned(),
                    CountedTokens::Audio { token_secs } => format!("audio {token_secs}"),
                    CountedTokens::Total { token_secs } => format!("total {token_secs}"),
                };
                format!(
                    "tokens {max_tokens} {counted} {} {}",
                    or_dash(*quadratic_tokens),
                    or_dash(*max_items)
                )
            }
        }
    }

    fn quadratic(&self) -> Option<f64> {
        match self {
            Self::BatchSizes { .. } => None,
            Self::Duration { quadratic_secs, .. } => *quadratic_secs,
            Self::Tokens { quadratic_tokens, .. } => *quadratic_tokens,
        }
    }

    /// An empty batch of a bucket.
    pub fn filling(&self, bucket: usize) -> Filling<'_> {
        let (budget, max_items) = match self {
            // A bucket that `check` did not see has no room.
            Self::BatchSizes { batch_sizes } => {
                (batch_sizes.get(bucket).copied().unwrap_or(0) as f64, usize::MAX)
            }
            Self::Duration { max_secs, max_items, .. } => (*max_secs, max_items.unwrap_or(usize::MAX)),
            Self::Tokens { max_tokens, max_items, .. } => {
                (*max_tokens as f64, max_items.unwrap_or(usize::MAX))
            }
        };
        Filling { constraint: self, budget, max_items, count: 0, longest: 0.0 }
    }
}

/// A batch while it is filled: how many items it has and how long the longest is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filling<'a> {
    constraint: &'a Constraint,
    budget: f64,
    max_items: usize,
    count: usize,
    longest: f64,
}

impl Filling<'_> {
    /// Adds an item.
    pub fn add(&mut self, length: Length) {
        self.count += 1;
        self.longest = self.longest.max(self.constraint.measure(length));
    }

    /// Whether an item can be added without exceeding a bound. Into an empty batch it always can: one that is too long
    /// makes a batch by itself.
    pub fn can_add(&self, length: Length) -> bool {
        let mut filled = *self;
        filled.add(length);
        self.count == 0 || !filled.is_exceeded()
    }

    /// Whether the batch is full: another item as long as the longest would exceed a bound.
    pub fn is_close(&self) -> bool {
        self.cost_of(self.count + 1) > self.budget || self.count >= self.max_items
    }

    /// Whether a bound is exceeded.
    pub fn is_exceeded(&self) -> bool {
        self.cost_of(self.count) > self.budget || self.count > self.max_items
    }

    /// Padded cost: items times the longest one, in the unit of the budget.
    pub fn cost(&self) -> f64 {
        self.cost_of(self.count)
    }

    /// Share of the budget that is used; above 1 for a single item that is too long.
    pub fn share(&self) -> f64 {
        self.cost() / self.budget
    }

    fn cost_of(&self, count: usize) -> f64 {
        padded_cost(count, self.longest, self.constraint.quadratic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled<'a>(constraint: &'a Constraint, lengths: &[Length]) -> Filling<'a> {
        let mut filling = constraint.filling(0);
        lengths.iter().for_each(|&length| filling.add(length));
        filling
    }

    #[test]
    fn a_batch_is_close_when_one_more_would_exceed() {
        let constraint =
            Constraint::Duration { max_secs: 61.0, quadratic_secs: Some(30.0), max_items: Some(9) };
        let long = Length::new(30.0, 1);
        let alone = filled(&constraint, &[long]);
        assert!((alone.cost(), alone.is_close(), alone.is_exceeded()) == (60.0, true, false));
        let short = Length::new(5.0, 1);
        let nine = filled(&constraint, &[short; 9]);
        assert!(nine.is_close() && !nine.is_exceeded() && nine.cost() < 53.0, "nine are the most");
        assert!(!filled(&constraint, &[short; 8]).is_close());
        assert!(filled(&constraint, &[short; 10]).is_exceeded());
        // Not close, but a longer item would stretch all others.
        let eight = filled(&constraint, &[short; 8]);
        assert!(eight.can_add(short) && !eight.can_add(Length::new(7.0, 1)));
        assert!(constraint.filling(0).can_add(Length::new(1e6, 1)), "alone it may be as long as it is");
    }

    #[test]
    fn a_batch_of_equal_items_has_the_size_at_which_it_is_close() {
        for (max_secs, quadratic_secs, max_items) in
            [(0.3, None, None), (61.0, Some(30.0), None), (100.0, None, Some(7)), (1.0, None, None)]
        {
            let constraint = Constraint::Duration { max_secs, quadratic_secs, max_items };
            for secs in [0.1, 0.7, 3.0, 30.0] {
                let item = Length::new(secs, 1);
                let mut filling = constraint.filling(0);
                let mut n_items = 0;
                while filling.can_add(item) {
                    filling.add(item);
                    n_items += 1;
                }
                assert_eq!(constraint.batch_size(0, item), n_items, "{secs} s in {max_secs}");
            }
        }
        let sizes = Constraint::BatchSizes { batch_sizes: vec![5, 2] };
        assert_eq!([0, 1].map(|bucket| sizes.batch_size(bucket, Length::new(9.0, 9))), [5, 2]);
    }

    #[test]
    fn budgets_of_tokens_count_what_they_say() {
        let item = Length::new(1.01, 7);
        let cost = |counted| {
            let constraint =
                Constraint::Tokens { max_tokens: 100, counted, quadratic_tokens: None, max_items: None };
            filled(&constraint, &[item, item]).cost()
        };
        assert_eq!(cost(CountedTokens::Output), 14.0);
        let silent = Constraint::Tokens {
            max_tokens: 2,
            counted: CountedTokens::Output,
            quadratic_tokens: None,
            max_items: None,
        };
        assert!(filled(&silent, &[Length::new(1.0, 0); 2]).is_close());
        assert_eq!(cost(CountedTokens::Audio { token_secs: 0.08 }), 26.0);
        assert_eq!(cost(CountedTokens::Total { token_secs: 0.08 }), 40.0);
        let sizes = Constraint::BatchSizes { batch_sizes: vec![2, 1] };
        assert!(filled(&sizes, &[item, item]).is_close() && !filled(&sizes, &[item]).is_close());
        assert_eq!(filled(&sizes, &[item]).share(), 0.5);
    }

    #[test]
    fn bounds_without_sense_are_refused() {
        let tokens = |max_tokens, counted| Constraint::Tokens {
            max_tokens,
            counted,
            quadratic_tokens: None,
            max_items: None,
        };
        for bad in [
            Constraint::max_duration(0.0),
            Constraint::max_duration(f64::NAN),
            Constraint::Duration { max_secs: 1.0, quadratic_secs: Some(0.0), max_items: None },
            Constraint::Duration { max_secs: 1.0, quadratic_secs: None, max_items: Some(0) },
            Constraint::BatchSizes { batch_sizes: vec![1] },
            Constraint::BatchSizes { batch_sizes: vec![1, 0] },
            tokens(0, CountedTokens::Output),
            tokens(5, CountedTokens::Audio { token_secs: -1.0 }),
        ] {
            assert!(bad.check(2).is_err(), "{bad:?}");
        }
        assert!(tokens(5, CountedTokens::Total { token_secs: 0.08 }).check(2).is_ok());
        let json = r#"{"by":"duration","max_secs":120.0,"quadratic_secs":15.0}"#;
        let parsed: Constraint = serde_json::from_str(json).unwrap();
        assert_eq!(
            parsed,
            Constraint::Duration { max_secs: 120.0, quadratic_secs: Some(15.0), max_items: None }
        );
    }
}
