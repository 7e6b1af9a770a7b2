//! Sinkhorn's algorithm in the log domain, with e falling from step to step (geomloss `sinkhorn_divergence.py: sinkhorn_loop`).

use super::cost::{Costs, FLAT};
use super::{Distance, Transport};
use crate::kernels::functions::exp;
use crate::kernels::instruction_set::{InstructionSet, vectorised};

/// A pair of sets with weights.
pub(super) struct Problem<'a> {
    a: &'a [f64],
    b: &'a [f64],
    log_a: Vec<f64>,
    log_b: Vec<f64>,
    costs: &'a Costs,
    transport: Transport,
    /// The last e, and the power of the reach.
    epsilon: f64,
    rho: Option<f64>,
}

/// One half step: the potential of each point of a set and what it was computed from, the potentials of the other set.
pub(super) struct Half {
    potentials: Vec<f64>,
    /// `log b_j + g_j / e`.
    from: Vec<f64>,
}

/// The last half steps of all problems.
pub(super) struct Duals {
    /// Of the first set by the second, and the other way round.
    pub across: [Half; 2],
    /// Of each set by itself; of no points unless it is compared with itself.
    pub own: [Half; 2],
}

/// Where the points of a set are taken, as forces.
pub(super) struct Plan {
    /// `a_i w_ij`, (N, M); over the distance for p = 1.
    pub pulls: Vec<f32>,
    /// Their sums over j.
    pub pull_sums: Vec<f64>,
}

impl<'a> Problem<'a> {
    pub fn new(a: &'a [f64], b: &'a [f64], costs: &'a Costs, transport: Transport) -> Self {
        let logs = |weights: &[f64]| weights.iter().map(|weight| weight.ln()).collect();
        let power = |x: f64| match transport.distance {
            Distance::Euclidean => x,
            Distance::HalfSquared => x * x,
        };
        let (epsilon, rho) = (power(transport.blur), transport.reach.map(power));
        Self { a, b, log_a: logs(a), log_b: logs(b), costs, transport, epsilon, rho }
    }

    /// e from the size of the sets to its end.
    fn schedule(&self) -> Vec<f64> {
        let p = if self.transport.distance == Distance::Euclidean { 1.0 } else { 2.0 };
        // Sets of one point in the same place have no size.
        let diameter = if self.costs.diameter > 0.0 { self.costs.diameter } else { self.transport.blur };
        let (from, to) = (p * diameter.ln(), p * self.transport.blur.ln());
        let step = p * self.transport.scaling.ln();
        let n = ((to - from) / step).ceil().max(0.0) as usize;
        let between = (0..n).map(|i| (from + i as f64 * step).exp());
        [diameter.powf(p)].into_iter().chain(between).chain([self.epsilon]).collect()
    }

    /// What a potential is multiplied by where points may stay (geomloss `dampening`).
    fn damping(&self, epsilon: f64) -> f64 {
        self.rho.map_or(1.0, |rho| 1.0 / (1.0 + epsilon / rho))
    }

    /// The value (geomloss `sinkhorn_cost`).
    pub fn value(&self, duals: &Duals) -> f64 {
        let side = |weights: &[f64], across: &Half, own: &Half| -> f64 {
            let term = |i: usize| {
                let f = across.potentials[i];
                // There is none of a set that is not compared with itself.
                let own = own.potentials.get(i).copied().unwrap_or(0.0);
                match self.rho {
                    None => f - own,
                    Some(rho) => (rho + self.epsilon / 2.0) * ((-own / rho).exp() - (-f / rho).exp()),
                }
            };
            let terms = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
            terms.map(|(i, weight)| weight * term(i)).sum()
        };
        side(self.a, &duals.across[0], &duals.own[0]) + side(self.b, &duals.across[1], &duals.own[1])
    }

    /// Where the points of the first set are taken in the second, or those of the second in the first.
    pub fn plan(&self, set: InstructionSet, half: &Half, is_first: bool) -> Plan {
        let (weights, costs) =
            if is_first { (self.a, &self.costs.across) } else { (self.b, &self.costs.back) };
        self.pulls(set, weights, costs, half)
    }

    /// Where the points of a set are taken in itself.
    pub fn own_plan(&self, set: InstructionSet, half: &Half, is_first: bool) -> Plan {
        let [x, y] = &self.costs.own;
        let (weights, costs) = if is_first { (self.a, x) } else { (self.b, y) };
        self.pulls(set, weights, costs, half)
    }

    fn pulls(&self, set: InstructionSet, weights: &[f64], costs: &[f32], half: &Half) -> Plan {
        let m = half.from.len();
        let mut pulls = vec![0f32; costs.len()];
        let mut pull_sums = vec![0f64; weights.len()];
        let damping = self.damping(self.epsilon);
        let rows = pulls.chunks_exact_mut(m.max(1)).zip(costs.chunks_exact(m.max(1)));
        for (i, ((pulls, costs), sum)) in rows.zip(&mut pull_sums).enumerate() {
            let (weight, potential) = (weights[i], half.potentials[i]);
            if weight == 0.0 {
                continue;
            }
            let pull = match self.rho {
                None => weight,
                // How the value follows a potential that is held back.
                Some(rho) => weight * (-potential / rho).exp(),
            };
            // The potential is `-e` times the logarithm of the sum of what follows, and is damped.
            let log_sum = -potential / (damping * self.epsilon);
            shares(set, costs, &half.from, self.epsilon.recip(), log_sum, pulls);
            if self.transport.distance == Distance::Euclidean {
                let slope = |pull: f32, cost: f32| if cost <= FLAT { 0.0 } else { pull / cost };
                pulls.iter_mut().zip(costs).for_each(|(pull, cost)| *pull = slope(*pull, *cost));
            }
            pulls.iter_mut().for_each(|share| *share *= pull as f32);
            *sum = pulls.iter().map(|pull| f64::from(*pull)).sum();
        }
        Plan { pulls, pull_sums }
    }

    /// What a plan moves in features and in position.
    pub fn moved(&self, plan: &Plan) -> (f64, f64) {
        let m = self.b.len();
        let mut moved = (0.0, 0.0);
        for (at, pull) in plan.pulls.iter().enumerate().filter(|(_, pull)| **pull != 0.0) {
            let (i, j) = (at / m, at % m);
            let share = match self.transport.distance {
                Distance::HalfSquared => f64::from(*pull),
                Distance::Euclidean => f64::from(*pull) * f64::from(self.costs.across[at]),
            };
            let (feature, position) = self.costs.parts(self.transport.distance, i, j);
            moved = (moved.0 + share * feature, moved.1 + share * position);
        }
        moved
    }
}

/// Solves the problem of a pair, and those of its sets with themselves.
pub(super) fn solve(set: InstructionSet, problem: &Problem<'_>) -> Duals {
    let Problem { log_a, log_b, costs, .. } = problem;
    let schedule = problem.schedule();
    let first = schedule.first().copied().unwrap_or(problem.epsilon);
    let half = |costs: &[f32], logs: &[f64], other: Option<&[f64]>, epsilon: f64| {
        let from = match other {
            Some(other) => logs.iter().zip(other).map(|(log, potential)| log + potential / epsilon).collect(),
            None => logs.to_vec(),
        };
        let potentials = softmins(set, costs, &from, epsilon, problem.damping(epsilon));
        Half { potentials, from }
    };
    let mut duals = Duals {
        across: [half(&costs.across, log_b, None, first), half(&costs.back, log_a, None, first)],
        own: [half(&costs.own[0], log_a, None, first), half(&costs.own[1], log_b, None, first)],
    };
    let step = |duals: &Duals, epsilon: f64| {
        let [f, g] = &duals.across;
        let [own_f, own_g] = &duals.own;
        let own =
            |i: usize, logs: &[f64], own: &Half| half(&costs.own[i], logs, Some(&own.potentials), epsilon);
        Duals {
            across: [
                half(&costs.across, log_b, Some(&g.potentials), epsilon),
                half(&costs.back, log_a, Some(&f.potentials), epsilon),
            ],
            own: [own(0, log_a, own_f), own(1, log_b, own_g)],
        }
    };
    for epsilon in schedule {
        let next = step(&duals, epsilon);
        let pairs = duals.across.iter_mut().zip(&next.across).chain(duals.own.iter_mut().zip(&next.own));
        for (old, next) in pairs {
            for (old, next) in old.potentials.iter_mut().zip(&next.potentials) {
                *old = f64::midpoint(*old, *next);
            }
        }
    }
    step(&duals, problem.epsilon)
}

/// `-damping * e * log sum_j exp(from_j - C_ij / e)` for each row of costs (N, M).
fn softmins(set: InstructionSet, costs: &[f32], from: &[f64], epsilon: f64, damping: f64) -> Vec<f64> {
    let rows = costs.chunks_exact(from.len().max(1));
    rows.map(|costs| -damping * epsilon * log_sum_exp(set, costs, from, epsilon.recip())).collect()
}

/// Numbers that are worked on side by side.
const LANES: usize = 8;

vectorised! {
    /// `log sum_j exp(from_j - costs_j / e)`: differences in f64, for costs over e are large, and what is left of them in f32.
    fn log_sum_exp(costs: &[f32], from: &[f64], inverse: f64) -> f64 {
        let mut largest = [f64::NEG_INFINITY; LANES];
        let (costs_chunks, costs_tail) = costs.as_chunks::<LANES>();
        let (from_chunks, from_tail) = from.as_chunks::<LANES>();
        for (costs, from) in costs_chunks.iter().zip(from_chunks) {
            for i in 0..LANES {
                let exponent = from[i] - f64::from(costs[i]) * inverse;
                largest[i] = if exponent > largest[i] { exponent } else { largest[i] };
            }
        }
        for (i, (cost, from)) in costs_tail.iter().zip(from_tail).enumerate() {
            let exponent = from - f64::from(*cost) * inverse;
            largest[i] = if exponent > largest[i] { exponent } else { largest[i] };
        }
        let most = largest.iter().fold(f64::NEG_INFINITY, |most, x| if *x > most { *x } else { most });
        if most == f64::NEG_INFINITY {
            return most;
        }
        let mut sums = [0f32; LANES];
        for (costs, from) in costs_chunks.iter().zip(from_chunks) {
            for i in 0..LANES {
                sums[i] += exp((from[i] - f64::from(costs[i]) * inverse - most) as f32);
            }
        }
        for (i, (cost, from)) in costs_tail.iter().zip(from_tail).enumerate() {
            sums[i] += exp((from - f64::from(*cost) * inverse - most) as f32);
        }
        let sum: f64 = sums.iter().map(|sum| f64::from(*sum)).sum();
        most + sum.ln()
    }

    /// `exp(from_j - costs_j / e - log_sum)`.
    fn shares(costs: &[f32], from: &[f64], inverse: f64, log_sum: f64, shares: &mut [f32]) {
        for ((share, cost), from) in shares.iter_mut().zip(costs).zip(from) {
            *share = exp((from - f64::from(*cost) * inverse - log_sum) as f32);
        }
    }
}
