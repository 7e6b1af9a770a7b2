//! Which unit of the hypothesis answers which unit of the reference: Levenshtein's alignment, for words and characters.

use super::Errors;

/// One step of an alignment. Indices count units from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// The same unit on both sides.
    Equal {
        /// In the reference.
        reference: usize,
        /// In the hypothesis.
        hypothesis: usize,
    },
    /// A unit of the reference, replaced by another.
    Substitution {
        /// In the reference.
        reference: usize,
        /// In the hypothesis.
        hypothesis: usize,
    },
    /// A unit of the reference that the hypothesis lacks.
    Deletion {
        /// In the reference.
        reference: usize,
    },
    /// A unit of the hypothesis that is not in the reference.
    Insertion {
        /// In the hypothesis.
        hypothesis: usize,
    },
}

impl Edit {
    /// The unit of the reference, unless this is an insertion.
    pub fn reference(self) -> Option<usize> {
        match self {
            Self::Equal { reference, .. }
            | Self::Substitution { reference, .. }
            | Self::Deletion { reference } => Some(reference),
            Self::Insertion { .. } => None,
        }
    }

    /// The unit of the hypothesis, unless this is a deletion.
    pub fn hypothesis(self) -> Option<usize> {
        match self {
            Self::Equal { hypothesis, .. }
            | Self::Substitution { hypothesis, .. }
            | Self::Insertion { hypothesis } => Some(hypothesis),
            Self::Deletion { .. } => None,
        }
    }
}

/// The edits that turn the reference into the hypothesis, from left to right; every unit is in exactly one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alignment {
    /// Equal units included.
    pub edits: Vec<Edit>,
}

impl Alignment {
    /// How many edits of each kind there are.
    pub fn errors(&self) -> Errors {
        let mut errors = Errors::default();
        for edit in &self.edits {
            errors.n_reference += usize::from(edit.reference().is_some());
            match edit {
                Edit::Equal { .. } => {}
                Edit::Substitution { .. } => errors.substitutions += 1,
                Edit::Deletion { .. } => errors.deletions += 1,
                Edit::Insertion { .. } => errors.insertions += 1,
            }
        }
        errors
    }

    /// The texts in one line: `the [-cat-]{+hat+} {+sat+}`, deleted units in `[-` and `-]`, inserted ones in `{+` and
    /// `+}`. One line keeps its order in scripts that run from right to left, where two lines below each other do not.
    pub fn marked(&self, reference: &[&str], hypothesis: &[&str]) -> String {
        let marked = |edit: &Edit| {
            let deleted = edit.reference().and_then(|i| reference.get(i));
            if let (Edit::Equal { .. }, Some(word)) = (edit, deleted) {
                return (*word).to_owned();
            }
            let inserted = edit.hypothesis().and_then(|i| hypothesis.get(i));
            deleted.map_or_else(String::new, |word| format!("[-{word}-]"))
                + &inserted.map_or_else(String::new, |word| format!("{{+{word}+}}"))
        };
        self.edits.iter().map(marked).collect::<Vec<_>>().join(" ")
    }
}

/// The fewest substitutions, deletions and insertions between two sequences.
pub fn edit_distance<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> usize {
    align(reference, hypothesis).errors().errors()
}

/// Distances that are held at once where the whole matrix would be larger: 4 MiB.
const MAX_CELLS: usize = 1 << 20;

/// The best alignment. Where several are equally good it is the one that jiwer shows (rapidfuzz's): the ends that
/// both sides share stay together, and from the right deletions come first, then insertions. Time grows with the
/// product of the lengths; memory with the product too, and from a million on with the longer length times the
/// root of the hypothesis's.
pub fn align<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Alignment {
    align_within(reference, hypothesis, MAX_CELLS)
}

fn align_within<T: PartialEq>(reference: &[T], hypothesis: &[T], max_cells: usize) -> Alignment {
    let n_before = reference.iter().zip(hypothesis).take_while(|(a, b)| a == b).count();
    let (middle, other) = (&reference[n_before..], &hypothesis[n_before..]);
    let n_after = middle.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle, other) = (&middle[..middle.len() - n_after], &other[..other.len() - n_after]);

    let mut edits: Vec<_> = (0..n_before).map(|i| Edit::Equal { reference: i, hypothesis: i }).collect();
    edits.extend(Matrix::new(middle, other, max_cells).backtrace(n_before));
    edits.extend((0..n_after).map(|i| Edit::Equal {
        reference: n_before + middle.len() + i,
        hypothesis: n_before + other.len() + i,
    }));
    Alignment { edits }
}

/// Distances between all beginnings of the two sequences: row i, column j is that between the first i units of the
/// hypothesis and the first j of the reference. Every `stride`-th row is kept, and the rows between are made again
/// when the way back comes by.
struct Matrix<'a, T> {
    reference: &'a [T],
    hypothesis: &'a [T],
    stride: usize,
    /// Rows 0, stride, 2 stride and so on.
    kept: Vec<Vec<u32>>,
}

impl<'a, T: PartialEq> Matrix<'a, T> {
    fn new(reference: &'a [T], hypothesis: &'a [T], max_cells: usize) -> Self {
        let stride = (max_cells / (reference.len() + 1)).max(hypothesis.len().isqrt()).max(1);
        let mut matrix =
            Self { reference, hypothesis, stride, kept: vec![(0..).take(reference.len() + 1).collect()] };
        if stride < hypothesis.len() {
            let mut row = matrix.kept[0].clone();
            for (i, unit) in (1..).zip(hypothesis) {
                row = matrix.next_row(&row, unit);
                if i % stride == 0 {
                    matrix.kept.push(row.clone());
                }
            }
        }
        matrix
    }

    fn next_row(&self, above: &[u32], unit: &T) -> Vec<u32> {
        let mut last = above[0] + 1;
        let mut row = Vec::with_capacity(above.len());
        row.push(last);
        for (pair, other) in above.windows(2).zip(self.reference) {
            last = (pair[0] + u32::from(other != unit)).min(pair[1] + 1).min(last + 1);
            row.push(last);
        }
        row
    }

    /// The rows from the nearest kept one above `last`, which is not 0, up to `last`.
    fn block(&self, last: usize) -> (usize, Vec<Vec<u32>>) {
        let index = (last - 1) / self.stride;
        let first = index * self.stride;
        let mut rows = Vec::with_capacity(last - first + 1);
        rows.push(self.kept[index].clone());
        for unit in &self.hypothesis[first..last] {
            rows.push(self.next_row(&rows[rows.len() - 1], unit));
        }
        (first, rows)
    }

    /// The edits from left to right, with `offset` added to all indices.
    fn backtrace(&self, offset: usize) -> Vec<Edit> {
        let (mut i, mut j) = (self.hypothesis.len(), self.reference.len());
        let mut edits = Vec::with_capacity(i.max(j));
        while i > 0 && j > 0 {
            let (first, rows) = self.block(i);
            while i > first && j > 0 {
                let (above, row) = (&rows[i - first - 1], &rows[i - first]);
                if row[j] == row[j - 1] + 1 {
                    j -= 1;
                    edits.push(Edit::Deletion { reference: offset + j });
                } else if above[j] + 1 == above[j - 1] {
                    i -= 1;
                    edits.push(Edit::Insertion { hypothesis: offset + i });
                } else {
                    (i, j) = (i - 1, j - 1);
                    let (reference, hypothesis) = (offset + j, offset + i);
                    edits.push(if self.reference[j] == self.hypothesis[i] {
                        Edit::Equal { reference, hypothesis }
                    } else {
                        Edit::Substitution { reference, hypothesis }
                    });
                }
            }
        }
        edits.extend((0..j).rev().map(|j| Edit::Deletion { reference: offset + j }));
        edits.extend((0..i).rev().map(|i| Edit::Insertion { hypothesis: offset + i }));
        edits.reverse();
        edits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }

    #[test]
    fn aligned_texts_read_in_one_line() {
        for (reference, hypothesis, marked) in [
            ("the cat sat", "the hat sat down", "the [-cat-]{+hat+} sat {+down+}"),
            ("one two three", "two", "[-one-] two [-three-]"),
            ("", "um", "{+um+}"),
            ("زه پوهېږم", "زه", "زه [-پوهېږم-]"),
            ("", "", ""),
        ] {
            let (reference, hypothesis) = (words(reference), words(hypothesis));
            assert_eq!(align(&reference, &hypothesis).marked(&reference, &hypothesis), marked);
        }
    }

    #[test]
    fn indices_count_from_the_left_on_both_sides() {
        let (reference, hypothesis) = (words("a b x c"), words("a y z b c"));
        let edits = align(&reference, &hypothesis).edits;
        let sides = |edit: &Edit| (edit.reference(), edit.hypothesis());
        assert_eq!(edits.iter().filter_map(|edit| edit.reference()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(edits.iter().filter_map(|edit| edit.hypothesis()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(edits.first().map(sides), Some((Some(0), Some(0))));
        assert_eq!(edits.last().map(sides), Some((Some(3), Some(4))));
    }

    /// The recurrence, as it stands in every textbook.
    fn distance(a: &[u8], b: &[u8]) -> usize {
        match (a.split_last(), b.split_last()) {
            (Some((x, a_rest)), Some((y, b_rest))) if x == y => distance(a_rest, b_rest),
            (Some((_, a_rest)), Some((_, b_rest))) => {
                1 + distance(a_rest, b).min(distance(a, b_rest)).min(distance(a_rest, b_rest))
            }
            _ => a.len() + b.len(),
        }
    }

    fn units(max: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0_u8..4, 0..max)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_distance_is_levenshteins(a in units(7), b in units(7)) {
            prop_assert_eq!(edit_distance(&a, &b), distance(&a, &b));
        }

        #[test]
        fn the_distance_is_a_metric(a in units(30), b in units(30), c in units(30)) {
            prop_assert_eq!(edit_distance(&a, &b), edit_distance(&b, &a));
            prop_assert_eq!(edit_distance(&a, &b) == 0, a == b);
            prop_assert!(edit_distance(&a, &c) <= edit_distance(&a, &b) + edit_distance(&b, &c));
        }

        /// Reading either side off the alignment gives the sequence, and what is called equal is.
        #[test]
        fn an_alignment_holds_both_sequences(a in units(40), b in units(40)) {
            let alignment = align(&a, &b);
            let of = |edit: &Edit| (edit.reference().map(|i| a[i]), edit.hypothesis().map(|i| b[i]));
            let sides: Vec<_> = alignment.edits.iter().map(of).collect();
            prop_assert_eq!(sides.iter().filter_map(|side| side.0).collect::<Vec<_>>(), a.clone());
            prop_assert_eq!(sides.iter().filter_map(|side| side.1).collect::<Vec<_>>(), b);
            for (edit, (reference, hypothesis)) in alignment.edits.iter().zip(sides) {
                prop_assert_eq!(matches!(edit, Edit::Equal { .. }), reference == hypothesis);
            }
            prop_assert_eq!(alignment.errors().n_reference, a.len());
        }

        /// With hardly any memory the alignment is the same.
        #[test]
        fn rows_made_again_are_the_same_rows(a in units(40), b in units(40), max_cells in 0_usize..200) {
            prop_assert_eq!(align_within(&a, &b, max_cells), align(&a, &b));
        }
    }
}
