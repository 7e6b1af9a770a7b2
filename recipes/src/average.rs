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

    /// Moves towards the parameters after their `n`-th update: faster at first, or it would be of what nobody trained for as long as a decay
    /// close to 1 remembers (TensorFlow, `tf.train.ExponentialMovingAverage`, `num_updates`).
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn follow(&mut self, vars: &[(String, Var)], n: u64) -> candle_core::Result<()> {
        let decay = self.decay.min((1 + n) as f64 / (10 + n) as f64);
        for ((_, value), (_, var)) in self.values.iter_mut().zip(vars) {
            *value = ((&*value * decay)? + (var.as_detached_tensor() * (1.0 - decay))?)?;
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn vars(values: &[f32]) -> candle_core::Result<Vec<(String, Var)>> {
        let var = |(index, value): (usize, &f32)| Ok((index.to_string(), Var::new(&[*value], &Device::Cpu)?));
        values.iter().enumerate().map(var).collect()
    }

    fn set(vars: &[(String, Var)], values: &[f32]) -> candle_core::Result<()> {
        vars.iter()
            .zip(values)
            .try_for_each(|((_, var), value)| var.set(&Tensor::new(&[*value], &Device::Cpu)?))
    }

    fn of_vars(vars: &[(String, Var)]) -> Vec<f32> {
        vars.iter().flat_map(|(_, var)| var.to_vec1().expect("numbers")).collect()
    }

    fn of_average(average: &MovingAverage) -> Vec<f32> {
        average.kept().iter().flat_map(|(_, value)| value.to_vec1().expect("numbers")).collect()
    }

    #[test]
    fn it_moves_by_its_share() -> candle_core::Result<()> {
        let vars = vars(&[1.0, -2.0])?;
        let mut average = MovingAverage::new(0.75, &vars)?;
        assert_eq!(of_average(&average), [1.0, -2.0], "it begins where they are");
        // Faster at first: by 1 - 2 / 11, and by 1 - 0.75 at last.
        for (n, values, expected) in
            [(1, [12.0, 9.0], [10.0, 7.0]), (26, [14.0, 11.0], [11.0, 8.0]), (99, [-1.0, 4.0], [8.0, 7.0])]
        {
            set(&vars, &values)?;
            average.follow(&vars, n)?;
            assert_eq!(of_average(&average), expected);
            assert_eq!(of_vars(&vars), values, "they stay");
        }
        Ok(())
    }

    #[test]
    fn exchanged_twice_all_is_as_before() -> candle_core::Result<()> {
        let vars = vars(&[1.0, -2.0])?;
        let mut average = MovingAverage::new(0.75, &vars)?;
        set(&vars, &[0.1, 0.3])?;
        average.swap(&vars)?;
        assert_eq!((of_vars(&vars), of_average(&average)), (vec![1.0, -2.0], vec![0.1, 0.3]));
        average.swap(&vars)?;
        assert_eq!((of_vars(&vars), of_average(&average)), (vec![0.1, 0.3], vec![1.0, -2.0]));
        Ok(())
    }

    #[test]
    fn without_decay_there_is_none() -> candle_core::Result<()> {
        let vars = vars(&[1.0])?;
        let mut average = MovingAverage::new(0.0, &vars)?;
        set(&vars, &[3.0])?;
        average.follow(&vars, 1)?;
        average.swap(&vars)?;
        assert!(!average.is_on() && average.kept().is_empty());
        assert_eq!(of_vars(&vars), [3.0]);
        Ok(())
    }
}
