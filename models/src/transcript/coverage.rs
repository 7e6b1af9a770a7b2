//! Which seconds of speech have text. Speech is what the voice activity detector says; text is what windows
//! that were accepted say.

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

/// Holds `outcomes`, in any order, against `speech`. Where outcomes overlap, text wins.
pub(super) fn coverage(speech: &[Span], outcomes: &[Outcome]) -> Coverage {
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
        let mut here = outcomes.iter().filter(|outcome| holds(outcome.start_secs, outcome.end_secs));
        let first = here.clone().next();
        if here.any(|outcome| outcome.gap.is_none()) {
            coverage.decoded_secs += end_secs - start_secs;
            continue;
        }
        let reason = first.and_then(|outcome| outcome.gap).unwrap_or(GapReason::Empty);
        match gaps.last_mut() {
            Some(gap) if gap.end_secs == start_secs && gap.reason == reason => gap.end_secs = end_secs,
            _ => gaps.push(Gap { start_secs, end_secs, reason }),
        }
    }
    let (long, short): (Vec<_>, Vec<_>) =
        gaps.into_iter().partition(|gap| gap.end_secs - gap.start_secs >= MIN_GAP_SECS);
    coverage.decoded_secs += short.iter().map(|gap| gap.end_secs - gap.start_secs).sum::<f64>();
    coverage.gaps = long;
    coverage
}

#[cfg(test)]
mod tests {
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
            &[span(1.0, 4.0), span(6.0, 9.0)],
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
            &[span(0.0, 3.0)],
            &[outcome(0.2, 3.0, None), outcome(0.0, 3.0, Some(GapReason::Empty))],
        );
        assert_eq!((found.speech_secs, found.decoded_secs), (3.0, 3.0));
        assert!(found.gaps.is_empty());
    }
}
