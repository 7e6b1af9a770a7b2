//! Word and character error rate: edits that turn the reference into the hypothesis, over the reference's length.

/// Edit counts of one or many comparisons. Counts add up, so a corpus is never a mean of means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

    /// Edits per reference unit; for an empty reference 0 without and infinity with insertions.
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

/// Word edits; words are what white space separates. Texts are compared as they are: normalise before.
pub fn word_errors(reference: &str, hypothesis: &str) -> Errors {
    let reference: Vec<&str> = reference.split_whitespace().collect();
    let hypothesis: Vec<&str> = hypothesis.split_whitespace().collect();
    edits(&reference, &hypothesis)
}

/// Character edits, white space between words counted and around the text not.
pub fn character_errors(reference: &str, hypothesis: &str) -> Errors {
    let reference: Vec<char> = reference.trim().chars().collect();
    let hypothesis: Vec<char> = hypothesis.trim().chars().collect();
    edits(&reference, &hypothesis)
}

/// Levenshtein distance with its operations counted, in memory linear in the hypothesis.
fn edits<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Errors {
    let mut row: Vec<Errors> =
        (0..=hypothesis.len()).map(|insertions| Errors { insertions, ..Errors::default() }).collect();
    for unit in reference {
        let mut diagonal = row[0];
        row[0].deletions += 1;
        for (j, other) in hypothesis.iter().enumerate() {
            let above = row[j + 1];
            let mut best = diagonal;
            best.substitutions += usize::from(unit != other);
            let deleted = Errors { deletions: above.deletions + 1, ..above };
            let inserted = Errors { insertions: row[j].insertions + 1, ..row[j] };
            for candidate in [deleted, inserted] {
                if candidate.errors() < best.errors() {
                    best = candidate;
                }
            }
            diagonal = above;
            row[j + 1] = best;
        }
    }
    let last = row.pop().unwrap_or_default();
    Errors { n_reference: reference.len(), ..last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(row: &serde_json::Value, key: &str) -> usize {
        row[key].as_u64().map_or(usize::MAX, |value| value as usize)
    }

    /// `tests/oracle/wer.py`.
    #[test]
    fn errors_are_those_that_jiwer_counts() -> Result<(), Box<dyn std::error::Error>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/wer.json");
        let expected: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let rate = |row: &serde_json::Value, key: &str| row[key].as_f64().ok_or_else(|| key.to_owned());
        let (mut words, mut characters) = (Errors::default(), Errors::default());
        let cases = expected["cases"].as_array().ok_or("cases")?;
        assert_eq!(cases.len(), 12);
        for row in cases {
            let name = &row["name"];
            let (Some(reference), Some(hypothesis)) = (row["reference"].as_str(), row["hypothesis"].as_str())
            else {
                return Err("a case without texts".into());
            };
            let ours = word_errors(reference, hypothesis);
            assert_eq!(
                (ours.errors(), ours.n_reference),
                (number(row, "errors"), number(row, "words")),
                "{name}"
            );
            assert!((ours.rate() - rate(row, "wer")?).abs() < 1e-6, "{name}: {ours:?}");
            if row["unique"] == true {
                let split = (ours.substitutions, ours.deletions, ours.insertions);
                let theirs =
                    (number(row, "substitutions"), number(row, "deletions"), number(row, "insertions"));
                assert_eq!(split, theirs, "{name}");
            }
            let by_character = character_errors(reference, hypothesis);
            assert!((by_character.rate() - rate(row, "cer")?).abs() < 1e-6, "{name}: {by_character:?}");
            words = words + ours;
            characters = characters + by_character;
        }
        // A corpus is the sum of its sentences, not the mean of their rates.
        let corpus = &expected["corpus"];
        assert!((words.rate() - rate(corpus, "wer")?).abs() < 1e-6, "{words:?}");
        assert!((characters.rate() - rate(corpus, "cer")?).abs() < 1e-6, "{characters:?}");
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
    }
}
