//! Cross-entropy of rows of scores against labels, and its gradient. The probabilities are never written: a row's maximum and sum
//! are enough to compute them again.

use rayon::prelude::*;

use super::functions::{exp, max, sum};
use super::instruction_set::{InstructionSet, vectorised};
use super::memory::filled;

/// What rows of scores are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// The right column of each row; any number where the weight is 0.
    pub labels: &'a [u32],
    /// What each row counts; rows of weight 0 are not looked at.
    pub weights: &'a [f32],
    /// The share of the target that all columns have in common (label smoothing, Szegedy et al., arXiv 1512.00567).
    pub smoothing: f32,
}

/// The weighted sum of losses, and for each row the logarithm of the sum of exponentials: what the gradient needs.
///
/// # Panics
/// When the lengths do not fit each other, or a label of a row that counts is not among the `n_columns`.
pub fn cross_entropy(scores: &[f32], n_columns: usize, labels: Labels<'_>) -> (f64, Vec<f32>) {
    labels.check(scores, n_columns);
    let set = InstructionSet::best();
    let mut log_sums = vec![0f32; labels.labels.len()];
    let mut losses = vec![0f64; labels.labels.len()];
    let rows = scores.par_chunks_exact(n_columns.max(1)).zip(&mut log_sums).zip(&mut losses).enumerate();
    rows.filter(|(i, _)| labels.weights[*i] != 0.0).for_each(|(i, ((row, log_sum), loss))| {
        let (row_log_sum, mean) = moments(set, row);
        *log_sum = row_log_sum;
        // The target's share of the row's scores; the mean is not computed with what may overflow where it does not count.
        let target = f64::from(row[labels.labels[i] as usize]);
        let smoothing = f64::from(labels.smoothing);
        let common = if smoothing == 0.0 { 0.0 } else { smoothing * mean };
        *loss = f64::from(labels.weights[i]) * (f64::from(row_log_sum) - (1.0 - smoothing) * target - common);
    });
    (losses.iter().sum(), log_sums)
}

/// `scale * weight * (softmax(scores) - target)` for each row; zeros where the weight is 0.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn cross_entropy_backward(
    scores: &[f32],
    n_columns: usize,
    labels: Labels<'_>,
    log_sums: &[f32],
    scale: f32,
) -> Vec<f32> {
    labels.check(scores, n_columns);
    assert!(
        log_sums.len() == labels.labels.len(),
        "cross-entropy: {} sums for {} scores",
        log_sums.len(),
        scores.len()
    );
    let set = InstructionSet::best();
    filled(scores.len(), n_columns, |i, d_row| {
        if labels.weights[i] == 0.0 {
            return;
        }
        let (row, scale) = (&scores[i * n_columns..][..n_columns], scale * labels.weights[i]);
        gradients(set, row, log_sums[i], labels.smoothing / n_columns as f32, scale, d_row);
        d_row[labels.labels[i] as usize] -= scale * (1.0 - labels.smoothing);
    })
}

impl Labels<'_> {
    fn check(&self, scores: &[f32], n_columns: usize) {
        assert!(
            self.labels.len() == self.weights.len() && scores.len() == self.labels.len() * n_columns,
            "cross-entropy: {} scores in rows of {n_columns}, {} labels, {} weights",
            scores.len(),
            self.labels.len(),
            self.weights.len()
        );
        for (label, weight) in self.labels.iter().zip(self.weights) {
            assert!(
                *weight == 0.0 || (*label as usize) < n_columns,
                "label {label} is not among {n_columns} columns"
            );
        }
    }
}

vectorised! {
    /// The logarithm of the sum of exponentials, and the mean.
    fn moments(row: &[f32]) -> (f32, f64) {
        let max = max(row);
        let sum_of_exponentials = sum(row, |score| exp(score - max));
        (max + sum_of_exponentials.ln(), f64::from(sum(row, |score| score)) / row.len() as f64)
    }

    fn gradients(row: &[f32], log_sum: f32, common: f32, scale: f32, d_row: &mut [f32]) {
        for (d, score) in d_row.iter_mut().zip(row) {
            *d = scale * (exp(*score - log_sum) - common);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_gradients_are_the_formulas_with_every_instruction_set() {
        for width in [1, 16, 33, 1000] {
            let row: Vec<f32> = (0..width).map(|i| 8.0 * (i as f32 * 0.37).sin()).collect();
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
            let expected = f64::from(largest) + sum.ln();
            let mut first: Option<(u32, Vec<f32>)> = None;
            for set in InstructionSet::available() {
                let (log_sum, mean) = moments(set, &row);
                assert!((f64::from(log_sum) - expected).abs() < 2e-6 * expected.abs().max(1.0), "{set:?}");
                let expected_mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
                assert!((mean - expected_mean).abs() < 1e-5, "{set:?}");
                let mut d_row = vec![0.0; width];
                gradients(set, &row, log_sum, 0.25, 2.0, &mut d_row);
                for (d, x) in d_row.iter().zip(&row) {
                    let expected = 2.0 * ((f64::from(*x) - expected).exp() - 0.25);
                    assert!((f64::from(*d) - expected).abs() < 2e-6, "{set:?}: {d}, not {expected}");
                }
                let result = (log_sum.to_bits(), d_row);
                assert_eq!(first.get_or_insert_with(|| result.clone()), &result, "{set:?}");
            }
        }
    }
}
