//! What a run will need, before it begins: measured on its own first batches.

use std::path::Path;
use std::time::Instant;

use super::{Assembled, Bases, Progress, speech, texts, vocoder, voice};
use crate::Error;
use crate::config::{RunConfig, TaskKind};
use crate::data::EpochPadding;
use crate::loader::Position;
use crate::pass::Workers;
use crate::task::{Data, Learner};

/// Updates that are tried, spread over the first epoch.
const N_TRIED: usize = 4;

/// What a run will need.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// Its settings, all that was left open decided.
    pub config: RunConfig,
    /// Batches of an epoch.
    pub n_batches: usize,
    /// Updates in all.
    pub n_steps: u64,
    /// What an epoch wastes.
    pub padding: EpochPadding,
    /// Seconds of an update, on average; `None` where no batch could be read.
    pub step_secs: Option<f64>,
    /// Bytes of the optimiser's moments, which are not made yet.
    pub moments_bytes: u64,
}

/// Reads the data, builds the model and computes some updates without making them.
///
/// # Errors
/// What the run itself refuses.
pub fn forecast(
    name: &str,
    config: &RunConfig,
    bases: impl Into<Bases>,
    dir: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Forecast, Error> {
    let bases = bases.into();
    match config.task {
        TaskKind::Transcribe => measure(speech::assemble(name, config, &bases, dir, None, tell)?),
        TaskKind::TranslateText => measure(texts::assemble(name, config, &bases, dir, None, tell)?),
        TaskKind::Speak => measure(voice::assemble(config, &bases, dir, None, tell)?),
        TaskKind::Vocode => measure(vocoder::assemble(config, &bases, dir, None, tell)?),
    }
}

fn measure<T: Learner, D: Data<Batch = T::Batch>>(assembled: Assembled<T, D>) -> Result<Forecast, Error> {
    let Assembled { config, task, corpus, padding, n_parameters, .. } = assembled;
    let n_batches = corpus.n_batches(0);
    let spread = (0..n_batches).step_by(n_batches.div_ceil(N_TRIED).max(1)).take(N_TRIED);
    let (workers, vars) = (Workers::new(config.train.parts)?, task.vars());
    let mut times = Vec::new();
    // The heaviest first: it pays for memory that the others find, and is not counted.
    for (index, batch) in std::iter::once(corpus.heaviest(0)?).chain(spread).enumerate() {
        let mut at = Position { epoch: 0, batch };
        let mut batches = Vec::new();
        for _ in 0..config.train.accumulate.max(1) {
            batches.push(corpus.load(at)?.parts);
            at = at.after(1, &corpus);
        }
        if batches.iter().all(Vec::is_empty) {
            continue;
        }
        let device = task.device();
        // A GPU answers before it has computed.
        device.synchronize()?;
        let began = Instant::now();
        workers.run(&task, &batches, &vars)?;
        device.synchronize()?;
        if index > 0 {
            times.push(began.elapsed().as_secs_f64());
        }
    }
    let step_secs = (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64);
    Ok(Forecast {
        n_steps: config.train.max_steps,
        config,
        n_batches,
        padding,
        step_secs,
        moments_bytes: 8 * n_parameters as u64,
    })
}
