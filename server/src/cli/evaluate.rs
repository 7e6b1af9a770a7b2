//! `speechd evaluate`: how good a model is on recordings whose texts are known.

pub(super) mod judge;
mod report;
mod speak;
pub(super) mod spoken;
pub(super) mod to_speak;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    slice,
    sync::atomic::{AtomicBool, Ordering},
};

use audio::DecodeAudio;
use clap::{ArgAction, ValueEnum};
use models::{BundleSource, DecodeOptions, DeviceChoice, Task, Transcriber};
use recipes::{
    analysis_page,
    data::{
        manifest::{Cut, Needs},
        read_cut,
    },
    evaluate::{Evaluation, Reference, Unheard, evaluate},
    metrics::{Analysis, BleuOptions, ChrfOptions, Report, Score, ScoreOptions, TerOptions},
    text::Normaliser,
};
use serde::Serialize;

use self::{
    report::{compare, costs, describe, hypotheses},
    speak::SpeakArgs,
};
use super::{
    FAILED, Usage,
    fetch::{fetch, fetch_draft, named_or_own},
    manifests::{manifests, read_cuts},
    output::{print, write_file},
    progress::{Items, Style},
    transcribe::parse_target,
};
use crate::{
    compute::Compute,
    config::{Config, Precision},
    registry::{Name, PRECISION_FILE},
};

const EXAMPLES: &str = "\
Examples:
  speechd evaluate data/test.jsonl --model ./my-whisper --language ps
  speechd data import fsdd --out fsdd && speechd evaluate fsdd/test.jsonl      # the model inside the program
  speechd evaluate data/test.jsonl --model openai/whisper-base --normaliser english --json
  speechd evaluate data/test.jsonl --model ./my-whisper --hypotheses heard.tsv
  speechd evaluate data/test.jsonl --model ./my-whisper --precision f32,bf16,int8      # what speed costs; --record keeps it
  speechd evaluate data/test.jsonl --model ./my-whisper --language ps --analysis errors/
  speechd evaluate data/test.jsonl --model ./my-canary --task translate --to ps      # BLEU, chrF and TER
  speechd evaluate speech/test.jsonl --model ./my-voice --task speak --judge ./words --steps 1,4,8 --analysis heard/

A word error rate means something only beside the name of its normaliser; Pashto's two are both told. Recordings without a text count apart: how many of them got one.
BLEU, chrF and TER are sacrebleu's, each beside its signature. A better translation has more of the first two and less TER, which may exceed 100.
With --task speak the model speaks each text in the voice that its row names as the speaker, and a recogniser, the judge, hears that and the
recording: its errors on the speech mean something only beside those on the recordings. A text that the model refuses counts as one of which
nothing was heard; what the judge cannot listen to counts on neither side. Cepstral distortion and pitch error are those of
the speech along the recording; they compare voices that were made here, and are no other program's figures.

Exit code: 0 all heard, 1 some could not be, 2 wrong arguments.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Manifests, or directories of them
    #[arg(required = true, value_name = "MANIFESTS")]
    manifests: Vec<PathBuf>,
    /// A model's directory, or its hub id: ORGANISATION/NAME[@REVISION] [default: as for transcribe or, with --task translate, translate]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// A smaller model of the same vocabulary that guesses what the model is going to write: the same text in fewer steps
    #[arg(long, value_name = "PATH_OR_ID")]
    draft: Option<String>,
    /// What the model computes on: cpu, cuda, cuda:1 ... [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// What the model computes in; with several, what the others change is told beside the first. Of speak, what the judge computes in: models
    /// that speak know f32 alone [default: auto]
    #[arg(long, value_enum, value_name = "PRECISION", value_delimiter = ',')]
    precision: Vec<Precision>,
    /// Language of recordings that state none, as a code
    #[arg(short, long)]
    language: Option<String>,
    /// What is done to texts before they are compared: none, basic, basic-remove-diacritics, basic-split-letters, english,
    /// ps-strict, ps-lenient; several give a table each [default: those of the language, else basic]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    normaliser: Vec<Normaliser>,
    /// Hypotheses kept by beam search; 1 is greedy [default: what the model asks for, mostly 1]
    #[arg(long, value_name = "N")]
    beam_size: Option<usize>,
    /// Decode again at rising temperatures when a result looks wrong, as transcribe does
    #[arg(long)]
    fallback: bool,
    /// What the model does: write what is said, translate it into the language that a recording states, or speak the texts [default: transcribe]
    #[arg(long, value_enum)]
    task: Option<TaskArg>,
    #[command(flatten)]
    speak: SpeakArgs,
    /// Language to translate into where a recording states none, as a code or an English name [default: English]
    #[arg(long, visible_alias = "to-language", value_name = "CODE", value_parser = parse_target)]
    to: Option<String>,
    /// What `--task translate` was called
    #[arg(long, hide = true, conflicts_with = "task")]
    translation: bool,
    /// Only the first N recordings
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Write what was heard into FILE: name, reference and hypothesis, separated by tabs
    #[arg(long, value_name = "FILE")]
    hypotheses: Option<PathBuf>,
    /// Write what is behind the errors into DIR: analysis.json, and analysis.html with the worst utterances to listen to; of speak, some speech
    /// beside its recordings
    #[arg(long, value_name = "DIR")]
    analysis: Option<PathBuf>,
    /// Keep what the precisions cost beside the model, where `speechd models inspect` shows it; the model must be a directory
    #[arg(long, requires = "precision", conflicts_with_all = ["translation", "limit", "fallback"])]
    record: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long, action = ArgAction::SetTrue)]
    quiet: bool,
}

/// What a model is evaluated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TaskArg {
    /// Text in the language that is spoken
    Transcribe,
    /// Text in another language
    Translate,
    /// Speech, through the recogniser --judge
    Speak,
}

#[derive(Serialize)]
struct Json<'a> {
    model: &'a str,
    /// Hypotheses that were kept.
    beam_size: usize,
    /// By each normaliser.
    reports: &'a [Report],
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    times_real_time: f64,
    false_text_rate: Option<f64>,
    /// What it computed in.
    precision: String,
    /// The same model in other precisions.
    others: &'a [Other],
}

/// What another precision changes.
#[derive(Serialize)]
struct Other {
    precision: String,
    reports: Vec<Report>,
    /// Share of the words, of both, that are the same in both.
    same_words: f64,
    times_real_time: f64,
    failed: Vec<Unheard>,
}

impl Args {
    fn task(&self) -> Task {
        if self.translation || self.task == Some(TaskArg::Translate) {
            Task::Translate
        } else {
            Task::Transcribe
        }
    }

    /// What no single flag can refuse.
    fn check(&self) -> Result<(), Usage> {
        self.speak.check(self)?;
        let message = match self.task() {
            Task::Transcribe if self.to.is_some() => {
                "--to is the language of a translation; add --task translate"
            }
            Task::Translate if self.record => {
                "--record keeps what precisions cost a transcript; leave --task translate out"
            }
            _ => return Ok(()),
        };
        Err(Usage(message.to_owned()))
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.check()?;
    if args.task == Some(TaskArg::Speak) {
        return speak::run(args);
    }
    let is_translation = args.task() == Task::Translate;
    let config = Config::load(args.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let model = named_or_own(args.model.as_deref().unwrap_or(&config.transcribe.model), args.task())?;
    let style = Style::new(args.quiet);
    let needs = Needs { text: false, transcript: !is_translation, ..Needs::default() };
    let mut cuts = read_cuts(&manifests(&args.manifests)?, needs, style)?;
    cuts.truncate(args.limit.unwrap_or(usize::MAX));

    let refuse = |error: models::Error| Usage(error.to_string());
    let device = args.device.unwrap_or(config.transcribe.device).open().map_err(refuse)?;
    let asked = match args.precision.as_slice() {
        [] => slice::from_ref(&config.transcribe.precision),
        asked => asked,
    };
    let mut computes: Vec<Compute> = Vec::new();
    for precision in asked {
        let compute = Compute::new(device.clone(), *precision).map_err(refuse)?;
        // Two names may mean the same here.
        if computes.iter().all(|known| known.precision() != compute.precision()) {
            computes.push(compute);
        }
    }
    let (first, others) = (&computes[0], &computes[1..]);
    let source = fetch(model, &config, style)?;
    let record = match (Name::parse(model)?, &source, args.record) {
        (_, _, false) => None,
        // Not into the cache, whose files are others'.
        (Name::Directory(_), BundleSource::Dir(path), true) => Some(path.join(PRECISION_FILE)),
        (_, _, true) => return Err(Usage(format!("--record: {model} is no model's directory")).into()),
    };
    // The configured one guesses for the configured model.
    let configured = if args.model.is_some() { "" } else { &config.transcribe.draft };
    let draft = fetch_draft(args.draft.as_deref().unwrap_or(configured), &config, style)?;
    let transcriber = first.load_with_draft(source.clone(), draft.clone())?;
    let first = first.precision();
    let options = DecodeOptions {
        beam_size: args.beam_size,
        fallback: args.fallback,
        language: args.language.clone(),
        task: args.task(),
        to_language: args.to.clone(),
        ..DecodeOptions::default()
    };
    // Where all cuts say what is spoken, that is what the model is told.
    let told = options
        .language
        .clone()
        .or_else(|| cuts.iter().find_map(|cut| cut.language.as_deref().map(str::to_owned)));
    let checked = DecodeOptions {
        language: told.filter(|_| transcriber.special_tokens().is_multilingual),
        to_language: options
            .to_language
            .clone()
            .or_else(|| cuts.iter().find_map(|cut| cut.target_language.as_deref().map(str::to_owned)))
            .filter(|_| is_translation),
        ..options.clone()
    };
    transcriber.check(&checked).map_err(|error| Usage(format!("model {model}: {error}")))?;
    let language = language_of(&cuts, args);
    let normalisers = match args.normaliser.as_slice() {
        [] => Normaliser::of_language(language.as_deref()),
        named => named,
    };
    let stop = AtomicBool::new(false);
    let evaluation = listen(&transcriber, &cuts, &options, is_translation, &stop, style);
    let beam_size = transcriber.beam_size(&options);
    drop(transcriber); // another may take its place
    let scores = scores(&evaluation, normalisers, is_translation)?;
    let reports = scores.iter().map(Score::report).collect::<Result<Vec<_>, _>>()?;
    let mut compared = Vec::with_capacity(others.len());
    for compute in others {
        let transcriber = compute.load_with_draft(source.clone(), draft.clone())?;
        let other = listen(&transcriber, &cuts, &options, is_translation, &stop, style);
        let scores = self::scores(&other, normalisers, is_translation)?;
        compared.push(Other {
            precision: compute.precision().to_string(),
            reports: scores.iter().map(Score::report).collect::<Result<_, _>>()?,
            same_words: evaluation.same_words(&other)?,
            times_real_time: other.speed(),
            failed: other.failed,
        });
    }
    if let Some(path) = &record {
        let costs = costs(args, beam_size, &evaluation, first, &reports, &compared);
        write_file(path, &(serde_json::to_string_pretty(&costs)? + "\n"))?;
    }
    if let Some(path) = &args.hypotheses {
        write_file(path, &hypotheses(&evaluation))?;
    }
    if let Some(dir) = &args.analysis {
        // By the language's own normaliser: one that folds letters has nothing to say about them.
        let own = self::scores(&evaluation, Normaliser::of_language(language.as_deref()), false)?;
        let Some((score, others)) = own.split_first() else {
            return Err(Usage(
                "nothing is said in these recordings: there are no errors to analyse".to_owned(),
            )
            .into());
        };
        let analysis = Analysis::new(score, language.as_deref(), others)?;
        write_analysis(dir, model, &analysis, &cuts)?;
        style.note(&format!("what is behind the errors: {}", dir.join("analysis.html").display()));
    }
    if args.json {
        let json = Json {
            model,
            beam_size,
            reports: &reports,
            times_real_time: evaluation.speed(),
            false_text_rate: evaluation.false_text_rate(),
            precision: first.to_string(),
            others: &compared,
            evaluation: &evaluation,
        };
        print(&(serde_json::to_string_pretty(&json)? + "\n"))?;
    } else {
        print(&(describe(&reports, &evaluation) + &compare(first, &compared)))?;
    }
    let is_complete = evaluation.failed.is_empty() && compared.iter().all(|other| other.failed.is_empty());
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What a model hears in some cuts: in all of them, unless `stop` says so before.
pub(super) fn listen(
    transcriber: &Transcriber,
    cuts: &[Cut],
    options: &DecodeOptions,
    is_translation: bool,
    stop: &AtomicBool,
    style: Style,
) -> Evaluation {
    let mut progress = Items::start(style, "listening", Some(cuts.len()));
    let is_told = transcriber.special_tokens().is_multilingual;
    let wanted = cuts.iter().take_while(|_| !stop.load(Ordering::Relaxed));
    let references = wanted.map(|cut| reference(cut, is_translation, is_told));
    let evaluation = evaluate(transcriber, references, options, &mut |n_done| progress.update(n_done));
    progress.clear();
    evaluation
}

/// The language of the texts: that was named, or that all cuts state.
fn language_of(cuts: &[Cut], args: &Args) -> Option<String> {
    let stated = |cut: &Cut| match args.task() {
        Task::Translate => {
            let named = args.to.as_deref().unwrap_or(models::TRANSLATED_TO);
            Some(cut.target_language.as_deref().unwrap_or(named).to_owned())
        }
        Task::Transcribe => cut.language.as_deref().or(args.language.as_deref()).map(str::to_owned),
    };
    let first = stated(cuts.first()?)?;
    cuts.iter().all(|cut| stated(cut).is_some_and(|language| language == first)).then_some(first)
}

/// The scores by each normaliser; translations are scored as they are besides.
pub(super) fn scores(
    evaluation: &Evaluation,
    normalisers: &[Normaliser],
    is_translation: bool,
) -> anyhow::Result<Vec<Score>> {
    let mut scores = Vec::new();
    for (index, normaliser) in normalisers.iter().enumerate() {
        // What no normaliser touches is told once.
        let is_translation = is_translation && index == 0;
        scores.extend(evaluation.score(&ScoreOptions {
            normaliser: *normaliser,
            bleu: is_translation.then(BleuOptions::default),
            chrf: is_translation.then(ChrfOptions::default),
            ter: is_translation.then(TerOptions::default),
            ..ScoreOptions::default()
        })?);
    }
    Ok(scores)
}

/// Writes `analysis.json` and `analysis.html`, with the worst utterances to listen to.
pub(super) fn write_analysis(
    dir: &Path,
    model: &str,
    analysis: &Analysis,
    cuts: &[Cut],
) -> anyhow::Result<()> {
    write_file(&dir.join("analysis.json"), &(serde_json::to_string_pretty(analysis)? + "\n"))?;
    let page = analysis_page(&format!("Errors of {model}"), analysis, &mut |utterance| {
        // Two corpora may have the same names in them, hardly of the same length.
        let is_it = |cut: &&Cut| {
            Some(&*cut.id) == utterance.name.as_deref()
                && (cut.duration_secs - utterance.duration_secs).abs() < 0.02
        };
        let cut = cuts.iter().find(is_it)?;
        read_cut(cut, &DecodeAudio::default()).ok()
    })?;
    write_file(&dir.join("analysis.html"), &page)
}

/// What a model should have written.
fn text_of(cut: &Cut, is_translation: bool) -> &str {
    if is_translation { cut.output_text() } else { &cut.text }
}

/// A cut as a recording of its own.
fn reference(cut: &Cut, is_translation: bool, is_told_language: bool) -> Result<Reference, Unheard> {
    let waveform = read_cut(cut, &DecodeAudio::default()).map_err(|error| Unheard::new(&cut.id, &error))?;
    let language = cut.language.as_deref().filter(|_| is_told_language).map(str::to_owned);
    let to_language = cut.target_language.as_deref().filter(|_| is_translation).map(str::to_owned);
    let text = text_of(cut, is_translation).to_owned();
    Ok(Reference { name: cut.id.to_string(), waveform, text, language, to_language })
}
