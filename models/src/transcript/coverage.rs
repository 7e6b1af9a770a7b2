//! Which seconds of speech have text. Speech is what the voice activity detector says; text is what windows
//! that were accepted say. A recording of hours has thousands of both: nothing here looks at each for each.

use std::collections::BTreeSet;

use audio::Span;

use super::{Coverage, Gap, GapReason};

/// Speech without text that is shorter than this is a difference of opinion about where speech begins.
const MIN_GAP_SECS: f64 = 0.5;

/// What became of a stretch of the recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    pub start_secs: f64,
    pub end_secs: f64,
    /// `None`: there is text for it.
    pub gap: Option<GapReason>,
}

/// Where somebody speaks: spans in order that do not overlap.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Speech(Vec<Span>);

impl Speech {
    /// Puts `spans` in order and joins those that overlap.
    pub fn new(mut spans: Vec<Span>) -> Self {
        spans.retain(|span| span.start_secs < span.end_secs);
        spans.sort_by(|a, b| a.start_secs.total_cmp(&b.start_secs));
        spans.dedup_by(|next, last| {
            let overlap = next.start_secs < last.end_secs;
            if overlap {
                last.end_secs = last.end_secs.max(next.end_secs);
            }
            overlap
        });
        Self(spans)
    }

    /// The spans that reach into `from_secs .. to_secs`.
    fn within(&self, from_secs: f64, to_secs: f64) -> &[Span] {
        let first = self.0.partition_point(|span| span.end_secs <= from_secs);
        let end = self.0.partition_point(|span| span.start_secs < to_secs);
        self.0.get(first..end).unwrap_or_default()
    }

    /// Whether somebody speaks between two times.
    pub fn is_between(&self, from_secs: f64, to_secs: f64) -> bool {
        !self.within(from_secs, to_secs).is_empty()
    }

    /// How long somebody speaks between two times.
    pub fn secs_between(&self, from_secs: f64, to_secs: f64) -> f64 {
        let spans = self.within(from_secs, to_secs).iter();
        spans.map(|span| (span.end_secs.min(to_secs) - span.start_secs.max(from_secs)).max(0.0)).sum()
    }
}

/// What holds a piece of the recording, by what counts most: speech, text, and of gaps the one that was noted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Speech(usize),
    Text(usize),
    Gap(usize),
}

/// Holds `outcomes`, in any order, against `speech`. Where outcomes overlap, text wins.
pub(super) fn coverage(speech: &Speech, outcomes: &[Outcome]) -> Coverage {
    let spans = speech.0.iter().enumerate();
    let spans = spans.map(|(index, span)| (span.start_secs, span.end_secs, Holder::Speech(index)));
    let outcomes_held = outcomes.iter().enumerate().map(|(index, outcome)| {
        let holder = if outcome.gap.is_none() { Holder::Text(index) } else { Holder::Gap(index) };
        (outcome.start_secs, outcome.end_secs, holder)
    });
    let mut coverage = Coverage::default();
    let mut gaps: Vec<Gap> = Vec::new();
    sweep(spans.chain(outcomes_held), |start_secs, end_secs, holders| {
        if !matches!(holders.first(), Some(Holder::Speech(_))) {
            return;
        }
        coverage.speech_secs += end_secs - start_secs;
        let reason = match holders.range(Holder::Text(0)..).next() {
            Some(Holder::Text(_)) => {
                coverage.decoded_secs += end_secs - start_secs;
                return;
            }
            Some(Holder::Gap(index)) => outcomes.get(*index).and_then(|outcome| outcome.gap),
            _ => None,
        };
        let reason = reason.unwrap_or(GapReason::Empty);
        match gaps.last_mut() {
            Some(gap) if gap.end_secs == start_secs && gap.reason == reason => gap.end_secs = end_secs,
            _ => gaps.push(Gap { start_secs, end_secs, reason }),
        }
    });
    let (long, short): (Vec<_>, Vec<_>) =
        gaps.into_iter().partition(|gap| gap.end_secs - gap.start_secs >= MIN_GAP_SECS);
    coverage.decoded_secs += short.iter().map(|gap| gap.end_secs - gap.start_secs).sum::<f64>();
    coverage.gaps = long;
    coverage
}

/// Goes once over the pieces between all edges of `intervals` (start, end, holder), in order, and says what holds each:
/// O(n log n), however the intervals overlap. Holders are unique; an interval that does not end after it starts holds
/// nothing.
fn sweep<T: Copy + PartialOrd, H: Copy + Ord>(
    intervals: impl Iterator<Item = (T, T, H)>,
    mut visit: impl FnMut(T, T, &BTreeSet<H>),
) {
    let mut edges: Vec<(T, bool, H)> = intervals
        .filter(|(start, end, _)| start < end)
        .flat_map(|(start, end, holder)| [(start, true, holder), (end, false, holder)])
        .collect();
    // All are comparable: each took part in a `start < end` that held.
    edges.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
    let mut holders = BTreeSet::new();
    let mut last = None;
    for &(at, starts, holder) in &edges {
        if let Some(last) = last
            && last < at
        {
            visit(last, at, &holders);
        }
        last = Some(at);
        if starts {
            holders.insert(holder);
        } else {
            holders.remove(&holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn span(start_secs: f64, end_secs: f64) -> Span {
        Span { start_secs, end_secs }
    }

    fn outcome(start_secs: f64, end_secs: f64, gap: Option<GapReason>) -> Outcome {
        Outcome { start_secs, end_secs, gap }
    }

    #[test]
    fn speech_without_text_is_a_gap_with_its_reason() {
        let found = coverage(
            &Speech::new(vec![span(1.0, 4.0), span(6.0, 9.0)]),
            &[
                outcome(0.0, 5.0, None),
                outcome(5.0, 8.0, Some(GapReason::NoSpeech)),
                outcome(8.0, 10.0, None),
            ],
        );
        assert_eq!(found.speech_secs, 6.0);
        assert_eq!(found.decoded_secs, 4.0);
        assert_eq!(found.gaps, [Gap { start_secs: 6.0, end_secs: 8.0, reason: GapReason::NoSpeech }]);
    }

    #[test]
    fn slivers_count_as_decoded_and_text_wins_over_silence() {
        let found = coverage(
            &Speech::new(vec![span(0.0, 3.0)]),
            &[outcome(0.2, 3.0, None), outcome(0.0, 3.0, Some(GapReason::Empty))],
        );
        assert_eq!((found.speech_secs, found.decoded_secs), (3.0, 3.0));
        assert!(found.gaps.is_empty());
    }

    /// Looks at everything for every piece.
    fn plain_coverage(speech: &[Span], outcomes: &[Outcome]) -> Coverage {
        let mut edges: Vec<f64> =
            outcomes.iter().flat_map(|outcome| [outcome.start_secs, outcome.end_secs]).collect();
        edges.extend(speech.iter().flat_map(|span| [span.start_secs, span.end_secs]));
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let mut coverage = Coverage::default();
        let mut gaps: Vec<Gap> = Vec::new();
        for edge in edges.windows(2) {
            let (start_secs, end_secs) = (edge[0], edge[1]);
            let holds = |start: f64, end: f64| start <= start_secs && end_secs <= end;
            if !speech.iter().any(|span| holds(span.start_secs, span.end_secs)) {
                continue;
            }
            coverage.speech_secs += end_secs - start_secs;
            let here = || outcomes.iter().filter(|outcome| holds(outcome.start_secs, outcome.end_secs));
            if here().any(|outcome| outcome.gap.is_none()) {
                coverage.decoded_secs += end_secs - start_secs;
                continue;
            }
            let reason = here().next().and_then(|outcome| outcome.gap).unwrap_or(GapReason::Empty);
            match gaps.last_mut() {
                Some(gap) if gap.end_secs == start_secs && gap.reason == reason => gap.end_secs = end_secs,
                _ => gaps.push(Gap { start_secs, end_secs, reason }),
            }
        }
        for gap in gaps {
            let secs = gap.end_secs - gap.start_secs;
            if secs >= MIN_GAP_SECS { coverage.gaps.push(gap) } else { coverage.decoded_secs += secs }
        }
        coverage
    }

    /// Quarters of a second, so that edges coincide and sums are exact.
    fn edges(n: usize) -> impl Strategy<Value = Vec<(f64, f64)>> {
        let edge = || (0u32..160).prop_map(|quarter| f64::from(quarter) / 4.0);
        prop::collection::vec((edge(), edge()), 0..n)
    }

    fn reason() -> impl Strategy<Value = Option<GapReason>> {
        let reasons = [GapReason::NoSpeech, GapReason::TokenLimit, GapReason::Empty];
        prop::option::of(prop::sample::select(reasons.to_vec()))
    }

    proptest! {
        #[test]
        fn it_is_what_looking_at_everything_for_every_piece_finds(
            spoken in edges(12),
            noted in edges(20),
            reasons in prop::collection::vec(reason(), 20),
        ) {
            let spans: Vec<Span> = spoken.iter().map(|(start, end)| span(*start, *end)).collect();
            let outcomes: Vec<Outcome> =
                noted.iter().zip(reasons).map(|((start, end), gap)| outcome(*start, *end, gap)).collect();
            let speech = Speech::new(spans.clone());
            prop_assert!(speech.0.windows(2).all(|pair| pair[0].end_secs <= pair[1].start_secs));
            prop_assert_eq!(coverage(&speech, &outcomes), plain_coverage(&spans, &outcomes));
        }

        #[test]
        fn speech_between_two_times_is_the_sum_of_its_parts(spoken in edges(12), from in 0.0..40.0f64, secs in -1.0..40.0f64) {
            let speech = Speech::new(spoken.iter().map(|(start, end)| span(*start, *end)).collect());
            let to = from + secs;
            let inside = |span: &Span| (span.end_secs.min(to) - span.start_secs.max(from)).max(0.0);
            let plain: f64 = speech.0.iter().map(inside).sum();
            prop_assert!((speech.secs_between(from, to) - plain).abs() < 1e-9);
            prop_assert!(secs <= 0.0 || speech.is_between(from, to) == (plain > 0.0));
        }
    }

    thread_local! {
        static N_COMPARED: Cell<u64> = const { Cell::new(0) };
    }

    /// A number that counts how often it is compared.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Counted(u64);

    impl PartialOrd for Counted {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Counted {
        fn cmp(&self, other: &Self) -> Ordering {
            N_COMPARED.set(N_COMPARED.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    /// The cost without a clock: twice as many intervals take little more than twice as many comparisons, also where each
    /// overlaps all others.
    #[test]
    fn the_sweep_takes_n_log_n_comparisons() {
        for n_log2 in [10u32, 14] {
            let n = 1u64 << n_log2;
            let nested = |i: u64| (Counted(i), Counted(4 * n - i), Counted(i));
            let in_turn = |i: u64| (Counted(4 * i), Counted(4 * i + 3), Counted(n - i));
            let shapes: [&dyn Fn(u64) -> (Counted, Counted, Counted); 2] = [&nested, &in_turn];
            for shape in shapes {
                N_COMPARED.set(0);
                let mut n_pieces = 0;
                sweep((0..n).map(shape), |_, _, _| n_pieces += 1);
                assert_eq!(n_pieces, 2 * n - 1);
                let n_per_edge = N_COMPARED.get() / (2 * n);
                assert!(n_per_edge <= 4 * u64::from(n_log2), "{n_per_edge} for each of {} edges", 2 * n);
            }
        }
    }
}
