use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use candle_core::{Device, Tensor, Var};

use models::DeviceChoice;

use super::*;
use crate::loader::Position;
use crate::optim::GroupConfig;
use crate::schedule::{Decay, ScheduleKind};
use crate::task::Term;

mod wsd;

/// Points of a line that a weight and a bias are fitted to; every batch has its own number of them.
struct Line {
    weight: Var,
    bias: Var,
    /// What `save` does wrong, as often as this says.
    n_full_disks: AtomicU32,
    /// Evaluations that find no number, as often as this says.
    n_not_finite: AtomicU32,
    /// Weights that were evaluated.
    evaluated: Mutex<Vec<f32>>,
}

/// Batches of an epoch.
const N_BATCHES: usize = 7;

impl Source for Line {
    type Batch = Vec<(f32, f32)>;

    fn n_batches(&self, _: u64) -> usize {
        N_BATCHES
    }

    fn load(&self, at: Position) -> Result<Loaded<Self::Batch>, Error> {
        let seed = at.epoch as usize * N_BATCHES + at.batch;
        let point = |i: usize| {
            let x = ((seed * 5 + i) as f32 * 0.7).sin();
            (x, 3.0 * x - 1.0 + 0.1 * ((seed + 3 * i) as f32).cos())
        };
        let mut points: Vec<_> = (0..2 + seed % 3).map(point).collect();
        let mut faults = Vec::new();
        if at == (Position { epoch: 0, batch: 3 }) {
            points[0].1 = f32::NAN;
        }
        if at.batch == 5 {
            faults.push(Fault { cut: format!("cut-{seed}"), reason: "is damaged".to_owned() });
        }
        Ok(Loaded { parts: points.chunks(2).map(<[_]>::to_vec).collect(), faults })
    }
}

impl Task for Line {
    type Batch = Vec<(f32, f32)>;

    fn vars(&self) -> Vec<(String, Var)> {
        vec![("bias".to_owned(), self.bias.clone()), ("weight".to_owned(), self.weight.clone())]
    }

    fn extent(&self, batch: &Self::Batch) -> Extent {
        Extent { n_cuts: batch.len(), audio_secs: batch.len() as f64, ..Extent::default() }
    }

    fn terms(&self, batch: &Self::Batch) -> Vec<Term> {
        vec![
            Term { name: "squares", scale: 1.0, weight: batch.len() as f64 },
            Term { name: "size", scale: 0.01, weight: 1.0 },
        ]
    }

    fn sums(&self, batch: &Self::Batch) -> Result<Vec<Tensor>, Error> {
        let (x, y): (Vec<f32>, Vec<f32>) = batch.iter().copied().unzip();
        let n = x.len();
        let column = |values| Tensor::from_vec(values, n, &Device::Cpu);
        let fitted = column(x)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?;
        Ok(vec![(fitted - column(y)?)?.sqr()?.sum_all()?, self.weight.sqr()?.sum_all()?])
    }

    fn evaluate(&self) -> Result<Figures, Error> {
        let weight = self.weight.to_vec1::<f32>()?[0];
        self.evaluated.lock().expect("whole").push(weight);
        if take(&self.n_not_finite) {
            return Ok(Figures::from([("distance".to_owned(), f64::NAN)]));
        }
        Ok(Figures::from([("distance".to_owned(), f64::from((weight - 3.0).abs()))]))
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        if take(&self.n_full_disks) {
            return Err(Error::file(dir, "No space left on device"));
        }
        let tensors = self.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor()));
        let path = dir.join("model.safetensors");
        safetensors::serialize_to_file(tensors, None, &path).map_err(|error| Error::file(&path, error))
    }
}

/// One of what is left, if there is one.
fn take(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn line() -> Line {
    let var = |value| Var::new(&[value], &Device::Cpu).expect("a parameter");
    Line {
        weight: var(0.5f32),
        bias: var(0.0),
        n_full_disks: AtomicU32::new(0),
        n_not_finite: AtomicU32::new(0),
        evaluated: Mutex::default(),
    }
}

/// A run in a folder of its own.
struct Stage {
    train: TrainConfig,
    optimizer: OptimizerConfig,
    schedule: ScheduleConfig,
    held_out: &'static str,
    dir: tempfile::TempDir,
}

#[derive(Debug)]
struct Told {
    losses: Vec<f64>,
    events: Vec<Event>,
    ending: Ending,
    state: State,
    weights: Vec<f32>,
}

fn stage() -> Stage {
    Stage {
        train: TrainConfig {
            max_steps: 40,
            max_epochs: 0,
            accumulate: 2,
            parts: 2,
            device: DeviceChoice::Cpu,
            loader_threads: 2,
            evaluate_every: 10,
            save_every: 6,
            keep: 3,
            best_by: "distance".to_owned(),
            patience: 0,
            max_skipped: 3,
            average_decay: 0.9,
        },
        optimizer: OptimizerConfig {
            learning_rate: 0.1,
            betas: (0.9, 0.98),
            epsilon: 1e-8,
            weight_decay: 0.01,
            no_decay: vec!["bias".to_owned()],
            clip_norm: 1.0,
            groups: vec![GroupConfig { prefix: "bias".to_owned(), rate_scale: 0.5 }],
        },
        schedule: ScheduleConfig {
            kind: ScheduleKind::Cosine,
            warmup_steps: 4,
            warmup_share: 0.0,
            floor: 0.1,
            decay: Decay::Linear,
            decay_share: 0.2,
            periods: Vec::new(),
        },
        held_out: "points",
        dir: tempfile::tempdir().expect("a folder"),
    }
}

impl Stage {
    /// Runs until the end, or until the update `stop_after` is told.
    fn run(&self, task: &Line, stop_after: Option<u64>) -> Result<Told, Error> {
        let checkpoints = Checkpoints::open(self.dir.path())?;
        let run = Run {
            train: &self.train,
            optimizer: &self.optimizer,
            schedule: &self.schedule,
            checkpoints: &checkpoints,
            data_digest: "line",
            held_out_digest: self.held_out,
        };
        let stop = AtomicBool::new(false);
        let mut events = Vec::new();
        let (ending, state) = train(task, task, &run, &stop, &mut |event| {
            if matches!(&event, Event::Step(report) if Some(report.step) == stop_after) {
                stop.store(true, Ordering::Relaxed);
            }
            events.push(event);
        })?;
        let losses = events.iter().filter_map(|event| match event {
            Event::Step(report) => Some(report.loss),
            _ => None,
        });
        let weights = [&task.weight, &task.bias].map(|var| var.to_vec1::<f32>().expect("numbers")[0]);
        Ok(Told { losses: losses.collect(), events, ending, state, weights: weights.to_vec() })
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_line_is_found() -> Result<(), Error> {
    let mut stage = stage();
    stage.train.max_steps = 300;
    let told = stage.run(&line(), None)?;
    assert_eq!(told.ending, Ending::Complete);
    assert!((told.weights[0] - 3.0).abs() < 0.1 && (told.weights[1] + 1.0).abs() < 0.1, "{:?}", told.weights);
    assert_eq!((told.state.n_skipped, told.state.step), (1, 300));
    Ok(())
}

/// Whatever the kind of schedule, whether the run was stopped or killed, and however many threads load.
#[test]
fn a_run_that_was_interrupted_goes_on_as_if_it_had_not_been() -> Result<(), Error> {
    for (kind, periods) in [
        (ScheduleKind::Cosine, vec![]),
        (ScheduleKind::Wsd, vec![20, 40]),
        (ScheduleKind::WsdS, vec![20, 40]),
    ] {
        let with = |loader_threads| {
            let mut stage = stage();
            stage.schedule.kind = kind;
            stage.schedule.periods.clone_from(&periods);
            stage.train.loader_threads = loader_threads;
            stage
        };
        let whole = with(2).run(&line(), None)?;
        // 16 and 20: where a decay branches off, and where it ends.
        for stop_after in [1, 5, 16, 17, 19, 20, 23, 33] {
            let stage = with(3);
            let first = stage.run(&line(), Some(stop_after))?;
            assert_eq!((first.ending, first.state.step), (Ending::Stopped, stop_after));
            let second = stage.run(&line(), None)?;
            let losses = [first.losses, second.losses].concat();
            assert_eq!(bits(&losses), bits(&whole.losses), "{kind:?}, stopped after {stop_after}");
            assert_eq!(second.weights, whole.weights);
        }
        // Killed: what came after the last checkpoint is made again.
        let stage = with(2);
        let first = stage.run(&line(), Some(16))?;
        std::fs::remove_dir_all(stage.dir.path().join("00000016")).expect("a checkpoint");
        std::fs::create_dir(stage.dir.path().join(".unfinished-00000018")).expect("a folder");
        let second = stage.run(&line(), None)?;
        let resumed_at = whole.losses.len() - second.losses.len();
        assert!((10..16).contains(&resumed_at), "{resumed_at}");
        let losses = [&first.losses[..resumed_at], &second.losses].concat();
        assert_eq!(bits(&losses), bits(&whole.losses), "{kind:?}, killed");
        assert_eq!(second.weights, whole.weights);
    }
    Ok(())
}

#[test]
fn accumulation_is_one_large_batch() -> Result<(), Error> {
    let task = line();
    let load = |batch| task.load(Position { epoch: 1, batch }).expect("points").parts;
    let apart = [load(0), load(1), load(2)];
    let together = [vec![apart.concat().concat()]];
    let pass = |batches: &[Vec<Vec<(f32, f32)>>], n_parts| -> Result<(f64, f64), Error> {
        let pass = Workers::new(n_parts)?.run(&task, batches, &task.vars())?;
        Ok((pass.loss, pass.gradients.norm()?))
    };
    let (one, three) = (pass(&together, 1)?, pass(&apart, 1)?);
    assert!((one.0 - three.0).abs() < 1e-5 * one.0, "{one:?} {three:?}");
    assert!((one.1 - three.1).abs() < 1e-5 * one.1, "{one:?} {three:?}");
    // To the bit, whoever computes them.
    for n_parts in [2, 3] {
        let side_by_side = pass(&apart, n_parts)?;
        assert_eq!(bits(&[three.0, three.1]), bits(&[side_by_side.0, side_by_side.1]), "{n_parts} at once");
    }
    Ok(())
}

#[test]
fn what_is_not_finite_is_skipped_and_counted_and_too_much_of_it_ends_the_run() -> Result<(), Error> {
    let told = stage().run(&line(), None)?;
    let skipped: Vec<u64> = told
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Step(report) if report.is_skipped => Some(report.step),
            _ => None,
        })
        .collect();
    assert_eq!((skipped, told.state.n_skipped), (vec![2], 1));
    assert!(told.weights.iter().all(|weight| weight.is_finite()));
    let mut strict = stage();
    strict.train.max_skipped = 0;
    let error = strict.run(&line(), None).expect_err("one too many").to_string();
    assert!(error.starts_with("train.max_skipped: ") && error.contains("number 2"), "{error}");
    Ok(())
}

#[test]
fn recordings_that_cannot_be_read_are_told_and_counted() -> Result<(), Error> {
    let told = stage().run(&line(), None)?;
    let faults: Vec<&Fault> = told
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Fault(fault) => Some(fault),
            _ => None,
        })
        .collect();
    assert_eq!((faults.len() as u64, faults[0].cut.as_str()), (told.state.n_faults, "cut-5"));
    assert!(faults.len() >= 10);
    Ok(())
}

#[test]
fn a_full_disk_loses_nothing_that_was_saved() -> Result<(), Error> {
    let stage = stage();
    let task = line();
    task.n_full_disks.store(1, Ordering::Relaxed);
    let told = stage.run(&task, Some(12))?;
    let failed: Vec<u64> = told
        .events
        .iter()
        .filter_map(|event| match event {
            Event::SaveFailed { step, reason } if reason.contains("No space left") => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(failed, [6]);
    // The last checkpoint is needed: without it the run has no result, and says so. What was there is there still.
    task.n_full_disks.store(100, Ordering::Relaxed);
    let error = stage.run(&task, Some(13)).expect_err("no room").to_string();
    assert!(error.contains("No space left"), "{error}");
    let steps = Checkpoints::open(stage.dir.path())?.steps()?;
    assert_eq!(steps.last(), Some(&12));
    task.n_full_disks.store(0, Ordering::Relaxed);
    assert_eq!(stage.run(&task, None)?.state.step, 40);
    Ok(())
}

#[test]
fn the_best_checkpoint_and_the_newest_are_kept() -> Result<(), Error> {
    let stage = stage();
    let told = stage.run(&line(), None)?;
    let steps = Checkpoints::open(stage.dir.path())?.steps()?;
    let best = told.state.best.expect("evaluations").step;
    let saved: Vec<u64> = told
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Saved { step } => Some(*step),
            _ => None,
        })
        .collect();
    assert!(saved.windows(2).all(|pair| pair[0] < pair[1]), "each once: {saved:?}");
    assert!(steps.contains(&best) && steps.contains(&40) && steps.len() <= 4, "{steps:?}, best {best}");
    Ok(())
}

#[test]
fn the_moving_average_is_evaluated_and_the_weights_are_trained() -> Result<(), Error> {
    let averaged = line();
    let told = stage().run(&averaged, None)?;
    let last = *averaged.evaluated.lock().expect("whole").last().expect("evaluations");
    assert!((last - told.weights[0]).abs() > 1e-4, "{last} is what was trained");
    let mut plain = stage();
    plain.train.average_decay = 0.0;
    let alone = plain.run(&line(), None)?;
    assert_eq!(bits(&alone.losses), bits(&told.losses), "an average changes no weight");
    Ok(())
}

#[test]
fn gradients_are_scaled_down_to_their_greatest_norm_and_never_up() -> Result<(), Error> {
    // After one update the first moment is a tenth of the gradient.
    let first_update = |clip_norm: f64| -> Result<(f64, Vec<f32>), Error> {
        let mut stage = stage();
        (stage.optimizer.clip_norm, stage.train.average_decay) = (clip_norm, 0.0);
        let told = stage.run(&line(), Some(1))?;
        let path = stage.dir.path().join("00000001/optimizer.safetensors");
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let moment = |name: &str| Ok(tensors[name].to_vec1::<f32>()?[0]);
        let moments = ["first.bias", "first.weight"].map(moment).into_iter().collect::<Result<_, Error>>()?;
        let Some(Event::Step(report)) = told.events.iter().find(|event| matches!(event, Event::Step(_)))
        else {
            panic!("no update: {:?}", told.events)
        };
        Ok((report.gradient_norm, moments))
    };
    let (norm, whole) = first_update(0.0)?;
    assert!((10.0 * f64::from(whole[0]).hypot(f64::from(whole[1])) - norm).abs() < 1e-5 * norm);
    for (clip_norm, share) in [(norm / 2.0, 0.5), (norm * 2.0, 1.0)] {
        let (told, moments) = first_update(clip_norm)?;
        assert_eq!(told.to_bits(), norm.to_bits(), "the norm is told as it was");
        for (moment, whole) in moments.iter().zip(&whole) {
            assert!((moment - share * whole).abs() <= 1e-6 * whole.abs(), "{moment}, not {share} of {whole}");
        }
    }
    Ok(())
}

#[test]
fn a_run_that_gets_no_better_ends() -> Result<(), Error> {
    let mut stage = stage();
    stage.train.patience = 2;
    stage.train.evaluate_every = 1;
    stage.train.max_steps = 400;
    stage.train.average_decay = 0.0;
    let told = stage.run(&line(), None)?;
    assert_eq!(told.ending, Ending::NoBetter);
    assert_eq!(told.state.n_worse, 2);
    Ok(())
}

#[test]
fn an_evaluation_that_is_no_number_is_never_the_best() -> Result<(), Error> {
    let stage = stage();
    let task = line();
    task.n_not_finite.store(1, Ordering::Relaxed);
    let first = stage.run(&task, Some(12))?.state;
    assert_eq!((first.best, first.n_worse), (None, 1));
    // Its checkpoint is gone on from, and the next number is the best.
    let whole = stage.run(&task, None)?.state;
    assert!(whole.best.is_some_and(|best| best.step >= 20 && best.value.is_finite()), "{whole:?}");
    Ok(())
}

#[test]
fn other_data_are_not_gone_on_with() -> Result<(), Error> {
    let stage = stage();
    stage.run(&line(), Some(3))?;
    let checkpoints = Checkpoints::open(stage.dir.path())?;
    let run = Run {
        train: &stage.train,
        optimizer: &stage.optimizer,
        schedule: &stage.schedule,
        checkpoints: &checkpoints,
        data_digest: "circle",
        held_out_digest: "points",
    };
    let task = line();
    let error = train(&task, &task, &run, &AtomicBool::new(false), &mut |_| {}).expect_err("others");
    assert!(error.to_string().contains("was trained on other data"), "{error}");
    Ok(())
}

#[test]
fn what_is_judged_by_something_else_has_no_best_yet() -> Result<(), Error> {
    let mut stage = stage();
    let first = stage.run(&line(), Some(25))?.state.best.map(|best| best.step);
    assert!(first.is_some_and(|step| step <= 20), "{first:?}");
    stage.held_out = "other points";
    stage.train.evaluate_every = 0;
    let best = stage.run(&line(), Some(30))?.state;
    assert_eq!((best.best, best.n_worse), (None, 0));
    Ok(())
}
