//! Whole transcriptions of several recordings at once.

use std::time::Instant;

use audio::Waveform;
use models::{DecodeOptions, Transcriber, Transcription, TranscriptionWorker, Update, Worker};
use rayon::prelude::*;
use serde::Serialize;

use super::middle;

/// More audio than this in a cell of the table is left out: it says nothing new, and takes minutes.
const MAX_AUDIO_SECS: f64 = 1920.0;

/// What it took.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    /// Of a recording, on average.
    pub clip_secs: f64,
    pub concurrency: usize,
    pub secs: f64,
    pub times_real_time: f64,
    /// From the beginning to the first text of a recording, in the middle of them.
    pub first_result_secs: f64,
    /// Written per recording.
    pub n_tokens: f64,
}

/// The recordings of each cell: so many of each length.
pub(super) fn cells<'a>(recordings: &'a [Waveform], concurrency: &[usize]) -> Vec<Vec<&'a Waveform>> {
    let all = recordings.iter().flat_map(|recording| concurrency.iter().map(move |n| vec![recording; *n]));
    let is_short = |cell: &Vec<&Waveform>| cell.len() as f64 * cell[0].duration_secs() <= MAX_AUDIO_SECS;
    all.filter(|cell| cell.len() == 1 || is_short(cell)).collect()
}

/// The middle of `runs` runs after one that is not counted.
pub(super) fn measure(
    transcriber: &Transcriber,
    recordings: &[&Waveform],
    options: &DecodeOptions,
    max_rows: usize,
    runs: u32,
) -> anyhow::Result<Cell> {
    let mut measured = Vec::new();
    for _ in 0..=runs {
        measured.push(transcribe_together(transcriber, recordings, options, max_rows)?);
    }
    measured.remove(0);
    let secs = middle(measured.iter().map(|run| run.secs).collect());
    let concurrency = recordings.len();
    let audio_secs: f64 = recordings.iter().map(|recording| recording.duration_secs()).sum();
    Ok(Cell {
        clip_secs: audio_secs / concurrency as f64,
        concurrency,
        secs,
        times_real_time: audio_secs / secs,
        first_result_secs: middle(measured.iter().map(|run| run.first_result_secs).collect()),
        n_tokens: middle(measured.iter().map(|run| run.n_tokens as f64 / concurrency as f64).collect()),
    })
}

/// What it took to transcribe recordings at once.
pub(in crate::cli) struct Run {
    pub(in crate::cli) secs: f64,
    first_result_secs: f64,
    n_tokens: usize,
}

/// Transcribes recordings at once.
pub(in crate::cli) fn transcribe_together(
    transcriber: &Transcriber,
    recordings: &[&Waveform],
    options: &DecodeOptions,
    max_rows: usize,
) -> anyhow::Result<Run> {
    let copies: Vec<Waveform> = recordings.iter().copied().cloned().collect();
    let mut worker = TranscriptionWorker::new(transcriber, max_rows);
    let began = Instant::now();
    let prepared: Vec<_> = copies
        .into_par_iter()
        .map(|recording| Transcription::prepare(transcriber, recording, options, &|| true))
        .collect();
    for (id, transcription) in (0..).zip(prepared) {
        worker.join(id, transcription?);
    }
    let mut first_results = vec![f64::NAN; recordings.len()];
    let (mut n_left, mut n_tokens, mut failure) = (recordings.len(), 0, None);
    while n_left > 0 {
        worker.step(&|_| true, &mut |id, update| {
            // A recording in which nothing was heard ends with its first result.
            let is_result = matches!(update, Update::Part(_) | Update::Done(_));
            let first = first_results.get_mut(id as usize).filter(|first| is_result && first.is_nan());
            if let Some(first) = first {
                *first = began.elapsed().as_secs_f64();
            }
            match update {
                Update::Progress(_) | Update::Part(_) => {}
                Update::Done(done) => {
                    n_left -= 1;
                    n_tokens += done.work.n_tokens;
                }
                Update::Failed(error) => {
                    n_left -= 1;
                    failure = Some(error);
                }
            }
        })?;
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Run {
            secs: began.elapsed().as_secs_f64(),
            first_result_secs: middle(first_results),
            n_tokens,
        }),
    }
}
