//! What the models of a grid take on this machine: encoders of all depths, and decoders of all depths, each beside the shallowest of
//! the other.

use std::sync::atomic::{AtomicBool, Ordering};

use models::Transcriber;
use recipes::shape::ShapeRun;

use super::{
    super::{
        Usage,
        bench::parts::{decoder_speed, encoder_secs, median, synthetic},
        progress::{Items, Style},
    },
    grid::GridRun,
};
use crate::{compute::Compute, config::Config};

/// Adds times to the results of the runs that are timed. Returns what they computed in; None where it was stopped.
pub(super) fn time(
    runs: &[GridRun],
    results: &mut [ShapeRun],
    audio_secs: f64,
    n_repeats: u32,
    stop: &AtomicBool,
    style: Style,
) -> anyhow::Result<Option<String>> {
    let config = Config::load(None).map_err(|error| Usage(error.to_string()))?;
    let compute = Compute::of(&config.transcribe).map_err(|error| Usage(error.to_string()))?;
    let depths = |run: &GridRun| (run.config.model.encoder_layers, run.config.model.decoder_layers);
    let shallowest = runs
        .iter()
        .map(depths)
        .fold((usize::MAX, usize::MAX), |(e, d), (encoder, decoder)| (e.min(encoder), d.min(decoder)));
    // Times do not depend on seeds.
    let seed = runs.first().map(|run| run.config.seed);
    let is_timed = |run: &GridRun| {
        let (encoder, decoder) = depths(run);
        Some(run.config.seed) == seed && (encoder == shallowest.0 || decoder == shallowest.1)
    };
    let timed: Vec<_> = runs.iter().zip(results).filter(|(run, _)| is_timed(run)).collect();
    let mut progress = Items::start(style, "timing", Some(timed.len()));
    let each = || -> anyhow::Result<bool> {
        for (index, (run, result)) in timed.into_iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            progress.update(index);
            let transcriber = compute.load(run.model().as_path().into())?;
            let (encoder, decoder) = depths(run);
            let is_timed = (decoder == shallowest.1, encoder == shallowest.0);
            time_one(&transcriber, result, is_timed, audio_secs, n_repeats)?;
        }
        Ok(true)
    };
    let outcome = each();
    // A bar that stays would hide why it failed.
    progress.clear();
    Ok(outcome?.then(|| compute.precision().to_string()))
}

/// Times the encoder, the decoder, or both.
fn time_one(
    transcriber: &Transcriber,
    result: &mut ShapeRun,
    (with_encoder, with_decoder): (bool, bool),
    audio_secs: f64,
    n_repeats: u32,
) -> anyhow::Result<()> {
    let sound = audio::resample(&synthetic(audio_secs), transcriber.feature_spec().sample_rate)?;
    let features = transcriber.window_features(&sound.samples);
    result.audio_secs = Some(audio_secs);
    if with_encoder {
        let features_secs = median(n_repeats, || {
            transcriber.window_features(&sound.samples);
            Ok(())
        })?;
        result.encoder_secs = Some(features_secs + encoder_secs(transcriber, &features, n_repeats)?);
    }
    if with_decoder {
        let encoded = transcriber.encode(features)?; // (T, D)
        let listen_secs = median(n_repeats, || {
            transcriber.listen(&encoded)?;
            Ok(transcriber.device().synchronize()?)
        })?;
        let window = [transcriber.listen(&encoded)?];
        result.listen_secs = Some(listen_secs);
        result.token_secs = Some(decoder_speed(transcriber, &window, n_repeats, 0.0)?.secs_per_token);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use recipes::config::RunConfig;

    use super::*;

    #[test]
    fn a_signal_is_looked_at_before_each_model() {
        let config = RunConfig::load(None, &["data.train=[\"a.jsonl\"]".to_owned()]).expect("settings");
        let runs = [GridRun { name: "e1-d1-s0".to_owned(), dir: "nowhere".into(), config }];
        let mut results = [ShapeRun::default()];
        let mut time = |is_stopped: bool| {
            time(&runs, &mut results, 1.0, 1, &AtomicBool::new(is_stopped), Style::new(true))
        };
        assert_eq!(time(true).expect("stopped"), None);
        assert!(time(false).is_err());
        assert_eq!(results[0], ShapeRun::default());
    }
}
