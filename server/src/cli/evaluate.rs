//! `speechd evaluate`: how good a model is on recordings whose texts are known.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use audio::DecodeAudio;
use candle_core::Device;
use clap::ArgAction;
use models::{Bundle, DecodeOptions, Task, Transcriber};
use recipes::{
    data::{
        manifest::{self, Cut, Needs},
        read_cut,
    },
    evaluate::{Evaluation, Reference, Unheard, evaluate},
    metrics::{BleuOptions, ChrfOptions, ScoreOptions},
    text::Normaliser,
};
use serde::Serialize;

use super::{
    FAILED, Usage,
    fetch::fetch,
    manifests::manifests,
    output::{print, write_file},
    progress::{Items, Style},
};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  speechd evaluate data/test.jsonl --model ./my-whisper --language ps
  speechd evaluate data/test.jsonl --model openai/whisper-base --normaliser english --json
  speechd evaluate data/test.jsonl --model ./my-whisper --hypotheses heard.tsv

A word error rate means something only beside the name of its normaliser. Recordings without a text count apart: how many of them got one.

Exit code: 0 all heard, 1 some could not be, 2 wrong arguments.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Manifests, or directories of them
    #[arg(required = true, value_name = "MANIFESTS")]
    manifests: Vec<PathBuf>,
    /// A model's directory, or its hub id: ORGANISATION/NAME[@REVISION] [default: as for transcribe]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// Language of recordings that state none, as a code
    #[arg(short, long)]
    language: Option<String>,
    /// What is done to texts before they are compared: none, basic, basic-remove-diacritics, basic-split-letters, english
    #[arg(long, value_name = "NAME", default_value = "basic")]
    normaliser: Normaliser,
    /// Hypotheses kept by beam search; 1 is greedy
    #[arg(long, value_name = "N", default_value_t = 1)]
    beam_size: usize,
    /// Decode again at rising temperatures when a result looks wrong, as transcribe does
    #[arg(long)]
    fallback: bool,
    /// Translate into English, and take BLEU and chrF too
    #[arg(long)]
    translation: bool,
    /// Only the first N recordings
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Write what was heard into FILE: name, reference and hypothesis, separated by tabs
    #[arg(long, value_name = "FILE")]
    hypotheses: Option<PathBuf>,
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

#[derive(Serialize)]
struct Json<'a> {
    model: &'a str,
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    times_real_time: f64,
    false_text_rate: Option<f64>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(args.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let configured = Some(config.transcribe.model.as_str()).filter(|model| !model.is_empty());
    let Some(model) = args.model.as_deref().or(configured) else {
        return Err(Usage("no model: give --model a directory or a hub id".to_owned()).into());
    };
    let style = Style::new(args.quiet);
    let mut cuts = Vec::new();
    let needs = Needs { text: false, ..Needs::default() };
    for path in manifests(&args.manifests)? {
        let read = manifest::read(&path, needs)?;
        read.rejected.iter().for_each(|rejected| style.note(&format!("left out: {rejected}")));
        cuts.extend(read.cuts);
    }
    cuts.truncate(args.limit.unwrap_or(usize::MAX));

    let transcriber = Transcriber::load(Bundle::from_source(fetch(model, &config, style)?)?, &Device::Cpu)?;
    let options = DecodeOptions {
        beam_size: args.beam_size,
        fallback: args.fallback,
        language: args.language.clone(),
        task: if args.translation { Task::Translate } else { Task::Transcribe },
        ..DecodeOptions::default()
    };
    transcriber.check(&options).map_err(|error| Usage(format!("model {model}: {error}")))?;
    let score = ScoreOptions {
        normaliser: args.normaliser,
        bleu: args.translation.then(BleuOptions::default),
        chrf: args.translation.then(ChrfOptions::default),
        ..ScoreOptions::default()
    };
    let mut progress = Items::start(style, "listening", Some(cuts.len()));
    let is_told = transcriber.special_tokens().is_multilingual;
    let references = cuts.iter().map(|cut| reference(cut, text_of(cut, args.translation), is_told));
    let evaluation =
        evaluate(&transcriber, references, &options, score, &mut |n_done| progress.update(n_done));
    progress.clear();
    let evaluation = evaluation?;
    if let Some(path) = &args.hypotheses {
        write_file(path, &hypotheses(&cuts, &evaluation, args.translation))?;
    }
    if args.json {
        let json = Json {
            model,
            times_real_time: evaluation.speed(),
            false_text_rate: evaluation.false_text_rate(),
            evaluation: &evaluation,
        };
        print(&(serde_json::to_string_pretty(&json)? + "\n"))?;
    } else {
        print(&describe(&evaluation))?;
    }
    Ok(if evaluation.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What a model should have written.
fn text_of(cut: &Cut, is_translation: bool) -> &str {
    if is_translation { cut.output_text() } else { &cut.text }
}

/// A cut as a recording of its own.
fn reference(cut: &Cut, text: &str, is_told_language: bool) -> Result<Reference, Unheard> {
    let waveform = read_cut(cut, &DecodeAudio::default()).map_err(|error| Unheard::new(&cut.id, &error))?;
    let language = cut.language.as_deref().filter(|_| is_told_language).map(str::to_owned);
    Ok(Reference { name: cut.id.to_string(), waveform, text: text.to_owned(), language })
}

fn describe(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    if let Some(report) = &evaluation.report {
        let _ = writeln!(text, "{report}");
    }
    if let Some(rate) = evaluation.false_text_rate() {
        let _ = writeln!(
            text,
            "Nothing said: {} recordings, {} of them got a text nevertheless ({:.2} %)",
            evaluation.n_silent,
            evaluation.n_silent_with_text,
            100.0 * rate
        );
    }
    let _ = writeln!(
        text,
        "Speed: {:.1} s of audio in {:.1} s, {:.1} x real time",
        evaluation.audio_secs,
        evaluation.busy_secs,
        evaluation.speed()
    );
    for Unheard { name, reason } in &evaluation.failed {
        let _ = writeln!(text, "Not decoded: {name}: {reason}");
    }
    text
}

fn hypotheses(cuts: &[Cut], evaluation: &Evaluation, is_translation: bool) -> String {
    let mut rows = String::from("name\treference\thypothesis\n");
    let plain = |text: &str| text.replace(['\t', '\n'], " ");
    let mut cuts = cuts.iter();
    // Both are in the manifest's order; what could not be decoded is in the cuts alone.
    for (name, hypothesis) in &evaluation.hypotheses {
        if let Some(cut) = cuts.find(|cut| *cut.id == **name) {
            let _ = writeln!(
                rows,
                "{name}\t{}\t{}",
                plain(text_of(cut, is_translation)),
                plain(hypothesis.trim())
            );
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn hypotheses_stand_beside_their_references_whatever_failed() {
        let cut = |id: &str, text: &str| Cut {
            id: id.into(),
            audio: Path::new("a.wav").into(),
            start_secs: 0.0,
            duration_secs: 1.0,
            channel: None,
            text: text.into(),
            language: None,
            speaker: None,
            target_text: None,
            target_language: None,
            extra: None,
        };
        let cuts = [cut("a", "one"), cut("b", "two"), cut("c", "three\tfour")];
        let evaluation = Evaluation {
            report: None,
            n_silent: 0,
            n_silent_with_text: 0,
            busy_secs: 1.0,
            audio_secs: 3.0,
            hypotheses: vec![("a".to_owned(), " one".to_owned()), ("c".to_owned(), " three".to_owned())],
            failed: vec![Unheard { name: "b".to_owned(), reason: "is not there".to_owned() }],
        };
        let rows = "name\treference\thypothesis\na\tone\tone\nc\tthree four\tthree\n";
        assert_eq!(hypotheses(&cuts, &evaluation, false), rows);
        assert!(describe(&evaluation).contains("Not decoded: b: is not there"));
    }
}
