//! `speechd compare`: several models by what they hear in the same recordings and by the time that it takes them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::PathBuf,
    slice,
    sync::atomic::AtomicBool,
};

use anyhow::bail;
use audio::{DecodeAudio, Waveform};
use models::{Bundle, DecodeOptions, DeviceChoice, Transcriber};
use recipes::{
    ComparisonCard,
    data::{
        manifest::{Cut, Needs},
        read_cut_at,
    },
    evaluate::Evaluation,
    metrics::{Comparison, Interval, Rate, Report, Score, compare},
    shape::count_params,
    text::Normaliser,
};
use serde::Serialize;

use super::{
    Usage,
    bench::{middle, transcribe_together},
    evaluate::{listen, scores},
    fetch::fetch,
    manifests::{manifests, read_cuts},
    output::{print, table},
    progress::{Items, Style},
};
use crate::{
    compute::Compute,
    config::{Config, Precision},
    load::Spec,
};

const EXAMPLES: &str = "\
Examples:
  speechd compare long/test.jsonl --model runs/heavy/model --model runs/balanced/model
  speechd compare test.jsonl --model heavy=runs/heavy/model --model balanced=runs/balanced/model --batch 1,8 --card runs/heavy

All hear the same recordings, greedily and without a second attempt, as many at once as --batch says; error rates are those of the first
of these. The models are timed in turn, and medians are shown: times real time are seconds of audio over seconds from the
first recording's features to the last one's text. Nothing is guessed from earlier text: how often texts repeat themselves is not a model's speed. Differences of
error rates are to the first model, over the same utterances (paired bootstrap).";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Manifests, or directories of them
    #[arg(required = true, value_name = "MANIFESTS")]
    manifests: Vec<PathBuf>,
    /// A model's directory or hub id, and what the table calls it; the first is what the others are compared with
    #[arg(short, long, required = true, value_name = "[NAME=]PATH_OR_ID")]
    model: Vec<String>,
    /// Recordings that are transcribed at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,8", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Vec<u16>,
    /// Runs of which the median is shown
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Language of recordings that state none, as a code
    #[arg(short, long)]
    language: Option<String>,
    /// What is done to texts before they are compared [default: that of the language, else basic]
    #[arg(long, value_name = "NAME")]
    normaliser: Option<Normaliser>,
    /// What the models compute on: cpu, cuda, cuda:1 ... [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// What the models compute in [default: auto]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Only the first N recordings
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Put the table into the run card of the run in DIR, too; it stays there when the run goes on
    #[arg(long, value_name = "DIR")]
    card: Option<PathBuf>,
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

#[derive(Serialize)]
struct Json<'a> {
    device: String,
    precision: String,
    threads: usize,
    models: &'a [Compared],
}

/// A model, what it heard and how fast.
#[derive(Serialize)]
struct Compared {
    name: String,
    /// Parameters without embeddings.
    encoder_params: u64,
    decoder_params: u64,
    report: Report,
    /// Word and character error rates beside those of the first model.
    words: Option<Comparison>,
    characters: Option<Comparison>,
    speeds: Vec<Speed>,
}

#[derive(Serialize)]
struct Speed {
    batch: usize,
    secs: f64,
    times_real_time: f64,
    /// Beside the first model.
    times_as_fast: f64,
}

/// A model at work.
struct Candidate {
    name: String,
    transcriber: Transcriber,
    params: (u64, u64),
    evaluation: Evaluation,
    /// For each size of batches the times of all runs.
    secs: Vec<Vec<f64>>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut config = Config::load(args.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let settings = &mut config.transcribe;
    settings.device = args.device.unwrap_or(settings.device);
    settings.precision = args.precision.unwrap_or(settings.precision);
    let compute = Compute::of(settings).map_err(|error| Usage(error.to_string()))?;
    let style = Style::new(args.quiet);
    let specs = Spec::parse_all(&args.model, &[]).map_err(Usage)?;
    let card = args.card.as_deref().map(ComparisonCard::of_run).transpose()?;
    let needs = Needs { text: true, transcript: true, recording: true, ..Needs::default() };
    let mut cuts = read_cuts(&manifests(&args.manifests)?, needs, style)?;
    cuts.truncate(args.limit.unwrap_or(usize::MAX));
    if cuts.is_empty() {
        return Err(Usage("there is nothing to hear: the manifests are empty".to_owned()).into());
    }
    let normaliser = args.normaliser.unwrap_or_else(|| of_language(&cuts, args.language.as_deref()));

    let mut candidates = Vec::new();
    for Spec { name, source, .. } in specs {
        let bundle = Bundle::from_source(fetch(&source, &config, style)?)?;
        let params = count_params(&bundle);
        let transcriber = compute.load_bundle(bundle)?;
        let options = options(args, &transcriber, &cuts);
        transcriber.check(&options).map_err(|error| Usage(format!("model {name}: {error}")))?;
        let stop = AtomicBool::new(false);
        let evaluation = listen(&transcriber, &cuts, &options, false, &stop, style);
        if let Some(first) = evaluation.failed.first() {
            bail!("{name}: {} cannot be heard: {}", first.name, first.reason);
        }
        let secs = vec![Vec::new(); args.batch.len()];
        candidates.push(Candidate { name, transcriber, params, evaluation, secs });
    }
    time(args, &cuts, &mut candidates, style)?;
    let compared = compared(args, &candidates, normaliser)?;
    let rows = rows(&compared);
    if let Some(card) = card {
        card.put(&rows, &notes(args, &compute, &compared))?;
    }
    if args.json {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let device = DeviceChoice::of(compute.device()).to_string();
        let json = Json { device, precision: compute.precision().to_string(), threads, models: &compared };
        return print(&(serde_json::to_string_pretty(&json)? + "\n"));
    }
    print(&(table(&rows) + &notes(args, &compute, &compared).join("\n") + "\n"))
}

fn of_language(cuts: &[Cut], language: Option<&str>) -> Normaliser {
    let language = cuts[0].language.as_deref().or(language);
    Normaliser::of_language(language).first().copied().unwrap_or(Normaliser::Basic)
}

fn options(args: &Args, transcriber: &Transcriber, cuts: &[Cut]) -> DecodeOptions {
    let stated = cuts[0].language.as_deref().or(args.language.as_deref());
    DecodeOptions {
        language: stated.filter(|_| transcriber.special_tokens().is_multilingual).map(str::to_owned),
        beam_size: Some(1),
        fallback: false,
        draft_tokens: 0,
        ..DecodeOptions::default()
    }
}

/// Times the models in turn, so that what else the machine does meets all of them.
fn time(args: &Args, cuts: &[Cut], candidates: &mut [Candidate], style: Style) -> anyhow::Result<()> {
    let n_runs = (args.runs as usize + 1) * args.batch.len() * candidates.len();
    // Once for each rate at which a model hears.
    let mut recordings: BTreeMap<u32, Vec<Waveform>> = BTreeMap::new();
    for candidate in &*candidates {
        let sample_rate = candidate.transcriber.feature_spec().sample_rate;
        if let Entry::Vacant(place) = recordings.entry(sample_rate) {
            let read = |cut: &Cut| read_cut_at(cut, sample_rate, &DecodeAudio::default());
            place.insert(cuts.iter().map(read).collect::<Result<_, _>>()?);
        }
    }
    let mut progress = Items::start(style, "timing", Some(n_runs));
    let mut n_done = 0;
    for run in 0..=args.runs {
        for (index, batch) in args.batch.iter().enumerate() {
            for candidate in &mut *candidates {
                progress.update(n_done);
                n_done += 1;
                let options = options(args, &candidate.transcriber, cuts);
                let sample_rate = candidate.transcriber.feature_spec().sample_rate;
                let mut secs = 0.0;
                for some in recordings[&sample_rate].chunks(usize::from(*batch)) {
                    let some: Vec<&Waveform> = some.iter().collect();
                    secs += transcribe_together(&candidate.transcriber, &some, &options, usize::MAX)?.secs;
                }
                // The first run warms caches up.
                if run > 0 {
                    candidate.secs[index].push(secs);
                }
            }
        }
    }
    progress.clear();
    Ok(())
}

fn compared(args: &Args, candidates: &[Candidate], normaliser: Normaliser) -> anyhow::Result<Vec<Compared>> {
    let score = |candidate: &Candidate| -> anyhow::Result<Score> {
        let scores = scores(&candidate.evaluation, slice::from_ref(&normaliser), false)?;
        scores.into_iter().next().ok_or_else(|| anyhow::anyhow!("nothing is said in these recordings"))
    };
    let first = score(&candidates[0])?;
    let mut compared = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let score = score(candidate)?;
        let beside = if index > 0 { Some(compare(&first, &score)?) } else { None };
        let audio_secs = candidate.evaluation.audio_secs;
        let speeds = args.batch.iter().zip(candidate.secs.iter().zip(&candidates[0].secs));
        let speeds = speeds.map(|(batch, (secs, of_first))| {
            let (secs, of_first) = (middle(secs.clone()), middle(of_first.clone()));
            Speed {
                batch: usize::from(*batch),
                secs,
                times_real_time: audio_secs / secs,
                times_as_fast: of_first / secs,
            }
        });
        compared.push(Compared {
            name: candidate.name.clone(),
            encoder_params: candidate.params.0,
            decoder_params: candidate.params.1,
            report: score.report()?,
            words: beside.map(|(words, _)| words),
            characters: beside.map(|(_, characters)| characters),
            speeds: speeds.collect(),
        });
    }
    Ok(compared)
}

fn rows(compared: &[Compared]) -> Vec<[String; 7]> {
    let heading = [
        "MODEL",
        "ENCODER",
        "DECODER",
        "CER",
        "CER TO THE FIRST",
        "WER",
        "X REAL TIME BY BATCH (TIMES THE FIRST)",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    for model in compared {
        let speeds = model.speeds.iter().map(|speed| {
            format!("{}: {:.1} ({:.2})", speed.batch, speed.times_real_time, speed.times_as_fast)
        });
        rows.push([
            model.name.clone(),
            millions(model.encoder_params),
            millions(model.decoder_params),
            rate(&model.report.characters),
            model.characters.as_ref().map_or_else(|| "-".to_owned(), difference),
            rate(&model.report.words),
            speeds.collect::<Vec<_>>().join(", "),
        ]);
    }
    rows
}

fn notes(args: &Args, compute: &Compute, compared: &[Compared]) -> Vec<String> {
    let Some(first) = compared.first() else { return Vec::new() };
    let report = &first.report;
    let n_chars = report.characters.errors.n_reference as f64 / report.n_utterances.max(1) as f64;
    vec![format!(
        "{} utterances of {:.1} s and {n_chars:.1} characters on average; normaliser {}; {:.0} % intervals; greedy; {} in {}, {} threads, medians of {}",
        report.n_utterances,
        report.duration_secs / report.n_utterances.max(1) as f64,
        report.normaliser,
        100.0 * report.confidence,
        DeviceChoice::of(compute.device()),
        compute.precision(),
        std::thread::available_parallelism().map_or(1, usize::from),
        args.runs
    )]
}

fn millions(n_params: u64) -> String {
    format!("{:.2} M", n_params as f64 / 1e6)
}

fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

fn rate(rate: &Rate) -> String {
    let value = rate.rate.map_or_else(|| "-".to_owned(), |rate| percent(rate) + " %");
    match rate.interval {
        Some(interval) => format!("{value} ({})", span(&interval)),
        None => value,
    }
}

fn difference(comparison: &Comparison) -> String {
    let points = format!("{:+.2}", 100.0 * comparison.difference);
    match comparison.interval {
        Some(interval) => format!("{points} ({})", span(&interval)),
        None => points,
    }
}

fn span(interval: &Interval) -> String {
    format!("{} to {}", percent(interval.low), percent(interval.high))
}
