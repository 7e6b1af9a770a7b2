//! Plans of Fourier transforms, made once by each thread: their sines take longer than a transform.

use std::cell::RefCell;
use std::sync::Arc;

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

thread_local! {
    static PLANNER: RefCell<RealFftPlanner<f32>> = RefCell::new(RealFftPlanner::new());
}

/// From `n` samples to their spectrum.
pub(super) fn forward(n: usize) -> Arc<dyn RealToComplex<f32>> {
    PLANNER.with_borrow_mut(|planner| planner.plan_fft_forward(n))
}

/// From a spectrum to `n` samples, not scaled.
pub(super) fn inverse(n: usize) -> Arc<dyn ComplexToReal<f32>> {
    PLANNER.with_borrow_mut(|planner| planner.plan_fft_inverse(n))
}
