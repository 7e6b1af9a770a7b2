//! The law that a grid is fitted by: a product of powers of sizes above a floor, `α · Π (N̄_k / N_k)^{p_k} + L_∞` (Ghorbani et al. 2021,
//! "Scaling Laws for Neural Machine Translation", for K = 2: encoder and decoder).
//!
//! For a floor that is given the law is linear in logs, so a search over floors finds where to begin; Huber's loss on the residuals of
//! the log loss, as in Hoffmann et al. 2022, is what is minimised from there, so that a run that went wrong counts less.

/// Residuals of the log loss from which on Huber's loss grows linearly, at least: that of Hoffmann et al. 2022.
pub const HUBER_DELTA: f64 = 1e-3;
/// Huber's threshold in standard deviations, which costs 5 % where there are no outliers (Huber 1981).
const TUNING: f64 = 1.345;
/// Standard deviations in a median of absolute deviations.
const DEVIATIONS: f64 = 1.4826;
/// Floors that are tried, and how near to the smallest loss.
const N_FLOORS: usize = 64;
const NEAREST: f64 = 1e-4;
const MAX_ITERATIONS: usize = 400;
/// Parameters of the law with two sizes.
const MAX: usize = 4;

type Vector = [f64; MAX];
type Matrix = [[f64; MAX]; MAX];

/// A law of K sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Law<const K: usize> {
    /// N̄, geometric means of the sizes: fixed, as α can stand for any others.
    pub normalisers: [f64; K],
    /// α: what size can still gain at the normalisers.
    pub alpha: f64,
    /// p, none negative.
    pub exponents: [f64; K],
    /// L_∞, not negative.
    pub floor: f64,
}

impl<const K: usize> Law<K> {
    /// The part of the loss that size makes smaller.
    pub fn reducible(&self, sizes: [f64; K]) -> f64 {
        let factors = (0..K).map(|k| (self.normalisers[k] / sizes[k]).powf(self.exponents[k]));
        self.alpha * factors.product::<f64>()
    }

    /// The loss.
    pub fn loss(&self, sizes: [f64; K]) -> f64 {
        self.reducible(sizes) + self.floor
    }
}

/// A law and what it leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted<const K: usize> {
    /// The law.
    pub law: Law<K>,
    /// Where Huber's loss became linear.
    pub huber_delta: f64,
    /// Log of the predicted loss less that of the measured one, for each point.
    pub residuals: Vec<f64>,
    /// Share of the losses' variance that it explains.
    pub r_squared: f64,
}

/// Sizes and the loss at them, all positive and finite.
pub type Point<const K: usize> = ([f64; K], f64);

/// Fits the law. Without a threshold for Huber's loss it follows from the residuals.
pub fn fit<const K: usize>(points: &[Point<K>], huber_delta: Option<f64>) -> Fitted<K> {
    let n = points.len().max(1) as f64;
    let normalisers =
        std::array::from_fn(|k| (points.iter().map(|(sizes, _)| sizes[k].ln()).sum::<f64>() / n).exp());
    let mut problem = Problem::new(points, normalisers, huber_delta.unwrap_or(HUBER_DELTA));
    let begin = problem.beginnings();
    let refined = begin.into_iter().map(|theta| problem.refined(theta));
    let mut theta =
        refined.min_by(|a, b| problem.objective(a).total_cmp(&problem.objective(b))).unwrap_or([0.0; MAX]);
    if huber_delta.is_none() {
        let mut sizes: Vec<f64> = problem.residuals(&theta).map(f64::abs).collect();
        sizes.sort_by(f64::total_cmp);
        let scale = DEVIATIONS * sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
        problem.delta = (TUNING * scale * freedom(points.len(), K)).max(HUBER_DELTA);
        theta = problem.refined(theta);
    }
    let law = law_of(&theta, normalisers);
    Fitted {
        law,
        huber_delta: problem.delta,
        residuals: problem.residuals(&theta).collect(),
        r_squared: r_squared(points, &law),
    }
}

/// Fits a law again, to losses near those it was fitted to.
pub(super) fn refit<const K: usize>(law: &Law<K>, points: &[Point<K>], huber_delta: f64) -> Law<K> {
    let problem = Problem::new(points, law.normalisers, huber_delta);
    law_of(&problem.refined(theta_of(law)), law.normalisers)
}

/// By how much the residuals of `n_points` are too small, as a law with K sizes was fitted to them.
pub(super) fn freedom(n_points: usize, n_sizes: usize) -> f64 {
    let n = n_points as f64;
    (n / (n - (n_sizes + 2) as f64).max(1.0)).sqrt()
}

fn r_squared<const K: usize>(points: &[Point<K>], law: &Law<K>) -> f64 {
    let mean = points.iter().map(|(_, loss)| loss).sum::<f64>() / points.len().max(1) as f64;
    let total: f64 = points.iter().map(|(_, loss)| (loss - mean).powi(2)).sum();
    let left: f64 = points.iter().map(|(sizes, loss)| (loss - law.loss(*sizes)).powi(2)).sum();
    1.0 - left / total
}

/// ln α, the exponents, L_∞.
fn theta_of<const K: usize>(law: &Law<K>) -> Vector {
    let mut theta = [0.0; MAX];
    theta[0] = law.alpha.ln();
    theta[1..=K].copy_from_slice(&law.exponents);
    theta[K + 1] = law.floor;
    theta
}

fn law_of<const K: usize>(theta: &Vector, normalisers: [f64; K]) -> Law<K> {
    let exponents = std::array::from_fn(|k| theta[k + 1]);
    Law { normalisers, alpha: theta[0].exp(), exponents, floor: theta[K + 1] }
}

/// What is minimised.
struct Problem<const K: usize> {
    /// ln(N_k / N̄_k) of each point.
    sizes: Vec<[f64; K]>,
    losses: Vec<f64>,
    delta: f64,
}

impl<const K: usize> Problem<K> {
    /// Parameters of the law.
    const N: usize = K + 2;

    fn new(points: &[Point<K>], normalisers: [f64; K], delta: f64) -> Self {
        let log = |(sizes, _): &Point<K>| std::array::from_fn(|k| (sizes[k] / normalisers[k]).ln());
        Self {
            sizes: points.iter().map(log).collect(),
            losses: points.iter().map(|(_, loss)| *loss).collect(),
            delta,
        }
    }

    /// The reducible loss at a point.
    fn reducible(theta: &Vector, sizes: &[f64; K]) -> f64 {
        (theta[0] - (0..K).map(|k| theta[k + 1] * sizes[k]).sum::<f64>()).exp()
    }

    fn residuals(&self, theta: &Vector) -> impl Iterator<Item = f64> {
        let residual = |(sizes, loss): (&[f64; K], &f64)| {
            (Self::reducible(theta, sizes) + theta[Self::N - 1]).ln() - loss.ln()
        };
        self.sizes.iter().zip(&self.losses).map(residual)
    }

    fn objective(&self, theta: &Vector) -> f64 {
        let huber = |residual: f64| match residual.abs() {
            size if size <= self.delta => 0.5 * size * size,
            size => self.delta * (size - 0.5 * self.delta),
        };
        self.residuals(theta).map(huber).sum()
    }

    /// The laws of floors that fit better than those of their neighbours.
    fn beginnings(&self) -> Vec<Vector> {
        let smallest = self.losses.iter().copied().fold(f64::INFINITY, f64::min);
        let floors = (0..N_FLOORS).map(|index| {
            let gap = NEAREST.powf(index as f64 / (N_FLOORS - 1) as f64);
            smallest * (1.0 - gap)
        });
        let tried: Vec<(Vector, f64)> = floors
            .filter_map(|floor| self.linear(floor))
            .map(|theta| (theta, self.objective(&theta)))
            .filter(|(_, objective)| objective.is_finite())
            .collect();
        let at = |index: Option<usize>| {
            index.and_then(|index| tried.get(index)).map_or(f64::INFINITY, |(_, objective)| *objective)
        };
        let is_lowest = |index: &usize| {
            let here = at(Some(*index));
            here <= at(index.checked_sub(1)) && here < at(Some(index + 1))
        };
        (0..tried.len()).filter(is_lowest).map(|index| tried[index].0).collect()
    }

    /// Least squares of `ln(L − L_∞) = ln α − Σ p_k ln(N_k / N̄_k)` for a floor below all losses, no exponent negative: the best of all
    /// ways to leave exponents at 0.
    fn linear(&self, floor: f64) -> Option<Vector> {
        let logs: Vec<f64> = self.losses.iter().map(|loss| (loss - floor).ln()).collect();
        let row = |sizes: &[f64; K]| {
            let mut row = [0.0; MAX];
            row[0] = 1.0;
            (0..K).for_each(|k| row[k + 1] = -sizes[k]);
            row
        };
        let mut best: Option<(Vector, f64)> = None;
        for free_exponents in 0..1_usize << K {
            let is_free =
                |index: usize| index == 0 || (index <= K && free_exponents & (1 << (index - 1)) != 0);
            let (mut matrix, mut right) = ([[0.0; MAX]; MAX], [0.0; MAX]);
            for (sizes, log) in self.sizes.iter().zip(&logs) {
                add_outer(&mut matrix, &mut right, &row(sizes), *log, 1.0);
            }
            let Some(mut theta) = solve(&matrix, &right, &is_free) else { continue };
            if theta[1..=K].iter().any(|exponent| *exponent < 0.0) {
                continue;
            }
            let predicted = |sizes: &[f64; K]| (0..=K).map(|i| row(sizes)[i] * theta[i]).sum::<f64>();
            let left: f64 =
                self.sizes.iter().zip(&logs).map(|(sizes, log)| (predicted(sizes) - log).powi(2)).sum();
            theta[Self::N - 1] = floor;
            if best.is_none_or(|(_, lowest)| left < lowest) {
                best = Some((theta, left));
            }
        }
        best.map(|(theta, _)| theta)
    }

    /// Levenberg and Marquardt's steps, each point weighted as Huber's loss weighs it, within the bounds.
    fn refined(&self, mut theta: Vector) -> Vector {
        let mut objective = self.objective(&theta);
        let mut damping = 1e-3;
        for _ in 0..MAX_ITERATIONS {
            let (matrix, downhill) = self.normal_equations(&theta);
            // What lies on its bound and is drawn beyond it stays there.
            let is_free = |i: usize| i < Self::N && (i == 0 || theta[i] > 0.0 || downhill[i] > 0.0);
            let mut damped = matrix;
            for (i, row) in damped.iter_mut().enumerate() {
                row[i] += damping * row[i] + f64::MIN_POSITIVE;
            }
            let Some(step) = solve(&damped, &downhill, &is_free) else { break };
            let mut next = theta;
            for i in 0..Self::N {
                next[i] += step[i];
                if i > 0 {
                    next[i] = next[i].max(0.0);
                }
            }
            let lower = self.objective(&next);
            if lower < objective {
                let gained = objective - lower;
                (theta, objective) = (next, lower);
                damping = (damping / 5.0).max(1e-12);
                if gained <= 1e-13 * objective {
                    break;
                }
            } else {
                damping *= 4.0;
                if damping > 1e8 {
                    break;
                }
            }
        }
        theta
    }

    /// JᵀWJ and −JᵀWr.
    fn normal_equations(&self, theta: &Vector) -> (Matrix, Vector) {
        let (mut matrix, mut downhill) = ([[0.0; MAX]; MAX], [0.0; MAX]);
        for (sizes, loss) in self.sizes.iter().zip(&self.losses) {
            let reducible = Self::reducible(theta, sizes);
            let predicted = reducible + theta[Self::N - 1];
            let residual = predicted.ln() - loss.ln();
            let weight = if residual.abs() <= self.delta { 1.0 } else { self.delta / residual.abs() };
            let mut slope = [0.0; MAX];
            slope[0] = reducible / predicted;
            (0..K).for_each(|k| slope[k + 1] = -sizes[k] * reducible / predicted);
            slope[Self::N - 1] = 1.0 / predicted;
            add_outer(&mut matrix, &mut downhill, &slope, -residual, weight);
        }
        (matrix, downhill)
    }
}

fn add_outer(matrix: &mut Matrix, right: &mut Vector, row: &Vector, value: f64, weight: f64) {
    for i in 0..MAX {
        for j in 0..MAX {
            matrix[i][j] += weight * row[i] * row[j];
        }
        right[i] += weight * row[i] * value;
    }
}

/// Gauss's elimination over the unknowns that are free; the others are 0. None where they are not determined.
fn solve(matrix: &Matrix, right: &Vector, is_free: &dyn Fn(usize) -> bool) -> Option<Vector> {
    let free: Vec<usize> = (0..MAX).filter(|index| is_free(*index)).collect();
    let (mut matrix, mut right) = (*matrix, *right);
    for (at, &column) in free.iter().enumerate() {
        let pivot = free[at..].iter().copied().max_by(|a, b| {
            let size = |row: usize| matrix[row][column].abs();
            size(*a).total_cmp(&size(*b))
        })?;
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let value = matrix[column][column];
        if !(value.abs() > 1e-300 && value.is_finite()) {
            return None;
        }
        for &row in &free[at + 1..] {
            let factor = matrix[row][column] / value;
            for &other in &free[at..] {
                matrix[row][other] -= factor * matrix[column][other];
            }
            right[row] -= factor * right[column];
        }
    }
    let mut solution = [0.0; MAX];
    for (at, &row) in free.iter().enumerate().rev() {
        let known: f64 = free[at + 1..].iter().map(|&other| matrix[row][other] * solution[other]).sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    solution.iter().all(|value| value.is_finite()).then_some(solution)
}
