//! Connectionist temporal classification (Graves et al., ICML 2006): the loss of rows of scores against labels that are
//! shorter than the row and lie somewhere along it, and its gradient.
//!
//! Labels are written with a blank before, between and after them: L of them have 2 L + 1 states, and a path visits a state
//! a frame, staying, going on or leaving out a blank between two labels that differ. Sums over paths are kept as logarithms
//! in f64. No path is minus infinity, and no difference of two of these is ever taken.

use rayon::prelude::*;

use super::functions::{exp, max, sum};
use super::instruction_set::{InstructionSet, vectorised};

/// What rows of frames are aligned with.
#[derive(Debug, Clone, Copy)]
pub struct CtcLabels<'a> {
    /// The right columns of each row, in order, without blanks.
    pub labels: &'a [Vec<u32>],
    /// Frames of each row; those behind them are padding and not looked at.
    pub n_frames: &'a [usize],
    /// What each row counts; rows of weight 0 are not looked at.
    pub weights: &'a [f32],
    /// The column that says nothing.
    pub blank: u32,
}

/// What the backward pass needs of the forward pass.
pub struct CtcPass {
    /// The loss of each row, not yet weighted: infinite where no path spells the labels, 0 where the weight is 0.
    pub losses: Vec<f64>,
    /// Largest score of each frame and the sum of exponentials less it, (B, T).
    moments: Vec<(f32, f32)>,
    /// Logarithms of the probability of all paths that are in a state by the end of a frame, (T, 2 L + 1) for each row.
    reached: Vec<Vec<f64>>,
}

/// The losses of scores (B, T, V), which need not be normalised: `-ln` of the probability of all paths that spell the labels.
///
/// # Panics
/// When the lengths do not fit each other, or a label of a row that counts is the blank or not among the `n_columns`.
pub fn ctc(scores: &[f32], n_columns: usize, labels: CtcLabels<'_>) -> CtcPass {
    let n_frames = labels.check(scores, n_columns);
    let set = InstructionSet::best();
    let mut moments = vec![(0f32, 0f32); labels.labels.len() * n_frames];
    let frames = moments.par_iter_mut().zip(scores.par_chunks_exact(n_columns.max(1))).enumerate();
    let frames = frames.filter(|(i, _)| labels.counts(i / n_frames, i % n_frames));
    frames.for_each(|(_, (moments, frame))| *moments = frame_moments(set, frame));
    let rows = (0..labels.labels.len()).into_par_iter().map(|i| {
        let row = Row::new(scores, n_columns, &moments, labels, i);
        if labels.weights[i] == 0.0 { (0.0, Vec::new()) } else { row.forward() }
    });
    let (losses, reached) = rows.unzip();
    CtcPass { losses, moments, reached }
}

/// `d_scores = scale * weight * (softmax(scores) - occupancy)` for each frame, occupancy being the share of paths that are at
/// each column there. Zeros for padding, rows of weight 0 and rows whose loss is infinite.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn ctc_backward(
    scores: &[f32],
    n_columns: usize,
    labels: CtcLabels<'_>,
    pass: &CtcPass,
    scale: f32,
    d_scores: &mut [f32],
) {
    let n_frames = labels.check(scores, n_columns);
    assert!(
        d_scores.len() == scores.len()
            && pass.losses.len() == labels.labels.len()
            && pass.moments.len() == labels.labels.len() * n_frames,
        "CTC: {} gradients and {} losses for {} scores",
        d_scores.len(),
        pass.losses.len(),
        scores.len()
    );
    let set = InstructionSet::best();
    let rows = pass.losses.par_iter().zip(&pass.reached).enumerate();
    let occupancies: Vec<Vec<f32>> = rows
        .map(|(i, (loss, reached))| {
            let row = Row::new(scores, n_columns, &pass.moments, labels, i);
            if labels.weights[i] == 0.0 || *loss == f64::INFINITY {
                Vec::new()
            } else {
                row.occupancy(*loss, reached)
            }
        })
        .collect();
    let width = n_columns.max(1);
    let frames = d_scores.par_chunks_exact_mut(width).zip(scores.par_chunks_exact(width)).enumerate();
    frames.for_each(|(place, (d_frame, frame))| {
        let (i, t) = (place / n_frames, place % n_frames);
        let n_states = 2 * labels.labels[i].len() + 1;
        let Some(occupancy) = occupancies[i].get(t * n_states..(t + 1) * n_states) else {
            d_frame.fill(0.0);
            return;
        };
        let scale = scale * labels.weights[i];
        let (max, sum) = pass.moments[place];
        probabilities(set, frame, max, scale / sum, d_frame);
        for (share, column) in occupancy.iter().zip(states(&labels.labels[i], labels.blank)) {
            d_frame[column as usize] -= scale * share;
        }
    });
}

/// The columns of a row's states.
fn states(labels: &[u32], blank: u32) -> impl Iterator<Item = u32> {
    labels.iter().flat_map(move |label| [blank, *label]).chain([blank])
}

impl CtcLabels<'_> {
    /// Frames of a row, padding included.
    fn check(&self, scores: &[f32], n_columns: usize) -> usize {
        let n_rows = self.labels.len();
        let n_frames = (scores.len() / n_columns.max(1)).checked_div(n_rows).unwrap_or(0);
        assert!(
            self.n_frames.len() == n_rows
                && self.weights.len() == n_rows
                && scores.len() == n_rows * n_frames * n_columns
                && self.n_frames.iter().all(|n| *n <= n_frames),
            "CTC: {} scores of {n_columns} columns, {n_rows} rows of labels, lengths {:?}, {} weights",
            scores.len(),
            self.n_frames,
            self.weights.len()
        );
        for (labels, weight) in self.labels.iter().zip(self.weights) {
            assert!(
                *weight == 0.0
                    || ((self.blank as usize) < n_columns
                        && labels.iter().all(|label| (*label as usize) < n_columns && *label != self.blank)),
                "CTC: labels {labels:?} with blank {} are not among {n_columns} columns",
                self.blank
            );
        }
        n_frames
    }

    fn counts(&self, row: usize, frame: usize) -> bool {
        self.weights[row] != 0.0 && frame < self.n_frames[row]
    }
}

/// A row's frames, seen from its states.
struct Row<'a> {
    scores: &'a [f32],
    n_columns: usize,
    moments: &'a [(f32, f32)],
    labels: &'a [u32],
    blank: u32,
    n_states: usize,
}

impl<'a> Row<'a> {
    fn new(
        scores: &'a [f32],
        n_columns: usize,
        moments: &'a [(f32, f32)],
        labels: CtcLabels<'a>,
        i: usize,
    ) -> Self {
        let padded = moments.len() / labels.labels.len();
        let n_frames = labels.n_frames[i];
        Self {
            scores: &scores[i * padded * n_columns..][..n_frames * n_columns],
            n_columns,
            moments: &moments[i * padded..][..n_frames],
            labels: &labels.labels[i],
            blank: labels.blank,
            n_states: 2 * labels.labels[i].len() + 1,
        }
    }

    /// Logarithms of the probabilities of the states' columns in a frame.
    fn emissions(&self, frame: usize) -> impl Iterator<Item = f64> {
        let (max, sum) = self.moments[frame];
        let log_sum = f64::from(max) + f64::from(sum).ln();
        let scores = &self.scores[frame * self.n_columns..][..self.n_columns];
        states(self.labels, self.blank).map(move |column| f64::from(scores[column as usize]) - log_sum)
    }

    /// Whether a path may come to `state` from the one two before it.
    fn skips(&self, state: usize) -> bool {
        state % 2 == 1 && state >= 3 && self.labels[state / 2] != self.labels[state / 2 - 1]
    }

    /// The loss, and what the backward pass needs.
    fn forward(&self) -> (f64, Vec<f64>) {
        let n = self.n_states;
        if self.moments.is_empty() {
            return (if self.labels.is_empty() { 0.0 } else { f64::INFINITY }, Vec::new());
        }
        let mut reached = vec![f64::NEG_INFINITY; self.moments.len() * n];
        for (reached, emission) in reached.iter_mut().zip(self.emissions(0)).take(2) {
            *reached = emission;
        }
        for frame in 1..self.moments.len() {
            let (before, here) = reached[(frame - 1) * n..(frame + 1) * n].split_at_mut(n);
            for (state, (here, emission)) in here.iter_mut().zip(self.emissions(frame)).enumerate() {
                let from =
                    |back: usize| state.checked_sub(back).map_or(f64::NEG_INFINITY, |state| before[state]);
                let skipped = if self.skips(state) { from(2) } else { f64::NEG_INFINITY };
                *here = emission + log_sum([from(0), from(1), skipped]);
            }
        }
        let last = &reached[(self.moments.len() - 1) * n..];
        let label = if n > 1 { last[n - 2] } else { f64::NEG_INFINITY };
        (-log_sum([last[n - 1], label, f64::NEG_INFINITY]), reached)
    }

    /// The share of paths that are in each state in each frame, (T, 2 L + 1).
    fn occupancy(&self, loss: f64, reached: &[f64]) -> Vec<f32> {
        let n = self.n_states;
        let mut shares = vec![0f32; reached.len()];
        // Of the paths from a state on, its own frame not included; then with it.
        let mut rest = vec![f64::NEG_INFINITY; n];
        for frame in (0..self.moments.len()).rev() {
            if frame + 1 == self.moments.len() {
                rest[n.saturating_sub(2)..].fill(0.0);
            } else {
                for state in 0..n {
                    let to = |on: usize| rest.get(state + on).copied().unwrap_or(f64::NEG_INFINITY);
                    let skipped =
                        if state + 2 < n && self.skips(state + 2) { to(2) } else { f64::NEG_INFINITY };
                    rest[state] = log_sum([to(0), to(1), skipped]);
                }
            }
            let (reached, shares) = (&reached[frame * n..][..n], &mut shares[frame * n..][..n]);
            for ((share, reached), rest) in shares.iter_mut().zip(reached).zip(&rest) {
                *share = (reached + rest + loss).exp() as f32;
            }
            for (rest, emission) in rest.iter_mut().zip(self.emissions(frame)) {
                *rest += emission;
            }
        }
        shares
    }
}

/// `ln(sum(e^x))`; minus infinity when all are, and what is no number stays so.
fn log_sum(logs: [f64; 3]) -> f64 {
    let max = logs[0].max(logs[1]).max(logs[2]);
    if max == f64::NEG_INFINITY {
        return logs[0] + logs[1] + logs[2];
    }
    let term = |log: f64| if log == f64::NEG_INFINITY { 0.0 } else { (log - max).exp() };
    max + logs.map(term).iter().sum::<f64>().ln()
}

vectorised! {
    /// The largest score, and the sum of exponentials less it.
    fn frame_moments(frame: &[f32]) -> (f32, f32) {
        let max = max(frame);
        (max, sum(frame, |score| exp(score - max)))
    }

    fn probabilities(frame: &[f32], max: f32, scale: f32, d_frame: &mut [f32]) {
        for (d, score) in d_frame.iter_mut().zip(frame) {
            *d = scale * exp(*score - max);
        }
    }
}

#[cfg(test)]
mod tests;
