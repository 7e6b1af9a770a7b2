//! Gradient checkpointing (Chen et al., arXiv 1604.06174): what a part of a model computes on its way is not kept for the
//! backward pass but computed again there. Costs a forward pass, saves the memory of all parts but one.

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, MetalStorage, Shape, Storage, Tensor, Var,
};

use super::backward::{gather, is_gathering};

/// `f` of one or two inputs, computed now without keeping what it computes on its way, and again in the backward pass, which
/// must be [`backward`](super::backward()). `f` must give the same result both times; the parameters that it uses get their
/// gradients as if it had been called directly. An input that `f` ignores gets zeros. Weights of layers are no inputs: they
/// belong to `f`.
///
/// # Errors
/// What `f` refuses, and any other number of inputs.
pub fn checkpoint<F>(f: F, inputs: &[&Tensor]) -> candle_core::Result<Tensor>
where
    F: Fn(&[Tensor]) -> candle_core::Result<Tensor> + Send + Sync + 'static,
{
    if !inputs.iter().any(|x| x.track_op()) {
        // An operation on what tracks no gradients has no backward pass, and parameters of `f` may need one.
        let inputs: Vec<Tensor> = inputs.iter().copied().cloned().collect();
        return f(&inputs);
    }
    let detached: Vec<Tensor> = inputs.iter().map(|x| x.detach()).collect();
    let result = f(&detached)?.detach();
    let is_whole = result.is_contiguous() && result.layout().start_offset() == 0;
    let result = if is_whole { result } else { result.force_contiguous()? };
    let segment = Segment { f, result: Mutex::new(Some(result)) };
    match inputs {
        [x] => x.apply_op1(segment),
        [x, y] => x.apply_op2(y, segment),
        _ => candle_core::bail!("a checkpoint of {} inputs, not one or two", inputs.len()),
    }
}

struct Segment<F> {
    f: F,
    /// What the operation's forward pass gives, once: `f` takes tensors, which operations do not see.
    result: Mutex<Option<Tensor>>,
}

impl<F: Fn(&[Tensor]) -> candle_core::Result<Tensor>> Segment<F> {
    /// Calls `copy` with what the result is stored in.
    fn result<S>(
        &self,
        copy: impl FnOnce(&Storage, &Layout) -> Option<candle_core::Result<S>>,
    ) -> candle_core::Result<(S, Shape)> {
        let Some(result) = self.result.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            candle_core::bail!("a checkpoint gives its result once")
        };
        let (storage, layout) = result.storage_and_layout();
        match copy(&storage, layout) {
            Some(copy) => Ok((copy?, result.shape().clone())),
            None => candle_core::bail!("a checkpoint whose result is on another device than its inputs"),
        }
    }

    /// The inputs' gradients, in their order; those of parameters are gathered.
    fn backward<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        gradient: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; N]> {
        if !is_gathering() {
            candle_core::bail!(
                "a checkpoint needs nn::backward: the gradients of its parameters would be lost"
            )
        }
        let mut vars = [const { None }; N];
        let mut tensors = Vec::with_capacity(N);
        for (x, var) in inputs.iter().zip(&mut vars) {
            if x.track_op() {
                let leaf = Var::from_tensor(&x.detach())?;
                tensors.push(leaf.as_tensor().clone());
                *var = Some(leaf);
            } else {
                tensors.push((*x).clone());
            }
        }
        let result = (self.f)(&tensors)?;
        let mut found = (&result * gradient)?.sum_all()?.backward()?;
        let mut gradients = [const { None }; N];
        for ((x, var), gradient) in inputs.iter().zip(&vars).zip(&mut gradients) {
            let Some(var) = var else { continue };
            *gradient = Some(match found.remove(var.as_tensor()) {
                Some(gradient) => gradient,
                // candle panics without a gradient of what is tracked.
                None => x.zeros_like()?,
            });
        }
        for node in result.sorted_nodes() {
            if let Some(gradient) = found.remove(node).filter(|_| node.is_variable()) {
                gather(node.id(), &gradient)?;
            }
        }
        Ok(gradients)
    }
}

/// The forward passes are the same for every number of inputs.
macro_rules! forward {
    ($($argument:ident: $layout:ident),*) => {
        fn name(&self) -> &'static str {
            "checkpoint"
        }

        fn cpu_fwd(&self, $($argument: &CpuStorage, $layout: &Layout),*) -> candle_core::Result<(CpuStorage, Shape)> {
            self.result(|storage, layout| match storage {
                Storage::Cpu(storage) => Some(storage.try_clone(layout)),
                _ => None,
            })
        }

        fn cuda_fwd(&self, $($argument: &CudaStorage, $layout: &Layout),*) -> candle_core::Result<(CudaStorage, Shape)> {
            self.result(|storage, layout| match storage {
                Storage::Cuda(storage) => Some(storage.try_clone(layout)),
                _ => None,
            })
        }

        fn metal_fwd(&self, $($argument: &MetalStorage, $layout: &Layout),*) -> candle_core::Result<(MetalStorage, Shape)> {
            self.result(|storage, layout| match storage {
                Storage::Metal(storage) => Some(storage.try_clone(layout)),
                _ => None,
            })
        }
    };
}

impl<F: Fn(&[Tensor]) -> candle_core::Result<Tensor>> CustomOp1 for Segment<F> {
    forward!(_x: _layout);

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let [dx] = self.backward([x], gradient)?;
        Ok(dx)
    }
}

impl<F: Fn(&[Tensor]) -> candle_core::Result<Tensor>> CustomOp2 for Segment<F> {
    forward!(_x: _x_layout, _y: _y_layout);

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dy] = self.backward([x, y], gradient)?;
        Ok((dx, dy))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{Device, IndexOp};

    use super::*;
    use crate::Error;
    use crate::nn::test_support::{assert_close, noise};
    use crate::nn::{LayerNorm, Linear, backward};
    use crate::params::{Init, Params};

    struct Block {
        norm: LayerNorm,
        linear: Linear,
        shift: Tensor,
    }

    impl Block {
        fn load(params: &Params) -> Result<Arc<Self>, Error> {
            let root = params.root();
            Ok(Arc::new(Self {
                norm: LayerNorm::load(&root.sub("norm"), 6, 1e-5)?,
                linear: Linear::load(&root.sub("linear"), 6, 6, true)?,
                // Used by candle's own operations.
                shift: root.get("shift", &[6], Init::Normal { std: 1.0 })?,
            }))
        }

        fn forward(&self, x: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
            (x + self.linear.forward(&self.norm.forward(x)?)?.broadcast_mul(&self.shift)?)? * y
        }
    }

    /// The block twice, so that its parameters are used by two segments and directly.
    fn loss(block: &Arc<Block>, x: &Tensor, y: &Tensor, keeps: bool) -> candle_core::Result<Tensor> {
        let once = |x: &Tensor| {
            if keeps {
                return block.forward(x, y);
            }
            let block = block.clone();
            checkpoint(move |inputs| block.forward(&inputs[0], &inputs[1]), &[x, y])
        };
        let z = block.forward(&once(&once(x)?)?, y)?;
        (z * noise((2, 3, 6), 9)?)?.sum_all()
    }

    #[test]
    fn losses_are_the_same_to_the_bit_and_gradients_nearly() -> Result<(), Error> {
        let params = Params::seeded(3, &Device::Cpu);
        let block = Block::load(&params)?;
        let x = Var::from_tensor(&noise((2, 3, 6), 1)?)?;
        let y = Var::from_tensor(&noise((2, 3, 6), 2)?)?;
        for y in [y.as_tensor().clone(), y.as_detached_tensor()] {
            let (kept, again) = (loss(&block, &x, &y, true)?, loss(&block, &x, &y, false)?);
            assert_eq!(kept.to_scalar::<f32>()?, again.to_scalar::<f32>()?);
            assert!(again.backward().is_err(), "without a place for the parameters' gradients");
            let (kept, again) = (kept.backward()?, backward(&again)?);
            let vars = params.vars();
            let tensors = vars.iter().map(|(_, var)| var.as_tensor()).chain([x.as_tensor(), &y]);
            for tensor in tensors.filter(|tensor| tensor.is_variable()) {
                let (Some(kept), Some(again)) = (kept.get(tensor), again.get(tensor)) else {
                    return Err(Error::option("a parameter", "has no gradient"));
                };
                assert_close(kept, again, 1e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn inputs_without_gradients_and_results_that_are_parts_are_taken() -> Result<(), Error> {
        let params = Params::seeded(3, &Device::Cpu);
        let linear = Arc::new(Linear::load(&params.root(), 6, 6, true)?);
        let first = {
            let linear = linear.clone();
            move |inputs: &[Tensor]| linear.forward(&inputs[0])?.i((.., 1, 2..5))
        };
        let x = noise((2, 3, 6), 1)?;
        let plain = checkpoint(first.clone(), &[&x])?;
        let tracked = Var::from_tensor(&x)?;
        let again = checkpoint(first, &[&tracked])?;
        assert_eq!(plain.to_vec2::<f32>()?, again.to_vec2::<f32>()?);
        for y in [plain, again] {
            let gradients = backward(&y.sqr()?.sum_all()?)?;
            assert!(params.vars().iter().all(|(_, var)| gradients.get(var).is_some()));
        }
        assert!(checkpoint(|inputs| Ok(inputs[0].clone()), &[&tracked, &tracked, &tracked]).is_err());
        Ok(())
    }

    #[test]
    fn an_input_that_is_ignored_has_zeros_for_a_gradient() -> Result<(), Error> {
        let x = Var::from_tensor(&noise((2, 3), 1)?)?;
        let y = Var::from_tensor(&noise((2, 3), 2)?)?;
        // Computed itself: candle asks for its gradient on the way to that of `y`.
        let computed = y.sqr()?;
        let z = checkpoint(|inputs| inputs[0].sqr(), &[&x, &computed])?;
        let gradients = backward(&z.sum_all()?)?;
        let (Some(dx), Some(dy)) = (gradients.get(&x), gradients.get(&y)) else {
            return Err(Error::option("an input", "has no gradient"));
        };
        assert_close(dx, &(x.as_tensor() * 2.0)?, 1e-6)?;
        assert_close(dy, &y.zeros_like()?, 0.0)?;
        Ok(())
    }
}
