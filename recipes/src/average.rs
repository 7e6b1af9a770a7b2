//! The moving average of weights, which is often better than the weights themselves.

use candle_core::{Tensor, Var};

/// A moving average of each parameter, or nothing where it is off.
#[derive(Debug)]
pub struct MovingAverage {
    decay: f64,
    /// In the parameters' order; empty when it is off.
    values: Vec<(String, Tensor)>,
}

impl MovingAverage {
    /// An average that begins with the parameters as they are. A decay of 0 is off.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(decay: f64, vars: &[(String, Var)]) -> candle_core::Result<Self> {
        let copy = |(name, var): &(String, Var)| Ok((name.clone(), var.as_detached_tensor().copy()?));
        let values =
            if decay > 0.0 { vars.iter().map(copy).collect::<candle_core::Result<_>>()? } else { Vec::new() };
        Ok(Self { decay, values })
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        !self.values.is_empty()
    }

    /// Moves towards the parameters.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn follow(&mut self, vars: &[(String, Var)]) -> candle_core::Result<()> {
        for ((_, value), (_, var)) in self.values.iter_mut().zip(vars) {
            *value = ((&*value * self.decay)? + (var.as_detached_tensor() * (1.0 - self.decay))?)?;
        }
        Ok(())
    }

    /// Exchanges it with the parameters: what was trained is kept here meanwhile. Twice is nothing.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn swap(&mut self, vars: &[(String, Var)]) -> candle_core::Result<()> {
        for ((_, value), (_, var)) in self.values.iter_mut().zip(vars) {
            let trained = var.as_detached_tensor().copy()?;
            var.set(value)?;
            *value = trained;
        }
        Ok(())
    }

    /// What is kept here, by name.
    pub fn kept(&self) -> &[(String, Tensor)] {
        &self.values
    }

    /// Sets the average of a parameter, as a checkpoint has it.
    pub fn set(&mut self, name: &str, to: &Tensor) {
        if let Some((_, value)) = self.values.iter_mut().find(|(other, _)| other == name) {
            *value = to.clone();
        }
    }
}
