//! Words with times, from where their tokens begin (openai/whisper `timing.py: add_word_timestamps`).

use super::{Segment, Word};
use crate::Error;
use crate::tokenizer::Tokenizer;

/// Punctuation that belongs to the next word.
const OPENING: &str = "\"'“¿([{-";
/// Punctuation that belongs to the word before.
const CLOSING: &str = "\"'.。,，!！?？:：”)]}、";
const SENTENCE_ENDS: &str = ".。!！?？";
/// Words are not taken to last longer than twice the median, and the median not longer than this.
const MAX_MEDIAN_SECS: f64 = 0.7;

/// One word of a window, its times relative to the window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TimedWord {
    pub text: String,
    pub n_tokens: usize,
    pub start_secs: f64,
    pub end_secs: f64,
    pub probability: f32,
}

/// Words of a window's text tokens: `logprobs` has one per token, and so has `secs`, when it begins and ends.
pub(super) fn time_words(
    text_ids: &[u32],
    logprobs: &[f32],
    secs: &[(f64, f64)],
    tokenizer: &Tokenizer,
    language: Option<&str>,
) -> Result<Vec<TimedWord>, Error> {
    let mut first = 0;
    let mut words = Vec::new();
    for (text, n_tokens) in tokenizer.split_words(text_ids, language)? {
        let end = first + n_tokens;
        let probability =
            logprobs[first..end].iter().map(|logprob| logprob.exp()).sum::<f32>() / n_tokens as f32;
        let (start_secs, end_secs) = (secs[first].0, secs[end - 1].1);
        words.push(TimedWord { text, n_tokens, start_secs, end_secs, probability });
        first = end;
    }
    let median = median_duration(&words);
    shorten_at_sentence_ends(&mut words, 2.0 * median);
    merge_punctuation(&mut words);
    Ok(words)
}

/// Median duration of the words that last at all, capped.
pub(super) fn median_duration(words: &[TimedWord]) -> f64 {
    let mut durations: Vec<f64> =
        words.iter().map(|word| word.end_secs - word.start_secs).filter(|duration| *duration > 0.0).collect();
    durations.sort_by(f64::total_cmp);
    let n = durations.len();
    let median = match n {
        0 => 0.0,
        n if n % 2 == 1 => durations[n / 2],
        n => f64::midpoint(durations[n / 2 - 1], durations[n / 2]),
    };
    median.min(MAX_MEDIAN_SECS)
}

fn is_one_of(text: &str, characters: &str) -> bool {
    let mut chars = text.chars();
    matches!((chars.next(), chars.next()), (Some(c), None) if characters.contains(c))
}

fn shorten_at_sentence_ends(words: &mut [TimedWord], max_secs: f64) {
    for i in 1..words.len() {
        if words[i].end_secs - words[i].start_secs > max_secs {
            if is_one_of(&words[i].text, SENTENCE_ENDS) {
                words[i].end_secs = words[i].start_secs + max_secs;
            } else if is_one_of(&words[i - 1].text, SENTENCE_ENDS) {
                words[i].start_secs = words[i].end_secs - max_secs;
            }
        }
    }
}

/// Joins punctuation to the word it belongs to, keeping that word's times.
fn merge_punctuation(words: &mut Vec<TimedWord>) {
    let mut merged: Vec<TimedWord> = Vec::with_capacity(words.len());
    for mut word in words.drain(..).rev() {
        match merged.last_mut() {
            Some(next) if word.text.starts_with(' ') && is_one_of(word.text.trim(), OPENING) => {
                next.text.insert_str(0, &word.text);
                next.n_tokens += word.n_tokens;
            }
            _ => {
                word.text.shrink_to_fit();
                merged.push(word);
            }
        }
    }
    for word in merged.into_iter().rev() {
        match words.last_mut() {
            Some(before) if !before.text.ends_with(' ') && is_one_of(&word.text, CLOSING) => {
                before.text.push_str(&word.text);
                before.n_tokens += word.n_tokens;
            }
            _ => words.push(word),
        }
    }
}

/// Gives `segments` (of one window, in order; `n_text` text tokens each) their words, and segments and words
/// each other's edges where one of them is implausible. `last_speech_secs` is where speech ended before.
pub(super) fn assign_words(
    segments: &mut [(Segment, usize)],
    words: &[TimedWord],
    window_secs: f64,
    last_speech_secs: &mut f64,
) {
    let median = median_duration(words);
    let mut words = words.iter();
    for (segment, n_text) in segments.iter_mut() {
        let (mut n_taken, mut own) = (0, Vec::new());
        while n_taken < *n_text {
            let Some(word) = words.next() else { break };
            n_taken += word.n_tokens;
            own.push(Word {
                text: word.text.clone(),
                start_secs: window_secs + word.start_secs,
                end_secs: window_secs + word.end_secs,
                probability: word.probability,
            });
        }
        settle_edges(segment, &mut own, median, *last_speech_secs);
        if !own.is_empty() {
            *last_speech_secs = segment.end_secs;
        }
        segment.words = Some(own);
    }
    part_overlaps(segments);
}

/// Settled edges may reach into the next segment's first word: the two then meet halfway.
fn part_overlaps(segments: &mut [(Segment, usize)]) {
    for i in 1..segments.len() {
        let (before, after) = segments.split_at_mut(i);
        let (before, after) = (&mut before[i - 1].0, &mut after[0].0);
        let last = before.words.as_mut().and_then(|words| words.last_mut());
        let first = after.words.as_mut().and_then(|words| words.first_mut());
        if let (Some(last), Some(first)) = (last, first)
            && first.start_secs < last.end_secs
        {
            let middle = f64::midpoint(first.start_secs, last.end_secs)
                .clamp(last.start_secs, first.end_secs.max(last.start_secs));
            (last.end_secs, first.start_secs) = (middle, middle);
            (before.end_secs, after.start_secs) = (middle, middle);
        }
    }
}

fn settle_edges(segment: &mut Segment, words: &mut [Word], median: f64, last_speech_secs: f64) {
    let max = 2.0 * median;
    let n = words.len();
    if n == 0 {
        return;
    }
    // After a pause the first words tend to swallow it.
    let after_pause = words[0].end_secs - last_speech_secs > 4.0 * median;
    let first_is_long = words[0].end_secs - words[0].start_secs > max;
    let two_are_long = n > 1 && words[1].end_secs - words[0].start_secs > 2.0 * max;
    if after_pause && (first_is_long || two_are_long) {
        if n > 1 && words[1].end_secs - words[1].start_secs > max {
            let boundary = (words[1].end_secs / 2.0).max(words[1].end_secs - max);
            words[0].end_secs = boundary;
            words[1].start_secs = boundary;
        }
        words[0].start_secs = (words[0].end_secs - max).max(0.0);
    }
    if segment.start_secs < words[0].end_secs && segment.start_secs - 0.5 > words[0].start_secs {
        words[0].start_secs = (words[0].end_secs - median).min(segment.start_secs).max(0.0);
    } else {
        segment.start_secs = words[0].start_secs;
    }
    let last = &mut words[n - 1];
    if segment.end_secs > last.start_secs && segment.end_secs + 0.5 < last.end_secs {
        last.end_secs = (last.start_secs + median).max(segment.end_secs);
    } else {
        segment.end_secs = last.end_secs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, start_secs: f64, end_secs: f64) -> TimedWord {
        TimedWord { text: text.to_owned(), n_tokens: 1, start_secs, end_secs, probability: 1.0 }
    }

    #[test]
    fn punctuation_joins_its_word_and_keeps_its_times() {
        let mut words = vec![
            word(" (", 0.0, 0.1),
            word(" Hello", 0.1, 0.5),
            word(",", 0.5, 0.6),
            word(" world", 0.6, 1.0),
            word("!", 1.0, 1.1),
            word("\"", 1.1, 1.2),
        ];
        merge_punctuation(&mut words);
        let texts: Vec<_> = words.iter().map(|word| (word.text.as_str(), word.n_tokens)).collect();
        assert_eq!(texts, [(" ( Hello,", 3), (" world!\"", 3)]);
        assert_eq!((words[0].start_secs, words[0].end_secs), (0.1, 0.5));
    }

    #[test]
    fn the_median_ignores_words_without_length() {
        assert_eq!(median_duration(&[word("a", 0.0, 0.0), word("b", 0.0, 0.25), word("c", 0.0, 0.5)]), 0.375);
        assert_eq!(median_duration(&[word("a", 0.0, 3.0)]), MAX_MEDIAN_SECS);
        assert_eq!(median_duration(&[]), 0.0);
    }
}
