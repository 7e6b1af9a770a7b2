//! The training loop: one readable function, whatever is trained.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use candle_core::Var;
use models::DeviceChoice;
use models::kernels::keep_freed_memory;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::average::MovingAverage;
use crate::checkpoint::{Best, Checkpoints, State, restore, restore_further, write_further, write_training};
use crate::loader::{Fault, Loaded, Loader, Position, Source};
use crate::optim::{AdamW, OptimizerConfig};
use crate::pass::{Pass, Workers};
use crate::schedule::{Schedule, ScheduleConfig, Stage};
use crate::task::{Extent, Figures, Task, is_better};

/// How a run goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What computes.
    pub device: DeviceChoice,
    /// Updates to make.
    pub max_steps: u64,
    /// Times that the data are gone through instead, as long as the first time; 0 counts updates.
    pub max_epochs: u64,
    /// Batches that go into one update.
    pub accumulate: usize,
    /// Parts of a batch that are computed side by side, each by its share of the processors.
    pub parts: usize,
    /// Threads that load recordings.
    pub loader_threads: usize,
    /// Updates between evaluations; 0 evaluates only at the end.
    pub evaluate_every: u64,
    /// Updates between checkpoints; 0 writes one only at the end.
    pub save_every: u64,
    /// Checkpoints that are kept beside the best one and the one that `wsd` may return to; 0 keeps all.
    pub keep: usize,
    /// The figure of an evaluation that says which checkpoint is the best: the lowest, or the highest of scores such as BLEU.
    pub best_by: String,
    /// Evaluations without a better one after which the run ends; 0 never ends it early. Of `wsd` and `wsd_s` those at the end
    /// of a period count: as long as the rate is at its peak, it hides what was learnt (methods, 4.3).
    pub patience: u32,
    /// Updates in a row that may be skipped because something is not finite; one more ends the run.
    pub max_skipped: u32,
    /// Decay of the weights' moving average, which is what is evaluated and served; 0 is none.
    pub average_decay: f64,
}

/// What a run tells while it goes.
#[derive(Debug, Clone)]
pub enum Event {
    /// It begins, or goes on where a checkpoint left it.
    Began {
        /// Updates that are made already.
        step: u64,
        /// Updates in all.
        n_steps: u64,
    },
    /// An update was made, or skipped.
    Step(StepReport),
    /// A recording was left out.
    Fault(Fault),
    /// The model was evaluated.
    Evaluated {
        /// After this update.
        step: u64,
        /// What came out.
        figures: Figures,
        /// Whether it is the best so far.
        is_best: bool,
    },
    /// A checkpoint was written.
    Saved {
        /// After this update.
        step: u64,
    },
    /// A checkpoint could not be written. The run goes on: the next one may be.
    SaveFailed {
        /// After this update.
        step: u64,
        /// Why.
        reason: String,
    },
}

/// What an update was.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Its number, from 1 on.
    pub step: u64,
    /// How many there will be.
    pub n_steps: u64,
    /// Where its first batch is.
    pub at: Position,
    /// What was minimised.
    pub loss: f64,
    /// Its terms by name, each a mean, not yet scaled.
    pub terms: Vec<(&'static str, f64)>,
    /// The learning rate.
    pub rate: f64,
    /// Where the schedule is.
    pub stage: Stage,
    /// Global norm of the gradients, before they were scaled down.
    pub gradient_norm: f64,
    /// Whether it was skipped because something was not finite.
    pub is_skipped: bool,
    /// What its batches were made of.
    pub extent: Extent,
    /// Time that it took, waiting for recordings included.
    pub busy_secs: f64,
    /// Of it, time spent waiting for recordings.
    pub wait_secs: f64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All updates are made.
    Complete,
    /// It got no better for too long.
    NoBetter,
    /// It was asked to stop. What it did is saved.
    Stopped,
}

/// Trains until the end, or until `stop` says so, from where the newest checkpoint is.
///
/// # Errors
/// Settings that make no sense, checkpoints of another run, data that cannot be loaded at all, too many updates in a row
/// that are not finite, a last checkpoint that cannot be written.
pub fn train<T: Task, S: Source<Batch = T::Batch>>(
    task: &T,
    source: &S,
    run: &Run<'_>,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Event),
) -> Result<(Ending, State), Error> {
    keep_freed_memory(usize::MAX);
    let config = run.train;
    let schedule = Schedule::new(run.schedule, run.optimizer.learning_rate, config.max_steps)?;
    let followed = [task.vars(), task.statistics()].concat();
    // Groups are of the model's parameters.
    let of_others = OptimizerConfig { groups: Vec::new(), ..run.optimizer.clone() };
    let further = task.further_phases().into_iter().map(|phase| AdamW::new(&of_others, phase.vars()));
    let further = further.collect::<Result<Vec<_>, _>>()?;
    let mut trainer = Trainer {
        optimizer: AdamW::new(run.optimizer, task.vars())?,
        workers: Workers::new(config.parts)?,
        average: MovingAverage::new(config.average_decay, &followed)?,
        followed,
        state: State {
            data_digest: run.data_digest.to_owned(),
            held_out_digest: run.held_out_digest.to_owned(),
            further_steps: vec![0; further.len()],
            ..State::default()
        },
        further,
        run,
        task,
        tell,
    };
    trainer.resume()?;
    let n_steps = schedule.n_steps();
    (trainer.tell)(Event::Began { step: trainer.state.step, n_steps });

    let ending = thread::scope(|scope| {
        let from = trainer.state.at;
        let mut loader = Loader::start(scope, source, config.loader_threads, from)
            .map_err(|error| Error::config("train.loader_threads", error.to_string()))?;
        let mut n_skipped_in_a_row = 0;
        while trainer.state.step < n_steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(Ending::Stopped);
            }
            if config.patience > 0 && trainer.state.n_worse >= config.patience {
                return Ok(Ending::NoBetter);
            }
            trainer.branch(&schedule)?;
            let step = trainer.state.step + 1;
            let report = trainer.update(&mut loader, source, &schedule, step)?;
            n_skipped_in_a_row = if report.is_skipped { n_skipped_in_a_row + 1 } else { 0 };
            (trainer.tell)(Event::Step(report));
            if n_skipped_in_a_row > config.max_skipped {
                return Err(Error::config(
                    "train.max_skipped",
                    format!(
                        "{n_skipped_in_a_row} updates in a row came to nothing, the last one number {step}: either they were \
                         not finite (lower optimizer.learning_rate, or look at the data of the latest batches), or none of \
                         their recordings could be read"
                    ),
                ));
            }
            trainer.state.is_settled = schedule.ends_period(step);
            let is_evaluated =
                is_due(step, config.evaluate_every) || trainer.state.is_settled || step == n_steps;
            let best_before = trainer.state.best;
            let is_best = is_evaluated && trainer.evaluate(step, &schedule)?;
            // What is returned to, and what it is left for.
            let is_fork = step < n_steps && schedule.is_on_branch(step) != schedule.is_on_branch(step + 1);
            if is_best || is_fork || is_due(step, config.save_every) || trainer.state.is_settled {
                // Without it a period that is planned could not begin.
                let is_needed = is_fork && schedule.returns_after(step);
                let is_written = trainer.save(step, is_needed)?;
                // The best is what there is, not what there was.
                if is_best && !is_written {
                    trainer.state.best = best_before;
                }
            }
        }
        Ok(Ending::Complete)
    })?;
    let step = trainer.state.step;
    if run.checkpoints.steps()?.last() != Some(&step) {
        trainer.save(step, true)?;
    }
    Ok((ending, trainer.state))
}

/// All that decides a run beside its task and its data.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// How it goes.
    pub train: &'a TrainConfig,
    /// How weights follow gradients.
    pub optimizer: &'a OptimizerConfig,
    /// How the learning rate goes.
    pub schedule: &'a ScheduleConfig,
    /// Where checkpoints are written, and found when the run goes on.
    pub checkpoints: &'a Checkpoints,
    /// Identifies data, buckets and order.
    pub data_digest: &'a str,
    /// Identifies what the model is judged by.
    pub held_out_digest: &'a str,
}

struct Trainer<'a, T: Task> {
    task: &'a T,
    run: &'a Run<'a>,
    optimizer: AdamW,
    /// Of what is trained beside the model, in the order of [`Task::further_phases`].
    further: Vec<AdamW>,
    workers: Workers,
    average: MovingAverage,
    /// What the average follows, and evaluations and bundles take from it: parameters and statistics.
    followed: Vec<(String, Var)>,
    state: State,
    tell: &'a mut dyn FnMut(Event),
}

/// What gradients of this norm are multiplied by.
fn clip_scale(optimizer: &OptimizerConfig, norm: f64) -> f64 {
    let clip = optimizer.clip_norm;
    if clip > 0.0 && norm > clip { clip / norm } else { 1.0 }
}

fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

impl<T: Task> Trainer<'_, T> {
    /// Goes on where the newest checkpoint is.
    fn resume(&mut self) -> Result<(), Error> {
        let checkpoints = self.run.checkpoints;
        let Some(&step) = checkpoints.steps()?.last() else { return Ok(()) };
        let dir = checkpoints.path(step);
        let mut state = State::read(&dir)?;
        if state.held_out_digest != self.run.held_out_digest {
            // Judged by something else, the best begins anew.
            (state.best, state.n_worse) = (None, 0);
            self.run.held_out_digest.clone_into(&mut state.held_out_digest);
        }
        if state.data_digest != self.run.data_digest {
            let message =
                "was trained on other data or in another order; give this run another name, or the data back";
            return Err(Error::file(&dir, message));
        }
        self.restore(&dir)?;
        state.further_steps.resize(self.further.len(), 0);
        for (phase, n_updates) in self.task.further_phases().into_iter().zip(&state.further_steps) {
            phase.resume(*n_updates);
        }
        self.state = state;
        Ok(())
    }

    /// Sets everything that training changes to what a checkpoint holds.
    fn restore(&mut self, dir: &Path) -> Result<(), Error> {
        for (phase, optimizer) in self.task.further_phases().into_iter().zip(&mut self.further) {
            restore_further(dir, phase.name(), optimizer)?;
        }
        let average = &mut self.average;
        restore(dir, &mut self.optimizer, &self.followed, &mut |name, value| {
            average.set(name, value);
        })
    }

    /// One update: some batches forward and backward, then the weights.
    fn update<S: Source<Batch = T::Batch>>(
        &mut self,
        loader: &mut Loader<T::Batch>,
        source: &S,
        schedule: &Schedule,
        step: u64,
    ) -> Result<StepReport, Error> {
        let began = Instant::now();
        let at = self.state.at;
        let batches = self.take(loader)?;
        let wait_secs = began.elapsed().as_secs_f64();

        self.task.begin(step, schedule.n_steps());
        let pass = self.workers.run(self.task, &batches, self.optimizer.vars())?;
        let Pass { gradients, loss, mut terms, extent } = pass;
        let gradient_norm = gradients.norm()?;
        // Nothing that could be read is nothing learnt.
        let is_skipped =
            batches.iter().all(Vec::is_empty) || !(loss.is_finite() && gradient_norm.is_finite());
        let rate = schedule.rate(step);
        if is_skipped {
            self.state.n_skipped += 1;
        } else {
            let scale = clip_scale(self.run.optimizer, gradient_norm);
            self.optimizer.step(&gradients, scale, step - self.state.n_skipped, rate)?;
        }
        self.task.follow(!is_skipped)?;
        if !is_skipped {
            self.average.follow(&self.followed, step - self.state.n_skipped)?;
            terms.extend(self.update_further(&batches, rate)?);
        }
        let busy_secs = began.elapsed().as_secs_f64();
        self.state.step = step;
        self.state.at = self.state.at.after(self.run.train.accumulate.max(1), source);
        self.state.audio_secs += extent.audio_secs;
        self.state.busy_secs += busy_secs;
        Ok(StepReport {
            step,
            n_steps: schedule.n_steps(),
            at,
            loss,
            terms,
            rate,
            stage: schedule.stage(step),
            gradient_norm,
            is_skipped,
            extent,
            busy_secs,
            wait_secs,
        })
    }

    /// The phases beside the model's, on the same batches, and what their terms were. One whose time has not come, or that is not
    /// finite, stays as it is.
    fn update_further(
        &mut self,
        batches: &[Vec<T::Batch>],
        rate: f64,
    ) -> Result<Vec<(&'static str, f64)>, Error> {
        let mut told = Vec::new();
        let further = self.further.iter_mut().zip(&mut self.state.further_steps);
        for (phase, (optimizer, n_steps)) in self.task.further_phases().into_iter().zip(further) {
            let Pass { gradients, loss, terms, .. } =
                self.workers.run_phase(phase, batches, optimizer.vars())?;
            let norm = gradients.norm()?;
            if terms.is_empty() || !(loss.is_finite() && norm.is_finite()) {
                continue;
            }
            if *n_steps == 0 {
                // What was the best had not learnt from it.
                (self.state.best, self.state.n_worse) = (None, 0);
            }
            *n_steps += 1;
            let (scale, rate) = (clip_scale(self.run.optimizer, norm), phase.learning_rate(rate));
            optimizer.step(&gradients, scale, *n_steps, rate)?;
            told.extend(terms);
        }
        Ok(told)
    }

    /// The batches of one update, each in its parts.
    fn take(&mut self, loader: &mut Loader<T::Batch>) -> Result<Vec<Vec<T::Batch>>, Error> {
        let mut batches = Vec::new();
        for _ in 0..self.run.train.accumulate.max(1) {
            let Loaded { parts, faults } = loader.take()?;
            self.state.n_faults += faults.len() as u64;
            for fault in faults {
                (self.tell)(Event::Fault(fault));
            }
            batches.push(parts);
        }
        Ok(batches)
    }

    /// Says whether the model is the best so far.
    fn evaluate(&mut self, step: u64, schedule: &Schedule) -> Result<bool, Error> {
        self.average.swap(&self.followed)?;
        let evaluated = self.task.evaluate();
        self.average.swap(&self.followed)?;
        let figures = evaluated?;
        if figures.is_empty() {
            return Ok(false);
        }
        let best_by = &self.run.train.best_by;
        let Some(&value) = figures.get(best_by) else {
            let known: Vec<&str> = figures.keys().map(String::as_str).collect();
            let message = format!("`{best_by}` is none of what an evaluation gives: {}", known.join(", "));
            return Err(Error::config("train.best_by", message));
        };
        // What is no number would never be beaten as the best, and a checkpoint cannot hold it.
        let is_best =
            value.is_finite() && self.state.best.is_none_or(|best| is_better(best_by, value, best.value));
        if is_best {
            self.state.best = Some(Best { step, value });
            self.state.n_worse = 0;
        } else if schedule.tells(step) {
            self.state.n_worse += 1;
        }
        (self.tell)(Event::Evaluated { step, figures, is_best });
        Ok(is_best)
    }

    /// Writes a checkpoint and says whether it could. If not, the run goes on, unless the checkpoint `is_needed`.
    fn save(&mut self, step: u64, is_needed: bool) -> Result<bool, Error> {
        let (state, optimizer, further, task) = (&self.state, &self.optimizer, &self.further, self.task);
        let is_averaged = self.average.is_on();
        self.average.swap(&self.followed)?;
        let trained = is_averaged.then(|| self.average.kept());
        let written = self.run.checkpoints.write(step, |dir| {
            task.save(dir)?;
            for (phase, optimizer) in task.further_phases().into_iter().zip(further) {
                write_further(dir, phase.name(), optimizer)?;
            }
            write_training(dir, state, optimizer, trained)
        });
        self.average.swap(&self.followed)?;
        match written {
            Ok(_) => {
                (self.tell)(Event::Saved { step });
                let protected: Vec<u64> =
                    self.state.best.map(|best| best.step).into_iter().chain(self.state.branch).collect();
                self.run.checkpoints.prune(self.run.train.keep, &protected)?;
                Ok(true)
            }
            Err(error) if is_needed => Err(error),
            Err(error) => {
                (self.tell)(Event::SaveFailed { step, reason: error.to_string() });
                Ok(false)
            }
        }
    }

    /// Keeps in mind which weights and moments the decay of `wsd` that comes next leaves behind, and goes back to them when it is
    /// over and more is to come, whether that was planned or the run is longer now. Data go on where they are. It is done before
    /// an update rather than after the last one: so a run that goes on from here does it, too.
    fn branch(&mut self, schedule: &Schedule) -> Result<(), Error> {
        let step = self.state.step;
        match (self.state.branch, schedule.is_on_branch(step + 1)) {
            // What could not be written is not returned to.
            (None, true) if self.run.checkpoints.path(step).is_dir() => self.state.branch = Some(step),
            (Some(left), false) => {
                let dir = self.run.checkpoints.path(left);
                self.restore(&dir)?;
                self.state.branch = None;
            }
            _ => (),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
