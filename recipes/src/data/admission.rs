//! What is let into training, and a count of what is not, by reason and by language: strict buckets drop fast speakers
//! without a word, and languages differ in how many they lose.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::Column::{Left, Right};
use super::table::TextTable;
use super::{BucketTable, Error, Length, or_dash};

/// Why an item is in no batch. In the order in which they are looked for: the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// Its duration is not a positive number.
    InvalidDuration,
    /// Shorter than `min_duration_secs`.
    TooShort,
    /// Longer than `max_duration_secs`.
    TooLong,
    /// Fewer tokens than `min_tokens`.
    TooFewTokens,
    /// More tokens than `max_tokens`.
    TooManyTokens,
    /// Fewer tokens per second than `min_tokens_per_sec`: often a transcript that lacks a part.
    TooSlow,
    /// More tokens per second than `max_tokens_per_sec`: often a transcript of more than there is.
    TooFast,
    /// More tokens for each position of the encoder than `tokens_per_position` allows.
    TooManyTokensPerPosition,
    /// Longer than the last bucket.
    LongerThanBuckets,
    /// More tokens than the buckets of its duration have room for; in a lenient table than any has that is long enough.
    MoreTokensThanBuckets,
    /// More tokens per second than its bucket allows.
    FasterThanBucket,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidDuration => "no duration",
            Self::TooShort => "too short",
            Self::TooLong => "too long",
            Self::TooFewTokens => "too few tokens",
            Self::TooManyTokens => "too many tokens",
            Self::TooSlow => "too few tokens/s",
            Self::TooFast => "too many tokens/s",
            Self::TooManyTokensPerPosition => "too many tokens/position",
            Self::LongerThanBuckets => "longer than buckets",
            Self::MoreTokensThanBuckets => "more tokens than buckets",
            Self::FasterThanBucket => "more tokens/s than bucket",
        })
    }
}

/// Bounds on what is trained on, inclusive. `Default` takes everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthLimits {
    /// Shortest item.
    pub min_duration_secs: f64,
    /// Longest item.
    pub max_duration_secs: Option<f64>,
    /// Fewest output tokens.
    pub min_tokens: u32,
    /// Most output tokens.
    pub max_tokens: Option<u32>,
    /// Fewest output tokens per second.
    pub min_tokens_per_sec: f64,
    /// Most output tokens per second.
    pub max_tokens_per_sec: Option<f64>,
    /// Most output tokens for the positions that the encoder makes of the audio.
    pub tokens_per_position: Option<TokensPerPosition>,
}

/// A bound on output tokens for each position of the encoder. CTC can't write more than one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensPerPosition {
    /// Seconds of audio that a position stands for (hop times subsampling); the last one may be partly empty.
    pub position_secs: f64,
    /// Most tokens per position.
    pub max: f64,
    /// Output tokens that nobody says, and that no position is for: a prompt's.
    #[serde(default)]
    pub n_unsaid: u32,
}

impl LengthLimits {
    /// Refuses limits that nothing can keep.
    ///
    /// # Errors
    /// The limit and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        let ascend = |name, min: f64, max: Option<f64>| match max {
            _ if !(min.is_finite() && min >= 0.0) => {
                Err(Error::setting(name, min, "must be a number from 0"))
            }
            Some(max) if max.is_nan() || max < min => {
                Err(Error::setting(name, min, format!("must not be above the largest, {max}")))
            }
            _ => Ok(()),
        };
        ascend("min_duration_secs", self.min_duration_secs, self.max_duration_secs)?;
        ascend("min_tokens", f64::from(self.min_tokens), self.max_tokens.map(f64::from))?;
        ascend("min_tokens_per_sec", self.min_tokens_per_sec, self.max_tokens_per_sec)?;
        if let Some(TokensPerPosition { position_secs, max, .. }) = self.tokens_per_position {
            for (name, value) in [("position_secs", position_secs), ("tokens_per_position", max)] {
                if !(value.is_finite() && value > 0.0) {
                    return Err(Error::setting(name, value, "must be a positive number"));
                }
            }
        }
        Ok(())
    }

    /// Every limit, spelt out for a digest.
    pub(super) fn canonical_text(&self) -> String {
        let per_position = self.tokens_per_position.map(|limit| match limit.n_unsaid {
            0 => format!("{}/{}", limit.max, limit.position_secs),
            n_unsaid => format!("{}/{} after {n_unsaid}", limit.max, limit.position_secs),
        });
        format!(
            "limits {}..{} s {}..{} tokens {}..{} tokens/s {} tokens/position",
            self.min_duration_secs,
            or_dash(self.max_duration_secs),
            self.min_tokens,
            or_dash(self.max_tokens),
            self.min_tokens_per_sec,
            or_dash(self.max_tokens_per_sec),
            or_dash(per_position),
        )
    }

    /// Whether an item keeps the limits: duration, tokens, tokens per second, tokens per position (NeMo's order).
    ///
    /// # Errors
    /// The first limit that it does not keep.
    pub fn admit(&self, length: Length) -> Result<(), Rejection> {
        let Length { duration_secs, n_tokens } = length;
        let rate = length.tokens_per_sec();
        let exceeds = |value: f64, max: Option<f64>| max.is_some_and(|max| value > max);
        let per_position = self.tokens_per_position.map(|limit| {
            let n_said = f64::from(n_tokens.saturating_sub(limit.n_unsaid));
            (n_said / (duration_secs / limit.position_secs).ceil(), limit.max)
        });
        let reasons = [
            (!length.is_valid(), Rejection::InvalidDuration),
            (duration_secs < self.min_duration_secs, Rejection::TooShort),
            (exceeds(duration_secs, self.max_duration_secs), Rejection::TooLong),
            (n_tokens < self.min_tokens, Rejection::TooFewTokens),
            (self.max_tokens.is_some_and(|max| n_tokens > max), Rejection::TooManyTokens),
            (rate < self.min_tokens_per_sec, Rejection::TooSlow),
            (exceeds(rate, self.max_tokens_per_sec), Rejection::TooFast),
            (per_position.is_some_and(|(value, max)| value > max), Rejection::TooManyTokensPerPosition),
        ];
        reasons.iter().find(|(applies, _)| *applies).map_or(Ok(()), |(_, reason)| Err(*reason))
    }

    /// The bucket of an item that keeps the limits.
    ///
    /// # Errors
    /// The first limit that it does not keep, or why no bucket takes it.
    pub fn assign(&self, length: Length, table: &BucketTable) -> Result<usize, Rejection> {
        self.admit(length)?;
        table.assign(length)
    }
}

/// What became of the items of one language.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LanguageAdmission {
    /// Items that were accepted.
    pub n_accepted: usize,
    /// Their audio.
    pub accepted_secs: f64,
    /// Items that were not, by reason.
    pub n_rejected: BTreeMap<Rejection, usize>,
    /// Their audio, as far as it has a duration.
    pub rejected_secs: f64,
}

impl LanguageAdmission {
    /// Rejected items, for whatever reason.
    pub fn n_rejected(&self) -> usize {
        self.n_rejected.values().sum()
    }

    /// Share of the items that were rejected, 0 to 1.
    pub fn rejected_share(&self) -> f64 {
        let n_rejected = self.n_rejected();
        n_rejected as f64 / (n_rejected + self.n_accepted).max(1) as f64
    }

    fn count(&mut self, length: Length, outcome: Result<(), Rejection>) {
        let secs = if length.is_valid() { length.duration_secs } else { 0.0 };
        match outcome {
            Ok(()) => {
                self.n_accepted += 1;
                self.accepted_secs += secs;
            }
            Err(reason) => {
                *self.n_rejected.entry(reason).or_default() += 1;
                self.rejected_secs += secs;
            }
        }
    }
}

/// Accepted and rejected items by language. Its text is a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Admission {
    /// By language code; `""` for items without one.
    pub by_language: BTreeMap<String, LanguageAdmission>,
}

impl Admission {
    /// Counts one item.
    pub fn count(&mut self, language: &str, length: Length, outcome: Result<(), Rejection>) {
        if let Some(counts) = self.by_language.get_mut(language) {
            return counts.count(length, outcome);
        }
        self.by_language.entry(language.to_owned()).or_default().count(length, outcome);
    }

    /// All languages together.
    pub fn total(&self) -> LanguageAdmission {
        let mut total = LanguageAdmission::default();
        for counts in self.by_language.values() {
            total.n_accepted += counts.n_accepted;
            total.accepted_secs += counts.accepted_secs;
            total.rejected_secs += counts.rejected_secs;
            for (reason, n) in &counts.n_rejected {
                *total.n_rejected.entry(*reason).or_default() += n;
            }
        }
        total
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = TextTable::new(&[
            Left("language"),
            Right("accepted"),
            Right("hours"),
            Right("rejected"),
            Right("share"),
            Left("reasons"),
        ]);
        let total = ("all".to_owned(), self.total());
        let rows = self.by_language.iter().map(|(language, counts)| (language.clone(), counts.clone()));
        for (language, counts) in rows.chain((self.by_language.len() != 1).then_some(total)) {
            let reasons: Vec<String> =
                counts.n_rejected.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
            table.row([
                if language.is_empty() { "unknown".to_owned() } else { language },
                counts.n_accepted.to_string(),
                format!("{:.1}", counts.accepted_secs / 3600.0),
                counts.n_rejected().to_string(),
                format!("{:.1} %", 100.0 * counts.rejected_share()),
                reasons.join(", "),
            ]);
        }
        table.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LengthLimits {
        LengthLimits {
            min_duration_secs: 1.0,
            max_duration_secs: Some(20.0),
            min_tokens: 2,
            max_tokens: Some(100),
            min_tokens_per_sec: 0.5,
            max_tokens_per_sec: Some(25.0),
            tokens_per_position: Some(TokensPerPosition { position_secs: 0.08, max: 1.0, n_unsaid: 0 }),
        }
    }

    #[test]
    fn the_first_limit_that_is_not_kept_is_the_reason() {
        for (secs, n_tokens, expected) in [
            (f64::NAN, 0, Err(Rejection::InvalidDuration)),
            (0.5, 0, Err(Rejection::TooShort)),
            (20.1, 200, Err(Rejection::TooLong)),
            (10.0, 1, Err(Rejection::TooFewTokens)),
            (2.0, 101, Err(Rejection::TooManyTokens)),
            (10.0, 4, Err(Rejection::TooSlow)),
            (2.0, 60, Err(Rejection::TooFast)),
            // 13 positions: 14 tokens are one too many, at 13.6 tokens per second.
            (1.03, 14, Err(Rejection::TooManyTokensPerPosition)),
            (1.03, 13, Ok(())),
            (1.0, 2, Ok(())),
            (20.0, 100, Ok(())),
        ] {
            assert_eq!(limits().admit(Length::new(secs, n_tokens)), expected, "{secs} {n_tokens}");
        }
        // Of a prompt nothing is heard.
        let mut after_prompt = limits();
        after_prompt.tokens_per_position =
            after_prompt.tokens_per_position.map(|limit| TokensPerPosition { n_unsaid: 5, ..limit });
        assert_eq!(after_prompt.admit(Length::new(1.03, 18)), Ok(()));
        assert_eq!(after_prompt.admit(Length::new(1.03, 19)), Err(Rejection::TooManyTokensPerPosition));
        // The limits come before the buckets.
        let table = BucketTable::of_durations(&[10.0]).unwrap();
        assert_eq!(limits().assign(Length::new(21.0, 50), &table), Err(Rejection::TooLong));
        assert_eq!(limits().assign(Length::new(11.0, 50), &table), Err(Rejection::LongerThanBuckets));
        assert_eq!(limits().assign(Length::new(9.0, 50), &table), Ok(0));
        assert_eq!(LengthLimits::default().admit(Length::new(1e6, 0)), Ok(()));
    }

    #[test]
    fn limits_that_cross_are_refused() {
        assert!(limits().check().is_ok() && LengthLimits::default().check().is_ok());
        for bad in [
            LengthLimits { max_duration_secs: Some(0.5), ..limits() },
            LengthLimits { min_duration_secs: f64::NAN, ..limits() },
            LengthLimits { max_tokens: Some(1), ..limits() },
            LengthLimits { max_tokens_per_sec: Some(f64::NAN), ..limits() },
            LengthLimits {
                tokens_per_position: Some(TokensPerPosition { position_secs: 0.0, max: 1.0, n_unsaid: 0 }),
                ..limits()
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn losses_are_told_by_language() {
        let mut admission = Admission::default();
        for (language, secs, n_tokens) in
            [("ps", 3600.0, 9), ("ps", 2.0, 60), ("ps", 0.5, 9), ("ps", 0.4, 9), ("en", 5.0, 9), ("", 5.0, 9)]
        {
            let length = Length::new(secs, n_tokens);
            let limits = LengthLimits { max_duration_secs: None, min_tokens_per_sec: 0.0, ..limits() };
            admission.count(language, length, limits.admit(length));
        }
        let pashto = &admission.by_language["ps"];
        assert_eq!((pashto.n_accepted, pashto.n_rejected(), pashto.rejected_share()), (1, 3, 0.75));
        assert_eq!((pashto.n_rejected[&Rejection::TooShort], pashto.n_rejected[&Rejection::TooFast]), (2, 1));
        assert_eq!((admission.total().n_accepted, admission.total().n_rejected()), (3, 3));
        let text = admission.to_string();
        assert!(text.contains("too short 2, too many tokens/s 1") && text.contains("75.0 %"), "{text}");
        assert!(text.contains("unknown") && text.contains("all"), "{text}");
        let stored: Admission = serde_json::from_str(&serde_json::to_string(&admission).unwrap()).unwrap();
        assert_eq!(stored, admission);
    }
}
