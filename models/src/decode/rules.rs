//! What a row may write next, as functions of what it has written: suppressed tokens and the grammar of
//! timestamps (openai/whisper `decoding.py: SuppressBlank, SuppressTokens, ApplyTimestampRules`).

use crate::Error;
use crate::kernels::{are_finite, largest_of, log_sum_exp};

/// All rules of one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// Never.
    pub suppress: Vec<u32>,
    /// Not as the first token.
    pub begin_suppress: Vec<u32>,
    /// Set when timestamps are predicted.
    pub timestamps: Option<TimestampRules>,
}

/// Timestamps come in pairs around text, never go back, and a segment is longer than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampRules {
    /// Id of `<|0.00|>`; timestamps are the ids from here on.
    pub begin: u32,
    /// Id of the end of text; text ids are below it.
    pub eot: u32,
    /// Id of `<|notimestamps|>`.
    pub no_timestamps: u32,
    /// Latest first timestamp, in steps.
    pub max_initial: Option<u32>,
}

impl Rules {
    /// Sets the logits (V) of what must not follow `written` to minus infinity.
    pub fn apply(&self, written: &[u32], logits: &mut [f32]) {
        for &id in &self.suppress {
            forbid(logits, id);
        }
        if written.is_empty() {
            for &id in &self.begin_suppress {
                forbid(logits, id);
            }
        }
        if let Some(rules) = &self.timestamps {
            rules.apply(written, logits);
        }
    }
}

fn forbid(logits: &mut [f32], id: u32) {
    if let Some(logit) = logits.get_mut(id as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

impl TimestampRules {
    /// Whether `id` is a timestamp.
    pub fn is_timestamp(&self, id: u32) -> bool {
        id >= self.begin
    }

    fn apply(&self, written: &[u32], logits: &mut [f32]) {
        let begin = (self.begin as usize).min(logits.len());
        let eot = (self.eot as usize).min(begin);
        forbid(logits, self.no_timestamps);
        let last_is_timestamp = written.last().is_some_and(|id| self.is_timestamp(*id));
        let before_is_timestamp = written.len() < 2 || self.is_timestamp(written[written.len() - 2]);
        if last_is_timestamp {
            if before_is_timestamp {
                // A pair is complete: text follows, or the end.
                logits[begin..].fill(f32::NEG_INFINITY);
            } else {
                // Text was closed: its twin or the end follows.
                logits[..eot].fill(f32::NEG_INFINITY);
            }
        }
        if let Some(last) = written.iter().rev().find(|id| self.is_timestamp(**id)) {
            let closes_pair = last_is_timestamp && !before_is_timestamp;
            let earliest = *last as usize + usize::from(!closes_pair);
            let end = earliest.min(logits.len()).max(begin);
            logits[begin..end].fill(f32::NEG_INFINITY);
        }
        if written.is_empty() {
            logits[..begin].fill(f32::NEG_INFINITY);
            if let Some(max_initial) = self.max_initial {
                let first_forbidden = (begin + max_initial as usize + 1).min(logits.len());
                logits[first_forbidden..].fill(f32::NEG_INFINITY);
            }
        }
        // More probably some timestamp than any single text token: then a timestamp it is.
        if log_sum_exp(&logits[begin..]) > largest_of(&logits[..begin]) {
            logits[..begin].fill(f32::NEG_INFINITY);
        }
    }
}

/// Refuses numbers of which no decision can be made: NaN compares with nothing, so that searching among them gives a text
/// all the same.
pub(crate) fn check_finite(what: &'static str, numbers: &[f32]) -> Result<(), Error> {
    if are_finite(numbers) { Ok(()) } else { Err(Error::NotFinite { what }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: TimestampRules =
        TimestampRules { begin: 20, eot: 10, no_timestamps: 19, max_initial: Some(3) };
    const VOCAB: usize = 40;

    fn allowed(written: &[u32], logits: &[f32]) -> Vec<usize> {
        let mut logits = logits.to_vec();
        Rules { timestamps: Some(RULES), ..Rules::default() }.apply(written, &mut logits);
        (0..VOCAB).filter(|id| logits[*id] > f32::NEG_INFINITY).collect()
    }

    fn flat() -> Vec<f32> {
        // Text is far likelier than any timestamp, so that the last rule stays out of the way.
        (0..VOCAB).map(|id| if id < 20 { 5.0 } else { -5.0 }).collect()
    }

    #[test]
    fn starts_with_an_early_timestamp() {
        assert_eq!(allowed(&[], &flat()), [20, 21, 22, 23]);
    }

    #[test]
    fn text_follows_an_opening_and_a_completed_pair() {
        assert_eq!(allowed(&[21], &flat()), (0..19).collect::<Vec<_>>());
        assert_eq!(allowed(&[21, 3, 25, 25], &flat()), (0..19).collect::<Vec<_>>());
    }

    #[test]
    fn a_closing_timestamp_is_followed_by_its_twin_or_later_or_the_end() {
        let expected: Vec<_> = (10..19).chain(25..40).collect();
        assert_eq!(allowed(&[21, 3, 25], &flat()), expected);
    }

    #[test]
    fn segments_are_longer_than_nothing() {
        let expected: Vec<_> = (0..19).chain(22..40).collect();
        assert_eq!(allowed(&[21, 3], &flat()), expected);
    }

    #[test]
    fn a_likely_timestamp_bans_text() {
        let mut logits = flat();
        logits[30] = 9.0;
        assert_eq!(allowed(&[21, 3], &logits), (22..40).collect::<Vec<_>>());
    }

    #[test]
    fn suppressed_tokens_never_come_and_blanks_not_first() {
        let rules = Rules { suppress: vec![1, 99], begin_suppress: vec![2], timestamps: None };
        let mut logits = vec![0.0; 4];
        rules.apply(&[], &mut logits);
        assert_eq!(logits, [0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0]);
        let mut logits = vec![0.0; 4];
        rules.apply(&[3], &mut logits);
        assert_eq!(logits, [0.0, f32::NEG_INFINITY, 0.0, 0.0]);
    }

    proptest! {
        /// Any walk that takes allowed tokens is made of `<start> text <end>` with ordered, non-empty times.
        #[test]
        fn every_walk_is_grammatical(choices in prop::collection::vec((any::<prop::sample::Index>(), 0u64..1000), 1..60)) {
            let mut written = Vec::new();
            for (choice, seed) in choices {
                let logits: Vec<f32> = (0..VOCAB as u64).map(|id| ((id * 37 + seed * 101) % 13) as f32 - 6.0).collect();
                let open = allowed(&written, &logits);
                prop_assume!(!open.is_empty());
                let id = open[choice.index(open.len())] as u32;
                if id == RULES.eot { break }
                written.push(id);
            }
            prop_assert!(!written.contains(&RULES.no_timestamps));
            let times: Vec<u32> = written.iter().copied().filter(|id| RULES.is_timestamp(*id)).collect();
            prop_assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{written:?}");
            prop_assert!(written.first().is_none_or(|id| RULES.is_timestamp(*id)));
            prop_assert!(times.first().is_none_or(|id| *id <= RULES.begin + 3));
            for run in written.split(|id| !RULES.is_timestamp(*id)) {
                prop_assert!(run.len() <= 2, "{written:?}");
            }
            let mut start = None;
            for (i, id) in written.iter().enumerate() {
                if RULES.is_timestamp(*id) {
                    let opens = written.get(i + 1).is_some_and(|next| !RULES.is_timestamp(*next));
                    let closes = i > 0 && !RULES.is_timestamp(written[i - 1]);
                    if let (true, Some(start)) = (closes, start) {
                        prop_assert!(*id > start, "{written:?}");
                    }
                    if opens { start = Some(*id) }
                }
            }
        }
    }
}
