//! What the models of a grid take on this machine: encoders of all depths, and decoders of all depths, each beside the shallowest of
//! the other.

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

/// Adds times to the results of the runs that are timed. Returns what they computed in.
pub(super) fn time(
    runs: &[GridRun],
    results: &mut [ShapeRun],
    audio_secs: f64,
    n_repeats: u32,
    style: Style,
) -> anyhow::Result<String> {
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
    for (index, (run, result)) in timed.into_iter().enumerate() {
        progress.update(index);
        let transcriber = compute.load(run.model().as_path().into())?;
        let sound = audio::resample(&synthetic(audio_secs), transcriber.feature_spec().sample_rate)?;
        let features = transcriber.window_features(&sound.samples);
        let (encoder, decoder) = depths(run);
        result.audio_secs = Some(audio_secs);
        if decoder == shallowest.1 {
            let features_secs = median(n_repeats, || {
                transcriber.window_features(&sound.samples);
                Ok(())
            })?;
            result.encoder_secs = Some(features_secs + encoder_secs(&transcriber, &features, n_repeats)?);
        }
        if encoder == shallowest.0 {
            let encoded = transcriber.encode(features)?; // (T, D)
            let listen_secs = median(n_repeats, || {
                transcriber.listen(&encoded)?;
                Ok(transcriber.device().synchronize()?)
            })?;
            let window = [transcriber.listen(&encoded)?];
            result.listen_secs = Some(listen_secs);
            result.token_secs = Some(decoder_speed(&transcriber, &window, n_repeats, 0.0)?.secs_per_token);
        }
    }
    progress.clear();
    Ok(compute.precision().to_string())
}
