//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) in one pass over parameters, gradients and both moments.

use rayon::prelude::*;

use super::instruction_set::{InstructionSet, vectorised};

/// Numbers that a thread takes at once.
const CHUNK: usize = 1 << 14;

/// What a step is made with, under torch's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// The step's size.
    pub learning_rate: f64,
    /// Share that the first moment keeps.
    pub beta1: f64,
    /// Share that the second moment keeps.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of the learning rate by which parameters shrink, apart from the gradient (decoupled).
    pub weight_decay: f64,
    /// Steps made with these moments, this one included: 1 for the first.
    pub step: u64,
    /// What gradients are multiplied by first: the clipping factor over the batch's weight.
    pub gradient_scale: f64,
}

impl Default for AdamW {
    /// torch's defaults, for the first step.
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            step: 1,
            gradient_scale: 1.0,
        }
    }
}

/// The same as numbers that a vector multiplies with.
#[derive(Clone, Copy)]
struct Factors {
    gradient: f32,
    decay: f32,
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    step_size: f32,
    root: f32,
    eps: f32,
}

impl AdamW {
    fn factors(&self) -> Factors {
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        Factors {
            gradient: self.gradient_scale as f32,
            decay: (1.0 - self.learning_rate * self.weight_decay) as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            rest1: (1.0 - self.beta1) as f32,
            rest2: (1.0 - self.beta2) as f32,
            step_size: (self.learning_rate / correction(self.beta1)) as f32,
            root: (1.0 / correction(self.beta2).sqrt()) as f32,
            eps: self.eps as f32,
        }
    }

    /// Moves parameters and both moments by one step.
    ///
    /// # Panics
    /// When the slices are not equally long.
    pub fn update(&self, parameters: &mut [f32], gradients: &[f32], first: &mut [f32], second: &mut [f32]) {
        assert!(
            [gradients.len(), first.len(), second.len()] == [parameters.len(); 3],
            "AdamW: {} parameters, {} gradients, {} and {} moments",
            parameters.len(),
            gradients.len(),
            first.len(),
            second.len()
        );
        let (set, factors) = (InstructionSet::best(), self.factors());
        let chunks = parameters.par_chunks_mut(CHUNK).zip(gradients.par_chunks(CHUNK));
        let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
        chunks.zip(moments).for_each(|((parameters, gradients), (first, second))| {
            update(set, parameters, gradients, first, second, factors);
        });
    }
}

/// Sum of squares in f64. Blocks of a fixed length are summed and then added in their order: the number of threads changes
/// nothing.
pub fn squared_norm(x: &[f32]) -> f64 {
    let set = InstructionSet::best();
    let blocks: Vec<f64> = x.par_chunks(CHUNK).map(|x| squares(set, x)).collect();
    blocks.iter().sum()
}

vectorised! {
    fn update(
        parameters: &mut [f32],
        gradients: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        factors: Factors,
    ) {
        let moments = first.iter_mut().zip(second);
        for ((parameter, gradient), (first, second)) in parameters.iter_mut().zip(gradients).zip(moments) {
            let gradient = *gradient * factors.gradient;
            *first = factors.beta1 * *first + factors.rest1 * gradient;
            *second = factors.beta2 * *second + factors.rest2 * gradient * gradient;
            let divisor = second.sqrt() * factors.root + factors.eps;
            *parameter = *parameter * factors.decay - factors.step_size * *first / divisor;
        }
    }

    fn squares(x: &[f32]) -> f64 {
        let mut lanes = [0f64; 16];
        let (chunks, tail) = x.as_chunks::<16>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
        lanes.iter().sum::<f64>() + tail.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let (gradients, hyper) = (waves(1003, 0.1), AdamW { gradient_scale: 0.3, ..AdamW::default() });
        let mut expected: Option<[Vec<f32>; 3]> = None;
        for set in InstructionSet::available() {
            let mut state = [waves(1003, 0.2), vec![0.0; 1003], vec![0.0; 1003]];
            for step in 1..=5 {
                let [parameters, first, second] = &mut state;
                let factors = AdamW { step, ..hyper }.factors();
                update(set, parameters, &gradients, first, second, factors);
            }
            assert_eq!(expected.get_or_insert_with(|| state.clone()), &state, "{set:?}");
        }
    }

    #[test]
    fn the_norm_does_not_depend_on_threads_or_instructions() -> Result<(), rayon::ThreadPoolBuildError> {
        let x = waves(100_003, 0.5);
        let exact: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let norm = squared_norm(&x);
        assert!((norm - exact).abs() < 1e-9 * exact);
        for n_threads in [1, 3] {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
            assert_eq!(threads.install(|| squared_norm(&x)).to_bits(), norm.to_bits());
        }
        let squares: Vec<_> = InstructionSet::available().map(|set| squares(set, &x).to_bits()).collect();
        assert!(squares.iter().all(|bits| *bits == squares[0]));
        Ok(())
    }
}
