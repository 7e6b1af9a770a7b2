//! `speechd data import`: a corpus in, a manifest for each split out.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use parking_lot::Mutex;
use recipes::prepare::{self, Layout, Options, Prepared, REJECTED_FILE};

use super::{
    super::{
        output::{print, table},
        progress::{Items, Style},
    },
    by_kind, by_split, check_out,
};

const EXAMPLES: &str = "\
Examples:
  speechd data import cv-corpus-21.0/ps --out data/
  speechd data import recordings/ --language ps --out data/          # a.wav with a.txt beside it
  speechd data import cuts_train.jsonl.gz --audio-root ~/corpora --out data/
  SPEECHD_DATA=~/corpora speechd data import fsdd --out data/        # by name
  speechd data import opus/ --language en --out pairs/               # train.en beside train.ps: texts alone
  speechd data import fsdd --out theo/ --leave-out-speaker theo      # how well are new speakers understood?

Layouts:
  common_voice  clips/ beside train.tsv, dev.tsv, test.tsv or validated.tsv
  audiofolder   metadata.csv, .tsv or .jsonl, or another table that names its columns, with file_name or path and transcription,
                text or sentence; or a .txt beside each recording
  ljspeech      metadata.csv of id|text|normalised text, recordings in wavs/
  kaldi         wav.scp and text, perhaps segments, utt2spk, utt2lang; or folders of them such as train/
  webdataset    .tar shards: a.flac beside a.txt or a.json; recordings are unpacked into OUT/audio
  parquet       an `audio` column with bytes, as Hugging Face's data sets come; unpacked too (builds with the feature `parquet`)
  jsonl         manifests of NeMo or of Lhotse's cuts, compressed (.gz) or not; a cut with several segments becomes several
  fsdd          recordings/ of digit_speaker_index.wav
  esc           ESC-10 and ESC-50: '001 - Dog bark'/fold-clip-take.ogg, sounds without words
  parallel_text texts with translations and no recordings: en-ps.tsv of two columns, or train.en beside train.ps, line by line

A row that cannot be used is skipped, counted, and listed in rejected.tsv with its file, line and reason.
Exit code: 0 done, 1 nothing can be used, 2 wrong arguments.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A corpus: a folder, a manifest, or a name: fsdd, esc10, ljspeech, common_voice, tico19, or a folder below SPEECHD_DATA
    #[arg(value_name = "CORPUS")]
    corpus: PathBuf,
    /// Write the manifests into DIR
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// How the corpus lies in its folder
    #[arg(long, value_enum, default_value_t = LayoutArg::Auto)]
    layout: LayoutArg,
    /// Language, where the corpus does not state it; of Common Voice with several languages, the one to take; of train.en beside
    /// train.ps, the one that is translated
    #[arg(short, long, value_name = "CODE")]
    language: Option<String>,
    /// Share of train that becomes dev when there is none: whole speakers where there are enough; 0 makes none
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    split_dev: f64,
    /// Share of train that becomes test when there is none
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    split_test: f64,
    /// Make all recordings of this speaker the test set, and no others
    #[arg(long, value_name = "NAME")]
    leave_out_speaker: Option<String>,
    /// Folder from which paths in manifests count [default: the manifest's]
    #[arg(long, value_name = "DIR")]
    audio_root: Option<PathBuf>,
    /// Replace manifests that are there
    #[arg(long)]
    overwrite: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// `Option<Layout>` as a flag.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum LayoutArg {
    /// Look what is there
    Auto,
    /// Mozilla Common Voice
    CommonVoice,
    /// Hugging Face's audiofolder
    #[value(name = "audiofolder")]
    AudioFolder,
    /// LJSpeech
    #[value(name = "ljspeech")]
    LjSpeech,
    /// Kaldi's data directories
    Kaldi,
    /// Tar files with recordings and texts
    #[value(name = "webdataset")]
    WebDataset,
    /// Parquet with recordings inside
    Parquet,
    /// Manifests of NeMo or Lhotse
    Jsonl,
    /// Free Spoken Digit Dataset
    Fsdd,
    /// ESC-10, ESC-50
    Esc,
    /// Texts and their translations
    ParallelText,
}

impl LayoutArg {
    fn layout(self) -> Option<Layout> {
        match self {
            Self::Auto => None,
            Self::CommonVoice => Some(Layout::CommonVoice),
            Self::AudioFolder => Some(Layout::AudioFolder),
            Self::LjSpeech => Some(Layout::LjSpeech),
            Self::Kaldi => Some(Layout::Kaldi),
            Self::WebDataset => Some(Layout::WebDataset),
            Self::Parquet => Some(Layout::Parquet),
            Self::Jsonl => Some(Layout::Jsonl),
            Self::Fsdd => Some(Layout::Fsdd),
            Self::Esc => Some(Layout::Esc),
            Self::ParallelText => Some(Layout::ParallelText),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=0.5).contains(share))
        .ok_or_else(|| "expected 0 to 0.5".to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    // Whether there are texts alone is known once they are read.
    check_out(&args.out, args.overwrite, false)?;
    let style = Style::new(args.quiet);
    let path = prepare::locate(&args.corpus)?;
    let options = Options {
        layout: args.layout.layout(),
        language: args.language.clone(),
        dev_fraction: args.split_dev,
        test_fraction: args.split_test,
        leave_out_speaker: args.leave_out_speaker.clone(),
        audio_root: args.audio_root.clone(),
        unpack_into: Some(args.out.join("audio")),
    };
    let progress = Mutex::new(Items::start(style, "measuring", Some(0)));
    let prepared = prepare::prepare(&path, &options, &|done, total| progress.lock().update_of(done, total));
    progress.lock().clear();
    let prepared = prepared?;
    let written = prepare::write(&prepared.splits, &prepared.rejected, &args.out, args.overwrite)?;
    style.note(&format!("{}: {}", path.display(), prepared.layout));
    for note in &prepared.notes {
        style.note(note);
    }
    if prepared.splits.values().flatten().any(|cut| cut.language.is_none()) {
        style.note("Some cuts have no language; --language CODE states it, --overwrite writes again.");
    }
    print(&describe(&prepared, &args.out, &written))
}

fn describe(prepared: &Prepared, out: &Path, written: &[PathBuf]) -> String {
    let mut text = by_split(&prepared.splits, out);
    if !prepared.rejected.is_empty() {
        let mut rows = vec![["REJECTED".to_owned(), "ROWS".to_owned(), "FIRST".to_owned()]];
        for (kind, count) in by_kind(prepared.rejected.iter().map(|rejected| rejected.reason.kind())) {
            let first = prepared.rejected.iter().find(|rejected| rejected.reason.kind() == kind);
            rows.push([
                kind.to_owned(),
                count.to_string(),
                first.map(ToString::to_string).unwrap_or_default(),
            ]);
        }
        let list = written.iter().find(|path| path.ends_with(REJECTED_FILE));
        let list = list.map(|path| format!("all of them: {}\n", path.display())).unwrap_or_default();
        text = format!("{text}\n{}{list}", table(&rows));
    }
    text
}
