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
