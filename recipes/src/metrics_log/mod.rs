//! What a run measures, step by step: lines of JSON for programs, event files for TensorBoard.
//!
//! Both are written to the kernel at every step, so a killed run loses nothing, and both forget what came after the step
//! from which a run is resumed, so that a resumed run leaves the log of an uninterrupted one.

mod jsonl;
mod tensorboard;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use jsonl::{JsonlWriter, Scalar, read_scalars};
pub use tensorboard::TensorBoardWriter;

/// The file of JSON lines in a run's directory.
pub const JSONL_NAME: &str = "metrics.jsonl";
/// The directory of event files in a run's directory: what `tensorboard --logdir` is given, or a directory above it.
pub const TENSORBOARD_NAME: &str = "tensorboard";

/// Why a log could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory failed; the source says why.
    #[error("could not {action} {}", path.display())]
    Io {
        /// "create", "read", "write" or "truncate".
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A new run would write over the log of another.
    #[error("{} is the log of an earlier run: resume that run, or choose another directory", path.display())]
    Exists {
        /// The log.
        path: PathBuf,
    },
    /// A line, not the last, that this program did not write.
    #[error("{} line {line} is not a metric ({reason}): repair or remove it", path.display())]
    BadLine {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Steps that go back, which a resumed run could not cut off.
    #[error("step {step} after step {last_step}: steps of a log never decrease")]
    StepBack {
        /// The step that was to be recorded.
        step: u64,
        /// The step before it.
        last_step: u64,
    },
}

/// Both logs of one run.
#[derive(Debug)]
pub struct MetricsLog {
    jsonl: JsonlWriter,
    tensorboard: TensorBoardWriter,
    last_step: u64,
}

impl MetricsLog {
    /// The log of a new run in `run_dir`, which is created if need be.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one already, [`Error::Io`] when files cannot be created.
    pub fn create(run_dir: &Path) -> Result<Self, Error> {
        create_dir(run_dir)?;
        let jsonl = JsonlWriter::create(&run_dir.join(JSONL_NAME))?;
        let tensorboard = TensorBoardWriter::create(&run_dir.join(TENSORBOARD_NAME), SystemTime::now())?;
        Ok(MetricsLog { jsonl, tensorboard, last_step: 0 })
    }

    /// The log of a run that goes on after `last_step`: what was recorded of later steps is forgotten. A run that was ended
    /// before it recorded anything has no log yet; it gets one.
    ///
    /// # Errors
    /// [`Error::BadLine`] for a log that this program did not write, [`Error::Io`] when files cannot be read or written.
    pub fn resume(run_dir: &Path, last_step: u64) -> Result<Self, Error> {
        create_dir(run_dir)?;
        let jsonl = JsonlWriter::resume(&run_dir.join(JSONL_NAME), last_step)?;
        let directory = run_dir.join(TENSORBOARD_NAME);
        let tensorboard = TensorBoardWriter::resume(&directory, SystemTime::now(), last_step)?;
        Ok(MetricsLog { jsonl, tensorboard, last_step })
    }

    /// Records values of this step, now. Names with a slash are grouped by what stands before it: `train/loss`.
    ///
    /// Values that are not finite are recorded as such: a loss that became NaN is what one looks for.
    ///
    /// # Errors
    /// [`Error::StepBack`] for a step before the last one, [`Error::Io`] when a file cannot be written.
    pub fn record(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), Error> {
        self.record_at(SystemTime::now(), step, values)
    }

    /// [`MetricsLog::record`] at another time than now.
    ///
    /// # Errors
    /// As [`MetricsLog::record`].
    pub fn record_at(
        &mut self,
        wall_time: SystemTime,
        step: u64,
        values: &[(&str, f64)],
    ) -> Result<(), Error> {
        if step < self.last_step {
            return Err(Error::StepBack { step, last_step: self.last_step });
        }
        self.last_step = step;
        self.jsonl.write(wall_time, step, values)?;
        self.tensorboard.write(wall_time, step, values)
    }
}

fn create_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(io("create", path))
}

/// Names what was done to which file.
fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// Seconds since 1970; 0 before.
fn unix_secs(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(run_dir: &Path) -> Vec<(u64, f64)> {
        let scalars = read_scalars(&run_dir.join(JSONL_NAME)).unwrap();
        scalars.into_iter().map(|scalar| (scalar.step, scalar.value)).collect()
    }

    #[test]
    fn a_resumed_run_leaves_the_log_of_an_uninterrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("runs/digits");
        let mut log = MetricsLog::create(&run_dir).unwrap();
        for step in 1..=5 {
            log.record(step, &[("train/loss", 1.0 / step as f64)]).unwrap();
        }
        drop(log);
        // The last checkpoint was at step 3.
        let mut log = MetricsLog::resume(&run_dir, 3).unwrap();
        for step in 4..=6 {
            log.record(step, &[("train/loss", 1.0 / step as f64)]).unwrap();
        }
        assert_eq!(steps(&run_dir), (1..=6).map(|step| (step, 1.0 / step as f64)).collect::<Vec<_>>());
        assert_eq!(std::fs::read_dir(run_dir.join(TENSORBOARD_NAME)).unwrap().count(), 2);
    }

    #[test]
    fn a_new_run_does_not_write_over_another() {
        let dir = tempfile::tempdir().unwrap();
        drop(MetricsLog::create(dir.path()).unwrap());
        assert!(matches!(MetricsLog::create(dir.path()), Err(Error::Exists { .. })));
        // A run that was killed at once has no log.
        assert!(MetricsLog::resume(&dir.path().join("other"), 0).is_ok());
    }

    #[test]
    fn steps_do_not_go_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::create(dir.path()).unwrap();
        log.record(7, &[("train/loss", 0.5)]).unwrap();
        log.record(7, &[("dev/wer", 0.2)]).unwrap();
        let refused = log.record(6, &[("train/loss", 0.5)]);
        assert!(matches!(refused, Err(Error::StepBack { step: 6, last_step: 7 })));
        let mut log = MetricsLog::resume(dir.path(), 6).unwrap();
        assert!(matches!(log.record(5, &[]), Err(Error::StepBack { step: 5, last_step: 6 })));
        assert_eq!(steps(dir.path()), []);
    }

    #[test]
    fn what_cannot_be_created_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let error = MetricsLog::create(&file).unwrap_err().to_string();
        assert!(error.contains("create") && error.contains("file"), "{error}");
    }
}
