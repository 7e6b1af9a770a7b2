//! Splits a window's tokens into segments at pairs of timestamps and says how far the window got
//! (openai/whisper `transcribe.py`, the middle of its loop).

use std::ops::Range;

use crate::decode::TimestampRules;

/// A segment of one window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    /// Start in the window, in encoder positions.
    pub start: f64,
    /// End in the window, in encoder positions.
    pub end: f64,
    /// Its tokens, timestamps included.
    pub tokens: Range<usize>,
}

/// What a window's tokens say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Split {
    /// In order.
    pub pieces: Vec<Piece>,
    /// Encoder positions after which the next window begins; `None`: the window is used up.
    pub advance: Option<usize>,
}

/// Splits `tokens` of a window of `n_positions`. Without timestamps the window is one segment.
pub(super) fn split(tokens: &[u32], rules: Option<&TimestampRules>, n_positions: usize) -> Split {
    let whole =
        |end: f64| Split { pieces: vec![Piece { start: 0.0, end, tokens: 0..tokens.len() }], advance: None };
    let Some(rules) = rules else { return whole(n_positions as f64) };
    let is_time = |i: usize| rules.is_timestamp(tokens[i]);
    let position = |i: usize| f64::from(tokens[i] - rules.begin).min(n_positions as f64);
    let n = tokens.len();
    let ends_in_single_timestamp = n >= 1 && is_time(n - 1) && (n < 2 || !is_time(n - 2));
    let mut cuts: Vec<usize> = (1..n).filter(|i| is_time(i - 1) && is_time(*i)).collect();
    if cuts.is_empty() {
        // No finished pair: text up to the last timestamp, if that says anything.
        let last = (0..n).rev().find(|i| is_time(*i)).map(position).filter(|position| *position > 0.0);
        let start = (n > 0 && is_time(0)).then(|| position(0)).filter(|_| n > 1).unwrap_or(0.0);
        let end = last.filter(|last| *last > start).unwrap_or(n_positions as f64);
        let mut split = whole(end);
        split.pieces[0].start = start.min(end);
        return split;
    }
    if ends_in_single_timestamp {
        cuts.push(n);
    }
    let mut pieces = Vec::with_capacity(cuts.len());
    let (mut begin, mut latest) = (0, 0f64);
    for cut in cuts {
        // The rules keep times in order; a decoder without them must not turn the recording around either.
        let start = if is_time(begin) { position(begin) } else { 0.0 }.max(latest);
        let end = position(cut - 1).max(start);
        pieces.push(Piece { start, end, tokens: begin..cut });
        (begin, latest) = (cut, end);
    }
    let reached = latest as usize;
    // A window that ends in a single timestamp has nothing after it; one that did not get off its start would
    // be decoded for ever.
    let used_up = ends_in_single_timestamp || reached == 0;
    Split { pieces, advance: (!used_up).then_some(reached) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: TimestampRules =
        TimestampRules { begin: 100, eot: 50, no_timestamps: 99, max_initial: None };

    fn times(tokens: &[u32]) -> (Vec<(f64, f64, usize)>, Option<usize>) {
        let split = split(tokens, Some(&RULES), 400);
        (
            split.pieces.iter().map(|piece| (piece.start, piece.end, piece.tokens.len())).collect(),
            split.advance,
        )
    }

    #[test]
    fn pairs_cut_segments_and_an_open_end_is_decoded_again() {
        assert_eq!(
            times(&[100, 1, 150, 150, 2, 3, 200, 200, 4]),
            (vec![(0.0, 50.0, 3), (50.0, 100.0, 4)], Some(100))
        );
    }

    #[test]
    fn a_single_timestamp_at_the_end_uses_the_window_up() {
        assert_eq!(times(&[105, 1, 150, 160, 2, 200]), (vec![(5.0, 50.0, 3), (60.0, 100.0, 3)], None));
        assert_eq!(times(&[105, 1, 150]), (vec![(5.0, 50.0, 3)], None));
    }

    #[test]
    fn text_without_an_end_lasts_as_long_as_the_window() {
        assert_eq!(times(&[100, 1, 2]), (vec![(0.0, 400.0, 3)], None));
        assert_eq!(times(&[110, 1, 2]), (vec![(10.0, 400.0, 3)], None));
        assert_eq!(times(&[]), (vec![(0.0, 400.0, 0)], None));
    }

    #[test]
    fn times_that_go_back_do_not_turn_the_recording_around() {
        assert_eq!(
            times(&[150, 1, 200, 200, 2, 120, 120, 3]),
            (vec![(50.0, 100.0, 3), (100.0, 100.0, 3)], Some(100))
        );
    }

    #[test]
    fn a_window_that_does_not_move_is_used_up() {
        assert_eq!(times(&[100, 100, 1]).1, None);
    }
}
