//! What the layers' tests compare with.

use std::cell::Cell;

use candle_core::{Device, Shape, Tensor, Var};

use crate::kernels;

thread_local! {
    static IS_COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Runs everything in plain tensor operations, as on a device that has no kernels: in a pool of one thread, so that what is
/// divided among threads stays on it.
pub fn composed<T: Send>(run: impl FnOnce() -> T + Send) -> candle_core::Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(candle_core::Error::wrap)?;
    Ok(pool.install(|| {
        IS_COMPOSED.set(true);
        run()
    }))
}

pub fn is_composed() -> bool {
    IS_COMPOSED.get()
}

/// Numbers between -1 and 1 without a pattern.
pub fn noise(shape: impl Into<Shape>, seed: u32) -> candle_core::Result<Tensor> {
    let shape = shape.into();
    Tensor::from_vec(kernels::test_support::noise(shape.elem_count(), seed), shape, &Device::Cpu)
}

/// Gradients of the sum of `y` times fixed numbers without a pattern.
pub fn gradients<const N: usize>(y: &Tensor, vars: &[&Var; N]) -> candle_core::Result<[Option<Tensor>; N]> {
    let store = (y * noise(y.shape(), 99)?)?.sum_all()?.backward()?;
    Ok(vars.map(|var| store.get(var).cloned()))
}

/// Fails where an element of `a` is off by more than `tolerance`.
#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f32) -> candle_core::Result<()> {
    assert_eq!(a.dims(), b.dims());
    if a.elem_count() > 0 {
        let worst = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(worst <= tolerance, "off by {worst}, more than {tolerance}");
    }
    Ok(())
}

/// A loss, and its gradient in `logits` where it counts 0.7 in what is minimised.
pub(crate) fn loss_and_gradient(loss: &Tensor, logits: &Var) -> candle_core::Result<(f32, Tensor)> {
    let gradients = (loss * 0.7)?.backward()?;
    let Some(gradient) = gradients.get(logits) else { candle_core::bail!("no gradient") };
    Ok((loss.to_scalar()?, gradient.clone()))
}
