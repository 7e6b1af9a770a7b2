//! What a bundle is, from its configuration and the headers of its weights, and the digests of its files.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use audio::FeatureSpec;
use models::{Bundle, BundleSource, Weights};
use serde::Serialize;
use serde_json::Value;

use super::{
    Error,
    digest::{sha256, sha256_of},
};

/// A bundle, described.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The directory; the name of one that is part of the program.
    pub path: PathBuf,
    /// `model_type` of `config.json`.
    pub architecture: String,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Elements per number format.
    pub dtypes: BTreeMap<String, u64>,
    /// Widths, depths and lengths, under the names that `config.json` gives them.
    pub dimensions: Vec<(&'static str, usize)>,
    /// Codes of the languages that it has tokens for; none when it knows only one.
    pub languages: Vec<String>,
    /// Codes of the languages of these that it has learnt to hear.
    pub source_languages: Vec<String>,
    /// Codes of the languages that it translates into.
    pub translation_languages: Vec<String>,
    /// Hypotheses that it asks beam search to keep; 1 is greedy.
    pub beam_size: usize,
    /// What it hears.
    pub features: FeatureSpec,
    /// SHA-256 of what it hears: models with another one cannot share features.
    pub features_digest: String,
    /// Seconds of audio that a window holds.
    pub window_secs: f64,
    /// Its files, in order.
    pub files: Vec<FileSummary>,
}

/// A file of a bundle.
#[derive(Debug, Clone, Serialize)]
pub struct FileSummary {
    /// Its name in the bundle.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

impl Summary {
    /// Reads a bundle.
    pub fn open(source: &BundleSource) -> Result<Self, Error> {
        let bundle = Bundle::from_source(source.clone())?;
        let (_, generation, special) = bundle.description().vocabulary()?;
        Ok(Self {
            path: source.path(""),
            architecture: bundle.architecture().name().to_owned(),
            parameters: bundle.weights().n_parameters() as u64,
            dtypes: dtypes(bundle.weights()),
            dimensions: bundle.architecture().dimensions(),
            source_languages: special.source_languages,
            translation_languages: special.translation_languages,
            languages: special.languages.into_iter().map(|(code, _)| code).collect(),
            beam_size: generation.beam_size(),
            window_secs: bundle.description().window_secs(),
            features: bundle.feature_spec().clone(),
            features_digest: bundle.feature_spec().digest(),
            files: files(source)?,
        })
    }
}

/// Elements per number format.
pub(super) fn dtypes(weights: &Weights) -> BTreeMap<String, u64> {
    let mut dtypes = BTreeMap::new();
    for (_, shape, dtype) in weights.tensors() {
        *dtypes.entry(dtype).or_insert(0) += shape.iter().map(|&n| n as u64).product::<u64>();
    }
    dtypes
}

/// `model_type` of whatever a bundle is, also when it cannot be run here.
pub fn architecture(source: &BundleSource) -> Result<String, Error> {
    let path = source.path("config.json");
    let config: Value = serde_json::from_slice(&source.read("config.json")?)
        .map_err(|error| Error::File { path: path.clone(), message: format!("not valid JSON: {error}") })?;
    match config.get("model_type").and_then(Value::as_str) {
        Some(architecture) => Ok(architecture.to_owned()),
        None => Err(Error::File { path, message: "`model_type` is missing".to_owned() }),
    }
}

/// Bytes of all files in a bundle's directory.
pub fn size_bytes(path: &Path) -> Result<u64, Error> {
    Ok(file_paths(path)?.iter().filter_map(|file| fs::metadata(file).ok()).map(|found| found.len()).sum())
}

/// The files of a bundle, in order.
pub fn files(source: &BundleSource) -> Result<Vec<FileSummary>, Error> {
    let path = match source {
        BundleSource::Dir(path) => path,
        // Both belong to it.
        BundleSource::Adapted { base, adapter } => {
            return Ok([files(&BundleSource::Dir(adapter.clone()))?, files(base)?].concat());
        }
        BundleSource::Memory(bundle) => {
            let summary = |(name, bytes): (&Cow<'static, str>, &Cow<'static, [u8]>)| FileSummary {
                name: name.to_string(),
                bytes: bytes.len() as u64,
                sha256: sha256_of(bytes),
            };
            return Ok(bundle.files.iter().map(summary).collect());
        }
    };
    file_paths(path)?
        .into_iter()
        .map(|file| {
            let bytes = fs::metadata(&file).map_err(|source| Error::io(&file, source))?.len();
            let sha256 = sha256(&file).map_err(|source| Error::io(&file, source))?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(FileSummary { name, bytes, sha256 })
        })
        .collect()
}

fn file_paths(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let wrap = |source| Error::io(path, source);
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(wrap)? {
        let entry = entry.map_err(wrap)?.path();
        if entry.is_file() {
            paths.push(entry);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_described_from_its_headers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/whisper-80");
        let summary = Summary::open(&path.as_path().into()).expect("a bundle");
        assert_eq!((summary.architecture.as_str(), summary.window_secs), ("whisper", 30.0));
        assert_eq!(summary.dtypes.keys().collect::<Vec<_>>(), ["F16"]);
        assert_eq!(summary.parameters, summary.dtypes["F16"]);
        assert_eq!(summary.languages, ["en", "zh", "de", "es", "ja", "fa", "ps", "th"]);
        assert_eq!((summary.translation_languages, summary.beam_size), (vec!["en".to_owned()], 1));
        assert_eq!(summary.features_digest, FeatureSpec::whisper(80).digest());
        assert!(summary.files.iter().any(|file| file.name == "model.safetensors" && file.sha256.len() == 64));
    }

    #[test]
    fn what_is_no_bundle_is_refused_with_the_file_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let message = Summary::open(&directory.path().into()).expect_err("refused").to_string();
        assert!(message.contains("config.json"), "{message}");
    }
}
