//! `y = x W^T + b`.

use candle_core::Tensor;

use super::Weight;
use crate::Error;
use crate::kernels::{PackedWeight, Precision};
use crate::lora::{FACTORS, GAIN};
use crate::params::{Init, Scope};

/// A linear layer. `weight` is (out, in), as in checkpoints.
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    adapter: Option<Update>,
}

/// What is trained beside a weight: `scale B A`.
struct Update {
    a: Weight, // (rank, in)
    b: Weight, // (out, rank)
    scale: f64,
}

impl Update {
    fn load(scope: &Scope<'_>, n_in: usize, n_out: usize) -> Result<Option<Self>, Error> {
        let Some(lora) = scope.lora() else { return Ok(None) };
        let [a, b] = FACTORS.map(|name| scope.sub(name));
        // They are small, and nothing is gained by rounding them.
        let load = |scope, n_out, n_in, init| Weight::load_in(Precision::F32, scope, n_out, n_in, init);
        let a = load(&a, lora.rank, n_in, Init::Scaled { n_inputs: n_in, gain: GAIN })?;
        // Nothing at first, so that training begins with the model as it is.
        let b = load(&b, n_out, lora.rank, Init::Zeros)?;
        Ok(Some(Self { a, b, scale: lora.scale() }))
    }

    fn add_to(&self, y: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        // Scaled where it is narrow.
        let narrow = (self.a.multiply(x, None)? * self.scale)?; // (.., rank)
        y + self.b.multiply(&narrow, None)?
    }
}

impl Linear {
    /// Loads `weight` and, if asked for, `bias`.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, n_in: usize, n_out: usize, bias: bool) -> Result<Self, Error> {
        Self::load_shaped(scope, &[n_out, n_in], bias, scope.precision(), 1.0)
    }

    /// Loads a layer with a bias that gives nothing where no checkpoint holds it.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load_zeros(scope: &Scope<'_>, n_in: usize, n_out: usize) -> Result<Self, Error> {
        Self::load_shaped(scope, &[n_out, n_in], true, scope.precision(), 0.0)
    }

    /// Loads a convolution that looks at one position as the linear layer that it is: `weight` is (out, in, 1, ..), with a one
    /// for each of `n_axes`.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load_pointwise(
        scope: &Scope<'_>,
        n_in: usize,
        n_out: usize,
        n_axes: usize,
        bias: bool,
    ) -> Result<Self, Error> {
        let shape = [&[n_out, n_in][..], &vec![1; n_axes]].concat();
        Self::load_shaped(scope, &shape, bias, scope.precision(), 1.0)
    }

    /// Loads a layer whose `weight` has the outputs first and then its inputs in any shape. Packed, it is in `precision`; new, what
    /// comes out varies `gain` times as much as what went in.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub(crate) fn load_shaped(
        scope: &Scope<'_>,
        shape: &[usize],
        bias: bool,
        precision: Precision,
        gain: f32,
    ) -> Result<Self, Error> {
        let n_in = shape.iter().skip(1).product();
        let n_out = shape.first().copied().unwrap_or(0);
        let weight = Weight::load_shaped(precision, scope, shape, Init::Scaled { n_inputs: n_in, gain })?;
        let bias = if bias { Some(scope.get("bias", &[n_out], Init::Zeros)?) } else { None };
        Ok(Self { weight, bias, adapter: Update::load(scope, n_in, n_out)? })
    }

    /// A layer that shares another's weight, such as an output projection tied to the embedding.
    pub fn tied(weight: Weight) -> Self {
        Self { weight, bias: None, adapter: None }
    }

    /// The same with a bias of its own.
    #[must_use]
    pub fn with_bias(self, bias: Tensor) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Its weight and bias where it may be computed together with what is around it: packed, and without an update.
    pub(super) fn packed(&self) -> Option<(&PackedWeight, Option<&Tensor>)> {
        let is_trained = self.bias.as_ref().is_some_and(Tensor::track_op);
        match (&self.weight, &self.adapter) {
            (Weight::Packed(weight), None) if !is_trained => Some((weight, self.bias.as_ref())),
            _ => None,
        }
    }

    /// (.., in) to (.., out).
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.weight.multiply(x, self.bias.as_ref())?;
        match &self.adapter {
            Some(adapter) => adapter.add_to(&y, x),
            None => Ok(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::Weights;
    use crate::params::Params;

    fn weights() -> Result<Weights, Error> {
        Weights::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80").as_ref())
    }

    fn fc1(params: &Params) -> Result<Linear, Error> {
        let tensors = weights()?;
        let name = "model.encoder.layers.0.fc1";
        let (_, shape, _) = tensors
            .tensors()
            .find(|(tensor, ..)| *tensor == format!("{name}.weight"))
            .ok_or_else(|| Error::option("fixture", "has no such layer"))?;
        Linear::load(&params.root().sub(name), shape[1], shape[0], true)
    }

    #[test]
    fn a_frozen_layer_is_packed_and_agrees_with_the_trained_one_in_values_and_gradients() -> Result<(), Error>
    {
        let trained = fc1(&Params::trainable(weights()?, &Device::Cpu))?;
        let frozen = fc1(&Params::frozen(weights()?, &Device::Cpu))?;
        assert!(matches!((&trained.weight, &frozen.weight), (Weight::Dense(_), Weight::Packed(_))));
        let (_, n_in) = frozen.weight.dims()?;
        let x = Tensor::arange(0f32, (2 * 3 * n_in) as f32, &Device::Cpu)?.sin()?.reshape((2, 3, n_in))?;
        let x = Var::from_tensor(&x)?;
        let mut results = Vec::new();
        for layer in [&trained, &frozen] {
            let y = layer.forward(x.as_tensor())?;
            let gradients = y.sqr()?.sum_all()?.backward()?;
            let gradient = gradients.get(&x).ok_or_else(|| Error::option("x", "has no gradient"))?;
            results.push([y.flatten_all()?, gradient.flatten_all()?]);
        }
        for (trained, frozen) in results[0].iter().zip(&results[1]) {
            let difference = (trained - frozen)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(difference < 1e-4, "{difference}");
        }
        Ok(())
    }

    #[test]
    fn a_detached_layer_follows_the_live_weight() -> Result<(), Error> {
        let params = Params::seeded(1, &Device::Cpu);
        Linear::load(&params.root(), 3, 2, false)?;
        let detached = Linear::load(&params.detached().root(), 3, 2, false)?;
        params.vars()[0].1.set(&Tensor::new(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::Cpu)?)?;
        let y = detached.forward(&Tensor::ones((1, 3), candle_core::DType::F32, &Device::Cpu)?)?;
        assert_eq!(y.to_vec2::<f32>()?, [[6.0, 15.0]]);
        Ok(())
    }
}
