//! What it costs to move each point of a pair of sets to each other one.

use super::{Distance, Transport};
use crate::kernels::gemm::{Matrix, product};
use crate::kernels::transpose::transpose;

/// Up to so many numbers a point, differences are taken one by one; beyond, squares and products are cheaper, and rounding is
/// lost among so many terms: unless a root of it is taken, which makes a thousandth of a millionth.
const MAX_DIRECT_WIDTH: usize = 16;
/// Squares of distances are not taken to be below this where a root follows, whose slope has no end at 0 (geomloss `utils.py`).
const MIN_SQUARE: f64 = 1e-8;
/// Distances up to here are those: they have no slope.
pub(super) const FLAT: f32 = 1.000_1e-4;

/// Costs between all points, and the points around their common middle: transport does not see where that is, and rounding does.
pub(super) struct Costs {
    pub x: Vec<f32>,      // (S, D)
    pub y: Vec<f32>,      // (T, D)
    pub across: Vec<f32>, // (S, T)
    pub back: Vec<f32>,   // (T, S)
    /// Empty unless sets are compared with themselves.
    pub own: [Vec<f32>; 2], // (S, S), (T, T)
    /// The part of `across` that is position.
    positions: Positions,
    /// Diagonal of the box around all points.
    pub diameter: f64,
}

/// A coordinate from 0 to its weight along each set.
#[derive(Clone, Copy)]
struct Positions {
    weight: f64,
    last: [usize; 2],
}

impl Positions {
    /// The square of what lies between place `i` of set `a` and place `j` of set `b`.
    fn square(&self, (a, i): (usize, usize), (b, j): (usize, usize)) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        let at = |set: usize, i: usize| i as f64 / self.last[set] as f64;
        (self.weight * (at(a, i) - at(b, j))).powi(2)
    }
}

impl Costs {
    pub fn new(x: &[f32], y: &[f32], width: usize, transport: &Transport) -> Self {
        let (x, y) = around_middle(x, y, width);
        let last = [&x, &y].map(|points| (points.len() / width.max(1)).saturating_sub(1));
        // A set of one point has no order.
        let weight = if last.contains(&0) { 0.0 } else { transport.position_weight };
        let positions = Positions { weight, last };
        let squares = [squares(&x, width), squares(&y, width)];
        let between = |a: usize, b: usize| {
            let sets = [&x, &y];
            let squared = Squared { from: sets[a], to: sets[b], width, squares: [&squares[a], &squares[b]] };
            squared.costs(transport.distance, |i, j| positions.square((a, i), (b, j)), a == b)
        };
        let across = between(0, 1);
        let mut back = vec![0f32; across.len()];
        transpose(&across, last[0] + 1, &mut back);
        let own = if transport.debiased { [between(0, 0), between(1, 1)] } else { Default::default() };
        let diameter = diameter(&x, &y, width, weight);
        Self { across, back, own, positions, diameter, x, y }
    }

    /// The part of the cost between point `i` of the first set and `j` of the second that is features, and that which is position.
    pub fn parts(&self, distance: Distance, i: usize, j: usize) -> (f64, f64) {
        let m = self.positions.last[1] + 1;
        let (whole, square) = (f64::from(self.across[i * m + j]), self.positions.square((0, i), (1, j)));
        match distance {
            Distance::HalfSquared => (whole - square / 2.0, square / 2.0),
            // A root has no parts; the share of the square that is position.
            Distance::Euclidean => {
                let position = whole * (square / (whole * whole).max(MIN_SQUARE)).min(1.0);
                (whole - position, position)
            }
        }
    }
}

/// Squares of the distances between two sets.
struct Squared<'a> {
    from: &'a [f32],
    to: &'a [f32],
    width: usize,
    squares: [&'a [f64]; 2],
}

impl Squared<'_> {
    fn costs(&self, distance: Distance, position: impl Fn(usize, usize) -> f64, is_own: bool) -> Vec<f32> {
        let (n, m) = (self.squares[0].len(), self.squares[1].len());
        let has_root = distance == Distance::Euclidean;
        let products = (self.width > MAX_DIRECT_WIDTH && !has_root).then(|| {
            product(Matrix::new(self.from, n, self.width), Matrix::new(self.to, m, self.width).t(), None)
        });
        let mut costs = Vec::with_capacity(n * m);
        for i in 0..n {
            for j in 0..m {
                let square = match &products {
                    // Rounding must not keep a point from itself.
                    _ if is_own && i == j => 0.0,
                    Some(products) => {
                        self.squares[0][i] + self.squares[1][j] - 2.0 * f64::from(products[i * m + j])
                    }
                    None => self.difference(i, j),
                };
                let square = square.max(0.0) + position(i, j);
                costs.push(match distance {
                    Distance::HalfSquared => (square / 2.0) as f32,
                    Distance::Euclidean => square.max(MIN_SQUARE).sqrt() as f32,
                });
            }
        }
        costs
    }

    fn difference(&self, i: usize, j: usize) -> f64 {
        let point = |points: &'_ [f32], i: usize, d: usize| f64::from(points[i * self.width + d]);
        (0..self.width).map(|d| (point(self.from, i, d) - point(self.to, j, d)).powi(2)).sum()
    }
}

fn squares(points: &[f32], width: usize) -> Vec<f64> {
    let square = |point: &[f32]| point.iter().map(|x| f64::from(*x).powi(2)).sum();
    points.chunks_exact(width.max(1)).map(square).collect()
}

fn around_middle(x: &[f32], y: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let mut middle = vec![0f64; width];
    let n = (x.len() + y.len()) / width.max(1);
    for point in x.chunks_exact(width.max(1)).chain(y.chunks_exact(width.max(1))) {
        middle.iter_mut().zip(point).for_each(|(middle, x)| *middle += f64::from(*x));
    }
    middle.iter_mut().for_each(|middle| *middle /= n.max(1) as f64);
    let moved = |points: &[f32]| {
        let rows = points.chunks_exact(width.max(1));
        rows.flat_map(|point| point.iter().zip(&middle).map(|(x, middle)| (f64::from(*x) - middle) as f32))
            .collect()
    };
    (moved(x), moved(y))
}

fn diameter(x: &[f32], y: &[f32], width: usize, position_weight: f64) -> f64 {
    let mut sides = vec![(f32::INFINITY, f32::NEG_INFINITY); width];
    for point in x.chunks_exact(width.max(1)).chain(y.chunks_exact(width.max(1))) {
        for ((least, most), x) in sides.iter_mut().zip(point) {
            (*least, *most) = (least.min(*x), most.max(*x));
        }
    }
    let square: f64 = sides.iter().map(|(least, most)| f64::from(most - least).powi(2)).sum();
    (square + position_weight.powi(2)).sqrt()
}
