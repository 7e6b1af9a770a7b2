//! Forward and backward through the batches of one update.

use candle_core::{Tensor, Var};
use models::nn::backward;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Error;
use crate::optim::Gradients;
use crate::task::{Extent, Phase, Task, Term, Totals};

/// The processors, shared out among the parts of a batch.
///
/// One part leaves processors idle wherever its operations are too small or too simple to be divided. Several at once, each on
/// its share of the processors, fill each other's gaps.
pub struct Workers {
    /// A part's each; empty where all processors work on one.
    pools: Vec<ThreadPool>,
}

/// What came of one update's batches.
pub struct Pass {
    /// Of what is minimised, by each parameter.
    pub gradients: Gradients,
    /// What is minimised.
    pub loss: f64,
    /// Its terms by name, each a mean, not yet scaled.
    pub terms: Vec<(&'static str, f64)>,
    /// What the batches were made of.
    pub extent: Extent,
}

/// A part of a batch with the terms of its loss.
type Part<'a, B> = (&'a B, Vec<Term>);

/// What a task says of its model, as others say of what is trained beside it.
struct Model<'a, T>(&'a T);

impl<T: Task> Phase<T::Batch> for Model<'_, T> {
    fn name(&self) -> &'static str {
        "model"
    }

    fn vars(&self) -> Vec<(String, Var)> {
        self.0.vars()
    }

    fn terms(&self, batch: &T::Batch) -> Vec<Term> {
        self.0.terms(batch)
    }

    fn sums(&self, batch: &T::Batch) -> Result<Vec<Tensor>, Error> {
        self.0.sums(batch)
    }
}

/// What came of a part.
struct Sums {
    /// By name, of the terms that something weighs.
    terms: Vec<(&'static str, f64)>,
    loss: f64,
    gradients: Gradients,
}

impl Workers {
    /// Workers on `n_parts` at once.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new(n_parts: usize) -> Result<Self, Error> {
        let n_threads = rayon::current_num_threads();
        let pool = |part: usize| {
            let n_threads = n_threads / n_parts + usize::from(part < n_threads % n_parts);
            ThreadPoolBuilder::new().num_threads(n_threads.max(1)).build()
        };
        let pools = if n_parts > 1 { (0..n_parts).map(pool).collect() } else { Ok(Vec::new()) };
        Ok(Self { pools: pools.map_err(|error| Error::config("train.parts", error.to_string()))? })
    }

    /// The mean of a task's loss over batches, each given in its parts, and its gradients by `vars`. Parts of one batch are
    /// computed at once, batches one after the other. The result depends on the parts and their order, not on the workers; what
    /// comes after a part whose loss is not finite is left out.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn run<T: Task>(
        &self,
        task: &T,
        batches: &[Vec<T::Batch>],
        vars: &[(String, Var)],
    ) -> Result<Pass, Error> {
        let mut pass = self.run_phase(&Model(task), batches, vars)?;
        batches.iter().flatten().for_each(|part| pass.extent.add(task.extent(part)));
        Ok(pass)
    }

    /// The same of what is trained beside a model. The extent of batches is the model's to say.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn run_phase<B: Sync>(
        &self,
        phase: &dyn Phase<B>,
        batches: &[Vec<B>],
        vars: &[(String, Var)],
    ) -> Result<Pass, Error> {
        let batches: Vec<Vec<Part<'_, B>>> = batches
            .iter()
            .map(|parts| parts.iter().map(|part| (part, phase.terms(part))).collect())
            .collect();
        // All weights are known before the first backward pass: sums are divided by those of the whole update.
        let mut totals = Totals::default();
        batches.iter().flatten().for_each(|(_, terms)| totals.weigh(terms));
        let (mut gradients, mut loss) = (Gradients::none(vars.len()), 0.0);
        // A GPU is busy with one part, and has no memory to spare for the others'.
        let on_cpu = vars.iter().all(|(_, var)| var.device().is_cpu());
        let n_together = if on_cpu { self.pools.len().max(1) } else { 1 };
        'batches: for batch in &batches {
            for together in batch.chunks(n_together) {
                for sums in self.compute(phase, together, &totals, vars) {
                    let sums = sums?;
                    sums.terms.iter().for_each(|(name, sum)| totals.add(name, *sum));
                    loss += sums.loss;
                    gradients.add(sums.gradients)?;
                    if !loss.is_finite() {
                        break 'batches;
                    }
                }
            }
        }
        // What no row of an update counts for has no mean.
        let counted = totals.iter().filter(|(term, _)| term.weight > 0.0);
        let terms = counted.map(|(term, sum)| (term.name, sum / term.weight)).collect();
        Ok(Pass { gradients, loss, terms, extent: Extent::default() })
    }

    /// At most as many parts as there are pools.
    fn compute<B: Sync>(
        &self,
        phase: &dyn Phase<B>,
        parts: &[Part<'_, B>],
        totals: &Totals,
        vars: &[(String, Var)],
    ) -> Vec<Result<Sums, Error>> {
        match parts {
            // Alone it has all processors.
            [part] => vec![sums(phase, part, totals, vars)],
            parts => {
                let pairs = parts.par_iter().zip(&self.pools);
                pairs.map(|(part, pool)| pool.install(|| sums(phase, part, totals, vars))).collect()
            }
        }
    }
}

fn sums<B>(
    phase: &dyn Phase<B>,
    (part, terms): &Part<'_, B>,
    totals: &Totals,
    vars: &[(String, Var)],
) -> Result<Sums, Error> {
    let mut sums = Sums { terms: Vec::new(), loss: 0.0, gradients: Gradients::none(vars.len()) };
    // Its time has not come.
    if terms.is_empty() {
        return Ok(sums);
    }
    let mut loss: Option<Tensor> = None;
    for (term, sum) in terms.iter().zip(phase.sums(part)?) {
        let weight = totals.weight(term.name);
        if weight <= 0.0 {
            continue;
        }
        sums.terms.push((term.name, f64::from(sum.to_scalar::<f32>()?)));
        let share = (sum * (term.scale / weight))?;
        loss = Some(match loss {
            Some(loss) => (loss + share)?,
            None => share,
        });
    }
    let Some(loss) = loss else { return Ok(sums) };
    sums.loss = f64::from(loss.to_scalar::<f32>()?);
    if sums.loss.is_finite() {
        sums.gradients = Gradients::found(&mut backward(&loss)?, vars);
    }
    Ok(sums)
}
