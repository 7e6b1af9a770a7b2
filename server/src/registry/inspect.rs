//! What a bundle is, from its configuration and the headers of its weights; the weights themselves are not read.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use safetensors::tensor::Metadata;
use serde::Serialize;
use serde_json::Value;

use super::{Error, digest::sha256, hub::weights_files};

/// A bundle, described.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The directory.
    pub path: PathBuf,
    /// `model_type` of `config.json`.
    pub architecture: String,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Elements per number format.
    pub dtypes: BTreeMap<String, u64>,
    /// Widths, depths and lengths, under the names that `config.json` gives them.
    pub dimensions: BTreeMap<String, u64>,
    /// Entries of the vocabulary.
    pub vocabulary: Option<u64>,
    /// Codes of the languages that it knows, when it names them.
    pub languages: Vec<String>,
    /// What it hears.
    pub features: Option<FeatureSummary>,
    /// Its files, in order.
    pub files: Vec<FileSummary>,
}

/// The features that a bundle's `preprocessor_config.json` asks for.
#[derive(Debug, Clone, Serialize)]
pub struct FeatureSummary {
    /// Samples per second.
    pub sample_rate: u64,
    /// Mel bands.
    pub n_mels: u64,
    /// Samples per transform.
    pub n_fft: u64,
    /// Samples between frames.
    pub hop_length: u64,
    /// Length of a window.
    pub window_secs: Option<u64>,
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

/// What is reported of `config.json`, as far as it is there.
const DIMENSIONS: [&str; 9] = [
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_layers",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "max_source_positions",
    "max_target_positions",
];
/// As the format's own implementation limits it.
const MAX_HEADER_BYTES: u64 = 100_000_000;

impl Summary {
    /// Reads the bundle in `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let config = read_json(&path.join("config.json"))?;
        let weights = weights_files(path).ok_or_else(|| Error::File {
            path: path.to_owned(),
            message: "has no model.safetensors, nor all the shards of a model.safetensors.index.json"
                .to_owned(),
        })?;
        let mut dtypes = BTreeMap::new();
        for file in &weights {
            for (dtype, elements) in elements(file)? {
                *dtypes.entry(dtype).or_insert(0) += elements;
            }
        }
        Ok(Self {
            path: path.to_owned(),
            architecture: architecture(path)?,
            parameters: dtypes.values().sum(),
            dtypes,
            dimensions: DIMENSIONS
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), config.get(name)?.as_u64()?)))
                .collect(),
            vocabulary: config.get("vocab_size").and_then(Value::as_u64),
            languages: languages(path)?,
            features: features(path)?,
            files: files(path)?,
        })
    }
}

/// `model_type` of the bundle in `path`.
pub fn architecture(path: &Path) -> Result<String, Error> {
    let path = path.join("config.json");
    match read_json(&path)?.get("model_type").and_then(Value::as_str) {
        Some(architecture) => Ok(architecture.to_owned()),
        None => Err(Error::File { path, message: "`model_type` is missing".to_owned() }),
    }
}

/// The language codes of the bundle in `path`, sorted; none when it knows only one and does not name it.
pub fn languages(path: &Path) -> Result<Vec<String>, Error> {
    let config = read_optional_json(&path.join("generation_config.json"))?;
    let Some(ids) = config.as_ref().and_then(|config| config.get("lang_to_id")?.as_object()) else {
        return Ok(Vec::new());
    };
    let mut codes: Vec<String> =
        ids.keys().map(|token| token.trim_start_matches("<|").trim_end_matches("|>").to_owned()).collect();
    codes.sort();
    Ok(codes)
}

/// Bytes of all files in a bundle's directory.
pub fn size_bytes(path: &Path) -> Result<u64, Error> {
    Ok(file_paths(path)?.iter().filter_map(|file| fs::metadata(file).ok()).map(|found| found.len()).sum())
}

fn features(path: &Path) -> Result<Option<FeatureSummary>, Error> {
    let Some(config) = read_optional_json(&path.join("preprocessor_config.json"))? else { return Ok(None) };
    let number = |name: &str| config.get(name).and_then(Value::as_u64);
    Ok((|| {
        Some(FeatureSummary {
            sample_rate: number("sampling_rate")?,
            n_mels: number("feature_size")?,
            n_fft: number("n_fft")?,
            hop_length: number("hop_length")?,
            window_secs: number("chunk_length"),
        })
    })())
}

fn files(path: &Path) -> Result<Vec<FileSummary>, Error> {
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

/// Elements per number format, from the header of a safetensors file.
fn elements(path: &Path) -> Result<BTreeMap<String, u64>, Error> {
    let refuse = |message: String| Error::File { path: path.to_owned(), message };
    let wrap = |source| Error::io(path, source);
    let mut file = File::open(path).map_err(wrap)?;
    let file_len = file.metadata().map_err(wrap)?.len();
    let mut prefix = [0; 8];
    if file_len < 8 {
        return Err(refuse(format!("{file_len} bytes are too short for a safetensors file")));
    }
    file.read_exact(&mut prefix).map_err(wrap)?;
    let header_len = u64::from_le_bytes(prefix);
    if header_len > MAX_HEADER_BYTES || header_len > file_len - 8 {
        return Err(refuse(format!(
            "a header of {header_len} bytes in a file of {file_len}: not a safetensors file, or cut off"
        )));
    }
    let mut header = Vec::new();
    file.take(header_len).read_to_end(&mut header).map_err(wrap)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| refuse(format!("its header is malformed: {error}")))?;
    let expected = 8 + header_len + metadata.data_len() as u64;
    if expected != file_len {
        return Err(refuse(format!(
            "its header describes {expected} bytes, the file has {file_len}: cut off or forged"
        )));
    }
    let mut counts = BTreeMap::new();
    for name in metadata.offset_keys() {
        let Some(tensor) = metadata.info(&name) else { continue };
        let elements: u64 = tensor.shape.iter().map(|&n| n as u64).product();
        *counts.entry(tensor.dtype.to_string()).or_insert(0) += elements;
    }
    Ok(counts)
}

fn read_json(path: &Path) -> Result<Value, Error> {
    let bytes = fs::read(path).map_err(|source| Error::io(path, source))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::File { path: path.to_owned(), message: format!("not valid JSON: {error}") })
}

fn read_optional_json(path: &Path) -> Result<Option<Value>, Error> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(weights: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(
            directory.path().join("config.json"),
            r#"{"model_type":"whisper","d_model":4,"vocab_size":9}"#,
        )
        .expect("written");
        fs::write(
            directory.path().join("generation_config.json"),
            r#"{"lang_to_id":{"<|ps|>":2,"<|en|>":1}}"#,
        )
        .expect("written");
        fs::write(directory.path().join("model.safetensors"), weights).expect("written");
        directory
    }

    fn safetensors(header: &str, data_len: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_len, 0);
        bytes
    }

    const HEADER: &str = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"F16","shape":[4],"data_offsets":[24,32]}}"#;

    #[test]
    fn a_bundle_is_described_from_its_headers() {
        let directory = bundle(&safetensors(HEADER, 32));
        let summary = Summary::open(directory.path()).expect("a bundle");
        assert_eq!((summary.architecture.as_str(), summary.parameters), ("whisper", 10));
        assert_eq!(summary.dtypes, BTreeMap::from([("F16".to_owned(), 4), ("F32".to_owned(), 6)]));
        assert_eq!(
            (summary.vocabulary, summary.languages),
            (Some(9), vec!["en".to_owned(), "ps".to_owned()])
        );
        assert_eq!(summary.dimensions, BTreeMap::from([("d_model".to_owned(), 4)]));
        assert_eq!(summary.files.len(), 3);
    }

    #[test]
    fn damaged_weights_are_refused_with_the_file_named() {
        let good = safetensors(HEADER, 32);
        for damaged in [&good[..0], &good[..7], &good[..40], &good[..good.len() - 1], &[0xff; 64][..]] {
            let directory = bundle(damaged);
            let message = Summary::open(directory.path()).expect_err("refused").to_string();
            assert!(message.contains("model.safetensors: "), "{message}");
        }
        let forged = HEADER.replace("[2,3]", "[2,300000000000]");
        let directory = bundle(&safetensors(&forged, 32));
        assert!(Summary::open(directory.path()).is_err());
    }
}
