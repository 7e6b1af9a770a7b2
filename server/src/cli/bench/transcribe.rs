//! `speechd bench transcribe`: how fast a model runs here, in its parts and from end to end. Medians of repeated runs; no figure
//! decides anything.

use std::path::PathBuf;

use anyhow::Context;
use models::{
    Bundle, DecodeOptions, DeviceChoice, Transcriber,
    kernels::{peak_bytes_per_sec, peak_ops_per_sec},
};
use serde::Serialize;

use super::{
    decoder::{DecoderCost, decoder_cost},
    draft::{self, DraftSpeed},
    end_to_end::{Cell, cells, measure},
    parts::{DecoderSpeed, TOKENS, decoder_speed, encoder_secs, first_language, median, synthetic},
};
use crate::{
    cli::{
        Usage,
        fetch::{fetch, fetch_draft},
        output::print,
        progress::{Items, Style, bytes},
        recognizer::decode_audio,
    },
    compute::Compute,
    config::{Config, Precision},
    process,
};

const EXAMPLES: &str = "\
Examples:
  speechd bench transcribe --model openai/whisper-base
  speechd bench transcribe --model openai/whisper-base talk.mp3 --concurrency 1,4
  speechd bench transcribe --model ./my-whisper --precision int8 --lengths 5 --json

From end to end a window writes 64 tokens at most, at temperature 0 and without a second attempt; several recordings of more than 32 minutes together are left out. Its figures are medians of three runs at most.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A recording to transcribe from end to end, as long as it is; without one, synthetic sound of several lengths
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// A model's directory, or its hub id: ORGANISATION/NAME[@REVISION]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: String,
    /// A smaller model that guesses what the model writes of FILE: its first window is written with and without the guesses
    #[arg(long, value_name = "PATH_OR_ID", requires = "file")]
    draft: Option<String>,
    /// What the model computes on: cpu, cuda, cuda:1 ... [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// What the model computes in [default: auto]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Runs of which the median is shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Lengths of the synthetic recordings that are transcribed from end to end
    #[arg(long, value_name = "SECS", value_delimiter = ',', conflicts_with = "file", default_value = "2,5,15,30,600", value_parser = clap::value_parser!(u32).range(1..=36_000))]
    lengths: Vec<u32>,
    /// Recordings that are transcribed at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,8,64", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Vec<u16>,
    /// Lengths of synthetic recordings that are all transcribed at once, instead of one length after the other
    #[arg(long, value_name = "SECS", value_delimiter = ',', conflicts_with_all = ["file", "lengths", "concurrency"])]
    clips: Vec<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    device: String,
    precision: String,
    weights_bytes: u64,
    threads: usize,
    runs: u32,
    load_secs: f64,
    features_secs_per_window: f64,
    encoder_secs_per_window: f64,
    /// Of what the processor multiplies in this precision within its first-level caches.
    encoder_share_of_peak: Option<f64>,
    window_secs: f64,
    /// Of recordings that are shorter than a window, where the model hears them as long as they are.
    encoder_by_length: Vec<EncoderSpeed>,
    /// None where there is no decoder.
    decoder: Vec<DecoderSpeed>,
    /// Where the decoder has two blocks or more.
    decoder_cost: Option<DecoderCost>,
    draft: Option<DraftSpeed>,
    beam_size: usize,
    end_to_end: Vec<Cell>,
    peak_memory_bytes: Option<u64>,
}

/// What a recording of some length costs.
#[derive(Debug, Serialize)]
struct EncoderSpeed {
    clip_secs: f64,
    secs: f64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Args {
        file,
        model,
        draft,
        device,
        precision,
        runs,
        lengths,
        concurrency,
        clips,
        json,
        quiet,
        config,
    } = args;
    let mut config = Config::load(config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let settings = &mut config.transcribe;
    settings.device = device.unwrap_or(settings.device);
    settings.precision = precision.unwrap_or(settings.precision);
    let compute = Compute::of(settings).map_err(|error| Usage(error.to_string()))?;
    let source = fetch(model, &config, Style::new(*quiet))?;
    let draft_source = fetch_draft(draft.as_deref().unwrap_or_default(), &config, Style::new(*quiet))?;

    let load_secs = median(*runs, || {
        compute.load(source.clone())?;
        // A GPU answers before it has computed.
        Ok(compute.device().synchronize()?)
    })?;
    let transcriber = compute.load(source.clone())?;
    let (device, precision) = (compute.device(), compute.precision());
    let sample_rate = transcriber.feature_spec().sample_rate;
    let recordings = match file {
        Some(path) => {
            let options = decode_audio(config.limits, audio::ChannelChoice::Mix);
            let decoded = audio::decode_file(path, &options).with_context(|| path.display().to_string())?;
            vec![audio::resample(&decoded.waveform, sample_rate)?]
        }
        None => {
            let lengths: Vec<f64> = lengths.iter().map(|secs| f64::from(*secs)).collect();
            let lengths = if clips.is_empty() { &lengths } else { clips };
            if let Some(secs) = lengths.iter().find(|secs| !(0.1..=36_000.0).contains(*secs)) {
                return Err(Usage(format!("--clips: {secs} is not between 0.1 and 36000 seconds")).into());
            }
            let recording = |secs: &f64| audio::resample(&synthetic(*secs), sample_rate);
            lengths.iter().map(recording).collect::<Result<_, _>>()?
        }
    };
    let window = match file {
        Some(_) => recordings[0].clone(),
        None => audio::resample(&synthetic(transcriber.window_secs()), sample_rate)?,
    };
    let window = &window.samples
        [..window.samples.len().min((transcriber.window_secs() * f64::from(sample_rate)) as usize)];

    let features_secs = median(*runs, || {
        transcriber.window_features(window);
        Ok(())
    })?;
    let features = transcriber.window_features(window);
    let encoder_secs = encoder_secs(&transcriber, &features, *runs)?;
    let architecture = transcriber.architecture();
    let (encoder_products, encoder_rest) = architecture.encoder_ops(features.n_frames);
    let encoded = transcriber.encode(features.clone())?;
    let encoder_by_length =
        if transcriber.is_variable_length() { encoder_by_length(&transcriber, *runs)? } else { Vec::new() };
    let has_decoder = transcriber.model().decoder().is_ok();
    let mut decoder = [1, 8]
        .into_iter()
        .filter(|_| has_decoder)
        .map(|batch| {
            // Each row listens to a window of its own, as those of several recordings do.
            let windows =
                (0..batch).map(|_| Ok(transcriber.listen(&encoded)?)).collect::<anyhow::Result<Vec<_>>>()?;
            let (weights, window) = architecture.step_numbers(encoded.dims2()?.0);
            let n_bytes = (weights + batch as f64 * window) * precision.n_bytes() as f64;
            decoder_speed(&transcriber, &windows, *runs, n_bytes)
        })
        .collect::<anyhow::Result<Vec<DecoderSpeed>>>()?;
    let decoder_cost = match decoder.first() {
        Some(speed) => decoder_cost(&compute, &source, features.clone(), speed.secs_per_token, *runs)?,
        None => None,
    };

    // Without fallback: how often a model has to try again is its quality, not its speed.
    let language = first_language(&transcriber);
    let max_new_tokens = Some(TOKENS.min(transcriber.architecture().max_target_positions() / 2));
    // Without guesses: how often a text repeats itself is not the program's speed either, and random weights do nothing else.
    let draft_tokens = 0;
    let options =
        DecodeOptions { language, fallback: false, max_new_tokens, draft_tokens, ..DecodeOptions::default() };
    let cells = if clips.is_empty() {
        let concurrency: Vec<usize> = concurrency.iter().map(|n| usize::from(*n)).collect();
        cells(&recordings, &concurrency)
    } else {
        vec![recordings.iter().collect()]
    };
    let mut progress = Items::start(Style::new(*quiet), "end to end", Some(cells.len()));
    let mut end_to_end = Vec::new();
    for (i, recordings) in cells.iter().enumerate() {
        progress.update(i);
        let max_rows = config.serve.max_batch_rows;
        end_to_end.push(measure(&transcriber, recordings, &options, max_rows, (*runs).min(3))?);
    }
    progress.clear();
    // Before what the machine can do is measured, which takes memory of its own.
    let peak_memory_bytes = process::peak_memory_bytes();
    let mut encoder_share_of_peak = None;
    if device.is_cpu() {
        let least_secs = encoder_products / peak_ops_per_sec(precision)
            + encoder_rest / peak_ops_per_sec(precision.for_activations());
        encoder_share_of_peak = Some(least_secs / encoder_secs);
        let bytes_per_sec = peak_bytes_per_sec();
        for speed in &mut decoder {
            speed.share_of_bandwidth = Some(speed.bytes_per_step / speed.secs_per_step / bytes_per_sec);
        }
    }
    // A model more: after the memory of the one was measured.
    let drafted = match (draft, draft_source) {
        (Some(draft), Some(draft_source)) => {
            let most = transcriber.architecture().max_target_positions() / 2;
            let transcriber = compute.load_with_draft(source.clone(), Some(draft_source))?;
            draft::measure((&transcriber, draft), &features, most, *runs)?
        }
        _ => None,
    };
    let report = Report {
        model: model.clone(),
        device: DeviceChoice::of(device).to_string(),
        precision: precision.to_string(),
        weights_bytes: Bundle::from_source(source)?.weights().n_bytes(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        runs: *runs,
        load_secs,
        features_secs_per_window: features_secs,
        encoder_secs_per_window: encoder_secs,
        encoder_share_of_peak,
        window_secs: transcriber.window_secs(),
        encoder_by_length,
        decoder,
        decoder_cost,
        draft: drafted,
        beam_size: transcriber.beam_size(&options),
        end_to_end,
        peak_memory_bytes,
    };
    print(&if *json { serde_json::to_string_pretty(&report)? + "\n" } else { describe(&report) })
}

/// What recordings of a few lengths take in the encoder.
fn encoder_by_length(transcriber: &Transcriber, runs: u32) -> anyhow::Result<Vec<EncoderSpeed>> {
    let lengths = [3.0, 10.0, 30.0].into_iter().filter(|secs| *secs <= transcriber.window_secs());
    let of_length = |clip_secs: f64| {
        let recording = audio::resample(&synthetic(clip_secs), transcriber.feature_spec().sample_rate)?;
        let features = transcriber.window_features(&recording.samples);
        Ok(EncoderSpeed { clip_secs, secs: encoder_secs(transcriber, &features, runs)? })
    };
    lengths.map(of_length).collect()
}

fn describe(report: &Report) -> String {
    let ms = |secs: f64| format!("{:.2} ms", 1e3 * secs);
    let share = |share: Option<f64>, of: &str| {
        share.map_or_else(String::new, |share| format!(", {:.0} % of {of}", 100.0 * share))
    };
    let mut lines = vec![
        format!(
            "{} ({}), {} in {}, {} threads, medians of {}",
            report.model,
            bytes(report.weights_bytes),
            report.device,
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
        format!(
            "encoder           {} per window{}",
            ms(report.encoder_secs_per_window),
            share(report.encoder_share_of_peak, "the arithmetic that caches allow")
        ),
    ];
    for speed in &report.encoder_by_length {
        lines.push(format!("encoder, {:4.0} s   {}", speed.clip_secs, ms(speed.secs)));
    }
    for speed in &report.decoder {
        lines.push(format!(
            "decoder, batch {}  {} per step, {} per token{} ({} tokens; last quarter {:.2} x the first)",
            speed.batch,
            ms(speed.secs_per_step),
            ms(speed.secs_per_token),
            share(speed.share_of_bandwidth, "the memory's bandwidth"),
            speed.tokens,
            speed.last_over_first_quarter
        ));
    }
    if let Some(cost) = &report.decoder_cost {
        lines.push(format!(
            "decoder's cost    {} per token, and {} per token and layer (by {} and {} layers)",
            ms(cost.secs_per_token),
            ms(cost.secs_per_token_and_layer),
            cost.layers[0],
            cost.layers[1]
        ));
    }
    if let Some(draft) = &report.draft {
        let encoder =
            if draft.has_own_encoder { "with an encoder of its own" } else { "with the model's encoder" };
        let same = if draft.is_identical { "the same" } else { "other" };
        lines.push(format!(
            "draft             {} {encoder}: {} tokens in {} steps, {} without; {same} tokens; {}, {} without and {} by lookup, {:.2} x as fast",
            draft.draft,
            draft.tokens,
            draft.steps,
            draft.steps_without,
            ms(draft.secs),
            ms(draft.secs_without),
            ms(draft.secs_by_lookup),
            draft.times_as_fast
        ));
    }
    let beam = report.beam_size;
    lines.push(format!("end to end, beam of {beam}: seconds, times real time, seconds to the first text"));
    for cell in &report.end_to_end {
        lines.push(format!(
            "{:6.1} s, {:3} at once  {:8.3} s  {:7.1} x  {:8.3} s  ({:.0} tokens each)",
            cell.clip_secs,
            cell.concurrency,
            cell.secs,
            cell.times_real_time,
            cell.first_result_secs,
            cell.n_tokens
        ));
    }
    let peak = report.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    lines.push(format!("peak memory       {peak}"));
    lines.join("\n") + "\n"
}
