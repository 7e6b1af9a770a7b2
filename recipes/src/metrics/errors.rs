//! Word and character error rate: edits that turn the reference into the hypothesis, over the reference's length.

use serde::{Deserialize, Serialize};

use super::align;
use crate::text;

/// Edit counts of one or many comparisons. Counts add up, so a corpus is never a mean of means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Reference units replaced by others.
    pub substitutions: usize,
    /// Reference units that are missing.
    pub deletions: usize,
    /// Units that are not in the reference.
    pub insertions: usize,
    /// Units of the reference.
    pub n_reference: usize,
}

impl Errors {
    /// All edits.
    pub fn errors(&self) -> usize {
        self.substitutions + self.deletions + self.insertions
    }

    /// Edits per reference unit, above 1 where there are many insertions. Of an empty reference it is 0 without
    /// insertions and infinite with them; jiwer answers with their number there. In a corpus with other references such
    /// insertions simply count, here and in jiwer.
    pub fn rate(&self) -> f64 {
        match (self.errors(), self.n_reference) {
            (0, 0) => 0.0,
            (errors, n) => errors as f64 / n as f64,
        }
    }
}

impl std::ops::Add for Errors {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            substitutions: self.substitutions + other.substitutions,
            deletions: self.deletions + other.deletions,
            insertions: self.insertions + other.insertions,
            n_reference: self.n_reference + other.n_reference,
        }
    }
}

impl std::iter::Sum for Errors {
    fn sum<I: Iterator<Item = Self>>(errors: I) -> Self {
        errors.fold(Self::default(), |sum, next| sum + next)
    }
}

/// What white space separates. jiwer splits at spaces only, so a single tab or no-break space joins two words there;
/// texts that went through a normaliser have no other white space.
pub fn words(text: &str) -> Vec<&str> {
    text::words(text).collect()
}

/// Code points as in jiwer, not graphemes: a letter and its combining mark are two. White space at the ends does not count,
/// between words it does.
pub fn characters(text: &str) -> Vec<char> {
    text.trim_matches(text::is_space).chars().collect()
}

/// Word edits. Texts are compared as they are: normalise before.
pub fn word_errors(reference: &str, hypothesis: &str) -> Errors {
    align(&words(reference), &words(hypothesis)).errors()
}

/// Character edits. Texts are compared as they are: normalise before.
pub fn character_errors(reference: &str, hypothesis: &str) -> Errors {
    align(&characters(reference), &characters(hypothesis)).errors()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{fixtures, metrics::edit_distance};

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    /// As `tests/oracle/wer.py` writes them.
    fn counts(errors: Errors) -> Value {
        serde_json::json!([errors.substitutions, errors.deletions, errors.insertions, errors.n_reference])
    }

    /// `tests/oracle/wer.py`.
    #[test]
    fn errors_are_those_that_jiwer_counts() -> Outcome {
        let expected = fixtures::committed("wer.json")?;
        let rate = |row: &Value, key: &str| row[key].as_f64().ok_or_else(|| key.to_owned());
        let (mut all_words, mut all_characters) = (Errors::default(), Errors::default());
        let cases = expected["cases"].as_array().ok_or("cases")?;
        assert_eq!(cases.len(), 18);
        for row in cases {
            let name = &row["name"];
            let (Some(reference), Some(hypothesis)) = (row["reference"].as_str(), row["hypothesis"].as_str())
            else {
                return Err("a case without texts".into());
            };
            let by_word = word_errors(reference, hypothesis);
            let by_character = character_errors(reference, hypothesis);
            assert_eq!(counts(by_word), row["words"], "{name}");
            assert_eq!(counts(by_character), row["characters"], "{name}");
            if by_word.n_reference > 0 {
                assert!((by_word.rate() - rate(row, "wer")?).abs() < 1e-6, "{name}: {by_word:?}");
                assert!((by_character.rate() - rate(row, "cer")?).abs() < 1e-6, "{name}: {by_character:?}");
            }
            all_words = all_words + by_word;
            all_characters = all_characters + by_character;
        }
        // A corpus is the sum of its sentences, not the mean of their rates.
        let corpus = &expected["corpus"];
        assert_eq!(counts(all_words), corpus["words"]);
        assert!((all_words.rate() - rate(corpus, "wer")?).abs() < 1e-6, "{all_words:?}");
        assert!((all_characters.rate() - rate(corpus, "cer")?).abs() < 1e-6, "{all_characters:?}");

        // Among alignments that are equally good it is jiwer's.
        let cases = expected["random"].as_array().ok_or("random")?;
        assert_eq!(cases.len(), 60);
        for row in cases {
            let (Some(reference), Some(hypothesis)) = (row[0].as_str(), row[1].as_str()) else {
                return Err("a case without texts".into());
            };
            assert_eq!(counts(word_errors(reference, hypothesis)), row[2], "{row}");
            assert_eq!(counts(character_errors(reference, hypothesis)), row[3], "{row}");
        }
        Ok(())
    }

    /// The cases in jiwer's own tests.
    #[test]
    fn the_published_cases_hold() -> Outcome {
        let list = |value: &Value| match value {
            Value::String(text) => vec![text.clone()],
            value => {
                value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
            }
        };
        for (file, n_cases) in [("jiwer/wer.json", 20), ("jiwer/cer.json", 10)] {
            let Some(file) = fixtures::published(file)? else { return Ok(()) };
            let cases = file["cases"].as_array().ok_or("cases")?;
            assert_eq!(cases.len(), n_cases);
            for case in cases {
                let (mut references, mut hypotheses) = (list(&case["ref"]), list(&case["hyp"]));
                if case["class"] == "TestMeasuresContiguousSentencesTransform" {
                    (references, hypotheses) = (vec![references.join(" ")], vec![hypotheses.join(" ")]);
                }
                assert_eq!(references.len(), hypotheses.len(), "{case}");
                let sum = |errors: fn(&str, &str) -> Errors| -> Errors {
                    references.iter().zip(&hypotheses).map(|(a, b)| errors(a, b)).sum()
                };
                let (ours, expected) = match case["expected"].as_f64() {
                    Some(cer) => (sum(character_errors).rate(), cer),
                    None => (sum(word_errors).rate(), case["expected"]["wer"].as_f64().ok_or("a rate")?),
                };
                assert!((ours - expected).abs() < 1e-12, "{case}: {ours}");
            }
        }
        Ok(())
    }

    #[test]
    fn nothing_to_say_is_no_error_and_anything_said_then_is() {
        assert_eq!(word_errors("", " ").rate(), 0.0);
        assert_eq!(word_errors("", "one").rate(), f64::INFINITY);
        assert_eq!(word_errors("one two", "").deletions, 2);
        assert_eq!(character_errors(" a b ", "ab").deletions, 1);
        let sum: Errors = [word_errors("a b", "a"), word_errors("", "c")].into_iter().sum();
        assert_eq!((sum.errors(), sum.n_reference, sum.rate()), (2, 2, 1.0));
        assert_eq!(word_errors("one", "two three four").rate(), 3.0);
    }

    #[test]
    fn all_white_space_divides_words_and_code_points_are_characters() {
        assert_eq!(words(" a\tb\u{a0}c\u{1c}d\n"), ["a", "b", "c", "d"]);
        // A letter and its mark are two.
        assert_eq!(edit_distance(&characters("e\u{301}"), &characters("é")), 2);
        assert_eq!(characters("\u{3000}中 文\n"), ['中', ' ', '文']);
    }
}
