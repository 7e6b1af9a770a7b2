//! The Kullback-Leibler divergence of rows of scores from a teacher's, softened by a temperature, and its gradient. Probabilities
//! are never written: each row's two sums of exponentials are enough to compute them again.

use rayon::prelude::*;

use super::functions::{exp, max, sum, sum2};
use super::instruction_set::{InstructionSet, vectorised};
use super::memory::filled;

/// What rows of scores are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Teacher<'a> {
    /// Its scores, rows as wide as those that are compared.
    pub scores: &'a [f32],
    /// What each row counts; rows of weight 0 are not looked at.
    pub weights: &'a [f32],
    /// Scores are divided by it before they become probabilities; its square multiplies the divergence (Hinton et al., arXiv
    /// 1503.02531, section 2).
    pub temperature: f32,
}

/// The weighted sum of `temperature^2 * KL(teacher || scores)`, and for each row the logarithms of both sums of exponentials, the
/// teacher's second: what the gradient needs.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn distillation(scores: &[f32], n_columns: usize, teacher: Teacher<'_>) -> (f64, Vec<[f32; 2]>) {
    teacher.check(scores, n_columns);
    let (set, temperature) = (InstructionSet::best(), teacher.temperature);
    let mut log_sums = vec![[0f32; 2]; teacher.weights.len()];
    let mut losses = vec![0f64; teacher.weights.len()];
    let width = n_columns.max(1);
    let rows = scores.par_chunks_exact(width).zip(teacher.scores.par_chunks_exact(width));
    let rows = rows.zip(&mut log_sums).zip(&mut losses).enumerate();
    rows.filter(|(i, _)| teacher.weights[*i] != 0.0).for_each(|(i, (((row, theirs), log_sums), loss))| {
        *log_sums = [log_sum(set, row, temperature), log_sum(set, theirs, temperature)];
        let [own, of_teacher] = *log_sums;
        // The sum over p log p - p log q, in which the logarithms of the two sums do not depend on the column.
        let advantage = f64::from(expected_difference(set, row, theirs, of_teacher, temperature));
        let divergence = advantage - f64::from(of_teacher) + f64::from(own);
        *loss = f64::from(teacher.weights[i]) * f64::from(temperature).powi(2) * divergence;
    });
    (losses.iter().sum(), log_sums)
}

/// `scale * weight * temperature * (softmax(scores / temperature) - softmax(teacher / temperature))` for each row; zeros where the
/// weight is 0.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn distillation_backward(
    scores: &[f32],
    n_columns: usize,
    teacher: Teacher<'_>,
    log_sums: &[[f32; 2]],
    scale: f32,
) -> Vec<f32> {
    teacher.check(scores, n_columns);
    assert!(
        log_sums.len() == teacher.weights.len(),
        "distillation: {} sums for {} rows",
        log_sums.len(),
        teacher.weights.len()
    );
    let set = InstructionSet::best();
    filled(scores.len(), n_columns, |i, d_row| {
        if teacher.weights[i] == 0.0 {
            return;
        }
        let at = i * n_columns..(i + 1) * n_columns;
        let scale = scale * teacher.weights[i] * teacher.temperature;
        gradients(
            set,
            &scores[at.clone()],
            &teacher.scores[at],
            log_sums[i],
            [scale, teacher.temperature],
            d_row,
        );
    })
}

impl Teacher<'_> {
    fn check(&self, scores: &[f32], n_columns: usize) {
        assert!(
            scores.len() == self.scores.len() && scores.len() == self.weights.len() * n_columns,
            "distillation: {} scores in rows of {n_columns}, {} of the teacher, {} weights",
            scores.len(),
            self.scores.len(),
            self.weights.len()
        );
    }
}

vectorised! {
    /// The logarithm of the sum of exponentials of scores over the temperature.
    fn log_sum(row: &[f32], temperature: f32) -> f32 {
        let max = max(row);
        max / temperature + sum(row, |score| exp((score - max) / temperature)).ln()
    }

    /// The mean, by the teacher's probabilities, of its scores minus the others, over the temperature.
    fn expected_difference(row: &[f32], teacher: &[f32], log_sum: f32, temperature: f32) -> f32 {
        sum2(row, teacher, |own, score| exp(score / temperature - log_sum) * ((score - own) / temperature))
    }

    fn gradients(row: &[f32], teacher: &[f32], log_sums: [f32; 2], scaling: [f32; 2], d_row: &mut [f32]) {
        let [scale, temperature] = scaling;
        for ((d, own), score) in d_row.iter_mut().zip(row).zip(teacher) {
            *d = scale * (exp(own / temperature - log_sums[0]) - exp(score / temperature - log_sums[1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_formula() {
        for width in [1, 16, 33, 1000] {
            let of = |seed: f32| -> Vec<f32> { (0..width).map(|i| 8.0 * (i as f32 * seed).sin()).collect() };
            let (own, theirs) = (of(0.37), of(0.61));
            let probabilities = |row: &[f32]| -> Vec<f64> {
                let e: Vec<f64> = row.iter().map(|x| f64::from(*x / 2.0).exp()).collect();
                let sum: f64 = e.iter().sum();
                e.iter().map(|e| e / sum).collect()
            };
            let (q, p) = (probabilities(&own), probabilities(&theirs));
            let expected: f64 = p.iter().zip(&q).map(|(p, q)| 4.0 * p * (p / q).ln()).sum();
            let teacher = Teacher { scores: &theirs, weights: &[1.0], temperature: 2.0 };
            let (loss, log_sums) = distillation(&own, width, teacher);
            assert!((loss - expected).abs() < 1e-5 * expected.max(1.0), "{loss}, not {expected}");
            let mut first: Option<Vec<u32>> = None;
            for set in InstructionSet::available() {
                let mut d_row = vec![0.0; width];
                gradients(set, &own, &theirs, log_sums[0], [2.0, 2.0], &mut d_row);
                for ((d, q), p) in d_row.iter().zip(&q).zip(&p) {
                    assert!((f64::from(*d) - 2.0 * (q - p)).abs() < 2e-6, "{set:?}");
                }
                let mut bits: Vec<u32> = d_row.iter().map(|d| d.to_bits()).collect();
                bits.push(log_sum(set, &own, 2.0).to_bits());
                bits.push(expected_difference(set, &own, &theirs, log_sums[0][1], 2.0).to_bits());
                assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{set:?}");
            }
        }
    }
}
