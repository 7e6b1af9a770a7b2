//! Backward passes that add up each parameter's gradient in one place.
//!
//! candle gives every use of a parameter a gradient of its own, makes zeros and adds it to them: three copies, for a tied
//! embedding of 50 000 ids six. While [`backward`] runs, layers add to one tensor in place instead. It is also the way out
//! for gradients of what is computed again (`checkpoint`).

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId};

use super::storage::{on_cpu, tensor, with_floats_mut};
use crate::kernels::zeros;

thread_local! {
    /// Of the pass that runs on this thread.
    static GATHERED: RefCell<Option<Gathered>> = const { RefCell::new(None) };
}

/// Gradients of parameters, in the order in which they were found.
type Gathered = Vec<(TensorId, Tensor)>;

/// The gradients of a scalar by all that it was computed from. Like `Tensor::backward`, with less memory.
///
/// # Errors
/// What an operation's backward pass refuses.
pub fn backward(loss: &Tensor) -> candle_core::Result<GradStore> {
    let pass = Pass::begin();
    let mut gradients = loss.backward()?;
    for (id, gradient) in pass.end() {
        let sum = match gradients.get_id(id) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        gradients.insert_id(id, sum);
    }
    Ok(gradients)
}

/// While it lives, gradients are gathered on this thread.
struct Pass {
    outer: Option<Gathered>,
}

impl Pass {
    fn begin() -> Self {
        Self { outer: GATHERED.replace(Some(Gathered::new())) }
    }

    fn end(self) -> Gathered {
        GATHERED.take().unwrap_or_default()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        GATHERED.set(self.outer.take());
    }
}

/// Whether gradients are gathered on this thread.
pub(super) fn is_gathering() -> bool {
    GATHERED.with_borrow(Option::is_some)
}

/// Adds to what was gathered of `id`.
pub(super) fn gather(id: TensorId, gradient: &Tensor) -> candle_core::Result<()> {
    let sum = match known(id).flatten() {
        Some(sum) => (sum + gradient)?,
        None => gradient.clone(),
    };
    keep(id, sum);
    Ok(())
}

/// The gradient of a parameter on the CPU for a custom op to return, or none when nobody wants it or it was gathered. `compute`
/// adds it to what it is given.
pub(super) fn gradient_of(
    parameter: &Tensor,
    compute: impl Fn(&mut [f32]),
) -> candle_core::Result<Option<Tensor>> {
    let fresh = || {
        let mut values = zeros(parameter.elem_count());
        compute(&mut values);
        values
    };
    gradient_from(parameter, fresh, &compute)
}

/// The same of a gradient that was found beside others.
pub(super) fn gradient_found(parameter: &Tensor, found: &[f32]) -> candle_core::Result<Option<Tensor>> {
    gradient_of(parameter, |sums| sums.iter_mut().zip(found).for_each(|(sum, d)| *sum += d))
}

/// The same where a first gradient is computed in another way, `fresh`, than it is added to a known one.
pub(super) fn gradient_from(
    parameter: &Tensor,
    fresh: impl FnOnce() -> Vec<f32>,
    add: impl FnOnce(&mut [f32]),
) -> candle_core::Result<Option<Tensor>> {
    if !parameter.track_op() {
        return Ok(None);
    }
    let id = parameter.id();
    let known = if parameter.is_variable() { known(id) } else { None };
    if let Some(Some(sum)) = &known
        && on_cpu(&[sum])
        && sum.is_contiguous()
    {
        with_floats_mut(sum, add)?;
        return Ok(None);
    }
    let gradient = tensor(fresh(), parameter.shape())?;
    if known.is_none() {
        return Ok(Some(gradient));
    }
    gather(id, &gradient)?;
    Ok(None)
}

/// What was gathered of `id`; `None` when nothing is gathered on this thread.
fn known(id: TensorId) -> Option<Option<Tensor>> {
    GATHERED.with_borrow(|gathered| {
        let gathered = gathered.as_ref()?;
        Some(gathered.iter().find(|(known, _)| *known == id).map(|(_, sum)| sum.clone()))
    })
}

fn keep(id: TensorId, sum: Tensor) {
    GATHERED.with_borrow_mut(|gathered| {
        let Some(gathered) = gathered else { return };
        match gathered.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => *known = sum,
            None => gathered.push((id, sum)),
        }
    });
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, noise};
    use crate::nn::{Embedding, LayerNorm, Linear};
    use crate::params::Params;

    /// A table that is looked up, multiplied with and used as it is.
    fn loss(params: &Params, x: &Tensor) -> Result<Tensor, crate::Error> {
        let root = params.root();
        let table = Embedding::load(&root, 9, 6)?;
        let norm = LayerNorm::load(&root.sub("norm"), 6, 1e-5)?;
        let linear = Linear::load(&root.sub("linear"), 6, 6, true)?;
        let ids = Tensor::new(&[3u32, 0, 8, 3], x.device())?;
        let y = (table.forward(&ids)? + linear.forward(&norm.forward(x)?)?)?;
        let y = linear.forward(&norm.forward(&y.gelu_erf()?)?)?;
        let scores = table.tied().forward(&y)?;
        let used = root.get("weight", &[9, 6], crate::params::Init::Zeros)?.sqr()?.sum_all()?;
        Ok(((scores * noise((4, 9), 7)?)?.sum_all()? + used)?)
    }

    #[test]
    fn gathered_gradients_are_candles_and_nothing_is_left_behind() -> Result<(), crate::Error> {
        let params = Params::seeded(1, &candle_core::Device::Cpu);
        let x = Var::from_tensor(&noise((4, 6), 2)?)?;
        let loss = loss(&params, &x)?;
        let theirs = loss.backward()?;
        let ours = backward(&loss)?;
        let again = backward(&loss)?;
        assert!(!is_gathering());
        let vars = params.vars();
        assert_eq!(vars.len(), 5);
        for var in vars.iter().map(|(_, var)| var).chain([&x]) {
            let (Some(ours), Some(again), Some(theirs)) = (ours.get(var), again.get(var), theirs.get(var))
            else {
                return Err(crate::Error::option("a parameter", "has no gradient"));
            };
            assert_close(ours, theirs, 1e-5)?;
            assert_close(ours, again, 0.0)?;
        }
        Ok(())
    }
}
