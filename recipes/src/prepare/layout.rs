//! The layouts in which corpora come, and how a folder is recognised.

use std::{fmt, path::Path};

#[cfg(feature = "parquet")]
use super::parquet;
use super::{
    Listing, Options, audiofolder, common_voice, esc, fsdd, jsonl, kaldi, ljspeech, parallel_text, webdataset,
};
use crate::data::manifest::Error;

/// How a corpus lies in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Mozilla Common Voice: `clips/` beside `train.tsv`, `dev.tsv`, `test.tsv`, `validated.tsv`.
    CommonVoice,
    /// Hugging Face's audiofolder: `metadata.csv` or `.jsonl`, another table that names its columns, or a `.txt` beside each
    /// recording; folders for the splits.
    AudioFolder,
    /// LJSpeech: `metadata.csv` with `|`, recordings in `wavs/`.
    LjSpeech,
    /// Kaldi's data directories: `wav.scp` and `text`, perhaps `segments`, `utt2spk`, `utt2lang`.
    Kaldi,
    /// WebDataset: tar files with recordings and their texts.
    WebDataset,
    /// Parquet files with recordings inside; understood by builds with the feature `parquet`.
    Parquet,
    /// Manifests: NeMo's, or Lhotse's cuts.
    Jsonl,
    /// The Free Spoken Digit Dataset: `recordings/3_theo_17.wav`.
    Fsdd,
    /// ESC-10 and ESC-50: `001 - Dog bark/1-100032-A.ogg`, sounds without words.
    Esc,
    /// Texts with translations and no recordings: `en-ps.tsv`, or `train.en` beside `train.ps`.
    ParallelText,
}

impl Layout {
    /// All of them, in the order in which a folder is tried.
    pub const ALL: [Self; 10] = [
        Self::CommonVoice,
        Self::Fsdd,
        Self::Esc,
        Self::LjSpeech,
        Self::Kaldi,
        Self::AudioFolder,
        Self::WebDataset,
        Self::Parquet,
        Self::Jsonl,
        Self::ParallelText,
    ];

    /// As the user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CommonVoice => "common_voice",
            Self::AudioFolder => "audiofolder",
            Self::LjSpeech => "ljspeech",
            Self::Kaldi => "kaldi",
            Self::WebDataset => "webdataset",
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
            Self::Fsdd => "fsdd",
            Self::Esc => "esc",
            Self::ParallelText => "parallel_text",
        }
    }

    /// What lies in such a folder.
    pub fn describe(self) -> &'static str {
        match self {
            Self::CommonVoice => "clips/ beside train.tsv, dev.tsv, test.tsv or validated.tsv",
            Self::AudioFolder => {
                "metadata.csv, .tsv or .jsonl (or another table) with file_name or path and transcription, text or \
                 sentence; or a .txt beside each recording"
            }
            Self::LjSpeech => "metadata.csv of id|text|normalised text, recordings in wavs/",
            Self::Kaldi => {
                "wav.scp and text, perhaps segments, utt2spk, utt2lang; or folders of them such as train/"
            }
            Self::WebDataset => ".tar shards of recordings and their texts: a.flac beside a.txt or a.json",
            Self::Parquet => "Parquet with an `audio` column of bytes (builds with the feature `parquet`)",
            Self::Jsonl => "manifests of NeMo or of Lhotse's cuts: .jsonl, .json, compressed (.gz) or not",
            Self::Fsdd => "recordings/ of digit_speaker_index.wav",
            Self::Esc => "folders such as '001 - Dog bark' of fold-clip-take.ogg; sounds without words",
            Self::ParallelText => {
                "texts without recordings: en-ps.tsv of two columns, or train.en beside train.ps, line by line"
            }
        }
    }

    /// The layout of a folder, or of a manifest that is named itself.
    ///
    /// # Errors
    /// A folder that is not there, or looks like none of them; the message lists what is understood.
    pub fn detect(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?;
        let matches = |layout: &Self| match layout {
            Self::CommonVoice => common_voice::matches(path),
            Self::Fsdd => fsdd::matches(path),
            Self::Esc => esc::matches(path),
            Self::LjSpeech => ljspeech::matches(path),
            Self::Kaldi => kaldi::matches(path),
            Self::WebDataset => webdataset::matches(path),
            #[cfg(feature = "parquet")]
            Self::Parquet => parquet::matches(path),
            #[cfg(not(feature = "parquet"))]
            Self::Parquet => false,
            Self::AudioFolder => audiofolder::has_metadata(path),
            Self::Jsonl => jsonl::matches(path),
            Self::ParallelText => parallel_text::matches(path),
        };
        let found = if metadata.is_dir() {
            let texts_beside = || audiofolder::has_texts_beside(path).then_some(Self::AudioFolder);
            Self::ALL.into_iter().find(matches).or_else(texts_beside)
        } else {
            let files = [Self::WebDataset, Self::Parquet, Self::Jsonl, Self::ParallelText];
            files.into_iter().find(matches)
        };
        found.ok_or_else(|| {
            let known: Vec<_> = Self::ALL
                .iter()
                .map(|layout| format!("\n  {:<13} {}", layout.name(), layout.describe()))
                .collect();
            Error::file(path, format!("in none of the layouts that are understood:{}", known.concat()))
        })
    }

    pub(super) fn list(self, path: &Path, options: &Options) -> Result<Listing, Error> {
        match self {
            Self::CommonVoice => common_voice::list(path, options),
            Self::AudioFolder => audiofolder::list(path),
            Self::LjSpeech => ljspeech::list(path),
            Self::Kaldi => kaldi::list(path),
            Self::WebDataset => webdataset::list(path, options),
            #[cfg(feature = "parquet")]
            Self::Parquet => parquet::list(path, options),
            #[cfg(not(feature = "parquet"))]
            Self::Parquet => {
                let message = "this program was built without Parquet; build it with --features parquet";
                Err(Error::file(path, message))
            }
            Self::Jsonl => jsonl::list(path, options),
            Self::Fsdd => fsdd::list(path),
            Self::Esc => esc::list(path),
            Self::ParallelText => parallel_text::list(path, options),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
