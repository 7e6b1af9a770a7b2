//! Scores to weights of attention.

use super::super::{N_COLUMNS, Sums};
use super::{Bf16Set, f32_to_bf16};

/// Partial results of a row, side by side.
pub(super) type Lanes = [f32; 16];

impl Bf16Set {
    /// The largest scores of each row, so far.
    pub(super) fn running_max(self, scores: &[Sums<f32>], largest: &mut [Lanes]) {
        match self {
            // SAFETY: `available`, where every value comes from, has seen AVX-512 on this processor: tiles are nowhere without it.
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512Bf16 => unsafe { x86::running_max(scores, largest) },
            Self::Portable => running_max(scores, largest),
        }
    }

    /// Scores to powers of two of their distance from the row's largest, of at most 0, in bf16; and adds them up before they are
    /// rounded. The weights of a row begin every `step` of `weights`.
    pub(super) fn softmax_weights(
        self,
        scores: &[Sums<f32>],
        largest: &[f32],
        sums: &mut [Lanes],
        weights: &mut [u16],
        step: usize,
    ) {
        assert!(
            scores.len() <= largest.len()
                && scores.len() <= sums.len()
                && (scores.is_empty() || weights.len() >= (scores.len() - 1) * step + N_COLUMNS),
            "{} rows of scores, {} weights every {step}",
            scores.len(),
            weights.len()
        );
        match self {
            // SAFETY: as above; the assertion has seen enough of all.
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512Bf16 => unsafe {
                x86::softmax_weights(scores, largest, sums, weights, step);
            },
            Self::Portable => softmax_weights(scores, largest, sums, weights, step),
        }
    }
}

fn running_max(scores: &[Sums<f32>], largest: &mut [Lanes]) {
    for (scores, lanes) in scores.iter().zip(largest) {
        for half in scores.0.as_chunks().0 {
            *lanes = std::array::from_fn(|i| lanes[i].max(Lanes::clone(half)[i]));
        }
    }
}

fn softmax_weights(
    scores: &[Sums<f32>],
    largest: &[f32],
    sums: &mut [Lanes],
    weights: &mut [u16],
    step: usize,
) {
    for (i, scores) in scores.iter().enumerate() {
        for (j, score) in scores.0.iter().enumerate() {
            let power = (score - largest[i]).exp2();
            sums[i][j % 16] += power;
            weights[i * step + j] = f32_to_bf16(power);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::super::Sums;
    use super::Lanes;

    #[target_feature(enable = "avx512f")]
    pub(super) fn running_max(scores: &[Sums<f32>], largest: &mut [Lanes]) {
        for (scores, lanes) in scores.iter().zip(largest) {
            let from = scores.0.as_ptr();
            // SAFETY: 32 numbers on cache lines of their own, and 16 wherever they are.
            unsafe {
                let both = _mm512_max_ps(_mm512_load_ps(from), _mm512_load_ps(from.add(16)));
                _mm512_storeu_ps(lanes.as_mut_ptr(), _mm512_max_ps(_mm512_loadu_ps(lanes.as_ptr()), both));
            }
        }
    }

    /// # Safety
    /// `largest` and `sums` are as many as `scores`, and `weights` has 32 numbers every `step` for each.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn softmax_weights(
        scores: &[Sums<f32>],
        largest: &[f32],
        sums: &mut [Lanes],
        weights: &mut [u16],
        step: usize,
    ) {
        for (i, scores) in scores.iter().enumerate() {
            let from = scores.0.as_ptr();
            // SAFETY: the caller has seen row `i` of all of them.
            unsafe {
                let largest = _mm512_set1_ps(*largest.as_ptr().add(i));
                let first = power_of_two(_mm512_sub_ps(_mm512_load_ps(from), largest));
                let second = power_of_two(_mm512_sub_ps(_mm512_load_ps(from.add(16)), largest));
                let lanes = sums.as_mut_ptr().add(i).cast::<f32>();
                _mm512_storeu_ps(lanes, _mm512_add_ps(_mm512_loadu_ps(lanes), _mm512_add_ps(first, second)));
                let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                _mm512_storeu_si512(weights.as_mut_ptr().add(i * step).cast(), halves);
            }
        }
    }

    /// `2^x` for x of at most 0, to 6e-5 of it: rounding to bf16 takes away up to 4e-3.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn power_of_two(x: __m512) -> __m512 {
        // Below it the result is zero. What is no number stays so as the second operand.
        let x = _mm512_max_ps(_mm512_set1_ps(-150.0), x);
        let whole = _mm512_roundscale_ps::<0>(x);
        let rest = _mm512_sub_ps(x, whole);
        let mut power = _mm512_set1_ps(9.618_129e-3);
        for coefficient in [5.550_411e-2, 2.402_265e-1, 6.931_472e-1, 1.0] {
            power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(coefficient));
        }
        _mm512_scalef_ps(power, whole)
    }
}
