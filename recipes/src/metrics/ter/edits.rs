//! How many edits make one list of words another one, where moving words that stand together is one edit. Searched for as
//! sacrebleu does, which follows Tercom: its limits and its preferences are part of the score.

use std::{cmp::Reverse, collections::HashMap, mem, ops::Range};

/// Most words that are moved together.
const MAX_SHIFT_WORDS: usize = 10;
/// How far apart the places may be at which the words stand in the two texts.
const MAX_SHIFT_DISTANCE: usize = 50;
/// Cells to the left and to the right of the diagonal that are looked at.
const BEAM_WIDTH: usize = 25;
/// Shifts of a segment that are tried; at this many the search ends, and what it has found since the last shift is left.
const MAX_CANDIDATES: usize = 1000;

/// What a cell costs that nothing leads to; far from overflowing.
const UNREACHED: u32 = 1 << 30;

/// Edits from `hypothesis` to `reference`: shifts as long as one makes the rest cheaper, and the edit distance that is left.
pub(super) fn count(hypothesis: &[&str], reference: &[&str]) -> usize {
    if reference.is_empty() {
        return hypothesis.len();
    }
    let mut numbers = HashMap::new();
    let mut number = |word| {
        let next = numbers.len() as u32;
        *numbers.entry(word).or_insert(next)
    };
    let mut words: Vec<u32> = hypothesis.iter().copied().map(&mut number).collect();
    let reference: Vec<u32> = reference.iter().copied().map(&mut number).collect();
    let beam = Beam::new(words.len(), &reference);
    let (mut n_shifts, mut n_candidates) = (0, 0);
    loop {
        let table = Table::new(&beam, &words);
        match best_shift(&table, &mut n_candidates) {
            Some(shift) => shift.apply(&mut words),
            None => return n_shifts + table.distance() as usize,
        }
        n_shifts += 1;
    }
}

/// Words that are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shift {
    start: usize,
    n_words: usize,
    /// Before which word of those that stand there now; where it is one of them, as many words later.
    target: usize,
}

impl Shift {
    /// The words that stand elsewhere afterwards.
    fn range(self, n_words: usize) -> Range<usize> {
        let end = self.start + self.n_words;
        match self.target {
            before if before < self.start => before..end,
            after if after > end => self.start..after,
            within => self.start..(within + self.n_words).min(n_words),
        }
    }

    fn apply(self, words: &mut [u32]) {
        let range = self.range(words.len());
        if self.target < self.start {
            words[range].rotate_right(self.n_words);
        } else {
            words[range].rotate_left(self.n_words);
        }
    }
}

/// The shift that leaves the fewest edits; of such the longest, then the first, then the one to the first place. None if there is
/// none that leaves fewer, or too many were tried.
fn best_shift(table: &Table<'_>, n_candidates: &mut usize) -> Option<Shift> {
    let (words, reference) = (table.words, table.beam.reference);
    let alignment = table.alignment();
    let mut distances = Distances::new(table);
    let mut best = None;
    for start in 0..words.len() {
        let near =
            start.saturating_sub(MAX_SHIFT_DISTANCE)..reference.len().min(start + MAX_SHIFT_DISTANCE + 1);
        for at in near {
            let same = words[start..].iter().zip(&reference[at..]).take(MAX_SHIFT_WORDS);
            let n_same = same.take_while(|(word, other)| word == other).count();
            for n_words in 1..=n_same {
                let end = at + n_words;
                let is_wrong =
                    alignment.hypothesis_errors[start] < alignment.hypothesis_errors[start + n_words];
                let is_missed = alignment.reference_errors[at] < alignment.reference_errors[end];
                let is_there = (start + 1..=start + n_words).contains(&alignment.n_before[at + 1]);
                if !is_wrong || !is_missed || is_there {
                    continue;
                }
                let mut last = None;
                for &target in &alignment.n_before[at..=end] {
                    if last.replace(target) == Some(target) {
                        continue;
                    }
                    let shift = Shift { start, n_words, target };
                    let rank = (distances.after(shift), Reverse(n_words), start, target);
                    *n_candidates += 1;
                    if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                        best = Some((rank, shift));
                    }
                }
                if *n_candidates >= MAX_CANDIDATES {
                    return None;
                }
            }
        }
    }
    best.filter(|((distance, ..), _)| *distance < table.distance()).map(|(_, shift)| shift)
}

/// Which cells of a table of edit distances are looked at: a row for each word of the hypothesis and one before them, a column for
/// each of the reference and one before them.
struct Beam<'a> {
    reference: &'a [u32],
    columns: Vec<Range<usize>>,
}

impl<'a> Beam<'a> {
    fn new(n_words: usize, reference: &'a [u32]) -> Self {
        let n_columns = reference.len() + 1;
        let ratio = if n_words > 0 { reference.len() as f64 / n_words as f64 } else { 1.0 };
        // Rows have to touch, however much longer the reference is.
        let width = match ratio / 2.0 {
            half if half > BEAM_WIDTH as f64 => (half + BEAM_WIDTH as f64).ceil() as usize,
            _ => BEAM_WIDTH,
        };
        let columns = (0..=n_words).map(|row| {
            let diagonal = (row as f64 * ratio).floor() as usize;
            match row {
                0 => 0..n_columns,
                last if last == n_words => diagonal.saturating_sub(width)..n_columns,
                _ => diagonal.saturating_sub(width)..n_columns.min(diagonal + width),
            }
        });
        Self { reference, columns: columns.collect() }
    }

    /// The first row: all of the reference is inserted.
    fn first(&self) -> Vec<u32> {
        (0..self.columns[0].len() as u32).collect()
    }

    /// The costs of the row of `word` into `costs`, from those of the row `above`; `tell` hears the step to each cell. Of equally
    /// cheap ones a word for a word comes first, then one of the hypothesis.
    fn fill(&self, row: usize, word: u32, above: &[u32], costs: &mut Vec<u32>, mut tell: impl FnMut(Step)) {
        let first_above = self.columns[row - 1].start;
        let above = |column: usize| {
            let index = column.checked_sub(first_above);
            index.and_then(|index| above.get(index)).copied().unwrap_or(UNREACHED)
        };
        costs.clear();
        let mut left = UNREACHED;
        for column in self.columns[row].clone() {
            let mut cell = (UNREACHED, Step::Delete);
            let mut offer = |cost: u32, step| {
                if cost < cell.0 {
                    cell = (cost, step);
                }
            };
            if let Some(before) = column.checked_sub(1) {
                match self.reference[before] == word {
                    true => offer(above(before), Step::Keep),
                    false => offer(above(before) + 1, Step::Substitute),
                }
            }
            offer(above(column) + 1, Step::Delete);
            offer(left + 1, Step::Insert);
            left = cell.0;
            costs.push(cell.0);
            tell(cell.1);
        }
    }
}

/// How a cell is reached: by a word of both, of the hypothesis alone or of the reference alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Keep,
    Substitute,
    Delete,
    Insert,
}

/// The edit distances of all beginnings of a hypothesis.
struct Table<'a> {
    beam: &'a Beam<'a>,
    words: &'a [u32],
    costs: Vec<Vec<u32>>,
    steps: Vec<Vec<Step>>,
}

impl<'a> Table<'a> {
    fn new(beam: &'a Beam<'a>, words: &'a [u32]) -> Self {
        let mut costs = vec![beam.first()];
        let mut steps = vec![vec![Step::Insert; costs[0].len()]];
        for (above, word) in words.iter().enumerate() {
            let (mut row, mut taken) = (Vec::new(), Vec::new());
            beam.fill(above + 1, *word, &costs[above], &mut row, |step| taken.push(step));
            costs.push(row);
            steps.push(taken);
        }
        Self { beam, words, costs, steps }
    }

    fn distance(&self) -> u32 {
        self.costs.last().and_then(|row| row.last()).copied().unwrap_or(0)
    }

    fn alignment(&self) -> Alignment {
        let (mut row, mut column) = (self.words.len(), self.beam.reference.len());
        let mut n_before = vec![0; column + 1];
        let mut hypothesis_errors = vec![0; row + 1];
        let mut reference_errors = vec![0; column + 1];
        while row > 0 || column > 0 {
            let step = self.steps[row][column - self.beam.columns[row].start];
            let is_error = u32::from(step != Step::Keep);
            if step != Step::Insert {
                hypothesis_errors[row] = is_error;
            }
            if step != Step::Delete {
                reference_errors[column] = is_error;
                n_before[column] = row;
            }
            row -= usize::from(step != Step::Insert);
            column -= usize::from(step != Step::Delete);
        }
        for errors in [&mut hypothesis_errors, &mut reference_errors] {
            let mut sum = 0;
            for n in errors {
                sum += *n;
                *n = sum;
            }
        }
        Alignment { n_before, hypothesis_errors, reference_errors }
    }
}

/// What became of the words; all lists begin with a 0 for no words.
struct Alignment {
    /// By how many words of the reference: how many of the hypothesis stand before the last of them is over.
    n_before: Vec<usize>,
    /// By how many words of the hypothesis: how many of them are wrong.
    hypothesis_errors: Vec<u32>,
    /// The same for the reference.
    reference_errors: Vec<u32>,
}

/// Edit distances of hypotheses that differ from one by a shift.
struct Distances<'a> {
    table: &'a Table<'a>,
    words: Vec<u32>,
    above: Vec<u32>,
    row: Vec<u32>,
}

impl<'a> Distances<'a> {
    fn new(table: &'a Table<'a>) -> Self {
        Self { table, words: table.words.to_vec(), above: Vec::new(), row: Vec::new() }
    }

    fn after(&mut self, shift: Shift) -> u32 {
        let Table { beam, words, costs, .. } = self.table;
        let range = shift.range(words.len());
        self.words.copy_from_slice(words);
        shift.apply(&mut self.words);
        let mut changed = range.filter(|index| self.words[*index] != words[*index]);
        let Some(first) = changed.next() else { return self.table.distance() };
        let last = changed.next_back().unwrap_or(first);

        self.above.clone_from(&costs[first]);
        for (row, before) in costs.iter().enumerate().skip(first + 1) {
            beam.fill(row, self.words[row - 1], &self.above, &mut self.row, |_| {});
            mem::swap(&mut self.above, &mut self.row);
            // What follows is the same: where all cells are off by one number, they stay so.
            let by = |(new, old): (&u32, &u32)| i64::from(*new) - i64::from(*old);
            let mut differences = self.above.iter().zip(before).map(by);
            if row > last
                && let Some(difference) = differences.next()
                && differences.all(|other| other == difference)
            {
                return (i64::from(self.table.distance()) + difference) as u32;
            }
        }
        self.above.last().copied().unwrap_or(0)
    }
}
