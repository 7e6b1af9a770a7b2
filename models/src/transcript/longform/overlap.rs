//! Windows that hear the same second of speech, where nobody paused to be cut at: whose text is kept.

use std::ops::Range;

use audio::Span;

/// Seconds that two windows hear (NeMo `speech_to_text_aed_chunked_infer` overlaps its chunks by as much).
pub(crate) const OVERLAP_SECS: f64 = 1.0;
/// Words that may be said in them.
const MAX_WORDS: usize = 8;
/// Words at a window's edge that only one of two makes, of half a word.
const MAX_BROKEN: usize = 2;
/// What two windows may differ by about when a word began; more, where they agree that it was said in some of the time.
const MAX_DIFFERENCE_SECS: f64 = 0.3;

/// A stretch of a recording that is decoded on its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stretch {
    /// What is heard.
    pub heard: Span,
    /// What the text is of: less, where other stretches are heard with it.
    pub told: Span,
}

impl Stretch {
    /// One whose text is of all that is heard.
    pub fn alone(heard: Span) -> Self {
        Self { heard, told: heard }
    }

    pub fn overlaps_before(&self) -> bool {
        self.told.start_secs > self.heard.start_secs
    }

    pub fn overlaps_after(&self) -> bool {
        self.told.end_secs < self.heard.end_secs
    }
}

/// Stretches of windows in order: those between which speech was cut hear a second together. Each becomes at most
/// [`OVERLAP_SECS`] longer.
pub(crate) fn overlapping(windows: &[Span]) -> Vec<Stretch> {
    let touch = |a: Option<&Span>, b: Option<&Span>| matches!((a, b), (Some(a), Some(b)) if a.end_secs == b.start_secs);
    let stretch = |(index, told): (usize, &Span)| {
        let before = index.checked_sub(1).and_then(|index| windows.get(index));
        let mut heard = *told;
        if touch(before, Some(told)) {
            heard.start_secs = (told.start_secs - OVERLAP_SECS / 2.0).max(0.0);
        }
        if touch(Some(told), windows.get(index + 1)) {
            heard.end_secs += OVERLAP_SECS / 2.0;
        }
        Stretch { heard, told: *told }
    };
    windows.iter().enumerate().map(stretch).collect()
}

/// What a window says, as words in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Words {
    pub texts: Vec<String>,
    /// Tokens of each.
    pub n_tokens: Vec<usize>,
    /// When each begins and ends in the recording, where that is known.
    pub secs: Option<Vec<(f64, f64)>>,
}

impl Words {
    /// Those that the other window may have heard too, if it heard them from `heard` on or up to its end.
    fn shared(&self, heard: Span, is_left: bool) -> Range<usize> {
        let n = self.texts.len();
        let by_count = if is_left { n.saturating_sub(MAX_WORDS)..n } else { 0..n.min(MAX_WORDS) };
        let Some(secs) = &self.secs else { return by_count };
        // Two windows do not agree to the tenth of a second.
        let is_within = |(start, end): &(f64, f64)| {
            *end > heard.start_secs - OVERLAP_SECS / 2.0 && *start < heard.end_secs + OVERLAP_SECS / 2.0
        };
        let first = secs.iter().position(is_within).unwrap_or(n);
        let end = secs.iter().rposition(is_within).map_or(first, |last| last + 1);
        let near = first..end.max(first);
        near.start.max(by_count.start)..near.end.min(by_count.end).max(near.start.max(by_count.start))
    }

    /// A word more, or what stands at the last one.
    pub fn push(&mut self, text: &str, n_tokens: usize, secs: Option<(f64, f64)>, is_mark: bool) {
        if let (true, Some(last), Some(n)) = (is_mark, self.texts.last_mut(), self.n_tokens.last_mut()) {
            last.push_str(text);
            *n += n_tokens;
            return;
        }
        self.texts.push(text.to_owned());
        self.n_tokens.push(n_tokens);
        if let (Some(all), Some(secs)) = (&mut self.secs, secs) {
            all.push(secs);
        }
    }

    /// When a word begins and ends, where there is one and that is known.
    pub fn secs_of(&self, word: usize) -> Option<(f64, f64)> {
        self.secs.as_ref()?.get(word).copied()
    }

    /// Tokens of the first `n` words.
    pub fn n_tokens_of(&self, n: usize) -> usize {
        self.n_tokens.iter().take(n).sum()
    }
}

/// How many words of a window are kept, and how many of the next one are left out, which overlaps it around `cut_secs`: both
/// end in the middle of the longest run of words that they have in common there. Common are words that were said at the same time;
/// where nobody knows when, those with hardly anything behind them in the first window or before them in the second, for half a word
/// is all that a window may hear alone. Where they have none, a word is told by the window in whose part it is said; where nobody
/// knows when it was said, by both.
pub(super) fn join(left: &Words, right: &Words, cut_secs: f64) -> (usize, usize) {
    let heard = Span { start_secs: cut_secs - OVERLAP_SECS / 2.0, end_secs: cut_secs + OVERLAP_SECS / 2.0 };
    let (tail, head) = (left.shared(heard, true), right.shared(heard, false));
    let is_near = |i: usize, j: usize| match (&left.secs, &right.secs) {
        (Some(left), Some(right)) => {
            let ((from, to), (start, end)) = (left[i], right[j]);
            (from - start).abs() <= MAX_DIFFERENCE_SECS || (from < end && start < to)
        }
        _ => true,
    };
    let is_timed = left.secs.is_some() && right.secs.is_some();
    let is_same = |i: usize, j: usize| same(&left.texts[i], &right.texts[j]) && is_near(i, j);
    let mut best: Option<(usize, usize, usize)> = None;
    for i in tail.clone() {
        for j in head.clone() {
            let n = (0..(tail.end - i).min(head.end - j)).take_while(|k| is_same(i + k, j + k)).count();
            // Of equally long ones that which comes last in the left one and first in the right one.
            let is_better = best.is_none_or(|(length, at, _)| n > length || (n == length && i > at));
            let is_at_edges = i + n + MAX_BROKEN >= tail.end && j <= MAX_BROKEN;
            if n > 0 && is_better && (is_timed || is_at_edges) {
                best = Some((n, i, j));
            }
        }
    }
    match (best, &left.secs, &right.secs) {
        (Some((n, i, j)), ..) => (i + n.div_ceil(2), j + n.div_ceil(2)),
        (None, Some(left), Some(right)) => part(left, right, cut_secs),
        (None, ..) => (left.texts.len(), 0),
    }
}

/// How many words of a window are kept, and how many of the next one left out, by when each begins and ends: what is said
/// before `cut_secs` is told by the first, the rest by the second. What the other one did not hear stays, on either side.
fn part(left: &[(f64, f64)], right: &[(f64, f64)], cut_secs: f64) -> (usize, usize) {
    let is_before = |(start, end): &&(f64, f64)| f64::midpoint(*start, *end) < cut_secs;
    let left_out = right.iter().take_while(is_before).count();
    let next_secs = right.get(left_out).map_or(f64::INFINITY, |(start, _)| *start);
    let kept = left.iter().take_while(|word| is_before(word) || word.1 <= next_secs).count();
    let last_secs = kept.checked_sub(1).map_or(f64::NEG_INFINITY, |last| left[last].1);
    let unheard = right[..left_out].iter().rev().take_while(|(start, _)| *start >= last_secs).count();
    (kept, left_out - unheard)
}

/// Whether two words are the same but for capitals and for what stands around them.
fn same(a: &str, b: &str) -> bool {
    let bare = |text: &str| text.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let (a, b) = (bare(a), bare(b));
    !a.is_empty() && a == b
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start_secs: f64, end_secs: f64) -> Span {
        Span { start_secs, end_secs }
    }

    fn words(text: &str, secs: Option<&[(f64, f64)]>) -> Words {
        let texts: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Words { n_tokens: vec![1; texts.len()], texts, secs: secs.map(<[_]>::to_vec) }
    }

    #[test]
    fn windows_overlap_where_speech_was_cut_and_nowhere_else() {
        let stretches = overlapping(&[span(1.0, 9.0), span(9.0, 18.0), span(20.0, 22.0)]);
        let heard: Vec<_> = stretches.iter().map(|stretch| stretch.heard).collect();
        assert_eq!(heard, [span(1.0, 9.5), span(8.5, 18.0), span(20.0, 22.0)]);
        let overlaps: Vec<_> =
            stretches.iter().map(|stretch| (stretch.overlaps_before(), stretch.overlaps_after())).collect();
        assert_eq!(overlaps, [(false, true), (true, false), (false, false)]);
    }

    #[test]
    fn what_both_heard_is_told_once() {
        // Half a word at the end of one, and another half at the beginning of the other.
        let (left, right) =
            (words("we went to the old mar", None), words("ld market to the old market in town", None));
        let (kept, left_out) = join(&left, &right, 10.0);
        assert_eq!((kept, left_out), (4, 4));
        let joined = [&left.texts[..kept], &right.texts[left_out..]].concat().join(" ");
        assert_eq!(joined, "we went to the old market in town");
        // Capitals and punctuation are no difference.
        assert_eq!(join(&words("go Home.", None), &words("home we", None), 10.0), (2, 1));
    }

    #[test]
    fn without_a_word_in_common_times_decide_and_without_times_nothing_is_lost() {
        let left = words("a b c", Some(&[(8.0, 9.0), (9.4, 9.8), (10.2, 10.4)]));
        let right = words("x y z", Some(&[(9.4, 9.8), (10.1, 10.4), (11.0, 12.0)]));
        assert_eq!(join(&left, &right, 10.0), (2, 1));
        assert_eq!(join(&words("a b c", None), &words("x y z", None), 10.0), (3, 0));
        // One of the two heard nothing there, or nothing at all.
        let late = words("x y", Some(&[(10.6, 11.0), (11.0, 12.0)]));
        assert_eq!(join(&left, &late, 10.0), (3, 0));
        let early = words("a", Some(&[(8.0, 9.0)]));
        assert_eq!(join(&early, &right, 10.0), (1, 0));
        assert_eq!(join(&left, &words("", Some(&[])), 10.0), (3, 0));
        assert_eq!(join(&words("", Some(&[])), &right, 10.0), (0, 0));
        assert_eq!(join(&words("", None), &words("", None), 10.0), (0, 0));
    }

    #[test]
    fn a_word_that_was_said_elsewhere_is_no_overlap() {
        let left = words("no b c", Some(&[(5.0, 5.5), (9.0, 9.4), (9.8, 10.3)]));
        let right = words("c d no", Some(&[(9.7, 10.2), (10.6, 11.0), (14.0, 15.0)]));
        assert_eq!(join(&left, &right, 10.0), (3, 1));
        // Nor is one that is far from the edges, or that was said at another time.
        let left = words("he went home to the market with his brot", None);
        assert_eq!(join(&left, &words("other and the children came late", None), 10.0), (9, 0));
        let left = words("the man the", Some(&[(8.0, 8.4), (8.5, 9.0), (9.2, 9.4)]));
        let right = words("sat the", Some(&[(9.6, 10.1), (10.4, 10.8)]));
        assert_eq!(join(&left, &right, 10.0), (3, 0));
    }

    proptest! {
        #[test]
        fn windows_of_one_text_join_to_it(
            n_before in 1usize..20, n_shared in 2usize..6, n_after in 1usize..20,
        ) {
            let text: Vec<String> = (0..n_before + n_shared + n_after).map(|i| format!("w{i}")).collect();
            let side = |words: &[String]| Words { texts: words.to_vec(), n_tokens: vec![2; words.len()], secs: None };
            let (left, right) = (side(&text[..n_before + n_shared]), side(&text[n_before..]));
            let (kept, left_out) = join(&left, &right, 10.0);
            prop_assert_eq!([&left.texts[..kept], &right.texts[left_out..]].concat(), text);
            prop_assert_eq!(left.n_tokens_of(kept), 2 * kept);
        }

        #[test]
        fn any_words_join(
            a in prop::collection::vec(("[a-c]{0,2}", 0.0..20.0f64, 0.0..2.0f64), 0..12),
            b in prop::collection::vec(("[a-c]{0,2}", 0.0..20.0f64, 0.0..2.0f64), 0..12),
            is_timed: bool,
        ) {
            let side = |words: &[(String, f64, f64)]| Words {
                texts: words.iter().map(|(text, ..)| text.clone()).collect(),
                n_tokens: vec![1; words.len()],
                secs: is_timed.then(|| words.iter().map(|(_, start, n)| (*start, start + n)).collect()),
            };
            let (kept, left_out) = join(&side(&a), &side(&b), 10.0);
            prop_assert!(kept <= a.len() && left_out <= b.len());
        }
    }
}
