//! The layouts in which corpora come, and how a folder is recognised.

use std::{fmt, path::Path};

use super::{Listing, Options, audiofolder, common_voice, fsdd, jsonl, ljspeech};
use crate::data::manifest::Error;

/// How a corpus lies in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Mozilla Common Voice: `clips/` beside `train.tsv`, `dev.tsv`, `test.tsv`, `validated.tsv`.
    CommonVoice,
    /// Hugging Face's audiofolder: `metadata.csv` or `.jsonl`, or a `.txt` beside each recording; folders for the splits.
    AudioFolder,
    /// LJSpeech: `metadata.csv` with `|`, recordings in `wavs/`.
    LjSpeech,
    /// Manifests: NeMo's, or Lhotse's cuts.
    Jsonl,
    /// The Free Spoken Digit Dataset: `recordings/3_theo_17.wav`.
    Fsdd,
}

impl Layout {
    /// All of them, in the order in which a folder is tried.
    pub const ALL: [Self; 5] =
        [Self::CommonVoice, Self::Fsdd, Self::LjSpeech, Self::AudioFolder, Self::Jsonl];

    /// As the user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CommonVoice => "common_voice",
            Self::AudioFolder => "audiofolder",
            Self::LjSpeech => "ljspeech",
            Self::Jsonl => "jsonl",
            Self::Fsdd => "fsdd",
        }
    }

    /// What lies in such a folder.
    pub fn describe(self) -> &'static str {
        match self {
            Self::CommonVoice => "clips/ beside train.tsv, dev.tsv, test.tsv or validated.tsv",
            Self::AudioFolder => {
                "metadata.csv, .tsv or .jsonl with file_name and transcription, text or sentence; \
                 or a .txt beside each recording"
            }
            Self::LjSpeech => "metadata.csv of id|text|normalised text, recordings in wavs/",
            Self::Jsonl => "manifests of NeMo or of Lhotse's cuts: .jsonl, .json, compressed (.gz) or not",
            Self::Fsdd => "recordings/ of digit_speaker_index.wav",
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
            Self::LjSpeech => ljspeech::matches(path),
            Self::AudioFolder => audiofolder::has_metadata(path),
            Self::Jsonl => jsonl::matches(path),
        };
        let found = if metadata.is_dir() {
            let texts_beside = || audiofolder::has_texts_beside(path).then_some(Self::AudioFolder);
            Self::ALL.into_iter().find(matches).or_else(texts_beside)
        } else {
            jsonl::matches(path).then_some(Self::Jsonl)
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
            Self::Jsonl => jsonl::list(path, options),
            Self::Fsdd => fsdd::list(path),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
