//! `speechd bench transcribe`: how fast a model runs here. Medians of repeated runs; no figure decides anything.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::Context;
use audio::Waveform;
use candle_core::Device;
use models::{
    Bundle, DecodeOptions, Transcriber,
    decode::{Attempt, Rules, Strategy, Thresholds, WindowRequest},
};
use serde::Serialize;

use super::middle;
use crate::{
    cli::{
        Usage,
        fetch::fetch,
        output::print,
        progress::{Style, bytes},
        recognizer::decode_audio,
    },
    config::{Config, Precision},
    process,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: speechd bench transcribe --model openai/whisper-base talk.mp3")]
pub(super) struct Args {
    /// A recording to transcribe whole; without one, a minute of synthetic sound
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// A model's directory, or its hub id: ORGANISATION/NAME[@REVISION]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: String,
    /// What the model computes in [default: auto]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Runs of which the median is shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    precision: String,
    weights_bytes: u64,
    threads: usize,
    runs: u32,
    load_secs: f64,
    features_secs_per_window: f64,
    encoder_secs_per_window: f64,
    window_secs: f64,
    decoder: Vec<DecoderSpeed>,
    recording_secs: f64,
    beam_size: usize,
    transcribe_secs: f64,
    times_real_time: f64,
    peak_memory_bytes: Option<u64>,
}

/// A step gives every row one token.
#[derive(Debug, Serialize)]
struct DecoderSpeed {
    batch: usize,
    tokens: usize,
    secs_per_step: f64,
    secs_per_token: f64,
    /// Time of the last quarter of the steps over that of the first: near 1 when decoding is linear in tokens.
    last_over_first_quarter: f64,
}

/// Tokens that every benchmark row writes; fewer if the model's context ends before.
const TOKENS: usize = 64;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Args { file, model, precision, runs, json, config } = args;
    let config = Config::load(config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let source = fetch(model, &config, Style::new(false))?;

    let precision = precision.unwrap_or(config.transcribe.precision).resolve();
    let load = || -> anyhow::Result<Transcriber> {
        Ok(Transcriber::load_in(precision, Bundle::from_source(source.clone())?, &Device::Cpu)?)
    };
    let load_secs = median(*runs, || load().map(drop))?;
    let transcriber = load()?;
    let waveform = match file {
        Some(path) => {
            let options = decode_audio(config.limits, audio::ChannelChoice::Mix);
            audio::decode_file(path, &options).with_context(|| path.display().to_string())?.waveform
        }
        None => synthetic(60.0),
    };
    let sample_rate = transcriber.feature_spec().sample_rate;
    let waveform = audio::resample(&waveform, sample_rate)?;
    let window = &waveform.samples
        [..waveform.samples.len().min((transcriber.window_secs() * f64::from(sample_rate)) as usize)];

    let features_secs = median(*runs, || {
        transcriber.window_features(window);
        Ok(())
    })?;
    let features = transcriber.window_features(window);
    let encoder_secs = median(*runs, || Ok(transcriber.encode(features.clone()).map(drop)?))?;
    let cross = transcriber.listen(&transcriber.encode(features)?)?;
    let decoder = [1, 8]
        .into_iter()
        .map(|batch| decoder_speed(&transcriber, &cross, batch, *runs))
        .collect::<anyhow::Result<_>>()?;

    // Without fallback: how often a model has to try again is its quality, not its speed.
    let language = first_language(&transcriber);
    let options = DecodeOptions { language, fallback: false, ..DecodeOptions::default() };
    let transcribe_secs = median((*runs).min(3), || {
        Ok(transcriber.transcribe(waveform.clone(), &options, &mut |_| {}).map(drop)?)
    })?;
    let recording_secs = waveform.duration_secs();
    let report = Report {
        model: model.clone(),
        precision: precision.to_string(),
        weights_bytes: Bundle::from_source(source)?.weights().n_bytes(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        runs: *runs,
        load_secs,
        features_secs_per_window: features_secs,
        encoder_secs_per_window: encoder_secs,
        window_secs: transcriber.window_secs(),
        decoder,
        recording_secs,
        beam_size: transcriber.beam_size(&options),
        transcribe_secs,
        times_real_time: recording_secs / transcribe_secs,
        peak_memory_bytes: process::peak_memory_bytes(),
    };
    print(&if *json { serde_json::to_string_pretty(&report)? + "\n" } else { describe(&report) })
}

fn first_language(transcriber: &Transcriber) -> Option<String> {
    transcriber.languages().next().map(str::to_owned)
}

/// Decodes `batch` rows of a fixed number of tokens: the end of text is suppressed.
fn decoder_speed(
    transcriber: &Transcriber,
    cross: &Arc<models::whisper::CrossCache>,
    batch: usize,
    runs: u32,
) -> anyhow::Result<DecoderSpeed> {
    let special = transcriber.special_tokens();
    let language = first_language(transcriber);
    let prompt = special.prompt(language.as_deref(), models::Task::Transcribe, false)?;
    let n_tokens = TOKENS.min(transcriber.whisper().config.max_target_positions - prompt.len());
    let mut seconds = Vec::new();
    for _ in 0..=runs {
        let mut session = transcriber.session();
        for id in 0..batch as u64 {
            let request = WindowRequest {
                cross: cross.clone(),
                prompt: prompt.clone(),
                start_index: 0,
                rules: Arc::new(Rules { suppress: vec![special.end], ..Rules::default() }),
                attempts: vec![Attempt { temperature: 0.0, strategy: Strategy::Greedy }],
                thresholds: Thresholds { compression_ratio: None, logprob: None, no_speech: None },
                max_new_tokens: n_tokens,
                seed: 0,
            };
            session.join(id, request)?;
        }
        let mut steps = Vec::with_capacity(n_tokens);
        while !session.is_empty() {
            let started = Instant::now();
            let step = session.step()?;
            steps.push(started.elapsed().as_secs_f64());
            for (_, result) in step.ended {
                result?;
            }
        }
        // The first step reads the prompt.
        steps.remove(0);
        seconds.push(steps);
    }
    // The first run warms caches up.
    seconds.remove(0);
    let mean = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len().max(1) as f64;
    let quarter = n_tokens / 4;
    let secs_per_step = middle(seconds.iter().map(|steps| mean(steps)).collect());
    let ratios = seconds.iter().map(|steps| mean(&steps[steps.len() - quarter..]) / mean(&steps[..quarter]));
    Ok(DecoderSpeed {
        batch,
        tokens: n_tokens,
        secs_per_step,
        secs_per_token: secs_per_step / batch as f64,
        last_over_first_quarter: middle(ratios.collect()),
    })
}

/// Median time of `runs` runs after one that is not counted.
fn median(runs: u32, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let started = Instant::now();
        work()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(middle(seconds))
}

/// Bursts of a harmonic tone with pauses: enough like speech to be cut into windows.
fn synthetic(duration_secs: f64) -> Waveform {
    let sample_rate = 16_000;
    let sample = |i: usize| {
        let secs = i as f64 / f64::from(sample_rate);
        let syllable = (std::f64::consts::TAU * 2.5 * secs).sin().max(0.0);
        let phrase = if secs % 6.0 < 5.0 { 1.0 } else { 0.0 };
        let voice: f64 =
            (1..12).map(|h| (std::f64::consts::TAU * 120.0 * f64::from(h) * secs).sin() / f64::from(h)).sum();
        (0.2 * phrase * syllable * voice) as f32
    };
    let n_samples = (duration_secs * f64::from(sample_rate)) as usize;
    Waveform { samples: (0..n_samples).map(sample).collect(), sample_rate }
}

fn describe(report: &Report) -> String {
    let ms = |secs: f64| format!("{:.2} ms", 1e3 * secs);
    let mut lines = vec![
        format!(
            "{} ({}), {}, {} threads, medians of {}",
            report.model,
            bytes(report.weights_bytes),
            report.precision,
            report.threads,
            report.runs
        ),
        format!("load              {}", ms(report.load_secs)),
        format!(
            "features          {} per window of {:.0} s",
            ms(report.features_secs_per_window),
            report.window_secs
        ),
        format!("encoder           {} per window", ms(report.encoder_secs_per_window)),
    ];
    for speed in &report.decoder {
        lines.push(format!(
            "decoder, batch {}  {} per step, {} per token ({} tokens; last quarter {:.2} x the first)",
            speed.batch,
            ms(speed.secs_per_step),
            ms(speed.secs_per_token),
            speed.tokens,
            speed.last_over_first_quarter
        ));
    }
    lines.push(format!(
        "transcribe        {:.1} s in {:.2} s: {:.1} x real time, beam of {}",
        report.recording_secs, report.transcribe_secs, report.times_real_time, report.beam_size
    ));
    let peak = report.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    lines.push(format!("peak memory       {peak}"));
    lines.join("\n") + "\n"
}
