//! What a bundle that speaks is: its voices, its languages, its size.

use std::{collections::BTreeMap, path::PathBuf};

use models::{BundleSource, Device, Synthesizer, Voice, Weights};
use serde::Serialize;

use super::{
    Error,
    inspect::{FileSummary, architecture, dtypes, files},
};

/// A bundle that speaks, described.
#[derive(Debug, Clone, Serialize)]
pub struct SpeakerSummary {
    /// The directory; the name of one that is part of the program.
    pub path: PathBuf,
    /// `model_type` of `config.json`.
    pub architecture: String,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Elements per number format.
    pub dtypes: BTreeMap<String, u64>,
    /// Samples per second of what it speaks.
    pub sample_rate: u32,
    /// Codes of the languages that it speaks.
    pub languages: Vec<String>,
    /// Its own voices; the first is the default.
    pub voices: Vec<String>,
    /// Its files, in order.
    pub files: Vec<FileSummary>,
}

impl SpeakerSummary {
    /// Reads a bundle.
    pub fn open(source: &BundleSource) -> Result<Self, Error> {
        let synthesizer = Synthesizer::load(source, &Device::Cpu)?;
        let weights = Weights::from_source(source)?;
        Ok(Self {
            path: source.path(""),
            architecture: architecture(source)?,
            parameters: weights.n_parameters() as u64,
            dtypes: dtypes(&weights),
            sample_rate: synthesizer.sample_rate(),
            languages: synthesizer.languages().to_vec(),
            voices: synthesizer.voices().iter().map(|voice: &Voice| voice.name().to_owned()).collect(),
            files: files(source)?,
        })
    }
}
