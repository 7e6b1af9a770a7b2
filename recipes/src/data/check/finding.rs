//! What the checks find, and how bad it is.

use std::{path::Path, sync::Arc};

use serde::{Serialize, Serializer};

use super::texts::Spelling;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training would go wrong, or a score would be.
    Error,
    /// Worth a look; corpora have their reasons.
    Warning,
}

/// What can be wrong, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A row that cannot be read.
    BadRow,
    /// A manifest without rows.
    EmptyManifest,
    /// A recording that is not there or cannot be decoded.
    UnreadableAudio,
    /// A recording that ends early, or whose parts are damaged.
    DamagedAudio,
    /// A cut beyond the end of its recording, or of a stretch without one sample.
    DurationMismatch,
    /// Nothing to hear.
    Silence,
    /// The same sound with different texts.
    ContradictingTexts,
    /// The same sound in several splits.
    AudioInSplits,
    /// Nothing to write: right for noise and foreign words that a model is to pass over, wrong for speech.
    EmptyText,
    /// Several cuts of one name.
    DuplicateId,
    /// The same sound with the same text, within a split.
    DuplicateAudio,
    /// The same text, speaker and length: perhaps the same recording, encoded again.
    SimilarCuts,
    /// A cut of the beginning of a recording whose rest has no cut.
    UnusedRest,
    /// Samples cut off at the largest amplitude.
    Clipping,
    /// Characters that the tokenizer cannot spell.
    UnknownCharacters,
    /// Characters that no text should have: control characters, private ones, U+FFFD.
    OddCharacters,
    /// Letters of several scripts in one text.
    MixedScripts,
    /// A speaker in several splits.
    SpeakerInSplits,
    /// A text in several splits.
    TextInSplits,
}

impl Kind {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::BadRow
            | Self::EmptyManifest
            | Self::UnreadableAudio
            | Self::DamagedAudio
            | Self::DurationMismatch
            | Self::Silence
            | Self::ContradictingTexts
            | Self::AudioInSplits => Severity::Error,
            Self::EmptyText
            | Self::DuplicateId
            | Self::DuplicateAudio
            | Self::SimilarCuts
            | Self::UnusedRest
            | Self::Clipping
            | Self::UnknownCharacters
            | Self::OddCharacters
            | Self::MixedScripts
            | Self::SpeakerInSplits
            | Self::TextInSplits => Severity::Warning,
        }
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::BadRow => "rows that cannot be used",
            Self::EmptyManifest => "manifests without cuts",
            Self::UnreadableAudio => "recordings that cannot be read",
            Self::DamagedAudio => "recordings that end early or are damaged",
            Self::DurationMismatch => "cuts beyond the end of their recording",
            Self::Silence => "cuts of silence",
            Self::ContradictingTexts => "the same sound with different texts",
            Self::AudioInSplits => "the same sound in several splits",
            Self::EmptyText => "cuts without a text",
            Self::DuplicateId => "names that several cuts have",
            Self::DuplicateAudio => "the same sound and text again",
            Self::SimilarCuts => {
                "the same text, speaker and length: perhaps the same recording, encoded again"
            }
            Self::UnusedRest => "recordings of which only the beginning is used",
            Self::Clipping => "cuts that are clipped",
            Self::UnknownCharacters => "texts with characters that the tokenizer cannot spell",
            Self::OddCharacters => "texts with control or damaged characters",
            Self::MixedScripts => "texts in several scripts",
            Self::SpeakerInSplits => "speakers in several splits",
            Self::TextInSplits => "texts in several splits",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The manifest.
    #[serde(serialize_with = "as_text")]
    pub manifest: Arc<Path>,
    /// The row's line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The cut's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    /// The values.
    pub detail: String,
}

fn as_text<S: Serializer>(path: &Arc<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// All findings.
#[derive(Debug, Default)]
pub struct Report {
    /// Cuts that were read.
    pub n_cuts: usize,
    /// Their length together, seconds.
    pub total_secs: f64,
    /// What was found.
    pub findings: Vec<Finding>,
    /// How much of the texts can be spelled, where there is a vocabulary that has to.
    pub spelling: Option<Spelling>,
}

/// Findings of one kind.
#[derive(Debug, Serialize)]
pub struct Group<'a> {
    /// What they are.
    pub kind: Kind,
    /// How bad they are.
    pub severity: Severity,
    /// In the order of the manifests.
    pub findings: Vec<&'a Finding>,
}

impl Report {
    /// The findings by kind, errors first.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups = std::collections::BTreeMap::<Kind, Vec<&Finding>>::new();
        for finding in &self.findings {
            groups.entry(finding.kind).or_default().push(finding);
        }
        let group = |(kind, findings): (Kind, _)| Group { kind, severity: kind.severity(), findings };
        groups.into_iter().map(group).collect()
    }

    /// How many findings are so bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.kind.severity() == severity).count()
    }
}
