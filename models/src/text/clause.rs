//! Clauses: what a synthesiser says in one breath.

use unicode_segmentation::UnicodeSegmentation;

use super::marks::is_mark;

/// What is said between two pauses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Words with single spaces between them, and the mark that ends the clause, if one does: `.`, `,`, `?` or `!`.
    pub text: String,
    /// What follows.
    pub pause: Pause,
}

/// A pause between two clauses. The last clause of a text is that of a paragraph, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pause {
    /// The clause goes on: it was too long to be said at once.
    None,
    /// After a comma, and what is read as one: a semicolon, a colon, a dash, a bracket.
    Short,
    /// After a sentence.
    Long,
    /// After a paragraph.
    Paragraph,
}

impl Pause {
    /// How long nobody speaks.
    pub const fn pause_secs(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Short => 0.2,
            Self::Long => 0.45,
            Self::Paragraph => 0.8,
        }
    }
}

/// Where a text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaks {
    /// Behind every mark.
    Marks,
    /// Behind sentences, whose melody runs over their commas, and behind the commas of one that is too long.
    Sentences,
}

/// The clauses of a settled paragraph.
pub(super) fn split(paragraph: &str, max_chars: usize, breaks: Breaks) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let mut words = Vec::new();
    for word in paragraph.split_whitespace() {
        words.push(word);
        if let Some(mark) = word.chars().next_back().filter(|c| is_mark(*c)) {
            let pause = if mark == ',' { Pause::Short } else { Pause::Long };
            clauses.extend(fit(&words, pause, max_chars));
            words.clear();
        }
    }
    clauses.extend(fit(&words, Pause::Paragraph, max_chars));
    if breaks == Breaks::Sentences {
        clauses = joined(clauses, max_chars);
    }
    if let Some(last) = clauses.last_mut() {
        last.pause = Pause::Paragraph;
    }
    clauses
}

/// What commas part, together as long as it is not too long.
fn joined(clauses: Vec<Clause>, max_chars: usize) -> Vec<Clause> {
    let (mut joined, mut len): (Vec<Clause>, usize) = (Vec::new(), 0);
    for clause in clauses {
        let clause_len = clause.text.chars().count();
        match joined.last_mut() {
            Some(last) if last.pause == Pause::Short && len + 1 + clause_len <= max_chars => {
                last.text.push(' ');
                last.text.push_str(&clause.text);
                last.pause = clause.pause;
                len += 1 + clause_len;
            }
            _ => {
                joined.push(clause);
                len = clause_len;
            }
        }
    }
    joined
}

/// Words as one clause, or as several of about the same length where they are too long for one.
fn fit(words: &[&str], pause: Pause, max_chars: usize) -> Vec<Clause> {
    let max_chars = max_chars.max(1);
    let pieces: Vec<&str> = words.iter().flat_map(|word| pieces(word, max_chars)).collect();
    let n_chars: usize = pieces.iter().map(|piece| piece.chars().count() + 1).sum();
    // Full ones and a remnant would sound worse.
    let enough = n_chars.div_ceil(n_chars.div_ceil(max_chars.saturating_add(1)).max(1));
    let mut clauses: Vec<Clause> = Vec::new();
    let mut len = usize::MAX;
    for piece in pieces {
        let piece_len = piece.chars().count();
        match clauses.last_mut() {
            Some(last) if len < enough && len + 1 + piece_len <= max_chars => {
                last.text.push(' ');
                last.text.push_str(piece);
                len += 1 + piece_len;
            }
            _ => {
                clauses.push(Clause { text: piece.to_owned(), pause: Pause::None });
                len = piece_len;
            }
        }
    }
    if let Some(last) = clauses.last_mut() {
        last.pause = pause;
    }
    clauses
}

/// A word, cut between graphemes where it is too long, and within one that alone is.
fn pieces(word: &str, max_chars: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut len) = (0, 0);
    for (at, grapheme) in word.grapheme_indices(true) {
        let grapheme_len = grapheme.chars().count();
        if len > 0 && len + grapheme_len > max_chars {
            pieces.push(&word[start..at]);
            (start, len) = (at, 0);
        }
        if grapheme_len <= max_chars {
            len += grapheme_len;
            continue;
        }
        for (offset, _) in grapheme.char_indices() {
            if len == max_chars {
                pieces.push(&word[start..at + offset]);
                (start, len) = (at + offset, 0);
            }
            len += 1;
        }
    }
    pieces.push(&word[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(paragraph: &str, max_chars: usize) -> Vec<String> {
        split(paragraph, max_chars, Breaks::Marks).into_iter().map(|clause| clause.text).collect()
    }

    #[test]
    fn sentences_stay_together_as_long_as_they_are_not_too_long() {
        let texts = |max_chars: usize| -> Vec<String> {
            let clauses = split("Yes, I do, now. Really, or not?", max_chars, Breaks::Sentences);
            clauses.into_iter().map(|clause| clause.text).collect()
        };
        assert_eq!(texts(15), ["Yes, I do, now.", "Really, or not?"]);
        assert_eq!(texts(14), ["Yes, I do,", "now.", "Really,", "or not?"]);
        let clauses = split("Yes, I do, now.", 14, Breaks::Sentences);
        assert_eq!(
            clauses.iter().map(|clause| clause.pause).collect::<Vec<_>>(),
            [Pause::Short, Pause::Paragraph]
        );
    }

    #[test]
    fn clauses_end_at_marks_and_say_how_long_to_pause() {
        let clauses = split("Yes, I do. Really? It is 3.5", 100, Breaks::Marks);
        let clauses: Vec<_> = clauses.iter().map(|clause| (clause.text.as_str(), clause.pause)).collect();
        let expected = [
            ("Yes,", Pause::Short),
            ("I do.", Pause::Long),
            ("Really?", Pause::Long),
            ("It is 3.5", Pause::Paragraph),
        ];
        assert_eq!(clauses, expected);
        assert_eq!(split("", 100, Breaks::Marks), []);
        let pauses = [Pause::None, Pause::Short, Pause::Long, Pause::Paragraph].map(Pause::pause_secs);
        assert!(pauses.is_sorted() && pauses[0] == 0.0);
    }

    #[test]
    fn what_is_too_long_is_cut_in_parts_of_about_one_length() {
        assert_eq!(texts("one two three four five", 20), ["one two three", "four five"]);
        assert_eq!(texts("one two three four five", 23), ["one two three four five"]);
        assert_eq!(split("one two, three", 4, Breaks::Marks)[0].pause, Pause::None);
        assert_eq!(split("one two, three", 4, Breaks::Marks)[1].pause, Pause::Short);
    }

    #[test]
    fn words_that_are_too_long_are_cut_between_graphemes() {
        assert_eq!(texts("abcdefgh ij", 5), ["abcde", "fgh", "ij"]);
        // Never before its accent, unless nothing else is left.
        assert_eq!(texts("abe\u{308}\u{32d}c", 4), ["ab", "e\u{308}\u{32d}c"]);
        assert_eq!(texts("e\u{308}\u{32d}\u{331}", 2), ["e\u{308}", "\u{32d}\u{331}"]);
        assert_eq!(texts("ab", 0), ["a", "b"]);
    }
}
