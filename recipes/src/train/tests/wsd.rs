//! Periods: what the next one starts from, and how a run gets another.

use super::*;

fn of_periods(kind: ScheduleKind, periods: &[u64]) -> Stage {
    let mut stage = stage();
    stage.schedule.kind = kind;
    stage.schedule.periods = periods.to_vec();
    stage.train.max_steps = periods.last().copied().unwrap_or(40);
    stage
}

/// An update that is skipped changes nothing: after it, weights, their average and moments are those that the period starts
/// from.
#[test]
fn a_period_starts_from_before_the_decay_or_from_after_it() -> Result<(), Error> {
    for (kind, expected) in [(ScheduleKind::Wsd, 2), (ScheduleKind::WsdS, 3)] {
        let mut stage = of_periods(kind, &[3, 13]);
        (stage.schedule.warmup_steps, stage.schedule.decay_share) = (1, 0.3);
        (stage.train.accumulate, stage.train.save_every, stage.train.keep) = (1, 1, 0);
        let told = stage.run(&line(), Some(4))?;
        assert_eq!((told.state.n_skipped, told.state.step), (1, 4), "the first of the second period");
        for file in ["optimizer.safetensors", "trained.safetensors", "model.safetensors"] {
            let bytes = |step: u64| {
                let path = stage.dir.path().join(format!("{step:08}")).join(file);
                std::fs::read(path).expect("a checkpoint")
            };
            assert!(bytes(2) != bytes(3), "{file}: the decay changed nothing");
            assert!(bytes(4) == bytes(expected), "{kind:?}, {file}: not that of update {expected}");
        }
    }
    Ok(())
}

#[test]
fn a_run_that_gets_another_period_is_one_that_always_had_it() -> Result<(), Error> {
    for kind in [ScheduleKind::Wsd, ScheduleKind::WsdS] {
        let whole = of_periods(kind, &[20, 40, 60]).run(&line(), None)?;
        let mut stage = of_periods(kind, &[]);
        stage.train.max_steps = 20;
        // So few that what is returned to would be gone if nothing protected it.
        (stage.train.keep, stage.train.save_every) = (1, 1);
        let mut losses = Vec::new();
        for periods in [vec![], vec![20, 40], vec![20, 40, 60]] {
            stage.train.max_steps = periods.last().copied().unwrap_or(20);
            stage.schedule.periods = periods;
            let told = stage.run(&line(), None)?;
            assert_eq!(told.ending, Ending::Complete);
            losses.extend(told.losses);
            if stage.train.max_steps == 60 {
                assert_eq!((told.state.best, told.state.at), (whole.state.best, whole.state.at), "{kind:?}");
                assert_eq!(told.weights, whole.weights, "{kind:?}");
            }
        }
        assert_eq!(bits(&losses), bits(&whole.losses), "{kind:?}");
    }
    Ok(())
}

/// Whoever only raises `max_steps` gets no decayed weights at the highest rate either.
#[test]
fn a_run_that_is_made_longer_returns_from_its_decay() -> Result<(), Error> {
    for stop_after in [None, Some(38)] {
        let mut stage = of_periods(ScheduleKind::Wsd, &[]);
        stage.train.keep = 0;
        let first = stage.run(&line(), stop_after)?;
        assert_eq!(first.state.branch, Some(32));
        stage.train.max_steps = 60;
        let step = first.state.step + 1;
        let task = line();
        let second = stage.run(&task, Some(step))?;
        assert_eq!(second.state.branch, None);
        // The same update from there.
        restore_into(&task, &stage.dir.path().join("00000032"))?;
        let batch = |at: u64| Position::default().after(at as usize, &task);
        let batches = [2 * step - 2, 2 * step - 1].map(|at| task.load(batch(at)).expect("points").parts);
        let expected = Workers::new(1)?.run(&task, &batches, &task.vars())?.loss;
        assert_eq!(bits(&second.losses), bits(&[expected]));
    }
    Ok(())
}

fn restore_into(task: &Line, checkpoint: &Path) -> Result<(), Error> {
    let mut optimizer = AdamW::new(&stage().optimizer, task.vars())?;
    restore(checkpoint, &mut optimizer, &task.vars(), &mut |_, _| ())
}

/// Whoever lowers `max_steps` to where a run is lets it decay from there, and can go on later.
#[test]
fn a_decay_that_begins_where_a_run_was_stopped_is_returned_from() -> Result<(), Error> {
    let mut stage = of_periods(ScheduleKind::Wsd, &[]);
    stage.train.max_steps = 400;
    stage.run(&line(), Some(32))?;
    stage.train.max_steps = 40;
    let told = stage.run(&line(), None)?;
    assert_eq!((told.state.step, told.state.branch), (40, Some(32)));
    Ok(())
}

#[test]
fn a_high_rate_is_no_reason_to_end() -> Result<(), Error> {
    for (kind, end_of_second) in [(ScheduleKind::Wsd, 22), (ScheduleKind::WsdS, 20)] {
        for (periods, patience, expected) in
            [(vec![], 1, (Ending::Complete, 40)), (vec![10, 20, 40], 2, (Ending::NoBetter, end_of_second))]
        {
            let mut stage = stage();
            (stage.schedule.kind, stage.schedule.periods) = (kind, periods);
            (stage.train.patience, stage.train.evaluate_every) = (patience, 1);
            // It is never any better.
            let task = line();
            task.n_not_finite.store(u32::MAX, Ordering::Relaxed);
            let told = stage.run(&task, None)?;
            assert_eq!((told.ending, told.state.step), expected, "{kind:?}");
        }
    }
    Ok(())
}
