//! Where a bundle's files are: in a directory, or in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;

/// Files of a directory that belong to a bundle beside its weights: what a copy takes along.
pub(super) const DESCRIBING: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    TOKENIZER,
    SENTENCEPIECE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "normalizer.json",
    "vocab.json",
    "merges.txt",
];

/// The tokenizer, as Hugging Face's library has it.
const TOKENIZER: &str = "tokenizer.json";
/// What Hugging Face calls a model of SentencePiece.
pub(crate) const SENTENCEPIECE: &str = "tokenizer.model";

/// Where a bundle's files are. A clone is another handle to them.
#[derive(Debug, Clone)]
pub enum BundleSource {
    /// In a directory.
    Dir(PathBuf),
    /// In memory: part of the program, or just made.
    Memory(Arc<MemoryBundle>),
    /// A model whose weights an adapter changes.
    Adapted {
        /// The model.
        base: Box<Self>,
        /// The adapter's directory.
        adapter: PathBuf,
    },
}

/// A bundle's files in memory.
#[derive(Debug)]
pub struct MemoryBundle {
    /// What errors call it.
    pub name: Cow<'static, str>,
    /// Contents by file name.
    pub files: BTreeMap<Cow<'static, str>, Cow<'static, [u8]>>,
}

/// What weights are read from.
pub(crate) trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

/// Whether a file that describes a model lies beside an adapter: training may have changed what its base says, such as that windows
/// are as long as recordings.
fn is_own(adapter: &Path, name: &str) -> bool {
    DESCRIBING.contains(&name) && adapter.join(name).is_file()
}

impl From<&Path> for BundleSource {
    fn from(dir: &Path) -> Self {
        Self::Dir(dir.to_owned())
    }
}

impl std::fmt::Display for BundleSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path("").display().fmt(f)
    }
}

impl BundleSource {
    /// Where the file `name` is, or would be; for one in memory, what errors call it.
    pub fn path(&self, name: &str) -> PathBuf {
        let dir = match self {
            Self::Dir(dir) => dir.clone(),
            Self::Memory(bundle) => PathBuf::from(&*bundle.name),
            Self::Adapted { base, adapter } => match name.is_empty() || is_own(adapter, name) {
                true => adapter.clone(),
                false => return base.path(name),
            },
        };
        if name.is_empty() { dir } else { dir.join(name) }
    }

    /// Whether there is a file `name`.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Dir(dir) => dir.join(name).exists(),
            Self::Memory(bundle) => bundle.files.contains_key(name),
            Self::Adapted { base, adapter } => is_own(adapter, name) || base.has(name),
        }
    }

    /// The file that its tokenizer is in: `tokenizer.json`, or SentencePiece's `tokenizer.model` where there is that alone.
    pub fn tokenizer_file(&self) -> &'static str {
        if !self.has(TOKENIZER) && self.has(SENTENCEPIECE) { SENTENCEPIECE } else { TOKENIZER }
    }

    /// The whole file `name`.
    ///
    /// # Errors
    /// A file that is missing or cannot be read.
    pub fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, Error> {
        let path = self.path(name);
        match self {
            Self::Dir(_) => fs::read(&path).map(Cow::Owned).map_err(|error| Error::file(&path, error)),
            Self::Memory(bundle) => match bundle.files.get(name) {
                Some(bytes) => Ok(Cow::Borrowed(&**bytes)),
                None => Err(Error::file(&path, "no such file")),
            },
            Self::Adapted { base, adapter } => match is_own(adapter, name) {
                true => fs::read(&path).map(Cow::Owned).map_err(|error| Error::file(&path, error)),
                false => base.read(name),
            },
        }
    }

    /// The whole file `name`, which is text.
    pub(crate) fn read_text(&self, name: &str) -> Result<String, Error> {
        String::from_utf8(self.read(name)?.into_owned())
            .map_err(|_| Error::file(&self.path(name), "is not UTF-8 text"))
    }

    /// The file `name`, to be read here and there, and its bytes.
    pub(crate) fn open(&self, name: &str) -> Result<(Box<dyn ReadSeek>, u64), Error> {
        let path = self.path(name);
        match self {
            Self::Dir(_) => {
                let open = || {
                    let file = File::open(&path)?;
                    let n_bytes = file.metadata()?.len();
                    Ok((Box::new(file) as Box<dyn ReadSeek>, n_bytes))
                };
                open().map_err(|error: std::io::Error| Error::file(&path, error))
            }
            Self::Memory(bundle) => match bundle.files.get(name) {
                Some(bytes) => Ok((Box::new(Cursor::new(bytes.clone())), bytes.len() as u64)),
                None => Err(Error::file(&path, "no such file")),
            },
            Self::Adapted { base, .. } => base.open(name),
        }
    }

    /// Copies all but the weights into `dir`.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn copy_description(&self, dir: &Path) -> Result<(), Error> {
        for name in DESCRIBING.into_iter().filter(|name| self.has(name)) {
            let path = dir.join(name);
            fs::write(&path, self.read(name)?)
                .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
        }
        Ok(())
    }
}
