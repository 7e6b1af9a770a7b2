//! Entropic optimal transport between two sets of weighted points (Feydy et al., AISTATS 2019, arXiv 1810.08278): what it costs to
//! move one set onto the other, as geomloss has it (`sinkhorn_divergence.py`, `sinkhorn_samples.py`), and its gradient.
//!
//! With C the costs between points and e = blur^p, `OT(a, b) = min over plans P of <P, C> + e KL(P | a x b)`. Debiased, it is the
//! Sinkhorn divergence `OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2`, which is 0 where both sets are the same. Its dual is solved in
//! the log domain while e falls from the size of the sets to its end (`sinkhorn`); the gradient is that of the last half step
//! with its potentials held still (the envelope theorem), so that no step is kept.
//!
//! A pair of sets depends on itself alone: unlike geomloss, the schedule begins with the diameter of the pair, not with that of
//! all sets of a batch.

mod cost;
mod sinkhorn;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::cost::Costs;
use self::sinkhorn::{Problem, solve};
use super::gemm::{Matrix, product};
use super::instruction_set::InstructionSet;

/// What it costs to move a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// p = 1: the distance.
    Euclidean,
    /// p = 2: half of its square.
    HalfSquared,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transport {
    /// What it costs to move a point.
    pub distance: Distance,
    /// How near points have to be not to be told apart; e is its power p.
    pub blur: f64,
    /// By what the blur falls from step to step, between 0 and 1.
    pub scaling: f64,
    /// How far a point is moved at most, rather than left where it is; `None` moves all of them.
    pub reach: Option<f64>,
    /// Whether what sets cost with themselves is taken off, which is most of the work where one is large.
    pub debiased: bool,
    /// Weight of a coordinate that says where in its set a point lies, from 0 to 1 (Le et al., arXiv 2301.11716, section 3.2);
    /// there is none where a set has one point.
    pub position_weight: f64,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            distance: Distance::HalfSquared,
            blur: 0.05,
            scaling: 0.5,
            reach: None,
            debiased: true,
            position_weight: 0.0,
        }
    }
}

/// Sets of points side by side.
#[derive(Debug, Clone, Copy)]
pub struct PointSets<'a> {
    /// (B, N, D).
    pub points: &'a [f32],
    /// Points of each set; those behind them are padding and not looked at.
    pub lengths: &'a [usize],
    /// What each point weighs, (B, N); all of a set weigh the same where there are none given, 1 together.
    pub weights: Option<&'a [f32]>,
}

/// What was found of a pair of sets.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PairCost {
    /// The value, 0 where one of the sets is empty.
    pub value: f64,
    /// What the plan moves in features, `<P, C>` without the position.
    pub feature_cost: f64,
    /// What it moves in position.
    pub position_cost: f64,
}

/// What was found of all pairs.
pub struct TransportPass {
    /// Of each pair.
    pub pairs: Vec<PairCost>,
    /// Gradients of their values by the points of the first sets and of the second, zeros for padding: (B, S, D), (B, T, D).
    pub gradients: [Vec<f32>; 2],
}

/// Moves each of the sets `x` (B, S, D) onto that of the same number of `y` (B, T, D), of points of `width` numbers.
///
/// # Panics
/// When lengths do not fit each other.
pub fn optimal_transport(
    x: PointSets<'_>,
    y: PointSets<'_>,
    width: usize,
    transport: Transport,
) -> TransportPass {
    let (n_pairs, step_x, step_y) = (x.lengths.len(), x.check(width), y.check(width));
    assert!(y.lengths.len() == n_pairs, "transport: {n_pairs} sets onto {}", y.lengths.len());
    let mut gradients = [vec![0f32; x.points.len()], vec![0f32; y.points.len()]];
    let [dx, dy] = &mut gradients;
    let sets = dx.par_chunks_mut((step_x * width).max(1)).zip(dy.par_chunks_mut((step_y * width).max(1)));
    let mut pairs = vec![PairCost::default(); n_pairs];
    pairs.par_iter_mut().zip(sets).enumerate().for_each(|(i, (pair, (dx, dy)))| {
        let (x, y) = (x.set(i, step_x, width), y.set(i, step_y, width));
        *pair = move_pair(InstructionSet::best(), &x, &y, width, transport, [dx, dy]);
    });
    TransportPass { pairs, gradients }
}

/// One set.
struct PointSet<'a> {
    points: &'a [f32], // (N, D)
    weights: Vec<f64>,
}

impl<'a> PointSets<'a> {
    /// Places of a set.
    fn check(&self, width: usize) -> usize {
        let step = self.points.len() / (self.lengths.len() * width).max(1);
        assert!(
            self.points.len() == self.lengths.len() * step * width
                && self.lengths.iter().all(|n| *n <= step)
                && self.weights.is_none_or(|weights| weights.len() * width == self.points.len()),
            "transport: sets of {:?} points in {} numbers, points having {width}",
            self.lengths,
            self.points.len()
        );
        step
    }

    fn set(&self, i: usize, step: usize, width: usize) -> PointSet<'a> {
        let n = self.lengths[i];
        let weights = match self.weights {
            Some(weights) => weights[i * step..][..n].iter().map(|weight| f64::from(*weight)).collect(),
            None => vec![(n.max(1) as f64).recip(); n],
        };
        PointSet { points: &self.points[i * step * width..][..n * width], weights }
    }
}

/// Writes the gradients of one pair.
fn move_pair(
    set: InstructionSet,
    x: &PointSet<'_>,
    y: &PointSet<'_>,
    width: usize,
    transport: Transport,
    [dx, dy]: [&mut [f32]; 2],
) -> PairCost {
    let weighs = |set: &PointSet<'_>| set.weights.iter().any(|weight| *weight > 0.0);
    if !weighs(x) || !weighs(y) {
        return PairCost::default();
    }
    let costs = Costs::new(x.points, y.points, width, &transport);
    let problem = Problem::new(&x.weights, &y.weights, &costs, transport);
    let duals = solve(set, &problem);
    let plan = problem.plan(set, &duals.across[0], true);
    let (feature_cost, position_cost) = problem.moved(&plan);
    // Towards where the plan takes each point; where sets are compared with themselves, away from where it takes it there.
    add_pull(&plan, &costs.x, &costs.y, width, 1.0, dx);
    let back = problem.plan(set, &duals.across[1], false);
    add_pull(&back, &costs.y, &costs.x, width, 1.0, dy);
    if transport.debiased {
        add_pull(&problem.own_plan(set, &duals.own[0], true), &costs.x, &costs.x, width, -1.0, dx);
        add_pull(&problem.own_plan(set, &duals.own[1], false), &costs.y, &costs.y, width, -1.0, dy);
    }
    PairCost { value: problem.value(&duals), feature_cost, position_cost }
}

/// `gradient_i += sign * sum_j pull_ij (from_i - to_j)`, the pulls being (N, M).
fn add_pull(plan: &sinkhorn::Plan, from: &[f32], to: &[f32], width: usize, sign: f32, gradient: &mut [f32]) {
    let n_to = to.len() / width.max(1);
    let n_from = from.len() / width.max(1);
    let moved = product(Matrix::new(&plan.pulls, n_from, n_to), Matrix::new(to, n_to, width), None);
    let rows = from.chunks_exact(width.max(1)).zip(moved.chunks_exact(width.max(1)));
    for ((gradient, (from, moved)), sum) in
        gradient.chunks_exact_mut(width.max(1)).zip(rows).zip(&plan.pull_sums)
    {
        for ((gradient, from), moved) in gradient.iter_mut().zip(from).zip(moved) {
            *gradient += sign * (*sum as f32 * from - moved);
        }
    }
}
