//! Exponential and error function, and sums, in plain arithmetic that compilers turn into vector instructions: no branches, no
//! calls, no fused multiply-add, one order of addition. So every instruction set gives the same bits.

/// Partial results that are kept side by side.
pub(super) const LANES: usize = 16;

/// Below it `exp` is 0 here: results under the smallest normal number are not worth their cost.
const MIN_EXPONENT: f32 = -87.0;
const MAX_EXPONENT: f32 = 88.7;

/// `e^x`, within two units in the last place; 0 below -87. The polynomial is Cephes' (`expf.c`).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    let rest = x - power * (355.0 / 512.0) - power * -2.121_944_4e-4; // ln 2 in two parts
    let mut polynomial = 1.987_569_1e-4 * rest + 1.398_199_9e-3;
    polynomial = polynomial * rest + 8.333_452e-3;
    polynomial = polynomial * rest + 4.166_579_6e-2;
    polynomial = polynomial * rest + 1.666_666_5e-1;
    polynomial = polynomial * rest + 0.5;
    let mantissa = polynomial * rest * rest + rest + 1.0;
    let scaled = f32::from_bits(mantissa.to_bits().wrapping_add(rounded.to_bits() << 23));
    let result = if x < MIN_EXPONENT { 0.0 } else { scaled };
    let result = if x > MAX_EXPONENT { f32::INFINITY } else { result };
    if x.is_nan() { x } else { result }
}

/// The error function, within 5e-7. The rational function is Eigen's (`MathFunctionsImpl.h: generic_fast_erf_float`).
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let square = x * x;
    let mut above = -2.726_142_3e-10 * square + 2.770_681_4e-8;
    above = above * square - 2.101_024e-6;
    above = above * square - 5.692_506_5e-5;
    above = above * square - 7.349_906e-4;
    above = above * square - 2.954_6e-3;
    above = above * square - 1.609_603_3e-2;
    let mut below = -1.456_607_2e-5 * square - 2.133_740_6e-4;
    below = below * square - 1.682_827e-3;
    below = below * square - 7.373_329e-3;
    below = below * square - 1.426_473_9e-2;
    x * above / below
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The normal distribution up to x.
#[inline(always)]
pub(super) fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// Lanes to one number, halves onto halves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// Sum of `term(a)`.
#[inline(always)]
pub(super) fn sum(a: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, tail) = a.as_chunks::<LANES>();
    for a in chunks {
        for (lane, a) in lanes.iter_mut().zip(a) {
            *lane += term(*a);
        }
    }
    let sum = fold(lanes, |a, b| a + b);
    tail.iter().fold(sum, |sum, a| sum + term(*a))
}

/// Sum of `term(a, b)`.
#[inline(always)]
pub(super) fn sum2<A: Copy, B: Copy>(a: &[A], b: &[B], term: impl Fn(A, B) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a_chunks, a_tail), (b_chunks, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(*a, *b);
        }
    }
    let sum = fold(lanes, |a, b| a + b);
    a_tail.iter().zip(b_tail).fold(sum, |sum, (a, b)| sum + term(*a, *b))
}

/// The largest, or minus infinity; what is not a number is passed over.
#[inline(always)]
pub(super) fn max(a: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = a.as_chunks::<LANES>();
    for a in chunks {
        for (lane, a) in lanes.iter_mut().zip(a) {
            *lane = larger(*lane, *a);
        }
    }
    tail.iter().fold(fold(lanes, larger), |max, a| larger(max, *a))
}

/// A number without its sign, as bits: infinities and what is no number are above all others.
#[inline(always)]
pub(super) fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// Softmax of a row, in place; one of minus infinity alone gives no numbers.
#[inline(always)]
pub(super) fn softmax_row(row: &mut [f32]) {
    let max = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    let scale = 1.0 / sum(row, |x| x);
    for x in row {
        *x *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exact_to_two_units() {
        for i in -86_999..88_700 {
            let x = i as f32 * 1e-3;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.4e-7, "exp({x}) is off by {error}");
        }
        assert_eq!((exp(f32::NEG_INFINITY), exp(-1e30), exp(0.0)), (0.0, 0.0, 1.0));
        assert_eq!((exp(f32::INFINITY), exp(100.0)), (f32::INFINITY, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan() && exp(-f32::NAN).is_nan());
    }

    #[test]
    fn the_error_function_is_candles() {
        for i in -60_000..=60_000 {
            let x = i as f32 * 1e-4;
            let error = (f64::from(erf(x)) - candle_core::cpu::erf::erf_f64(f64::from(x))).abs();
            assert!(error < 5e-7, "erf({x}) is off by {error}");
        }
        assert!(erf(f32::NAN).is_nan());
        assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (erf(4.0), -erf(4.0)));
    }

    #[test]
    fn sums_and_maxima_see_every_value() {
        for n in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(sum(&a, |a| a), (n * (n + 1) / 2) as f32);
            assert_eq!(sum2(&a, &a, |a, b| a - b + 1.0), n as f32);
            assert_eq!(max(&a), if n == 0 { f32::NEG_INFINITY } else { n as f32 });
        }
    }
}
